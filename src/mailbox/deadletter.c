/*
 * deadletter.c
 *	  The table of messages given up.
 *
 * A message that fails for good must not hold its entity up for ever, and
 * must not be lost either: it is buried here with its last error, in the
 * transaction that marks it done, and stays until it is posted again
 * (redriven) or its retention ends.
 *
 * The row is inserted by table and index access: a batch is run as the
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
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "common/catalog.h"
#include "common/index.h"
#include "log/reader.h"
#include "mailbox/deadletter.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "runner/runner.h"

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

/* A jsonb value of the log, detoasted: 0 stands for NULL. */
static void
set_jsonb(TupleTableSlot *slot, int column, Datum value)
{
	if (value != (Datum) 0)
		set_column(slot, column,
				   PointerGetDatum(PG_DETOAST_DATUM_COPY(value)));
}

/* A text: a NULL pointer stands for NULL. */
static void
set_text(TupleTableSlot *slot, int column, const char *value)
{
	if (value != NULL)
		set_column(slot, column, CStringGetTextDatum(value));
}

static void
fill_row(TupleTableSlot *slot, const Mailbox *mailbox, const Runner *runner,
		 const MessageRow *row, const Failure *failure)
{
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true,
		   slot->tts_tupleDescriptor->natts * sizeof(bool));

	set_column(slot, DEAD_ID, Int64GetDatum(row->id));
	set_column(slot, DEAD_RUNNER, Int32GetDatum(runner->id));
	set_text(slot, DEAD_RUNNER_NAME, runner->name);
	set_text(slot, DEAD_ENTITY, mailbox->entity);
	set_jsonb(slot, DEAD_PAYLOAD, row->payload);
	set_jsonb(slot, DEAD_HEADERS, row->headers);
	set_column(slot, DEAD_POSTED_AT, TimestampTzGetDatum(row->posted_at));
	set_column(slot, DEAD_ATTEMPTS, Int32GetDatum(mailbox->attempts));
	if (failure->sqlstate != ERRCODE_SUCCESSFUL_COMPLETION)
		set_text(slot, DEAD_SQLSTATE, unpack_sql_state(failure->sqlstate));
	set_text(slot, DEAD_MESSAGE, failure->message);
	set_text(slot, DEAD_DETAIL, failure->detail);
	set_text(slot, DEAD_CONTEXT, failure->context);
	set_column(slot, DEAD_DIED_AT, TimestampTzGetDatum(GetCurrentTimestamp()));
	ExecStoreVirtualTuple(slot);
}

static void
insert_row(const Mailbox *mailbox, const Runner *runner,
		   const MessageRow *row, const Failure *failure)
{
	Relation	heap = table_open(act_catalog_get()->dead_letter,
								  RowExclusiveLock);
	OtherIndexes *indexes = act_index_open_others(heap, NULL, 0);
	TupleTableSlot *slot = table_slot_create(heap, NULL);

	act_catalog_check_columns(heap, DEAD_NATTS);
	fill_row(slot, mailbox, runner, row, failure);
	table_tuple_insert(heap, slot, GetCurrentCommandId(true), 0, NULL);
	if (indexes != NULL)
		act_index_enter_others(indexes, slot, false);
	act_index_close_others(indexes);
	ExecDropSingleTupleTableSlot(slot);
	table_close(heap, NoLock);
}

/*
 * Give up the head under a mailbox's pinned target: it is buried with the
 * failure, and consumed.  Returns its id; 0 if there is none, or it cannot be
 * read now.  The caller saves the mailbox; the new row is visible after that.
 */
int64
act_deadletter_bury_head(RunContext *work, Mailbox *mailbox,
						 const Runner *runner, const Failure *failure)
{
	MessageRow	row;

	Assert(mailbox->has_target);
	if (!act_head_find(work, mailbox, &mailbox->target, &row))
		return 0;
	insert_row(mailbox, runner, &row, failure);
	act_head_advance(mailbox, &mailbox->target, row.id, true, false);
	return row.id;
}
