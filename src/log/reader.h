/*
 * reader.h
 *	  The log: its rows, and reading all of its segments.
 */
#ifndef ACT_READER_H
#define ACT_READER_H

#include "access/genam.h"
#include "access/tableam.h"
#include "utils/rel.h"

#include "actornot.h"
#include "log/segment.h"

/* The columns of message_N. */
enum
{
	MSG_HASH = 1,
	MSG_TICK,
	MSG_ID,
	MSG_POSTED_AT,
	MSG_RUNNER,
	MSG_ENTITY,
	MSG_PAYLOAD,
	MSG_HEADERS,
	MSG_NATTS = MSG_HEADERS
};

/* A place in the order of the index of a segment: first by tick, then id. */
typedef struct LogPosition
{
	uint64		tick;
	int64		id;
} LogPosition;

static inline bool
act_position_is_before(LogPosition a, LogPosition b)
{
	return a.tick < b.tick || (a.tick == b.tick && a.id < b.id);
}

/* An index entry. */
typedef struct LogEntry
{
	LogPosition at;
	ItemPointerData tid;
	int16		segment;
} LogEntry;

/* What a message holds; entity, payload and headers point into the slot. */
typedef struct MessageRow
{
	int64		hash;
	uint64		tick;
	int64		id;
	TimestampTz posted_at;
	int32		runner;
	Datum		entity;
	Datum		payload;		/* 0 for NULL */
	Datum		headers;		/* 0 for NULL */
} MessageRow;

/* One segment, as it is read. */
typedef struct SegmentReader
{
	Relation	heap;			/* NULL: not opened */
	Relation	index;
	IndexScanDesc scan;
	IndexScanDesc walk;			/* NULL: there is none */
	TupleTableSlot *slot;		/* the message that was fetched last */
	HeapTupleData tuple;
	bool		active;			/* takes part in the present seek */
	LogEntry	head;			/* its next entry */
	ScanKeyData keys[3];
	ScanKeyData row[2];			/* members of a row comparison */
} SegmentReader;

/*
 * All segments, read with one snapshot.  The segment rows are read with that
 * very snapshot (never from an older cache), segments opened when first
 * needed and kept until the reader is closed.
 */
typedef struct MessageReader
{
	MemoryContext context;		/* of the scans */
	Snapshot	snapshot;
	bool		blocked;		/* a segment could not be locked at once */
	Segment		rows[ACT_SEGMENTS];
	SegmentReader segment[ACT_SEGMENTS];
} MessageReader;

extern void act_reader_open(MessageReader *reader, Snapshot snapshot);
extern void act_reader_close(MessageReader *reader);
extern bool act_reader_seek(MessageReader *reader, int64 hash,
							LogPosition from, uint64 below_tick);
extern bool act_reader_next(MessageReader *reader, LogEntry *entry);
extern bool act_reader_get_files(MessageReader *reader, Oid *files,
								 bool open);
extern bool act_reader_open_segment(MessageReader *reader, int number);
extern void act_reader_walk_from(MessageReader *reader, int number,
								 int64 hash);
extern bool act_reader_walk(MessageReader *reader, int number, int64 *hash,
							LogEntry *entry);
extern void act_reader_seek_in(MessageReader *reader, int number, int64 hash,
							   uint64 from_tick, uint64 below_tick);
extern bool act_reader_next_in(MessageReader *reader, int number,
							   LogEntry *entry);
extern bool act_reader_has_copy(MessageReader *reader, int64 turn,
								int64 hash, LogPosition at);
extern bool act_reader_fetch(MessageReader *reader, const LogEntry *entry,
							 MessageRow *row);
extern void act_reader_deform(TupleTableSlot *slot, MessageRow *row);


#endif							/* ACT_READER_H */
