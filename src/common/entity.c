/*
 * entity.c
 *	  The lock of an entity, and which batches are open in this backend.
 *
 * The lock is a transaction-level advisory lock on (database, hash), in a
 * lock-tag class of its own, so that the server itself releases it whatever
 * happens to the holder.  Each change of a mailbox's row is made under it.
 *
 * It is re-entrant for the server, and that must not let anybody in: while a
 * batch of a hash is open in this backend, each further call that takes the
 * same lock fails (55006).  The stack of open runs is cut back by whoever
 * catches an error (act_entity_end_run).
 *
 * Memory: the stack, in TopMemoryContext; it never shrinks.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/memutils.h"

#include "actornot.h"
#include "common/entity.h"

/* A batch that is open in this backend. */
typedef struct OpenRun
{
	int64		hash;
	int32		runner;
} OpenRun;

/*
 * The batches that are open in this backend, innermost last: those that it
 * runs and those that it has locked to run them next.
 */
static OpenRun *open_runs = NULL;
static int	open_runs_size = 0;
static int	open_runs_depth = 0;

/* Did a call fail because its entity was locked only to be run next? */
static bool collided = false;

static void
set_tag(LOCKTAG *tag, int64 hash)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, ACT_LOCK_CLASS);
}

/*
 * Is a batch of this hash open in this backend?
 */
bool
act_entity_is_open(int64 hash)
{
	for (int i = 0; i < open_runs_depth; i++)
	{
		if (open_runs[i].hash == hash)
			return true;
	}
	return false;
}

/*
 * Error 55006 if it is.
 */
void
act_entity_check_closed(int64 hash, const char *runner, const char *entity)
{
	if (!act_entity_is_open(hash))
		return;
	collided = true;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("entity \"%s\" of runner \"%s\" is being run by this very session",
					entity, runner),
			 errdetail("A handler cannot run, lock or change an entity whose batch is open in its own session."),
			 errhint("Post a message to it instead.")));
}

/*
 * Error 55006 if a batch of any entity of this runner is open in this backend.
 */
void
act_entity_check_runner(int32 runner, const char *name)
{
	for (int i = 0; i < open_runs_depth; i++)
	{
		if (open_runs[i].runner != runner)
			continue;
		collided = true;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("runner \"%s\" is being run by this very session",
						name),
				 errhint("Let another session do this.")));
	}
}

/*
 * Take the lock of an entity until the end of the (sub)transaction; false if
 * somebody else has it and we are not to wait.  Callers that a handler can
 * reach ask act_entity_check_closed before.
 */
bool
act_entity_take(int64 hash, bool wait)
{
	LOCKTAG		tag;

	set_tag(&tag, hash);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Give back what the last call has taken in this (sub)transaction; what this
 * transaction had before, it keeps.  Nothing must have been changed under it.
 */
void
act_entity_give_back(int64 hash)
{
	LOCKTAG		tag;

	set_tag(&tag, hash);
	LockRelease(&tag, ExclusiveLock, false);
}

/*
 * How many runs are open; to be given back to act_entity_end_run.
 */
int
act_entity_depth(void)
{
	return open_runs_depth;
}

/*
 * From now on this backend runs the entity, whose lock it holds.
 */
void
act_entity_begin_run(int64 hash, int32 runner)
{
	if (open_runs_depth == open_runs_size)
	{
		int			size = Max(64, open_runs_size * 2);

		if (open_runs == NULL)
			open_runs = MemoryContextAlloc(TopMemoryContext,
										   sizeof(OpenRun) * size);
		else
			open_runs = repalloc(open_runs, sizeof(OpenRun) * size);
		open_runs_size = size;
	}
	open_runs[open_runs_depth].hash = hash;
	open_runs[open_runs_depth++].runner = runner;
}

/*
 * Forget the runs above a depth; whoever catches an error calls it, too.
 */
void
act_entity_end_run(int depth)
{
	Assert(depth <= open_runs_depth);
	open_runs_depth = depth;
	if (depth == 0)
		collided = false;
}

/*
 * Has a call met an open run (and perhaps swallowed the error) since the
 * outermost run began?
 */
bool
act_entity_collided(void)
{
	return collided;
}
