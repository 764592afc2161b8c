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
 * Failure: who is not found here stays a suspect, and is run as one.  After an
 * error, which undoes the caller's subtransaction, the search can go on behind
 * the suspect that it was about: what cannot be read is no reason to keep the
 * manager from its work.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "log/reader.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "maint/acquit.h"
#include "sched/crashmark.h"

/*
 * Is anything of an entity pending, as far as can be seen?
 */
static bool
is_pending(RunContext *work, const EntityKey *key)
{
	MemoryContext old = MemoryContextSwitchTo(work->visit_context);
	Mailbox		mailbox;
	MessageRow	row;
	bool		pending;

	act_mailbox_init(&mailbox, key, NULL, 0);
	act_mailbox_load(&work->mailboxes, &mailbox);
	act_head_finish_empty(work, &mailbox);
	pending = act_head_find_head(work, &mailbox, mailbox.has_target ?
								 &mailbox.target : &work->now, &row) ||
		work->messages.blocked;
	MemoryContextSwitchTo(old);
	MemoryContextResetOnly(work->visit_context);	/* keeps its child */
	return pending;
}

/*
 * Get the suspects of this database.
 */
void
act_acquit_begin(Acquittal *acquittal, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	acquittal->keys = NULL;
	acquittal->nsuspects = act_crashmark_get_suspects(MyDatabaseId,
													  &acquittal->keys);
	acquittal->next = 0;
	acquittal->n = 0;
	MemoryContextSwitchTo(old);
}

/*
 * Find those with nothing pending.  In a transaction of the manager, which is
 * committed before act_acquit_finish.  After an error it may be called again,
 * and leaves out the suspect of the error.
 */
void
act_acquit_find(Acquittal *acquittal)
{
	RunContext	work;

	if (acquittal->next < acquittal->nsuspects)
	{
		act_head_open(&work);
		work.mailboxes.without_state = true;
		PushActiveSnapshot(work.snapshot);
		while (acquittal->next < acquittal->nsuspects)
		{
			EntityKey	key = acquittal->keys[acquittal->next++];

			CHECK_FOR_INTERRUPTS();
			if (!is_pending(&work, &key))
				acquittal->keys[acquittal->n++] = key;
		}
		PopActiveSnapshot();
		act_head_close(&work);
	}

	/* What made them done may have been committed asynchronously. */
	if (acquittal->n > 0)
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
