/*
 * launcher.c
 *	  The launcher: one process that starts managers where they are needed.
 *
 * Databases are not configured, they are found: after its start the launcher
 * has a manager look into each of them, one after the other, and later into
 * those that have called it (a post, CREATE EXTENSION, CREATE DATABASE) or
 * where something has become due.  It is connected to no database, so that none
 * is in use because of it, and sleeps without a timeout while nothing is due.
 *
 * It starts when recovery has finished, and thus at a promotion.  It never
 * exits with status 0, because the postmaster would not start it again.
 *
 * Locks: the registry's, for moments; AccessShareLock on pg_database while it
 * looks up a name.  Memory: the list of databases yet to be looked into lives
 * as long as the process.
 *
 * Failure: what is to be done is in shared memory, so the next launcher goes on
 * where this one ended, only that the first round is begun anew.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"

#include "proc/launcher.h"
#include "sched/database.h"
#include "sched/process.h"
#include "sched/readyq.h"

#define RESTART_SECONDS 2

/* When managers are short: how late to look again if none leaves. */
#define SHORTAGE_DELAY (1 * USECS_PER_SEC)

/* The first round: databases not yet looked into, and the present one. */
static List *to_probe = NIL;
static Oid	probing = InvalidOid;

PGDLLEXPORT void actornot_launcher_main(Datum main_arg);

void
act_launcher_register(void)
{
	BackgroundWorker worker;

	/* pg_upgrade wants no sessions in the databases, and no changes. */
	if (IsBinaryUpgrade)
		return;

	act_process_describe(&worker, "actornot_launcher_main",
						 "actornot launcher");
	worker.bgw_restart_time = RESTART_SECONDS;
	RegisterBackgroundWorker(&worker);
}

/* --------------------------------------------------------- pg_database */

/*
 * Not a template, and one can connect to it.  A limit of -2 means that DROP
 * DATABASE was interrupted.
 */
static bool
is_eligible(Form_pg_database database)
{
	return database->datallowconn && !database->datistemplate &&
		database->datconnlimit >= -1;
}

/* All eligible databases, in TopMemoryContext. */
static List *
list_databases(void)
{
	List	   *list = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	act_process_begin_transaction("actornot: looking for databases");
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old;

		if (!is_eligible(database))
			continue;
		old = MemoryContextSwitchTo(TopMemoryContext);
		list = lappend_oid(list, database->oid);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	act_process_end_transaction();
	return list;
}

/* The database's name, if it exists and is eligible. */
static bool
get_name(Oid oid, NameData *name)
{
	Relation	rel;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	act_process_begin_transaction("actornot: looking up a database");
	ScanKeyInit(&key, Anum_pg_database_oid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(oid));
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = systable_beginscan(rel, DatabaseOidIndexId,
							  criticalSharedRelcachesBuilt, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		found = is_eligible(database);
		*name = database->datname;
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	act_process_end_transaction();
	return found;
}

/* ------------------------------------------------------ starting managers */

/* False: managers or the server's workers are short. */
static bool
start_manager(Oid database)
{
	TimestampTz now;
	NameData	name;
	BackgroundWorker worker;
	bool		started;

	if (!get_name(database, &name))
	{
		/* Look again: a change of that calls us once more from now on. */
		act_database_begin_look(database);
		if (!get_name(database, &name))
		{
			act_readyq_forget(database);
			act_database_forget(database);
		}
		else
			act_database_want(database);
		return true;
	}
	now = GetCurrentTimestamp();
	act_process_describe(&worker, "actornot_manager_main", "actornot manager");
	snprintf(worker.bgw_name, BGW_MAXLEN, "actornot manager of database %s",
			 NameStr(name));
	if (!act_process_claim_manager(database, now, &worker.bgw_main_arg))
		return false;
	started = RegisterDynamicBackgroundWorker(&worker, NULL);
	if (act_process_note_manager(worker.bgw_main_arg, started))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start the actornot manager of database \"%s\": no worker slot is free",
						NameStr(name)),
				 errdetail("Messages wait until there is one."),
				 errhint("Consider increasing the configuration parameter \"max_worker_processes\".")));
	return started;
}

/* Start what is wanted; returns when to look again without a call. */
static TimestampTz
start_wanted(void)
{
	TimestampTz next = DT_NOEND;

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		Oid			database;

		CHECK_FOR_INTERRUPTS();
		database = act_process_find_database(now, &next);
		if (!OidIsValid(database))
			return next;
		if (!start_manager(database))
			return Min(next, now + SHORTAGE_DELAY);
	}
}

/*
 * The first round: have the next database looked into once the last one is
 * known.  start_wanted() does the rest.
 */
static void
probe_next(void)
{
	if (act_process_is_probed())
		return;
	if (OidIsValid(probing) && !act_database_is_settled(probing))
		return;
	if (to_probe == NIL)
	{
		act_process_set_probed();
		probing = InvalidOid;
		return;
	}
	probing = linitial_oid(to_probe);
	to_probe = list_delete_first(to_probe);
	act_database_want(probing);
}

void
actornot_launcher_main(Datum main_arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	act_process_attach_launcher();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_activity(STATE_IDLE, NULL);

	if (!act_process_is_probed())
		to_probe = list_databases();

	for (;;)
	{
		act_process_begin_round();
		probe_next();
		act_process_sleep_until(start_wanted());
	}
}
