/*
 * acquit.c
 *	  Suspects of a crash that have nothing left to be run.
 *
 * A worker clears its mark after the commit, and one commit is that of many
 * entities.  So when the server goes down between the two, there are suspects
 * whose batch is done.  It cannot have been theirs, and nobody will queue
 * them, for they have nothing that is pending; so they would be suspects
 * until their next message, which would be run alone for no reason, and named
 * in the log at each start until then.
 *
 * The manager looks for them before it starts workers.  No lock is needed:
 * the transactions of the life before have ended, so what is not pending now
 * was done.
 *
 * Failure: who is not found here stays a suspect, and is run as one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "acquit.h"
#include "crashmark.h"
#include "mailbox.h"
#include "message.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "work.h"

/*
 * Is anything of an entity pending, as far as can be seen?
 */
static bool
is_pending(BatchWork *work, const EntityKey *key)
{
	MemoryContext old = MemoryContextSwitchTo(work->visit_context);
	Mailbox		mailbox;
	MessageRow	row;
	bool		pending;

	act_mailbox_init(&mailbox, key, NULL, 0);
	act_mailbox_load(&work->mailboxes, &mailbox);
	act_work_finish_empty(work, &mailbox);
	pending = act_work_find_head(work, &mailbox, mailbox.has_target ?
								 &mailbox.target : &work->now, &row) ||
		work->messages.blocked;
	MemoryContextSwitchTo(old);
	MemoryContextResetOnly(work->visit_context);	/* keeps its child */
	return pending;
}

/*
 * Find the suspects of this database with nothing pending.  In a transaction
 * of the manager, which is committed before act_acquit_finish.
 */
void
act_acquit_find(Acquittal *acquittal, MemoryContext context)
{
	BatchWork	work;
	int			n = 0;
	MemoryContext old = MemoryContextSwitchTo(context);

	acquittal->n = act_crashmark_get_suspects(MyDatabaseId, &acquittal->keys);
	MemoryContextSwitchTo(old);
	if (acquittal->n == 0)
		return;

	act_work_open(&work);
	work.mailboxes.without_state = true;
	PushActiveSnapshot(work.snapshot);
	for (int i = 0; i < acquittal->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (!is_pending(&work, &acquittal->keys[i]))
			acquittal->keys[n++] = acquittal->keys[i];
	}
	PopActiveSnapshot();
	act_work_close(&work);
	acquittal->n = n;

	/* What made them done may have been committed asynchronously. */
	if (n > 0)
	{
		(void) GetTopTransactionId();
		ForceSyncCommit();
	}
}

/*
 * After the commit.
 */
void
act_acquit_finish(Acquittal *acquittal)
{
	for (int i = 0; i < acquittal->n; i++)
		act_crashmark_acquit(MyDatabaseId, &acquittal->keys[i]);
	if (acquittal->keys != NULL)
		pfree(acquittal->keys);
}
