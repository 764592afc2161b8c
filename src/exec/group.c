/*
 * group.c
 *	  Visits of many entities that share calls of their handler.
 *
 * For a handler that takes many entities in one call.  All that is said in
 * batch.c of a visit holds for each entity here: its lock is held, the
 * snapshot is newer, its row is loaded, what is pending is collected, and its
 * row is saved.  Only the call in the middle is one for many: entities are
 * gathered until their messages are batch_size, or messages and states are
 * batch_bytes.
 *
 * What does not fit into that goes the way of batch.c: an entity with more
 * than a batch gets calls of its own, and so does one that works off a backlog
 * under a pinned target.  Heads that have failed are not run in groups at all.
 *
 * An error goes to the caller, who undoes everything and visits one entity
 * after the other.  So nothing is noted here of who failed: that comes out
 * then.
 *
 * Memory: what belongs to a call (rows, argument, new states) in the visit
 * context of the work, which is reset after the call.  The entity that did not
 * fit any more is looked at before the call and run after it; so there are two
 * such contexts that take turns.  What is needed for a look only is in the
 * batch context.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "exec/args.h"
#include "exec/batch.h"
#include "exec/group.h"
#include "exec/visit.h"
#include "mailbox/head.h"
#include "runner/handler.h"
#include "runner/runner.h"

/* What a look at an entity finds. */
typedef enum Look
{
	LOOK_SKIP,					/* nothing to be run; the result is set */
	LOOK_JOIN,					/* a batch, taken: may share a call */
	LOOK_ALONE					/* collected: needs calls of its own */
} Look;

/* An entity of a call. */
typedef struct Member
{
	BatchRun	state;
	int			nmessages;
	int64		last_id;		/* of what was taken */
} Member;

typedef struct WholeVisit
{
	RunContext *work;
	TimestampTz until;			/* 0: all entities are to be visited */
	bool		over;
	MemoryContext context;		/* lasts for all calls */
	MemoryContext spare;		/* takes turns with the visit context */
	MessagesArgument messages;	/* of the entity that is looked at */
	Member	   *members;		/* the one that is looked at is behind the
								 * last */
	int			nmembers;

	/* the present call */
	bool		open;
	Runner		runner;
	HandlerCall *handler;
	WholeCall	call;
} WholeVisit;

/*
 * Start a call.  False if the runner is not to be run, or, now, by another
 * kind of handler; the visit then has a result.
 */
static bool
open_call(WholeVisit *whole, EntityRun *visit)
{
	if (!act_visit_admit_runner(visit, &whole->runner))
		return false;
	whole->handler = act_visit_find_handler(&whole->runner);
	visit->result = RUN_MORE;
	if (whole->handler == NULL || whole->handler->form != HANDLER_WHOLE)
		return false;
	act_args_begin_call(&whole->call);
	whole->open = true;
	return true;
}

/*
 * Take over what the handler says of an entity, and save it.
 */
static void
finish_member(Member *member, const WholeEntity *entity)
{
	BatchRun   *state = &member->state;
	Mailbox    *mailbox = &state->mailbox;

	if (entity != NULL && entity->answered)
		mailbox->state = entity->state;
	act_head_advance(mailbox, &state->target, member->last_id,
					 member->nmessages > 0, true);
	state->dirty = true;
	act_visit_save(state);
	state->visit->result = RUN_EMPTY;
	state->visit->consumed = member->nmessages;
	state->visit->batches = 1;
	act_visit_note_reached(state);
}

/*
 * Is it time to stop?
 */
static void
look_at_clock(WholeVisit *whole)
{
	if (whole->until != 0 && GetCurrentTimestamp() >= whole->until)
		whole->over = true;
}

/*
 * Call the handler with what has been gathered, and save the entities.
 */
static void
run_call(WholeVisit *whole)
{
	RunContext *work = whole->work;
	CallFrame	frame;
	MemoryContext old;

	if (!whole->open)
		return;
	whole->open = false;
	if (whole->nmembers == 0)
	{
		act_args_end_array(&whole->call.batches);
		return;
	}

	old = MemoryContextSwitchTo(work->batch_context);
	act_visit_init_frame(&whole->members[0].state, &frame);
	act_args_call_many(&whole->call, &frame, &whole->handler->flinfo,
					   work->entity_context);
	CHECK_FOR_INTERRUPTS();
	MemoryContextSwitchTo(old);
	MemoryContextReset(work->batch_context);

	for (int i = 0; i < whole->nmembers; i++)
		finish_member(&whole->members[i], &whole->call.entities[i]);
	whole->nmembers = 0;
	look_at_clock(whole);
}

/*
 * What was collected is to outlive the look.
 */
static void
keep_list(PendingList *list)
{
	Size		items = sizeof(PendingItem) * list->nitems;
	Size		chunks = sizeof(PlanChunk) * list->nchunks;

	list->next = 0;
	list->taken_id = list->after_id;
	list->items = memcpy(palloc(items), list->items, items);
	if (list->chunks != NULL)
		list->chunks = memcpy(palloc(chunks), list->chunks, chunks);
}

/*
 * Collect what is pending, in the batch context, and take it all, if it is no
 * more than a batch.
 */
static Look
take_all(WholeVisit *whole, Member *member)
{
	BatchRun   *state = &member->state;
	RunContext *work = whole->work;
	MessagesArgument *messages = &whole->messages;

	if (!act_visit_collect(state))
		return LOOK_SKIP;
	if (!state->list.complete ||
		state->list.nitems > act_visit_batch_size(state))
		return LOOK_ALONE;

	act_args_clear_messages(messages);
	member->last_id = act_visit_take(work, &state->mailbox, &state->list,
									 act_visit_batch_size(state),
									 whole->runner.batch_bytes, messages);
	member->nmessages = messages->nmessages;
	if (state->list.next < state->list.nitems)
		return LOOK_ALONE;
	if (member->nmessages == 0)
	{
		/* Rolled back, or another entity's of this hash. */
		finish_member(member, NULL);
		return LOOK_SKIP;
	}
	if (act_visit_is_runnable(state))
		return LOOK_JOIN;
	state->visit->result = RUN_WAITING;
	return LOOK_SKIP;
}

/*
 * Look at an entity.  What is to last for the call is put into the visit
 * context.
 */
static Look
look_closely(WholeVisit *whole, EntityRun *visit, Member *member)
{
	BatchRun   *state = &member->state;
	RunContext *work = whole->work;
	Look		look;

	MemSet(member, 0, sizeof(Member));
	state->work = work;
	state->visit = visit;
	state->runner = &whole->runner;
	visit->whole = true;
	visit->until = 0;
	if (!act_visit_admit_mailbox(state))
		return LOOK_SKIP;
	if (state->mailbox.has_target)
		return LOOK_ALONE;

	MemoryContextSwitchTo(work->batch_context);
	look = take_all(whole, member);
	MemoryContextSwitchTo(work->entity_context);
	if (look == LOOK_ALONE)
		keep_list(&state->list);
	MemoryContextReset(work->batch_context);
	return look;
}

/*
 * The same; the state of one that takes no part is not kept, for nobody counts
 * its size.
 */
static Look
look_at(WholeVisit *whole, EntityRun *visit, Member *member)
{
	Look		look = look_closely(whole, visit, member);
	Datum		state = member->state.mailbox.state;

	if (look == LOOK_SKIP && state != (Datum) 0)
		pfree(DatumGetPointer(state));
	return look;
}

/*
 * Run an entity whose messages are too many to share a call, or that works off
 * a backlog.
 */
static void
run_alone(WholeVisit *whole, Member *member)
{
	BatchRun   *state = &member->state;

	state->visit->until = whole->until;
	if (state->list.nitems > 0 || act_visit_collect(state))
		act_batch_go_on(state);
	else
		act_visit_save(state);
	act_visit_note_reached(state);
	look_at_clock(whole);
}

static bool
has_room(const WholeVisit *whole, const Member *member)
{
	const WholeCall *call = &whole->call;

	return call->nentities == 0 ||
		(call->nmessages + member->nmessages <= whole->runner.batch_size &&
		 call->bytes + act_args_entity_size(&whole->messages,
											act_visit_current_state(&member->state))
		 <= whole->runner.batch_bytes);
}

/*
 * Let the two contexts change places, and empty the one that is used next.
 */
static void
swap_contexts(WholeVisit *whole)
{
	RunContext *work = whole->work;
	MemoryContext spare = whole->spare;

	whole->spare = work->entity_context;
	work->entity_context = spare;
	MemoryContextResetOnly(spare);	/* it may have a child */
	MemoryContextSwitchTo(spare);
}

/*
 * Put an entity into the call, or, after it, into the next one.  False if
 * there is none any more.
 */
static bool
join(WholeVisit *whole, Member *member)
{
	const Mailbox *mailbox = &member->state.mailbox;

	if (!has_room(whole, member))
	{
		run_call(whole);
		swap_contexts(whole);
		member->state.visit->result = RUN_MORE;
		if (whole->over || !open_call(whole, member->state.visit))
			return false;
		whole->members[0] = *member;
		mailbox = &whole->members[0].state.mailbox;
	}
	act_args_add_entity(&whole->call, mailbox->entity, mailbox->entity_len,
						act_visit_current_state(&whole->members[whole->nmembers].state),
						&whole->messages);
	whole->nmembers++;
	return true;
}

/*
 * EntityRun entities until time is over.  False if the runner cannot be run as
 * one of many entities a call any more, "*next" is then the first one that was
 * not visited.
 */
static bool
visit_all(WholeVisit *whole, EntityRun **visits, int n, int *next)
{
	int			i;

	for (i = 0; i < n && !whole->over; i++)
	{
		Member	   *member = &whole->members[whole->nmembers];

		*next = i;
		CHECK_FOR_INTERRUPTS();
		if (!whole->open && !open_call(whole, visits[i]))
			return false;
		switch (look_at(whole, visits[i], member))
		{
			case LOOK_SKIP:
				continue;
			case LOOK_ALONE:
				run_call(whole);
				if (whole->over)
					visits[i]->result = RUN_MORE;
				else
					run_alone(whole, member);
				swap_contexts(whole);
				continue;
			case LOOK_JOIN:
				break;
		}
		if (!join(whole, member))
			return whole->over;
		if (whole->call.nmessages >= whole->runner.batch_size)
		{
			run_call(whole);
			swap_contexts(whole);
		}
	}
	run_call(whole);
	return true;
}

/*
 * Those that are left when the runner may no longer be run so.
 */
static void
visit_rest(RunContext *work, EntityRun **visits, int n, TimestampTz until)
{
	for (int i = 0; i < n; i++)
	{
		if (until != 0 && GetCurrentTimestamp() >= until)
			break;
		visits[i]->until = until;
		act_batch_visit(work, visits[i]);
	}
}

/*
 * EntityRun entities of one runner, whose locks are held and whose runs are marked
 * as open, until "until"; those that were not reached have the result
 * RUN_MORE.
 */
void
act_group_visit(RunContext *work, EntityRun **visits, int n,
				TimestampTz until)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext entity_context = work->entity_context;
	WholeVisit	whole;
	int			next = 0;
	bool		done;

	MemSet(&whole, 0, sizeof(whole));
	whole.work = work;
	whole.until = until;
	whole.context = AllocSetContextCreate(CurrentMemoryContext,
										  "actornot whole batch",
										  ALLOCSET_DEFAULT_SIZES);
	whole.spare = AllocSetContextCreate(whole.context,
										"actornot whole batch calls",
										ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(whole.context);
	whole.members = palloc(sizeof(Member) * n);
	act_args_begin_messages(&whole.messages, HANDLER_WHOLE);
	for (int i = 0; i < n; i++)
	{
		visits[i]->result = RUN_MORE;
		visits[i]->phase = PHASE_READ;
	}

	MemoryContextSwitchTo(work->entity_context);
	PushActiveSnapshot(work->snapshot);
	done = visit_all(&whole, visits, n, &next);
	PopActiveSnapshot();

	work->entity_context = entity_context;
	MemoryContextReset(work->batch_context);
	MemoryContextResetOnly(work->entity_context);
	MemoryContextSwitchTo(old);
	act_args_end_array(&whole.messages.array);
	MemoryContextDelete(whole.context);
	if (!done)
		visit_rest(work, visits + next, n - next, until);
}
