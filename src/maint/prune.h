/*
 * prune.h
 *	  Removing the rows of entities that have ended.
 */
#ifndef ACT_PRUNE_H
#define ACT_PRUNE_H

#include "storage/block.h"

#include "actornot.h"

typedef struct Prune Prune;

extern Prune *act_prune_begin(MemoryContext context);
extern void act_prune_note_emptied(Prune *prune, int segments);
extern bool act_prune_is_due(const Prune *prune);
extern void act_prune_step(Prune *prune);
extern BlockNumber act_prune_skip_piece(Prune *prune);

#endif							/* ACT_PRUNE_H */
