/*
 * wholebatch.h
 *	  Visits of many entities that share calls of their handler.
 */
#ifndef ACT_WHOLEBATCH_H
#define ACT_WHOLEBATCH_H

#include "exec/visit.h"

extern void act_wholebatch_visit(RunContext *work, Visit **visits, int n,
								 TimestampTz until);

#endif							/* ACT_WHOLEBATCH_H */
