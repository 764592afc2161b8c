/*
 * handler.c
 *	  The functions behind a runner: its handler and its "runnable".
 *
 * Functions are stored by name, because a reg* type would block pg_upgrade, and are looked up when
 * they are to be called.
 *
 * Guarantees: a handler runs with the rights of the runner's owner, so the
 * function behind its name is called only while it belongs to the role that
 * owned it at registration (a dropped name cannot be squatted) and while the
 * owner may execute it (a direct call has no other check of that).  A
 * HandlerCall is never older than the last change of a function, role,
 * membership or schema that this backend was told of.
 *
 * No locks.  Memory: each HandlerCall has a context of its own, for the
 * function keeps things in its FmgrInfo.  When it is out of date it may still
 * be running (a handler can replace itself), so it is put aside and freed in
 * a later transaction: no handler runs across the end of one.
 *
 * An error while resolving leaves the runner without a HandlerCall; the next
 * call tries again.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "common/catalog.h"
#include "compat.h"
#include "runner/handler.h"
#include "runner/runner.h"

/* A resolved function, by runner and kind. */
typedef struct CallKey
{
	int32		runner;
	int32		which;			/* RunnerFunction */
} CallKey;

typedef struct CallEntry
{
	CallKey		key;
	MemoryContext context;		/* holds call; NULL: not resolved */
	HandlerCall *call;
	uint64		row;			/* Runner.version */
	uint64		generation;		/* of the catalog */
	uint64		functions;		/* functions_version */
} CallEntry;

static HTAB *calls = NULL;
static uint64 functions_version = 1;

/* Outdated ones that may still be running in the transaction noted. */
static MemoryContext retired = NULL;
static LocalTransactionId retired_lxid = InvalidLocalTransactionId;

/* What a schema has under a function's name. */
typedef enum Match
{
	MATCH_NONE,					/* nothing with accepted arguments */
	MATCH_UNSUITABLE,			/* accepted arguments, but not callable so */
	MATCH_FOUND
} Match;

typedef struct FunctionMatch
{
	Oid			function;
	Oid			owner;
	HandlerForm form;
	bool		returns_void;
} FunctionMatch;

/*
 * Can it be called as what it is meant for?  A strict one would not be called
 * without a state.
 */
static bool
is_suitable(Form_pg_proc form, RunnerFunction which, HandlerForm handler_form)
{
	if (form->prokind != PROKIND_FUNCTION || form->proisstrict)
		return false;
	if (handler_form == HANDLER_WHOLE)
		return form->proretset &&
			form->prorettype == act_catalog_get()->state_of_type;
	if (form->proretset)
		return false;
	if (which == RUNNER_RUNNABLE)
		return form->prorettype == BOOLOID;
	return form->prorettype == JSONBOID || form->prorettype == VOIDOID;
}

/*
 * Look in one schema for one list of arguments, those of "handler_form".
 */
static Match
match_arguments(Oid schema, const char *name, const Oid *types, int ntypes,
				RunnerFunction which, HandlerForm handler_form,
				FunctionMatch *match)
{
	Match		result = MATCH_UNSUITABLE;
	oidvector  *arguments = buildoidvector(types, ntypes);
	Form_pg_proc form;
	HeapTuple	tuple;

	tuple = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum(name),
							PointerGetDatum(arguments),
							ObjectIdGetDatum(schema));
	pfree(arguments);
	if (!HeapTupleIsValid(tuple))
		return MATCH_NONE;

	form = (Form_pg_proc) GETSTRUCT(tuple);
	if (is_suitable(form, which, handler_form))
	{
		match->form = handler_form;
		match->function = form->oid;
		match->owner = form->proowner;
		match->returns_void = form->prorettype == VOIDOID;
		result = MATCH_FOUND;
	}
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Look in one schema for the accepted signatures: one entity with typed
 * messages, the same with jsonb, many entities.  The first suitable one counts,
 * but one of "owner" (if that is valid) before those of others: other
 * roles that may create functions there must not be in its way.
 */
static Match
match_function(Oid schema, const char *name, RunnerFunction which, Oid owner,
			   FunctionMatch *match)
{
	const Catalog *catalog = act_catalog_get();
	const struct
	{
		HandlerForm form;
		int			ntypes;
		Oid			types[3];
	}			signatures[] = {
		{HANDLER_ARRAY, 3, {TEXTOID, JSONBOID, catalog->message_array_type}},
		{HANDLER_JSONB, 3, {TEXTOID, JSONBOID, JSONBOID}},
		{HANDLER_WHOLE, 1, {catalog->batch_array_type}}
	};
	Oid			runnable[2] = {TEXTOID, JSONBOID};
	Match		best = MATCH_NONE;

	if (which == RUNNER_RUNNABLE)
		return match_arguments(schema, name, runnable, 2, which, HANDLER_NONE,
							   match);

	for (int i = 0; i < lengthof(signatures); i++)
	{
		FunctionMatch found;
		Match		result = match_arguments(schema, name, signatures[i].types,
											 signatures[i].ntypes, which,
											 signatures[i].form, &found);

		if (result == MATCH_FOUND &&
			(best != MATCH_FOUND ||
			 (found.owner == owner && match->owner != owner)))
			*match = found;
		best = Max(best, result);
	}
	return best;
}

/*
 * The error for a name behind which there is no function to call.
 */
static void
report_no_match(const char *runner_name, const char *name,
				RunnerFunction which, Match match)
{
	if (which == RUNNER_HANDLER)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 match == MATCH_NONE ?
				 errmsg("handler %s of runner \"%s\" does not exist",
						name, runner_name) :
				 errmsg("handler %s of runner \"%s\" is of a wrong kind or result type, or STRICT",
						name, runner_name),
				 errhint("A handler is a function (entity text, state jsonb, messages actornot_message[]) or (entity text, state jsonb, messages jsonb) that returns jsonb or void, or one (batches actornot_batch[]) that returns SETOF actornot_state_of.")));
	else
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 match == MATCH_NONE ?
				 errmsg("runnable function %s of runner \"%s\" does not exist",
						name, runner_name) :
				 errmsg("runnable function %s of runner \"%s\" is of a wrong kind or result type, or STRICT",
						name, runner_name),
				 errhint("A runnable function is a function (entity text, state jsonb) that returns boolean.")));
}

/*
 * Take a name apart, which must have one or two parts; "schema" is NULL if it
 * is not qualified.
 */
static void
split_name(const char *runner_name, const char *name,
		   char **schema, char **function)
{
	List	   *parts;

	if (!SplitIdentifierString(pstrdup(name), '.', &parts) ||
		parts == NIL || list_length(parts) > 2)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("\"%s\", named by runner \"%s\", is not the name of a function",
						name, runner_name),
				 errhint("Use function or schema.function, without arguments; quote what needs quotes.")));
	*schema = list_length(parts) == 2 ? linitial(parts) : NULL;
	*function = llast(parts);
}

/*
 * Find the function that a user names at registration, qualified or on the
 * search_path, where the first schema counts that has a function of that name
 * and accepted arguments.  Returns the qualified name to be stored.  The
 * current user must be allowed to execute it.
 */
char *
act_handler_resolve(const char *runner_name, const char *name,
					RunnerFunction which, Oid *function, Oid *function_owner)
{
	Match		result = MATCH_NONE;
	Oid			schema = InvalidOid;
	FunctionMatch match;
	char	   *schema_name;
	char	   *function_name;
	char	   *qualified;

	split_name(runner_name, name, &schema_name, &function_name);
	if (schema_name != NULL)
	{
		schema = LookupExplicitNamespace(schema_name, true);
		if (OidIsValid(schema))
			result = match_function(schema, function_name, which, InvalidOid,
									&match);
	}
	else
	{
		ListCell   *lc;

		foreach(lc, fetch_search_path(true))
		{
			schema = lfirst_oid(lc);
			if (isAnyTempNamespace(schema))
				continue;
			result = match_function(schema, function_name, which, InvalidOid,
									&match);
			if (result != MATCH_NONE)
				break;
		}
	}

	if (result != MATCH_FOUND)
		report_no_match(runner_name, name, which, result);
	if (isAnyTempNamespace(schema))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("function %s of runner \"%s\" is temporary",
						name, runner_name),
				 errdetail("Other sessions, which are to run it, cannot see it.")));

	qualified = quote_qualified_identifier(get_namespace_name(schema),
										   function_name);
	if (act_function_aclcheck(match.function, GetUserId(),
							  ACL_EXECUTE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, qualified);

	*function = match.function;
	*function_owner = match.owner;
	return qualified;
}

/* A handler is only called while all of this holds. */
static void
check_callable(const Runner *runner, const char *name, Oid recorded_owner,
			   const FunctionMatch *match)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(runner->owner)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("owner of runner \"%s\" no longer exists",
						runner->name),
				 errhint("Use actornot_set_owner to give it to another role.")));
	if (match->owner != recorded_owner)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("function %s of runner \"%s\" belongs to another role than at registration",
						name, runner->name),
				 errhint("If that is right, register the runner again.")));
	if (act_function_aclcheck(match->function, runner->owner,
							  ACL_EXECUTE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("owner of runner \"%s\" has no permission to execute function %s",
						runner->name, name)));
}

/*
 * Find the function behind a stored name.
 */
static void
find_function(const Runner *runner, RunnerFunction which,
			  FunctionMatch *match)
{
	const char *name = (which == RUNNER_HANDLER) ?
	runner->handler : runner->runnable;
	Oid			recorded_owner = (which == RUNNER_HANDLER) ?
	runner->handler_owner : runner->runnable_owner;
	Match		result = MATCH_NONE;
	char	   *schema_name;
	char	   *function_name;
	Oid			schema;

	split_name(runner->name, name, &schema_name, &function_name);
	schema = schema_name == NULL ? InvalidOid :
		get_namespace_oid(schema_name, true);
	if (OidIsValid(schema))
		result = match_function(schema, function_name, which, recorded_owner,
								match);
	if (result != MATCH_FOUND)
		report_no_match(runner->name, name, which, result);
	check_callable(runner, name, recorded_owner, match);
}

/* Syscache callback: a function, role, membership or schema has changed. */
static void
forget_functions(Datum arg, int cacheid, uint32 hashvalue)
{
	functions_version++;
}

static void
init_calls(void)
{
	HASHCTL		ctl = {0};

	if (calls != NULL)
		return;
	if (retired == NULL)
	{
		retired = AllocSetContextCreate(TopMemoryContext,
										"actornot retired functions",
										ALLOCSET_SMALL_SIZES);
		CacheRegisterSyscacheCallback(PROCOID, forget_functions, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, forget_functions, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_functions,
									  (Datum) 0);
		CacheRegisterSyscacheCallback(NAMESPACEOID, forget_functions,
									  (Datum) 0);
	}
	ctl.keysize = sizeof(CallKey);
	ctl.entrysize = sizeof(CallEntry);
	ctl.hcxt = CacheMemoryContext;
	calls = hash_create("actornot functions", 32, &ctl,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * Put an outdated call aside: it may be running further up the stack.
 */
static void
retire_call(CallEntry *entry)
{
	if (entry->context == NULL)
		return;
	MemoryContextSetParent(entry->context, retired);
	retired_lxid = act_my_lxid();
	entry->context = NULL;
	entry->call = NULL;
}

/*
 * Resolve a function anew.  The versions are taken before, so that what
 * changes meanwhile makes the next call resolve again.
 */
static void
resolve_call(CallEntry *entry, const Runner *runner, RunnerFunction which)
{
	uint64		functions = functions_version;
	uint64		generation = act_catalog_generation();
	FunctionMatch match;
	MemoryContext context;
	HandlerCall *call;

	find_function(runner, which, &match);

	/* Not yet the cache's child, so that an error below frees it. */
	context = AllocSetContextCreate(CurrentMemoryContext,
									"actornot function",
									ALLOCSET_SMALL_SIZES);
	call = MemoryContextAllocZero(context, sizeof(HandlerCall));
	call->form = match.form;
	call->function = match.function;
	call->returns_void = match.returns_void;
	fmgr_info_cxt(match.function, &call->flinfo, context);
	MemoryContextSetParent(context, CacheMemoryContext);

	entry->context = context;
	entry->call = call;
	entry->functions = functions;
	entry->generation = generation;
	entry->row = runner->version;
}

static HandlerCall *
get_call(const Runner *runner, RunnerFunction which)
{
	CallKey		key = {runner->id, which};
	CallEntry  *entry;
	bool		found;

	init_calls();
	if (retired_lxid != InvalidLocalTransactionId &&
		retired_lxid != act_my_lxid())
	{
		MemoryContextDeleteChildren(retired);
		retired_lxid = InvalidLocalTransactionId;
	}

	entry = hash_search(calls, &key, HASH_ENTER, &found);
	if (!found)
	{
		entry->context = NULL;
		entry->call = NULL;
	}
	else if (entry->call != NULL &&
			 entry->functions == functions_version &&
			 entry->row == runner->version &&
			 entry->generation == act_catalog_generation())
		return entry->call;

	retire_call(entry);
	resolve_call(entry, runner, which);
	return entry->call;
}

HandlerCall *
act_handler_get(const Runner *runner)
{
	return runner->handler == NULL ? NULL : get_call(runner, RUNNER_HANDLER);
}

HandlerCall *
act_handler_get_runnable(const Runner *runner)
{
	return runner->runnable == NULL ? NULL : get_call(runner, RUNNER_RUNNABLE);
}
