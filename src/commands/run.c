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
 * whatever is posted meanwhile, and visits what it finds pending there.
 * Where a handler takes many entities in one call, which the first visit of
 * one of them shows, the next ones share a subtransaction; if it fails, they
 * are visited one by one.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "commands/funcargs.h"
#include "common/catalog.h"
#include "common/cursor.h"
#include "common/entity.h"
#include "common/subxact.h"
#include "exec/batch.h"
#include "exec/group.h"
#include "exec/retry.h"
#include "log/bloom.h"
#include "log/clock.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "maint/cleanup.h"
#include "maint/rotation.h"
#include "maint/sweep.h"
#include "runner/runner.h"
#include "sched/hints.h"
#include "sched/slot.h"

PG_FUNCTION_INFO_V1(actornot_run);
PG_FUNCTION_INFO_V1(actornot_drain);
PG_FUNCTION_INFO_V1(actornot_drain_runner);

/* How long a transaction of drain collects entities, and how many. */
#define DRAIN_TIME_MS 20
#define DRAIN_LOCKS 64

/* How many entities a piece of the walk finds. */
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

/* Entities of one runner that are visited in one subtransaction. */
typedef struct DrainGroup
{
	EntityRun  *visits;
	int			n;
} DrainGroup;

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
	EntityRun	visit;

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
	act_visit_init(&visit, &key, entity, entity_len, runner->owner,
				   CurrentMemoryContext);

	/*
	 * What was pending may prove to be nothing, where it was rolled back or
	 * belongs to another entity of the hash; then go on, for 0 means that
	 * there is nothing to do.
	 */
	do
	{
		CHECK_FOR_INTERRUPTS();
		act_retry_run(&visit, act_subxact_contain, WARNING);
	} while (visit.result == RUN_MORE && visit.consumed == 0 &&
			 !visit.failed);

	if (visit.result == RUN_LEASED ||
		(visit.result == RUN_BUSY && visit.tried == 0))
		PG_RETURN_NULL();
	PG_RETURN_INT32((int32) visit.consumed);
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
init_visit(Drain *drain, EntityRun *visit, const FoundEntity *found)
{
	act_visit_init(visit, &found->key, found->entity, found->entity_len,
				   drain->role, drain->piece_context);
	visit->fire_deferred = true;
	visit->goal = &drain->start;
}

/*
 * Is what the drain wants of an entity not done yet?  "visit" is its last one.
 */
static bool
has_more(const EntityRun *visit)
{
	return visit->result == RUN_MORE && !visit->reached &&
		!(visit->failed && is_tried_for_ever(visit->key.runner));
}

/*
 * EntityRun an entity until what was pending at the drain's start is done, though
 * its handler, or others, may post to it all the time.
 */
static void
drain_entity(Drain *drain, const FoundEntity *found)
{
	EntityRun	visit;

	do
	{
		CHECK_FOR_INTERRUPTS();
		init_visit(drain, &visit, found);
		visit.until = drain->commit_at;
		act_retry_run(&visit, act_subxact_contain, WARNING);
		if (visit.tried > 0)
			drain->whole_runner = visit.whole ? found->key.runner : 0;
		drain->processed += visit.consumed;
		if (++drain->nlocks >= DRAIN_LOCKS ||
			GetCurrentTimestamp() >= drain->commit_at)
			commit_and_begin(drain);
	} while (has_more(&visit));
}

/*
 * Body: lock entities, then take one snapshot, then visit them all.
 */
static void
visit_group(void *arg)
{
	DrainGroup *group = arg;
	EntityRun **visits = palloc(sizeof(EntityRun *) * group->n);
	int			depth = act_entity_depth();
	int			n = 0;
	RunContext	work;

	for (int i = 0; i < group->n; i++)
	{
		EntityRun  *visit = &group->visits[i];

		visit->result = RUN_BUSY;
		visit->grouped = true;
		if (act_entity_take(visit->key.hash, false))
			visits[n++] = visit;
	}
	for (int i = 0; i < n; i++)
		act_entity_begin_run(visits[i]->key.hash, visits[i]->key.runner);
	act_head_open(&work);
	act_group_visit(&work, visits, n, 0);
	act_head_close(&work);
	if (act_entity_collided())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a handler touched an entity of its group")));
	act_entity_end_run(depth);
}

/*
 * EntityRun entities whose handler takes many of them in a call.  Where the group
 * fails, or an entity has more, each is visited by itself.
 */
static void
drain_group(Drain *drain, const FoundEntity *found, int n)
{
	DrainGroup	group = {palloc(sizeof(EntityRun) * n), n};
	Failure		failure;
	bool		ok;

	CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < n; i++)
		init_visit(drain, &group.visits[i], &found[i]);
	ok = act_subxact_contain(visit_group, &group, &failure,
							 drain->piece_context);
	for (int i = 0; ok && i < n; i++)
		drain->processed += group.visits[i].consumed;
	commit_and_begin(drain);
	for (int i = 0; i < n; i++)
	{
		if (!ok || group.visits[i].result == RUN_ALONE ||
			has_more(&group.visits[i]))
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
 * EntityRun what a piece of the walk has found.
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
 * Where there is no manager, its chores: rotation, as far as it can go now, and
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
	sweep = act_sweep_begin(drain.context);
	act_sweep_set_runner(sweep, runner);
	act_sweep_set_function(sweep, remember_entity, &drain);
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
