/*
 * visit.c
 *	  The steps of a visit: what comes before and after the handler's call.
 *
 * What a visit of one entity (batch.c) and one of many in a call
 * (group.c) have in common: may its runner be run here, and the entity
 * now; what is pending, and under which target; is it "runnable"; and the
 * saving of its row.  batch.c tells the order.
 *
 * Memory: in the current context, which lasts until the row is saved; what
 * must survive the transaction goes to the visit's own context.  A visit can
 * be a long one, so lists, plans and states that are replaced are freed.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "common/cursor.h"
#include "exec/args.h"
#include "exec/call.h"
#include "exec/visit.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"
#include "runner/handler.h"
#include "runner/runner.h"

/*
 * Start a visit's description; "entity" may be NULL when only its key is
 * known.
 */
void
act_visit_init(EntityRun *visit, const EntityKey *key,
			   const char *entity, int entity_len,
			   Oid role, MemoryContext context)
{
	MemSet(visit, 0, sizeof(EntityRun));
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
 * May this visit run the runner at all?  If so it is copied, with what it
 * points to that a call needs; else the result is set.
 */
bool
act_visit_admit_runner(EntityRun *visit, Runner *copy)
{
	const Runner *runner = act_runner_find(visit->key.runner);

	visit->result = RUN_WAITING;
	if (runner == NULL || runner->paused)
		return false;
	if (runner->handler == NULL || runner->owner != visit->role)
	{
		visit->result = RUN_MOVED;
		visit->owner = act_runner_pool(runner);
		return false;
	}
	*copy = *runner;
	if (visit->runner_name == NULL)
		visit->runner_name = MemoryContextStrdup(visit->context, runner->name);
	if (runner->initial_state != (Datum) 0)
		copy->initial_state = datumCopy(runner->initial_state, false, -1);
	return true;
}

/*
 * The handler of a runner that was admitted.  It may have been unregistered
 * since: an earlier call may have taken long.  NULL if it has no handler any
 * more, or another owner: then it is no longer to be run here.
 */
HandlerCall *
act_visit_find_handler(const Runner *copy)
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
 * Load the mailbox; false if it is not to be run now.
 */
bool
act_visit_admit_mailbox(BatchRun *state)
{
	EntityRun  *visit = state->visit;
	Mailbox    *mailbox = &state->mailbox;

	act_mailbox_init(mailbox, &visit->key, visit->entity, visit->entity_len);
	act_mailbox_load(&state->work->mailboxes, mailbox);
	visit->had_row = mailbox->exists;
	visit->tid = mailbox->tid;
	if (act_mailbox_is_leased(mailbox))
	{
		visit->result = RUN_LEASED;
		visit->leased_until = mailbox->lease_until;
		return false;
	}
	act_mailbox_end_lease(mailbox);
	visit->result = RUN_WAITING;
	if (act_mailbox_is_waiting(mailbox))
		return false;
	visit->result = RUN_ALONE;
	return !visit->grouped ||
		(mailbox->attempts == 0 && mailbox->crashes == 0);
}

/*
 * How many messages a batch has at most.
 */
int
act_visit_batch_size(const BatchRun *state)
{
	return state->visit->max_messages > 0 ?
		state->visit->max_messages : state->runner->batch_size;
}

/*
 * A visit is no shorter than finding its work took.
 */
static void
stay_as_long(EntityRun *visit, TimestampTz start)
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
bool
act_visit_collect(BatchRun *state)
{
	Mailbox    *mailbox = &state->mailbox;
	int			want = state->visit->until == 0 ?
	act_visit_batch_size(state) : ACT_PENDING_MAX;
	TimestampTz start = state->visit->until == 0 ? 0 : GetCurrentTimestamp();

	for (;;)
	{
		state->fresh = !mailbox->has_target;
		state->target = state->fresh ? state->work->now : mailbox->target;
		if (state->list_collected)
			act_pending_free(&state->list);
		state->list_collected = false;
		if (state->visit->until != 0 &&
			act_pending_take_leftover(&state->list, &state->work->messages, mailbox))
			return true;
		if (!act_pending_collect(&state->list, &state->work->messages,
								 mailbox, &state->target, want))
		{
			state->visit->result = RUN_BUSY;
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
			state->visit->result = RUN_EMPTY;
			return false;
		}
		act_head_advance(mailbox, &state->target, mailbox->last_id, false,
						 true);
		state->dirty = true;
	}
}

/*
 * Take the next batch out of a list: "limit" messages, "limit_bytes" bytes
 * (but at least one message).  Returns the id up to which the list has been
 * taken, 0 if it held nothing any more.
 */
int64
act_visit_take(RunContext *work, Mailbox *mailbox, PendingList *list,
			   int limit, Size limit_bytes, MessagesArgument *messages)
{
	int64		last_id = 0;

	if (messages->is_jsonb)
		limit_bytes = Min(limit_bytes, ACT_MAX_JSONB_BYTES);

	/* A head that has failed runs alone. */
	if (mailbox->attempts > 0 || mailbox->crashes > 0)
		limit = 1;

	while (list->next < list->nitems && messages->nmessages < limit)
	{
		const PendingItem *item = &list->items[list->next];
		MessageRow	row;

		/* A copy of what was just taken. */
		if (item->id == list->taken_id)
		{
			last_id = item->id;
			list->next++;
			continue;
		}
		if (act_head_fetch(work, mailbox, item, &row))
		{
			if (messages->nmessages > 0 &&
				messages->bytes + act_args_message_size(&row) > limit_bytes)
			{
				/* Nor is it taken if another copy of it was met before. */
				if (last_id == item->id)
					last_id = list->taken_id;
				break;
			}
			act_args_add_message(messages, &row, mailbox->attempts + 1);
			list->taken_id = item->id;
		}
		last_id = item->id;
		list->next++;
	}
	return last_id;
}

/*
 * Set up the frame of a call for this visit.
 */
void
act_visit_init_frame(const BatchRun *state, CallFrame *frame)
{
	MemSet(frame, 0, sizeof(CallFrame));
	frame->runner = state->runner->name;
	frame->entity = state->mailbox.entity;
	frame->owner = state->runner->owner;
	frame->timeout = state->runner->timeout;
	frame->fire_deferred = state->visit->fire_deferred;
}

/*
 * The state that the handler is to see, 0 for NULL.
 */
Datum
act_visit_current_state(const BatchRun *state)
{
	return state->mailbox.state != (Datum) 0 ?
		state->mailbox.state : state->runner->initial_state;
}

/*
 * The arguments that handler and runnable have in common.
 */
void
act_visit_set_arguments(const BatchRun *state, NullableDatum *args)
{
	Datum		value = act_visit_current_state(state);

	args[0].value = CStringGetTextDatum(state->mailbox.entity);
	args[0].isnull = false;
	args[1].value = value;
	args[1].isnull = (value == (Datum) 0);
}

/*
 * Ask the runner's "runnable", once a visit.
 */
bool
act_visit_is_runnable(BatchRun *state)
{
	const Runner *runner = act_runner_find(state->visit->key.runner);
	HandlerCall *call;
	CallFrame	frame;
	NullableDatum args[2];
	bool		isnull;
	Datum		result;

	if (state->runnable_known || runner == NULL || runner->runnable == NULL)
		return true;

	/* What is not its owner's any more is not run with his rights. */
	if (runner->owner != state->runner->owner)
		return false;
	state->visit->phase = PHASE_RESOLVE;
	call = act_handler_get_runnable(runner);
	state->visit->phase = PHASE_CALL;
	act_visit_init_frame(state, &frame);
	act_visit_set_arguments(state, args);
	result = act_call_function(&frame, &call->flinfo, args, 2, &isnull);
	state->visit->phase = PHASE_READ;
	state->runnable_known = true;
	return !isnull && DatumGetBool(result);
}

/*
 * Is all done that the caller asked for?
 */
void
act_visit_note_reached(BatchRun *state)
{
	EntityRun  *visit = state->visit;

	visit->reached = visit->goal != NULL &&
		act_cursor_covers(&state->mailbox.done, visit->goal);
}

/*
 * The plan of what is left under the pinned target.
 */
void
act_visit_renew_plan(BatchRun *state)
{
	Mailbox    *mailbox = &state->mailbox;

	if (mailbox->plan != NULL)
		pfree(mailbox->plan);
	mailbox->plan = act_pending_pack_plan(&state->list, mailbox->last_id);
}

/*
 * Save the row, if the visit changed anything, and say what is left.
 */
void
act_visit_save(BatchRun *state)
{
	Mailbox    *mailbox = &state->mailbox;

	if (!state->dirty || mailbox->entity == NULL)
		return;
	if (mailbox->has_target)
	{
		act_visit_renew_plan(state);
		if (state->visit->until != 0)
			act_pending_keep_leftover(&state->list, &state->work->messages, mailbox);
	}
	act_mailbox_save(&state->work->mailboxes, mailbox);
}
