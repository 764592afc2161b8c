/*
 * registry.h
 *	  What is here: databases, pools and workers in shared memory.
 *
 * The structs are open to the rooms of this folder, which own parts of them
 * as said below.
 */
#ifndef ACT_REGISTRY_H
#define ACT_REGISTRY_H

#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"

#include "actornot.h"

/* Delays of busy entries: 1, 2, 4 ... 1024 ms, a list for each. */
#define ACT_DELAYS 11

typedef enum ManagerState
{
	MANAGER_NONE,				/* -> STARTING */
	MANAGER_STARTING,			/* -> RUNNING, NONE (it never came) */
	MANAGER_RUNNING,			/* -> LEAVING, NONE */
	MANAGER_LEAVING				/* -> NONE */
} ManagerState;

/* A database that has, or may have, the extension. */
typedef struct Database
{
	Oid			database;		/* hash key; immutable */

	/* All that follows: guarded by the registry's lock. */
	dlist_node	node;			/* in Registry.databases */
	dlist_head	pools;
	int			nslots;			/* worker slots not free */
	int			nentries;		/* of the ready queue, running ones too */
	int			nevictions;		/* > 0: none of our processes may be here */
	Gate		presence;		/* GATE_NO_EXTENSION, as long as no manager
								 * has seen it; GATE_NOT_ADOPTED; GATE_OPEN */
	bool		told;			/* that it waits for adoption is in the log */

	ManagerState manager;
	uint32		generation;		/* of the manager */
	pid_t		manager_pid;
	Latch	   *manager_latch;
	TimestampTz manager_since;
	bool		manager_leave;	/* asked to go; read by it without the lock */
	TimestampTz leave_since;	/* then it was seen that it is; 0: not yet */
	int			failures;		/* of managers, one after the other */
	TimestampTz not_before;		/* of the next manager */
	bool		wanted;			/* a manager is to look, and was told so */

	TimestampTz next_due;		/* of a back-off; -infinity: to be looked up */
	uint64		sweep_requests; /* counts them */
	TimestampTz sweep_at;		/* of the next sweep that was asked for */
	bool		sweeping;
	TimestampTz sweep_began;
	TimestampTz sweep_ended;
	int64		sweep_took;		/* microseconds */
	TimestampTz rotate_at;		/* the segments of the log are looked at */
	TimestampTz rotated_at;		/* ... and were, the last time */
	uint64		pushes;			/* since the server's start */
	uint64		pushes_swept;	/* as many when the last sweep began */

	/* Owned by entry. */
	pairingheap leases;			/* entries that are lent, by their end */
	TimestampTz lease_alarm;	/* the manager looks at them then */
} Database;

typedef struct PoolKey
{
	Oid			database;
	Oid			owner;
} PoolKey;

/* The work of one owner role in one database, and the workers for it. */
typedef struct Pool
{
	PoolKey		key;			/* hash key; immutable */
	Database   *db;				/* immutable */

	/* All that follows: guarded by the registry's lock. */
	dlist_node	node;			/* in Database.pools */
	int			nslots;			/* not free */
	int			nworkers;		/* of these, not leaving */
	int			nstarting;
	int			nwoken;
	dlist_head	idle;			/* the last to lie down is the first to rise */
	bool		wants_help;		/* the manager was told and keeps an eye */
	TimestampTz starved_since;	/* waits for a worker slot; 0: does not */
	Gate		gate;			/* GATE_OPEN, or why the owner cannot connect */
	TimestampTz not_before;		/* of the next start or check */
	int64		delay;			/* before that, microseconds; doubles */

	/* Owned by readyq. */
	int			nentries;		/* running ones too */
	bool		dropped;		/* a hint: to be swept once there is room */
	int			nready;
	dlist_head	ready;
	int			nunlisted;		/* of these, in no lane: there was no place */
	TimestampTz ready_since;	/* of the first one */
	int			ndelayed;
	dlist_head	delayed[ACT_DELAYS];
	TimestampTz delayed_until;	/* the earliest; infinity if none */
} Pool;

typedef enum SlotState
{
	SLOT_FREE,					/* -> STARTING */
	SLOT_STARTING,				/* -> BUSY, FREE (it never came) */
	SLOT_BUSY,					/* -> IDLE, LEAVING, FREE */
	SLOT_IDLE,					/* -> WOKEN, BUSY, FREE */
	SLOT_WOKEN,					/* -> BUSY, FREE */
	SLOT_LEAVING				/* -> FREE */
} SlotState;

/* A place for a worker; actornot.max_workers of them in the cluster. */
typedef struct WorkerSlot
{
	int			number;			/* immutable */

	/* All that follows: guarded by the registry's lock. */
	SlotState	state;
	uint32		generation;		/* counts the claims */
	Pool	   *pool;			/* NULL if free */
	pid_t		pid;			/* 0 unless the process is here */
	Latch	   *latch;
	TimestampTz since;			/* claimed, or here */
	bool		has_worked;		/* it came as far as to ask for work */
	TimestampTz wake_at;		/* idle: when it looks again by itself */
	dlist_node	node;			/* in Pool.idle */
	dlist_head	held;			/* owned by readyq: entries that it runs */
	bool		leave;			/* asked to go; read by it without the lock */
} WorkerSlot;

typedef struct Registry
{
	/* Immutable. */
	int			tranche;
	int			nslots;

	LWLock		lock;
	ConditionVariable gone;		/* a process of ours has left */

	/* All that follows: guarded by the lock. */
	pid_t		launcher_pid;
	Latch	   *launcher_latch;
	bool		probed;			/* every database was looked into once */

	/* While the server has no more worker slots than we had then. */
	TimestampTz short_since;	/* 0: it has */
	TimestampTz short_until;	/* then it is to be tried again */
	int64		short_delay;	/* microseconds */
	int			short_slots;	/* ours that were in use then */
	TimestampTz warned_at;		/* that is in the log */

	int			nmanagers;		/* starting, running or leaving */
	int			nstarved;		/* pools that wait for a slot */
	dlist_head	databases;		/* the one whose turn it is comes first */
	WorkerSlot	slots[FLEXIBLE_ARRAY_MEMBER];
} Registry;

/* NULL without shared_preload_libraries. */
extern Registry *act_registry;

/* The slot of this process; NULL unless it is a worker that has attached. */
extern WorkerSlot *act_registry_my_slot;

extern int	act_registry_max_workers;

extern void act_registry_define_settings(void);
extern Size act_registry_shmem_size(void);
extern void act_registry_shmem_init(void);
extern HTAB *act_registry_init_table(const char *name, int max, Size keysize,
									 Size entrysize, HashValueFunc hash);

/* The one lock of all that is shared here and in the ready queue. */
static inline void
act_registry_lock(void)
{
	LWLockAcquire(&act_registry->lock, LW_EXCLUSIVE);
}

static inline void
act_registry_unlock(void)
{
	LWLockRelease(&act_registry->lock);
}

/*
 * All that follows wants the lock held exclusively, and is safe in a commit
 * callback: no error, no memory, no catalogue.
 */
extern Database *act_registry_find_database(Oid database);
extern Database *act_registry_enter_database(Oid database); /* NULL: full */
extern bool act_registry_remove_unused(Database *db);
extern Pool *act_registry_find_pool(Oid database, Oid owner);
extern Pool *act_registry_enter_pool(Oid database, Oid owner);	/* NULL: full */
extern void act_registry_remove_pool(Pool *pool);

extern void act_registry_call_launcher(void);
extern void act_registry_call_manager(Database *db);
extern void act_registry_set_starved(Pool *pool, TimestampTz now);
extern void act_registry_end_starved(Pool *pool);
extern bool act_registry_has_work(const Pool *pool, TimestampTz now);

#endif							/* ACT_REGISTRY_H */
