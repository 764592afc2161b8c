/*
 * register.c
 *	  Registering runners, and what an owner may do with one as a whole.
 *
 * All of this is administration: it happens once per deployment and may cost
 * what SQL costs.  So rows are changed through SPI, as the owner of the
 * tables and with a search_path that no other role can put anything into; rights
 * are checked here, in C, against the calling user.
 *
 * Guarantees: changes of runners come one after the other, and each sees what
 * those before it have committed, at any isolation level.  What is registered
 * is known to every backend from its next transaction on at the latest, and
 * to this one at once.  A number of a runner is never given twice: an
 * unregistered one stays as a tombstone.
 *
 * Locks: ShareRowExclusiveLock on runner, to the end of the transaction,
 * taken after rights were checked (and they are checked again then), so that
 * a caller without rights cannot make others wait.  Registering adopts the clock
 * before that.
 *
 * Failure: all of it is the calling transaction's and is undone with it.
 */
#include "postgres.h"

#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "commands/funcargs.h"
#include "common/catalog.h"
#include "common/entity.h"
#include "compat.h"
#include "log/clock.h"
#include "maint/sweep.h"
#include "runner/handler.h"
#include "runner/runner.h"
#include "sched/wakeup.h"

/* Limits of settings, beyond those that the types set. */
#define MAX_BATCH_SIZE 10000
#define MAX_TIMEOUT (INT64CONST(1000) * PG_INT32_MAX)	/* microseconds */
#define MAX_LEASE (30 * USECS_PER_DAY)
#define MAX_RETRY_DELAY (366 * USECS_PER_DAY)

/*
 * The arguments of actornot_register, in their order; and what is written
 * with them.  These are the parameters of the commands below.
 */
enum
{
	ARG_RUNNER,
	ARG_HANDLER,
	ARG_BATCH_SIZE,
	ARG_BATCH_BYTES,
	ARG_MAX_ATTEMPTS,
	ARG_RETRY_DELAY,
	ARG_RETRY_DELAY_MAX,
	ARG_TIMEOUT,
	ARG_LEASE,
	ARG_INITIAL_STATE,
	ARG_RUNNABLE,
	ARG_CONCURRENCY,
	ARG_RATE,
	ARG_WEIGHT,
	ARG_MESSAGE_TTL,
	ARG_MAX_BACKLOG,
	ARG_DEDUP_WINDOW,
	ARG_COUNT,
	PARAM_OWNER = ARG_COUNT,
	PARAM_NOW,
	PARAM_HANDLER_OWNER,
	PARAM_RUNNABLE_OWNER,
	PARAM_COUNT
};

static const Oid param_types[PARAM_COUNT] = {
	TEXTOID, TEXTOID, INT4OID, INT4OID, INT4OID, INTERVALOID, INTERVALOID,
	INTERVALOID, INTERVALOID, JSONBOID, TEXTOID, INT4OID, FLOAT4OID, INT4OID,
	INTERVALOID, INT8OID, INTERVALOID,
	REGROLEOID, TIMESTAMPTZOID, REGROLEOID, REGROLEOID
};

static const char insert_command[] =
"INSERT INTO actornot.runner"
" (id, name, handler, batch_size, batch_bytes, max_attempts, retry_delay,"
" retry_delay_max, timeout, lease, initial_state, runnable, concurrency,"
" rate, weight, message_ttl, max_backlog, dedup_window,"
" owner, created_at, updated_at, handler_owner, runnable_owner)"
" VALUES (pg_catalog.nextval('actornot.runner_seq'), $1, $2, $3, $4, $5, $6,"
" $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $19, $20,"
" $21)";

static const char update_command[] =
"UPDATE actornot.runner SET handler = $2, batch_size = $3, batch_bytes = $4,"
" max_attempts = $5, retry_delay = $6, retry_delay_max = $7, timeout = $8,"
" lease = $9, initial_state = $10, runnable = $11, concurrency = $12,"
" rate = $13, weight = $14, message_ttl = $15, max_backlog = $16,"
" dedup_window = $17, updated_at = $19, handler_owner = $20,"
" runnable_owner = $21 WHERE name = $1 AND unregistered_at IS NULL";

/* A registration as it will be written. */
typedef struct Registration
{
	const char *name;
	Oid			functions[2];	/* handler and runnable, or InvalidOid */
	Datum		values[PARAM_COUNT];
	char		nulls[PARAM_COUNT + 1];
} Registration;

PG_FUNCTION_INFO_V1(actornot_register);
PG_FUNCTION_INFO_V1(actornot_unregister);
PG_FUNCTION_INFO_V1(actornot_set_owner);
PG_FUNCTION_INFO_V1(actornot_pause_runner);
PG_FUNCTION_INFO_V1(actornot_resume_runner);
PG_FUNCTION_INFO_V1(actornot_grant);
PG_FUNCTION_INFO_V1(actornot_revoke);

/* ------------------------------------------------------------------------
 * Arguments
 * ------------------------------------------------------------------------ */

/*
 * Say what cannot be done here, not that some INSERT of ours cannot.
 */
static void
refuse_if_read_only(FunctionCallInfo fcinfo)
{
	PreventCommandIfReadOnly(psprintf("%s()",
									  get_func_name(fcinfo->flinfo->fn_oid)));
}

/*
 * An argument that must not be NULL, as a C string.
 */
static char *
text_argument(FunctionCallInfo fcinfo, int arg, const char *what)
{
	act_funcargs_reject_null(fcinfo, arg, what);
	return text_to_cstring(PG_GETARG_TEXT_PP(arg));
}

static void
require_setting(FunctionCallInfo fcinfo, int arg, const char *runner,
				const char *setting)
{
	if (PG_ARGISNULL(arg))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s of runner \"%s\" must not be null",
						setting, runner)));
}

static void
check_retry_delays(FunctionCallInfo fcinfo, const char *runner)
{
	int64		delay = act_funcargs_interval(fcinfo, ARG_RETRY_DELAY,
											  "retry_delay", runner, 0,
											  MAX_RETRY_DELAY);
	int64		delay_max = act_funcargs_interval(fcinfo, ARG_RETRY_DELAY_MAX,
												  "retry_delay_max", runner, 0,
												  MAX_RETRY_DELAY);

	if (delay_max < delay)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("retry_delay_max of runner \"%s\" must not be less than retry_delay",
						runner)));
}

static void
refuse_setting(const char *runner, const char *setting)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("setting \"%s\" of a runner is not yet built", setting),
			 errdetail("Runner \"%s\" cannot be registered with it.", runner)));
}

/*
 * Settings that are in the signature already, but do nothing yet.
 */
static void
check_later_settings(FunctionCallInfo fcinfo, const char *runner)
{
	require_setting(fcinfo, ARG_WEIGHT, runner, "weight");
	require_setting(fcinfo, ARG_DEDUP_WINDOW, runner, "dedup_window");
	act_funcargs_count(fcinfo, ARG_WEIGHT, "weight", runner, 1, PG_INT32_MAX);

	if (!PG_ARGISNULL(ARG_CONCURRENCY))
		refuse_setting(runner, "concurrency");
	if (!PG_ARGISNULL(ARG_RATE))
		refuse_setting(runner, "rate");
	if (PG_GETARG_INT32(ARG_WEIGHT) != 1)
		refuse_setting(runner, "weight");
	if (!PG_ARGISNULL(ARG_MESSAGE_TTL))
		refuse_setting(runner, "message_ttl");
	if (!PG_ARGISNULL(ARG_MAX_BACKLOG))
		refuse_setting(runner, "max_backlog");
	if (act_funcargs_interval(fcinfo, ARG_DEDUP_WINDOW, "dedup_window", runner,
							  1, PG_INT64_MAX) != USECS_PER_DAY)
		refuse_setting(runner, "dedup_window");
}

static void
check_settings(FunctionCallInfo fcinfo, const char *runner)
{
	require_setting(fcinfo, ARG_BATCH_SIZE, runner, "batch_size");
	require_setting(fcinfo, ARG_BATCH_BYTES, runner, "batch_bytes");
	require_setting(fcinfo, ARG_RETRY_DELAY, runner, "retry_delay");
	require_setting(fcinfo, ARG_RETRY_DELAY_MAX, runner, "retry_delay_max");
	require_setting(fcinfo, ARG_LEASE, runner, "lease");

	act_funcargs_count(fcinfo, ARG_BATCH_SIZE, "batch_size", runner, 1,
					   MAX_BATCH_SIZE);
	act_funcargs_count(fcinfo, ARG_BATCH_BYTES, "batch_bytes", runner, 1,
					   PG_INT32_MAX);
	if (!PG_ARGISNULL(ARG_MAX_ATTEMPTS))
		act_funcargs_count(fcinfo, ARG_MAX_ATTEMPTS, "max_attempts", runner, 1,
						   PG_INT32_MAX);
	check_retry_delays(fcinfo, runner);
	if (!PG_ARGISNULL(ARG_TIMEOUT))
		act_funcargs_interval(fcinfo, ARG_TIMEOUT, "timeout", runner, 1,
							  MAX_TIMEOUT);
	act_funcargs_interval(fcinfo, ARG_LEASE, "lease", runner, 1, MAX_LEASE);
	check_later_settings(fcinfo, runner);
}

/*
 * The name of a runner to be registered.
 */
static char *
new_runner_name(FunctionCallInfo fcinfo)
{
	char	   *name = text_argument(fcinfo, ARG_RUNNER, "runner");
	size_t		len = strlen(name);

	if (len < 1 || len > ACT_MAX_RUNNER_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of runner must have 1 to %d bytes",
						ACT_MAX_RUNNER_BYTES),
				 errdetail("It has %zu bytes.", len)));
	return name;
}

/* ------------------------------------------------------------------------
 * Registering
 * ------------------------------------------------------------------------ */

static void
set_param(Registration *registration, int param, Datum value)
{
	registration->values[param] = value;
	registration->nulls[param] = ' ';
}

/*
 * Resolve one of the two functions, if it is named.
 */
static void
take_function(Registration *registration, FunctionCallInfo fcinfo, int arg,
			  RunnerFunction which, int param_owner)
{
	char	   *qualified;
	Oid			owner;

	if (PG_ARGISNULL(arg))
		return;
	qualified = act_handler_resolve(registration->name,
									text_to_cstring(PG_GETARG_TEXT_PP(arg)),
									which, &registration->functions[which],
									&owner);
	set_param(registration, arg, CStringGetTextDatum(qualified));
	set_param(registration, param_owner, ObjectIdGetDatum(owner));
}

/*
 * Check all arguments and make parameters of them.
 */
static void
take_arguments(Registration *registration, FunctionCallInfo fcinfo)
{
	memset(registration, 0, sizeof(*registration));
	memset(registration->nulls, 'n', PARAM_COUNT);

	registration->name = new_runner_name(fcinfo);
	check_settings(fcinfo, registration->name);

	for (int i = 0; i < ARG_COUNT; i++)
		if (!PG_ARGISNULL(i))
			set_param(registration, i, PG_GETARG_DATUM(i));
	take_function(registration, fcinfo, ARG_HANDLER, RUNNER_HANDLER,
				  PARAM_HANDLER_OWNER);
	take_function(registration, fcinfo, ARG_RUNNABLE, RUNNER_RUNNABLE,
				  PARAM_RUNNABLE_OWNER);
	set_param(registration, PARAM_OWNER, ObjectIdGetDatum(GetUserId()));
	set_param(registration, PARAM_NOW,
			  TimestampTzGetDatum(GetCurrentTimestamp()));
}

/*
 * A member of the owner role may replace a registration, but the functions
 * run as the owner, which must be allowed to execute them, too.
 */
static void
check_owner_may_execute(const Runner *runner, const Registration *registration)
{
	for (int i = 0; i < lengthof(registration->functions); i++)
		if (OidIsValid(registration->functions[i]) &&
			act_function_aclcheck(registration->functions[i], runner->owner,
								  ACL_EXECUTE) != ACLCHECK_OK)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("owner of runner \"%s\" has no permission to execute function %s",
							runner->name,
							TextDatumGetCString(registration->values[i == RUNNER_HANDLER ?
																	 ARG_HANDLER :
																	 ARG_RUNNABLE]))));
}

/*
 * actornot_register(runner text, handler text, ...) returns void
 */
Datum
actornot_register(PG_FUNCTION_ARGS)
{
	Registration registration;
	const Runner *existing;

	refuse_if_read_only(fcinfo);
	take_arguments(&registration, fcinfo);
	act_clock_adopt();

	LockRelationOid(act_catalog_get()->runner, ShareRowExclusiveLock);
	existing = act_runner_lookup(registration.name,
								 strlen(registration.name));
	if (existing != NULL)
	{
		act_runner_check_rights(existing);
		check_owner_may_execute(existing, &registration);
	}
	if (act_catalog_execute(existing == NULL ? insert_command : update_command,
							PARAM_COUNT, param_types, registration.values,
							registration.nulls) != 1)
		elog(ERROR, "registration of runner \"%s\" was not written",
			 registration.name);

	act_catalog_invalidate(act_catalog_get()->runner);
	act_wakeup_sweep();
	PG_RETURN_VOID();
}

/* ------------------------------------------------------------------------
 * Changing one as a whole
 * ------------------------------------------------------------------------ */

/*
 * The runner that the first argument names, locked against other changes, if
 * the current user has the rights of its owner.
 */
static const Runner *
lock_runner(FunctionCallInfo fcinfo)
{
	act_funcargs_reject_null(fcinfo, 0, "runner");
	refuse_if_read_only(fcinfo);
	(void) act_funcargs_owned_runner(fcinfo);
	LockRelationOid(act_catalog_get()->runner, ShareRowExclusiveLock);
	return act_funcargs_owned_runner(fcinfo);
}

/*
 * Run a command whose parameters are the runner's number, which is $1, and
 * perhaps one more.  The cached runners are then read again.
 */
static void
execute_for_runner(const char *command, int32 runner, Oid type, Datum value)
{
	Oid			types[2] = {INT4OID, type};
	Datum		values[2] = {Int32GetDatum(runner), value};

	act_catalog_execute(command, OidIsValid(type) ? 2 : 1, types, values,
						NULL);
	act_catalog_invalidate(act_catalog_get()->runner);
}

/*
 * The role that the second argument names; "public" gives InvalidOid where it
 * is allowed.
 */
static Oid
role_argument(FunctionCallInfo fcinfo, bool public_allowed)
{
	char	   *name = text_argument(fcinfo, 1, "role");

	if (public_allowed && strcmp(name, "public") == 0)
		return InvalidOid;
	return get_role_oid(name, false);
}

/*
 * actornot_unregister(runner text, force boolean) returns void
 */
Datum
actornot_unregister(PG_FUNCTION_ARGS)
{
	const Runner *runner = lock_runner(fcinfo);
	int32		id = runner->id;
	int64		pending;

	act_funcargs_reject_null(fcinfo, 1, "force");
	act_entity_check_runner(id, runner->name);
	/* Before the mailboxes, as an advance of the clock does. */
	LockRelationOid(act_catalog_get()->clock, RowExclusiveLock);
	pending = PG_GETARG_BOOL(1) ? 0 : act_sweep_count(id);
	if (pending > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("runner \"%s\" has pending messages", runner->name),
				 errdetail_plural("There is " INT64_FORMAT " of them.",
								  "There are " INT64_FORMAT " of them.",
								  pending, pending),
				 errhint("Use force => true to give them up.")));

	execute_for_runner("UPDATE actornot.runner SET unregistered_at = $2,"
					   " updated_at = $2 WHERE id = $1",
					   id, TIMESTAMPTZOID,
					   TimestampTzGetDatum(GetCurrentTimestamp()));
	execute_for_runner("DELETE FROM actornot.runner_grant WHERE runner = $1",
					   id, InvalidOid, (Datum) 0);
	execute_for_runner("UPDATE actornot.clock SET timeline = tokens.timeline"
					   " FROM (SELECT (pg_catalog.max(lease_token) >> 48)::int"
					   " AS timeline FROM actornot.mailbox WHERE runner = $1)"
					   " AS tokens WHERE clock.timeline < tokens.timeline",
					   id, InvalidOid, (Datum) 0);
	execute_for_runner("DELETE FROM actornot.mailbox WHERE runner = $1",
					   id, InvalidOid, (Datum) 0);
	act_catalog_invalidate(act_catalog_get()->clock);
	PG_RETURN_VOID();
}

/*
 * actornot_set_owner(runner text, role text) returns void
 */
Datum
actornot_set_owner(PG_FUNCTION_ARGS)
{
	const Runner *runner = lock_runner(fcinfo);
	Oid			role = role_argument(fcinfo, false);

	if (!act_can_set_role(GetUserId(), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be able to SET ROLE \"%s\"",
						GetUserNameFromId(role, false))));
	execute_for_runner("UPDATE actornot.runner SET owner = $2,"
					   " updated_at = pg_catalog.clock_timestamp()"
					   " WHERE id = $1",
					   runner->id, REGROLEOID, ObjectIdGetDatum(role));
	act_wakeup_sweep();
	PG_RETURN_VOID();
}

static void
set_paused(const Runner *runner, bool paused)
{
	execute_for_runner("UPDATE actornot.runner SET paused = $2,"
					   " updated_at = pg_catalog.clock_timestamp()"
					   " WHERE id = $1 AND paused <> $2",
					   runner->id, BOOLOID, BoolGetDatum(paused));
}

/*
 * actornot_pause(runner text) returns void
 */
Datum
actornot_pause_runner(PG_FUNCTION_ARGS)
{
	set_paused(lock_runner(fcinfo), true);
	PG_RETURN_VOID();
}

/*
 * actornot_resume(runner text) returns void
 */
Datum
actornot_resume_runner(PG_FUNCTION_ARGS)
{
	set_paused(lock_runner(fcinfo), false);
	act_wakeup_sweep();
	PG_RETURN_VOID();
}

static void
change_grants(FunctionCallInfo fcinfo, const char *command)
{
	const Runner *runner = lock_runner(fcinfo);
	Oid			role = role_argument(fcinfo, true);

	execute_for_runner(command, runner->id, REGROLEOID, ObjectIdGetDatum(role));
}

/*
 * actornot_grant(runner text, role text) returns void
 */
Datum
actornot_grant(PG_FUNCTION_ARGS)
{
	change_grants(fcinfo, "INSERT INTO actornot.runner_grant (runner, grantee)"
				  " VALUES ($1, $2) ON CONFLICT DO NOTHING");
	PG_RETURN_VOID();
}

/*
 * actornot_revoke(runner text, role text) returns void
 */
Datum
actornot_revoke(PG_FUNCTION_ARGS)
{
	change_grants(fcinfo, "DELETE FROM actornot.runner_grant"
				  " WHERE runner = $1 AND grantee = $2");
	PG_RETURN_VOID();
}
