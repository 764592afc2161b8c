/*
 * sweep_set.c
 *	  What a sweep has found out about entities, and keeps for the ready queue.
 *
 * A sweep meets an entity with each of its messages, and wants to look up its
 * mailbox once.  So it remembers what it found, in a hash table of 32 bytes an
 * entity: of most it is enough to know that they have been reported, or below
 * which tick they are done.  The few that have more to be told (open writers
 * in their cursor, a target, a lease) get a record beside it.
 *
 * Entities are put into the queue many at a time, in the order of their
 * hashes: what is neighbours there is then neighbours in the index of the
 * mailboxes and in those of the log, so that a worker finds many of its pages
 * in the cache.  The more are sorted together, the nearer they are.  So what a
 * piece finds is kept, up to KEPT_SIZE of one pool, sorted, and queued as room
 * comes.  What workers wait for (a first piece, a look at the end of the log)
 * is queued at once, one by one, and so is what is lent: these are few.
 *
 * Nothing here is needed for the sweep to be right: what was forgotten is
 * looked up again.
 *
 * Memory: contexts of its own.  No more than MAX_KNOWN entities and
 * MAX_CURSOR_BYTES of records; beyond that all is forgotten.  The table
 * doubles as it grows, up to 8 MB, and for that moment takes half as much
 * again.  On the way to the queue at most KEPT_SIZE keys.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "actornot.h"
#include "common/cursor.h"
#include "log/reader.h"
#include "mailbox/mailbox.h"
#include "maint/sweep_set.h"
#include "sched/hints.h"
#include "sched/readyq.h"

/* The table does not grow once more (fill factor 0.9 of 2^18 entries). */
#define MAX_KNOWN 235000

#define MAX_CURSOR_BYTES (8 * 1024 * 1024)

/* How many entities the table begins with. */
#define FIRST_SIZE 256

/* How many keys of one pool are sorted together. */
#define KEPT_SIZE 196608

/* The hash of an entity is a good one; the rest only has to be mixed in. */
static inline uint32
hash_key(const EntityKey *key)
{
	uint64		hash = (uint64) key->hash;

	return (uint32) (hash ^ (hash >> 32)) ^ key->check ^ (uint32) key->runner;
}

static inline bool
keys_equal(const EntityKey *a, const EntityKey *b)
{
	return a->hash == b->hash && a->check == b->check &&
		a->runner == b->runner;
}

#define SH_PREFIX knownhash
#define SH_ELEMENT_TYPE KnownEntity
#define SH_KEY_TYPE EntityKey
#define SH_KEY key
#define SH_HASH_KEY(tb, key) hash_key(&(key))
#define SH_EQUAL(tb, a, b) keys_equal(&(a), &(b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct SweepSet
{
	MemoryContext context;
	MemoryContext cursors;		/* of the records */
	knownhash_hash *entities;
	Size		cursor_bytes;
	/* What is kept for the ready queue, of one pool. */
	Oid			pool;
	int			nkeys;
	int			next;			/* the first that is not yet queued */
	EntityKey  *keys;			/* NULL: there has been none */
	/* of the present piece of the sweep */
	int			left;			/* so many more may be queued at once */
	bool		may_keep;		/* else each is queued at once */
	Oid			full_pool;		/* this pool takes no more */
};

/*
 * Make an empty one, to live as long as the context at most.
 */
SweepSet *
act_sweep_set_begin(MemoryContext parent)
{
	MemoryContext context = AllocSetContextCreate(parent,
												  "actornot entities seen by the sweep",
												  ALLOCSET_DEFAULT_SIZES);
	SweepSet   *set = MemoryContextAllocZero(context, sizeof(SweepSet));

	set->context = context;
	set->cursors = AllocSetContextCreate(context,
										 "actornot cursors seen by the sweep",
										 ALLOCSET_DEFAULT_SIZES);
	set->entities = knownhash_create(context, FIRST_SIZE, NULL);
	return set;
}

void
act_sweep_set_end(SweepSet *set)
{
	MemoryContextDelete(set->context);
}

/* -------------------------------------------------------- what is known */

/*
 * Forget all that is known.  A table that is to be filled again keeps its size; to
 * clear one that was hardly used would cost more than to make another.
 */
void
act_sweep_set_forget(SweepSet *set)
{
	MemoryContextReset(set->cursors);
	set->cursor_bytes = 0;
	if (set->entities->members > set->entities->size / 8)
		knownhash_reset(set->entities);
	else
	{
		knownhash_destroy(set->entities);
		set->entities = knownhash_create(set->context, FIRST_SIZE, NULL);
	}
}

/*
 * Find an entity, or enter it as KNOWN_NOTHING.  Valid until the next call.
 */
KnownEntity *
act_sweep_set_enter(SweepSet *set, const EntityKey *key)
{
	KnownEntity *known;
	bool		found;

	if (set->entities->members >= MAX_KNOWN ||
		set->cursor_bytes >= MAX_CURSOR_BYTES)
		act_sweep_set_forget(set);
	known = knownhash_insert(set->entities, *key, &found);
	if (!found)
		known->state = KNOWN_NOTHING;
	return known;
}

/*
 * Remember how far a mailbox has come, and whether it is lent.
 */
void
act_sweep_set_note(SweepSet *set, KnownEntity *known, const Mailbox *mailbox)
{
	MemoryContext old;
	KnownCursor *cursor;
	bool		leased = act_mailbox_is_leased(mailbox);

	if (mailbox->done.nxip == 0 && !mailbox->has_target && !leased)
	{
		known->state = KNOWN_BELOW;
		known->is.below = mailbox->done.xmax;
		return;
	}

	old = MemoryContextSwitchTo(set->cursors);
	cursor = palloc0(sizeof(KnownCursor));
	act_cursor_copy(&cursor->done, &mailbox->done);
	cursor->has_target = mailbox->has_target;
	if (mailbox->has_target)
		act_cursor_copy(&cursor->target, &mailbox->target);
	cursor->last_id = mailbox->last_id;
	cursor->leased_until = leased ? mailbox->lease_until : 0;
	MemoryContextSwitchTo(old);

	set->cursor_bytes += sizeof(KnownCursor) +
		sizeof(uint64) * (cursor->done.nxip + cursor->target.nxip);
	known->state = KNOWN_CURSOR;
	known->is.cursor = cursor;
}

/*
 * Has this message, which the sweep's snapshot sees, been consumed?
 */
bool
act_sweep_set_is_consumed(const KnownEntity *known, const MessageRow *row)
{
	const KnownCursor *cursor = known->is.cursor;

	if (known->state == KNOWN_BELOW)
		return row->tick < known->is.below;
	if (known->state != KNOWN_CURSOR)
		return false;
	return act_cursor_settled(&cursor->done, row->tick) ||
		(cursor->has_target && row->id <= cursor->last_id &&
		 act_cursor_settled(&cursor->target, row->tick));
}

/*
 * 0 if it is not lent.
 */
TimestampTz
act_sweep_set_leased_until(const KnownEntity *known)
{
	return known->state == KNOWN_CURSOR ? known->is.cursor->leased_until : 0;
}

/* -------------------------------------------------- on the way to the queue */

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
void
act_sweep_set_queue_kept(SweepSet *set)
{
	int			n = Min(act_readyq_pool_room(MyDatabaseId, set->pool),
						set->nkeys - set->next);

	act_readyq_requeue(MyDatabaseId, set->pool, set->keys + set->next, n);
	set->next += n;
	if (act_sweep_set_keeps(set))
		set->full_pool = set->pool;
	else
		act_sweep_set_drop_kept(set);
}

static void
sort_and_queue(SweepSet *set)
{
	if (!act_sweep_set_keeps(set))
		return;
	qsort(set->keys, set->nkeys, sizeof(EntityKey), compare_keys);
	act_sweep_set_queue_kept(set);
}

/*
 * Keep an entity until the piece ends or the next pool's comes; false if what
 * is kept has no room.
 */
static bool
keep_key(SweepSet *set, Oid pool, const EntityKey *key)
{
	if (set->nkeys == KEPT_SIZE || set->pool != pool)
	{
		sort_and_queue(set);
		if (act_sweep_set_keeps(set))
			return false;
	}
	if (set->keys == NULL)
		set->keys = MemoryContextAlloc(set->context,
									   sizeof(EntityKey) * KEPT_SIZE);
	set->pool = pool;
	set->keys[set->nkeys++] = *key;
	return true;
}

/*
 * Up to "max" entities may be queued from now on; with "may_keep" others are
 * kept.
 */
void
act_sweep_set_begin_piece(SweepSet *set, int max, bool may_keep)
{
	set->left = max;
	set->may_keep = may_keep;
	set->full_pool = InvalidOid;
}

/*
 * Put into the queue what has room there.  Also after an error.
 */
void
act_sweep_set_end_piece(SweepSet *set)
{
	if (set->may_keep)
		sort_and_queue(set);
}

/*
 * Queue a pending entity, or keep it; false if neither can be done.
 *
 * One that is not lent is queued even if the queue says that it is.  One that
 * was leased when we looked is queued as well, unless the queue knows that it
 * is lent: the lease may have ended since.  The worker that takes it from
 * there finds out.
 */
bool
act_sweep_set_offer(SweepSet *set, Oid pool, const KnownEntity *known)
{
	bool		leased = act_sweep_set_leased_until(known) != 0;

	if (set->may_keep && !leased)
		return keep_key(set, pool, &known->key);
	if (set->left <= 0)
		return false;
	if (pool == set->full_pool ||
		act_readyq_pool_room(MyDatabaseId, pool) <= 0)
	{
		set->full_pool = pool;
		return false;
	}
	if (leased)
		act_readyq_push(MyDatabaseId, pool, &known->key, 1);
	else
		act_readyq_requeue(MyDatabaseId, pool, &known->key, 1);
	set->left--;
	return true;
}

/*
 * Have as many been queued as the piece may?
 */
bool
act_sweep_set_is_used_up(const SweepSet *set)
{
	return set->left <= 0;
}

/*
 * A pool that took no more, or InvalidOid.
 */
Oid
act_sweep_set_full_pool(const SweepSet *set)
{
	return set->full_pool;
}

/*
 * Is there anything kept?
 */
bool
act_sweep_set_keeps(const SweepSet *set)
{
	return set->next < set->nkeys;
}

/*
 * Keep nothing any more of the pool that takes no more.
 */
void
act_sweep_set_drop_kept(SweepSet *set)
{
	set->nkeys = set->next = 0;
}
