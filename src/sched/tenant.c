/*
 * tenant.c
 *	  Databases: which have a manager, and which need one.
 *
 * A database with the extension is a tenant.  It has a manager while
 * something is going on there and none otherwise; the launcher, which is not
 * connected to any database, keeps what it needs to start one in time: that
 * somebody called, when the next back-off ends, when the next sweep is due,
 * when a blocked pool is to be looked at again.
 *
 *		none -> starting		the launcher claims and registers a process
 *		starting -> running		the process is here, before it connects
 *		running -> leaving		nothing is to be done for a while
 *		leaving, running -> none	its exit callback
 *		starting -> none		the server had no worker slot, or a hold came
 *								in between, or nobody came for half a minute
 *
 * Locks: the roster's; no memory.  Failure: a manager that dies is replaced
 * after a delay that doubles up to a minute; what it had taken to do (a
 * sweep, due back-offs) is due again.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "sched/entry.h"
#include "sched/roster.h"
#include "sched/tenant.h"

/* A process that has not come by then is not expected any more. */
#define START_LIMIT (30 * USECS_PER_SEC)

#define MIN_DELAY (1 * USECS_PER_SEC)
#define MAX_DELAY (60 * USECS_PER_SEC)

/* A manager that has been here for so long had a good start. */
#define GOOD_START (60 * USECS_PER_SEC)

/* The log's segments are looked at so often at most. */
#define ROTATE_DELAY (25 * INT64CONST(1000))

/* When managers are short, each may stay so long. */
#define TENURE (10 * USECS_PER_SEC)

static int	sweep_interval = 300;	/* seconds */

/* The manager's own tenant; it cannot be removed while we are in it. */
static Tenant *my_tenant = NULL;

/* Did this manager leave of its own will?  Else its work is due again. */
static bool left_properly = false;

void
act_tenant_define_settings(void)
{
	DefineCustomIntVariable("actornot.sweep_interval",
							"How often a database that is in use is searched for messages that nobody works on.",
							"A safety net: in the normal course there are none.",
							&sweep_interval,
							300, 1, INT_MAX / 1000,
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

/* ------------------------------------------------- states of a manager */

/* none -> starting */
static void
set_starting(Tenant *tenant, TimestampTz now)
{
	Assert(tenant->manager == MANAGER_NONE);

	tenant->manager = MANAGER_STARTING;
	tenant->generation++;
	tenant->manager_since = now;
	tenant->manager_leave = false;
	tenant->leave_since = 0;
	act_roster->nmanagers++;
}

/* starting -> running: this process */
static void
set_running(Tenant *tenant, TimestampTz now)
{
	Assert(tenant->manager == MANAGER_STARTING);

	tenant->manager = MANAGER_RUNNING;
	tenant->manager_pid = MyProcPid;
	tenant->manager_latch = MyLatch;
	tenant->manager_since = now;
}

/* running -> leaving */
static void
set_leaving(Tenant *tenant)
{
	Assert(tenant->manager == MANAGER_RUNNING);

	tenant->manager = MANAGER_LEAVING;
}

/* any other -> none */
void
act_tenant_end_manager(Tenant *tenant)
{
	Assert(tenant->manager != MANAGER_NONE);

	tenant->manager = MANAGER_NONE;
	tenant->generation++;
	tenant->manager_pid = 0;
	tenant->manager_latch = NULL;
	tenant->manager_leave = false;
	act_roster->nmanagers--;
	if (tenant->nholds > 0)
		ConditionVariableBroadcast(&act_roster->gone);

	/* Somebody may have called in between, or want one of the others. */
	act_roster_call_launcher();
}

/* The next manager comes later, twice as late as the last time. */
static void
delay_manager(Tenant *tenant, TimestampTz now)
{
	int64		delay = MIN_DELAY << Min(tenant->failures, 6);

	tenant->failures++;
	tenant->not_before = now + Min(delay, MAX_DELAY);
}

/* What a manager is started with: its database and the number of the claim. */
static Datum
make_arg(const Tenant *tenant)
{
	return UInt64GetDatum(((uint64) tenant->generation << 32) |
						  tenant->database);
}

/* The tenant of that claim, or NULL if it is no longer good. */
static Tenant *
find_claim(Datum main_arg)
{
	Oid			database = (Oid) DatumGetUInt64(main_arg);
	uint32		generation = (uint32) (DatumGetUInt64(main_arg) >> 32);
	Tenant	   *tenant = act_roster_find_tenant(database);

	if (tenant == NULL || tenant->manager != MANAGER_STARTING ||
		tenant->generation != generation)
		return NULL;
	return tenant;
}

/* ------------------------------------------------------------- launcher */

static void
detach_launcher(int code, Datum arg)
{
	lock_roster();
	if (act_roster->launcher_pid == MyProcPid)
	{
		act_roster->launcher_pid = 0;
		act_roster->launcher_latch = NULL;
	}
	unlock_roster();
}

void
act_tenant_attach_launcher(void)
{
	on_shmem_exit(detach_launcher, 0);
	lock_roster();
	act_roster->launcher_pid = MyProcPid;
	act_roster->launcher_latch = MyLatch;
	unlock_roster();
}

/* Has every database been looked into since the server's start? */
bool
act_tenant_is_probed(void)
{
	return act_roster->probed;
}

void
act_tenant_set_probed(void)
{
	lock_roster();
	act_roster->probed = true;
	unlock_roster();
}

/* Is it known whether the database has the extension, or is nobody looking? */
bool
act_tenant_is_settled(Oid database)
{
	Tenant	   *tenant;
	bool		settled;

	lock_roster();
	tenant = act_roster_find_tenant(database);
	settled = (tenant == NULL || tenant->presence != TENANT_UNKNOWN ||
			   tenant->manager == MANAGER_NONE);
	unlock_roster();
	return settled;
}

/* When is the next sweep due? */
static TimestampTz
next_sweep(const Tenant *tenant)
{
	TimestampTz at = tenant->sweep_at;

	/* However often it is asked for, it takes half of the time at most. */
	if (at != DT_NOEND)
		at = Max(at, tenant->sweep_ended + tenant->sweep_took);
	if (tenant->pushes != tenant->pushes_swept)
		at = Min(at, tenant->sweep_ended +
				 (int64) sweep_interval * USECS_PER_SEC);
	return at;
}

/* When are the segments of the log to be looked at? */
static TimestampTz
next_rotation(const Tenant *tenant)
{
	return tenant->rotate_at == DT_NOEND ? DT_NOEND :
		Max(tenant->rotate_at, tenant->rotated_at + ROTATE_DELAY);
}

/*
 * When is there something to do for the manager, apart from what is going on?
 * Pools that are blocked are to be looked at when their delay is over.
 */
static TimestampTz
next_chore(Tenant *tenant)
{
	TimestampTz at;
	dlist_iter	iter;

	if (tenant->wanted)
		return DT_NOBEGIN;
	if (tenant->presence != TENANT_PRESENT)
		return DT_NOEND;
	at = Min(tenant->next_due, next_sweep(tenant));
	at = Min(at, next_rotation(tenant));
	at = Min(at, act_entry_lease_alarm(tenant, GetCurrentTimestamp()));
	dlist_foreach(iter, &tenant->pools)
	{
		Pool	   *pool = dlist_container(Pool, node, iter.cur);

		if (!OidIsValid(pool->key.owner))
			continue;
		if (pool->nready > 0 && pool->nworkers == 0)
			at = Min(at, pool->not_before);
		else if (pool->ndelayed > 0 && pool->nworkers == 0)
			at = Min(at, Max(pool->not_before, pool->delayed_until));
	}
	return at;
}

/* Is there nothing for a manager to do before that time? */
static bool
is_idle(Tenant *tenant, TimestampTz horizon)
{
	return !tenant->sweeping && tenant->presence == TENANT_PRESENT &&
		next_chore(tenant) > horizon;
}

/*
 * A database that wants a manager now, InvalidOid if there is none; "next" is
 * then when to ask again, if nobody tells.
 */
Oid
act_tenant_find_wanting(TimestampTz now, TimestampTz *next)
{
	dlist_iter	iter;
	Oid			found = InvalidOid;

	lock_roster();
	dlist_foreach(iter, &act_roster->tenants)
	{
		Tenant	   *tenant = dlist_container(Tenant, node, iter.cur);
		TimestampTz at;

		if (tenant->manager == MANAGER_STARTING)
		{
			at = tenant->manager_since + START_LIMIT;
			if (at > now)
			{
				*next = Min(*next, at);
				continue;
			}
			act_tenant_end_manager(tenant);
			delay_manager(tenant, now);
		}
		if (tenant->manager != MANAGER_NONE || tenant->nholds > 0)
			continue;
		at = Max(next_chore(tenant), tenant->not_before);
		if (at <= now)
		{
			found = tenant->database;
			break;
		}
		*next = Min(*next, at);
	}
	unlock_roster();
	return found;
}

/*
 * Is this manager on its way out?  One that has been for long is not expected
 * any more: something keeps it, a table that is locked, say.
 */
static bool
is_expected_to_leave(Tenant *tenant, TimestampTz now)
{
	if (tenant->manager != MANAGER_LEAVING && !tenant->manager_leave)
		return false;
	if (tenant->leave_since == 0 || tenant->leave_since > now)
		tenant->leave_since = now;
	return tenant->leave_since + TENURE > now;
}

/*
 * Too many managers: ask one to go that has nothing to do but to wait for its
 * workers, or else the one that has been here longest.
 */
static void
ask_oldest_manager(TimestampTz now)
{
	Tenant	   *oldest = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &act_roster->tenants)
	{
		Tenant	   *tenant = dlist_container(Tenant, node, iter.cur);

		if (is_expected_to_leave(tenant, now))
			return;
		if (tenant->manager != MANAGER_RUNNING || tenant->manager_leave)
			continue;
		if (is_idle(tenant, now))
		{
			oldest = tenant;
			break;
		}
		if (tenant->manager_since + TENURE <= now &&
			(oldest == NULL || tenant->manager_since < oldest->manager_since))
			oldest = tenant;
	}
	if (oldest != NULL)
	{
		oldest->manager_leave = true;
		oldest->leave_since = now;
		SetLatch(oldest->manager_latch);
	}
}

/*
 * A manager will be started.  False if there are as many as there may be, so
 * that workers find a place too; then they take turns.
 */
bool
act_tenant_claim(Oid database, int max_managers, TimestampTz now,
				 Datum *main_arg)
{
	Tenant	   *tenant;
	bool		claimed = false;

	lock_roster();
	tenant = act_roster_find_tenant(database);
	if (tenant == NULL || tenant->manager != MANAGER_NONE ||
		tenant->nholds > 0)
		;						/* somebody was faster */
	else if (act_roster->nmanagers >= max_managers)
		ask_oldest_manager(now);
	else
	{
		set_starting(tenant, now);
		*main_arg = make_arg(tenant);
		claimed = true;

		/* The others come first the next time. */
		dlist_delete(&tenant->node);
		dlist_push_tail(&act_roster->tenants, &tenant->node);
	}
	unlock_roster();
	return claimed;
}

/*
 * Has the server started a process for that claim?  True if it has had no
 * place for one for long, and nobody has said so.
 */
bool
act_tenant_note_start(Datum main_arg, bool started)
{
	TimestampTz now = GetCurrentTimestamp();
	Tenant	   *tenant;
	bool		news = false;

	lock_roster();
	tenant = find_claim(main_arg);
	if (started)
		act_roster_note_success();
	else if (tenant != NULL)
	{
		act_tenant_end_manager(tenant);
		news = act_roster_note_shortage(now, true);
		tenant->not_before = act_roster->short_until;
	}
	unlock_roster();
	return news;
}

/* The launcher will look whether the database is there: see begin_look. */
void
act_tenant_end_call(Oid database)
{
	Tenant	   *tenant;

	lock_roster();
	tenant = act_roster_find_tenant(database);
	if (tenant != NULL)
		tenant->wanted = false;
	unlock_roster();
}

/*
 * The database is gone, or nobody can connect to it.  The caller has emptied
 * its queue.  Where something is still going on it stays for now.
 */
void
act_tenant_forget(Oid database)
{
	Tenant	   *tenant;

	lock_roster();
	tenant = act_roster_find_tenant(database);
	if (tenant != NULL)
	{
		tenant->presence = TENANT_UNKNOWN;
		if (tenant->manager == MANAGER_NONE && !tenant->wanted &&
			tenant->nslots == 0 && tenant->nholds == 0 &&
			tenant->nentries == 0)
			act_roster_remove_tenant(tenant);
	}
	unlock_roster();
}

/* -------------------------------------------------------------- manager */

/*
 * Exit callback of a manager, registered before it connects: runs after the
 * abort and when the process has left the database.
 */
static void
detach_manager(int code, Datum arg)
{
	TimestampTz now = GetCurrentTimestamp();
	Tenant	   *tenant = my_tenant;
	dlist_iter	iter;

	if (tenant == NULL)
		return;
	lock_roster();
	my_tenant = NULL;
	if (tenant->manager_since + GOOD_START <= now || code == 0)
		tenant->failures = 0;
	if (!left_properly)
	{
		tenant->wanted = true;
		tenant->next_due = DT_NOBEGIN;
		tenant->rotate_at = Min(tenant->rotate_at, now);
		if (tenant->sweeping)
			tenant->sweep_at = Min(tenant->sweep_at, now);
		if (code != 0 && !tenant->manager_leave)
			delay_manager(tenant, now);
	}
	tenant->sweeping = false;
	dlist_foreach(iter, &tenant->pools)
	{
		Pool	   *pool = dlist_container(Pool, node, iter.cur);

		if (!OidIsValid(pool->key.owner))
			continue;

		/* Nobody keeps an eye on it now; let the next one know. */
		act_roster_end_starved(pool);
		pool->wants_help = false;
		if (tenant->presence == TENANT_PRESENT && pool->nready > 0 &&
			pool->not_before <= now)
			tenant->wanted = true;
	}
	act_tenant_end_manager(tenant);
	act_roster_note_exit();
	if (tenant->presence == TENANT_UNKNOWN && left_properly &&
		!tenant->wanted && tenant->nslots == 0 && tenant->nholds == 0 &&
		tenant->nentries == 0)
		act_roster_remove_tenant(tenant);
	unlock_roster();
}

/*
 * Become the manager that was asked for, and connect.  The caller has set its
 * signal handlers.  If the claim is no longer good the process ends here.
 */
void
act_tenant_attach_manager(Datum main_arg)
{
	TimestampTz now = GetCurrentTimestamp();
	Tenant	   *tenant;

	on_shmem_exit(detach_manager, 0);
	lock_roster();
	tenant = find_claim(main_arg);
	if (tenant != NULL && tenant->nholds == 0)
	{
		set_running(tenant, now);
		my_tenant = tenant;
	}
	unlock_roster();
	if (my_tenant == NULL)
		proc_exit(0);

	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(my_tenant->database, InvalidOid,
											  0);
}

bool
act_tenant_should_leave(void)
{
	return *(volatile bool *) &my_tenant->manager_leave;
}

/*
 * The manager has found out whether the extension is here.  True if it waits
 * for adoption and nobody has said so yet.  The launcher goes on to the next
 * database.
 */
bool
act_tenant_set_presence(TenantPresence presence)
{
	bool		news;

	lock_roster();
	my_tenant->presence = presence;
	if (presence == TENANT_PRESENT)
		my_tenant->told = false;
	news = (presence == TENANT_WAITING && !my_tenant->told);
	if (news)
		my_tenant->told = true;

	/*
	 * It leaves at once; who has called since it began to look calls the
	 * next.
	 */
	if (presence != TENANT_PRESENT)
	{
		left_properly = true;

		/* The next data are others. */
		my_tenant->next_due = DT_NOBEGIN;
	}
	act_roster_call_launcher();
	unlock_roster();
	return news;
}

/* Before anything is looked at: from now on a call is a new one. */
void
act_tenant_begin_look(void)
{
	lock_roster();
	my_tenant->wanted = false;
	unlock_roster();
}

/*
 * Are back-offs due?  Then they are taken: what becomes due from now on has
 * to be said again (act_tenant_due_at).
 *
 * No row with an earlier end than "from" is new: each has been queued once,
 * after its end, and that is enough.  Whoever commits one says so after that.
 * Who finds that it has not ended, since the clock was set back, says it again.
 * What was refused by the queue, or is paused, is left to the sweep that
 * follows.  A manager that did not leave properly has lost its place, and the
 * next one starts from the beginning.
 */
bool
act_tenant_take_due(TimestampTz now, TimestampTz *from, TimestampTz *next)
{
	bool		due;

	lock_roster();
	*from = my_tenant->next_due;
	due = (*from <= now);
	if (due)
		my_tenant->next_due = DT_NOEND;
	else
		*next = Min(*next, *from);
	unlock_roster();
	return due;
}

/*
 * Is a sweep due?  Then it is taken: what is asked for from now on, before the
 * sweep's first snapshot, makes another one due.
 */
bool
act_tenant_take_sweep(TimestampTz now, TimestampTz *next)
{
	TimestampTz at;

	lock_roster();
	at = next_sweep(my_tenant);
	if (at <= now)
	{
		my_tenant->sweep_at = DT_NOEND;
		my_tenant->pushes_swept = my_tenant->pushes;
		my_tenant->sweeping = true;
		my_tenant->sweep_began = now;
	}
	else
		*next = Min(*next, at);
	unlock_roster();
	return at <= now;
}

/* The main walk has ended. */
void
act_tenant_end_sweep(void)
{
	TimestampTz now = GetCurrentTimestamp();

	lock_roster();
	my_tenant->sweep_ended = now;
	my_tenant->sweep_took = Max(now - my_tenant->sweep_began, 0);
	my_tenant->rotate_at = Min(my_tenant->rotate_at, now);
	unlock_roster();
}

/*
 * Are the segments of the log to be looked at?  Then that is taken, too.
 */
bool
act_tenant_take_rotation(TimestampTz now, TimestampTz *next)
{
	TimestampTz at;

	lock_roster();
	at = next_rotation(my_tenant);
	if (at <= now)
		my_tenant->rotate_at = DT_NOEND;
	else
		*next = Min(*next, at);
	unlock_roster();
	return at <= now;
}

/* They were, and are to be looked at again then, unless somebody asks. */
void
act_tenant_end_rotation(TimestampTz again)
{
	lock_roster();
	my_tenant->rotated_at = GetCurrentTimestamp();
	my_tenant->rotate_at = Min(my_tenant->rotate_at, again);
	unlock_roster();
}

/* No walk is going on any more. */
void
act_tenant_end_sweeping(void)
{
	lock_roster();
	my_tenant->sweeping = false;
	unlock_roster();
}

/* Is nothing going on, and nothing to be done before that time? */
bool
act_tenant_is_quiet(TimestampTz horizon)
{
	bool		quiet;

	lock_roster();
	quiet = is_idle(my_tenant, horizon) && my_tenant->nslots == 0;
	unlock_roster();
	return quiet;
}

/*
 * Leave, if there is nothing to be done before that time (workers that sleep
 * can do without a manager).  True: the process must end now.  Whoever calls from
 * now on calls the next manager.
 */
bool
act_tenant_try_leave(TimestampTz horizon)
{
	lock_roster();
	left_properly = is_idle(my_tenant, horizon);
	if (left_properly)
		set_leaving(my_tenant);
	unlock_roster();
	return left_properly;
}

/* ------------------------------------------------------------- everybody */

bool
act_tenant_is_known(Oid database)
{
	Tenant	   *tenant;
	bool		known;

	lock_roster();
	tenant = act_roster_find_tenant(database);
	known = (tenant != NULL && tenant->presence != TENANT_UNKNOWN);
	unlock_roster();
	return known;
}

void
act_tenant_want(Oid database)
{
	Tenant	   *tenant;

	lock_roster();
	tenant = act_roster_enter_tenant(database);
	if (tenant != NULL)
		act_roster_call_manager(tenant);
	unlock_roster();
}

/* The log has grown: its segments are to be looked at. */
void
act_tenant_want_rotation(Oid database)
{
	Tenant	   *tenant;

	if (act_roster == NULL)
		return;
	lock_roster();
	tenant = act_roster_enter_tenant(database);
	if (tenant != NULL)
	{
		tenant->rotate_at = Min(tenant->rotate_at, GetCurrentTimestamp());
		act_roster_call_manager(tenant);
	}
	unlock_roster();
}

/*
 * A back-off of this database ends then.  Whoever has to look at it is told
 * if it is earlier than what is known.
 */
void
act_tenant_due_at(Oid database, TimestampTz at)
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
