/*
 * leftover.h
 *	  What the last visit found and did not come to.
 */
#ifndef ACT_LEFTOVER_H
#define ACT_LEFTOVER_H

#include "log/reader.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"

extern bool act_leftover_take(PendingList *taken, MessageReader *reader,
							  const Mailbox *mailbox);
extern void act_leftover_keep(const PendingList *list, MessageReader *reader,
							  const Mailbox *mailbox);

#endif							/* ACT_LEFTOVER_H */
