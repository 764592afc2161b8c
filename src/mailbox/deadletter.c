/*
 * deadletter.c
 *	  The table of messages given up.
 *
 * A message that fails for good must not hold its entity up for ever, and
 * must not be lost either: it is buried here with its last error, in the
 * transaction that marks it done, and stays until it is posted again
 * (redriven) or its retention ends.
 *
 * The row is inserted by table and index access: whoever runs a batch is the
 * owner of the runner, who has no rights on this table.  Indexes that an
 * administrator has added are kept up to date, too; triggers do not fire.
 *
 * Locks: RowExclusiveLock on dead_letter, to the end of the transaction.
 * Memory: the current context.
 *
 * Failure: errors are the caller's; one message cannot be buried twice (a
 * unique violation of the primary key).
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "common/catalog.h"
#include "common/index.h"
#include "mailbox/deadletter.h"

/* The columns of dead_letter. */
enum
{
	DEAD_ID = 1,
	DEAD_RUNNER,
	DEAD_RUNNER_NAME,
	DEAD_ENTITY,
	DEAD_PAYLOAD,
	DEAD_HEADERS,
	DEAD_POSTED_AT,
	DEAD_ATTEMPTS,
	DEAD_SQLSTATE,
	DEAD_MESSAGE,
	DEAD_DETAIL,
	DEAD_CONTEXT,
	DEAD_DIED_AT,
	DEAD_NATTS = DEAD_DIED_AT
};

static void
set_column(TupleTableSlot *slot, int column, Datum value)
{
	slot->tts_values[column - 1] = value;
	slot->tts_isnull[column - 1] = false;
}

/* A jsonb value: 0 stands for NULL. */
static void
set_jsonb(TupleTableSlot *slot, int column, Datum value)
{
	if (value != (Datum) 0)
		set_column(slot, column, value);
}

/* A text: a NULL pointer stands for NULL. */
static void
set_text(TupleTableSlot *slot, int column, const char *value)
{
	if (value != NULL)
		set_column(slot, column, CStringGetTextDatum(value));
}

static void
fill_row(TupleTableSlot *slot, const DeadMessage *message,
		 const Failure *failure)
{
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true,
		   slot->tts_tupleDescriptor->natts * sizeof(bool));

	set_column(slot, DEAD_ID, Int64GetDatum(message->id));
	set_column(slot, DEAD_RUNNER, Int32GetDatum(message->runner));
	set_text(slot, DEAD_RUNNER_NAME, message->runner_name);
	set_text(slot, DEAD_ENTITY, message->entity);
	set_jsonb(slot, DEAD_PAYLOAD, message->payload);
	set_jsonb(slot, DEAD_HEADERS, message->headers);
	set_column(slot, DEAD_POSTED_AT, TimestampTzGetDatum(message->posted_at));
	set_column(slot, DEAD_ATTEMPTS, Int32GetDatum(message->attempts));
	if (failure != NULL)
	{
		if (failure->sqlstate != ERRCODE_SUCCESSFUL_COMPLETION)
			set_text(slot, DEAD_SQLSTATE, unpack_sql_state(failure->sqlstate));
		set_text(slot, DEAD_MESSAGE, failure->message);
		set_text(slot, DEAD_DETAIL, failure->detail);
		set_text(slot, DEAD_CONTEXT, failure->context);
	}
	set_column(slot, DEAD_DIED_AT, TimestampTzGetDatum(GetCurrentTimestamp()));
	ExecStoreVirtualTuple(slot);
}

/*
 * Bury a message.  "failure" may be NULL: then somebody gave it up without an
 * error.  The row is visible after the next CommandCounterIncrement.
 */
void
act_deadletter_insert(const DeadMessage *message, const Failure *failure)
{
	Relation	heap = table_open(act_catalog_get()->dead_letter,
								  RowExclusiveLock);
	OtherIndexes *indexes = act_index_open_others(heap, NULL, 0);
	TupleTableSlot *slot = table_slot_create(heap, NULL);

	act_catalog_check_columns(heap, DEAD_NATTS);
	fill_row(slot, message, failure);
	table_tuple_insert(heap, slot, GetCurrentCommandId(true), 0, NULL);
	if (indexes != NULL)
		act_index_enter_others(indexes, slot, false);
	act_index_close_others(indexes);
	ExecDropSingleTupleTableSlot(slot);
	table_close(heap, NoLock);
}
