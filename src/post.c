/*
 * post.c
 *	  The verb "put in": actornot_post and actornot_post_many.
 *
 * A post is the insertion of one row into the log, in the caller's own
 * transaction: it exists if and only if that commits (P1).  It looks up the
 * runner in a cache of this backend, reads no mailbox and creates none, and
 * waits for nobody (P9).  When the transaction commits, the entity is pushed
 * to the ready queue (atcommit.c); if that hint is lost, the sweep finds the
 * message.
 *
 * Posting works at every isolation level, in subtransactions, and in
 * transactions that are prepared.  It cannot work in parallel workers, which
 * may not get transaction ids; the functions are marked PARALLEL UNSAFE.
 */
#include "postgres.h"

#include "access/xact.h"
#include "actornot.h"
#include "atcommit.h"
#include "catalog.h"
#include "catalog/pg_type_d.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "post.h"
#include "runner.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"

PG_FUNCTION_INFO_V1(actornot_post);
PG_FUNCTION_INFO_V1(actornot_post_many);

static void
reject_null(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

static void
check_may_write(const char *command)
{
	PreventCommandIfReadOnly(command);
	PreventCommandIfParallelMode(command);
	PreventCommandDuringRecovery(command);
}

/*
 * Error 22023 unless the entity is 1 to ACT_MAX_ENTITY_BYTES long.
 */
void
act_post_check_entity(const char *runner, const char *entity, int len)
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
 * Can nobody run the runner now, so that no worker is to be woken?  What
 * seems so is looked at once more, after what others have committed is known
 * and the requests for a sweep are counted.
 */
static bool
is_silent(const Runner *runner, uint64 *requests)
{
	if (!runner->paused)
		return false;
	*requests = act_atcommit_requests();
	AcceptInvalidationMessages();
	runner = act_runner_find(runner->id);
	return runner != NULL && runner->paused;
}

/*
 * Put a message in through an open writer.  "entity" is a text that is not
 * toasted.
 */
static int64
put_in(MessageWriter *writer, const EntityKey *key, Oid owner, bool silent,
	   Datum entity, Datum payload, Datum headers)
{
	NewMessage	message;
	int64		id;

	message.hash = key->hash;
	message.runner = key->runner;
	message.entity = entity;
	message.payload = payload;
	message.headers = headers;
	id = act_message_append(writer, &message);
	if (!silent)
		act_atcommit_push(owner, key);
	return id;
}

/*
 * Put one message in.  The caller has checked rights and entity; the
 * runner's pointer need not be valid any more afterwards.
 */
int64
act_post_message(const Runner *runner, Datum entity, Datum payload,
				 Datum headers)
{
	MessageWriter writer;
	text	   *name = DatumGetTextPP(entity);
	EntityKey	key = act_runner_key(runner, VARDATA_ANY(name),
									 VARSIZE_ANY_EXHDR(name));
	Oid			owner = act_runner_pool(runner);
	uint64		requests = 0;
	bool		silent = is_silent(runner, &requests);
	int64		id;

	act_message_open_writer(&writer);
	id = put_in(&writer, &key, owner, silent, PointerGetDatum(name), payload,
				headers);
	act_message_close_writer(&writer);
	if (silent)
		act_atcommit_silent(requests);
	return id;
}

/*
 * actornot_post(runner, entity, payload, headers, deliver_at, dedup_key)
 */
Datum
actornot_post(PG_FUNCTION_ARGS)
{
	const Runner *runner;
	text	   *name;
	text	   *entity;

	reject_null(fcinfo, 0, "runner");
	reject_null(fcinfo, 1, "entity");
	if (!PG_ARGISNULL(4) || !PG_ARGISNULL(5))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s is not yet built",
						PG_ARGISNULL(4) ? "dedup_key" : "deliver_at")));
	check_may_write("actornot_post()");

	name = PG_GETARG_TEXT_PP(0);
	entity = PG_GETARG_TEXT_PP(1);
	runner = act_runner_get(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	act_runner_check_post(runner);
	act_post_check_entity(runner->name, VARDATA_ANY(entity),
						  VARSIZE_ANY_EXHDR(entity));

	PG_RETURN_INT64(act_post_message(runner, PointerGetDatum(entity),
									 PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2),
									 PG_ARGISNULL(3) ? (Datum) 0 : PG_GETARG_DATUM(3)));
}

/*
 * Take an array apart; NULL (no elements) if the argument is null.
 */
static Datum *
get_elements(FunctionCallInfo fcinfo, int argno, Oid type, const char *name,
			 bool **nulls, int *n)
{
	ArrayType  *array;
	Datum	   *elements;

	*n = 0;
	if (PG_ARGISNULL(argno))
		return NULL;
	array = PG_GETARG_ARRAYTYPE_P(argno);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a one-dimensional array", name)));
	deconstruct_array(array, type, -1, false, TYPALIGN_INT, &elements, nulls,
					  n);
	return elements;
}

/*
 * The optional arrays must be as long as that of the entities.
 */
static void
check_length(const Datum *elements, int n, int nentities, const char *name)
{
	if (elements != NULL && n != nentities)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s and entities must have the same length", name),
				 errdetail("There are %d %s for %d entities.",
						   n, name, nentities)));
}

/*
 * actornot_post_many(runner, entities, payloads, headers)
 *
 * All is checked before anything is written, though an error would undo it
 * anyway: so that the message names the first wrong entity.
 */
Datum
actornot_post_many(PG_FUNCTION_ARGS)
{
	const Runner *cached;
	Runner		runner;
	MessageWriter writer;
	text	   *name;
	Datum	   *entities,
			   *payloads,
			   *headers,
			   *ids;
	bool	   *entity_nulls,
			   *payload_nulls,
			   *header_nulls;
	uint64		requests = 0;
	Oid			owner;
	bool		silent;
	int			n,
				npayloads,
				nheaders;

	reject_null(fcinfo, 0, "runner");
	reject_null(fcinfo, 1, "entities");
	check_may_write("actornot_post_many()");

	entities = get_elements(fcinfo, 1, TEXTOID, "entities", &entity_nulls, &n);
	payloads = get_elements(fcinfo, 2, JSONBOID, "payloads", &payload_nulls,
							&npayloads);
	headers = get_elements(fcinfo, 3, JSONBOID, "headers", &header_nulls,
						   &nheaders);
	check_length(payloads, npayloads, n, "payloads");
	check_length(headers, nheaders, n, "headers");

	name = PG_GETARG_TEXT_PP(0);
	cached = act_runner_get(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	act_runner_check_post(cached);
	runner = *cached;
	owner = act_runner_pool(&runner);
	for (int i = 0; i < n; i++)
	{
		if (entity_nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("entity must not be null"),
					 errdetail("Element %d of entities is null.", i + 1)));
		entities[i] = PointerGetDatum(DatumGetTextPP(entities[i]));
		act_post_check_entity(runner.name, VARDATA_ANY(entities[i]),
							  VARSIZE_ANY_EXHDR(entities[i]));
	}
	if (n == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));

	ids = palloc(sizeof(Datum) * n);
	silent = is_silent(&runner, &requests);
	if (silent)
		act_atcommit_silent(requests);
	act_message_open_writer(&writer);
	for (int i = 0; i < n; i++)
	{
		EntityKey	key = act_runner_key(&runner, VARDATA_ANY(entities[i]),
										 VARSIZE_ANY_EXHDR(entities[i]));

		CHECK_FOR_INTERRUPTS();
		ids[i] = Int64GetDatum(put_in(&writer, &key, owner, silent,
									  entities[i],
									  payloads == NULL || payload_nulls[i] ?
									  (Datum) 0 : payloads[i],
									  headers == NULL || header_nulls[i] ?
									  (Datum) 0 : headers[i]));
	}
	act_message_close_writer(&writer);

	PG_RETURN_ARRAYTYPE_P(construct_array(ids, n, INT8OID, sizeof(int64),
										  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}
