/*
 * batch.h
 *	  The verb "take out": one visit of one entity.
 */
#ifndef ACT_BATCH_H
#define ACT_BATCH_H

#include "exec/visit.h"

extern void act_batch_visit(RunContext *work, EntityRun *visit);
extern void act_batch_go_on(BatchRun *state);

#endif							/* ACT_BATCH_H */
