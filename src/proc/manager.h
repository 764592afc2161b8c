/*
 * manager.h
 *	  The manager of a database: starts its workers, does nobody's chores.
 */
#ifndef ACT_MANAGER_H
#define ACT_MANAGER_H

/* The process is started by the launcher, by name: actornot_manager_main. */

#endif							/* ACT_MANAGER_H */
