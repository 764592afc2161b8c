/*
 * entity_admin.h
 *	  Reading and mending entities by hand.
 */
#ifndef ACT_ENTITY_ADMIN_H
#define ACT_ENTITY_ADMIN_H

#include "actornot.h"
#include "runner/runner.h"

/* Messages that wait: of an entity, or of all of them if it is NULL. */
extern int64 act_entity_admin_pending(const Runner *runner, const char *entity);

#endif							/* ACT_ENTITY_ADMIN_H */
