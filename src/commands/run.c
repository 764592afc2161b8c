/*
 * run.c
 *	  Running entities in one's own session: actornot_run, actornot_drain.
 *
 * No background worker is needed for these, so that cron is enough where
 * there is no shared_preload_libraries.  The handlers run in the caller's
 * session; therefore current_user must be the runner's owner.  Each step of
 * retry.c is a subtransaction.
 *
 * actornot_run is one batch in the caller's transaction.  Messages that this
 * transaction posted itself are not yet posted, so they are not run; deferred
 * triggers fire at the caller's commit, and fail it if they fail.
 *
 * actornot_drain is a procedure that commits as it goes.  It walks through
 * the log up to where it ended at its start, so that it comes to an end
 * whatever is posted meanwhile, and runs what it finds pending there.
 * Where a handler takes many entities in one call, which the first run of
 * one of them shows, the next ones share a subtransaction; if it fails, they
 * are run one by one.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "commands/funcargs.h"
#include "common/cursor.h"
#include "common/entity.h"
#include "common/subxact.h"
#include "exec/batch.h"
#include "exec/group.h"
#include "exec/retry.h"
#include "log/bloom.h"
#include "log/clock.h"
#include "mailbox/head.h"
#include "maint/cleanup.h"
#include "maint/rotation.h"
#include "maint/sweep.h"
#include "runner/runner.h"
#include "sched/gate.h"
#include "sched/hints.h"
#include "sched/slot.h"

PG_FUNCTION_INFO_V1(actornot_run);
PG_FUNCTION_INFO_V1(actornot_drain);
PG_FUNCTION_INFO_V1(actornot_drain_runner);

/* The longest time and the largest number of entities of a transaction. */
#define DRAIN_TIME_MS 20
#define DRAIN_LOCKS 64

/* The number of entities that a piece of the walk finds. */
#define DRAIN_PIECE 1024

/* An entity that the walk found. */
typedef struct FoundEntity
{
	EntityKey	key;
	char	   *entity;
	int			entity_len;
} FoundEntity;

/* A drain that is going on. */
typedef struct Drain
{
	Oid			role;
	MemoryContext context;		/* survives commits */
	MemoryContext piece_context;	/* reset after each piece */
	FoundEntity *found;
	int			nfound;
	Cursor		start;			/* what was settled when the drain began */
	int64		processed;
	TimestampTz commit_at;		/* of the present transaction */
	int			nlocks;
	int32		whole_runner;	/* whose handler takes many entities in a
								 * call; 0: not known of any */
} Drain;

/*
 * The runner and its owner's rights.
 */
static const Runner *
get_own_runner(FunctionCallInfo fcinfo)
{
	const Runner *runner = act_funcargs_runner(fcinfo);

	act_runner_check_is_owner(runner);
	return runner;
}

/*
 * actornot_run(runner, entity)
 */
Datum
actornot_run(PG_FUNCTION_ARGS)
{
	const Runner *runner = get_own_runner(fcinfo);
	char	   *entity;
	int			entity_len;
	EntityKey	key;
	EntityRun	run;
	HintVerdict verdict;

	act_funcargs_reject_null(fcinfo, 1, "entity");
	act_funcargs_check_may_write("actornot_run()");
	act_head_check_isolation();
	entity = act_funcargs_entity(fcinfo, runner, &entity_len, &key);
	if (runner->handler == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("runner \"%s\" has no handler", runner->name),
				 errhint("Only workers outside the database can run it; register it with a handler to run it here.")));

	/*
	 * Not in the subtransaction: that this very session runs the entity is
	 * the caller's error, and no failure of its handler.
	 */
	act_entity_check_closed(key.hash, runner->name, entity);
	act_batch_init(&run, &key, entity, entity_len, runner->owner,
				   CurrentMemoryContext);

	/*
	 * What was pending may prove to be nothing, where it was rolled back or
	 * belongs to another entity of the hash; then go on, for 0 means that
	 * there is nothing to do.
	 */
	do
	{
		CHECK_FOR_INTERRUPTS();
		act_retry_run(&run, act_subxact_contain, WARNING);
	} while (run.gate == GATE_OPEN && run.consumed == 0 && !run.failed);

	/* Another executor has it, or had a lock that was needed. */
	verdict = act_gate_verdict(run.gate);
	if (verdict == HINT_LEND || (verdict == HINT_DELAY && run.tried == 0))
		PG_RETURN_NULL();
	PG_RETURN_INT32((int32) run.consumed);
}

/* ---- drain ---- */

/*
 * Commit what was done so far and begin anew, at the isolation level that
 * running needs.
 */
static void
commit_and_begin(Drain *drain)
{
	SPI_commit();
	XactIsoLevel = XACT_READ_COMMITTED;
	PreventCommandIfReadOnly("actornot_drain()");
	drain->commit_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   DRAIN_TIME_MS);
	drain->nlocks = 0;
	MemoryContextSwitchTo(drain->piece_context);
}

static bool
remember_entity(void *arg, Oid owner, TimestampTz leased_until,
				const EntityKey *key, const char *entity, int entity_len)
{
	Drain	   *drain = arg;
	FoundEntity *found;
	MemoryContext old;

	if (owner != drain->role || leased_until != 0)
		return false;
	Assert(drain->nfound < DRAIN_PIECE);
	old = MemoryContextSwitchTo(drain->piece_context);
	found = &drain->found[drain->nfound++];
	found->key = *key;
	found->entity = pnstrdup(entity, entity_len);
	found->entity_len = entity_len;
	MemoryContextSwitchTo(old);
	return true;
}

/*
 * Does a head that fails never become a dead letter?  Then a drain must not
 * wait for that.
 */
static bool
is_tried_for_ever(int32 id)
{
	const Runner *runner = act_runner_find(id);

	return runner == NULL || runner->max_attempts == 0;
}

static void
init_run(Drain *drain, EntityRun *run, const FoundEntity *found)
{
	act_batch_init(run, &found->key, found->entity, found->entity_len,
				   drain->role, drain->piece_context);
	run->fire_deferred = true;
	run->goal = &drain->start;
}

/*
 * Is what the drain wants of an entity not done yet?  "run" is its last one.
 */
static bool
has_more(const EntityRun *run)
{
	return run->gate == GATE_OPEN && !run->reached &&
		!(run->failed && is_tried_for_ever(run->key.runner));
}

/*
 * Run an entity until what was pending at the drain's start is done, though
 * its handler, or others, may post to it all the time.
 */
static void
drain_entity(Drain *drain, const FoundEntity *found)
{
	EntityRun	run;

	do
	{
		CHECK_FOR_INTERRUPTS();
		init_run(drain, &run, found);
		run.until = drain->commit_at;
		act_retry_run(&run, act_subxact_contain, WARNING);
		if (run.tried > 0)
			drain->whole_runner = run.whole ? found->key.runner : 0;
		drain->processed += run.consumed;
		if (++drain->nlocks >= DRAIN_LOCKS ||
			GetCurrentTimestamp() >= drain->commit_at)
			commit_and_begin(drain);
	} while (has_more(&run));
}

/*
 * Run entities whose handler takes many of them in a call.  Where the group
 * fails, or an entity has more, each is run by itself.
 */
static void
drain_group(Drain *drain, const FoundEntity *found, int n)
{
	EntityGroup group = {palloc(sizeof(EntityRun) * n), n, 0};
	Failure		failure;
	bool		ok;

	CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < n; i++)
	{
		init_run(drain, &group.runs[i], &found[i]);
		group.runs[i].whole = true;
	}
	ok = act_subxact_contain(act_group_run, &group, &failure,
							 drain->piece_context);
	for (int i = 0; ok && i < n; i++)
		drain->processed += group.runs[i].consumed;
	commit_and_begin(drain);
	for (int i = 0; i < n; i++)
	{
		if (!ok || group.runs[i].gate == GATE_NOT_SHARED ||
			has_more(&group.runs[i]))
			drain_entity(drain, &found[i]);
	}
}

/*
 * How many of the entities that come next may share a call?  At least 1.
 */
static int
count_group(const Drain *drain, const FoundEntity *found, int n)
{
	const Runner *runner = act_runner_find(found->key.runner);
	int			limit = Min(n, act_slot_lock_share());
	int			count = 1;

	if (runner == NULL || found->key.runner != drain->whole_runner)
		return 1;
	limit = Min(limit, runner->batch_size);
	while (count < limit && found[count].key.runner == found->key.runner)
		count++;
	return count;
}

/*
 * Run what a piece of the walk has found.
 */
static void
drain_found(Drain *drain)
{
	int			next = 0;

	while (next < drain->nfound)
	{
		const FoundEntity *found = &drain->found[next];
		int			n = count_group(drain, found, drain->nfound - next);

		if (n > 1)
			drain_group(drain, found, n);
		else
			drain_entity(drain, found);
		next += n;
	}
}

/*
 * Remember what was settled at the start; after the end of the walk was
 * fixed, which holds some more at most.
 */
static void
note_start(Drain *drain)
{
	MemoryContext old = MemoryContextSwitchTo(drain->context);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	if (!act_clock_is_adopted())
		act_clock_adopt();
	act_cursor_from_snapshot(&drain->start, snapshot, act_clock_offset());
	UnregisterSnapshot(snapshot);
	MemoryContextSwitchTo(old);
}

/*
 * Where there is no manager, its work: rotation, as far as it can go now, and
 * what follows from it.
 */
static void
rotate_log(Drain *drain)
{
	Rotation   *rotation = act_rotation_begin(drain->context, false);
	Cleanup    *prune = act_cleanup_begin(drain->context);
	TimestampTz next = DT_NOEND;

	while (act_rotation_step(rotation, &next))
	{
		CHECK_FOR_INTERRUPTS();
		commit_and_begin(drain);
		MemoryContextReset(drain->piece_context);
	}
	act_cleanup_note_emptied(prune, act_rotation_take_emptied(rotation));
	while (act_cleanup_is_due(prune))
	{
		CHECK_FOR_INTERRUPTS();
		act_cleanup_step(prune);
		commit_and_begin(drain);
		MemoryContextReset(drain->piece_context);
	}
	commit_and_begin(drain);
}

/*
 * Drain all runners of the current user, or one of them.
 */
static int64
drain_runners(int32 runner)
{
	Drain		drain = {GetUserId()};
	Sweep	   *sweep;
	bool		complete;

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	drain.context = AllocSetContextCreate(CurrentMemoryContext,
										  "actornot drain",
										  ALLOCSET_DEFAULT_SIZES);
	drain.piece_context = AllocSetContextCreate(drain.context,
												"actornot drain piece",
												ALLOCSET_DEFAULT_SIZES);
	commit_and_begin(&drain);
	sweep = act_sweep_begin(drain.context, runner, remember_entity, &drain);
	act_sweep_end_here(sweep);
	note_start(&drain);
	do
	{
		drain.nfound = 0;
		drain.found = palloc(sizeof(FoundEntity) * DRAIN_PIECE);
		complete = act_sweep_step(sweep, DRAIN_PIECE);
		commit_and_begin(&drain);
		drain_found(&drain);
		commit_and_begin(&drain);
		MemoryContextReset(drain.piece_context);
	} while (!complete);
	act_sweep_end(sweep);
	for (int i = 0; i < ACT_SEGMENTS; i++)
		act_bloom_forget(i);
	if (!act_readyq_attached())
		rotate_log(&drain);
	SPI_finish();
	return drain.processed;
}

/*
 * A procedure's INOUT argument comes back as a record.
 */
static Datum
return_processed(FunctionCallInfo fcinfo, int64 processed)
{
	TupleDesc	desc;
	Datum		value = Int64GetDatum(processed);
	bool		isnull = false;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "actornot_drain is not declared as it should be");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value,
											 &isnull));
}

static void
check_may_commit(FunctionCallInfo fcinfo)
{
	PreventCommandDuringRecovery("actornot_drain()");
	if (fcinfo->context == NULL || !IsA(fcinfo->context, CallContext) ||
		((CallContext *) fcinfo->context)->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("actornot_drain cannot run inside a transaction block"),
				 errdetail("It commits as it goes."),
				 errhint("Use actornot_run to run an entity within a transaction.")));
	PreventCommandIfReadOnly("actornot_drain()");
}

/*
 * CALL actornot_drain(processed)
 */
Datum
actornot_drain(PG_FUNCTION_ARGS)
{
	check_may_commit(fcinfo);
	return return_processed(fcinfo, drain_runners(0));
}

/*
 * CALL actornot_drain(runner, processed)
 */
Datum
actornot_drain_runner(PG_FUNCTION_ARGS)
{
	int32		runner;

	check_may_commit(fcinfo);
	runner = get_own_runner(fcinfo)->id;
	return return_processed(fcinfo, drain_runners(runner));
}
