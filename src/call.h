/*
 * call.h
 *	  The call of a user's function: its arguments, its limits, its rights.
 */
#ifndef ACT_CALL_H
#define ACT_CALL_H

#include "access/tupdesc.h"
#include "fmgr.h"
#include "actornot.h"
#include "message.h"
#include "runner.h"

struct JsonbParseState;

/* The argument "messages", while it is being built. */
typedef struct MessagesArgument
{
	HandlerForm form;
	int			nmessages;
	Size		bytes;			/* of what the messages hold */
	int64		first_id;
	int64		last_id;
	TupleDesc	desc;			/* of actornot_message */
	char	   *array;			/* an array under construction */
	Size		used;
	Size		size;
	struct JsonbParseState *json;
} MessagesArgument;

extern void act_call_begin_messages(MessagesArgument *messages,
									HandlerForm form);
extern Size act_call_message_size(const MessageRow *row);
extern void act_call_add_message(MessagesArgument *messages,
								 const MessageRow *row, int attempt);
extern Datum act_call_end_messages(MessagesArgument *messages);

/* For whom a function is called, and how long it may take. */
typedef struct CallFrame
{
	const char *runner;
	const char *entity;
	Oid			owner;
	int			timeout;		/* milliseconds, 0: none */
	int			nmessages;
	int64		first_id;
	int64		last_id;
	bool		fire_deferred;	/* run deferred triggers after the call */
} CallFrame;

extern Datum act_call_function(const CallFrame *frame, FmgrInfo *flinfo,
							   const NullableDatum *args, int nargs,
							   bool *isnull);
extern bool act_call_timed_out(void);

#endif							/* ACT_CALL_H */
