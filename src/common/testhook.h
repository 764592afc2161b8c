/*
 * testhook.h
 *	  What only builds for tests can do: die at a step, share hashes.
 *
 * Compiled with ACTORNOT_TEST_HOOKS, as scripts/test does; in all other builds
 * there are neither the functions nor the settings.
 */
#ifndef ACT_TESTHOOK_H
#define ACT_TESTHOOK_H

#ifdef ACTORNOT_TEST_HOOKS

extern void act_testhook_define_settings(void);

/* Die as by kill -9 if actornot.debug_stop_at names this step. */
extern void act_testhook_stop(const char *step);

/* As many bits of an entity's hash as actornot.debug_hash_bits says. */
extern uint64 act_testhook_hash(uint64 hash);

#else

static inline void
act_testhook_define_settings(void)
{
}

static inline void
act_testhook_stop(const char *step)
{
}

static inline uint64
act_testhook_hash(uint64 hash)
{
	return hash;
}

#endif							/* ACTORNOT_TEST_HOOKS */

#endif							/* ACT_TESTHOOK_H */
