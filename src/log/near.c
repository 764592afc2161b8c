/*
 * near.c
 *	  Seeking ascending hashes in an index by walking from one to the next.
 *
 * To find an entity's entries is to descend from the index's root and to
 * search a page of it.  Entities come sorted by their hashes (found.c), and
 * where the next one is but a few entries away (by the size of the index; its
 * hashes are evenly spread) it is cheaper to walk there: a page is then read
 * once for all that it holds.  In the literature that is a finger search
 * (Guibas, McCreight, Plass and Roberts, 1977).
 *
 * The walk stands at the first entry that no seek has passed.  It serves only
 * hashes that are greater than the last one; for any other, and for one that
 * turns out to be far, the caller descends.  What is read of a page is as old
 * as the reading, which is later than the snapshot: entries that come after
 * that are not visible to it anyway.
 *
 * The walk keeps a pin on its page, which VACUUM of the index waits for: let go
 * of it before anything that may last long.
 *
 * Memory: the scan in the current context of act_near_seek, as long as it is
 * not let go.
 */
#include "postgres.h"

#include <math.h>

#include "access/nbtree.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"

#include "actornot.h"
#include "compat.h"
#include "log/near.h"

/* So many entries away is near. */
#define NEAR_ENTRIES 24

#define HASH_COLUMN 1

void
act_near_init(NearScan *near, Relation heap, Relation index,
			  int entries_per_page)
{
	MemSet(near, 0, sizeof(NearScan));
	near->heap = heap;
	near->index = index;
	near->entries_per_page = entries_per_page;
}

/*
 * Go to the next entry.
 */
void
act_near_step(NearScan *near)
{
	bool		isnull;

	near->end = (index_getnext_tid(near->scan, ForwardScanDirection) == NULL);
	if (!near->end)
		near->hash = DatumGetInt64(index_getattr(near->scan->xs_itup,
												 HASH_COLUMN,
												 near->scan->xs_itupdesc,
												 &isnull));
}

static void
start_at(NearScan *near, Snapshot snapshot, int64 hash)
{
	ScanKeyData key;

	if (near->scan == NULL)
	{
		near->scan = act_index_beginscan(near->heap, near->index, snapshot, 1);
		near->scan->xs_want_itup = true;
	}
	ScanKeyInit(&key, HASH_COLUMN, BTGreaterEqualStrategyNumber, F_INT8GE,
				Int64GetDatum(hash));
	index_rescan(near->scan, &key, 1, NULL, 0);
	near->live = true;
	act_near_step(near);
}

static bool
is_near(NearScan *near, int64 hash)
{
	if (!near->sought || hash <= near->last)
		return false;

	/* Who seeks one hash only need not know how large the index is. */
	if (near->density == 0)
		near->density = ldexp((double) RelationGetNumberOfBlocks(near->index) *
							  near->entries_per_page, -64);
	return (double) ((uint64) hash - (uint64) near->last) * near->density <=
		NEAR_ENTRIES;
}

/*
 * Go to the first entry of a hash, or, if there is none, of a greater one.
 * False if the caller is to descend instead.
 */
bool
act_near_seek(NearScan *near, Snapshot snapshot, int64 hash)
{
	bool		walk = is_near(near, hash);

	if (near->sought && hash < near->last)
		near->live = false;
	near->sought = true;
	near->last = hash;
	if (!walk)
		return false;
	if (!near->live)
		start_at(near, snapshot, hash);
	for (int i = 0; !near->end && near->hash < hash; i++)
	{
		if (i == ACT_NEAR_STEPS)
		{
			near->live = false;
			return false;
		}
		act_near_step(near);
	}
	return true;
}

/*
 * End the scan; the next one starts anew.
 */
void
act_near_let_go(NearScan *near)
{
	if (near->scan != NULL)
		index_endscan(near->scan);
	near->scan = NULL;
	near->live = false;
}
