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
 * What makes another sweep due while a pool's own walk is still on its way is
 * meant for that pool as well: it is walked once more from the beginning.
 *
 * Failure: if the process ends before all walks have, another sweep is due
 * (tenant.c).  Memory: a context for each walk.
 */
#include "postgres.h"

#include "broom.h"
#include "miscadmin.h"
#include "readyq.h"
#include "sweep.h"
#include "tenant.h"
#include "utils/memutils.h"

/* So long the main walk waits for a pool in all. */
#define PATIENCE (1 * USECS_PER_SEC)

/* While the queue is too full: look again so often. */
#define ROOM_DELAY (20 * INT64CONST(1000))

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
	bool		complete;
} Walk;

/* The main one is the first. */
#define WALKS (1 + ACT_SWEEP_SKIPPED)

static Walk walks[WALKS];
static Walk *const main_walk = &walks[0];
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

static void
begin_main_walk(void)
{
	begin_walk(main_walk, InvalidOid, NULL);
	for (int i = 1; i < WALKS; i++)
	{
		if (walks[i].sweep == NULL)
			continue;
		walks[i].again = true;
		act_sweep_skip(main_walk->sweep, walks[i].owner);
	}
}

/*
 * Give a pool a walk of its own, if another one can be had.
 */
static bool
part_with(Oid owner)
{
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

	if (main_walk->sweep == NULL && act_tenant_take_sweep(now, next))
		begin_main_walk();
	for (int i = 1; i <= WALKS; i++)
	{
		int			number = (last + i) % WALKS;
		Walk	   *walk = &walks[number];

		if (walk->sweep == NULL)
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
	end_walk(chosen);
	if (again)
		begin_walk(chosen, owner, NULL);
	if (chosen == main_walk)
		act_tenant_end_sweep();
	for (int i = 0; i < WALKS; i++)
	{
		if (walks[i].sweep != NULL)
			return;
	}
	act_tenant_end_sweeping();
}
