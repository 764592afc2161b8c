/*
 * tid_cache.h
 *	  The last known places of mailbox rows, in shared memory.
 */
#ifndef ACT_TID_CACHE_H
#define ACT_TID_CACHE_H

#include "storage/itemptr.h"

#include "actornot.h"

extern Size act_tid_cache_shmem_size(void);
extern void act_tid_cache_shmem_init(void);

/*
 * A lossy hint, to be verified on use.  False if nothing is known, as always
 * without shared_preload_libraries.
 */
extern bool act_tid_cache_get(Oid database, const EntityKey *key,
							  ItemPointer tid);
extern void act_tid_cache_set(Oid database, const EntityKey *key,
							  ItemPointer tid);

#endif							/* ACT_TID_CACHE_H */
