/*
 * atcommit.h
 *	  Hints that are given when the transaction commits, and only then.
 */
#ifndef ACT_ATCOMMIT_H
#define ACT_ATCOMMIT_H

#include "actornot.h"

/* More entities than this in one transaction: the sweep finds them. */
#define ACT_ATCOMMIT_MAX 8192

/*
 * Each may be called as often as one likes, in any transaction; without
 * shared_preload_libraries they do nothing.  They may ereport (out of memory)
 * now, what they ask for at commit cannot fail.
 */

/* This entity has, or may have, something to do. */
extern void act_atcommit_push(Oid owner, const EntityKey *key);

/*
 * Something was posted that nobody can run now; "requests" is the number of
 * requests for a sweep before that was found out.
 */
extern uint64 act_atcommit_requests(void);
extern void act_atcommit_silent(uint64 requests);

/* Any entity of this database may have something to do. */
extern void act_atcommit_sweep(void);

/* Something of this database is due at that time. */
extern void act_atcommit_due(TimestampTz at);

#endif							/* ACT_ATCOMMIT_H */
