/*
 * clock.h
 *	  The clock of ticks: what is added to a transaction id of this cluster.
 */
#ifndef ACT_CLOCK_H
#define ACT_CLOCK_H

#include "actornot.h"

/*
 * Has this database's data been adopted by this cluster?  Cached; reads the
 * table (with the latest snapshot) after an invalidation.
 */
extern bool act_clock_is_adopted(void);

/*
 * The tick offset.  Only valid after act_clock_is_adopted() was true since
 * the caller got its segment's lock (posters) or its entity's lock (batches).
 */
extern uint64 act_clock_offset(void);

/*
 * No new token may have a timeline below this (see token.c); and the same for
 * the tokens of a row that is removed.
 */
extern int32 act_clock_timeline(void);
extern void act_clock_raise_timeline(int32 to);

/*
 * Adopt, if that has not been done; for the first writing call.  Asks for a
 * sweep at commit if it did.
 */
extern void act_clock_adopt(void);

#endif							/* ACT_CLOCK_H */
