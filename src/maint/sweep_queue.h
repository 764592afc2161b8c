/*
 * sweep_queue.h
 *	  The sweep that fills the ready queue, a piece at a time.
 */
#ifndef ACT_SWEEP_QUEUE_H
#define ACT_SWEEP_QUEUE_H

#include "storage/block.h"

#include "actornot.h"

extern bool act_sweep_queue_choose(TimestampTz now, TimestampTz *next);
extern void act_sweep_queue_take_piece(void);
extern bool act_sweep_queue_skip_block(int *segment, BlockNumber *block);
extern void act_sweep_queue_finish_piece(void);

#endif							/* ACT_SWEEP_QUEUE_H */
