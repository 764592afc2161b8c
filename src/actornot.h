/*
 * actornot.h
 *	  The words that every room uses; no function of any room.
 *
 * Floor 0 of the house (see src/README).  It holds what is stored or shared
 * by number: the limits, the lock class, the key of an entity, the codes of
 * our own errors.
 */
#ifndef ACTORNOT_H
#define ACTORNOT_H

#include "datatype/timestamp.h"

/* How many segments the log has; the install script makes as many tables. */
#define ACT_SEGMENTS 16

/*
 * The fourth field (objsubid) of the advisory lock tag of an entity.  1 and 2
 * are the server's own advisory locks, 4 to 15 are used by Citus.
 */
#define ACT_LOCK_CLASS 0xAC7

/*
 * Payload and headers of a message together, and of the messages that are
 * given to somebody as one jsonb, which the server bounds at 256 MB.
 */
#define ACT_MAX_JSONB_BYTES (240 * 1024 * 1024)

#define ACT_MAX_ENTITY_BYTES 1024
#define ACT_MAX_RUNNER_BYTES 255

/* Errors of our own, class 55 and 53 with the implementation's subclass. */
#define ERRCODE_ACT_STALE_LEASE MAKE_SQLSTATE('5','5','A','N','1')
#define ERRCODE_ACT_BACKLOG_FULL MAKE_SQLSTATE('5','3','A','N','1')

/*
 * An entity, by number.  "hash" is the 64-bit hash of (runner name, entity)
 * that leads every key on disk, "check" an independent 32-bit hash of the
 * same: two entities that share a hash share a lock, but not a hint.  No
 * padding, so that the struct can be hashed and compared as bytes.
 */
typedef struct EntityKey
{
	int64		hash;
	int32		runner;
	uint32		check;
} EntityKey;

/*
 * Why an entity does not run now: what a gate returns that every run, lease or
 * hint has to pass.  A gate looks at one thing and says what it found; what
 * follows from that for a hint of the ready queue is decided in one place, see
 * sched/gate.h.
 */
typedef enum Gate
{
	GATE_OPEN,					/* nothing is in its way */

	/* the server and the database */
	GATE_NOT_PRELOADED,			/* no shared memory, no process of ours */
	GATE_NO_EXTENSION,
	GATE_NOT_ADOPTED,			/* the data waits for adoption, see clock.c */
	GATE_EVICTED,				/* our processes may not be in the database */

	/* the pool of the runner's owner */
	GATE_NO_ROLE,				/* the owner is gone */
	GATE_NO_LOGIN,
	GATE_NO_CONNECT,
	GATE_NO_SLOT,				/* no worker slot is free */
	GATE_START_DELAYED,			/* its workers died at their start */

	/* the runner */
	GATE_NO_RUNNER,				/* unregistered */
	GATE_RUNNER_PAUSED,
	GATE_OTHER_POOL,			/* another owner's, or programs outside run it */

	/* the entity */
	GATE_LEASED,
	GATE_ENTITY_PAUSED,
	GATE_BACK_OFF,
	GATE_NOT_RUNNABLE,			/* "runnable" said so */
	GATE_LOCKED,				/* another executor has its lock */
	GATE_SEGMENT_LOCKED,		/* a segment of the log cannot be read now */
	GATE_SUSPECT,				/* waits for the turn to be run alone */
	GATE_NOT_SHARED,			/* may not share a transaction with others */
	GATE_FAILED,				/* its failure could not be recorded, or its
								 * head was given up before it was lent */
	GATE_EMPTY					/* nothing is pending */
} Gate;

#endif							/* ACTORNOT_H */
