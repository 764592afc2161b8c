/*
 * utility.c
 *	  Statements of others that concern our processes.
 *
 * Some statements need a database without other sessions, and wait five seconds
 * at most until it has none: DROP DATABASE, CREATE DATABASE from a template,
 * ALTER DATABASE ... RENAME or SET TABLESPACE.  DROP and ALTER EXTENSION need
 * objects that are not in use.  Background processes would make them fail, so
 * before such a statement of a user who has the right to it, and only then,
 * ours are evicted: asked to leave, and not started until its transaction has
 * ended.
 * Batches that are being run are cancelled; they are run again later.
 *
 * Others are news: after CREATE EXTENSION and CREATE DATABASE the launcher has
 * to look whether there is something to do, and after COMMIT PREPARED, which runs
 * no callbacks of the prepared transaction, the log has to be swept.
 *
 * Locks: none; the waiting can be interrupted.  Memory: two small arrays.
 *
 * Failure: whatever happens to the statement or the session, the end of its
 * transaction ends its evictions.  Between statements of other extensions
 * that drop ours by CASCADE and us there is no hook; then our processes end
 * with an error, once.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"

#include "common/catalog.h"
#include "compat.h"
#include "proc/utility.h"
#include "sched/database.h"
#include "sched/evict.h"
#include "sched/hints.h"

#define EXTENSION_NAME "actornot"

/* The server itself waits for five seconds for others to leave. */
#define LEAVE_LIMIT_MS 10000

/* More than one of each in one transaction are rare. */
#define MAX_NOTED 16

/* What a statement means to us. */
typedef struct Concern
{
	Oid			evict;			/* our processes from that database */
	Oid			look;			/* after the commit: look there */
	const char *look_by_name;	/* the same, of one that is yet to be created */
	bool		sweep;			/* after the statement: sweep this database */
} Concern;

static ProcessUtility_hook_type next_hook = NULL;

/* Until the end of the transaction. */
static Oid	evicted[MAX_NOTED];
static int	nevicted = 0;
static Oid	to_look[MAX_NOTED];
static int	nto_look = 0;

/* Statements being executed that evict; some commit in the middle. */
static int	executing = 0;

/* ------------------------------------------------- end of the transaction */

static void
release_down_to(int n)
{
	while (nevicted > n)
		act_evict_end(evicted[--nevicted]);
}

/* Nothing in here can fail. */
static void
end_transaction(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			for (int i = 0; i < nto_look; i++)
				act_database_want(to_look[i]);
			nto_look = 0;
			if (executing == 0)
				release_down_to(0);
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			nto_look = 0;
			release_down_to(0);
			break;
		default:
			break;
	}
}

static void
note_look(Oid database)
{
	for (int i = 0; i < nto_look; i++)
	{
		if (to_look[i] == database)
			return;
	}
	if (OidIsValid(database) && nto_look < MAX_NOTED)
		to_look[nto_look++] = database;
}

/* ------------------------------------------------- what a statement means */

static DefElem *
find_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

/* The database, if it exists, belongs to the caller, and is not this one. */
static Oid
find_own_database(const char *name)
{
	Oid			database = get_database_oid(name, true);

	if (!OidIsValid(database) || database == MyDatabaseId ||
		!act_database_ownercheck(database, GetUserId()))
		return InvalidOid;
	return database;
}

static bool
may_create_databases(void)
{
	HeapTuple	tuple;
	bool		may = false;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tuple))
	{
		may = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}

static bool
is_template(Oid database)
{
	HeapTuple	tuple;
	bool		template = false;

	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
	if (HeapTupleIsValid(tuple))
	{
		template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return template;
}

static void
examine_createdb(CreatedbStmt *stmt, Concern *concern)
{
	DefElem    *option = find_option(stmt->options, "template");
	const char *source = "template1";
	Oid			database;

	if (!may_create_databases())
		return;
	if (option != NULL && option->arg != NULL)
		source = defGetString(option);
	database = get_database_oid(source, true);
	if (!OidIsValid(database))
		return;
	if (is_template(database) ||
		act_database_ownercheck(database, GetUserId()))
		concern->evict = database;
	concern->look_by_name = stmt->dbname;
}

static void
examine_alterdb(AlterDatabaseStmt *stmt, Concern *concern)
{
	Oid			database;

	if (find_option(stmt->options, "tablespace") != NULL)
		concern->evict = find_own_database(stmt->dbname);
	else if (find_option(stmt->options, "is_template") != NULL ||
			 find_option(stmt->options, "allow_connections") != NULL)
	{
		/* A template is to have no sessions; or it may have some now. */
		database = get_database_oid(stmt->dbname, true);
		if (OidIsValid(database) &&
			act_database_ownercheck(database, GetUserId()))
		{
			concern->evict = database;
			concern->look = database;
		}
	}
}

/* DROP and ALTER EXTENSION actornot: this database, if it is the caller's. */
static void
examine_extension(const char *name, Concern *concern)
{
	Oid			extension;

	if (strcmp(name, EXTENSION_NAME) != 0)
		return;
	extension = get_extension_oid(name, true);
	if (OidIsValid(extension) &&
		act_extension_ownercheck(extension, GetUserId()))
		concern->evict = MyDatabaseId;
}

/* Does the extension live in this schema? */
static bool
has_extension(const char *schema)
{
	const Catalog *catalog = act_catalog_find();
	Oid			namespace = get_namespace_oid(schema, true);

	return catalog != NULL && OidIsValid(namespace) &&
		(namespace == catalog->functions || namespace == catalog->tables);
}

static void
examine_drop(DropStmt *stmt, Concern *concern)
{
	ListCell   *cell;

	foreach(cell, stmt->objects)
	{
		if (stmt->removeType == OBJECT_EXTENSION)
			examine_extension(strVal(lfirst(cell)), concern);
		else if (stmt->removeType == OBJECT_SCHEMA &&
				 stmt->behavior == DROP_CASCADE &&
				 has_extension(strVal(lfirst(cell))))
			examine_extension(EXTENSION_NAME, concern);
	}
}

static bool
owns_schema(Oid role, Oid namespace)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACEOID,
										ObjectIdGetDatum(namespace));
	bool		owns = false;

	if (HeapTupleIsValid(tuple))
	{
		owns = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner == role;
		ReleaseSysCache(tuple);
	}
	return owns;
}

/* Does the extension go with all that the role owns? */
static bool
owns_extension(Oid role)
{
	const Catalog *catalog = act_catalog_find();

	return catalog != NULL &&
		(role == catalog->owner || owns_schema(role, catalog->functions) ||
		 owns_schema(role, catalog->tables));
}

/* All that a role owns goes. */
static void
examine_drop_owned(DropOwnedStmt *stmt, Concern *concern)
{
	ListCell   *cell;

	foreach(cell, stmt->roles)
	{
		if (stmt->behavior == DROP_CASCADE &&
			owns_extension(get_rolespec_oid(lfirst(cell), true)))
			examine_extension(EXTENSION_NAME, concern);
	}
}

/*
 * A prepared transaction that posted had an extension to post to.  One that is
 * rolled back may have acquired an entity, which is then lent without a holder.
 */
static bool
ends_prepared(TransactionStmt *stmt)
{
	return (stmt->kind == TRANS_STMT_COMMIT_PREPARED ||
			stmt->kind == TRANS_STMT_ROLLBACK_PREPARED) &&
		(act_database_is_known(MyDatabaseId) ||
		 OidIsValid(get_extension_oid(EXTENSION_NAME, true)));
}

static void
examine(Node *stmt, Concern *concern)
{
	memset(concern, 0, sizeof(Concern));
	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			if (!IsTransactionBlock())
				concern->evict =
					find_own_database(castNode(DropdbStmt, stmt)->dbname);
			break;
		case T_CreatedbStmt:
			if (!IsTransactionBlock())
				examine_createdb(castNode(CreatedbStmt, stmt), concern);
			break;
		case T_AlterDatabaseStmt:
			examine_alterdb(castNode(AlterDatabaseStmt, stmt), concern);
			break;
		case T_RenameStmt:
			if (castNode(RenameStmt, stmt)->renameType == OBJECT_DATABASE &&
				may_create_databases())
				concern->evict =
					find_own_database(castNode(RenameStmt, stmt)->subname);
			break;
		case T_DropStmt:
			examine_drop(castNode(DropStmt, stmt), concern);
			break;
		case T_DropOwnedStmt:
			examine_drop_owned(castNode(DropOwnedStmt, stmt), concern);
			break;
		case T_AlterExtensionStmt:
			examine_extension(castNode(AlterExtensionStmt, stmt)->extname,
							  concern);
			/* The update may have brought what the library had missed. */
			concern->look = concern->evict;
			break;
		case T_AlterExtensionContentsStmt:
			examine_extension(castNode(AlterExtensionContentsStmt,
									   stmt)->extname, concern);
			break;
		case T_AlterObjectSchemaStmt:
			if (castNode(AlterObjectSchemaStmt, stmt)->objectType ==
				OBJECT_EXTENSION)
				examine_extension(strVal(castNode(AlterObjectSchemaStmt,
												  stmt)->object), concern);
			break;
		case T_CreateExtensionStmt:
			if (strcmp(castNode(CreateExtensionStmt, stmt)->extname,
					   EXTENSION_NAME) == 0)
				concern->look = MyDatabaseId;
			break;
		case T_TransactionStmt:
			concern->sweep =
				ends_prepared(castNode(TransactionStmt, stmt));
			break;
		default:
			break;
	}
}

/* -------------------------------------------------------------- the hook */

/* If they do not leave in time the statement says so itself. */
static void
evict(Oid database)
{
	if (!OidIsValid(database) || nevicted >= MAX_NOTED ||
		!act_evict_begin(database))
		return;
	evicted[nevicted++] = database;
	(void) act_evict_wait_until_empty(database, LEAVE_LIMIT_MS);
}

static void
process_utility(PlannedStmt *pstmt, const char *query_string,
				bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *query_env,
				DestReceiver *dest, QueryCompletion *qc)
{
	Concern		concern;
	int			before = nevicted;
	int			evicts;

	examine(pstmt->utilityStmt, &concern);
	evicts = OidIsValid(concern.evict);
	executing += evicts;
	PG_TRY();
	{
		evict(concern.evict);
		if (next_hook)
			next_hook(pstmt, query_string, read_only_tree, context, params,
					  query_env, dest, qc);
		else
			standard_ProcessUtility(pstmt, query_string, read_only_tree,
									context, params, query_env, dest, qc);
	}
	PG_CATCH();
	{
		executing -= evicts;
		release_down_to(Min(before, nevicted));
		PG_RE_THROW();
	}
	PG_END_TRY();
	executing -= evicts;

	if (concern.sweep)
		act_readyq_request_sweep(MyDatabaseId);
	if (concern.look_by_name != NULL)
		concern.look = get_database_oid(concern.look_by_name, true);
	note_look(concern.look);
}

void
act_utility_init(void)
{
	next_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	RegisterXactCallback(end_transaction, NULL);
}
