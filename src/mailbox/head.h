/*
 * head.h
 *	  What a transaction needs to work on entities, and a mailbox's head.
 */
#ifndef ACT_HEAD_H
#define ACT_HEAD_H

#include "common/cursor.h"
#include "log/reader.h"
#include "mailbox/mailbox.h"

/* What a transaction needs to work on entities. */
typedef struct RunContext
{
	MemoryContext entity_context;	/* reset after each entity */
	MemoryContext batch_context;	/* its child, reset after each batch */
	Snapshot	snapshot;
	Cursor		now;
	MailboxTable mailboxes;
	MessageReader messages;
	bool		collided;		/* this hash was noted as shared */
	int64		collided_hash;
} RunContext;

extern void act_head_check_isolation(void);
extern void act_head_open(RunContext *work);
extern void act_head_close(RunContext *work);

extern void act_head_pin(Mailbox *mailbox, const Cursor *target);
extern void act_head_advance(Mailbox *mailbox, const Cursor *target,
							 int64 last_id, bool consumed, bool complete);
extern bool act_head_fetch(RunContext *work, Mailbox *mailbox,
						   const LogEntry *entry, MessageRow *row);
extern bool act_head_find(RunContext *work, Mailbox *mailbox,
						  const Cursor *target, MessageRow *row);
extern bool act_head_take(RunContext *work, Mailbox *mailbox,
						  const Cursor *target, MessageRow *row);

#endif							/* ACT_HEAD_H */
