/*
 * readyq.c
 *	  The ready queue: hints in shared memory that say who has work.
 *
 * A post says at its commit which entity has become ready, so that a worker
 * finds it without looking into any table.  An entry is a hint: it can be
 * wrong (the worker finds nothing) and it can be lost (the sweep finds the
 * entity later), and neither costs a message.
 *
 * What is promised: an entity that was pushed and not refused stays here until
 * a worker has finished with it by READY_DROP and nobody has pushed it in
 * between.  A worker that exits puts back what it held, after its abort.
 * A refused hint makes a sweep due, as soon as there is room for what it
 * finds.
 *
 *		queued		in its pool's list of ready ones, first come first served
 *		delayed		somebody held its lock: becomes queued when its time has
 *					come, or when it is pushed
 *		running		popped by a worker, in that worker's list
 *		again		running, and pushed since
 *
 * The delays are 1, 2, 4 ... 1024 ms, and for each of them a pool has a list.
 * Entries enter at the tail as time goes by, so that every list is sorted by
 * itself and the earliest of all is the earliest of eleven heads.
 *
 * One pool cannot fill the queue: it may have three times as many entries as
 * are free, so that the first takes at most three quarters of all, the next
 * of what is then left.
 *
 * Locks: the roster's, see roster.c.  Memory: a hash table of fixed size; the
 * lists are inside of the entries.
 *
 * The second, smaller half: the last known place (TID) of mailbox rows, an
 * array that anybody reads and overwrites without a lock.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/itemptr.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "readyq.h"
#include "roster.h"

/* The lock is let go after so many keys, for the others' sake. */
#define PUSH_CHUNK 256

/* A database whose hints cannot be kept at all is swept so often. */
#define REFUSED_SWEEP_DELAY (10 * USECS_PER_SEC)

/* The first delay of what a worker held that died of something: 64 ms. */
#define DELAY_AFTER_DEATH 6

/* No padding: hashed and compared as bytes. */
typedef struct EntryKey
{
	EntityKey	entity;
	Oid			database;
	uint32		zero;
} EntryKey;

typedef enum EntryState
{
	ENTRY_NEW,					/* -> QUEUED */
	ENTRY_QUEUED,				/* -> RUNNING; gone with its database */
	ENTRY_DELAYED,				/* -> QUEUED; gone with its database */
	ENTRY_RUNNING,				/* -> AGAIN, QUEUED, DELAYED, gone */
	ENTRY_AGAIN					/* -> QUEUED, DELAYED */
} EntryState;

/* Guarded by the roster's lock. */
typedef struct ReadyEntry
{
	EntryKey	key;			/* hash key; immutable */
	dlist_node	node;			/* in a list of the pool or of the worker */
	Pool	   *pool;
	WorkerSlot *slot;			/* while it is running */
	TimestampTz since;			/* queued since, or delayed until */
	uint8		state;			/* EntryState */
	int8		delay;			/* number of the last delay, -1: none */
} ReadyEntry;

typedef struct ReadyShared
{
	/* Immutable. */
	int			size;
	uint32		tid_mask;

	/* Guarded by the roster's lock. */
	int			nentries;

	/* Block (32 bits), offset (16) and a tag of the key (16); 0: nothing. */
	pg_atomic_uint64 tids[FLEXIBLE_ARRAY_MEMBER];
} ReadyShared;

static int	ready_queue_size = 65536;
static ReadyShared *ready = NULL;
static HTAB *entry_table = NULL;

/* ---------------------------------------------------------------- set-up */

/* To be called by _PG_init; the setting needs shared memory. */
void
act_readyq_define_settings(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	DefineCustomIntVariable("actornot.ready_queue_size",
							"Number of entities that can be known to be ready at a time.",
							"What does not fit is found a little later. An entry takes about 150 bytes.",
							&ready_queue_size,
							65536, 1024, 16 * 1024 * 1024,
							PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
}

static uint32
tid_count(void)
{
	return pg_nextpower2_32((uint32) ready_queue_size * 2);
}

static Size
ready_size(void)
{
	return add_size(offsetof(ReadyShared, tids),
					mul_size(tid_count(), sizeof(pg_atomic_uint64)));
}

Size
act_readyq_shmem_size(void)
{
	return add_size(MAXALIGN(ready_size()),
					hash_estimate_size(ready_queue_size, sizeof(ReadyEntry)));
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

/* The caller holds AddinShmemInitLock, and act_roster_shmem_init was called. */
void
act_readyq_shmem_init(void)
{
	HASHCTL		info;
	bool		found;

	ready = ShmemInitStruct("actornot ready queue", ready_size(), &found);
	if (!found)
	{
		ready->size = ready_queue_size;
		ready->tid_mask = tid_count() - 1;
		ready->nentries = 0;
		for (uint32 i = 0; i <= ready->tid_mask; i++)
			pg_atomic_init_u64(&ready->tids[i], 0);
	}

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(EntryKey);
	info.entrysize = sizeof(ReadyEntry);
	info.hash = hash_entry;
	entry_table = ShmemInitHash("actornot ready entries",
								ready_queue_size, ready_queue_size, &info,
								HASH_ELEM | HASH_FUNCTION | HASH_FIXED_SIZE);
}

bool
act_readyq_attached(void)
{
	return ready != NULL;
}

static inline void
lock_queue(void)
{
	LWLockAcquire(&act_roster->lock, LW_EXCLUSIVE);
}

static inline void
unlock_queue(void)
{
	LWLockRelease(&act_roster->lock);
}

static void
set_key(EntryKey *key, Oid database, const EntityKey *entity)
{
	key->entity = *entity;
	key->database = database;
	key->zero = 0;
}

/* ------------------------------------------------- an entry's life, in pools */

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

/* new, delayed (already off its list), running, again -> queued */
static void
queue_entry(ReadyEntry *entry, TimestampTz now)
{
	Pool	   *pool = entry->pool;

	Assert(entry->state != ENTRY_QUEUED);

	entry->state = ENTRY_QUEUED;
	entry->slot = NULL;
	entry->since = now;
	dlist_push_tail(&pool->ready, &entry->node);
	if (pool->nready++ == 0)
		pool->ready_since = now;
}

/* running, again -> delayed; twice as long as the last time */
static void
delay_entry(ReadyEntry *entry, TimestampTz now)
{
	Pool	   *pool = entry->pool;

	Assert(entry->state == ENTRY_RUNNING || entry->state == ENTRY_AGAIN);

	entry->delay = Min(entry->delay + 1, ACT_DELAYS - 1);
	entry->state = ENTRY_DELAYED;
	entry->slot = NULL;
	entry->since = now + (INT64CONST(1000) << entry->delay);
	dlist_push_tail(&pool->delayed[entry->delay], &entry->node);
	pool->ndelayed++;
	pool->delayed_until = Min(pool->delayed_until, entry->since);
}

/* delayed -> queued: its time has come, or there is news of it */
static void
resume_entry(ReadyEntry *entry, TimestampTz now)
{
	Assert(entry->state == ENTRY_DELAYED);

	dlist_delete(&entry->node);
	entry->pool->ndelayed--;
	queue_entry(entry, now);
	note_first_delayed(entry->pool);
}

/* queued -> running, by this worker */
static void
run_entry(ReadyEntry *entry, WorkerSlot *slot)
{
	Assert(entry->state == ENTRY_QUEUED);

	dlist_delete(&entry->node);
	entry->pool->nready--;
	entry->state = ENTRY_RUNNING;
	entry->slot = slot;
	dlist_push_tail(&slot->held, &entry->node);
}

/* running -> again */
static void
repeat_entry(ReadyEntry *entry)
{
	Assert(entry->state == ENTRY_RUNNING);

	entry->state = ENTRY_AGAIN;
}

/* How many more entries this pool may have; can be negative. */
static int
pool_room(const Pool *pool)
{
	int64		nfree = ready->size - ready->nentries;

	/* The largest k with nentries + k <= 3 * (nfree - k). */
	return (int) ((3 * nfree - pool->nentries) / 4);
}

/* No place at all: have the database swept, but not all the time. */
static void
refuse_all(Oid database, TimestampTz now)
{
	Tenant	   *tenant = act_roster_enter_tenant(database);

	if (tenant == NULL)
		return;
	tenant->sweep_at = Min(tenant->sweep_at, now + REFUSED_SWEEP_DELAY);
	act_roster_call_manager(tenant);
}

/*
 * A hint of this pool was refused.  Sweeping at once would be in vain: it
 * becomes due when half of the pool's entries are done (see leave_pool), or
 * after a while if it is the others who fill the queue.
 */
static void
note_dropped(Pool *pool, TimestampTz now)
{
	if (pool->nentries > 0)
		pool->dropped = true;
	else
		refuse_all(pool->key.database, now);
}

/* The entry leaves its pool for another, or for good. */
static void
leave_pool(ReadyEntry *entry)
{
	Pool	   *pool = entry->pool;

	pool->nentries--;
	pool->tenant->nentries--;
	entry->pool = NULL;
	if (pool->dropped && pool_room(pool) >= pool->nentries)
	{
		pool->dropped = false;
		pool->tenant->sweep_at = Min(pool->tenant->sweep_at,
									 GetCurrentTimestamp());
		act_roster_call_manager(pool->tenant);
	}
}

static void
enter_pool(ReadyEntry *entry, Pool *pool)
{
	entry->pool = pool;
	pool->nentries++;
	pool->tenant->nentries++;
}

/* Off the queue; it must be on no list. */
static void
remove_entry(ReadyEntry *entry)
{
	leave_pool(entry);
	ready->nentries--;
	hash_search(entry_table, &entry->key, HASH_REMOVE, NULL);
}

/*
 * A new entry, or NULL if it is refused.  The caller queues it.
 */
static ReadyEntry *
add_entry(const EntryKey *key, Pool *pool)
{
	ReadyEntry *entry;
	bool		found;

	if (pool_room(pool) <= 0)
		return NULL;
	entry = hash_search(entry_table, key, HASH_ENTER_NULL, &found);
	if (entry == NULL)
		return NULL;
	Assert(!found);
	entry->state = ENTRY_NEW;
	entry->slot = NULL;
	entry->delay = -1;
	enter_pool(entry, pool);
	ready->nentries++;
	return entry;
}

/* ------------------------------------------------------------------- push */

/*
 * There is work in the pool that nobody has been told of: wake a worker that
 * sleeps, or else have the manager see to it that there is one in time.
 */
static void
announce(Pool *pool)
{
	if (pool->nready == 0 || act_roster_wake_worker(pool))
		return;
	if (!pool->wants_help)
	{
		pool->wants_help = true;
		act_roster_call_manager(pool->tenant);
	}
}

/* Move an entry that waits to another pool. */
static void
change_pool(ReadyEntry *entry, Pool *pool, TimestampTz now)
{
	if (entry->state == ENTRY_DELAYED)
		resume_entry(entry, now);
	Assert(entry->state == ENTRY_QUEUED);
	dlist_delete(&entry->node);
	entry->pool->nready--;
	note_first_ready(entry->pool);
	leave_pool(entry);
	enter_pool(entry, pool);
	entry->state = ENTRY_NEW;
	queue_entry(entry, now);
}

static void
push_entry(Pool *pool, const EntityKey *entity, TimestampTz now)
{
	EntryKey	key;
	ReadyEntry *entry;

	set_key(&key, pool->key.database, entity);
	entry = hash_search(entry_table, &key, HASH_FIND, NULL);
	if (entry == NULL)
	{
		entry = add_entry(&key, pool);
		if (entry != NULL)
			queue_entry(entry, now);
		else
			note_dropped(pool, now);
		return;
	}
	switch ((EntryState) entry->state)
	{
		case ENTRY_NEW:
		case ENTRY_AGAIN:
			break;
		case ENTRY_RUNNING:
			repeat_entry(entry);
			break;
		case ENTRY_DELAYED:
			resume_entry(entry, now);
			/* fall through */
		case ENTRY_QUEUED:
			if (entry->pool != pool)
				change_pool(entry, pool, now);
			break;
	}
}

void
act_readyq_push(Oid database, Oid owner, const EntityKey *keys, int nkeys)
{
	TimestampTz now;

	if (!act_readyq_attached() || nkeys <= 0)
		return;

	now = GetCurrentTimestamp();
	for (int done = 0; done < nkeys; done += PUSH_CHUNK)
	{
		int			end = Min(nkeys, done + PUSH_CHUNK);
		Pool	   *pool;

		lock_queue();
		pool = act_roster_enter_pool(database, owner);
		if (pool != NULL)
		{
			for (int i = done; i < end; i++)
				push_entry(pool, &keys[i], now);

			/* What the manager finds is no reason for it to search again. */
			if (pool->tenant->manager_pid != MyProcPid)
				pool->tenant->pushes++;
			announce(pool);
		}
		else
			refuse_all(database, now);
		unlock_queue();
	}
}

void
act_readyq_request_sweep(Oid database)
{
	TimestampTz now;
	Tenant	   *tenant;

	if (!act_readyq_attached())
		return;

	now = GetCurrentTimestamp();
	lock_queue();
	tenant = act_roster_enter_tenant(database);
	if (tenant != NULL)
	{
		tenant->sweep_at = Min(tenant->sweep_at, now);
		act_roster_call_manager(tenant);
	}
	unlock_queue();
}

/* ---------------------------------------------------------- pop and finish */

/* Queue those whose delay is over. */
static void
resume_due(Pool *pool, TimestampTz now)
{
	while (pool->delayed_until <= now)
	{
		for (int i = 0; i < ACT_DELAYS; i++)
		{
			while (!dlist_is_empty(&pool->delayed[i]))
			{
				ReadyEntry *entry = dlist_head_element(ReadyEntry, node,
													   &pool->delayed[i]);

				if (entry->since > now)
					break;
				resume_entry(entry, now);
			}
		}
	}
}

/*
 * This worker will be busy now.  If it is not the one that wakes up for the
 * pool's earliest delayed entry, somebody else has to be.
 */
static void
watch_delayed(Pool *pool)
{
	dlist_iter	iter;

	if (pool->ndelayed == 0)
		return;
	dlist_foreach(iter, &pool->idle)
	{
		WorkerSlot *slot = dlist_container(WorkerSlot, node, iter.cur);

		if (slot->wake_at <= pool->delayed_until)
			return;
	}
	if (!act_roster_wake_worker(pool) && !pool->wants_help)
	{
		pool->wants_help = true;
		act_roster_call_manager(pool->tenant);
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
	WorkerSlot *slot = act_roster_my_slot;
	TimestampTz now = GetCurrentTimestamp();

	if (slot == NULL)
		return;
	lock_queue();
	while (!dlist_is_empty(&slot->held))
	{
		ReadyEntry *entry = dlist_head_element(ReadyEntry, node, &slot->held);

		dlist_delete(&entry->node);
		if (code == 0 || slot->leave)
			queue_entry(entry, now);
		else
		{
			/* Perhaps it killed the worker, and will do so again. */
			entry->delay = Max(entry->delay, DELAY_AFTER_DEATH - 1);
			delay_entry(entry, now);
		}
	}
	announce(slot->pool);
	watch_delayed(slot->pool);
	unlock_queue();
}

/*
 * Take up to max entries of this worker's pool, but no more than its share:
 * they are run one after the other, and others may be free before that.
 */
int
act_readyq_pop(EntityKey *keys, int max)
{
	static bool registered = false;
	WorkerSlot *slot = act_roster_my_slot;
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
	lock_queue();
	pool = slot->pool;
	resume_due(pool, now);
	share = pool->nready / Max(pool->nworkers, 1);
	max = Min(max, Max(share, 1));
	while (n < max && pool->nready > 0)
	{
		ReadyEntry *entry = dlist_head_element(ReadyEntry, node, &pool->ready);

		run_entry(entry, slot);
		keys[n++] = entry->key.entity;
	}
	note_first_ready(pool);
	if (pool->nready + pool->ndelayed == 0)
		pool->wants_help = false;	/* the next one is to tell again */
	announce(pool);
	watch_delayed(pool);
	unlock_queue();
	return n;
}

/*
 * An entry that this worker holds, taken off its list.  NULL if it has been
 * moved to another pool meanwhile.
 */
static ReadyEntry *
release_entry(const EntityKey *entity)
{
	WorkerSlot *slot = act_roster_my_slot;
	EntryKey	key;
	ReadyEntry *entry;

	set_key(&key, slot->pool->key.database, entity);
	entry = hash_search(entry_table, &key, HASH_FIND, NULL);
	if (entry == NULL || entry->slot != slot)
		return NULL;
	Assert(entry->state == ENTRY_RUNNING || entry->state == ENTRY_AGAIN);
	dlist_delete(&entry->node);
	return entry;
}

/*
 * Entries that were popped are done, or have to wait.  Nobody is woken for
 * what is queued again: the caller pops next, and that tells the others.
 */
void
act_readyq_finish(const EntityKey *keys, const ReadyOutcome *outcomes,
				  int nkeys)
{
	TimestampTz now;

	if (act_roster_my_slot == NULL || nkeys <= 0)
		return;

	now = GetCurrentTimestamp();
	lock_queue();
	for (int i = 0; i < nkeys; i++)
	{
		ReadyEntry *entry = release_entry(&keys[i]);
		bool		again;

		if (entry == NULL)
			continue;
		again = (entry->state == ENTRY_AGAIN);
		if (outcomes[i] == READY_BUSY)
		{
			/* A push may mean that the lock is free now. */
			if (again)
				entry->delay = -1;
			delay_entry(entry, now);
			continue;
		}
		entry->delay = -1;
		if (outcomes[i] == READY_AGAIN || again)
			queue_entry(entry, now);
		else
			remove_entry(entry);
	}
	unlock_queue();
}

void
act_readyq_move(const EntityKey *key, Oid owner)
{
	TimestampTz now;
	ReadyEntry *entry;

	if (act_roster_my_slot == NULL)
		return;

	now = GetCurrentTimestamp();
	lock_queue();
	entry = release_entry(key);
	if (entry != NULL)
	{
		Oid			database = entry->key.database;
		Pool	   *pool = act_roster_enter_pool(database, owner);

		entry->delay = -1;
		if (pool == NULL || (pool != entry->pool && pool_room(pool) <= 0))
		{
			if (pool != NULL)
				note_dropped(pool, now);
			else
				refuse_all(database, now);
			remove_entry(entry);
		}
		else
		{
			leave_pool(entry);
			enter_pool(entry, pool);
			queue_entry(entry, now);
			announce(pool);
		}
	}
	unlock_queue();
}

/* ------------------------------------------------------- for the manager */

/*
 * How many more entities the sweep may push: what fits into the fullest pool
 * that has a chance to get emptier.  Others' hints are then dropped and swept
 * for when they can be run.
 */
int
act_readyq_room(Oid database)
{
	Tenant	   *tenant;
	dlist_iter	iter;
	int			room;

	if (!act_readyq_attached())
		return PG_INT32_MAX;

	lock_queue();
	room = (int) (3 * (int64) (ready->size - ready->nentries) / 4);
	tenant = act_roster_find_tenant(database);
	if (tenant != NULL)
	{
		dlist_foreach(iter, &tenant->pools)
		{
			Pool	   *pool = dlist_container(Pool, node, iter.cur);

			if (pool->block == POOL_OPEN && pool->nentries > 0)
				room = Min(room, pool_room(pool));
		}
	}
	unlock_queue();
	return Max(room, 0);
}

/* The number at which a sweep that ran out of room had better go on. */
int
act_readyq_enough_room(void)
{
	return Min(1024, ready->size / 8);
}

static void
forget_list(dlist_head *list, int *count)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, list)
	{
		dlist_delete(iter.cur);
		(*count)--;
		remove_entry(dlist_container(ReadyEntry, node, iter.cur));
	}
}

/*
 * The database, or the extension in it, is gone: so are its entries, but for
 * those that are running.
 */
void
act_readyq_forget(Oid database)
{
	Tenant	   *tenant;
	dlist_iter	iter;

	if (!act_readyq_attached())
		return;

	lock_queue();
	tenant = act_roster_find_tenant(database);
	if (tenant != NULL)
	{
		dlist_foreach(iter, &tenant->pools)
		{
			Pool	   *pool = dlist_container(Pool, node, iter.cur);

			pool->dropped = false;
			forget_list(&pool->ready, &pool->nready);
			for (int i = 0; i < ACT_DELAYS; i++)
				forget_list(&pool->delayed[i], &pool->ndelayed);
			note_first_delayed(pool);
		}
	}
	unlock_queue();
}

/* ------------------------------------------------- places of mailbox rows */

/*
 * The array has a place for each hash and keeps whatever was put there last.
 * A tag sorts out most of the others' places; the reader verifies the rest.
 */
static pg_atomic_uint64 *
find_tid(Oid database, const EntityKey *key, uint16 *tag)
{
	uint64		hash;

	hash = ((uint64) key->check << 32) |
		((uint32) key->runner ^ (database * 0x9E3779B1U));
	hash = hash_combine64((uint64) key->hash, hash);

	/* Spread every bit over all of them (the end of MurmurHash3). */
	hash ^= hash >> 33;
	hash *= UINT64CONST(0xff51afd7ed558ccd);
	hash ^= hash >> 33;
	hash *= UINT64CONST(0xc4ceb9fe1a85ec53);
	hash ^= hash >> 33;
	*tag = (uint16) (hash >> 48);
	return &ready->tids[(uint32) hash & ready->tid_mask];
}

bool
act_readyq_get_tid(Oid database, const EntityKey *key, ItemPointer tid)
{
	uint16		tag;
	uint64		value;

	if (!act_readyq_attached())
		return false;
	value = pg_atomic_read_u64(find_tid(database, key, &tag));
	if ((uint16) value != tag ||
		(OffsetNumber) (value >> 16) == InvalidOffsetNumber)
		return false;
	ItemPointerSet(tid, (BlockNumber) (value >> 32),
				   (OffsetNumber) (value >> 16));
	return true;
}

void
act_readyq_set_tid(Oid database, const EntityKey *key, ItemPointer tid)
{
	uint16		tag;
	pg_atomic_uint64 *place;

	if (!act_readyq_attached())
		return;
	place = find_tid(database, key, &tag);
	pg_atomic_write_u64(place,
						((uint64) ItemPointerGetBlockNumber(tid) << 32) |
						((uint64) ItemPointerGetOffsetNumber(tid) << 16) |
						tag);
}
