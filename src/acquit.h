/*
 * acquit.h
 *	  Suspects of a crash that have nothing left to be run.
 */
#ifndef ACT_ACQUIT_H
#define ACT_ACQUIT_H

#include "actornot.h"

/* What was found, in the memory context of whoever asked. */
typedef struct Acquittal
{
	int			n;
	EntityKey  *keys;
} Acquittal;

extern void act_acquit_find(Acquittal *acquittal, MemoryContext context);
extern void act_acquit_finish(Acquittal *acquittal);

#endif							/* ACT_ACQUIT_H */
