/*
 * group.h
 *	  Entities that share a transaction, or even a call of their handler.
 */
#ifndef ACT_GROUP_H
#define ACT_GROUP_H

#include "exec/batch.h"

typedef struct EntityGroup
{
	EntityRun  *runs;			/* "whole" says which are run together */
	int			n;
	int			time;			/* milliseconds; 0: all are to be run */
} EntityGroup;

extern void act_group_run(void *arg);

#endif							/* ACT_GROUP_H */
