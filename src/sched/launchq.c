/*
 * launchq.c
 *	  Which database gets a manager, and which has to give way.
 *
 * The launcher is not connected to any database.  It asks here which one wants
 * a manager, claims it, and says what became of the start.  If there are as
 * many managers as there may be, they take turns: one that has nothing to do
 * but to wait for its workers is asked to leave, or else the one that has been
 * here longest.
 *
 * Locks: the registry's; no memory.  Failure: a manager that never came is
 * given up after half a minute; if it comes yet, its claim is no longer good
 * and it leaves.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "sched/database.h"
#include "sched/launchq.h"
#include "sched/registry.h"
#include "sched/slot.h"

/* A process that has not come by then is not expected any more. */
#define START_LIMIT (30 * USECS_PER_SEC)

/* When managers are short, each may stay so long. */
#define TENURE (10 * USECS_PER_SEC)

static void
detach_launcher(int code, Datum arg)
{
	act_registry_lock();
	if (act_registry->launcher_pid == MyProcPid)
	{
		act_registry->launcher_pid = 0;
		act_registry->launcher_latch = NULL;
	}
	act_registry_unlock();
}

void
act_launchq_attach(void)
{
	on_shmem_exit(detach_launcher, 0);
	act_registry_lock();
	act_registry->launcher_pid = MyProcPid;
	act_registry->launcher_latch = MyLatch;
	act_registry_unlock();
}

/* Has every database been looked into since the server's start? */
bool
act_launchq_is_probed(void)
{
	return act_registry->probed;
}

void
act_launchq_set_probed(void)
{
	act_registry_lock();
	act_registry->probed = true;
	act_registry_unlock();
}

/* Is it known whether the database has the extension, or is none looking? */
bool
act_launchq_is_settled(Oid database)
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
 * A database that wants a manager now, InvalidOid if there is none; "next" is
 * then when to ask again, unless there is a call before.
 */
Oid
act_launchq_find_wanting(TimestampTz now, TimestampTz *next)
{
	dlist_iter	iter;
	Oid			found = InvalidOid;

	act_registry_lock();
	dlist_foreach(iter, &act_registry->databases)
	{
		Database   *db = dlist_container(Database, node, iter.cur);
		TimestampTz at;

		if (db->manager == MANAGER_STARTING)
		{
			at = db->manager_since + START_LIMIT;
			if (at > now)
			{
				*next = Min(*next, at);
				continue;
			}
			act_database_end_manager(db);
			act_database_delay_manager(db, now);
		}
		if (db->manager != MANAGER_NONE || db->nevictions > 0)
			continue;
		at = Max(act_database_next_chore(db), db->not_before);
		if (at <= now)
		{
			found = db->database;
			break;
		}
		*next = Min(*next, at);
	}
	act_registry_unlock();
	return found;
}

/*
 * Is this manager on its way out?  One that has been for long is not expected
 * any more: something keeps it, a table that is locked, say.
 */
static bool
is_expected_to_leave(Database *db, TimestampTz now)
{
	if (db->manager != MANAGER_LEAVING && !db->manager_leave)
		return false;
	if (db->leave_since == 0 || db->leave_since > now)
		db->leave_since = now;
	return db->leave_since + TENURE > now;
}

/*
 * Too many managers: ask one to go that has nothing to do but to wait for its
 * workers, or else the one that has been here longest.
 */
static void
ask_oldest_manager(TimestampTz now)
{
	Database   *oldest = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &act_registry->databases)
	{
		Database   *db = dlist_container(Database, node, iter.cur);

		if (is_expected_to_leave(db, now))
			return;
		if (db->manager != MANAGER_RUNNING || db->manager_leave)
			continue;
		if (act_database_is_idle(db, now))
		{
			oldest = db;
			break;
		}
		if (db->manager_since + TENURE <= now &&
			(oldest == NULL || db->manager_since < oldest->manager_since))
			oldest = db;
	}
	if (oldest != NULL)
	{
		oldest->manager_leave = true;
		oldest->leave_since = now;
		SetLatch(oldest->manager_latch);
	}
}

/* What a manager is started with: its database and the number of the claim. */
static Datum
make_arg(const Database *db)
{
	return UInt64GetDatum(((uint64) db->generation << 32) |
						  db->database);
}

/*
 * A manager will be started.  False if there are as many as there may be, so
 * that workers find a place too; then they take turns.
 */
bool
act_launchq_claim(Oid database, int max_managers, TimestampTz now,
				  Datum *main_arg)
{
	Database   *db;
	bool		claimed = false;

	act_registry_lock();
	db = act_registry_find_database(database);
	if (db == NULL || db->manager != MANAGER_NONE ||
		db->nevictions > 0)
		;						/* an eviction or another start was faster */
	else if (act_registry->nmanagers >= max_managers)
		ask_oldest_manager(now);
	else
	{
		act_database_set_starting(db, now);
		*main_arg = make_arg(db);
		claimed = true;

		/* The others come first the next time. */
		dlist_delete(&db->node);
		dlist_push_tail(&act_registry->databases, &db->node);
	}
	act_registry_unlock();
	return claimed;
}

/*
 * Has the server started a process for that claim?  True if it has had no
 * place for one for long, and that is not in the log.
 */
bool
act_launchq_note_start(Datum main_arg, bool started)
{
	TimestampTz now = GetCurrentTimestamp();
	Database   *db;
	bool		news = false;

	act_registry_lock();
	db = act_database_find_claim(main_arg);
	if (started)
		act_slot_note_success();
	else if (db != NULL)
	{
		act_database_end_manager(db);
		news = act_slot_note_shortage(now, true);
		db->not_before = act_registry->short_until;
	}
	act_registry_unlock();
	return news;
}

/*
 * The database is gone, or no session can connect to it.  The caller has
 * emptied its queue.  Where something is still going on it stays for now.
 */
void
act_launchq_forget(Oid database)
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
