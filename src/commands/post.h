/*
 * post.h
 *	  The verb "put in".
 */
#ifndef ACT_POST_H
#define ACT_POST_H

#include "actornot.h"
#include "log/reader.h"
#include "runner/runner.h"

/* The arguments that name an entity, checked (22004, 22023). */

/* Put one message in; for those who post on behalf of a user's call. */
extern int64 act_post_message(const Runner *runner, Datum entity,
							  Datum payload, Datum headers);

#endif							/* ACT_POST_H */
