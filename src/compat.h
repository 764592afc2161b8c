/*
 * compat.h
 *	  Differences between the versions of the server, in one place.
 *
 * Each macro says in which version the newer form came.
 */
#ifndef ACT_COMPAT_H
#define ACT_COMPAT_H

/* 16: VARDATA() and the like are no longer in postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/*
 * 16: object_aclcheck() and object_ownercheck() replaced those of each kind
 * of object; who uses them includes catalog/pg_{proc,database,extension}.h.
 */
#if PG_VERSION_NUM >= 160000
#define act_function_aclcheck(function, role, mode) \
	object_aclcheck(ProcedureRelationId, function, role, mode)
#define act_database_aclcheck(database, role, mode) \
	object_aclcheck(DatabaseRelationId, database, role, mode)
#define act_database_ownercheck(database, role) \
	object_ownercheck(DatabaseRelationId, database, role)
#define act_extension_ownercheck(extension, role) \
	object_ownercheck(ExtensionRelationId, extension, role)
#else
#define act_function_aclcheck(function, role, mode) \
	pg_proc_aclcheck(function, role, mode)
#define act_database_aclcheck(database, role, mode) \
	pg_database_aclcheck(database, role, mode)
#define act_database_ownercheck(database, role) \
	pg_database_ownercheck(database, role)
#define act_extension_ownercheck(extension, role) \
	pg_extension_ownercheck(extension, role)
#endif

/* 16: giving something to a role takes the right to SET ROLE to it. */
#if PG_VERSION_NUM >= 160000
#define act_can_set_role(member, role) member_can_set_role(member, role)
#else
#define act_can_set_role(member, role) is_member_of_role(member, role)
#endif

/* 16: files are called locators, and their numbers numbers. */
#if PG_VERSION_NUM >= 160000
#define act_file_of(rel) ((rel)->rd_locator)
#define act_file_number(rel) ((rel)->rd_locator.relNumber)
#else
#define act_file_of(rel) ((rel)->rd_node)
#define act_file_number(rel) ((rel)->rd_node.relNode)
#endif

/*
 * 16: an update says which indexes it concerns.  Those that only summarize
 * blocks are none of ours.
 */
#if PG_VERSION_NUM >= 160000
#define ActUpdateIndexes TU_UpdateIndexes
#define act_concerns_indexes(update) ((update) == TU_All)
#define act_concerns_any_index(update) ((update) != TU_None)
#define act_is_summarizing(info) ((info)->ii_Summarizing)
#else
#define ActUpdateIndexes bool
#define act_concerns_indexes(update) (update)
#define act_concerns_any_index(update) (update)
#define act_is_summarizing(info) ((void) (info), false)
#endif

/* 17: the local transaction id moved into a struct. */
#if PG_VERSION_NUM >= 170000
#define act_my_lxid() (MyProc->vxid.lxid)
#else
#define act_my_lxid() (MyProc->lxid)
#endif

/* 17: backends are numbered from 0, by a variable of their own. */
#if PG_VERSION_NUM >= 170000
#define act_my_proc_number() MyProcNumber
#else
#define act_my_proc_number() (MyProc->pgprocno)
#endif

/* 17: a transaction can have a time limit, which ours are not to have. */
#if PG_VERSION_NUM >= 170000
#define act_unset_transaction_timeout() \
	SetConfigOption("transaction_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE)
#else
#define act_unset_transaction_timeout() ((void) 0)
#endif

/* 17: an index can keep something from one insertion to the next. */
#if PG_VERSION_NUM >= 170000
#define act_index_insert_cleanup(index, info) index_insert_cleanup(index, info)
#else
#define act_index_insert_cleanup(index, info) ((void) 0)
#endif

/*
 * 18: who begins a scan of an index says where its work is counted; 19: and
 * whether the query leaves the table alone, so that reading may set pages
 * all-visible.  Ours is no query, and mostly changes the table.
 */
#if PG_VERSION_NUM >= 190000
#define act_index_beginscan(heap, index, snapshot, keys) \
	index_beginscan(heap, index, snapshot, NULL, keys, 0, 0)
#elif PG_VERSION_NUM >= 180000
#define act_index_beginscan(heap, index, snapshot, keys) \
	index_beginscan(heap, index, snapshot, NULL, keys, 0)
#else
#define act_index_beginscan(heap, index, snapshot, keys) \
	index_beginscan(heap, index, snapshot, keys, 0)
#endif

/* 19: the same for scans of a table. */
#if PG_VERSION_NUM >= 190000
#define act_table_beginscan(rel, snapshot) \
	table_beginscan(rel, snapshot, 0, NULL, SO_NONE)
#define act_table_beginscan_tidrange(rel, snapshot, first, last) \
	table_beginscan_tidrange(rel, snapshot, first, last, SO_NONE)
#else
#define act_table_beginscan(rel, snapshot) \
	table_beginscan(rel, snapshot, 0, NULL)
#define act_table_beginscan_tidrange(rel, snapshot, first, last) \
	table_beginscan_tidrange(rel, snapshot, first, last)
#endif

/*
 * 19: a page with nothing but inserted rows is pruned, too, when a scan reads
 * it as a whole, and the visibility map grows for that: reading fails on a disk
 * that is full.  A scan that reads row by row leaves pages as they are.
 */
#if PG_VERSION_NUM >= 190000
#define act_scan_without_pruning(scan) \
	((scan)->rs_flags &= ~SO_ALLOW_PAGEMODE)
#else
#define act_scan_without_pruning(scan) ((void) 0)
#endif

/*
 * 19: updates and deletes have options.  Those that exist keep a change from
 * logical decoding, or say that a row moves to another partition.
 */
#if PG_VERSION_NUM >= 190000
#define act_table_tuple_update(rel, tid, slot, cid, snapshot, failure, mode, \
							   indexes) \
	table_tuple_update(rel, tid, slot, cid, 0, snapshot, InvalidSnapshot, \
					   true, failure, mode, indexes)
#define act_table_tuple_delete(rel, tid, cid, snapshot, failure) \
	table_tuple_delete(rel, tid, cid, 0, snapshot, InvalidSnapshot, true, \
					   failure)
#else
#define act_table_tuple_update(rel, tid, slot, cid, snapshot, failure, mode, \
							   indexes) \
	table_tuple_update(rel, tid, slot, cid, snapshot, InvalidSnapshot, true, \
					   failure, mode, indexes)
#define act_table_tuple_delete(rel, tid, cid, snapshot, failure) \
	table_tuple_delete(rel, tid, cid, snapshot, InvalidSnapshot, true, \
					   failure, false)
#endif

/* 19: a slot can promise that columns that are NOT NULL hold no null. */
#if PG_VERSION_NUM >= 190000
#define act_make_slot(desc, ops) MakeTupleTableSlot(desc, ops, 0)
#else
#define act_make_slot(desc, ops) MakeTupleTableSlot(desc, ops)
#endif

/* 19: a jsonb being built has its result and its stack in one struct. */
#if PG_VERSION_NUM >= 190000
#define ActJsonbState JsonbInState
#define act_push_jsonb(state, token, value) pushJsonbValue(state, token, value)
#else
typedef struct ActJsonbState
{
	struct JsonbParseState *stack;
	struct JsonbValue *result;
} ActJsonbState;

#define act_push_jsonb(state, token, value) \
	((void) ((state)->result = pushJsonbValue(&(state)->stack, token, value)))
#endif

/*
 * 19: shared memory holds the names of locks, which each process had to
 * register.
 */
#if PG_VERSION_NUM >= 190000
#define act_new_tranche(name) LWLockNewTrancheId(name)
#define act_register_tranche(tranche, name) ((void) 0)
#else
#define act_new_tranche(name) LWLockNewTrancheId()
#define act_register_tranche(tranche, name) LWLockRegisterTranche(tranche, name)
#endif

/* 19: a hash table in shared memory is never larger than at the start. */
#if PG_VERSION_NUM >= 190000
#define act_shmem_init_hash(name, size, info, flags) \
	ShmemInitHash(name, size, info, flags)
#else
#define act_shmem_init_hash(name, size, info, flags) \
	ShmemInitHash(name, size, size, info, flags)
#endif

/* 19: handlers of signals are told who sent them, and die() tells the user. */
#if PG_VERSION_NUM >= 190000
#define act_die(signo, info) \
	die(signo, &(pg_signal_info) {.pid = (info)->si_pid, .uid = (info)->si_uid})
#define act_handle_crash_exit() \
	SignalHandlerForCrashExit(postgres_signal_arg, pg_siginfo)
#else
#define act_die(signo, info) die(signo)
#define act_handle_crash_exit() SignalHandlerForCrashExit(postgres_signal_arg)
#endif

/*
 * 19: the oldest transaction can be asked for among those that are about to
 * commit, or of this database, too.
 */
#if PG_VERSION_NUM >= 190000
#define act_oldest_active_xid() GetOldestActiveTransactionId(false, true)
#else
#define act_oldest_active_xid() GetOldestActiveTransactionId()
#endif

/* libpq/libpq.h has it, but takes headers that the server's package lacks. */
extern bool pq_check_connection(void);

#endif							/* ACT_COMPAT_H */
