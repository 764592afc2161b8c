/*
 * batch.c
 *	  One run of one entity: from its gates to its saved row.
 *
 * A run, all within one (sub)transaction of the caller's:
 *	1. The caller holds the entity's lock, taken before act_head_open took
 *	   the snapshot "now" (else what the last holder wrote could be unseen).
 *	2. Load the mailbox row.  Leased, paused, backing off: a gate is closed.
 *	   A lease that has ended is taken over, if the row is saved.
 *	3. The target is the row's pinned one, else "now".
 *	4. Collect what is pending, take a batch of it, call the handler.
 *	5. If that was all of the pending ones, done := target; else the target
 *	   stays pinned and last_id says how far the run came.
 *	6. Save the row, once for all batches of the run.
 * Workers, actornot_run and actornot_drain do this for one entity
 * (act_batch_run); group.c and lease.c share the steps.
 *
 * A step returns the gate that it found closed, GATE_OPEN if none.  The run
 * carries the gate that ended it; sched/gate.c says what follows from that for
 * the entity's hint.  GATE_EMPTY is returned only if nothing is pending under
 * "now" of this run, which is newer than the lock and so than the pop.
 *
 * If the process dies at any point, or any step fails, the transaction (or
 * the caller's subtransaction) undoes all of it, the handler's effects
 * included.  The EntityRun then still says what was tried, for retry.c.
 *
 * Memory: a context for the entity, in which the caller of a step is, and one
 * for the batch that is reset between batches; what must survive the
 * transaction goes to the run's own context.  A run can be a long one, so
 * lists, plans and states that are replaced are freed.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "common/cursor.h"
#include "exec/args.h"
#include "exec/batch.h"
#include "exec/call.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"
#include "runner/handler.h"
#include "runner/runner.h"

/* ---- what a user's function gets ---- */

/*
 * Set up the frame of a call for this run.
 */
void
act_batch_init_frame(const BatchRun *state, CallFrame *frame)
{
	MemSet(frame, 0, sizeof(CallFrame));
	frame->runner = state->runner->name;
	frame->entity = state->mailbox.entity;
	frame->owner = state->runner->owner;
	frame->timeout = state->runner->timeout;
	frame->fire_deferred = state->run->fire_deferred;
}

/*
 * The state that the handler is to see, 0 for NULL.
 */
Datum
act_batch_state(const BatchRun *state)
{
	return state->mailbox.state != (Datum) 0 ?
		state->mailbox.state : state->runner->initial_state;
}

/*
 * The arguments that handler and runnable have in common.
 */
static void
set_arguments(const BatchRun *state, NullableDatum *args)
{
	Datum		value = act_batch_state(state);

	args[0].value = CStringGetTextDatum(state->mailbox.entity);
	args[0].isnull = false;
	args[1].value = value;
	args[1].isnull = (value == (Datum) 0);
}

/* ---- gates ---- */

/*
 * Start a run's description; "entity" may be NULL when only its key is
 * known.
 */
void
act_batch_init(EntityRun *run, const EntityKey *key,
			   const char *entity, int entity_len,
			   Oid role, MemoryContext context)
{
	MemSet(run, 0, sizeof(EntityRun));
	run->key = *key;
	run->role = role;
	run->context = context;
	run->pace = -1;
	if (entity != NULL)
	{
		run->entity = MemoryContextStrdup(context, entity);
		run->entity_len = entity_len;
	}
}

/*
 * May this run run the runner at all?  If so it is copied, with what it
 * points to that a call needs.
 */
Gate
act_batch_admit_runner(EntityRun *run, Runner *copy)
{
	const Runner *runner = act_runner_find(run->key.runner);
	Gate		gate = act_runner_gate(runner);

	if (gate != GATE_OPEN)
		return gate;
	if (runner->handler == NULL || runner->owner != run->role)
	{
		run->owner = act_runner_pool(runner);
		return GATE_OTHER_POOL;
	}
	*copy = *runner;
	if (run->runner_name == NULL)
		run->runner_name = MemoryContextStrdup(run->context, runner->name);
	if (runner->initial_state != (Datum) 0)
		copy->initial_state = datumCopy(runner->initial_state, false, -1);
	return GATE_OPEN;
}

/*
 * The handler of a runner that was admitted.  It may have been unregistered
 * since: an earlier call may have taken long.  NULL if it has no handler any
 * more, or another owner: then it is no longer to be run here.
 */
HandlerCall *
act_batch_find_handler(const Runner *copy)
{
	const Runner *runner = act_runner_find(copy->id);

	if (runner == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("runner \"%s\" does not exist any more",
						copy->name)));
	return runner->owner == copy->owner ? act_handler_get(runner) : NULL;
}

/*
 * Load the mailbox; is the entity to be run now?
 */
Gate
act_batch_admit_mailbox(BatchRun *state)
{
	EntityRun  *run = state->run;
	Mailbox    *mailbox = &state->mailbox;
	Gate		gate;

	act_mailbox_init(mailbox, &run->key, run->entity, run->entity_len);
	act_mailbox_load(&state->work->mailboxes, mailbox);
	run->tid = mailbox->tid;
	gate = act_mailbox_gate(mailbox);
	if (gate == GATE_LEASED)
		run->leased_until = mailbox->lease_until;
	if (gate != GATE_OPEN)
		return gate;
	act_mailbox_end_lease(mailbox);
	if (run->grouped && (mailbox->attempts > 0 || mailbox->crashes > 0))
		return GATE_NOT_SHARED;
	return GATE_OPEN;
}

/*
 * Ask the runner's "runnable", once a run.
 */
Gate
act_batch_ask_runnable(BatchRun *state)
{
	EntityRun  *run = state->run;
	const Runner *runner = act_runner_find(run->key.runner);
	HandlerCall *call;
	CallFrame	frame;
	NullableDatum args[2];
	bool		isnull;
	Datum		result;

	if (state->runnable_known ||
		(runner != NULL && runner->runnable == NULL))
		return GATE_OPEN;

	/* What is not its owner's any more is not run with his rights. */
	if (runner == NULL || runner->owner != state->runner->owner)
		return GATE_NOT_RUNNABLE;
	run->phase = PHASE_RESOLVE;
	call = act_handler_get_runnable(runner);
	run->phase = PHASE_CALL;
	act_batch_init_frame(state, &frame);
	set_arguments(state, args);
	result = act_call_function(&frame, &call->flinfo, args, 2, &isnull);
	run->phase = PHASE_READ;
	state->runnable_known = true;
	return !isnull && DatumGetBool(result) ? GATE_OPEN : GATE_NOT_RUNNABLE;
}

/* ---- what is pending ---- */

/*
 * How many messages a batch has at most.
 */
int
act_batch_size(const BatchRun *state)
{
	return state->run->max_messages > 0 ?
		state->run->max_messages : state->runner->batch_size;
}

/*
 * Is what this run finds and does not come to kept in memory for the next one?
 */
static bool
keeps_leftover(const EntityRun *run)
{
	return run->until != 0 || run->lend;
}

/*
 * Collect pending entries under the row's target, or "now".  A pinned target
 * that has nothing left is finished, and "now" taken instead.
 */
Gate
act_batch_collect(BatchRun *state)
{
	EntityRun  *run = state->run;
	Mailbox    *mailbox = &state->mailbox;
	int			want = run->until == 0 ?
	act_batch_size(state) : ACT_PENDING_MAX;
	TimestampTz start = run->until == 0 ? 0 : GetCurrentTimestamp();

	for (;;)
	{
		state->fresh = !mailbox->has_target;
		state->target = state->fresh ? state->work->now : mailbox->target;
		if (state->list_collected)
			act_pending_free(&state->list);
		state->list_collected = false;
		if (keeps_leftover(run) &&
			act_pending_take_leftover(&state->list, &state->work->messages, mailbox))
			return GATE_OPEN;
		if (!act_pending_collect(&state->list, &state->work->messages,
								 mailbox, &state->target, want))
			return GATE_SEGMENT_LOCKED;
		state->list_collected = true;
		if (state->list.nitems > 0)
		{
			/* A run is no shorter than finding its work took. */
			if (start != 0)
			{
				TimestampTz now = GetCurrentTimestamp();

				run->until = Max(run->until, now + (now - start));
			}
			return GATE_OPEN;
		}
		Assert(state->list.complete);
		if (state->fresh)
			return GATE_EMPTY;
		act_head_advance(mailbox, &state->target, mailbox->last_id, false,
						 true);
		state->dirty = true;
	}
}

/*
 * Has all been taken that is pending under the target?
 */
bool
act_batch_took_all(const BatchRun *state)
{
	return state->list.complete && state->list.next >= state->list.nitems;
}

/*
 * Take the next batch out of the list: no more messages and bytes than the run
 * and the runner allow, but at least one message.  Returns the id up
 * to which the list has been taken, 0 if nothing was left in it.
 */
int64
act_batch_take(BatchRun *state, MessagesArgument *messages)
{
	RunContext *work = state->work;
	Mailbox    *mailbox = &state->mailbox;
	PendingList *list = &state->list;
	int			limit = act_batch_size(state);
	Size		limit_bytes = state->runner->batch_bytes;
	int64		last_id = 0;

	if (messages->is_jsonb)
		limit_bytes = Min(limit_bytes, ACT_MAX_JSONB_BYTES);

	/* A head that has failed runs alone. */
	if (mailbox->attempts > 0 || mailbox->crashes > 0)
		limit = 1;

	while (list->next < list->nitems && messages->nmessages < limit)
	{
		const LogEntry *item = &list->items[list->next];
		MessageRow	row;

		/* A copy of what was just taken. */
		if (item->at.id == list->taken_id)
		{
			last_id = item->at.id;
			list->next++;
			continue;
		}
		if (act_head_fetch(work, mailbox, item, &row))
		{
			if (messages->nmessages > 0 &&
				messages->bytes + act_args_message_size(row.payload, row.headers) >
				limit_bytes)
			{
				/* Nor is it taken if another copy of it was met before. */
				if (last_id == item->at.id)
					last_id = list->taken_id;
				break;
			}
			act_args_add_message(messages, &row, mailbox->attempts + 1);
			list->taken_id = item->at.id;
		}
		last_id = item->at.id;
		list->next++;
	}
	return last_id;
}

/*
 * The plan of what is left under the pinned target.
 */
static void
renew_plan(BatchRun *state)
{
	Mailbox    *mailbox = &state->mailbox;

	if (mailbox->plan != NULL)
		pfree(mailbox->plan);
	mailbox->plan = act_pending_pack_plan(&state->list, mailbox->last_id);
}

/*
 * Before a row with a pinned target is saved: plan what is left under it, and
 * keep what was found and not come to.
 */
void
act_batch_keep_rest(BatchRun *state)
{
	renew_plan(state);
	if (keeps_leftover(state->run))
		act_pending_keep_leftover(&state->list, &state->work->messages,
								  &state->mailbox);
}

/*
 * Save the row, if the run changed anything.
 */
void
act_batch_save(BatchRun *state)
{
	Mailbox    *mailbox = &state->mailbox;

	if (!state->dirty || mailbox->entity == NULL)
		return;
	if (mailbox->has_target)
		act_batch_keep_rest(state);
	act_mailbox_save(&state->work->mailboxes, mailbox);
}

/*
 * Is all done that the caller asked for?
 */
void
act_batch_note_reached(BatchRun *state)
{
	EntityRun  *run = state->run;

	run->reached = run->goal != NULL &&
		act_cursor_covers(&state->mailbox.done, run->goal);
}

/* ---- the call ---- */

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

	act_batch_init_frame(state, &frame);
	frame.nmessages = messages->nmessages;
	frame.first_id = messages->first_id;
	frame.last_id = messages->last_id;
	set_arguments(state, args);
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

	act_batch_init_frame(state, &frame);
	act_args_begin_call(&whole);
	act_args_add_entity(&whole, mailbox->entity, mailbox->entity_len,
						act_batch_state(state), messages);
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
	state->run->phase = PHASE_CALL;
	if (call->form == HANDLER_WHOLE)
		call_whole(state, call, messages);
	else
		call_single(state, call, messages);
	state->run->phase = PHASE_READ;
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
	EntityRun  *run = state->run;
	MemoryContext old = MemoryContextSwitchTo(run->context);

	if (run->batches == 0)
		act_cursor_copy(&run->target, &state->target);
	MemoryContextSwitchTo(old);
}

/*
 * Keep there whose run it is, also if no call gets so far.
 */
void
act_batch_note_entity(EntityRun *run, const Mailbox *mailbox)
{
	if (run->entity != NULL || mailbox->entity == NULL)
		return;
	run->entity = MemoryContextStrdup(run->context, mailbox->entity);
	run->entity_len = mailbox->entity_len;
}

/* ---- the run ---- */

/*
 * Run one batch out of the collected list.  False if it is not to be run now;
 * the run's gate says why.
 */
static bool
run_batch(BatchRun *state)
{
	EntityRun  *run = state->run;
	MessagesArgument messages;
	HandlerCall *call;
	MemoryContext old = MemoryContextSwitchTo(state->work->batch_context);
	int64		last_id;

	/* Only the first batch of a run can be one that another try pinned. */
	run->phase = PHASE_RESOLVE;
	note_target(state);
	run->tried = 1;
	act_batch_note_entity(run, &state->mailbox);
	call = act_batch_find_handler(state->runner);
	run->phase = PHASE_READ;
	run->gate = GATE_OPEN;
	if (call == NULL)
	{
		MemoryContextSwitchTo(old);
		return false;			/* the next run will find out */
	}
	run->whole = (call->form == HANDLER_WHOLE);

	act_args_begin_messages(&messages, call->form);
	last_id = act_batch_take(state, &messages);
	if (messages.nmessages > 0)
	{
		run->tried = messages.nmessages;
		act_batch_note_entity(run, &state->mailbox);
		run->gate = act_batch_ask_runnable(state);
	}
	if (messages.nmessages > 0 && run->gate == GATE_OPEN)
	{
		call_handler(state, call, &messages);
		run->consumed += messages.nmessages;
		run->batches++;
	}
	else
		act_args_end_messages(&messages);
	MemoryContextSwitchTo(old);
	if (run->gate != GATE_OPEN)
		return false;
	MemoryContextReset(state->work->batch_context);
	act_head_advance(&state->mailbox, &state->target, last_id,
					 messages.nmessages > 0, act_batch_took_all(state));
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
	EntityRun  *run = state->run;
	Mailbox    *mailbox = &state->mailbox;

	do
	{
		bool		over = false;

		while (!over && state->list.next < state->list.nitems)
		{
			if (!run_batch(state))
				return;
			over = run->until == 0 || GetCurrentTimestamp() >= run->until;
		}
		if (state->fresh && !mailbox->has_target)
		{
			/* The target was "now", taken after the entry was popped. */
			run->gate = GATE_EMPTY;
			return;
		}
		if (over)
			return;
		if (mailbox->has_target)
			renew_plan(state);
		run->gate = act_batch_collect(state);
	} while (run->gate == GATE_OPEN);
}

/*
 * Run what has been collected for an entity, if its gate is open, and save it.
 * The snapshot of the work is the active one.
 */
void
act_batch_go_on(BatchRun *state)
{
	if (state->run->gate == GATE_OPEN)
		run_batches(state);
	act_batch_save(state);
	act_batch_note_reached(state);
}

/*
 * Run an entity whose lock is held.  The caller has marked its run as open
 * (act_entity_begin_run).
 */
void
act_batch_run(RunContext *work, EntityRun *run)
{
	BatchRun	state;
	Runner		runner;
	MemoryContext old = MemoryContextSwitchTo(work->entity_context);

	MemSet(&state, 0, sizeof(state));
	state.work = work;
	state.run = run;
	state.runner = &runner;
	run->phase = PHASE_READ;
	run->tried = 0;
	run->consumed = 0;
	run->batches = 0;
	run->reached = false;

	run->gate = act_batch_admit_runner(run, &runner);
	if (run->gate == GATE_OPEN)
		run->gate = act_batch_admit_mailbox(&state);
	if (run->gate == GATE_OPEN)
	{
		PushActiveSnapshot(work->snapshot);
		run->gate = act_batch_collect(&state);
		act_batch_go_on(&state);
		PopActiveSnapshot();
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(work->batch_context);
	MemoryContextResetOnly(work->entity_context);	/* keeps its child */
}
