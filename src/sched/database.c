/*
 * database.c
 *	  Databases: which have a manager, and which need one.
 *
 * A database with the extension has a manager while something is going on
 * there and none otherwise.  Here is kept what the launcher needs to start one
 * in time (see process.c), and what the manager asks: whether a process has
 * called, when the next back-off ends, when the next sweep and the next
 * rotation are due, when a blocked pool is to be looked at again.
 *
 *		none -> starting		the launcher claims and registers a process
 *		starting -> running		the process is here, before it connects
 *		running -> leaving		nothing is to be done for a while
 *		leaving, running -> none	its exit callback
 *		starting -> none		the server had no worker slot, or an eviction
 *								came in between, or no process came for half a
 *								minute
 *
 * Locks: the registry's; no memory.  Failure: a manager that dies is replaced
 * after a delay that doubles up to a minute; what it had taken to do (a
 * sweep, due back-offs) is due again.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "sched/database.h"
#include "sched/entry.h"
#include "sched/hints.h"
#include "sched/registry.h"
#include "sched/slot.h"

#define MIN_DELAY (1 * USECS_PER_SEC)
#define MAX_DELAY (60 * USECS_PER_SEC)

/* A manager that has been here for so long had a good start. */
#define GOOD_START (60 * USECS_PER_SEC)

/* The log's segments are looked at so often at most. */
#define ROTATE_DELAY (25 * INT64CONST(1000))

static int	sweep_interval = 300;	/* seconds */

/* The manager's own database; it cannot be removed while we are in it. */
static Database *my_db = NULL;

/* Did this manager leave by its own decision?  Else its work is due again. */
static bool left_properly = false;

void
act_database_define_settings(void)
{
	DefineCustomIntVariable("actornot.sweep_interval",
							"How often a database that is in use is searched for messages that nobody works on.",
							"A safety net: in the normal course there are none.",
							&sweep_interval,
							300, 1, INT_MAX / 1000,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
}

/* ------------------------------------------------- states of a manager */

/* none -> starting */
void
act_database_set_starting(Database *db, TimestampTz now)
{
	Assert(db->manager == MANAGER_NONE);

	db->manager = MANAGER_STARTING;
	db->generation++;
	db->manager_since = now;
	db->manager_leave = false;
	db->leave_since = 0;
	act_registry->nmanagers++;
}

/* any other -> none */
void
act_database_end_manager(Database *db)
{
	Assert(db->manager != MANAGER_NONE);

	db->manager = MANAGER_NONE;
	db->generation++;
	db->manager_pid = 0;
	db->manager_latch = NULL;
	db->manager_leave = false;
	act_registry->nmanagers--;
	if (db->nevictions > 0)
		ConditionVariableBroadcast(&act_registry->gone);

	/* A process may have called in between, or another database wait. */
	act_registry_call_launcher();
}

/* The next manager comes later, twice as late as the last time. */
void
act_database_delay_manager(Database *db, TimestampTz now)
{
	int64		delay = MIN_DELAY << Min(db->failures, 6);

	db->failures++;
	db->not_before = now + Min(delay, MAX_DELAY);
}

/* The database of that claim, or NULL if it is no longer good. */
Database *
act_database_find_claim(Datum main_arg)
{
	Oid			database = (Oid) DatumGetUInt64(main_arg);
	uint32		generation = (uint32) (DatumGetUInt64(main_arg) >> 32);
	Database   *db = act_registry_find_database(database);

	if (db == NULL || db->manager != MANAGER_STARTING ||
		db->generation != generation)
		return NULL;
	return db;
}

/* --------------------------------------------------- what is to be done */

/* When is the next sweep due? */
static TimestampTz
next_sweep(const Database *db)
{
	TimestampTz at = db->sweep_at;

	/* However often it is asked for, it takes half of the time at most. */
	if (at != DT_NOEND)
		at = Max(at, db->sweep_ended + db->sweep_took);
	if (db->pushes != db->pushes_swept)
		at = Min(at, db->sweep_ended +
				 (int64) sweep_interval * USECS_PER_SEC);
	return at;
}

/* When are the segments of the log to be looked at? */
static TimestampTz
next_rotation(const Database *db)
{
	return db->rotate_at == DT_NOEND ? DT_NOEND :
		Max(db->rotate_at, db->rotated_at + ROTATE_DELAY);
}

/*
 * When is there something to do for the manager, apart from what is going on?
 * Pools that are blocked are to be looked at when their delay is over.
 */
TimestampTz
act_database_next_chore(Database *db)
{
	TimestampTz at;
	dlist_iter	iter;

	if (db->wanted)
		return DT_NOBEGIN;
	if (db->presence != GATE_OPEN)
		return DT_NOEND;
	at = Min(db->next_due, next_sweep(db));
	at = Min(at, next_rotation(db));
	at = Min(at, act_entry_lease_alarm(db, GetCurrentTimestamp()));
	dlist_foreach(iter, &db->pools)
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
bool
act_database_is_idle(Database *db, TimestampTz horizon)
{
	return !db->sweeping && db->presence == GATE_OPEN &&
		act_database_next_chore(db) > horizon;
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
	Database   *db = my_db;
	dlist_iter	iter;

	if (db == NULL)
		return;
	act_registry_lock();
	my_db = NULL;
	if (db->manager_since + GOOD_START <= now || code == 0)
		db->failures = 0;
	if (!left_properly)
	{
		db->wanted = true;
		db->next_due = DT_NOBEGIN;
		db->rotate_at = Min(db->rotate_at, now);
		if (db->sweeping)
			db->sweep_at = Min(db->sweep_at, now);
		if (code != 0 && !db->manager_leave)
			act_database_delay_manager(db, now);
	}
	db->sweeping = false;
	dlist_foreach(iter, &db->pools)
	{
		Pool	   *pool = dlist_container(Pool, node, iter.cur);

		if (!OidIsValid(pool->key.owner))
			continue;

		/* This manager watches it no more; let the next one know. */
		act_registry_end_starved(pool);
		pool->wants_help = false;
		if (db->presence == GATE_OPEN && pool->nready > 0 &&
			pool->not_before <= now)
			db->wanted = true;
	}
	act_database_end_manager(db);
	act_slot_note_exit();
	if (left_properly)
		(void) act_registry_remove_unused(db);
	act_registry_unlock();
}

/*
 * Become the manager that was asked for, and connect.  The caller has set its
 * signal handlers.  If the claim is no longer good the process ends here.
 */
void
act_database_attach_manager(Datum main_arg)
{
	TimestampTz now = GetCurrentTimestamp();
	Database   *db;

	on_shmem_exit(detach_manager, 0);
	act_registry_lock();
	db = act_database_find_claim(main_arg);
	if (db != NULL && db->nevictions == 0)
	{
		db->manager = MANAGER_RUNNING;
		db->manager_pid = MyProcPid;
		db->manager_latch = MyLatch;
		db->manager_since = now;
		my_db = db;
	}
	act_registry_unlock();
	if (my_db == NULL)
		proc_exit(0);

	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(my_db->database, InvalidOid,
											  0);
}

bool
act_database_should_leave(void)
{
	return *(volatile bool *) &my_db->manager_leave;
}

/*
 * The manager has found out whether the extension is here.  True if it waits
 * for adoption and that is not in the log yet.  The launcher goes on to the
 * next database.
 */
bool
act_database_set_presence(Gate presence)
{
	bool		news;

	act_registry_lock();
	my_db->presence = presence;
	if (presence == GATE_OPEN)
		my_db->told = false;
	news = (presence == GATE_NOT_ADOPTED && !my_db->told);
	if (news)
		my_db->told = true;

	/* It leaves at once; a call since it began to look is for the next. */
	if (presence != GATE_OPEN)
	{
		left_properly = true;

		/* The next data are others. */
		my_db->next_due = DT_NOBEGIN;
	}
	act_registry_call_launcher();
	act_registry_unlock();
	return news;
}

/*
 * Before anything is looked at, by the manager or by the launcher: from now on
 * a call is a new one.
 */
void
act_database_begin_look(Oid database)
{
	Database   *db;

	act_registry_lock();
	db = act_registry_find_database(database);
	if (db != NULL)
		db->wanted = false;
	act_registry_unlock();
}

/*
 * Are back-offs due?  Then they are taken: what becomes due from now on has
 * to be said again (act_database_due_at).
 *
 * No row with an earlier end than "from" is new: each has been queued once,
 * after its end, and that is enough.  A process that commits one says so after
 * that.  One that finds it not ended, since the clock was set back, says it
 * again.  What was refused by the queue, or is paused, is left to the sweep
 * that follows.  A manager that did not leave properly has lost its place, and
 * the next one starts from the beginning.
 */
bool
act_database_take_due(TimestampTz now, TimestampTz *from, TimestampTz *next)
{
	bool		due;

	act_registry_lock();
	*from = my_db->next_due;
	due = (*from <= now);
	if (due)
		my_db->next_due = DT_NOEND;
	else
		*next = Min(*next, *from);
	act_registry_unlock();
	return due;
}

/*
 * Is a sweep due?  Then it is taken: what is asked for from now on, before the
 * sweep's first snapshot, makes another one due.
 */
bool
act_database_take_sweep(TimestampTz now, TimestampTz *next)
{
	TimestampTz at;

	act_registry_lock();
	at = next_sweep(my_db);
	if (at <= now)
	{
		my_db->sweep_at = DT_NOEND;
		my_db->pushes_swept = my_db->pushes;
		my_db->sweeping = true;
		my_db->sweep_began = now;
	}
	else
		*next = Min(*next, at);
	act_registry_unlock();
	return at <= now;
}

/* The main walk has ended. */
void
act_database_end_sweep(void)
{
	TimestampTz now = GetCurrentTimestamp();

	act_registry_lock();
	my_db->sweep_ended = now;
	my_db->sweep_took = Max(now - my_db->sweep_began, 0);
	my_db->rotate_at = Min(my_db->rotate_at, now);
	act_registry_unlock();
}

/* Are the segments of the log to be looked at?  Then that is taken, too. */
bool
act_database_take_rotation(TimestampTz now, TimestampTz *next)
{
	TimestampTz at;

	act_registry_lock();
	at = next_rotation(my_db);
	if (at <= now)
		my_db->rotate_at = DT_NOEND;
	else
		*next = Min(*next, at);
	act_registry_unlock();
	return at <= now;
}

/* They were, and are to be looked at again then, unless a process asks. */
void
act_database_end_rotation(TimestampTz again)
{
	act_registry_lock();
	my_db->rotated_at = GetCurrentTimestamp();
	my_db->rotate_at = Min(my_db->rotate_at, again);
	act_registry_unlock();
}

/* No walk is going on any more. */
void
act_database_end_sweeping(void)
{
	act_registry_lock();
	my_db->sweeping = false;
	act_registry_unlock();
}

/* Is nothing going on, and nothing to be done before that time? */
bool
act_database_is_quiet(TimestampTz horizon)
{
	bool		quiet;

	act_registry_lock();
	quiet = act_database_is_idle(my_db, horizon) && my_db->nslots == 0;
	act_registry_unlock();
	return quiet;
}

/*
 * Leave, if there is nothing to be done before that time (workers that sleep
 * can do without a manager).  True: the process must end now.  A call from
 * now on is for the next manager.
 */
bool
act_database_try_leave(TimestampTz horizon)
{
	act_registry_lock();
	left_properly = act_database_is_idle(my_db, horizon);
	if (left_properly)
		my_db->manager = MANAGER_LEAVING;
	act_registry_unlock();
	return left_properly;
}

/* ----------------------------------------------- launcher and all others */

bool
act_database_is_known(Oid database)
{
	Database   *db;
	bool		known;

	act_registry_lock();
	db = act_registry_find_database(database);
	known = (db != NULL && db->presence != GATE_NO_EXTENSION);
	act_registry_unlock();
	return known;
}

/* Is it known whether the database has the extension, or is none looking? */
bool
act_database_is_settled(Oid database)
{
	Database   *db;
	bool		settled;

	act_registry_lock();
	db = act_registry_find_database(database);
	settled = (db == NULL || db->presence != GATE_NO_EXTENSION ||
			   db->manager == MANAGER_NONE);
	act_registry_unlock();
	return settled;
}

/*
 * The database is gone, or no session can connect to it.  The caller has
 * emptied its queue.  Where something is still going on it stays for now.
 */
void
act_database_forget(Oid database)
{
	Database   *db;

	act_registry_lock();
	db = act_registry_find_database(database);
	if (db != NULL)
	{
		db->presence = GATE_NO_EXTENSION;
		(void) act_registry_remove_unused(db);
	}
	act_registry_unlock();
}

void
act_database_want(Oid database)
{
	Database   *db;

	act_registry_lock();
	db = act_registry_enter_database(database);
	if (db != NULL)
		act_registry_call_manager(db);
	act_registry_unlock();
}

void
act_database_want_rotation(Oid database)
{
	Database   *db;

	if (act_registry == NULL)
		return;
	act_registry_lock();
	db = act_registry_enter_database(database);
	if (db != NULL)
	{
		db->rotate_at = Min(db->rotate_at, GetCurrentTimestamp());
		act_registry_call_manager(db);
	}
	act_registry_unlock();
}

/* The manager, or the launcher, is told if it is earlier than what is known. */
void
act_database_due_at(Oid database, TimestampTz at)
{
	Database   *db;

	if (act_registry == NULL)
		return;
	act_registry_lock();
	db = act_registry_enter_database(database);
	if (db != NULL && at < db->next_due)
	{
		db->next_due = at;
		if (db->manager == MANAGER_RUNNING)
			act_registry_call_manager(db);
		else
			act_registry_call_launcher();
	}
	act_registry_unlock();
}
