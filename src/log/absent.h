/*
 * absent.h
 *	  Hashes of which a sealed segment has nothing.
 */
#ifndef ACT_ABSENT_H
#define ACT_ABSENT_H

#include "utils/rel.h"

#include "actornot.h"

/* A segment by its number and turn; the turn is that of a sealed one. */
extern bool act_absent_is_known(int number, int64 turn, int64 hash);
extern void act_absent_note_vain(int number, int64 turn, Relation heap,
								 Relation index);
extern void act_absent_forget(int number);

#endif							/* ACT_ABSENT_H */
