/*
 * args.c
 *	  The arguments of handlers, and the answers for many entities.
 *
 * An array is written into one growing piece of memory, instead of being put
 * together from single elements at the end.  It is flat, as the server's own
 * are: unnest() and FOREACH walk it from the front, and its size is aligned
 * like its elements, for array_cat() and slices rely on that.
 * heap_form_tuple makes each element: what a composite datum carries in its
 * header is the server's business, and has changed between minor releases.
 *
 * A handler that takes many entities in one call is
 * f(batches actornot_batch[]) RETURNS SETOF actornot_state_of.  A row that
 * comes back is assigned by the name of the entity, in any order; an entity
 * without a row keeps its state.  A row for an entity that was not given, or
 * a second one for the same, fails the call as an error of the handler would
 * (21000): which of two states is meant is not known.
 *
 * Memory: an argument is in the context that was current in its begin
 * function, that of the batch or of the call.  The new states are in the
 * context that the caller names; what the call itself needs in the current
 * one.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "port/pg_bitutils.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "actornot.h"
#include "compat.h"
#include "common/catalog.h"
#include "exec/args.h"
#include "exec/call.h"
#include "log/reader.h"

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

/* The fields of actornot_batch. */
enum
{
	BATCH_ENTITY,
	BATCH_STATE,
	BATCH_MESSAGES,
	BATCH_NFIELDS
};

/* The columns of actornot_state_of. */
enum
{
	ROW_ENTITY,
	ROW_STATE
};

/* Finds the entities of a call by their names. */
typedef struct EntityIndex
{
	WholeCall  *call;
	uint32		mask;
	int		   *first;			/* plus 1; 0: none */
} EntityIndex;

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
	messages->array.n = 0;
	messages->array.used = ARRAY_START;
}

/*
 * How many bytes a message will add, for batch_bytes.  0 stands for NULL.
 */
Size
act_args_message_size(Datum payload, Datum headers)
{
	return (payload == (Datum) 0 ? 0 : toast_raw_datum_size(payload)) +
		(headers == (Datum) 0 ? 0 : toast_raw_datum_size(headers));
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
push_value(ActJsonbState *state, const char *name, JsonbValue *value)
{
	JsonbValue	key;

	key.type = jbvString;
	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	act_push_jsonb(state, WJB_KEY, &key);
	act_push_jsonb(state, WJB_VALUE, value);
}

static void
push_number(ActJsonbState *state, const char *name, int64 number)
{
	JsonbValue	value;

	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(number);
	push_value(state, name, &value);
}

static void
push_jsonb(ActJsonbState *state, const char *name, Datum datum)
{
	JsonbValue	value;

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
	push_value(state, name, &value);
}

static void
push_time(ActJsonbState *state, const char *name, TimestampTz time)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = JsonEncodeDateTime(NULL, TimestampTzGetDatum(time),
											  TIMESTAMPTZOID, NULL);
	value.val.string.len = strlen(value.val.string.val);
	push_value(state, name, &value);
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
	messages->bytes += act_args_message_size(row->payload, row->headers);
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

/* ---- a call for many entities ---- */

/*
 * Start a call without entities.
 */
void
act_args_begin_call(WholeCall *call)
{
	MemSet(call, 0, sizeof(WholeCall));
	act_args_begin_array(&call->batches, act_catalog_get()->batch_type);
	call->size = 64;
	call->entities = palloc(sizeof(WholeEntity) * call->size);
}

/*
 * How many bytes an entity will add, for batch_bytes.
 */
Size
act_args_entity_size(const MessagesArgument *messages, Datum state)
{
	return messages->bytes +
		(state == (Datum) 0 ? 0 : VARSIZE_ANY(DatumGetPointer(state)));
}

/*
 * Add an entity.  Its name must stay where it is; state and messages are
 * copied.
 */
void
act_args_add_entity(WholeCall *call, const char *entity, int entity_len,
					Datum state, MessagesArgument *messages)
{
	Datum		values[BATCH_NFIELDS];
	bool		nulls[BATCH_NFIELDS] = {false};
	WholeEntity *added;

	if (call->nentities == call->size)
	{
		call->size *= 2;
		call->entities = repalloc(call->entities,
								  sizeof(WholeEntity) * call->size);
	}
	added = &call->entities[call->nentities];
	added->entity = entity;
	added->entity_len = entity_len;
	added->answered = false;
	added->state = (Datum) 0;

	values[BATCH_ENTITY] =
		PointerGetDatum(cstring_to_text_with_len(entity, entity_len));
	values[BATCH_STATE] = state;
	nulls[BATCH_STATE] = (state == (Datum) 0);
	values[BATCH_MESSAGES] = act_args_array_value(&messages->array);
	act_args_add_element(&call->batches, values, nulls);

	if (call->nentities++ == 0)
		call->first_id = messages->first_id;
	call->last_id = messages->last_id;
	call->nmessages += messages->nmessages;
	call->bytes += act_args_entity_size(messages, state);
}

static uint32
hash_name(const EntityIndex *index, const char *name, int len)
{
	return hash_bytes((const unsigned char *) name, len) & index->mask;
}

static void
build_index(EntityIndex *index, WholeCall *call)
{
	uint32		size = pg_nextpower2_32(call->nentities * 2);

	index->call = call;
	index->mask = size - 1;
	index->first = palloc0(sizeof(int) * size);
	for (int i = 0; i < call->nentities; i++)
	{
		WholeEntity *entity = &call->entities[i];
		uint32		hash = hash_name(index, entity->entity,
									 entity->entity_len);

		entity->next = index->first[hash];
		index->first[hash] = i + 1;
	}
}

/*
 * NULL if it is none of this call.
 */
static WholeEntity *
find_entity(const EntityIndex *index, const char *name, int len)
{
	int			i = index->first[hash_name(index, name, len)];

	while (i != 0)
	{
		WholeEntity *entity = &index->call->entities[i - 1];

		if (entity->entity_len == len &&
			memcmp(entity->entity, name, len) == 0)
			return entity;
		i = entity->next;
	}
	return NULL;
}

/*
 * Take over what one row says.
 */
static void
take_row(const EntityIndex *index, TupleTableSlot *slot, const char *runner,
		 MemoryContext context)
{
	WholeEntity *entity;
	text	   *name;
	MemoryContext old;

	slot_getallattrs(slot);
	if (slot->tts_isnull[ROW_ENTITY])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("handler of runner \"%s\" returned a row without an entity",
						runner)));
	name = DatumGetTextPP(slot->tts_values[ROW_ENTITY]);
	entity = find_entity(index, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	if (entity == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("handler of runner \"%s\" returned entity \"%s\", which it was not given",
						runner, text_to_cstring(name))));
	if (entity->answered)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("handler of runner \"%s\" returned entity \"%s\" twice",
						runner, text_to_cstring(name))));
	entity->answered = true;
	if (slot->tts_isnull[ROW_STATE])
		return;
	old = MemoryContextSwitchTo(context);
	entity->state =
		PointerGetDatum(PG_DETOAST_DATUM_COPY(slot->tts_values[ROW_STATE]));
	MemoryContextSwitchTo(old);
}

static void
take_rows(WholeCall *call, Tuplestorestate *rows, TupleDesc desc,
		  const char *runner, MemoryContext context)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	EntityIndex index;

	build_index(&index, call);
	while (tuplestore_gettupleslot(rows, true, false, slot))
		take_row(&index, slot, runner, context);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(rows);
}

/*
 * Call the handler.  Afterwards the entities say what became of them; the
 * states are in "context".  The caller has filled in what the frame says of
 * the runner.
 */
void
act_args_call_many(WholeCall *call, CallFrame *frame, FmgrInfo *flinfo,
				   MemoryContext context)
{
	TupleDesc	desc =
	lookup_rowtype_tupdesc(act_catalog_get()->state_of_type, -1);
	ErrorContextCallback error_context;
	NullableDatum argument;
	bool		isnull;
	Datum		rows;

	frame->entity = call->entities[0].entity;
	frame->nentities = call->nentities;
	frame->nmessages = call->nmessages;
	frame->first_id = call->first_id;
	frame->last_id = call->last_id;
	frame->row_desc = desc;
	argument.value = act_args_array_value(&call->batches);
	argument.isnull = false;
	rows = act_call_function(frame, flinfo, &argument, 1, &isnull);
	if (!isnull)
	{
		/* What is wrong with the rows is an error of that call. */
		error_context.callback = act_call_add_context;
		error_context.arg = frame;
		error_context.previous = error_context_stack;
		error_context_stack = &error_context;
		take_rows(call, (Tuplestorestate *) DatumGetPointer(rows), desc,
				  frame->runner, context);
		error_context_stack = error_context.previous;
	}
	ReleaseTupleDesc(desc);
	act_args_end_array(&call->batches);
}
