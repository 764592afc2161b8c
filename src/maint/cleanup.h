/*
 * cleanup.h
 *	  Removing the rows of entities that have ended.
 */
#ifndef ACT_CLEANUP_H
#define ACT_CLEANUP_H

#include "storage/block.h"

#include "actornot.h"

typedef struct Cleanup Cleanup;

extern Cleanup *act_cleanup_begin(MemoryContext context);
extern void act_cleanup_note_emptied(Cleanup *cleanup, int segments);
extern bool act_cleanup_is_due(const Cleanup *cleanup);
extern void act_cleanup_step(Cleanup *cleanup);
extern BlockNumber act_cleanup_skip_piece(Cleanup *cleanup);

#endif							/* ACT_CLEANUP_H */
