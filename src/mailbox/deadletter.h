/*
 * deadletter.h
 *	  The table of messages given up.
 */
#ifndef ACT_DEADLETTER_H
#define ACT_DEADLETTER_H

#include "actornot.h"
#include "common/subxact.h"

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
