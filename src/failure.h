/*
 * failure.h
 *	  What happens when a batch fails: again one by one, then wait or bury.
 */
#ifndef ACT_FAILURE_H
#define ACT_FAILURE_H

#include "batch.h"
#include "deadletter.h"

/*
 * Runs body(arg) in a transaction or subtransaction of its own.  False, with
 * *failure filled in (memory of "context"), if it failed and was undone.
 */
typedef bool (*ContainFunction) (void (*body) (void *arg), void *arg,
								 Failure *failure, MemoryContext context);

/* So many bytes of a text that says why something failed are kept. */
#define ACT_FAILURE_TEXT_MAX 65536

extern char *act_failure_clip(const char *text);
extern void act_failure_capture(Failure *failure, MemoryContext context);
extern bool act_failure_contain(void (*body) (void *arg), void *arg,
								Failure *failure, MemoryContext context);
extern void act_failure_run(Visit *visit, ContainFunction contain, int elevel);
extern void act_failure_note(BatchWork *work, Mailbox *mailbox,
							 const Runner *runner, const Failure *failure,
							 int64 retry_in);
extern bool act_failure_count_crash(Visit *visit, bool was_alone,
									ContainFunction contain);

#endif							/* ACT_FAILURE_H */
