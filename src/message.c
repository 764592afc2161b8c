/*
 * message.c
 *	  The log: writing to its current segment, and reading all of them.
 *
 * The log is a ring of plain tables.  Posts are appended to the current one,
 * directly by table and index access: a call through SPI costs about a third
 * more.  Nobody updates or deletes a message.
 *
 * Who writes where (the protocol that makes it safe to empty a segment):
 *	(a) A poster locks the cached current segment RowExclusive conditionally,
 *		then looks at the cache again, for getting a lock accepts invalidation
 *		messages.  If that segment is no longer current or the lock is not to
 *		be had at once, it unlocks, rereads the table and tries again.  It
 *		keeps the lock to the end of its transaction, and reads the clock's
 *		offset after it has the lock.
 *	(b) The manager commits a new current segment without any lock on the old
 *		one.
 *	(c) Later a ShareLock on the old one, had at once, proves that no open or
 *		prepared poster is in it: it is sealed, and the xmax of a snapshot
 *		taken then is the upper bound of its ticks.
 *	(d) A batch reads the segment rows with its own snapshot, looks into every
 *		unsealed segment and into those whose bound can concern it.  It never
 *		skips one that it cannot lock at once: it is "blocked" and the entity
 *		is put back.
 *
 * Memory: readers and writers live in the current memory context and the
 * current resource owner; an aborting (sub)transaction cleans both up.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "access/xact.h"
#include "actornot.h"
#include "catalog.h"
#include "catalog/pg_type_d.h"
#include "clock.h"
#include "commands/sequence.h"
#include "compat.h"
#include "executor/tuptable.h"
#include "message.h"
#include "pgstat.h"
#include "storage/buf_internals.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* The columns of message_N. */
enum
{
	MSG_HASH = 1,
	MSG_TICK,
	MSG_ID,
	MSG_POSTED_AT,
	MSG_RUNNER,
	MSG_ENTITY,
	MSG_PAYLOAD,
	MSG_HEADERS,
	MSG_NATTS = MSG_HEADERS
};

/* The columns of segment. */
enum
{
	SEG_NUMBER = 1,
	SEG_CURRENT,
	SEG_SEALED,
	SEG_UPPER,
	SEG_NATTS = SEG_UPPER
};

/* How often a poster tries without waiting; then an administrator is at it. */
#define CONDITIONAL_TRIES 20

/*
 * Where in the buffer pool this backend has last seen the blocks of a
 * segment.  The messages of an entity lie scattered over the log, so to fetch
 * one is mostly to wait for memory: for the buffer mapping, the buffer's
 * header, the page, the tuple.  Who knows the place does without the first,
 * and asks for the others while it works on the messages before.
 */
#define PLACES 16384

typedef struct BlockPlace
{
	BlockNumber block;
	Buffer		buffer;			/* InvalidBuffer: nothing is known */
} BlockPlace;

static BlockPlace *places[ACT_SEGMENTS];

/* How much of a message is prefetched: a small one is all there. */
#define PREFETCH_BYTES 192

/* Cached number of the current segment, or -1; and which relation tells. */
static int	current_segment = -1;
static Oid	segment_relation = InvalidOid;

static void
forget_current_segment(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == segment_relation)
		current_segment = -1;
}

/*
 * Call "use" for each row of the segment table that the snapshot sees.
 */
static void
read_segment_rows(Snapshot snapshot,
				  void (*use) (void *arg, const Datum *values, const bool *nulls),
				  void *arg)
{
	Relation	rel = table_open(act_catalog_get()->segment, AccessShareLock);
	TableScanDesc scan = heap_beginscan(rel, snapshot, 0, NULL, NULL,
										SO_TYPE_SEQSCAN | SO_ALLOW_PAGEMODE);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Datum		values[SEG_NATTS];
		bool		nulls[SEG_NATTS];

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		use(arg, values, nulls);
	}
	heap_endscan(scan);
	table_close(rel, AccessShareLock);
}

static void
note_if_current(void *arg, const Datum *values, const bool *nulls)
{
	if (DatumGetBool(values[SEG_CURRENT - 1]))
		*(int *) arg = DatumGetInt32(values[SEG_NUMBER - 1]);
}

/*
 * The number of the current segment, from the cache or else from the table
 * as it is now, whatever snapshot the transaction has.
 */
static int
find_current_segment(void)
{
	static bool registered = false;
	Snapshot	snapshot;
	int			found = -1;

	if (current_segment >= 0 && current_segment < ACT_SEGMENTS)
		return current_segment;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(forget_current_segment, (Datum) 0);
		registered = true;
	}
	segment_relation = act_catalog_get()->segment;

	/* What is accepted while we read makes the next look-up read again. */
	current_segment = ACT_SEGMENTS;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	read_segment_rows(snapshot, note_if_current, &found);
	UnregisterSnapshot(snapshot);

	if (found < 0 || found >= ACT_SEGMENTS)
	{
		current_segment = -1;
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("table \"%s\" names no current segment",
						"actornot.segment")));
	}
	if (current_segment == ACT_SEGMENTS)
		current_segment = found;
	return found;
}

/*
 * Lock and open the current segment for a poster: step (a) of the protocol.
 * After CONDITIONAL_TRIES somebody holds a lock that no part of actornot
 * takes; then we wait for him like any INSERT.
 */
static Relation
lock_current_segment(int *number)
{
	for (int try = 0;; try++)
	{
		int			segment = find_current_segment();
		Oid			relid = act_catalog_get()->message[segment];

		if (try < CONDITIONAL_TRIES)
		{
			if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
			{
				current_segment = -1;
				continue;
			}
		}
		else
			LockRelationOid(relid, RowExclusiveLock);

		/* Getting the lock has accepted what there was to be told. */
		if (find_current_segment() == segment)
		{
			*number = segment;
			return table_open(relid, NoLock);
		}
		UnlockRelationOid(relid, RowExclusiveLock);
	}
}

/*
 * Get ready to append messages in this transaction.  Adopts the clock if
 * nobody has; assigns the transaction's xid before any id is taken, so that
 * ids of a later xid are later, too.
 */
void
act_message_open_writer(MessageWriter *writer)
{
	int			segment;
	FullTransactionId xid;

	if (!act_clock_is_adopted())
		act_clock_adopt();

	xid = GetTopFullTransactionId();
	writer->heap = lock_current_segment(&segment);
	writer->index = index_open(act_catalog_get()->message_key[segment],
							   RowExclusiveLock);

	/* After the lock: the clock is advanced only while nobody holds it. */
	if (!act_clock_is_adopted())
		elog(ERROR, "clock of actornot went away under a poster");
	writer->tick = UInt64GetDatum(U64FromFullTransactionId(xid) +
								  act_clock_offset());
	writer->posted_at = TimestampTzGetDatum(GetCurrentTimestamp());
	writer->command = GetCurrentCommandId(true);
}

int64
act_message_next_id(void)
{
	return nextval_internal(act_catalog_get()->id_seq, false);
}

/*
 * Append a message and return its id.
 */
int64
act_message_append(MessageWriter *writer, const NewMessage *message)
{
	Datum		values[MSG_NATTS];
	bool		nulls[MSG_NATTS] = {false};
	int64		id = act_message_next_id();
	HeapTuple	tuple;

	values[MSG_HASH - 1] = Int64GetDatum(message->hash);
	values[MSG_TICK - 1] = writer->tick;
	values[MSG_ID - 1] = Int64GetDatum(id);
	values[MSG_POSTED_AT - 1] = writer->posted_at;
	values[MSG_RUNNER - 1] = Int32GetDatum(message->runner);
	values[MSG_ENTITY - 1] = message->entity;
	values[MSG_PAYLOAD - 1] = message->payload;
	nulls[MSG_PAYLOAD - 1] = (message->payload == (Datum) 0);
	values[MSG_HEADERS - 1] = message->headers;
	nulls[MSG_HEADERS - 1] = (message->headers == (Datum) 0);

	tuple = heap_form_tuple(RelationGetDescr(writer->heap), values, nulls);
	heap_insert(writer->heap, tuple, writer->command, 0, NULL);

	/* The index's columns are the first three; btree needs no IndexInfo. */
	index_insert(writer->index, values, nulls, &tuple->t_self, writer->heap,
				 UNIQUE_CHECK_NO, false, NULL);
	heap_freetuple(tuple);
	return id;
}

/*
 * Close the relations; the locks stay until the transaction ends.
 */
void
act_message_close_writer(MessageWriter *writer)
{
	index_close(writer->index, NoLock);
	table_close(writer->heap, NoLock);
}

static void
note_segment(void *arg, const Datum *values, const bool *nulls)
{
	MessageReader *reader = arg;
	int			number = DatumGetInt32(values[SEG_NUMBER - 1]);

	if (number < 0 || number >= ACT_SEGMENTS)
		return;
	reader->segment[number].sealed = DatumGetBool(values[SEG_SEALED - 1]) &&
		!nulls[SEG_UPPER - 1];
	reader->segment[number].upper = nulls[SEG_UPPER - 1] ? 0 :
		DatumGetUInt64(values[SEG_UPPER - 1]);
}

/*
 * Get ready to read messages with a registered snapshot.
 */
void
act_message_open_reader(MessageReader *reader, Snapshot snapshot)
{
	reader->context = CurrentMemoryContext;
	reader->snapshot = snapshot;
	reader->blocked = false;
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		reader->segment[i].sealed = false;
		reader->segment[i].heap = NULL;
		reader->segment[i].active = false;
	}
	read_segment_rows(snapshot, note_segment, reader);
}

/*
 * Close what was opened; the locks on segments stay until the transaction
 * ends, for a plan may hold places in them.
 */
void
act_message_close_reader(MessageReader *reader)
{
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		SegmentReader *segment = &reader->segment[i];

		if (segment->heap == NULL)
			continue;
		ExecDropSingleTupleTableSlot(segment->slot);
		index_endscan(segment->scan);
		index_close(segment->index, NoLock);
		table_close(segment->heap, NoLock);
		segment->heap = NULL;
	}
}

/*
 * Open a segment; false if its lock is not to be had at once.
 */
static bool
open_segment(MessageReader *reader, int number)
{
	SegmentReader *segment = &reader->segment[number];
	const Catalog *catalog = act_catalog_get();

	if (segment->heap != NULL)
		return true;
	if (!ConditionalLockRelationOid(catalog->message[number], AccessShareLock))
		return false;
	segment->heap = table_open(catalog->message[number], NoLock);
	segment->index = index_open(catalog->message_key[number], AccessShareLock);
	segment->scan = index_beginscan(segment->heap, segment->index,
									reader->snapshot, 3, 0);
	segment->scan->xs_want_itup = true;
	segment->slot = table_slot_create(segment->heap, NULL);
	return true;
}

/*
 * Move a segment's head to its next index entry.
 */
static void
advance_head(SegmentReader *segment, int number)
{
	IndexScanDesc scan = segment->scan;
	ItemPointer tid = index_getnext_tid(scan, ForwardScanDirection);
	bool		isnull;

	segment->active = (tid != NULL);
	if (tid == NULL)
		return;
	segment->head.tid = *tid;
	segment->head.segment = number;
	segment->head.at.tick =
		DatumGetUInt64(index_getattr(scan->xs_itup, MSG_TICK,
									 scan->xs_itupdesc, &isnull));
	segment->head.at.id =
		DatumGetInt64(index_getattr(scan->xs_itup, MSG_ID,
									scan->xs_itupdesc, &isnull));
}

/*
 * Set the scan's keys: hash = ..., (tick, id) >= from, tick < below_tick.
 */
static void
set_scan_keys(SegmentReader *segment, int64 hash, LogPosition from,
			  uint64 below_tick)
{
	ScanKey		keys = segment->keys;

	ScanKeyInit(&keys[0], MSG_HASH, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(hash));
	if (from.id <= 0)
		ScanKeyInit(&keys[1], MSG_TICK, BTGreaterEqualStrategyNumber,
					F_XID8GE, UInt64GetDatum(from.tick));
	else
	{
		/* A row comparison, built as nodeIndexscan.c does. */
		ScanKey		row = segment->row;

		ScanKeyEntryInitialize(&row[0], SK_ROW_MEMBER, MSG_TICK,
							   BTGreaterEqualStrategyNumber, InvalidOid,
							   InvalidOid, F_XID8CMP,
							   UInt64GetDatum(from.tick));
		ScanKeyEntryInitialize(&row[1], SK_ROW_MEMBER | SK_ROW_END, MSG_ID,
							   BTGreaterEqualStrategyNumber, InvalidOid,
							   InvalidOid, F_BTINT8CMP,
							   Int64GetDatum(from.id));
		MemSet(&keys[1], 0, sizeof(ScanKeyData));
		keys[1].sk_flags = SK_ROW_HEADER;
		keys[1].sk_attno = MSG_TICK;
		keys[1].sk_strategy = BTGreaterEqualStrategyNumber;
		keys[1].sk_argument = PointerGetDatum(row);
	}
	ScanKeyInit(&keys[2], MSG_TICK, BTLessStrategyNumber, F_XID8LT,
				UInt64GetDatum(below_tick));
}

/*
 * Start reading the index entries of a hash, from a position on and below a
 * tick, in the order (tick, id).  False if a segment that can hold some of
 * them could not be locked at once; the reader is then blocked, and whoever
 * reads must not take what it sees for all there is.
 */
bool
act_message_seek(MessageReader *reader, int64 hash, LogPosition from,
				 uint64 below_tick)
{
	/* The scans outlive whatever context the caller works in. */
	MemoryContext old = MemoryContextSwitchTo(reader->context);

	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		SegmentReader *segment = &reader->segment[i];

		segment->active = false;
		if (segment->sealed && segment->upper <= from.tick)
			continue;
		if (!open_segment(reader, i))
		{
			reader->blocked = true;
			break;
		}
		set_scan_keys(segment, hash, from, below_tick);
		index_rescan(segment->scan, segment->keys, 3, NULL, 0);
		advance_head(segment, i);
	}
	MemoryContextSwitchTo(old);
	return !reader->blocked;
}

/*
 * The next index entry of the seek; false at its end.  Whether its message
 * is visible is not known yet.  Copies made by re-homing come one behind the
 * other, for they keep tick and id.
 */
bool
act_message_next(MessageReader *reader, LogEntry *entry)
{
	SegmentReader *first = NULL;
	MemoryContext old;

	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		SegmentReader *segment = &reader->segment[i];

		if (!segment->active)
			continue;
		if (first == NULL ||
			segment->head.at.tick < first->head.at.tick ||
			(segment->head.at.tick == first->head.at.tick &&
			 segment->head.at.id < first->head.at.id))
			first = segment;
	}
	if (first == NULL)
		return false;
	*entry = first->head;
	old = MemoryContextSwitchTo(reader->context);
	advance_head(first, entry->segment);
	MemoryContextSwitchTo(old);
	return true;
}

/*
 * Which file each segment is in, 0 if it was not looked into: places found
 * by an earlier reader are good only in the same files.  With "open", those
 * of the given array that are not 0 are opened and compared: false if one has
 * changed, or could not be locked at once.
 */
bool
act_message_get_files(MessageReader *reader, Oid *files, bool open)
{
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		SegmentReader *segment = &reader->segment[i];
		Oid			file;

		if (open && files[i] == InvalidOid)
			continue;
		if (open)
		{
			MemoryContext old = MemoryContextSwitchTo(reader->context);
			bool		opened = open_segment(reader, i);

			MemoryContextSwitchTo(old);
			if (!opened)
				return false;
		}
		file = segment->heap == NULL ? InvalidOid :
			segment->heap->rd_node.relNode;
		if (open && file != files[i])
			return false;
		files[i] = file;
	}
	return true;
}

/*
 * Take a message's columns out of a slot.  What is not fixed in length
 * points into the slot's tuple.
 */
void
act_message_deform(TupleTableSlot *slot, MessageRow *row)
{
	slot_getallattrs(slot);
	row->hash = DatumGetInt64(slot->tts_values[MSG_HASH - 1]);
	row->tick = DatumGetUInt64(slot->tts_values[MSG_TICK - 1]);
	row->id = DatumGetInt64(slot->tts_values[MSG_ID - 1]);
	row->posted_at = DatumGetTimestampTz(slot->tts_values[MSG_POSTED_AT - 1]);
	row->runner = DatumGetInt32(slot->tts_values[MSG_RUNNER - 1]);
	row->entity = slot->tts_values[MSG_ENTITY - 1];
	row->payload = slot->tts_isnull[MSG_PAYLOAD - 1] ? (Datum) 0 :
		slot->tts_values[MSG_PAYLOAD - 1];
	row->headers = slot->tts_isnull[MSG_HEADERS - 1] ? (Datum) 0 :
		slot->tts_values[MSG_HEADERS - 1];
}

/*
 * The place that is remembered for a block, or is to be.
 */
static BlockPlace *
find_place(int segment, BlockNumber block)
{
	if (places[segment] == NULL)
		places[segment] = MemoryContextAllocZero(TopMemoryContext,
												 sizeof(BlockPlace) * PLACES);
	return &places[segment][block % PLACES];
}

/*
 * A message will be fetched soon: let the memory that it takes come while
 * others are worked on.  The page is looked at without a pin, so what is read
 * there may be wrong by now; it is only where to prefetch from, and that
 * cannot fail.  The fetch itself checks everything.
 */
void
act_message_prefetch(int segment, const ItemPointerData *tid)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);
	OffsetNumber offset = ItemPointerGetOffsetNumber(tid);
	const BlockPlace *place = find_place(segment, block);
	Page		page;
	char	   *tuple;

	if (place->block != block || place->buffer == InvalidBuffer ||
		offset > MaxHeapTuplesPerPage)
		return;
	page = BufferGetPage(place->buffer);
	act_prefetch_memory(GetBufferDescriptor(place->buffer - 1));
	act_prefetch_memory(page);
	tuple = (char *) page + ItemIdGetOffset(PageGetItemId(page, offset));
	for (int i = 0; i < PREFETCH_BYTES; i += 64)
		act_prefetch_memory(tuple + i);
}

/*
 * Pin a block of the log.  A place that is out of date is found out by the
 * server: it compares file and block.
 */
static Buffer
read_block(SegmentReader *segment, int number, BlockNumber block)
{
	BlockPlace *place = find_place(number, block);

	if (place->block == block && place->buffer != InvalidBuffer &&
		ReadRecentBuffer(segment->heap->rd_node, MAIN_FORKNUM, block,
						 place->buffer))
	{
		pgstat_count_buffer_read(segment->heap);
		pgstat_count_buffer_hit(segment->heap);
	}
	else
	{
		place->block = block;
		place->buffer = ReadBuffer(segment->heap, block);
	}
	return place->buffer;
}

/*
 * Fetch the message of an entry: false if it is not visible (its
 * transaction aborted), or if the place holds another message by now, which
 * happens only to the place of an aborted one.  The row is valid until the
 * next fetch from the same segment.
 *
 * This is what table_index_fetch_tuple does, without an attempt to prune the
 * page: nobody updates or deletes a message.
 */
bool
act_message_fetch(MessageReader *reader, const LogEntry *entry,
				  MessageRow *row)
{
	SegmentReader *segment = &reader->segment[entry->segment];
	ItemPointerData tid = entry->tid;
	Buffer		buffer;
	bool		found;

	if (segment->heap == NULL)
		elog(ERROR, "segment %d of the log was not opened", entry->segment);
	buffer = read_block(segment, entry->segment,
						ItemPointerGetBlockNumber(&tid));
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	found = heap_hot_search_buffer(&tid, segment->heap, buffer,
								   reader->snapshot, &segment->tuple, NULL,
								   true);
	LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
	if (!found)
	{
		ReleaseBuffer(buffer);
		return false;
	}
	segment->tuple.t_tableOid = RelationGetRelid(segment->heap);
	ExecStorePinnedBufferHeapTuple(&segment->tuple, segment->slot, buffer);
	act_message_deform(segment->slot, row);
	return row->id == entry->at.id;
}
