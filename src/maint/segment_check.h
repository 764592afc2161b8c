/*
 * segment_check.h
 *	  What of a segment is pending, found by its distinct hashes.
 */
#ifndef ACT_SEGMENT_CHECK_H
#define ACT_SEGMENT_CHECK_H

#include "actornot.h"
#include "log/reader.h"
#include "log/writer.h"
#include "mailbox/mailbox.h"

/* One look at a segment's messages, with one snapshot. */
typedef struct SegmentCheck
{
	int			number;
	const Segment *row;
	Snapshot	snapshot;
	MailboxTable mailboxes;
	MessageReader messages;
	int64	   *collisions;		/* hashes that two entities share */
	int			ncollisions;
	MemoryContext hash_context; /* reset after each hash */
	Mailbox		mailbox;		/* of the last message's entity, if loaded */
	bool		loaded;
	bool		walking;		/* from hash to hash */
	uint64		bytes;			/* of the pending messages that were met */
	uint64		limit;			/* more need not be counted */
	MessageWriter *writer;		/* where they are copied to; NULL: nowhere */
} SegmentCheck;

extern void act_segment_check_open(SegmentCheck *check, int number,
								   const Segment *row);
extern void act_segment_check_close(SegmentCheck *check);
extern bool act_segment_check_next(SegmentCheck *check, int64 from, int64 *hash,
								   LogEntry *first);
extern void act_segment_check_hash(SegmentCheck *check, int64 hash,
								   const LogEntry *first);

#endif							/* ACT_SEGMENT_CHECK_H */
