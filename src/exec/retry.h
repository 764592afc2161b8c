/*
 * retry.h
 *	  What happens when a batch fails: again one by one, then wait or bury.
 */
#ifndef ACT_RETRY_H
#define ACT_RETRY_H

#include "common/subxact.h"
#include "exec/batch.h"

extern void act_retry_run(EntityRun *run, ContainFunction contain, int elevel);
extern void act_retry_note(RunContext *work, Mailbox *mailbox,
						   const Runner *runner, const Failure *failure,
						   int64 retry_in);
extern bool act_retry_count_crash(EntityRun *run, bool was_alone,
								  ContainFunction contain);

#endif							/* ACT_RETRY_H */
