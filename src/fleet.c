/*
 * fleet.c
 *	  Workers: who runs for whom, who waits, who has to give way.
 *
 * A handler never shares a session with another role's code, so a worker
 * belongs to one pool: the work of one owner role in one database.  The
 * cluster has actornot.max_workers slots for workers of all pools.  This room
 * says when a pool gets one more, and whom it gets the slot from.
 *
 *		A pool without workers gets one as soon as it has work; a pool whose
 *		workers are busy gets another when its work has waited for 5 ms or is a
 *		lot, one after the other.
 *		If no slot is free, the pool is "starved".  An idle worker of a pool
 *		without work goes first, then one of the largest pool, then, if every
 *		pool has one worker only, the one that has been here longest, but not
 *		before it has been here for a second.  It is only asked: it goes
 *		when its transaction has committed.
 *		A free slot goes to the starved pool with the fewest workers.
 *
 * Whether the owner may connect at all is found out by the manager, which
 * then blocks the pool here for a while; the same happens to a pool whose
 * workers die before they have asked for work.
 *
 * Locks: the roster's; no memory.  Failure: the exit callback of a worker
 * frees its slot.  It is an on_shmem_exit callback that is registered before
 * the process connects, so that it runs as late as possible: after the abort,
 * after readyq has put the entries back, and after the process has left the
 * server's list of those in the database.  A process that never came is
 * given up after half a minute; if it comes yet, its claim is no longer
 * good and it leaves.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "fleet.h"
#include "roster.h"

/* Work that waits so long, or is so much, gets the pool another worker. */
#define PATIENCE (5 * INT64CONST(1000))
#define MUCH_WORK 256

/* A worker is not sent away before that when it is its pool's only one. */
#define TENURE (1 * USECS_PER_SEC)

/* A process that has not come by then is not expected any more. */
#define START_LIMIT (30 * USECS_PER_SEC)

/* After a failed start, and while the role may not connect. */
#define MIN_DELAY (1 * USECS_PER_SEC)
#define MAX_DELAY (60 * USECS_PER_SEC)

static int	worker_idle_timeout = 60;	/* seconds */

void
act_fleet_define_settings(void)
{
	DefineCustomIntVariable("actornot.worker_idle_timeout",
							"How long a worker without work stays.",
							NULL,
							&worker_idle_timeout,
							60, 0, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
}

static inline void
lock_roster(void)
{
	LWLockAcquire(&act_roster->lock, LW_EXCLUSIVE);
}

static inline void
unlock_roster(void)
{
	LWLockRelease(&act_roster->lock);
}

int
act_fleet_max_workers(void)
{
	return act_roster_max_workers;
}

/* What a worker is started with: its slot and the number of the claim. */
static Datum
make_arg(const WorkerSlot *slot)
{
	return UInt64GetDatum(((uint64) slot->generation << 32) |
						  (uint64) slot->number);
}

/* The slot of that claim, or NULL if it is no longer good. */
static WorkerSlot *
find_claim(Datum main_arg)
{
	uint32		number = (uint32) DatumGetUInt64(main_arg);
	uint32		generation = (uint32) (DatumGetUInt64(main_arg) >> 32);
	WorkerSlot *slot;

	if (number >= act_roster->nslots)
		return NULL;
	slot = &act_roster->slots[number];
	if (slot->state != SLOT_STARTING || slot->generation != generation)
		return NULL;
	return slot;
}

/* The next try of a pool comes later, twice as late as the last one. */
static void
delay_pool(Pool *pool, TimestampTz now)
{
	pool->delay = pool->delay == 0 ? MIN_DELAY :
		Min(pool->delay * 2, MAX_DELAY);
	pool->not_before = now + pool->delay;
}

/* Free a slot, and tell those whom that concerns. */
static void
vacate_slot(WorkerSlot *slot, TimestampTz now)
{
	Pool	   *pool = slot->pool;
	Tenant	   *tenant = pool->tenant;

	act_roster_free_slot(slot);
	act_roster_call_starved(now);

	/* Work left over, or nobody left: the manager may start one, or go. */
	if (pool->nready + pool->ndelayed > 0 || tenant->nslots == 0)
	{
		if (!act_roster_wake_worker(pool))
			act_roster_call_manager(tenant);
	}
	if (tenant->nholds > 0)
		ConditionVariableBroadcast(&act_roster->gone);
}

/* ------------------------------------------------------------ the worker */

static void
detach_worker(int code, Datum arg)
{
	WorkerSlot *slot = act_roster_my_slot;
	TimestampTz now = GetCurrentTimestamp();

	if (slot == NULL)
		return;
	lock_roster();
	act_roster_my_slot = NULL;
	if (!slot->has_worked && code != 0 && !slot->leave)
		delay_pool(slot->pool, now);
	vacate_slot(slot, now);
	unlock_roster();
}

/*
 * Become the worker that was asked for: take the slot, connect as the owner.
 * The caller has set its signal handlers.  If the claim is no longer good the
 * process ends here, before it has touched the database.
 */
void
act_fleet_attach_worker(Datum main_arg)
{
	TimestampTz now = GetCurrentTimestamp();
	WorkerSlot *slot;
	PoolKey		key = {InvalidOid, InvalidOid};

	on_shmem_exit(detach_worker, 0);
	lock_roster();
	slot = find_claim(main_arg);
	if (slot != NULL && slot->pool->tenant->nholds == 0)
	{
		act_roster_slot_here(slot, now);
		act_roster_my_slot = slot;
		key = slot->pool->key;
	}
	unlock_roster();
	if (act_roster_my_slot == NULL)
		proc_exit(0);

	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(key.database, key.owner, 0);

	/* ALTER ROLE ... SET role must not make the session somebody else's. */
	SetConfigOption("role", "none", PGC_SUSET, PGC_S_OVERRIDE);
}

int
act_fleet_slot(void)
{
	Assert(act_roster_my_slot != NULL);
	return act_roster_my_slot->number;
}

Oid
act_fleet_role(void)
{
	Assert(act_roster_my_slot != NULL);
	return act_roster_my_slot->pool->key.owner;
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
act_fleet_should_leave(void)
{
	reload_settings();
	return *(volatile bool *) &act_roster_my_slot->leave;
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
		act_roster_call_manager(slot->pool->tenant);
}

/*
 * One look around, between sleeps.  Where there is nothing to do, the worker
 * is idle from here on, and "until" says when it has to look again.
 */
static Look
look_for_work(TimestampTz deadline, TimestampTz *until)
{
	WorkerSlot *slot = act_roster_my_slot;
	TimestampTz now = GetCurrentTimestamp();
	Pool	   *pool;
	Look		look;

	lock_roster();
	pool = slot->pool;
	if (!slot->has_worked)
		note_good_start(slot, now);
	act_roster_slot_works(slot);
	if (slot->leave || pool->tenant->nholds > 0)
		look = LOOK_LEAVE;
	else if (act_roster_has_work(pool, now))
		look = LOOK_WORK;
	else if (now >= deadline && (pool->ndelayed == 0 || pool->nworkers > 1))
		look = LOOK_LEAVE;
	else
		look = LOOK_WAIT;

	if (look == LOOK_LEAVE)
		act_roster_slot_leaves(slot);
	if (look == LOOK_WAIT)
	{
		*until = now >= deadline ? pool->delayed_until :
			Min(deadline, pool->delayed_until);
		act_roster_slot_rests(slot, *until);
	}
	unlock_roster();
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
act_fleet_wait_for_work(void)
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

/* --------------------------------------------------- who gets a worker */

/*
 * When did the last one of the pool's workers begin to work?  Infinity while
 * one is on its way.
 */
static TimestampTz
newest_worker_since(const Pool *pool)
{
	TimestampTz newest = DT_NOBEGIN;

	for (int i = 0; i < act_roster->nslots; i++)
	{
		WorkerSlot *slot = &act_roster->slots[i];

		if (slot->pool != pool || slot->state == SLOT_LEAVING)
			continue;
		if (!slot->has_worked)
			return DT_NOEND;
		newest = Max(newest, slot->since);
	}
	return newest;
}

/*
 * Does the pool want one more worker now?  If perhaps later, "next" is when
 * to ask again; otherwise somebody will tell.
 */
static bool
wants_worker(Pool *pool, TimestampTz now, TimestampTz *next)
{
	TimestampTz since;
	TimestampTz newest;

	if (pool->nready + pool->ndelayed == 0)
		return false;
	if (!act_roster_has_work(pool, now))
	{
		*next = Min(*next, pool->delayed_until);
		return false;
	}
	if (pool->not_before > now)
	{
		*next = Min(*next, pool->not_before);
		return false;
	}
	if (pool->nworkers == 0)
		return true;
	if (pool->nworkers >= act_roster->nslots)
		return false;
	newest = newest_worker_since(pool);
	if (newest == DT_NOEND)
		return false;

	/* Patience begins anew with each worker that comes. */
	since = pool->nready > 0 ?
		Min(pool->ready_since, pool->delayed_until) : pool->delayed_until;
	since = Max(since, newest);
	if (pool->nwoken > 0 || !dlist_is_empty(&pool->idle))
		since = now;			/* somebody is about to take it */
	else if (pool->nready >= MUCH_WORK || since + PATIENCE <= now)
		return true;
	*next = Min(*next, since + PATIENCE);
	return false;
}

/* Processes that never came. */
static void
give_up_starts(TimestampTz now)
{
	for (int i = 0; i < act_roster->nslots; i++)
	{
		WorkerSlot *slot = &act_roster->slots[i];

		if (slot->state == SLOT_STARTING && slot->since + START_LIMIT <= now)
		{
			delay_pool(slot->pool, now);
			vacate_slot(slot, now);
		}
	}
}

/*
 * The owners of this database's pools that want a worker, at most max of
 * them.  Forgets pools that are empty.
 */
int
act_fleet_find_wanting(Oid database, TimestampTz now, Oid *owners, int max,
					   TimestampTz *next)
{
	Tenant	   *tenant;
	dlist_mutable_iter iter;
	int			n = 0;

	lock_roster();
	give_up_starts(now);
	tenant = act_roster_find_tenant(database);
	Assert(tenant != NULL);
	dlist_foreach_modify(iter, &tenant->pools)
	{
		Pool	   *pool = dlist_container(Pool, node, iter.cur);

		if (pool->nentries == 0 && pool->nslots == 0)
		{
			act_roster_remove_pool(pool);
			continue;
		}
		if (pool->nstarting > 0)
			*next = Min(*next, now + START_LIMIT);
		if (pool->nready + pool->ndelayed == 0)
			pool->wants_help = false;
		if (wants_worker(pool, now, next))
		{
			if (n < max)
				owners[n++] = pool->key.owner;
		}
		else if (pool->not_before <= now)
			pool->starved = false;
	}
	unlock_roster();
	return n;
}

/* --------------------------------------------------- who gives one up */

/* The worker of the pool that has been here longest, or NULL. */
static WorkerSlot *
oldest_worker(const Pool *pool)
{
	WorkerSlot *oldest = NULL;

	for (int i = 0; i < act_roster->nslots; i++)
	{
		WorkerSlot *slot = &act_roster->slots[i];

		if (slot->pool == pool && slot->pid != 0 && !slot->leave &&
			slot->state != SLOT_LEAVING &&
			(oldest == NULL || slot->since < oldest->since))
			oldest = slot;
	}
	return oldest;
}

/* How many starved pools have fewer workers than this one? */
static int
count_rivals(const Pool *pool)
{
	dlist_iter	tenants;
	dlist_iter	pools;
	int			n = 0;

	dlist_foreach(tenants, &act_roster->tenants)
	{
		Tenant	   *tenant = dlist_container(Tenant, node, tenants.cur);

		dlist_foreach(pools, &tenant->pools)
		{
			Pool	   *other = dlist_container(Pool, node, pools.cur);

			if (other->starved && other->nworkers < pool->nworkers)
				n++;
		}
	}
	return n;
}

/* How many workers are on their way out already? */
static int
count_leaving(void)
{
	int			n = 0;

	for (int i = 0; i < act_roster->nslots; i++)
	{
		WorkerSlot *slot = &act_roster->slots[i];

		if (slot->state == SLOT_LEAVING || slot->leave)
			n++;
	}
	return n;
}

/*
 * Who is to give way to this pool?  NULL: nobody, or nobody yet; "next" is
 * then when to ask again.
 */
static WorkerSlot *
choose_victim(const Pool *pool, TimestampTz now, TimestampTz *next)
{
	WorkerSlot *victim = NULL;

	for (int i = 0; i < act_roster->nslots; i++)
	{
		WorkerSlot *slot = &act_roster->slots[i];

		if (slot->state == SLOT_IDLE && slot->pool != pool && !slot->leave &&
			!act_roster_has_work(slot->pool, now))
			return slot;
	}
	for (int i = 0; i < act_roster->nslots; i++)
	{
		Pool	   *other = act_roster->slots[i].pool;
		WorkerSlot *slot;

		if (other == NULL || other == pool ||
			other->nworkers < pool->nworkers + 2)
			continue;
		if (victim != NULL && other->nworkers < victim->pool->nworkers)
			continue;
		slot = oldest_worker(other);
		if (slot != NULL &&
			(victim == NULL || victim->pool->nworkers < other->nworkers ||
			 slot->since < victim->since))
			victim = slot;
	}
	if (victim != NULL || pool->nworkers > 0)
		return victim;

	/* All have one worker, this pool none: they take turns. */
	for (int i = 0; i < act_roster->nslots; i++)
	{
		WorkerSlot *slot = &act_roster->slots[i];

		if (slot->pid != 0 && slot->pool != pool && !slot->leave &&
			slot->state != SLOT_LEAVING &&
			(victim == NULL || slot->since < victim->since))
			victim = slot;
	}
	if (victim != NULL && victim->since + TENURE > now)
	{
		*next = Min(*next, victim->since + TENURE);
		victim = NULL;
	}
	return victim;
}

/* Have somebody make room, unless enough are leaving already. */
static void
make_room_for(Pool *pool, TimestampTz now, TimestampTz *next)
{
	WorkerSlot *victim;

	pool->starved = true;
	if (count_leaving() > count_rivals(pool))
		return;
	victim = choose_victim(pool, now, next);
	if (victim != NULL)
		act_roster_ask_slot(victim);
}

/*
 * Take a slot for a worker of this pool.  False if none is to be had: then
 * somebody has been asked to leave, and the manager will be told.
 */
bool
act_fleet_claim(Oid database, Oid owner, TimestampTz now, Datum *main_arg,
				TimestampTz *next)
{
	WorkerSlot *slot = NULL;
	Pool	   *pool;
	int			nfree = 0;
	bool		claimed = false;

	lock_roster();
	pool = act_roster_find_pool(database, owner);
	if (pool != NULL && pool->tenant->nholds == 0)
	{
		for (int i = act_roster->nslots - 1; i >= 0; i--)
		{
			if (act_roster->slots[i].state == SLOT_FREE)
			{
				slot = &act_roster->slots[i];
				nfree++;
			}
		}
		if (nfree > count_rivals(pool))
		{
			act_roster_claim_slot(slot, pool, now);
			pool->starved = false;
			pool->block = POOL_OPEN;
			*main_arg = make_arg(slot);
			claimed = true;
		}
		else
			make_room_for(pool, now, next);
	}
	unlock_roster();
	return claimed;
}

/*
 * The server had no slot of its own for the worker.  One of ours that leaves
 * gives one back there, too.
 */
void
act_fleet_start_failed(Datum main_arg, TimestampTz now)
{
	WorkerSlot *slot;

	lock_roster();
	slot = find_claim(main_arg);
	if (slot != NULL)
	{
		Pool	   *pool = slot->pool;
		TimestampTz next = DT_NOEND;

		act_roster_free_slot(slot);
		delay_pool(pool, now);
		make_room_for(pool, now, &next);
	}
	unlock_roster();
}

/*
 * The owner may not connect.  The pool is looked at again later.  True if
 * that is news.
 */
bool
act_fleet_block(Oid database, Oid owner, PoolBlock block, TimestampTz now)
{
	Pool	   *pool;
	bool		news = false;

	lock_roster();
	pool = act_roster_find_pool(database, owner);
	if (pool != NULL)
	{
		news = (pool->block != block);
		if (news)
			pool->delay = 0;
		pool->block = block;
		pool->starved = false;
		delay_pool(pool, now);
	}
	unlock_roster();
	return news;
}

/*
 * A back-off of this database ends then.  Whoever has to look at it is told
 * if it is earlier than what is known.
 */
void
act_fleet_due_at(Oid database, TimestampTz at)
{
	Tenant	   *tenant;

	if (act_roster == NULL)
		return;
	lock_roster();
	tenant = act_roster_enter_tenant(database);
	if (tenant != NULL && at < tenant->next_due)
	{
		tenant->next_due = at;
		if (tenant->manager == MANAGER_RUNNING)
			act_roster_call_manager(tenant);
		else
			act_roster_call_launcher();
	}
	unlock_roster();
}
