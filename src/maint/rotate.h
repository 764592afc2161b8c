/*
 * rotate.h
 *	  Keeping the log small: moving on, and emptying what is done.
 */
#ifndef ACT_ROTATE_H
#define ACT_ROTATE_H

#include "actornot.h"

typedef struct Rotation Rotation;

extern Rotation *act_rotate_begin(MemoryContext context, bool patient);
extern bool act_rotate_step(Rotation *rotation, TimestampTz *next);

/* How many segments were emptied since the last call. */
extern int	act_rotate_take_emptied(Rotation *rotation);

#endif							/* ACT_ROTATE_H */
