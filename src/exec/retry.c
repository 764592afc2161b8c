/*
 * retry.c
 *	  What happens when a batch fails: again one by one, then wait or bury.
 *
 * Each step is a transaction (worker) or subtransaction (actornot_run and
 * actornot_drain) of its own, made by the caller's ContainFunction:
 *	1. A batch.  If it succeeds, that is all.
 *	2. It failed: the same messages one by one, so that all before the poison
 *	   are done.
 *	3. The one that failed stays at the head, pinned by the target that was
 *	   tried: attempts + 1 and a back-off in wake_at, or, after max_attempts,
 *	   it goes to the dead letters.
 *
 * The failure is recorded only if the row is still the one that was tried;
 * else another executor has been there since.  Dying between the steps loses
 * nothing: at most an attempt is not counted.
 *
 * What says nothing about the handler (serialization failures, deadlocks,
 * lack of resources, an administrator's cancel, a missing function) counts as
 * no attempt, but backs off.
 *
 * Exponential back-off with jitter: https://www.rfc-editor.org/rfc/rfc6298
 * doubles likewise; the jitter keeps entities that failed together apart.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "common/pg_prng.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "actornot.h"
#include "common/entity.h"
#include "common/subxact.h"
#include "exec/batch.h"
#include "exec/retry.h"
#include "log/reader.h"
#include "mailbox/deadletter.h"
#include "mailbox/head.h"
#include "mailbox/mailbox.h"
#include "runner/runner.h"
#include "sched/wakeup.h"

/* The shortest back-off where no number of attempts ends it. */
#define ENDLESS_DELAY_MIN (100 * INT64CONST(1000))

/* The number of counted crashes after which a message is buried. */
#define MAX_CRASHES 2

/* What the bodies below work on. */
typedef struct FailureWork
{
	EntityRun  *run;
	const Failure *failure;
	bool		counted;		/* is it an attempt? */
	bool		buried;
	bool		recorded;
	bool		was_alone;		/* its last run alone has ended in a crash */
	TimestampTz wake_at;
	int			attempts;
} FailureWork;

/*
 * Does this error say nothing about the handler?
 */
static bool
is_transient(const Failure *failure)
{
	int			category = ERRCODE_TO_CATEGORY(failure->sqlstate);

	if (failure->timed_out)
		return false;
	return failure->sqlstate == ERRCODE_T_R_SERIALIZATION_FAILURE ||
		failure->sqlstate == ERRCODE_T_R_DEADLOCK_DETECTED ||
		category == ERRCODE_INSUFFICIENT_RESOURCES ||
		category == ERRCODE_OPERATOR_INTERVENTION ||
		category == ERRCODE_SYSTEM_ERROR;
}

/*
 * How long to wait: doubled with each attempt, or, where none is counted,
 * twice as long as the last time.
 */
static int64
back_off(const Runner *runner, const Mailbox *mailbox, bool counted)
{
	double		delay = (double) runner->retry_delay;

	if (counted)
		delay *= pow(2.0, Min(mailbox->attempts - 1, 60));
	else
	{
		delay = Max(delay, (double) ENDLESS_DELAY_MIN);
		if (mailbox->last_error != NULL && mailbox->wake_at > mailbox->updated_at)
			delay = Max(delay, 2.0 * (mailbox->wake_at - mailbox->updated_at));
	}
	delay *= 0.9 + 0.2 * pg_prng_double(&pg_global_prng_state);
	delay = Min(delay, (double) runner->retry_delay_max);

	/* Where no number of attempts ends it, only waiting keeps it from a loop. */
	if (!counted || runner->max_attempts == 0)
		delay = Max(delay, (double) ENDLESS_DELAY_MIN);
	return (int64) delay;
}

/*
 * Lock the entity of a run and open the tables; false if it is busy.
 */
static bool
enter(EntityRun *run, RunContext *work)
{
	if (!act_entity_take(run->key.hash, false))
	{
		run->gate = GATE_LOCKED;
		return false;
	}
	act_head_open(work);
	return true;
}

/*
 * Load the mailbox of a run, and find out its entity if it has no row.
 */
static bool
load_mailbox(EntityRun *run, RunContext *work, Mailbox *mailbox,
			 const Cursor *target)
{
	MessageRow	row;

	act_mailbox_init(mailbox, &run->key, run->entity, run->entity_len);
	act_mailbox_load(&work->mailboxes, mailbox);
	return mailbox->entity != NULL ||
		act_head_find(work, mailbox, target, &row);
}

/*
 * Reports name runner and entity, also if no call got so far.
 */
static void
name_entity(EntityRun *run, const Runner *runner, const Mailbox *mailbox)
{
	if (run->runner_name == NULL)
		run->runner_name = MemoryContextStrdup(run->context, runner->name);
	act_batch_note_entity(run, mailbox);
}

/*
 * Write a failure of the head, which is pinned, into its row: an attempt more
 * and a back-off ("retry_in", or as the runner says if that is negative), or
 * the end of the message.
 */
static void
note_failure(FailureWork *failed, RunContext *work, Mailbox *mailbox,
			 const Runner *runner, int64 retry_in)
{
	if (failed->counted)
		mailbox->attempts++;
	failed->attempts = mailbox->attempts;
	if (failed->counted && runner->max_attempts > 0 &&
		mailbox->attempts >= runner->max_attempts)
		failed->buried = act_deadletter_bury_head(work, mailbox, runner,
												  failed->failure) != 0;
	else
	{
		if (retry_in < 0)
			retry_in = back_off(runner, mailbox, failed->counted);
		mailbox->wake_at = retry_in > 0 ? GetCurrentTimestamp() + retry_in : 0;
		mailbox->last_error = failed->failure->message;
		failed->wake_at = mailbox->wake_at;
	}
	act_mailbox_save(&work->mailboxes, mailbox);
	if (mailbox->wake_at != 0)
		act_wakeup_due(mailbox->wake_at);
}

/*
 * For leases: a batch that was lent, or the attempt to lend one, has failed.
 * The caller has pinned the head and ended the lease.
 */
void
act_retry_note(RunContext *work, Mailbox *mailbox, const Runner *runner,
			   const Failure *failure, int64 retry_in)
{
	FailureWork failed = {NULL, failure};

	failed.counted = !is_transient(failure);
	note_failure(&failed, work, mailbox, runner, retry_in);
}

/*
 * Body: write the failure into the row.
 */
static void
record_failure(void *arg)
{
	FailureWork *failed = arg;
	EntityRun  *run = failed->run;
	RunContext	work;
	Mailbox		mailbox;
	MessageRow	row;
	const Runner *runner;

	if (!enter(run, &work))
		return;
	runner = act_runner_find(run->key.runner);
	if (runner != NULL &&
		load_mailbox(run, &work, &mailbox, &run->target) &&
		memcmp(&run->tid, &mailbox.tid, sizeof(ItemPointerData)) == 0)
	{
		name_entity(run, runner, &mailbox);

		/* The run found the row's target empty, if so, and took its own. */
		(void) act_head_take(&work, &mailbox, &run->target, &row);
		act_mailbox_end_lease(&mailbox);	/* the run took it over */
		note_failure(failed, &work, &mailbox, runner, -1);
		failed->recorded = true;
	}
	act_head_close(&work);
}

/*
 * Body: one batch of one entity, in a transaction of its own.
 */
static void
run_alone(void *arg)
{
	EntityRun  *run = arg;
	RunContext	work;
	int			depth = act_entity_depth();

	run->tried = 0;
	run->consumed = 0;
	if (!enter(run, &work))
		return;
	act_entity_begin_run(run->key.hash, run->key.runner);
	act_batch_run(&work, run);
	act_entity_end_run(depth);
	act_head_close(&work);

	/* What fails at commit is the doing of what the handler wrote. */
	if (run->consumed > 0)
		run->phase = PHASE_CALL;
}

/*
 * Tell the log, or the client, what went wrong.
 */
static void
report_failure(const FailureWork *failed, int elevel)
{
	const EntityRun *run = failed->run;
	const Failure *failure = failed->failure;

	ereport(elevel,
			(errcode(failure->sqlstate),
			 errmsg("handler of runner \"%s\" failed for entity \"%s\": %s",
					run->runner_name ? run->runner_name : "?",
					run->entity ? run->entity : "?",
					failure->message ? failure->message : "unknown error"),
			 failed->buried && failed->attempts == 0 ?
			 errdetail("Its message was given up; see actornot.dead_letters.") :
			 failed->buried ?
			 errdetail_plural("Its message was given up after %d attempt; see actornot.dead_letters.",
							  "Its message was given up after %d attempts; see actornot.dead_letters.",
							  failed->attempts, failed->attempts) :
			 failed->wake_at == 0 || !failed->recorded ? 0 :
			 errdetail_plural("It will be tried again at %s (%d attempt so far).",
							  "It will be tried again at %s (%d attempts so far).",
							  failed->attempts,
							  timestamptz_to_str(failed->wake_at),
							  failed->attempts),
			 failure->context ? errcontext("%s", failure->context) : 0));
}

/*
 * Record the failure of the batch that was tried last.
 */
static void
handle_failure(EntityRun *run, const Failure *failure, ContainFunction contain,
			   int elevel)
{
	FailureWork failed = {run, failure};
	Failure		second;

	failed.counted = run->phase == PHASE_CALL && !is_transient(failure);
	run->gate = GATE_FAILED;
	if (run->tried == 0)
	{
		/* Not even a batch was found: nothing to be recorded. */
		report_failure(&failed, elevel);
		return;
	}
	if (!contain(record_failure, &failed, &second, run->context))
		ereport(elevel,
				(errcode(second.sqlstate),
				 errmsg("could not record the failure of a handler: %s",
						second.message)));
	else if (failed.recorded)
		run->gate = failed.wake_at != 0 ? GATE_BACK_OFF : GATE_OPEN;
	report_failure(&failed, elevel);
}

/*
 * Run one batch of one entity, and see to what fails.  The gate and the
 * number of messages consumed are left in the run; failures are reported
 * at elevel (LOG or WARNING).
 */
void
act_retry_run(EntityRun *run, ContainFunction contain, int elevel)
{
	Failure		failure;
	int			limit = run->max_messages;
	int64		total = 0;
	int			tried;

	run->failed = false;
	if (contain(run_alone, run, &failure, run->context))
		return;

	/* Batches before the one that failed were undone with it. */
	if (run->until != 0 && run->batches > 0)
	{
		run->until = 0;
		if (contain(run_alone, run, &failure, run->context))
			return;
	}
	run->until = 0;

	tried = run->tried;
	if (run->phase == PHASE_CALL && tried > 1)
	{
		bool		failed = false;

		run->max_messages = 1;
		for (int i = 0; i < tried && !failed; i++)
		{
			failed = !contain(run_alone, run, &failure, run->context);
			if (!failed)
			{
				total += run->consumed;
				if (run->gate != GATE_OPEN)
					break;
			}
		}
		run->max_messages = limit;
		if (!failed)
		{
			run->consumed = total;
			return;
		}
	}
	handle_failure(run, &failure, contain, elevel);
	run->failed = true;
	run->consumed = total;
}

/*
 * Find and pin the head of a suspect, or say why it is not to be run now.
 */
static Gate
take_suspect(EntityRun *run, const Runner *runner, RunContext *work,
			 Mailbox *mailbox)
{
	MessageRow	row;
	Gate		gate;

	if (runner == NULL)
		return GATE_NO_RUNNER;
	if (load_mailbox(run, work, mailbox, &work->now))
	{
		gate = act_mailbox_gate(mailbox);
		if (gate == GATE_LEASED)
			run->leased_until = mailbox->lease_until;
		else if (gate == GATE_OPEN)
			gate = act_runner_gate(runner);
		if (gate != GATE_OPEN)
			return gate;
		act_mailbox_end_lease(mailbox);
		if (act_head_take(work, mailbox, &work->now, &row))
			return GATE_OPEN;
	}
	return work->messages.blocked ? GATE_SEGMENT_LOCKED : GATE_EMPTY;
}

/*
 * Body: note in the row that its head is run alone after a crash, or bury it.
 */
static void
count_crash(void *arg)
{
	FailureWork *failed = arg;
	EntityRun  *run = failed->run;
	RunContext	work;
	Mailbox		mailbox;
	const Runner *runner;

	if (!enter(run, &work))
		return;
	runner = act_runner_find(run->key.runner);
	run->gate = take_suspect(run, runner, &work, &mailbox);
	if (run->gate == GATE_OPEN)
	{
		if (mailbox.crashes >= MAX_CRASHES && failed->was_alone)
		{
			name_entity(run, runner, &mailbox);
			failed->buried = act_deadletter_bury_head(&work, &mailbox, runner,
													  failed->failure) != 0;
		}
		else if (mailbox.crashes == 0 || failed->was_alone)
			mailbox.crashes++;
		act_mailbox_save(&work.mailboxes, &mailbox);
		/* It must outlive the crash that it is for. */
		ForceSyncCommit();
		failed->recorded = true;
	}
	act_head_close(&work);
}

/*
 * Before a suspect is run alone: count the crash that it may cause.  The one
 * that was counted last time stands for this time, unless it has come true
 * ("was_alone"): then the server went down because of another.  True if
 * its head may be called; false if it was buried instead, or is busy or not to
 * be run now, or if nothing is pending.  The run's gate says what is left.
 */
bool
act_retry_count_crash(EntityRun *run, bool was_alone, ContainFunction contain)
{
	Failure		crash = {ERRCODE_CRASH_SHUTDOWN,
		pstrdup("server process ended while the handler ran this message"),
	NULL, NULL, false, NULL};
	FailureWork failed = {run, &crash,.was_alone = was_alone};
	Failure		second;

	run->gate = GATE_OPEN;
	if (!contain(count_crash, &failed, &second, run->context))
	{
		run->gate = GATE_FAILED;
		return false;
	}
	if (failed.buried)
		report_failure(&failed, LOG);
	return failed.recorded && !failed.buried;
}
