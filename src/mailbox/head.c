/*
 * head.c
 *	  What a transaction needs to work on entities, and a mailbox's head.
 *
 * A RunContext is opened when all locks of entities that are to be worked on
 * are held: the snapshot "now" must be newer than they are, or else what the
 * last holder wrote could be unseen.  Then the mailboxes and the log are read
 * with it.  Runs, leases, the recording of failures and mending by hand share
 * this.
 *
 * Here is also all that moves a mailbox's cursor (done, target, last_id), in
 * memory.  The caller saves the row.
 *		no target --act_head_pin--> a target, last_id 0
 *		a target --act_head_advance--> the same target, a higher last_id
 *		a target --act_head_advance, complete--> done, no target
 *
 * Memory: contexts of its own below the caller's; an aborting transaction
 * cleans all up.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "actornot.h"
#include "common/cursor.h"
#include "log/clock.h"
#include "log/reader.h"
#include "log/segment.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"
#include "runner/runner.h"

/*
 * The cursor needs a snapshot that is newer than the entity's lock.
 */
void
act_head_check_isolation(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot run entities in a transaction with isolation level %s",
						XactIsoLevel == XACT_SERIALIZABLE ?
						"SERIALIZABLE" : "REPEATABLE READ"),
				 errdetail("What a batch consumes must be seen by a snapshot that is newer than the entity's lock."),
				 errhint("Use READ COMMITTED. Posting works at every level.")));
}

/*
 * Take the snapshot "now" and open the tables.  All locks of entities that
 * are to be run are held already.
 */
void
act_head_open(RunContext *work)
{
	work->entity_context = AllocSetContextCreate(CurrentMemoryContext,
												 "actornot entity",
												 ALLOCSET_DEFAULT_SIZES);
	work->batch_context = AllocSetContextCreate(work->entity_context,
												"actornot batch",
												ALLOCSET_DEFAULT_SIZES);

	/*
	 * The clock is advanced under a lock on the mailboxes that ours excludes;
	 * so the offset is read after it, and holds for the snapshot.
	 */
	if (!act_clock_is_adopted())
		act_clock_adopt();
	act_mailbox_open(&work->mailboxes, RowExclusiveLock);
	if (!act_clock_is_adopted())
		elog(ERROR, "clock of actornot went away under a batch");

	work->collided = false;
	work->snapshot = RegisterSnapshot(GetTransactionSnapshot());
	work->mailboxes.snapshot = work->snapshot;
	act_cursor_from_snapshot(&work->now, work->snapshot, act_clock_offset());
	act_reader_open(&work->messages, work->snapshot);
}

/*
 * Close what act_head_open opened; the locks stay.
 */
void
act_head_close(RunContext *work)
{
	act_reader_close(&work->messages);
	act_mailbox_close(&work->mailboxes);
	UnregisterSnapshot(work->snapshot);
	MemoryContextDelete(work->entity_context);
}

/*
 * Keep a target in the row, so that nothing can get in front of its head.
 */
void
act_head_pin(Mailbox *mailbox, const Cursor *target)
{
	if (mailbox->has_target)
		return;
	mailbox->has_target = true;
	mailbox->target = *target;
	mailbox->last_id = 0;
	mailbox->plan = NULL;
}

/*
 * All that was pending under a target is done.
 */
static void
finish_target(Mailbox *mailbox, const Cursor *target)
{
	mailbox->done = *target;
	mailbox->has_target = false;
	mailbox->plan = NULL;
	mailbox->last_id = 0;
}

/*
 * Move the cursor over all that is pending under a target up to "last_id".
 * "consumed": there were messages among it, so the head is another one now.
 * "complete": nothing is left under the target, which becomes "done".
 */
void
act_head_advance(Mailbox *mailbox, const Cursor *target, int64 last_id,
				 bool consumed, bool complete)
{
	act_head_pin(mailbox, target);
	mailbox->last_id = last_id;
	if (consumed)
	{
		mailbox->attempts = 0;
		mailbox->crashes = 0;
		mailbox->wake_at = 0;
		mailbox->last_error = NULL;
	}
	if (complete)
		finish_target(mailbox, target);
}

/*
 * Is the fetched message one of this mailbox?  The first one that fits the
 * key names an entity that has no row yet.
 */
static bool
belongs(RunContext *work, Mailbox *mailbox, const MessageRow *row)
{
	text	   *entity = DatumGetTextPP(row->entity);
	MemoryContext old;

	if (!act_mailbox_is_of(mailbox, row->runner, entity))
		return false;
	if (mailbox->entity == NULL)
	{
		old = MemoryContextSwitchTo(work->entity_context);
		mailbox->entity = text_to_cstring(entity);
		mailbox->entity_len = VARSIZE_ANY_EXHDR(entity);
		MemoryContextSwitchTo(old);
	}
	return true;
}

/*
 * Fetch the message of a pending entry; false if it is not one of this
 * mailbox, or not visible.  That it is another entity's is noted.
 */
bool
act_head_fetch(RunContext *work, Mailbox *mailbox, const LogEntry *entry,
			   MessageRow *row)
{
	if (!act_reader_fetch(&work->messages, entry, row))
		return false;
	if (belongs(work, mailbox, row))
		return true;

	/* The cursor will pass it: see segment.c. */
	if (!(work->collided && work->collided_hash == mailbox->key.hash) &&
		!act_runner_is_gone(row->runner))
	{
		act_segment_note_collision(mailbox->key.hash);
		work->collided = true;
		work->collided_hash = mailbox->key.hash;
	}
	return false;
}

/*
 * Fetch the first pending message under a target, without taking it.  False
 * if there is none, or a segment cannot be read now.
 */
bool
act_head_find(RunContext *work, Mailbox *mailbox, const Cursor *target,
			  MessageRow *row)
{
	Mailbox		rest = *mailbox;

	for (;;)
	{
		PendingList list;

		if (!act_pending_collect(&list, &work->messages, &rest, target, 1))
			return false;
		for (int i = 0; i < list.nitems; i++)
		{
			if (act_head_fetch(work, mailbox, &list.items[i], row))
				return true;
			rest.last_id = list.items[i].at.id;
		}
		if (list.complete)
			return false;
	}
}

/*
 * Find the head and pin it: under the row's target, or, if nothing is left
 * under that, under "target".  False if nothing is pending, or a segment
 * cannot be read now: the row's own target then stays.
 */
bool
act_head_take(RunContext *work, Mailbox *mailbox, const Cursor *target,
			  MessageRow *row)
{
	if (mailbox->has_target)
	{
		if (act_head_find(work, mailbox, &mailbox->target, row))
			return true;
		if (work->messages.blocked)
			return false;
		finish_target(mailbox, &mailbox->target);
	}
	act_head_pin(mailbox, target);
	return act_head_find(work, mailbox, &mailbox->target, row);
}
