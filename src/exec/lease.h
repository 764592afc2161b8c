/*
 * lease.h
 *	  Lending an entity to a program outside, and taking it back.
 */
#ifndef ACT_LEASE_H
#define ACT_LEASE_H

#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "runner/runner.h"

/* What a lease is to be like. */
typedef struct LeaseTerms
{
	Runner		runner;			/* a copy */
	int64		length;			/* microseconds */
	int			max_messages;
	char	   *owner;			/* the holder's word for itself, or NULL */
	bool		empty_too;		/* lend the entity also if nothing is pending */
} LeaseTerms;

/* What the holder gets; in the context that was current. */
typedef struct Lease
{
	EntityKey	key;
	char	   *entity;
	int64		token;
	Datum		state;			/* jsonb, or 0 */
	Datum		messages;		/* a jsonb array */
	TimestampTz expires_at;
	bool		failed;			/* not lent, but the row has changed */
} Lease;

extern Gate act_lease_give(RunContext *work, Mailbox *mailbox,
						   const LeaseTerms *terms, Lease *lease);
extern void act_lease_consume(Mailbox *mailbox);
extern Gate act_lease_look(RunContext *work, Mailbox *mailbox);

#endif							/* ACT_LEASE_H */
