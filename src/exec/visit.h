/*
 * visit.h
 *	  The steps of a visit: what comes before and after the handler's call.
 */
#ifndef ACT_VISIT_H
#define ACT_VISIT_H

#include "actornot.h"
#include "common/cursor.h"
#include "exec/args.h"
#include "exec/call.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"
#include "runner/handler.h"
#include "runner/runner.h"

/* What a visit left behind. */
typedef enum RunResult
{
	RUN_EMPTY,					/* nothing pending under a fresh target */
	RUN_MORE,					/* there is, or may be, more */
	RUN_BUSY,					/* somebody holds a lock: later */
	RUN_WAITING,				/* paused, backing off, not runnable: whoever
								 * ends that queues it */
	RUN_LEASED,					/* lent to a program outside until
								 * "leased_until" */
	RUN_ALONE,					/* is not to run in a group */
	RUN_MOVED					/* the runner belongs to "owner" */
} RunResult;

/* What of a visit can go wrong, and how that counts. */
typedef enum VisitPhase
{
	PHASE_READ,					/* our own work: not the handler's fault */
	PHASE_RESOLVE,				/* the handler is missing or not allowed */
	PHASE_CALL					/* the handler's own failure */
} VisitPhase;

/* One visit: what is asked for, and what came of it. */
typedef struct EntityRun
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
	RunResult	result;
	Oid			owner;			/* InvalidOid: only programs outside run it */
	TimestampTz leased_until;
	int64		consumed;		/* messages */
	int			batches;
	bool		reached;		/* all up to "goal" is done */
	bool		failed;			/* by act_retry_run: a failure was handled */
	bool		whole;			/* its handler takes many entities in a call */

	/* the batch that was tried last, valid after an error, too */
	VisitPhase	phase;
	char	   *runner_name;	/* for reports */
	bool		had_row;
	ItemPointerData tid;
	Cursor		target;
	int			tried;			/* messages */
} EntityRun;

/* A visit that is going on. */
typedef struct BatchRun
{
	RunContext *work;
	EntityRun  *visit;
	const Runner *runner;		/* a copy: the cache may change under a call */
	Mailbox		mailbox;
	Cursor		target;
	bool		fresh;			/* the target is "now" of this visit */
	PendingList list;
	bool		list_collected; /* by this visit, and not a leftover */
	bool		dirty;			/* the row is to be saved */
	bool		runnable_known; /* asked in this visit already */
} BatchRun;

extern void act_visit_init(EntityRun *visit, const EntityKey *key,
						   const char *entity, int entity_len,
						   Oid role, MemoryContext context);
extern bool act_visit_admit_runner(EntityRun *visit, Runner *copy);
extern HandlerCall *act_visit_find_handler(const Runner *copy);
extern bool act_visit_admit_mailbox(BatchRun *state);
extern bool act_visit_collect(BatchRun *state);
extern int64 act_visit_take(RunContext *work, Mailbox *mailbox,
							PendingList *list, int limit,
							Size limit_bytes, MessagesArgument *messages);
extern void act_visit_init_frame(const BatchRun *state, CallFrame *frame);
extern Datum act_visit_current_state(const BatchRun *state);
extern void act_visit_set_arguments(const BatchRun *state,
									NullableDatum *args);
extern bool act_visit_is_runnable(BatchRun *state);
extern int	act_visit_batch_size(const BatchRun *state);
extern void act_visit_note_reached(BatchRun *state);
extern void act_visit_renew_plan(BatchRun *state);
extern void act_visit_save(BatchRun *state);

#endif							/* ACT_VISIT_H */
