/*
 * mailbox.h
 *	  Mailboxes: the one row of an entity.
 */
#ifndef ACT_MAILBOX_H
#define ACT_MAILBOX_H

#include "access/genam.h"
#include "executor/tuptable.h"
#include "utils/rel.h"

#include "actornot.h"
#include "common/cursor.h"
#include "common/index.h"

/* A row of actornot.mailbox, in the memory context in which it was loaded. */
typedef struct Mailbox
{
	EntityKey	key;
	char	   *entity;			/* terminated; NULL: not known yet */
	int			entity_len;

	bool		exists;			/* there is a row, at tid */
	ItemPointerData tid;

	Cursor		done;
	bool		has_target;
	Cursor		target;
	bytea	   *plan;			/* of a backlog under this target, or NULL */
	int64		last_id;

	Datum		state;			/* jsonb, not toasted, or 0 for NULL */
	bool		had_state;		/* when it was loaded, also without it */
	int			attempts;
	int			crashes;
	char	   *last_error;		/* or NULL */
	TimestampTz wake_at;		/* 0: no back-off */
	int64		lease_token;	/* 0: never leased */
	TimestampTz lease_until;	/* 0: not leased */
	int64		lease_last_id;	/* what is lent ends there; 0: nothing is */
	bool		lease_all;		/* ... and is all that was under the target */
	char	   *lease_owner;
	bool		paused;
	TimestampTz created_at;
	TimestampTz updated_at;
} Mailbox;

/* The table, opened for reading and changing rows in one transaction. */
typedef struct MailboxTable
{
	MemoryContext context;		/* of the scan */
	Oid			ring;			/* locked as long as it is open */
	Relation	heap;
	Relation	key_index;
	Relation	wake_index;
	OtherIndexes *others;
	TupleTableSlot *fetched;
	TupleTableSlot *written;
	Snapshot	snapshot;
	bool		without_state;	/* rows are only looked at */
	BlockNumber nblocks;		/* the heap has at least this many */
	IndexScanDesc scan;			/* by (hash, runner) */
} MailboxTable;

/* Some blocks of the table, read row by row. */
typedef struct MailboxWalk MailboxWalk;

extern void act_mailbox_open(MailboxTable *table, LOCKMODE mode);
extern void act_mailbox_close(MailboxTable *table);
extern void act_mailbox_init(Mailbox *mailbox, const EntityKey *key,
							 const char *entity, int entity_len);
extern bool act_mailbox_is_of(const Mailbox *mailbox, int32 runner_id,
							  const text *entity);
extern bool act_mailbox_has_consumed(const Mailbox *mailbox, uint64 tick,
									 int64 id);
extern bool act_mailbox_load(MailboxTable *table, Mailbox *mailbox);
extern void act_mailbox_save(MailboxTable *table, Mailbox *mailbox);
extern bool act_mailbox_delete(MailboxTable *table, ItemPointer tid);
extern MailboxWalk *act_mailbox_begin_walk(MailboxTable *table,
										   BlockNumber from,
										   BlockNumber nblocks);
extern bool act_mailbox_walk(MailboxWalk *walk, Mailbox *mailbox);
extern bool act_mailbox_end_walk(MailboxWalk *walk, BlockNumber *next);

extern bool act_mailbox_is_leased(const Mailbox *mailbox);
extern Gate act_mailbox_gate(const Mailbox *mailbox);
extern void act_mailbox_end_lease(Mailbox *mailbox);
extern bool act_mailbox_read_due(TupleTableSlot *slot, TimestampTz *wake_at,
								 EntityKey *key, Oid *pool);

#endif							/* ACT_MAILBOX_H */
