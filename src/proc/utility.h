/*
 * utility.h
 *	  Statements of others that concern our processes.
 */
#ifndef ACT_UTILITY_H
#define ACT_UTILITY_H

/* To be called by _PG_init while libraries are preloaded. */
extern void act_utility_init(void);

#endif							/* ACT_UTILITY_H */
