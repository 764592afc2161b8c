/*
 * rotation.h
 *	  Keeping the log small: moving on, and emptying what is done.
 */
#ifndef ACT_ROTATION_H
#define ACT_ROTATION_H

#include "actornot.h"

typedef struct Rotation Rotation;

extern Rotation *act_rotation_begin(MemoryContext context, bool patient);
extern bool act_rotation_step(Rotation *rotation, TimestampTz *next);

/* How many segments were emptied since the last call. */
extern int	act_rotation_take_emptied(Rotation *rotation);

#endif							/* ACT_ROTATION_H */
