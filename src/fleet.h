/*
 * fleet.h
 *	  Workers: who runs for whom, who waits, who has to give way.
 */
#ifndef ACT_FLEET_H
#define ACT_FLEET_H

#include "actornot.h"
#include "roster.h"

extern void act_fleet_define_settings(void);

/* For workers.  The first one is to be called once the handlers stand. */
extern void act_fleet_attach_worker(Datum main_arg);
extern bool act_fleet_wait_for_work(void);
extern bool act_fleet_should_leave(void);
extern int	act_fleet_slot(void);
extern Oid	act_fleet_role(void);
extern int	act_fleet_max_workers(void);

/* For whoever records a back-off; safe in a commit callback. */
extern void act_fleet_due_at(Oid database, TimestampTz at);

/* For the manager. */
extern int	act_fleet_find_wanting(Oid database, TimestampTz now,
								   Oid *owners, int max, TimestampTz *next);
extern bool act_fleet_claim(Oid database, Oid owner, TimestampTz now,
							Datum *main_arg, TimestampTz *next);
extern void act_fleet_start_failed(Datum main_arg, TimestampTz now);
extern bool act_fleet_block(Oid database, Oid owner, PoolBlock block,
							TimestampTz now);

#endif							/* ACT_FLEET_H */
