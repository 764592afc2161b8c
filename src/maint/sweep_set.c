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
 * in the cache.  The more are sorted together, the nearer they are.  So what
 * is found when the queue has no room any more is kept, as much as STOCK_SIZE
 * of one pool, sorted, and queued as room comes.
 *
 * Those that are not lent are told apart from those that were when their
 * mailbox was looked at: the former are queued even if the queue says that
 * they are lent.
 *
 * Nothing here is needed for the sweep to be right: what was forgotten is
 * looked up again.
 *
 * Memory: contexts of its own.  No more than MAX_KNOWN entities and
 * MAX_CURSOR_BYTES of records; beyond that all is forgotten.  The table
 * doubles as it grows, up to 8 MB, and for that moment takes half as much
 * again.  On the way to the queue at most 2 * QUEUE_AT_ONCE keys and
 * STOCK_SIZE more.
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

/* How many entities are sorted and put into the ready queue at a time. */
#define QUEUE_AT_ONCE 32768

/* How many are kept for later when the queue has no room. */
#define STOCK_SIZE 196608

/* Of how many pools a piece knows how much room is left. */
#define ROOMS 16

/* Keys of one pool. */
typedef struct KeyList
{
	Oid			pool;
	int			n;
	EntityKey  *keys;			/* NULL: there has been none */
} KeyList;

/* One of those that are kept for later. */
typedef struct StockItem
{
	EntityKey	key;
	bool		leased;
} StockItem;

/* Those of one pool. */
typedef struct Stock
{
	Oid			pool;
	int			n;
	int			next;			/* the first that is not yet queued */
	bool		sorted;
	StockItem  *items;			/* NULL: there has been none */
} Stock;

/* How many more entities a pool takes. */
typedef struct PoolRoom
{
	Oid			pool;
	int			left;
} PoolRoom;

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
	KeyList		free;			/* to be queued: not lent */
	KeyList		leased;			/* perhaps lent */
	Stock		stock;
	/* of the present piece of the sweep */
	int			left;			/* how many more may be queued */
	bool		may_keep;		/* and others be kept */
	Oid			full_pool;		/* this pool takes no more */
	int			nrooms;
	PoolRoom	rooms[ROOMS];
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

static int
compare_items(const void *a, const void *b)
{
	return compare_keys(&((const StockItem *) a)->key,
						&((const StockItem *) b)->key);
}

static void
flush_list(SweepSet *set, KeyList *list)
{
	if (list->n == 0)
		return;
	qsort(list->keys, list->n, sizeof(EntityKey), compare_keys);
	if (list == &set->free)
		act_readyq_requeue(MyDatabaseId, list->pool, list->keys, list->n);
	else
		act_readyq_push(MyDatabaseId, list->pool, list->keys, list->n);
	list->n = 0;
}

static void
flush(SweepSet *set)
{
	flush_list(set, &set->free);
	flush_list(set, &set->leased);
}

/*
 * An entity is to be queued, with the next flush or before.
 */
static void
queue_key(SweepSet *set, Oid pool, const EntityKey *key, bool leased)
{
	KeyList    *list = leased ? &set->leased : &set->free;

	if (list->n == QUEUE_AT_ONCE || list->pool != pool)
		flush_list(set, list);
	if (list->keys == NULL)
		list->keys = MemoryContextAlloc(set->context,
										sizeof(EntityKey) * QUEUE_AT_ONCE);
	list->pool = pool;
	list->keys[list->n++] = *key;
}

/*
 * Keep an entity for later; false if there is no place.
 */
static bool
keep_key(SweepSet *set, Oid pool, const EntityKey *key, bool leased)
{
	Stock	   *stock = &set->stock;

	if (stock->n == STOCK_SIZE || (stock->n > 0 && stock->pool != pool))
		return false;
	if (stock->items == NULL)
		stock->items = MemoryContextAlloc(set->context,
										  sizeof(StockItem) * STOCK_SIZE);
	stock->pool = pool;
	stock->sorted = false;
	stock->items[stock->n].key = *key;
	stock->items[stock->n].leased = leased;
	stock->n++;
	return true;
}

/*
 * May this pool be given one more?
 */
static bool
take_room(SweepSet *set, Oid pool)
{
	PoolRoom   *room = set->rooms;
	PoolRoom   *end = room + set->nrooms;

	while (room < end && room->pool != pool)
		room++;
	if (room == end)
	{
		/* What it has been given already is to be counted. */
		flush(set);
		if (set->nrooms == ROOMS)
			set->nrooms = 0;
		room = &set->rooms[set->nrooms++];
		room->pool = pool;
		room->left = act_readyq_pool_room(MyDatabaseId, pool);
	}
	if (room->left <= 0)
	{
		set->full_pool = pool;
		return false;
	}
	room->left--;
	return true;
}

/*
 * Up to "max" entities may be queued from now on, and, with "may_keep", others
 * be kept.
 */
void
act_sweep_set_begin_piece(SweepSet *set, int max, bool may_keep)
{
	set->left = max;
	set->may_keep = may_keep;
	set->full_pool = InvalidOid;
	set->nrooms = 0;
}

/*
 * Put into the queue what is to be there.  Also after an error.
 */
void
act_sweep_set_end_piece(SweepSet *set)
{
	flush(set);
	if (!set->stock.sorted && set->stock.n > 0)
		qsort(set->stock.items, set->stock.n, sizeof(StockItem),
			  compare_items);
	set->stock.sorted = true;
	/* That pool is the one to wait for. */
	if (act_sweep_set_keeps(set))
		set->full_pool = set->stock.pool;
}

/*
 * Queue a pending entity, or keep it; false if neither can be done.
 *
 * One that was leased when we looked is queued as well, unless the queue knows
 * that it is lent: the lease may have ended since.  The worker that takes it
 * from there finds out.
 */
bool
act_sweep_set_offer(SweepSet *set, Oid pool, const KnownEntity *known)
{
	bool		leased = act_sweep_set_leased_until(known) != 0;

	if (set->left <= 0 || !take_room(set, pool))
		return set->may_keep && keep_key(set, pool, &known->key, leased);
	queue_key(set, pool, &known->key, leased);
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
	return set->stock.next < set->stock.n;
}

/*
 * A piece: queue as much of what is kept as its pool takes.
 */
void
act_sweep_set_queue_kept(SweepSet *set)
{
	Stock	   *stock = &set->stock;
	int			room = act_readyq_pool_room(MyDatabaseId, stock->pool);

	for (; act_sweep_set_keeps(set) && room > 0; room--)
	{
		const StockItem *item = &stock->items[stock->next++];

		queue_key(set, stock->pool, &item->key, item->leased);
	}
	flush(set);
	set->full_pool = InvalidOid;
	if (act_sweep_set_keeps(set))
		set->full_pool = stock->pool;
	else
		act_sweep_set_drop_kept(set);
}

/*
 * Keep nothing any more of the pool that takes no more.
 */
void
act_sweep_set_drop_kept(SweepSet *set)
{
	Assert(!act_sweep_set_keeps(set) || set->full_pool == set->stock.pool);
	set->stock.n = set->stock.next = 0;
}
