/*
 * init.c
 *	  The front door: registers settings, shared memory and callbacks.
 *
 * It decides nothing.  Without shared_preload_libraries there is no shared
 * memory and no process of ours; everything else works, and the settings
 * that only concern processes are not there.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/guc.h"

#include "common/entity.h"
#include "log/segment.h"
#include "mailbox/tid_cache.h"
#include "proc/launcher.h"
#include "proc/utility.h"
#include "proc/worker.h"
#include "sched/crashmark.h"
#include "sched/database.h"
#include "sched/entry.h"
#include "sched/lane.h"
#include "sched/registry.h"
#include "sched/slot.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static shmem_request_hook_type next_shmem_request_hook = NULL;
static shmem_startup_hook_type next_shmem_startup_hook = NULL;

static void
request_shmem(void)
{
	if (next_shmem_request_hook)
		next_shmem_request_hook();

	RequestAddinShmemSpace(act_registry_shmem_size());
	RequestAddinShmemSpace(act_lane_shmem_size());
	RequestAddinShmemSpace(act_entry_shmem_size());
	RequestAddinShmemSpace(act_tid_cache_shmem_size());
	RequestAddinShmemSpace(act_crashmark_shmem_size());
}

static void
start_shmem(void)
{
	if (next_shmem_startup_hook)
		next_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	act_registry_shmem_init();
	act_lane_shmem_init();
	act_entry_shmem_init();
	act_tid_cache_shmem_init();
	act_crashmark_shmem_init();
	LWLockRelease(AddinShmemInitLock);
}

void
_PG_init(void)
{
	act_registry_define_settings();
#ifdef ACTORNOT_TEST_HOOKS
	act_entity_define_settings();
#endif
	act_entry_define_settings();
	act_slot_define_settings();
	act_database_define_settings();
	act_segment_define_settings();
	act_worker_define_settings();

	if (!process_shared_preload_libraries_in_progress)
		return;

	/* Not before all of them are there: it removes those that it misses. */
	MarkGUCPrefixReserved("actornot");

	next_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	next_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shmem;

	act_utility_init();
	act_launcher_register();
}
