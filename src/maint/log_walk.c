/*
 * log_walk.c
 *	  Reading all of the log, block by block, in pieces.
 *
 * Forward or backward, in the order of the segments' turns.  A piece has a
 * transaction and a snapshot of its own; the place is kept between them.  Only
 * segments are read in which something may be pending.  With another turn than
 * before a segment has been emptied, and what is there now is not met: forward
 * it is still to come.
 *
 * A segment that an administrator has locked is waited for, by the lock's
 * queue or by trying again: to skip it could lose what it holds.
 *
 * Memory: the caller's struct.  After an error the place is where it was.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "common/catalog.h"
#include "compat.h"
#include "maint/log_walk.h"

/* How many blocks are read by one scan. */
#define RANGE 16

/*
 * To where it begins.
 */
void
act_log_walk_rewind(LogWalk *walk)
{
	walk->at.turn = walk->backward ? PG_INT64_MAX : PG_INT64_MIN;
	walk->at.segment = walk->backward ? ACT_SEGMENTS : -1;
	walk->at.within = false;
	walk->narrow = 0;
}

/*
 * End the walk where the log ends now, in a transaction.
 */
void
act_log_walk_end_here(LogWalk *walk)
{
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		Relation	heap = table_open(act_catalog_get()->message[i],
									  AccessShareLock);

		walk->end[i] = RelationGetNumberOfBlocks(heap);
		table_close(heap, AccessShareLock);
	}
	walk->bounded = true;
}

/*
 * Open a segment; NULL if it cannot be locked at once and must not be waited
 * for.
 */
static Relation
open_segment(LogWalk *walk, int segment)
{
	Oid			relid = act_catalog_get()->message[segment];

	if (walk->may_wait)
		return table_open(relid, AccessShareLock);
	walk->locked = !ConditionalLockRelationOid(relid, AccessShareLock);
	return walk->locked ? NULL : table_open(relid, NoLock);
}

/*
 * Read some blocks of a segment.  Returns how many were finished.
 *
 * When the function has ended the piece, the place stays where it has to be
 * read on: forward in the block of that message, backward in the whole range.
 * What is in front of it there is met again.
 */
static int
read_blocks(LogWalk *walk, Relation heap, TupleTableSlot *slot,
			BlockNumber nblocks)
{
	BlockNumber from = walk->at.block;
	BlockNumber width = walk->narrow > 0 ? 1 : RANGE;
	BlockNumber first = walk->backward ? from - Min(from, width) : from;
	BlockNumber end = walk->backward ? from : Min(from + width, nblocks);
	ItemPointerData low,
				high;
	TableScanDesc scan;
	MessageRow	row;

	CHECK_FOR_INTERRUPTS();
	ItemPointerSet(&low, first, FirstOffsetNumber);
	ItemPointerSet(&high, end - 1, MaxOffsetNumber);
	scan = act_table_beginscan_tidrange(heap, walk->snapshot, &low, &high);
	act_scan_without_pruning(scan);
	while (!walk->stopped &&
		   table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
	{
		act_reader_deform(slot, &row);
		walk->stopped = !walk->function(walk->arg, &row);
	}
	table_endscan(scan);
	if (!walk->stopped)
		walk->at.block = walk->backward ? first : end;
	else if (!walk->backward)
		walk->at.block = ItemPointerGetBlockNumber(&slot->tts_tid);
	walk->narrow = Max(walk->narrow - 1, 0);
	return walk->backward ? from - walk->at.block : walk->at.block - from;
}

/*
 * Read blocks of the segment, until the piece ends; not at all if it is locked.
 * True when the segment is finished.
 */
static bool
walk_segment(LogWalk *walk)
{
	Relation	heap = open_segment(walk, walk->at.segment);
	BlockNumber nblocks;
	BlockNumber goal;
	TupleTableSlot *slot;

	if (heap == NULL)
		return false;
	nblocks = RelationGetNumberOfBlocks(heap);
	slot = table_slot_create(heap, NULL);
	if (walk->bounded)
		nblocks = Min(nblocks, walk->end[walk->at.segment]);
	walk->at.block = Min(walk->at.block, nblocks);
	goal = walk->backward ? 0 : nblocks;
	while (walk->at.block != goal && walk->blocks > 0 && !walk->stopped)
	{
		walk->blocks -= read_blocks(walk, heap, slot, nblocks);
		if (walk->until != DT_NOEND && GetCurrentTimestamp() >= walk->until)
			break;
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(heap, AccessShareLock);
	return walk->at.block == goal;
}

/*
 * Is there anything in it that may be pending?
 */
static bool
is_in_use(const Segment *row)
{
	return row->state != SEGMENT_EMPTY && row->state != SEGMENT_DONE;
}

/*
 * Does segment i come after the other one, in the direction of the walk?
 */
static bool
comes_after(const LogWalk *walk, int i, int64 turn, int segment)
{
	int64		own = walk->ring[i].turn;

	if (walk->backward)
		return own < turn || (own == turn && i < segment);
	return own > turn || (own == turn && i > segment);
}

/*
 * Go to the next segment in the order of their turns; false if there is none.
 */
static bool
next_segment(LogWalk *walk)
{
	const Segment *rows = walk->ring;
	LogPlace   *at = &walk->at;
	int			next = -1;

	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		if (comes_after(walk, i, at->turn, at->segment) &&
			(next < 0 || !comes_after(walk, i, rows[next].turn, next)))
			next = i;
	}
	if (next < 0)
		return false;
	at->segment = next;
	at->turn = rows[next].turn;
	at->block = walk->backward ? MaxBlockNumber : 0;
	walk->narrow = 0;
	return true;
}

/*
 * A piece, in a transaction of the caller, which has set what belongs to it.
 * True when the walk is complete.
 */
bool
act_log_walk_step(LogWalk *walk)
{
	LogPlace   *at = &walk->at;

	walk->stopped = false;
	walk->locked = false;
	while (at->within || next_segment(walk))
	{
		const Segment *row = &walk->ring[at->segment];

		at->within = row->turn == at->turn && is_in_use(row);
		if (at->within)
			at->within = !walk_segment(walk);
		if (at->within)
			return false;
	}
	return true;
}

/*
 * The last piece of a walk backward has failed: go on behind what cannot be
 * read.  False if it is not known yet which block that is, and the piece is to
 * be tried again; else it is the one that the place is at now.
 */
bool
act_log_walk_skip_block(LogWalk *walk)
{
	Assert(walk->backward);

	if (walk->narrow == 0)
	{
		walk->narrow = RANGE;
		return false;
	}
	if (!walk->at.within || walk->at.block == 0)
		return false;
	walk->at.block--;
	return true;
}
