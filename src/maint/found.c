/*
 * found.c
 *	  What a sweep has found, on its way into the ready queue.
 *
 * Entities are put into the queue many at a time, in the order of their
 * hashes: what is neighbours there is then neighbours in the index of the
 * mailboxes and in those of the log, so that a worker finds many of its pages
 * in the cache.  The more are sorted together, the nearer they are.  So what
 * is found when the queue has no room any more is kept, as much as STOCK_SIZE
 * of one pool, sorted, and queued as room comes.
 *
 * Those that are not lent are told apart from those that were when their
 * mailbox was looked at: the former are queued even if the queue says that they
 * are lent.
 *
 * Memory: in the context given to act_found_begin, at most 2 * QUEUE_AT_ONCE
 * keys and STOCK_SIZE more.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "actornot.h"
#include "maint/found.h"
#include "sched/hints.h"
#include "sched/readyq.h"

/* How many entities are sorted and put into the ready queue at a time. */
#define QUEUE_AT_ONCE 32768

/* How many are kept for later when the queue has no room. */
#define STOCK_SIZE 196608

/* Keys of one pool. */
typedef struct KeyList
{
	Oid			owner;
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
	Oid			owner;
	int			n;
	int			next;			/* the first that is not yet queued */
	bool		sorted;
	StockItem  *items;			/* NULL: there has been none */
} Stock;

struct Found
{
	MemoryContext context;
	KeyList		free;			/* not lent */
	KeyList		leased;			/* perhaps lent */
	Stock		stock;
};

Found *
act_found_begin(MemoryContext context)
{
	Found	   *found = MemoryContextAllocZero(context, sizeof(Found));

	found->context = context;
	return found;
}

static void
free_if_any(void *pointer)
{
	if (pointer != NULL)
		pfree(pointer);
}

void
act_found_end(Found *found)
{
	free_if_any(found->free.keys);
	free_if_any(found->leased.keys);
	free_if_any(found->stock.items);
	pfree(found);
}

static int
compare_keys(const void *a, const void *b)
{
	int64		x = ((const EntityKey *) a)->hash;
	int64		y = ((const EntityKey *) b)->hash;

	return (x > y) - (x < y);
}

static void
flush_list(Found *found, KeyList *list)
{
	if (list->n == 0)
		return;
	qsort(list->keys, list->n, sizeof(EntityKey), compare_keys);
	if (list == &found->free)
		act_readyq_requeue(MyDatabaseId, list->owner, list->keys, list->n);
	else
		act_readyq_push(MyDatabaseId, list->owner, list->keys, list->n);
	list->n = 0;
}

/*
 * Put into the queue what is to be there.
 */
void
act_found_flush(Found *found)
{
	flush_list(found, &found->free);
	flush_list(found, &found->leased);
}

/*
 * An entity is to be queued, with the next flush or before.
 */
void
act_found_queue(Found *found, Oid owner, const EntityKey *key, bool leased)
{
	KeyList    *list = leased ? &found->leased : &found->free;

	if (list->n == QUEUE_AT_ONCE || list->owner != owner)
		flush_list(found, list);
	if (list->keys == NULL)
		list->keys = MemoryContextAlloc(found->context,
										sizeof(EntityKey) * QUEUE_AT_ONCE);
	list->owner = owner;
	list->keys[list->n++] = *key;
}

static void
make_stock(Found *found)
{
	if (found->stock.items == NULL)
		found->stock.items = MemoryContextAlloc(found->context,
												sizeof(StockItem) * STOCK_SIZE);
}

/*
 * Keep an entity for later; false if there is no place.
 */
bool
act_found_keep(Found *found, Oid owner, const EntityKey *key, bool leased)
{
	Stock	   *stock = &found->stock;

	if (stock->n == STOCK_SIZE || (stock->n > 0 && stock->owner != owner))
		return false;
	make_stock(found);
	stock->owner = owner;
	stock->sorted = false;
	stock->items[stock->n].key = *key;
	stock->items[stock->n].leased = leased;
	stock->n++;
	return true;
}

/*
 * Is there anything kept?
 */
bool
act_found_keeps(const Found *found)
{
	return found->stock.next < found->stock.n;
}

static int
compare_items(const void *a, const void *b)
{
	return compare_keys(&((const StockItem *) a)->key,
						&((const StockItem *) b)->key);
}

/*
 * Sort what is kept, before any of it is queued.
 */
void
act_found_sort(Found *found)
{
	Stock	   *stock = &found->stock;

	if (!stock->sorted && stock->n > 0)
		qsort(stock->items, stock->n, sizeof(StockItem), compare_items);
	stock->sorted = true;
}

/*
 * Queue as much of what is kept as its pool takes.  Returns the pool if
 * something is left, else InvalidOid.
 */
Oid
act_found_queue_kept(Found *found)
{
	Stock	   *stock = &found->stock;
	int			room = act_readyq_pool_room(MyDatabaseId, stock->owner);

	act_found_sort(found);
	for (; act_found_keeps(found) && room > 0; room--)
	{
		const StockItem *item = &stock->items[stock->next++];

		act_found_queue(found, stock->owner, &item->key, item->leased);
	}
	act_found_flush(found);
	if (act_found_keeps(found))
		return stock->owner;
	stock->n = stock->next = 0;
	return InvalidOid;
}

/*
 * Give what is kept of a pool to another sweep, which keeps nothing yet.
 */
void
act_found_hand_over(Found *found, Oid owner, Found *to)
{
	Stock	   *stock = &found->stock;

	if (!act_found_keeps(found) || stock->owner != owner)
		return;
	make_stock(to);
	to->stock.owner = owner;
	to->stock.sorted = stock->sorted;
	to->stock.next = 0;
	to->stock.n = stock->n - stock->next;
	memcpy(to->stock.items, stock->items + stock->next,
		   sizeof(StockItem) * to->stock.n);
	stock->n = stock->next = 0;
}
