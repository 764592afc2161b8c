/*
 * broom.h
 *	  The manager's sweeps: who goes on, who waits.
 */
#ifndef ACT_BROOM_H
#define ACT_BROOM_H

#include "datatype/timestamp.h"
#include "storage/block.h"

extern bool act_broom_choose(TimestampTz now, TimestampTz *next);
extern void act_broom_step(void);
extern bool act_broom_skip_block(int *segment, BlockNumber *block);
extern void act_broom_finish(void);

#endif							/* ACT_BROOM_H */
