/*
 * wakeup.c
 *	  Hints that are given when the transaction commits, and only then.
 *
 * A post becomes visible when its transaction commits, and not before that
 * may a worker be woken.  So what a transaction posted to is remembered here,
 * and one callback, registered once per backend, tells the ready queue.
 *
 * Guarantees: hints are given after the commit is visible to all, its
 * invalidation messages are sent and its locks released, and not at all after
 * an abort.  (The transaction's own callback comes before the messages: a
 * worker woken by it could still find a runner paused that it resumed, or not
 * know one that it registered, and drop the hint.  So that callback only says
 * that it is a commit; the hints wait for the end of the locks.)  In the
 * callbacks nothing is allocated, looked up or reported: the transaction is
 * committed already, an error would be a PANIC.  At PREPARE the hints are
 * dropped, since this backend will never hear of the second phase; COMMIT
 * PREPARED asks for a sweep.  What was taken off the queue is put back.  More
 * than ACT_WAKEUP_MAX entities, or posts to runners of more than MAX_GROUPS
 * owners, become one request for a sweep.  A subtransaction that was rolled
 * back leaves hints without messages, which do no harm.
 *
 * Memory: the set grows in a context of its own, which is emptied after a
 * large transaction.  Whether an entity is in the set already is answered by
 * an open-addressing table in which each slot says for which transaction it
 * is valid, so that nothing needs clearing between transactions.
 *
 * No locks (those of the ready queue aside).
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "sched/hints.h"
#include "sched/leaseq.h"
#include "sched/wakeup.h"

/* Owners whose entities are kept apart. */
#define MAX_GROUPS 16

/* Slots of the table: a power of two, twice what may be in it. */
#define TABLE_SLOTS (2 * ACT_WAKEUP_MAX)

/* Room for this many keys is kept from one transaction to the next. */
#define KEEP_KEYS 1024

/* The entities of one owner, as the ready queue wants them. */
typedef struct OwnerGroup
{
	Oid			owner;
	int			nkeys;
	int			room;
	EntityKey  *keys;
} OwnerGroup;

/* An entity whose place in the ready queue depends on this transaction. */
typedef struct QueueChange
{
	EntityKey	key;
	Oid			owner;
	int			level;			/* of the subtransaction that it belongs to */
	bool		taken;			/* to be undone, else done at commit */
	bool		empty;
} QueueChange;

/* A slot is empty unless its epoch is the present one. */
typedef struct TableSlot
{
	uint32		epoch;
	uint16		group;
	uint16		index;
} TableSlot;

static bool registered = false;
static MemoryContext hints_context = NULL;

/* What the present transaction wants; "dirty" if it wants anything. */
static bool dirty = false;
static bool committed = false;	/* the hints are due when the locks are gone */
static bool want_sweep = false;
static bool overflow = false;	/* no more keys are taken, the sweep is asked */
static TimestampTz due_at = 0;	/* 0: nothing */
static int	nkeys = 0;
static int	ngroups = 0;
static OwnerGroup groups[MAX_GROUPS];
static EntityKey last_key;		/* valid if nkeys > 0 */
static QueueChange *changes = NULL;
static int	nchanges = 0;
static int	nended = 0;			/* of these, not "taken" */
static int	changes_room = 0;
static bool in_search = false;

/* Never 0, so that a slot that was never used is empty. */
static uint32 epoch = 1;
static TableSlot table[TABLE_SLOTS];

/* Forget everything.  Runs after commit and abort, so it must not fail. */
static void
clear_hints(void)
{
	int			room = changes_room;

	for (int i = 0; i < MAX_GROUPS; i++)
	{
		groups[i].nkeys = 0;
		room += groups[i].room;
	}
	if (room > KEEP_KEYS)
	{
		memset(groups, 0, sizeof(groups));
		changes = NULL;
		changes_room = 0;
		MemoryContextReset(hints_context);
	}
	nchanges = 0;
	nended = 0;
	ngroups = 0;
	nkeys = 0;
	want_sweep = false;
	overflow = false;
	due_at = 0;
	dirty = false;
	committed = false;

	if (++epoch == 0)
	{
		memset(table, 0, sizeof(table));
		epoch = 1;
	}
}

/*
 * What was taken is queued again: what was to be done with it is undone, in
 * subtransactions from this level on.
 */
static void
undo_taken(int level)
{
	for (int i = 0; i < nchanges; i++)
	{
		if (changes[i].taken && changes[i].level >= level)
			act_readyq_requeue(MyDatabaseId, changes[i].owner,
							   &changes[i].key, 1);
	}
}

/* Tell the processes.  The transaction has committed: nothing may fail. */
static void
give_hints(void)
{
	for (int i = 0; i < nchanges; i++)
	{
		if (!changes[i].taken)
			act_leaseq_end(MyDatabaseId, changes[i].owner,
						   &changes[i].key, changes[i].empty);
	}
	for (int i = 0; i < ngroups; i++)
		if (groups[i].nkeys > 0)
			act_readyq_push(MyDatabaseId, groups[i].owner,
							groups[i].keys, groups[i].nkeys);
	if (want_sweep)
		act_readyq_request_sweep(MyDatabaseId);
	if (due_at != 0)
		act_database_due_at(MyDatabaseId, due_at);
}

/*
 * What is done in a subtransaction becomes its parent's, or is undone: then
 * what was taken is queued, and stays noted, for that costs little.  That an
 * entity is idle may be due to what has been undone.
 */
static void
at_end_of_subtransaction(SubXactEvent event, SubTransactionId mySubid,
						 SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (nchanges == 0 || (event != SUBXACT_EVENT_ABORT_SUB &&
						  event != SUBXACT_EVENT_COMMIT_SUB))
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB && !in_search)
		undo_taken(level);
	for (int i = 0; i < nchanges; i++)
	{
		if (event == SUBXACT_EVENT_ABORT_SUB && !in_search)
			changes[i].empty = false;
		changes[i].level = Min(changes[i].level, level - 1);
	}
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	in_search = false;			/* also if its rollback failed */
	if (!dirty)
		return;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
			committed = true;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			/* Prepared: locked until the second phase, then lent or free. */
			undo_taken(0);
			clear_hints();
			break;
		default:
			break;
	}
}

/*
 * Called for each resource owner and phase; the first time after the locks
 * were released is the one.
 */
static void
after_release(ResourceReleasePhase phase, bool is_commit, bool is_top_level,
			  void *arg)
{
	if (!committed || phase != RESOURCE_RELEASE_AFTER_LOCKS)
		return;
	give_hints();
	clear_hints();
}

/* Get ready to note something.  False without a ready queue. */
static inline bool
begin_hint(void)
{
	if (!act_readyq_attached())
		return false;
	if (unlikely(!registered))
	{
		hints_context = AllocSetContextCreate(TopMemoryContext,
											  "actornot hints at commit",
											  ALLOCSET_DEFAULT_SIZES);
		RegisterXactCallback(at_end_of_transaction, NULL);
		RegisterSubXactCallback(at_end_of_subtransaction, NULL);
		RegisterResourceReleaseCallback(after_release, NULL);
		registered = true;
	}
	dirty = true;
	return true;
}

static inline bool
same_key(const EntityKey *a, const EntityKey *b)
{
	return a->hash == b->hash && a->runner == b->runner &&
		a->check == b->check;
}

/* The group of an owner, made if need be; NULL if there is no room for one. */
static OwnerGroup *
find_group(Oid owner)
{
	for (int i = 0; i < ngroups; i++)
		if (groups[i].owner == owner)
			return &groups[i];
	if (ngroups == MAX_GROUPS)
		return NULL;
	groups[ngroups].owner = owner;
	return &groups[ngroups++];
}

static void
append_key(OwnerGroup *group, const EntityKey *key)
{
	if (group->nkeys == group->room)
	{
		int			room = Max(32, 2 * group->room);

		if (group->keys == NULL)
			group->keys = MemoryContextAlloc(hints_context,
											 room * sizeof(EntityKey));
		else
			group->keys = repalloc(group->keys, room * sizeof(EntityKey));
		group->room = room;
	}
	group->keys[group->nkeys++] = *key;
}

/* A poster calls this for each message. */
void
act_wakeup_push(Oid owner, const EntityKey *key)
{
	uint32		i;
	OwnerGroup *group;
	TableSlot  *slot;

	if (nkeys > 0 && same_key(key, &last_key))
		return;
	if (overflow || !begin_hint())
		return;

	/* "check" is spread even when tests force the hashes to be equal. */
	for (i = key->check % TABLE_SLOTS; table[i].epoch == epoch;
		 i = (i + 1) % TABLE_SLOTS)
	{
		slot = &table[i];
		if (same_key(key, &groups[slot->group].keys[slot->index]))
			return;
	}

	group = find_group(owner);
	if (group == NULL || nkeys == ACT_WAKEUP_MAX)
	{
		overflow = want_sweep = true;
		return;
	}
	append_key(group, key);
	last_key = *key;
	nkeys++;

	slot = &table[i];
	slot->epoch = epoch;
	slot->group = group - groups;
	slot->index = group->nkeys - 1;
}

static void
note_change(Oid owner, const EntityKey *key, bool taken, bool empty)
{
	if (!begin_hint())
		return;
	if (nchanges == changes_room)
	{
		int			room = Max(32, 2 * changes_room);

		if (changes == NULL)
			changes = MemoryContextAlloc(hints_context,
										 room * sizeof(QueueChange));
		else
			changes = repalloc(changes, room * sizeof(QueueChange));
		changes_room = room;
	}
	changes[nchanges].key = *key;
	changes[nchanges].owner = owner;
	changes[nchanges].level = GetCurrentTransactionNestLevel();
	changes[nchanges].taken = taken;
	changes[nchanges].empty = empty;
	nchanges++;
	nended += !taken;
}

void
act_wakeup_taken(Oid owner, const EntityKey *key)
{
	/* Lent again: that its last lease ended does not say that it is idle. */
	for (int i = 0; nended > 0 && i < nchanges; i++)
	{
		if (!changes[i].taken && same_key(&changes[i].key, key))
			changes[i].empty = false;
	}
	note_change(owner, key, true, false);
}

/*
 * They stay noted for the transaction's abort: that an entity was idle may be
 * due to what the transaction did before.
 */
void
act_wakeup_rollback_search(void)
{
	in_search = true;
	RollbackAndReleaseCurrentSubTransaction();
	in_search = false;
}

void
act_wakeup_end_lease(Oid owner, const EntityKey *key, bool empty)
{
	note_change(owner, key, false, empty);
}

void
act_wakeup_sweep(void)
{
	if (begin_hint())
		want_sweep = true;
}

/* Of several times the earliest counts. */
void
act_wakeup_due(TimestampTz at)
{
	if (!begin_hint())
		return;
	if (due_at == 0 || at < due_at)
		due_at = at;
}
