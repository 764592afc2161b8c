# shellcheck shell=bash
# scripts/lib.sh - what every script of this repository needs: packages, an
# ordinary user, a private PostgreSQL with the extension in it, and temporary
# servers.  To be sourced by bash with "set -euo pipefail".
#
# Interface, in the order of use:
#
#	. "$(dirname "$0")/../scripts/lib.sh"
#	ensure_deps "${BASE_PACKAGES[@]}" [PKG...]
#	work_dir NAME temp          # or: keep
#	pg_stage [MAKE-ARGUMENT...]
#	server_init DIR [INITDB-ARGUMENT...]
#	server_start DIR [-o 'SETTING = VALUE']...
#	as_user psql -c '...'       # or plainly psql: connections are trusted
#	server_stop DIR
#
# say TEXT, die TEXT
#	A line on stderr; die also exits with status 1.
#
# ensure_deps PKG...
#	Root: installs the Debian packages that are missing.  Silent if there is
#	nothing to do and when it succeeds.  Other users: names what is missing
#	and exits 1.  BASE_PACKAGES is what building and running needs.  With
#	PG_CONFIG given by the caller, PostgreSQL's own packages are not asked for.
#
# cache_dir
#	Prints the folder for things that are made once: /var/cache/actornot if the
#	caller is root, else ~/.cache/actornot; ACTORNOT_CACHE names another place.
#
# work_dir NAME temp|keep
#	Sets WORK: a folder that both the caller and the ordinary user can use, in
#	tmp/ of the checkout, or, if the ordinary user cannot get there (a clone
#	below /root), under /var/tmp; then it says so.  "temp": a new one each
#	time; at exit all servers are stopped and it is removed (the EXIT trap is
#	taken: put more into it with at_exit COMMAND...).  "keep": tmp/NAME, which
#	is not emptied, so that the next call finds its contents; no trap.
#
# as_user CMD...
#	Runs CMD in folder WORK as an ordinary user: as ACTORNOT_USER (postgres)
#	if the caller is root, else as the caller.  PostgreSQL refuses root.
# user_dir DIR...
#	Makes folders that this user owns.
#
# pg_stage [MAKE-ARGUMENT...]
#	Copies the sources to TREE (WORK/tree: sql/, expected/, test/, examples/, doc/
#	included, readable by the ordinary user), builds them there and installs
#	them into STAGE (WORK/stage), a private copy of the PostgreSQL that
#	PG_CONFIG belongs to.  Sets and exports STAGE, TREE, PGBIN (its programs;
#	first in PATH) and PGTEST (.../pgxs/src/test: pg_regress and the like).
#	If the caller has set BUILD it is built in this folder and not in TREE.
# make_there ARGUMENT...
#	Runs make where it was built, for the same PostgreSQL.
#	Nothing is written to the system's folders.  With STRICT=1 in the
#	environment the build has strict warnings, which are errors, and our
#	assertions, also where the server has none.  With TEST_HOOKS=1 it has the
#	settings actornot.debug_* (src/log/segment.c, src/common/entity.c).
#
# server_init DIR [INITDB-ARGUMENT...]
#	A new instance in DIR/data with test/actornot.conf (which does not turn
#	fsync off), reached through a Unix socket only.
# server_start DIR [-o 'SETTING = VALUE']...
#	Starts it with these settings on top and waits until it accepts
#	connections.  Exports PGHOST, PGPORT, PGUSER, PGDATABASE.  Its log is
#	DIR/server.log.  Settings of an earlier start are forgotten.
# server_stop DIR [MODE]
#	Stops it (fast).  If it does not end within a minute it is stopped
#	immediately and the status is 1.
# server_running DIR
#
# Environment: PG_CONFIG, PG_MAJOR (15), ACTORNOT_USER (postgres), STRICT,
# TEST_HOOKS.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PG_MAJOR=${PG_MAJOR:-15}
RUN_USER=${ACTORNOT_USER:-postgres}
# shellcheck disable=SC2034	# for the scripts that source this one
BASE_PACKAGES=("postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR"
	gcc libc6-dev make perl)
STRICT_FLAGS='-Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare
	-Wno-missing-field-initializers -DUSE_ASSERT_CHECKING=1'
SERVERS=()
TEMP_DIRS=()
AT_EXIT=()

# The caller's settings for another server must have no effect here.
unset BUILD PGHOST PGHOSTADDR PGPORT PGUSER PGPASSWORD PGPASSFILE PGDATABASE PGDATA \
	PGOPTIONS PGSERVICE PGSERVICEFILE PGSSLMODE PGTZ PGDATESTYLE \
	PGCLIENTENCODING PGAPPNAME PGTARGETSESSIONATTRS
export LC_ALL=C

say()
{
	printf '%s\n' "$*" >&2
}

die()
{
	say "$(basename "$0"): $*"
	exit 1
}

is_root()
{
	[ "$(id -u)" -eq 0 ]
}

# ---------------------------------------------------------------- packages

# Prints those of the given packages that are not installed.
missing_packages()
{
	local pkg

	for pkg in "$@"; do
		if [ -n "${PG_CONFIG:-}" ] && [[ $pkg == postgresql-$PG_MAJOR ||
			$pkg == postgresql-server-dev-$PG_MAJOR ]]; then
			continue
		fi
		if ! dpkg-query -W -f '${db:Status-Status}\n' "$pkg" 2>/dev/null |
			grep -qx installed; then
			echo "$pkg"
		fi
	done
}

run_apt()
{
	local log

	log=$(mktemp)
	# apt-get waits for others while it installs, but not while it updates.
	if ! DEBIAN_FRONTEND=noninteractive flock /run/actornot-apt.lock \
		apt-get -qq -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 \
		-o Dpkg::Use-Pty=0 "$@" </dev/null >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
}

# Debian's postgresql package would create and start a cluster of its own.
# It is told not to while we install.
install_packages()
{
	local conf=/etc/postgresql-common/createcluster.d/actornot-install-$$.conf
	local status=0

	mkdir -p "$(dirname "$conf")"
	echo 'create_main_cluster = false' >"$conf"
	run_apt install --no-install-recommends "$@" || status=$?
	rm -f "$conf"
	return "$status"
}

ensure_deps()
{
	local missing

	if ! command -v dpkg-query >/dev/null; then
		say "this is not a Debian system: taking for granted: $*"
		return 0
	fi
	mapfile -t missing < <(missing_packages "$@")
	[ "${#missing[@]}" -gt 0 ] || return 0
	is_root || die "packages are missing; as root: apt-get install ${missing[*]}"
	say "installing ${missing[*]}"
	run_apt update || say "apt-get update failed; trying with the lists at hand"
	install_packages "${missing[@]}" ||
		die "could not install ${missing[*]} (see above)"
}

# ------------------------------------------------- the user and the folder

cache_dir()
{
	if is_root; then
		echo "${ACTORNOT_CACHE:-/var/cache/actornot}"
	else
		echo "${ACTORNOT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/actornot}"
	fi
}

as_user()
(
	cd "${WORK:-/}" || exit
	is_root || exec "$@"
	exec setpriv --reuid="$RUN_USER" --regid="$(id -gn "$RUN_USER")" \
		--init-groups env HOME="${WORK:-/}" USER="$RUN_USER" \
		LOGNAME="$RUN_USER" "$@"
)

user_dir()
{
	if is_root; then
		install -d -m 0700 -o "$RUN_USER" -g "$(id -gn "$RUN_USER")" "$@"
	else
		install -d -m 0700 "$@"
	fi
}

# Can the ordinary user work below the checkout?
checkout_usable()
{
	mkdir -p "$ROOT/tmp" 2>/dev/null && [ -w "$ROOT/tmp" ] &&
		as_user test -x "$ROOT/tmp"
}

work_dir()
{
	local name=$1
	local life=$2

	if is_root && ! id "$RUN_USER" >/dev/null 2>&1; then
		die "there is no user $RUN_USER to run the server as (ACTORNOT_USER)"
	fi
	WORK=
	if [ "$life" = keep ] && [ -d "$ROOT/tmp/$name/" ]; then
		WORK=$(cd "$ROOT/tmp/$name" && pwd -P)
		[ -w "$WORK" ] || die "$WORK belongs to another user: remove it first"
	elif checkout_usable; then
		if [ "$life" = keep ]; then
			WORK=$ROOT/tmp/$name
			mkdir -p "$WORK"
		else
			WORK=$(mktemp -d "$ROOT/tmp/$name.XXXXXX")
		fi
	else
		WORK=$(mktemp -d "/var/tmp/actornot-$name.XXXXXX")
		say "the server's user cannot work in $ROOT/tmp: using $WORK"
		# So that a later call finds it again.
		[ "$life" = temp ] || ln -sfn "$WORK" "$ROOT/tmp/$name" ||
			die "cannot write to $ROOT/tmp"
	fi
	chmod 0755 "$WORK"
	if [ "$life" = temp ]; then
		TEMP_DIRS+=("$WORK")
		trap cleanup EXIT
		trap 'exit 130' HUP INT TERM
	fi
}

at_exit()
{
	AT_EXIT+=("$(printf '%q ' "$@")")
}

cleanup()
{
	local status=$?
	local item

	trap - EXIT
	set +e
	for item in "${AT_EXIT[@]}"; do
		eval "$item"
	done
	for item in "${SERVERS[@]}"; do
		server_stop "$item" immediate
	done
	for item in "${TEMP_DIRS[@]}"; do
		rm -rf "$item"
	done
	exit "$status"
}

# ------------------------------------------------------------------ stage

find_pg_config()
{
	if [ -z "${PG_CONFIG:-}" ]; then
		PG_CONFIG=/usr/lib/postgresql/$PG_MAJOR/bin/pg_config
		[ -x "$PG_CONFIG" ] || PG_CONFIG=$(command -v pg_config) ||
			die "no pg_config found: set PG_CONFIG"
	fi
	[ -x "$PG_CONFIG" ] || die "cannot execute $PG_CONFIG (PG_CONFIG)"
	export PG_CONFIG
}

# PostgreSQL finds its files relative to the real path of its programs.  So
# programs have to be copies, and everything else may be symlinks, in folders
# of our own that "make install" can write to.
copy_server()
{
	local dir

	rm -rf "$STAGE"
	dir=$("$PG_CONFIG" --bindir)
	mkdir -p "$STAGE$dir"
	cp -aL --reflink=auto "$dir/." "$STAGE$dir/"
	for dir in "$("$PG_CONFIG" --sharedir)" "$("$PG_CONFIG" --pkglibdir)"; do
		mkdir -p "$STAGE$dir"
		cp -as "$dir/." "$STAGE$dir/"
		# An installed actornot must neither be used nor be written through.
		find "$STAGE$dir" -name 'actornot*' -delete
	done
}

# Objects of builds with other flags or for another server must not be found,
# so each stage builds in a copy.
copy_sources()
{
	local item

	rm -rf "$TREE"
	mkdir -p "$TREE"
	cp "$ROOT/Makefile" "$ROOT/actornot.control" "$TREE/"
	for item in src sql expected test examples doc; do
		[ ! -d "$ROOT/$item" ] || cp -R "$ROOT/$item" "$TREE/"
	done
	find "$TREE/src" -name '*.[odb]*' -delete
	chmod -R a+rX "$TREE"
}

make_there()
{
	local -a where=(-C "$TREE")

	[ -z "${BUILD:-}" ] || where=(-C "$BUILD" -f "$TREE/Makefile")
	# The flags of a make that runs the calling script are not for this make.
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make "${where[@]}" \
		PG_CONFIG="$PG_CONFIG" "$@"
}

build_extension()
{
	local log=$WORK/build.log
	local flags=

	[ -z "${STRICT:-}" ] || flags+=" ${STRICT_FLAGS//[$'\n\t']/ }"
	[ -z "${TEST_HOOKS:-}" ] || flags+=' -DACTORNOT_TEST_HOOKS=1'
	[ -z "$flags" ] || set -- COPT="$flags" "$@"
	# No bitcode: it would be written through the stage's symlinks.
	if ! make_there -j "$(nproc)" install DESTDIR="$STAGE" with_llvm=no "$@" \
		</dev/null >"$log" 2>&1; then
		cat "$log" >&2
		die "the build failed (see above)"
	fi
	! grep -E 'warning:' "$log" >&2 || say "the build gave warnings"
}

pg_stage()
{
	local sharedir

	: "${WORK:?call work_dir first}"
	find_pg_config
	STAGE=$WORK/stage
	TREE=$WORK/tree
	PGBIN=$STAGE$("$PG_CONFIG" --bindir)
	PGTEST=$(dirname "$("$PG_CONFIG" --pgxs)")/../test
	copy_server
	copy_sources
	build_extension "$@"
	PATH=$PGBIN:$PATH
	export STAGE TREE PGBIN PGTEST PATH
	sharedir=$("$PGBIN/pg_config" --sharedir)
	[ "$sharedir" = "$STAGE$("$PG_CONFIG" --sharedir)" ] ||
		die "the copy of PostgreSQL looks for its files in $sharedir"
	[ -f "$sharedir/extension/actornot.control" ] ||
		die "actornot was not installed in $sharedir"
}

# ----------------------------------------------------------------- servers

# A Unix socket's path has at most 107 bytes.  A path that is too long gets a
# folder in /tmp instead, remembered in DIR/sock.
make_socket_dir()
{
	local dir=$1
	local short

	[ ! -d "$dir/sock/" ] || return 0
	if [ "${#dir}" -le 80 ]; then
		user_dir "$dir/sock"
		return
	fi
	short=$(mktemp -d /tmp/actornot.XXXXXX)
	user_dir "$short"
	ln -sfn "$short" "$dir/sock"
}

# The socket's folder of the server in DIR.
socket_dir()
{
	(cd "$1/sock" && pwd -P)
}

server_init()
{
	local dir=$1

	shift
	user_dir "$dir"
	as_user "$PGBIN/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 \
		--no-locale --no-sync "$@" >"$dir/initdb.log" 2>&1 </dev/null || {
		cat "$dir/initdb.log" >&2
		die "initdb failed (see above)"
	}
	{
		echo "include 'actornot.conf'"
		echo "include 'start.conf'"
	} >>"$dir/data/postgresql.conf"
	install -m 0644 "$ROOT/test/actornot.conf" "$dir/data/actornot.conf"
}

server_start()
{
	local dir=$1
	local conf=$1/data/start.conf

	shift
	make_socket_dir "$dir"
	{
		echo "unix_socket_directories = '$(socket_dir "$dir")'"
		while getopts o: _ "$@"; do
			echo "$OPTARG"
		done
		OPTIND=1
	} >"$conf"
	chmod 0644 "$conf"
	SERVERS+=("$dir")
	if ! as_user "$PGBIN/pg_ctl" -D "$dir/data" -l "$dir/server.log" -w -s \
		-t 120 start </dev/null; then
		tail -n 20 "$dir/server.log" >&2
		die "the server in $dir did not start (see above)"
	fi
	PGHOST=$(socket_dir "$dir")
	export PGHOST PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
}

server_running()
{
	as_user "$PGBIN/pg_ctl" -D "$1/data" status >/dev/null 2>&1
}

server_stop()
{
	local dir=$1
	local mode=${2:-fast}
	local status=0

	if server_running "$dir" && ! as_user "$PGBIN/pg_ctl" -D "$dir/data" \
		-m "$mode" -w -s -t 60 stop </dev/null; then
		status=1
		say "the server in $dir did not stop ($mode); killing it"
		as_user "$PGBIN/pg_ctl" -D "$dir/data" -m immediate -w -s stop || true
	fi
	if [ -L "$dir/sock" ]; then
		rm -rf "$(readlink "$dir/sock")" "$dir/sock"
	fi
	return "$status"
}
