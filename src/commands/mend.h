/*
 * mend.h
 *	  Reading and mending entities by hand.
 */
#ifndef ACT_MEND_H
#define ACT_MEND_H

#include "actornot.h"
#include "runner/runner.h"

/* Messages that wait: of an entity, or of all of them if it is NULL. */
extern int64 act_mend_pending(const Runner *runner, const char *entity);

#endif							/* ACT_MEND_H */
