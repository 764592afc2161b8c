/*
 * pending.h
 *	  What a mailbox has waiting: found once, and planned when it is much.
 */
#ifndef ACT_PENDING_H
#define ACT_PENDING_H

#include "log/reader.h"
#include "mailbox/mailbox.h"

/* How many entries are kept at most. */
#define ACT_PENDING_MAX 16384

/* A stretch of the log in index order; see pending.c. */
typedef struct PlanChunk
{
	LogPosition start;
	int64		min_id;
	int64		max_id;
	int64		count;
} PlanChunk;

/*
 * The pending entries with the smallest ids, in the order of their ids.
 * Whether their messages are visible is found out when they are fetched: an id
 * comes more than once where its message was copied (see rotation.c).
 */
typedef struct PendingList
{
	LogEntry   *items;
	int			nitems;
	int			next;			/* first one that was not taken */
	int64		taken_id;		/* the last one that was; copies have it too */
	int64		after_id;		/* all that there is has an id above this */
	bool		complete;		/* nothing is pending beyond these */
	int			nchunks;
	PlanChunk  *chunks;			/* of the whole backlog, NULL if small */
} PendingList;

extern bool act_pending_collect(PendingList *list, MessageReader *reader,
								const Mailbox *mailbox,
								const Cursor *target, int want);
extern bytea *act_pending_pack_plan(const PendingList *list, int64 last_id);
extern void act_pending_free(PendingList *list);
extern int64 act_pending_count(MessageReader *reader, const Mailbox *mailbox,
							   const Cursor *target,
							   bool *collided);
extern bool act_pending_take_leftover(PendingList *taken,
									  MessageReader *reader,
									  const Mailbox *mailbox);
extern void act_pending_keep_leftover(const PendingList *list,
									  MessageReader *reader,
									  const Mailbox *mailbox);

#endif							/* ACT_PENDING_H */
