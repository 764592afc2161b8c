/*
 * gate.c
 *	  What a closed gate means for a hint of the ready queue.
 *
 * A hint may be dropped only on good evidence: something is sure to queue the
 * entity again when the state that holds it up ends.  This table is the one
 * place that says for which states that is so, and what queues it.
 *
 * GATE_EMPTY counts only if nothing was pending under a target that was taken
 * after the hint had been taken off the queue; a look that is older is no
 * evidence (the caller says GATE_OPEN then, which queues it again).
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
