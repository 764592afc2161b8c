/*
 * funcargs.h
 *	  What the functions that SQL calls have in common: their arguments.
 */
#ifndef ACT_FUNCARGS_H
#define ACT_FUNCARGS_H

#include "fmgr.h"

#include "actornot.h"
#include "exec/lease.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "log/writer.h"
#include "runner/runner.h"

extern void act_funcargs_reject_null(FunctionCallInfo fcinfo, int argno,
									 const char *name);
extern void act_funcargs_check_may_write(const char *command);
extern void act_funcargs_check_entity(const char *runner, const char *entity,
									  int len);

/* The runner that the first argument names, and the entity of the second. */
extern const Runner *act_funcargs_runner(FunctionCallInfo fcinfo);
extern char *act_funcargs_entity(FunctionCallInfo fcinfo, const Runner *runner,
								 int *len, EntityKey *key);

extern const Runner *act_funcargs_owned_runner(FunctionCallInfo fcinfo);

/* Of the entity, payload and headers of a post. */
extern EntityKey act_funcargs_message(const Runner *runner, Datum entity,
									  Datum payload, Datum headers,
									  NewMessage *message);

/* Others, within limits; which of them is "name". */
extern int64 act_funcargs_interval(FunctionCallInfo fcinfo, int argno,
								   const char *name, const char *runner,
								   int64 min, int64 max);
extern int	act_funcargs_count(FunctionCallInfo fcinfo, int argno,
							   const char *name, const char *runner, int min,
							   int max);

/* An entity that a function works on. */
typedef struct NamedEntity
{
	Runner		runner;			/* a copy */
	EntityKey	key;
	char	   *entity;
	int			entity_len;
	RunContext	work;
	Mailbox		mailbox;
} NamedEntity;

extern void act_funcargs_copy_runner(const char *name, int len, Runner *copy);
extern void act_funcargs_name(FunctionCallInfo fcinfo, NamedEntity *named);
extern void act_funcargs_open(NamedEntity *named);
extern void act_funcargs_close(NamedEntity *named, bool changed, Gate gate);

/* For leases. */
#define ACT_MAX_LENT_MESSAGES 10000

extern int64 act_funcargs_lease_length(FunctionCallInfo fcinfo, int argno,
									   const Runner *runner);
extern void act_funcargs_put_lease(FunctionCallInfo fcinfo,
								   const Runner *runner, const Lease *lease);

#endif							/* ACT_FUNCARGS_H */
