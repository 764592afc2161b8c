/*
 * segment.h
 *	  The ring of segments: which one is written to, and what the others are.
 */
#ifndef ACT_SEGMENT_H
#define ACT_SEGMENT_H

#include "utils/rel.h"
#include "utils/snapshot.h"

#include "actornot.h"
#include "common/cursor.h"

/*
 * Where a segment is in its life:
 *		empty -> current	a move
 *		current -> left		the same move
 *		left -> sealed		no poster is left that may write to it
 *		sealed -> done		nothing in it is pending, or has a copy elsewhere
 *		done -> empty		no snapshot is left that may want to see it
 */
typedef enum SegmentState
{
	SEGMENT_EMPTY,
	SEGMENT_CURRENT,
	SEGMENT_LEFT,
	SEGMENT_SEALED,
	SEGMENT_DONE
} SegmentState;

/* A row of actornot.segment. */
typedef struct Segment
{
	SegmentState state;
	uint64		upper;			/* all of its ticks are below, from sealed on */
	int64		turn;			/* grows with each move: the order of age */
	uint64		done;			/* SEGMENT_DONE: an xid, see segment.c */
	bool		mixed;			/* look at each of its messages */
	bool		copied;			/* some have copies in later ones */
} Segment;

extern void act_segment_define_settings(void);

/*
 * Die as by kill -9 if actornot.debug_stop_at names this step.  Some tests need
 * that in the middle of what is over in an instant; a server with users must
 * not be able to.
 */
#ifdef ACTORNOT_TEST_HOOKS
extern void act_segment_stop(const char *step);
#else
#define act_segment_stop(step) ((void) (step))
#endif

extern void act_segment_read(Segment *segments, Snapshot snapshot);
extern void act_segment_read_latest(Segment *segments);

/* For posters. */
extern Relation act_segment_lock_current(int *number);
extern void act_segment_note_growth(int number, BlockNumber block,
									Size bytes);

/*
 * For rotation.  Each is a step of the protocol, in the transaction of
 * the caller; false if it cannot be taken now.
 */
extern bool act_segment_is_full(int number);
extern bool act_segment_lock_ring(void);
extern bool act_segment_move(int from);
extern bool act_segment_lock_out(int number);
extern bool act_segment_seal(int number, const Cursor *now);
extern void act_segment_mark_copied(int number);
extern bool act_segment_mark_done(int number, const Segment *checked);
extern bool act_segment_empty(int number);

/* Hashes that two entities share, as far as that has mattered. */
extern void act_segment_note_collision(int64 hash);
extern int	act_segment_read_collisions(int64 **hashes, Snapshot snapshot);

#endif							/* ACT_SEGMENT_H */
