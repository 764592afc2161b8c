/*
 * crashmark.c
 *	  Marks on disk: what each worker was about to run when the server died.
 *
 * A handler that takes the whole server down would do so again after each
 * restart.  The tables cannot tell: what the worker wrote is undone by the
 * crash.  So before each group a worker writes what it is going to run into
 * its slot of a small file, and afterwards that nothing is.  What is found
 * there at the next start is suspect.
 *
 * The other workers were running something too, but did not go down by
 * themselves: the postmaster told them to (SIGQUIT), and a worker that is told
 * takes its mark back before it goes.  So what is left is the mark of the
 * process that crashed.  It is still no more than a suspicion: the group had
 * many entities, and the killer may have come from outside.  Suspects are run
 * alone, and one at a time, so that the second crash names the one that did
 * it; and only if the mark of that run was left behind is it held against the
 * suspect.
 *
 * The file is in the folder of the statistics' temporary files, which survives
 * a crash and which base backups leave out.  It is written with pwrite() only:
 * with mmap() a full disk would be a SIGBUS, the very crash that is guarded
 * against.  It is not flushed, so it says nothing after the machine has
 * crashed, and a check sum sorts out what is half there.  An orderly shutdown
 * clears the marks.  A worker that cannot write a mark runs without
 * one.
 *
 * The file has a slot for each worker and behind them a small one for each
 * suspect: one that has not had its turn when the server crashes again is still
 * a suspect.  It stays one until it has been run alone, or for MAX_LIVES starts
 * of the server: its batch may have been committed before the crash, and
 * then nothing queues it but its next message.  The file's head says how many
 * workers there were, which may be others at the next start.
 *
 * Locks: an LWLock for the table of suspects, their slots and the turn.  A
 * worker's slot belongs to it, which has it from the registry, and needs no
 * lock.
 *
 * Memory: a hash table of a fixed size, one place for each mark of the file.
 *
 * Failure: the exit callback of a worker clears its mark, or, if it ends
 * because of what it ran, turns it into a suspect at once.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "port/pg_crc32c.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/pmsignal.h"
#include "storage/shmem.h"

#include "compat.h"
#include "sched/crashmark.h"
#include "sched/registry.h"

#define MARK_FILE PG_STAT_TMP_DIR "/actornot.mark"
#define MARK_MAGIC 0xAC7E0003

/*
 * A suspect that was not run for this many starts of the server is forgotten:
 * it may have nothing pending, and no message may ever be posted to it again.
 */
#define MAX_LIVES 32

/* The head of the file, never changed. */
typedef struct MarkHead
{
	uint32		magic;
	int32		nworkers;
} MarkHead;

/* A slot of the file; only as much of it is written as is used. */
typedef struct Mark
{
	uint32		magic;
	pg_crc32c	crc;			/* of what follows */
	Oid			database;
	uint16		nkeys;
	uint8		alone;
	uint8		lives;			/* starts of the server that it has survived */
	EntityKey	keys[ACT_MARK_MAX];
} Mark;

#define MARK_SIZE(nkeys) (offsetof(Mark, keys) + (nkeys) * sizeof(EntityKey))

/* A suspect's slot holds one entity. */
#define SUSPECT_SIZE MARK_SIZE(1)

/* No padding: hashed and compared as bytes. */
typedef struct SuspectKey
{
	EntityKey	entity;
	Oid			database;
	uint32		zero;
} SuspectKey;

typedef struct Suspect
{
	SuspectKey	key;			/* hash key */
	bool		was_alone;
	uint8		lives;
	int			place;			/* of its own slot in the file */
} Suspect;

typedef struct CrashmarkShared
{
	/* Immutable. */
	int			tranche;

	LWLock		lock;

	/* Changed under the lock, read without. */
	pg_atomic_uint32 nsuspects;

	/* Guarded by the lock. */
	pid_t		turn;			/* process that runs a suspect, or 0 */
	bool		taken[FLEXIBLE_ARRAY_MEMBER];	/* places of suspects */
} CrashmarkShared;

static CrashmarkShared *shared = NULL;
static HTAB *suspect_table = NULL;

/* The worker's own. */
static int	mark_fd = -1;
static bool mark_failed = false;
static int	my_slot = -1;
static Mark my_mark;			/* nkeys > 0: what the file says */
static Mark no_mark;			/* that nothing is; ready for a signal handler */
static bool blame = false;

/* Is a user's function being called, and has another process sent a SIGTERM? */
static bool in_call = false;
static volatile sig_atomic_t term_from_others = false;

/* ----------------------------------------------------------------- file */

static pg_crc32c
compute_crc(const Mark *mark)
{
	Size		skip = offsetof(Mark, database);
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, (const char *) mark + skip,
				MARK_SIZE(mark->nkeys) - skip);
	FIN_CRC32C(crc);
	return crc;
}

static bool
is_valid(const Mark *mark, ssize_t size)
{
	return size >= (ssize_t) MARK_SIZE(0) &&
		mark->magic == MARK_MAGIC &&
		mark->nkeys <= ACT_MARK_MAX &&
		size >= (ssize_t) MARK_SIZE(mark->nkeys) &&
		mark->crc == compute_crc(mark);
}

/* Open for the rest of the process's life. */
static bool
open_file(void)
{
	if (mark_fd >= 0)
		return true;
	if (mark_failed)
		return false;
	mark_fd = BasicOpenFile(MARK_FILE, O_RDWR | PG_BINARY);
	if (mark_fd < 0)
	{
		mark_failed = true;
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", MARK_FILE),
				 errdetail("A handler that crashes the server will not be recognized.")));
		return false;
	}
	ReserveExternalFD();
	return true;
}

/*
 * Where a slot begins: those of workers are whole marks, those of suspects
 * behind them are small.
 */
static off_t
slot_offset(int slot, int nworkers)
{
	return sizeof(MarkHead) + (off_t) Min(slot, nworkers) * sizeof(Mark) +
		(off_t) Max(slot - nworkers, 0) * SUSPECT_SIZE;
}

static void
seal_mark(Mark *mark)
{
	mark->magic = MARK_MAGIC;
	mark->crc = compute_crc(mark);
}

static void
write_mark(int slot, Mark *mark)
{
	size_t		size = MARK_SIZE(mark->nkeys);

	seal_mark(mark);
	if (pwrite(mark_fd, mark, size,
			   slot_offset(slot, act_registry_max_workers)) == size)
		return;
	if (!mark_failed)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", MARK_FILE),
				 errdetail("A handler that crashes the server may not be recognized.")));
	mark_failed = true;
}

/* -------------------------------------------------------------- suspects */

static int
max_suspects(void)
{
	return act_registry_max_workers * ACT_MARK_MAX;
}

/* A suspect's own slot: that it is one, or, with n = 0, nothing. */
static void
write_suspect(const Suspect *suspect, int n)
{
	Mark		mark;

	if (!open_file())
		return;
	mark.database = suspect->key.database;
	mark.nkeys = n;
	mark.alone = suspect->was_alone;
	mark.lives = suspect->lives;
	mark.keys[0] = suspect->key.entity;
	write_mark(act_registry_max_workers + suspect->place, &mark);
}

static int
take_place(void)
{
	int			place = 0;

	while (shared->taken[place])
		place++;
	shared->taken[place] = true;
	return place;
}

/* The caller holds the lock, or is the only process. */
static void
add_suspects(const Mark *mark)
{
	for (int i = 0; i < mark->nkeys; i++)
	{
		SuspectKey	key = {mark->keys[i], mark->database, 0};
		Suspect    *suspect;
		bool		found;

		if (pg_atomic_read_u32(&shared->nsuspects) >= max_suspects())
			return;
		suspect = hash_search(suspect_table, &key, HASH_ENTER_NULL, &found);
		if (suspect == NULL)
			return;				/* full */
		if (!found)
		{
			suspect->was_alone = false;
			suspect->lives = mark->lives;
			suspect->place = take_place();
			pg_atomic_fetch_add_u32(&shared->nsuspects, 1);
		}
		if (mark->alone)
			suspect->was_alone = true;
		suspect->lives = Min(suspect->lives, mark->lives);
	}
}

/* What the workers of the server's last life left behind. */
static void
read_suspects(void)
{
	int			fd;
	MarkHead	head;
	Mark		mark;

	fd = BasicOpenFile(MARK_FILE, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return;					/* most likely there is none */
	if (pg_pread(fd, &head, sizeof(head), 0) != sizeof(head) ||
		head.magic != MARK_MAGIC)
		head.nworkers = -1;
	for (int slot = 0; head.nworkers >= 0; slot++)
	{
		ssize_t		size = pg_pread(fd, &mark, sizeof(Mark),
									slot_offset(slot, head.nworkers));

		if (size <= 0)
			break;
		if (is_valid(&mark, size) && mark.lives++ < MAX_LIVES)
			add_suspects(&mark);
	}
	close(fd);
}

/* A file without marks; without it the workers say that nothing is marked. */
static void
create_file(void)
{
	HASH_SEQ_STATUS status;
	Suspect    *suspect;
	MarkHead	head = {MARK_MAGIC, act_registry_max_workers};
	int			fd;

	(void) unlink(MARK_FILE);
	fd = BasicOpenFilePerm(MARK_FILE, O_RDWR | O_CREAT | O_EXCL | PG_BINARY,
						   S_IRUSR | S_IWUSR);
	if (fd < 0 || pg_pwrite(fd, &head, sizeof(head), 0) != sizeof(head))
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", MARK_FILE)));
	if (fd >= 0)
		close(fd);

	/* The suspects of now; the file is closed, for our children's sake. */
	if (fd < 0 || pg_atomic_read_u32(&shared->nsuspects) == 0)
		return;
	mark_fd = BasicOpenFile(MARK_FILE, O_RDWR | PG_BINARY);
	if (mark_fd < 0)
		return;
	hash_seq_init(&status, suspect_table);
	while ((suspect = hash_seq_search(&status)) != NULL)
		write_suspect(suspect, 1);
	close(mark_fd);
	mark_fd = -1;
	mark_failed = false;
}

static Size
shared_size(void)
{
	return add_size(offsetof(CrashmarkShared, taken),
					mul_size(max_suspects(), sizeof(bool)));
}

Size
act_crashmark_shmem_size(void)
{
	return add_size(MAXALIGN(shared_size()),
					hash_estimate_size(max_suspects(), sizeof(Suspect)));
}

/*
 * Called by the postmaster at each start, also after a crash, when none of
 * the workers of old is alive.  The caller holds AddinShmemInitLock.
 */
void
act_crashmark_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("actornot crash marks",
							 shared_size(), &found);
	if (!found)
	{
		memset(shared, 0, shared_size());
		shared->tranche = act_new_tranche("actornot_suspects");
		LWLockInitialize(&shared->lock, shared->tranche);
		pg_atomic_init_u32(&shared->nsuspects, 0);
	}
	act_register_tranche(shared->tranche, "actornot_suspects");

	suspect_table = act_registry_init_table("actornot suspects",
											max_suspects(), sizeof(SuspectKey),
											sizeof(Suspect), NULL);
	if (found)
		return;
	read_suspects();
	create_file();
	if (pg_atomic_read_u32(&shared->nsuspects) > 0)
		ereport(LOG,
				(errmsg_plural("%u entity was being run by actornot when the server stopped, and will be run alone",
							   "%u entities were being run by actornot when the server stopped, and will be run alone",
							   pg_atomic_read_u32(&shared->nsuspects),
							   pg_atomic_read_u32(&shared->nsuspects))));
}

/* ----------------------------------------------------------------- marks */

static Suspect *
find_suspect(Oid database, const EntityKey *entity)
{
	SuspectKey	key = {*entity, database, 0};

	return hash_search(suspect_table, &key, HASH_FIND, NULL);
}

/* What becomes of this run is said by its mark, not by that of an earlier one. */
static void
forget_last_turn(Oid database, const EntityKey *entity)
{
	Suspect    *suspect;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	suspect = find_suspect(database, entity);
	if (suspect != NULL && suspect->was_alone)
	{
		suspect->was_alone = false;
		write_suspect(suspect, 1);
	}
	LWLockRelease(&shared->lock);
}

/*
 * Does this process end because of what it has called?  A function can make
 * each error fatal, or terminate its own backend.
 */
static bool
has_ended_itself(void)
{
	return in_call && !term_from_others && PostmasterIsAlive();
}

/*
 * Exit callback.  Registered after the worker has got its slot, so it runs
 * while the slot is still its own.
 */
static void
settle_mark(int code, Datum arg)
{
	if (my_mark.nkeys == 0)
		return;
	if (blame || (code != 0 && has_ended_itself()))
	{
		my_mark.lives = 0;
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		add_suspects(&my_mark);
		for (int i = 0; i < my_mark.nkeys; i++)
		{
			Suspect    *suspect = find_suspect(my_mark.database,
											   &my_mark.keys[i]);

			if (suspect != NULL)	/* else the table is full */
				write_suspect(suspect, 1);
		}
		LWLockRelease(&shared->lock);
	}
	act_crashmark_clear();
}

void
act_crashmark_set(Oid database, const EntityKey *keys, int nkeys, bool alone)
{
	static bool registered = false;

	if (shared == NULL || !open_file())
		return;
	if (!registered)
	{
		on_shmem_exit(settle_mark, 0);
		seal_mark(&no_mark);
		registered = true;
	}
	if (alone)
		forget_last_turn(database, &keys[0]);
	my_slot = act_registry_my_slot->number;
	my_mark.database = database;
	my_mark.nkeys = Min(nkeys, ACT_MARK_MAX);
	my_mark.lives = 0;
	my_mark.alone = alone;
	memcpy(my_mark.keys, keys, my_mark.nkeys * sizeof(EntityKey));
	write_mark(my_slot, &my_mark);
}

void
act_crashmark_clear(void)
{
	if (my_mark.nkeys == 0)
		return;
	/* In this order: a SIGQUIT in between must find the mark in memory. */
	write_mark(my_slot, &no_mark);
	my_mark.nkeys = 0;
}

/*
 * SIGQUIT: another process has crashed, or the administrator cannot wait.
 * Nothing that is not safe in a signal handler.
 */
void
act_crashmark_handle_quit(SIGNAL_ARGS)
{
	if (my_mark.nkeys > 0 && mark_fd >= 0)
	{
		ssize_t		written = pwrite(mark_fd, &no_mark, MARK_SIZE(0),
									 slot_offset(my_slot,
												 act_registry_max_workers));

		(void) written;			/* if it cannot be, they stay suspect */
	}
	act_handle_crash_exit();
}

void
act_crashmark_blame_at_exit(void)
{
	blame = true;
}

void
act_crashmark_note_call(bool open)
{
	in_call = open;
}

/* In signal context. */
void
act_crashmark_note_term(int sender)
{
	/* Where processes are numbered apart, one from outside has no number. */
	if (sender != MyProcPid)
		term_from_others = true;
}

/* ---------------------------------------------------------- the suspected */

bool
act_crashmark_is_suspect(Oid database, const EntityKey *entity,
						 bool *was_alone)
{
	Suspect    *suspect;

	if (shared == NULL || pg_atomic_read_u32(&shared->nsuspects) == 0)
		return false;

	LWLockAcquire(&shared->lock, LW_SHARED);
	suspect = find_suspect(database, entity);
	if (suspect != NULL && was_alone != NULL)
		*was_alone = suspect->was_alone;
	LWLockRelease(&shared->lock);
	return suspect != NULL;
}

void
act_crashmark_acquit(Oid database, const EntityKey *entity)
{
	Suspect    *suspect;

	if (shared == NULL || pg_atomic_read_u32(&shared->nsuspects) == 0)
		return;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	suspect = find_suspect(database, entity);
	if (suspect != NULL)
	{
		write_suspect(suspect, 0);
		shared->taken[suspect->place] = false;
		hash_search(suspect_table, &suspect->key, HASH_REMOVE, NULL);
		pg_atomic_fetch_sub_u32(&shared->nsuspects, 1);
	}
	LWLockRelease(&shared->lock);
}

/* Exit callback, after the abort: a dead process must not keep the turn. */
static void
return_turn(int code, Datum arg)
{
	act_crashmark_end_suspect_turn();
}

/* May this process run a suspect now?  Then no other one does until it ends. */
bool
act_crashmark_try_suspect_turn(void)
{
	static bool registered = false;
	bool		mine;

	if (shared == NULL)
		return true;
	if (!registered)
	{
		on_shmem_exit(return_turn, 0);
		registered = true;
	}
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	mine = (shared->turn == 0 || shared->turn == MyProcPid);
	if (mine)
		shared->turn = MyProcPid;
	LWLockRelease(&shared->lock);
	return mine;
}

void
act_crashmark_end_suspect_turn(void)
{
	if (shared == NULL)
		return;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->turn == MyProcPid)
		shared->turn = 0;
	LWLockRelease(&shared->lock);
}
