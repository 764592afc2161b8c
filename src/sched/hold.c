/*
 * hold.c
 *	  Keeping our processes out of a database for a while.
 *
 * Some statements need a database that nobody is in (DROP DATABASE and the
 * like), or objects that nobody uses (DROP EXTENSION).  They hold it: from
 * then on nothing of ours is started there, what has been claimed is
 * cancelled, and who is there is asked to leave, then terminated.
 *
 * Locks: the roster's; no memory.  Failure: whoever holds a database ends that
 * in a transaction callback that no exit leaves out; after a crash there are
 * no holds.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "sched/hold.h"
#include "sched/roster.h"
#include "sched/tenant.h"

/* Processes in a held database are asked first, and terminated after that. */
#define ASK_FIRST_MS 200

/* Who has been terminated and is still there is terminated again. */
#define ASK_AGAIN_MS 1000

static inline void
lock_roster(void)
{
	LWLockAcquire(&act_roster->lock, LW_EXCLUSIVE);
}

static inline void
unlock_roster(void)
{
	LWLockRelease(&act_roster->lock);
}

/* Ask, or terminate, our processes in a database; not this process. */
static void
evict(Tenant *tenant, bool terminate)
{
	for (int i = 0; i < act_roster->nslots; i++)
	{
		WorkerSlot *slot = &act_roster->slots[i];

		if (slot->state == SLOT_FREE || slot->pool->tenant != tenant)
			continue;
		if (slot->state == SLOT_STARTING)
			act_roster_free_slot(slot); /* it will find its claim void */
		else if (!terminate)
			act_roster_ask_slot(slot);
		else if (slot->pid != MyProcPid)
			kill(slot->pid, SIGTERM);
	}
	if (tenant->manager == MANAGER_STARTING)
		act_tenant_end_manager(tenant);
	else if (tenant->manager == MANAGER_RUNNING)
	{
		tenant->manager_leave = true;
		if (terminate)
			kill(tenant->manager_pid, SIGTERM);
		else
			SetLatch(tenant->manager_latch);
	}
}

/*
 * From now on until act_hold_end no process of ours may come to this
 * database, and those who are there are asked to leave.  False: there is no
 * place to note that, which also means that none is there.
 */
bool
act_hold_begin(Oid database)
{
	Tenant	   *tenant;

	lock_roster();
	tenant = act_roster_enter_tenant(database);
	if (tenant != NULL)
	{
		tenant->nholds++;
		evict(tenant, false);
	}
	unlock_roster();
	return tenant != NULL;
}

/* Is one of our processes there, apart from this one? */
static bool
is_occupied(Oid database, bool terminate)
{
	Tenant	   *tenant;
	int			nothers = 0;

	lock_roster();
	tenant = act_roster_find_tenant(database);
	if (tenant != NULL)
	{
		nothers = tenant->nslots + (tenant->manager != MANAGER_NONE ? 1 : 0);
		if (act_roster_my_slot != NULL &&
			act_roster_my_slot->pool->tenant == tenant)
			nothers--;
		if (nothers > 0 && terminate)
			evict(tenant, true);
	}
	unlock_roster();
	return nothers > 0;
}

/*
 * Wait until none of our processes is in a held database.  They are asked
 * first; who does not leave soon is in the middle of a batch, and is
 * terminated.  False: some are still there when the time is over.
 */
bool
act_hold_wait_until_empty(Oid database, int timeout_ms)
{
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz terminate_at =
	TimestampTzPlusMilliseconds(start, ASK_FIRST_MS);
	TimestampTz end = TimestampTzPlusMilliseconds(start, timeout_ms);
	bool		terminate = false;
	bool		occupied;

	ConditionVariablePrepareToSleep(&act_roster->gone);
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
		ConditionVariableTimedSleep(&act_roster->gone,
									TimestampDifferenceMilliseconds(now,
																	terminate_at),
									PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return !occupied;
}

/* One hold less.  Without any the launcher looks what is to be done there. */
void
act_hold_end(Oid database)
{
	Tenant	   *tenant;

	lock_roster();
	tenant = act_roster_find_tenant(database);
	if (tenant != NULL && --tenant->nholds == 0)
	{
		if (tenant->presence == TENANT_UNKNOWN && !tenant->wanted &&
			tenant->manager == MANAGER_NONE && tenant->nslots == 0 &&
			tenant->nentries == 0)
			act_roster_remove_tenant(tenant);
		else
		{
			tenant->wanted = false;
			act_roster_call_manager(tenant);
		}
	}
	unlock_roster();
}
