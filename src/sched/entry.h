/*
 * entry.h
 *	  Entries of the ready queue: their states, their lists, their number.
 */
#ifndef ACT_ENTRY_H
#define ACT_ENTRY_H

#include "lib/ilist.h"

#include "actornot.h"
#include "sched/lane.h"
#include "sched/registry.h"

typedef enum EntryState
{
	ENTRY_NEW,					/* -> QUEUED, DELAYED, LENT */
	ENTRY_QUEUED,				/* -> RUNNING, LENT, gone */
	ENTRY_DELAYED,				/* -> QUEUED, LENT; gone with its database */
	ENTRY_RUNNING,				/* -> AGAIN, QUEUED, DELAYED, LENT, gone */
	ENTRY_AGAIN,				/* -> QUEUED, DELAYED, gone */
	ENTRY_LENT					/* -> QUEUED, gone */
} EntryState;

/* No padding: hashed and compared as bytes. */
typedef struct EntryKey
{
	EntityKey	entity;
	Oid			database;
	uint32		zero;
} EntryKey;

/* Guarded by the registry's lock. */
typedef struct ReadyEntry
{
	EntryKey	key;			/* hash key; immutable */
	dlist_node	node;			/* in a list of the pool or of the worker */
	dlist_node	lane_node;		/* queued: in the list of the lane */
	pairingheap_node lease_node;	/* lent: in the heap of the database */
	Pool	   *pool;
	Lane	   *lane;			/* queued: where it is listed, or NULL */
	WorkerSlot *slot;			/* while it is running */
	TimestampTz since;			/* queued since, or delayed or lent until */
	uint64		ticket;			/* of the queued: whose turn it is; kept while
								 * it is running */
	uint8		state;			/* EntryState */
	bool		posted;			/* lent, and pushed since */
	int8		delay;			/* number of the last delay, -1: none */
} ReadyEntry;

/* How many entries there can be. */
extern int	act_entry_limit;

extern void act_entry_define_settings(void);
extern Size act_entry_shmem_size(void);
extern void act_entry_shmem_init(void);

/*
 * All that follows wants the registry's lock held exclusively, and is safe in a
 * commit callback: no error, no memory, no catalogue.
 */
extern ReadyEntry *act_entry_find(Oid database, const EntityKey *entity);
extern ReadyEntry *act_entry_add(const EntityKey *entity, Pool *pool);
extern void act_entry_remove(ReadyEntry *entry);
extern int	act_entry_count_free(void);
extern int	act_entry_room(const Pool *pool);

extern void act_entry_queue(ReadyEntry *entry, TimestampTz now);
extern void act_entry_return(ReadyEntry *entry);
extern void act_entry_delay(ReadyEntry *entry, TimestampTz now);
extern void act_entry_resume_due(Pool *pool, TimestampTz now);
extern void act_entry_requeue(ReadyEntry *entry, Pool *pool, TimestampTz now);
extern void act_entry_run(ReadyEntry *entry, WorkerSlot *slot);
extern void act_entry_repeat(ReadyEntry *entry);
extern void act_entry_release(ReadyEntry *entry);
extern void act_entry_withdraw(ReadyEntry *entry);
extern void act_entry_change_pool(ReadyEntry *entry, Pool *pool);
extern void act_entry_lend(ReadyEntry *entry, TimestampTz until);
extern ReadyEntry *act_entry_first_lent(Database *db);
extern TimestampTz act_entry_lease_alarm(Database *db, TimestampTz now);

#endif							/* ACT_ENTRY_H */
