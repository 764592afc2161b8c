/*
 * index.h
 *	  Indexes of our tables that are not of our making.
 */
#ifndef ACT_INDEX_H
#define ACT_INDEX_H

#include "executor/tuptable.h"
#include "utils/rel.h"

#include "actornot.h"

/* The indexes of a table but for some, opened for entering rows. */
typedef struct OtherIndexes OtherIndexes;

extern OtherIndexes *act_index_open_others(Relation heap, const Oid *ours,
										   int nours);
extern void act_index_enter_others(OtherIndexes *others,
								   TupleTableSlot *slot,
								   bool only_summarizing);
extern void act_index_close_others(OtherIndexes *others);

#endif							/* ACT_INDEX_H */
