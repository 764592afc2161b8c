/*
 * lane.c
 *	  Lanes: the ready entries of one runner, and the backends that wait.
 *
 * Workers take entries from the pool of their role; programs outside ask for
 * those of one runner.  So each entry that is queued is in the list of its
 * pool and in that of its runner's lane.  A backend that waits for work (the
 * argument "wait" of actornot_acquire) registers in the lane, and a process
 * that queues an entry wakes the backend that has waited longest.
 *
 * A backend that waits must not rely on its latch alone: anything that waits
 * for a lock or a page on the way resets it.  Therefore "woken" is kept here.
 *
 * Locks: the registry's.  Memory: a hash table of fixed size and an array with
 * a place for each backend.  Lanes without entries and waiters are removed
 * when the table is full; if that does not help, the entries of a runner
 * without a lane are counted by their pool, and looked for in all of it, and a
 * backend that waits for them is not told.
 *
 * Failure: a backend that leaves without having taken what it was woken for
 * wakes the next.  If it dies, an exit callback does so.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "compat.h"
#include "sched/lane.h"
#include "sched/registry.h"

#define MAX_LANES 4096

/* A backend that waits; only it makes the change from false to true. */
typedef struct Waiter
{
	/* Guarded by the registry's lock. */
	dlist_node	node;			/* in Lane.waiters, while "queued" */
	bool		queued;
	bool		woken;			/* read by its owner without the lock */
	bool		any;			/* else only "entity" is of interest */
	LaneKey		lane;
	EntityKey	entity;
	Latch	   *latch;
} Waiter;

/* All of them. */
typedef struct WaiterShared
{
	int			nqueued;		/* guarded by the registry's lock */
	Waiter		waiters[FLEXIBLE_ARRAY_MEMBER]; /* by number of backend */
} WaiterShared;

static HTAB *lane_table = NULL;
static WaiterShared *shared = NULL;

static Size
waiters_size(void)
{
	return add_size(offsetof(WaiterShared, waiters),
					mul_size(MaxBackends, sizeof(Waiter)));
}

Size
act_lane_shmem_size(void)
{
	return add_size(hash_estimate_size(MAX_LANES, sizeof(Lane)),
					MAXALIGN(waiters_size()));
}

/* The caller holds AddinShmemInitLock. */
void
act_lane_shmem_init(void)
{
	bool		found;

	lane_table = act_registry_init_table("actornot lanes", MAX_LANES,
										 sizeof(LaneKey), sizeof(Lane), NULL);
	shared = ShmemInitStruct("actornot waiters", waiters_size(), &found);
	if (!found)
		memset(shared, 0, waiters_size());
}

/* ------------------------------------------------------------------ lanes */

Lane *
act_lane_find(Oid database, int32 runner)
{
	LaneKey		key = {database, runner};

	return hash_search(lane_table, &key, HASH_FIND, NULL);
}

static void
remove_unused(void)
{
	HASH_SEQ_STATUS status;
	Lane	   *lane;

	hash_seq_init(&status, lane_table);
	while ((lane = hash_seq_search(&status)) != NULL)
	{
		if (lane->nready == 0 && dlist_is_empty(&lane->waiters))
			hash_search(lane_table, &lane->key, HASH_REMOVE, NULL);
	}
}

Lane *
act_lane_enter(Oid database, int32 runner)
{
	LaneKey		key = {database, runner};
	Lane	   *lane;
	bool		found;

	Assert(LWLockHeldByMeInMode(&act_registry->lock, LW_EXCLUSIVE));

	lane = hash_search(lane_table, &key, HASH_FIND, NULL);
	if (lane != NULL)
		return lane;
	if (hash_get_num_entries(lane_table) >= MAX_LANES)
		remove_unused();
	if (hash_get_num_entries(lane_table) >= MAX_LANES)
		return NULL;
	lane = hash_search(lane_table, &key, HASH_ENTER_NULL, &found);
	if (lane == NULL)
		return NULL;
	dlist_init(&lane->ready);
	lane->nready = 0;
	dlist_init(&lane->waiters);
	return lane;
}

/* ---------------------------------------------------------------- waiters */

/* Does any backend wait? */
bool
act_lane_is_waited(void)
{
	return shared->nqueued > 0;
}

static Waiter *
my_waiter(void)
{
	return &shared->waiters[act_my_proc_number()];
}

static void
leave_queue(Waiter *waiter)
{
	dlist_delete(&waiter->node);
	waiter->queued = false;
	shared->nqueued--;
}

static void
wake(Waiter *waiter)
{
	leave_queue(waiter);
	waiter->woken = true;
	SetLatch(waiter->latch);
}

/* The first that waits for any entity looks again; not that of "except". */
static void
wake_first(Lane *lane, const dlist_node *except)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &lane->waiters)
	{
		Waiter	   *waiter = dlist_container(Waiter, node, iter.cur);

		if (waiter->any && iter.cur != except)
		{
			wake(waiter);
			return;
		}
	}
}

/* There is an entry for one more. */
void
act_lane_wake_one(Lane *lane)
{
	wake_first(lane, NULL);
}

/* Something has changed for an entity: all that wait for it look again. */
void
act_lane_wake_entity(Oid database, const EntityKey *entity)
{
	Lane	   *lane = act_lane_find(database, entity->runner);
	dlist_mutable_iter iter;

	if (lane == NULL)
		return;
	dlist_foreach_modify(iter, &lane->waiters)
	{
		Waiter	   *waiter = dlist_container(Waiter, node, iter.cur);

		if (!waiter->any &&
			memcmp(&waiter->entity, entity, sizeof(EntityKey)) == 0)
			wake(waiter);
	}
}

/* Another backend than this one is to look again. */
void
act_lane_wake_other(Oid database, int32 runner)
{
	Lane	   *lane = act_lane_find(database, runner);

	if (lane != NULL)
		wake_first(lane, &my_waiter()->node);
}

/* Everything may have changed in a database. */
void
act_lane_wake_all(Oid database)
{
	for (int i = 0; act_lane_is_waited() && i < MaxBackends; i++)
	{
		Waiter	   *waiter = &shared->waiters[i];

		if (waiter->queued && waiter->lane.database == database)
			wake(waiter);
	}
}

static void
leave_at_exit(int code, Datum arg)
{
	act_lane_leave();
}

/* From now on this backend is told; also again, after it was woken. */
void
act_lane_wait(Oid database, int32 runner, const EntityKey *entity)
{
	static bool registered = false;
	Waiter	   *waiter = my_waiter();
	Lane	   *lane;

	if (!registered)
	{
		before_shmem_exit(leave_at_exit, 0);
		registered = true;
	}
	act_registry_lock();
	waiter->woken = false;
	lane = waiter->queued ? NULL : act_lane_enter(database, runner);
	if (lane != NULL)
	{
		waiter->any = (entity == NULL);
		if (entity != NULL)
			waiter->entity = *entity;
		waiter->lane = lane->key;
		waiter->latch = MyLatch;
		dlist_push_tail(&lane->waiters, &waiter->node);
		waiter->queued = true;
		shared->nqueued++;
	}
	act_registry_unlock();
}

bool
act_lane_is_woken(void)
{
	return *(volatile bool *) &my_waiter()->woken;
}

/* The wait is over.  What is there for others is told to them. */
void
act_lane_leave(void)
{
	Waiter	   *waiter = my_waiter();
	Lane	   *lane;

	act_registry_lock();
	if (waiter->queued)
		leave_queue(waiter);
	else if (waiter->woken)
	{
		lane = act_lane_find(waiter->lane.database, waiter->lane.runner);
		if (lane != NULL && lane->nready > 0)
			act_lane_wake_one(lane);
	}
	waiter->woken = false;
	act_registry_unlock();
}
