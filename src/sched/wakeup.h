/*
 * wakeup.h
 *	  Hints that are given when the transaction commits, and only then.
 */
#ifndef ACT_WAKEUP_H
#define ACT_WAKEUP_H

#include "actornot.h"

/* More entities than this in one transaction: the sweep finds them. */
#define ACT_WAKEUP_MAX 8192

/*
 * Each may be called as often as one likes, in any transaction; without
 * shared_preload_libraries they do nothing.  They may ereport (out of memory)
 * now, what they ask for at commit cannot fail.
 */

/* This entity has, or may have, something to do. */
extern void act_wakeup_push(Oid owner, const EntityKey *key);

/*
 * The entity was taken off the ready queue, or lent there, for what this
 * transaction does: it is queued again if that is undone.
 */
extern void act_wakeup_taken(Oid owner, const EntityKey *key);

/*
 * Roll back the present subtransaction, which has found no work:
 * what it took is not queued again.
 */
extern void act_wakeup_rollback_search(void);

/*
 * The entity's lease ends, or its row is changed otherwise so that it may have
 * something to do.  "empty": nothing was pending under a snapshot newer than
 * the lease.
 */
extern void act_wakeup_end_lease(Oid owner, const EntityKey *key,
								 bool empty);

/* Any entity of this database may have something to do. */
extern void act_wakeup_sweep(void);

/* Something of this database is due at that time. */
extern void act_wakeup_due(TimestampTz at);

#endif							/* ACT_WAKEUP_H */
