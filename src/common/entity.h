/*
 * entity.h
 *	  An entity: its key, its lock, and which batches are open in this backend.
 */
#ifndef ACT_ENTITY_H
#define ACT_ENTITY_H

#include "actornot.h"

#ifdef ACTORNOT_TEST_HOOKS
extern void act_entity_define_settings(void);
#endif

extern EntityKey act_entity_key(int32 runner, const char *runner_name,
								int runner_len,
								const char *entity, int entity_len);

extern bool act_entity_take(int64 hash, bool wait);
extern void act_entity_give_back(int64 hash);

extern bool act_entity_is_open(int64 hash);
extern void act_entity_check_closed(int64 hash, const char *runner,
									const char *entity);
extern void act_entity_check_runner(int32 runner, const char *name);
extern int	act_entity_depth(void);
extern void act_entity_begin_run(int64 hash, int32 runner);
extern void act_entity_end_run(int depth);
extern bool act_entity_collided(void);

#endif							/* ACT_ENTITY_H */
