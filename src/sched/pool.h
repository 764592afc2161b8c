/*
 * pool.h
 *	  Which pool gets a worker, and which worker has to give way.
 */
#ifndef ACT_POOL_H
#define ACT_POOL_H

#include "actornot.h"

/*
 * All for the manager.  "next" is lowered to the time when it has to ask
 * again, unless there is a call before.
 */
extern int	act_pool_find_wanting(Oid database, TimestampTz now,
								  Oid *owners, int max, TimestampTz *next);

/* GATE_OPEN, or why no worker can be started for it. */
extern Gate act_pool_claim(Oid database, Oid owner, TimestampTz now,
						   Datum *main_arg, TimestampTz *next);
extern bool act_pool_note_start(Datum main_arg, bool started,
								TimestampTz *next);

/* The owner cannot connect, and why. */
extern bool act_pool_block(Oid database, Oid owner, Gate gate,
						   TimestampTz now);

#endif							/* ACT_POOL_H */
