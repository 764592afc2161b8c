/*
 * head.h
 *	  What a transaction needs to work on entities, and a mailbox's head.
 */
#ifndef ACT_HEAD_H
#define ACT_HEAD_H

#include "common/cursor.h"
#include "log/reader.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"

/* What a transaction needs to work on entities. */
typedef struct RunContext
{
	MemoryContext visit_context;	/* reset after each visit */
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

extern void act_head_consume(Mailbox *mailbox, int64 last_id);
extern void act_head_pin(Mailbox *mailbox, const Cursor *target);
extern void act_head_finish_target(Mailbox *mailbox, const Cursor *target);
extern void act_head_finish_empty(RunContext *work, Mailbox *mailbox);
extern bool act_head_fetch(RunContext *work, Mailbox *mailbox,
						   const PendingItem *item, MessageRow *row);
extern bool act_head_find_head(RunContext *work, Mailbox *mailbox,
							   const Cursor *target, MessageRow *row);

#endif							/* ACT_HEAD_H */
