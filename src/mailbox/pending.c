/*
 * pending.c
 *	  What a mailbox has waiting: found once, and planned when it is much.
 *
 * Pending are the messages of a hash that are settled in the target, not
 * settled in "done", and have an id above last_id, to be taken in the order
 * of their ids.  The index gives them in the order (tick, id), which is
 * nearly, but not quite, the order of ids.  So this room reads index entries
 * and keeps those with the smallest ids; visibility and the entity are looked
 * at when a message is fetched.
 *
 * A mailbox with few messages costs one short index scan: from the first
 * tick that is not settled in "done" on, plus one probe for each transaction
 * that was open when "done" was taken and has ended since.  So a long-running
 * transaction elsewhere does not make a worker read processed rows again.
 *
 * A backlog is read as a whole only once for each target.  That scan keeps
 * the ACT_PENDING_MAX smallest ids, and divides the log into chunks of index
 * order, of each of which it notes the smallest and the largest id (the plan,
 * saved with the row).  Later scans read chunks from the first one that is not
 * finished on, and stop before a chunk when enough ids lie below all that the
 * chunks behind can hold.  A large chunk is divided further when it is read.
 * As long as the target is pinned, no entry can join what the plan covers:
 * each transaction that is settled in the target has ended.  So the cost of
 * a backlog grows with its length (times a small logarithm), whether it is
 * taken by one worker that stays or by a thousand short leases, and memory is
 * bounded by ACT_PENDING_MAX.
 *
 * Memory: lists live in the current context of act_pending_collect; one that
 * is left over, of at most ACT_PENDING_MAX items, in a context of its own.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "actornot.h"
#include "common/cursor.h"
#include "log/reader.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"
#include "runner/runner.h"

/* Chunks of a first plan, of a chunk that is divided, and of all. */
#define FIRST_CHUNKS 32
#define SUB_CHUNKS 16
#define MAX_CHUNKS 64

/* Smallest chunk, and the size from which on one is divided. */
#define CHUNK_MIN 256
#define CHUNK_DIVIDE 2048

/* A backlog up to this size is not worth a plan. */
#define PLAN_MIN 1024

/* Divides what it is shown into at most "limit" chunks of equal size. */
typedef struct PlanBuilder
{
	PlanChunk	chunk[FIRST_CHUNKS];
	int			nchunks;
	int			limit;
	int64		chunk_size;
} PlanBuilder;

/* Keeps the smallest ids of what it is shown; a max-heap once it is full. */
typedef struct Collector
{
	LogEntry   *items;
	int			nitems;
	int			size;
	bool		overflow;
} Collector;

/* What a scan looks for. */
typedef struct PendingScan
{
	MessageReader *reader;
	int64		hash;
	const Cursor *done;
	const Cursor *target;
	int64		last_id;
	Collector  *collector;
	PlanBuilder *builder;
} PendingScan;

static const LogPosition log_start = {0, 0};
static const LogPosition log_end = {PG_UINT64_MAX, PG_INT64_MAX};

/* ---- the plan ---- */

static void
builder_start(PlanBuilder *builder, int limit)
{
	builder->nchunks = 0;
	builder->limit = limit;
	builder->chunk_size = CHUNK_MIN;
}

/*
 * Halve the number of chunks by joining neighbours.
 */
static void
builder_join(PlanBuilder *builder)
{
	for (int i = 0; i < builder->nchunks / 2; i++)
	{
		PlanChunk	joined = builder->chunk[2 * i];
		const PlanChunk *second = &builder->chunk[2 * i + 1];

		joined.min_id = Min(joined.min_id, second->min_id);
		joined.max_id = Max(joined.max_id, second->max_id);
		joined.count += second->count;
		builder->chunk[i] = joined;
	}
	builder->nchunks /= 2;
	builder->chunk_size *= 2;
}

static void
builder_add(PlanBuilder *builder, LogPosition at)
{
	PlanChunk  *last = &builder->chunk[builder->nchunks - 1];

	if (builder->nchunks > 0 && last->count < builder->chunk_size)
	{
		last->min_id = Min(last->min_id, at.id);
		last->max_id = Max(last->max_id, at.id);
		last->count++;
		return;
	}

	if (builder->nchunks == builder->limit)
		builder_join(builder);
	last = &builder->chunk[builder->nchunks++];
	last->start = at;
	last->min_id = last->max_id = at.id;
	last->count = 1;
}

/*
 * The plan of a row: five numbers for each chunk.  NULL if the bytes make no
 * sense; then the backlog is simply read again.
 */
static PlanChunk *
unpack_plan(const bytea *packed, int *nchunks)
{
	uint64	   *numbers;
	int			n = act_cursor_unpack_numbers(packed, &numbers);
	PlanChunk  *chunks;

	if (n <= 0 || n % 5 != 0 || n / 5 > MAX_CHUNKS)
		return NULL;

	*nchunks = n / 5;
	chunks = palloc(sizeof(PlanChunk) * MAX_CHUNKS);
	for (int i = 0; i < *nchunks; i++)
	{
		chunks[i].start.tick = numbers[5 * i];
		chunks[i].start.id = (int64) numbers[5 * i + 1];
		chunks[i].min_id = (int64) numbers[5 * i + 2];
		chunks[i].max_id = (int64) numbers[5 * i + 3];
		chunks[i].count = (int64) numbers[5 * i + 4];
	}
	pfree(numbers);
	return chunks;
}

/*
 * The plan for the row, when all up to last_id has been taken: NULL if what
 * is left is not worth one.
 */
bytea *
act_pending_pack_plan(const PendingList *list, int64 last_id)
{
	uint64		numbers[5 * MAX_CHUNKS];
	int			n = 0;

	if (list->chunks == NULL ||
		(list->complete && list->nitems - list->next <= PLAN_MIN))
		return NULL;

	for (int i = 0; i < list->nchunks; i++)
	{
		const PlanChunk *chunk = &list->chunks[i];

		if (chunk->max_id <= last_id)
			continue;
		numbers[n++] = chunk->start.tick;
		numbers[n++] = (uint64) chunk->start.id;
		numbers[n++] = (uint64) chunk->min_id;
		numbers[n++] = (uint64) chunk->max_id;
		numbers[n++] = (uint64) chunk->count;
	}
	return n == 0 ? NULL : act_cursor_pack_numbers(numbers, n);
}

/* ---- the smallest ids ---- */

static void
sift_down(LogEntry *items, int n, int i)
{
	LogEntry	item = items[i];

	for (;;)
	{
		int			child = 2 * i + 1;

		if (child >= n)
			break;
		if (child + 1 < n && items[child + 1].at.id > items[child].at.id)
			child++;
		if (items[child].at.id <= item.at.id)
			break;
		items[i] = items[child];
		i = child;
	}
	items[i] = item;
}

static void
collector_add(Collector *collector, const LogEntry *entry)
{
	LogEntry   *item;

	if (collector->nitems == ACT_PENDING_MAX)
	{
		if (!collector->overflow)
		{
			for (int i = ACT_PENDING_MAX / 2 - 1; i >= 0; i--)
				sift_down(collector->items, ACT_PENDING_MAX, i);
			collector->overflow = true;
		}
		if (entry->at.id >= collector->items[0].at.id)
			return;
		item = &collector->items[0];
	}
	else
	{
		if (collector->nitems == collector->size)
		{
			collector->size *= 4;
			collector->items = repalloc(collector->items,
										sizeof(LogEntry) * collector->size);
		}
		item = &collector->items[collector->nitems++];
	}

	*item = *entry;
	if (collector->overflow)
		sift_down(collector->items, ACT_PENDING_MAX, 0);
}

static int
count_below(const Collector *collector, int64 id)
{
	int			n = 0;

	for (int i = 0; i < collector->nitems; i++)
	{
		if (collector->items[i].at.id < id)
			n++;
	}
	return n;
}

static int
compare_items(const void *a, const void *b)
{
	int64		x = ((const LogEntry *) a)->at.id;
	int64		y = ((const LogEntry *) b)->at.id;

	return (x > y) - (x < y);
}

/*
 * Keep the items below a bound, in the order of their ids.  What was copied
 * comes more than once, and only one of these may be visible; so where ids
 * were left out, the largest one that is left goes too, for another entry of
 * the same id could be among those.
 */
static void
finish_items(Collector *collector, int64 bound)
{
	LogEntry   *items = collector->items;
	bool		sorted = true;
	int			n = 0;

	if (collector->overflow)
		bound = Min(bound, items[0].at.id);
	for (int i = 0; i < collector->nitems; i++)
	{
		if (items[i].at.id >= bound)
			continue;
		if (n > 0 && items[n - 1].at.id > items[i].at.id)
			sorted = false;
		items[n++] = items[i];
	}
	if (!sorted)
		qsort(items, n, sizeof(LogEntry), compare_items);
	collector->nitems = n;
}

/* ---- reading the index ---- */

/*
 * Read the entries from a position (inclusive) to another (exclusive) within
 * a range of ticks that holds none settled in "done".
 */
static bool
scan_ticks(PendingScan *scan, uint64 first_tick, uint64 below_tick,
		   LogPosition from, LogPosition to)
{
	LogPosition start = {first_tick, 0};
	LogEntry	entry;

	if (act_position_is_before(start, from))
		start = from;
	if (to.tick < below_tick)
		below_tick = to.tick + 1;
	if (start.tick >= below_tick)
		return true;

	if (!act_reader_seek(scan->reader, scan->hash, start, below_tick))
		return false;
	while (act_reader_next(scan->reader, &entry))
	{
		if (!act_position_is_before(entry.at, to))
			break;
		if (entry.at.id <= scan->last_id ||
			(scan->target->nxip > 0 &&
			 !act_cursor_settled(scan->target, entry.at.tick)))
			continue;
		collector_add(scan->collector, &entry);
		builder_add(scan->builder, entry.at);
		if (scan->collector->overflow)
			CHECK_FOR_INTERRUPTS();
	}
	return true;
}

/*
 * Read all pending entries between two positions: those of transactions that
 * were open when "done" was taken and have ended since, then those that are
 * newer than it.
 */
static bool
scan_stretch(PendingScan *scan, LogPosition from, LogPosition to)
{
	const Cursor *done = scan->done;

	for (int i = 0; i < done->nxip; i++)
	{
		uint64		tick = done->xip[i];

		if (act_cursor_settled(scan->target, tick) &&
			!scan_ticks(scan, tick, tick + 1, from, to))
			return false;
	}
	return scan_ticks(scan, done->xmax, scan->target->xmax, from, to);
}

/*
 * The first scan of a target: everything.
 */
static bool
scan_all(PendingScan *scan, PendingList *list)
{
	builder_start(scan->builder, FIRST_CHUNKS);
	if (!scan_stretch(scan, log_start, log_end))
		return false;

	list->complete = !scan->collector->overflow;
	if (scan->collector->nitems > PLAN_MIN)
	{
		list->nchunks = scan->builder->nchunks;
		list->chunks = palloc(sizeof(PlanChunk) * MAX_CHUNKS);
		memcpy(list->chunks, scan->builder->chunk,
			   sizeof(PlanChunk) * list->nchunks);
	}
	return true;
}

/*
 * A later scan: chunk by chunk, until "want" ids are known to be the smallest
 * ones.  What was read is replaced in the plan by what was found there.
 * Sets *bound to the smallest id that the unread rest can hold.
 */
static bool
scan_chunks(PendingScan *scan, PendingList *list, const PlanChunk *old,
			int nold, int want, int64 *bound)
{
	int64		rest_min[MAX_CHUNKS + 1];
	int			i;

	rest_min[nold] = PG_INT64_MAX;
	for (i = nold - 1; i >= 0; i--)
		rest_min[i] = Min(rest_min[i + 1], old[i].min_id);

	list->chunks = palloc(sizeof(PlanChunk) * MAX_CHUNKS);
	for (i = 0; i < nold; i++)
	{
		LogPosition to = (i + 1 < nold) ? old[i + 1].start : log_end;
		int			limit = 1;

		if (scan->collector->nitems >= want &&
			count_below(scan->collector, rest_min[i]) >= want)
			break;
		if (old[i].max_id <= scan->last_id)
			continue;
		if (old[i].count > CHUNK_DIVIDE &&
			list->nchunks + SUB_CHUNKS + (nold - i) <= MAX_CHUNKS)
			limit = SUB_CHUNKS;
		builder_start(scan->builder, limit);
		if (limit == 1)
			scan->builder->chunk_size = PG_INT64_MAX;
		if (!scan_stretch(scan, old[i].start, to))
			return false;
		memcpy(list->chunks + list->nchunks, scan->builder->chunk,
			   sizeof(PlanChunk) * scan->builder->nchunks);
		list->nchunks += scan->builder->nchunks;
	}

	*bound = rest_min[i];
	list->complete = (i == nold && !scan->collector->overflow);
	memcpy(list->chunks + list->nchunks, old + i,
		   sizeof(PlanChunk) * (nold - i));
	list->nchunks += nold - i;
	return true;
}

/*
 * Find the pending entries of a mailbox under a target, at least "want" of
 * them (or all), those with the smallest ids.  False if the reader is blocked
 * by another session's lock on a segment; nothing is then known.
 */
bool
act_pending_collect(PendingList *list, MessageReader *reader,
					const Mailbox *mailbox, const Cursor *target, int want)
{
	PlanBuilder builder;
	Collector	collector = {NULL, 0, 64, false};
	PendingScan scan = {reader, mailbox->key.hash, &mailbox->done, target,
	mailbox->last_id, &collector, &builder};
	PlanChunk  *old = NULL;
	int			nold = 0;
	int64		bound = PG_INT64_MAX;

	MemSet(list, 0, sizeof(PendingList));
	collector.items = palloc(sizeof(LogEntry) * collector.size);
	if (mailbox->has_target && mailbox->plan != NULL)
		old = unpack_plan(mailbox->plan, &nold);

	Assert(want <= ACT_PENDING_MAX);
	if (old == NULL)
	{
		if (!scan_all(&scan, list))
			return false;
	}
	else if (!scan_chunks(&scan, list, old, nold, want, &bound))
		return false;

	if (old != NULL)
		pfree(old);
	finish_items(&collector, bound);
	list->items = collector.items;
	list->nitems = collector.nitems;
	list->after_id = mailbox->last_id;
	return true;
}

/*
 * Free what act_pending_collect has allocated.
 */
void
act_pending_free(PendingList *list)
{
	if (list->items != NULL)
		pfree(list->items);
	if (list->chunks != NULL)
		pfree(list->chunks);
	MemSet(list, 0, sizeof(PendingList));
}

/*
 * Count the visible pending messages of a mailbox whose entity is known.
 * Says whether there are any of other entities of its hash.
 */
int64
act_pending_count(MessageReader *reader, const Mailbox *mailbox,
				  const Cursor *target, bool *collided)
{
	int64		count = 0;
	int64		last_id = -1;

	*collided = false;

	/* Probes and the main range, as scan_stretch does, but fetching. */
	for (int i = 0; i <= mailbox->done.nxip; i++)
	{
		bool		main_range = (i == mailbox->done.nxip);
		LogPosition from = {main_range ? mailbox->done.xmax :
		mailbox->done.xip[i], 0};
		LogEntry	entry;
		MessageRow	row;

		if (!act_reader_seek(reader, mailbox->key.hash, from, main_range ?
							 target->xmax : from.tick + 1))
			break;
		while (act_reader_next(reader, &entry))
		{
			CHECK_FOR_INTERRUPTS();
			if (entry.at.id == last_id ||
				!act_cursor_settled(target, entry.at.tick) ||
				act_mailbox_has_consumed(mailbox, entry.at.tick,
										 entry.at.id) ||
				!act_reader_fetch(reader, &entry, &row))
				continue;
			if (!act_mailbox_is_of(mailbox, row.runner,
								   DatumGetTextPP(row.entity)))
			{
				*collided |= !act_runner_is_gone(row.runner);
				continue;
			}
			last_id = entry.at.id;
			count++;
		}
	}
	return count;
}

/* ---- what the last run found and did not come to ---- */

/*
 * A worker that is busy with one hot entity runs it again and again.  What a
 * run has collected and not taken is kept in this backend, so that the next
 * one need not look the backlog up again.  It is a hint: good only as long as
 * the row has the same cursor and target, and the segments are in the same
 * files; each item is verified when its message is fetched.
 */
typedef struct Leftover
{
	bool		valid;
	EntityKey	key;
	Cursor		done;
	Cursor		target;
	PendingList list;
	Oid			files[ACT_SEGMENTS];
} Leftover;

static Leftover leftover;
static MemoryContext leftover_context = NULL;

/*
 * Go on with what the last run left over, if it is still good.
 */
bool
act_pending_take_leftover(PendingList *taken, MessageReader *reader,
						  const Mailbox *mailbox)
{
	PendingList *list = &leftover.list;

	if (!leftover.valid || !mailbox->has_target ||
		memcmp(&leftover.key, &mailbox->key, sizeof(EntityKey)) != 0)
		return false;
	leftover.valid = false;
	if (!act_cursor_equal(&leftover.done, &mailbox->done) ||
		!act_cursor_equal(&leftover.target, &mailbox->target) ||
		!act_reader_get_files(reader, leftover.files, true))
		return false;

	/* The row may have gone on, or back to where a failure had found it. */
	list->taken_id = mailbox->last_id;
	while (list->next > 0 && list->items[list->next - 1].at.id > mailbox->last_id)
		list->next--;
	while (list->next < list->nitems &&
		   list->items[list->next].at.id <= mailbox->last_id)
		list->next++;
	if (list->next >= list->nitems || mailbox->last_id < list->after_id)
		return false;
	*taken = *list;
	return true;
}

/*
 * Keep what this run leaves over.
 */
void
act_pending_keep_leftover(const PendingList *list, MessageReader *reader,
						  const Mailbox *mailbox)
{
	MemoryContext old;
	Size		items = sizeof(LogEntry) * list->nitems;
	Size		chunks = sizeof(PlanChunk) * list->nchunks;

	if (!mailbox->has_target || list->next >= list->nitems)
		return;
	if (list->items == leftover.list.items)
	{
		leftover.list.next = list->next;
		leftover.list.taken_id = list->taken_id;
		leftover.valid = true;
		return;
	}

	leftover.valid = false;
	leftover.list.items = NULL;
	if (leftover_context == NULL)
		leftover_context = AllocSetContextCreate(TopMemoryContext,
												 "actornot leftover",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(leftover_context);
	old = MemoryContextSwitchTo(leftover_context);
	leftover.key = mailbox->key;
	act_cursor_copy(&leftover.done, &mailbox->done);
	act_cursor_copy(&leftover.target, &mailbox->target);
	leftover.list = *list;
	leftover.list.items = NULL;
	leftover.list.items = memcpy(palloc(items), list->items, items);
	if (chunks > 0)
		leftover.list.chunks = memcpy(palloc(chunks), list->chunks,
									  chunks);
	act_reader_get_files(reader, leftover.files, false);
	MemoryContextSwitchTo(old);
	leftover.valid = true;
}
