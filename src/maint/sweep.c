/*
 * sweep.c
 *	  Finding the entities with pending messages from the tables.
 *
 * The ready queue is only a hint; this is the truth that it is made from:
 * after a start, an overflow, a COMMIT PREPARED, a resume.  The log is read in
 * pieces of as many entities as the queue takes.  What is found out about
 * entities, and what waits for room in the queue, is in sweep_set.c: so a
 * mailbox is looked up once a walk.
 *
 * The walk to the queue goes backward, for what is pending is mostly what came
 * last, and in front of it there may be millions of messages that are done.
 * There is one for all pools.  Where the queue has no room for what it finds,
 * it waits, so that the log is read once, however small the queue is.  But
 * room is a pool's own, and a pool whose handlers are slow must not keep the
 * hints of all others waiting: a pool that the walk has waited for PATIENCE in
 * all is put off, and the walk goes on without it.  When it has come to the
 * beginning of the log there is another round, from where the first pool was
 * put off, for the pools that were.  The last one of these is waited for as
 * long as it takes, unless another sweep is due: that begins anew, for all
 * pools.
 *
 * A sweep that is asked for while there is a walk is answered at once by a
 * look at the last LOOK_BLOCKS of the log, from which the walk comes back to
 * where it was.  A look waits for nothing: a pool that has no room is passed
 * by.
 *
 * A message that is posted while we walk pushes its own hint, and so does one
 * whose transaction we find open, and one that is copied to a later segment
 * because its own is to be emptied.  A request for a sweep is taken (its flag
 * cleared) first, and each piece takes its snapshot after that.  So an entity
 * that was queued by one piece need not be queued by the next: whatever was
 * there when the walk began is taken by the run that follows.  A drain or a
 * lease may have passed the entity by, so for these each piece starts afresh;
 * and they go forward, so that what came first is run first.
 *
 * A segment that is locked by an administrator is waited for by trying again,
 * not in the lock's queue, where the manager could do nothing else.
 *
 * Equal hashes: entities are told apart by their check hash, as in the queue.
 *
 * Failure: if the process ends before the walk has, another sweep is due
 * (database.c).  Memory: the walk in the context given to act_sweep_begin, or
 * one of its own if it is the manager's; the set in a child of it.  A mailbox
 * that is looked at goes at once.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "log/reader.h"
#include "mailbox/mailbox.h"
#include "maint/log_walk.h"
#include "maint/sweep.h"
#include "maint/sweep_set.h"
#include "runner/runner.h"
#include "sched/database.h"
#include "sched/gate.h"
#include "sched/hints.h"
#include "sched/readyq.h"

/*
 * How many blocks a piece reads at most before it lets the caller commit; and
 * for how long, if it is for the ready queue: the manager has other things to
 * do, and the mailboxes that are looked up may be anywhere.
 */
#define BLOCKS_PER_PIECE 8192
#define TIME_PER_PIECE (100 * INT64CONST(1000))

/*
 * The first piece for the ready queue finds no more entities than this: not
 * before its end are workers started.
 */
#define FIRST_PIECE 512

/* How many blocks at the end of the log a look reads: 16 MB. */
#define LOOK_BLOCKS 2048

/* How long the walk waits for pools in all before one is put off. */
#define PATIENCE (1 * USECS_PER_SEC)

/* How often it is looked for room while the queue is too full. */
#define ROOM_DELAY (20 * INT64CONST(1000))

/* How often a segment that is locked is tried again. */
#define LOCK_DELAY (1 * USECS_PER_SEC)

/* How much room the queue has at least when a piece is begun. */
#define LEAST_ROOM 16

struct Sweep
{
	MemoryContext context;
	SweepFunction function;		/* NULL: to the ready queue */
	void	   *arg;
	int32		runner;			/* 0: all */
	bool		every_message;	/* call for each pending message */
	LogWalk		walk;
	bool		looking;		/* at the end of the log */
	int			look_blocks;	/* how many are left to look at */
	LogPlace	rest;			/* then the walk comes back there */
	List	   *only;			/* this round is for these pools; NIL: all */
	List	   *put_off;		/* pools that the next round is for */
	LogPlace	next_round;		/* which begins there */
	SweepSet   *set;
	bool		begun;			/* this is not the first piece */
	/* of the present piece */
	LogPlace	piece_from;		/* what is kept comes from there on */
	MemoryContext look_context; /* reset after each look at a mailbox */
	MailboxTable mailboxes;
	MessageReader messages;		/* for the ring, and for copies */
	int			found;			/* by the function */
	int			max;			/* find no more than this */
	bool		full;			/* there was one more than could be taken */
};

/*
 * Find out what there is to know of an entity: its row's cursor.
 */
static void
look_up(Sweep *sweep, KnownEntity *known, const char *entity, int len)
{
	MemoryContext old = MemoryContextSwitchTo(sweep->look_context);
	Mailbox		mailbox;

	act_mailbox_init(&mailbox, &known->key, entity, len);
	act_mailbox_load(&sweep->mailboxes, &mailbox);
	if (!sweep->every_message &&
		act_gate_verdict(act_mailbox_gate(&mailbox)) == HINT_DROP)
		known->state = KNOWN_IGNORED;
	else
		act_sweep_set_note(sweep->set, known, &mailbox);
	MemoryContextSwitchTo(old);
	MemoryContextReset(sweep->look_context);
}

/*
 * Queue an entity, or keep it for later.  Where the pool has no room a look
 * passes it by, and the walk has to wait.
 */
static bool
queue_entity(Sweep *sweep, Oid pool, const KnownEntity *known)
{
	if (act_sweep_set_offer(sweep->set, pool, known))
		return true;
	sweep->full = !sweep->looking || act_sweep_set_is_used_up(sweep->set);
	return false;
}

/*
 * Report a pending entity, unless there are enough already.
 */
static void
report(Sweep *sweep, const Runner *runner, KnownEntity *known, text *entity)
{
	Oid			pool = act_runner_pool(runner);

	if (sweep->function == NULL)
	{
		if (!queue_entity(sweep, pool, known))
			return;
	}
	else if (sweep->found >= sweep->max)
	{
		sweep->full = true;
		return;
	}
	else if (sweep->function(sweep->arg, pool,
							 act_sweep_set_leased_until(known),
							 &known->key, VARDATA_ANY(entity),
							 VARSIZE_ANY_EXHDR(entity)))
		sweep->found++;
	if (!sweep->every_message)
		known->state = KNOWN_REPORTED;
}

/*
 * Will a copy of the message be met in a later segment?
 */
static bool
has_copy(Sweep *sweep, const MessageRow *row)
{
	const Segment *segment = &sweep->messages.rows[sweep->walk.at.segment];
	LogPosition at = {row->tick, row->id};

	return segment->copied &&
		act_reader_has_copy(&sweep->messages, segment->turn, row->hash, at);
}

/*
 * Does the walk look for entities of this runner?
 */
static bool
is_wanted(const Sweep *sweep, const Runner *runner)
{
	Oid			pool = act_runner_pool(runner);

	if (sweep->runner != 0 && sweep->runner != runner->id)
		return false;
	if (sweep->only != NIL && !sweep->looking &&
		!list_member_oid(sweep->only, pool))
		return false;
	return !list_member_oid(sweep->put_off, pool);
}

/*
 * Look at a message of a runner that is wanted, and report its entity if it is
 * pending.
 */
static void
consider_entity(Sweep *sweep, const Runner *runner, const MessageRow *row,
				text *entity)
{
	EntityKey	key;
	KnownEntity *known;

	if (!act_runner_stored_key(runner, entity, row->hash, &key))
		return;
	known = act_sweep_set_enter(sweep->set, &key);
	if (known->state == KNOWN_NOTHING)
	{
		look_up(sweep, known, VARDATA_ANY(entity), VARSIZE_ANY_EXHDR(entity));
		/* The runner's pointer may have gone while we read the mailbox. */
		runner = act_runner_find(row->runner);
		if (runner == NULL)
			return;
	}
	if (known->state != KNOWN_REPORTED && known->state != KNOWN_IGNORED &&
		!act_sweep_set_is_consumed(known, row) &&
		!(sweep->every_message && has_copy(sweep, row)))
		report(sweep, runner, known, entity);
}

/*
 * Look at a message; false if its entity was one too many.
 */
static bool
consider(void *arg, const MessageRow *row)
{
	Sweep	   *sweep = arg;
	const Runner *runner = act_runner_find(row->runner);
	text	   *entity;

	if (runner == NULL || !is_wanted(sweep, runner))
		return true;
	entity = DatumGetTextPP(row->entity);
	consider_entity(sweep, runner, row, entity);
	/* A long name may have been compressed; a walk is long, too. */
	if ((Pointer) entity != DatumGetPointer(row->entity))
		pfree(entity);
	return !sweep->full;
}

/*
 * Start a walk for one runner, or all (0).  "function" is called for what it
 * finds; NULL: it goes to the ready queue.
 */
Sweep *
act_sweep_begin(MemoryContext context, int32 runner, SweepFunction function,
				void *arg)
{
	Sweep	   *sweep = MemoryContextAllocZero(context, sizeof(Sweep));

	sweep->context = context;
	sweep->runner = runner;
	sweep->function = function;
	sweep->arg = arg;
	sweep->walk.backward = (function == NULL);
	sweep->walk.may_wait = (function != NULL);
	sweep->walk.function = consider;
	sweep->walk.arg = sweep;
	act_log_walk_rewind(&sweep->walk);
	sweep->set = act_sweep_set_begin(context);
	return sweep;
}

/*
 * End the walk where the log ends now, in a transaction.
 */
void
act_sweep_end_here(Sweep *sweep)
{
	act_log_walk_end_here(&sweep->walk);
}

void
act_sweep_end(Sweep *sweep)
{
	act_sweep_set_end(sweep->set);
	pfree(sweep);
}

/*
 * Look at the end of the log, and then go on from here.
 */
static void
begin_look(Sweep *sweep)
{
	sweep->rest = sweep->walk.at;
	sweep->looking = true;
	sweep->look_blocks = LOOK_BLOCKS;
	act_log_walk_rewind(&sweep->walk);
	sweep->begun = false;
	act_sweep_set_forget(sweep->set);
}

static void
end_look(Sweep *sweep)
{
	sweep->looking = false;
	sweep->walk.at = sweep->rest;
	sweep->walk.narrow = 0;
	/* It does not wait for pools that the look passed by. */
	act_sweep_set_begin_piece(sweep->set, 0, false);
}

/*
 * What a piece may read and take.
 */
static void
begin_piece(Sweep *sweep, int max)
{
	LogWalk    *walk = &sweep->walk;

	sweep->full = false;
	sweep->found = 0;
	sweep->max = max;
	walk->blocks = BLOCKS_PER_PIECE;
	walk->until = DT_NOEND;
	if (sweep->function != NULL)
	{
		act_sweep_set_forget(sweep->set);
		return;
	}
	if (sweep->looking)
		walk->blocks = Min(walk->blocks, sweep->look_blocks);
	else
		sweep->piece_from = walk->at;
	walk->until = GetCurrentTimestamp() + TIME_PER_PIECE;
	act_sweep_set_begin_piece(sweep->set,
							  sweep->begun ? max : Min(max, FIRST_PIECE),
							  sweep->begun && !sweep->looking);
	sweep->begun = true;
}

/*
 * Read a piece; true when the walk, or its round, is complete.
 */
static bool
read_piece(Sweep *sweep)
{
	int			blocks = sweep->walk.blocks;
	bool		complete = act_log_walk_step(&sweep->walk);

	act_sweep_set_end_piece(sweep->set);
	if (!sweep->looking)
		return complete && !act_sweep_set_keeps(sweep->set);
	sweep->look_blocks -= blocks - sweep->walk.blocks;
	if (complete || sweep->walk.locked || sweep->look_blocks <= 0)
		end_look(sweep);
	return false;
}

/*
 * One piece of the walk, in a transaction that the caller started and ends:
 * "max" entities at most.  True when the walk, or its round, is complete.
 *
 * In the block of the entity that was one too many those before it are found
 * again by the next piece: that is harmless as long as the function does not
 * count them again, or "max" is larger than what a block can hold.
 */
bool
act_sweep_step(Sweep *sweep, int max)
{
	MemoryContext old = MemoryContextSwitchTo(sweep->context);
	bool		complete;

	if (act_sweep_set_keeps(sweep->set) && !sweep->looking)
	{
		act_sweep_set_queue_kept(sweep->set);
		MemoryContextSwitchTo(old);
		return false;
	}
	begin_piece(sweep, max);
	sweep->look_context = AllocSetContextCreate(CurrentMemoryContext,
												"actornot sweep look",
												ALLOCSET_DEFAULT_SIZES);
	act_mailbox_open(&sweep->mailboxes, AccessShareLock);
	sweep->walk.snapshot = RegisterSnapshot(GetLatestSnapshot());
	sweep->mailboxes.snapshot = sweep->walk.snapshot;
	sweep->mailboxes.without_state = true;
	PushActiveSnapshot(sweep->walk.snapshot);
	act_reader_open(&sweep->messages, sweep->walk.snapshot);
	sweep->walk.ring = sweep->messages.rows;

	complete = read_piece(sweep);

	act_reader_close(&sweep->messages);
	PopActiveSnapshot();
	act_mailbox_close(&sweep->mailboxes);
	UnregisterSnapshot(sweep->walk.snapshot);
	MemoryContextDelete(sweep->look_context);
	MemoryContextSwitchTo(old);
	return complete;
}

static bool
count_message(void *arg, Oid owner, TimestampTz leased_until,
			  const EntityKey *key, const char *entity, int entity_len)
{
	++*(int64 *) arg;
	return true;
}

/*
 * Count the pending messages of a runner, by reading the log.
 */
int64
act_sweep_count(int32 runner)
{
	int64		count = 0;
	Sweep	   *sweep = act_sweep_begin(CurrentMemoryContext, runner,
										count_message, &count);

	sweep->every_message = true;
	while (!act_sweep_step(sweep, INT_MAX))
		CHECK_FOR_INTERRUPTS();
	act_sweep_end(sweep);
	return count;
}

/* ------------------------------------------------------- for the manager */

/* The sweep of this database that goes on. */
static MemoryContext my_context = NULL;
static Sweep *my_sweep = NULL;	/* NULL: none */
static bool is_whole = false;	/* else it only looks at the end */
static bool is_complete = false;	/* it, or its round */
static TimestampTz waits_since = 0; /* for room in a pool; 0: does not */
static int64 waited = 0;		/* microseconds in all, but the present time */
static TimestampTz locked_until = 0;	/* not to try the segment before */

static uint64 answered = 0;		/* requests for a sweep, by a look */
static TimestampTz look_began = 0;
static TimestampTz next_look = 0;	/* not before */

static void
begin_my_sweep(bool whole)
{
	if (my_context == NULL)
		my_context = AllocSetContextCreate(TopMemoryContext,
										   "actornot sweep",
										   ALLOCSET_DEFAULT_SIZES);
	if (my_sweep != NULL)
		act_sweep_end(my_sweep);
	MemoryContextReset(my_context);
	my_sweep = act_sweep_begin(my_context, 0, NULL, NULL);
	is_whole = whole;
	waits_since = 0;
	waited = 0;
	locked_until = 0;
}

/*
 * Has a sweep been asked for since the last look at the end of the log, or
 * since the walk began there?  Looks take half of the time at most.
 */
static void
look_if_asked(TimestampTz now, TimestampTz *next)
{
	uint64		requests = act_readyq_sweep_requests();

	if (requests == answered || (my_sweep != NULL && my_sweep->looking))
		return;
	if (now < next_look && next_look <= now + PATIENCE)
	{
		*next = Min(*next, next_look);
		return;
	}
	answered = requests;
	look_began = now;
	if (my_sweep == NULL)
	{
		/* After the look there is nothing in front of it to be read. */
		begin_my_sweep(false);
		my_sweep->walk.at.turn = PG_INT64_MIN;
		my_sweep->walk.at.segment = -1;
	}
	begin_look(my_sweep);
}

/*
 * Go on without a pool that takes no more; what is kept of it is found again
 * by the next round.
 */
static void
put_off(Oid pool)
{
	MemoryContext old = MemoryContextSwitchTo(my_context);

	if (my_sweep->put_off == NIL)
		my_sweep->next_round = my_sweep->piece_from;
	my_sweep->put_off = lappend_oid(my_sweep->put_off, pool);
	act_sweep_set_drop_kept(my_sweep->set);
	waited = 0;
	waits_since = 0;
	MemoryContextSwitchTo(old);
}

static void
begin_round(void)
{
	list_free(my_sweep->only);
	my_sweep->only = my_sweep->put_off;
	my_sweep->put_off = NIL;
	my_sweep->walk.at = my_sweep->next_round;
	my_sweep->walk.narrow = 0;
	act_sweep_set_forget(my_sweep->set);
	act_sweep_set_begin_piece(my_sweep->set, 0, false);
}

/*
 * Have all pools of a round been put off?  Then it is over.
 */
static bool
is_round_over(void)
{
	return my_sweep->only != NIL && !my_sweep->looking &&
		list_length(my_sweep->put_off) == list_length(my_sweep->only);
}

/*
 * Is there room in the pool that the walk waits for?  It is put off if it has
 * kept the walk waiting for too long, and there may be others to go on for.
 */
static bool
may_go_on(TimestampTz now)
{
	Oid			pool = act_sweep_set_full_pool(my_sweep->set);

	if (my_sweep->looking)
		return true;
	if (OidIsValid(pool) && !act_readyq_may_refill(MyDatabaseId, pool))
	{
		if (waits_since == 0)
			waits_since = now;
		if (list_length(my_sweep->only) == 1 ||
			waited + (now - waits_since) <= PATIENCE)
			return false;
		put_off(pool);
	}
	else if (waits_since != 0)
	{
		waited += now - waits_since;
		waits_since = 0;
	}
	return true;
}

/*
 * Is it too early to try the segment of the walk again?
 */
static bool
waits_for_lock(TimestampTz now, TimestampTz *next)
{
	if (my_sweep->looking ||
		locked_until <= now || locked_until > now + LOCK_DELAY)
		return false;			/* else the clock was set back */
	*next = Min(*next, locked_until);
	return true;
}

/*
 * Is there a piece to be read?  A sweep that is due is taken, unless the first
 * round of one is going on.  False if there is nothing to do, or no room;
 * "next" is then when to look again.  The sweep is taken before its first
 * transaction begins, so that what is asked for after its snapshot makes
 * another one due.
 */
bool
act_sweep_choose(TimestampTz now, TimestampTz *next)
{
	uint64		requests = act_readyq_sweep_requests();

	if ((my_sweep == NULL || !is_whole || my_sweep->only != NIL) &&
		act_database_take_sweep(now, next))
	{
		/* It begins with the end of the log. */
		answered = requests;
		begin_my_sweep(true);
	}
	look_if_asked(now, next);
	if (my_sweep == NULL || waits_for_lock(now, next))
		return false;
	if (act_readyq_room_in_all() >= LEAST_ROOM && may_go_on(now))
		return true;
	*next = Min(*next, now + ROOM_DELAY);
	return false;
}

/*
 * A piece of the walk, in a transaction.
 */
void
act_sweep_take_piece(void)
{
	bool		looking = my_sweep->looking;
	TimestampTz now;

	is_complete = is_round_over() ||
		act_sweep_step(my_sweep, act_readyq_room_in_all());
	now = GetCurrentTimestamp();
	if (looking && !my_sweep->looking)
		next_look = now + Min(Max(now - look_began, 0), PATIENCE);
	else if (my_sweep->walk.locked)
		locked_until = now + LOCK_DELAY;
}

/*
 * That piece has failed, and its (sub)transaction was rolled back: go on behind
 * what cannot be read.  False if it is not known yet which block that is, and
 * the piece is to be tried again, or if it was a look, which ends; else it is
 * *segment's *block.
 */
bool
act_sweep_skip_block(int *segment, BlockNumber *block)
{
	act_sweep_set_end_piece(my_sweep->set);
	is_complete = false;
	if (my_sweep->looking)
		end_look(my_sweep);
	else if (act_log_walk_skip_block(&my_sweep->walk))
	{
		*segment = my_sweep->walk.at.segment;
		*block = my_sweep->walk.at.block;
		return true;
	}
	return false;
}

/*
 * After the commit.
 */
void
act_sweep_finish_piece(void)
{
	if (!is_complete)
		return;
	if (is_whole && my_sweep->only == NIL)
		act_database_end_sweep();
	if (my_sweep->put_off != NIL)
	{
		begin_round();
		return;
	}
	if (is_whole)
		act_database_end_sweeping();
	act_sweep_end(my_sweep);
	my_sweep = NULL;
}
