/*
 * bloom.c
 *	  Hashes of which a sealed segment has nothing.
 *
 * An entity that is visited for the first time is looked for in each segment
 * that is not done.  Where millions wait, each in one of many segments, most of
 * these descents of an index find nothing, and they are most of the work.  So
 * when a process has made that many of them in one segment that reading its whole
 * index costs no more, it reads that, once, and remembers all hashes in a Bloom
 * filter (the server's own, lib/bloomfilter.c).
 *
 * That nothing of a hash is there is a fact about the index, visible or not,
 * and true for every snapshot: nobody writes to a segment that is sealed until
 * it is current again, with another turn.  Only what is brought from
 * elsewhere may come to it, and then it is marked as mixed; such segments are
 * not asked for here.
 *
 * Memory: 1 or 2 MB for each segment of which so much was asked, in a context
 * of its own.  It goes when the process sees the segment in another state.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "lib/bloomfilter.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "actornot.h"
#include "common/catalog.h"
#include "compat.h"
#include "log/bloom.h"

/* Entries in a page of the index of a segment, rather too many. */
#define ENTRIES_PER_BLOCK 256

/* How many entries are read in the time of a look that finds nothing. */
#define ENTRIES_PER_DESCENT 32

/* How many looks find nothing before a filter is made, at least. */
#define MIN_VAIN 10000

/* The largest filter, in kB, and for how many hashes it is good: 4 bits each. */
#define MAX_FILTER 2048
#define MAX_HASHES (MAX_FILTER * INT64CONST(1024) * 8 / 4)

/* What is known of a segment. */
typedef struct BloomFilter
{
	Oid			indexid;		/* tells one installation from the next */
	int64		turn;
	int64		vain;			/* so often nothing was found */
	int64		limit;			/* worth a filter then; 0: not yet known */
	MemoryContext context;		/* NULL, or holds what follows */
	bloom_filter *filter;		/* NULL, or complete */
} BloomFilter;

static BloomFilter absences[ACT_SEGMENTS];

static bool
is_of(const BloomFilter *absence, int number, int64 turn)
{
	return absence->turn == turn &&
		absence->indexid == act_catalog_get()->message_key[number];
}

void
act_bloom_forget(int number)
{
	BloomFilter *absence = &absences[number];

	/* Asked for with each batch. */
	if (!OidIsValid(absence->indexid))
		return;
	if (absence->context != NULL)
		MemoryContextDelete(absence->context);
	memset(absence, 0, sizeof(BloomFilter));
}

/*
 * Is it known that a sealed segment has nothing of a hash?
 */
bool
act_bloom_is_known(int number, int64 turn, int64 hash)
{
	BloomFilter *absence = &absences[number];

	return absence->filter != NULL && is_of(absence, number, turn) &&
		bloom_lacks_element(absence->filter, (unsigned char *) &hash,
							sizeof(hash));
}

/*
 * Read all hashes of an index.
 */
static void
make_filter(BloomFilter *absence, int64 entries, Relation heap, Relation index)
{
	IndexScanDesc scan;
	bloom_filter *filter;
	MemoryContext old;
	int64		last = 0;
	bool		first = true;

	absence->context = AllocSetContextCreate(TopMemoryContext,
											 "actornot absent hashes",
											 ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(absence->context);
	filter = bloom_create(entries, MAX_FILTER, 0);
	MemoryContextSwitchTo(old);

	scan = act_index_beginscan(heap, index, SnapshotAny, 0);
	scan->xs_want_itup = true;
	index_rescan(scan, NULL, 0, NULL, 0);
	while (index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		bool		isnull;
		int64		hash = DatumGetInt64(index_getattr(scan->xs_itup, 1,
													   scan->xs_itupdesc,
													   &isnull));

		CHECK_FOR_INTERRUPTS();
		if (first || hash != last)
			bloom_add_element(filter, (unsigned char *) &hash, sizeof(hash));
		first = false;
		last = hash;
	}
	index_endscan(scan);
	absence->filter = filter;
}

/*
 * An entity was looked for in a sealed segment, which is open, and not found.
 */
void
act_bloom_note_vain(int number, int64 turn, Relation heap, Relation index)
{
	BloomFilter *absence = &absences[number];
	int64		entries;

	if (!is_of(absence, number, turn))
	{
		act_bloom_forget(number);
		absence->indexid = RelationGetRelid(index);
		absence->turn = turn;
	}
	if (absence->filter != NULL || ++absence->vain < Max(absence->limit,
														 MIN_VAIN))
		return;

	/* A failed try, which can be an interrupt, has left a context. */
	if (absence->context != NULL)
		MemoryContextDelete(absence->context);
	absence->context = NULL;
	entries = (int64) RelationGetNumberOfBlocks(index) * ENTRIES_PER_BLOCK;
	absence->limit = entries / ENTRIES_PER_DESCENT;
	if (entries > MAX_HASHES)
		absence->limit = PG_INT64_MAX;
	if (absence->vain >= absence->limit)
		make_filter(absence, entries, heap, index);
}
