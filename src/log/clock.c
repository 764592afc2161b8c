/*
 * clock.c
 *	  The clock of ticks, and the tokens of leases: numbers that only grow.
 *
 * Transaction ids mean something in one cluster only, but messages and
 * cursors are stored, dumped and restored.  So what is stored are ticks:
 * transaction id plus an offset, which is 0 until the data comes to another
 * cluster.  There the offset is set so high that every tick to come lies
 * above all that is stored, and thereby what was settled stays settled and
 * the rest is pending.
 *
 * A row of actornot.clock says which cluster, database and installation of
 * the extension have adopted the data.  Where there is none of the present
 * ones, or where there are others beside it, the engine does nothing, so that
 * a restore is not disturbed, until the first writing call adopts the data:
 *	1. Lock clock: adoptions come one after the other.
 *	2. Lock mailbox against batches and all segments against posters, who
 *		both keep their locks to their end: no transaction that has posted or
 *		has consumed anything is open any more (our own aside, which is among
 *		the running ones in step 4).  Posters and batches read the offset
 *		after they have their lock, and batches take their snapshot after
 *		that, so that no snapshot is put on a clock newer than itself.
 *	3. Read what is stored: the ticks, the cursors' xmax, the ids and tokens.
 *	4. M = greatest(every stored tick + 1, every stored xmax, next xid + old
 *		offset), new offset = greatest(old, M - oldest running xid).
 *	5. Move the sequences beyond what is stored; set the segment rows, which
 *		are not dumped: those of the install script say "empty".
 *	6. Replace the rows of clock by the own one.
 *
 * actornot_advance_clock() does the same where the own row is there, for rows
 * copied in from another cluster, also in the transaction that copied them.
 *
 * A token of a lease is a fencing token (Kleppmann, "How to do distributed
 * locking", 2016): a larger one says that the smaller one is over.  So none may
 * be given twice, although the lease itself may be lost in a crash, with
 * synchronous_commit off, or at a promotion.
 *
 *		bits 48 and up	the timeline, which grows with each promotion, but never
 *						less than in the entity's last token: the data may
 *						have come from a cluster with more of them (where the
 *						entity's row is gone: than clock.timeline)
 *		bits 0 to 47	the id sequence
 *
 * The sequence writes WAL for 32 values at a time.  The values are safe once
 * that record is on disk; it may be another backend's that does not flush it
 * soon.  So WAL is flushed up to the LSN of the sequence's page, which is
 * nothing to do most of the time.
 *
 * Locks, in this order: clock, mailbox (before the segments, since a handler
 * that runs may post), message_0 ... message_15, segment, all
 * ShareRowExclusive and to the end of the transaction.
 *
 * Failure: an error or a crash anywhere leaves what was there (sequences may
 * have moved forward), and the next writing call adopts.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "common/catalog.h"
#include "common/cursor.h"
#include "compat.h"
#include "log/clock.h"
#include "log/segment.h"
#include "sched/hints.h"

/* The columns of clock. */
enum
{
	CLOCK_SYSTEM = 1,
	CLOCK_DATABASE,
	CLOCK_OFFSET,
	CLOCK_INSTALLATION,
	CLOCK_TIMELINE,
	CLOCK_NATTS = CLOCK_TIMELINE
};

/*
 * How far beyond what is stored a sequence is set that is behind it.  Posters
 * are locked out, but a lease could be taking its token at this very moment.
 */
#define SEQUENCE_MARGIN 1024

/* A token is made of a timeline and, below it, the next id. */
#define TOKEN_TIMELINE_SHIFT 48
#define TOKEN_ID_MASK ((INT64CONST(1) << TOKEN_TIMELINE_SHIFT) - 1)

/* What actornot.clock says; 0: not read yet. */
static uint64 clock_version = 0;
static bool adopted = false;
static uint64 tick_offset = 0;

/* Whose rows there were, and the greatest offset of any. */
static bool have_own = false;
static bool have_foreign = false;
static uint64 greatest_offset = 0;

/* The greatest timeline of a token that is not in any row any more. */
static int32 timeline = 0;

/* Ask for a sweep when the present transaction commits. */
static bool sweep_at_commit = false;

/* What was found in the tables. */
typedef struct Stored
{
	bool		anything;		/* a message or a mailbox */
	uint64		tick;			/* above all ticks, at all xmaxes */
	int64		id;				/* greatest id of a message or token */
	int64		runner;			/* greatest number of a runner */
	uint64		upper[ACT_SEGMENTS];	/* above all ticks of a segment */
} Stored;

/* What a column of a table holds. */
typedef enum StoredKind
{
	STORED_NONE,
	STORED_TICK,
	STORED_CURSOR,
	STORED_ID,
	STORED_TOKEN,
	STORED_RUNNER
} StoredKind;

typedef struct StoredColumn
{
	const char *name;
	StoredKind	kind;
} StoredColumn;

#define MAX_STORED_COLUMNS 7

static const StoredColumn message_columns[MAX_STORED_COLUMNS] = {
	{"tick", STORED_TICK}, {"id", STORED_ID}, {"runner", STORED_RUNNER}
};
static const StoredColumn mailbox_columns[MAX_STORED_COLUMNS] = {
	{"done", STORED_CURSOR}, {"target", STORED_CURSOR},
	{"last_id", STORED_ID}, {"lease_last_id", STORED_ID},
	{"lease_token", STORED_TOKEN}, {"runner", STORED_RUNNER}
};
static const StoredColumn runner_columns[MAX_STORED_COLUMNS] = {
	{"id", STORED_RUNNER}
};
static const StoredColumn other_columns[MAX_STORED_COLUMNS] = {
	{"id", STORED_ID}, {"runner", STORED_RUNNER}
};

/* ------------------------------------------------------------------------
 * Reading the clock
 * ------------------------------------------------------------------------ */

/*
 * Take a row of clock into account.
 */
static void
note_clock_row(TupleTableSlot *slot, Oid installation)
{
	uint64		offset;

	slot_getallattrs(slot);
	offset = DatumGetUInt64(slot->tts_values[CLOCK_OFFSET - 1]);
	greatest_offset = Max(greatest_offset, offset);
	timeline = Max(timeline,
				   DatumGetInt32(slot->tts_values[CLOCK_TIMELINE - 1]));

	if (DatumGetInt64(slot->tts_values[CLOCK_SYSTEM - 1]) ==
		(int64) GetSystemIdentifier() &&
		DatumGetObjectId(slot->tts_values[CLOCK_DATABASE - 1]) ==
		MyDatabaseId &&
		DatumGetObjectId(slot->tts_values[CLOCK_INSTALLATION - 1]) ==
		installation)
	{
		have_own = true;
		tick_offset = Max(tick_offset, offset);
	}
	else
		have_foreign = true;
}

/*
 * Read the table as it is now, whatever snapshot the transaction has.
 */
static void
read_clock(void)
{
	const Catalog *catalog = act_catalog_get();
	Oid			installation = catalog->extension;
	Relation	rel = table_open(catalog->clock, AccessShareLock);
	uint64		version = act_catalog_version(ROWS_CLOCK);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = act_table_beginscan(rel, snapshot);

	clock_version = 0;
	adopted = false;
	tick_offset = 0;
	have_own = false;
	have_foreign = false;
	greatest_offset = 0;
	timeline = 0;
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		note_clock_row(slot, installation);

	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);

	/* A foreign row beside our own: data was loaded after we adopted. */
	adopted = have_own && !have_foreign;

	/* What came after the version was looked at makes us read again. */
	clock_version = version;
}

bool
act_clock_is_adopted(void)
{
	if (unlikely(clock_version != act_catalog_version(ROWS_CLOCK)))
		read_clock();
	return adopted;
}

/*
 * What keeps all of this database from being run, if anything does.
 */
Gate
act_clock_gate(void)
{
	if (act_catalog_find() == NULL)
		return GATE_NO_EXTENSION;
	return act_clock_is_adopted() ? GATE_OPEN : GATE_NOT_ADOPTED;
}

uint64
act_clock_offset(void)
{
	Assert(adopted);
	return tick_offset;
}

/* ------------------------------------------------------------------------
 * Reading what is stored
 * ------------------------------------------------------------------------ */

/*
 * Take one value into account; "upper" is that of its segment or NULL.
 */
static void
note_value(Stored *stored, StoredKind kind, Datum value, uint64 *upper)
{
	Cursor		cursor;

	switch (kind)
	{
		case STORED_NONE:
			break;
		case STORED_TICK:
			stored->tick = Max(stored->tick, DatumGetUInt64(value) + 1);
			*upper = Max(*upper, DatumGetUInt64(value) + 1);
			break;
		case STORED_CURSOR:
			act_cursor_unpack(&cursor, DatumGetByteaPP(value));
			stored->tick = Max(stored->tick, cursor.xmax);
			break;
		case STORED_ID:
			stored->id = Max(stored->id, DatumGetInt64(value));
			break;
		case STORED_TOKEN:
			stored->id = Max(stored->id,
							 DatumGetInt64(value) & TOKEN_ID_MASK);
			break;
		case STORED_RUNNER:
			stored->runner = Max(stored->runner, DatumGetInt32(value));
			break;
	}
}

/*
 * Read a whole table; true if it holds any row.
 */
static bool
scan_stored(Stored *stored, Oid relid, const StoredColumn *columns,
			uint64 *upper, Snapshot snapshot)
{
	Relation	rel = table_open(relid, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	MemoryContext row_context;
	MemoryContext old;
	TableScanDesc scan;
	AttrNumber	attnums[MAX_STORED_COLUMNS] = {0};
	bool		any = false;

	for (int i = 0; columns[i].kind != STORED_NONE; i++)
	{
		attnums[i] = get_attnum(relid, columns[i].name);
		if (attnums[i] == InvalidAttrNumber)
			elog(ERROR, "column \"%s\" of relation %u is missing",
				 columns[i].name, relid);
	}

	row_context = AllocSetContextCreate(CurrentMemoryContext,
										"actornot stored row",
										ALLOCSET_DEFAULT_SIZES);
	scan = act_table_beginscan(rel, snapshot);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		any = true;
		old = MemoryContextSwitchTo(row_context);
		for (int i = 0; columns[i].kind != STORED_NONE; i++)
		{
			bool		isnull;
			Datum		value = slot_getattr(slot, attnums[i], &isnull);

			if (!isnull)
				note_value(stored, columns[i].kind, value, upper);
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(row_context);
	}
	table_endscan(scan);
	MemoryContextDelete(row_context);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return any;
}

/*
 * Read everything that holds a tick, a number or an id.  All segments are
 * locked, so there is none that could still commit.
 */
static void
read_stored(Stored *stored)
{
	const Catalog *catalog = act_catalog_get();
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

	memset(stored, 0, sizeof(*stored));
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		stored->upper[i] = ACT_CURSOR_NOTHING_XMAX;
		if (scan_stored(stored, catalog->message[i], message_columns,
						&stored->upper[i], snapshot))
			stored->anything = true;
	}
	if (scan_stored(stored, catalog->mailbox, mailbox_columns, NULL, snapshot))
		stored->anything = true;
	scan_stored(stored, catalog->runner, runner_columns, NULL, snapshot);
	scan_stored(stored, catalog->timer, other_columns, NULL, snapshot);
	scan_stored(stored, catalog->dead_letter, other_columns, NULL, snapshot);
	scan_stored(stored, catalog->dedup, other_columns, NULL, snapshot);
	UnregisterSnapshot(snapshot);
}

/* ------------------------------------------------------------------------
 * Adopting
 * ------------------------------------------------------------------------ */

/*
 * The oldest xid that may still post, as a full one: it is at most 2^31
 * behind the next.
 */
static uint64
oldest_running_xid(void)
{
	TransactionId oldest = act_oldest_active_xid();
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());

	return next - (uint32) ((uint32) next - oldest);
}

static uint64
compute_offset(const Stored *stored)
{
	uint64		old = greatest_offset;
	uint64		oldest;
	uint64		m;

	if (!have_own && !have_foreign && !stored->anything)
		return 0;

	oldest = oldest_running_xid();
	m = U64FromFullTransactionId(ReadNextFullTransactionId()) + old;
	m = Max(m, stored->tick);
	return m > oldest ? Max(old, m - oldest) : old;
}

/*
 * Move a sequence beyond what is stored, if it is behind.
 */
static void
mend_sequence(const char *name, int64 stored)
{
	Oid			types[2] = {INT8OID, INT8OID};
	Datum		values[2] = {
		Int64GetDatum(stored), Int64GetDatum(stored + SEQUENCE_MARGIN)
	};

	if (stored > 0)
		act_catalog_execute(psprintf("SELECT pg_catalog.setval('actornot.%s', $2)"
									 " FROM actornot.%s"
									 " WHERE last_value < $1"
									 " OR (last_value = $1 AND NOT is_called)",
									 name, name),
							2, types, values, NULL);
}

/*
 * Set the segment rows to what the log holds: only the current segment can
 * get more messages, the others are sealed under their bounds.  What may have
 * been brought from elsewhere is looked at message by message (see segment.c),
 * and a check of a segment that is under way notices that it has another turn.  No
 * two have the same, for copies may have come with the rest.
 */
static void
mend_segments(const Stored *stored)
{
	Oid			types[2] = {INT4OID, XID8OID};

	act_catalog_execute("UPDATE actornot.segment s SET sealed = NOT current,"
						" turn = (SELECT pg_catalog.max(turn) FROM actornot.segment)"
						" + (SELECT pg_catalog.count(*) FROM actornot.segment o"
						" WHERE (o.current, o.turn, o.number) <="
						" (s.current, s.turn, s.number)),"
						" done = NULL, mixed = true, copied = true",
						0, NULL, NULL, NULL);
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		Datum		values[2] = {
			Int32GetDatum(i), UInt64GetDatum(stored->upper[i])
		};

		act_catalog_execute("UPDATE actornot.segment"
							" SET upper = CASE WHEN NOT current THEN $2 END"
							" WHERE number = $1",
							2, types, values, NULL);
	}
	act_catalog_invalidate(act_catalog_get()->segment);
}

static void
write_clock(uint64 offset)
{
	Oid			types[CLOCK_NATTS] = {INT8OID, OIDOID, XID8OID, OIDOID,
	INT4OID};
	Datum		values[CLOCK_NATTS];

	values[CLOCK_SYSTEM - 1] = Int64GetDatum((int64) GetSystemIdentifier());
	values[CLOCK_DATABASE - 1] = ObjectIdGetDatum(MyDatabaseId);
	values[CLOCK_OFFSET - 1] = UInt64GetDatum(offset);
	values[CLOCK_INSTALLATION - 1] =
		ObjectIdGetDatum(act_catalog_get()->extension);
	values[CLOCK_TIMELINE - 1] = Int32GetDatum(timeline);

	act_catalog_execute("DELETE FROM actornot.clock", 0, NULL, NULL, NULL);
	act_catalog_execute("INSERT INTO actornot.clock"
						" (system_identifier, database, tick_offset, installation,"
						" timeline) VALUES ($1, $2, $3, $4, $5)",
						CLOCK_NATTS, types, values, NULL);
	act_catalog_invalidate(act_catalog_get()->clock);
}

/*
 * Transaction callback: what was adopted has messages waiting.  A prepared
 * transaction is followed by a sweep anyway.
 */
static void
sweep_after_commit(XactEvent event, void *arg)
{
	if (!sweep_at_commit)
		return;
	if (event == XACT_EVENT_COMMIT)
		act_readyq_request_sweep(MyDatabaseId);
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		sweep_at_commit = false;
}

static void
request_sweep(void)
{
	static bool registered = false;

	if (!registered)
	{
		RegisterXactCallback(sweep_after_commit, NULL);
		registered = true;
	}
	sweep_at_commit = true;
}

/*
 * Steps 1 to 6 at the top.  Without "again" nothing is done if another session
 * was faster.
 */
static void
adopt_data(bool again)
{
	const Catalog *catalog = act_catalog_get();
	Stored		stored;
	uint64		offset;

	PreventCommandDuringRecovery("adoption of the clock of actornot");
	PreventCommandIfReadOnly("adoption of the clock of actornot");
	PreventCommandIfParallelMode("adoption of the clock of actornot");

	LockRelationOid(catalog->clock, ShareRowExclusiveLock);
	if (act_clock_is_adopted() && !again)
		return;
	LockRelationOid(catalog->mailbox, ShareRowExclusiveLock);
	for (int i = 0; i < ACT_SEGMENTS; i++)
		LockRelationOid(catalog->message[i], ShareRowExclusiveLock);
	LockRelationOid(catalog->segment, ShareRowExclusiveLock);

	read_stored(&stored);
	offset = compute_offset(&stored);
	mend_sequence("id_seq", stored.id);
	mend_sequence("runner_seq", stored.runner);
	act_segment_stop("advance: sequences");
	if (have_own || have_foreign || stored.anything)
	{
		mend_segments(&stored);
		act_segment_stop("advance: segments");
		ereport(LOG,
				(errmsg("actornot adopts the data of database \"%s\"",
						get_database_name(MyDatabaseId)),
				 errdetail("The offset of its clock is " UINT64_FORMAT ".",
						   offset)));
	}
	write_clock(offset);
	act_segment_stop("advance: clock");
	request_sweep();
}

void
act_clock_adopt(void)
{
	if (!act_clock_is_adopted())
		adopt_data(false);
}

void
act_clock_advance(void)
{
	adopt_data(true);
}

/* ------------------------------------------------------------------------
 * Tokens of leases
 * ------------------------------------------------------------------------ */

/*
 * The next token of an entity whose last one was "previous" (0: none).
 */
int64
act_clock_next_token(int64 previous)
{
	int64		at_least = (int64) GetWALInsertionTimeLine();
	int64		id = nextval_internal(act_catalog_get()->id_seq, false);

	at_least = Max(at_least, previous >> TOKEN_TIMELINE_SHIFT);
	at_least = Max(at_least, timeline);

	/* A restore may have put back the sequence. */
	return Max((at_least << TOKEN_TIMELINE_SHIFT) | (id & TOKEN_ID_MASK),
			   previous + 1);
}

/*
 * A row is removed that knows its entity's last token: no new token may have a
 * smaller timeline than that.
 */
void
act_clock_note_token(int64 token)
{
	int32		of_token = (int32) (token >> TOKEN_TIMELINE_SHIFT);
	Oid			types[1] = {INT4OID};
	Datum		values[1] = {Int32GetDatum(of_token)};

	if (of_token <= timeline)
		return;
	act_catalog_execute("UPDATE actornot.clock SET timeline = $1"
						" WHERE timeline < $1",
						1, types, values, NULL);
	act_catalog_invalidate(act_catalog_get()->clock);
}

/*
 * To be called once, before tokens are given out.
 */
void
act_clock_flush_tokens(void)
{
	Relation	seq = relation_open(act_catalog_get()->id_seq, AccessShareLock);
	Buffer		buffer = ReadBuffer(seq, 0);
	XLogRecPtr	lsn;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	lsn = PageGetLSN(BufferGetPage(buffer));
	UnlockReleaseBuffer(buffer);
	relation_close(seq, NoLock);
	XLogFlush(lsn);
}
