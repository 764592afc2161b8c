/*
 * known.c
 *	  What a sweep has found out about entities.
 *
 * A sweep meets an entity with each of its messages, and wants to look up its
 * mailbox once.  So it remembers what it found, in a hash table of 32 bytes
 * an entity: of most it is enough to know that they have been reported, or
 * below which tick they are done.  The few that have more to be told (open
 * writers in their cursor, a target, a lease) get a record beside it.
 *
 * Nothing here is needed for the sweep to be right: what was forgotten is
 * looked up again.
 *
 * Memory: contexts of its own.  No more than MAX_KNOWN entities and
 * MAX_CURSOR_BYTES of records; beyond that all is forgotten.  The table
 * doubles as it grows, up to 8 MB, and for that moment takes half as much
 * again.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "actornot.h"
#include "common/cursor.h"
#include "log/reader.h"
#include "mailbox/mailbox.h"
#include "maint/known.h"

/* The table does not grow once more (fill factor 0.9 of 2^18 entries). */
#define MAX_KNOWN 235000

#define MAX_CURSOR_BYTES (8 * 1024 * 1024)

/* The table begins with so many entities. */
#define FIRST_SIZE 256

/* The hash of an entity is a good one; the rest only has to be mixed in. */
static inline uint32
hash_key(const EntityKey *key)
{
	uint64		hash = (uint64) key->hash;

	return (uint32) (hash ^ (hash >> 32)) ^ key->check ^ (uint32) key->runner;
}

static inline bool
keys_equal(const EntityKey *a, const EntityKey *b)
{
	return a->hash == b->hash && a->check == b->check &&
		a->runner == b->runner;
}

#define SH_PREFIX knownhash
#define SH_ELEMENT_TYPE KnownEntity
#define SH_KEY_TYPE EntityKey
#define SH_KEY key
#define SH_HASH_KEY(tb, key) hash_key(&(key))
#define SH_EQUAL(tb, a, b) keys_equal(&(a), &(b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct KnownTable
{
	MemoryContext context;		/* of the table */
	MemoryContext cursors;		/* of the records */
	knownhash_hash *entities;
	Size		cursor_bytes;
};

/*
 * Make an empty one, to live as long as the context.
 */
KnownTable *
act_known_begin(MemoryContext parent)
{
	KnownTable *table = MemoryContextAlloc(parent, sizeof(KnownTable));

	table->context = AllocSetContextCreate(parent,
										   "actornot entities seen by the sweep",
										   ALLOCSET_DEFAULT_SIZES);
	table->cursors = AllocSetContextCreate(table->context,
										   "actornot cursors seen by the sweep",
										   ALLOCSET_DEFAULT_SIZES);
	table->entities = knownhash_create(table->context, FIRST_SIZE, NULL);
	table->cursor_bytes = 0;
	return table;
}

void
act_known_end(KnownTable *table)
{
	MemoryContextDelete(table->context);
	pfree(table);
}

/*
 * Forget everything.  A table that is to be filled again keeps its size; to
 * clear one that was hardly used would cost more than to make another.
 */
void
act_known_forget(KnownTable *table)
{
	MemoryContextReset(table->cursors);
	table->cursor_bytes = 0;
	if (table->entities->members > table->entities->size / 8)
		knownhash_reset(table->entities);
	else
	{
		knownhash_destroy(table->entities);
		table->entities = knownhash_create(table->context, FIRST_SIZE, NULL);
	}
}

/*
 * Find an entity, or enter it as KNOWN_NOTHING.  Valid until the next call.
 */
KnownEntity *
act_known_enter(KnownTable *table, const EntityKey *key)
{
	KnownEntity *known;
	bool		found;

	if (table->entities->members >= MAX_KNOWN ||
		table->cursor_bytes >= MAX_CURSOR_BYTES)
		act_known_forget(table);
	known = knownhash_insert(table->entities, *key, &found);
	if (!found)
		known->state = KNOWN_NOTHING;
	return known;
}

/*
 * Remember how far a mailbox has come, and whether it is lent.
 */
void
act_known_note(KnownTable *table, KnownEntity *known, const Mailbox *mailbox)
{
	MemoryContext old;
	KnownCursor *cursor;
	bool		leased = act_mailbox_is_leased(mailbox);

	if (mailbox->done.nxip == 0 && !mailbox->has_target && !leased)
	{
		known->state = KNOWN_BELOW;
		known->is.below = mailbox->done.xmax;
		return;
	}

	old = MemoryContextSwitchTo(table->cursors);
	cursor = palloc0(sizeof(KnownCursor));
	act_cursor_copy(&cursor->done, &mailbox->done);
	cursor->has_target = mailbox->has_target;
	if (mailbox->has_target)
		act_cursor_copy(&cursor->target, &mailbox->target);
	cursor->last_id = mailbox->last_id;
	cursor->leased_until = leased ? mailbox->lease_until : 0;
	MemoryContextSwitchTo(old);

	table->cursor_bytes += sizeof(KnownCursor) +
		sizeof(uint64) * (cursor->done.nxip + cursor->target.nxip);
	known->state = KNOWN_CURSOR;
	known->is.cursor = cursor;
}

/*
 * Has this message, which the sweep's snapshot sees, been consumed?
 */
bool
act_known_is_consumed(const KnownEntity *known, const MessageRow *row)
{
	const KnownCursor *cursor = known->is.cursor;

	if (known->state == KNOWN_BELOW)
		return row->tick < known->is.below;
	if (known->state != KNOWN_CURSOR)
		return false;
	return act_cursor_settled(&cursor->done, row->tick) ||
		(cursor->has_target && row->id <= cursor->last_id &&
		 act_cursor_settled(&cursor->target, row->tick));
}

/*
 * 0 if it is not lent.
 */
TimestampTz
act_known_leased_until(const KnownEntity *known)
{
	return known->state == KNOWN_CURSOR ? known->is.cursor->leased_until : 0;
}
