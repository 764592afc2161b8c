/*
 * entity_admin.c
 *	  Reading and mending entities by hand.
 *
 * What changes an entity does so under its lock, which it waits for, and
 * refuses one that is lent to a program outside unless forced.  Whatever can
 * have given the entity something to do pushes it to the ready queue at
 * commit.  All is part of the caller's transaction.
 *
 * Memory: the function's context.
 */
#include "postgres.h"

#include "utils/snapmgr.h"

#include "actornot.h"
#include "commands/funcargs.h"
#include "common/entity.h"
#include "log/reader.h"
#include "log/segment.h"
#include "mailbox/deadletter.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "mailbox/pending.h"
#include "maint/sweep.h"

PG_FUNCTION_INFO_V1(actornot_state);
PG_FUNCTION_INFO_V1(actornot_pending);
PG_FUNCTION_INFO_V1(actornot_pending_entity);
PG_FUNCTION_INFO_V1(actornot_set_state);
PG_FUNCTION_INFO_V1(actornot_pause_entity);
PG_FUNCTION_INFO_V1(actornot_resume_entity);
PG_FUNCTION_INFO_V1(actornot_wake);
PG_FUNCTION_INFO_V1(actornot_skip);
PG_FUNCTION_INFO_V1(actornot_purge);

/*
 * Lock the entity of the first two arguments and load its mailbox.
 */
static void
begin_mending(FunctionCallInfo fcinfo, NamedEntity *mending, const char *command)
{
	act_funcargs_name(fcinfo, mending);
	act_funcargs_check_may_write(command);
	act_head_check_isolation();

	act_entity_check_closed(mending->key.hash, mending->runner.name,
							mending->entity);
	act_entity_take(mending->key.hash, true);
	act_funcargs_open(mending);
}

/*
 * An entity that is lent to a program outside is left alone, unless forced:
 * then the lease ends here.  So does one whose time is over: its holder must
 * not write over what is mended, nor consume by a cursor that has moved.
 */
static void
check_lease(NamedEntity *mending, bool can_force, bool force)
{
	Mailbox    *mailbox = &mending->mailbox;

	if (act_mailbox_is_leased(mailbox) && !force)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("entity \"%s\" of runner \"%s\" is leased",
						mending->entity, mending->runner.name),
				 can_force ?
				 errhint("Wait until the lease ends, or use force => true to end it.") :
				 errhint("Wait until the lease ends.")));
	act_mailbox_end_lease(mailbox);
}

/*
 * Count what waits, and say whether there are messages of other entities of
 * the hash.
 */
static int64
count_pending(MessageReader *reader, const Mailbox *mailbox,
			  const Cursor *target, bool *collided)
{
	int64		count = act_pending_count(reader, mailbox, target, collided);

	if (reader->blocked)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("could not obtain lock on a segment of the log")));
	return count;
}

/* ---- reading ---- */

/*
 * actornot_state(runner, entity)
 */
Datum
actornot_state(PG_FUNCTION_ARGS)
{
	NamedEntity mending;
	MailboxTable table;

	act_funcargs_name(fcinfo, &mending);
	act_mailbox_open(&table, AccessShareLock);
	table.snapshot = GetActiveSnapshot();
	act_mailbox_init(&mending.mailbox, &mending.key, mending.entity,
					 mending.entity_len);
	act_mailbox_load(&table, &mending.mailbox);
	act_mailbox_close(&table);

	if (mending.mailbox.state == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(mending.mailbox.state);
}

/*
 * What waits of one entity, as the latest snapshot sees it.
 */
static int64
count_entity(const NamedEntity *mending)
{
	Snapshot	snapshot;
	MailboxTable table;
	MessageReader reader;
	Mailbox		mailbox;
	Cursor		now;
	bool		collided;
	int64		count;

	/* Whatever is visible is counted, even if our own transaction wrote it. */
	now.xmax = PG_UINT64_MAX;
	now.nxip = 0;
	now.xip = NULL;
	act_mailbox_open(&table, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	PushActiveSnapshot(snapshot);
	table.snapshot = snapshot;
	act_mailbox_init(&mailbox, &mending->key, mending->entity,
					 mending->entity_len);
	act_mailbox_load(&table, &mailbox);
	act_reader_open(&reader, snapshot);
	count = count_pending(&reader, &mailbox, &now, &collided);
	act_reader_close(&reader);
	act_mailbox_close(&table);
	PopActiveSnapshot();
	UnregisterSnapshot(snapshot);
	return count;
}

/*
 * actornot_pending(runner)
 */
Datum
actornot_pending(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(act_sweep_count(act_funcargs_owned_runner(fcinfo)->id));
}

/*
 * actornot_pending(runner, entity)
 */
Datum
actornot_pending_entity(PG_FUNCTION_ARGS)
{
	NamedEntity mending;

	act_funcargs_name(fcinfo, &mending);
	PG_RETURN_INT64(count_entity(&mending));
}

/* ---- mending ---- */

/*
 * actornot_set_state(runner, entity, state, force)
 */
Datum
actornot_set_state(PG_FUNCTION_ARGS)
{
	NamedEntity mending;

	begin_mending(fcinfo, &mending, "actornot_set_state()");
	check_lease(&mending, true, !PG_ARGISNULL(3) && PG_GETARG_BOOL(3));
	mending.mailbox.state = PG_ARGISNULL(2) ? (Datum) 0 :
		PointerGetDatum(PG_DETOAST_DATUM(PG_GETARG_DATUM(2)));
	act_funcargs_close(&mending, true, GATE_OPEN);
	PG_RETURN_VOID();
}

/*
 * actornot_pause(runner, entity, force)
 */
Datum
actornot_pause_entity(PG_FUNCTION_ARGS)
{
	NamedEntity mending;

	begin_mending(fcinfo, &mending, "actornot_pause()");
	check_lease(&mending, true, !PG_ARGISNULL(2) && PG_GETARG_BOOL(2));
	mending.mailbox.paused = true;
	act_funcargs_close(&mending, true, GATE_OPEN);
	PG_RETURN_VOID();
}

/*
 * actornot_resume(runner, entity)
 */
Datum
actornot_resume_entity(PG_FUNCTION_ARGS)
{
	NamedEntity mending;
	bool		was_paused;

	begin_mending(fcinfo, &mending, "actornot_resume()");
	was_paused = mending.mailbox.paused;
	mending.mailbox.paused = false;
	act_funcargs_close(&mending, was_paused, GATE_OPEN);
	PG_RETURN_VOID();
}

/*
 * actornot_wake(runner, entity): ask "runnable" again, and end a back-off.
 */
Datum
actornot_wake(PG_FUNCTION_ARGS)
{
	NamedEntity mending;
	bool		backed_off;

	begin_mending(fcinfo, &mending, "actornot_wake()");
	backed_off = mending.mailbox.wake_at != 0;
	mending.mailbox.wake_at = 0;
	act_funcargs_close(&mending, backed_off, GATE_OPEN);
	PG_RETURN_VOID();
}

/*
 * actornot_skip(runner, entity): the head message to the dead letters.
 */
Datum
actornot_skip(PG_FUNCTION_ARGS)
{
	NamedEntity mending;
	Mailbox    *mailbox = &mending.mailbox;
	MessageRow	row;
	Failure		failure = {0};
	int64		id;

	begin_mending(fcinfo, &mending, "actornot_skip()");
	check_lease(&mending, false, false);
	if (!act_head_take(&mending.work, mailbox, &mending.work.now, &row))
	{
		act_funcargs_close(&mending, false, GATE_OPEN);
		PG_RETURN_NULL();
	}
	failure.message = mailbox->last_error != NULL ? mailbox->last_error :
		pstrdup("skipped by hand");
	id = act_deadletter_bury_head(&mending.work, mailbox, &mending.runner,
								  &failure);
	act_funcargs_close(&mending, true, GATE_OPEN);
	PG_RETURN_INT64(id);
}

/*
 * actornot_purge(runner, entity, force): all pending messages and the state.
 */
Datum
actornot_purge(PG_FUNCTION_ARGS)
{
	NamedEntity mending;
	Mailbox    *mailbox = &mending.mailbox;
	bool		collided;
	int64		count;

	begin_mending(fcinfo, &mending, "actornot_purge()");
	check_lease(&mending, true, !PG_ARGISNULL(2) && PG_GETARG_BOOL(2));

	/* What was posted by transactions that are open now is not purged. */
	count = count_pending(&mending.work.messages, mailbox, &mending.work.now,
						  &collided);
	if (collided)
		act_segment_note_collision(mailbox->key.hash);
	act_head_advance(mailbox, &mending.work.now, 0, true, true);
	mailbox->state = (Datum) 0;
	act_funcargs_close(&mending, true, GATE_OPEN);
	PG_RETURN_INT64(count);
}
