/*
 * leaseq.h
 *	  The ready queue for programs outside, which hold entities under a lease.
 */
#ifndef ACT_LEASEQ_H
#define ACT_LEASEQ_H

#include "actornot.h"

/* What was taken off the queue, and its last delay (see entry.c). */
typedef struct TakenKey
{
	EntityKey	key;
	int8		delay;			/* -1: not at all */
} TakenKey;

/*
 * What is taken is off the queue.  A backend that does not lend it puts it
 * back: later, because another one has its lock, or (act_readyq_requeue) at
 * once.  "retry": when to look again
 * for what is delayed.
 */
extern int	act_leaseq_count_ready(Oid database, int32 runner);
extern int	act_leaseq_take(Oid database, Oid owner, int32 runner,
							TakenKey *taken, int max, TimestampTz *retry);
extern void act_leaseq_put_back(Oid database, Oid owner,
								const TakenKey *taken);

/*
 * The entity is lent up to then: pushes wake no worker until the lease has
 * ended.  "looked": the caller has looked for what is pending after the entity
 * was taken; else it is queued when the lease ends.  "empty": nothing was
 * pending under a snapshot that is newer than the lease.
 */
extern void act_leaseq_lend(Oid database, Oid owner, const EntityKey *key,
							TimestampTz until, bool looked);
extern void act_leaseq_end(Oid database, Oid owner,
						   const EntityKey *key, bool empty);

/* For the manager: queue those whose lease has ended; when is the next? */
extern void act_leaseq_expire(Oid database, TimestampTz now,
							  TimestampTz *next);

/*
 * For a backend that waits for work of a runner: register, look for work,
 * sleep on the own latch unless "woken", look again, leave.  "entity" NULL:
 * for any.  Without shared_preload_libraries they do nothing, and it is never
 * woken.
 */
extern void act_leaseq_wait(Oid database, int32 runner,
							const EntityKey *entity);
extern bool act_leaseq_is_woken(void);
extern void act_leaseq_leave(void);

#endif							/* ACT_LEASEQ_H */
