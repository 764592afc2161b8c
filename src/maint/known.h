/*
 * known.h
 *	  What a sweep has found out about entities.
 */
#ifndef ACT_KNOWN_H
#define ACT_KNOWN_H

#include "actornot.h"
#include "common/cursor.h"
#include "log/reader.h"
#include "mailbox/mailbox.h"

typedef struct KnownTable KnownTable;

typedef enum KnownState
{
	KNOWN_NOTHING,				/* just entered, nothing is known yet */
	KNOWN_BELOW,				/* done below a tick, not lent */
	KNOWN_CURSOR,				/* done as a cursor says, or lent */
	KNOWN_REPORTED,				/* nothing more to be found out */
	KNOWN_IGNORED				/* its runner is gone or does not interest, or
								 * it waits for something else */
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
 * As small as can be: there is one for each entity, and the walk is looked up
 * here with each message, in the cache that the workers use, too.
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

extern KnownTable *act_known_begin(MemoryContext parent);
extern void act_known_end(KnownTable *table);
extern void act_known_forget(KnownTable *table);
extern KnownEntity *act_known_enter(KnownTable *table, const EntityKey *key);
extern void act_known_note(KnownTable *table, KnownEntity *known,
						   const Mailbox *mailbox);
extern bool act_known_is_consumed(const KnownEntity *known,
								  const MessageRow *row);
extern TimestampTz act_known_leased_until(const KnownEntity *known);

#endif							/* ACT_KNOWN_H */
