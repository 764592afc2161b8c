/*
 * rotation.c
 *	  Keeping the log small: moving on, and emptying what is done.
 *
 * The steps of the protocol in segment.c, each taken when it can be, in a
 * transaction of its own: the manager's, or a drain's.  Nobody waits for
 * them: what cannot be had at once is tried again later.
 *
 * Whether a sealed segment is done is found in rounds (segment_check.c):
 * nothing that is done becomes pending again, so a round begins where the last
 * one met something pending.
 *
 * A few entities that have messages in an old segment would keep all of it
 * (paused ones, leased ones, those in back-off): if nobody takes these
 * messages for a while, they are copied to the current segment, under their
 * entity's lock, with tick, id and all.  Cursor, lease and attempts stay as
 * they are; doing it again is harmless, for readers take equal ids once.
 *
 * A step that fails (a corrupt page, a full disk) is undone and reported; the
 * other segments go on, and this one is tried again later and later.
 *
 * Memory: the caller's context for what is known from step to step, bounded
 * by the number of segments; the transaction's for the rest.  What is lost
 * with the process is found again.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "common/catalog.h"
#include "common/cursor.h"
#include "common/entity.h"
#include "common/subxact.h"
#include "log/clock.h"
#include "log/reader.h"
#include "log/segment.h"
#include "log/writer.h"
#include "mailbox/mailbox.h"
#include "maint/rotation.h"
#include "maint/segment_check.h"

/* How many hashes a piece of a check looks at, and one of copying. */
#define CHECK_PIECE 8192
#define COPY_PIECE 32

/*
 * No more than this part of a segment is copied, and at least so much; a
 * larger part when the ring is full, for then nothing else makes room.
 */
#define COPY_PART 8
#define COPY_PART_FULL 2
#define COPY_MIN (64 * 1024)

/* What is pending is copied if less than a tenth was taken in that time. */
#define PATIENCE (5 * USECS_PER_SEC)

/* Delays before something is tried again; they double. */
#define MIN_DELAY (200 * INT64CONST(1000))
#define MAX_DELAY (10 * USECS_PER_SEC)
#define MAX_CHECK_DELAY (30 * USECS_PER_SEC)
#define MAX_FULL_DELAY (1 * USECS_PER_SEC)
#define ERROR_DELAY (10 * USECS_PER_SEC)
#define MAX_ERROR_DELAY (600 * USECS_PER_SEC)

/* So often the current one's size is looked at, at most. */
#define LOOK_DELAY (20 * INT64CONST(1000))

/* The rows of the ring are changed by others for an instant only. */
#define RING_LOCK_TIMEOUT "100ms"

/* What is known of a segment. */
typedef struct SegmentWatch
{
	TimestampTz retry_at;		/* not before that */
	int64		delay;			/* ... and how long that was */
	int			errors;			/* in a row */

	/* The check of a sealed one, as of this state. */
	bool		begun;			/* "checked" and "done_below" are set */
	Segment		checked;
	bool		checking;
	bool		finished;		/* nothing is left to be looked at */
	bool		copying;		/* this time pending messages are copied */
	bool		has_copied;		/* ... and the last time they were */
	int64		next_hash;
	int64		done_below;		/* nothing is pending of hashes below this */
	uint64		bytes;			/* pending, of what was looked at */
	int64		stopped_below;	/* "done_below" when it was last too much */
	uint64		last_bytes;		/* ... at the end of the last round, and */
	TimestampTz last_round;		/* when that was; 0: never */
} SegmentWatch;

struct Rotation
{
	bool		patient;		/* will it come again? */
	int			emptied;		/* segments */
	Segment		ring[ACT_SEGMENTS];
	SegmentWatch watch[ACT_SEGMENTS];
};

/* A step, and how it ended. */
typedef struct Step
{
	Rotation   *rotation;
	int			number;
	void		(*take) (struct Step *step);
	bool		later;			/* it could not be taken now */
} Step;

/* --------------------------------------------------- a sealed segment */

/*
 * Begin a round where something may be pending.
 */
static void
begin_round(SegmentWatch *watch, const Segment *row)
{
	if (!watch->begun || watch->checked.turn != row->turn ||
		watch->checked.mixed != row->mixed)
		watch->done_below = PG_INT64_MIN;
	watch->begun = true;
	watch->checked = *row;
	watch->checking = true;
	watch->finished = false;
	watch->has_copied = watch->copying;
	watch->copying = false;
	watch->next_hash = watch->done_below;
	watch->bytes = 0;
}

/*
 * That hash has been looked at.
 */
static void
pass_hash(SegmentWatch *watch, int64 hash)
{
	watch->finished = (hash == PG_INT64_MAX);
	if (!watch->finished)
		watch->next_hash = hash + 1;
}

/*
 * A round has found something pending.  If less than the last time, the next
 * one comes soon.
 */
static void
note_progress(SegmentWatch *watch)
{
	if (watch->done_below != watch->stopped_below)
		watch->delay = 0;
	watch->stopped_below = watch->done_below;
}

/*
 * Is there a segment to move on to?
 */
static bool
has_room(const Rotation *rotation)
{
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		if (rotation->ring[i].state == SEGMENT_EMPTY)
			return true;
	}
	return false;
}

/*
 * How much of a segment may be copied: else it is a backlog, which stays
 * where it is.
 */
static uint64
copy_limit(const Rotation *rotation, const SegmentCheck *check)
{
	Relation	heap = check->messages.segment[check->number].heap;
	Oid			toastid = heap->rd_rel->reltoastrelid;
	uint64		blocks = RelationGetNumberOfBlocks(heap);

	if (OidIsValid(toastid))
	{
		Relation	toast = table_open(toastid, AccessShareLock);

		blocks += RelationGetNumberOfBlocks(toast);
		table_close(toast, AccessShareLock);
	}
	return Max(blocks * BLCKSZ /
			   (has_room(rotation) ? COPY_PART : COPY_PART_FULL), COPY_MIN);
}

/*
 * A piece of a round: look at some hashes, and remember the first one that has
 * something pending.  Stops early where it is too much to be copied.
 */
static void
check_piece(Step *step)
{
	SegmentWatch *watch = &step->rotation->watch[step->number];
	SegmentCheck check;
	LogEntry	first;
	int64		hash = 0;

	act_segment_check_open(&check, step->number,
						   &step->rotation->ring[step->number]);
	if (!act_reader_open_segment(&check.messages, step->number))
	{
		act_segment_check_close(&check);
		step->later = true;
		return;
	}
	check.bytes = watch->bytes;
	check.limit = copy_limit(step->rotation, &check);
	for (int i = 0; i < CHECK_PIECE && check.bytes <= check.limit &&
		 !watch->finished; i++)
	{
		CHECK_FOR_INTERRUPTS();
		watch->finished = !act_segment_check_next(&check, watch->next_hash,
												  &hash, &first);
		if (watch->finished)
			break;
		act_segment_check_hash(&check, hash, &first);
		if (check.bytes == 0)
			watch->done_below = hash;
		watch->bytes = check.bytes;
		pass_hash(watch, hash);
	}

	/* A backlog, or a later segment that could not be asked for copies. */
	if (check.bytes > check.limit || check.messages.blocked)
	{
		watch->checking = false;
		step->later = true;
		note_progress(watch);
	}
	act_segment_check_close(&check);
}

/*
 * A round has found little that is pending.  Is it time to copy it?
 */
static bool
shall_copy(Rotation *rotation, SegmentWatch *watch)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		stuck;

	if (!rotation->patient || !has_room(rotation))
		return true;
	if (watch->last_round != 0 && watch->last_round + PATIENCE > now)
		return false;
	stuck = watch->last_round != 0 &&
		watch->bytes >= watch->last_bytes - watch->last_bytes / 10;
	watch->last_round = now;
	watch->last_bytes = watch->bytes;
	return stuck;
}

/*
 * The end of a round: nothing is pending, or what is may be copied.  What is
 * still there after it was copied belongs to entities that are locked now.
 */
static void
finish_round(Step *step)
{
	SegmentWatch *watch = &step->rotation->watch[step->number];

	watch->checking = false;
	if (watch->bytes == 0)
		step->later = !act_segment_lock_ring() ||
			!act_segment_mark_done(step->number, &watch->checked);
	else if (!watch->has_copied && shall_copy(step->rotation, watch))
	{
		if (!step->rotation->ring[step->number].copied)
			act_segment_mark_copied(step->number);
		begin_round(watch, &watch->checked);
		watch->copying = true;
	}
	else
	{
		step->later = true;
		note_progress(watch);
	}
}

/*
 * Find the next hashes with something pending, and lock those that are free.
 * Returns how many.
 */
static int
lock_pending(Step *step, int64 *hashes)
{
	SegmentWatch *watch = &step->rotation->watch[step->number];
	SegmentCheck check;
	LogEntry	first;
	int64		hash = 0;
	int			n = 0;

	act_segment_check_open(&check, step->number,
						   &step->rotation->ring[step->number]);
	check.limit = 0;
	if (!act_reader_open_segment(&check.messages, step->number))
		step->later = true;
	for (int i = 0; i < CHECK_PIECE && n < COPY_PIECE && !step->later &&
		 !watch->finished; i++)
	{
		CHECK_FOR_INTERRUPTS();
		watch->finished = !act_segment_check_next(&check, watch->next_hash,
												  &hash, &first);
		if (watch->finished)
			break;
		check.bytes = 0;
		act_segment_check_hash(&check, hash, &first);
		if (check.bytes > 0 &&
			act_entity_take(hash, false))
			hashes[n++] = hash;
		pass_hash(watch, hash);
	}
	act_segment_check_close(&check);
	return n;
}

/*
 * Copy what is pending of some hashes, with a snapshot newer than their locks.
 */
static void
copy_piece(Step *step)
{
	int64		hashes[COPY_PIECE];
	int			n = lock_pending(step, hashes);
	MessageWriter writer;
	SegmentCheck check;

	if (n == 0)
		return;

	/* It is not for us to adopt what is being brought here from elsewhere. */
	if (!act_clock_is_adopted())
	{
		step->later = true;
		return;
	}
	act_writer_open(&writer);
	act_segment_check_open(&check, step->number,
						   &step->rotation->ring[step->number]);
	if (writer.segment == step->number ||
		!act_reader_open_segment(&check.messages, step->number))
		step->later = true;
	check.writer = &writer;
	for (int i = 0; i < n && !step->later; i++)
		act_segment_check_hash(&check, hashes[i], NULL);
	act_segment_check_close(&check);
	act_writer_close(&writer);
}

/*
 * Copying is followed by another round, which finds the copies.
 */
static void
watch_sealed(Step *step)
{
	SegmentWatch *watch = &step->rotation->watch[step->number];
	const Segment *row = &step->rotation->ring[step->number];

	if (!watch->checking || watch->checked.turn != row->turn ||
		watch->checked.mixed != row->mixed)
	{
		begin_round(watch, row);
		check_piece(step);
	}
	else if (!watch->finished)
	{
		if (watch->copying)
			copy_piece(step);
		else
			check_piece(step);
	}
	else if (watch->copying)
	{
		act_segment_stop("copied, committed");
		begin_round(watch, row);
		check_piece(step);
	}
	else
		finish_round(step);
}

/* ------------------------------------------------------ the other steps */

static void
seal_left(Step *step)
{
	Snapshot	snapshot;
	Cursor		now;

	step->later = !act_segment_lock_ring() ||
		!act_segment_lock_out(step->number);

	/* After the lock, which keeps the clock from being advanced, too. */
	if (step->later || !act_clock_is_adopted())
		return;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	act_cursor_from_snapshot(&now, snapshot, act_clock_offset());
	UnregisterSnapshot(snapshot);
	step->later = !act_segment_seal(step->number, &now);
}

static void
empty_done(Step *step)
{
	step->later = !act_segment_lock_ring() ||
		!act_segment_empty(step->number);
}

/*
 * Move on to the next segment that is empty; while there is none, the current
 * one grows.
 */
static void
move_on(Step *step)
{
	step->later = !act_segment_is_full(step->number) ||
		!act_segment_lock_ring() || !act_segment_move(step->number);
}

/* ------------------------------------------------------- taking steps */

/*
 * Read the ring as it is now; a segment that has another turn is a new one.
 * Where it has just become full, what waits for long is looked at sooner.
 */
static void
read_ring(Rotation *rotation)
{
	static const char *const commits[] = {
		"emptied, committed", "", "left, committed", "sealed, committed",
		"done, committed"
	};
	Segment		ring[ACT_SEGMENTS];

	act_segment_read_latest(ring);
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		if (ring[i].turn != rotation->ring[i].turn ||
			ring[i].state != rotation->ring[i].state)
		{
			if (rotation->ring[i].state != SEGMENT_EMPTY)
				act_segment_stop(commits[ring[i].state]);
			memset(&rotation->watch[i], 0, sizeof(SegmentWatch));
		}
		rotation->ring[i] = ring[i];
	}
	for (int i = 0; !has_room(rotation) && i < ACT_SEGMENTS; i++)
	{
		SegmentWatch *watch = &rotation->watch[i];

		if (watch->errors == 0 && watch->delay > MAX_FULL_DELAY)
		{
			watch->retry_at -= watch->delay - MAX_FULL_DELAY;
			watch->delay = MAX_FULL_DELAY;
		}
	}
}

/*
 * Which step comes next?  The cheap ones first, and the oldest segment first;
 * -1 if none can be taken now.
 */
static int
choose_segment(const Rotation *rotation, TimestampTz now, TimestampTz *next)
{
	int			chosen = -1;

	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		const Segment *row = &rotation->ring[i];
		const Segment *best = &rotation->ring[Max(chosen, 0)];

		if (row->state == SEGMENT_EMPTY)
			continue;
		if (rotation->watch[i].retry_at > now)
		{
			if (row->state != SEGMENT_CURRENT)
				*next = Min(*next, rotation->watch[i].retry_at);
			continue;
		}
		if (chosen < 0 ||
			(row->state != SEGMENT_SEALED && best->state == SEGMENT_SEALED) ||
			((row->state == SEGMENT_SEALED) ==
			 (best->state == SEGMENT_SEALED) && row->turn < best->turn))
			chosen = i;
	}
	return chosen;
}

static void
wait_longer(SegmentWatch *watch, int64 min_delay, int64 max_delay)
{
	watch->delay = Min(Max(watch->delay * 2, min_delay), max_delay);
	watch->retry_at = GetCurrentTimestamp() + watch->delay;
}

/*
 * A segment with something pending can wait for long, but not while the
 * current one grows because there is no other.
 */
static int64
max_delay(const Rotation *rotation, SegmentState state)
{
	if (state == SEGMENT_SEALED)
		return has_room(rotation) ? MAX_CHECK_DELAY : MAX_FULL_DELAY;
	return MAX_DELAY;
}

static void
take_step(void *arg)
{
	Step	   *step = arg;
	int			guc_level = NewGUCNestLevel();

	(void) set_config_option("lock_timeout", RING_LOCK_TIMEOUT,
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	step->take(step);
	AtEOXact_GUC(false, guc_level);
}

static void
report_failure(int number, const Failure *failure)
{
	ereport(WARNING,
			(errcode(failure->sqlstate),
			 errmsg("could not rotate segment \"actornot.message_%d\": %s",
					number, failure->message),
			 failure->detail ? errdetail_internal("%s", failure->detail) : 0,
			 errhint("The other segments go on; this one is tried again.")));
}

/*
 * Take a step of one segment, contained: what fails is undone and reported.
 */
static void
take_contained(Rotation *rotation, int number)
{
	SegmentWatch *watch = &rotation->watch[number];
	SegmentState state = rotation->ring[number].state;
	Step		step = {rotation, number, NULL, false};
	Failure		failure;

	switch (state)
	{
		case SEGMENT_EMPTY:
			return;
		case SEGMENT_CURRENT:
			step.take = move_on;
			break;
		case SEGMENT_LEFT:
			step.take = seal_left;
			break;
		case SEGMENT_SEALED:
			step.take = watch_sealed;
			break;
		case SEGMENT_DONE:
			step.take = empty_done;
			break;
	}
	if (!act_subxact_contain(take_step, &step, &failure, CurrentMemoryContext))
	{
		watch->checking = false;
		if (failure.sqlstate == ERRCODE_LOCK_NOT_AVAILABLE)
			wait_longer(watch, MIN_DELAY, max_delay(rotation, state));
		else
		{
			report_failure(number, &failure);
			watch->errors++;
			wait_longer(watch, ERROR_DELAY, MAX_ERROR_DELAY);
		}
	}
	else if (state == SEGMENT_CURRENT)
		watch->retry_at = GetCurrentTimestamp() + LOOK_DELAY;
	else if (step.later)
		wait_longer(watch, MIN_DELAY, max_delay(rotation, state));
	else
	{
		watch->errors = 0;
		if (state != SEGMENT_SEALED)
			watch->delay = 0;
		if (state == SEGMENT_DONE)
			rotation->emptied++;
	}
}

/*
 * Start looking after the ring.  A caller that is not patient will not come
 * again soon: it copies what is pending in old segments at once.
 */
Rotation *
act_rotation_begin(MemoryContext context, bool patient)
{
	Rotation   *rotation = MemoryContextAllocZero(context, sizeof(Rotation));

	rotation->patient = patient;
	return rotation;
}

/*
 * Take one step, in a transaction that the caller started and ends.  False if
 * there is none to be taken before *next, which is made earlier if need be.
 */
bool
act_rotation_step(Rotation *rotation, TimestampTz *next)
{
	int			number;

	if (!act_clock_is_adopted())
		return false;
	read_ring(rotation);
	number = choose_segment(rotation, GetCurrentTimestamp(), next);
	if (number < 0)
		return false;
	take_contained(rotation, number);
	return true;
}

int
act_rotation_take_emptied(Rotation *rotation)
{
	int			emptied = rotation->emptied;

	rotation->emptied = 0;
	return emptied;
}
