/*
 * group.h
 *	  Visits of many entities that share calls of their handler.
 */
#ifndef ACT_GROUP_H
#define ACT_GROUP_H

#include "exec/visit.h"

extern void act_group_visit(RunContext *work, EntityRun **visits, int n,
							TimestampTz until);

#endif							/* ACT_GROUP_H */
