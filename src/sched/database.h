/*
 * database.h
 *	  Databases: which have a manager, and which need one.
 */
#ifndef ACT_DATABASE_H
#define ACT_DATABASE_H

#include "actornot.h"

struct Database;

extern void act_database_define_settings(void);

/* For the manager.  The first one is to be called once the handlers stand. */
extern void act_database_attach_manager(Datum main_arg);
extern bool act_database_should_leave(void);
extern bool act_database_set_presence(Gate presence);
extern bool act_database_take_due(TimestampTz now, TimestampTz *from,
								  TimestampTz *next);
extern bool act_database_take_sweep(TimestampTz now, TimestampTz *next);
extern void act_database_end_sweep(void);
extern bool act_database_take_rotation(TimestampTz now, TimestampTz *next);
extern void act_database_end_rotation(TimestampTz again);
extern void act_database_end_sweeping(void);
extern bool act_database_is_quiet(TimestampTz horizon);
extern bool act_database_try_leave(TimestampTz horizon);

/* For the launcher, too. */
extern void act_database_begin_look(Oid database);
extern bool act_database_is_settled(Oid database);
extern void act_database_forget(Oid database);

/* For all. */
extern bool act_database_is_known(Oid database);
extern void act_database_want(Oid database);	/* safe in a commit callback */

/* For the rooms of this folder; with the registry's lock held exclusively. */
extern void act_database_set_starting(struct Database *db, TimestampTz now);
extern void act_database_end_manager(struct Database *db);
extern void act_database_delay_manager(struct Database *db, TimestampTz now);
extern struct Database *act_database_find_claim(Datum main_arg);
extern TimestampTz act_database_next_chore(struct Database *db);
extern bool act_database_is_idle(struct Database *db, TimestampTz horizon);

#endif							/* ACT_DATABASE_H */
