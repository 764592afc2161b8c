/*
 * acquire.c
 *	  Programs outside take entities: actornot_acquire.
 *
 * A call is one step in the caller's transaction and leaves nothing in the
 * session, so that it works behind any pooler.  What is lent, to which program
 * and until when is in the mailbox row (see lease.c); what of that the
 * processes need to know is told to the ready queue: at once where an entity
 * is taken, and taken back if the transaction aborts.
 *
 * Entities are found in the ready queue, or, without shared_preload_libraries,
 * by reading the log.  An entity that is not lent is unlocked at once, and
 * while the call waits it holds no lock of ours, for each try is a
 * subtransaction, which is rolled back if nothing was found: a program that
 * looks for work must not be in the way of others.
 *
 * Memory: what goes to the caller in the function's context; of what was
 * looked at and not lent only the keys.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "actornot.h"
#include "commands/funcargs.h"
#include "common/entity.h"
#include "compat.h"
#include "exec/lease.h"
#include "log/clock.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "maint/sweep.h"
#include "runner/runner.h"
#include "sched/gate.h"
#include "sched/hints.h"
#include "sched/leaseq.h"
#include "sched/wakeup.h"

PG_FUNCTION_INFO_V1(actornot_acquire);

/* A waiting statement holds back vacuum. */
#define MAX_WAIT (60 * USECS_PER_SEC)

#define MAX_ENTITIES 1000

/* The largest number that is taken off the queue at a time. */
#define TAKE_MAX 64

/*
 * The number of remembered entities that were found in the log and tried: far
 * more than a block holds, and as many as a transaction can have memory for.
 */
#define KNOWN_MAX 65536

/*
 * The time between two looks for what a waiter is not told of: the end of a run
 * in a session, and, without shared_preload_libraries, everything.
 */
#define UNTOLD_DELAY (100 * INT64CONST(1000))

/* The time until an entity whose head was given up is looked at again. */
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
	TimestampTz retry;			/* look again then, if not told before */
	bool		more;			/* not all that are queued were looked at */
	int			nlooked;		/* how many were, in all tries */
	int			nfailed;		/* of these, failures that were noted */
	bool		changed;		/* a row, though nothing was lent */
} Acquisition;

/* ------------------------------------------------------------------------
 * Arguments
 * ------------------------------------------------------------------------ */

static void
read_acquisition(FunctionCallInfo fcinfo, Acquisition *call)
{
	Runner	   *runner = &call->terms.runner;
	text	   *name;

	memset(call, 0, sizeof(Acquisition));
	act_funcargs_reject_null(fcinfo, 0, "runner");
	name = PG_GETARG_TEXT_PP(0);
	act_funcargs_copy_runner(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name),
							 runner);
	call->pool = act_runner_pool(runner);
	call->context = CurrentMemoryContext;
	if (!PG_ARGISNULL(1))
		call->entity = act_funcargs_entity(fcinfo, runner, &call->entity_len,
										   &call->key);
	call->terms.empty_too = (call->entity != NULL);
	call->terms.length = act_funcargs_lease_length(fcinfo, 2, runner);
	call->terms.max_messages = PG_ARGISNULL(3) ? runner->batch_size :
		act_funcargs_count(fcinfo, 3, "max_messages", runner->name, 1,
						   ACT_MAX_LENT_MESSAGES);
	act_funcargs_reject_null(fcinfo, 4, "max_entities");
	call->max_entities = act_funcargs_count(fcinfo, 4, "max_entities", runner->name, 1,
											MAX_ENTITIES);
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
 * Acquiring
 * ------------------------------------------------------------------------ */

/*
 * An entity that was taken off the queue is not lent: what becomes of its hint.
 */
static void
settle_hint(const Acquisition *call, const TakenKey *taken, Gate gate,
			TimestampTz leased_until)
{
	switch (act_gate_verdict(gate))
	{
		case HINT_DROP:
			break;
		case HINT_LEND:
			act_leaseq_lend(MyDatabaseId, call->pool, &taken->key,
							leased_until, false);
			break;
		default:
			act_leaseq_put_back(MyDatabaseId, call->pool, taken);
			break;
	}
}

/*
 * When it is worth looking again at an entity that is not lent, of what the
 * call is not told.
 */
static TimestampTz
next_look(Gate gate, const Mailbox *mailbox)
{
	switch (gate)
	{
		case GATE_LEASED:
			return mailbox->lease_until;
		case GATE_BACK_OFF:
			return mailbox->wake_at;
		case GATE_SEGMENT_LOCKED:
			return GetCurrentTimestamp() + UNTOLD_DELAY;
		case GATE_FAILED:
			return GetCurrentTimestamp() + FAILED_DELAY;
		default:
			return DT_NOEND;
	}
}

/*
 * Try to lend one entity, whose lock is held; it is given back if nothing was
 * changed.  What was read of it is kept only if it was lent.
 */
static void
lend_one(Acquisition *call, RunContext *work, const TakenKey *taken,
		 const char *entity, int entity_len)
{
	const EntityKey *key = &taken->key;
	Lease	   *lease = &call->leases[call->nleases];
	MemoryContext context = AllocSetContextCreate(call->context,
												  "actornot lease",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Mailbox		mailbox;
	Gate		gate;

	act_mailbox_init(&mailbox, key, entity, entity_len);
	act_mailbox_load(&work->mailboxes, &mailbox);
	gate = act_lease_give(work, &mailbox, &call->terms, lease);
	MemoryContextSwitchTo(old);
	if (gate == GATE_OPEN)
	{
		call->nleases++;
		act_leaseq_lend(MyDatabaseId, call->pool, key, lease->expires_at,
						true);
		return;
	}
	if (lease->failed)
	{
		call->changed = true;
		call->nfailed++;
		act_wakeup_end_lease(call->pool, key, false);
	}
	settle_hint(call, taken, gate, mailbox.lease_until);
	call->retry = Min(call->retry, next_look(gate, &mailbox));
	MemoryContextDelete(context);
	if (!lease->failed)
		act_entity_give_back(key->hash);
}

/*
 * Try to lend the entities of these keys, which are no more than are still
 * wanted.
 */
static void
lend_keys(Acquisition *call, const TakenKey *taken, int ntaken)
{
	bool	   *locked = palloc0(sizeof(bool) * ntaken);
	RunContext	work;

	Assert(call->nleases + ntaken <= call->max_entities);

	/* First of all: to lock them can fail, and they are off the queue. */
	for (int i = 0; i < ntaken; i++)
		act_wakeup_taken(call->pool, &taken[i].key);

	/* That the runner was paused before that is no evidence. */
	AcceptInvalidationMessages();
	for (int i = 0; i < ntaken; i++)
	{
		int64		hash = taken[i].key.hash;

		locked[i] = !act_entity_is_open(hash) &&
			act_entity_take(hash, false);
		if (!locked[i])
			settle_hint(call, &taken[i], GATE_LOCKED, 0);
	}
	act_head_open(&work);
	for (int i = 0; i < ntaken; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (locked[i])
			lend_one(call, &work, &taken[i], NULL, 0);
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
	FoundKeys	found;
	Sweep	   *sweep = act_sweep_begin(CurrentMemoryContext,
										call->terms.runner.id, remember_key,
										&found);
	bool		complete = false;

	found.context = AllocSetContextCreate(CurrentMemoryContext,
										  "actornot entities tried",
										  ALLOCSET_DEFAULT_SIZES);
	forget_known(&found);
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
 * Sleep until the latch is set, or it is time to look.
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

	/* Lend nothing to a client that is gone. */
	if (MyProcPort != NULL && !pq_check_connection())
	{
		ClientConnectionLost = true;
		InterruptPending = true;
	}
	CHECK_FOR_INTERRUPTS();
}

/*
 * The runner as it is now: while the call slept it may have been paused,
 * resumed, registered anew or unregistered.
 */
static void
refresh_runner(Acquisition *call)
{
	MemoryContext old = MemoryContextSwitchTo(call->context);

	act_funcargs_copy_runner(call->terms.runner.name,
							 call->terms.runner.name_len, &call->terms.runner);
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

	act_funcargs_check_may_write("actornot_acquire()");
	act_head_check_isolation();
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
		act_clock_flush_tokens();
	for (int i = 0; i < call.nleases; i++)
		act_funcargs_put_lease(fcinfo, &call.terms.runner, &call.leases[i]);
	return (Datum) 0;
}
