/*
 * slot.h
 *	  Workers: coming, waiting for work, and going.
 */
#ifndef ACT_SLOT_H
#define ACT_SLOT_H

#include "actornot.h"
#include "sched/registry.h"

extern void act_slot_define_settings(void);

/* For workers.  The first one is to be called once the handlers stand. */
extern void act_slot_attach_worker(Datum main_arg);
extern bool act_slot_wait_for_work(void);
extern bool act_slot_should_leave(void);
extern int	act_slot_slot(void);
extern Oid	act_slot_role(void);
extern int	act_slot_max_workers(void);
extern int	act_slot_lock_share(void);


/* For allot; with the registry's lock held. */
extern Datum act_slot_slot_arg(const WorkerSlot *slot);
extern WorkerSlot *act_slot_find_claim(Datum main_arg);
extern void act_slot_delay_pool(Pool *pool, TimestampTz now);
extern void act_slot_vacate_slot(WorkerSlot *slot);

#endif							/* ACT_SLOT_H */
