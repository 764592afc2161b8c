/*
 * work.h
 *	  What a transaction needs to work on entities, and a mailbox's head.
 */
#ifndef ACT_WORK_H
#define ACT_WORK_H

#include "common/cursor.h"
#include "log/reader.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"

/* What a transaction needs to work on entities. */
typedef struct BatchWork
{
	MemoryContext visit_context;	/* reset after each visit */
	MemoryContext batch_context;	/* its child, reset after each batch */
	Snapshot	snapshot;
	Cursor		now;
	MailboxTable mailboxes;
	MessageReader messages;
	bool		collided;		/* this hash was noted as shared */
	int64		collided_hash;
} BatchWork;

extern void act_work_check_isolation(void);
extern void act_work_open(BatchWork *work);
extern void act_work_close(BatchWork *work);

extern void act_work_consume(Mailbox *mailbox, int64 last_id);
extern void act_work_pin(Mailbox *mailbox, const Cursor *target);
extern void act_work_finish_target(Mailbox *mailbox, const Cursor *target);
extern void act_work_finish_empty(BatchWork *work, Mailbox *mailbox);
extern bool act_work_fetch(BatchWork *work, Mailbox *mailbox,
						   const PendingItem *item, MessageRow *row);
extern bool act_work_find_head(BatchWork *work, Mailbox *mailbox,
							   const Cursor *target, MessageRow *row);

#endif							/* ACT_WORK_H */
