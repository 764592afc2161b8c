/*
 * call.c
 *	  The call of a user's function: its arguments, its limits, its rights.
 *
 * A handler runs as the runner's owner, under SECURITY_LOCAL_USERID_CHANGE,
 * so that it cannot become anybody else; in a GUC nest level of its own that
 * is undone; with a timeout that is armed by us, for the server arms
 * statement_timeout only for the statements of clients.  A handler that
 * swallows the cancel is terminated KILL_DELAY_MS later.  Timer and pending
 * cancel are cleared after the call, lest they hit the next entity.
 *
 * The array of messages is written into one growing piece of memory, instead
 * of being put together from single ones at the end.
 *
 * Memory: all in the current context, that of the batch.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/xact.h"
#include "actornot.h"
#include "call.h"
#include "catalog.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "crashmark.h"
#include "message.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "runner.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

/* How long after its timeout a handler that goes on is terminated. */
#define KILL_DELAY_MS 10000

/* The fields of actornot_message. */
enum
{
	FIELD_ID,
	FIELD_PAYLOAD,
	FIELD_HEADERS,
	FIELD_POSTED_AT,
	FIELD_ATTEMPT,
	NFIELDS
};

#define ARRAY_START ARR_OVERHEAD_NONULLS(1)

/* Set by the timer, in signal context. */
static volatile sig_atomic_t timer_fired = false;

/* Did the last call that failed fail because of its timeout? */
static bool timed_out = false;

/* The deadline of the innermost open call, 0 if it has none. */
static TimestampTz current_deadline = 0;

static bool timeouts_registered = false;
static TimeoutId cancel_timeout;
static TimeoutId kill_timeout;

/*
 * Start an argument in one of the two forms.
 */
void
act_call_begin_messages(MessagesArgument *messages, HandlerForm form)
{
	MemSet(messages, 0, sizeof(MessagesArgument));
	messages->form = form;
	if (form == HANDLER_ARRAY)
	{
		messages->desc =
			lookup_rowtype_tupdesc(act_catalog_get()->message_type, -1);
		messages->size = 8192;
		messages->array = palloc(messages->size);
		messages->used = ARRAY_START;
	}
	else
		pushJsonbValue(&messages->json, WJB_BEGIN_ARRAY, NULL);
}

static Size
datum_size(Datum value)
{
	return value == (Datum) 0 ? 0 :
		toast_raw_datum_size(value);
}

/*
 * How many bytes a message will add, for batch_bytes.
 */
Size
act_call_message_size(const MessageRow *row)
{
	return datum_size(row->payload) + datum_size(row->headers);
}

/*
 * A value that may stand in a composite one: neither out of line nor
 * compressed.
 */
static Datum
flat_datum(Datum value)
{
	struct varlena *pointer = (struct varlena *) DatumGetPointer(value);

	if (value != (Datum) 0 &&
		(VARATT_IS_EXTERNAL(pointer) || VARATT_IS_COMPRESSED(pointer)))
		return PointerGetDatum(detoast_attr(pointer));
	return value;
}

/*
 * Append an element to the array.  heap_form_tuple makes it: what a composite
 * datum carries in its header is the server's business, and has changed
 * between minor releases.
 */
static void
add_to_array(MessagesArgument *messages, const MessageRow *row, int attempt)
{
	Datum		values[NFIELDS];
	bool		nulls[NFIELDS] = {false};
	HeapTuple	tuple;
	Size		start = MAXALIGN(messages->used);

	values[FIELD_ID] = Int64GetDatum(row->id);
	values[FIELD_PAYLOAD] = flat_datum(row->payload);
	nulls[FIELD_PAYLOAD] = (row->payload == (Datum) 0);
	values[FIELD_HEADERS] = flat_datum(row->headers);
	nulls[FIELD_HEADERS] = (row->headers == (Datum) 0);
	values[FIELD_POSTED_AT] = TimestampTzGetDatum(row->posted_at);
	values[FIELD_ATTEMPT] = Int32GetDatum(attempt);

	tuple = heap_form_tuple(messages->desc, values, nulls);
	if (start + tuple->t_len > messages->size)
	{
		messages->size = Max(messages->size * 2, start + tuple->t_len);
		messages->array = repalloc_huge(messages->array, messages->size);
	}
	memset(messages->array + messages->used, 0, start - messages->used);
	memcpy(messages->array + start, tuple->t_data, tuple->t_len);
	messages->used = start + tuple->t_len;
	heap_freetuple(tuple);
}

static void
push_key(struct JsonbParseState **state, const char *name)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &key);
}

static void
push_number(struct JsonbParseState **state, const char *name, int64 number)
{
	JsonbValue	value;

	push_key(state, name);
	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_jsonb(struct JsonbParseState **state, const char *name, Datum datum)
{
	JsonbValue	value;

	push_key(state, name);
	if (datum == (Datum) 0)
		value.type = jbvNull;
	else
	{
		Jsonb	   *jsonb = DatumGetJsonbPCopy(datum);

		if (JB_ROOT_IS_SCALAR(jsonb))
			JsonbExtractScalar(&jsonb->root, &value);
		else
		{
			value.type = jbvBinary;
			value.val.binary.data = &jsonb->root;
			value.val.binary.len = VARSIZE(jsonb) - VARHDRSZ;
		}
	}
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_time(struct JsonbParseState **state, const char *name, TimestampTz time)
{
	JsonbValue	value;

	push_key(state, name);
	value.type = jbvString;
	value.val.string.val = JsonEncodeDateTime(NULL, TimestampTzGetDatum(time),
											  TIMESTAMPTZOID, NULL);
	value.val.string.len = strlen(value.val.string.val);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
add_to_jsonb(MessagesArgument *messages, const MessageRow *row, int attempt)
{
	struct JsonbParseState **state = &messages->json;

	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_number(state, "id", row->id);
	push_jsonb(state, "payload", row->payload);
	push_jsonb(state, "headers", row->headers);
	push_time(state, "posted_at", row->posted_at);
	push_number(state, "attempt", attempt);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/*
 * Add a message; what it holds is copied.
 */
void
act_call_add_message(MessagesArgument *messages, const MessageRow *row,
					 int attempt)
{
	messages->bytes += act_call_message_size(row);
	if (messages->form == HANDLER_ARRAY)
		add_to_array(messages, row, attempt);
	else
		add_to_jsonb(messages, row, attempt);
	if (messages->nmessages++ == 0)
		messages->first_id = row->id;
	messages->last_id = row->id;
}

/*
 * The finished argument.
 */
Datum
act_call_end_messages(MessagesArgument *messages)
{
	ArrayType  *array;

	if (messages->form == HANDLER_JSONB)
		return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&messages->json,
															   WJB_END_ARRAY,
															   NULL)));

	ReleaseTupleDesc(messages->desc);
	if (!AllocSizeIsValid(messages->used))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("messages of a batch exceed the maximum size of a value")));
	if (messages->nmessages == 0)
		return PointerGetDatum(construct_empty_array(act_catalog_get()->message_type));
	array = (ArrayType *) messages->array;
	SET_VARSIZE(array, messages->used);
	array->ndim = 1;
	array->dataoffset = 0;
	array->elemtype = act_catalog_get()->message_type;
	ARR_DIMS(array)[0] = messages->nmessages;
	ARR_LBOUND(array)[0] = 1;
	return PointerGetDatum(array);
}

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
	EnableTimeoutParams enable[2];
	DisableTimeoutParams disable[2];

	if (!timeouts_registered)
	{
		cancel_timeout = RegisterTimeout(USER_TIMEOUT, cancel_call);
		kill_timeout = RegisterTimeout(USER_TIMEOUT, terminate_call);
		timeouts_registered = true;
	}

	if (deadline != 0)
	{
		MemSet(enable, 0, sizeof(enable));
		enable[0].id = cancel_timeout;
		enable[0].type = TMPARAM_AT;
		enable[0].fin_time = deadline;
		enable[1].id = kill_timeout;
		enable[1].type = TMPARAM_AT;
		enable[1].fin_time = TimestampTzPlusMilliseconds(deadline,
														 KILL_DELAY_MS);
		enable_timeouts(enable, 2);
	}
	else if (current_deadline != 0)
	{
		disable[0].id = cancel_timeout;
		disable[0].keep_indicator = false;
		disable[1].id = kill_timeout;
		disable[1].keep_indicator = false;
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

static void
add_call_context(void *arg)
{
	const CallFrame *frame = arg;

	if (frame->nmessages == 0)
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

static Datum
invoke(const CallFrame *frame, FmgrInfo *flinfo, const NullableDatum *args,
	   int nargs, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, 4);
	PgStat_FunctionCallUsage usage;
	Datum		result;

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
	result = FunctionCallInvoke(fcinfo);
	pgstat_end_function_usage(&usage, true);
	*isnull = fcinfo->isnull;

	if (frame->fire_deferred)
		AfterTriggerFireDeferred();
	return result;
}

/*
 * Call a user's function for an entity, as the runner's owner.  Errors of
 * the function come out as they are; act_call_timed_out then tells whether
 * it was our timer that cancelled it.
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

	context.callback = add_call_context;
	context.arg = unconstify(CallFrame *, frame);
	context.previous = error_context_stack;
	error_context_stack = &context;

	timed_out = false;
	own_deadline = enter_deadline(outer, frame->timeout);

	PG_TRY();
	{
		result = invoke(frame, flinfo, args, nargs, isnull);
	}
	PG_CATCH();
	{
		timed_out = own_deadline && timer_fired &&
			geterrcode() == ERRCODE_QUERY_CANCELED;
		if (own_deadline)
			leave_deadline(outer);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (own_deadline)
		leave_deadline(outer);
	error_context_stack = context.previous;
	SetUserIdAndSecContext(save_userid, save_sec_context);
	AtEOXact_GUC(false, guc_level);
	return result;
}

/*
 * Did the last call that failed run into its timeout?
 */
bool
act_call_timed_out(void)
{
	return timed_out;
}
