/*
 * gate.h
 *	  What a closed gate means for a hint of the ready queue.
 */
#ifndef ACT_GATE_H
#define ACT_GATE_H

#include "actornot.h"

/* What is done with a hint whose entity was looked at. */
typedef enum HintVerdict
{
	HINT_DROP,					/* what ends this state queues it again */
	HINT_AGAIN,					/* behind the others */
	HINT_DELAY,					/* later, the delay doubles */
	HINT_LEND,					/* until the lease has ended */
	HINT_MOVE					/* to another pool */
} HintVerdict;

extern HintVerdict act_gate_verdict(Gate gate);

#endif							/* ACT_GATE_H */
