/*
 * failure.h
 *	  What happens when a batch fails: again one by one, then wait or bury.
 */
#ifndef ACT_FAILURE_H
#define ACT_FAILURE_H

#include "exec/batch.h"
#include "mailbox/deadletter.h"

extern void act_failure_run(Visit *visit, ContainFunction contain, int elevel);
extern void act_failure_note(RunContext *work, Mailbox *mailbox,
							 const Runner *runner, const Failure *failure,
							 int64 retry_in);
extern bool act_failure_count_crash(Visit *visit, bool was_alone,
									ContainFunction contain);

#endif							/* ACT_FAILURE_H */
