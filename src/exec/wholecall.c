/*
 * wholecall.c
 *	  One call of a handler that takes many entities.
 *
 * f(batches actornot_batch[]) RETURNS SETOF actornot_state_of.  What comes
 * back is told apart by the name of the entity, in any order; an entity
 * without a row keeps its state.  A row for an entity that was not given, or
 * a second one for the same, fails the call as an error of the handler would
 * (21000): which of two states is meant nobody knows.
 *
 * No locks.  Memory: the argument in the context of act_wholecall_begin, the
 * new states in the one that the caller names; what the call itself needs in
 * the current one.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "port/pg_bitutils.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "actornot.h"
#include "common/catalog.h"
#include "exec/args.h"
#include "exec/call.h"
#include "exec/wholecall.h"

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

/*
 * Start a call without entities.
 */
void
act_wholecall_begin(WholeCall *call)
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
act_wholecall_size(const MessagesArgument *messages, Datum state)
{
	return messages->bytes +
		(state == (Datum) 0 ? 0 : VARSIZE_ANY(DatumGetPointer(state)));
}

/*
 * Add an entity.  Its name must stay where it is; state and messages are
 * copied.
 */
void
act_wholecall_add(WholeCall *call, const char *entity, int entity_len,
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
	call->bytes += act_wholecall_size(messages, state);
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
act_wholecall_run(WholeCall *call, CallFrame *frame, FmgrInfo *flinfo,
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
