/*
 * catalog.h
 *	  Names to numbers: our relations and types.
 */
#ifndef ACT_CATALOG_H
#define ACT_CATALOG_H

#include "utils/rel.h"

#include "actornot.h"

/* What the extension of this database consists of. */
typedef struct Catalog
{
	Oid			extension;
	Oid			functions;		/* schema of the functions and types */
	Oid			tables;			/* schema "actornot" */
	Oid			owner;			/* of the extension's tables */
	Oid			runner;
	Oid			runner_grant;
	Oid			message[ACT_SEGMENTS];
	Oid			message_key[ACT_SEGMENTS];	/* (hash, tick, id) */
	Oid			segment;
	Oid			collision;
	Oid			mailbox;
	Oid			mailbox_key;	/* (hash, runner, entity) */
	Oid			mailbox_wake;	/* (wake_at) where wake_at is not null */
	Oid			timer;
	Oid			dead_letter;
	Oid			dedup;
	Oid			clock;
	Oid			id_seq;
	Oid			runner_seq;
	Oid			message_type;	/* composite actornot_message ... */
	Oid			message_array_type; /* ... and its array */
	Oid			batch_type;		/* composite actornot_batch ... */
	Oid			batch_array_type;	/* ... and its array */
	Oid			state_of_type;	/* composite actornot_state_of */
} Catalog;

/* Tables whose rows a room keeps in memory: see act_catalog_version(). */
typedef enum CachedRows
{
	ROWS_RUNNER,				/* runner and runner_grant */
	ROWS_CLOCK,
	ROWS_SEGMENT
} CachedRows;

#define ACT_CACHED_ROWS (ROWS_SEGMENT + 1)

/* The user switch and search_path of an administrative query. */
typedef struct OwnerContext
{
	Oid			save_userid;
	int			save_sec_context;
	int			guc_level;
} OwnerContext;

/*
 * Both are a pointer check when nothing changed, and need a transaction when
 * something did.  The pointer stays the same, what it points to may change
 * whenever invalidation messages are accepted.
 */
extern const Catalog *act_catalog_get(void);	/* error if not installed */
extern const Catalog *act_catalog_find(void);	/* NULL if not installed */

/* Grows whenever an OID of ours may have changed. */
extern uint64 act_catalog_generation(void);

/* Grows whenever the rows of these tables may have changed; never 0. */
extern uint64 act_catalog_version(CachedRows rows);

extern int	act_catalog_check_columns(Relation heap, int nours);

extern void act_catalog_become_owner(OwnerContext *context);
extern void act_catalog_restore_user(const OwnerContext *context);
extern uint64 act_catalog_execute(const char *command, int nargs,
								  const Oid *types, const Datum *values,
								  const char *nulls);
extern void act_catalog_invalidate(Oid relid);

#endif							/* ACT_CATALOG_H */
