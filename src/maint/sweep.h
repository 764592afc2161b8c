/*
 * sweep.h
 *	  Finding the entities with pending messages from the tables.
 */
#ifndef ACT_SWEEP_H
#define ACT_SWEEP_H

#include "storage/block.h"

#include "actornot.h"

typedef struct Sweep Sweep;

/*
 * What to do with an entity that has pending messages.  "owner" is the pool,
 * see readyq.h; "leased_until" is 0 unless it is lent to a program outside.
 * Returns whether it counts as found.
 */
typedef bool (*SweepFunction) (void *arg, Oid owner, TimestampTz leased_until,
							   const EntityKey *key,
							   const char *entity, int entity_len);

extern Sweep *act_sweep_begin(MemoryContext context, int32 runner,
							  SweepFunction function, void *arg);
extern void act_sweep_end_here(Sweep *sweep);
extern bool act_sweep_step(Sweep *sweep, int max);
extern void act_sweep_end(Sweep *sweep);
extern int64 act_sweep_count(int32 runner);

/* For the manager: the sweeps of its database, a piece at a time. */
extern bool act_sweep_choose(TimestampTz now, TimestampTz *next);
extern void act_sweep_take_piece(void);
extern bool act_sweep_skip_block(int *segment, BlockNumber *block);
extern void act_sweep_finish_piece(void);

#endif							/* ACT_SWEEP_H */
