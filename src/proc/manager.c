/*
 * manager.c
 *	  The manager of a database: starts its workers, does its maintenance.
 *
 * Where something is going on in a database with the extension, it has one
 * manager.  It starts workers for the pools that want some, has the log swept
 * for messages without a hint, puts entities back into the ready queue whose
 * back-off is over, rotates the log and removes entities that have ended.  When
 * nothing is going on and nothing is due for a while it leaves; the launcher
 * starts the next one in time.
 *
 * It is the only process with a superuser's rights, so it never runs a
 * user's code, and it does not take the settings of the database for what
 * it relies on.
 *
 * Locks: those of its short transactions, so that no session waits for it for
 * long.  Between them it holds none and has no snapshot.
 *
 * Memory: what a transaction allocates goes with it; the sweep's is its own
 * (sweep_queue.c).
 *
 * Failure: an error ends the process, and the launcher starts another one,
 * each time a little later.  What it had begun is due again (see database.c).
 * But a page that cannot be read could not be read by the next manager either:
 * it is passed by, and only the entities in it wait.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "common/subxact.h"
#include "compat.h"
#include "log/clock.h"
#include "mailbox/due.h"
#include "maint/cleanup.h"
#include "maint/rotation.h"
#include "maint/sweep_queue.h"
#include "sched/database.h"
#include "sched/hints.h"
#include "sched/leaseq.h"
#include "sched/process.h"
#include "sched/readyq.h"

/* How long it stays after the last thing was done: a start costs more. */
#define LINGER (5 * USECS_PER_SEC)

/* How often it looks for room while the queue is too full for what is due. */
#define ROOM_DELAY (20 * INT64CONST(1000))

/* How many pools get workers at a time. */
#define MAX_STARTS 64

/* How many steps of rotation are taken before the other chores. */
#define ROTATE_STEPS 4

/* How late a search that met an unreadable page is tried again. */
#define UNREAD_DELAY (60 * USECS_PER_SEC)

/* A search for entities whose back-off is over. */
typedef struct DueChore
{
	TimestampTz from;
	int			max;
	TimestampTz due;			/* to be searched for from then on */
} DueChore;

/* A search that met something that cannot be read. */
static TimestampTz unread_from = DT_NOEND;	/* where it began */
static TimestampTz unread_retry_at = 0; /* tried again then */

static Rotation *rotation = NULL;
static Cleanup *cleanup = NULL;

PGDLLEXPORT void actornot_manager_main(Datum main_arg);

/* ---------------------------------------------------------- transactions */

/*
 * Begin a chore's transaction.  If the extension is gone meanwhile, or its
 * data waits for adoption, the process ends here.
 */
static void
begin_chore(const char *activity)
{
	Gate		gate;

	act_process_begin_transaction(activity);
	gate = act_clock_gate();
	if (gate == GATE_OPEN)
		return;

	act_readyq_forget(MyDatabaseId);
	if (act_database_set_presence(gate))
		ereport(LOG,
				(errmsg("actornot does nothing in database \"%s\" until it is used there",
						get_database_name(MyDatabaseId)),
				 errdetail("Its data has not lived in this cluster before: perhaps it is being restored."),
				 errhint("Posting, registering a runner or actornot_start() sets it going.")));
	CommitTransactionCommand();
	proc_exit(0);
}

/* -------------------------------------------------------------- workers */

static Gate
check_owner(Oid owner)
{
	HeapTuple	tuple;
	bool		can_login;

	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(owner));
	if (!HeapTupleIsValid(tuple))
		return GATE_NO_ROLE;
	can_login = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	if (!can_login)
		return GATE_NO_LOGIN;
	if (act_database_aclcheck(MyDatabaseId, owner, ACL_CONNECT) != ACLCHECK_OK)
		return GATE_NO_CONNECT;
	return GATE_OPEN;
}

static void
warn_of_gate(Gate gate, Oid owner, const char *role,
			 const char *database)
{
	switch (gate)
	{
		case GATE_NO_ROLE:
			ereport(WARNING,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("runners in database \"%s\" cannot be run: their owner, role with OID %u, does not exist",
							database, owner),
					 errhint("Give them another owner with actornot_set_owner().")));
			break;
		case GATE_NO_LOGIN:
			ereport(WARNING,
					(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
					 errmsg("runners of role \"%s\" in database \"%s\" cannot be run: the role is not permitted to log in",
							role, database),
					 errhint("Workers connect as the owner of the runner: grant it LOGIN.")));
			break;
		case GATE_NO_CONNECT:
			ereport(WARNING,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("runners of role \"%s\" in database \"%s\" cannot be run: the role has no CONNECT privilege",
							role, database),
					 errhint("Workers connect as the owner of the runner: grant it CONNECT on the database.")));
			break;
		default:
			break;
	}
}

/* In a transaction, for the look-ups and the memory. */
static void
start_worker(Oid owner, TimestampTz *next)
{
	TimestampTz now = GetCurrentTimestamp();
	Gate		gate = check_owner(owner);
	char	   *database = get_database_name(MyDatabaseId);
	char	   *role = GetUserNameFromId(owner, true);
	BackgroundWorker worker;
	bool		started;

	if (gate != GATE_OPEN)
	{
		if (act_process_block_pool(MyDatabaseId, owner, gate, now))
			warn_of_gate(gate, owner, role, database);
		return;
	}
	act_process_describe(&worker, "actornot_worker_main", "actornot worker");
	snprintf(worker.bgw_name, BGW_MAXLEN,
			 "actornot worker for owner %s in database %s", role, database);
	gate = act_process_claim_worker(MyDatabaseId, owner, now,
									&worker.bgw_main_arg, next);
	if (gate != GATE_OPEN)
		return;
	started = RegisterDynamicBackgroundWorker(&worker, NULL);
	if (act_process_note_worker(worker.bgw_main_arg, started, next))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start an actornot worker for role \"%s\" in database \"%s\": no worker slot is free",
						role, database),
				 errdetail("Messages wait until there is one."),
				 errhint("Consider increasing the configuration parameter \"max_worker_processes\".")));
}

static void
serve_pools(TimestampTz now, TimestampTz *next)
{
	Oid			owners[MAX_STARTS];
	int			n;

	n = act_process_find_pools(MyDatabaseId, now, owners, MAX_STARTS, next);
	if (n == 0)
		return;
	begin_chore("actornot: starting workers");
	for (int i = 0; i < n; i++)
		start_worker(owners[i], next);
	act_process_end_transaction();

	/* Delays may have been set. */
	(void) act_process_find_pools(MyDatabaseId, GetCurrentTimestamp(),
								  owners, MAX_STARTS, next);
}

/* ---------------------------------------------------------------- chores */

/* Is there so much room in the queue that a piece of work is worth while? */
static bool
has_room(int *room, TimestampTz now, TimestampTz *next)
{
	*room = act_readyq_room(MyDatabaseId);
	if (*room >= act_readyq_enough_room())
		return true;
	*next = Min(*next, now + ROOM_DELAY);
	return false;
}

/*
 * A piece of a chore, contained.  False if something could not be read: the
 * chore goes on without it.  Any other error ends the process.
 */
static bool
could_read(void (*piece) (void *arg), void *arg, Failure *failure,
		   const char *otherwise)
{
	if (act_subxact_contain(piece, arg, failure, CurrentMemoryContext))
		return true;
	if (ERRCODE_TO_CATEGORY(failure->sqlstate) != ERRCODE_INTERNAL_ERROR &&
		ERRCODE_TO_CATEGORY(failure->sqlstate) != ERRCODE_SYSTEM_ERROR)
		ereport(ERROR,
				(errcode(failure->sqlstate),
				 errmsg("%s: %s", otherwise, failure->message)));
	return false;
}

/* To be contained. */
static void
search_due(void *arg)
{
	DueChore   *chore = arg;

	chore->due = act_due_push(chore->from, chore->max);
}

/*
 * The search cannot go beyond what it cannot read, so all that wait are left
 * to a sweep, which says again when those wake up whose mailbox can be read.
 */
static void
note_unread(const DueChore *chore, const Failure *failure, TimestampTz now)
{
	unread_from = Min(unread_from, chore->from);
	unread_retry_at = now + UNREAD_DELAY;
	act_readyq_request_sweep(MyDatabaseId);
	ereport(WARNING,
			(errcode(failure->sqlstate),
			 errmsg("could not search for entities whose back-off is over: %s",
					failure->message),
			 errdetail("They are looked for in the log; those whose mailbox cannot be read have to wait.")));
}

/* Back-offs that are over go back into the queue. */
static void
push_due(TimestampTz now, TimestampTz *next)
{
	DueChore	chore;
	Failure		failure;

	if (!has_room(&chore.max, now, next))
		return;
	if (unread_from != DT_NOEND && unread_retry_at <= now)
	{
		act_database_due_at(MyDatabaseId, unread_from);
		unread_from = DT_NOEND;
	}
	if (act_database_take_due(now, &chore.from, next))
	{
		chore.due = DT_NOEND;
		begin_chore("actornot: looking for entities whose back-off is over");
		if (!could_read(search_due, &chore, &failure,
						"could not look for entities whose back-off is over"))
			note_unread(&chore, &failure, now);
		act_process_end_transaction();
		act_database_due_at(MyDatabaseId, chore.due);
		*next = Min(*next, chore.due);
	}
	if (unread_from != DT_NOEND)
		*next = Min(*next, unread_retry_at);
}

/* A piece of a sweep, to be contained. */
static void
take_piece(void *arg)
{
	act_sweep_queue_take_piece();
}

/* Go on behind a block that cannot be read. */
static void
skip_block(const Failure *failure)
{
	int			segment;
	BlockNumber block;

	if (act_sweep_queue_skip_block(&segment, &block))
		ereport(WARNING,
				(errcode(failure->sqlstate),
				 errmsg("could not read block %u of segment \"actornot.message_%d\": %s",
						block, segment, failure->message),
				 errdetail("Messages in it may have to wait until it can be read.")));
}

/* One piece of a sweep. */
static void
push_swept(TimestampTz now, TimestampTz *next)
{
	Failure		failure;

	if (!act_sweep_queue_choose(now, next))
		return;
	begin_chore("actornot: sweeping the log");
	if (!could_read(take_piece, NULL, &failure, "could not sweep the log"))
		skip_block(&failure);
	act_process_end_transaction();
	act_sweep_queue_finish_piece();
	*next = now;
}

/*
 * The steps of rotation that can be taken now, each a transaction; not all at
 * once if they are many, for the queue wants to be looked at as well.
 */
static void
rotate_log(TimestampTz now, TimestampTz *next)
{
	TimestampTz again = DT_NOEND;
	bool		more = true;

	if (!act_database_take_rotation(now, next))
		return;
	for (int i = 0; more && i < ROTATE_STEPS; i++)
	{
		begin_chore("actornot: rotating the log");
		more = act_rotation_step(rotation, &again);
		act_process_end_transaction();
	}
	if (more)
		again = now;
	act_database_end_rotation(again);
	*next = Min(*next, again);
	act_cleanup_note_emptied(cleanup, act_rotation_take_emptied(rotation));
}

/* To be contained. */
static void
cleanup_piece(void *arg)
{
	act_cleanup_step(cleanup);
}

/* Rows that cannot be read stay; so do their neighbours. */
static void
skip_piece(const Failure *failure)
{
	ereport(WARNING,
			(errcode(failure->sqlstate),
			 errmsg("could not remove entities that have ended from block %u of table \"actornot.mailbox\" on: %s",
					act_cleanup_skip_piece(cleanup), failure->message)));
}

/* A piece of the walk that removes the rows of entities that have ended. */
static void
remove_ended(TimestampTz now, TimestampTz *next)
{
	Failure		failure;

	if (!act_cleanup_is_due(cleanup))
		return;
	begin_chore("actornot: removing entities that have ended");
	if (!could_read(cleanup_piece, NULL, &failure,
					"could not remove entities that have ended"))
		skip_piece(&failure);
	act_process_end_transaction();
	if (act_cleanup_is_due(cleanup))
		*next = now;
}

/* --------------------------------------------------------------- process */

/* As autovacuum does, and for the same reasons. */
static void
override_settings(void)
{
	SetConfigOption("role", "none", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("exit_on_error", "false", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("search_path", "", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("zero_damaged_pages", "false", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("idle_in_transaction_session_timeout", "0",
					PGC_SUSET, PGC_S_OVERRIDE);
	act_unset_transaction_timeout();
	SetConfigOption("default_transaction_isolation", "read committed",
					PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off",
					PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("synchronous_commit", "local",
					PGC_SUSET, PGC_S_OVERRIDE);
}

static void
start_process(Datum main_arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	act_database_attach_manager(main_arg);
	override_settings();
	rotation = act_rotation_begin(TopMemoryContext, true);
	cleanup = act_cleanup_begin(TopMemoryContext);

	/*
	 * Clear the flag before looking, so that a CREATE EXTENSION that is
	 * committed meanwhile wakes us again.
	 */
	act_database_begin_look(MyDatabaseId);
	begin_chore("actornot: looking for the extension");
	act_process_end_transaction();
	(void) act_database_set_presence(GATE_OPEN);
}

/*
 * The process ends here if it has been asked to, or if nothing has been going
 * on for a while and nothing is due soon.
 */
static void
leave_if_quiet(TimestampTz *quiet_since, TimestampTz *next)
{
	TimestampTz now = GetCurrentTimestamp();

	if (act_database_should_leave())
	{
		/* The next manager begins where something was missed. */
		act_database_due_at(MyDatabaseId, unread_from);
		(void) act_database_try_leave(now);
		proc_exit(0);
	}
	if (act_cleanup_is_due(cleanup) || unread_from != DT_NOEND ||
		!act_database_is_quiet(now + LINGER))
	{
		*quiet_since = 0;
		return;
	}
	if (*quiet_since == 0)
		*quiet_since = now;
	if (*quiet_since + LINGER <= now && act_database_try_leave(now + LINGER))
		proc_exit(0);
	*next = Min(*next, *quiet_since + LINGER);
}

void
actornot_manager_main(Datum main_arg)
{
	TimestampTz quiet_since = 0;

	start_process(main_arg);
	for (;;)
	{
		TimestampTz next = DT_NOEND;
		TimestampTz now;

		act_process_begin_round();
		act_database_begin_look(MyDatabaseId);
		now = GetCurrentTimestamp();
		serve_pools(now, &next);
		act_leaseq_expire(MyDatabaseId, now, &next);
		push_due(now, &next);
		push_swept(now, &next);
		rotate_log(now, &next);
		remove_ended(now, &next);
		leave_if_quiet(&quiet_since, &next);
		act_process_sleep_until(next);
	}
}
