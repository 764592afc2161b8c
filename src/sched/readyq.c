/*
 * readyq.c
 *	  The ready queue: hints in shared memory that say which entities have work.
 *
 * A post says at its commit which entity has become ready, so that a worker
 * finds it without looking into any table.  An entry is a hint: it can be
 * wrong (the worker finds nothing) and it can be lost (the sweep finds the
 * entity later), and neither costs a message.
 *
 * What is promised: an entity that was pushed and not refused stays here until
 * a worker has finished with it by READY_DROP and it was not pushed in
 * between.  A worker that exits puts back what it held, after its abort.
 * A refused hint makes a sweep due, as soon as there is room for what it
 * finds.
 *
 * Locks: the registry's, see registry.c.  Memory: all of a fixed size, in shared
 * memory; the entries and their lists are in entry.c.
 *
 * Failure: after a crash the queue is empty, and the sweep fills it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "sched/entry.h"
#include "sched/hints.h"
#include "sched/lane.h"
#include "sched/readyq.h"
#include "sched/registry.h"
#include "sched/slot.h"

/* The lock is released after this many keys, so that others can take it. */
#define PUSH_CHUNK 256

/* The first delay of entries whose worker died of an error: 64 ms. */
#define DELAY_AFTER_DEATH 6

bool
act_readyq_attached(void)
{
	return act_registry != NULL;
}

int
act_readyq_size(void)
{
	return act_entry_limit;
}

/* ------------------------------------------------------------------- push */

/*
 * A hint was refused; "pool" is NULL if there was no place for a pool.
 * Sweeping at once would find no room: it becomes due when half of the pool's
 * entries are done (see entry.c), or, if it has none, after a while.
 */
void
act_readyq_note_refused(Oid database, Pool *pool, TimestampTz now)
{
	Database   *db;

	if (pool != NULL && pool->nentries > 0)
	{
		pool->dropped = true;
		return;
	}
	db = act_registry_enter_database(database);
	if (db == NULL)
		return;
	db->sweep_at = Min(db->sweep_at, now + ACT_REFUSED_SWEEP_DELAY);
	act_registry_call_manager(db);
}

/*
 * There is work in the pool, and perhaps no worker knows: wake a worker that
 * sleeps, or else have the manager see to it that there is one in time.
 */
void
act_readyq_announce(Pool *pool)
{
	if (pool->nready == 0 || !OidIsValid(pool->key.owner) ||
		act_slot_wake_worker(pool))
		return;
	if (!pool->wants_help)
	{
		pool->wants_help = true;
		act_registry_call_manager(pool->db);
	}
}

/* "unlent": the entity is known not to be lent, whatever the entry says. */
static void
push_entry(Pool *pool, const EntityKey *entity, TimestampTz now, bool unlent)
{
	ReadyEntry *entry = act_entry_find(pool->key.database, entity);

	if (entry == NULL)
	{
		entry = act_entry_add(entity, pool);
		if (entry != NULL)
			act_entry_queue(entry, now);
		else
			act_readyq_note_refused(pool->key.database, pool, now);
		return;
	}
	switch ((EntryState) entry->state)
	{
		case ENTRY_NEW:
		case ENTRY_AGAIN:
			break;
		case ENTRY_RUNNING:
			act_entry_repeat(entry);
			break;
		case ENTRY_LENT:
			if (unlent)
				act_entry_requeue(entry, pool, now);
			else
				entry->posted = true;
			break;
		case ENTRY_DELAYED:
			act_entry_requeue(entry, pool, now);
			break;
		case ENTRY_QUEUED:
			if (entry->pool != pool)
				act_entry_requeue(entry, pool, now);
			break;
	}
}

static void
push(Oid database, Oid owner, const EntityKey *keys, int nkeys, bool unlent)
{
	TimestampTz now;

	if (!act_readyq_attached() || nkeys <= 0)
		return;

	now = GetCurrentTimestamp();
	for (int done = 0; done < nkeys; done += PUSH_CHUNK)
	{
		int			end = Min(nkeys, done + PUSH_CHUNK);
		Pool	   *pool;

		act_registry_lock();
		pool = act_registry_enter_pool(database, owner);
		if (pool != NULL)
		{
			for (int i = done; i < end; i++)
				push_entry(pool, &keys[i], now, unlent);

			/* What the manager finds is no reason for it to search again. */
			if (pool->db->manager_pid != MyProcPid)
				pool->db->pushes++;
			act_readyq_announce(pool);
		}
		else
			act_readyq_note_refused(database, NULL, now);
		for (int i = done; act_lane_is_waited() && i < end; i++)
			act_lane_wake_entity(database, &keys[i]);
		act_registry_unlock();
	}
}

void
act_readyq_push(Oid database, Oid owner, const EntityKey *keys, int nkeys)
{
	push(database, owner, keys, nkeys, false);
}

void
act_readyq_requeue(Oid database, Oid owner, const EntityKey *keys, int nkeys)
{
	push(database, owner, keys, nkeys, true);
}

void
act_readyq_request_sweep(Oid database)
{
	TimestampTz now;
	Database   *db;

	if (!act_readyq_attached())
		return;

	now = GetCurrentTimestamp();
	act_registry_lock();
	db = act_registry_enter_database(database);
	if (db != NULL)
	{
		db->sweep_requests++;
		db->sweep_at = Min(db->sweep_at, now);
		act_registry_call_manager(db);
	}
	act_lane_wake_all(database);
	act_registry_unlock();
}

/* How often a sweep was asked for in this database. */
uint64
act_readyq_sweep_requests(void)
{
	Database   *db;
	uint64		n = 0;

	act_registry_lock();
	db = act_registry_find_database(MyDatabaseId);
	if (db != NULL)
		n = db->sweep_requests;
	act_registry_unlock();
	return n;
}

/* ---------------------------------------------------------- pop and finish */

/*
 * This worker will be busy now.  If it is not the one that wakes up for the
 * pool's earliest delayed entry, another one has to be.
 */
void
act_readyq_watch_delayed(Pool *pool)
{
	dlist_iter	iter;

	if (pool->ndelayed == 0 || !OidIsValid(pool->key.owner))
		return;
	dlist_foreach(iter, &pool->idle)
	{
		WorkerSlot *slot = dlist_container(WorkerSlot, node, iter.cur);

		if (slot->wake_at <= pool->delayed_until)
			return;
	}
	if (!act_slot_wake_worker(pool) && !pool->wants_help)
	{
		pool->wants_help = true;
		act_registry_call_manager(pool->db);
	}
}

/*
 * Exit callback of a worker: what it held is queued again.  Registered after
 * the connection was made, but as an on_shmem_exit callback, and these run
 * when the transaction has been aborted and its locks are gone.
 */
static void
requeue_held(int code, Datum arg)
{
	WorkerSlot *slot = act_registry_my_slot;
	TimestampTz now = GetCurrentTimestamp();

	if (slot == NULL)
		return;
	act_registry_lock();
	while (!dlist_is_empty(&slot->held))
	{
		ReadyEntry *entry = dlist_head_element(ReadyEntry, node, &slot->held);

		act_entry_release(entry);
		if (code == 0 || slot->leave)
			act_entry_queue(entry, now);
		else
		{
			/* Perhaps it killed the worker, and will do so again. */
			entry->delay = Max(entry->delay, DELAY_AFTER_DEATH - 1);
			act_entry_delay(entry, now);
		}
	}
	act_readyq_announce(slot->pool);
	act_readyq_watch_delayed(slot->pool);
	act_registry_unlock();
}

/*
 * Take up to max entries of this worker's pool, but no more than its share:
 * they are run one after the other, and others may be free before that.
 */
int
act_readyq_pop(EntityKey *keys, int max)
{
	static bool registered = false;
	WorkerSlot *slot = act_registry_my_slot;
	TimestampTz now;
	Pool	   *pool;
	int			share;
	int			n = 0;

	if (slot == NULL)
		return 0;
	if (!registered)
	{
		on_shmem_exit(requeue_held, 0);
		registered = true;
	}

	now = GetCurrentTimestamp();
	act_registry_lock();
	pool = slot->pool;
	act_entry_resume_due(pool, now);
	share = pool->nready / Max(pool->nworkers, 1);
	max = Min(max, Max(share, 1));
	while (n < max && pool->nready > 0)
	{
		ReadyEntry *entry = dlist_head_element(ReadyEntry, node, &pool->ready);

		act_entry_run(entry, slot);
		keys[n++] = entry->key.entity;
	}
	if (pool->nready + pool->ndelayed == 0)
	{
		/* The next one is to tell again. */
		pool->wants_help = false;
		act_registry_end_starved(pool);
	}
	act_readyq_announce(pool);
	act_readyq_watch_delayed(pool);
	act_registry_unlock();
	return n;
}

/*
 * An entry that this worker holds, taken off its list.  NULL if it has been
 * moved to another pool meanwhile.
 */
static ReadyEntry *
release_entry(const EntityKey *entity)
{
	WorkerSlot *slot = act_registry_my_slot;
	ReadyEntry *entry = act_entry_find(slot->pool->key.database, entity);

	if (entry == NULL || entry->slot != slot)
		return NULL;
	act_entry_release(entry);
	return entry;
}

/*
 * Those that were not run go back where they were: behind the others they
 * could come last each time.  From the last one on, so that each has its place
 * in front of the one before.
 */
static void
return_not_run(const EntityKey *keys, const ReadyOutcome *outcomes, int nkeys)
{
	for (int i = nkeys - 1; i >= 0; i--)
	{
		ReadyEntry *entry;

		if (outcomes[i] != READY_NOT_RUN)
			continue;
		entry = release_entry(&keys[i]);
		if (entry == NULL)
			continue;
		act_entry_return(entry);
		act_lane_wake_entity(act_registry_my_slot->pool->key.database,
							 &keys[i]);
	}
}

/*
 * Entries that were popped are done, or have to wait.  No worker is woken for
 * what is queued again: the caller pops next, and that tells the others.
 */
void
act_readyq_finish(const EntityKey *keys, const ReadyOutcome *outcomes,
				  int nkeys)
{
	TimestampTz now;

	if (act_registry_my_slot == NULL || nkeys <= 0)
		return;

	now = GetCurrentTimestamp();
	act_registry_lock();
	return_not_run(keys, outcomes, nkeys);
	for (int i = 0; i < nkeys; i++)
	{
		ReadyEntry *entry;
		bool		again;

		if (outcomes[i] == READY_NOT_RUN)
			continue;
		entry = release_entry(&keys[i]);
		if (entry == NULL)
			continue;
		again = (entry->state == ENTRY_AGAIN);
		if (outcomes[i] == READY_BUSY)
		{
			/* A push may mean that the lock is free now. */
			if (again)
				entry->delay = -1;
			act_entry_delay(entry, now);
			continue;
		}
		entry->delay = -1;
		if (outcomes[i] == READY_AGAIN || again)
			act_entry_queue(entry, now);
		else
			act_entry_remove(entry);
		act_lane_wake_entity(act_registry_my_slot->pool->key.database,
							 &keys[i]);
	}
	act_registry_unlock();
}

void
act_readyq_move(const EntityKey *key, Oid owner)
{
	TimestampTz now;
	ReadyEntry *entry;

	if (act_registry_my_slot == NULL)
		return;

	now = GetCurrentTimestamp();
	act_registry_lock();
	entry = release_entry(key);
	if (entry != NULL)
	{
		Oid			database = entry->key.database;
		Pool	   *pool = act_registry_enter_pool(database, owner);

		entry->delay = -1;
		if (pool == NULL || (pool != entry->pool && act_entry_room(pool) <= 0))
		{
			act_readyq_note_refused(database, pool, now);
			act_entry_remove(entry);
		}
		else
		{
			act_entry_change_pool(entry, pool);
			act_entry_queue(entry, now);
			act_readyq_announce(pool);
		}
	}
	act_registry_unlock();
}

/* ------------------------------------------------------------------ room */

/*
 * How many more entities may be pushed, of any pool: what fits into the
 * fullest pool that has a chance to get emptier.  Others' hints are then
 * dropped and swept for when they can be run.
 */
int
act_readyq_room(Oid database)
{
	Database   *db;
	dlist_iter	iter;
	int			room;

	if (!act_readyq_attached())
		return PG_INT32_MAX;

	act_registry_lock();
	room = (int) (3 * (int64) act_entry_count_free() / 4);
	db = act_registry_find_database(database);
	if (db != NULL)
	{
		dlist_foreach(iter, &db->pools)
		{
			Pool	   *pool = dlist_container(Pool, node, iter.cur);

			if (pool->gate == GATE_OPEN && pool->nentries > 0 &&
				OidIsValid(pool->key.owner))
				room = Min(room, act_entry_room(pool));
		}
	}
	act_registry_unlock();
	return Max(room, 0);
}

/*
 * How many more entities may be pushed in all.  A part is left for the hints
 * of posts meanwhile.
 */
int
act_readyq_room_in_all(void)
{
	int			room;

	if (!act_readyq_attached())
		return PG_INT32_MAX;

	act_registry_lock();
	room = (int) (3 * (int64) act_entry_count_free() / 4);
	act_registry_unlock();
	return room;
}

/*
 * How many more entities of this pool the sweep may push, and how many wait in
 * it.  One that cannot be served at all, or not by us, is nothing to wait for:
 * its hints are dropped and swept for when it has fewer.
 */
static int
get_pool_room(Oid database, Oid owner, int *ready)
{
	Pool	   *pool;
	int			room;

	*ready = 0;
	if (!act_readyq_attached() || !OidIsValid(owner))
		return PG_INT32_MAX;

	act_registry_lock();
	pool = act_registry_find_pool(database, owner);
	if (pool == NULL)
		room = (int) (3 * (int64) act_entry_count_free() / 4);
	else if (pool->gate == GATE_OPEN)
	{
		room = act_entry_room(pool);
		*ready = pool->nready;
	}
	else
		room = PG_INT32_MAX;
	act_registry_unlock();
	return Max(room, 0);
}

int
act_readyq_pool_room(Oid database, Oid owner)
{
	int			ready;

	return get_pool_room(database, owner, &ready);
}

/* With less room than this a search had better not go on. */
int
act_readyq_enough_room(void)
{
	return Min(1024, act_entry_limit / 8);
}

/*
 * Has the pool so much room again that a sweep that ran out of it had better
 * go on?  Only when half of what it had is taken: what is pushed at a time is
 * sorted, and the more that is, the nearer is each to the next.
 */
bool
act_readyq_may_refill(Oid database, Oid owner)
{
	int			ready;
	int			room = get_pool_room(database, owner, &ready);

	return room >= Max(act_readyq_enough_room(), ready);
}

static void
forget_list(dlist_head *list)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, list)
		act_entry_remove(dlist_container(ReadyEntry, node, iter.cur));
}

/*
 * The database, or the extension in it, is gone: so are its entries, but for
 * those that are running.
 */
void
act_readyq_forget(Oid database)
{
	Database   *db;
	ReadyEntry *entry;
	dlist_iter	iter;

	if (!act_readyq_attached())
		return;

	act_registry_lock();
	db = act_registry_find_database(database);
	if (db != NULL)
	{
		dlist_foreach(iter, &db->pools)
		{
			Pool	   *pool = dlist_container(Pool, node, iter.cur);

			pool->dropped = false;
			forget_list(&pool->ready);
			for (int i = 0; i < ACT_DELAYS; i++)
				forget_list(&pool->delayed[i]);
		}
		while ((entry = act_entry_first_lent(db)) != NULL)
			act_entry_remove(entry);
	}
	act_registry_unlock();
}
