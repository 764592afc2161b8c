/*
 * leaseq.c
 *	  The ready queue for programs outside, which hold entities under a lease.
 *
 * A program asks for entities of one runner.  They are taken off the queue,
 * from the runner's lane, and lent, or put back.  One that is lent stays in the
 * queue as an entry that no worker pops: a push is noted there and wakes
 * no process, and when the lease has ended the entry is queued again.
 *
 * Locks: the registry's.  Memory: none of its own.
 *
 * Failure: a backend that dies while it has taken entries off queues them
 * again at its abort (wakeup.c); what is lost in a crash a sweep finds.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "sched/entry.h"
#include "sched/hints.h"
#include "sched/lane.h"
#include "sched/leaseq.h"
#include "sched/readyq.h"
#include "sched/registry.h"

static void
take_entry(ReadyEntry *entry, TakenKey *taken)
{
	taken->key = entry->key.entity;
	taken->delay = entry->delay;
	act_entry_remove(entry);
}

/* Those that found no place in a lane, because there are too many runners. */
static int
take_unlisted(Pool *pool, int32 runner, TakenKey *taken, int max)
{
	dlist_mutable_iter iter;
	int			n = 0;

	dlist_foreach_modify(iter, &pool->ready)
	{
		ReadyEntry *entry = dlist_container(ReadyEntry, node, iter.cur);

		if (n == max || pool->nunlisted == 0)
			break;
		if (entry->lane == NULL && entry->key.entity.runner == runner)
			take_entry(entry, &taken[n++]);
	}
	return n;
}

int
act_leaseq_take(Oid database, Oid owner, int32 runner, TakenKey *taken,
				int max, TimestampTz *retry)
{
	TimestampTz now;
	Pool	   *pool;
	Lane	   *lane;
	int			n = 0;

	if (!act_readyq_attached())
		return 0;
	now = GetCurrentTimestamp();
	act_registry_lock();
	pool = act_registry_find_pool(database, owner);
	if (pool != NULL)
		act_entry_resume_due(pool, now);
	lane = act_lane_find(database, runner);
	while (lane != NULL && n < max && lane->nready > 0)
	{
		ReadyEntry *entry = dlist_head_element(ReadyEntry, lane_node,
											   &lane->ready);

		take_entry(entry, &taken[n++]);
	}
	if (pool != NULL && n < max)
		n += take_unlisted(pool, runner, taken + n, max - n);
	*retry = pool != NULL ? pool->delayed_until : DT_NOEND;
	act_registry_unlock();
	return n;
}

int
act_leaseq_count_ready(Oid database, int32 runner)
{
	Lane	   *lane;
	int			n = 0;

	if (!act_readyq_attached())
		return 0;
	act_registry_lock();
	lane = act_lane_find(database, runner);
	if (lane != NULL)
		n = lane->nready;
	act_registry_unlock();
	return n;
}

void
act_leaseq_put_back(Oid database, Oid owner, const TakenKey *taken)
{
	const EntityKey *key = &taken->key;
	TimestampTz now;
	Pool	   *pool;

	if (!act_readyq_attached())
		return;
	now = GetCurrentTimestamp();
	act_registry_lock();
	pool = act_registry_enter_pool(database, owner);
	if (pool == NULL)
		act_readyq_note_refused(database, NULL, now);
	else if (act_entry_find(database, key) == NULL)
	{
		ReadyEntry *entry = act_entry_add(key, pool);

		if (entry != NULL)
		{
			entry->delay = taken->delay;
			act_entry_delay(entry, now);

			/*
			 * Wake another waiter: it must retry when this entry's delay
			 * ends.
			 */
			act_lane_wake_other(database, key->runner);
		}
		else
			act_readyq_note_refused(database, pool, now);
		act_readyq_watch_delayed(pool);
	}
	act_registry_unlock();
}

/* There is no place for a lease: what is pending at its end a sweep finds. */
static void
sweep_after(Oid database, TimestampTz until, TimestampTz now)
{
	Database   *db = act_registry_enter_database(database);

	if (db == NULL || until >= db->sweep_at)
		return;
	db->sweep_at = Max(until, now + ACT_REFUSED_SWEEP_DELAY);
	if (db->manager == MANAGER_RUNNING)
		act_registry_call_manager(db);
	else
		act_registry_call_launcher();
}

/*
 * An entry that is already there has been pushed since it was taken, or it is
 * held by a worker, which then looks once more and finds the entity lent.  If
 * this process is the worker and there was a push, it looks once more itself.
 */
void
act_leaseq_lend(Oid database, Oid owner, const EntityKey *key,
				TimestampTz until, bool looked)
{
	TimestampTz now;
	ReadyEntry *entry;
	bool		posted = true;
	Pool	   *pool;

	if (!act_readyq_attached())
		return;
	now = GetCurrentTimestamp();
	act_registry_lock();
	entry = act_entry_find(database, key);
	if (entry != NULL && entry->slot != NULL)
	{
		if (entry->slot != act_registry_my_slot)
		{
			/* It may have looked before. */
			if (entry->state == ENTRY_RUNNING)
				act_entry_repeat(entry);
			goto done;
		}
		if (entry->state == ENTRY_AGAIN)
		{
			/* What we have seen of it may be over: the lease may have ended. */
			act_entry_release(entry);
			act_entry_queue(entry, now);
			goto done;
		}
		posted = false;
		act_entry_release(entry);
	}
	else if (entry != NULL && entry->state == ENTRY_LENT)
		posted = entry->posted;
	else if (entry == NULL)
	{
		posted = false;
		pool = act_registry_enter_pool(database, owner);
		entry = pool == NULL ? NULL : act_entry_add(key, pool);
	}
	if (entry != NULL)
	{
		act_entry_lend(entry, until);
		entry->posted = posted || !looked;
	}
	else
		sweep_after(database, until, now);
done:
	act_registry_unlock();
}

void
act_leaseq_end(Oid database, Oid owner, const EntityKey *key,
			   bool empty)
{
	ReadyEntry *entry;
	bool		settled = false;

	if (!act_readyq_attached())
		return;
	if (empty)
	{
		act_registry_lock();
		entry = act_entry_find(database, key);
		if (entry != NULL && entry->state == ENTRY_LENT && !entry->posted)
		{
			act_entry_remove(entry);
			act_lane_wake_entity(database, key);
			settled = true;
		}
		act_registry_unlock();
	}
	if (!settled)
		act_readyq_requeue(database, owner, key, 1);
}

void
act_leaseq_expire(Oid database, TimestampTz now, TimestampTz *next)
{
	Database   *db;
	ReadyEntry *entry;

	act_registry_lock();
	db = act_registry_find_database(database);
	if (db != NULL)
	{
		while ((entry = act_entry_first_lent(db)) != NULL &&
			   entry->since <= now)
		{
			act_lane_wake_entity(database, &entry->key.entity);
			act_entry_requeue(entry, entry->pool, now);
			act_readyq_announce(entry->pool);
		}
		*next = Min(*next, act_entry_lease_alarm(db, now));
	}
	act_registry_unlock();
}

/* ------------------------------------------------------------- waiting */

void
act_leaseq_wait(Oid database, int32 runner, const EntityKey *entity)
{
	if (act_readyq_attached())
		act_lane_wait(database, runner, entity);
}

bool
act_leaseq_is_woken(void)
{
	return act_readyq_attached() && act_lane_is_woken();
}

void
act_leaseq_leave(void)
{
	if (act_readyq_attached())
		act_lane_leave();
}
