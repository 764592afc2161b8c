/*
 * funcargs.c
 *	  What the functions that SQL calls have in common: arguments, one entity.
 *
 * Each is read or refused with the SQLSTATE that the API promises: 22004 for
 * NULL, 42704 for an unknown runner, 22023 for what is out of range.  Rights
 * are the caller's to check, except where a function says that it does.
 *
 * Memory: the current context.
 */
#include "postgres.h"

#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "actornot.h"
#include "commands/funcargs.h"
#include "compat.h"
#include "exec/args.h"
#include "exec/lease.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "runner/runner.h"
#include "sched/gate.h"
#include "sched/wakeup.h"

#define MAX_LEASE (30 * USECS_PER_DAY)

void
act_funcargs_reject_null(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

/*
 * "command" is the function's name, for the message.
 */
void
act_funcargs_check_may_write(const char *command)
{
	PreventCommandIfReadOnly(command);
	PreventCommandIfParallelMode(command);
	PreventCommandDuringRecovery(command);
}

const Runner *
act_funcargs_runner(FunctionCallInfo fcinfo)
{
	text	   *name;

	act_funcargs_reject_null(fcinfo, 0, "runner");
	name = PG_GETARG_TEXT_PP(0);
	return act_runner_get(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
}

/*
 * The same, if the caller has the rights of its owner.
 */
const Runner *
act_funcargs_owned_runner(FunctionCallInfo fcinfo)
{
	const Runner *runner = act_funcargs_runner(fcinfo);

	act_runner_check_rights(runner);
	return runner;
}

/*
 * Error 22023 unless the entity is 1 to ACT_MAX_ENTITY_BYTES long.
 */
void
act_funcargs_check_entity(const char *runner, const char *entity, int len)
{
	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("entity of runner \"%s\" cannot be empty", runner)));
	if (len > ACT_MAX_ENTITY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("entity \"%.*s...\" of runner \"%s\" is too long",
						pg_mbcliplen(entity, len, 64), entity, runner),
				 errdetail("It has %d bytes; the maximum is %d.",
						   len, ACT_MAX_ENTITY_BYTES)));
}

/*
 * A message to be posted, and the key of its entity, which has been checked;
 * 0 stands for NULL.  Error 54000 if it is more than could be handed out as
 * one jsonb.
 */
EntityKey
act_funcargs_message(const Runner *runner, Datum entity, Datum payload,
					 Datum headers, NewMessage *message)
{
	text	   *name = DatumGetTextPP(entity);
	EntityKey	key = act_runner_key(runner, VARDATA_ANY(name),
									 VARSIZE_ANY_EXHDR(name));
	Size		size = act_args_message_size(payload, headers);

	if (unlikely(size > ACT_MAX_JSONB_BYTES))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("message for runner \"%s\" is too large",
						runner->name),
				 errdetail("Payload and headers have %zu bytes; the maximum is %d.",
						   size, ACT_MAX_JSONB_BYTES)));
	message->hash = key.hash;
	message->runner = key.runner;
	message->entity = PointerGetDatum(name);
	message->payload = payload;
	message->headers = headers;
	return key;
}

char *
act_funcargs_entity(FunctionCallInfo fcinfo, const Runner *runner, int *len,
					EntityKey *key)
{
	text	   *entity;

	act_funcargs_reject_null(fcinfo, 1, "entity");
	entity = PG_GETARG_TEXT_PP(1);
	*len = VARSIZE_ANY_EXHDR(entity);
	act_funcargs_check_entity(runner->name, VARDATA_ANY(entity), *len);
	*key = act_runner_key(runner, VARDATA_ANY(entity), *len);
	return text_to_cstring(entity);
}

/*
 * An interval in microseconds, within min and max.
 */
int64
act_funcargs_interval(FunctionCallInfo fcinfo, int argno, const char *name,
					  const char *runner, int64 min, int64 max)
{
	bool		in_days = max >= USECS_PER_DAY;
	int64		us;

	if (!act_runner_interval_us(PG_GETARG_INTERVAL_P(argno), &us) || us > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of runner \"%s\" is too long", name, runner),
				 errdetail("The maximum is " INT64_FORMAT " %s.",
						   max / (in_days ? USECS_PER_DAY : USECS_PER_SEC),
						   in_days ? "days" : "seconds")));
	if (us < min)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 min > 0 ?
				 errmsg("%s of runner \"%s\" must be greater than zero",
						name, runner) :
				 errmsg("%s of runner \"%s\" must not be negative",
						name, runner)));
	return us;
}

int
act_funcargs_count(FunctionCallInfo fcinfo, int argno, const char *name,
				   const char *runner, int min, int max)
{
	int			n = PG_GETARG_INT32(argno);

	if (n < min || n > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of runner \"%s\" must be between %d and %d",
						name, runner, min, max)));
	return n;
}

/* ---- one entity ---- */

/*
 * Check that the caller has the rights of the runner's owner, and copy the
 * runner: a call can be a long one.
 */
void
act_funcargs_copy_runner(const char *name, int len, Runner *copy)
{
	const Runner *runner;

	/* In an open transaction it may have been resumed, or given away, since. */
	AcceptInvalidationMessages();
	runner = act_runner_get(name, len);
	act_runner_check_rights(runner);
	*copy = *runner;
	if (copy->initial_state != (Datum) 0)
		copy->initial_state =
			PointerGetDatum(PG_DETOAST_DATUM_COPY(copy->initial_state));
}

/*
 * Runner and entity of the first two arguments.
 */
void
act_funcargs_name(FunctionCallInfo fcinfo, NamedEntity *named)
{
	text	   *name;

	act_funcargs_reject_null(fcinfo, 0, "runner");
	name = PG_GETARG_TEXT_PP(0);
	act_funcargs_copy_runner(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name),
							 &named->runner);
	named->entity = act_funcargs_entity(fcinfo, &named->runner,
										&named->entity_len, &named->key);
}

/*
 * Load the mailbox of an entity whose lock is held.
 */
void
act_funcargs_open(NamedEntity *named)
{
	act_head_open(&named->work);
	act_mailbox_init(&named->mailbox, &named->key, named->entity,
					 named->entity_len);
	act_mailbox_load(&named->work.mailboxes, &named->mailbox);
}

/*
 * Save it, if it was changed.  "gate" says what was found of the entity, under
 * a snapshot that is newer than its last lease: whether its hint may be
 * dropped, else it is queued at commit.
 */
void
act_funcargs_close(NamedEntity *named, bool changed, Gate gate)
{
	if (changed)
		act_mailbox_save(&named->work.mailboxes, &named->mailbox);
	act_head_close(&named->work);
	act_wakeup_end_lease(act_runner_pool(&named->runner), &named->key,
						 act_gate_verdict(gate) == HINT_DROP);
}

/* ---- leases ---- */

/*
 * The argument "lease", in microseconds.
 */
int64
act_funcargs_lease_length(FunctionCallInfo fcinfo, int argno,
						  const Runner *runner)
{
	if (PG_ARGISNULL(argno))
		return runner->lease;
	return act_funcargs_interval(fcinfo, argno, "lease", runner->name, 1,
								 MAX_LEASE);
}

/*
 * A lease as a row of the result.
 */
void
act_funcargs_put_lease(FunctionCallInfo fcinfo, const Runner *runner,
					   const Lease *lease)
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
