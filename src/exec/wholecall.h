/*
 * wholecall.h
 *	  One call of a handler that takes many entities.
 */
#ifndef ACT_WHOLECALL_H
#define ACT_WHOLECALL_H

#include "exec/args.h"
#include "exec/call.h"

/* An entity of the call, and what the handler says of it. */
typedef struct WholeEntity
{
	const char *entity;
	int			entity_len;
	bool		answered;		/* else it keeps its state */
	Datum		state;			/* the new one; 0: it has ended */
	int			next;			/* with the same hash, plus 1; 0: none */
} WholeEntity;

/* A call that is being put together. */
typedef struct WholeCall
{
	ArrayArgument batches;
	WholeEntity *entities;
	int			nentities;
	int			size;
	int			nmessages;
	Size		bytes;			/* of messages and states */
	int64		first_id;
	int64		last_id;
} WholeCall;

extern void act_wholecall_begin(WholeCall *call);
extern Size act_wholecall_size(const MessagesArgument *messages, Datum state);
extern void act_wholecall_add(WholeCall *call, const char *entity,
							  int entity_len, Datum state,
							  MessagesArgument *messages);
extern void act_wholecall_run(WholeCall *call, CallFrame *frame,
							  FmgrInfo *flinfo, MemoryContext context);

#endif							/* ACT_WHOLECALL_H */
