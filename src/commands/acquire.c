/*
 * acquire.c
 *	  Leases: programs outside run entities, and may die at any time.
 *
 * Each function is one step in the caller's transaction and leaves nothing in
 * the session, so that it works behind any pooler.  What is lent, to whom
 * and until when is in the mailbox row (see lease.c); what of that the
 * processes need to know is told to the ready queue: at once where an entity
 * is taken, and taken back if the transaction aborts; at commit where a lease
 * ends.
 *
 * actornot_acquire finds entities in the ready queue, or, without
 * shared_preload_libraries, by reading the log.  An entity that is not lent is
 * unlocked at once, and while it waits it holds no lock of ours, for each try
 * is a subtransaction, which is rolled back if nothing was found: who looks
 * for work must be in nobody's way.
 *
 * The functions that name a token look at it before they wait for the
 * entity's lock, so that who is stale learns that at once, and again after it.
 *
 * Memory: what goes to the caller in the function's context, and of what was
 * looked at in vain no more than which entities these were.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/wait_event.h"

#include "actornot.h"
#include "commands/funcargs.h"
#include "common/catalog.h"
#include "common/entity.h"
#include "common/subxact.h"
#include "compat.h"
#include "exec/lease.h"
#include "exec/retry.h"
#include "log/clock.h"
#include "log/token.h"
#include "mailbox/deadletter.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "maint/sweep.h"
#include "runner/runner.h"
#include "sched/hints.h"
#include "sched/leaseq.h"
#include "sched/wakeup.h"

PG_FUNCTION_INFO_V1(actornot_acquire);
PG_FUNCTION_INFO_V1(actornot_update_locked);
PG_FUNCTION_INFO_V1(actornot_renew);
PG_FUNCTION_INFO_V1(actornot_release);
PG_FUNCTION_INFO_V1(actornot_fail);

/* A waiting statement holds back vacuum. */
#define MAX_WAIT (60 * USECS_PER_SEC)

#define MAX_LENGTH (30 * USECS_PER_DAY)
#define MAX_RETRY_IN (366 * USECS_PER_DAY)
#define MAX_MESSAGES 10000
#define MAX_ENTITIES 1000

/* How many are taken off the queue at a time. */
#define TAKE_MAX 64

/*
 * So many that were found in the log and tried are remembered: far more than
 * a block holds, and as many as a transaction can have memory for.
 */
#define KNOWN_MAX 65536

/*
 * Who waits is told, but not by everybody (sessions that run or drain), and
 * without shared_preload_libraries by nobody: then look again.
 */
#define UNTOLD_DELAY (100 * INT64CONST(1000))

/* An entity whose head was given up is looked at again so much later. */
#define FAILED_DELAY INT64CONST(1000)

/* A call of actornot_acquire. */
typedef struct Acquisition
{
	LeaseTerms	terms;
	Oid			pool;
	char	   *entity;			/* NULL: any */
	int			entity_len;
	EntityKey	key;			/* of the entity */
	int			max_entities;
	TimestampTz deadline;
	MemoryContext context;		/* of the leases */
	Lease	   *leases;
	int			nleases;
	TimestampTz retry;			/* look again then, if nobody tells */
	bool		more;			/* not all that are queued were looked at */
	int			nlooked;		/* so many were, in all tries */
	int			nfailed;		/* of these, failures that were noted */
	bool		changed;		/* a row, though nothing was lent */
} Acquisition;

/* A call that names a lease. */
typedef struct Holding
{
	Runner		runner;			/* a copy */
	EntityKey	key;
	char	   *entity;
	int			entity_len;
	int64		token;
	RunContext	work;
	Mailbox		mailbox;
} Holding;

/* ------------------------------------------------------------------------
 * Arguments
 * ------------------------------------------------------------------------ */

static void
check_may_write(const char *command)
{
	act_funcargs_check_may_write(command);
	act_head_check_isolation();
}

/*
 * Check that the caller has the rights of the runner's owner, and copy it.
 */
static void
copy_runner(const Runner *runner, Runner *copy)
{
	act_runner_check_rights(runner);
	*copy = *runner;
	if (copy->initial_state != (Datum) 0)
		copy->initial_state =
			PointerGetDatum(PG_DETOAST_DATUM_COPY(copy->initial_state));
}

/*
 * The runner of the first argument.
 */
static void
read_runner(FunctionCallInfo fcinfo, Runner *copy)
{
	/* In an open transaction it may have been resumed, or given away, since. */
	AcceptInvalidationMessages();
	copy_runner(act_funcargs_runner(fcinfo), copy);
}

static int64
read_length(FunctionCallInfo fcinfo, int argno, const Runner *runner)
{
	if (PG_ARGISNULL(argno))
		return runner->lease;
	return act_funcargs_interval(fcinfo, argno, "lease", runner->name, 1,
								 MAX_LENGTH);
}

static int64
read_retry_in(FunctionCallInfo fcinfo, int argno, const Runner *runner)
{
	return act_funcargs_interval(fcinfo, argno, "retry_in", runner->name, 0,
								 MAX_RETRY_IN);
}

static void
read_acquisition(FunctionCallInfo fcinfo, Acquisition *call)
{
	Runner	   *runner = &call->terms.runner;

	memset(call, 0, sizeof(Acquisition));
	read_runner(fcinfo, runner);
	call->pool = act_runner_pool(runner);
	call->context = CurrentMemoryContext;
	if (!PG_ARGISNULL(1))
		call->entity = act_funcargs_entity(fcinfo, runner, &call->entity_len,
										   &call->key);
	call->terms.empty_too = (call->entity != NULL);
	call->terms.length = read_length(fcinfo, 2, runner);
	call->terms.max_messages = PG_ARGISNULL(3) ? runner->batch_size :
		act_funcargs_count(fcinfo, 3, "max_messages", runner->name, 1,
						   MAX_MESSAGES);
	act_funcargs_reject_null(fcinfo, 4, "max_entities");
	call->max_entities = act_funcargs_count(fcinfo, 4, "max_entities",
											runner->name, 1, MAX_ENTITIES);
	act_funcargs_reject_null(fcinfo, 5, "wait");
	call->deadline = GetCurrentTimestamp() +
		act_funcargs_interval(fcinfo, 5, "wait", runner->name, 0, MAX_WAIT);
	if (!PG_ARGISNULL(6))
		call->terms.owner = text_to_cstring(PG_GETARG_TEXT_PP(6));

	/* "runnable" is code of the owner's, which is run in this session. */
	if (runner->runnable != NULL)
		act_runner_check_is_owner(runner);
}

/*
 * Never more than a part of the server's lock table in one transaction.
 */
static int
lock_limit(void)
{
	int64		locks = (int64) max_locks_per_xact * (MaxBackends + max_prepared_xacts);

	return (int) Max(1, Min(locks / 16, MAX_ENTITIES));
}

/* ------------------------------------------------------------------------
 * Results
 * ------------------------------------------------------------------------ */

static void
put_lease(FunctionCallInfo fcinfo, const Runner *runner, const Lease *lease)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[6];
	bool		nulls[6] = {false};

	values[0] = CStringGetTextDatum(runner->name);
	values[1] = CStringGetTextDatum(lease->entity);
	values[2] = Int64GetDatum(lease->token);
	values[3] = lease->state;
	nulls[3] = (lease->state == (Datum) 0);
	values[4] = lease->messages;
	values[5] = TimestampTzGetDatum(lease->expires_at);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* ------------------------------------------------------------------------
 * Acquiring
 * ------------------------------------------------------------------------ */

/*
 * Lend an entity, whose lock is held, or say when it may be worth trying
 * again.
 */
static LeaseResult
lend_or_not(Acquisition *call, RunContext *work, const TakenKey *taken,
			const char *entity, int entity_len)
{
	const EntityKey *key = &taken->key;
	Lease	   *lease = &call->leases[call->nleases];
	Mailbox		mailbox;
	LeaseResult result;

	act_mailbox_init(&mailbox, key, entity, entity_len);
	act_mailbox_load(&work->mailboxes, &mailbox);
	result = act_lease_give(work, &mailbox, &call->terms, lease);
	switch (result)
	{
		case LEND_LENT:
			call->nleases++;
			act_leaseq_lend(MyDatabaseId, call->pool, key, lease->expires_at,
							true);
			break;
		case LEND_LEASED:
			act_leaseq_lend(MyDatabaseId, call->pool, key,
							mailbox.lease_until, false);
			call->retry = Min(call->retry, mailbox.lease_until);
			break;
		case LEND_BUSY:
			act_leaseq_put_back(MyDatabaseId, call->pool, taken);
			call->retry = Min(call->retry, GetCurrentTimestamp() + UNTOLD_DELAY);
			break;
		case LEND_FAILED:
			call->changed = true;
			call->nfailed++;
			act_wakeup_end_lease(call->pool, key, false);
			if (mailbox.wake_at != 0)
			{
				call->retry = Min(call->retry, mailbox.wake_at);
				break;
			}
			/* Its next message may be one that can be lent. */
			act_leaseq_put_back(MyDatabaseId, call->pool, taken);
			call->retry = Min(call->retry, GetCurrentTimestamp() + FAILED_DELAY);
			break;
		case LEND_WAITING:
			if (mailbox.wake_at != 0)
				call->retry = Min(call->retry, mailbox.wake_at);
			break;
		case LEND_EMPTY:
			break;
	}
	return result;
}

/*
 * Try to lend one entity, whose lock is held; it is given back if nothing was
 * changed.  What was read of it is kept only if it was lent.
 */
static void
lend_one(Acquisition *call, RunContext *work, const TakenKey *taken,
		 const char *entity, int entity_len)
{
	MemoryContext context = AllocSetContextCreate(call->context,
												  "actornot lease",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	LeaseResult result;

	result = lend_or_not(call, work, taken, entity, entity_len);
	MemoryContextSwitchTo(old);
	if (result != LEND_LENT)
		MemoryContextDelete(context);
	if (result != LEND_LENT && result != LEND_FAILED)
		act_entity_give_back(taken->key.hash);
}

/*
 * Try to lend the entities of these keys, as many as are still wanted.
 */
static void
lend_keys(Acquisition *call, const TakenKey *taken, int ntaken)
{
	bool	   *locked = palloc0(sizeof(bool) * ntaken);
	RunContext	work;

	/* First of all: to lock them can fail, and they are off the queue. */
	for (int i = 0; i < ntaken; i++)
		act_wakeup_taken(call->pool, &taken[i].key);
	for (int i = 0; i < ntaken; i++)
	{
		int64		hash = taken[i].key.hash;

		locked[i] = !act_entity_is_open(hash) &&
			act_entity_take(hash, false);
		if (!locked[i])
			act_leaseq_put_back(MyDatabaseId, call->pool, &taken[i]);
	}
	act_head_open(&work);
	for (int i = 0; i < ntaken; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (locked[i] && call->nleases < call->max_entities)
			lend_one(call, &work, &taken[i], NULL, 0);
		else if (locked[i])
			act_entity_give_back(taken[i].key.hash);
	}
	act_head_close(&work);
	pfree(locked);
}

/*
 * Are more entities to be tried?  What was lent, or has failed, keeps its lock;
 * where these are many, what was noted of them is to be committed first.
 */
static bool
may_go_on(const Acquisition *call)
{
	return call->nleases < call->max_entities &&
		call->nleases + call->nfailed < lock_limit();
}

/*
 * Any entities, from the ready queue.
 */
static void
take_from_queue(Acquisition *call)
{
	int			enough = call->nlooked + lock_limit();

	while (may_go_on(call) && call->nlooked < enough)
	{
		TakenKey	taken[TAKE_MAX];
		TimestampTz retry = DT_NOEND;
		int			n;

		n = act_leaseq_take(MyDatabaseId, call->pool, call->terms.runner.id,
							taken, Min(TAKE_MAX,
									   call->max_entities - call->nleases),
							&retry);
		call->retry = Min(call->retry, retry);
		if (n == 0)
			break;
		lend_keys(call, taken, n);
		call->nlooked += n;
		call->more = (call->nlooked >= enough);
	}
	if (call->more)
		call->retry = 0;
}

/* What a walk through the log has found. */
typedef struct FoundKeys
{
	HTAB	   *known;			/* all that were tried, by EntityKey */
	MemoryContext context;		/* of the table */
	TakenKey	keys[TAKE_MAX]; /* of this piece */
	int			n;
} FoundKeys;

static void
forget_known(FoundKeys *found)
{
	HASHCTL		info = {0};

	MemoryContextReset(found->context);
	info.keysize = sizeof(EntityKey);
	info.entrysize = sizeof(EntityKey);
	info.hcxt = found->context;
	found->known = hash_create("actornot entities tried", TAKE_MAX, &info,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * What was found before does not count: an entity is tried once, and each
 * piece of the walk begins in the block where the last one ended.
 */
static bool
remember_key(void *arg, Oid owner, TimestampTz leased_until,
			 const EntityKey *key, const char *entity, int entity_len)
{
	FoundKeys  *found = arg;
	TakenKey   *place;
	bool		known;

	if (leased_until != 0)
		return false;
	(void) hash_search(found->known, key, HASH_ENTER, &known);
	if (known)
		return false;
	place = &found->keys[found->n++];
	place->key = *key;
	place->delay = -1;
	return true;
}

/*
 * Try to lend what the last piece has found, and lock no more than that.
 */
static void
lend_found(Acquisition *call, const FoundKeys *found)
{
	int			tried = 0;

	while (tried < found->n && may_go_on(call))
	{
		int			n = Min(found->n - tried,
							call->max_entities - call->nleases);

		lend_keys(call, found->keys + tried, n);
		tried += n;
	}
}

/*
 * Any entities, from the log: where there is no ready queue.
 */
static void
take_from_log(Acquisition *call)
{
	Sweep	   *sweep = act_sweep_begin(CurrentMemoryContext);
	FoundKeys	found;
	bool		complete = false;

	found.context = AllocSetContextCreate(CurrentMemoryContext,
										  "actornot entities tried",
										  ALLOCSET_DEFAULT_SIZES);
	forget_known(&found);
	act_sweep_set_runner(sweep, call->terms.runner.id);
	act_sweep_set_function(sweep, remember_key, &found);
	while (!complete && may_go_on(call))
	{
		CHECK_FOR_INTERRUPTS();
		found.n = 0;
		complete = act_sweep_step(sweep, TAKE_MAX);
		lend_found(call, &found);
		if (hash_get_num_entries(found.known) >= KNOWN_MAX)
			forget_known(&found);
	}
	MemoryContextDelete(found.context);
	act_sweep_end(sweep);
	call->retry = Min(call->retry, GetCurrentTimestamp() + UNTOLD_DELAY);
}

/*
 * The entity that was named.
 */
static void
take_entity(Acquisition *call)
{
	TakenKey	taken = {call->key, -1};
	RunContext	work;

	act_entity_check_closed(call->key.hash, call->terms.runner.name,
							call->entity);
	if (!act_entity_take(call->key.hash, false))
	{
		call->retry = Min(call->retry, GetCurrentTimestamp() + UNTOLD_DELAY);
		return;
	}
	act_wakeup_taken(call->pool, &call->key);
	act_head_open(&work);
	lend_one(call, &work, &taken, call->entity, call->entity_len);
	act_head_close(&work);
	if (!act_readyq_attached())
		call->retry = Min(call->retry, GetCurrentTimestamp() + UNTOLD_DELAY);
}

static void
try_once(Acquisition *call)
{
	call->nleases = 0;
	call->changed = false;
	call->more = false;
	call->retry = DT_NOEND;
	if (call->entity != NULL)
		take_entity(call);
	else if (act_readyq_attached())
		take_from_queue(call);
	else
		take_from_log(call);
}

/*
 * A try that holds no locks afterwards, unless it found something.
 */
static void
try_apart(Acquisition *call)
{
	MemoryContext old_context = CurrentMemoryContext;
	ResourceOwner old_owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(old_context);
	PG_TRY();
	{
		try_once(call);
		if (call->nleases > 0 || call->changed)
			ReleaseCurrentSubTransaction();
		else
			act_wakeup_rollback_search();
	}
	PG_CATCH();
	{
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(old_context);
		CurrentResourceOwner = old_owner;
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old_context);
	CurrentResourceOwner = old_owner;
}

/*
 * Sleep until somebody tells, or it is time to look.
 */
static void
sleep_until(TimestampTz then)
{
	long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													 then);

	if (!act_leaseq_is_woken())
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(ms, INT_MAX - 1), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);

	/* What is lent to a client that is gone helps nobody. */
	if (MyProcPort != NULL && !pq_check_connection())
	{
		ClientConnectionLost = true;
		InterruptPending = true;
	}
	CHECK_FOR_INTERRUPTS();
}

/*
 * The runner as it is now: while the call slept it may have been paused,
 * resumed, registered anew or taken away.
 */
static void
refresh_runner(Acquisition *call)
{
	MemoryContext old = MemoryContextSwitchTo(call->context);
	const Runner *runner;

	AcceptInvalidationMessages();
	runner = act_runner_get(call->terms.runner.name,
							call->terms.runner.name_len);
	copy_runner(runner, &call->terms.runner);
	call->pool = act_runner_pool(&call->terms.runner);
	if (call->terms.runner.runnable != NULL)
		act_runner_check_is_owner(&call->terms.runner);
	if (call->entity != NULL)
		call->key = act_runner_key(&call->terms.runner, call->entity,
								   call->entity_len);
	MemoryContextSwitchTo(old);
}

static void
try_until_deadline(Acquisition *call)
{
	for (;;)
	{
		refresh_runner(call);
		act_leaseq_wait(MyDatabaseId, call->terms.runner.id,
						call->entity != NULL ? &call->key : NULL);
		try_apart(call);
		if (call->nleases > 0 || !may_go_on(call) ||
			GetCurrentTimestamp() >= call->deadline)
			break;
		sleep_until(Min(call->retry, call->deadline));
	}
}

static void
wait_and_try(Acquisition *call)
{
	PG_TRY();
	{
		try_until_deadline(call);
	}
	PG_CATCH();
	{
		act_leaseq_leave();
		PG_RE_THROW();
	}
	PG_END_TRY();
	act_leaseq_leave();
}

/*
 * actornot_acquire(runner, entity, lease, max_messages, max_entities, wait,
 * owner)
 */
Datum
actornot_acquire(PG_FUNCTION_ARGS)
{
	Acquisition call;

	check_may_write("actornot_acquire()");
	read_acquisition(fcinfo, &call);
	InitMaterializedSRF(fcinfo, 0);
	call.leases = palloc(sizeof(Lease) * call.max_entities);

	if (call.deadline <= GetCurrentTimestamp())
	{
		int			nready = act_leaseq_count_ready(MyDatabaseId,
													call.terms.runner.id);

		try_once(&call);

		/*
		 * Ready ones may be queued behind many that are not to be lent; but
		 * those that are busy come again and again.
		 */
		while (call.nleases == 0 && call.more && may_go_on(&call) &&
			   call.nlooked < nready)
			try_apart(&call);
	}
	else
		wait_and_try(&call);

	if (call.nleases > 0)
		act_token_flush();
	for (int i = 0; i < call.nleases; i++)
		put_lease(fcinfo, &call.terms.runner, &call.leases[i]);
	return (Datum) 0;
}

/* ------------------------------------------------------------------------
 * What the holder of a lease may do
 * ------------------------------------------------------------------------ */

static bool
holds_lease(const Holding *holding)
{
	return holding->mailbox.lease_until != 0 &&
		holding->mailbox.lease_token == holding->token;
}

static void
check_token(const Holding *holding)
{
	if (!holds_lease(holding))
		ereport(ERROR,
				(errcode(ERRCODE_ACT_STALE_LEASE),
				 errmsg("lease " INT64_FORMAT " of entity \"%s\" of runner \"%s\" is no longer held",
						holding->token, holding->entity,
						holding->runner.name),
				 errdetail("It has ended, or somebody else has taken the entity. Nothing was changed."),
				 errhint("Acquire the entity again.")));
}

/*
 * Look at the token without the entity's lock.
 */
static void
peek_token(Holding *holding)
{
	Snapshot	snapshot;
	MailboxTable table;

	act_mailbox_open_to_read(&table);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	table.snapshot = snapshot;
	act_mailbox_init(&holding->mailbox, &holding->key, holding->entity,
					 holding->entity_len);
	act_mailbox_load(&table, &holding->mailbox);
	act_mailbox_close(&table);
	UnregisterSnapshot(snapshot);
	check_token(holding);
}

/*
 * Lock the entity of a lease that the caller holds, and load its mailbox.
 */
static void
begin_holding(FunctionCallInfo fcinfo, Holding *holding, const char *command)
{
	check_may_write(command);
	read_runner(fcinfo, &holding->runner);
	holding->entity = act_funcargs_entity(fcinfo, &holding->runner,
										  &holding->entity_len, &holding->key);
	act_funcargs_reject_null(fcinfo, 2, "token");
	holding->token = PG_GETARG_INT64(2);

	act_entity_check_closed(holding->key.hash, holding->runner.name,
							holding->entity);
	if (!act_entity_take(holding->key.hash, false))
	{
		peek_token(holding);
		act_entity_take(holding->key.hash, true);
	}
	act_head_open(&holding->work);
	act_mailbox_init(&holding->mailbox, &holding->key, holding->entity,
					 holding->entity_len);
	act_mailbox_load(&holding->work.mailboxes, &holding->mailbox);
	check_token(holding);
}

/*
 * The lease has ended, and the row has been saved.  "idle": there is nothing
 * to be done now, be it because nothing is pending or because it has to wait.
 */
static void
end_holding(Holding *holding, bool idle)
{
	act_head_close(&holding->work);
	act_wakeup_end_lease(act_runner_pool(&holding->runner), &holding->key,
						 idle);
}

/*
 * Lend the next batch to the same holder.  False if there is none.
 */
static bool
lend_next(Holding *holding, LeaseTerms *terms, Lease *lease, LeaseResult *result)
{
	terms->runner = holding->runner;
	*result = act_lease_give(&holding->work, &holding->mailbox, terms, lease);
	if (*result != LEND_LENT)
		return false;
	act_wakeup_taken(act_runner_pool(&holding->runner), &holding->key);
	act_leaseq_lend(MyDatabaseId, act_runner_pool(&holding->runner),
					&holding->key, lease->expires_at, true);
	return true;
}

/*
 * actornot_update_locked(runner, entity, token, state, lease, max_messages)
 */
Datum
actornot_update_locked(PG_FUNCTION_ARGS)
{
	Holding		holding;
	LeaseTerms	terms = {0};
	Lease		lease;
	LeaseResult result = LEND_WAITING;

	begin_holding(fcinfo, &holding, "actornot_update_locked()");
	InitMaterializedSRF(fcinfo, 0);
	terms.length = read_length(fcinfo, 4, &holding.runner);
	terms.max_messages = PG_ARGISNULL(5) ? holding.runner.batch_size :
		act_funcargs_count(fcinfo, 5, "max_messages", holding.runner.name, 0,
						   MAX_MESSAGES);
	terms.owner = holding.mailbox.lease_owner;
	if (holding.runner.runnable != NULL && terms.max_messages > 0)
		act_runner_check_is_owner(&holding.runner);

	act_lease_consume(&holding.mailbox);
	holding.mailbox.state = PG_ARGISNULL(3) ? (Datum) 0 :
		PointerGetDatum(PG_DETOAST_DATUM_COPY(PG_GETARG_DATUM(3)));

	if (terms.max_messages > 0 &&
		lend_next(&holding, &terms, &lease, &result))
	{
		act_head_close(&holding.work);
		act_token_flush();
		put_lease(fcinfo, &holding.runner, &lease);
		return (Datum) 0;
	}

	act_mailbox_save(&holding.work.mailboxes, &holding.mailbox);
	end_holding(&holding, result == LEND_EMPTY ||
				(terms.max_messages == 0 &&
				 act_lease_is_empty(&holding.work, &holding.mailbox)));
	return (Datum) 0;
}

/*
 * actornot_renew(runner, entity, token, lease)
 */
Datum
actornot_renew(PG_FUNCTION_ARGS)
{
	Holding		holding;
	TimestampTz until;

	begin_holding(fcinfo, &holding, "actornot_renew()");
	until = GetCurrentTimestamp() + read_length(fcinfo, 3, &holding.runner);
	holding.mailbox.lease_until = until;
	act_mailbox_save(&holding.work.mailboxes, &holding.mailbox);
	act_head_close(&holding.work);
	act_wakeup_taken(act_runner_pool(&holding.runner), &holding.key);
	act_leaseq_lend(MyDatabaseId, act_runner_pool(&holding.runner),
					&holding.key, until, false);
	PG_RETURN_TIMESTAMPTZ(until);
}

/*
 * actornot_release(runner, entity, token, retry_in)
 */
Datum
actornot_release(PG_FUNCTION_ARGS)
{
	Holding		holding;
	int64		retry_in;

	begin_holding(fcinfo, &holding, "actornot_release()");
	retry_in = PG_ARGISNULL(3) ? 0 : read_retry_in(fcinfo, 3, &holding.runner);
	act_mailbox_end_lease(&holding.mailbox);
	if (retry_in > 0)
	{
		holding.mailbox.wake_at = GetCurrentTimestamp() + retry_in;
		act_wakeup_due(holding.mailbox.wake_at);
	}
	act_mailbox_save(&holding.work.mailboxes, &holding.mailbox);
	end_holding(&holding, retry_in > 0);
	PG_RETURN_VOID();
}

/*
 * actornot_fail(runner, entity, token, error, retry_in)
 */
Datum
actornot_fail(PG_FUNCTION_ARGS)
{
	Holding		holding;
	Failure		failure = {ERRCODE_RAISE_EXCEPTION};
	int64		retry_in;
	bool		had_batch;

	begin_holding(fcinfo, &holding, "actornot_fail()");
	act_funcargs_reject_null(fcinfo, 3, "error");
	failure.message = act_subxact_clip(text_to_cstring(PG_GETARG_TEXT_PP(3)));
	retry_in = PG_ARGISNULL(4) ? -1 : read_retry_in(fcinfo, 4, &holding.runner);

	had_batch = (holding.mailbox.lease_last_id != 0);
	act_mailbox_end_lease(&holding.mailbox);
	if (had_batch)
		act_retry_note(&holding.work, &holding.mailbox, &holding.runner,
					   &failure, retry_in);
	else
		act_mailbox_save(&holding.work.mailboxes, &holding.mailbox);
	end_holding(&holding,
				holding.mailbox.wake_at > GetCurrentTimestamp());
	PG_RETURN_VOID();
}
