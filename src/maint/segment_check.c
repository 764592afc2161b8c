/*
 * segment_check.c
 *	  What of a segment is pending, found by its distinct hashes.
 *
 * One look at the index for each: the first message names the entity, and if
 * the entity's cursor lies above the segment's bound, all of its messages are
 * done.  Only where it does not are messages looked at, from the cursor on.
 * Why one entity can speak for a hash, and when not, is told in segment.c.
 *
 * A check counts the bytes of what is pending, and copies it if it has a
 * writer.  Not pending is also what has a copy in a later segment.
 *
 * Locks: the tables'; the segment's is had at once, by the caller that opens it.
 * Memory: the caller's, and a context that is reset after each hash.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "actornot.h"
#include "common/catalog.h"
#include "common/cursor.h"
#include "log/reader.h"
#include "log/segment.h"
#include "mailbox/mailbox.h"
#include "maint/segment_check.h"
#include "runner/runner.h"
#include "sched/hints.h"

/* How many entries of a hash are passed one by one. */
#define STEPS 8

/*
 * Take a snapshot and open the tables.
 */
void
act_segment_check_open(SegmentCheck *check, int number, const Segment *row)
{
	memset(check, 0, sizeof(*check));
	check->number = number;
	check->row = row;
	check->limit = PG_UINT64_MAX;
	check->hash_context = AllocSetContextCreate(CurrentMemoryContext,
												"actornot check",
												ALLOCSET_DEFAULT_SIZES);
	act_mailbox_open(&check->mailboxes, AccessShareLock);
	check->mailboxes.without_state = true;
	check->snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(check->snapshot);
	check->mailboxes.snapshot = check->snapshot;
	act_reader_open(&check->messages, check->snapshot);
	check->ncollisions = act_segment_read_collisions(&check->collisions,
													 check->snapshot);
}

void
act_segment_check_close(SegmentCheck *check)
{
	act_reader_close(&check->messages);
	act_mailbox_close(&check->mailboxes);
	PopActiveSnapshot();
	UnregisterSnapshot(check->snapshot);
	MemoryContextDelete(check->hash_context);
}

/*
 * Load the mailbox of a message's entity; false if it has no row, or its
 * runner is not there.
 */
static bool
load_mailbox(SegmentCheck *check, const MessageRow *row)
{
	const Runner *runner = act_runner_find(row->runner);
	text	   *entity = DatumGetTextPP(row->entity);
	EntityKey	key;

	if (check->loaded &&
		act_mailbox_is_of(&check->mailbox, row->runner, entity))
		return check->mailbox.exists;
	if (runner == NULL ||
		!act_runner_stored_key(runner, entity, row->hash, &key))
		return false;
	act_mailbox_init(&check->mailbox, &key, VARDATA_ANY(entity),
					 VARSIZE_ANY_EXHDR(entity));
	act_mailbox_load(&check->mailboxes, &check->mailbox);
	check->loaded = true;
	return check->mailbox.exists;
}

/*
 * A sweep reads the log backward: it may have passed the segment that the copy
 * is in, and miss the message here once this segment is emptied.
 */
static void
push_hint(const MessageRow *row)
{
	const Runner *runner = act_runner_find(row->runner);
	EntityKey	key;

	if (runner != NULL &&
		act_runner_stored_key(runner, DatumGetTextPP(row->entity), row->hash,
							  &key))
		act_readyq_push(MyDatabaseId, act_runner_pool(runner), &key, 1);
}

/*
 * Look at a message that is visible: one of a runner that was
 * unregistered is not pending, but one of an unknown runner may be.
 */
static void
look_at_message(SegmentCheck *check, const MessageRow *row)
{
	LogPosition at = {row->tick, row->id};

	if (act_runner_is_gone(row->runner) ||
		(load_mailbox(check, row) &&
		 act_mailbox_has_consumed(&check->mailbox, row->tick, row->id)))
		return;
	if (check->row->copied &&
		act_reader_has_copy(&check->messages, check->row->turn, row->hash,
							at))
		return;
	check->bytes += 64 + toast_datum_size(row->entity);
	if (row->payload != (Datum) 0)
		check->bytes += toast_datum_size(row->payload);
	if (row->headers != (Datum) 0)
		check->bytes += toast_datum_size(row->headers);
	if (check->writer != NULL)
	{
		act_writer_copy(check->writer, row);
		push_hint(row);
		act_segment_stop("copied one");
	}
}

/*
 * Look at all messages of a hash in a range of ticks.
 */
static void
look_at_range(SegmentCheck *check, int64 hash, uint64 from_tick,
			  uint64 below_tick)
{
	LogEntry	entry;
	MessageRow	row;

	if (from_tick >= below_tick)
		return;
	act_reader_seek_in(&check->messages, check->number, hash, from_tick,
					   below_tick);
	while (check->bytes <= check->limit &&
		   act_reader_next_in(&check->messages, check->number, &entry))
	{
		CHECK_FOR_INTERRUPTS();
		if (act_reader_fetch(&check->messages, &entry, &row))
			look_at_message(check, &row);
	}
}

/*
 * Load the mailbox of the entity of a hash's first visible message; mostly
 * that is its first entry, if that is known.  False if it has no row.
 */
static bool
load_first_mailbox(SegmentCheck *check, int64 hash, const LogEntry *first)
{
	LogEntry	entry;
	MessageRow	row;

	if (first != NULL && act_reader_fetch(&check->messages, first, &row))
		return load_mailbox(check, &row);
	act_reader_seek_in(&check->messages, check->number, hash, 0,
					   PG_UINT64_MAX);
	while (act_reader_next_in(&check->messages, check->number, &entry))
	{
		if (act_reader_fetch(&check->messages, &entry, &row))
			return load_mailbox(check, &row);
	}
	return false;
}

static bool
is_shared(const SegmentCheck *check, int64 hash)
{
	for (int i = 0; i < check->ncollisions; i++)
	{
		if (check->collisions[i] == hash)
			return true;
	}
	return check->row->mixed;
}

/*
 * Look at what may be pending of a hash: all that the first entity's cursor
 * does not cover.
 */
void
act_segment_check_hash(SegmentCheck *check, int64 hash, const LogEntry *first)
{
	uint64		upper = check->row->upper;
	MemoryContext old = MemoryContextSwitchTo(check->hash_context);

	check->loaded = false;
	if (is_shared(check, hash) || !load_first_mailbox(check, hash, first))
		look_at_range(check, hash, 0, PG_UINT64_MAX);
	else
	{
		Cursor		done = check->mailbox.done;

		for (int i = 0; i < done.nxip && done.xip[i] < upper; i++)
			look_at_range(check, hash, done.xip[i], done.xip[i] + 1);
		look_at_range(check, hash, done.xmax, upper);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(check->hash_context);
}

/*
 * Go to the first entry of the next hash, from "from" on when there was none
 * yet.  One with more than a few entries is jumped over.
 */
bool
act_segment_check_next(SegmentCheck *check, int64 from, int64 *hash,
					   LogEntry *first)
{
	int64		last = *hash;

	if (check->walking)
	{
		for (int i = 0; i < STEPS; i++)
		{
			if (!act_reader_walk(&check->messages, check->number, hash,
								 first))
				return false;
			if (*hash != last)
				return true;
		}
		if (last == PG_INT64_MAX)
			return false;
		from = last + 1;
	}
	check->walking = true;
	act_reader_walk_from(&check->messages, check->number, from);
	return act_reader_walk(&check->messages, check->number, hash, first);
}
