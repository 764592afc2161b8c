/*
 * crashmark.h
 *	  Marks on disk: what each worker was about to run when the server died.
 */
#ifndef ACT_CRASHMARK_H
#define ACT_CRASHMARK_H

#include "actornot.h"

/* The most entities of one mark; more than that are not marked. */
#define ACT_MARK_MAX 1024

extern Size act_crashmark_shmem_size(void);
extern void act_crashmark_shmem_init(void);

/*
 * For workers: what is going to be run, all in one database; and that it is
 * over.  "alone": a suspect in its turn.
 */
extern void act_crashmark_set(Oid database, const EntityKey *keys, int nkeys,
							  bool alone);
extern void act_crashmark_clear(void);

/* For workers, instead of SignalHandlerForCrashExit. */
extern void act_crashmark_handle_quit(SIGNAL_ARGS);

/*
 * The process is going to end because of what is marked: suspect it.  It is
 * also suspected if the process ends with an error in a call (which is told
 * here) and no other process asked for that: the sender of a SIGTERM is told
 * as well.
 */
extern void act_crashmark_blame_at_exit(void);
extern void act_crashmark_note_call(bool open);
extern void act_crashmark_note_term(int sender);

/*
 * Was the entity being run when the server, or its worker, went down?
 * "was_alone", if not NULL: in its last turn alone, by the process that crashed.
 * Costs nothing while there are no suspects.
 */
extern bool act_crashmark_is_suspect(Oid database, const EntityKey *key,
									 bool *was_alone);
extern void act_crashmark_acquit(Oid database, const EntityKey *key);

/* Suspects are run one at a time in the cluster. */
extern bool act_crashmark_try_suspect_turn(void);
extern void act_crashmark_end_suspect_turn(void);

#endif							/* ACT_CRASHMARK_H */
