/*
 * support.c
 *	  Small functions: of types, views and triggers, and those of the clock.
 *
 * Locks: none, but those of an adoption (log/clock.c).  Memory: the function's
 * context.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/syscache.h"

#include "actornot.h"
#include "common/catalog.h"
#include "common/cursor.h"
#include "common/entity.h"
#include "log/clock.h"
#include "sched/wakeup.h"

PG_FUNCTION_INFO_V1(actornot_hash);
PG_FUNCTION_INFO_V1(actornot_role_out);
PG_FUNCTION_INFO_V1(actornot_cursor_text);
PG_FUNCTION_INFO_V1(actornot_tell_of_change);
PG_FUNCTION_INFO_V1(actornot_start);
PG_FUNCTION_INFO_V1(actornot_advance_clock);

/*
 * actornot_hash(runner text, entity text) returns bigint
 */
Datum
actornot_hash(PG_FUNCTION_ARGS)
{
	text	   *runner;
	text	   *entity;
	EntityKey	key;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("runner and entity must not be null")));
	runner = PG_GETARG_TEXT_PP(0);
	entity = PG_GETARG_TEXT_PP(1);
	key = act_entity_key(0, VARDATA_ANY(runner), VARSIZE_ANY_EXHDR(runner),
						 VARDATA_ANY(entity), VARSIZE_ANY_EXHDR(entity));
	PG_RETURN_INT64(key.hash);
}

/*
 * Output of type actornot.role: as regrole, but "-" for a role that is gone.
 */
Datum
actornot_role_out(PG_FUNCTION_ARGS)
{
	Oid			role = PG_GETARG_OID(0);

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		PG_RETURN_CSTRING(pstrdup("-"));
	return DirectFunctionCall1(regroleout, ObjectIdGetDatum(role));
}

/*
 * For people: a packed cursor in the form of pg_snapshot,
 * xmin:xmax:xip,xip,...
 */
Datum
actornot_cursor_text(PG_FUNCTION_ARGS)
{
	Cursor		cursor;
	StringInfoData text;

	act_cursor_unpack(&cursor, PG_GETARG_BYTEA_PP(0));
	initStringInfo(&text);
	appendStringInfo(&text, UINT64_FORMAT ":" UINT64_FORMAT ":",
					 cursor.nxip > 0 ? cursor.xip[0] : cursor.xmax,
					 cursor.xmax);
	for (int i = 0; i < cursor.nxip; i++)
		appendStringInfo(&text, "%s" UINT64_FORMAT,
						 i > 0 ? "," : "", cursor.xip[i]);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(text.data, text.len));
}

/*
 * tell_of_change() returns trigger
 *
 * Tells other sessions that rows which they cache were changed by plain SQL: by
 * a restore, or by an administrator.
 */
Datum
actornot_tell_of_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "tell_of_change was not called by the trigger manager");
	CacheInvalidateRelcache(trigger->tg_relation);
	return PointerGetDatum(NULL);
}

/*
 * actornot_start() returns void
 */
Datum
actornot_start(PG_FUNCTION_ARGS)
{
	act_clock_adopt();
	act_wakeup_sweep();
	PG_RETURN_VOID();
}

/*
 * actornot_advance_clock() returns void
 */
Datum
actornot_advance_clock(PG_FUNCTION_ARGS)
{
	if (!has_privs_of_role(GetUserId(), act_catalog_get()->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to advance the clock of actornot"),
				 errhint("Only the owner of the extension may do this.")));
	act_clock_advance();
	PG_RETURN_VOID();
}
