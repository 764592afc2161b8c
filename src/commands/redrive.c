/*
 * redrive.c
 *	  Posting dead letters again.
 *
 * A dead letter is deleted from its table and posted as a new message, in the
 * caller's transaction.  Rights are checked against the owner of the runner;
 * the table is read and written as its own owner.
 *
 * Memory: the function's context, and one that is reset after each letter.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "actornot.h"
#include "commands/funcargs.h"
#include "common/catalog.h"
#include "log/writer.h"
#include "runner/runner.h"
#include "sched/wakeup.h"

PG_FUNCTION_INFO_V1(actornot_redrive);
PG_FUNCTION_INFO_V1(actornot_redrive_all);

/* One dead letter at a time, for they may be large and many. */
static bool
fetch_dead_letter(Portal portal)
{
	OwnerContext context;

	act_catalog_become_owner(&context);
	SPI_cursor_fetch(portal, true, 1);
	act_catalog_restore_user(&context);
	return SPI_processed > 0;
}

/*
 * Post again what was fetched.  Returns the id; what the context holds is of
 * no use any more.
 */
static int64
repost(Runner *runner, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	HeapTuple	tuple = SPI_tuptable->vals[0];
	TupleDesc	desc = SPI_tuptable->tupdesc;
	bool		isnull,
				no_payload;
	Datum		entity = SPI_getbinval(tuple, desc, 1, &isnull);
	Datum		payload = SPI_getbinval(tuple, desc, 2, &no_payload);
	Datum		headers = SPI_getbinval(tuple, desc, 3, &isnull);
	NewMessage	message;
	EntityKey	key = act_funcargs_message(runner, entity,
										   no_payload ? (Datum) 0 : payload,
										   headers, &message);
	int64		id = act_writer_append(&message);

	act_wakeup_push(act_runner_pool(runner), &key);
	SPI_freetuptable(SPI_tuptable);
	MemoryContextSwitchTo(old);
	return id;
}

/*
 * Take dead letters out of their table and post them again, as new messages
 * that tell their origin in the headers.  Those of earlier runners of the same
 * name and owner count as the runner's.  Returns how many; the last one's new
 * id in *new_id.
 */
static int64
redrive(const Runner *cached, bool one, int64 id, int64 *new_id)
{
	static const char *query =
	"WITH taken AS (DELETE FROM actornot.dead_letter"
	" WHERE (runner = $1 OR runner IN (SELECT r.id FROM actornot.runner r"
	" WHERE r.name = $3 AND r.owner::pg_catalog.oid = $4 AND r.unregistered_at IS NOT NULL))"
	" AND ($2 IS NULL OR id = $2) RETURNING *)"
	" SELECT entity, payload,"
	" CASE WHEN pg_catalog.jsonb_typeof(headers) = 'object' THEN headers ELSE '{}'::pg_catalog.jsonb END"
	" || pg_catalog.jsonb_build_object('actornot_origin', pg_catalog.jsonb_build_object("
	"'id', id, 'posted_at', posted_at, 'attempts', attempts, 'died_at', died_at, 'message', message)"
	" || CASE WHEN headers IS NULL OR pg_catalog.jsonb_typeof(headers) = 'object' THEN '{}'::pg_catalog.jsonb"
	" ELSE pg_catalog.jsonb_build_object('headers', headers) END)"
	" FROM taken ORDER BY id";
	Runner		runner = *cached;
	Oid			types[4] = {INT4OID, INT8OID, TEXTOID, OIDOID};
	Datum		args[4] = {
		Int32GetDatum(runner.id), Int64GetDatum(id),
		CStringGetTextDatum(runner.name), ObjectIdGetDatum(runner.owner)
	};
	char		nulls[5] = {' ', one ? ' ' : 'n', ' ', ' ', '\0'};
	OwnerContext context;
	MemoryContext message_context;
	Portal		portal;
	int64		n = 0;

	SPI_connect();
	message_context = AllocSetContextCreate(CurrentMemoryContext,
											"actornot dead letter",
											ALLOCSET_DEFAULT_SIZES);
	act_catalog_become_owner(&context);
	portal = SPI_cursor_open_with_args(NULL, query, 4, types, args, nulls,
									   false, 0);
	act_catalog_restore_user(&context);
	while (fetch_dead_letter(portal))
	{
		CHECK_FOR_INTERRUPTS();
		*new_id = repost(&runner, message_context);
		MemoryContextReset(message_context);
		n++;
	}
	SPI_cursor_close(portal);
	SPI_finish();
	return n;
}

/*
 * actornot_redrive(runner, id)
 */
Datum
actornot_redrive(PG_FUNCTION_ARGS)
{
	const Runner *runner = act_funcargs_owned_runner(fcinfo);
	int64		new_id = 0;

	act_funcargs_reject_null(fcinfo, 1, "id");
	act_funcargs_check_may_write("actornot_redrive()");
	if (redrive(runner, true, PG_GETARG_INT64(1), &new_id) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("dead letter " INT64_FORMAT " of runner \"%s\" does not exist",
						PG_GETARG_INT64(1),
						text_to_cstring(PG_GETARG_TEXT_PP(0)))));
	PG_RETURN_INT64(new_id);
}

/*
 * actornot_redrive_all(runner)
 */
Datum
actornot_redrive_all(PG_FUNCTION_ARGS)
{
	const Runner *runner = act_funcargs_owned_runner(fcinfo);
	int64		new_id = 0;

	act_funcargs_check_may_write("actornot_redrive_all()");
	PG_RETURN_INT64(redrive(runner, false, 0, &new_id));
}
