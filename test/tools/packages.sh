# shellcheck shell=bash
# packages.sh - install what a Debian machine lacks
#
# Asks first what is missing and calls apt-get, with sudo for an ordinary user,
# only if something is.  A server that is already there is never upgraded, as
# that would restart the clusters that run on it; one that is installed here
# gets no cluster.  No service is started, now or when the machine boots.

cluster_policy=/etc/postgresql-common/createcluster.d/lease-test.conf
service_policy=/usr/sbin/policy-rc.d
own_service_policy=

# The newest of Debian's servers that is here, otherwise Debian 12's.
default_major()
{
	local major
	major=$(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null | cut -d/ -f5 | sort -n | tail -n 1)
	echo "${major:-15}"
}

have() { command -v "$1" >/dev/null 2>&1; }
have_module() { perl "-M$1" -e 1 2>/dev/null; }

# The packages that are missing for the benchmark's other programs, and their clients.
missing_peers()
{
	have redis-server || echo redis-server
	have etcd || echo etcd-server
	[ -x /usr/share/zookeeper/bin/zkServer.sh ] || echo zookeeper
	[ -e /usr/include/hiredis/hiredis.h ] || echo libhiredis-dev
	[ -e /usr/include/event2/event.h ] || echo libevent-dev
	compgen -G '/usr/lib/*/libzookeeper_[sm]t.so' >/dev/null || echo libzookeeper-st-dev
	have g++ || echo g++
	[ -e /usr/include/grpcpp/grpcpp.h ] || echo libgrpc++-dev
	[ -e /usr/include/google/protobuf/message_lite.h ] || echo libprotobuf-dev
	have protoc || echo protobuf-compiler
	have grpc_cpp_plugin || echo protobuf-compiler-grpc
}

node_has_pg() { node -e 'require("pg")' 2>/dev/null; }

# The packages that are missing for the clients in other languages.
missing_clients()
{
	/usr/bin/python3 -c 'import psycopg' 2>/dev/null || echo python3-psycopg
	ruby -r pg -e '' 2>/dev/null || echo ruby-pg
	[ -e /usr/share/java/postgresql.jar ] || echo libpostgresql-jdbc-java
	have java || echo default-jre-headless
	node_has_pg || npm_serves || echo node-pg
}

# Debian's driver needs Debian's nodejs: for another one npm fetches it (fetch_node_pg).
npm_serves() { have node && have npm && ! can_install node-pg; }

# The packages that are missing for tests, for the demo, for a drill or for the benchmark.
missing_packages()
{
	local pgdir=/usr/lib/postgresql/$major

	have gcc || echo gcc
	have make || echo make
	[ -e /usr/include/stdio.h ] || echo libc6-dev
	[ -e /usr/include/curses.h ] || echo libncurses-dev
	have_module TAP::Harness || echo perl
	if [ -n "$debian_server" ]; then
		[ -x "$pgdir/bin/postgres" ] || echo "postgresql-$major"
		[ -x "$pgdir/lib/pgxs/src/test/regress/pg_regress" ] || echo "postgresql-server-dev-$major"
		[ -e /usr/include/postgresql/libpq-fe.h ] || echo libpq-dev
	fi
	case $1 in test | drill) have faketime || echo faketime ;; esac
	if [ "$1" = demo ]; then
		have_module DBD::Pg || echo libdbd-pg-perl
	elif [ "$1" = bench ]; then
		missing_peers
	elif [ "$1" = test ]; then
		have_module IPC::Run || echo libipc-run-perl
		[ -x /usr/sbin/pgbouncer ] || echo pgbouncer
		have prometheus-postgres-exporter || echo prometheus-postgres-exporter
		have promtool || echo promtool
		missing_clients
		[ -z "$debian_server" ] ||
			[ -e "/usr/share/postgresql/$major/extension/pgtap.control" ] ||
			echo "postgresql-$major-pgtap"
	fi
}

as_root()
{
	if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# The names of what is missing, as this archive has them.  What only a test of
# other people's programs needs, or the benchmark, is left out where there is no such
# package: they say so.
choose_packages()
{
	local package

	for package in "$@"; do
		case $package in
			# Debian 12 has it in the package of the whole.
			promtool) in_archive promtool || package=prometheus ;;
		esac
		case $package in
			prometheus* | redis-* | etcd-* | *zookeeper* | libhiredis-* | libevent-* | \
				*grpc* | *protobuf*) in_archive "$package" || continue ;;
			python3-psycopg | ruby-pg | libpostgresql-jdbc-java | default-jre-headless | node-pg)
				can_install "$package" || continue ;;
		esac
		echo "$package"
	done
}

in_archive() { apt-cache show "$1" >/dev/null 2>&1; }

# What the archive has may not fit what is installed.
can_install() { apt-get -qq -s --no-install-recommends install "$1" >/dev/null 2>&1; }

# Hold what is installed of the server at its version, and take the rest of
# its packages in the same one if the archive still has it.
pin_versions()
{
	local version package
	version=$(dpkg-query -W -f='${Version}' "postgresql-$major" 2>/dev/null)

	if [ -n "$version" ]; then
		echo "postgresql-$major=$version"
		echo "postgresql-client-$major=$(dpkg-query -W -f='${Version}' "postgresql-client-$major")"
	fi
	for package in "$@"; do
		if [ "$package" = "postgresql-server-dev-$major" ] && [ -n "$version" ] &&
			apt-cache madison "$package" | grep -F "| $version |" >/dev/null; then
			package=$package=$version
		fi
		echo "$package"
	done
}

restore_policies()
{
	as_root rm -f "$cluster_policy"
	as_root rmdir --ignore-fail-on-non-empty "${cluster_policy%/*}"
	[ -z "$own_service_policy" ] || as_root rm -f "$service_policy"
}

apt_install()
{
	local wanted output package

	as_root apt-get -qq update || die "could not update the package lists"
	mapfile -t wanted < <(choose_packages "$@")
	[ ${#wanted[@]} -gt 0 ] || return 0
	set -- "${wanted[@]}"
	say "installing $*"
	mapfile -t wanted < <(pin_versions "$@")
	trap restore_policies EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	as_root mkdir -p "${cluster_policy%/*}"
	echo 'create_main_cluster = false' | as_root tee "$cluster_policy" >/dev/null
	if [ ! -e "$service_policy" ]; then
		own_service_policy=yes
		printf '#!/bin/sh\nexit 101\n' | as_root tee "$service_policy" >/dev/null
		as_root chmod +x "$service_policy"
	fi
	output=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
		-o DPkg::Lock::Timeout=300 install "${wanted[@]}" 2>&1) ||
		die "$output" "could not install $*"
	for package in "$@"; do
		case $package in
			pgbouncer | prometheus* | redis-server | zookeeper) ;;
			etcd-server) package=etcd ;;
			*) continue ;;
		esac
		as_root update-rc.d "$package" disable >/dev/null 2>&1
	done
	return 0
}

# fetch_node_pg DIRECTORY: Node's driver, where npm serves.
fetch_node_pg()
{
	have node && ! node_has_pg && have npm || return 0
	mkdir "$1" && (cd "$1" && npm install --silent --ignore-scripts --no-save pg@8) >/dev/null 2>&1 &&
		export NODE_PATH=$1/node_modules || say "npm could not fetch pg"
}

# ensure_packages test|demo|drill|bench: afterwards PG_CONFIG names a server to use.
ensure_packages()
{
	local major missing debian_server=

	major=$(default_major)
	if [ -z "${PG_CONFIG:-}" ]; then
		debian_server=yes
		export PG_CONFIG=/usr/lib/postgresql/$major/bin/pg_config
	fi
	mapfile -t missing < <(missing_packages "$1")
	if [ ${#missing[@]} -gt 0 ]; then
		have apt-get || die "missing: ${missing[*]}"
		(apt_install "${missing[@]}") || exit
	fi
	PG_CONFIG=$(command -v "$PG_CONFIG") || die "there is no such pg_config"
}
