/*
 * tid_cache.c
 *	  The last known places of mailbox rows, in shared memory.
 *
 * A mailbox that a worker loads was most often written by another worker a
 * moment ago.  So each process says where it has found or put the row of an
 * entity (block and offset, its TID), and the next one looks there before it
 * searches the index.
 *
 * An answer is a hint: the row may be another one's by now, or gone.  The
 * reader verifies what it finds there.
 *
 * Locks: none; each place is one atomic number.  Memory: an array of a fixed
 * size, twice as many places as the ready queue has entries.  Failure: after
 * a crash it is empty.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "port/atomics.h"
#include "port/pg_bitutils.h"
#include "storage/shmem.h"

#include "mailbox/tid_cache.h"
#include "sched/hints.h"

typedef struct TidCache
{
	/* Immutable. */
	uint32		mask;

	/*
	 * Atomic. Block (32 bits), offset (16) and a tag of the key (16); 0:
	 * nothing.
	 */
	pg_atomic_uint64 tids[FLEXIBLE_ARRAY_MEMBER];
} TidCache;

/* NULL without shared_preload_libraries. */
static TidCache *cache = NULL;

static uint32
count_places(void)
{
	return pg_nextpower2_32((uint32) act_readyq_size() * 2);
}

Size
act_tid_cache_shmem_size(void)
{
	return add_size(offsetof(TidCache, tids),
					mul_size(count_places(), sizeof(pg_atomic_uint64)));
}

/* The caller holds AddinShmemInitLock. */
void
act_tid_cache_shmem_init(void)
{
	bool		found;

	cache = ShmemInitStruct("actornot places of mailboxes",
							act_tid_cache_shmem_size(), &found);
	if (found)
		return;
	cache->mask = count_places() - 1;
	for (uint32 i = 0; i <= cache->mask; i++)
		pg_atomic_init_u64(&cache->tids[i], 0);
}

/*
 * The array has a place for each hash and keeps whatever was put there last.
 * A tag sorts out most of the others' places; the reader verifies the rest.
 */
static pg_atomic_uint64 *
find_place(Oid database, const EntityKey *key, uint16 *tag)
{
	uint64		hash;

	hash = ((uint64) key->check << 32) |
		((uint32) key->runner ^ (database * 0x9E3779B1U));
	hash = hash_combine64((uint64) key->hash, hash);

	/* Spread every bit over all of them (the end of MurmurHash3). */
	hash ^= hash >> 33;
	hash *= UINT64CONST(0xff51afd7ed558ccd);
	hash ^= hash >> 33;
	hash *= UINT64CONST(0xc4ceb9fe1a85ec53);
	hash ^= hash >> 33;
	*tag = (uint16) (hash >> 48);
	return &cache->tids[(uint32) hash & cache->mask];
}

bool
act_tid_cache_get(Oid database, const EntityKey *key, ItemPointer tid)
{
	uint16		tag;
	uint64		value;

	if (cache == NULL)
		return false;
	value = pg_atomic_read_u64(find_place(database, key, &tag));
	if ((uint16) value != tag ||
		(OffsetNumber) (value >> 16) == InvalidOffsetNumber)
		return false;
	ItemPointerSet(tid, (BlockNumber) (value >> 32),
				   (OffsetNumber) (value >> 16));
	return true;
}

void
act_tid_cache_set(Oid database, const EntityKey *key, ItemPointer tid)
{
	uint16		tag;
	pg_atomic_uint64 *place;

	if (cache == NULL)
		return;
	place = find_place(database, key, &tag);
	pg_atomic_write_u64(place,
						((uint64) ItemPointerGetBlockNumber(tid) << 32) |
						((uint64) ItemPointerGetOffsetNumber(tid) << 16) |
						tag);
}
