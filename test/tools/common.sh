# shellcheck shell=bash
# common.sh - what the test runner and the demo share
#
# A run happens in one private directory, $work: a copy of the tree in
# $work/src, the staged installation in $work/stage, scratch servers with
# their sockets beside them.  The checkout and the system's PostgreSQL are
# only read.  PostgreSQL refuses to run as root, so root hands all of it to an
# unprivileged user.
#
# supervise() runs the work in the background and, however that ends, ends
# every process whose current directory lies in $work and removes $work.  A
# server's processes stay in its data directory, so none can escape.

say() { printf '%s\n' "$@"; }
die() { say "$@" >&2; exit 1; }

# Settings of the caller's own servers must not reach ours.
forget_environment()
{
	local name
	for name in ${!PG*}; do
		case $name in PG_*) ;; *) unset "$name" ;; esac
	done
	unset MAKEFLAGS MFLAGS MAKELEVEL LC_ALL LANGUAGE
	export LANG=C.UTF-8
}

# Run a command as the user that owns the run.
as_owner()
{
	if [ "$(id -u)" -ne 0 ]; then
		"$@"
	else
		setpriv --reuid="$owner" --regid="$(id -g "$owner")" --init-groups \
			env HOME="$work" USER="$owner" LOGNAME="$owner" "$@"
	fi
}

make_work_directory()
{
	local parent=${TMPDIR:-/tmp}

	owner=$(id -un)
	if [ "$(id -u)" -eq 0 ]; then
		owner=postgres
		id -u "$owner" >/dev/null 2>&1 || owner=nobody
	fi
	# A socket's path may not be longer than 107 bytes.
	[ ${#parent} -le 40 ] || parent=/tmp
	work=$(mktemp -d "$parent/lease-XXXXXX") || die "could not make a directory in $parent"
	[ "$(id -u)" -ne 0 ] || chown "$owner:" "$work"
}

# The tree's own files: what git knows or would not ignore, or else all of them.
list_files()
{
	cd "$top" || return
	git -c safe.directory='*' ls-files -z -co --exclude-standard 2>/dev/null |
		perl -0lne 'print if -f' | grep -z . || find . -type f -print0
}

copy_tree()
{
	as_owner mkdir "$work/src" "$work/tmp"
	list_files | as_owner tee "$work/files" >/dev/null
	(cd "$top" && tar --null -T "$work/files" -cf -) | as_owner tar -C "$work/src" -xf -
}

# Is there such a setting in this server?  (grep -q would end the pipe early,
# which pipefail takes for a failure.)
has_setting() { "$bindir/postgres" --describe-config | grep "^$1	" >/dev/null; }

# A server that cannot look for extensions elsewhere is copied, and the copy
# used: it finds its files relative to its own place.
copy_server()
{
	local prefix=${bindir%/bin} dir

	for dir in "$("$PG_CONFIG" --pkglibdir)" "$("$PG_CONFIG" --sharedir)"; do
		[ "${dir#"$prefix/"}" != "$dir" ] && [ "$prefix" != /usr ] ||
			die "$PG_CONFIG: this server has no setting to find a staged extension"
	done
	as_owner cp -R "$prefix" "$work/server"
	export PG_CONFIG=$work/server/bin/pg_config
	bindir=$work/server/bin
}

# Build, install into the stage, and write the settings that make a server
# find it there to $work/stage.conf.
stage()
{
	local stage=$work/stage libdir

	bindir=$("$PG_CONFIG" --bindir)
	if has_setting extension_destdir; then
		echo "extension_destdir = '$stage'"
	elif has_setting extension_control_path; then
		echo "extension_control_path = '$stage$("$PG_CONFIG" --sharedir):\$system'"
	else
		copy_server
		stage=
	fi > "$work/stage.conf"
	libdir=$stage$("$PG_CONFIG" --pkglibdir)
	cat >> "$work/stage.conf" <<-END
		dynamic_library_path = '$libdir:\$libdir'
		shared_preload_libraries = 'lease'
		dynamic_shared_memory_type = mmap
	END
	cd "$work/src" || die "could not enter $work/src"
	as_owner make -s COPT=-Werror with_llvm=no PG_CONFIG="$PG_CONFIG" || die "the build failed"
	as_owner make -s install DESTDIR="$stage" with_llvm=no PG_CONFIG="$PG_CONFIG" >/dev/null ||
		die "the installation failed"
	export PATH=$stage$bindir:$bindir:$PATH
}

# start_server NAME [SETTING...]: a scratch server in $work/NAME.  PGHOST and
# PGUSER point libpq's programs to it.
start_server()
{
	local dir=$work/$1
	shift

	as_owner mkdir "$dir"
	as_owner initdb -D "$dir/data" -A trust -U postgres --locale=C --encoding=UTF8 \
		>"$dir.initdb.log" 2>&1 || { cat "$dir.initdb.log"; die "initdb failed"; }
	{
		cat "$work/stage.conf"
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$dir'"
		printf '%s\n' "$@"
	} | as_owner tee -a "$dir/data/postgresql.conf" >/dev/null
	as_owner pg_ctl -s -w -D "$dir/data" -l "$dir/log" start ||
		{ tail -n 40 "$dir/log"; die "the server did not start"; }
	export PGHOST=$dir PGUSER=postgres PGDATABASE=postgres
}

stop_server() { as_owner pg_ctl -s -w -m fast -D "$work/$1/data" stop; }

# The processes at work in the run's directory.
our_processes()
{
	find /proc/[0-9]*/cwd -maxdepth 0 -lname "$work*" 2>/dev/null | cut -d/ -f3
}

signal_ours()
{
	local pids
	pids=$(our_processes)
	# shellcheck disable=SC2086
	[ -z "$pids" ] || kill -s "$1" $pids 2>/dev/null
}

# Wait until none is left, for at most some seconds.
await_none()
{
	local tries=$(($1 * 10))
	while [ -n "$(our_processes)" ]; do
		[ $((tries -= 1)) -gt 0 ] || return 1
		sleep 0.1
	done
}

# A server killed outright leaves the segment that marks its data directory
# as in use; postmaster.pid names it.
remove_segments()
{
	find "$work" -name postmaster.pid -exec sed -n '7s/.* //p' {} + 2>/dev/null |
		while read -r id; do ipcrm -m "$id" 2>/dev/null; done
}

# QUIT is a server's immediate shutdown, CONT reaches those that a test froze.
clean_up()
{
	trap '' INT TERM HUP
	cd /
	if [ -n "${worker:-}" ]; then
		kill -KILL "$worker"
		wait "$worker"
	fi 2>/dev/null
	if ! [ -e "$work/keep" ]; then
		signal_ours QUIT
		signal_ours CONT
		await_none 10 || signal_ours KILL
		await_none 10
		remove_segments
		rm -rf "$work"
	fi
}

# Run a function in the background, in a process group of its own so that only
# we get the terminal's Ctrl-C, and return its exit status.
supervise()
{
	trap clean_up EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	trap 'exit 129' HUP
	set -m
	"$@" </dev/null &
	worker=$!
	set +m
	wait "$worker"
}
