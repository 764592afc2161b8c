/*
 * reader.c
 *	  The log: reading all of its segments.
 *
 * The log is a ring of plain tables; no message is updated or deleted.
 * Posters append to the current segment (writer.c) and readers look into those
 * that can hold something; segment.c tells the protocol.
 *
 * Memory: a reader lives in the current memory context and the current
 * resource owner; an aborting (sub)transaction cleans both up.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "commands/sequence.h"
#include "executor/tuptable.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "common/catalog.h"
#include "compat.h"
#include "log/bloom.h"
#include "log/clock.h"
#include "log/reader.h"
#include "log/segment.h"

/*
 * Where in the buffer pool this backend has last seen the blocks of a
 * segment.  The messages of an entity lie scattered over the log, so to fetch
 * one is mostly to wait for memory: for the buffer mapping, the buffer's
 * header, the page, the tuple.  A known place saves the first.
 */
#define PLACES 16384

typedef struct BlockPlace
{
	BlockNumber block;
	Buffer		buffer;			/* InvalidBuffer: nothing is known */
} BlockPlace;

static BlockPlace *places[ACT_SEGMENTS];

/*
 * What was restored is not what the rows say: anything may be anywhere, with
 * copies.
 */
static void
assume_nothing(Segment *rows)
{
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		rows[i].state = SEGMENT_LEFT;
		rows[i].turn = i;
		rows[i].copied = true;
	}
}

/*
 * May it be remembered what the segment has nothing of?
 */
static bool
may_lack(const Segment *row)
{
	return row->state == SEGMENT_SEALED && !row->mixed;
}

/*
 * Get ready to read messages with a registered snapshot.
 */
void
act_reader_open(MessageReader *reader, Snapshot snapshot)
{
	reader->context = CurrentMemoryContext;
	reader->snapshot = snapshot;
	reader->blocked = false;
	act_segment_read(reader->rows, snapshot);
	if (!act_clock_is_adopted())
		assume_nothing(reader->rows);
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		reader->segment[i].heap = NULL;
		reader->segment[i].active = false;
		if (!may_lack(&reader->rows[i]))
			act_bloom_forget(i);
	}
}

/*
 * Close what was opened; the locks on segments stay until the transaction
 * ends, for a plan may hold places in them.
 */
void
act_reader_close(MessageReader *reader)
{
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		SegmentReader *segment = &reader->segment[i];

		if (segment->heap == NULL)
			continue;
		ExecDropSingleTupleTableSlot(segment->slot);
		index_endscan(segment->scan);
		if (segment->walk != NULL)
			index_endscan(segment->walk);
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
	Oid			relid = act_catalog_get()->message[number];

	if (segment->heap != NULL)
		return true;
	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	segment->heap = table_open(relid, NoLock);
	/* As it is under the lock: before, it may have been replaced. */
	segment->index = index_open(act_catalog_get()->message_key[number],
								AccessShareLock);
	segment->scan = act_index_beginscan(segment->heap, segment->index,
										reader->snapshot, 3);
	segment->scan->xs_want_itup = true;
	segment->walk = NULL;
	segment->slot = table_slot_create(segment->heap, NULL);
	return true;
}

/*
 * The entry at which an index scan stands.
 */
static void
set_entry(LogEntry *entry, IndexScanDesc scan, int number)
{
	bool		isnull;

	entry->tid = scan->xs_heaptid;
	entry->segment = number;
	entry->at.tick = DatumGetUInt64(index_getattr(scan->xs_itup, MSG_TICK,
												  scan->xs_itupdesc,
												  &isnull));
	entry->at.id = DatumGetInt64(index_getattr(scan->xs_itup, MSG_ID,
											   scan->xs_itupdesc, &isnull));
}

/*
 * Move a segment's head to its next index entry.
 */
static void
advance_head(SegmentReader *segment, int number)
{
	segment->active = (index_getnext_tid(segment->scan,
										 ForwardScanDirection) != NULL);
	if (segment->active)
		set_entry(&segment->head, segment->scan, number);
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
 * Can a segment hold something pending from that tick on?
 */
static bool
can_hold(const Segment *row, uint64 tick)
{
	switch (row->state)
	{
		case SEGMENT_CURRENT:
		case SEGMENT_LEFT:
			return true;
		case SEGMENT_SEALED:
			return row->upper > tick;
		case SEGMENT_EMPTY:
		case SEGMENT_DONE:
			return false;
	}
	return true;
}

/*
 * Start reading the index entries of a hash, from a position on and below a
 * tick, in the order (tick, id).  False if a segment that can hold some of
 * them could not be locked at once; the reader is then blocked, and the
 * caller must not take what it sees for all there is.
 */
bool
act_reader_seek(MessageReader *reader, int64 hash, LogPosition from,
				uint64 below_tick)
{
	/* The scans outlive whatever context the caller works in. */
	MemoryContext old = MemoryContextSwitchTo(reader->context);

	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		SegmentReader *segment = &reader->segment[i];
		const Segment *row = &reader->rows[i];

		segment->active = false;
		if (!can_hold(row, from.tick) ||
			(may_lack(row) && act_bloom_is_known(i, row->turn, hash)))
			continue;
		if (!open_segment(reader, i))
		{
			reader->blocked = true;
			break;
		}
		set_scan_keys(segment, hash, from, below_tick);
		index_rescan(segment->scan, segment->keys, 3, NULL, 0);
		advance_head(segment, i);
		/* From a later place on, its messages may be there, and done. */
		if (!segment->active &&
			from.tick <= ACT_CURSOR_NOTHING_XMAX && may_lack(row))
			act_bloom_note_vain(i, row->turn, segment->heap, segment->index);
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
act_reader_next(MessageReader *reader, LogEntry *entry)
{
	SegmentReader *first = NULL;
	MemoryContext old;

	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		SegmentReader *segment = &reader->segment[i];

		if (!segment->active)
			continue;
		if (first == NULL ||
			act_position_is_before(segment->head.at, first->head.at))
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
act_reader_get_files(MessageReader *reader, Oid *files, bool open)
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
			act_file_number(segment->heap);
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
act_reader_deform(TupleTableSlot *slot, MessageRow *row)
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
 * Pin a block of the log.  A place that is out of date is found out by the
 * server: it compares file and block.
 */
static Buffer
read_block(SegmentReader *segment, int number, BlockNumber block)
{
	BlockPlace *place = find_place(number, block);

	if (place->block == block && place->buffer != InvalidBuffer &&
		ReadRecentBuffer(act_file_of(segment->heap), MAIN_FORKNUM, block,
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
 * Walk through a segment's index from a hash on, whatever else is read in the
 * segment meanwhile.  It is open (act_reader_open_segment).
 */
void
act_reader_walk_from(MessageReader *reader, int number, int64 hash)
{
	SegmentReader *segment = &reader->segment[number];
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	ScanKeyData key;

	if (segment->walk == NULL)
	{
		segment->walk = act_index_beginscan(segment->heap, segment->index,
											reader->snapshot, 1);
		segment->walk->xs_want_itup = true;
	}
	ScanKeyInit(&key, MSG_HASH, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(hash));
	index_rescan(segment->walk, &key, 1, NULL, 0);
	MemoryContextSwitchTo(old);
}

/*
 * The next entry of the walk and its hash; false at the end.
 */
bool
act_reader_walk(MessageReader *reader, int number, int64 *hash,
				LogEntry *entry)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	IndexScanDesc scan = reader->segment[number].walk;
	ItemPointer tid = index_getnext_tid(scan, ForwardScanDirection);
	bool		isnull;

	if (tid != NULL)
	{
		*hash = DatumGetInt64(index_getattr(scan->xs_itup, MSG_HASH,
											scan->xs_itupdesc, &isnull));
		set_entry(entry, scan, number);
	}
	MemoryContextSwitchTo(old);
	return tid != NULL;
}

/*
 * As act_reader_seek, in one segment that is open.
 */
void
act_reader_seek_in(MessageReader *reader, int number, int64 hash,
				   uint64 from_tick, uint64 below_tick)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	SegmentReader *segment = &reader->segment[number];
	LogPosition from = {from_tick, 0};

	set_scan_keys(segment, hash, from, below_tick);
	index_rescan(segment->scan, segment->keys, 3, NULL, 0);
	advance_head(segment, number);
	MemoryContextSwitchTo(old);
}

/*
 * As act_reader_next, in one segment.
 */
bool
act_reader_next_in(MessageReader *reader, int number, LogEntry *entry)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	SegmentReader *segment = &reader->segment[number];
	bool		active = segment->active;

	if (active)
	{
		*entry = segment->head;
		advance_head(segment, number);
	}
	MemoryContextSwitchTo(old);
	return active;
}

/*
 * Open a segment for the four above; false if it cannot be locked at once.
 */
bool
act_reader_open_segment(MessageReader *reader, int number)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	bool		opened = open_segment(reader, number);

	MemoryContextSwitchTo(old);
	return opened;
}

/*
 * Has a message a copy in a segment that came after that turn, visible to the
 * reader's snapshot?  Sets "blocked" if one of those could not be locked.
 */
bool
act_reader_has_copy(MessageReader *reader, int64 turn, int64 hash,
					LogPosition at)
{
	MemoryContext old = MemoryContextSwitchTo(reader->context);
	bool		found = false;

	for (int i = 0; i < ACT_SEGMENTS && !found; i++)
	{
		SegmentReader *segment = &reader->segment[i];

		if (reader->rows[i].turn <= turn ||
			!can_hold(&reader->rows[i], at.tick))
			continue;
		if (!open_segment(reader, i))
		{
			reader->blocked = true;
			break;
		}
		segment->active = false;
		set_scan_keys(segment, hash, at, at.tick + 1);
		index_rescan(segment->scan, segment->keys, 3, NULL, 0);
		advance_head(segment, i);
		while (segment->active && segment->head.at.id == at.id && !found)
		{
			MessageRow	row;

			found = act_reader_fetch(reader, &segment->head, &row);
			advance_head(segment, i);
		}
		segment->active = false;
	}
	MemoryContextSwitchTo(old);
	return found;
}

/*
 * Fetch the message of an entry: false if it is not visible (its
 * transaction aborted), or if the place holds another message by now, which
 * happens only to the place of an aborted one.  The row is valid until the
 * next fetch from the same segment.
 *
 * This is what table_index_fetch_tuple does, without an attempt to prune the
 * page: no message is updated or deleted.
 */
bool
act_reader_fetch(MessageReader *reader, const LogEntry *entry,
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
	act_reader_deform(segment->slot, row);
	return row->id == entry->at.id;
}
