/*
 * slot.c
 *	  Workers: coming, waiting for work, and going.
 *
 * A handler never shares a session with another role's code, so a worker
 * belongs to one pool: the work of one owner role in one database.  It is
 * started for it (see process.c), connects as that role, sleeps while the pool
 * has nothing to do, and leaves when that lasts, when another pool needs
 * its slot, or when the database is to be empty.
 *
 * Locks: the registry's; no memory.
 *
 * Failure: the exit callback of a worker frees its slot.  It is an
 * on_shmem_exit callback that is registered before the process connects, so
 * that it runs as late as possible: after the abort, after readyq has put the
 * entries back, and after the process has left the server's list of those in
 * the database.  A pool whose workers die before they have asked for work
 * gets the next one later and later.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "sched/registry.h"
#include "sched/slot.h"

/* After a worker died at its start, and while the role may not connect. */
#define MIN_DELAY (1 * USECS_PER_SEC)
#define MAX_DELAY (60 * USECS_PER_SEC)

/* When the server has no worker slots: when to try again, when to complain. */
#define MIN_SHORTAGE_DELAY (50 * INT64CONST(1000))
#define MAX_SHORTAGE_DELAY (5 * USECS_PER_SEC)
#define SHORTAGE_GRACE (1 * USECS_PER_SEC)
#define WARNING_INTERVAL (600 * USECS_PER_SEC)

static int	worker_idle_timeout = 60;	/* seconds */

void
act_slot_define_settings(void)
{
	DefineCustomIntVariable("actornot.worker_idle_timeout",
							"How long a worker without work stays.",
							NULL,
							&worker_idle_timeout,
							60, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
}

/*
 * How many entities a transaction may lock: never more than a worker's share
 * of a quarter of the server's lock table.
 */
int
act_slot_lock_share(void)
{
	int64		locks = (int64) max_locks_per_xact *
	(MaxBackends + max_prepared_xacts);

	return (int) Max(1, locks / 4 / Max(1, act_registry_max_workers));
}

/* ------------------------------------------------------ shortage of slots */

/*
 * The server has refused to start a process.  There may be a place again soon
 * (it has not yet noticed that one of ours is gone), so try again after 50 ms,
 * then after longer and longer times.  True if it lasts, that is news, and the
 * caller would tell.
 */
bool
act_slot_note_shortage(TimestampTz now, bool tell)
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
act_slot_note_success(void)
{
	act_registry->short_since = 0;
	act_registry->short_until = 0;
	act_registry->short_delay = 0;
}

/* A process of ours has left: the server will have a place in a moment. */
void
act_slot_note_exit(void)
{
	act_registry->short_delay = 0;
}

/* How many workers can be started, as far as we know? */
int
act_slot_count_free(TimestampTz now)
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
act_slot_claim(WorkerSlot *slot, Pool *pool, TimestampTz now)
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

/*
 * Wake one worker of the pool, unless one that was woken is still on its way:
 * it will wake the next if there is more than it takes.  True if there is one.
 */
bool
act_slot_wake_worker(Pool *pool)
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

/* Gone, or never came. */
void
act_slot_free(WorkerSlot *slot)
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
act_slot_ask(WorkerSlot *slot)
{
	Assert(slot->pid != 0);

	slot->leave = true;
	SetLatch(slot->latch);
}

/* ---------------------------------------------------------------- claims */

/* What a worker is started with: its slot and the number of the claim. */
Datum
act_slot_make_arg(const WorkerSlot *slot)
{
	return UInt64GetDatum(((uint64) slot->generation << 32) |
						  (uint64) slot->number);
}

/* The slot of that claim, or NULL if it is no longer good. */
WorkerSlot *
act_slot_find_claim(Datum main_arg)
{
	uint32		number = (uint32) DatumGetUInt64(main_arg);
	uint32		generation = (uint32) (DatumGetUInt64(main_arg) >> 32);
	WorkerSlot *slot;

	if (number >= act_registry->nslots)
		return NULL;
	slot = &act_registry->slots[number];
	if (slot->state != SLOT_STARTING || slot->generation != generation)
		return NULL;
	return slot;
}

/* The next try of a pool comes later, twice as late as the last one. */
void
act_slot_delay_pool(Pool *pool, TimestampTz now)
{
	pool->delay = pool->delay == 0 ? MIN_DELAY :
		Min(pool->delay * 2, MAX_DELAY);
	pool->not_before = now + pool->delay;
}

/* A worker slot became free: tell the pools that wait for one. */
static void
call_starved(void)
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

/* Free a slot, and tell the processes that this concerns. */
void
act_slot_vacate(WorkerSlot *slot)
{
	Pool	   *pool = slot->pool;
	Database   *db = pool->db;

	act_slot_free(slot);
	act_slot_note_exit();
	call_starved();

	/* Work left over, or no worker left: the manager may start one, or go. */
	if (pool->nready + pool->ndelayed > 0)
	{
		if (!act_slot_wake_worker(pool))
			act_registry_call_manager(db);
	}
	else if (db->nslots == 0 && db->manager == MANAGER_RUNNING)
		act_registry_call_manager(db);
	if (db->nevictions > 0)
		ConditionVariableBroadcast(&act_registry->gone);
}

/* ------------------------------------------------------------ the worker */

static void
detach_worker(int code, Datum arg)
{
	WorkerSlot *slot = act_registry_my_slot;
	TimestampTz now = GetCurrentTimestamp();

	if (slot == NULL)
		return;
	act_registry_lock();
	act_registry_my_slot = NULL;
	if (!slot->has_worked && code != 0 && !slot->leave)
		act_slot_delay_pool(slot->pool, now);
	act_slot_vacate(slot);
	act_registry_unlock();
}

/*
 * Become the worker that was asked for: take the slot, connect as the owner.
 * The caller has set its signal handlers.  If the claim is no longer good the
 * process ends here, before it has touched the database.
 */
void
act_slot_attach_worker(Datum main_arg)
{
	TimestampTz now = GetCurrentTimestamp();
	WorkerSlot *slot;
	PoolKey		key = {InvalidOid, InvalidOid};

	on_shmem_exit(detach_worker, 0);
	act_registry_lock();
	slot = act_slot_find_claim(main_arg);
	if (slot != NULL && slot->pool->db->nevictions == 0)
	{
		slot->pid = MyProcPid;
		slot->latch = MyLatch;
		slot->since = now;
		change_slot(slot, SLOT_BUSY);
		act_registry_my_slot = slot;
		key = slot->pool->key;
	}
	act_registry_unlock();
	if (act_registry_my_slot == NULL)
		proc_exit(0);

	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(key.database, key.owner, 0);

	/*
	 * The runner's timeout limits a call; this would end the worker, each
	 * time.
	 */
	act_unset_transaction_timeout();

	/*
	 * ALTER ROLE ... SET role must not give the session another role's
	 * rights.
	 */
	SetConfigOption("role", "none", PGC_SUSET, PGC_S_OVERRIDE);
}

Oid
act_slot_role(void)
{
	Assert(act_registry_my_slot != NULL);
	return act_registry_my_slot->pool->key.owner;
}

typedef enum Look
{
	LOOK_WORK,
	LOOK_WAIT,
	LOOK_LEAVE
} Look;

/* The worker is ready to work: the next one may be started, if need be. */
static void
note_good_start(WorkerSlot *slot, TimestampTz now)
{
	slot->has_worked = true;
	slot->since = now;
	slot->pool->delay = 0;
	if (slot->pool->wants_help)
		act_registry_call_manager(slot->pool->db);
}

/*
 * One look around, between sleeps.  Where there is nothing to do, the worker
 * is idle from here on, and "until" says when it has to look again.
 */
static Look
look_for_work(TimestampTz deadline, TimestampTz *until)
{
	WorkerSlot *slot = act_registry_my_slot;
	TimestampTz now = GetCurrentTimestamp();
	Pool	   *pool;
	Look		look;

	act_registry_lock();
	pool = slot->pool;
	if (!slot->has_worked)
		note_good_start(slot, now);
	Assert(slot->state == SLOT_BUSY || slot->state == SLOT_IDLE ||
		   slot->state == SLOT_WOKEN);
	if (slot->state != SLOT_BUSY)
		change_slot(slot, SLOT_BUSY);
	if (slot->leave || pool->db->nevictions > 0)
		look = LOOK_LEAVE;
	else if (act_registry_has_work(pool, now))
		look = LOOK_WORK;
	else if (pool->ndelayed > 0 && pool->nworkers == 1)
		look = LOOK_WAIT;
	else if (now >= deadline || act_registry->nstarved > 0)
		look = LOOK_LEAVE;		/* for good, or for a pool that has work */
	else
		look = LOOK_WAIT;

	if (look == LOOK_LEAVE)
		change_slot(slot, SLOT_LEAVING);
	if (look == LOOK_WAIT)
	{
		*until = pool->delayed_until;
		if (now < deadline)
			*until = Min(*until, deadline);
		slot->wake_at = *until;
		change_slot(slot, SLOT_IDLE);
	}
	act_registry_unlock();
	return look;
}

/*
 * Sleep until the pool has work.  False: the worker is to leave, because it
 * has been idle for long, another pool needs the slot, or the database is to
 * be empty.  Must be called outside of a transaction.
 */
bool
act_slot_wait_for_work(void)
{
	TimestampTz deadline;
	bool		stats_pending = true;

	deadline = GetCurrentTimestamp() +
		(int64) worker_idle_timeout * USECS_PER_SEC;
	for (;;)
	{
		TimestampTz until = 0;
		long		timeout;
		int			events;
		Look		look;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		look = look_for_work(deadline, &until);
		if (look != LOOK_WAIT)
			return look == LOOK_WORK;

		/* Others read our statistics, if not at once. */
		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
												  until);
		timeout = Min(timeout, INT_MAX - 1);
		if (stats_pending)
		{
			long		stats_timeout = pgstat_report_stat(false);

			pgstat_report_activity(STATE_IDLE, NULL);
			if (stats_timeout == 0)
				stats_pending = false;
			else
				timeout = Min(timeout, stats_timeout);
		}
		events = WaitLatch(MyLatch,
						   WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						   timeout, PG_WAIT_EXTENSION);
		if (stats_pending && (events & WL_TIMEOUT))
		{
			pgstat_report_stat(true);
			stats_pending = false;
		}
	}
}
