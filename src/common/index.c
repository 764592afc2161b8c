/*
 * index.c
 *	  Indexes of our tables that are not of our making.
 *
 * Log and mailboxes are written by table and index access, and each of their
 * indexes that we know is entered directly.  There can be others: an
 * administrator may add one, and REINDEX CONCURRENTLY builds a new one beside
 * the old one and relies on each writer to enter both.  A row that
 * is in the table and not in all of its indexes is a lost message, or a lost
 * state.
 *
 * Guarantee: a writer that has locked the table RowExclusive before the list is
 * taken, and keeps the lock to the end of the transaction, enters each index
 * that has to have the row.  That is the rule of the server's executor: an
 * index that is added later waits for the end of that transaction before it
 * is filled (see index_concurrently_build and ReindexRelationConcurrently).
 *
 * Functions in their expressions and predicates may need a snapshot, which a
 * worker does not always have.
 *
 * The usual case, no others, costs a look at the relation cache.
 *
 * Memory: a context of the executor's, below the current one; an error leaves
 * it to that one, and the open relations to the resource owner.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "catalog/index.h"
#include "executor/executor.h"
#include "nodes/execnodes.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "actornot.h"
#include "common/index.h"
#include "compat.h"

struct OtherIndexes
{
	Relation	heap;
	EState	   *estate;
	int			n;
	Relation   *indexes;
	IndexInfo **infos;
};

static bool
is_among(Oid oid, const Oid *oids, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (oids[i] == oid)
			return true;
	}
	return false;
}

/*
 * Has the table exactly these indexes?  The list is the relation cache's own.
 */
static bool
has_only(Relation heap, const Oid *ours, int nours)
{
	ListCell   *cell;

	if (!heap->rd_indexvalid)
		list_free(RelationGetIndexList(heap));
	if (list_length(heap->rd_indexlist) != nours)
		return false;
	foreach(cell, heap->rd_indexlist)
	{
		if (!is_among(lfirst_oid(cell), ours, nours))
			return false;
	}
	return true;
}

/*
 * Open the indexes that are not among "ours"; NULL if there are none.  The
 * table is locked RowExclusive until the transaction ends.
 */
OtherIndexes *
act_index_open_others(Relation heap, const Oid *ours, int nours)
{
	EState	   *estate;
	MemoryContext old;
	OtherIndexes *others;
	List	   *list;
	ListCell   *cell;
	bool		pushed = !ActiveSnapshotSet();

	if (likely(has_only(heap, ours, nours)))
		return NULL;

	if (pushed)
		PushActiveSnapshot(GetTransactionSnapshot());
	estate = CreateExecutorState();
	old = MemoryContextSwitchTo(estate->es_query_cxt);
	others = palloc0(sizeof(OtherIndexes));
	list = RelationGetIndexList(heap);
	others->heap = heap;
	others->estate = estate;
	others->indexes = palloc(sizeof(Relation) * Max(list_length(list), 1));
	others->infos = palloc(sizeof(IndexInfo *) * Max(list_length(list), 1));
	foreach(cell, list)
	{
		if (is_among(lfirst_oid(cell), ours, nours))
			continue;
		others->indexes[others->n] = index_open(lfirst_oid(cell),
												RowExclusiveLock);
		others->infos[others->n] = BuildIndexInfo(others->indexes[others->n]);
		others->n++;
	}
	MemoryContextSwitchTo(old);
	if (pushed)
		PopActiveSnapshot();
	return others;
}

/*
 * Does the row belong into the index?  One that is not ready yet is filled
 * later, by the command that builds it.
 */
static bool
belongs(IndexInfo *info, EState *estate)
{
	if (!info->ii_ReadyForInserts)
		return false;
	if (info->ii_Predicate == NIL)
		return true;
	if (info->ii_PredicateState == NULL)
		info->ii_PredicateState = ExecPrepareQual(info->ii_Predicate, estate);
	return ExecQual(info->ii_PredicateState, GetPerTupleExprContext(estate));
}

/*
 * What is to be checked after a row was entered, the server's executor would
 * have to check: rather no rows than such as break a rule.
 */
static void
refuse_later_checks(Relation heap, Relation index, const IndexInfo *info)
{
	if (info->ii_ExclusionOps == NULL &&
		(!index->rd_index->indisunique || index->rd_index->indimmediate))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot write to table \"actornot.%s\" while it has constraint \"%s\"",
					RelationGetRelationName(heap),
					RelationGetRelationName(index)),
			 errdetail("Exclusion constraints and deferrable constraints on this table cannot be checked."),
			 errhint("Drop the constraint.")));
}

/*
 * Enter a row version that was just written, whose place is in the slot.
 * With "only_summarizing" no more than those that summarize blocks: the
 * version is in the chain of one that is in the others.
 */
void
act_index_enter_others(OtherIndexes *others, TupleTableSlot *slot,
					   bool only_summarizing)
{
	EState	   *estate = others->estate;
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];
	bool		pushed = !ActiveSnapshotSet();

	if (pushed)
		PushActiveSnapshot(GetTransactionSnapshot());
	GetPerTupleExprContext(estate)->ecxt_scantuple = slot;
	for (int i = 0; i < others->n; i++)
	{
		Relation	index = others->indexes[i];
		IndexInfo  *info = others->infos[i];
		bool		unique = index->rd_index->indisunique &&
		index->rd_index->indimmediate;

		if ((only_summarizing && !act_is_summarizing(info)) ||
			!belongs(info, estate))
			continue;
		refuse_later_checks(others->heap, index, info);
		FormIndexDatum(info, slot, estate, values, nulls);
		index_insert(index, values, nulls, &slot->tts_tid, others->heap,
					 unique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO, false,
					 info);
	}
	ResetPerTupleExprContext(estate);
	if (pushed)
		PopActiveSnapshot();
}

/*
 * Close them; NULL is welcome.
 */
void
act_index_close_others(OtherIndexes *others)
{
	EState	   *estate;

	if (likely(others == NULL))
		return;
	for (int i = 0; i < others->n; i++)
	{
		act_index_insert_cleanup(others->indexes[i], others->infos[i]);
		index_close(others->indexes[i], RowExclusiveLock);
	}
	estate = others->estate;
	FreeExecutorState(estate);
}
