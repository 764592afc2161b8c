/*
 * due.c
 *	  Entities whose time has come: their back-off is over.
 *
 * An entity that waits for a time has that time in its row (wake_at), and the
 * rows that have one are in an index of their own.  When a row with such a time
 * is committed, the database is told (act_database_due_at); at that time the
 * manager has the index searched from there on.
 *
 * Locks: AccessShare on the table, in the caller's transaction, whose memory
 * is used.  An error leaves nothing behind but hints that were given already.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "common/catalog.h"
#include "compat.h"
#include "mailbox/due.h"
#include "mailbox/mailbox.h"
#include "sched/hints.h"

/*
 * Queue the entities whose back-off is over, at most "max" of them, and with
 * the last one all that wake up in the same microsecond.  Those that woke up
 * before "from" have been queued already; some of them may still be there,
 * because their runner is paused.  Returns from when on the others are to be
 * queued: DT_NOEND if none waits, and a time that has passed if there were
 * more than "max".
 */
TimestampTz
act_due_push(TimestampTz from, int max)
{
	Relation	heap = table_open(act_catalog_get()->mailbox, AccessShareLock);
	Relation	index = index_open(act_catalog_get()->mailbox_wake,
								   AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	IndexScanDesc scan = act_index_beginscan(heap, index, snapshot, 1);
	TupleTableSlot *slot = table_slot_create(heap, NULL);
	ScanKeyData key;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz last = DT_NOBEGIN;
	TimestampTz next = DT_NOEND;
	int			pushed = 0;

	ScanKeyInit(&key, 1, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(from));
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		TimestampTz at;
		EntityKey	entity;
		Oid			pool;
		bool		known;

		CHECK_FOR_INTERRUPTS();
		known = act_mailbox_read_due(slot, &at, &entity, &pool);
		if (at > now || (pushed >= max && at > last))
		{
			next = at;
			break;
		}
		if (known)
		{
			act_readyq_push(MyDatabaseId, pool, &entity, 1);
			pushed++;
		}
		last = at;
	}

	ExecDropSingleTupleTableSlot(slot);
	index_endscan(scan);
	UnregisterSnapshot(snapshot);
	index_close(index, AccessShareLock);
	table_close(heap, AccessShareLock);
	return next;
}
