/*
 * log_walk.h
 *	  Reading all of the log, block by block, in pieces.
 */
#ifndef ACT_LOG_WALK_H
#define ACT_LOG_WALK_H

#include "storage/block.h"

#include "actornot.h"
#include "log/reader.h"
#include "log/segment.h"

/* A place in the log, in the order of the segments' turns. */
typedef struct LogPlace
{
	int64		turn;
	int			segment;
	BlockNumber block;			/* the next one; backward: it is before this */
	bool		within;			/* the segment is not finished */
} LogPlace;

/* Looks at a message; false ends the piece in front of it. */
typedef bool (*LogWalkFunction) (void *arg, const MessageRow *row);

typedef struct LogWalk
{
	bool		backward;
	bool		may_wait;		/* for the lock of a segment */
	bool		bounded;		/* not beyond these blocks */
	BlockNumber end[ACT_SEGMENTS];
	LogPlace	at;				/* where it is, or has been last */
	int			narrow;			/* how many blocks are read one at a time */
	LogWalkFunction function;
	void	   *arg;
	/* of the present piece */
	Snapshot	snapshot;
	const Segment *ring;		/* as the snapshot sees it */
	int			blocks;			/* how many are still read */
	TimestampTz until;			/* the piece ends; DT_NOEND: as it will */
	bool		stopped;		/* by the function */
	bool		locked;			/* the segment is, by an administrator */
} LogWalk;

extern void act_log_walk_rewind(LogWalk *walk);
extern void act_log_walk_end_here(LogWalk *walk);
extern bool act_log_walk_step(LogWalk *walk);
extern bool act_log_walk_skip_block(LogWalk *walk);

#endif							/* ACT_LOG_WALK_H */
