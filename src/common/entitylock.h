/*
 * entitylock.h
 *	  The lock of an entity, and which batches are open in this backend.
 */
#ifndef ACT_ENTITYLOCK_H
#define ACT_ENTITYLOCK_H

#include "actornot.h"

extern bool act_entitylock_take(int64 hash, bool wait);
extern void act_entitylock_give_back(int64 hash);

extern bool act_entitylock_is_open(int64 hash);
extern void act_entitylock_check_closed(int64 hash, const char *runner,
										const char *entity);
extern void act_entitylock_check_runner(int32 runner, const char *name);
extern int	act_entitylock_depth(void);
extern void act_entitylock_begin_run(int64 hash, int32 runner);
extern void act_entitylock_end_run(int depth);
extern bool act_entitylock_collided(void);

#endif							/* ACT_ENTITYLOCK_H */
