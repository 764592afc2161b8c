/*
 * compat.h
 *	  Differences between the versions of the server, in one place.
 *
 * Each macro says in which version the newer form came.
 */
#ifndef ACT_COMPAT_H
#define ACT_COMPAT_H

/* 16: object_aclcheck() replaced pg_proc_aclcheck(). */
#if PG_VERSION_NUM >= 160000
#define act_function_aclcheck(function, role, mode) \
	object_aclcheck(ProcedureRelationId, function, role, mode)
#else
#define act_function_aclcheck(function, role, mode) \
	pg_proc_aclcheck(function, role, mode)
#endif

/* 16: giving something to a role takes the right to SET ROLE to it. */
#if PG_VERSION_NUM >= 160000
#define act_check_can_give_to(member, role) check_can_set_role(member, role)
#else
#define act_check_can_give_to(member, role) \
	check_is_member_of_role(member, role)
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

/* libpq/libpq.h has it, but takes headers that the server's package lacks. */
extern bool pq_check_connection(void);

/* No server has this. */
#if defined(__GNUC__)
#define act_prefetch_memory(address) __builtin_prefetch(address)
#else
#define act_prefetch_memory(address) ((void) (address))
#endif

#endif							/* ACT_COMPAT_H */
