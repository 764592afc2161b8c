/*
 * handler.h
 *	  The functions behind a runner: its handler and its "runnable".
 */
#ifndef ACT_HANDLER_H
#define ACT_HANDLER_H

#include "fmgr.h"

#include "actornot.h"
#include "runner/runner.h"

/* How a handler takes its messages. */
typedef enum HandlerForm
{
	HANDLER_NONE,				/* no handler: only outside workers run it */
	HANDLER_ARRAY,				/* f(text, jsonb, actornot_message[]) */
	HANDLER_JSONB,				/* f(text, jsonb, jsonb) */
	HANDLER_WHOLE				/* f(actornot_batch[]): many entities */
} HandlerForm;

/* Which of a runner's two functions is meant. */
typedef enum RunnerFunction
{
	RUNNER_HANDLER,
	RUNNER_RUNNABLE
} RunnerFunction;

/*
 * The function behind a name, resolved and checked for the runner's owner.
 * Valid to the end of the transaction, whatever the function does to itself;
 * look it up again for each call.  Call it with DEFAULT_COLLATION_OID.
 */
typedef struct HandlerCall
{
	HandlerForm form;
	Oid			function;
	bool		returns_void;
	FmgrInfo	flinfo;
} HandlerCall;

/*
 * The handler (runnable) function, looked up and checked; cached until a
 * pg_proc change.  NULL if the runner has none.  Error 42883 / 42501 when it
 * is missing, belongs to another role than at registration, or the owner may
 * not execute it.
 */
extern HandlerCall *act_handler_get(const Runner *runner);
extern HandlerCall *act_handler_get_runnable(const Runner *runner);

/* For registration. */
extern char *act_handler_resolve(const char *runner_name, const char *name,
								 RunnerFunction which, Oid *function,
								 Oid *function_owner);

#endif							/* ACT_HANDLER_H */
