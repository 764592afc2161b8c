/*
 * batch.c
 *	  The verb "take out": one visit of one entity.
 *
 * A visit, all within one (sub)transaction of the caller's:
 *	1. The caller holds the entity's lock, taken before act_head_open took
 *	   the snapshot "now" (or else what the last holder wrote could be unseen).
 *	2. Load the mailbox row.  Leased, paused, backing off: pass by.
 *	   A lease that has ended is taken over, if the row is saved.
 *	3. The target is the row's pinned one, else "now".
 *	4. Collect what is pending, take a batch of it, call the handler.
 *	5. If that was all of the pending ones, done := target; else the target
 *	   stays pinned and last_id says how far we came.
 *	6. Save the row, once for all batches of the visit.
 * Worker, actornot_run, actornot_drain and the leases are callers of this.
 *
 * If the process dies at any point, or any step fails, the transaction (or
 * the caller's subtransaction) undoes all of it, the handler's effects
 * included.  The EntityRun then still says what was tried, for retry.c.
 *
 * Memory: a context for the batch that is reset between batches; what must
 * survive the transaction goes to the visit's own context.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "common/cursor.h"
#include "common/entity.h"
#include "exec/args.h"
#include "exec/batch.h"
#include "exec/call.h"
#include "exec/visit.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"
#include "runner/handler.h"
#include "runner/runner.h"

/*
 * Keep the state that came back until it is saved: the batch's context goes.
 */
static void
set_state(BatchRun *state, Datum value)
{
	MemoryContext old = MemoryContextSwitchTo(state->work->entity_context);
	Datum		replaced = state->mailbox.state;

	/* First the copy: what came back may be what was given. */
	state->mailbox.state = value == (Datum) 0 ? (Datum) 0 :
		PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	if (replaced != (Datum) 0)
		pfree(DatumGetPointer(replaced));
	MemoryContextSwitchTo(old);
}

/*
 * Call a handler that takes one entity.
 */
static void
call_single(BatchRun *state, HandlerCall *call, MessagesArgument *messages)
{
	CallFrame	frame;
	NullableDatum args[3];
	bool		isnull,
				returns_void = call->returns_void;
	Datum		result;

	act_visit_init_frame(state, &frame);
	frame.nmessages = messages->nmessages;
	frame.first_id = messages->first_id;
	frame.last_id = messages->last_id;
	act_visit_set_arguments(state, args);
	args[2].value = act_args_end_messages(messages);
	args[2].isnull = false;
	result = act_call_function(&frame, &call->flinfo, args, 3, &isnull);
	set_state(state, returns_void || isnull ? (Datum) 0 : result);
}

/*
 * Call a handler that takes many entities, with this one alone.
 */
static void
call_whole(BatchRun *state, HandlerCall *call, MessagesArgument *messages)
{
	Mailbox    *mailbox = &state->mailbox;
	CallFrame	frame;
	WholeCall	whole;

	act_visit_init_frame(state, &frame);
	act_args_begin_call(&whole);
	act_args_add_entity(&whole, mailbox->entity, mailbox->entity_len,
						act_visit_current_state(state), messages);
	act_args_end_messages(messages);
	act_args_call_many(&whole, &frame, &call->flinfo, CurrentMemoryContext);
	if (whole.entities[0].answered)
		set_state(state, whole.entities[0].state);
}

/*
 * Call the handler with a batch, and take the new state over.
 */
static void
call_handler(BatchRun *state, HandlerCall *call, MessagesArgument *messages)
{
	state->visit->phase = PHASE_CALL;
	if (call->form == HANDLER_WHOLE)
		call_whole(state, call, messages);
	else
		call_single(state, call, messages);
	state->visit->phase = PHASE_READ;
	CHECK_FOR_INTERRUPTS();
}

/*
 * After an error the failure is recorded for what was tried: keep its target
 * where the transaction's end does not reach.  That is the one of the first
 * call, for there the next try begins; before it there may have been another
 * one, pinned, under which nothing was left that can be seen.
 */
static void
note_target(BatchRun *state)
{
	EntityRun  *visit = state->visit;
	MemoryContext old = MemoryContextSwitchTo(visit->context);

	if (visit->batches == 0)
		act_cursor_copy(&visit->target, &state->target);
	MemoryContextSwitchTo(old);
}

/*
 * The same, for who is to be blamed and how much was tried.
 */
static void
note_try(BatchRun *state, int nmessages)
{
	EntityRun  *visit = state->visit;
	MemoryContext old = MemoryContextSwitchTo(visit->context);

	visit->tried = Max(nmessages, 1);
	if (visit->entity == NULL && state->mailbox.entity != NULL)
	{
		visit->entity = pstrdup(state->mailbox.entity);
		visit->entity_len = state->mailbox.entity_len;
	}
	MemoryContextSwitchTo(old);
}

/*
 * Run one batch out of the collected list.  False if it is not to be run now;
 * the result says why.
 */
static bool
run_batch(BatchRun *state)
{
	MessagesArgument messages;
	HandlerCall *call;
	MemoryContext old = MemoryContextSwitchTo(state->work->batch_context);
	int64		last_id;

	/* Only the first batch of a visit can be one that another try pinned. */
	state->visit->phase = PHASE_RESOLVE;
	note_target(state);
	note_try(state, 1);
	call = act_visit_find_handler(state->runner);
	if (call == NULL)
	{
		state->visit->phase = PHASE_READ;
		state->visit->result = RUN_MORE;	/* the next one will find out */
		MemoryContextSwitchTo(old);
		return false;
	}
	state->visit->whole = (call->form == HANDLER_WHOLE);
	state->visit->phase = PHASE_READ;

	act_args_begin_messages(&messages, call->form);
	last_id = act_visit_take(state->work, &state->mailbox, &state->list,
							 act_visit_batch_size(state),
							 state->runner->batch_bytes, &messages);
	if (messages.nmessages > 0)
	{
		note_try(state, messages.nmessages);
		if (!act_visit_is_runnable(state))
		{
			act_args_end_messages(&messages);
			state->visit->result = RUN_WAITING;
			MemoryContextSwitchTo(old);
			return false;
		}
		call_handler(state, call, &messages);
		state->visit->consumed += messages.nmessages;
		state->visit->batches++;
	}
	else
		act_args_end_messages(&messages);
	MemoryContextSwitchTo(old);
	MemoryContextReset(state->work->batch_context);

	/* What was consumed, and what is left under this target. */
	act_head_advance(&state->mailbox, &state->target, last_id,
					 messages.nmessages > 0,
					 state->list.complete &&
					 state->list.next >= state->list.nitems);
	state->dirty = true;
	return true;
}

/*
 * Run batches until nothing is left, time is over, or one batch was asked
 * for.  What is pending has been collected.
 */
static void
run_batches(BatchRun *state)
{
	EntityRun  *visit = state->visit;
	Mailbox    *mailbox = &state->mailbox;

	for (;;)
	{
		while (state->list.next < state->list.nitems)
		{
			if (!run_batch(state))
				return;
			visit->result = RUN_MORE;
			if (visit->until == 0 || GetCurrentTimestamp() >= visit->until)
			{
				/* The target was "now", taken after the entry was popped. */
				if (state->fresh && !mailbox->has_target)
					visit->result = RUN_EMPTY;
				return;
			}
		}
		if (!mailbox->has_target && state->fresh)
		{
			visit->result = RUN_EMPTY;
			return;
		}
		if (mailbox->has_target)
			act_visit_renew_plan(state);
		if (!act_visit_collect(state))
			return;
	}
}

/*
 * Run what has been collected for an entity, and save it.  The snapshot of
 * the work is the active one.
 */
void
act_batch_go_on(BatchRun *state)
{
	run_batches(state);
	act_visit_save(state);
}

/*
 * EntityRun an entity whose lock is held.  The caller has marked its run as open
 * (act_entity_begin_run).
 */
void
act_batch_visit(RunContext *work, EntityRun *visit)
{
	BatchRun	state;
	Runner		runner;
	MemoryContext old = MemoryContextSwitchTo(work->entity_context);

	MemSet(&state, 0, sizeof(state));
	state.work = work;
	state.visit = visit;
	state.runner = &runner;
	visit->phase = PHASE_READ;
	visit->tried = 0;
	visit->consumed = 0;
	visit->batches = 0;
	visit->reached = false;

	if (act_visit_admit_runner(visit, &runner) &&
		act_visit_admit_mailbox(&state))
	{
		PushActiveSnapshot(work->snapshot);
		if (act_visit_collect(&state))
			run_batches(&state);
		act_visit_save(&state);
		PopActiveSnapshot();
		act_visit_note_reached(&state);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(work->batch_context);
	MemoryContextResetOnly(work->entity_context);	/* keeps its child */
}
