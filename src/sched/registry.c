/*
 * registry.c
 *	  Who is here: databases, pools and workers in shared memory.
 *
 * The commit of a post must find, within a microsecond, the worker that is
 * to be woken, or learn that there is none; and of all processes only the
 * launcher and the managers may start others.  So everybody shares one list
 * of who is here and who is wanted.  This room keeps that list; what it is
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
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "sched/registry.h"

/*
 * XXX More databases than this are not served, and more (database, owner)
 * pairs at a time not at once: their hints are dropped and found by later
 * sweeps.
 */
#define MAX_DATABASES 1024
#define MAX_POOLS 4096

/* When the server has no worker slots: when to try again, when to complain. */
#define MIN_SHORTAGE_DELAY (50 * INT64CONST(1000))
#define MAX_SHORTAGE_DELAY (5 * USECS_PER_SEC)
#define SHORTAGE_GRACE (1 * USECS_PER_SEC)
#define WARNING_INTERVAL (600 * USECS_PER_SEC)

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

/* The caller holds AddinShmemInitLock. */
void
act_registry_shmem_init(void)
{
	HASHCTL		info;
	bool		found;

	act_registry = ShmemInitStruct("actornot registry", registry_size(), &found);
	if (!found)
	{
		memset(act_registry, 0, registry_size());
		act_registry->tranche = LWLockNewTrancheId();
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
	LWLockRegisterTranche(act_registry->tranche, "actornot");

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(Database);
	database_table = ShmemInitHash("actornot databases",
								   MAX_DATABASES, MAX_DATABASES, &info,
								   HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	info.keysize = sizeof(PoolKey);
	info.entrysize = sizeof(Pool);
	pool_table = ShmemInitHash("actornot pools",
							   MAX_POOLS, MAX_POOLS, &info,
							   HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
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
	db->presence = DATABASE_UNKNOWN;
	db->manager = MANAGER_NONE;

	/* Nothing is known: whoever comes first looks for all of it. */
	db->next_due = DT_NOBEGIN;
	db->sweep_at = DT_NOBEGIN;
	db->rotate_at = DT_NOBEGIN;
	db->lease_alarm = DT_NOEND;
	dlist_push_tail(&act_registry->databases, &db->node);
	return db;
}

/* There must be no process of ours, no hold and no entry left. */
void
act_registry_remove_database(Database *db)
{
	dlist_mutable_iter iter;

	Assert(LWLockHeldByMeInMode(&act_registry->lock, LW_EXCLUSIVE));
	Assert(db->manager == MANAGER_NONE && db->nslots == 0 &&
		   db->nevictions == 0 && db->nentries == 0);

	dlist_foreach_modify(iter, &db->pools)
		act_registry_remove_pool(dlist_container(Pool, node, iter.cur));
	dlist_delete(&db->node);
	hash_search(database_table, &db->database, HASH_REMOVE, NULL);
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
 * Have somebody look at this database: its manager, or else the launcher,
 * which starts one.  Told once, until somebody has looked.
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

/* The pool has work and waits for a slot; who began first comes first. */
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

/* A worker slot became free: tell those who wait for one. */
void
act_registry_call_starved(void)
{
	dlist_iter	databases;
	dlist_iter	pools;

	dlist_foreach(databases, &act_registry->databases)
	{
		Database   *db = dlist_container(Database, node, databases.cur);

		dlist_foreach(pools, &db->pools)
		{
			if (dlist_container(Pool, node, pools.cur)->starved_since != 0)
				act_registry_call_manager(db);
		}
	}
}

/* ------------------------------------------------------ shortage of slots */

/*
 * The server has refused to start a process.  There may be a place again soon
 * (it has not yet noticed that one of ours is gone), so try again after 50 ms,
 * then after longer and longer times.  True if it lasts, that is news, and the
 * caller would tell.
 */
bool
act_registry_note_shortage(TimestampTz now, bool tell)
{
	Registry   *registry = act_registry;

	if (registry->short_since == 0)
		registry->short_since = now;
	registry->short_delay = Min(registry->short_delay * 2, MAX_SHORTAGE_DELAY);
	registry->short_delay = Max(registry->short_delay, MIN_SHORTAGE_DELAY);
	registry->short_until = now + registry->short_delay;
	registry->short_slots = 0;
	for (int i = 0; i < registry->nslots; i++)
		registry->short_slots += (registry->slots[i].state != SLOT_FREE);

	if (!tell || now - registry->short_since < SHORTAGE_GRACE ||
		(registry->warned_at != 0 && now - registry->warned_at < WARNING_INTERVAL))
		return false;
	registry->warned_at = now;
	return true;
}

void
act_registry_note_success(void)
{
	act_registry->short_since = 0;
	act_registry->short_until = 0;
	act_registry->short_delay = 0;
}

/* A process of ours has left: the server will have a place in a moment. */
void
act_registry_note_exit(void)
{
	act_registry->short_delay = 0;
}

/* How many workers can be started, as far as we know? */
int
act_registry_count_free(TimestampTz now)
{
	int			used = 0;

	for (int i = 0; i < act_registry->nslots; i++)
		used += (act_registry->slots[i].state != SLOT_FREE);
	if (now < act_registry->short_until)
		return Max(act_registry->short_slots - used, 0);
	return act_registry->nslots - used;
}

/* ---------------------------------------------------------- worker slots */

/* Count a slot among its pool's, by its state. */
static void
count_slot(WorkerSlot *slot, int one)
{
	Pool	   *pool = slot->pool;

	switch (slot->state)
	{
		case SLOT_FREE:
			return;
		case SLOT_STARTING:
			pool->nstarting += one;
			break;
		case SLOT_IDLE:
			if (one > 0)
				dlist_push_head(&pool->idle, &slot->node);
			else
				dlist_delete(&slot->node);
			break;
		case SLOT_WOKEN:
			pool->nwoken += one;
			break;
		case SLOT_BUSY:
		case SLOT_LEAVING:
			break;
	}
	pool->nslots += one;
	pool->db->nslots += one;
	if (slot->state != SLOT_LEAVING)
		pool->nworkers += one;
}

static void
change_slot(WorkerSlot *slot, SlotState state)
{
	Assert(LWLockHeldByMeInMode(&act_registry->lock, LW_EXCLUSIVE));

	count_slot(slot, -1);
	slot->state = state;
	count_slot(slot, +1);
}

/* A process will be started for this pool. */
void
act_registry_claim_slot(WorkerSlot *slot, Pool *pool, TimestampTz now)
{
	Assert(slot->state == SLOT_FREE && slot->pool == NULL);
	Assert(dlist_is_empty(&slot->held));

	slot->pool = pool;
	slot->generation++;
	slot->since = now;
	slot->has_worked = false;
	slot->leave = false;
	change_slot(slot, SLOT_STARTING);
}

/* The process is here: this one. */
void
act_registry_slot_here(WorkerSlot *slot, TimestampTz now)
{
	Assert(slot->state == SLOT_STARTING);

	slot->pid = MyProcPid;
	slot->latch = MyLatch;
	slot->since = now;
	change_slot(slot, SLOT_BUSY);
}

/* It looks for work, or has found some. */
void
act_registry_slot_works(WorkerSlot *slot)
{
	Assert(slot->state == SLOT_BUSY || slot->state == SLOT_IDLE ||
		   slot->state == SLOT_WOKEN);

	if (slot->state != SLOT_BUSY)
		change_slot(slot, SLOT_BUSY);
}

/* It found none and is going to sleep until wake_at. */
void
act_registry_slot_rests(WorkerSlot *slot, TimestampTz wake_at)
{
	Assert(slot->state == SLOT_BUSY);

	slot->wake_at = wake_at;
	change_slot(slot, SLOT_IDLE);
}

/*
 * Wake one worker of the pool, unless one that was woken is still on its way:
 * it will wake the next if there is more than it takes.  True if there is one.
 */
bool
act_registry_wake_worker(Pool *pool)
{
	WorkerSlot *slot;

	if (pool->nwoken > 0)
		return true;
	if (dlist_is_empty(&pool->idle))
		return false;
	slot = dlist_head_element(WorkerSlot, node, &pool->idle);
	Assert(slot->state == SLOT_IDLE);
	change_slot(slot, SLOT_WOKEN);
	SetLatch(slot->latch);
	return true;
}

/* It has decided to go; nobody counts on it any more. */
void
act_registry_slot_leaves(WorkerSlot *slot)
{
	Assert(slot->state == SLOT_BUSY);

	change_slot(slot, SLOT_LEAVING);
}

/* Gone, or never came. */
void
act_registry_free_slot(WorkerSlot *slot)
{
	Assert(slot->state != SLOT_FREE);
	Assert(dlist_is_empty(&slot->held));

	change_slot(slot, SLOT_FREE);
	slot->generation++;
	slot->pool = NULL;
	slot->pid = 0;
	slot->latch = NULL;
	slot->leave = false;
}

/* Ask a worker to go as soon as its transaction has committed. */
void
act_registry_ask_slot(WorkerSlot *slot)
{
	Assert(slot->pid != 0);

	slot->leave = true;
	SetLatch(slot->latch);
}

/* Would a worker that looks now find something? */
bool
act_registry_has_work(const Pool *pool, TimestampTz now)
{
	return pool->nready > 0 || pool->delayed_until <= now;
}
