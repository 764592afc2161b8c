/*
 * lease.c
 *	  Lending an entity to a program outside, and taking it back.
 *
 * A lease is the durable half of an entity's lock.  It is in the mailbox row:
 * token, end, and up to which message the batch goes that was lent.  The
 * target of that batch stays pinned, so that nothing can get in front of it.
 * Each change of the row is made under the advisory lock, as everywhere.
 *
 *		free --act_lease_give--> lent (token n)
 *		lent --act_lease_consume, act_lease_give--> lent (token m > n)
 *		lent --act_lease_consume--> free
 *		lent --given back, failed--> free, the batch is the next one
 *		lent --its time is over, and somebody takes it--> lent or run
 *
 * A lease whose time is over is good until somebody takes the entity: then
 * the row names another token, or none.
 *
 * The caller holds the lock.  act_lease_give saves the row if it lends; the others
 * leave that to the caller.
 *
 * Memory: what goes to the caller in the context that was current, all else
 * in the work's.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "common/cursor.h"
#include "common/entity.h"
#include "common/subxact.h"
#include "exec/call.h"
#include "exec/lease.h"
#include "exec/retry.h"
#include "exec/visit.h"
#include "log/clock.h"
#include "log/reader.h"
#include "log/token.h"
#include "mailbox/deadletter.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"
#include "runner/handler.h"
#include "runner/runner.h"

/* The call of a runner's "runnable", to be contained. */
typedef struct RunnableCall
{
	RunContext *work;
	const Mailbox *mailbox;
	const Runner *runner;
	bool		result;
} RunnableCall;

static Datum
current_state(const Mailbox *mailbox, const Runner *runner)
{
	return mailbox->state != (Datum) 0 ? mailbox->state :
		runner->initial_state;
}

/*
 * Body: ask "runnable".  If it fails the containment ends the run.
 */
static void
ask_runnable(void *arg)
{
	RunnableCall *ask = arg;
	const Runner *runner = act_runner_find(ask->runner->id);
	HandlerCall *call = NULL;
	CallFrame	frame = {ask->runner->name, ask->mailbox->entity,
	ask->runner->owner, ask->runner->timeout};
	NullableDatum args[2];
	Datum		state = current_state(ask->mailbox, ask->runner);
	Datum		result;
	bool		isnull;

	act_entity_begin_run(ask->mailbox->key.hash, ask->mailbox->key.runner);

	/* What is not its owner's any more is not run with his rights. */
	if (runner == NULL || runner->owner != ask->runner->owner)
		ask->result = false;
	else
		call = act_handler_get_runnable(runner);
	if (call == NULL)
		return;
	args[0].value = CStringGetTextDatum(ask->mailbox->entity);
	args[0].isnull = false;
	args[1].value = state;
	args[1].isnull = (state == (Datum) 0);
	result = act_call_function(&frame, &call->flinfo, args, 2, &isnull);
	ask->result = !isnull && DatumGetBool(result);
}

/*
 * May the entity be run now?  An error of the function counts as one of the
 * handler, and is noted in the row.
 */
static LeaseResult
check_runnable(RunContext *work, Mailbox *mailbox, const Runner *runner)
{
	RunnableCall ask = {work, mailbox, runner, true};
	Failure		failure;
	int			depth = act_entity_depth();
	bool		ok;

	if (runner->runnable == NULL)
		return LEND_LENT;
	PushActiveSnapshot(work->snapshot);
	ok = act_subxact_contain(ask_runnable, &ask, &failure,
							 CurrentMemoryContext);
	PopActiveSnapshot();
	act_entity_end_run(depth);
	if (ok && ask.result)
		return LEND_LENT;
	act_mailbox_end_lease(mailbox);
	if (ok)
		return LEND_WAITING;
	act_retry_note(work, mailbox, runner, &failure, -1);
	return LEND_FAILED;
}

/*
 * Find the next batch and put its messages into the argument.  LEND_EMPTY if
 * nothing is pending.  Moves the cursor over what proved to be nothing.
 */
static LeaseResult
find_batch(RunContext *work, Mailbox *mailbox, const LeaseTerms *terms,
		   MessagesArgument *messages)
{
	for (;;)
	{
		bool		fresh = !mailbox->has_target;
		Cursor		target = fresh ? work->now : mailbox->target;
		PendingList list;
		int64		last_id;

		if (!act_pending_take_leftover(&list, &work->messages, mailbox) &&
			!act_pending_collect(&list, &work->messages, mailbox, &target,
								 terms->max_messages))
			return LEND_BUSY;
		if (list.nitems == 0 && fresh)
			return LEND_EMPTY;

		last_id = act_visit_take(work, mailbox, &list, terms->max_messages,
								 terms->runner.batch_bytes, messages);
		if (messages->nmessages > 0)
		{
			act_head_pin(mailbox, &target);
			mailbox->lease_last_id = last_id;
			mailbox->lease_all = list.complete && list.next >= list.nitems;
			mailbox->plan = act_pending_pack_plan(&list, mailbox->last_id);
			act_pending_keep_leftover(&list, &work->messages, mailbox);
			return LEND_LENT;
		}

		/* None of them was ours, or none is visible. */
		act_head_advance(mailbox, &target, last_id, false, list.complete);
	}
}

/*
 * Make the lease that the row is to hold, and the caller is to get.
 */
static void
make_lease(Mailbox *mailbox, const LeaseTerms *terms, Lease *lease)
{
	TimestampTz now = GetCurrentTimestamp();

	mailbox->lease_token = act_token_next(mailbox->lease_token,
										  act_clock_timeline());
	mailbox->lease_until = now + terms->length;
	mailbox->lease_owner = terms->owner;

	lease->key = mailbox->key;
	/* Without a row the mailbox has it from the log, in a work's context. */
	lease->entity = pnstrdup(mailbox->entity, mailbox->entity_len);
	lease->token = mailbox->lease_token;
	lease->state = current_state(mailbox, &terms->runner);
	lease->expires_at = mailbox->lease_until;
}

/*
 * Lend an entity that nobody holds (any more): the next batch of it, with its
 * state, under a new token.
 */
LeaseResult
act_lease_give(RunContext *work, Mailbox *mailbox, const LeaseTerms *terms,
			   Lease *lease)
{
	MessagesArgument messages;
	LeaseResult result;

	if (act_mailbox_is_leased(mailbox))
		return LEND_LEASED;
	if (terms->runner.paused || act_mailbox_is_waiting(mailbox))
		return LEND_WAITING;

	act_mailbox_end_lease(mailbox);
	act_args_begin_messages(&messages, HANDLER_JSONB);
	result = find_batch(work, mailbox, terms, &messages);
	lease->messages = act_args_end_messages(&messages);
	if (result == LEND_BUSY || (result == LEND_EMPTY && !terms->empty_too))
		return result;
	if (result == LEND_LENT)
	{
		result = check_runnable(work, mailbox, &terms->runner);
		if (result != LEND_LENT)
			return result;
	}
	make_lease(mailbox, terms, lease);
	act_mailbox_save(&work->mailboxes, mailbox);
	return LEND_LENT;
}

/*
 * The batch that was lent has been processed.  The lease ends.
 */
void
act_lease_consume(Mailbox *mailbox)
{
	if (mailbox->lease_last_id != 0 && mailbox->has_target)
		act_head_advance(mailbox, &mailbox->target, mailbox->lease_last_id,
						 true, mailbox->lease_all);
	act_mailbox_end_lease(mailbox);
}

/*
 * Is nothing pending?  False if that is not known.
 */
bool
act_lease_is_empty(RunContext *work, Mailbox *mailbox)
{
	PendingList list;

	return !mailbox->has_target &&
		act_pending_collect(&list, &work->messages, mailbox, &work->now, 1) &&
		list.nitems == 0;
}
