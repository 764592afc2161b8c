/*
 * catalog.c
 *	  Names to numbers: our relations and types.
 *
 * Every post needs the OIDs of half a dozen relations.  They are looked up
 * once per backend and kept until the server says that one of them changed,
 * so that the usual cost is a look at a pointer.
 *
 * Guarantees: what act_catalog_get() returns was complete and belonged to
 * the extension at the last time this backend accepted invalidation messages;
 * DROP EXTENSION, CREATE EXTENSION and REINDEX, here or elsewhere, are
 * noticed.  Missing parts (a library newer than the installed SQL version)
 * count as "not installed" for act_catalog_find() and are an error, with a
 * hint, for act_catalog_get().
 *
 * No locks.  Memory: static.  An error while looking up leaves the cache as
 * it was: not valid.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "common/catalog.h"

/* How often a look-up is repeated that was overtaken by an invalidation. */
#define BUILD_TRIES 3

static Catalog catalog;
static bool catalog_valid = false;
static bool callback_registered = false;

/* Counters, see catalog.h; callbacks counts every message we were shown. */
static uint64 generation = 1;
static uint64 versions[ACT_CACHED_ROWS] = {1, 1, 1};
static uint64 callbacks = 0;

/* ------------------------------------------------------------------------
 * OIDs
 * ------------------------------------------------------------------------ */

/*
 * Is this relation one whose OID, or whose index's OID, is in the cache?
 */
static bool
is_ours(Oid relid)
{
	if (relid == catalog.runner || relid == catalog.runner_grant ||
		relid == catalog.mailbox || relid == catalog.segment ||
		relid == catalog.collision ||
		relid == catalog.timer || relid == catalog.dead_letter ||
		relid == catalog.dedup || relid == catalog.clock ||
		relid == catalog.id_seq || relid == catalog.runner_seq)
		return true;
	for (int i = 0; i < ACT_SEGMENTS; i++)
		if (relid == catalog.message[i])
			return true;
	return false;
}

/*
 * Relcache callback.  Must not fail and looks nothing up; it also comes while
 * the cache is being filled.
 */
static void
forget_relation(Datum arg, Oid relid)
{
	bool		all = !OidIsValid(relid);

	callbacks++;
	if (!all && !is_ours(relid))
		return;

	catalog_valid = false;
	generation++;
	if (all || relid == catalog.runner || relid == catalog.runner_grant)
		versions[ROWS_RUNNER]++;
	if (all || relid == catalog.clock)
		versions[ROWS_CLOCK]++;
	if (all || relid == catalog.segment)
		versions[ROWS_SEGMENT]++;
}

/*
 * The schema of the extension's functions: pg_extension.extnamespace.
 */
static Oid
find_extension_schema(Oid extension)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	Oid			result = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = ((Form_pg_extension) GETSTRUCT(tuple))->extnamespace;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

/*
 * Look a relation up in schema "actornot"; the first one that is missing is
 * noted.
 */
static Oid
find_relation(const Catalog *found, const char *name, const char **missing)
{
	Oid			relid = get_relname_relid(name, found->tables);

	if (!OidIsValid(relid) && *missing == NULL)
		*missing = pstrdup(name);
	return relid;
}

/*
 * The same for a type among the functions.
 */
static Oid
find_type(const Catalog *found, const char *name, const char **missing)
{
	Oid			type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
									   CStringGetDatum(name),
									   ObjectIdGetDatum(found->functions));

	if (!OidIsValid(type) && *missing == NULL)
		*missing = pstrdup(name);
	return type;
}

/*
 * Fill "found".  False if the extension does not exist; if it does but a part
 * of it does not, "missing" names that part.
 */
static bool
look_up_catalog(Catalog *found, const char **missing)
{
	HeapTuple	tuple;

	memset(found, 0, sizeof(*found));
	*missing = NULL;

	found->extension = get_extension_oid("actornot", true);
	if (!OidIsValid(found->extension))
		return false;
	found->functions = find_extension_schema(found->extension);
	found->tables = get_namespace_oid("actornot", true);

	/* A schema of that name that is not ours tells us nothing. */
	if (!OidIsValid(found->tables) ||
		getExtensionOfObject(NamespaceRelationId,
							 found->tables) != found->extension)
	{
		*missing = "schema actornot";
		return true;
	}

	found->runner = find_relation(found, "runner", missing);
	found->runner_grant = find_relation(found, "runner_grant", missing);
	for (int i = 0; i < ACT_SEGMENTS; i++)
	{
		char		name[NAMEDATALEN];

		snprintf(name, sizeof(name), "message_%d", i);
		found->message[i] = find_relation(found, name, missing);
		snprintf(name, sizeof(name), "message_%d_key", i);
		found->message_key[i] = find_relation(found, name, missing);
	}
	found->segment = find_relation(found, "segment", missing);
	found->collision = find_relation(found, "collision", missing);
	found->mailbox = find_relation(found, "mailbox", missing);
	found->mailbox_key = find_relation(found, "mailbox_key", missing);
	found->mailbox_wake = find_relation(found, "mailbox_wake", missing);
	found->timer = find_relation(found, "timer", missing);
	found->dead_letter = find_relation(found, "dead_letter", missing);
	found->dedup = find_relation(found, "dedup", missing);
	found->clock = find_relation(found, "clock", missing);
	found->id_seq = find_relation(found, "id_seq", missing);
	found->runner_seq = find_relation(found, "runner_seq", missing);

	found->message_type = find_type(found, "actornot_message", missing);
	found->message_array_type = get_array_type(found->message_type);
	found->batch_type = find_type(found, "actornot_batch", missing);
	found->batch_array_type = get_array_type(found->batch_type);
	found->state_of_type = find_type(found, "actornot_state_of", missing);

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(found->runner));
	if (HeapTupleIsValid(tuple))
	{
		found->owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	else if (*missing == NULL)
		*missing = "runner";
	return true;
}

/*
 * Fill the cache.  A look-up that invalidation messages overtook is done
 * again; where they never end (debug_discard_caches) the result is used once
 * and not kept.
 */
static const Catalog *
build_catalog(bool must_exist)
{
	if (!callback_registered)
	{
		CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
		callback_registered = true;
	}

	for (int try = 1;; try++)
	{
		uint64		before = callbacks;
		const char *missing;
		Catalog		found;
		bool		exists = look_up_catalog(&found, &missing);

		if (callbacks != before && try < BUILD_TRIES)
			continue;
		if (exists && missing == NULL)
		{
			catalog = found;
			catalog_valid = (callbacks == before);
			return &catalog;
		}
		if (!must_exist)
			return NULL;
		if (!exists)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("extension \"%s\" is not installed in this database",
							"actornot"),
					 errhint("Use CREATE EXTENSION actornot.")));
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" is not complete: \"%s\" is missing",
						"actornot", missing),
				 errhint("If the library is newer than the installed extension, use ALTER EXTENSION actornot UPDATE.")));
	}
}

const Catalog *
act_catalog_get(void)
{
	if (likely(catalog_valid))
		return &catalog;
	return build_catalog(true);
}

const Catalog *
act_catalog_find(void)
{
	if (likely(catalog_valid))
		return &catalog;
	return build_catalog(false);
}

uint64
act_catalog_generation(void)
{
	return generation;
}

uint64
act_catalog_version(CachedRows rows)
{
	return versions[rows];
}

/*
 * Error 55000 if a table of ours that is written row by row has a column that
 * an administrator has added: it would not get a value.  Returns how many
 * columns a row has, with those that were dropped, which are null.
 */
int
act_catalog_check_columns(Relation heap, int nours)
{
	TupleDesc	desc = RelationGetDescr(heap);

	for (int i = nours; unlikely(i < desc->natts); i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot write to table \"actornot.%s\" while it has column \"%s\"",
							RelationGetRelationName(heap),
							NameStr(TupleDescAttr(desc, i)->attname)),
					 errdetail("Rows of this table are written without columns that were added to it."),
					 errhint("Drop the column.")));
	}
	return desc->natts;
}

/* ------------------------------------------------------------------------
 * Administrative queries
 * ------------------------------------------------------------------------ */

/*
 * Act as the owner of our tables, with a search_path that no other role
 * can put anything into.  An error that leaves the (sub)transaction undoes both by
 * itself.
 */
void
act_catalog_become_owner(OwnerContext *context)
{
	const Catalog *cat = act_catalog_get();

	GetUserIdAndSecContext(&context->save_userid, &context->save_sec_context);
	context->guc_level = NewGUCNestLevel();
	SetUserIdAndSecContext(cat->owner,
						   context->save_sec_context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
act_catalog_restore_user(const OwnerContext *context)
{
	AtEOXact_GUC(false, context->guc_level);
	SetUserIdAndSecContext(context->save_userid, context->save_sec_context);
}

/*
 * Run one command as the owner of our tables and return how many rows it
 * touched.  It sees what is committed now, even in a REPEATABLE READ
 * transaction: a registration is not part of anybody's consistent view.
 * "nulls" is as in SPI: 'n' marks a NULL, NULL means that there is none.
 */
uint64
act_catalog_execute(const char *command, int nargs, const Oid *types,
					const Datum *values, const char *nulls)
{
	OwnerContext context;
	SPIPlanPtr	plan;
	Snapshot	snapshot;
	uint64		processed;
	int			result;

	act_catalog_become_owner(&context);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plan = SPI_prepare(command, nargs, unconstify(Oid *, types));
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s",
			 SPI_result_code_string(SPI_result));

	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	result = SPI_execute_snapshot(plan, unconstify(Datum *, values), nulls,
								  snapshot, InvalidSnapshot, false, true, 0);
	UnregisterSnapshot(snapshot);
	if (result < 0)
		elog(ERROR, "SPI_execute_snapshot failed: %s",
			 SPI_result_code_string(result));
	processed = SPI_processed;

	SPI_finish();
	CommandCounterIncrement();
	act_catalog_restore_user(&context);
	return processed;
}

/*
 * Tell everybody at commit, and ourselves at once, that the rows of a table
 * have changed.  The command is marked as used because an increment without
 * one does nothing, not even to the own caches.
 */
void
act_catalog_invalidate(Oid relid)
{
	CacheInvalidateRelcacheByRelid(relid);
	(void) GetCurrentCommandId(true);
	CommandCounterIncrement();
}
