/*
 * slot.h
 *	  Workers: coming, waiting for work, and going.
 */
#ifndef ACT_SLOT_H
#define ACT_SLOT_H

#include "actornot.h"

struct Pool;
struct WorkerSlot;

extern void act_slot_define_settings(void);

/* For workers.  The first one is to be called once the handlers stand. */
extern void act_slot_attach_worker(Datum main_arg);
extern bool act_slot_wait_for_work(void);
extern Oid	act_slot_role(void);

/* For all. */
extern int	act_slot_lock_share(void);

/*
 * For the rooms of this folder, with the registry's lock held exclusively;
 * safe in a commit callback: no error, no memory, no catalogue.
 */
extern void act_slot_claim(struct WorkerSlot *slot, struct Pool *pool,
						   TimestampTz now);
extern void act_slot_ask(struct WorkerSlot *slot);
extern void act_slot_free(struct WorkerSlot *slot);
extern void act_slot_vacate(struct WorkerSlot *slot);
extern Datum act_slot_make_arg(const struct WorkerSlot *slot);
extern struct WorkerSlot *act_slot_find_claim(Datum main_arg);
extern bool act_slot_wake_worker(struct Pool *pool);
extern void act_slot_delay_pool(struct Pool *pool, TimestampTz now);

/* The worker slots of the server, which managers take as well. */
extern int	act_slot_count_free(TimestampTz now);
extern bool act_slot_note_shortage(TimestampTz now, bool tell);
extern void act_slot_note_success(void);
extern void act_slot_note_exit(void);

#endif							/* ACT_SLOT_H */
