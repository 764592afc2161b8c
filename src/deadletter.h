/*
 * deadletter.h
 *	  The table of messages given up.
 */
#ifndef ACT_DEADLETTER_H
#define ACT_DEADLETTER_H

#include "actornot.h"

/* What is known of the failure of a handler's call. */
typedef struct Failure
{
	int			sqlstate;		/* encoded, as in ErrorData */
	char	   *message;
	char	   *detail;			/* or NULL */
	char	   *context;		/* or NULL */
	bool		timed_out;		/* cancelled by the runner's timeout */
	ErrorData  *interrupt;		/* this backend was cancelled, or is to end */
} Failure;

/* A message as it is buried: values as of the log's tuple, detoasted. */
typedef struct DeadMessage
{
	int64		id;
	int32		runner;
	const char *runner_name;
	const char *entity;
	Datum		payload;		/* jsonb or 0 for NULL */
	Datum		headers;		/* jsonb or 0 for NULL */
	TimestampTz posted_at;
	int			attempts;
} DeadMessage;

/* Insert by table and index access, with the rights of the extension. */
extern void act_deadletter_insert(const DeadMessage *message,
								  const Failure *failure);

#endif							/* ACT_DEADLETTER_H */
