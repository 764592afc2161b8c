/*
 * subxact.c
 *	  Contained subtransactions, and what their errors say.
 *
 * What may fail without its caller failing is run in a subtransaction of its
 * own; what is then known of the error is a Failure.  A cancel or a shutdown of
 * this backend is no failure of what was run: it passes through, unless it came
 * from the timer of a call (see call.c).
 *
 * Whether an error comes from a cancel is not told by its SQLSTATE: a function
 * may pass on what another server said to it, or catch the error and raise
 * another one.  So errors are looked at where they are raised, by
 * act_subxact_note_error() in an error context callback, and what was seen is
 * remembered until the next call begins.
 *
 * No locks.  Memory: a Failure's texts are in the context that the caller
 * names.
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "common/entity.h"
#include "common/subxact.h"

/* Did the last call that failed fail because of its timeout? */
static bool timed_out = false;

/* Was this backend cancelled, or told to end, in the last call? */
static bool interrupted = false;

/*
 * Is this error the answer to a cancel or a shutdown?  The SQLSTATE alone does
 * not tell: a handler may pass on what another server said to it.
 */
static bool
is_interrupt(const ErrorData *error)
{
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION &&
		error->funcname != NULL &&
		strcmp(error->funcname, "ProcessInterrupts") == 0;
}

/*
 * Look at an error where it is raised: a function may catch it and raise
 * another one that has no more of it than the SQLSTATE, as PL/Python does.
 */
void
act_subxact_note_error(void)
{
	MemoryContext old;
	ErrorData  *error;

	if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_OPERATOR_INTERVENTION)
		return;
	old = MemoryContextSwitchTo(CurTransactionContext);
	error = CopyErrorData();
	if (is_interrupt(error))
		interrupted = true;
	FreeErrorData(error);
	MemoryContextSwitchTo(old);
}

/*
 * Does the error that the last call raised come from a cancel or a shutdown of
 * this backend?
 */
static bool
is_interrupted(const ErrorData *error)
{
	return is_interrupt(error) ||
		(interrupted &&
		 ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION);
}

/*
 * The timer of the last call has cancelled it, or it has not.
 */
void
act_subxact_note_timeout(bool value)
{
	timed_out = value;
}

/*
 * A cancel that comes before the next call is not that call's.
 */
void
act_subxact_forget(void)
{
	timed_out = false;
	interrupted = false;
}

/*
 * What is kept of a text that says why something failed, a copy.
 */
char *
act_subxact_clip(const char *text)
{
	int			len;

	if (text == NULL)
		return NULL;
	len = strnlen(text, ACT_SUBXACT_TEXT_MAX + 1);
	if (len <= ACT_SUBXACT_TEXT_MAX)
		return pnstrdup(text, len);
	len = pg_mbcliplen(text, len, ACT_SUBXACT_TEXT_MAX);
	return psprintf("%.*s ...", len, text);
}

/*
 * Take the error that was just caught, and clear it.
 */
void
act_subxact_capture(Failure *failure, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	ErrorData  *error = CopyErrorData();

	FlushErrorState();
	failure->sqlstate = error->sqlerrcode;
	failure->message = act_subxact_clip(error->message);
	failure->detail = act_subxact_clip(error->detail);
	failure->context = act_subxact_clip(error->context);
	failure->timed_out = error->sqlerrcode == ERRCODE_QUERY_CANCELED &&
		timed_out;
	if (failure->timed_out)
		failure->message = pstrdup("handler was cancelled because it ran longer than its timeout");
	failure->interrupt = NULL;
	if (!failure->timed_out && is_interrupted(error))
		failure->interrupt = error;
	else
		FreeErrorData(error);
	MemoryContextSwitchTo(old);
}

/*
 * A ContainFunction: a subtransaction.  Cancels and shutdowns that are not
 * our timeout's are not the handler's failure; they pass through.
 */
bool
act_subxact_contain(void (*body) (void *arg), void *arg,
					Failure *failure, MemoryContext context)
{
	MemoryContext old_context = CurrentMemoryContext;
	ResourceOwner old_owner = CurrentResourceOwner;
	int			depth = act_entity_depth();
	volatile bool ok = true;

	act_subxact_forget();
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(old_context);
	PG_TRY();
	{
		body(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		act_entity_end_run(depth);
		act_subxact_capture(failure, context);
		RollbackAndReleaseCurrentSubTransaction();
		ok = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old_context);
	CurrentResourceOwner = old_owner;

	/* As it was: calls further out look at where it came from, too. */
	if (!ok && failure->interrupt != NULL)
		ReThrowError(failure->interrupt);
	return ok;
}
