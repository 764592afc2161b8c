/*
 * sweep.h
 *	  Finding the entities with pending messages from the tables.
 */
#ifndef ACT_SWEEP_H
#define ACT_SWEEP_H

#include "nodes/pg_list.h"
#include "storage/block.h"

#include "actornot.h"
#include "log/reader.h"
#include "log/segment.h"
#include "mailbox/mailbox.h"

/*
 * What to do with an entity that has pending messages.  "owner" is the pool,
 * see readyq.h; "leased_until" is 0 unless it is lent to a program outside.
 * Returns whether it counts as found.
 */
typedef bool (*SweepFunction) (void *arg, Oid owner, TimestampTz leased_until,
							   const EntityKey *key,
							   const char *entity, int entity_len);

/* A place in the log, in the order of the segments' turns. */
typedef struct LogPlace
{
	int64		turn;
	int			segment;
	BlockNumber block;			/* the next one; backward: it is before this */
	bool		within;			/* the segment is not finished */
} LogPlace;

typedef struct Sweep
{
	MemoryContext context;
	SweepFunction function;
	void	   *arg;
	int32		runner;			/* 0: all */
	bool		every_message;	/* call for each pending message */
	bool		backward;		/* else each piece looks up entities anew */
	List	   *only;			/* entities of these pools alone; NIL: all */
	List	   *except;			/* and not of these */
	bool		bounded;		/* not beyond these blocks */
	BlockNumber end[ACT_SEGMENTS];
	LogPlace	at;				/* where it is, or has been last */
	int			narrow;			/* how many blocks are read one at a time */
	struct KnownEntities *known;
	/* of the present piece */
	MemoryContext look_context; /* reset after each look at a mailbox */
	MailboxTable mailboxes;
	MessageReader messages;		/* for the ring, and for copies */
	int			blocks;			/* how many are still read */
	TimestampTz until;			/* the piece ends; DT_NOEND: as it will */
	int			found;			/* by the function */
	int			max;			/* find no more than this */
	bool		full;			/* there was one more than could be taken */
	bool		refused;		/* so says the function of this one */
	bool		locked;			/* the segment is, by an administrator */
} Sweep;

/* How many blocks a piece reads at most before it lets the caller commit. */
#define ACT_SWEEP_BLOCKS 8192

extern Sweep *act_sweep_begin(MemoryContext context, int32 runner,
							  SweepFunction function, void *arg);
extern void act_sweep_end_here(Sweep *sweep);
extern bool act_sweep_step(Sweep *sweep, int max);
extern void act_sweep_end(Sweep *sweep);
extern int64 act_sweep_count(int32 runner);

/* For the ready queue. */
extern void act_sweep_rewind(Sweep *sweep);
extern bool act_sweep_read(Sweep *sweep, int max, int blocks,
						   TimestampTz until);
extern void act_sweep_forget(Sweep *sweep);
extern bool act_sweep_skip_block(Sweep *sweep);

#endif							/* ACT_SWEEP_H */
