/*
 * found.h
 *	  What a sweep has found, on its way into the ready queue.
 */
#ifndef ACT_FOUND_H
#define ACT_FOUND_H

#include "actornot.h"

typedef struct Found Found;

extern Found *act_found_begin(MemoryContext context);
extern void act_found_end(Found *found);
extern void act_found_queue(Found *found, Oid owner, const EntityKey *key,
							bool leased);
extern void act_found_flush(Found *found);
extern bool act_found_keep(Found *found, Oid owner, const EntityKey *key,
						   bool leased);
extern bool act_found_keeps(const Found *found);
extern void act_found_sort(Found *found);
extern Oid	act_found_queue_kept(Found *found);
extern void act_found_hand_over(Found *found, Oid owner, Found *to);

#endif							/* ACT_FOUND_H */
