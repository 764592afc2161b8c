# actornot: builds with PGXS, against the PostgreSQL that PG_CONFIG belongs to.
#
#	make, make install, make installcheck   as every extension
#	make help                               what else there is

EXTENSION = actornot
MODULE_big = actornot
# Lists and no wildcards: those are looked up in the current folder, which is
# another one when the extension is built out of the tree.
OBJS = src/init.o \
	$(addprefix src/common/, \
		catalog.o cursor.o entity.o index.o subxact.o) \
	$(addprefix src/sched/, \
		crashmark.o database.o entry.o evict.o gate.o lane.o leaseq.o \
		process.o readyq.o registry.o slot.o wakeup.o) \
	$(addprefix src/runner/, \
		handler.o runner.o) \
	$(addprefix src/log/, \
		bloom.o clock.o reader.o segment.o writer.o) \
	$(addprefix src/mailbox/, \
		deadletter.o due.o head.o mailbox.o pending.o tid_cache.o) \
	$(addprefix src/exec/, \
		args.o batch.o call.o group.o lease.o retry.o) \
	$(addprefix src/maint/, \
		cleanup.o rotation.o segment_check.o sweep.o sweep_queue.o) \
	$(addprefix src/commands/, \
		acquire.o entity_admin.o funcargs.o holder.o post.o \
		redrive.o register.o run.o support.o) \
	$(addprefix src/proc/, \
		launcher.o manager.o utility.o worker.o)
DATA = sql/actornot--0.1.sql sql/actornot--0.1--0.2.sql sql/actornot--0.2.sql
PGFILEDESC = "actornot - durable actor mailboxes"

PG_CPPFLAGS = -I$(srcdir)/src
# A changed header compiles again what includes it.
PG_CFLAGS = -MMD -MP
EXTRA_CLEAN = $(OBJS:.o=.d)

# sql/ holds the install scripts and the inputs of pg_regress, one a room.
# Tests that use settings actornot.debug_* fail unless the extension was built
# with make COPT=-DACTORNOT_TEST_HOOKS, as scripts/test does.
REGRESS = \
	clock cursor deadletter drain entity_admin errors handler install lease \
	lease_crowd post privileges retry rotation run runner user_indexes \
	whole_batch
REGRESS_OPTS = --inputdir=$(srcdir)
ISOLATION = \
	advance-clock commit-together dead-letters drain-busy drain-ends \
	entity-admin-waits equal-hashes failed-head first-run isolation-levels \
	late-commit lease-exclusive lease-stale lease-waits locked-segment \
	more-than-a-batch next-segment one-at-a-time order posters-dont-wait \
	posts-to-itself prepared registration reindex rollback \
	run-inside-handler unregister
ISOLATION_OPTS = --inputdir=$(srcdir)/test --load-extension=$(EXTENSION)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

ifneq ($(PGXS),)

# Bitcode is an extra; a machine without the clang that the server was built
# with can do without it.
CLANG_PATH := $(shell sed -n 's/^CLANG *= *//p' $(dir $(PGXS))../Makefile.global)
ifeq ($(shell command -v "$(CLANG_PATH)"),)
override with_llvm := no
endif

include $(PGXS)

# Out of the tree these folders are not there.  By a relative name make would
# find those of the sources, through VPATH, and make none.
OBJ_DIRS = $(addprefix $(CURDIR)/,$(patsubst %/,%,$(sort $(dir $(OBJS)))))
$(OBJS) $(OBJS:.o=.bc): | $(OBJ_DIRS)
$(OBJ_DIRS):
	mkdir -p $@

-include $(OBJS:.o=.d)
$(OBJS:.o=.bc): $(wildcard $(srcdir)/src/*.h $(srcdir)/src/*/*.h)

else

# The targets below install what is missing; these cannot.
all install installcheck clean:
	@echo "$(PG_CONFIG) was not found: install PostgreSQL's development package, or set PG_CONFIG" >&2
	@exit 1

endif

.PHONY: help demo demo-stop test test-cassert test-examples bench
.PHONY: test-pg17 test-pg18 test-pg19 test-upgrade test-vpath
.PHONY: check-floors check-sql check-indent indent typedefs cppcheck

help:
	@echo 'make demo          build, start a private server, show what actornot does'
	@echo 'make demo-stop     stop that server and remove it'
	@echo 'make test          all tests; ONLY="regress isolation pgtap tap", TESTS="name ..."'
	@echo '                   and REPEAT=n choose some, STRICT=1 adds assertions of our own,'
	@echo '                   JOBS=n is how many run side by side (cores + 1)'
	@echo 'make test-cassert  the same on a PostgreSQL built with --enable-cassert'
	@echo 'make test-pg17     the same on PostgreSQL 17, in a Debian of its own (root only);'
	@echo '                   make test-pg18 on 18, make test-pg19 on 19'
	@echo 'make test-upgrade  pg_upgrade from 15 to 17 (root only)'
	@echo 'make test-vpath    a build in another folder than the sources are in'
	@echo 'make test-examples tests of examples/: servers that are killed, a page in a browser'
	@echo 'make bench         measure against floors and other queues'
	@echo 'make check-floors  which rooms may use which'
	@echo 'make check-sql     no released install script was edited; all files say one version'
	@echo 'make indent        format src/ as PostgreSQL does (check-indent only looks)'
	@echo 'make typedefs      write src/typedefs.list again'
	@echo 'make cppcheck      static analysis'

demo:
	@scripts/demo

demo-stop:
	@scripts/demo stop

test:
	@scripts/test

test-cassert:
	@scripts/test-cassert

test-pg17:
	@scripts/in-debian trixie env PG_MAJOR=17 scripts/test

test-pg18:
	@scripts/in-debian forky env PG_MAJOR=18 scripts/test

test-pg19:
	@scripts/in-debian experimental env PG_MAJOR=19 scripts/test

test-upgrade:
	@scripts/test-upgrade

test-vpath:
	@scripts/test-vpath

test-examples:
	@scripts/test-examples

bench:
	@bench/run

check-floors: $(OBJS)
	@scripts/check-floors

check-sql:
	@scripts/check-sql

indent:
	@scripts/indent

check-indent:
	@scripts/indent --check

typedefs:
	@scripts/typedefs

cppcheck:
	@scripts/cppcheck
