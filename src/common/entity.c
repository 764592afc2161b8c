/*
 * entity.c
 *	  An entity: its key, its lock, and which batches are open in this backend.
 *
 * How an entity becomes a number is known here alone.  The hash is stored,
 * dumped and routed by, so it may never change and depends on neither byte
 * order nor the version of the server.
 *
 * The lock is a transaction-level advisory lock on (database, hash), in a
 * lock-tag class of its own, so that the server itself releases it whatever
 * happens to the holder.  Each change of a mailbox's row is made under it.
 *
 * It is re-entrant for the server, and that must not let a second run in: while
 * a batch of a hash is open in this backend, each further call that takes the
 * same lock fails (55006).  The code that catches an error cuts the stack of
 * open runs back (act_entity_end_run).
 *
 * Memory: the stack, in TopMemoryContext; it never shrinks.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/guc.h"
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

#ifdef ACTORNOT_TEST_HOOKS

/* actornot.debug_hash_bits */
static int	debug_hash_bits = 64;

void
act_entity_define_settings(void)
{
	DefineCustomIntVariable("actornot.debug_hash_bits",
							"How many bits of an entity's hash are used.",
							"For tests that need two entities with one hash; mailboxes made with another value are not found.",
							&debug_hash_bits, 64, 0, 64,
							PGC_SUSET,
							GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL,
							NULL, NULL, NULL);
}

#endif							/* ACTORNOT_TEST_HOOKS */

/*
 * Two independent hashes in one pass over the name of the runner, a zero byte
 * (which no name contains) and the entity.
 *
 * "hash" is FNV-1a with 64 bits (Fowler, Noll, Vo; the offset basis and prime
 * of draft-eastlake-fnv), made even by the finalizer fmix64 of MurmurHash3
 * (Austin Appleby, public domain).  FNV goes byte by byte, so the order of
 * bytes in a word does not matter.
 *
 * "check" mixes each byte with the multiplication and rotation of
 * MurmurHash3's x86_32 body and ends with its fmix32.  The rotation matters:
 * without it the low bits of both would depend on the low bits of the input
 * in the same way, and entities that share a hash would tend to share the
 * check too.
 */
typedef struct EntityHash
{
	uint64		hash;
	uint32		check;
} EntityHash;

static inline void
hash_bytes(EntityHash *state, const char *data, int len)
{
	const unsigned char *byte = (const unsigned char *) data;
	const unsigned char *end = byte + len;
	uint64		hash = state->hash;
	uint32		check = state->check;

	for (; byte < end; byte++)
	{
		hash = (hash ^ *byte) * UINT64CONST(0x100000001b3);
		check = (check ^ *byte) * 0xcc9e2d51;
		check = (check << 15) | (check >> 17);
	}
	state->hash = hash;
	state->check = check;
}

static inline uint64
mix64(uint64 h)
{
	h ^= h >> 33;
	h *= UINT64CONST(0xff51afd7ed558ccd);
	h ^= h >> 33;
	h *= UINT64CONST(0xc4ceb9fe1a85ec53);
	h ^= h >> 33;
	return h;
}

static inline uint32
mix32(uint32 h)
{
	h ^= h >> 16;
	h *= 0x85ebca6b;
	h ^= h >> 13;
	h *= 0xc2b2ae35;
	h ^= h >> 16;
	return h;
}

static bool
is_ascii(const char *name, int len)
{
	for (int i = 0; i < len; i++)
	{
		if (IS_HIGHBIT_SET(name[i]))
			return false;
	}
	return true;
}

/*
 * A name in UTF-8, allocated; NULL if it is that already, or cannot be so.
 */
static char *
convert_name(const char *name, int len)
{
	int			encoding = GetDatabaseEncoding();
	int			room = len * MAX_CONVERSION_GROWTH + 1;
	char	   *utf8;
	Oid			procedure;

	if (likely(encoding == PG_UTF8) || encoding == PG_SQL_ASCII ||
		is_ascii(name, len))
		return NULL;
	procedure = FindDefaultConversionProc(encoding, PG_UTF8);
	if (!OidIsValid(procedure))
		return NULL;
	utf8 = palloc(room);
	if (pg_do_encoding_conversion_buf(procedure, encoding, PG_UTF8,
									  (unsigned char *) unconstify(char *, name),
									  len, (unsigned char *) utf8, room,
									  true) == len)
		return utf8;
	pfree(utf8);
	return NULL;
}

/*
 * In the hash a name counts in UTF-8, whatever the encoding of this database
 * is: a dump may be restored into one with another.  The check is not stored,
 * and tells all names apart that are different here.
 */
static void
hash_name(EntityHash *state, const char *name, int len)
{
	char	   *utf8 = convert_name(name, len);

	if (utf8 != NULL)
	{
		EntityHash	converted = *state;

		hash_bytes(&converted, utf8, strlen(utf8));
		hash_bytes(state, name, len);
		state->hash = converted.hash;
		pfree(utf8);
	}
	else
		hash_bytes(state, name, len);
}

EntityKey
act_entity_key(int32 runner, const char *runner_name, int runner_len,
			   const char *entity, int entity_len)
{
	EntityHash	state = {UINT64CONST(0xcbf29ce484222325), 0x1b873593};
	EntityKey	key;

	hash_name(&state, runner_name, runner_len);
	hash_bytes(&state, "", 1);
	hash_name(&state, entity, entity_len);

	key.hash = (int64) mix64(state.hash);
#ifdef ACTORNOT_TEST_HOOKS
	if (debug_hash_bits < 64)
		key.hash &= (UINT64CONST(1) << debug_hash_bits) - 1;
#endif
	key.runner = runner;
	key.check = mix32(state.check);
	return key;
}

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
 * another session has it and we are not to wait.  Callers that a handler can
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
 * Forget the runs above a depth; the code that catches an error calls it, too.
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
