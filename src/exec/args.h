/*
 * args.h
 *	  The arguments of handlers, and the answers for many entities.
 */
#ifndef ACT_ARGS_H
#define ACT_ARGS_H

#include "access/tupdesc.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "exec/call.h"
#include "log/reader.h"
#include "runner/handler.h"

/* An array of composites, while it is being built. */
typedef struct ArrayArgument
{
	Oid			type;			/* of its elements */
	TupleDesc	desc;
	int			n;
	char	   *data;
	Size		used;
	Size		size;
} ArrayArgument;

extern void act_args_begin_array(ArrayArgument *array, Oid type);
extern void act_args_add_element(ArrayArgument *array, Datum *values,
								 bool *nulls);
extern Datum act_args_array_value(ArrayArgument *array);
extern void act_args_end_array(ArrayArgument *array);

/* The argument "messages", while it is being built. */
typedef struct MessagesArgument
{
	bool		is_jsonb;
	int			nmessages;
	Size		bytes;			/* of what the messages hold */
	int64		first_id;
	int64		last_id;
	ArrayArgument array;
	ActJsonbState json;
} MessagesArgument;

extern void act_args_begin_messages(MessagesArgument *messages,
									HandlerForm form);
extern void act_args_clear_messages(MessagesArgument *messages);
extern Size act_args_message_size(Datum payload, Datum headers);
extern void act_args_add_message(MessagesArgument *messages,
								 const MessageRow *row, int attempt);
extern Datum act_args_end_messages(MessagesArgument *messages);

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

extern void act_args_begin_call(WholeCall *call);
extern Size act_args_entity_size(const MessagesArgument *messages, Datum state);
extern void act_args_add_entity(WholeCall *call, const char *entity,
								int entity_len, Datum state,
								MessagesArgument *messages);
extern void act_args_call_many(WholeCall *call, CallFrame *frame,
							   FmgrInfo *flinfo, MemoryContext context);

#endif							/* ACT_ARGS_H */
