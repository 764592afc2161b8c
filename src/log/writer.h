/*
 * writer.h
 *	  The log: writing to its current segment.
 */
#ifndef ACT_WRITER_H
#define ACT_WRITER_H

#include "utils/rel.h"

#include "actornot.h"
#include "common/index.h"
#include "log/reader.h"

/* What is put in; payload and headers are jsonb datums, 0 for NULL. */
typedef struct NewMessage
{
	int64		hash;
	int32		runner;
	Datum		entity;			/* text, not toasted */
	Datum		payload;
	Datum		headers;
} NewMessage;

/* The current segment, locked until the end of the transaction. */
typedef struct MessageWriter
{
	int			segment;
	Relation	heap;
	Relation	index;
	OtherIndexes *others;
	uint64		tick;
	TimestampTz posted_at;
	CommandId	command;
	Datum	   *values;			/* of a row, with columns that were dropped */
	bool	   *nulls;
} MessageWriter;

extern int64 act_writer_append(const NewMessage *message);
extern void act_writer_open(MessageWriter *writer);
extern void act_writer_append_many(MessageWriter *writer,
								   const NewMessage *messages, int n,
								   int64 *ids);
extern void act_writer_copy(MessageWriter *writer, const MessageRow *row);
extern void act_writer_close(MessageWriter *writer);

#endif							/* ACT_WRITER_H */
