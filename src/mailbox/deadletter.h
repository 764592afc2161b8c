/*
 * deadletter.h
 *	  The table of messages given up.
 */
#ifndef ACT_DEADLETTER_H
#define ACT_DEADLETTER_H

#include "common/subxact.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "runner/runner.h"

extern int64 act_deadletter_bury_head(RunContext *work, Mailbox *mailbox,
									  const Runner *runner,
									  const Failure *failure);

#endif							/* ACT_DEADLETTER_H */
