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
 *		lent --its time is over, and it is taken--> lent or run
 *
 * A lease whose time is over is good until the entity is taken: then
 * the row names another token, or none.
 *
 * The batch is found by the steps of batch.c.  The caller holds the lock.
 * act_lease_give saves the row if it lends; the others leave that to the
 * caller.
 *
 * Memory: what goes to the caller in the context that was current, all else
 * in the work's.
 */
#include "postgres.h"

#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "common/entity.h"
#include "common/subxact.h"
#include "exec/args.h"
#include "exec/batch.h"
#include "exec/lease.h"
#include "exec/retry.h"
#include "log/clock.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"
#include "runner/handler.h"
#include "runner/runner.h"

/*
 * Body: ask "runnable".  If it fails the containment ends the run.
 */
static void
ask_runnable(void *arg)
{
	BatchRun   *state = arg;

	act_entity_begin_run(state->run->key.hash, state->run->key.runner);
	state->run->gate = act_batch_ask_runnable(state);
}

/*
 * May the entity be run now?  An error of the function counts as one of the
 * handler, and is noted in the row.
 */
static Gate
check_runnable(BatchRun *state, Lease *lease)
{
	RunContext *work = state->work;
	Mailbox    *mailbox = &state->mailbox;
	Failure		failure;
	int			depth = act_entity_depth();

	if (state->runner->runnable == NULL)
		return GATE_OPEN;
	PushActiveSnapshot(work->snapshot);
	lease->failed = !act_subxact_contain(ask_runnable, state, &failure,
										 CurrentMemoryContext);
	PopActiveSnapshot();
	act_entity_end_run(depth);
	if (!lease->failed && state->run->gate == GATE_OPEN)
		return GATE_OPEN;
	act_mailbox_end_lease(mailbox);
	if (!lease->failed)
		return state->run->gate;
	act_retry_note(work, mailbox, state->runner, &failure, -1);
	return mailbox->wake_at != 0 ? GATE_BACK_OFF : GATE_FAILED;
}

/*
 * Find the next batch and put its messages into the argument.  Moves the
 * cursor over what proved to be nothing.
 */
static Gate
find_batch(BatchRun *state, MessagesArgument *messages)
{
	Mailbox    *mailbox = &state->mailbox;

	for (;;)
	{
		Gate		gate = act_batch_collect(state);
		int64		last_id;
		bool		all;

		if (gate != GATE_OPEN)
			return gate;
		last_id = act_batch_take(state, messages);
		all = act_batch_took_all(state);
		if (messages->nmessages > 0)
		{
			act_head_pin(mailbox, &state->target);
			mailbox->lease_last_id = last_id;
			mailbox->lease_all = all;
			act_batch_keep_rest(state);
			return GATE_OPEN;
		}

		/* None of them was this entity's, or none is visible. */
		act_head_advance(mailbox, &state->target, last_id, false, all);
	}
}

/*
 * Make the lease that the row is to hold, and the caller is to get.
 */
static void
make_lease(BatchRun *state, const LeaseTerms *terms, Lease *lease)
{
	Mailbox    *mailbox = &state->mailbox;
	TimestampTz now = GetCurrentTimestamp();

	mailbox->lease_token = act_clock_next_token(mailbox->lease_token);
	mailbox->lease_until = now + terms->length;
	mailbox->lease_owner = terms->owner;

	lease->key = mailbox->key;
	/* Without a row the mailbox has it from the log, in a work's context. */
	lease->entity = pnstrdup(mailbox->entity, mailbox->entity_len);
	lease->token = mailbox->lease_token;
	lease->state = act_batch_state(state);
	lease->expires_at = mailbox->lease_until;
}

/*
 * Lend the next batch under a new token, with the state; or say why not.
 */
static Gate
give(BatchRun *state, const LeaseTerms *terms, Lease *lease)
{
	MessagesArgument messages;
	Gate		gate;

	act_mailbox_end_lease(&state->mailbox);
	act_args_begin_messages(&messages, HANDLER_JSONB);
	gate = find_batch(state, &messages);
	lease->messages = act_args_end_messages(&messages);
	if (gate == GATE_OPEN)
		gate = check_runnable(state, lease);
	else if (gate == GATE_EMPTY && terms->empty_too)
		gate = GATE_OPEN;
	if (gate == GATE_OPEN)
	{
		make_lease(state, terms, lease);
		act_mailbox_save(&state->work->mailboxes, &state->mailbox);
	}
	return gate;
}

/*
 * Lend an entity whose last lease, if any, has ended.  GATE_OPEN: it is lent,
 * with the row saved.  Else the gate says why it is not; lease->failed then
 * says that "runnable" has failed, and that this was saved in the row.
 */
Gate
act_lease_give(RunContext *work, Mailbox *mailbox, const LeaseTerms *terms,
			   Lease *lease)
{
	Gate		gate = act_mailbox_gate(mailbox);
	EntityRun	run;
	BatchRun	state;

	lease->failed = false;
	/* Not of the copy in the terms: it may be older than the hint. */
	if (gate == GATE_OPEN)
		gate = act_runner_gate(act_runner_find(terms->runner.id));
	if (gate != GATE_OPEN)
		return gate;

	act_batch_init(&run, &mailbox->key, NULL, 0, terms->runner.owner,
				   CurrentMemoryContext);
	run.max_messages = terms->max_messages;
	run.lend = true;
	MemSet(&state, 0, sizeof(state));
	state.work = work;
	state.run = &run;
	state.runner = &terms->runner;
	state.mailbox = *mailbox;
	gate = give(&state, terms, lease);
	*mailbox = state.mailbox;
	return gate;
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
 * Is nothing pending?  GATE_OPEN if that is not known.
 */
Gate
act_lease_look(RunContext *work, Mailbox *mailbox)
{
	PendingList list;

	if (mailbox->has_target)
		return GATE_OPEN;
	if (!act_pending_collect(&list, &work->messages, mailbox, &work->now, 1))
		return GATE_SEGMENT_LOCKED;
	return list.nitems == 0 ? GATE_EMPTY : GATE_OPEN;
}
