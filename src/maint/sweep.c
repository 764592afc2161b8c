/*
 * sweep.c
 *	  Finding the entities with pending messages from the tables.
 *
 * The ready queue is only a hint (P7); this is the truth that it is made
 * from: after a start, an overflow, a COMMIT PREPARED, a resume.  The log is
 * read in the order of its blocks, in pieces of as many entities as the queue
 * takes; of each entity it is remembered whether it was found pending, or up
 * to which tick it is done (known.c), so that its mailbox is looked up once a
 * walk.
 *
 * What is found when the queue has no room any more is kept (found.c) and
 * queued as room comes; the walk goes on when that has gone.
 *
 * Before the walk to the queue there is a look at the end of the log: what is
 * pending is mostly what came last, and in front of it there may be millions
 * of messages that are done.  It goes backward, a stretch at a time, as long as
 * a stretch has something pending.  Only the walk is complete.
 *
 * A message that is posted while we walk pushes its own hint, and so does
 * one whose transaction we find open.  Whoever asks for a sweep clears the
 * flag first, and each piece takes its snapshot after that.  So an entity that
 * was queued by one piece need not be queued by the next: whatever was there
 * when the walk began is taken by the visit that follows.  A drain or a lease
 * may have passed the entity by, so for these each piece starts afresh.
 *
 * Equal hashes: entities are told apart by their check hash, as in the queue.
 *
 * Memory: the walk in the context given to act_sweep_begin, with what is to
 * be queued, bounded as found.c says; what is known of entities in a child
 * of it, bounded as known.c says.  A mailbox that is looked at goes at once.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "compat.h"
#include "common/catalog.h"
#include "common/cursor.h"
#include "log/clock.h"
#include "log/reader.h"
#include "mailbox/mailbox.h"
#include "maint/found.h"
#include "maint/known.h"
#include "maint/sweep.h"
#include "runner/runner.h"
#include "sched/readyq.h"

/*
 * How many blocks a piece reads at most before it lets the caller commit; and
 * for how long, if it is for the ready queue: the manager has other things to
 * do, and the mailboxes that are looked up may be anywhere.
 */
#define BLOCKS_PER_PIECE 8192
#define TIME_PER_PIECE (100 * INT64CONST(1000))

/*
 * The first piece for the ready queue finds no more entities than this: not
 * before its end are workers started.
 */
#define FIRST_PIECE 512

/*
 * How many blocks at the end of the log are looked at first, and in how many
 * such stretches at most: of 16 MB, 256 MB in all.
 */
#define PEEK_BLOCKS 2048
#define PEEKS 16

/* How many blocks are read by one scan. */
#define RANGE 16

/* Of how many pools a piece knows how much room is left. */
#define ROOMS 16

/* How many more entities a pool takes. */
typedef struct PoolRoom
{
	Oid			owner;
	int			left;
} PoolRoom;

struct Sweep
{
	MemoryContext context;
	SweepFunction function;		/* NULL: to the ready queue */
	void	   *arg;
	int32		runner;			/* 0: all */
	Oid			only;			/* this pool, if valid */
	int			nskipped;		/* not these pools */
	Oid			skipped[ACT_SWEEP_SKIPPED];
	bool		every_message;	/* call for each pending message */
	bool		bounded;		/* not beyond these blocks */
	BlockNumber end[ACT_SEGMENTS];
	int64		turn;			/* where we are, or have been last */
	int			segment;
	BlockNumber block;
	BlockNumber narrow_until;	/* read one at a time before this one */
	bool		within;			/* the segment is not finished */
	bool		peeking;		/* the walk itself has not begun */
	bool		peek_only;		/* nor will it */
	BlockNumber peek_from;		/* the stretch that is looked at */
	BlockNumber peek_end;
	int			peeks;			/* so many stretches */
	bool		peek_found;		/* it has something pending */
	KnownTable *known;
	bool		begun;			/* this is not the first piece */
	/* of the present piece */
	MemoryContext look_context; /* reset after each look */
	Snapshot	snapshot;
	MailboxTable mailboxes;
	MessageReader messages;		/* for the ring, and for copies */
	int			found;
	int			max;			/* find no more than this */
	bool		full;			/* there was one more than "max" */
	int			nrooms;
	PoolRoom	rooms[ROOMS];
	Oid			stopped_by;		/* this pool takes no more */
	bool		locked;			/* the segment is, by an administrator */
	Found	   *found_keys;		/* on the way to the queue */
	bool		may_keep;		/* more than the queue has room for */
	TimestampTz until;			/* the piece ends; 0: as it will */
};

/*
 * May this pool be given one more?
 */
static bool
take_room(Sweep *sweep, Oid owner)
{
	PoolRoom   *room = sweep->rooms;
	PoolRoom   *end = room + sweep->nrooms;

	while (room < end && room->owner != owner)
		room++;
	if (room == end)
	{
		/* What it has been given already is to be counted. */
		act_found_flush(sweep->found_keys);
		if (sweep->nrooms == ROOMS)
			sweep->nrooms = 0;
		room = &sweep->rooms[sweep->nrooms++];
		room->owner = owner;
		room->left = act_readyq_pool_room(MyDatabaseId, owner);
	}
	if (room->left <= 0)
	{
		sweep->stopped_by = owner;
		return false;
	}
	room->left--;
	return true;
}

/*
 * Start a walk; what it finds goes to the ready queue unless told otherwise.
 */
Sweep *
act_sweep_begin(MemoryContext context)
{
	Sweep	   *sweep = MemoryContextAllocZero(context, sizeof(Sweep));

	sweep->context = context;
	sweep->turn = PG_INT64_MIN;
	sweep->segment = -1;
	sweep->known = act_known_begin(context);
	sweep->found_keys = act_found_begin(context);
	sweep->peeking = true;
	return sweep;
}

void
act_sweep_set_function(Sweep *sweep, SweepFunction function, void *arg)
{
	sweep->function = function;
	sweep->arg = arg;
	sweep->peeking = false;
}

/*
 * Look at the end of the log only, before the walk to the queue that will
 * follow.
 */
void
act_sweep_set_peek_only(Sweep *sweep)
{
	sweep->peek_only = true;
}

/*
 * Look for entities of one runner only.
 */
void
act_sweep_set_runner(Sweep *sweep, int32 runner)
{
	sweep->runner = runner;
}

/*
 * Which pool was given all that it takes, so that the last piece ended; or
 * InvalidOid.
 */
Oid
act_sweep_stopped_by(const Sweep *sweep)
{
	return sweep->stopped_by;
}

bool
act_sweep_can_skip(const Sweep *sweep)
{
	return sweep->nskipped < ACT_SWEEP_SKIPPED;
}

/*
 * Did the last piece end because a segment is locked?
 */
bool
act_sweep_is_locked(const Sweep *sweep)
{
	return sweep->locked;
}

/*
 * Leave the entities of a pool to another walk.
 */
void
act_sweep_skip(Sweep *sweep, Oid owner)
{
	if (!act_sweep_can_skip(sweep))
		elog(ERROR, "sweep cannot skip so many pools");
	sweep->skipped[sweep->nskipped++] = owner;
}

/*
 * Look for the entities of one pool only, from where the other walk is.
 */
void
act_sweep_take_over(Sweep *sweep, Oid owner, Sweep *from)
{
	sweep->only = owner;
	if (from != NULL)
		act_found_hand_over(from->found_keys, owner, sweep->found_keys);
	if (from != NULL && !from->peeking)
	{
		sweep->peeking = false;
		sweep->turn = from->turn;
		sweep->segment = from->segment;
		sweep->block = from->block;
		sweep->within = from->within;
	}
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

void
act_sweep_end(Sweep *sweep)
{
	act_known_end(sweep->known);
	act_found_end(sweep->found_keys);
	pfree(sweep);
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
	if (!sweep->every_message && act_mailbox_is_waiting(&mailbox))
		known->state = KNOWN_IGNORED;
	else
		act_known_note(sweep->known, known, &mailbox);
	MemoryContextSwitchTo(old);
	MemoryContextReset(sweep->look_context);
}

/*
 * Queue an entity, or keep it for later; false if neither can be done.
 */
static bool
queue_or_keep(Sweep *sweep, Oid owner, const KnownEntity *known)
{
	bool		leased = act_known_leased_until(known) != 0;

	if (sweep->found >= sweep->max || !take_room(sweep, owner))
		return sweep->may_keep &&
			act_found_keep(sweep->found_keys, owner, &known->key, leased);

	/*
	 * One that was leased when we looked is queued as well, unless the queue
	 * knows that it is lent: the lease may have ended since.  Whoever takes
	 * it from there finds out.
	 */
	act_found_queue(sweep->found_keys, owner, &known->key, leased);
	sweep->found++;
	return true;
}

/*
 * Report a pending entity, unless there are enough already.
 */
static void
report(Sweep *sweep, const Runner *runner, KnownEntity *known, text *entity)
{
	Oid			owner = act_runner_pool(runner);

	if (sweep->function == NULL)
		sweep->full = !queue_or_keep(sweep, owner, known);
	else if (sweep->found >= sweep->max)
		sweep->full = true;
	else if (sweep->function(sweep->arg, owner, act_known_leased_until(known),
							 &known->key, VARDATA_ANY(entity),
							 VARSIZE_ANY_EXHDR(entity)))
		sweep->found++;
	if (sweep->full)
		return;
	sweep->peek_found = true;
	if (!sweep->every_message)
		known->state = KNOWN_REPORTED;
}

/*
 * Will a copy of the message be met in a later segment?
 */
static bool
has_copy(Sweep *sweep, const MessageRow *row)
{
	const Segment *segment = &sweep->messages.rows[sweep->segment];
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
	if (OidIsValid(sweep->only) && sweep->only != pool)
		return false;
	for (int i = 0; i < sweep->nskipped; i++)
	{
		if (sweep->skipped[i] == pool)
			return false;
	}
	return true;
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
	known = act_known_enter(sweep->known, &key);
	if (known->state == KNOWN_NOTHING)
	{
		look_up(sweep, known, VARDATA_ANY(entity), VARSIZE_ANY_EXHDR(entity));
		/* The runner's pointer may have gone while we read the mailbox. */
		runner = act_runner_find(row->runner);
		if (runner == NULL)
			return;
	}
	if (known->state != KNOWN_REPORTED && known->state != KNOWN_IGNORED &&
		!act_known_is_consumed(known, row) &&
		!(sweep->every_message && has_copy(sweep, row)))
		report(sweep, runner, known, entity);
}

/*
 * Look at a message.
 */
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
 * Open a segment.  A walk to the queue is the manager's, which has other
 * things to do than to wait for a lock: NULL if it cannot be had at once.
 */
static Relation
open_segment(Sweep *sweep, int segment)
{
	Oid			relid = act_catalog_get()->message[segment];

	if (sweep->function != NULL)
		return table_open(relid, AccessShareLock);
	sweep->locked = !ConditionalLockRelationOid(relid, AccessShareLock);
	return sweep->locked ? NULL : table_open(relid, NoLock);
}

/*
 * Read blocks of a segment from sweep->block on, until there is one more
 * entity than wanted, or enough blocks were read, or not at all if it is
 * locked.  True when the segment is finished; else sweep->block is where to
 * go on (in the block that holds the entity that was one too many: what was
 * found before it is found again, and that is harmless as long as the
 * function does not count it again, or "max" is larger than what a block can
 * hold).
 */
static bool
walk_segment(Sweep *sweep, int *blocks)
{
	Relation	heap = open_segment(sweep, sweep->segment);
	BlockNumber nblocks;
	TupleTableSlot *slot;

	if (heap == NULL)
		return false;
	nblocks = RelationGetNumberOfBlocks(heap);
	slot = table_slot_create(heap, NULL);
	if (sweep->bounded)
		nblocks = Min(nblocks, sweep->end[sweep->segment]);
	if (sweep->peeking)
		nblocks = Min(nblocks, sweep->peek_end);
	while (sweep->block < nblocks && *blocks > 0 && !sweep->full)
	{
		BlockNumber width = sweep->block < sweep->narrow_until ? 1 : RANGE;
		BlockNumber last = Min(sweep->block + width - 1, nblocks - 1);
		ItemPointerData from,
					to;
		TableScanDesc scan;
		MessageRow	row;

		CHECK_FOR_INTERRUPTS();
		ItemPointerSet(&from, sweep->block, FirstOffsetNumber);
		ItemPointerSet(&to, last, MaxOffsetNumber);
		scan = act_table_beginscan_tidrange(heap, sweep->snapshot, &from, &to);
		act_scan_without_pruning(scan);
		while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection,
											   slot))
		{
			act_reader_deform(slot, &row);
			consider(sweep, &row);
			if (sweep->full)
			{
				last = ItemPointerGetBlockNumber(&slot->tts_tid) - 1;
				break;
			}
		}
		table_endscan(scan);
		*blocks -= last + 1 - sweep->block;
		sweep->block = last + 1;
		if (sweep->until != 0 && GetCurrentTimestamp() >= sweep->until)
			*blocks = 0;
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(heap, AccessShareLock);
	return sweep->block >= nblocks;
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
 * Go to the next segment in the order of their turns; false if there is none.
 */
static bool
next_segment(Sweep *sweep)
{
	const Segment *rows = sweep->messages.rows;
	int			next = -1;

	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		if (rows[i].turn < sweep->turn ||
			(i <= sweep->segment && rows[i].turn == sweep->turn))
			continue;
		if (next < 0 || rows[i].turn < rows[next].turn)
			next = i;
	}
	if (next < 0)
		return false;
	sweep->segment = next;
	sweep->turn = rows[next].turn;
	sweep->block = 0;
	sweep->narrow_until = 0;
	return true;
}

static void
end_peek(Sweep *sweep)
{
	sweep->peeking = false;
	sweep->turn = PG_INT64_MIN;
	sweep->segment = -1;
}

/*
 * Look at the last blocks of a segment in front of "end".
 */
static void
set_peek(Sweep *sweep, int segment, BlockNumber end)
{
	sweep->segment = segment;
	sweep->turn = sweep->messages.rows[segment].turn;
	sweep->peek_end = end;
	sweep->peek_from = end - Min(end, PEEK_BLOCKS);
	sweep->block = sweep->peek_from;
	sweep->peek_found = false;
	sweep->peeks++;
}

/*
 * The last segment in use that became current before that turn; -1 if there is
 * none.
 */
static int
last_before(const Sweep *sweep, int64 turn)
{
	const Segment *rows = sweep->messages.rows;
	int			last = -1;

	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		if (is_in_use(&rows[i]) && rows[i].turn < turn &&
			(last < 0 || rows[i].turn > rows[last].turn))
			last = i;
	}
	return last;
}

/*
 * Look at the end of the last segment before that turn; false if there is none.
 */
static bool
peek_at_end(Sweep *sweep, int64 turn)
{
	int			last = last_before(sweep, turn);
	Relation	heap;

	if (last < 0)
		return false;
	heap = open_segment(sweep, last);
	if (heap == NULL)
		return false;
	set_peek(sweep, last, RelationGetNumberOfBlocks(heap));
	table_close(heap, AccessShareLock);
	return true;
}

/*
 * Look at what is in front of the stretch, if that had something pending.
 */
static bool
peek_before(Sweep *sweep)
{
	if (sweep->peeks == PEEKS ||
		(sweep->peek_end > 0 && !sweep->peek_found))
		return false;
	if (sweep->peek_from == 0)
		return peek_at_end(sweep, sweep->turn);
	set_peek(sweep, sweep->segment, sweep->peek_from);
	return true;
}

/*
 * Look at the end of the log.  True when that is over, also because a segment
 * is locked; what was found there is remembered, and all else is left to the
 * walk.
 */
static bool
peek(Sweep *sweep, int *blocks)
{
	const Segment *rows = sweep->messages.rows;

	/* Where there is nothing much in front of it, the walk will do, if any. */
	if (sweep->segment < 0 &&
		(!peek_at_end(sweep, PG_INT64_MAX) ||
		 (!sweep->peek_only && sweep->peek_from == 0 &&
		  last_before(sweep, sweep->turn) < 0)))
		return true;
	do
	{
		/* It may have been emptied since the last piece. */
		if (!is_in_use(&rows[sweep->segment]) ||
			rows[sweep->segment].turn != sweep->turn)
			return true;

		/* What is kept of a stretch is run before what came earlier. */
		if (!walk_segment(sweep, blocks) || act_found_keeps(sweep->found_keys))
			return sweep->locked;
	} while (peek_before(sweep));
	return true;
}

/*
 * Walk on through the segments; true when the walk is complete.  The older
 * come first, so that what is copied to a later one meanwhile, because its
 * segment is to be emptied, is met there.  A segment that an administrator has
 * locked is waited for, in the lock's queue or by trying again: to skip it
 * could lose the hint of what it holds.
 */
static bool
walk_segments(Sweep *sweep)
{
	int			blocks = BLOCKS_PER_PIECE;

	if (sweep->peeking)
	{
		if (!peek(sweep, &blocks))
			return false;
		end_peek(sweep);
	}
	if (sweep->peek_only)
		return true;
	while (sweep->within || next_segment(sweep))
	{
		const Segment *row = &sweep->messages.rows[sweep->segment];

		/*
		 * With another turn it has been emptied, and is still to come.  In
		 * one that is empty there is nothing that our snapshot sees.
		 */
		sweep->within = row->turn == sweep->turn && is_in_use(row);
		if (sweep->within)
			sweep->within = !walk_segment(sweep, &blocks);
		if (sweep->within)
			return false;
	}
	return true;
}

/*
 * The last piece has failed, and its (sub)transaction was rolled back: go on
 * behind what cannot be read.  False if it is not known yet which block that
 * is, and the piece is to be tried again; else it is *segment's *block.
 */
bool
act_sweep_skip_block(Sweep *sweep, int *segment, BlockNumber *block)
{
	act_found_flush(sweep->found_keys);
	if (sweep->peeking)
	{
		end_peek(sweep);
		return false;
	}
	if (sweep->block >= sweep->narrow_until)
	{
		sweep->narrow_until = sweep->block + RANGE;
		return false;
	}
	*segment = sweep->segment;
	*block = sweep->block++;
	return true;
}

/*
 * One piece of the walk, in a transaction that the caller started and ends:
 * "max" entities at most.  True when the walk is complete.
 */
bool
act_sweep_step(Sweep *sweep, int max)
{
	MemoryContext old = MemoryContextSwitchTo(sweep->context);
	bool		complete;

	sweep->stopped_by = InvalidOid;
	sweep->locked = false;
	if (act_found_keeps(sweep->found_keys))
	{
		sweep->stopped_by = act_found_queue_kept(sweep->found_keys);
		MemoryContextSwitchTo(old);
		return false;
	}
	sweep->found = 0;
	sweep->max = max;
	if (!sweep->begun && sweep->function == NULL)
		sweep->max = Min(max, FIRST_PIECE);
	sweep->may_keep = sweep->begun && sweep->function == NULL;
	sweep->until = sweep->function == NULL ?
		GetCurrentTimestamp() + TIME_PER_PIECE : 0;
	sweep->begun = true;
	sweep->full = false;
	sweep->nrooms = 0;
	if (sweep->function != NULL)
		act_known_forget(sweep->known);
	sweep->look_context = AllocSetContextCreate(CurrentMemoryContext,
												"actornot sweep look",
												ALLOCSET_DEFAULT_SIZES);
	act_mailbox_open_to_read(&sweep->mailboxes);
	sweep->snapshot = RegisterSnapshot(GetLatestSnapshot());
	sweep->mailboxes.snapshot = sweep->snapshot;
	sweep->mailboxes.without_state = true;
	PushActiveSnapshot(sweep->snapshot);
	act_reader_open_reader(&sweep->messages, sweep->snapshot);

	complete = walk_segments(sweep);
	act_found_flush(sweep->found_keys);
	if (act_found_keeps(sweep->found_keys))
	{
		act_found_sort(sweep->found_keys);
		complete = false;
	}

	act_reader_close_reader(&sweep->messages);
	PopActiveSnapshot();
	act_mailbox_close(&sweep->mailboxes);
	UnregisterSnapshot(sweep->snapshot);
	MemoryContextDelete(sweep->look_context);
	MemoryContextSwitchTo(old);
	return complete;
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
	Sweep	   *sweep = act_sweep_begin(CurrentMemoryContext);

	act_sweep_set_runner(sweep, runner);
	act_sweep_set_function(sweep, count_message, &count);
	sweep->every_message = true;
	while (!act_sweep_step(sweep, INT_MAX))
		CHECK_FOR_INTERRUPTS();
	act_sweep_end(sweep);
	return count;
}
