/*
 * launchq.h
 *	  Which database gets a manager, and which has to give way.
 */
#ifndef ACT_LAUNCHQ_H
#define ACT_LAUNCHQ_H

#include "actornot.h"

/* All for the launcher. */
extern void act_launchq_attach(void);
extern bool act_launchq_is_probed(void);
extern void act_launchq_set_probed(void);
extern bool act_launchq_is_settled(Oid database);
extern Oid	act_launchq_find_wanting(TimestampTz now, TimestampTz *next);
extern bool act_launchq_claim(Oid database, int max_managers,
							  TimestampTz now, Datum *main_arg);
extern bool act_launchq_note_start(Datum main_arg, bool started);
extern void act_launchq_forget(Oid database);

#endif							/* ACT_LAUNCHQ_H */
