/*
 * call.h
 *	  The call of a user's function: its limits, its rights, its rows.
 */
#ifndef ACT_CALL_H
#define ACT_CALL_H

#include "access/tupdesc.h"
#include "fmgr.h"

/* For whom a function is called, and how long it may take. */
typedef struct CallFrame
{
	const char *runner;
	const char *entity;
	Oid			owner;
	int			timeout;		/* milliseconds, 0: none */
	int			nentities;		/* more than one: "entity" is the first */
	int			nmessages;
	int64		first_id;
	int64		last_id;
	TupleDesc	row_desc;		/* of the set that it returns; NULL: none */
	bool		fire_deferred;	/* run deferred triggers after the call */
} CallFrame;

extern Datum act_call_function(const CallFrame *frame, FmgrInfo *flinfo,
							   const NullableDatum *args, int nargs,
							   bool *isnull);
extern void act_call_add_context(void *arg);

#endif							/* ACT_CALL_H */
