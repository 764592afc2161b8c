/*
 * lane.h
 *	  Lanes: the ready entries of one runner, and the backends that wait.
 */
#ifndef ACT_LANE_H
#define ACT_LANE_H

#include "lib/ilist.h"

#include "actornot.h"

/* No padding: hashed and compared as bytes. */
typedef struct LaneKey
{
	Oid			database;
	int32		runner;
} LaneKey;

/* Guarded by the registry's lock. */
typedef struct Lane
{
	LaneKey		key;			/* hash key; immutable */
	dlist_head	ready;			/* entries that are queued, oldest first */
	int			nready;
	dlist_head	waiters;		/* the one that waits longest comes first */
} Lane;

extern Size act_lane_shmem_size(void);
extern void act_lane_shmem_init(void);

/*
 * These want the registry's lock held exclusively, and are safe in a commit
 * callback: no error, no memory, no catalogue.
 */
extern Lane *act_lane_find(Oid database, int32 runner);
extern Lane *act_lane_enter(Oid database, int32 runner);	/* NULL: full */
extern void act_lane_wake_one(Lane *lane);
extern void act_lane_wake_entity(Oid database, const EntityKey *entity);
extern void act_lane_wake_other(Oid database, int32 runner);
extern void act_lane_wake_all(Oid database);
extern bool act_lane_is_waited(void);

/*
 * For a backend that waits for work of a runner: register, look for work,
 * sleep on the own latch unless "woken", look again, leave.  "entity" NULL:
 * for any.  They take the lock themselves.
 */
extern void act_lane_wait(Oid database, int32 runner, const EntityKey *entity);
extern bool act_lane_is_woken(void);
extern void act_lane_leave(void);

#endif							/* ACT_LANE_H */
