/*
 * gate.c
 *	  What a closed gate means for a hint of the ready queue.
 *
 * A hint may be dropped only on good evidence: something is sure to queue the
 * entity again when the state that holds it up ends.  This table is the one
 * place that says for which states that is so, and what queues it.
 *
 * A gate is evidence only if it was found closed after the hint had been taken
 * off the queue; of an older look the caller says GATE_OPEN, which queues it
 * again.
 *	- A run (exec/batch.c): the hint is popped, then the entity locked, then
 *	  the snapshot taken.  GATE_EMPTY: nothing is pending under that snapshot.
 *	  A push in the meantime makes the entry stay whatever is said here.
 *	- actornot_acquire: the same; a push in the meantime makes a new entry.
 *	- The end of a lease (commands/holder.c): the hint is lent, and the
 *	  snapshot newer than the lease.  A push in the meantime has marked the
 *	  entry as posted, and then it is queued whatever is said here.
 * That the row says paused or backing off is good evidence, for it is read
 * under the entity's lock, which its change needs.
 *
 * No locks, no memory.
 */
#include "postgres.h"

#include "sched/gate.h"

/* The comments say what queues the entity again. */
static const HintVerdict verdicts[] = {
	[GATE_OPEN] = HINT_AGAIN,
	[GATE_NOT_PRELOADED] = HINT_DROP,	/* no queue */
	[GATE_NO_EXTENSION] = HINT_DROP,	/* the first sweep */
	[GATE_NOT_ADOPTED] = HINT_DROP, /* the first sweep */
	[GATE_EVICTED] = HINT_AGAIN,
	[GATE_NO_ROLE] = HINT_AGAIN,
	[GATE_NO_LOGIN] = HINT_AGAIN,
	[GATE_NO_CONNECT] = HINT_AGAIN,
	[GATE_NO_SLOT] = HINT_AGAIN,
	[GATE_START_DELAYED] = HINT_AGAIN,
	[GATE_NO_RUNNER] = HINT_DROP,	/* nothing: its messages are dead */
	[GATE_RUNNER_PAUSED] = HINT_DROP,	/* resume: a sweep */
	[GATE_OTHER_POOL] = HINT_MOVE,
	[GATE_LEASED] = HINT_LEND,
	[GATE_ENTITY_PAUSED] = HINT_DROP,	/* resume */
	[GATE_BACK_OFF] = HINT_DROP,	/* the manager, at its end */
	[GATE_NOT_RUNNABLE] = HINT_DROP,	/* a post, or wake */
	[GATE_LOCKED] = HINT_DELAY,
	[GATE_SEGMENT_LOCKED] = HINT_DELAY,
	[GATE_SUSPECT] = HINT_DELAY,
	[GATE_NOT_SHARED] = HINT_AGAIN,
	[GATE_FAILED] = HINT_DELAY,
	[GATE_EMPTY] = HINT_DROP,	/* the next post */
};

HintVerdict
act_gate_verdict(Gate gate)
{
	Assert(gate >= 0 && gate < lengthof(verdicts));
	return verdicts[gate];
}
