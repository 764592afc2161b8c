/*
 * clock.h
 *	  The clock of ticks, and the tokens of leases: numbers that only grow.
 */
#ifndef ACT_CLOCK_H
#define ACT_CLOCK_H

#include "actornot.h"

/*
 * Has this database's data been adopted by this cluster?  Cached; reads the
 * table (with the latest snapshot) after an invalidation.
 */
extern bool act_clock_is_adopted(void);
extern Gate act_clock_gate(void);

/*
 * The tick offset.  Only valid after act_clock_is_adopted() was true since
 * the caller got its segment's lock (posters) or its entity's lock (batches).
 */
extern uint64 act_clock_offset(void);

/*
 * Adopt, if that has not been done; for the first writing call.  Asks for a
 * sweep at commit if it did.
 */
extern void act_clock_adopt(void);

/* The same for data that was loaded beside what has been adopted. */
extern void act_clock_advance(void);

extern int64 act_clock_next_token(int64 previous);
extern void act_clock_note_token(int64 token);
extern void act_clock_flush_tokens(void);

#endif							/* ACT_CLOCK_H */
