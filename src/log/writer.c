/*
 * writer.c
 *	  The log: writing to its current segment.
 *
 * Messages are appended directly by table and index access: a call through SPI
 * costs about a third more.  Nobody updates or deletes them.
 *
 * Memory: a writer lives in the current memory context and the current
 * resource owner; an aborting (sub)transaction cleans both up.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "commands/sequence.h"
#include "compat.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "common/catalog.h"
#include "log/clock.h"
#include "log/segment.h"
#include "log/writer.h"

/* How much is appended together. */
#define PIECE_MESSAGES 1000
#define PIECE_BYTES (1024 * 1024)

/*
 * Get ready to append messages in this transaction.  Adopts the clock if
 * nobody has; assigns the transaction's xid before any id is taken, so that
 * ids of a later xid are later, too.
 */
void
act_writer_open(MessageWriter *writer)
{
	FullTransactionId xid;
	Oid			index;
	int			natts;

	if (!act_clock_is_adopted())
		act_clock_adopt();

	xid = GetTopFullTransactionId();
	writer->heap = act_segment_lock_current(&writer->segment);
	index = act_catalog_get()->message_key[writer->segment];
	writer->index = index_open(index, RowExclusiveLock);
	natts = act_catalog_check_columns(writer->heap, MSG_NATTS);
	writer->values = palloc0(sizeof(Datum) * natts);
	writer->nulls = palloc0(sizeof(bool) * natts);
	memset(writer->nulls + MSG_NATTS, true, sizeof(bool) * (natts - MSG_NATTS));
	writer->others = act_index_open_others(writer->heap, &index, 1);

	/* After the lock: the clock is advanced only while nobody holds it. */
	if (!act_clock_is_adopted())
		elog(ERROR, "clock of actornot went away under a poster");
	writer->tick = U64FromFullTransactionId(xid) + act_clock_offset();
	writer->posted_at = GetCurrentTimestamp();
	writer->command = GetCurrentCommandId(true);
}

/*
 * The row's tuple; its columns stay in the writer's "values" for the index.
 */
static HeapTuple
form_row(MessageWriter *writer, const MessageRow *row)
{
	Datum	   *values = writer->values;
	bool	   *nulls = writer->nulls;

	values[MSG_HASH - 1] = Int64GetDatum(row->hash);
	values[MSG_TICK - 1] = UInt64GetDatum(row->tick);
	values[MSG_ID - 1] = Int64GetDatum(row->id);
	values[MSG_POSTED_AT - 1] = TimestampTzGetDatum(row->posted_at);
	values[MSG_RUNNER - 1] = Int32GetDatum(row->runner);
	values[MSG_ENTITY - 1] = row->entity;
	values[MSG_PAYLOAD - 1] = row->payload;
	nulls[MSG_PAYLOAD - 1] = (row->payload == (Datum) 0);
	values[MSG_HEADERS - 1] = row->headers;
	nulls[MSG_HEADERS - 1] = (row->headers == (Datum) 0);
	return heap_form_tuple(RelationGetDescr(writer->heap), values, nulls);
}

/*
 * Enter a row into the index, whose columns are the first three of the row's;
 * btree needs no IndexInfo.
 */
static void
enter_index(MessageWriter *writer, Datum *values, ItemPointer tid)
{
	bool		no_nulls[MSG_ID] = {false};

	index_insert(writer->index, values, no_nulls, tid, writer->heap,
				 UNIQUE_CHECK_NO, false, NULL);
}

/*
 * Append a row: heap, index, and a look at the size.
 */
static void
append_row(MessageWriter *writer, const MessageRow *row)
{
	HeapTuple	tuple = form_row(writer, row);

	heap_insert(writer->heap, tuple, writer->command, 0, NULL);
	enter_index(writer, writer->values, &tuple->t_self);
	if (writer->others != NULL)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(writer->heap),
														&TTSOpsHeapTuple);

		ExecStoreHeapTuple(tuple, slot, false);
		act_index_enter_others(writer->others, slot, false);
		ExecDropSingleTupleTableSlot(slot);
	}
	act_segment_note_growth(writer->segment,
							ItemPointerGetBlockNumber(&tuple->t_self),
							tuple->t_len);
	heap_freetuple(tuple);
}

/*
 * The row of a new message; it is given its id.
 */
static void
set_row(const MessageWriter *writer, const NewMessage *message, MessageRow *row)
{
	row->hash = message->hash;
	row->tick = writer->tick;
	row->id = nextval_internal(act_catalog_get()->id_seq, false);
	row->posted_at = writer->posted_at;
	row->runner = message->runner;
	row->entity = message->entity;
	row->payload = message->payload;
	row->headers = message->headers;
}

/*
 * Append one message and return its id.
 */
int64
act_writer_append(const NewMessage *message)
{
	MessageWriter writer;
	MessageRow	row;

	act_writer_open(&writer);
	set_row(&writer, message, &row);
	append_row(&writer, &row);
	act_writer_close(&writer);
	return row.id;
}

/* A row that is in the heap, on its way into the index. */
typedef struct NewEntry
{
	int64		hash;
	int64		id;
	ItemPointerData tid;
} NewEntry;

static int
compare_entries(const void *a, const void *b)
{
	const NewEntry *x = a;
	const NewEntry *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

/*
 * Enter rows of this transaction into the index, in its own order: then
 * neighbours find their pages in the processor's cache.
 */
static void
enter_sorted(MessageWriter *writer, NewEntry *entries, int n)
{
	Datum		values[MSG_ID];

	qsort(entries, n, sizeof(NewEntry), compare_entries);
	for (int i = 0; i < n; i++)
	{
		values[MSG_HASH - 1] = Int64GetDatum(entries[i].hash);
		values[MSG_TICK - 1] = UInt64GetDatum(writer->tick);
		values[MSG_ID - 1] = Int64GetDatum(entries[i].id);
		enter_index(writer, values, &entries[i].tid);
	}
}

static Size
datum_size(Datum value)
{
	return value == (Datum) 0 ? 0 : VARSIZE_ANY(DatumGetPointer(value));
}

/*
 * How many of the messages are put in together: what is copied for them stays
 * small.
 */
static int
count_fitting(const NewMessage *messages, int n)
{
	Size		bytes = 0;
	int			i;

	for (i = 0; i < Min(n, PIECE_MESSAGES) && bytes < PIECE_BYTES; i++)
	{
		bytes += datum_size(messages[i].payload);
		bytes += datum_size(messages[i].headers);
	}
	return i;
}

/*
 * Append messages together, a page at a time: one record of WAL for all rows
 * that are put into a page saves fifty bytes a row.
 */
static void
append_piece(MessageWriter *writer, const NewMessage *messages, int n,
			 int64 *ids)
{
	/* A copy, for that of the relation counts its references. */
	TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(writer->heap));
	TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * n);
	NewEntry   *entries = palloc(sizeof(NewEntry) * n);

	for (int i = 0; i < n; i++)
	{
		MessageRow	row;

		set_row(writer, &messages[i], &row);
		ids[i] = row.id;
		entries[i].hash = row.hash;
		entries[i].id = row.id;
		slots[i] = act_make_slot(desc, &TTSOpsHeapTuple);
		ExecStoreHeapTuple(form_row(writer, &row), slots[i], true);
	}

	heap_multi_insert(writer->heap, slots, n, writer->command, 0, NULL);
	for (int i = 0; i < n; i++)
	{
		HeapTupleTableSlot *slot = (HeapTupleTableSlot *) slots[i];

		entries[i].tid = slots[i]->tts_tid;
		if (writer->others != NULL)
			act_index_enter_others(writer->others, slots[i], false);
		act_segment_note_growth(writer->segment,
								ItemPointerGetBlockNumber(&entries[i].tid),
								slot->tuple->t_len);
	}
	enter_sorted(writer, entries, n);
}

/*
 * Append many messages; their ids are put into "ids".
 */
void
act_writer_append_many(MessageWriter *writer, const NewMessage *messages,
					   int n, int64 *ids)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "actornot append",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	while (n > 0)
	{
		int			piece = count_fitting(messages, n);

		CHECK_FOR_INTERRUPTS();
		append_piece(writer, messages, piece, ids);
		MemoryContextReset(context);
		messages += piece;
		ids += piece;
		n -= piece;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * The value without what of it lies elsewhere; what is compressed stays so.
 */
static Datum
fetch(Datum value)
{
	return value == (Datum) 0 ? value :
		PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(value)));
}

static void
free_fetched(Datum fetched, Datum value)
{
	if (fetched != value)
		pfree(DatumGetPointer(fetched));
}

/*
 * Append a copy of a message of an older segment, tick, id and all; not what
 * is toasted in the other one, which goes.
 */
void
act_writer_copy(MessageWriter *writer, const MessageRow *row)
{
	MessageRow	copy = *row;

	copy.payload = fetch(row->payload);
	copy.headers = fetch(row->headers);
	append_row(writer, &copy);
	free_fetched(copy.payload, row->payload);
	free_fetched(copy.headers, row->headers);
}

/*
 * Close the relations; the locks stay until the transaction ends.
 */
void
act_writer_close(MessageWriter *writer)
{
	pfree(writer->values);
	pfree(writer->nulls);
	act_index_close_others(writer->others);
	index_close(writer->index, NoLock);
	table_close(writer->heap, NoLock);
}
