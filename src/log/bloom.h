/*
 * bloom.h
 *	  Hashes of which a sealed segment has nothing.
 */
#ifndef ACT_BLOOM_H
#define ACT_BLOOM_H

#include "utils/rel.h"

#include "actornot.h"

/* A segment by its number and turn; the turn is that of a sealed one. */
extern bool act_bloom_is_known(int number, int64 turn, int64 hash);
extern void act_bloom_note_vain(int number, int64 turn, Relation heap,
								Relation index);
extern void act_bloom_forget(int number);

#endif							/* ACT_BLOOM_H */
