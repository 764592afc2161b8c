/*
 * near.h
 *	  Seeking ascending hashes in an index by walking from one to the next.
 */
#ifndef ACT_NEAR_H
#define ACT_NEAR_H

#include "access/genam.h"
#include "utils/rel.h"

/* No more steps than this are made at a time; whoever needs more descends. */
#define ACT_NEAR_STEPS 64

/* A walk through an index whose first column is a hash. */
typedef struct NearScan
{
	Relation	heap;
	Relation	index;
	int			entries_per_page;	/* about */
	double		density;		/* entries between two neighbouring hashes; 0:
								 * not known yet */
	bool		sought;			/* there was a seek, of ... */
	int64		last;
	IndexScanDesc scan;			/* NULL: there is none */
	bool		live;			/* it stands somewhere, or is at the end */
	bool		end;
	int64		hash;			/* where it stands */
} NearScan;

extern void act_near_init(NearScan *near, Relation heap, Relation index,
						  int entries_per_page);
extern bool act_near_seek(NearScan *near, Snapshot snapshot, int64 hash);
extern void act_near_step(NearScan *near);
extern void act_near_let_go(NearScan *near);

#endif							/* ACT_NEAR_H */
