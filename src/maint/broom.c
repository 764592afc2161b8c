/*
 * broom.c
 *	  The manager's sweeps: who goes on, who waits.
 *
 * A sweep stops where the ready queue has no room for what it finds, and goes
 * on from there: so the log is read once, however small the queue is.  But
 * room is a pool's own, and a pool whose handlers are slow must not keep the
 * hints of all others waiting.  So if the walk has waited for one pool for
 * PATIENCE in all, that pool gets a walk of its own from that place, and the
 * main one goes on without it.  The log is then read once more for each such
 * pool, and not once for each filling of the queue.
 *
 * Who asks for a sweep while a walk is on its way, or has just been, does not
 * wait for that: the end of the log, where mostly is what he has in mind, is
 * looked at at once.
 *
 * What makes another sweep due while a pool's own walk is still on its way is
 * meant for that pool as well: it is walked once more from the beginning.
 *
 * A segment that somebody has locked is waited for as well, but not in the
 * lock's queue, where the manager could do nothing else: the walk tries it
 * again now and then.
 *
 * Failure: if the process ends before all walks have, another sweep is due
 * (database.c).  Memory: a context for each walk.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "maint/broom.h"
#include "maint/sweep.h"
#include "sched/database.h"
#include "sched/readyq.h"

/* So long the main walk waits for a pool in all. */
#define PATIENCE (1 * USECS_PER_SEC)

/* While the queue is too full: look again so often. */
#define ROOM_DELAY (20 * INT64CONST(1000))

/* While a segment is locked: try it again so often. */
#define LOCK_DELAY (1 * USECS_PER_SEC)

/* With less room than this no piece is begun. */
#define LEAST_ROOM 16

/* A walk that is going on. */
typedef struct Walk
{
	MemoryContext context;
	Sweep	   *sweep;			/* NULL: none */
	Oid			owner;			/* of whose pool; the main one: InvalidOid */
	bool		again;			/* then from the beginning */
	TimestampTz waits_since;	/* 0: does not */
	int64		waited;			/* microseconds in all, but the present time */
	TimestampTz locked_until;	/* it does not try the segment before that */
	bool		complete;
} Walk;

/* The main one is the first. */
#define WALKS (1 + ACT_SWEEP_SKIPPED)

static Walk walks[WALKS];
static Walk *const main_walk = &walks[0];

/* Looks at the end of the log, beside the others. */
static Walk peek_walk;
static uint64 peeked = 0;		/* requests that have been answered so */
static TimestampTz peek_began = 0;
static TimestampTz next_peek = 0;	/* not before */

static Walk *chosen = NULL;

/*
 * Begin a walk where "from" is, or at the beginning.
 */
static void
begin_walk(Walk *walk, Oid owner, Sweep *from)
{
	if (walk->context == NULL)
		walk->context = AllocSetContextCreate(TopMemoryContext,
											  "actornot sweep",
											  ALLOCSET_DEFAULT_SIZES);
	walk->sweep = act_sweep_begin(walk->context);
	walk->owner = owner;
	walk->again = false;
	walk->waits_since = 0;
	walk->waited = 0;
	walk->locked_until = 0;
	walk->complete = false;
	if (OidIsValid(owner))
		act_sweep_take_over(walk->sweep, owner, from);
}

static void
end_walk(Walk *walk)
{
	act_sweep_end(walk->sweep);
	walk->sweep = NULL;
	MemoryContextReset(walk->context);
}

/*
 * Leave the pools that have walks of their own to these.
 */
static void
skip_walked(Sweep *sweep)
{
	for (int i = 1; i < WALKS; i++)
	{
		if (walks[i].sweep != NULL)
			act_sweep_skip(sweep, walks[i].owner);
	}
}

static void
begin_main_walk(void)
{
	/* It looks at the end of the log itself. */
	if (peek_walk.sweep != NULL)
		end_walk(&peek_walk);
	peeked = act_readyq_sweep_requests();

	begin_walk(main_walk, InvalidOid, NULL);
	for (int i = 1; i < WALKS; i++)
	{
		if (walks[i].sweep != NULL)
			walks[i].again = true;
	}
	skip_walked(main_walk->sweep);
}

/*
 * Give a pool a walk of its own, if another one can be had, and the main walk
 * can leave out one more: it does so to its end, also for those whose own
 * walks have ended.
 */
static bool
part_with(Oid owner)
{
	if (!act_sweep_can_skip(main_walk->sweep))
		return false;
	for (int i = 1; i < WALKS; i++)
	{
		if (walks[i].sweep != NULL)
			continue;
		begin_walk(&walks[i], owner, main_walk->sweep);
		act_sweep_skip(main_walk->sweep, owner);
		main_walk->waited = 0;
		main_walk->waits_since = 0;
		return true;
	}
	return false;
}

static bool
is_impatient(const Walk *walk, TimestampTz now)
{
	return walk == main_walk &&
		walk->waited + (now - walk->waits_since) > PATIENCE;
}

/*
 * Is there room for the next piece of this walk?
 */
static bool
may_go_on(Walk *walk, TimestampTz now)
{
	Oid			owner = act_sweep_stopped_by(walk->sweep);

	if (OidIsValid(owner) && !act_readyq_may_refill(MyDatabaseId, owner))
	{
		if (walk->waits_since == 0)
			walk->waits_since = now;
		if (!is_impatient(walk, now) || !part_with(owner))
			return false;
	}
	else if (walk->waits_since != 0)
	{
		walk->waited += now - walk->waits_since;
		walk->waits_since = 0;
	}
	return act_readyq_room_in_all() >= LEAST_ROOM;
}

/*
 * Is it too early to try the segment of this walk again?
 */
static bool
waits_for_lock(const Walk *walk, TimestampTz now, TimestampTz *next)
{
	if (walk->locked_until <= now || walk->locked_until > now + LOCK_DELAY)
		return false;			/* else the clock was set back */
	*next = Min(*next, walk->locked_until);
	return true;
}

/*
 * The next look does not begin before as much time has gone as this one took;
 * that it waited for room for long does not count.
 */
static void
end_peek_walk(TimestampTz now)
{
	end_walk(&peek_walk);
	next_peek = now + Min(Max(now - peek_began, 0), PATIENCE);
}

/*
 * Has somebody asked for a sweep, that one that is on its way may have passed
 * by?  Looking takes half of the time at most.
 */
static void
peek_if_asked(TimestampTz now, TimestampTz *next)
{
	uint64		requests = act_readyq_sweep_requests();

	if (requests == peeked)
		return;
	if (peek_walk.sweep != NULL)
	{
		if (!OidIsValid(act_sweep_stopped_by(peek_walk.sweep)))
			return;
		end_peek_walk(now);
	}
	if (now < next_peek)
	{
		*next = Min(*next, next_peek);
		return;
	}
	peeked = requests;
	peek_began = now;
	begin_walk(&peek_walk, InvalidOid, NULL);
	act_sweep_set_peek_only(peek_walk.sweep);
	skip_walked(peek_walk.sweep);
}

/*
 * Choose the walk that is to go on, and take a sweep that is due.  False if
 * there is none, or there is no room; "next" is then when to look again.  The
 * sweep is taken before its first transaction begins, so that what is asked
 * for after its snapshot makes another one due.
 */
bool
act_broom_choose(TimestampTz now, TimestampTz *next)
{
	static int	last = 0;
	bool		any = false;

	if (main_walk->sweep == NULL && act_database_take_sweep(now, next))
		begin_main_walk();
	peek_if_asked(now, next);
	if (peek_walk.sweep != NULL)
	{
		any = true;
		if (may_go_on(&peek_walk, now))
		{
			chosen = &peek_walk;
			return true;
		}
	}
	for (int i = 1; i <= WALKS; i++)
	{
		int			number = (last + i) % WALKS;
		Walk	   *walk = &walks[number];

		if (walk->sweep == NULL || waits_for_lock(walk, now, next))
			continue;
		any = true;
		if (may_go_on(walk, now))
		{
			chosen = walk;
			last = number;
			return true;
		}
	}
	if (any)
		*next = Min(*next, now + ROOM_DELAY);
	return false;
}

/*
 * A piece of the chosen walk, in a transaction.
 */
void
act_broom_step(void)
{
	chosen->complete = act_sweep_step(chosen->sweep, act_readyq_room_in_all());
	if (act_sweep_is_locked(chosen->sweep))
		chosen->locked_until = GetCurrentTimestamp() + LOCK_DELAY;
}

/*
 * That piece has failed: see act_sweep_skip_block.
 */
bool
act_broom_skip_block(int *segment, BlockNumber *block)
{
	return act_sweep_skip_block(chosen->sweep, segment, block);
}

/*
 * After the commit.
 */
void
act_broom_finish(void)
{
	Oid			owner = chosen->owner;
	bool		again = chosen->again;

	if (!chosen->complete)
		return;
	if (chosen == &peek_walk)
	{
		end_peek_walk(GetCurrentTimestamp());
		return;
	}
	end_walk(chosen);
	if (again)
		begin_walk(chosen, owner, NULL);
	if (chosen == main_walk)
		act_database_end_sweep();
	for (int i = 0; i < WALKS; i++)
	{
		if (walks[i].sweep != NULL)
			return;
	}
	act_database_end_sweeping();
}
