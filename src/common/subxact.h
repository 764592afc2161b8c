/*
 * subxact.h
 *	  Contained subtransactions, and what their errors say.
 */
#ifndef ACT_SUBXACT_H
#define ACT_SUBXACT_H

#include "actornot.h"

/* What is kept of an error. */
typedef struct Failure
{
	int			sqlstate;		/* encoded, as in ErrorData */
	char	   *message;
	char	   *detail;			/* or NULL */
	char	   *context;		/* or NULL */
	bool		timed_out;		/* cancelled by the runner's timeout */
	ErrorData  *interrupt;		/* this backend was cancelled, or is to end */
} Failure;

/*
 * Runs body(arg) in a transaction or subtransaction of its own.  False, with
 * *failure filled in (memory of "context"), if it failed and was undone.
 */
typedef bool (*ContainFunction) (void (*body) (void *arg), void *arg,
								 Failure *failure, MemoryContext context);

/* Bytes kept of a text that says why something failed. */
#define ACT_SUBXACT_TEXT_MAX 65536

extern void act_subxact_note_error(void);
extern void act_subxact_note_timeout(bool value);
extern void act_subxact_forget(void);
extern char *act_subxact_clip(const char *text);
extern void act_subxact_capture(Failure *failure, MemoryContext context);
extern bool act_subxact_contain(void (*body) (void *arg), void *arg,
								Failure *failure, MemoryContext context);

#endif							/* ACT_SUBXACT_H */
