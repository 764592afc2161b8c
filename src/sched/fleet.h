/*
 * fleet.h
 *	  Workers: coming, waiting for work, and going.
 */
#ifndef ACT_FLEET_H
#define ACT_FLEET_H

#include "actornot.h"
#include "sched/roster.h"

extern void act_fleet_define_settings(void);

/* For workers.  The first one is to be called once the handlers stand. */
extern void act_fleet_attach_worker(Datum main_arg);
extern bool act_fleet_wait_for_work(void);
extern bool act_fleet_should_leave(void);
extern int	act_fleet_slot(void);
extern Oid	act_fleet_role(void);
extern int	act_fleet_max_workers(void);
extern int	act_fleet_lock_share(void);


/* For allot; with the roster's lock held. */
extern Datum act_fleet_slot_arg(const WorkerSlot *slot);
extern WorkerSlot *act_fleet_find_claim(Datum main_arg);
extern void act_fleet_delay_pool(Pool *pool, TimestampTz now);
extern void act_fleet_vacate_slot(WorkerSlot *slot);

#endif							/* ACT_FLEET_H */
