/*
 * readyq.h
 *	  The ready queue: hints in shared memory that say who has work.
 */
#ifndef ACT_READYQ_H
#define ACT_READYQ_H

#include "actornot.h"

/* What became of an entry that was popped. */
typedef enum ReadyOutcome
{
	READY_DROP,					/* nothing is left: drop, unless pushed again */
	READY_AGAIN,				/* more to do: behind the others */
	READY_NOT_RUN,				/* nobody came to it: back where it was */
	READY_BUSY					/* somebody holds the lock: later, the delay
								 * doubles from 1 ms to 1 s */
} ReadyOutcome;

extern uint64 act_readyq_sweep_requests(void);

/* For the workers of a pool.  Popped entries are "running" until finished. */
extern int	act_readyq_pop(EntityKey *keys, int max);
extern void act_readyq_finish(const EntityKey *keys,
							  const ReadyOutcome *outcomes, int nkeys);

/* Hand a popped entry to another owner's pool. */
extern void act_readyq_move(const EntityKey *key, Oid owner);

/* What was taken off the queue, and how long it had been delayed (see entry.c). */
typedef struct TakenKey
{
	EntityKey	key;
	int8		delay;			/* -1: not at all */
} TakenKey;

/*
 * For programs outside, which hold entities under a lease.  What is taken is
 * off the queue, and who does not keep it puts it back: later, because somebody
 * has its lock, or (act_readyq_requeue) at once.  "retry": when to look again
 * for what is delayed.
 */
extern int	act_readyq_count_ready(Oid database, int32 runner);
extern int	act_readyq_take(Oid database, Oid owner, int32 runner,
							TakenKey *taken, int max, TimestampTz *retry);
extern void act_readyq_put_back(Oid database, Oid owner,
								const TakenKey *taken);

/*
 * The entity is lent up to then: pushes wake nobody until the lease has ended.
 * "looked": by who lends it, for what is pending, after it was taken; else it
 * is queued when the lease ends.  "empty": nothing was pending under a snapshot
 * that is newer than the lease.
 */
extern void act_readyq_lend(Oid database, Oid owner, const EntityKey *key,
							TimestampTz until, bool looked);
extern void act_readyq_end_lease(Oid database, Oid owner,
								 const EntityKey *key, bool empty);

/* For the manager: queue those whose lease has ended; when is the next? */
extern void act_readyq_expire(Oid database, TimestampTz now,
							  TimestampTz *next);

/* For the sweep and others: how many more entries the queue takes. */
extern int	act_readyq_room(Oid database);
extern int	act_readyq_room_in_all(void);
extern int	act_readyq_pool_room(Oid database, Oid owner);
extern int	act_readyq_enough_room(void);
extern bool act_readyq_may_refill(Oid database, Oid owner);

/* For the manager and the launcher: the extension is gone from there. */
extern void act_readyq_forget(Oid database);

#endif							/* ACT_READYQ_H */
