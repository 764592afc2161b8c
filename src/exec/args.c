/*
 * args.c
 *	  The arguments of handlers: messages, and batches of many entities.
 *
 * An array is written into one growing piece of memory, instead of being put
 * together from single elements at the end.  It is flat, as the server's own
 * are: unnest() and FOREACH walk it from the front, and its size is aligned
 * like its elements, for array_cat() and slices rely on that.
 * heap_form_tuple makes each
 * element: what a composite datum carries in its header is the server's
 * business, and has changed between minor releases.
 *
 * Memory: all in the current context of the begin function, which is that of
 * the batch or of the call.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "actornot.h"
#include "compat.h"
#include "common/catalog.h"
#include "exec/args.h"
#include "log/reader.h"
#include "runner/runner.h"

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

/* Most arguments are no larger. */
#define ARRAY_FIRST_SIZE 4000

/* ---- arrays of composites ---- */

/*
 * Start an array of a composite type.
 */
void
act_args_begin_array(ArrayArgument *array, Oid type)
{
	array->type = type;
	array->desc = lookup_rowtype_tupdesc(type, -1);
	array->n = 0;
	array->used = ARRAY_START;
	array->size = ARRAY_FIRST_SIZE;
	array->data = palloc(array->size);
}

/*
 * Append an element.  Its values stand in a composite one, so they are neither
 * out of line nor compressed.
 */
void
act_args_add_element(ArrayArgument *array, Datum *values, bool *nulls)
{
	HeapTuple	tuple = heap_form_tuple(array->desc, values, nulls);
	Size		end = array->used + MAXALIGN(tuple->t_len);

	if (end > array->size)
	{
		array->size = Max(array->size * 2, end);
		array->data = repalloc_huge(array->data, array->size);
	}
	memcpy(array->data + array->used, tuple->t_data, tuple->t_len);
	memset(array->data + array->used + tuple->t_len, 0,
		   end - array->used - tuple->t_len);
	array->used = end;
	array->n++;
	heap_freetuple(tuple);
}

/*
 * The array as it is now; it stays good until the next element is added.
 */
Datum
act_args_array_value(ArrayArgument *array)
{
	ArrayType  *value = (ArrayType *) array->data;

	if (!AllocSizeIsValid(array->used))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("messages of a batch exceed the maximum size of a value")));
	if (array->n == 0)
		return PointerGetDatum(construct_empty_array(array->type));
	SET_VARSIZE(value, array->used);
	value->ndim = 1;
	value->dataoffset = 0;
	value->elemtype = array->type;
	ARR_DIMS(value)[0] = array->n;
	ARR_LBOUND(value)[0] = 1;
	return PointerGetDatum(value);
}

/*
 * Go back to no elements, with the same memory.
 */
static void
clear_array(ArrayArgument *array)
{
	array->n = 0;
	array->used = ARRAY_START;
}

void
act_args_end_array(ArrayArgument *array)
{
	ReleaseTupleDesc(array->desc);
}

/* ---- messages ---- */

/*
 * Start an argument in one of the two forms; a handler that takes many
 * entities gets the messages of each as an array.
 */
void
act_args_begin_messages(MessagesArgument *messages, HandlerForm form)
{
	MemSet(messages, 0, sizeof(MessagesArgument));
	messages->is_jsonb = (form == HANDLER_JSONB);
	if (messages->is_jsonb)
		act_push_jsonb(&messages->json, WJB_BEGIN_ARRAY, NULL);
	else
		act_args_begin_array(&messages->array,
							 act_catalog_get()->message_type);
}

/*
 * Forget the messages of an array and start again.
 */
void
act_args_clear_messages(MessagesArgument *messages)
{
	Assert(!messages->is_jsonb);
	messages->nmessages = 0;
	messages->bytes = 0;
	clear_array(&messages->array);
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
act_args_message_size(const MessageRow *row)
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

static void
add_to_array(ArrayArgument *array, const MessageRow *row, int attempt)
{
	Datum		values[NFIELDS];
	bool		nulls[NFIELDS] = {false};

	values[FIELD_ID] = Int64GetDatum(row->id);
	values[FIELD_PAYLOAD] = flat_datum(row->payload);
	nulls[FIELD_PAYLOAD] = (row->payload == (Datum) 0);
	values[FIELD_HEADERS] = flat_datum(row->headers);
	nulls[FIELD_HEADERS] = (row->headers == (Datum) 0);
	values[FIELD_POSTED_AT] = TimestampTzGetDatum(row->posted_at);
	values[FIELD_ATTEMPT] = Int32GetDatum(attempt);
	act_args_add_element(array, values, nulls);
}

static void
push_key(ActJsonbState *state, const char *name)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	act_push_jsonb(state, WJB_KEY, &key);
}

static void
push_number(ActJsonbState *state, const char *name, int64 number)
{
	JsonbValue	value;

	push_key(state, name);
	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	act_push_jsonb(state, WJB_VALUE, &value);
}

static void
push_jsonb(ActJsonbState *state, const char *name, Datum datum)
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
	act_push_jsonb(state, WJB_VALUE, &value);
}

static void
push_time(ActJsonbState *state, const char *name, TimestampTz time)
{
	JsonbValue	value;

	push_key(state, name);
	value.type = jbvString;
	value.val.string.val = JsonEncodeDateTime(NULL, TimestampTzGetDatum(time),
											  TIMESTAMPTZOID, NULL);
	value.val.string.len = strlen(value.val.string.val);
	act_push_jsonb(state, WJB_VALUE, &value);
}

static void
add_to_jsonb(MessagesArgument *messages, const MessageRow *row, int attempt)
{
	ActJsonbState *state = &messages->json;

	act_push_jsonb(state, WJB_BEGIN_OBJECT, NULL);
	push_number(state, "id", row->id);
	push_jsonb(state, "payload", row->payload);
	push_jsonb(state, "headers", row->headers);
	push_time(state, "posted_at", row->posted_at);
	push_number(state, "attempt", attempt);
	act_push_jsonb(state, WJB_END_OBJECT, NULL);
}

/*
 * Add a message; what it holds is copied.
 */
void
act_args_add_message(MessagesArgument *messages, const MessageRow *row,
					 int attempt)
{
	messages->bytes += act_args_message_size(row);
	if (messages->is_jsonb)
		add_to_jsonb(messages, row, attempt);
	else
		add_to_array(&messages->array, row, attempt);
	if (messages->nmessages++ == 0)
		messages->first_id = row->id;
	messages->last_id = row->id;
}

/*
 * The finished argument.
 */
Datum
act_args_end_messages(MessagesArgument *messages)
{
	if (messages->is_jsonb)
	{
		act_push_jsonb(&messages->json, WJB_END_ARRAY, NULL);
		return JsonbPGetDatum(JsonbValueToJsonb(messages->json.result));
	}
	act_args_end_array(&messages->array);
	return act_args_array_value(&messages->array);
}
