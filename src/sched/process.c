/*
 * process.c
 *	  Our processes: which is started next, and which has to give way.
 *
 * Managers.  The launcher is not connected to any database.  It asks here which
 * one wants a manager, claims it, and says what became of the start.  If there
 * are as many managers as there may be, they take turns: one that has nothing
 * to do but to wait for its workers is asked to leave, or else the one that has
 * been here longest.
 *
 * Workers.  A manager does the same for the pools of its database.  The cluster
 * has actornot.max_workers slots for the workers of all pools.
 *
 *		A pool without workers gets one as soon as it has work; a pool whose
 *		workers are busy gets another when its work has waited for 5 ms or is a
 *		lot, one after the other.
 *		If no slot is free, the pool is "starved".  An idle worker goes first,
 *		then one of the largest pool, then, if every pool has one worker only,
 *		the one that has been here longest, but not before it has been here for
 *		a second.  It is only asked: it goes when its transaction has
 *		committed.
 *		A free slot goes to the starved pool with the fewest workers, among
 *		equals to the one that has waited longest.
 *
 * The server's own worker slots can be fewer.  Then as many of ours count as
 * it let us have, for a while.  Whether an owner may connect at all is found
 * out by the manager, which then has the pool blocked here.
 *
 * What the loops of the launcher and the managers have in common is here, too.
 *
 * Locks: the registry's; no memory.  Failure: a process that never came is
 * given up after half a minute; if it comes yet, its claim is no longer good
 * and it leaves.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "sched/database.h"
#include "sched/process.h"
#include "sched/registry.h"
#include "sched/slot.h"

/* A process that has not come by then is not expected any more. */
#define START_LIMIT (30 * USECS_PER_SEC)

/* When managers are short, each may stay so long. */
#define MANAGER_TENURE (10 * USECS_PER_SEC)

/* Work that waits so long, or is so much, gets the pool another worker. */
#define PATIENCE (5 * INT64CONST(1000))
#define MUCH_WORK 256

/* A worker is not sent away before that when it is its pool's only one. */
#define WORKER_TENURE (1 * USECS_PER_SEC)

/* -------------------------------------------- what they have in common */

/* Fill in what is registered; "function" is that of the library. */
void
act_process_describe(BackgroundWorker *process, const char *function,
					 const char *type)
{
	memset(process, 0, sizeof(BackgroundWorker));
	process->bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	process->bgw_start_time = BgWorkerStart_RecoveryFinished;
	process->bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(process->bgw_library_name, "actornot", BGW_MAXLEN);
	strlcpy(process->bgw_function_name, function, BGW_MAXLEN);
	strlcpy(process->bgw_name, type, BGW_MAXLEN);
	strlcpy(process->bgw_type, type, BGW_MAXLEN);
}

/* Begin a round of a process's loop: what happens from now on ends its sleep. */
void
act_process_begin_round(void)
{
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

void
act_process_sleep_until(TimestampTz then)
{
	int			events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
	long		timeout = -1;

	if (then != DT_NOEND)
	{
		events |= WL_TIMEOUT;
		timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), then);
		timeout = Min(timeout, PG_INT32_MAX - 1);
	}
	(void) WaitLatch(MyLatch, events, timeout, PG_WAIT_EXTENSION);
}

void
act_process_begin_transaction(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, activity);
	StartTransactionCommand();
}

/*
 * Whatever waits in a transaction (for a lock, for another process to read a
 * page) resets our latch on its way, and a call that came in between is not
 * heard any more.  So after each transaction we look once more before we sleep.
 */
void
act_process_end_transaction(void)
{
	CommitTransactionCommand();
	pgstat_report_activity(STATE_IDLE, NULL);
	pgstat_report_stat(true);
	SetLatch(MyLatch);
}

/* ------------------------------------ managers: which database gets one */

static void
detach_launcher(int code, Datum arg)
{
	act_registry_lock();
	if (act_registry->launcher_pid == MyProcPid)
	{
		act_registry->launcher_pid = 0;
		act_registry->launcher_latch = NULL;
	}
	act_registry_unlock();
}

void
act_process_attach_launcher(void)
{
	on_shmem_exit(detach_launcher, 0);
	act_registry_lock();
	act_registry->launcher_pid = MyProcPid;
	act_registry->launcher_latch = MyLatch;
	act_registry_unlock();
}

/* Has every database been looked into since the server's start? */
bool
act_process_is_probed(void)
{
	return act_registry->probed;
}

void
act_process_set_probed(void)
{
	act_registry_lock();
	act_registry->probed = true;
	act_registry_unlock();
}

/*
 * A database that wants a manager now, InvalidOid if there is none; "next" is
 * then when to ask again, unless there is a call before.
 */
Oid
act_process_find_database(TimestampTz now, TimestampTz *next)
{
	dlist_iter	iter;
	Oid			found = InvalidOid;

	act_registry_lock();
	dlist_foreach(iter, &act_registry->databases)
	{
		Database   *db = dlist_container(Database, node, iter.cur);
		TimestampTz at;

		if (db->manager == MANAGER_STARTING)
		{
			at = db->manager_since + START_LIMIT;
			if (at > now)
			{
				*next = Min(*next, at);
				continue;
			}
			act_database_end_manager(db);
			act_database_delay_manager(db, now);
		}
		if (db->manager != MANAGER_NONE || db->nevictions > 0)
			continue;
		at = Max(act_database_next_chore(db), db->not_before);
		if (at <= now)
		{
			found = db->database;
			break;
		}
		*next = Min(*next, at);
	}
	act_registry_unlock();
	return found;
}

/*
 * Is this manager on its way out?  One that has been for long is not expected
 * any more: something keeps it, a table that is locked, say.
 */
static bool
is_expected_to_leave(Database *db, TimestampTz now)
{
	if (db->manager != MANAGER_LEAVING && !db->manager_leave)
		return false;
	if (db->leave_since == 0 || db->leave_since > now)
		db->leave_since = now;
	return db->leave_since + MANAGER_TENURE > now;
}

/*
 * Too many managers: ask one to go that has nothing to do but to wait for its
 * workers, or else the one that has been here longest.
 */
static void
ask_oldest_manager(TimestampTz now)
{
	Database   *oldest = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &act_registry->databases)
	{
		Database   *db = dlist_container(Database, node, iter.cur);

		if (is_expected_to_leave(db, now))
			return;
		if (db->manager != MANAGER_RUNNING || db->manager_leave)
			continue;
		if (act_database_is_idle(db, now))
		{
			oldest = db;
			break;
		}
		if (db->manager_since + MANAGER_TENURE <= now &&
			(oldest == NULL || db->manager_since < oldest->manager_since))
			oldest = db;
	}
	if (oldest != NULL)
	{
		oldest->manager_leave = true;
		oldest->leave_since = now;
		SetLatch(oldest->manager_latch);
	}
}

/*
 * A manager will be started.  False if there are as many as there may be: half
 * of the server's workers, so that ours find a place as well.  Then they take
 * turns.
 */
bool
act_process_claim_manager(Oid database, TimestampTz now, Datum *main_arg)
{
	int			max_managers = Max((max_worker_processes - 1) / 2, 1);
	Database   *db;
	bool		claimed = false;

	act_registry_lock();
	db = act_registry_find_database(database);
	if (db == NULL || db->manager != MANAGER_NONE ||
		db->nevictions > 0)
		;						/* an eviction or another start was faster */
	else if (act_registry->nmanagers >= max_managers)
		ask_oldest_manager(now);
	else
	{
		act_database_set_starting(db, now);
		/* See act_database_find_claim. */
		*main_arg = UInt64GetDatum(((uint64) db->generation << 32) |
								   db->database);
		claimed = true;

		/* The others come first the next time. */
		dlist_delete(&db->node);
		dlist_push_tail(&act_registry->databases, &db->node);
	}
	act_registry_unlock();
	return claimed;
}

/*
 * Has the server started a process for that claim?  True if it has had no
 * place for one for long, and that is not in the log.
 */
bool
act_process_note_manager(Datum main_arg, bool started)
{
	TimestampTz now = GetCurrentTimestamp();
	Database   *db;
	bool		news = false;

	act_registry_lock();
	db = act_database_find_claim(main_arg);
	if (started)
		act_slot_note_success();
	else if (db != NULL)
	{
		act_database_end_manager(db);
		news = act_slot_note_shortage(now, true);
		db->not_before = act_registry->short_until;
	}
	act_registry_unlock();
	return news;
}

/* ----------------------------------------- workers: which pool gets one */

/*
 * When did the last one of the pool's workers begin to work?  Infinity while
 * one is on its way.
 */
static TimestampTz
newest_worker_since(const Pool *pool)
{
	TimestampTz newest = DT_NOBEGIN;

	for (int i = 0; i < act_registry->nslots; i++)
	{
		WorkerSlot *slot = &act_registry->slots[i];

		if (slot->pool != pool || slot->state == SLOT_LEAVING)
			continue;
		if (!slot->has_worked)
			return DT_NOEND;
		newest = Max(newest, slot->since);
	}
	return newest;
}

/*
 * Does the pool want one more worker now?  If perhaps later, "next" is when
 * to ask again; otherwise there will be a call.
 */
static bool
wants_worker(Pool *pool, TimestampTz now, TimestampTz *next)
{
	TimestampTz since;
	TimestampTz newest;

	/* What has no owner is for programs outside. */
	if (pool->nready + pool->ndelayed == 0 || !OidIsValid(pool->key.owner))
		return false;
	if (!act_registry_has_work(pool, now))
	{
		*next = Min(*next, pool->delayed_until);
		return false;
	}
	if (pool->not_before > now)
	{
		*next = Min(*next, pool->not_before);
		return false;
	}
	if (pool->nworkers == 0)
		return true;
	if (pool->nworkers >= act_registry->nslots)
		return false;
	newest = newest_worker_since(pool);
	if (newest == DT_NOEND)
		return false;

	/* Patience begins anew with each worker that comes. */
	since = pool->nready > 0 ?
		Min(pool->ready_since, pool->delayed_until) : pool->delayed_until;
	since = Max(since, newest);
	if (pool->nwoken > 0 || !dlist_is_empty(&pool->idle))
		since = now;			/* a worker is about to take it */
	else if (pool->nready >= MUCH_WORK || since + PATIENCE <= now)
		return true;
	*next = Min(*next, since + PATIENCE);
	return false;
}

/* Processes that never came. */
static void
give_up_starts(TimestampTz now)
{
	for (int i = 0; i < act_registry->nslots; i++)
	{
		WorkerSlot *slot = &act_registry->slots[i];

		if (slot->state == SLOT_STARTING && slot->since + START_LIMIT <= now)
		{
			act_slot_delay_pool(slot->pool, now);
			act_slot_vacate(slot);
		}
	}
}

/*
 * The owners of this database's pools that want a worker, at most max of
 * them.  Forgets pools that are empty.
 */
int
act_process_find_pools(Oid database, TimestampTz now, Oid *owners, int max,
					   TimestampTz *next)
{
	Database   *db;
	dlist_mutable_iter iter;
	int			n = 0;

	act_registry_lock();
	give_up_starts(now);
	db = act_registry_find_database(database);
	Assert(db != NULL);
	dlist_foreach_modify(iter, &db->pools)
	{
		Pool	   *pool = dlist_container(Pool, node, iter.cur);

		if (pool->nentries == 0 && pool->nslots == 0)
		{
			act_registry_remove_pool(pool);
			continue;
		}
		if (pool->nstarting > 0)
			*next = Min(*next, now + START_LIMIT);
		if (pool->nready + pool->ndelayed == 0)
			pool->wants_help = false;
		if (wants_worker(pool, now, next))
		{
			if (n < max)
				owners[n++] = pool->key.owner;
		}
		else if (pool->not_before <= now)
			act_registry_end_starved(pool);
	}
	act_registry_unlock();
	return n;
}

/* ---------------------------------------- workers: which gives one up */

/*
 * The worker that has been here longest, of this pool (NULL: of any), but not
 * of "except"; NULL if there is none.
 */
static WorkerSlot *
oldest_worker(const Pool *pool, const Pool *except)
{
	WorkerSlot *oldest = NULL;

	for (int i = 0; i < act_registry->nslots; i++)
	{
		WorkerSlot *slot = &act_registry->slots[i];

		if ((pool == NULL || slot->pool == pool) && slot->pool != except &&
			slot->pid != 0 && !slot->leave && slot->state != SLOT_LEAVING &&
			(oldest == NULL || slot->since < oldest->since))
			oldest = slot;
	}
	return oldest;
}

/*
 * How many starved pools come before this one?  Those with fewer workers, and
 * among equals those that have waited longer.
 */
static int
count_rivals(const Pool *pool)
{
	dlist_iter	databases;
	dlist_iter	pools;
	int			n = 0;

	dlist_foreach(databases, &act_registry->databases)
	{
		Database   *db = dlist_container(Database, node, databases.cur);

		dlist_foreach(pools, &db->pools)
		{
			Pool	   *other = dlist_container(Pool, node, pools.cur);

			if (other == pool || other->starved_since == 0)
				continue;
			if (other->nworkers < pool->nworkers ||
				(other->nworkers == pool->nworkers &&
				 (pool->starved_since == 0 ||
				  other->starved_since < pool->starved_since)))
				n++;
		}
	}
	return n;
}

/* How many workers are on their way out already? */
static int
count_leaving(void)
{
	int			n = 0;

	for (int i = 0; i < act_registry->nslots; i++)
	{
		WorkerSlot *slot = &act_registry->slots[i];

		if (slot->state == SLOT_LEAVING || slot->leave)
			n++;
	}
	return n;
}

/*
 * Which worker is to give way to this pool?  NULL: none, or none yet; "next"
 * is then when to ask again.
 */
static WorkerSlot *
choose_victim(const Pool *pool, TimestampTz now, TimestampTz *next)
{
	WorkerSlot *victim = NULL;

	for (int i = 0; i < act_registry->nslots; i++)
	{
		WorkerSlot *slot = &act_registry->slots[i];

		if (slot->state == SLOT_IDLE && slot->pool != pool && !slot->leave &&
			!act_registry_has_work(slot->pool, now))
			return slot;
	}
	for (int i = 0; i < act_registry->nslots; i++)
	{
		Pool	   *other = act_registry->slots[i].pool;
		WorkerSlot *slot;

		if (other == NULL || other == pool ||
			other->nworkers < pool->nworkers + 2)
			continue;
		if (victim != NULL && other->nworkers < victim->pool->nworkers)
			continue;
		slot = oldest_worker(other, pool);
		if (slot != NULL &&
			(victim == NULL || victim->pool->nworkers < other->nworkers ||
			 slot->since < victim->since))
			victim = slot;
	}
	if (victim != NULL || pool->nworkers > 0)
		return victim;

	/* All have one worker, this pool none: they take turns. */
	victim = oldest_worker(NULL, pool);
	if (victim != NULL && victim->since + WORKER_TENURE > now)
	{
		*next = Min(*next, victim->since + WORKER_TENURE);
		victim = NULL;
	}
	return victim;
}

/*
 * Have a worker make room, unless enough are leaving already.  "next" is when
 * to try again if none can be asked.
 */
static void
make_room_for(Pool *pool, TimestampTz now, TimestampTz *next)
{
	WorkerSlot *victim;

	if (now < act_registry->short_until)
		*next = Min(*next, act_registry->short_until);
	act_registry_set_starved(pool, now);
	if (count_leaving() > count_rivals(pool))
		return;
	victim = choose_victim(pool, now, next);
	if (victim != NULL)
		act_slot_ask(victim);
}

/* Why can no worker be started for this pool now? */
static Gate
find_gate(const Pool *pool, TimestampTz now)
{
	if (pool->db->nevictions > 0)
		return GATE_EVICTED;
	if (pool->not_before > now)
		return pool->gate == GATE_OPEN ? GATE_START_DELAYED : pool->gate;
	if (act_slot_count_free(now) <= count_rivals(pool))
		return GATE_NO_SLOT;
	return GATE_OPEN;
}

/*
 * Take a slot for a worker of this pool.  If none is to be had, a worker has
 * been asked to leave, and the manager will be told.
 */
Gate
act_process_claim_worker(Oid database, Oid owner, TimestampTz now, Datum *main_arg,
						 TimestampTz *next)
{
	Pool	   *pool;
	Gate		gate;

	act_registry_lock();
	pool = act_registry_find_pool(database, owner);
	gate = pool == NULL ? GATE_EMPTY : find_gate(pool, now);
	if (gate == GATE_OPEN)
	{
		WorkerSlot *slot = act_registry->slots;

		while (slot->state != SLOT_FREE)
			slot++;				/* find_gate() has counted the free ones */
		Assert(slot < act_registry->slots + act_registry->nslots);
		act_slot_claim(slot, pool, now);
		act_registry_end_starved(pool);
		pool->gate = GATE_OPEN;
		*main_arg = act_slot_make_arg(slot);
	}
	else if (gate == GATE_NO_SLOT)
		make_room_for(pool, now, next);
	act_registry_unlock();
	return gate;
}

/*
 * Has the server started a process for that claim?  If it had no place, one
 * of our workers may have to make room there.  True if a pool has no worker
 * at all because of that, for long, and that is not in the log.
 */
bool
act_process_note_worker(Datum main_arg, bool started, TimestampTz *next)
{
	TimestampTz now = GetCurrentTimestamp();
	WorkerSlot *slot;
	bool		news = false;

	act_registry_lock();
	slot = act_slot_find_claim(main_arg);
	if (started)
		act_slot_note_success();
	else if (slot != NULL)
	{
		Pool	   *pool = slot->pool;

		act_slot_free(slot);
		news = act_slot_note_shortage(now, pool->nworkers == 0);
		make_room_for(pool, now, next);
	}
	act_registry_unlock();
	return news;
}

/*
 * The owner may not connect.  The pool is looked at again later.  True if
 * that is news.
 */
bool
act_process_block_pool(Oid database, Oid owner, Gate gate, TimestampTz now)
{
	Pool	   *pool;
	bool		news = false;

	act_registry_lock();
	pool = act_registry_find_pool(database, owner);
	if (pool != NULL)
	{
		news = (pool->gate != gate);
		if (news)
			pool->delay = 0;
		pool->gate = gate;
		act_registry_end_starved(pool);
		act_slot_delay_pool(pool, now);
	}
	act_registry_unlock();
	return news;
}
