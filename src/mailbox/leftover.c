/*
 * leftover.c
 *	  What the last visit found and did not come to.
 *
 * A worker that is busy with one hot entity visits it again and again.  What
 * a visit has collected and not taken is kept in this backend, so that the
 * next one need not look the backlog up again.  It is a hint: good only as
 * long as the row has the same cursor and target, and the segments are in the
 * same files; each item is verified when its message is fetched.
 *
 * Memory: one list of at most ACT_PENDING_MAX items, in a context of its own.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "actornot.h"
#include "common/cursor.h"
#include "log/reader.h"
#include "mailbox/leftover.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"

typedef struct Leftover
{
	bool		valid;
	EntityKey	key;
	Cursor		done;
	Cursor		target;
	PendingList list;
	Oid			files[ACT_SEGMENTS];
} Leftover;

static Leftover leftover;
static MemoryContext leftover_context = NULL;

/*
 * Go on with what the last visit left over, if it is still good.
 */
bool
act_leftover_take(PendingList *taken, MessageReader *reader,
				  const Mailbox *mailbox)
{
	PendingList *list = &leftover.list;

	if (!leftover.valid || !mailbox->has_target ||
		memcmp(&leftover.key, &mailbox->key, sizeof(EntityKey)) != 0)
		return false;
	leftover.valid = false;
	if (!act_cursor_equal(&leftover.done, &mailbox->done) ||
		!act_cursor_equal(&leftover.target, &mailbox->target) ||
		!act_reader_get_files(reader, leftover.files, true))
		return false;

	/* The row may have gone on, or back to where a failure had found it. */
	list->taken_id = mailbox->last_id;
	while (list->next > 0 && list->items[list->next - 1].id > mailbox->last_id)
		list->next--;
	while (list->next < list->nitems &&
		   list->items[list->next].id <= mailbox->last_id)
		list->next++;
	if (list->next >= list->nitems || mailbox->last_id < list->after_id)
		return false;
	*taken = *list;
	return true;
}

/*
 * Keep what this visit leaves over.
 */
void
act_leftover_keep(const PendingList *list, MessageReader *reader,
				  const Mailbox *mailbox)
{
	MemoryContext old;
	Size		items = sizeof(PendingItem) * list->nitems;
	Size		chunks = sizeof(PlanChunk) * list->nchunks;

	if (!mailbox->has_target || list->next >= list->nitems)
		return;
	if (list->items == leftover.list.items)
	{
		leftover.list.next = list->next;
		leftover.list.taken_id = list->taken_id;
		leftover.valid = true;
		return;
	}

	leftover.valid = false;
	leftover.list.items = NULL;
	if (leftover_context == NULL)
		leftover_context = AllocSetContextCreate(TopMemoryContext,
												 "actornot leftover",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(leftover_context);
	old = MemoryContextSwitchTo(leftover_context);
	leftover.key = mailbox->key;
	act_cursor_copy(&leftover.done, &mailbox->done);
	act_cursor_copy(&leftover.target, &mailbox->target);
	leftover.list = *list;
	leftover.list.items = NULL;
	leftover.list.items = memcpy(palloc(items), list->items, items);
	if (chunks > 0)
		leftover.list.chunks = memcpy(palloc(chunks), list->chunks,
									  chunks);
	act_reader_get_files(reader, leftover.files, false);
	MemoryContextSwitchTo(old);
	leftover.valid = true;
}
