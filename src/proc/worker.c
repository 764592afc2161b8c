/*
 * worker.c
 *	  The background worker that runs the entities of one owner role.
 *
 * A worker is a plain session of the owner role.  It pops entries of its
 * pool from the ready queue and runs their entities:
 *	- Several in one transaction (one commit for all), while that stays
 *	  shorter than actornot.group_time, and only of runners whose recent calls
 *	  were fast (group.c).  If anything fails, also at commit, all is rolled
 *	  back and each is run alone.
 *	- More of them, if their handler takes many entities in one call; those
 *	  share a transaction however slow it is, for that is what such a handler
 *	  is registered for.
 *	- Alone, with the steps of retry.c: unknown or slow runners, heads that
 *	  have failed before, suspects of a crash.
 * It commits asynchronously by default: processing is repeatable from the
 * tables, so a crash can undo the last few batches whole, never half.
 *
 * If it dies, the server releases its locks and undoes its transaction; what
 * it held of the queue is queued again by its exit callback (slot.c), or,
 * after a crash of the server, found by the sweep.  Before each run it notes
 * in the crash mark what it is about to call.
 *
 * Memory: a context for each round, reset by the loop.
 */
#include "postgres.h"

#include <signal.h>
#include <unistd.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "compat.h"
#include "common/entity.h"
#include "common/subxact.h"
#include "exec/batch.h"
#include "exec/group.h"
#include "exec/retry.h"
#include "log/clock.h"
#include "proc/worker.h"
#include "runner/runner.h"
#include "sched/crashmark.h"
#include "sched/gate.h"
#include "sched/leaseq.h"
#include "sched/readyq.h"
#include "sched/slot.h"

PGDLLEXPORT void actornot_worker_main(Datum main_arg);

/* The number of messages of a suspect that are run alone, about. */
#define SUSPECT_MESSAGES 1000

/*
 * The largest number of entities of one transaction.  Of a runner whose handler
 * takes many in a call there may be more, as many as a crash mark names.
 */
#define GROUP_MAX 64

/* The longest text for pg_stat_activity. */
#define ACTIVITY_MAX (ACT_MAX_RUNNER_BYTES + 100)

/* The number of runners whose recent pace is remembered; a power of two. */
#define PACE_SLOTS 64

/* The recent duration of a runner's runs. */
typedef struct Pace
{
	int32		runner;
	bool		whole;			/* its handler takes many entities in a call */
	double		microseconds;	/* of one entity, moving average */
} Pace;

static int	group_time;			/* milliseconds */
static int	worker_synchronous_commit;

static Pace paces[PACE_SLOTS];
static MemoryContext round_context = NULL;

/* What is being run, for pg_stat_activity. */
static const EntityKey *running = NULL;
static int	nrunning = 0;

/* Did the transaction that just ended use temporary tables? */
static bool used_temporary = false;

static const struct config_enum_entry synchronous_commit_options[] = {
	{"off", SYNCHRONOUS_COMMIT_OFF, false},
	{"local", SYNCHRONOUS_COMMIT_LOCAL_FLUSH, false},
	{"remote_write", SYNCHRONOUS_COMMIT_REMOTE_WRITE, false},
	{"on", SYNCHRONOUS_COMMIT_ON, false},
	{"remote_apply", SYNCHRONOUS_COMMIT_REMOTE_APPLY, false},
	{NULL, 0, false}
};

/* Register this room's settings. */
void
act_worker_define_settings(void)
{
	DefineCustomIntVariable("actornot.group_time",
							"How long a worker collects entities into one transaction.",
							"Also how long it stays with one busy entity before it turns to the others.",
							&group_time, 5, 1, 10000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomEnumVariable("actornot.synchronous_commit",
							 "synchronous_commit of the workers' transactions.",
							 "With off, a crash of the server can undo the last few batches; they are run again.",
							 &worker_synchronous_commit,
							 SYNCHRONOUS_COMMIT_OFF,
							 synchronous_commit_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
}

/* ---- transactions ---- */

/*
 * Where the extension is gone, or its data waits for adoption (which is for
 * the first call of a user), the process ends.
 */
static void
leave_if_not_adopted(void)
{
	if (act_clock_gate() == GATE_OPEN)
		return;
	act_readyq_forget(MyDatabaseId);
	AbortCurrentTransaction();
	proc_exit(0);
}

/*
 * Start a transaction in which entities can be run, whatever defaults the
 * role or the database has been given.
 */
static void
begin_transaction(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
	synchronous_commit = worker_synchronous_commit;
	ExitOnAnyError = false;
	if (GetUserId() != act_slot_role())
		elog(FATAL, "worker is not what it was started as");
	leave_if_not_adopted();
}

static void
commit_transaction(void)
{
	used_temporary |= (MyXactFlags & XACT_FLAGS_ACCESSEDTEMPNAMESPACE) != 0;
	CommitTransactionCommand();
}

/*
 * Clear away what handlers may have left in the session: the next one may be
 * another runner's.
 */
static void
clean_session(void)
{
	if (used_temporary)
	{
		begin_transaction();
		PushActiveSnapshot(GetTransactionSnapshot());	/* catalogs have TOAST */
		ResetTempTableNamespace();
		PopActiveSnapshot();
		CommitTransactionCommand();
		used_temporary = false;
	}
	PortalHashTableDeleteAll();
	DropAllPreparedStatements();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetSequenceCaches();
}

/* Tell pg_stat_activity what is run. */
static void
report_activity(void)
{
	char		activity[ACTIVITY_MAX];
	const Runner *runner;

	if (!pgstat_track_activities)
		return;
	runner = act_runner_find(running->runner);
	if (nrunning == 1)
		snprintf(activity, sizeof(activity), "actornot: running runner \"%s\"",
				 runner ? runner->name : "?");
	else
		snprintf(activity, sizeof(activity), "actornot: running %d entities, first of runner \"%s\"",
				 nrunning, runner ? runner->name : "?");
	pgstat_report_activity(STATE_RUNNING, activity);
}

/*
 * What the transactions that follow run is noted where a crash does not erase
 * it, until note_end.
 */
static void
note_start(const EntityKey *keys, int n, bool suspect)
{
	running = keys;
	nrunning = n;
	act_crashmark_set(MyDatabaseId, keys, n, suspect);
}

static void
note_end(void)
{
	act_crashmark_clear();
}

/* A ContainFunction: a transaction of its own. */
static bool
contain_in_transaction(void (*body) (void *arg), void *arg,
					   Failure *failure, MemoryContext context)
{
	int			depth = act_entity_depth();
	volatile bool ok = true;

	act_subxact_forget();
	PG_TRY();
	{
		begin_transaction();
		report_activity();
		body(arg);
		commit_transaction();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		act_subxact_capture(failure, context);
		AbortCurrentTransaction();
		if (MyReplicationSlot != NULL)
			ReplicationSlotRelease();
		act_entity_end_run(depth);
		ok = false;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(round_context);
	clean_session();
	return ok;
}

/* ---- pace ---- */

static Pace *
find_pace(int32 runner)
{
	return &paces[runner & (PACE_SLOTS - 1)];
}

static void
note_pace(int32 runner, bool whole, int64 microseconds)
{
	Pace	   *pace = find_pace(runner);

	pace->whole = whole;
	if (pace->runner != runner)
	{
		pace->runner = runner;
		pace->microseconds = (double) microseconds;
	}
	else
		pace->microseconds += 0.2 * (microseconds - pace->microseconds);
}

/*
 * Were the recent runs of this runner so short that it may share a
 * transaction?
 */
static bool
is_fast(int32 runner)
{
	const Pace *pace = find_pace(runner);

	return pace->runner == runner &&
		pace->microseconds * 4 < group_time * 1000.0;
}

/* Does its handler take many entities in a call, as far as we know? */
static bool
is_whole(int32 runner)
{
	const Pace *pace = find_pace(runner);

	return pace->runner == runner && pace->whole;
}

/* How many entities a transaction takes whose first one is of this runner. */
static int
group_limit(int32 runner)
{
	int			limit = GROUP_MAX;

	if (is_whole(runner))
	{
		double		fit = group_time * 1000.0 /
		Max(find_pace(runner)->microseconds, 1.0);

		limit = (int) Min(Max(fit, GROUP_MAX), ACT_MARK_MAX);
	}
	return Min(limit, act_slot_lock_share());
}

/* May an entity share a transaction with another one that was popped first? */
static bool
may_share(const EntityKey *first, const EntityKey *key)
{
	return (is_fast(first->runner) && is_fast(key->runner)) ||
		(first->runner == key->runner && is_whole(first->runner));
}

/* ---- runs ---- */

static void
init_run(EntityRun *run, const EntityKey *key)
{
	act_batch_init(run, key, NULL, 0, act_slot_role(), round_context);
	run->fire_deferred = true;
}

/* What the queue is to do with an entry after a run. */
static ReadyOutcome
outcome_of(const EntityRun *run)
{
	if (run->skipped)
		return READY_NOT_RUN;
	switch (act_gate_verdict(run->gate))
	{
		case HINT_AGAIN:
			return READY_AGAIN;
		case HINT_DELAY:
			return READY_BUSY;
		case HINT_MOVE:
			act_readyq_move(&run->key, run->owner);
			break;
		case HINT_LEND:
			act_leaseq_lend(MyDatabaseId, act_slot_role(), &run->key,
							run->leased_until, false);
			break;
		case HINT_DROP:
			break;
	}
	return READY_DROP;
}

/* Run one entity alone. */
static ReadyOutcome
run_alone(const EntityKey *key)
{
	EntityRun	run;
	TimestampTz start = GetCurrentTimestamp();

	init_run(&run, key);
	run.until = TimestampTzPlusMilliseconds(start, group_time);
	note_start(key, 1, false);
	act_retry_run(&run, contain_in_transaction, LOG);
	note_end();
	if (run.tried > 0)
		note_pace(key->runner, run.whole,
				  (GetCurrentTimestamp() - start) / Max(1, run.batches));
	return outcome_of(&run);
}

/*
 * Is this the last message of a suspect that has to be run alone?  What went
 * down may have been any of its batch, so all that was pending is, but not
 * much more than a run can have taken.
 */
static bool
has_passed(const EntityRun *run)
{
	static EntityKey last;
	static int	passed = 0;

	if (run->gate == GATE_EMPTY || run->gate == GATE_NO_RUNNER)
		return true;
	if (run->gate != GATE_OPEN) /* else it was never called */
		return run->tried > 0 && act_gate_verdict(run->gate) == HINT_DROP;
	if (memcmp(&last, &run->key, sizeof(EntityKey)) != 0)
		passed = 0;
	last = run->key;
	passed += run->consumed;
	return run->reached || passed >= SUSPECT_MESSAGES;
}

/*
 * Run an entity that was being run when the server or a worker went down:
 * its head alone, one suspect at a time in the cluster, and counted before.
 * "was_alone" says that its last run of this kind has ended in a crash.
 */
static ReadyOutcome
run_suspect(const EntityKey *key, bool was_alone)
{
	EntityRun	run;

	init_run(&run, key);
	if (!act_crashmark_try_suspect_turn())
	{
		run.gate = GATE_SUSPECT;
		return outcome_of(&run);
	}
	run.max_messages = 1;
	run.goal = &run.target;
	running = key;
	nrunning = 1;
	if (act_retry_count_crash(&run, was_alone, contain_in_transaction))
	{
		note_start(key, 1, true);
		act_retry_run(&run, contain_in_transaction, LOG);
		note_end();
	}
	if (has_passed(&run))
	{
		/* Else a crash would undo it, and its count be held against it. */
		XLogFlush(XactLastCommitEnd);
		act_crashmark_acquit(MyDatabaseId, key);
	}
	act_crashmark_end_suspect_turn();
	return outcome_of(&run);
}

/* Run entries in one transaction, and those that cannot share one alone. */
static void
run_group(EntityKey *keys, int n)
{
	EntityGroup group = {palloc(sizeof(EntityRun) * n), n, group_time};
	ReadyOutcome *outcomes = palloc(sizeof(ReadyOutcome) * n);
	Failure		failure;
	bool		ok;

	for (int i = 0; i < n; i++)
	{
		init_run(&group.runs[i], &keys[i]);
		group.runs[i].whole = is_whole(keys[i].runner);
	}
	note_start(keys, n, false);
	ok = contain_in_transaction(act_group_run, &group, &failure,
								round_context);
	note_end();

	for (int i = 0; i < n; i++)
	{
		const EntityRun *run = &group.runs[i];

		if (run->pace >= 0)
			note_pace(keys[i].runner, run->whole, run->pace);
		outcomes[i] = ok && run->gate != GATE_NOT_SHARED ?
			outcome_of(run) : run_alone(&keys[i]);
	}
	act_readyq_finish(keys, outcomes, n);
}

static void
run_one(const EntityKey *key)
{
	ReadyOutcome outcome = run_alone(key);

	act_readyq_finish(key, &outcome, 1);
}

/*
 * Pop some entries and run them.  The first one decides: if its runner is
 * fast, others are taken with it; those of them that may not share a
 * transaction go back where they were, for other workers at once.  So do those
 * that a group does not come to.  The oldest entry is the first of a group,
 * which is always run, or found busy: so each one's turn comes.
 */
static void
run_some(void)
{
	EntityKey	keys[ACT_MARK_MAX];
	EntityKey	rejected[ACT_MARK_MAX];
	ReadyOutcome not_run[ACT_MARK_MAX];
	bool		was_alone;
	int			limit;
	int			n = 1,
				kept = 1,
				nrejected = 0;

	if (act_readyq_pop(keys, 1) == 0)
		return;
	if (act_crashmark_is_suspect(MyDatabaseId, &keys[0], &was_alone))
	{
		ReadyOutcome outcome = run_suspect(&keys[0], was_alone);

		act_readyq_finish(keys, &outcome, 1);
		return;
	}
	if (!may_share(&keys[0], &keys[0]))
	{
		run_one(&keys[0]);
		return;
	}

	limit = group_limit(keys[0].runner);
	if (limit > 1)
		n += act_readyq_pop(keys + 1, limit - 1);
	for (int i = 1; i < n; i++)
	{
		if (may_share(&keys[0], &keys[i]) &&
			(kept < GROUP_MAX || keys[i].runner == keys[0].runner) &&
			!act_crashmark_is_suspect(MyDatabaseId, &keys[i], NULL))
			keys[kept++] = keys[i];
		else
		{
			not_run[nrejected] = READY_NOT_RUN;
			rejected[nrejected++] = keys[i];
		}
	}
	if (nrejected > 0)
		act_readyq_finish(rejected, not_run, nrejected);
	if (kept == 1)
		run_one(&keys[0]);
	else
		run_group(keys, kept);
}

/*
 * As the server's die(); the sender tells whether a handler has ended its
 * own process.
 */
static void
handle_term(int signo, siginfo_t *info, void *context)
{
	int			save_errno = errno;

	/* A child of ours that is not yet what it is to be. */
	if (MyProcPid != (int) getpid())
	{
		signal(signo, SIG_DFL);
		raise(signo);
		return;
	}
	act_crashmark_note_term(info->si_pid);
	act_die(signo, info);
	errno = save_errno;
}

static void
catch_term(void)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = handle_term;
	action.sa_flags = SA_SIGINFO | SA_RESTART;
	sigemptyset(&action.sa_mask);
	sigaction(SIGTERM, &action, NULL);
}

/* The process. */
void
actornot_worker_main(Datum main_arg)
{
	catch_term();
	pqsignal(SIGINT, StatementCancelHandler);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGQUIT, act_crashmark_handle_quit);
	act_slot_attach_worker(main_arg);

	round_context = AllocSetContextCreate(TopMemoryContext,
										  "actornot worker",
										  ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(round_context);

	while (act_slot_wait_for_work())
	{
		run_some();
		MemoryContextSwitchTo(round_context);
		MemoryContextReset(round_context);
		pgstat_report_stat(false);
	}
	proc_exit(0);
}
