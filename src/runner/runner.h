/*
 * runner.h
 *	  Runners: a registered name, its handler, owner and settings.
 */
#ifndef ACT_RUNNER_H
#define ACT_RUNNER_H

#include "utils/timestamp.h"

#include "actornot.h"

/*
 * A row of actornot.runner, as cached by this backend.
 *
 * The struct itself stays where it is as long as the backend lives, so a
 * pointer to it never dangles.  What is in it changes whenever
 * act_runner_get(), act_runner_lookup() or act_runner_find() is called after
 * an invalidation, and then what handler, runnable, grants and initial_state
 * pointed to is freed: copy those that must outlive such a call (a handler's
 * call, for instance, since the handler may post).
 */
typedef struct Runner
{
	int32		id;				/* hash key of the cache by id */
	char		name[ACT_MAX_RUNNER_BYTES + 1];
	int			name_len;
	Oid			owner;
	bool		public_may_post;
	int			ngrants;
	Oid		   *grants;			/* roles that may post */
	char	   *handler;		/* qualified name, or NULL */
	Oid			handler_owner;
	char	   *runnable;		/* qualified name, or NULL */
	Oid			runnable_owner;
	int			batch_size;
	int			batch_bytes;
	int			max_attempts;	/* 0: for ever */
	int64		retry_delay;	/* microseconds */
	int64		retry_delay_max;	/* microseconds */
	int			timeout;		/* milliseconds, 0: none */
	int64		lease;			/* microseconds */
	Datum		initial_state;	/* jsonb, detoasted, or 0 when NULL */
	bool		paused;
	uint64		version;		/* of the rows, when this one was read */
} Runner;

/* By name: NULL runner name is the caller's business.  Error 42704. */
extern const Runner *act_runner_get(const char *name, int len);

/* The same, but NULL if there is none. */
extern const Runner *act_runner_lookup(const char *name, int len);

/* By number: NULL if it is unknown or was unregistered. */
extern const Runner *act_runner_find(int32 id);

extern bool act_runner_is_gone(int32 id);

/* What keeps its entities from running; the runner may be NULL. */
extern Gate act_runner_gate(const Runner *runner);

/*
 * The key of an entity of a runner, and that of one whose hash is stored:
 * false if that was made of another runner's name.
 */
extern EntityKey act_runner_key(const Runner *runner, const char *entity,
								int len);
extern bool act_runner_stored_key(const Runner *runner, const text *entity,
								  int64 hash, EntityKey *key);

/* Whose workers run it: the owner's, or InvalidOid if it has no handler. */
static inline Oid
act_runner_pool(const Runner *runner)
{
	return runner->handler != NULL ? runner->owner : InvalidOid;
}

/* Error 42501 unless the current user may post / is (has the rights of) the owner. */
extern void act_runner_check_post(const Runner *runner);
extern void act_runner_check_rights(const Runner *runner);
extern void act_runner_check_is_owner(const Runner *runner);

/* For registration: false if it has no length in microseconds. */
extern bool act_runner_interval_us(const Interval *interval, int64 *us);

#endif							/* ACT_RUNNER_H */
