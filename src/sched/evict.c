/*
 * evict.c
 *	  Keeping our processes out of a database for a while.
 *
 * Some statements need a database without any session in it (DROP DATABASE
 * and the like), or objects that are not in use (DROP EXTENSION).  They begin
 * an eviction: from then on no process of ours is started there, what has been
 * claimed is cancelled, and our processes there are asked to leave, then
 * terminated.
 *
 * Locks: the registry's; no memory.  Failure: the statement's backend ends it
 * in a transaction callback that no exit leaves out; after a crash there are
 * no evictions.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "sched/database.h"
#include "sched/evict.h"
#include "sched/registry.h"
#include "sched/slot.h"

/* Our processes are asked first, and terminated after that. */
#define ASK_FIRST_MS 200

/* A process that is still there after a SIGTERM is sent another one. */
#define ASK_AGAIN_MS 1000

/* Ask, or terminate, our processes in a database; not this process. */
static void
evict(Database *db, bool terminate)
{
	for (int i = 0; i < act_registry->nslots; i++)
	{
		WorkerSlot *slot = &act_registry->slots[i];

		if (slot->state == SLOT_FREE || slot->pool->db != db)
			continue;
		if (slot->state == SLOT_STARTING)
			act_slot_free(slot);	/* it will find its claim void */
		else if (!terminate)
			act_slot_ask(slot);
		else if (slot->pid != MyProcPid)
			kill(slot->pid, SIGTERM);
	}
	if (db->manager == MANAGER_STARTING)
		act_database_end_manager(db);
	else if (db->manager == MANAGER_RUNNING)
	{
		db->manager_leave = true;
		if (terminate)
			kill(db->manager_pid, SIGTERM);
		else
			SetLatch(db->manager_latch);
	}
}

/*
 * From now on until act_evict_end no process of ours may come to this
 * database, and those that are there are asked to leave.  False: there is no
 * place to note that, which also means that none is there.
 */
bool
act_evict_begin(Oid database)
{
	Database   *db;

	act_registry_lock();
	db = act_registry_enter_database(database);
	if (db != NULL)
	{
		db->nevictions++;
		evict(db, false);
	}
	act_registry_unlock();
	return db != NULL;
}

/* Is one of our processes there, apart from this one? */
static bool
is_occupied(Oid database, bool terminate)
{
	Database   *db;
	int			nothers = 0;

	act_registry_lock();
	db = act_registry_find_database(database);
	if (db != NULL)
	{
		nothers = db->nslots + (db->manager != MANAGER_NONE ? 1 : 0);
		if (act_registry_my_slot != NULL &&
			act_registry_my_slot->pool->db == db)
			nothers--;
		if (nothers > 0 && terminate)
			evict(db, true);
	}
	act_registry_unlock();
	return nothers > 0;
}

/*
 * Wait until none of our processes is in the database.  They are asked first;
 * one that does not leave soon is in the middle of a batch, and is
 * terminated.  False: some are still there when the time is over.
 */
bool
act_evict_wait_until_empty(Oid database, int timeout_ms)
{
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz terminate_at =
	TimestampTzPlusMilliseconds(start, ASK_FIRST_MS);
	TimestampTz end = TimestampTzPlusMilliseconds(start, timeout_ms);
	bool		terminate = false;
	bool		occupied;

	ConditionVariablePrepareToSleep(&act_registry->gone);
	for (;;)
	{
		TimestampTz now;

		occupied = is_occupied(database, terminate);
		now = GetCurrentTimestamp();
		if (!occupied || now >= end)
			break;
		terminate = false;
		if (now >= terminate_at)
		{
			terminate = true;
			terminate_at = TimestampTzPlusMilliseconds(now, ASK_AGAIN_MS);
			continue;
		}
		ConditionVariableTimedSleep(&act_registry->gone,
									TimestampDifferenceMilliseconds(now,
																	terminate_at),
									PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return !occupied;
}

/* One eviction less.  After the last the launcher looks what is to be done. */
void
act_evict_end(Oid database)
{
	Database   *db;

	act_registry_lock();
	db = act_registry_find_database(database);
	if (db != NULL && --db->nevictions == 0 &&
		!act_registry_remove_unused(db))
	{
		db->wanted = false;
		act_registry_call_manager(db);
	}
	act_registry_unlock();
}
