/*
 * call.c
 *	  The call of a user's function: its limits, its rights, its rows.
 *
 * A handler runs as the runner's owner, under SECURITY_LOCAL_USERID_CHANGE,
 * so that it cannot become another role; in a GUC nest level of its own that
 * is undone; with a timeout that is armed by us, for the server arms
 * statement_timeout only for the statements of clients.  A handler that
 * swallows the cancel is terminated KILL_DELAY_MS later.  Timer and pending
 * cancel are cleared after the call, so that they do not hit the next entity.
 *
 * Of a function that returns a set all rows are kept (in a tuplestore, which
 * goes to a file when it becomes large) before the first one is looked at.
 *
 * Memory: all in the current context, that of the batch.
 */
#include "postgres.h"

#include "catalog/pg_collation_d.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "actornot.h"
#include "common/subxact.h"
#include "exec/call.h"
#include "sched/crashmark.h"

/* How long after its timeout a handler that goes on is terminated. */
#define KILL_DELAY_MS 10000

/* Set by the timer, in signal context. */
static volatile sig_atomic_t timer_fired = false;

/* How many calls are open, one within the other. */
static int	call_depth = 0;

/* The deadline of the innermost open call, 0 if it has none. */
static TimestampTz current_deadline = 0;

static bool timeouts_registered = false;
static TimeoutId cancel_timeout;
static TimeoutId kill_timeout;

/*
 * Signal handlers: what query_cancel and pg_terminate_backend do.
 */
static void
cancel_call(void)
{
	timer_fired = true;
	QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

static void
terminate_call(void)
{
	act_crashmark_blame_at_exit();
	ProcDiePending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/*
 * Arm both timers for a deadline, or disarm them if it is 0.
 */
static void
set_deadline(TimestampTz deadline)
{
	if (!timeouts_registered)
	{
		cancel_timeout = RegisterTimeout(USER_TIMEOUT, cancel_call);
		kill_timeout = RegisterTimeout(USER_TIMEOUT, terminate_call);
		timeouts_registered = true;
	}

	if (deadline != 0)
	{
		EnableTimeoutParams enable[2] = {
			{cancel_timeout, TMPARAM_AT,.fin_time = deadline},
			{kill_timeout, TMPARAM_AT,
				.fin_time = TimestampTzPlusMilliseconds(deadline,
														KILL_DELAY_MS)}
		};

		enable_timeouts(enable, 2);
	}
	else if (current_deadline != 0)
	{
		DisableTimeoutParams disable[2] = {{cancel_timeout}, {kill_timeout}};

		disable_timeouts(disable, 2);
	}
	current_deadline = deadline;
}

/*
 * Arm the timer of a call, unless that of the call around it comes first.
 * False then: the outer one is armed already, and its cancel is not this
 * call's failure.
 */
static bool
enter_deadline(TimestampTz outer, int timeout)
{
	TimestampTz deadline = 0;

	if (timeout > 0)
		deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);
	if (outer != 0 && (deadline == 0 || outer <= deadline))
		return false;
	timer_fired = false;
	if (deadline != 0)
		set_deadline(deadline);
	return true;
}

/*
 * Let no cancel of this call's own timer hit what follows, and go back to the
 * deadline of the call around this one.
 */
static void
leave_deadline(TimestampTz outer)
{
	if (current_deadline == 0)
		return;
	set_deadline(0);
	if (timer_fired)
		QueryCancelPending = false;
	timer_fired = false;
	if (outer != 0)
		set_deadline(outer);
}

/*
 * An error context callback: for whom the function is called.
 */
void
act_call_add_context(void *arg)
{
	const CallFrame *frame = arg;

	act_subxact_note_error();
	if (frame->nentities > 1)
		errcontext("runner \"%s\", %d entities, %d messages",
				   frame->runner, frame->nentities, frame->nmessages);
	else if (frame->nmessages == 0)
		errcontext("runner \"%s\", entity \"%s\"",
				   frame->runner, frame->entity);
	else if (frame->nmessages == 1)
		errcontext("runner \"%s\", entity \"%s\", message " INT64_FORMAT,
				   frame->runner, frame->entity, frame->first_id);
	else
		errcontext("runner \"%s\", entity \"%s\", %d messages from "
				   INT64_FORMAT " to " INT64_FORMAT,
				   frame->runner, frame->entity, frame->nmessages,
				   frame->first_id, frame->last_id);
}

/*
 * What a function that returns one row a call has returned.
 */
static void
keep_row(ReturnSetInfo *set, Datum row, bool isnull)
{
	HeapTupleHeader header;
	HeapTupleData tuple;

	if (set->setResult == NULL)
		set->setResult = tuplestore_begin_heap(false, false, work_mem);
	if (isnull)
	{
		bool		nulls[MaxTupleAttributeNumber];

		memset(nulls, true, sizeof(bool) * set->expectedDesc->natts);
		tuplestore_putvalues(set->setResult, set->expectedDesc, NULL, nulls);
		return;
	}
	header = DatumGetHeapTupleHeader(row);
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	tuplestore_puttuple(set->setResult, &tuple);
}

/*
 * Call a function that returns a set, of a named composite type, to its end.
 * The rows are then in set->setResult, NULL if there are none.
 */
static void
invoke_set(FunctionCallInfo fcinfo, ReturnSetInfo *set)
{
	for (;;)
	{
		Datum		row;

		CHECK_FOR_INTERRUPTS();
		set->returnMode = SFRM_ValuePerCall;
		set->isDone = ExprSingleResult;
		fcinfo->isnull = false;
		row = FunctionCallInvoke(fcinfo);
		if (set->returnMode == SFRM_Materialize ||
			set->isDone == ExprEndResult)
			break;
		keep_row(set, row, fcinfo->isnull);
		if (set->isDone != ExprMultipleResult)
			break;
	}
}

static Datum
invoke(const CallFrame *frame, FmgrInfo *flinfo, const NullableDatum *args,
	   int nargs, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 4);
	ReturnSetInfo set = {T_ReturnSetInfo};
	PgStat_FunctionCallUsage usage;
	Datum		result;

	/*
	 * A function may keep the state of a call that is open in its FmgrInfo,
	 * as those in LANGUAGE sql do, and the call around this one may be one of
	 * the same function.
	 */
	if (call_depth > 1)
	{
		FmgrInfo   *own = palloc(sizeof(FmgrInfo));

		fmgr_info_copy(own, flinfo, CurrentMemoryContext);
		flinfo = own;
	}
	InitFunctionCallInfoData(*fcinfo, flinfo, nargs, DEFAULT_COLLATION_OID,
							 NULL, NULL);
	memcpy(fcinfo->args, args, sizeof(NullableDatum) * nargs);
	if (flinfo->fn_strict)
	{
		for (int i = 0; i < nargs; i++)
		{
			if (args[i].isnull)
			{
				*isnull = true;
				return (Datum) 0;
			}
		}
	}
	pgstat_init_function_usage(fcinfo, &usage);
	if (frame->row_desc != NULL)
	{
		set.econtext = CreateStandaloneExprContext();
		set.expectedDesc = frame->row_desc;
		set.allowedModes = SFRM_ValuePerCall | SFRM_Materialize |
			SFRM_Materialize_Preferred;
		fcinfo->resultinfo = (Node *) &set;
		invoke_set(fcinfo, &set);
		FreeExprContext(set.econtext, true);
		result = PointerGetDatum(set.setResult);
		*isnull = (set.setResult == NULL);
	}
	else
	{
		result = FunctionCallInvoke(fcinfo);
		*isnull = fcinfo->isnull;
	}
	pgstat_end_function_usage(&usage, true);

	if (frame->fire_deferred)
		AfterTriggerFireDeferred();
	return result;
}

/*
 * Call a user's function for an entity, as the runner's owner.  Errors of
 * the function come out as they are; a Failure made of one tells whether it was
 * our timer that cancelled it.  If the frame has a row_desc, what comes
 * back is a Tuplestorestate with all rows, or null if there are none.
 */
Datum
act_call_function(const CallFrame *frame, FmgrInfo *flinfo,
				  const NullableDatum *args, int nargs, bool *isnull)
{
	TimestampTz outer = current_deadline;
	bool		own_deadline;
	ErrorContextCallback context;
	int			guc_level = NewGUCNestLevel();
	Oid			save_userid;
	int			save_sec_context;
	Datum		result;

	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(frame->owner,
						   save_sec_context | SECURITY_LOCAL_USERID_CHANGE);

	context.callback = act_call_add_context;
	context.arg = unconstify(CallFrame *, frame);
	context.previous = error_context_stack;
	error_context_stack = &context;

	act_subxact_forget();
	own_deadline = enter_deadline(outer, frame->timeout);
	act_crashmark_note_call(++call_depth > 0);

	PG_TRY();
	{
		result = invoke(frame, flinfo, args, nargs, isnull);
	}
	PG_CATCH();
	{
		act_crashmark_note_call(--call_depth > 0);
		act_subxact_note_timeout(own_deadline && timer_fired &&
								 geterrcode() == ERRCODE_QUERY_CANCELED);
		if (own_deadline)
			leave_deadline(outer);
		PG_RE_THROW();
	}
	PG_END_TRY();

	act_crashmark_note_call(--call_depth > 0);
	if (own_deadline)
		leave_deadline(outer);
	act_subxact_note_timeout(false);	/* of a call within this one */
	error_context_stack = context.previous;
	SetUserIdAndSecContext(save_userid, save_sec_context);
	AtEOXact_GUC(false, guc_level);
	return result;
}
