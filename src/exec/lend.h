/*
 * lend.h
 *	  Lending an entity to a program outside, and taking it back.
 */
#ifndef ACT_LEND_H
#define ACT_LEND_H

#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "runner/runner.h"

/* What a lease is to be like. */
typedef struct LendTerms
{
	Runner		runner;			/* a copy */
	int64		length;			/* microseconds */
	int			max_messages;
	char	   *owner;			/* the caller's word for himself, or NULL */
	bool		empty_too;		/* lend the entity also if nothing is pending */
} LendTerms;

/* What the caller gets; in the context that was current. */
typedef struct Lease
{
	EntityKey	key;
	char	   *entity;
	int64		token;
	Datum		state;			/* jsonb, or 0 */
	Datum		messages;		/* a jsonb array */
	TimestampTz expires_at;
} Lease;

typedef enum LendResult
{
	LEND_LENT,
	LEND_EMPTY,					/* nothing is pending */
	LEND_LEASED,				/* somebody else holds it */
	LEND_WAITING,				/* paused, backing off, not runnable */
	LEND_FAILED,				/* "runnable" did, and that is in the row */
	LEND_BUSY					/* a segment is locked */
} LendResult;

extern LendResult act_lend(RunContext *work, Mailbox *mailbox,
						   const LendTerms *terms, Lease *lease);
extern void act_lend_consume(Mailbox *mailbox);
extern bool act_lend_is_empty(RunContext *work, Mailbox *mailbox);

#endif							/* ACT_LEND_H */
