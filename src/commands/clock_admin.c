/*
 * clock_admin.c
 *	  What administrators do to the clock: start the engine, advance the clock.
 *
 * Locks, memory and failure: those of an adoption (log/clock.c).
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"

#include "common/catalog.h"
#include "log/clock.h"
#include "sched/wakeup.h"

PG_FUNCTION_INFO_V1(actornot_start);
PG_FUNCTION_INFO_V1(actornot_advance_clock);

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
