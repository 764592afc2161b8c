/*
 * readyq.h
 *	  The ready queue: hints in shared memory that say which entities have work.
 */
#ifndef ACT_READYQ_H
#define ACT_READYQ_H

#include "actornot.h"

struct Pool;

/* What became of an entry that was popped. */
typedef enum ReadyOutcome
{
	READY_DROP,					/* nothing is left: drop, unless pushed again */
	READY_AGAIN,				/* more to do: behind the others */
	READY_NOT_RUN,				/* it was not its turn: back where it was */
	READY_BUSY					/* another has the lock: later, the delay
								 * doubles from 1 ms to 1 s */
} ReadyOutcome;

extern uint64 act_readyq_sweep_requests(void);

/* For the workers of a pool.  Popped entries are "running" until finished. */
extern int	act_readyq_pop(EntityKey *keys, int max);
extern void act_readyq_finish(const EntityKey *keys,
							  const ReadyOutcome *outcomes, int nkeys);

/* Hand a popped entry to another owner's pool. */
extern void act_readyq_move(const EntityKey *key, Oid owner);

/* For the sweep and others: how many more entries the queue takes. */
extern int	act_readyq_room(Oid database);
extern int	act_readyq_room_in_all(void);
extern int	act_readyq_pool_room(Oid database, Oid owner);
extern int	act_readyq_enough_room(void);
extern bool act_readyq_may_refill(Oid database, Oid owner);

/* For the manager and the launcher: the extension is gone from there. */
extern void act_readyq_forget(Oid database);

/* A database whose hints cannot be kept at all is swept so often. */
#define ACT_REFUSED_SWEEP_DELAY (10 * USECS_PER_SEC)

/* For leaseq; with the registry's lock held. */
extern void act_readyq_watch_delayed(struct Pool *pool);
extern void act_readyq_announce(struct Pool *pool);
extern void act_readyq_note_refused(Oid database, struct Pool *pool,
									TimestampTz now);

#endif							/* ACT_READYQ_H */
