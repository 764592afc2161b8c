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

#endif							/* ACTORNOT_H */
