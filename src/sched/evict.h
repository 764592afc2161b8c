/*
 * evict.h
 *	  Keeping our processes out of a database for a while.
 */
#ifndef ACT_EVICT_H
#define ACT_EVICT_H

#include "actornot.h"

extern bool act_evict_begin(Oid database);
extern bool act_evict_wait_until_empty(Oid database, int timeout_ms);
extern void act_evict_end(Oid database);	/* safe in a commit callback */

#endif							/* ACT_EVICT_H */
