/*
 * post.c
 *	  The verb "put in": actornot_post and actornot_post_many.
 *
 * A post is the insertion of one row into the log, in the caller's own
 * transaction: it exists if and only if that commits.  It looks up the
 * runner in a cache of this backend, reads no mailbox and creates none, and
 * waits for no other session.  When the transaction commits, the entity is
 * pushed to the ready queue (wakeup.c); if that hint is lost, the sweep finds
 * the message.
 *
 * Posting works at every isolation level, in subtransactions, and in
 * transactions that are prepared.  It cannot work in parallel workers, which
 * may not get transaction ids; the functions are marked PARALLEL UNSAFE.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "utils/array.h"

#include "actornot.h"
#include "commands/funcargs.h"
#include "log/writer.h"
#include "runner/runner.h"
#include "sched/wakeup.h"

/* How many elements of its arrays actornot_post_many handles at a time. */
#define PIECE 1000

PG_FUNCTION_INFO_V1(actornot_post);
PG_FUNCTION_INFO_V1(actornot_post_many);

/*
 * actornot_post(runner, entity, payload, headers, deliver_at, dedup_key)
 */
Datum
actornot_post(PG_FUNCTION_ARGS)
{
	const Runner *runner;
	text	   *entity;
	NewMessage	message;
	EntityKey	key;
	Oid			pool;
	int64		id;

	act_funcargs_reject_null(fcinfo, 0, "runner");
	act_funcargs_reject_null(fcinfo, 1, "entity");
	if (!PG_ARGISNULL(4) || !PG_ARGISNULL(5))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s is not yet built",
						PG_ARGISNULL(4) ? "dedup_key" : "deliver_at")));
	act_funcargs_check_may_write("actornot_post()");

	entity = PG_GETARG_TEXT_PP(1);
	runner = act_funcargs_runner(fcinfo);
	act_runner_check_post(runner);
	act_funcargs_check_entity(runner->name, VARDATA_ANY(entity),
							  VARSIZE_ANY_EXHDR(entity));

	key = act_funcargs_message(runner, PointerGetDatum(entity),
							   PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2),
							   PG_ARGISNULL(3) ? (Datum) 0 : PG_GETARG_DATUM(3),
							   &message);
	pool = act_runner_pool(runner);
	id = act_writer_append(&message);
	act_wakeup_push(pool, &key);
	PG_RETURN_INT64(id);
}

/* An array that was taken apart; without "values" if it was not given. */
typedef struct Elements
{
	Datum	   *values;
	bool	   *nulls;
	int			n;
} Elements;

static Elements
get_elements(FunctionCallInfo fcinfo, int argno, Oid type, const char *name)
{
	Elements	elements = {0};
	ArrayType  *array;

	if (PG_ARGISNULL(argno))
		return elements;
	array = PG_GETARG_ARRAYTYPE_P(argno);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a one-dimensional array", name)));
	deconstruct_array(array, type, -1, false, TYPALIGN_INT, &elements.values,
					  &elements.nulls, &elements.n);
	return elements;
}

/*
 * The optional arrays must be as long as that of the entities.
 */
static void
check_length(const Elements *elements, int nentities, const char *name,
			 const char *runner)
{
	if (elements->values != NULL && elements->n != nentities)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s and entities for runner \"%s\" must have the same length",
						name, runner),
				 errdetail("There are %d %s for %d entities.",
						   elements->n, name, nentities)));
}

/* The arguments of actornot_post_many. */
typedef struct PostArrays
{
	Elements	entities;
	Elements	payloads;
	Elements	headers;
} PostArrays;

static Datum
element_or_null(const Elements *elements, int i)
{
	return elements->values == NULL || elements->nulls[i] ?
		(Datum) 0 : elements->values[i];
}

/*
 * Put the messages first .. first + n - 1 of the arrays in.
 */
static void
post_piece(MessageWriter *writer, const Runner *runner,
		   const PostArrays *arrays, int first, int n, int64 *ids)
{
	Oid			pool = act_runner_pool(runner);
	NewMessage *messages = palloc(sizeof(NewMessage) * n);
	EntityKey  *keys = palloc(sizeof(EntityKey) * n);

	for (int i = 0; i < n; i++)
		keys[i] = act_funcargs_message(runner,
									   arrays->entities.values[first + i],
									   element_or_null(&arrays->payloads,
													   first + i),
									   element_or_null(&arrays->headers,
													   first + i),
									   &messages[i]);
	act_writer_append_many(writer, messages, n, ids + first);
	for (int i = 0; i < n; i++)
		act_wakeup_push(pool, &keys[i]);
	pfree(keys);
	pfree(messages);
}

static ArrayType *
make_id_array(const int64 *ids, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * n);

	for (int i = 0; i < n; i++)
		elements[i] = Int64GetDatum(ids[i]);
	return construct_array(elements, n, INT8OID, sizeof(int64),
						   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
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
	Runner		runner;
	MessageWriter writer;
	PostArrays	arrays;
	int64	   *ids;
	int			n;

	act_funcargs_reject_null(fcinfo, 0, "runner");
	act_funcargs_reject_null(fcinfo, 1, "entities");
	act_funcargs_check_may_write("actornot_post_many()");

	arrays.entities = get_elements(fcinfo, 1, TEXTOID, "entities");
	arrays.payloads = get_elements(fcinfo, 2, JSONBOID, "payloads");
	arrays.headers = get_elements(fcinfo, 3, JSONBOID, "headers");
	n = arrays.entities.n;

	runner = *act_funcargs_runner(fcinfo);
	act_runner_check_post(&runner);
	check_length(&arrays.payloads, n, "payloads", runner.name);
	check_length(&arrays.headers, n, "headers", runner.name);
	for (int i = 0; i < n; i++)
	{
		text	   *entity;

		if (arrays.entities.nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("entity of runner \"%s\" must not be null",
							runner.name),
					 errdetail("Element %d of entities is null.", i + 1)));
		entity = DatumGetTextPP(arrays.entities.values[i]);
		arrays.entities.values[i] = PointerGetDatum(entity);
		act_funcargs_check_entity(runner.name, VARDATA_ANY(entity),
								  VARSIZE_ANY_EXHDR(entity));
	}
	if (n == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(INT8OID));

	ids = palloc(sizeof(int64) * n);
	act_writer_open(&writer);
	for (int first = 0; first < n; first += PIECE)
	{
		CHECK_FOR_INTERRUPTS();
		post_piece(&writer, &runner, &arrays, first,
				   Min(n - first, PIECE), ids);
	}
	act_writer_close(&writer);

	PG_RETURN_ARRAYTYPE_P(make_id_array(ids, n));
}
