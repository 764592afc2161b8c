/*
 * segment.c
 *	  The ring of segments: which one is written to, and what the others are.
 *
 * Messages are never deleted one by one: segment after segment of the log is
 * emptied by TRUNCATE.  That must not lose what an open poster may still
 * write there, nor what may still have to be read.  The protocol, of
 * which posters take step (a), batches step (d) and rotation.c the others:
 *	(a) A poster locks the cached current segment RowExclusive conditionally,
 *		then looks at the cache again, for getting a lock accepts invalidation
 *		messages.  If that segment is no longer current or the lock is not to
 *		be had at once, it unlocks, rereads the table and tries again.  It
 *		keeps the lock to the end of its transaction, and reads the clock's
 *		offset after it has the lock.
 *	(b) A move commits a new current segment without any lock on the old one.
 *		What is posted to the new one is committed after the move, so that a
 *		snapshot in which it is settled sees the move.
 *	(c) Later a ShareLock on the old one, had at once, proves that no open or
 *		prepared poster is in it: it is sealed, and the xmax of a snapshot
 *		taken then is the upper bound of its ticks.
 *	(d) A batch reads the segment rows with its own snapshot, looks into every
 *		unsealed segment and into those whose bound can concern it.  It never
 *		skips one that it cannot lock at once: it is "blocked" and the entity
 *		is put back.
 *	(e) A sealed segment in which nothing is pending is done, and that is so
 *		for ever.  What is pending there may have a copy in a later segment
 *		instead, with the same tick and id ("later" by turn: so no two
 *		segments can be done because of each other's copies).  The copies are
 *		committed before the segment is marked as done, so that a snapshot that
 *		sees the mark, and does without the segment, sees them.
 *	(f) A segment that is done is emptied when no snapshot is left that does
 *		not see the mark (its xid is kept for that): TRUNCATE is not MVCC, and
 *		a dump or a REPEATABLE READ reader would lose what it must see.  Nor
 *		while a snapshot of the database is exported: processes of pg_dump -j
 *		lock tables NOWAIT, and its first one locks none of an extension.
 *
 * A batch passes the messages of all entities of its hash.  As long as it has
 * met none but its own, the cursor of that one entity tells that all messages
 * of the hash are done.  A hash of which it has met others is noted in
 * actornot.collision, and then each of its messages is looked at; likewise in
 * a segment that is "mixed", for it was brought from elsewhere.
 *
 * Locks: those of the steps; a change of the ring needs
 * ShareUpdateExclusive on actornot.segment, had at once.  All of them are
 * tried only after a look at who is in the way: a failed try burns an xid
 * under wal_level replica.
 *
 * Memory: that of the caller.  An error, or a crash, leaves a step not taken.
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/fd.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"

#include "actornot.h"
#include "compat.h"
#include "common/catalog.h"
#include "common/cursor.h"
#include "log/segment.h"
#include "sched/hints.h"

/* The columns of segment. */
enum
{
	SEG_NUMBER = 1,
	SEG_CURRENT,
	SEG_SEALED,
	SEG_UPPER,
	SEG_TURN,
	SEG_DONE,
	SEG_MIXED,
	SEG_COPIED,
	SEG_NATTS = SEG_COPIED
};

/* How often a poster tries without waiting; then an administrator is at it. */
#define CONDITIONAL_TRIES 20

/* Where the server keeps exported snapshots. */
#define EXPORTED_SNAPSHOTS "pg_snapshots"

/* How often the size of a segment is looked at while it grows to its limit. */
#define LOOKS 128

/* actornot.segment_size, in blocks. */
static int	segment_blocks = 32768;

#ifdef ACTORNOT_TEST_HOOKS

/* actornot.debug_stop_at */
static char *debug_stop_at = "";

void
act_segment_stop(const char *step)
{
	if (debug_stop_at[0] != '\0' && strcmp(debug_stop_at, step) == 0)
		kill(MyProcPid, SIGKILL);
}

#endif							/* ACTORNOT_TEST_HOOKS */

/* Cached number of the current segment, or -1; and which relation tells. */
static int	current_segment = -1;
static Oid	segment_relation = InvalidOid;

void
act_segment_define_settings(void)
{
	DefineCustomIntVariable("actornot.segment_size",
							"How large a segment of the log grows, with its index, before posts go to the next one.",
							"A segment is emptied as a whole, when all of its messages are done.",
							&segment_blocks,
							32768, 16, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_BLOCKS,
							NULL, NULL, NULL);
#ifdef ACTORNOT_TEST_HOOKS
	DefineCustomStringVariable("actornot.debug_stop_at",
							   "The step of rotation, or of advancing the clock, at which a process kills itself.",
							   "For tests of what a crash leaves behind.",
							   &debug_stop_at, "",
							   PGC_SUSET,
							   GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL,
							   NULL, NULL, NULL);
#endif
}

/* ------------------------------------------------------------- the rows */

static SegmentState
get_state(const Datum *values, const bool *nulls)
{
	if (DatumGetBool(values[SEG_CURRENT - 1]))
		return SEGMENT_CURRENT;
	if (!DatumGetBool(values[SEG_SEALED - 1]) || nulls[SEG_UPPER - 1])
		return SEGMENT_LEFT;
	if (DatumGetUInt64(values[SEG_UPPER - 1]) == ACT_CURSOR_NOTHING_XMAX)
		return SEGMENT_EMPTY;
	return nulls[SEG_DONE - 1] ? SEGMENT_SEALED : SEGMENT_DONE;
}

/*
 * Read all rows with a snapshot.  A segment without a row counts as left.
 */
void
act_segment_read(Segment *segments, Snapshot snapshot)
{
	Relation	rel = table_open(act_catalog_get()->segment, AccessShareLock);
	TableScanDesc scan = heap_beginscan(rel, snapshot, 0, NULL, NULL,
										SO_TYPE_SEQSCAN | SO_ALLOW_PAGEMODE);
	HeapTuple	tuple;

	memset(segments, 0, sizeof(Segment) * ACT_SEGMENTS);
	for (int i = 0; i < ACT_SEGMENTS; i++)
		segments[i].state = SEGMENT_LEFT;
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Datum		values[SEG_NATTS];
		bool		nulls[SEG_NATTS];
		Segment    *segment;
		int			number;

		for (int i = 0; i < SEG_NATTS; i++)
			values[i] = heap_getattr(tuple, i + 1, RelationGetDescr(rel),
									 &nulls[i]);
		number = DatumGetInt32(values[SEG_NUMBER - 1]);
		if (number < 0 || number >= ACT_SEGMENTS)
			continue;
		segment = &segments[number];
		segment->state = get_state(values, nulls);
		segment->upper = nulls[SEG_UPPER - 1] ? 0 :
			DatumGetUInt64(values[SEG_UPPER - 1]);
		segment->turn = DatumGetInt64(values[SEG_TURN - 1]);
		segment->done = nulls[SEG_DONE - 1] ? 0 :
			DatumGetUInt64(values[SEG_DONE - 1]);
		segment->mixed = DatumGetBool(values[SEG_MIXED - 1]);
		segment->copied = DatumGetBool(values[SEG_COPIED - 1]);
	}
	heap_endscan(scan);
	table_close(rel, AccessShareLock);
}

/*
 * The same as they are now, whatever snapshot the transaction has.  The lock
 * comes before the snapshot: REPACK (CONCURRENTLY) replaces all rows by such
 * as older snapshots do not see.
 */
void
act_segment_read_latest(Segment *segments)
{
	Oid			relid = act_catalog_get()->segment;
	Snapshot	snapshot;

	LockRelationOid(relid, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	act_segment_read(segments, snapshot);
	UnregisterSnapshot(snapshot);
	UnlockRelationOid(relid, AccessShareLock);
}

/* --------------------------------------------------------------- posters */

static void
forget_current_segment(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == segment_relation)
		current_segment = -1;
}

/*
 * The number of the current segment, from the cache or else from the table.
 */
static int
find_current_segment(void)
{
	static bool registered = false;
	Segment		segments[ACT_SEGMENTS];
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
	act_segment_read_latest(segments);
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		if (segments[i].state == SEGMENT_CURRENT)
			found = i;
	}
	if (found < 0)
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
 * After CONDITIONAL_TRIES another session holds a lock that no part of actornot
 * takes; then we wait for him like any INSERT.
 */
Relation
act_segment_lock_current(int *number)
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
 * A message of that many bytes was put into that block.  From half of the size
 * on the manager is asked now and then to have a look: index and TOAST count
 * as well.
 */
void
act_segment_note_growth(int number, BlockNumber block, Size bytes)
{
	static int	noted_number = -1;
	static BlockNumber noted_step = 0;
	static Size toasted = 0;
	BlockNumber step = block / Max(segment_blocks / LOOKS, 1);
	bool		look = false;

	if (unlikely(bytes > BLCKSZ / 4))
	{
		toasted += bytes;
		if (toasted / BLCKSZ >= segment_blocks / LOOKS)
		{
			toasted = 0;
			look = true;
		}
	}
	if (unlikely(block >= segment_blocks / 2 &&
				 (step != noted_step || number != noted_number)))
	{
		noted_step = step;
		noted_number = number;
		look = true;
	}
	if (unlikely(look))
		act_database_want_rotation(MyDatabaseId);
}

/* -------------------------------------------------------------- rotation */

static LOCKTAG *
relation_tag(LOCKTAG *tag, Oid relid)
{
	SET_LOCKTAG_RELATION(*tag, MyDatabaseId, relid);
	return tag;
}

/*
 * Lock a relation if nobody is in the way.
 */
static bool
lock_if_free(Oid relid, LOCKMODE mode)
{
	LOCKTAG		tag;
	int			count;

	GetLockConflicts(relation_tag(&tag, relid), mode, &count);
	return count == 0 && ConditionalLockRelationOid(relid, mode);
}

/*
 * Has the segment the size at which posts move on?  Also false if it cannot
 * be locked at once.
 */
bool
act_segment_is_full(int number)
{
	Oid			relid = act_catalog_get()->message[number];
	Oid			indexid = act_catalog_get()->message_key[number];
	Oid			toastid;
	Relation	rel;
	uint64		blocks;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	rel = table_open(relid, NoLock);
	blocks = RelationGetNumberOfBlocks(rel);
	toastid = rel->rd_rel->reltoastrelid;
	table_close(rel, NoLock);

	rel = relation_open(indexid, AccessShareLock);
	blocks += RelationGetNumberOfBlocks(rel);
	relation_close(rel, AccessShareLock);
	if (OidIsValid(toastid))
	{
		rel = relation_open(toastid, AccessShareLock);
		blocks += RelationGetNumberOfBlocks(rel);
		relation_close(rel, AccessShareLock);
	}
	UnlockRelationOid(relid, AccessShareLock);
	return blocks >= segment_blocks;
}

/*
 * Nobody else changes the ring until the end of the (sub)transaction.
 */
bool
act_segment_lock_ring(void)
{
	return lock_if_free(act_catalog_get()->segment, ShareUpdateExclusiveLock);
}

/*
 * Change a row, $1 being its number, with another value as $2 if need be.
 * Returns how many rows were changed.
 */
static uint64
change_row(const char *command, int number, Oid type, Datum value)
{
	Oid			types[2] = {INT4OID, type};
	Datum		values[2] = {Int32GetDatum(number), value};

	return act_catalog_execute(command, OidIsValid(type) ? 2 : 1, types,
							   values, NULL);
}

/*
 * Step (b): from the current segment to the next one that is empty.  False if
 * there is none, or that is no longer the current one.  The ring is locked.
 */
bool
act_segment_move(int from)
{
	Segment		segments[ACT_SEGMENTS];
	int64		turn = 0;
	int			to;

	/* As it is under the lock: others may have moved before we had it. */
	act_segment_read_latest(segments);
	if (segments[from].state != SEGMENT_CURRENT)
		return false;
	for (int i = 0; i < ACT_SEGMENTS; i++)
		turn = Max(turn, segments[i].turn);
	to = (from + 1) % ACT_SEGMENTS;
	while (to != from && segments[to].state != SEGMENT_EMPTY)
		to = (to + 1) % ACT_SEGMENTS;
	if (to == from)
		return false;
	change_row("UPDATE actornot.segment SET current = false WHERE number = $1",
			   from, InvalidOid, (Datum) 0);
	change_row("UPDATE actornot.segment SET current = true, sealed = false,"
			   " upper = NULL, done = NULL, mixed = false, copied = false,"
			   " turn = $2 WHERE number = $1",
			   to, INT8OID, Int64GetDatum(turn + 1));
	act_catalog_invalidate(act_catalog_get()->segment);
	act_segment_stop("moved");
	return true;
}

/*
 * Step (c), first half: keep posters, and sessions that copy by hand or advance
 * the clock, out of a segment until the end of the (sub)transaction.  False if
 * one of them is in it.
 */
bool
act_segment_lock_out(int number)
{
	return lock_if_free(act_catalog_get()->message[number], ShareLock);
}

/*
 * Step (c), second half: "now" was taken under that lock.  The ring is locked.
 * False if the segment is not one to be sealed, or has no row.
 */
bool
act_segment_seal(int number, const Cursor *now)
{
	uint64		changed;

	changed = change_row("UPDATE actornot.segment SET sealed = true, upper = $2"
						 " WHERE number = $1 AND NOT current AND NOT sealed",
						 number, XID8OID, UInt64GetDatum(now->xmax));
	act_catalog_invalidate(act_catalog_get()->segment);
	act_segment_stop("sealed");
	return changed > 0;
}

/*
 * Copies of messages in this segment will be made.
 */
void
act_segment_mark_copied(int number)
{
	change_row("UPDATE actornot.segment SET copied = true WHERE number = $1",
			   number, InvalidOid, (Datum) 0);
	act_segment_stop("marked as copied");
}

/*
 * Step (e): nothing is pending in the segment, as it was when the check began.
 * A transaction that brings in messages from elsewhere changes its turn.  The
 * ring is locked.
 */
bool
act_segment_mark_done(int number, const Segment *checked)
{
	Segment		segments[ACT_SEGMENTS];
	uint64		xid;

	if (!act_segment_lock_out(number))
		return false;
	act_segment_read_latest(segments);
	if (segments[number].state != SEGMENT_SEALED ||
		segments[number].turn != checked->turn ||
		segments[number].mixed != checked->mixed)
		return false;
	xid = U64FromFullTransactionId(GetTopFullTransactionId());
	change_row("UPDATE actornot.segment SET done = $2 WHERE number = $1",
			   number, XID8OID, UInt64GetDatum(xid));
	act_segment_stop("done");
	return true;
}

/*
 * Is there no snapshot left that does not see what that xid has done?
 */
static bool
is_seen_by_all(Relation rel, uint64 xid)
{
	TransactionId oldest = GetOldestNonRemovableTransactionId(rel);
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());

	return next - (uint32) ((uint32) next - oldest) > xid;
}

/*
 * Is a snapshot of this database exported, as that of pg_dump -j is?  The
 * server has no function that tells, but keeps each in a file (see
 * ExportSnapshot in snapmgr.c), which is gone with its transaction.  What
 * cannot be read counts as one.  One may be exported while we look.
 */
static bool
has_exported_snapshot(void)
{
	char	   *ours = psprintf("dbid:%u\n", MyDatabaseId);
	DIR		   *dir = AllocateDir(EXPORTED_SNAPSHOTS);
	struct dirent *entry;
	bool		found = false;

	while (!found &&
		   (entry = ReadDirExtended(dir, EXPORTED_SNAPSHOTS, LOG)) != NULL)
	{
		char		path[MAXPGPATH];
		char		head[256];
		FILE	   *file;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), EXPORTED_SNAPSHOTS "/%s", entry->d_name);
		file = AllocateFile(path, "r");
		/* One that is being written, or that was renamed since, counts. */
		if (file == NULL)
		{
			found = true;
			continue;
		}
		head[fread(head, 1, sizeof(head) - 1, file)] = '\0';
		found = strstr(head, "dbid:") == NULL || strstr(head, ours) != NULL;
		FreeFile(file);
	}
	FreeDir(dir);
	return found;
}

/*
 * Step (f).  The ring is locked.
 */
bool
act_segment_empty(int number)
{
	Oid			relid = act_catalog_get()->message[number];
	Segment		segments[ACT_SEGMENTS];
	Relation	rel;
	bool		seen;

	act_segment_read_latest(segments);
	if (segments[number].state != SEGMENT_DONE ||
		!ConditionalLockRelationOid(relid, AccessShareLock))
		return false;
	rel = table_open(relid, NoLock);
	seen = is_seen_by_all(rel, segments[number].done);
	table_close(rel, NoLock);
	UnlockRelationOid(relid, AccessShareLock);
	if (!seen || has_exported_snapshot() ||
		!lock_if_free(relid, AccessExclusiveLock))
		return false;

	/*
	 * An advance of the clock may have come in between, or a dump; one that
	 * begins from here on reads all catalogs before its processes lock.
	 */
	act_segment_read_latest(segments);
	if (segments[number].state != SEGMENT_DONE || has_exported_snapshot())
		return false;
	act_catalog_execute(psprintf("TRUNCATE actornot.message_%d", number),
						0, NULL, NULL, NULL);
	act_segment_stop("truncated");
	change_row("UPDATE actornot.segment SET upper = $2, done = NULL,"
			   " mixed = false, copied = false WHERE number = $1",
			   number, XID8OID, UInt64GetDatum(ACT_CURSOR_NOTHING_XMAX));
	act_catalog_invalidate(act_catalog_get()->segment);
	act_segment_stop("emptied");
	return true;
}

/*
 * For a batch that has met another entity's message of its hash, in its own
 * transaction.  Rows are only added, so that nobody waits.
 */
void
act_segment_note_collision(int64 hash)
{
	Oid			types[1] = {INT8OID};
	Datum		values[1] = {Int64GetDatum(hash)};

	act_catalog_execute("INSERT INTO actornot.collision (hash) SELECT $1"
						" WHERE NOT EXISTS (SELECT FROM actornot.collision"
						" WHERE hash = $1)",
						1, types, values, NULL);
}

/*
 * All hashes that were noted, as a snapshot sees them; returns how many.
 */
int
act_segment_read_collisions(int64 **hashes, Snapshot snapshot)
{
	Relation	rel = table_open(act_catalog_get()->collision,
								 AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = act_table_beginscan(rel, snapshot);
	int			room = 8;
	int			n = 0;

	*hashes = palloc(sizeof(int64) * room);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		if (n == room)
		{
			room *= 2;
			*hashes = repalloc(*hashes, sizeof(int64) * room);
		}
		(*hashes)[n++] = DatumGetInt64(slot_getattr(slot, 1, &isnull));
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return n;
}
