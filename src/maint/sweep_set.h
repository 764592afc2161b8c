/*
 * sweep_set.h
 *	  What a sweep has found out about entities, and keeps for the ready queue.
 */
#ifndef ACT_SWEEP_SET_H
#define ACT_SWEEP_SET_H

#include "actornot.h"
#include "common/cursor.h"
#include "log/reader.h"
#include "mailbox/mailbox.h"

typedef struct SweepSet SweepSet;

typedef enum KnownState
{
	KNOWN_NOTHING,				/* just entered, nothing is known yet */
	KNOWN_BELOW,				/* done below a tick, not lent */
	KNOWN_CURSOR,				/* done as a cursor says, or lent */
	KNOWN_REPORTED,				/* nothing more to be found out */
	KNOWN_IGNORED				/* it waits for something that queues it */
} KnownState;

/* For entities of which a tick does not say it all. */
typedef struct KnownCursor
{
	bool		has_target;
	Cursor		done;
	Cursor		target;
	int64		last_id;
	TimestampTz leased_until;	/* 0: not leased */
} KnownCursor;

/*
 * As small as can be: there is one for each entity, and the sweep looks here
 * with each message, in the cache that the workers use, too.
 */
typedef struct KnownEntity
{
	EntityKey	key;
	union
	{
		uint64		below;		/* KNOWN_BELOW */
		KnownCursor *cursor;	/* KNOWN_CURSOR */
	}			is;
	uint8		state;			/* a KnownState */
	char		status;			/* of the hash table */
} KnownEntity;

extern SweepSet *act_sweep_set_begin(MemoryContext parent);
extern void act_sweep_set_end(SweepSet *set);
extern void act_sweep_set_forget(SweepSet *set);
extern KnownEntity *act_sweep_set_enter(SweepSet *set, const EntityKey *key);
extern void act_sweep_set_note(SweepSet *set, KnownEntity *known,
							   const Mailbox *mailbox);
extern bool act_sweep_set_is_consumed(const KnownEntity *known,
									  const MessageRow *row);
extern TimestampTz act_sweep_set_leased_until(const KnownEntity *known);

extern void act_sweep_set_begin_piece(SweepSet *set, int max, bool may_keep);
extern void act_sweep_set_end_piece(SweepSet *set);
extern bool act_sweep_set_offer(SweepSet *set, Oid pool,
								const KnownEntity *known);
extern bool act_sweep_set_is_used_up(const SweepSet *set);
extern Oid	act_sweep_set_full_pool(const SweepSet *set);
extern bool act_sweep_set_keeps(const SweepSet *set);
extern void act_sweep_set_queue_kept(SweepSet *set);
extern void act_sweep_set_drop_kept(SweepSet *set);

#endif							/* ACT_SWEEP_SET_H */
