/*
 * batch.h
 *	  One run of one entity: from its gates to its saved row.
 */
#ifndef ACT_BATCH_H
#define ACT_BATCH_H

#include "actornot.h"
#include "common/cursor.h"
#include "exec/args.h"
#include "exec/call.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"
#include "runner/handler.h"
#include "runner/runner.h"

/* What of a run can go wrong, and how that counts. */
typedef enum RunPhase
{
	PHASE_READ,					/* our own work: not the handler's fault */
	PHASE_RESOLVE,				/* the handler is missing or not allowed */
	PHASE_CALL					/* the handler's own failure */
} RunPhase;

/* One run: what is asked for, and what came of it. */
typedef struct EntityRun
{
	/* asked for */
	EntityKey	key;
	char	   *entity;			/* NULL: any that has this key */
	int			entity_len;
	Oid			role;			/* the owner that may be run here */
	int			max_messages;	/* of a batch; 0: as the runner says */
	TimestampTz until;			/* start no further batch after this; 0: one
								 * batch only */
	bool		fire_deferred;
	bool		grouped;		/* other entities share the transaction */
	bool		lend;			/* the batch is lent to a program outside */
	const Cursor *goal;			/* what is settled here is to be done; NULL:
								 * does not matter */
	MemoryContext context;		/* for what outlives the transaction */

	/* what came of it */
	Gate		gate;			/* that ended it; open: there may be more */
	Oid			owner;			/* GATE_OTHER_POOL: whose; InvalidOid: only
								 * programs outside run it */
	TimestampTz leased_until;	/* GATE_LEASED */
	int64		consumed;		/* messages */
	int			batches;
	bool		reached;		/* all up to "goal" is done */
	bool		failed;			/* by act_retry_run: a failure was handled */
	bool		whole;			/* its handler takes many entities in a call;
								 * asked of a group: as far as is known */
	bool		skipped;		/* by act_group_run: its turn did not come */
	int64		pace;			/* by act_group_run: microseconds of a batch;
								 * -1: not measured */

	/* the batch that was tried last, valid after an error, too */
	RunPhase	phase;
	char	   *runner_name;	/* for reports */
	ItemPointerData tid;		/* of its row; zeros: it had none */
	Cursor		target;
	int			tried;			/* messages */
} EntityRun;

/* A run that is going on. */
typedef struct BatchRun
{
	RunContext *work;
	EntityRun  *run;
	const Runner *runner;		/* a copy: the cache may change under a call */
	Mailbox		mailbox;
	Cursor		target;
	bool		fresh;			/* the target is "now" of this run */
	PendingList list;
	bool		list_collected; /* by this run, and not a leftover */
	bool		dirty;			/* the row is to be saved */
	bool		runnable_known; /* asked in this run already */
} BatchRun;

/* An entity whose lock is held is run, and its row saved. */
extern void act_batch_init(EntityRun *run, const EntityKey *key,
						   const char *entity, int entity_len,
						   Oid role, MemoryContext context);
extern void act_batch_run(RunContext *work, EntityRun *run);

/* The steps of that, for groups and leases. */
extern Gate act_batch_admit_runner(EntityRun *run, Runner *copy);
extern Gate act_batch_admit_mailbox(BatchRun *state);
extern Gate act_batch_collect(BatchRun *state);
extern int64 act_batch_take(BatchRun *state, MessagesArgument *messages);
extern bool act_batch_took_all(const BatchRun *state);
extern Gate act_batch_ask_runnable(BatchRun *state);
extern HandlerCall *act_batch_find_handler(const Runner *copy);
extern void act_batch_init_frame(const BatchRun *state, CallFrame *frame);
extern Datum act_batch_state(const BatchRun *state);
extern int	act_batch_size(const BatchRun *state);
extern void act_batch_go_on(BatchRun *state);
extern void act_batch_keep_rest(BatchRun *state);
extern void act_batch_save(BatchRun *state);
extern void act_batch_note_entity(EntityRun *run, const Mailbox *mailbox);
extern void act_batch_note_reached(BatchRun *state);

#endif							/* ACT_BATCH_H */
