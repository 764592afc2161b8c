/*
 * token.c
 *	  Tokens of leases: numbers that only grow, whatever happens.
 *
 * A token is a fencing token (Kleppmann, "How to do distributed locking",
 * 2016): whoever sees a larger one knows that the smaller one is over.  So
 * none may be given twice, although the lease itself may be lost in a crash,
 * with synchronous_commit off, or at a promotion.
 *
 *		bits 48 and up	the timeline, which grows with each promotion, but never
 *						less than in the entity's last token: the data may
 *						have come from a cluster with more of them (where the
 *						entity's row is gone: than clock.timeline)
 *		bits 0 to 47	the id sequence
 *
 * The sequence writes WAL for 32 values at a time.  The values are safe once
 * that record is on disk, whoever wrote it: it may have been another backend,
 * that does not flush it soon.  So it is flushed up to the LSN of the
 * sequence's page, which is nothing to do most of the time.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "commands/sequence.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "common/catalog.h"
#include "log/token.h"

#define TIMELINE_SHIFT 48
#define ID_MASK ((INT64CONST(1) << TIMELINE_SHIFT) - 1)

int64
act_token_next(int64 previous, int32 least_timeline)
{
	int64		timeline = (int64) GetWALInsertionTimeLine();
	int64		id = nextval_internal(act_catalog_get()->id_seq, false);

	timeline = Max(timeline, previous >> TIMELINE_SHIFT);
	timeline = Max(timeline, least_timeline);

	/* A restore may have put back the sequence. */
	return Max((timeline << TIMELINE_SHIFT) | (id & ID_MASK), previous + 1);
}

int32
act_token_timeline(int64 token)
{
	return (int32) (token >> TIMELINE_SHIFT);
}

void
act_token_flush(void)
{
	Relation	seq = relation_open(act_catalog_get()->id_seq, AccessShareLock);
	Buffer		buffer = ReadBuffer(seq, 0);
	XLogRecPtr	lsn;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	lsn = PageGetLSN(BufferGetPage(buffer));
	UnlockReleaseBuffer(buffer);
	relation_close(seq, NoLock);
	XLogFlush(lsn);
}
