/*
 * sweep.c
 *	  Finding the entities with pending messages from the tables.
 *
 * All of the log is read, block by block, in pieces, each with a transaction
 * and a snapshot of its own; the place is kept between them.  Only segments are
 * read in which something may be pending, in the order of their turns.  With
 * another turn than before a segment has been emptied, and what is there now is
 * not met: forward it is still to come.
 *
 * A drain, a lease and a count go forward, so that what came first is run
 * first, and look up each entity once a piece, for another run may have passed
 * it by since.  The sweep for the ready queue goes backward, for what is
 * pending is mostly what came last, and in front of it there may be millions
 * of messages that are done (sweep_queue.c).  It looks up an entity once: what
 * is pending when it is found is taken by the run that follows.
 *
 * An entity is met with each of its messages.  So what was found out about it
 * is remembered in a hash table of 32 bytes an entity: of most it is enough to
 * know that they have been reported, or below which tick they are done.  The
 * few that have more to be told (open writers in their cursor, a target, a
 * lease) get a record beside it.  What was forgotten is looked up again.
 *
 * A segment that an administrator has locked is waited for, backward by trying
 * again, and not in the lock's queue, where the manager could do nothing else:
 * to skip it could lose what it holds.
 *
 * Equal hashes: entities are told apart by their check hash, as in the queue.
 *
 * Memory: the context given to act_sweep_begin.  What is known of entities is in
 * a child of it: MAX_KNOWN entities and MAX_CURSOR_BYTES of records at most,
 * beyond that all is forgotten.  The table doubles as it grows, up to 8 MB, and
 * for that moment takes half as much again.  A mailbox that is looked at goes
 * at once.  After an error the place is where it was.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "common/catalog.h"
#include "common/cursor.h"
#include "compat.h"
#include "log/reader.h"
#include "mailbox/mailbox.h"
#include "maint/sweep.h"
#include "runner/runner.h"
#include "sched/gate.h"

/* How many blocks are read by one scan. */
#define RANGE 16

/* The table does not grow once more (fill factor 0.9 of 2^18 entries). */
#define MAX_KNOWN 235000

#define MAX_CURSOR_BYTES (8 * 1024 * 1024)

/* How many entities the table begins with. */
#define FIRST_SIZE 256

typedef enum KnownState
{
	KNOWN_NOTHING,				/* just entered, nothing is known yet */
	KNOWN_BELOW,				/* done below a tick, not lent */
	KNOWN_CURSOR,				/* done as a cursor says, or lent */
	KNOWN_REPORTED,				/* nothing more to be found out */
	KNOWN_IGNORED				/* it waits for something that queues it */
} KnownState;

/* For entities of which a tick does not say it all. */
typedef struct KnownCursor
{
	bool		has_target;
	Cursor		done;
	Cursor		target;
	int64		last_id;
	TimestampTz leased_until;	/* 0: not leased */
} KnownCursor;

/*
 * As small as can be: there is one for each entity, and the sweep looks here
 * with each message, in the cache that the workers use, too.
 */
typedef struct KnownEntity
{
	EntityKey	key;
	union
	{
		uint64		below;		/* KNOWN_BELOW */
		KnownCursor *cursor;	/* KNOWN_CURSOR */
	}			is;
	uint8		state;			/* a KnownState */
	char		status;			/* of the hash table */
} KnownEntity;

/* The hash of an entity is a good one; the rest only has to be mixed in. */
static inline uint32
hash_key(const EntityKey *key)
{
	uint64		hash = (uint64) key->hash;

	return (uint32) (hash ^ (hash >> 32)) ^ key->check ^ (uint32) key->runner;
}

static inline bool
keys_equal(const EntityKey *a, const EntityKey *b)
{
	return a->hash == b->hash && a->check == b->check &&
		a->runner == b->runner;
}

#define SH_PREFIX knownhash
#define SH_ELEMENT_TYPE KnownEntity
#define SH_KEY_TYPE EntityKey
#define SH_KEY key
#define SH_HASH_KEY(tb, key) hash_key(&(key))
#define SH_EQUAL(tb, a, b) keys_equal(&(a), &(b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct KnownEntities
{
	MemoryContext context;
	MemoryContext cursors;		/* of the records */
	knownhash_hash *entities;
	Size		cursor_bytes;
};

static void
begin_known(Sweep *sweep)
{
	MemoryContext context = AllocSetContextCreate(sweep->context,
												  "actornot entities seen by the sweep",
												  ALLOCSET_DEFAULT_SIZES);
	struct KnownEntities *known = MemoryContextAllocZero(context,
														 sizeof(*known));

	known->context = context;
	known->cursors = AllocSetContextCreate(context,
										   "actornot cursors seen by the sweep",
										   ALLOCSET_DEFAULT_SIZES);
	known->entities = knownhash_create(context, FIRST_SIZE, NULL);
	sweep->known = known;
}

/*
 * Forget all that is known.  A table that is to be filled again keeps its
 * size; to clear one that was hardly used would cost more than to make another.
 */
void
act_sweep_forget(Sweep *sweep)
{
	struct KnownEntities *known = sweep->known;

	MemoryContextReset(known->cursors);
	known->cursor_bytes = 0;
	if (known->entities->members > known->entities->size / 8)
		knownhash_reset(known->entities);
	else
	{
		knownhash_destroy(known->entities);
		known->entities = knownhash_create(known->context, FIRST_SIZE, NULL);
	}
}

/*
 * Find an entity, or enter it as KNOWN_NOTHING.  Valid until the next call.
 */
static KnownEntity *
enter(Sweep *sweep, const EntityKey *key)
{
	struct KnownEntities *all = sweep->known;
	KnownEntity *known;
	bool		found;

	if (all->entities->members >= MAX_KNOWN ||
		all->cursor_bytes >= MAX_CURSOR_BYTES)
		act_sweep_forget(sweep);
	known = knownhash_insert(all->entities, *key, &found);
	if (!found)
		known->state = KNOWN_NOTHING;
	return known;
}

/*
 * Remember how far a mailbox has come, and whether it is lent.
 */
static void
note(Sweep *sweep, KnownEntity *known, const Mailbox *mailbox)
{
	MemoryContext old;
	KnownCursor *cursor;
	bool		leased = act_mailbox_is_leased(mailbox);

	if (mailbox->done.nxip == 0 && !mailbox->has_target && !leased)
	{
		known->state = KNOWN_BELOW;
		known->is.below = mailbox->done.xmax;
		return;
	}

	old = MemoryContextSwitchTo(sweep->known->cursors);
	cursor = palloc0(sizeof(KnownCursor));
	act_cursor_copy(&cursor->done, &mailbox->done);
	cursor->has_target = mailbox->has_target;
	if (mailbox->has_target)
		act_cursor_copy(&cursor->target, &mailbox->target);
	cursor->last_id = mailbox->last_id;
	cursor->leased_until = leased ? mailbox->lease_until : 0;
	MemoryContextSwitchTo(old);

	sweep->known->cursor_bytes += sizeof(KnownCursor) +
		sizeof(uint64) * (cursor->done.nxip + cursor->target.nxip);
	known->state = KNOWN_CURSOR;
	known->is.cursor = cursor;
}

/*
 * Has this message, which the sweep's snapshot sees, been consumed?
 */
static bool
is_consumed(const KnownEntity *known, const MessageRow *row)
{
	const KnownCursor *cursor = known->is.cursor;

	if (known->state == KNOWN_BELOW)
		return row->tick < known->is.below;
	if (known->state != KNOWN_CURSOR)
		return false;
	return act_cursor_settled(&cursor->done, row->tick) ||
		(cursor->has_target && row->id <= cursor->last_id &&
		 act_cursor_settled(&cursor->target, row->tick));
}

/*
 * 0 if it is not lent.
 */
static TimestampTz
leased_until(const KnownEntity *known)
{
	return known->state == KNOWN_CURSOR ? known->is.cursor->leased_until : 0;
}

/*
 * Find out what there is to know of an entity: its row's cursor.
 */
static void
look_up(Sweep *sweep, KnownEntity *known, const char *entity, int len)
{
	MemoryContext old = MemoryContextSwitchTo(sweep->look_context);
	Mailbox		mailbox;

	act_mailbox_init(&mailbox, &known->key, entity, len);
	act_mailbox_load(&sweep->mailboxes, &mailbox);
	if (!sweep->every_message &&
		act_gate_verdict(act_mailbox_gate(&mailbox)) == HINT_DROP)
		known->state = KNOWN_IGNORED;
	else
		note(sweep, known, &mailbox);
	MemoryContextSwitchTo(old);
	MemoryContextReset(sweep->look_context);
}

/*
 * Report a pending entity, unless there are enough already.
 */
static void
report(Sweep *sweep, const Runner *runner, KnownEntity *known, text *entity)
{
	if (sweep->found >= sweep->max)
	{
		sweep->full = true;
		return;
	}
	sweep->refused = false;
	if (sweep->function(sweep->arg, act_runner_pool(runner),
						leased_until(known), &known->key,
						VARDATA_ANY(entity), VARSIZE_ANY_EXHDR(entity)))
		sweep->found++;
	if (!sweep->every_message && !sweep->refused)
		known->state = KNOWN_REPORTED;
}

/*
 * Will a copy of the message be met in a later segment?
 */
static bool
has_copy(Sweep *sweep, const MessageRow *row)
{
	const Segment *segment = &sweep->messages.rows[sweep->at.segment];
	LogPosition at = {row->tick, row->id};

	return segment->copied &&
		act_reader_has_copy(&sweep->messages, segment->turn, row->hash, at);
}

/*
 * Does the walk look for entities of this runner?
 */
static bool
is_wanted(const Sweep *sweep, const Runner *runner)
{
	Oid			pool = act_runner_pool(runner);

	if (sweep->runner != 0 && sweep->runner != runner->id)
		return false;
	if (sweep->only != NIL && !list_member_oid(sweep->only, pool))
		return false;
	return !list_member_oid(sweep->except, pool);
}

/*
 * Look at a message of a runner that is wanted, and report its entity if it is
 * pending.
 */
static void
consider_entity(Sweep *sweep, const Runner *runner, const MessageRow *row,
				text *entity)
{
	EntityKey	key;
	KnownEntity *known;

	if (!act_runner_stored_key(runner, entity, row->hash, &key))
		return;
	known = enter(sweep, &key);
	if (known->state == KNOWN_NOTHING)
	{
		look_up(sweep, known, VARDATA_ANY(entity), VARSIZE_ANY_EXHDR(entity));
		/* The runner's pointer may have gone while we read the mailbox. */
		runner = act_runner_find(row->runner);
		if (runner == NULL)
			return;
	}
	if (known->state != KNOWN_REPORTED && known->state != KNOWN_IGNORED &&
		!is_consumed(known, row) &&
		!(sweep->every_message && has_copy(sweep, row)))
		report(sweep, runner, known, entity);
}

static void
consider(Sweep *sweep, const MessageRow *row)
{
	const Runner *runner = act_runner_find(row->runner);
	text	   *entity;

	if (runner == NULL || !is_wanted(sweep, runner))
		return;
	entity = DatumGetTextPP(row->entity);
	consider_entity(sweep, runner, row, entity);
	/* A long name may have been compressed; a walk is long, too. */
	if ((Pointer) entity != DatumGetPointer(row->entity))
		pfree(entity);
}

/*
 * To where it begins.
 */
void
act_sweep_rewind(Sweep *sweep)
{
	sweep->at.turn = sweep->backward ? PG_INT64_MAX : PG_INT64_MIN;
	sweep->at.segment = sweep->backward ? ACT_SEGMENTS : -1;
	sweep->at.within = false;
	sweep->narrow = 0;
}

/*
 * End the walk where the log ends now, in a transaction.
 */
void
act_sweep_end_here(Sweep *sweep)
{
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		Relation	heap = table_open(act_catalog_get()->message[i],
									  AccessShareLock);

		sweep->end[i] = RelationGetNumberOfBlocks(heap);
		table_close(heap, AccessShareLock);
	}
	sweep->bounded = true;
}

/*
 * Open a segment; NULL if it cannot be locked at once and must not be waited
 * for.
 */
static Relation
open_segment(Sweep *sweep, int segment)
{
	Oid			relid = act_catalog_get()->message[segment];

	if (!sweep->backward)
		return table_open(relid, AccessShareLock);
	sweep->locked = !ConditionalLockRelationOid(relid, AccessShareLock);
	return sweep->locked ? NULL : table_open(relid, NoLock);
}

/*
 * Read some blocks of a segment.  Returns how many were finished.
 *
 * Where an entity was one too many, the place stays where it has to be read
 * on: forward in the block of that message, backward in the whole range.  What
 * is in front of it there is met again.
 */
static int
read_blocks(Sweep *sweep, Relation heap, TupleTableSlot *slot,
			BlockNumber nblocks)
{
	BlockNumber from = sweep->at.block;
	BlockNumber width = sweep->narrow > 0 ? 1 : RANGE;
	BlockNumber first = sweep->backward ? from - Min(from, width) : from;
	BlockNumber end = sweep->backward ? from : Min(from + width, nblocks);
	ItemPointerData low,
				high;
	TableScanDesc scan;
	MessageRow	row;

	CHECK_FOR_INTERRUPTS();
	ItemPointerSet(&low, first, FirstOffsetNumber);
	ItemPointerSet(&high, end - 1, MaxOffsetNumber);
	scan = act_table_beginscan_tidrange(heap, sweep->messages.snapshot, &low,
										&high);
	act_scan_without_pruning(scan);
	while (!sweep->full &&
		   table_scan_getnextslot_tidrange(scan, ForwardScanDirection, slot))
	{
		act_reader_deform(slot, &row);
		consider(sweep, &row);
	}
	table_endscan(scan);
	if (!sweep->full)
		sweep->at.block = sweep->backward ? first : end;
	else if (!sweep->backward)
		sweep->at.block = ItemPointerGetBlockNumber(&slot->tts_tid);
	sweep->narrow = Max(sweep->narrow - 1, 0);
	return sweep->backward ? from - sweep->at.block : sweep->at.block - from;
}

/*
 * Read blocks of the segment, until the piece ends; not at all if it is locked.
 * True when the segment is finished.
 */
static bool
walk_segment(Sweep *sweep)
{
	Relation	heap = open_segment(sweep, sweep->at.segment);
	BlockNumber nblocks;
	BlockNumber goal;
	TupleTableSlot *slot;

	if (heap == NULL)
		return false;
	nblocks = RelationGetNumberOfBlocks(heap);
	slot = table_slot_create(heap, NULL);
	if (sweep->bounded)
		nblocks = Min(nblocks, sweep->end[sweep->at.segment]);
	sweep->at.block = Min(sweep->at.block, nblocks);
	goal = sweep->backward ? 0 : nblocks;
	while (sweep->at.block != goal && sweep->blocks > 0 && !sweep->full)
	{
		sweep->blocks -= read_blocks(sweep, heap, slot, nblocks);
		if (sweep->until != DT_NOEND && GetCurrentTimestamp() >= sweep->until)
			break;
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(heap, AccessShareLock);
	return sweep->at.block == goal;
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
comes_after(const Sweep *sweep, int i, int64 turn, int segment)
{
	int64		own = sweep->messages.rows[i].turn;

	if (sweep->backward)
		return own < turn || (own == turn && i < segment);
	return own > turn || (own == turn && i > segment);
}

/*
 * Go to the next segment in the order of their turns; false if there is none.
 */
static bool
next_segment(Sweep *sweep)
{
	const Segment *rows = sweep->messages.rows;
	LogPlace   *at = &sweep->at;
	int			next = -1;

	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		if (comes_after(sweep, i, at->turn, at->segment) &&
			(next < 0 || !comes_after(sweep, i, rows[next].turn, next)))
			next = i;
	}
	if (next < 0)
		return false;
	at->segment = next;
	at->turn = rows[next].turn;
	at->block = sweep->backward ? MaxBlockNumber : 0;
	sweep->narrow = 0;
	return true;
}

/*
 * Read segments, until the piece ends.  True when all have been read.
 */
static bool
read_segments(Sweep *sweep)
{
	LogPlace   *at = &sweep->at;

	while (at->within || next_segment(sweep))
	{
		const Segment *row = &sweep->messages.rows[at->segment];

		at->within = row->turn == at->turn && is_in_use(row);
		if (at->within)
			at->within = !walk_segment(sweep);
		if (at->within)
			return false;
	}
	return true;
}

/*
 * Start a walk for one runner, or all (0).  "function" is called for what it
 * finds.
 */
Sweep *
act_sweep_begin(MemoryContext context, int32 runner, SweepFunction function,
				void *arg)
{
	Sweep	   *sweep = MemoryContextAllocZero(context, sizeof(Sweep));

	sweep->context = context;
	sweep->runner = runner;
	sweep->function = function;
	sweep->arg = arg;
	act_sweep_rewind(sweep);
	begin_known(sweep);
	return sweep;
}

void
act_sweep_end(Sweep *sweep)
{
	MemoryContextDelete(sweep->known->context);
	pfree(sweep);
}

/*
 * A piece, in a transaction that the caller started and ends: "max" entities
 * and so many blocks at most, until a time.  True when the walk is complete.
 *
 * In the block of the entity that was one too many those before it are found
 * again by the next piece: that is harmless as long as the function does not
 * count them again, or "max" is larger than what a block can hold.
 */
bool
act_sweep_read(Sweep *sweep, int max, int blocks, TimestampTz until)
{
	MemoryContext old = MemoryContextSwitchTo(sweep->context);
	Snapshot	snapshot;
	bool		complete;

	sweep->full = false;
	sweep->locked = false;
	sweep->found = 0;
	sweep->max = max;
	sweep->blocks = blocks;
	sweep->until = until;
	sweep->look_context = AllocSetContextCreate(CurrentMemoryContext,
												"actornot sweep look",
												ALLOCSET_DEFAULT_SIZES);
	act_mailbox_open(&sweep->mailboxes, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	sweep->mailboxes.snapshot = snapshot;
	sweep->mailboxes.without_state = true;
	PushActiveSnapshot(snapshot);
	act_reader_open(&sweep->messages, snapshot);

	complete = read_segments(sweep);

	act_reader_close(&sweep->messages);
	PopActiveSnapshot();
	act_mailbox_close(&sweep->mailboxes);
	UnregisterSnapshot(snapshot);
	MemoryContextDelete(sweep->look_context);
	MemoryContextSwitchTo(old);
	return complete;
}

/*
 * A piece that looks up all entities anew.
 */
bool
act_sweep_step(Sweep *sweep, int max)
{
	act_sweep_forget(sweep);
	return act_sweep_read(sweep, max, ACT_SWEEP_BLOCKS, DT_NOEND);
}

/*
 * The last piece of a walk backward has failed: go on behind what cannot be
 * read.  False if it is not known yet which block that is, and the piece is to
 * be tried again; else it is the one that the place is at now.
 */
bool
act_sweep_skip_block(Sweep *sweep)
{
	Assert(sweep->backward);

	if (sweep->narrow == 0)
	{
		sweep->narrow = RANGE;
		return false;
	}
	if (!sweep->at.within || sweep->at.block == 0)
		return false;
	sweep->at.block--;
	return true;
}

static bool
count_message(void *arg, Oid owner, TimestampTz leased_until,
			  const EntityKey *key, const char *entity, int entity_len)
{
	++*(int64 *) arg;
	return true;
}

/*
 * Count the pending messages of a runner, by reading the log.
 */
int64
act_sweep_count(int32 runner)
{
	int64		count = 0;
	Sweep	   *sweep = act_sweep_begin(CurrentMemoryContext, runner,
										count_message, &count);

	sweep->every_message = true;
	while (!act_sweep_step(sweep, INT_MAX))
		CHECK_FOR_INTERRUPTS();
	act_sweep_end(sweep);
	return count;
}
