/*
 * database.h
 *	  Databases: which have a manager, and which need one.
 */
#ifndef ACT_DATABASE_H
#define ACT_DATABASE_H

#include "actornot.h"

struct Database;

extern void act_database_define_settings(void);

/* For the launcher. */
extern void act_database_attach_launcher(void);
extern bool act_database_is_probed(void);
extern void act_database_set_probed(void);
extern bool act_database_is_settled(Oid database);
extern Oid	act_database_find_wanting(TimestampTz now, TimestampTz *next);
extern bool act_database_claim(Oid database, int max_managers,
							   TimestampTz now, Datum *main_arg);
extern bool act_database_note_start(Datum main_arg, bool started);
extern void act_database_end_call(Oid database);
extern void act_database_forget(Oid database);

/* For the manager.  The first one is to be called once the handlers stand. */
extern void act_database_attach_manager(Datum main_arg);
extern bool act_database_should_leave(void);
extern bool act_database_set_presence(Gate presence);
extern void act_database_begin_look(void);
extern bool act_database_take_due(TimestampTz now, TimestampTz *from,
								  TimestampTz *next);
extern bool act_database_take_sweep(TimestampTz now, TimestampTz *next);
extern void act_database_end_sweep(void);
extern bool act_database_take_rotation(TimestampTz now, TimestampTz *next);
extern void act_database_end_rotation(TimestampTz again);
extern void act_database_end_sweeping(void);
extern bool act_database_is_quiet(TimestampTz horizon);
extern bool act_database_try_leave(TimestampTz horizon);

/* For hold; with the registry's lock held. */
extern void act_database_end_manager(struct Database *db);

/* For everybody. */
extern bool act_database_is_known(Oid database);
extern void act_database_want(Oid database);	/* safe in a commit callback */

#endif							/* ACT_DATABASE_H */
