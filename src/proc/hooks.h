/*
 * hooks.h
 *	  Statements of others that concern our processes.
 */
#ifndef ACT_HOOKS_H
#define ACT_HOOKS_H

/* To be called by _PG_init while libraries are preloaded. */
extern void act_hooks_init(void);

#endif							/* ACT_HOOKS_H */
