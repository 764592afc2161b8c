/*
 * worker.c
 *	  The background worker that runs the entities of one owner role.
 *
 * A worker is a plain session of the owner role.  It pops entries of its
 * pool from the ready queue and visits their entities:
 *	- Several in one transaction (one commit for all), while that stays
 *	  shorter than actornot.group_time, and only of runners whose recent calls
 *	  were fast.  All locks are taken first, then one snapshot.  If anything
 *	  fails, also at commit, all is rolled back and each is run alone.
 *	- More of them, if their handler takes many entities in one call
 *	  (group.c); those share a transaction however slow it is, for that
 *	  is what such a handler is registered for.
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
#include "common/catalog.h"
#include "common/entity.h"
#include "common/subxact.h"
#include "exec/batch.h"
#include "exec/call.h"
#include "exec/group.h"
#include "exec/retry.h"
#include "log/clock.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "proc/worker.h"
#include "runner/runner.h"
#include "sched/crashmark.h"
#include "sched/leaseq.h"
#include "sched/readyq.h"
#include "sched/slot.h"

PGDLLEXPORT void actornot_worker_main(Datum main_arg);

/* How many messages of a suspect are run alone, about. */
#define SUSPECT_MESSAGES 1000

/*
 * How many entities one transaction takes at most; of a runner whose handler
 * takes many in a call, at least, if there are so many, and at most as many as
 * a crash mark names.
 */
#define GROUP_MAX 64

/* What pg_stat_activity shows at most. */
#define ACTIVITY_MAX (ACT_MAX_RUNNER_BYTES + 100)

/* Of how many runners the recent pace is remembered; a power of two. */
#define PACE_SLOTS 64

/* The recent duration of a runner's visits. */
typedef struct Pace
{
	int32		runner;
	bool		whole;			/* its handler takes many entities in a call */
	double		microseconds;	/* of one entity, moving average */
} Pace;

/* A group of entities in one transaction. */
typedef struct EntityGroup
{
	int			n;
	EntityKey  *keys;
	EntityRun  *visits;
	ReadyOutcome *outcomes;
	bool	   *visited;
	EntityRun **together;		/* those of one call */
	bool	   *alone;			/* to be run alone afterwards */
} EntityGroup;

static int	group_time;			/* milliseconds */
static int	worker_synchronous_commit;

static Pace paces[PACE_SLOTS];
static MemoryContext round_context = NULL;

/* The entity that is being run alone, for pg_stat_activity. */
static const EntityKey *running_alone = NULL;

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

/*
 * Register this room's settings.
 */
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
	if (act_catalog_find() != NULL && act_clock_is_adopted())
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

/*
 * Tell pg_stat_activity what is run.
 */
static void
report_activity(const char *what, const EntityKey *key, int n)
{
	char		activity[ACTIVITY_MAX];
	const Runner *runner;

	if (!pgstat_track_activities)
		return;
	runner = act_runner_find(key->runner);
	if (n == 1)
		snprintf(activity, sizeof(activity), "actornot: %s runner \"%s\"",
				 what, runner ? runner->name : "?");
	else
		snprintf(activity, sizeof(activity), "actornot: %s %d entities, first of runner \"%s\"",
				 what, n, runner ? runner->name : "?");
	pgstat_report_activity(STATE_RUNNING, activity);
}

/*
 * A ContainFunction: a transaction of its own.
 */
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
		if (running_alone != NULL)
			report_activity("running", running_alone, 1);
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
 * Were the recent visits of this runner so short that it may share a
 * transaction?
 */
static bool
is_fast(int32 runner)
{
	const Pace *pace = find_pace(runner);

	return pace->runner == runner &&
		pace->microseconds * 4 < group_time * 1000.0;
}

/*
 * Does its handler take many entities in a call, as far as we know?
 */
static bool
is_whole(int32 runner)
{
	const Pace *pace = find_pace(runner);

	return pace->runner == runner && pace->whole;
}

/*
 * How many entities a transaction takes whose first one is of this runner.
 */
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

/*
 * May an entity share a transaction with another one that was popped first?
 */
static bool
may_share(const EntityKey *first, const EntityKey *key)
{
	return (is_fast(first->runner) && is_fast(key->runner)) ||
		(first->runner == key->runner && is_whole(first->runner));
}

/* ---- visits ---- */

/*
 * What the queue is to do with an entry after a visit.
 */
static ReadyOutcome
outcome_of(const EntityRun *visit)
{
	switch (visit->result)
	{
		case RUN_MORE:
		case RUN_ALONE:
			return READY_AGAIN;
		case RUN_BUSY:
			return READY_BUSY;
		case RUN_MOVED:
			act_readyq_move(&visit->key, visit->owner);
			return READY_DROP;
		case RUN_LEASED:
			act_leaseq_lend(MyDatabaseId, act_slot_role(), &visit->key,
							visit->leased_until, false);
			return READY_DROP;
		case RUN_EMPTY:
		case RUN_WAITING:
			break;
	}
	return READY_DROP;
}

/*
 * Take the locks of a group's entities, all before the snapshot.
 */
static void
lock_group(EntityGroup *group)
{
	for (int i = 0; i < group->n; i++)
	{
		group->outcomes[i] = READY_NOT_RUN;
		if (!act_entity_take(group->keys[i].hash, false))
			group->outcomes[i] = READY_BUSY;
	}
	for (int i = 0; i < group->n; i++)
	{
		group->visited[i] = (group->outcomes[i] == READY_BUSY);
		if (!group->visited[i])
			act_entity_begin_run(group->keys[i].hash,
								 group->keys[i].runner);
	}
}

/*
 * EntityRun the next entity of a group, and, if its handler takes many in a call,
 * all others of its runner.
 */
static void
visit_next(EntityGroup *group, RunContext *work, int first, TimestampTz until)
{
	int32		runner = group->keys[first].runner;
	EntityRun **visits = group->together;
	TimestampTz start = GetCurrentTimestamp();
	int			n = 0;
	int			batches = 0;

	for (int i = first; i < group->n; i++)
	{
		if (group->visited[i] || group->keys[i].runner != runner)
			continue;
		group->visited[i] = true;
		visits[n] = &group->visits[i];
		visits[n]->grouped = true;
		visits[n]->fire_deferred = true;
		visits[n++]->until = until;
		if (!is_whole(runner))
			break;
	}
	if (is_whole(runner))
		act_group_visit(work, visits, n, until);
	else
		act_batch_visit(work, visits[0]);

	for (int i = 0; i < n; i++)
	{
		int			at = visits[i] - group->visits;

		group->alone[at] = (visits[i]->result == RUN_ALONE);
		group->outcomes[at] = outcome_of(visits[i]);
		if (i > 0 && visits[i]->result == RUN_MORE &&
			visits[i]->tried == 0 && visits[i]->batches == 0)
			group->outcomes[at] = READY_NOT_RUN;	/* time was over */
		batches += visits[i]->batches;
	}
	if (act_entity_collided())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a handler touched an entity of its group")));
	note_pace(runner, visits[0]->whole,
			  (GetCurrentTimestamp() - start) / Max(1, batches));
}

/*
 * The body of a group's transaction: lock all, then take one snapshot, then
 * visit one after the other until time is over.
 */
static void
run_group_body(void *arg)
{
	EntityGroup *group = arg;
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													group_time);
	RunContext	work;
	int			depth = act_entity_depth();

	report_activity("running", &group->keys[0], group->n);
	lock_group(group);
	act_head_open(&work);
	for (int i = 0; i < group->n; i++)
	{
		if (group->visited[i])
			continue;
		CHECK_FOR_INTERRUPTS();
		visit_next(group, &work, i, until);
		if (GetCurrentTimestamp() >= until)
			break;
	}
	act_head_close(&work);
	act_entity_end_run(depth);
}

/*
 * Run one entity alone.
 */
static ReadyOutcome
run_alone(const EntityKey *key)
{
	EntityRun	visit;
	TimestampTz start = GetCurrentTimestamp();

	act_visit_init(&visit, key, NULL, 0, act_slot_role(),
				   round_context);
	visit.fire_deferred = true;
	visit.until = TimestampTzPlusMilliseconds(start, group_time);
	running_alone = key;
	act_retry_run(&visit, contain_in_transaction, LOG);
	running_alone = NULL;
	if (visit.tried > 0)
		note_pace(key->runner, visit.whole,
				  (GetCurrentTimestamp() - start) / Max(1, visit.batches));
	return outcome_of(&visit);
}

/*
 * Is this the last message of a suspect that has to be run alone?  What went
 * down may have been any of its batch, so all that was pending is, but not
 * much more than a visit can have taken.
 */
static bool
has_passed(const EntityRun *visit)
{
	static EntityKey last;
	static int	passed = 0;

	if (visit->result == RUN_WAITING)
		return visit->tried > 0;	/* else paused, or backing off */
	if (visit->result != RUN_MORE)
		return visit->result != RUN_BUSY &&
			visit->result != RUN_LEASED && visit->result != RUN_MOVED;
	if (memcmp(&last, &visit->key, sizeof(EntityKey)) != 0)
		passed = 0;
	last = visit->key;
	passed += visit->consumed;
	return visit->reached || passed >= SUSPECT_MESSAGES;
}

/*
 * Run an entity that was being run when the server or a worker went down:
 * its head alone, one suspect at a time in the cluster, and counted before.
 * "was_alone" says that its last run of this kind has ended in a crash.
 */
static ReadyOutcome
run_suspect(const EntityKey *key, bool was_alone)
{
	EntityRun	visit;

	if (!act_crashmark_try_suspect_turn())
		return READY_BUSY;

	act_visit_init(&visit, key, NULL, 0, act_slot_role(),
				   round_context);
	visit.fire_deferred = true;
	visit.max_messages = 1;
	visit.goal = &visit.target;
	running_alone = key;
	if (act_retry_count_crash(&visit, was_alone, contain_in_transaction))
	{
		act_crashmark_set(act_slot_slot(), MyDatabaseId, key, 1, true);
		act_retry_run(&visit, contain_in_transaction, LOG);
		act_crashmark_clear(act_slot_slot());
	}
	running_alone = NULL;
	if (has_passed(&visit))
	{
		/* Else a crash would undo it, and its count be held against it. */
		XLogFlush(XactLastCommitEnd);
		act_crashmark_acquit(MyDatabaseId, key);
	}
	act_crashmark_end_suspect_turn();
	return outcome_of(&visit);
}

/*
 * Run entries in one transaction, and those that cannot share one alone.
 */
static void
run_group(EntityKey *keys, int n)
{
	EntityGroup group;
	Failure		failure;
	bool		ok;

	group.n = n;
	group.keys = keys;
	group.visits = palloc(sizeof(EntityRun) * n);
	group.outcomes = palloc(sizeof(ReadyOutcome) * n);
	group.visited = palloc(sizeof(bool) * n);
	group.together = palloc(sizeof(EntityRun *) * n);
	group.alone = palloc0(sizeof(bool) * n);
	for (int i = 0; i < n; i++)
		act_visit_init(&group.visits[i], &keys[i], NULL, 0,
					   act_slot_role(), round_context);

	act_crashmark_set(act_slot_slot(), MyDatabaseId, keys, n, false);
	ok = contain_in_transaction(run_group_body, &group, &failure,
								round_context);
	act_crashmark_clear(act_slot_slot());

	for (int i = 0; i < n; i++)
	{
		if (!ok || group.alone[i])
		{
			act_crashmark_set(act_slot_slot(), MyDatabaseId, &keys[i], 1,
							  false);
			group.outcomes[i] = run_alone(&keys[i]);
			act_crashmark_clear(act_slot_slot());
		}
	}
	act_readyq_finish(keys, group.outcomes, n);
}

static void
run_one(const EntityKey *key)
{
	ReadyOutcome outcome;

	act_crashmark_set(act_slot_slot(), MyDatabaseId, key, 1, false);
	outcome = run_alone(key);
	act_crashmark_clear(act_slot_slot());
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
 * As the server's die(); who it comes from tells whether a handler has ended
 * its own process.
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

/*
 * The process.
 */
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
