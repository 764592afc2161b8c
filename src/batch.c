/*
 * batch.c
 *	  The verb "take out": one visit of one entity.
 *
 * A visit, all within one (sub)transaction of the caller's:
 *	1. The caller holds the entity's lock, taken before act_work_open took
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
 * included.  The Visit then still says what was tried, for failure.c.
 *
 * Memory: a context for the batch that is reset between batches; what must
 * survive the transaction goes to the visit's own context.  A visit can be a
 * long one, so lists, plans and states that are replaced are freed.
 */
#include "postgres.h"

#include "access/xact.h"
#include "actornot.h"
#include "batch.h"
#include "call.h"
#include "catalog.h"
#include "cursor.h"
#include "leftover.h"
#include "mailbox.h"
#include "message.h"
#include "miscadmin.h"
#include "pending.h"
#include "runner.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "work.h"

/* A visit that is going on. */
typedef struct VisitState
{
	BatchWork  *work;
	Visit	   *visit;
	Runner		runner;			/* a copy: the cache may change under a call */
	HandlerForm form;
	Mailbox		mailbox;
	Cursor		target;
	bool		fresh;			/* the target is "now" of this visit */
	PendingList list;
	bool		list_collected; /* by this visit, and not a leftover */
	bool		dirty;			/* the row is to be saved */
	bool		runnable_known; /* asked in this visit already */
} VisitState;

/*
 * Start a visit's description; "entity" may be NULL when only its key is
 * known.
 */
void
act_batch_init_visit(Visit *visit, const EntityKey *key,
					 const char *entity, int entity_len,
					 Oid role, MemoryContext context)
{
	MemSet(visit, 0, sizeof(Visit));
	visit->key = *key;
	visit->role = role;
	visit->context = context;
	if (entity != NULL)
	{
		visit->entity = MemoryContextStrdup(context, entity);
		visit->entity_len = entity_len;
	}
}

/*
 * May this visit run the runner at all?  Sets the result if not.
 */
static bool
admit_runner(VisitState *state)
{
	Visit	   *visit = state->visit;
	const Runner *runner = act_runner_find(visit->key.runner);

	visit->result = VISIT_WAITING;
	if (runner == NULL || runner->paused)
		return false;
	if (runner->handler == NULL || runner->owner != visit->role)
	{
		visit->result = VISIT_MOVED;
		visit->owner = act_runner_pool(runner);
		return false;
	}
	state->runner = *runner;
	if (visit->runner_name == NULL)
		visit->runner_name = MemoryContextStrdup(visit->context, runner->name);
	if (runner->initial_state != (Datum) 0)
		state->runner.initial_state = datumCopy(runner->initial_state,
												false, -1);
	return true;
}

/*
 * Load the mailbox; false if it is not to be run now.
 */
static bool
admit_mailbox(VisitState *state)
{
	Visit	   *visit = state->visit;
	Mailbox    *mailbox = &state->mailbox;

	act_mailbox_init(mailbox, &visit->key, visit->entity, visit->entity_len);
	act_mailbox_load(&state->work->mailboxes, mailbox);
	visit->had_row = mailbox->exists;
	visit->tid = mailbox->tid;
	if (act_mailbox_is_leased(mailbox))
	{
		visit->result = VISIT_LEASED;
		visit->leased_until = mailbox->lease_until;
		return false;
	}
	act_mailbox_end_lease(mailbox);
	visit->result = VISIT_WAITING;
	if (act_mailbox_is_waiting(mailbox))
		return false;
	visit->result = VISIT_ALONE;
	return !visit->grouped ||
		(mailbox->attempts == 0 && mailbox->crashes == 0);
}

/*
 * A visit is no shorter than finding its work took.
 */
static void
stay_as_long(Visit *visit, TimestampTz start)
{
	if (start != 0)
	{
		TimestampTz now = GetCurrentTimestamp();

		visit->until = Max(visit->until, now + (now - start));
	}
}

/*
 * Collect pending entries under the row's target, or "now".  A pinned target
 * that has nothing left is finished, and "now" taken instead.  False if there
 * is nothing, or a segment cannot be read now.
 */
static bool
collect(VisitState *state)
{
	Mailbox    *mailbox = &state->mailbox;
	int			batch = state->visit->max_messages > 0 ?
	state->visit->max_messages : state->runner.batch_size;
	int			want = state->visit->until == 0 ? batch :
	ACT_PENDING_MAX;
	TimestampTz start = state->visit->until == 0 ? 0 : GetCurrentTimestamp();

	for (;;)
	{
		state->fresh = !mailbox->has_target;
		state->target = state->fresh ? state->work->now : mailbox->target;
		if (state->list_collected)
			act_pending_free(&state->list);
		state->list_collected = false;
		if (state->visit->until != 0 &&
			act_leftover_take(&state->list, &state->work->messages, mailbox))
			return true;
		if (!act_pending_collect(&state->list, &state->work->messages,
								 mailbox, &state->target, want))
		{
			state->visit->result = VISIT_BUSY;
			return false;
		}
		state->list_collected = true;
		if (state->list.nitems > 0)
		{
			stay_as_long(state->visit, start);
			return true;
		}
		Assert(state->list.complete);
		if (state->fresh)
		{
			state->visit->result = VISIT_EMPTY;
			return false;
		}
		act_work_finish_target(&state->mailbox, &state->target);
		state->dirty = true;
	}
}

/*
 * Set up the frame of a call for this visit.
 */
static void
init_frame(const VisitState *state, CallFrame *frame)
{
	MemSet(frame, 0, sizeof(CallFrame));
	frame->runner = state->runner.name;
	frame->entity = state->mailbox.entity;
	frame->owner = state->runner.owner;
	frame->timeout = state->runner.timeout;
	frame->fire_deferred = state->visit->fire_deferred;
}

/*
 * The arguments that handler and runnable have in common.
 */
static void
init_arguments(const VisitState *state, NullableDatum *args)
{
	Datum		value = state->mailbox.state;

	if (value == (Datum) 0)
		value = state->runner.initial_state;
	args[0].value = CStringGetTextDatum(state->mailbox.entity);
	args[0].isnull = false;
	args[1].value = value;
	args[1].isnull = (value == (Datum) 0);
}

/*
 * Ask the runner's "runnable", once a visit.
 */
static bool
is_runnable(VisitState *state)
{
	const Runner *runner = act_runner_find(state->visit->key.runner);
	HandlerCall *call;
	CallFrame	frame;
	NullableDatum args[2];
	bool		isnull;
	Datum		result;

	if (state->runnable_known || runner == NULL || runner->runnable == NULL)
		return true;

	state->visit->phase = PHASE_RESOLVE;
	call = act_runner_runnable(runner);
	state->visit->phase = PHASE_CALL;
	init_frame(state, &frame);
	init_arguments(state, args);
	result = act_call_function(&frame, &call->flinfo, args, 2, &isnull);
	state->visit->phase = PHASE_READ;
	state->runnable_known = true;
	return !isnull && DatumGetBool(result);
}

/*
 * Call the handler with a batch, and take the new state over.
 */
static void
call_handler(VisitState *state, HandlerCall *call, MessagesArgument *messages)
{
	Mailbox    *mailbox = &state->mailbox;
	CallFrame	frame;
	NullableDatum args[3];
	bool		isnull,
				returns_void = call->returns_void;
	Datum		result,
				replaced = mailbox->state;
	MemoryContext old;

	init_frame(state, &frame);
	frame.nmessages = messages->nmessages;
	frame.first_id = messages->first_id;
	frame.last_id = messages->last_id;
	init_arguments(state, args);
	args[2].value = act_call_end_messages(messages);
	args[2].isnull = false;

	state->visit->phase = PHASE_CALL;
	result = act_call_function(&frame, &call->flinfo, args, 3, &isnull);
	state->visit->phase = PHASE_READ;
	CHECK_FOR_INTERRUPTS();

	if (returns_void || isnull)
		mailbox->state = (Datum) 0;
	else
	{
		/* The batch's context goes; the state is needed until it is saved. */
		old = MemoryContextSwitchTo(state->work->visit_context);
		mailbox->state = PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
		MemoryContextSwitchTo(old);
	}
	if (replaced != (Datum) 0)
		pfree(DatumGetPointer(replaced));
}

/*
 * After an error the failure is recorded for what was tried: keep its target
 * where the transaction's end does not reach.
 */
static void
note_try(VisitState *state, int nmessages)
{
	Visit	   *visit = state->visit;
	MemoryContext old = MemoryContextSwitchTo(visit->context);

	if (visit->tried == 0)
		act_cursor_copy(&visit->target, &state->target);
	visit->tried = Max(nmessages, 1);
	if (visit->entity == NULL && state->mailbox.entity != NULL)
	{
		visit->entity = pstrdup(state->mailbox.entity);
		visit->entity_len = state->mailbox.entity_len;
	}
	MemoryContextSwitchTo(old);
}

/*
 * Run one batch out of the collected list.  False if the entity is not
 * runnable.
 */
static bool
run_batch(VisitState *state)
{
	MessagesArgument messages;
	const Runner *runner;
	HandlerCall *call;
	MemoryContext old = MemoryContextSwitchTo(state->work->batch_context);
	int64		last_id;

	/* Only the first batch of a visit can be one that another try pinned. */
	state->visit->phase = PHASE_RESOLVE;
	note_try(state, 1);
	runner = act_runner_find(state->visit->key.runner);
	if (runner == NULL)
		elog(ERROR, "runner went away under a batch");
	call = act_runner_handler(runner);
	state->form = call->form;
	state->visit->phase = PHASE_READ;

	act_call_begin_messages(&messages, state->form);
	last_id = act_work_take(state->work, &state->mailbox, &state->list,
							state->visit->max_messages > 0 ?
							state->visit->max_messages :
							state->runner.batch_size,
							state->runner.batch_bytes, &messages);
	if (messages.nmessages > 0)
	{
		note_try(state, messages.nmessages);
		if (!is_runnable(state))
		{
			act_call_end_messages(&messages);
			MemoryContextSwitchTo(old);
			return false;
		}
		call_handler(state, call, &messages);
		state->visit->consumed += messages.nmessages;
		state->visit->batches++;
	}
	else
		act_call_end_messages(&messages);
	MemoryContextSwitchTo(old);
	MemoryContextReset(state->work->batch_context);

	/* What was consumed, and what is left under this target. */
	if (!state->mailbox.has_target)
		act_work_pin(&state->mailbox, &state->target);
	if (messages.nmessages > 0)
		act_work_consume(&state->mailbox, last_id);
	else
		state->mailbox.last_id = last_id;	/* the head is still the head */
	if (state->list.complete && state->list.next >= state->list.nitems)
		act_work_finish_target(&state->mailbox, &state->target);
	state->dirty = true;
	return true;
}

/*
 * The plan of what is left under the pinned target.
 */
static void
renew_plan(VisitState *state)
{
	Mailbox    *mailbox = &state->mailbox;

	if (mailbox->plan != NULL)
		pfree(mailbox->plan);
	mailbox->plan = act_pending_pack_plan(&state->list, mailbox->last_id);
}

/*
 * Save the row, if the visit changed anything, and say what is left.
 */
static void
save(VisitState *state)
{
	Mailbox    *mailbox = &state->mailbox;

	if (!state->dirty || mailbox->entity == NULL)
		return;
	if (mailbox->has_target)
	{
		renew_plan(state);
		if (state->visit->until != 0)
			act_leftover_keep(&state->list, &state->work->messages, mailbox);
	}
	act_mailbox_save(&state->work->mailboxes, mailbox);
}

/*
 * Run batches until nothing is left, time is over, or one batch was asked
 * for.
 */
static void
run_batches(VisitState *state)
{
	Visit	   *visit = state->visit;
	Mailbox    *mailbox = &state->mailbox;

	for (;;)
	{
		if (!collect(state))
			return;
		while (state->list.next < state->list.nitems)
		{
			if (!run_batch(state))
			{
				visit->result = VISIT_WAITING;
				return;
			}
			visit->result = VISIT_MORE;
			if (visit->until == 0 || GetCurrentTimestamp() >= visit->until)
			{
				/* The target was "now", taken after the entry was popped. */
				if (state->fresh && !mailbox->has_target)
					visit->result = VISIT_EMPTY;
				return;
			}
		}
		if (!mailbox->has_target && state->fresh)
		{
			visit->result = VISIT_EMPTY;
			return;
		}
		if (mailbox->has_target)
			renew_plan(state);
	}
}

/*
 * Visit an entity whose lock is held.  The caller has marked its run as open
 * (act_mailbox_begin_run).
 */
void
act_batch_visit(BatchWork *work, Visit *visit)
{
	VisitState	state;
	MemoryContext old = MemoryContextSwitchTo(work->visit_context);

	MemSet(&state, 0, sizeof(state));
	state.work = work;
	state.visit = visit;
	visit->phase = PHASE_READ;
	visit->tried = 0;
	visit->consumed = 0;
	visit->batches = 0;
	visit->reached = false;

	if (admit_runner(&state) && admit_mailbox(&state))
	{
		PushActiveSnapshot(work->snapshot);
		run_batches(&state);
		PopActiveSnapshot();
		save(&state);
		visit->reached = visit->goal != NULL &&
			act_cursor_covers(&state.mailbox.done, visit->goal);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(work->batch_context);
	MemoryContextResetOnly(work->visit_context);	/* keeps its child */
}
