/*
 * batch.h
 *	  The verb "take out": one visit of one entity.
 */
#ifndef ACT_BATCH_H
#define ACT_BATCH_H

#include "actornot.h"
#include "cursor.h"
#include "mailbox.h"
#include "work.h"

/* What a visit left behind. */
typedef enum VisitResult
{
	VISIT_EMPTY,				/* nothing pending under a fresh target */
	VISIT_MORE,					/* there is, or may be, more */
	VISIT_BUSY,					/* somebody holds a lock: later */
	VISIT_WAITING,				/* paused, backing off, not runnable: whoever
								 * ends that queues it */
	VISIT_LEASED,				/* lent to a program outside until
								 * "leased_until" */
	VISIT_ALONE,				/* is not to run in a group */
	VISIT_MOVED					/* the runner belongs to "owner" */
} VisitResult;

/* What of a visit can go wrong, and how that counts. */
typedef enum VisitPhase
{
	PHASE_READ,					/* our own work: not the handler's fault */
	PHASE_RESOLVE,				/* the handler is missing or not allowed */
	PHASE_CALL					/* the handler's own failure */
} VisitPhase;

/* One visit: what is asked for, and what came of it. */
typedef struct Visit
{
	/* asked for */
	EntityKey	key;
	char	   *entity;			/* NULL: whichever has this key */
	int			entity_len;
	Oid			role;			/* the owner that may be run here */
	int			max_messages;	/* of a batch; 0: as the runner says */
	TimestampTz until;			/* start no further batch after this; 0: one
								 * batch only */
	bool		fire_deferred;
	bool		grouped;		/* other entities share the transaction */
	const Cursor *goal;			/* what is settled here is to be done; NULL:
								 * does not matter */
	MemoryContext context;		/* for what outlives the transaction */

	/* what came of it */
	VisitResult result;
	Oid			owner;			/* InvalidOid: only programs outside run it */
	TimestampTz leased_until;
	int64		consumed;		/* messages */
	int			batches;
	bool		reached;		/* all up to "goal" is done */
	bool		failed;			/* by act_failure_run: a failure was handled */

	/* the batch that was tried last, valid after an error, too */
	VisitPhase	phase;
	char	   *runner_name;	/* for reports */
	bool		had_row;
	ItemPointerData tid;
	Cursor		target;
	int			tried;			/* messages */
} Visit;

extern void act_batch_init_visit(Visit *visit, const EntityKey *key,
								 const char *entity, int entity_len,
								 Oid role, MemoryContext context);
extern void act_batch_visit(BatchWork *work, Visit *visit);

#endif							/* ACT_BATCH_H */
