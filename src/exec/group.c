/*
 * group.c
 *	  Entities that share a transaction, or even a call of their handler.
 *
 * A group is run in one (sub)transaction of the caller's, a worker or
 * actornot_drain:
 *	1. Lock all entities, only if they are free.  Then take one snapshot: it
 *	   is newer than each lock.
 *	2. Run one after the other (batch.c) until time is over.  Those whose
 *	   handler takes many entities in one call are run together.
 *	3. A handler that touched an entity of its own group fails the group.
 * An error goes to the caller, which undoes everything and runs the entities
 * one by one.  Here it is not noted which one has failed: that comes out then.
 *
 * For entities that are run together all that is said in batch.c holds, too;
 * only the call in the middle is one for many: entities are gathered until
 * their messages are batch_size, or messages and states are batch_bytes.  What
 * does not fit into that goes the way of batch.c: an entity with more than a
 * batch gets calls of its own, and so does one that works off a backlog under
 * a pinned target.  Heads that have failed are not run in groups at all.
 *
 * Memory: what belongs to a call (rows, argument, new states) in the entity
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
#include "common/entity.h"
#include "exec/args.h"
#include "exec/batch.h"
#include "exec/group.h"
#include "mailbox/head.h"
#include "runner/handler.h"
#include "runner/runner.h"

/* What a look at an entity finds. */
typedef enum Look
{
	LOOK_SKIP,					/* nothing to be run; the gate is set */
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

/* Entities of one runner that are run together. */
typedef struct TogetherRun
{
	RunContext *work;
	TimestampTz until;			/* 0: all entities are to be run */
	bool		over;
	MemoryContext context;		/* lasts for all calls */
	MemoryContext spare;		/* takes turns with the entity context */
	MessagesArgument messages;	/* of the entity that is looked at */
	Member	   *members;		/* the one that is looked at is behind the
								 * last */
	int			nmembers;

	/* the present call */
	bool		open;
	Runner		runner;
	HandlerCall *handler;
	WholeCall	call;
} TogetherRun;

/*
 * Start a call.  False if the runner is not to be run, or, now, by another
 * kind of handler.
 */
static bool
open_call(TogetherRun *whole, EntityRun *run)
{
	run->gate = act_batch_admit_runner(run, &whole->runner);
	if (run->gate != GATE_OPEN)
		return false;
	whole->handler = act_batch_find_handler(&whole->runner);
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
	act_batch_save(state);
	state->run->gate = GATE_EMPTY;
	state->run->consumed = member->nmessages;
	state->run->batches = 1;
	act_batch_note_reached(state);
}

/*
 * Is it time to stop?
 */
static void
look_at_clock(TogetherRun *whole)
{
	if (whole->until != 0 && GetCurrentTimestamp() >= whole->until)
		whole->over = true;
}

/*
 * Call the handler with what has been gathered, and save the entities.
 */
static void
run_call(TogetherRun *whole)
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
	act_batch_init_frame(&whole->members[0].state, &frame);
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
	Size		items = sizeof(LogEntry) * list->nitems;
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
take_all(TogetherRun *whole, Member *member)
{
	BatchRun   *state = &member->state;
	MessagesArgument *messages = &whole->messages;

	state->run->gate = act_batch_collect(state);
	if (state->run->gate != GATE_OPEN)
		return LOOK_SKIP;
	if (!state->list.complete ||
		state->list.nitems > act_batch_size(state))
		return LOOK_ALONE;

	act_args_clear_messages(messages);
	member->last_id = act_batch_take(state, messages);
	member->nmessages = messages->nmessages;
	if (!act_batch_took_all(state))
		return LOOK_ALONE;
	if (member->nmessages == 0)
	{
		/* Rolled back, or another entity's of this hash. */
		finish_member(member, NULL);
		return LOOK_SKIP;
	}
	state->run->gate = act_batch_ask_runnable(state);
	return state->run->gate == GATE_OPEN ? LOOK_JOIN : LOOK_SKIP;
}

/*
 * Look at an entity.  What is to last for the call is put into the entity
 * context.
 */
static Look
look_at(TogetherRun *whole, EntityRun *run, Member *member)
{
	BatchRun   *state = &member->state;
	RunContext *work = whole->work;
	Look		look;

	MemSet(member, 0, sizeof(Member));
	state->work = work;
	state->run = run;
	state->runner = &whole->runner;
	run->whole = true;
	run->until = 0;
	run->gate = act_batch_admit_mailbox(state);
	if (run->gate != GATE_OPEN)
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
 * Run an entity whose messages are too many to share a call, or that works off
 * a backlog.
 */
static void
run_alone(TogetherRun *whole, Member *member)
{
	BatchRun   *state = &member->state;

	state->run->until = whole->until;
	if (state->list.nitems == 0)
		state->run->gate = act_batch_collect(state);
	act_batch_go_on(state);
	look_at_clock(whole);
}

static bool
has_room(const TogetherRun *whole, const Member *member)
{
	const WholeCall *call = &whole->call;

	return call->nentities == 0 ||
		(call->nmessages + member->nmessages <= whole->runner.batch_size &&
		 call->bytes + act_args_entity_size(&whole->messages,
											act_batch_state(&member->state))
		 <= whole->runner.batch_bytes);
}

/*
 * Let the two contexts change places, and empty the one that is used next.
 */
static void
swap_contexts(TogetherRun *whole)
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
join(TogetherRun *whole, Member *member)
{
	const Mailbox *mailbox = &member->state.mailbox;

	if (!has_room(whole, member))
	{
		run_call(whole);
		swap_contexts(whole);
		if (whole->over || !open_call(whole, member->state.run))
			return false;
		whole->members[0] = *member;
		mailbox = &whole->members[0].state.mailbox;
	}
	act_args_add_entity(&whole->call, mailbox->entity, mailbox->entity_len,
						act_batch_state(&whole->members[whole->nmembers].state),
						&whole->messages);
	whole->nmembers++;
	return true;
}

/*
 * Run entities until time is over.  False if the runner cannot be run as one
 * of many entities a call any more, "*next" is then the first one that was not
 * run.
 */
static bool
run_members(TogetherRun *whole, EntityRun **runs, int n, int *next)
{
	int			i;

	for (i = 0; i < n && !whole->over; i++)
	{
		Member	   *member = &whole->members[whole->nmembers];

		*next = i;
		CHECK_FOR_INTERRUPTS();
		if (!whole->open && !open_call(whole, runs[i]))
			return false;
		switch (look_at(whole, runs[i], member))
		{
			case LOOK_SKIP:
				/* Its state goes at once, for its size is not counted. */
				if (member->state.mailbox.state != (Datum) 0)
					pfree(DatumGetPointer(member->state.mailbox.state));
				continue;
			case LOOK_ALONE:
				run_call(whole);
				if (!whole->over)
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
run_rest(RunContext *work, EntityRun **runs, int n, TimestampTz until)
{
	for (int i = 0; i < n; i++)
	{
		if (until != 0 && GetCurrentTimestamp() >= until)
			break;
		runs[i]->until = until;
		act_batch_run(work, runs[i]);
	}
}

/*
 * Run entities of one runner together until "until"; the gate of those that
 * were not reached is open.
 */
static void
run_together(RunContext *work, EntityRun **runs, int n, TimestampTz until)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext entity_context = work->entity_context;
	TogetherRun whole;
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

	MemoryContextSwitchTo(work->entity_context);
	PushActiveSnapshot(work->snapshot);
	done = run_members(&whole, runs, n, &next);
	PopActiveSnapshot();

	work->entity_context = entity_context;
	MemoryContextReset(work->batch_context);
	MemoryContextResetOnly(work->entity_context);
	MemoryContextSwitchTo(old);
	act_args_end_array(&whole.messages.array);
	MemoryContextDelete(whole.context);
	if (!done)
		run_rest(work, runs + next, n - next, until);
}

/* ---- the group ---- */

/*
 * Lock the entities of a group, all before the snapshot, and mark their runs as
 * open.
 */
static void
lock_all(EntityGroup *group)
{
	for (int i = 0; i < group->n; i++)
	{
		EntityRun  *run = &group->runs[i];

		run->gate = act_entity_take(run->key.hash, false) ?
			GATE_OPEN : GATE_LOCKED;
		run->skipped = (run->gate == GATE_OPEN);
		run->grouped = true;
	}
	for (int i = 0; i < group->n; i++)
	{
		EntityRun  *run = &group->runs[i];

		if (run->skipped)
			act_entity_begin_run(run->key.hash, run->key.runner);
	}
}

/*
 * Run the next entity of a group, and, if its handler takes many in a call,
 * with it all others of its runner.
 */
static void
run_next(EntityGroup *group, RunContext *work, int first, TimestampTz until)
{
	EntityRun  *leader = &group->runs[first];
	EntityRun **runs = palloc(sizeof(EntityRun *) * (group->n - first));
	TimestampTz start = GetCurrentTimestamp();
	int			n = 0;
	int			batches = 0;

	for (int i = first; i < group->n; i++)
	{
		EntityRun  *run = &group->runs[i];

		if (!run->skipped || run->key.runner != leader->key.runner)
			continue;
		run->skipped = false;
		run->until = until;
		runs[n++] = run;
		if (!leader->whole)
			break;
	}
	if (leader->whole)
		run_together(work, runs, n, until);
	else
		act_batch_run(work, leader);

	for (int i = 0; i < n; i++)
	{
		/* Time was over; but the first one had its turn. */
		if (i > 0 && runs[i]->gate == GATE_OPEN &&
			runs[i]->tried == 0 && runs[i]->batches == 0)
			runs[i]->skipped = true;
		batches += runs[i]->batches;
	}
	if (act_entity_collided())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a handler touched an entity of its group")));
	leader->pace = (GetCurrentTimestamp() - start) / Max(1, batches);
	pfree(runs);
}

/*
 * Body: run the entities of a group until its time is over.  Each one then has
 * a gate, or it was skipped; GATE_NOT_SHARED asks for a run alone.
 */
void
act_group_run(void *arg)
{
	EntityGroup *group = arg;
	TimestampTz until = group->time == 0 ? 0 :
	TimestampTzPlusMilliseconds(GetCurrentTimestamp(), group->time);
	RunContext	work;
	int			depth = act_entity_depth();

	lock_all(group);
	act_head_open(&work);
	for (int i = 0; i < group->n; i++)
	{
		if (!group->runs[i].skipped)
			continue;
		CHECK_FOR_INTERRUPTS();
		run_next(group, &work, i, until);
		if (until != 0 && GetCurrentTimestamp() >= until)
			break;
	}
	act_head_close(&work);
	act_entity_end_run(depth);
}
