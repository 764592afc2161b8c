/*
 * process.h
 *	  Our processes: which is started next, and which has to give way.
 */
#ifndef ACT_PROCESS_H
#define ACT_PROCESS_H

#include "postmaster/bgworker.h"

#include "actornot.h"

/* For the launcher and the managers. */
extern void act_process_describe(BackgroundWorker *process,
								 const char *function, const char *type);
extern void act_process_begin_round(void);
extern void act_process_sleep_until(TimestampTz then);
extern void act_process_begin_transaction(const char *activity);
extern void act_process_end_transaction(void);

/*
 * For the launcher.  "next" is lowered to the time when it has to ask again,
 * unless there is a call before; so it is below.
 */
extern void act_process_attach_launcher(void);
extern bool act_process_is_probed(void);
extern void act_process_set_probed(void);
extern Oid	act_process_find_database(TimestampTz now, TimestampTz *next);
extern bool act_process_claim_manager(Oid database, TimestampTz now,
									  Datum *main_arg);
extern bool act_process_note_manager(Datum main_arg, bool started);

/* For the manager. */
extern int	act_process_find_pools(Oid database, TimestampTz now,
								   Oid *owners, int max, TimestampTz *next);

/* GATE_OPEN, or why no worker can be started for it. */
extern Gate act_process_claim_worker(Oid database, Oid owner, TimestampTz now,
									 Datum *main_arg, TimestampTz *next);
extern bool act_process_note_worker(Datum main_arg, bool started,
									TimestampTz *next);

/* The owner cannot connect, and why. */
extern bool act_process_block_pool(Oid database, Oid owner, Gate gate,
								   TimestampTz now);

#endif							/* ACT_PROCESS_H */
