/*
 * hints.h
 *	  What the rooms above tell the scheduler, whatever they are.
 *
 * Each call is a hint: it may be wrong, and losing it costs a delay and no
 * message.  The functions are defined in readyq.c and database.c.  They are
 * safe in a commit callback: no error, no memory, no catalogue.  Hints that
 * are to be given at commit go through wakeup.h.
 */
#ifndef ACT_HINTS_H
#define ACT_HINTS_H

#include "actornot.h"

/* False without shared_preload_libraries: all calls below then do nothing. */
extern bool act_readyq_attached(void);

/* How many entities the ready queue can hold. */
extern int	act_readyq_size(void);

/*
 * These entities have, or may have, something to do.  "owner" says which
 * pool; a wrong one only costs a delay (see act_readyq_move).  InvalidOid:
 * that of runners that only programs outside run.
 */
extern void act_readyq_push(Oid database, Oid owner,
							const EntityKey *keys, int nkeys);

/* The same for entities that are known not to be lent (any more). */
extern void act_readyq_requeue(Oid database, Oid owner,
							   const EntityKey *keys, int nkeys);

/* Any entity of the database may have something to do. */
extern void act_readyq_request_sweep(Oid database);

/* A back-off of the database ends then. */
extern void act_database_due_at(Oid database, TimestampTz at);

/* The log has grown: its segments are to be looked at. */
extern void act_database_want_rotation(Oid database);

#endif							/* ACT_HINTS_H */
