/*
 * entry.c
 *	  Entries of the ready queue: their states, their lists, their number.
 *
 * An entry is the hint that an entity has, or may have, something to do.
 *
 *		queued		in its pool's list of ready ones, first come first served:
 *					by the number of its ticket, which is no time, for clocks
 *					step back; what was popped but not run keeps its ticket
 *		delayed		another executor had its lock: becomes queued when its time has
 *					come, or when it is pushed
 *		running		popped by a worker, in that worker's list
 *		again		running, and pushed since
 *		lent		under a lease of a program outside, up to its end
 *
 * Each queued entry is in the list of its runner's lane, too (see lane.c).
 * The lent ones of a database are in a heap by the end of their leases
 * (the server's pairing heap: Fredman, Sedgewick, Sleator and Tarjan, 1986).
 *
 * The delays are 1, 2, 4 ... 1024 ms, and for each of them a pool has a list.
 * Entries enter at the tail as time goes by, so that to keep a list sorted is
 * seldom more than a look at its last one (the first process at the lock may
 * have read the clock later, and clocks step back), and the earliest of all is
 * the earliest of eleven heads.
 *
 * One pool cannot take all places: it may have three times as many entries as
 * are free, so that the first takes at most three quarters of all, the next
 * of what is then left.
 *
 * This room keeps the books: each change of state has its function, which
 * keeps the lists and the counts of the pool right.  When which change is due
 * is the business of readyq.c.
 *
 * Locks: the registry's.  Memory: a hash table of fixed size and the last
 * ticket; the lists are inside of the entries.  Failure: see readyq.c.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "sched/entry.h"
#include "sched/lane.h"
#include "sched/registry.h"

int			act_entry_limit = 65536;

static HTAB *entry_table = NULL;

/* The last ticket that was given; guarded by the registry's lock. */
static uint64 *last_ticket = NULL;

/* ---------------------------------------------------------------- set-up */

/* To be called by _PG_init; the setting needs shared memory. */
void
act_entry_define_settings(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	DefineCustomIntVariable("actornot.ready_queue_size",
							"Number of entities that can be known to be ready at a time.",
							"What does not fit is found a little later. An entry takes about 200 bytes.",
							&act_entry_limit,
							65536, 1024, 16 * 1024 * 1024,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
}

Size
act_entry_shmem_size(void)
{
	return add_size(hash_estimate_size(act_entry_limit, sizeof(ReadyEntry)),
					MAXALIGN(sizeof(uint64)));
}

/* The hash of an entity is a good one; the rest only has to be mixed in. */
static uint32
hash_entry(const void *key, Size keysize)
{
	const EntryKey *entry = key;
	uint64		hash = (uint64) entry->entity.hash;

	return (uint32) (hash ^ (hash >> 32)) ^ entry->entity.check ^
		murmurhash32((uint32) entry->entity.runner ^
					 (entry->database * 0x9E3779B1U));
}

/* The caller holds AddinShmemInitLock. */
void
act_entry_shmem_init(void)
{
	bool		found;

	entry_table = act_registry_init_table("actornot ready entries",
										  act_entry_limit, sizeof(EntryKey),
										  sizeof(ReadyEntry), hash_entry);
	last_ticket = ShmemInitStruct("actornot ready tickets", sizeof(uint64),
								  &found);
	if (!found)
		*last_ticket = 0;
}

/* ------------------------------------------------------- coming and going */

ReadyEntry *
act_entry_find(Oid database, const EntityKey *entity)
{
	EntryKey	key = {*entity, database, 0};

	return hash_search(entry_table, &key, HASH_FIND, NULL);
}

int
act_entry_count_free(void)
{
	return act_entry_limit - (int) hash_get_num_entries(entry_table);
}

/* How many more entries this pool may have; can be negative. */
int
act_entry_room(const Pool *pool)
{
	/* The largest k with nentries + k <= 3 * (free - k). */
	return (int) ((3 * (int64) act_entry_count_free() - pool->nentries) / 4);
}

static void
enter_pool(ReadyEntry *entry, Pool *pool)
{
	entry->pool = pool;
	pool->nentries++;
	pool->db->nentries++;
}

/*
 * The entry leaves its pool for another, or for good.  If hints of the pool
 * have been refused and half of its entries are done, it is time to search
 * for them.
 */
static void
leave_pool(ReadyEntry *entry)
{
	Pool	   *pool = entry->pool;

	pool->nentries--;
	pool->db->nentries--;
	entry->pool = NULL;
	if (pool->dropped && act_entry_room(pool) >= pool->nentries)
	{
		pool->dropped = false;
		pool->db->sweep_at = Min(pool->db->sweep_at,
								 GetCurrentTimestamp());
		act_registry_call_manager(pool->db);
	}
}

/* A new entry, to be queued by the caller; NULL if there is no place. */
ReadyEntry *
act_entry_add(const EntityKey *entity, Pool *pool)
{
	EntryKey	key = {*entity, pool->key.database, 0};
	ReadyEntry *entry;
	bool		found;

	if (act_entry_room(pool) <= 0)
		return NULL;
	entry = hash_search(entry_table, &key, HASH_ENTER_NULL, &found);
	if (entry == NULL)
		return NULL;
	Assert(!found);
	entry->state = ENTRY_NEW;
	entry->slot = NULL;
	entry->delay = -1;
	enter_pool(entry, pool);
	return entry;
}

/* Off the queue; by a worker only after act_entry_release. */
void
act_entry_remove(ReadyEntry *entry)
{
	Assert(entry->slot == NULL);

	if (entry->state == ENTRY_QUEUED || entry->state == ENTRY_DELAYED ||
		entry->state == ENTRY_LENT)
		act_entry_withdraw(entry);
	leave_pool(entry);
	hash_search(entry_table, &entry->key, HASH_REMOVE, NULL);
}

/* To another pool; it must be on no list, and is to be queued there. */
void
act_entry_change_pool(ReadyEntry *entry, Pool *pool)
{
	leave_pool(entry);
	enter_pool(entry, pool);
}

/* ------------------------------------------------------ changes of state */

/* The pool's two summaries, after its lists have changed. */
static void
note_first_ready(Pool *pool)
{
	if (pool->nready > 0)
		pool->ready_since =
			dlist_head_element(ReadyEntry, node, &pool->ready)->since;
}

static void
note_first_delayed(Pool *pool)
{
	pool->delayed_until = DT_NOEND;
	if (pool->ndelayed == 0)
		return;
	for (int i = 0; i < ACT_DELAYS; i++)
	{
		TimestampTz until;

		if (dlist_is_empty(&pool->delayed[i]))
			continue;
		until = dlist_head_element(ReadyEntry, node,
								   &pool->delayed[i])->since;
		pool->delayed_until = Min(pool->delayed_until, until);
	}
}

/*
 * Put an entry with a ticket into a list, in front of those that came later.
 * "offset" is that of the node in the entry.
 */
static void
insert_by_ticket(dlist_head *list, dlist_node *node, Size offset)
{
	uint64		ticket = ((ReadyEntry *) ((char *) node - offset))->ticket;
	dlist_iter	iter;

	dlist_foreach(iter, list)
	{
		if (((ReadyEntry *) ((char *) iter.cur - offset))->ticket > ticket)
		{
			dlist_insert_before(iter.cur, node);
			return;
		}
	}
	dlist_push_tail(list, node);
}

/* It has been put into its pool's list: the rest, but for its lane's list. */
static void
enter_queue(ReadyEntry *entry)
{
	Pool	   *pool = entry->pool;

	entry->state = ENTRY_QUEUED;
	pool->nready++;
	note_first_ready(pool);
	entry->lane = act_lane_enter(pool->key.database,
								 entry->key.entity.runner);
	if (entry->lane != NULL)
		entry->lane->nready++;
	else
		pool->nunlisted++;
}

/* new, or running or again (and released) -> queued */
void
act_entry_queue(ReadyEntry *entry, TimestampTz now)
{
	Assert(entry->state == ENTRY_NEW || entry->state == ENTRY_RUNNING ||
		   entry->state == ENTRY_AGAIN);
	Assert(entry->slot == NULL);

	entry->since = now;
	entry->ticket = ++*last_ticket;
	dlist_push_tail(&entry->pool->ready, &entry->node);
	enter_queue(entry);
	if (entry->lane != NULL)
	{
		dlist_push_tail(&entry->lane->ready, &entry->lane_node);
		act_lane_wake_one(entry->lane);
	}
}

/*
 * running or again (and released) -> queued, where it was: it has not been
 * run.  Those in front of it were held by workers as well, so they are few.
 */
void
act_entry_return(ReadyEntry *entry)
{
	Assert(entry->state == ENTRY_RUNNING || entry->state == ENTRY_AGAIN);
	Assert(entry->slot == NULL);

	insert_by_ticket(&entry->pool->ready, &entry->node,
					 offsetof(ReadyEntry, node));
	enter_queue(entry);
	if (entry->lane != NULL)
	{
		insert_by_ticket(&entry->lane->ready, &entry->lane_node,
						 offsetof(ReadyEntry, lane_node));
		act_lane_wake_one(entry->lane);
	}
}

/* Put an entry behind those of a list that are due no later. */
static void
insert_by_time(dlist_head *list, ReadyEntry *entry)
{
	dlist_node *after = &list->head;

	if (!dlist_is_empty(list))
		after = dlist_tail_node(list);
	while (after != &list->head &&
		   dlist_container(ReadyEntry, node, after)->since > entry->since)
		after = after->prev;
	if (after == &list->head)
		dlist_push_head(list, &entry->node);
	else
		dlist_insert_after(after, &entry->node);
}

/* new, running, again (and released) -> delayed; twice as long as before */
void
act_entry_delay(ReadyEntry *entry, TimestampTz now)
{
	Pool	   *pool = entry->pool;

	Assert(entry->state == ENTRY_RUNNING || entry->state == ENTRY_AGAIN ||
		   entry->state == ENTRY_NEW);
	Assert(entry->slot == NULL);

	entry->delay = Min(entry->delay + 1, ACT_DELAYS - 1);
	entry->state = ENTRY_DELAYED;
	entry->since = now + (INT64CONST(1000) << entry->delay);
	insert_by_time(&pool->delayed[entry->delay], entry);
	pool->ndelayed++;
	pool->delayed_until = Min(pool->delayed_until, entry->since);
}

static int
compare_leases(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	TimestampTz x = pairingheap_const_container(ReadyEntry, lease_node, a)->since;
	TimestampTz y = pairingheap_const_container(ReadyEntry, lease_node, b)->since;

	/* The server's heap gives the greatest first. */
	return (x < y) - (x > y);
}

/* new, queued, delayed, running or again (and released) -> lent */
void
act_entry_lend(ReadyEntry *entry, TimestampTz until)
{
	Database   *db = entry->pool->db;

	Assert(entry->slot == NULL);
	if (entry->state != ENTRY_NEW && entry->state != ENTRY_RUNNING &&
		entry->state != ENTRY_AGAIN)
		act_entry_withdraw(entry);

	entry->state = ENTRY_LENT;
	entry->since = until;
	entry->delay = -1;
	entry->posted = false;
	db->leases.ph_compare = compare_leases;
	pairingheap_add(&db->leases, &entry->lease_node);
	if (until >= db->lease_alarm)
		return;

	/* The process that looks at the alarm has to look earlier. */
	db->lease_alarm = until;
	if (db->manager == MANAGER_RUNNING)
		act_registry_call_manager(db);
	else
		act_registry_call_launcher();
}

/* The entry whose lease ends first, or NULL. */
ReadyEntry *
act_entry_first_lent(Database *db)
{
	if (pairingheap_is_empty(&db->leases))
		return NULL;
	return pairingheap_container(ReadyEntry, lease_node,
								 pairingheap_first(&db->leases));
}

/*
 * When the manager has to look at the leases.  The alarm is not taken back
 * when a lease ends early; it is set anew when it rings.
 */
TimestampTz
act_entry_lease_alarm(Database *db, TimestampTz now)
{
	if (db->lease_alarm <= now)
	{
		ReadyEntry *first = act_entry_first_lent(db);

		db->lease_alarm = first == NULL ? DT_NOEND : first->since;
	}
	return db->lease_alarm;
}

/* queued, delayed, lent -> new: taken off its list */
void
act_entry_withdraw(ReadyEntry *entry)
{
	Pool	   *pool = entry->pool;

	Assert(entry->state == ENTRY_QUEUED || entry->state == ENTRY_DELAYED ||
		   entry->state == ENTRY_LENT);

	if (entry->state == ENTRY_LENT)
	{
		pairingheap_remove(&pool->db->leases, &entry->lease_node);
		entry->state = ENTRY_NEW;
		return;
	}
	dlist_delete(&entry->node);
	if (entry->state == ENTRY_QUEUED)
	{
		pool->nready--;
		note_first_ready(pool);
		if (entry->lane != NULL)
		{
			dlist_delete(&entry->lane_node);
			entry->lane->nready--;
			entry->lane = NULL;
		}
		else
			pool->nunlisted--;
	}
	else
	{
		pool->ndelayed--;
		note_first_delayed(pool);
	}
	entry->state = ENTRY_NEW;
}

/* Queue those whose delay is over. */
void
act_entry_resume_due(Pool *pool, TimestampTz now)
{
	if (pool->delayed_until > now)
		return;
	for (int i = 0; i < ACT_DELAYS; i++)
	{
		while (!dlist_is_empty(&pool->delayed[i]))
		{
			ReadyEntry *entry = dlist_head_element(ReadyEntry, node,
												   &pool->delayed[i]);

			if (entry->since > now)
				break;
			act_entry_requeue(entry, pool, now);
		}
	}
}

/* queued, delayed, lent -> queued: from its list to the end of this pool's */
void
act_entry_requeue(ReadyEntry *entry, Pool *pool, TimestampTz now)
{
	act_entry_withdraw(entry);
	if (entry->pool != pool)
		act_entry_change_pool(entry, pool);
	act_entry_queue(entry, now);
}

/* queued -> running, by this worker */
void
act_entry_run(ReadyEntry *entry, WorkerSlot *slot)
{
	Assert(entry->state == ENTRY_QUEUED);

	act_entry_withdraw(entry);
	entry->state = ENTRY_RUNNING;
	entry->slot = slot;
	dlist_push_tail(&slot->held, &entry->node);
}

/* running -> again */
void
act_entry_repeat(ReadyEntry *entry)
{
	Assert(entry->state == ENTRY_RUNNING);

	entry->state = ENTRY_AGAIN;
}

/* running, again: taken from its worker, to be queued, delayed or removed */
void
act_entry_release(ReadyEntry *entry)
{
	Assert(entry->state == ENTRY_RUNNING || entry->state == ENTRY_AGAIN);
	Assert(entry->slot != NULL);

	dlist_delete(&entry->node);
	entry->slot = NULL;
}
