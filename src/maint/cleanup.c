/*
 * cleanup.c
 *	  Removing the rows of entities that have ended.
 *
 * An entity without state (its handler returned NULL, or keeps none) needs its
 * row only as long as the log holds messages that it has consumed: the row's
 * cursor tells that they are done.  When the last of these is gone with its
 * segment, the entity can begin anew from nothing, and the row goes.
 *
 * So after segments were emptied the table is walked, in pieces of some
 * blocks, a transaction each.  A row that may go is one without state, pause,
 * lease, back-off or backlog, of whose hash no segment has any entry, done or
 * not (also not one that is done and waits to be emptied: a dump taken now
 * would hold its messages, and not the row).  What is posted while we look is
 * not consumed by this version of the row.  Then the entity's lock is tried,
 * and this version is deleted: if a batch has saved another one since, it is
 * not.
 *
 * How often: a walk costs as much as the table is large, so where a long one
 * has found little, more segments have to be emptied before the next one.
 *
 * Memory: the transaction's.  Failure: a row that was not removed, or is there
 * again after a crash, for the commits are asynchronous; another walk comes.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "actornot.h"
#include "common/catalog.h"
#include "common/entity.h"
#include "log/clock.h"
#include "log/reader.h"
#include "log/segment.h"
#include "mailbox/mailbox.h"
#include "maint/cleanup.h"
#include "runner/runner.h"

/* How many blocks and how many rows a piece takes at most. */
#define BLOCKS_PER_PIECE 512
#define ROWS_PER_PIECE 200

/* A walk that removes less than this part was too early, if it was long. */
#define WORTH_PART 10
#define LONG_WALK 4096

/* How many segments may be emptied before there is one in any case. */
#define MAX_WAIT 16

struct Cleanup
{
	int			emptied;		/* segments, since the last walk began */
	int			wait;			/* how many must be, for the next one */
	bool		walking;
	BlockNumber block;			/* where we are */
	uint64		seen;			/* rows, in this walk */
	uint64		removed;
	int64		token;			/* the greatest one in a row that was removed */
};

/* A row that may go. */
typedef struct Candidate
{
	int64		hash;
	ItemPointerData tid;
} Candidate;

Cleanup *
act_cleanup_begin(MemoryContext context)
{
	Cleanup    *cleanup = MemoryContextAllocZero(context, sizeof(Cleanup));

	cleanup->wait = 1;
	return cleanup;
}

/*
 * Segments were emptied.
 */
void
act_cleanup_note_emptied(Cleanup *cleanup, int segments)
{
	cleanup->emptied += segments;
}

bool
act_cleanup_is_due(const Cleanup *cleanup)
{
	return cleanup->walking || cleanup->emptied >= cleanup->wait;
}

static void
end_walk(Cleanup *cleanup)
{
	cleanup->walking = false;
	if (cleanup->block <= LONG_WALK ||
		cleanup->removed >= cleanup->seen / WORTH_PART)
		cleanup->wait = 1;
	else
		cleanup->wait = Min(cleanup->wait * 2, MAX_WAIT);
}

/*
 * Has any segment an entry of this hash?  Also true if one could not be looked
 * into.
 */
static bool
is_in_log(MessageReader *reader, int64 hash)
{
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		LogEntry	entry;

		if (reader->rows[i].state == SEGMENT_EMPTY)
			continue;
		if (!act_reader_open_segment(reader, i))
			return true;
		act_reader_seek_in(reader, i, hash, 0, PG_UINT64_MAX);
		if (act_reader_next_in(reader, i, &entry))
			return true;
	}
	return false;
}

/*
 * Does the row hold nothing that could be missed?
 */
static bool
is_empty(const Mailbox *mailbox)
{
	return !mailbox->had_state && !mailbox->has_target && !mailbox->paused &&
		mailbox->attempts == 0 && mailbox->crashes == 0 &&
		mailbox->wake_at == 0 && !act_mailbox_is_leased(mailbox);
}

/*
 * Find rows that may go, in some blocks.
 */
static int
find_candidates(Cleanup *cleanup, MailboxTable *table, MessageReader *reader,
				Candidate *candidates)
{
	MailboxWalk *walk = act_mailbox_begin_walk(table, cleanup->block,
											   BLOCKS_PER_PIECE);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "actornot ended row",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(row_context);
	Mailbox		mailbox;
	int			n = 0;

	while (n < ROWS_PER_PIECE && act_mailbox_walk(walk, &mailbox))
	{
		CHECK_FOR_INTERRUPTS();
		cleanup->seen++;
		if (act_runner_is_gone(mailbox.key.runner) ||
			(is_empty(&mailbox) && !is_in_log(reader, mailbox.key.hash)))
		{
			candidates[n].hash = mailbox.key.hash;
			candidates[n].tid = mailbox.tid;
			n++;
			cleanup->token = Max(cleanup->token, mailbox.lease_token);
		}
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(old);

	/* A block that was not finished is begun again. */
	cleanup->walking = act_mailbox_end_walk(walk, &cleanup->block);
	MemoryContextDelete(row_context);
	return n;
}

/*
 * The last piece has failed, and its (sub)transaction was rolled back: go on
 * behind it.  Returns where it began.
 */
BlockNumber
act_cleanup_skip_piece(Cleanup *cleanup)
{
	BlockNumber block = cleanup->block;

	cleanup->walking = true;
	cleanup->block += BLOCKS_PER_PIECE;
	return block;
}

/*
 * A piece of a walk, in a transaction that the caller starts and ends.
 */
void
act_cleanup_step(Cleanup *cleanup)
{
	Candidate	candidates[ROWS_PER_PIECE];
	MailboxTable table;
	MessageReader reader;
	Snapshot	snapshot;
	int			n;

	if (!cleanup->walking)
	{
		cleanup->walking = true;
		cleanup->emptied = 0;
		cleanup->block = 0;
		cleanup->seen = 0;
		cleanup->removed = 0;
	}
	/* First, as an advance of the clock does: its timeline may be raised. */
	LockRelationOid(act_catalog_get()->clock, RowExclusiveLock);
	act_mailbox_open(&table, RowExclusiveLock);
	table.without_state = true;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(snapshot);
	table.snapshot = snapshot;
	act_reader_open(&reader, snapshot);

	n = find_candidates(cleanup, &table, &reader, candidates);
	/* Tokens only grow, also where there is no row that knows the last one. */
	act_clock_note_token(cleanup->token);
	for (int i = 0; i < n; i++)
	{
		if (act_entity_take(candidates[i].hash, false) &&
			act_mailbox_delete(&table, &candidates[i].tid))
			cleanup->removed++;
	}

	act_reader_close(&reader);
	act_mailbox_close(&table);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	if (!cleanup->walking)
		end_walk(cleanup);
	if (n > 0)
		(void) set_config_option("synchronous_commit", "off",
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
}
