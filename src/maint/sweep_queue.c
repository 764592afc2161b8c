/*
 * sweep_queue.c
 *	  The sweep that fills the ready queue, a piece at a time.
 *
 * The ready queue is only a hint; the tables are the truth that it is made
 * from: after a start, an overflow, a COMMIT PREPARED, a resume.  There is one
 * walk for all pools.  Where the queue has no room for what it finds, it waits,
 * so that the log is read once, however small the queue is.  But room is a
 * pool's own, and a pool whose handlers are slow must not keep the hints of all
 * others waiting: a pool that the walk has waited for PATIENCE in all is put
 * off, and the walk goes on without it.  When it has come to the beginning of
 * the log there is another round, from where the first pool was put off, for
 * the pools that were.  The last one of these is waited for as long as it
 * takes, unless another sweep is due: that begins anew, for all pools.
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
 * there when the walk began is taken by the run that follows.
 *
 * Entities are put into the queue many at a time, in the order of their
 * hashes: what is neighbours there is then neighbours in the index of the
 * mailboxes and in those of the log, so that a worker finds many of its pages
 * in the cache.  The more are sorted together, the nearer they are.  So what a
 * piece finds is kept, up to KEPT_SIZE of one pool, sorted, and queued as room
 * comes.  What workers wait for (a first piece, a look at the end of the log)
 * is queued at once, one by one, and so is what is lent: these are few.
 *
 * Failure: if the process ends before the walk has, another sweep is due
 * (database.c).  Memory: a context of its own, with KEPT_SIZE keys at most
 * beside the walk.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "maint/sweep.h"
#include "maint/sweep_queue.h"
#include "sched/database.h"
#include "sched/hints.h"
#include "sched/readyq.h"

/*
 * How long a piece reads at most: the manager has other things to do, and the
 * mailboxes that are looked up may be anywhere.
 */
#define TIME_PER_PIECE (100 * INT64CONST(1000))

/*
 * The first piece finds no more entities than this: not before its end are
 * workers started.
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

/* How many keys of one pool are sorted together. */
#define KEPT_SIZE 196608

/* The sweep of this database that goes on. */
static MemoryContext my_context = NULL;
static Sweep *my_sweep = NULL;	/* NULL: none */
static bool is_whole = false;	/* else it only looks at the end */
static bool is_complete = false;	/* it, or its round */
static bool has_begun = false;	/* this is not the first piece */
static LogPlace piece_from;		/* what is kept comes from there on */
static TimestampTz waits_since = 0; /* for room in a pool; 0: does not */
static int64 waited = 0;		/* microseconds in all, but the present time */
static TimestampTz locked_until = 0;	/* not to try the segment before */

/* Its rounds. */
static List *round_pools = NIL; /* NIL: the first one, for all */
static List *put_off_pools = NIL;	/* the next one is for these */
static LogPlace next_round;		/* and begins there */

/* What is kept for the queue, of one pool. */
static EntityKey *keys = NULL;	/* NULL: there has been none */
static int	nkeys = 0;
static int	next_key = 0;		/* the first that is not yet queued */
static Oid	keys_pool = InvalidOid;
static bool may_keep = false;	/* else each is queued at once */
static Oid	full_pool = InvalidOid; /* this pool takes no more */

/* Looks at the end of the log. */
static bool is_looking = false;
static int	look_blocks = 0;	/* how many are left */
static LogPlace rest;			/* then the walk comes back there */
static uint64 answered = 0;		/* requests for a sweep, by a look */
static TimestampTz look_began = 0;
static TimestampTz next_look = 0;	/* not before */

/* ------------------------------------------------------ to the ready queue */

static bool
has_kept(void)
{
	return next_key < nkeys;
}

static void
drop_kept(void)
{
	nkeys = next_key = 0;
}

static int
compare_keys(const void *a, const void *b)
{
	int64		x = ((const EntityKey *) a)->hash;
	int64		y = ((const EntityKey *) b)->hash;

	return (x > y) - (x < y);
}

/*
 * Queue as much of what is kept as its pool takes.
 */
static void
queue_kept(void)
{
	int			n = Min(act_readyq_pool_room(MyDatabaseId, keys_pool),
						nkeys - next_key);

	act_readyq_requeue(MyDatabaseId, keys_pool, keys + next_key, n);
	next_key += n;
	/* That pool is the one to wait for. */
	if (has_kept())
		full_pool = keys_pool;
	else
		drop_kept();
}

static void
sort_and_queue(void)
{
	if (!has_kept())
		return;
	qsort(keys + next_key, nkeys - next_key, sizeof(EntityKey), compare_keys);
	queue_kept();
}

/*
 * Keep an entity until the piece ends or the next pool's comes; false if what
 * is kept has no room.
 */
static bool
keep_key(Oid pool, const EntityKey *key)
{
	if (nkeys == KEPT_SIZE || keys_pool != pool)
	{
		sort_and_queue();
		if (has_kept())
			return false;
	}
	if (keys == NULL)
		keys = MemoryContextAlloc(my_context, sizeof(EntityKey) * KEPT_SIZE);
	keys_pool = pool;
	keys[nkeys++] = *key;
	return true;
}

/*
 * Queue an entity at once; false if its pool has no room.
 *
 * One that is not lent is queued even if the queue says that it is.  One that
 * was leased when we looked is queued as well, unless the queue knows that it
 * is lent: the lease may have ended since.  The worker that takes it from
 * there finds out.
 */
static bool
queue_key(Oid pool, const EntityKey *key, bool leased)
{
	/* A pool without an owner is InvalidOid, too, and never full. */
	if ((OidIsValid(full_pool) && pool == full_pool) ||
		act_readyq_pool_room(MyDatabaseId, pool) <= 0)
	{
		full_pool = pool;
		return false;
	}
	if (leased)
		act_readyq_push(MyDatabaseId, pool, key, 1);
	else
		act_readyq_requeue(MyDatabaseId, pool, key, 1);
	return true;
}

/*
 * A pending entity was found.  Where its pool has no room a look passes it by,
 * and the walk has to wait.
 */
static bool
take_entity(void *arg, Oid owner, TimestampTz leased_until,
			const EntityKey *key, const char *entity, int entity_len)
{
	bool		leased = leased_until != 0;

	if (may_keep && !leased ? keep_key(owner, key) :
		queue_key(owner, key, leased))
		return true;
	my_sweep->refused = true;
	my_sweep->full = !is_looking;
	return false;
}

/* ------------------------------------------------------------ its pieces */

static void
begin_my_sweep(bool whole)
{
	if (my_context == NULL)
		my_context = AllocSetContextCreate(TopMemoryContext,
										   "actornot sweep",
										   ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(my_context);
	my_sweep = act_sweep_begin(my_context, 0, take_entity, NULL);
	my_sweep->backward = true;
	act_sweep_rewind(my_sweep);
	is_whole = whole;
	has_begun = false;
	waits_since = 0;
	waited = 0;
	locked_until = 0;
	round_pools = put_off_pools = NIL;
	keys = NULL;
	drop_kept();
	full_pool = InvalidOid;
	is_looking = false;
}

/*
 * Look at the end of the log, and then go on from here.
 */
static void
begin_look(void)
{
	rest = my_sweep->at;
	is_looking = true;
	look_blocks = LOOK_BLOCKS;
	has_begun = false;
	my_sweep->only = NIL;
	act_sweep_rewind(my_sweep);
	act_sweep_forget(my_sweep);
}

static void
end_look(void)
{
	is_looking = false;
	my_sweep->only = round_pools;
	my_sweep->at = rest;
	my_sweep->narrow = 0;
	/* It does not wait for pools that the look passed by. */
	full_pool = InvalidOid;
}

/*
 * Has a sweep been asked for since the last look at the end of the log, or
 * since the walk began there?  Looks take half of the time at most.
 */
static void
look_if_asked(TimestampTz now, TimestampTz *next)
{
	uint64		requests = act_readyq_sweep_requests();

	if (requests == answered || (my_sweep != NULL && is_looking))
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
		my_sweep->at.turn = PG_INT64_MIN;
		my_sweep->at.segment = -1;
	}
	begin_look();
}

/*
 * Go on without a pool that takes no more; what is kept of it is found again
 * by the next round.
 */
static void
put_off(Oid pool)
{
	MemoryContext old = MemoryContextSwitchTo(my_context);

	if (put_off_pools == NIL)
		next_round = piece_from;
	put_off_pools = lappend_oid(put_off_pools, pool);
	my_sweep->except = put_off_pools;
	MemoryContextSwitchTo(old);
	drop_kept();
	waited = 0;
	waits_since = 0;
}

static void
begin_round(void)
{
	list_free(round_pools);
	my_sweep->only = round_pools = put_off_pools;
	my_sweep->except = put_off_pools = NIL;
	my_sweep->at = next_round;
	my_sweep->narrow = 0;
	act_sweep_forget(my_sweep);
	full_pool = InvalidOid;
}

/*
 * Have all pools of a round been put off?  Then it is over.
 */
static bool
is_round_over(void)
{
	return round_pools != NIL && !is_looking &&
		list_length(put_off_pools) == list_length(round_pools);
}

/*
 * Is there room in the pool that the walk waits for?  It is put off if it has
 * kept the walk waiting for too long, and there may be others to go on for.
 */
static bool
may_go_on(TimestampTz now)
{
	if (is_looking)
		return true;
	if (OidIsValid(full_pool) &&
		!act_readyq_may_refill(MyDatabaseId, full_pool))
	{
		if (waits_since == 0)
			waits_since = now;
		if (list_length(round_pools) == 1 ||
			waited + (now - waits_since) <= PATIENCE)
			return false;
		put_off(full_pool);
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
	if (is_looking ||
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
act_sweep_queue_choose(TimestampTz now, TimestampTz *next)
{
	uint64		requests = act_readyq_sweep_requests();

	if ((my_sweep == NULL || !is_whole || round_pools != NIL) &&
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
 * Read a piece; true when the walk, or its round, is complete.
 */
static bool
read_piece(int max)
{
	int			blocks = is_looking ? look_blocks : ACT_SWEEP_BLOCKS;
	bool		complete;

	may_keep = has_begun && !is_looking;
	if (!has_begun)
		max = Min(max, FIRST_PIECE);
	else if (may_keep)
		max = INT_MAX;
	has_begun = true;
	if (!is_looking)
		piece_from = my_sweep->at;
	complete = act_sweep_read(my_sweep, max, blocks,
							  GetCurrentTimestamp() + TIME_PER_PIECE);
	if (may_keep)
		sort_and_queue();
	if (!is_looking)
		return complete && !has_kept();
	look_blocks = my_sweep->blocks;
	if (complete || my_sweep->locked || look_blocks <= 0)
		end_look();
	return false;
}

/*
 * A piece of the walk, in a transaction.
 */
void
act_sweep_queue_take_piece(void)
{
	bool		looking = is_looking;
	TimestampTz now;

	my_sweep->locked = false;
	full_pool = InvalidOid;
	is_complete = is_round_over();
	if (!is_complete && has_kept() && !is_looking)
		queue_kept();
	else if (!is_complete)
		is_complete = read_piece(act_readyq_room_in_all());
	now = GetCurrentTimestamp();
	if (looking && !is_looking)
		next_look = now + Min(Max(now - look_began, 0), PATIENCE);
	else if (my_sweep->locked)
		locked_until = now + LOCK_DELAY;
}

/*
 * That piece has failed, and its (sub)transaction was rolled back: go on behind
 * what cannot be read.  False if it is not known yet which block that is, and
 * the piece is to be tried again, or if it was a look, which ends; else it is
 * *segment's *block.
 */
bool
act_sweep_queue_skip_block(int *segment, BlockNumber *block)
{
	if (may_keep)
		sort_and_queue();
	is_complete = false;
	if (is_looking)
		end_look();
	else if (act_sweep_skip_block(my_sweep))
	{
		*segment = my_sweep->at.segment;
		*block = my_sweep->at.block;
		return true;
	}
	return false;
}

/*
 * After the commit.
 */
void
act_sweep_queue_finish_piece(void)
{
	if (!is_complete)
		return;
	if (is_whole && round_pools == NIL)
		act_database_end_sweep();
	if (put_off_pools != NIL)
	{
		begin_round();
		return;
	}
	if (is_whole)
		act_database_end_sweeping();
	MemoryContextReset(my_context);
	my_sweep = NULL;
}
