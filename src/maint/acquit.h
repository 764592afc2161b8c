/*
 * acquit.h
 *	  Suspects of a crash that have nothing left to be run.
 */
#ifndef ACT_ACQUIT_H
#define ACT_ACQUIT_H

#include "actornot.h"

/* What was found; the keys are in the memory context of whoever asked. */
typedef struct Acquittal
{
	int			nsuspects;
	int			next;			/* the first that was not looked at */
	int			n;				/* so many are none any more */
	EntityKey  *keys;			/* these come first */
} Acquittal;

extern void act_acquit_begin(Acquittal *acquittal, MemoryContext context);
extern void act_acquit_find(Acquittal *acquittal);
extern void act_acquit_finish(Acquittal *acquittal);

#endif							/* ACT_ACQUIT_H */
