/*
 * launcher.h
 *	  The launcher: one process that starts managers where they are needed.
 */
#ifndef ACT_LAUNCHER_H
#define ACT_LAUNCHER_H

/* To be called by _PG_init while libraries are preloaded. */
extern void act_launcher_register(void);

#endif							/* ACT_LAUNCHER_H */
