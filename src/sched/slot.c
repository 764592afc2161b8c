/*
 * slot.c
 *	  Workers: coming, waiting for work, and going.
 *
 * A handler never shares a session with another role's code, so a worker
 * belongs to one pool: the work of one owner role in one database.  It is
 * started for it (see pool.c), connects as that role, sleeps while the pool
 * has nothing to do, and leaves when that lasts, when another pool needs
 * its slot, or when nobody may be in the database.
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

int
act_slot_max_workers(void)
{
	return act_registry_max_workers;
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

/* What a worker is started with: its slot and the number of the claim. */
Datum
act_slot_slot_arg(const WorkerSlot *slot)
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

/* Free a slot, and tell those whom that concerns. */
void
act_slot_vacate_slot(WorkerSlot *slot)
{
	Pool	   *pool = slot->pool;
	Database   *db = pool->db;

	act_registry_free_slot(slot);
	act_registry_note_exit();
	act_registry_call_starved();

	/* Work left over, or nobody left: the manager may start one, or go. */
	if (pool->nready + pool->ndelayed > 0)
	{
		if (!act_registry_wake_worker(pool))
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
	act_slot_vacate_slot(slot);
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
		act_registry_slot_here(slot, now);
		act_registry_my_slot = slot;
		key = slot->pool->key;
	}
	act_registry_unlock();
	if (act_registry_my_slot == NULL)
		proc_exit(0);

	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(key.database, key.owner, 0);

	/* The runner's timeout limits a call; this would end us, each time. */
	act_unset_transaction_timeout();

	/* ALTER ROLE ... SET role must not make the session somebody else's. */
	SetConfigOption("role", "none", PGC_SUSET, PGC_S_OVERRIDE);
}

int
act_slot_slot(void)
{
	Assert(act_registry_my_slot != NULL);
	return act_registry_my_slot->number;
}

Oid
act_slot_role(void)
{
	Assert(act_registry_my_slot != NULL);
	return act_registry_my_slot->pool->key.owner;
}

static void
reload_settings(void)
{
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

/*
 * Has this worker been asked to give its slot up?  For between transactions;
 * costs nothing.
 */
bool
act_slot_should_leave(void)
{
	reload_settings();
	return *(volatile bool *) &act_registry_my_slot->leave;
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
	act_registry_slot_works(slot);
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
		act_registry_slot_leaves(slot);
	if (look == LOOK_WAIT)
	{
		*until = pool->delayed_until;
		if (now < deadline)
			*until = Min(*until, deadline);
		act_registry_slot_rests(slot, *until);
	}
	act_registry_unlock();
	return look;
}

/* Milliseconds until then, rounded up, within what WaitLatch takes. */
static long
milliseconds_until(TimestampTz then)
{
	long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													 then);

	return Min(ms, INT_MAX - 1);
}

/*
 * Sleep until the pool has work.  False: the worker is to leave, because it
 * has been idle for long, another pool needs the slot, or nobody may be in
 * this database.  Must be called outside of a transaction.
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
		reload_settings();

		look = look_for_work(deadline, &until);
		if (look != LOOK_WAIT)
			return look == LOOK_WORK;

		/* Others read our statistics, if not at once. */
		timeout = milliseconds_until(until);
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
