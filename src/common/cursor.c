/*
 * cursor.c
 *	  What a mailbox has consumed: a snapshot on the clock of ticks.
 *
 * A cursor by message id would lose messages, for ids do not commit in order.
 * So an entity remembers a snapshot: "every message whose transaction is
 * settled in it has been processed" (the idea of PgQ's batches, kept for each
 * entity).  This room knows the arithmetic only: it reads no table, takes no
 * lock and, but for the arrays that it returns, allocates nothing.
 *
 * Rules, each shown by the model to be necessary:
 *	1. The own transaction is not settled in a cursor made from a snapshot,
 *	   although GetSnapshotData leaves its xid out of xip.
 *	2. xip is sorted, free of duplicates (a transaction that is being prepared
 *	   is listed twice) and lies below xmax.
 *
 * Packed form (the columns done and target): xmax, the number of xips, then
 * for each xip from the highest to the lowest the distance to its
 * predecessor, the first one from xmax.  All are base-128 varints, so that a
 * server with hundreds of open writers still gets a row of some hundred bytes
 * where pg_snapshot would take eight bytes for each.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"

#include "common/cursor.h"
#include "compat.h"

/* A varint of 64 bits takes at most this many bytes. */
#define VARINT_MAX 10

/*
 * Is a transaction with this tick settled (ended) in the cursor?
 */
bool
act_cursor_settled(const Cursor *cursor, uint64 tick)
{
	int			low = 0,
				high = cursor->nxip;

	if (tick >= cursor->xmax)
		return false;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (cursor->xip[middle] == tick)
			return false;
		if (cursor->xip[middle] < tick)
			low = middle + 1;
		else
			high = middle;
	}
	return true;
}

/*
 * Is all that is settled in "other" settled in the cursor as well?
 */
bool
act_cursor_covers(const Cursor *cursor, const Cursor *other)
{
	/* What the cursor does not hold for settled must be open in the other. */
	for (int i = 0; i < cursor->nxip; i++)
	{
		if (act_cursor_settled(other, cursor->xip[i]))
			return false;
	}
	for (uint64 tick = cursor->xmax; tick < other->xmax; tick++)
	{
		if (act_cursor_settled(other, tick))
			return false;
	}
	return true;
}

/*
 * Are two cursors the same?
 */
bool
act_cursor_equal(const Cursor *a, const Cursor *b)
{
	return a->xmax == b->xmax && a->nxip == b->nxip &&
		(a->nxip == 0 ||
		 memcmp(a->xip, b->xip, sizeof(uint64) * a->nxip) == 0);
}

/*
 * Make the cursor of an entity that has consumed nothing.
 */
void
act_cursor_set_nothing(Cursor *cursor)
{
	cursor->xmax = ACT_CURSOR_NOTHING_XMAX;
	cursor->nxip = 0;
	cursor->xip = NULL;
}

/*
 * The tick of a transaction id that is not older than two billion
 * transactions, as all in a snapshot are.
 */
static uint64
tick_of_xid(TransactionId xid, FullTransactionId next, uint64 tick_offset)
{
	uint32		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return (((uint64) epoch) << 32 | xid) + tick_offset;
}

static int
compare_ticks(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return (x > y) - (x < y);
}

/*
 * Make a cursor from an MVCC snapshot of this transaction.  The own
 * transaction, if it has an xid already, is not settled in it.  The array is
 * allocated in the current memory context.
 */
void
act_cursor_from_snapshot(Cursor *cursor, Snapshot snapshot, uint64 tick_offset)
{
	FullTransactionId next = ReadNextFullTransactionId();
	TransactionId own = GetTopTransactionIdIfAny();
	int			n = 0;

	cursor->xmax = tick_of_xid(snapshot->xmax, next, tick_offset);
	cursor->nxip = 0;
	cursor->xip = NULL;

	if (snapshot->xcnt == 0 && !TransactionIdIsValid(own))
		return;

	cursor->xip = palloc(sizeof(uint64) * (snapshot->xcnt + 1));
	for (uint32 i = 0; i < snapshot->xcnt; i++)
		cursor->xip[n++] = tick_of_xid(snapshot->xip[i], next, tick_offset);
	if (TransactionIdIsValid(own))
		cursor->xip[n++] = tick_of_xid(own, next, tick_offset);
	qsort(cursor->xip, n, sizeof(uint64), compare_ticks);

	for (int i = 0; i < n; i++)
	{
		uint64		tick = cursor->xip[i];

		if (tick < cursor->xmax &&
			(cursor->nxip == 0 || cursor->xip[cursor->nxip - 1] != tick))
			cursor->xip[cursor->nxip++] = tick;
	}
}

static unsigned char *
put_varint(unsigned char *p, uint64 value)
{
	while (value >= 0x80)
	{
		*p++ = (unsigned char) (value | 0x80);
		value >>= 7;
	}
	*p++ = (unsigned char) value;
	return p;
}

/*
 * Read a varint; NULL when the bytes end within it.
 */
static const unsigned char *
get_varint(const unsigned char *p, const unsigned char *end, uint64 *value)
{
	int			shift = 0;

	*value = 0;
	while (p < end && shift < 64)
	{
		*value |= ((uint64) (*p & 0x7F)) << shift;
		if ((*p++ & 0x80) == 0)
			return p;
		shift += 7;
	}
	return NULL;
}

/*
 * Write varints one behind the other; for the plan of a backlog, too.
 */
bytea *
act_cursor_pack_numbers(const uint64 *numbers, int n)
{
	bytea	   *result = palloc(VARHDRSZ + VARINT_MAX * (Size) n);
	unsigned char *p = (unsigned char *) VARDATA(result);

	for (int i = 0; i < n; i++)
		p = put_varint(p, numbers[i]);
	SET_VARSIZE(result, p - (unsigned char *) result);
	return result;
}

/*
 * Read them again: how many there are, or -1 if these are no varints.
 */
int
act_cursor_unpack_numbers(const bytea *packed, uint64 **numbers)
{
	const unsigned char *p = (const unsigned char *) VARDATA_ANY(packed);
	const unsigned char *end = p + VARSIZE_ANY_EXHDR(packed);
	int			n = 0;

	*numbers = palloc(sizeof(uint64) * (end - p + 1));
	while (p < end)
	{
		p = get_varint(p, end, &(*numbers)[n++]);
		if (p == NULL)
			return -1;
	}
	return n;
}

/*
 * The packed form, allocated in the current memory context.
 */
bytea *
act_cursor_pack(const Cursor *cursor)
{
	bytea	   *result = palloc(VARHDRSZ + VARINT_MAX * ((Size) cursor->nxip + 2));
	unsigned char *p = (unsigned char *) VARDATA(result);
	uint64		above = cursor->xmax;

	p = put_varint(p, cursor->xmax);
	p = put_varint(p, cursor->nxip);
	for (int i = cursor->nxip - 1; i >= 0; i--)
	{
		p = put_varint(p, above - cursor->xip[i]);
		above = cursor->xip[i];
	}
	SET_VARSIZE(result, p - (unsigned char *) result);
	return result;
}

/*
 * Read the packed form (not toasted; a short header is fine).  The array is
 * allocated in the current memory context.  Errors if the bytes are not what
 * act_cursor_pack wrote.
 */
void
act_cursor_unpack(Cursor *cursor, const bytea *packed)
{
	const unsigned char *p = (const unsigned char *) VARDATA_ANY(packed);
	const unsigned char *end = p + VARSIZE_ANY_EXHDR(packed);
	uint64		nxip = 0,
				distance,
				above;

	p = get_varint(p, end, &cursor->xmax);
	if (p != NULL)
		p = get_varint(p, end, &nxip);
	if (p == NULL || nxip > (uint64) (end - p))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("cursor of a mailbox is damaged")));

	cursor->nxip = (int) nxip;
	cursor->xip = nxip > 0 ? palloc(sizeof(uint64) * nxip) : NULL;
	above = cursor->xmax;
	for (int i = cursor->nxip - 1; i >= 0; i--)
	{
		p = get_varint(p, end, &distance);
		if (p == NULL || distance == 0 || distance > above)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("cursor of a mailbox is damaged")));
		above -= distance;
		cursor->xip[i] = above;
	}
	if (p != end)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("cursor of a mailbox is damaged")));
}

/*
 * A copy whose array lives in the current memory context.
 */
void
act_cursor_copy(Cursor *to, const Cursor *from)
{
	*to = *from;
	if (from->nxip > 0)
	{
		to->xip = palloc(sizeof(uint64) * from->nxip);
		memcpy(to->xip, from->xip, sizeof(uint64) * from->nxip);
	}
}
