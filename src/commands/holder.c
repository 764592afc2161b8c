/*
 * holder.c
 *	  What the holder of a lease may do: update, renew, release, fail.
 *
 * Each function names a token.  It compares the token before it waits for the
 * entity's lock, so that a holder whose lease has ended learns that at once,
 * and again after it.  Each is one step in the caller's transaction; what the
 * end of a lease means for the ready queue is told at commit.
 *
 * Memory: the function's context.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "commands/funcargs.h"
#include "common/entity.h"
#include "common/subxact.h"
#include "compat.h"
#include "exec/lease.h"
#include "exec/retry.h"
#include "log/clock.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "runner/runner.h"
#include "sched/leaseq.h"
#include "sched/wakeup.h"

PG_FUNCTION_INFO_V1(actornot_update_locked);
PG_FUNCTION_INFO_V1(actornot_renew);
PG_FUNCTION_INFO_V1(actornot_release);
PG_FUNCTION_INFO_V1(actornot_fail);

#define MAX_RETRY_IN (366 * USECS_PER_DAY)

static int64
read_retry_in(FunctionCallInfo fcinfo, int argno, const Runner *runner)
{
	return act_funcargs_interval(fcinfo, argno, "retry_in", runner->name, 0,
								 MAX_RETRY_IN);
}

static void
check_token(const NamedEntity *holding, int64 token)
{
	if (holding->mailbox.lease_until == 0 || holding->mailbox.lease_token != token)
		ereport(ERROR,
				(errcode(ERRCODE_ACT_STALE_LEASE),
				 errmsg("lease " INT64_FORMAT " of entity \"%s\" of runner \"%s\" is no longer held",
						token, holding->entity, holding->runner.name),
				 errdetail("It has ended, or somebody else has taken the entity. Nothing was changed."),
				 errhint("Acquire the entity again.")));
}

/*
 * Look at the token without the entity's lock.
 */
static void
peek_token(NamedEntity *holding, int64 token)
{
	Snapshot	snapshot;
	MailboxTable table;

	act_mailbox_open(&table, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	table.snapshot = snapshot;
	act_mailbox_init(&holding->mailbox, &holding->key, holding->entity,
					 holding->entity_len);
	act_mailbox_load(&table, &holding->mailbox);
	act_mailbox_close(&table);
	UnregisterSnapshot(snapshot);
	check_token(holding, token);
}

/*
 * Lock the entity of a lease that the caller holds, and load its mailbox.
 */
static void
begin_holding(FunctionCallInfo fcinfo, NamedEntity *holding, const char *command)
{
	int64		token;

	act_funcargs_check_may_write(command);
	act_head_check_isolation();
	act_funcargs_name(fcinfo, holding);
	act_funcargs_reject_null(fcinfo, 2, "token");
	token = PG_GETARG_INT64(2);

	act_entity_check_closed(holding->key.hash, holding->runner.name,
							holding->entity);
	if (!act_entity_take(holding->key.hash, false))
	{
		peek_token(holding, token);
		act_entity_take(holding->key.hash, true);
	}
	act_funcargs_open(holding);
	check_token(holding, token);
}

/*
 * Lend the next batch to the same holder.
 */
static Gate
lend_next(NamedEntity *holding, LeaseTerms *terms, Lease *lease)
{
	Oid			pool = act_runner_pool(&holding->runner);
	Gate		gate;

	terms->runner = holding->runner;
	gate = act_lease_give(&holding->work, &holding->mailbox, terms, lease);
	if (gate == GATE_OPEN)
	{
		act_wakeup_taken(pool, &holding->key);
		act_leaseq_lend(MyDatabaseId, pool, &holding->key, lease->expires_at,
						true);
	}
	return gate;
}

/*
 * actornot_update_locked(runner, entity, token, state, lease, max_messages)
 */
Datum
actornot_update_locked(PG_FUNCTION_ARGS)
{
	NamedEntity holding;
	LeaseTerms	terms = {0};
	Lease		lease;
	Gate		gate;

	begin_holding(fcinfo, &holding, "actornot_update_locked()");
	InitMaterializedSRF(fcinfo, 0);
	terms.length = act_funcargs_lease_length(fcinfo, 4, &holding.runner);
	terms.max_messages = PG_ARGISNULL(5) ? holding.runner.batch_size :
		act_funcargs_count(fcinfo, 5, "max_messages", holding.runner.name, 0,
						   ACT_MAX_LENT_MESSAGES);
	terms.owner = holding.mailbox.lease_owner;
	if (holding.runner.runnable != NULL && terms.max_messages > 0)
		act_runner_check_is_owner(&holding.runner);

	act_lease_consume(&holding.mailbox);
	holding.mailbox.state = PG_ARGISNULL(3) ? (Datum) 0 :
		PointerGetDatum(PG_DETOAST_DATUM_COPY(PG_GETARG_DATUM(3)));

	if (terms.max_messages > 0)
	{
		gate = lend_next(&holding, &terms, &lease);
		if (gate == GATE_OPEN)
		{
			act_head_close(&holding.work);
			act_clock_flush_tokens();
			act_funcargs_put_lease(fcinfo, &holding.runner, &lease);
			return (Datum) 0;
		}
	}
	else
		gate = act_lease_look(&holding.work, &holding.mailbox);
	act_funcargs_close(&holding, true, gate);
	return (Datum) 0;
}

/*
 * actornot_renew(runner, entity, token, lease)
 */
Datum
actornot_renew(PG_FUNCTION_ARGS)
{
	NamedEntity holding;
	TimestampTz until;

	begin_holding(fcinfo, &holding, "actornot_renew()");
	until = GetCurrentTimestamp() +
		act_funcargs_lease_length(fcinfo, 3, &holding.runner);
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
	NamedEntity holding;
	int64		retry_in;

	begin_holding(fcinfo, &holding, "actornot_release()");
	retry_in = PG_ARGISNULL(3) ? 0 : read_retry_in(fcinfo, 3, &holding.runner);
	act_mailbox_end_lease(&holding.mailbox);
	if (retry_in > 0)
	{
		holding.mailbox.wake_at = GetCurrentTimestamp() + retry_in;
		act_wakeup_due(holding.mailbox.wake_at);
	}
	act_funcargs_close(&holding, true,
					   retry_in > 0 ? GATE_BACK_OFF : GATE_OPEN);
	PG_RETURN_VOID();
}

/*
 * actornot_fail(runner, entity, token, error, retry_in)
 */
Datum
actornot_fail(PG_FUNCTION_ARGS)
{
	NamedEntity holding;
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
	act_funcargs_close(&holding, !had_batch,
					   holding.mailbox.wake_at > GetCurrentTimestamp() ?
					   GATE_BACK_OFF : GATE_OPEN);
	PG_RETURN_VOID();
}
