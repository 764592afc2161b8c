/*
 * runner.c
 *	  Runners: a registered name, its handler, owner and settings.
 *
 * Every post and every batch begins with a look-up here, so each backend
 * keeps all registered runners in memory.  There are few of them: whenever
 * one changes, all are read again.
 *
 * Guarantees: the rows are those that were committed (or written by the own
 * transaction) at the last time this backend accepted invalidation messages,
 * whatever snapshot the transaction has: a runner that was registered after a
 * REPEATABLE READ transaction began can be posted to.  A name that is not
 * found is looked up once more after accepting what is due.  Unregistered
 * runners (tombstones) are not found.
 *
 * Locks: AccessShareLock on runner and runner_grant while they are read.
 *
 * Memory: Runner structs live in a hash table that never shrinks, their
 * strings and arrays in a context of this room.
 *
 * An error while reading leaves the cache out of date, so the next look-up
 * reads again; roles that may post are then too few rather than too many.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "common/int.h"
#include "compat.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/catalog.h"
#include "common/entity.h"
#include "runner/runner.h"

/* The columns of runner. */
enum
{
	RUN_ID = 1,
	RUN_NAME,
	RUN_OWNER,
	RUN_HANDLER,
	RUN_HANDLER_OWNER,
	RUN_RUNNABLE,
	RUN_RUNNABLE_OWNER,
	RUN_BATCH_SIZE,
	RUN_BATCH_BYTES,
	RUN_MAX_ATTEMPTS,
	RUN_RETRY_DELAY,
	RUN_RETRY_DELAY_MAX,
	RUN_TIMEOUT,
	RUN_LEASE,
	RUN_INITIAL_STATE,
	RUN_CONCURRENCY,
	RUN_RATE,
	RUN_WEIGHT,
	RUN_MESSAGE_TTL,
	RUN_MAX_BACKLOG,
	RUN_DEDUP_WINDOW,
	RUN_PAUSED,
	RUN_CREATED_AT,
	RUN_UPDATED_AT,
	RUN_UNREGISTERED_AT
};

/* The columns of runner_grant. */
enum
{
	GRANT_RUNNER = 1,
	GRANT_GRANTEE
};

/* An entry of the cache by id; "runner" must be first. */
typedef struct RunnerEntry
{
	Runner		runner;
	bool		live;			/* found when the table was last read */
	bool		gone;			/* ... as a tombstone */
} RunnerEntry;

/* The cache of rows; loaded_version 0 means that nothing was read yet. */
static MemoryContext runner_context = NULL;
static HTAB *runners_by_id = NULL;
static const Runner **runners_by_name = NULL;
static int	nrunners = 0;
static uint64 loaded_version = 0;
static uint64 loading_version = 0;
static const Runner *last_runner = NULL;

/* ------------------------------------------------------------------------
 * Reading the tables
 * ------------------------------------------------------------------------ */

/*
 * An interval in microseconds, months taken as 30 days.  False if that does
 * not fit.
 */
bool
act_runner_interval_us(const Interval *interval, int64 *us)
{
	int64		days = (int64) interval->month * DAYS_PER_MONTH + interval->day;
	int64		part;

	return !pg_mul_s64_overflow(days, USECS_PER_DAY, &part) &&
		!pg_add_s64_overflow(part, interval->time, us);
}

/* What is in the table was checked at registration; never fail on it here. */
static int64
interval_column(TupleTableSlot *slot, int column, int64 max)
{
	int64		us;

	if (slot->tts_isnull[column - 1])
		return 0;
	if (!act_runner_interval_us(DatumGetIntervalP(slot->tts_values[column - 1]),
								&us))
		return max;
	return Min(Max(us, 0), max);
}

static int
int_column(TupleTableSlot *slot, int column)
{
	return slot->tts_isnull[column - 1] ? 0 :
		DatumGetInt32(slot->tts_values[column - 1]);
}

static Oid
oid_column(TupleTableSlot *slot, int column)
{
	return slot->tts_isnull[column - 1] ? InvalidOid :
		DatumGetObjectId(slot->tts_values[column - 1]);
}

/* A text column in the cache's memory, or NULL. */
static char *
text_column(TupleTableSlot *slot, int column)
{
	MemoryContext old;
	char	   *result;

	if (slot->tts_isnull[column - 1])
		return NULL;
	old = MemoryContextSwitchTo(runner_context);
	result = TextDatumGetCString(slot->tts_values[column - 1]);
	MemoryContextSwitchTo(old);
	return result;
}

/* A jsonb column in the cache's memory, detoasted, or 0. */
static Datum
jsonb_column(TupleTableSlot *slot, int column)
{
	MemoryContext old;
	struct varlena *plain;
	Datum		result;

	if (slot->tts_isnull[column - 1])
		return (Datum) 0;
	plain = PG_DETOAST_DATUM(slot->tts_values[column - 1]);
	old = MemoryContextSwitchTo(runner_context);
	result = datumCopy(PointerGetDatum(plain), false, -1);
	MemoryContextSwitchTo(old);
	return result;
}

static void
free_if_set(void *pointer)
{
	if (pointer != NULL)
		pfree(pointer);
}

/*
 * Take the number of a runner that was unregistered over into the cache.
 */
static void
load_tombstone(int32 id)
{
	bool		found;
	RunnerEntry *entry = hash_search(runners_by_id, &id, HASH_ENTER, &found);

	if (!found)
	{
		memset(&entry->runner, 0, sizeof(Runner));
		entry->runner.id = id;
		entry->live = false;
	}
	entry->gone = true;
}

/*
 * Take a row of runner over into the cache.
 */
static void
load_runner(TupleTableSlot *slot)
{
	int32		id;
	RunnerEntry *entry;
	Runner	   *runner;
	Runner		fresh;
	char	   *name;
	bool		found;

	slot_getallattrs(slot);
	id = DatumGetInt32(slot->tts_values[RUN_ID - 1]);
	if (!slot->tts_isnull[RUN_UNREGISTERED_AT - 1])
	{
		load_tombstone(id);
		return;
	}
	name = TextDatumGetCString(slot->tts_values[RUN_NAME - 1]);

	memset(&fresh, 0, sizeof(fresh));
	fresh.id = id;
	fresh.version = loading_version;
	strlcpy(fresh.name, name, sizeof(fresh.name));
	fresh.name_len = strlen(fresh.name);
	fresh.owner = oid_column(slot, RUN_OWNER);
	fresh.handler_owner = oid_column(slot, RUN_HANDLER_OWNER);
	fresh.runnable_owner = oid_column(slot, RUN_RUNNABLE_OWNER);
	fresh.batch_size = int_column(slot, RUN_BATCH_SIZE);
	fresh.batch_bytes = int_column(slot, RUN_BATCH_BYTES);
	fresh.max_attempts = int_column(slot, RUN_MAX_ATTEMPTS);
	fresh.retry_delay = interval_column(slot, RUN_RETRY_DELAY, PG_INT64_MAX);
	fresh.retry_delay_max = interval_column(slot, RUN_RETRY_DELAY_MAX,
											PG_INT64_MAX);
	fresh.timeout = (int) ((interval_column(slot, RUN_TIMEOUT,
											PG_INT32_MAX * INT64CONST(1000)) +
							999) / 1000);
	fresh.lease = interval_column(slot, RUN_LEASE, PG_INT64_MAX);
	fresh.paused = DatumGetBool(slot->tts_values[RUN_PAUSED - 1]);
	fresh.handler = text_column(slot, RUN_HANDLER);
	fresh.runnable = text_column(slot, RUN_RUNNABLE);
	fresh.initial_state = jsonb_column(slot, RUN_INITIAL_STATE);

	entry = hash_search(runners_by_id, &id, HASH_ENTER, &found);
	runner = &entry->runner;
	if (found)
	{
		free_if_set(runner->handler);
		free_if_set(runner->runnable);
		free_if_set(runner->grants);
		free_if_set(DatumGetPointer(runner->initial_state));
	}
	*runner = fresh;
	entry->live = true;
	entry->gone = false;
	nrunners++;
}

/*
 * Take a row of runner_grant over into the cache.
 */
static void
load_grant(TupleTableSlot *slot)
{
	int32		id;
	Oid			grantee;
	RunnerEntry *entry;
	Runner	   *runner;

	slot_getallattrs(slot);
	id = DatumGetInt32(slot->tts_values[GRANT_RUNNER - 1]);
	grantee = DatumGetObjectId(slot->tts_values[GRANT_GRANTEE - 1]);

	entry = hash_search(runners_by_id, &id, HASH_FIND, NULL);
	if (entry == NULL || !entry->live)
		return;

	runner = &entry->runner;
	if (!OidIsValid(grantee))
	{
		runner->public_may_post = true;
		return;
	}

	/* Grow by doubling: room for 4, then whenever a power of two is full. */
	if (runner->ngrants == 0)
		runner->grants = MemoryContextAlloc(runner_context, 4 * sizeof(Oid));
	else if (runner->ngrants >= 4 &&
			 (runner->ngrants & (runner->ngrants - 1)) == 0)
		runner->grants = repalloc(runner->grants,
								  2 * runner->ngrants * sizeof(Oid));
	runner->grants[runner->ngrants++] = grantee;
}

/*
 * Call "load" for each row of a table that the snapshot sees.
 */
static void
scan_rows(Relation rel, Snapshot snapshot, void (*load) (TupleTableSlot *slot))
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = act_table_beginscan(rel, snapshot);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		load(slot);

	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
}

static int
compare_names(const Runner *a, const char *name, int len)
{
	if (a->name_len != len)
		return a->name_len < len ? -1 : 1;
	return memcmp(a->name, name, len);
}

static int
compare_runners(const void *a, const void *b)
{
	const Runner *second = *(const Runner *const *) b;

	return compare_names(*(const Runner *const *) a,
						 second->name, second->name_len);
}

/*
 * Sort the live runners by name.
 */
static void
index_names(void)
{
	HASH_SEQ_STATUS status;
	RunnerEntry *entry;
	int			n = 0;

	free_if_set(runners_by_name);
	runners_by_name = NULL;
	runners_by_name = MemoryContextAlloc(runner_context,
										 Max(nrunners, 1) * sizeof(Runner *));
	hash_seq_init(&status, runners_by_id);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->live)
			runners_by_name[n++] = &entry->runner;
	}
	Assert(n == nrunners);
	qsort(runners_by_name, n, sizeof(Runner *), compare_runners);
}

static void
init_cache(void)
{
	HASHCTL		ctl = {0};

	runner_context = AllocSetContextCreate(CacheMemoryContext,
										   "actornot runners",
										   ALLOCSET_SMALL_SIZES);
	ctl.keysize = sizeof(int32);
	ctl.entrysize = sizeof(RunnerEntry);
	ctl.hcxt = runner_context;
	runners_by_id = hash_create("actornot runners", 32, &ctl,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * Read both tables as they are now.
 */
static void
load_runners(void)
{
	const Catalog *catalog = act_catalog_get();
	Relation	runner_rel = table_open(catalog->runner, AccessShareLock);
	Relation	grant_rel = table_open(catalog->runner_grant, AccessShareLock);
	HASH_SEQ_STATUS status;
	RunnerEntry *entry;
	Snapshot	snapshot;

	if (runners_by_id == NULL)
		init_cache();
	loaded_version = 0;
	last_runner = NULL;
	nrunners = 0;
	hash_seq_init(&status, runners_by_id);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		entry->live = false;
		entry->gone = false;
	}

	/*
	 * What was accepted up to here, the snapshot sees.  What comes later
	 * makes the next look-up read again.  A catalog snapshot, for it is the
	 * latest one, too, and can be had in parallel workers.
	 */
	loading_version = act_catalog_version(ROWS_RUNNER);
	snapshot = RegisterSnapshot(GetCatalogSnapshot(catalog->runner));
	scan_rows(runner_rel, snapshot, load_runner);
	scan_rows(grant_rel, snapshot, load_grant);
	UnregisterSnapshot(snapshot);

	table_close(grant_rel, AccessShareLock);
	table_close(runner_rel, AccessShareLock);

	index_names();
	loaded_version = loading_version;
}

/* ------------------------------------------------------------------------
 * Looking up
 * ------------------------------------------------------------------------ */

static inline bool
cache_is_current(void)
{
	return loaded_version == act_catalog_version(ROWS_RUNNER);
}

static const Runner *
search_name(const char *name, int len)
{
	int			low = 0;
	int			high = nrunners;

	while (low < high)
	{
		int			middle = low + (high - low) / 2;
		int			order = compare_names(runners_by_name[middle], name, len);

		if (order == 0)
			return runners_by_name[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

const Runner *
act_runner_lookup(const char *name, int len)
{
	const Runner *found;

	if (likely(cache_is_current()))
	{
		if (last_runner != NULL &&
			compare_names(last_runner, name, len) == 0)
			return last_runner;
	}
	else
		load_runners();

	found = search_name(name, len);
	if (found == NULL)
	{
		/* It may have been registered since we last listened. */
		AcceptInvalidationMessages();
		if (cache_is_current())
			return NULL;
		load_runners();
		found = search_name(name, len);
		if (found == NULL)
			return NULL;
	}
	last_runner = found;
	return found;
}

const Runner *
act_runner_get(const char *name, int len)
{
	const Runner *runner = act_runner_lookup(name, len);

	if (runner == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("runner \"%s\" does not exist",
						pnstrdup(name, len)),
				 errhint("Runners are registered with actornot_register.")));
	return runner;
}

EntityKey
act_runner_key(const Runner *runner, const char *entity, int len)
{
	return act_entity_key(runner->id, runner->name, runner->name_len,
						  entity, len);
}

/*
 * A hash is made of the runner's name, and beside it stands its number.  Where
 * the two do not belong together, data was loaded beside runners that have the
 * same numbers: it is of an unknown runner.  (For tests, hashes can be cut to
 * a few bits.)
 */
bool
act_runner_stored_key(const Runner *runner, const text *entity, int64 hash,
					  EntityKey *key)
{
	static bool reported = false;

	*key = act_runner_key(runner, VARDATA_ANY(entity),
						  VARSIZE_ANY_EXHDR(entity));
	if (unlikely(key->hash != hash))
	{
		if ((uint64) hash > PG_UINT32_MAX &&
			(uint64) key->hash > PG_UINT32_MAX)
		{
			if (!reported)
				ereport(WARNING,
						(errmsg("data of another runner has the number %d of runner \"%s\"",
								runner->id, runner->name),
						 errdetail("It is taken for that of an unknown runner."),
						 errhint("Data that is loaded beside runners of one's own must be given their numbers.")));
			reported = true;
			return false;
		}
		key->hash = hash;
	}
	return true;
}

/*
 * Was the runner of that number unregistered?  False also if it is unknown.
 */
bool
act_runner_is_gone(int32 id)
{
	RunnerEntry *entry;

	if (unlikely(!cache_is_current()))
		load_runners();
	entry = hash_search(runners_by_id, &id, HASH_FIND, NULL);
	return entry != NULL && entry->gone;
}

const Runner *
act_runner_find(int32 id)
{
	RunnerEntry *entry;

	if (unlikely(!cache_is_current()))
		load_runners();
	else if (last_runner != NULL && last_runner->id == id)
		return last_runner;

	entry = hash_search(runners_by_id, &id, HASH_FIND, NULL);
	if (entry == NULL || !entry->live)
		return NULL;
	last_runner = &entry->runner;
	return last_runner;
}

/*
 * Why a runner's entities cannot be run now; NULL is a runner that was not
 * found.
 */
Gate
act_runner_gate(const Runner *runner)
{
	if (runner == NULL)
		return GATE_NO_RUNNER;
	return runner->paused ? GATE_RUNNER_PAUSED : GATE_OPEN;
}

/* ------------------------------------------------------------------------
 * Rights
 * ------------------------------------------------------------------------ */

void
act_runner_check_post(const Runner *runner)
{
	Oid			user = GetUserId();

	if (runner->public_may_post || user == runner->owner ||
		has_privs_of_role(user, runner->owner))
		return;
	for (int i = 0; i < runner->ngrants; i++)
		if (has_privs_of_role(user, runner->grants[i]))
			return;

	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to post to runner \"%s\"",
					runner->name),
			 errhint("Its owner may grant it with actornot_grant.")));
}

void
act_runner_check_rights(const Runner *runner)
{
	if (!has_privs_of_role(GetUserId(), runner->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of runner \"%s\"", runner->name)));
}

void
act_runner_check_is_owner(const Runner *runner)
{
	char	   *owner;

	if (GetUserId() == runner->owner)
		return;

	owner = GetUserNameFromId(runner->owner, true);
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied to run runner \"%s\" in this session",
					runner->name),
			 errdetail("Its handler would run with the rights of the current user, who is not its owner."),
			 owner == NULL ?
			 errhint("The owner no longer exists; use actornot_set_owner.") :
			 errhint("Connect as role %s.", quote_identifier(owner))));
}
