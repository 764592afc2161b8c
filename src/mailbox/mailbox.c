/*
 * mailbox.c
 *	  Mailboxes: the one row of an entity.
 *
 * Each change of a row is made under the entity's lock (entity.c).
 *
 * The row is saved flat under a held snapshot, when its dead versions stay:
 *	- it is found by a hint of its last known place in shared memory, which
 *	  is verified, instead of by an index that leads to all versions;
 *	- a reader without a hint, or with one to a version that its snapshot does
 *	  not see yet, reads the index backward: equal keys are in the order of
 *	  their places, and a table whose versions all stay only grows, so the last
 *	  one is found first.
 *	- its key never changes and the entity's lock is held, so an update that
 *	  is not heap-only enters the key's index with UNIQUE_CHECK_NO, for
 *	  checking would walk every dead version.  Only the first insert checks.
 *
 * Not the Catalog* helpers: they assert on partial indexes.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "common/catalog.h"
#include "compat.h"
#include "mailbox/mailbox.h"
#include "mailbox/tid_cache.h"
#include "runner/runner.h"
#include "sched/hints.h"

/* The columns of mailbox. */
enum
{
	MB_HASH = 1,
	MB_LAST_ID,
	MB_WAKE_AT,
	MB_LEASE_TOKEN,
	MB_LEASE_UNTIL,
	MB_LEASE_LAST_ID,
	MB_CREATED_AT,
	MB_UPDATED_AT,
	MB_RUNNER,
	MB_ATTEMPTS,
	MB_CRASHES,
	MB_PAUSED,
	MB_ENTITY,
	MB_DONE,
	MB_TARGET,
	MB_PLAN,
	MB_STATE,
	MB_LAST_ERROR,
	MB_LEASE_OWNER,
	MB_LEASE_ALL,
	MB_NATTS = MB_LEASE_ALL
};

/*
 * Open the table: with RowExclusiveLock for changes too, or, for reading only,
 * with AccessShareLock, which does not keep the clock from being advanced, also
 * by this transaction itself.  The caller then sets the registered snapshot
 * that it reads with.
 */
void
act_mailbox_open(MailboxTable *table, LOCKMODE mode)
{
	const Catalog *catalog;
	Oid			ours[2];

	table->context = CurrentMemoryContext;
	table->heap = table_open(act_catalog_get()->mailbox, mode);

	/*
	 * What messages are looked for in comes with the same snapshot, and has
	 * to be locked before it, too: REPACK (CONCURRENTLY) hides the rows from
	 * older snapshots.
	 */
	table->ring = act_catalog_get()->segment;
	LockRelationOid(table->ring, AccessShareLock);
	/* Only now: an index may have been replaced before we had the lock. */
	catalog = act_catalog_get();
	ours[0] = catalog->mailbox_key;
	ours[1] = catalog->mailbox_wake;
	table->key_index = index_open(ours[0], mode);
	table->wake_index = index_open(ours[1], mode);
	table->others = mode == AccessShareLock ? NULL :
		act_index_open_others(table->heap, ours, lengthof(ours));
	table->fetched = table_slot_create(table->heap, NULL);
	table->written = MakeSingleTupleTableSlot(RelationGetDescr(table->heap),
											  &TTSOpsVirtual);
	table->snapshot = InvalidSnapshot;
	table->without_state = false;
	table->nblocks = 0;
	table->scan = NULL;
}

/*
 * Close it; the locks on it stay until the transaction ends.
 */
void
act_mailbox_close(MailboxTable *table)
{
	if (table->scan != NULL)
		index_endscan(table->scan);
	ExecDropSingleTupleTableSlot(table->fetched);
	ExecDropSingleTupleTableSlot(table->written);
	act_index_close_others(table->others);
	index_close(table->wake_index, NoLock);
	index_close(table->key_index, NoLock);
	table_close(table->heap, NoLock);
	UnlockRelationOid(table->ring, AccessShareLock);
}

/*
 * Make the mailbox of an entity that has no row yet.  "entity" may be NULL
 * when only the key is known.
 */
void
act_mailbox_init(Mailbox *mailbox, const EntityKey *key,
				 const char *entity, int entity_len)
{
	MemSet(mailbox, 0, sizeof(Mailbox));
	mailbox->key = *key;
	if (entity != NULL)
	{
		mailbox->entity = pnstrdup(entity, entity_len);
		mailbox->entity_len = entity_len;
	}
	act_cursor_set_nothing(&mailbox->done);
}

/*
 * Is it the mailbox of that entity?  As far as the key says, if the mailbox
 * does not know its name yet.
 */
bool
act_mailbox_is_of(const Mailbox *mailbox, int32 runner_id, const text *entity)
{
	const char *name = VARDATA_ANY(entity);
	int			len = VARSIZE_ANY_EXHDR(entity);
	const Runner *runner;

	if (mailbox->key.runner != runner_id)
		return false;
	if (mailbox->entity != NULL)
		return len == mailbox->entity_len &&
			memcmp(name, mailbox->entity, len) == 0;
	runner = act_runner_find(runner_id);
	return runner != NULL &&
		act_runner_key(runner, name, len).check == mailbox->key.check;
}

/*
 * Has it consumed a message of its entity?
 */
bool
act_mailbox_has_consumed(const Mailbox *mailbox, uint64 tick, int64 id)
{
	return act_cursor_settled(&mailbox->done, tick) ||
		(mailbox->has_target && id <= mailbox->last_id &&
		 act_cursor_settled(&mailbox->target, tick));
}

/*
 * Is the fetched row the one of this mailbox?
 */
static bool
slot_is_mailbox(TupleTableSlot *slot, const Mailbox *mailbox)
{
	slot_getsomeattrs(slot, MB_ENTITY);
	return DatumGetInt64(slot->tts_values[MB_HASH - 1]) == mailbox->key.hash &&
		act_mailbox_is_of(mailbox,
						  DatumGetInt32(slot->tts_values[MB_RUNNER - 1]),
						  DatumGetTextPP(slot->tts_values[MB_ENTITY - 1]));
}

static Datum
copy_varlena(Datum value)
{
	return PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
}

/* Columns that are 0 or NULL in memory where they are NULL in the row. */
static int64
get_number(TupleTableSlot *slot, int attno)
{
	return slot->tts_isnull[attno - 1] ? 0 :
		DatumGetInt64(slot->tts_values[attno - 1]);
}

static char *
get_string(TupleTableSlot *slot, int attno)
{
	return slot->tts_isnull[attno - 1] ? NULL :
		TextDatumGetCString(slot->tts_values[attno - 1]);
}

static void
set_number(TupleTableSlot *slot, int attno, int64 value)
{
	slot->tts_values[attno - 1] = Int64GetDatum(value);
	slot->tts_isnull[attno - 1] = (value == 0);
}

static void
set_pointer(TupleTableSlot *slot, int attno, const void *value)
{
	slot->tts_values[attno - 1] = PointerGetDatum(value);
	slot->tts_isnull[attno - 1] = (value == NULL);
}

static void
set_string(TupleTableSlot *slot, int attno, const char *value)
{
	set_pointer(slot, attno, value == NULL ? NULL : cstring_to_text(value));
}

/*
 * Take the columns out of the slot, into the current memory context.
 */
static void
deform_mailbox(TupleTableSlot *slot, Mailbox *mailbox, bool without_state)
{
	Datum	   *values = slot->tts_values;
	bool	   *nulls = slot->tts_isnull;
	text	   *entity;

	slot_getallattrs(slot);
	mailbox->exists = true;
	mailbox->tid = slot->tts_tid;

	if (mailbox->entity == NULL)
	{
		entity = DatumGetTextPP(values[MB_ENTITY - 1]);
		mailbox->entity_len = VARSIZE_ANY_EXHDR(entity);
		mailbox->entity = pnstrdup(VARDATA_ANY(entity), mailbox->entity_len);
	}

	act_cursor_unpack(&mailbox->done,
					  (bytea *) PG_DETOAST_DATUM_PACKED(values[MB_DONE - 1]));
	mailbox->has_target = !nulls[MB_TARGET - 1];
	if (mailbox->has_target)
		act_cursor_unpack(&mailbox->target,
						  (bytea *) PG_DETOAST_DATUM_PACKED(values[MB_TARGET - 1]));
	mailbox->plan = nulls[MB_PLAN - 1] ? NULL :
		(bytea *) DatumGetPointer(copy_varlena(values[MB_PLAN - 1]));
	mailbox->last_id = DatumGetInt64(values[MB_LAST_ID - 1]);

	mailbox->had_state = !nulls[MB_STATE - 1];
	mailbox->state = nulls[MB_STATE - 1] || without_state ? (Datum) 0 :
		copy_varlena(values[MB_STATE - 1]);
	mailbox->attempts = DatumGetInt32(values[MB_ATTEMPTS - 1]);
	mailbox->crashes = DatumGetInt32(values[MB_CRASHES - 1]);
	mailbox->last_error = get_string(slot, MB_LAST_ERROR);
	mailbox->wake_at = get_number(slot, MB_WAKE_AT);
	mailbox->lease_token = get_number(slot, MB_LEASE_TOKEN);
	mailbox->lease_until = get_number(slot, MB_LEASE_UNTIL);
	mailbox->lease_last_id = get_number(slot, MB_LEASE_LAST_ID);
	mailbox->lease_owner = get_string(slot, MB_LEASE_OWNER);
	mailbox->lease_all = !nulls[MB_LEASE_ALL - 1] &&
		DatumGetBool(values[MB_LEASE_ALL - 1]);
	mailbox->paused = DatumGetBool(values[MB_PAUSED - 1]);
	mailbox->created_at = DatumGetTimestampTz(values[MB_CREATED_AT - 1]);
	mailbox->updated_at = DatumGetTimestampTz(values[MB_UPDATED_AT - 1]);
}

/*
 * Find the row at the place that the hint names.
 */
static bool
fetch_by_hint(MailboxTable *table, const Mailbox *mailbox)
{
	ItemPointerData tid;

	if (!act_tid_cache_get(MyDatabaseId, &mailbox->key, &tid))
		return false;
	/* A hint may be older than a TRUNCATE or VACUUM FULL. */
	if (ItemPointerGetBlockNumberNoCheck(&tid) >= table->nblocks)
	{
		table->nblocks = RelationGetNumberOfBlocks(table->heap);
		if (ItemPointerGetBlockNumberNoCheck(&tid) >= table->nblocks)
			return false;
	}
	if (!table_tuple_fetch_row_version(table->heap, &tid, table->snapshot,
									   table->fetched))
		return false;
	return slot_is_mailbox(table->fetched, mailbox);
}

/*
 * Find the row by its key.
 */
static bool
fetch_by_key(MailboxTable *table, const Mailbox *mailbox)
{
	ScanKeyData keys[2];
	bool		found = false;
	MemoryContext old = MemoryContextSwitchTo(table->context);

	if (table->scan == NULL)
		table->scan = act_index_beginscan(table->heap, table->key_index,
										  table->snapshot, 2);
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(mailbox->key.hash));
	ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(mailbox->key.runner));
	index_rescan(table->scan, keys, 2, NULL, 0);
	while (!found && index_getnext_slot(table->scan, BackwardScanDirection,
										table->fetched))
		found = slot_is_mailbox(table->fetched, mailbox);
	MemoryContextSwitchTo(old);
	return found;
}

/*
 * Load the row of a mailbox made by act_mailbox_init.  False if there is
 * none; the mailbox is then that of an entity that has consumed nothing.
 * To change the row afterwards the entity's lock must have been taken before
 * the table's snapshot.
 */
bool
act_mailbox_load(MailboxTable *table, Mailbox *mailbox)
{
	if (!fetch_by_hint(table, mailbox))
	{
		if (!fetch_by_key(table, mailbox))
		{
			ExecClearTuple(table->fetched);
			return false;
		}
		act_tid_cache_set(MyDatabaseId, &mailbox->key,
						  &table->fetched->tts_tid);
	}
	deform_mailbox(table->fetched, mailbox, table->without_state);
	ExecClearTuple(table->fetched);
	return true;
}

/*
 * Put a mailbox into the slot for writing.
 */
static void
form_mailbox(TupleTableSlot *slot, Mailbox *mailbox)
{
	TimestampTz now = GetCurrentTimestamp();
	Datum	   *values = slot->tts_values;

	ExecClearTuple(slot);
	memset(slot->tts_isnull, true,
		   slot->tts_tupleDescriptor->natts * sizeof(bool));
	memset(slot->tts_isnull, false, MB_NATTS * sizeof(bool));
	if (!mailbox->exists)
		mailbox->created_at = now;

	values[MB_HASH - 1] = Int64GetDatum(mailbox->key.hash);
	values[MB_RUNNER - 1] = Int32GetDatum(mailbox->key.runner);
	values[MB_ENTITY - 1] =
		PointerGetDatum(cstring_to_text_with_len(mailbox->entity,
												 mailbox->entity_len));
	values[MB_DONE - 1] = PointerGetDatum(act_cursor_pack(&mailbox->done));
	set_pointer(slot, MB_TARGET, mailbox->has_target ?
				act_cursor_pack(&mailbox->target) : NULL);
	set_pointer(slot, MB_PLAN, mailbox->plan);
	values[MB_LAST_ID - 1] = Int64GetDatum(mailbox->last_id);
	set_pointer(slot, MB_STATE, DatumGetPointer(mailbox->state));
	values[MB_ATTEMPTS - 1] = Int32GetDatum(mailbox->attempts);
	values[MB_CRASHES - 1] = Int32GetDatum(mailbox->crashes);
	set_string(slot, MB_LAST_ERROR, mailbox->last_error);
	set_number(slot, MB_WAKE_AT, mailbox->wake_at);
	set_number(slot, MB_LEASE_TOKEN, mailbox->lease_token);
	set_number(slot, MB_LEASE_UNTIL, mailbox->lease_until);
	set_number(slot, MB_LEASE_LAST_ID, mailbox->lease_last_id);
	set_string(slot, MB_LEASE_OWNER, mailbox->lease_owner);
	values[MB_LEASE_ALL - 1] = BoolGetDatum(mailbox->lease_all);
	slot->tts_isnull[MB_LEASE_ALL - 1] = !mailbox->lease_all;
	values[MB_PAUSED - 1] = BoolGetDatum(mailbox->paused);
	values[MB_CREATED_AT - 1] = TimestampTzGetDatum(mailbox->created_at);
	values[MB_UPDATED_AT - 1] = TimestampTzGetDatum(now);
	ExecStoreVirtualTuple(slot);
}

/*
 * Enter a row version into the indexes.
 */
static void
enter_indexes(MailboxTable *table, Mailbox *mailbox, bool is_update)
{
	TupleTableSlot *slot = table->written;
	bool		no_nulls[3] = {false, false, false};
	Datum		values[3];

	values[0] = slot->tts_values[MB_HASH - 1];
	values[1] = slot->tts_values[MB_RUNNER - 1];
	values[2] = slot->tts_values[MB_ENTITY - 1];
	index_insert(table->key_index, values, no_nulls, &slot->tts_tid,
				 table->heap, is_update ? UNIQUE_CHECK_NO : UNIQUE_CHECK_YES,
				 is_update, NULL);
	if (mailbox->wake_at != 0)
		index_insert(table->wake_index, &slot->tts_values[MB_WAKE_AT - 1],
					 no_nulls, &slot->tts_tid, table->heap, UNIQUE_CHECK_NO,
					 false, NULL);
	if (table->others != NULL)
		act_index_enter_others(table->others, slot, false);
}

/*
 * Write an existing row.  Each change of a row is made under the entity's
 * lock, so only direct DML of a superuser can be in the way.
 */
static void
update_row(MailboxTable *table, Mailbox *mailbox)
{
	TM_FailureData failure;
	LockTupleMode mode;
	TM_Result	result;
	ActUpdateIndexes update_indexes;

	result = act_table_tuple_update(table->heap, &mailbox->tid, table->written,
									GetCurrentCommandId(true), table->snapshot,
									&failure, &mode, &update_indexes);
	if (result != TM_Ok)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not save entity \"%s\" due to concurrent change of its row",
						mailbox->entity)));
	if (act_concerns_indexes(update_indexes))
		enter_indexes(table, mailbox, true);
	else if (table->others != NULL && act_concerns_any_index(update_indexes))
		act_index_enter_others(table->others, table->written, true);
}

/*
 * Triggers are not fired here.  A program that relies on one, as pg_repack
 * does, would lose what is saved meanwhile.
 */
static void
refuse_row_triggers(Relation heap)
{
	TriggerDesc *triggers = heap->trigdesc;

	if (likely(triggers == NULL))
		return;
	for (int i = 0; i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (TRIGGER_FOR_ROW(trigger->tgtype) &&
			trigger->tgenabled != TRIGGER_DISABLED &&
			trigger->tgenabled != TRIGGER_FIRES_ON_REPLICA)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot save mailboxes while table \"%s\" has trigger \"%s\"",
							"actornot.mailbox", trigger->tgname),
					 errdetail("Mailboxes are saved without firing triggers."),
					 errhint("Drop the trigger; do not use pg_repack on this table.")));
	}
}

/*
 * Save a mailbox: its row is inserted or updated, and seen by the commands
 * that follow in this transaction.  The entity's lock is held.
 */
void
act_mailbox_save(MailboxTable *table, Mailbox *mailbox)
{
	Assert(!table->without_state);
	refuse_row_triggers(table->heap);
	act_catalog_check_columns(table->heap, MB_NATTS);
	form_mailbox(table->written, mailbox);
	if (mailbox->exists)
		update_row(table, mailbox);
	else
	{
		table_tuple_insert(table->heap, table->written,
						   GetCurrentCommandId(true), 0, NULL);
		enter_indexes(table, mailbox, false);
		mailbox->exists = true;
	}
	mailbox->tid = table->written->tts_tid;
	act_tid_cache_set(MyDatabaseId, &mailbox->key, &mailbox->tid);
	ExecClearTuple(table->written);
	CommandCounterIncrement();
}

/*
 * Remove a version of a row; false if it is not the last one any more.  The
 * entity's lock is held.
 */
bool
act_mailbox_delete(MailboxTable *table, ItemPointer tid)
{
	TM_FailureData failure;

	return act_table_tuple_delete(table->heap, tid, GetCurrentCommandId(true),
								  table->snapshot, &failure) == TM_Ok;
}

struct MailboxWalk
{
	MailboxTable *table;
	TableScanDesc scan;			/* NULL: there are no such blocks */
	BlockNumber end;
	bool		last;			/* the table ends there, too */
	bool		finished;
	BlockNumber block;			/* of the last row */
};

/*
 * Read the rows in some blocks, as the table's snapshot sees them.
 */
MailboxWalk *
act_mailbox_begin_walk(MailboxTable *table, BlockNumber from,
					   BlockNumber nblocks)
{
	MailboxWalk *walk = palloc0(sizeof(MailboxWalk));
	BlockNumber all = RelationGetNumberOfBlocks(table->heap);
	ItemPointerData first,
				last;

	walk->table = table;
	walk->end = Min(from + nblocks, all);
	walk->last = (walk->end >= all);
	walk->finished = (from >= walk->end);
	if (walk->finished)
		return walk;
	ItemPointerSet(&first, from, FirstOffsetNumber);
	ItemPointerSet(&last, walk->end - 1, MaxOffsetNumber);
	walk->scan = act_table_beginscan_tidrange(table->heap, table->snapshot,
											  &first, &last);
	return walk;
}

/*
 * The next row, in the current memory context; without the check hash.
 */
bool
act_mailbox_walk(MailboxWalk *walk, Mailbox *mailbox)
{
	TupleTableSlot *slot = walk->table->fetched;

	if (walk->finished ||
		!table_scan_getnextslot_tidrange(walk->scan, ForwardScanDirection,
										 slot))
	{
		walk->finished = true;
		return false;
	}
	MemSet(mailbox, 0, sizeof(Mailbox));
	deform_mailbox(slot, mailbox, walk->table->without_state);
	mailbox->key.hash = DatumGetInt64(slot->tts_values[MB_HASH - 1]);
	mailbox->key.runner = DatumGetInt32(slot->tts_values[MB_RUNNER - 1]);
	walk->block = ItemPointerGetBlockNumber(&slot->tts_tid);
	return true;
}

/*
 * True if there is more of the table, from *next on; that is a block that was
 * begun, if the walk was left in it.
 */
bool
act_mailbox_end_walk(MailboxWalk *walk, BlockNumber *next)
{
	bool		more = !walk->finished || !walk->last;

	*next = walk->finished ? walk->end : walk->block;
	ExecClearTuple(walk->table->fetched);
	if (walk->scan != NULL)
		table_endscan(walk->scan);
	pfree(walk);
	return more;
}

/*
 * Is the entity lent to a program outside, by the server's clock?
 */
bool
act_mailbox_is_leased(const Mailbox *mailbox)
{
	return mailbox->lease_until != 0 &&
		mailbox->lease_until > GetCurrentTimestamp();
}

/*
 * No program outside holds it any more.  The token stays: the next one is
 * larger.
 */
void
act_mailbox_end_lease(Mailbox *mailbox)
{
	mailbox->lease_until = 0;
	mailbox->lease_last_id = 0;
	mailbox->lease_all = false;
	mailbox->lease_owner = NULL;
}

/*
 * When does the entity of a row wake up, and whose is it?  False if it has no
 * runner any more; *wake_at is set anyway.
 */
bool
act_mailbox_read_due(TupleTableSlot *slot, TimestampTz *wake_at,
					 EntityKey *key, Oid *pool)
{
	const Runner *runner;

	slot_getsomeattrs(slot, MB_ENTITY);
	*wake_at = DatumGetTimestampTz(slot->tts_values[MB_WAKE_AT - 1]);
	runner = act_runner_find(DatumGetInt32(slot->tts_values[MB_RUNNER - 1]));
	if (runner == NULL)
		return false;
	*pool = act_runner_pool(runner);
	return act_runner_stored_key(runner,
								 DatumGetTextPP(slot->tts_values[MB_ENTITY - 1]),
								 DatumGetInt64(slot->tts_values[MB_HASH - 1]),
								 key);
}

/*
 * Does it wait for the end of a back-off?  The time is told to the database
 * again, because what was told before can be lost.
 */
static bool
backs_off(const Mailbox *mailbox)
{
	if (mailbox->wake_at == 0 || mailbox->wake_at <= GetCurrentTimestamp())
		return false;
	act_database_due_at(MyDatabaseId, mailbox->wake_at);
	return true;
}

/*
 * Why the entity cannot be run now, as far as its row says.
 */
Gate
act_mailbox_gate(const Mailbox *mailbox)
{
	if (act_mailbox_is_leased(mailbox))
		return GATE_LEASED;
	if (mailbox->paused)
		return GATE_ENTITY_PAUSED;
	if (backs_off(mailbox))
		return GATE_BACK_OFF;
	return GATE_OPEN;
}
