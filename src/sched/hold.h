/*
 * hold.h
 *	  Keeping our processes out of a database for a while.
 */
#ifndef ACT_HOLD_H
#define ACT_HOLD_H

#include "actornot.h"

extern bool act_hold_begin(Oid database);
extern bool act_hold_wait_until_empty(Oid database, int timeout_ms);
extern void act_hold_end(Oid database); /* safe in a commit callback */

#endif							/* ACT_HOLD_H */
