/*
 * cursor.h
 *	  What a mailbox has consumed: a snapshot on the clock of ticks.
 */
#ifndef ACT_CURSOR_H
#define ACT_CURSOR_H

#include "utils/snapshot.h"

#include "actornot.h"

/*
 * "Everything that is settled in it": ticks below xmax that are not in xip.
 * xip is sorted, without duplicates, each below xmax.
 */
typedef struct Cursor
{
	uint64		xmax;
	int			nxip;
	uint64	   *xip;
} Cursor;

#define ACT_CURSOR_NOTHING_XMAX UINT64CONST(1)

extern bool act_cursor_settled(const Cursor *cursor, uint64 tick);
extern bool act_cursor_covers(const Cursor *cursor, const Cursor *other);
extern bool act_cursor_equal(const Cursor *a, const Cursor *b);
extern void act_cursor_copy(Cursor *to, const Cursor *from);
extern void act_cursor_set_nothing(Cursor *cursor);
extern void act_cursor_from_snapshot(Cursor *cursor, Snapshot snapshot,
									 uint64 tick_offset);
extern bytea *act_cursor_pack(const Cursor *cursor);
extern void act_cursor_unpack(Cursor *cursor, const bytea *packed);

extern bytea *act_cursor_pack_numbers(const uint64 *numbers, int n);
extern int	act_cursor_unpack_numbers(const bytea *packed, uint64 **numbers);

#endif							/* ACT_CURSOR_H */
