/*
 * sweep.h
 *	  Finding the entities with pending messages from the tables.
 */
#ifndef ACT_SWEEP_H
#define ACT_SWEEP_H

#include "storage/block.h"

#include "actornot.h"

typedef struct Sweep Sweep;

/* How many pools a walk can leave out. */
#define ACT_SWEEP_SKIPPED 8

/*
 * What to do with an entity that has pending messages.  "owner" is the pool,
 * see readyq.h; "leased_until" is 0 unless it is lent to a program outside.
 * Returns whether it counts as found.
 */
typedef bool (*SweepFunction) (void *arg, Oid owner, TimestampTz leased_until,
							   const EntityKey *key,
							   const char *entity, int entity_len);

extern Sweep *act_sweep_begin(MemoryContext context);
extern void act_sweep_set_function(Sweep *sweep, SweepFunction function,
								   void *arg);
extern void act_sweep_set_peek_only(Sweep *sweep);
extern void act_sweep_set_runner(Sweep *sweep, int32 runner);
extern Oid	act_sweep_stopped_by(const Sweep *sweep);
extern bool act_sweep_is_locked(const Sweep *sweep);
extern bool act_sweep_can_skip(const Sweep *sweep);
extern void act_sweep_skip(Sweep *sweep, Oid owner);
extern void act_sweep_take_over(Sweep *sweep, Oid owner, Sweep *from);
extern void act_sweep_end_here(Sweep *sweep);
extern bool act_sweep_step(Sweep *sweep, int max);
extern bool act_sweep_skip_block(Sweep *sweep, int *segment,
								 BlockNumber *block);
extern void act_sweep_end(Sweep *sweep);
extern int64 act_sweep_count(int32 runner);

#endif							/* ACT_SWEEP_H */
