/*
 * sweep.c
 *	  Finding the entities with pending messages from the tables.
 *
 * The ready queue is only a hint (P7); this is the truth that it is made
 * from: after a start, an overflow, a COMMIT PREPARED, a resume.  The log is
 * read in the order of its blocks, in pieces of as many entities as the queue
 * takes; of each entity it is remembered whether it was found pending, or up
 * to which tick it is done, so that its mailbox is looked up once a piece.
 *
 * A message that is posted while we walk pushes its own hint, and so does
 * one whose transaction we find open.  Whoever asks for a sweep clears the
 * flag first, and each piece takes its snapshot after that.
 *
 * Equal hashes: entities are told apart by their check hash, as in the queue.
 *
 * Memory: the walk in the context given to act_sweep_begin; what is known of
 * entities in a child of it, bounded by MAX_KNOWN and forgotten when full.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "actornot.h"
#include "catalog.h"
#include "clock.h"
#include "cursor.h"
#include "fleet.h"
#include "mailbox.h"
#include "message.h"
#include "miscadmin.h"
#include "readyq.h"
#include "runner.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "sweep.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Of how many entities is remembered what was found. */
#define MAX_KNOWN 65536

/* How many blocks a piece reads at most before it lets the caller commit. */
#define BLOCKS_PER_PIECE 8192

/* How many entities are put into the ready queue at a time. */
#define QUEUE_AT_ONCE 64

/* What is known of an entity in this piece. */
typedef struct KnownEntity
{
	EntityKey	key;
	bool		pushed;			/* nothing more to be found out */
	bool		ignored;		/* its runner is gone or does not interest, or
								 * it waits for something else */
	bool		has_target;
	Cursor		done;
	Cursor		target;
	int64		last_id;
	TimestampTz leased_until;	/* 0: not leased */
} KnownEntity;

struct Sweep
{
	MemoryContext context;
	SweepFunction function;
	void	   *arg;
	int32		runner;			/* 0: all */
	bool		every_message;	/* call for each pending message */
	bool		bounded;		/* not beyond these blocks */
	BlockNumber end[ACT_SEGMENTS];
	int			segment;		/* where we are */
	BlockNumber block;
	/* of the present piece */
	MemoryContext piece_context;
	HTAB	   *known;
	int			nknown;
	Snapshot	snapshot;
	MailboxTable mailboxes;
	MessageReader messages;		/* for the ring, and for copies */
	int			found;
	int			max;			/* find no more than this */
	bool		full;			/* there was one more than "max" */
	/* found, but not yet in the ready queue */
	Oid			queued_owner;
	int			nqueued;
	EntityKey	queued[QUEUE_AT_ONCE];
};

/* One lock of the queue for so many. */
static void
flush_queued(Sweep *sweep)
{
	act_readyq_requeue(MyDatabaseId, sweep->queued_owner, sweep->queued,
					   sweep->nqueued);
	sweep->nqueued = 0;
}

/*
 * In the order of the log: what is neighbours in the queue is then neighbours
 * in the heap.  (The order of the hashes, which makes neighbours in the
 * indexes, costs more cache misses: an entity has several messages.)
 */
static bool
push_to_queue(void *arg, Oid owner, TimestampTz leased_until,
			  const EntityKey *key, const char *entity, int entity_len)
{
	Sweep	   *sweep = arg;

	if (leased_until != 0)
	{
		act_readyq_lend(MyDatabaseId, owner, key, leased_until, false);
		return true;
	}
	if (sweep->nqueued == QUEUE_AT_ONCE || sweep->queued_owner != owner)
		flush_queued(sweep);
	sweep->queued_owner = owner;
	sweep->queued[sweep->nqueued++] = *key;
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
	sweep->function = push_to_queue;
	sweep->arg = sweep;
	return sweep;
}

void
act_sweep_set_function(Sweep *sweep, SweepFunction function, void *arg)
{
	sweep->function = function;
	sweep->arg = arg;
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
	pfree(sweep);
}

static void
forget_known(Sweep *sweep)
{
	HASHCTL		info;

	if (sweep->piece_context != NULL)
		MemoryContextDelete(sweep->piece_context);
	sweep->piece_context = AllocSetContextCreate(CurrentMemoryContext,
												 "actornot sweep",
												 ALLOCSET_DEFAULT_SIZES);
	info.keysize = sizeof(EntityKey);
	info.entrysize = sizeof(KnownEntity);
	info.hcxt = sweep->piece_context;
	sweep->known = hash_create("entities seen by the sweep", 1024, &info,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	sweep->nknown = 0;
}

/*
 * Is it paused, or backing off?  Whoever ends that queues it; and that a
 * back-off ends is said again here, for that hint can be lost as well.
 */
static bool
is_waiting(const Mailbox *mailbox)
{
	if (mailbox->wake_at != 0 && mailbox->wake_at > GetCurrentTimestamp())
	{
		act_fleet_due_at(MyDatabaseId, mailbox->wake_at);
		return true;
	}
	return mailbox->paused;
}

/*
 * Find out what there is to know of an entity: its row's cursor.
 */
static void
look_up(Sweep *sweep, KnownEntity *known, const char *entity, int len)
{
	MemoryContext old = MemoryContextSwitchTo(sweep->piece_context);
	Mailbox		mailbox;

	known->pushed = false;
	known->ignored = act_runner_find(known->key.runner) == NULL ||
		(sweep->runner != 0 && sweep->runner != known->key.runner);
	if (!known->ignored)
	{
		act_mailbox_init(&mailbox, &known->key, entity, len);
		act_mailbox_load(&sweep->mailboxes, &mailbox);
		known->done = mailbox.done;
		known->has_target = mailbox.has_target;
		known->target = mailbox.target;
		known->last_id = mailbox.last_id;
		known->leased_until = act_mailbox_is_leased(&mailbox) ?
			mailbox.lease_until : 0;

		if (!sweep->every_message)
			known->ignored = is_waiting(&mailbox);
	}
	MemoryContextSwitchTo(old);
}

static KnownEntity *
find_known(Sweep *sweep, const EntityKey *key, const char *entity, int len)
{
	KnownEntity *known;
	bool		found;

	if (sweep->nknown >= MAX_KNOWN)
		forget_known(sweep);
	known = hash_search(sweep->known, key, HASH_ENTER, &found);
	if (!found)
	{
		sweep->nknown++;
		look_up(sweep, known, entity, len);
	}
	return known;
}

/*
 * Has this message, which our snapshot sees, been consumed?
 */
static bool
is_consumed(const KnownEntity *known, const MessageRow *row)
{
	return act_cursor_settled(&known->done, row->tick) ||
		(known->has_target && row->id <= known->last_id &&
		 act_cursor_settled(&known->target, row->tick));
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
		act_message_has_copy(&sweep->messages, segment->turn, row->hash, at);
}

/*
 * Look at a message, and report its entity if it is pending.
 */
static void
consider(Sweep *sweep, const MessageRow *row)
{
	const Runner *runner = act_runner_find(row->runner);
	text	   *entity;
	EntityKey	key;
	KnownEntity *known;

	if (runner == NULL ||
		(sweep->runner != 0 && sweep->runner != row->runner))
		return;
	entity = DatumGetTextPP(row->entity);
	key = act_catalog_key(runner->id, runner->name, runner->name_len,
						  VARDATA_ANY(entity), VARSIZE_ANY_EXHDR(entity));
	key.hash = row->hash;
	known = find_known(sweep, &key, VARDATA_ANY(entity),
					   VARSIZE_ANY_EXHDR(entity));
	if (known->ignored || known->pushed || is_consumed(known, row))
		return;
	if (sweep->every_message && has_copy(sweep, row))
		return;

	/* The runner's pointer may have gone while we read the mailbox. */
	runner = act_runner_find(row->runner);
	if (runner == NULL)
		return;
	if (sweep->found >= sweep->max)
	{
		sweep->full = true;
		return;
	}
	if (sweep->function(sweep->arg, act_runner_pool(runner),
						known->leased_until, &key, VARDATA_ANY(entity),
						VARSIZE_ANY_EXHDR(entity)))
		sweep->found++;
	known->pushed = !sweep->every_message;
}

/*
 * Read blocks of a segment from sweep->block on, until there is one more
 * entity than wanted, or enough blocks were read.  True when the segment is
 * finished; else sweep->block is where to go on (in the block that holds the
 * entity that was one too many: what was found before it is found again, and
 * that is harmless as long as the function does not count it again, or "max"
 * is larger than what a block can hold).
 */
static bool
walk_segment(Sweep *sweep, Relation heap, int *blocks)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(heap);
	TupleTableSlot *slot = table_slot_create(heap, NULL);

	if (sweep->bounded)
		nblocks = Min(nblocks, sweep->end[sweep->segment]);
	while (sweep->block < nblocks && *blocks > 0 && !sweep->full)
	{
		BlockNumber last = Min(sweep->block + 15, nblocks - 1);
		ItemPointerData from,
					to;
		TableScanDesc scan;
		MessageRow	row;

		CHECK_FOR_INTERRUPTS();
		ItemPointerSet(&from, sweep->block, FirstOffsetNumber);
		ItemPointerSet(&to, last, MaxOffsetNumber);
		scan = table_beginscan_tidrange(heap, sweep->snapshot, &from, &to);
		while (table_scan_getnextslot_tidrange(scan, ForwardScanDirection,
											   slot))
		{
			act_message_deform(slot, &row);
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
	}
	ExecDropSingleTupleTableSlot(slot);
	return sweep->block >= nblocks;
}

/*
 * Walk on through the segments; true when the walk is complete.  A segment
 * that an administrator has locked is waited for: to skip it could lose the
 * hint of what it holds.
 */
static bool
walk_segments(Sweep *sweep)
{
	int			blocks = BLOCKS_PER_PIECE;

	while (sweep->segment < ACT_SEGMENTS)
	{
		Relation	heap;
		bool		finished;

		if (sweep->messages.rows[sweep->segment].state == SEGMENT_DONE)
		{
			sweep->segment++;
			sweep->block = 0;
			continue;
		}
		heap = table_open(act_catalog_get()->message[sweep->segment],
						  AccessShareLock);
		finished = walk_segment(sweep, heap, &blocks);
		table_close(heap, AccessShareLock);
		if (!finished)
			return false;
		sweep->segment++;
		sweep->block = 0;
	}
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

	sweep->found = 0;
	sweep->max = max;
	sweep->full = false;
	sweep->piece_context = NULL;
	forget_known(sweep);
	act_mailbox_open(&sweep->mailboxes);
	sweep->snapshot = RegisterSnapshot(GetLatestSnapshot());
	sweep->mailboxes.snapshot = sweep->snapshot;
	sweep->mailboxes.without_state = true;
	PushActiveSnapshot(sweep->snapshot);
	act_message_open_reader(&sweep->messages, sweep->snapshot);

	complete = walk_segments(sweep);
	flush_queued(sweep);

	act_message_close_reader(&sweep->messages);
	PopActiveSnapshot();
	act_mailbox_close(&sweep->mailboxes);
	UnregisterSnapshot(sweep->snapshot);
	MemoryContextDelete(sweep->piece_context);
	sweep->piece_context = NULL;
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
