/*
 * registry.c
 *	  What is here: databases, pools and workers in shared memory.
 *
 * The commit of a post must find, within a microsecond, the worker that is
 * to be woken, or learn that there is none; and of all processes only the
 * launcher and the managers may start others.  So all share one list
 * of what is here and what is wanted.  This room keeps that list; what it is
 * used for is the business of the rooms above: "readyq" (what there is to
 * do), "slot" (workers) and "database" (databases and their managers).
 *
 * Locks: one LWLock guards everything, the ready queue too, because nearly
 * every step looks at both.  It is held for moments only: nothing under it
 * allocates, waits or raises an error, and so it can be taken in a commit
 * callback.  It is a leaf: no other lock is taken under it.
 *
 * Memory: two hash tables and an array, all of a fixed size.  What does not
 * fit is refused, and the callers turn that into a delay, never into a loss
 * (the tables are the truth).
 *
 * Failure: a process that dies on its own frees what it has in exit callbacks
 * (see slot.c and database.c).  After a crash all of this starts out empty,
 * and the launcher looks into every database again.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "sched/registry.h"

/*
 * XXX More databases than this are not served, and more (database, owner)
 * pairs at a time not at once: their hints are dropped and found by later
 * sweeps.
 */
#define MAX_DATABASES 1024
#define MAX_POOLS 4096

int			act_registry_max_workers = 4;

Registry   *act_registry = NULL;
WorkerSlot *act_registry_my_slot = NULL;

static HTAB *database_table = NULL;
static HTAB *pool_table = NULL;

/* ---------------------------------------------------------------- set-up */

/* To be called by _PG_init; the setting needs shared memory. */
void
act_registry_define_settings(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	DefineCustomIntVariable("actornot.max_workers",
							"Number of workers that run batches, in all databases together.",
							"Each of them takes one of max_worker_processes.",
							&act_registry_max_workers,
							4, 1, 256,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
}

static Size
registry_size(void)
{
	return add_size(offsetof(Registry, slots),
					mul_size(act_registry_max_workers, sizeof(WorkerSlot)));
}

Size
act_registry_shmem_size(void)
{
	Size		size = MAXALIGN(registry_size());

	size = add_size(size, hash_estimate_size(MAX_DATABASES, sizeof(Database)));
	return add_size(size, hash_estimate_size(MAX_POOLS, sizeof(Pool)));
}

/*
 * A table of fixed size in shared memory.  "hash" NULL: its keys are hashed as
 * bytes.  The caller holds AddinShmemInitLock; so it is below.
 */
HTAB *
act_registry_init_table(const char *name, int max, Size keysize,
						Size entrysize, HashValueFunc hash)
{
	HASHCTL		info;

	memset(&info, 0, sizeof(info));
	info.keysize = keysize;
	info.entrysize = entrysize;
	info.hash = hash;
	return act_shmem_init_hash(name, max, &info,
							   HASH_ELEM | HASH_FIXED_SIZE |
							   (hash != NULL ? HASH_FUNCTION : HASH_BLOBS));
}

void
act_registry_shmem_init(void)
{
	bool		found;

	act_registry = ShmemInitStruct("actornot registry", registry_size(), &found);
	if (!found)
	{
		memset(act_registry, 0, registry_size());
		act_registry->tranche = act_new_tranche("actornot");
		act_registry->nslots = act_registry_max_workers;
		LWLockInitialize(&act_registry->lock, act_registry->tranche);
		ConditionVariableInit(&act_registry->gone);
		dlist_init(&act_registry->databases);
		for (int i = 0; i < act_registry->nslots; i++)
		{
			act_registry->slots[i].number = i;
			dlist_init(&act_registry->slots[i].held);
		}
	}
	act_register_tranche(act_registry->tranche, "actornot");

	database_table = act_registry_init_table("actornot databases", MAX_DATABASES,
											 sizeof(Oid), sizeof(Database), NULL);
	pool_table = act_registry_init_table("actornot pools", MAX_POOLS,
										 sizeof(PoolKey), sizeof(Pool), NULL);
}

/* ------------------------------------------------------ databases, pools */

Database *
act_registry_find_database(Oid database)
{
	return hash_search(database_table, &database, HASH_FIND, NULL);
}

Database *
act_registry_enter_database(Oid database)
{
	Database   *db;
	bool		found;

	Assert(LWLockHeldByMeInMode(&act_registry->lock, LW_EXCLUSIVE));

	db = hash_search(database_table, &database, HASH_ENTER_NULL, &found);
	if (db == NULL || found)
		return db;

	memset(db, 0, sizeof(Database));
	db->database = database;
	dlist_init(&db->pools);
	db->presence = GATE_NO_EXTENSION;
	db->manager = MANAGER_NONE;

	/* Nothing is known: the first manager looks for all of it. */
	db->next_due = DT_NOBEGIN;
	db->sweep_at = DT_NOBEGIN;
	db->rotate_at = DT_NOBEGIN;
	db->lease_alarm = DT_NOEND;
	dlist_push_tail(&act_registry->databases, &db->node);
	return db;
}

/*
 * Remove a database without the extension, unless something is still going on
 * there or a manager is to look.
 */
bool
act_registry_remove_unused(Database *db)
{
	dlist_mutable_iter iter;

	Assert(LWLockHeldByMeInMode(&act_registry->lock, LW_EXCLUSIVE));

	if (db->presence != GATE_NO_EXTENSION || db->wanted ||
		db->manager != MANAGER_NONE || db->nslots > 0 ||
		db->nevictions > 0 || db->nentries > 0)
		return false;
	dlist_foreach_modify(iter, &db->pools)
		act_registry_remove_pool(dlist_container(Pool, node, iter.cur));
	dlist_delete(&db->node);
	hash_search(database_table, &db->database, HASH_REMOVE, NULL);
	return true;
}

Pool *
act_registry_find_pool(Oid database, Oid owner)
{
	PoolKey		key = {database, owner};

	return hash_search(pool_table, &key, HASH_FIND, NULL);
}

Pool *
act_registry_enter_pool(Oid database, Oid owner)
{
	PoolKey		key = {database, owner};
	Database   *db;
	Pool	   *pool;
	bool		found;

	Assert(LWLockHeldByMeInMode(&act_registry->lock, LW_EXCLUSIVE));

	pool = hash_search(pool_table, &key, HASH_FIND, NULL);
	if (pool != NULL)
		return pool;
	db = act_registry_enter_database(database);
	if (db == NULL)
		return NULL;
	pool = hash_search(pool_table, &key, HASH_ENTER_NULL, &found);
	if (pool == NULL)
		return NULL;

	memset(pool, 0, sizeof(Pool));
	pool->key = key;
	pool->db = db;
	dlist_init(&pool->idle);
	dlist_init(&pool->ready);
	for (int i = 0; i < ACT_DELAYS; i++)
		dlist_init(&pool->delayed[i]);
	pool->delayed_until = DT_NOEND;
	dlist_push_tail(&db->pools, &pool->node);
	return pool;
}

/* There must be no worker and no entry left. */
void
act_registry_remove_pool(Pool *pool)
{
	Assert(LWLockHeldByMeInMode(&act_registry->lock, LW_EXCLUSIVE));
	Assert(pool->nslots == 0 && pool->nentries == 0);

	act_registry_end_starved(pool);
	dlist_delete(&pool->node);
	hash_search(pool_table, &pool->key, HASH_REMOVE, NULL);
}

/* -------------------------------------------------------------- wake-ups */

void
act_registry_call_launcher(void)
{
	if (act_registry->launcher_latch != NULL)
		SetLatch(act_registry->launcher_latch);
}

/*
 * Call for this database its manager, or else the launcher, which starts one.
 * They are called once, until one of them has looked.
 */
void
act_registry_call_manager(Database *db)
{
	if (db->wanted)
		return;
	db->wanted = true;
	if (db->manager == MANAGER_RUNNING)
		SetLatch(db->manager_latch);
	else if (db->manager == MANAGER_NONE && db->nevictions == 0)
		act_registry_call_launcher();

	/* A manager that starts or leaves looks at "wanted" by itself. */
}

/* The pool has work and waits for a slot; which began first comes first. */
void
act_registry_set_starved(Pool *pool, TimestampTz now)
{
	if (pool->starved_since == 0)
	{
		pool->starved_since = now;
		act_registry->nstarved++;
	}
}

void
act_registry_end_starved(Pool *pool)
{
	if (pool->starved_since != 0)
	{
		pool->starved_since = 0;
		act_registry->nstarved--;
	}
}

/* Would a worker that looks now find something? */
bool
act_registry_has_work(const Pool *pool, TimestampTz now)
{
	return pool->nready > 0 || pool->delayed_until <= now;
}
