/*
 * testhook.c
 *	  What only builds for tests can do: die at a step, share hashes.
 *
 * Some tests need a process that dies at a step that is over in an instant, or
 * two entities with one hash.  A server with users must be able to do neither,
 * so all of this is left out of their builds.
 *
 * No locks, no memory.
 */
#include "postgres.h"

#include "common/testhook.h"

#ifdef ACTORNOT_TEST_HOOKS

#include <signal.h>

#include "miscadmin.h"
#include "utils/guc.h"

/* actornot.debug_hash_bits */
static int	debug_hash_bits = 64;

/* actornot.debug_stop_at */
static char *debug_stop_at = "";

void
act_testhook_define_settings(void)
{
	DefineCustomIntVariable("actornot.debug_hash_bits",
							"How many bits of an entity's hash are used.",
							"For tests that need two entities with one hash; mailboxes made with another value are not found.",
							&debug_hash_bits, 64, 0, 64,
							PGC_SUSET,
							GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL,
							NULL, NULL, NULL);
	DefineCustomStringVariable("actornot.debug_stop_at",
							   "The step of rotation, or of advancing the clock, at which a process kills itself.",
							   "For tests of what a crash leaves behind.",
							   &debug_stop_at, "",
							   PGC_SUSET,
							   GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL,
							   NULL, NULL, NULL);
}

void
act_testhook_stop(const char *step)
{
	if (debug_stop_at[0] != '\0' && strcmp(debug_stop_at, step) == 0)
		kill(MyProcPid, SIGKILL);
}

uint64
act_testhook_hash(uint64 hash)
{
	if (debug_hash_bits < 64)
		hash &= (UINT64CONST(1) << debug_hash_bits) - 1;
	return hash;
}

#endif							/* ACTORNOT_TEST_HOOKS */
