# Servers.pm - the servers that are measured
#
# All are on 127.0.0.1, on ports of their own that were free, below one directory;
# they end with the program.  A PostgreSQL server is made by make_postgres; the others
# are known by name, and made when they are started first.

package Servers;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(dirname);
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep);

our @EXPORT = qw(open_servers read_file make_postgres is_here is_postgres start only running address environment sql
  settle crash_server begin_start directory wait_until version_of);

my $dir;       # where all of it is
my $conf;      # settings that let a PostgreSQL server find the extension
my $library;   # directory of bench_nothing.so
my $password;  # superuser's: everybody on the machine can reach 127.0.0.1
my $main;      # the process that opened them
my %server;    # name => { port, pid if it is a peer that runs, program if it is a peer ... }

# How to start a peer, and what it answers when it is ready, which also tells its version.
my %peer = (
	redis => {
		program => 'redis-server',
		command => sub { redis(@_, '--appendonly', 'no') },
		question => "INFO server\r\n",
		answer => qr/redis_version:(\S+)/
	},
	'redis-aof' => {
		program => 'redis-server',
		command => sub { redis(@_, '--appendonly', 'yes', '--appendfsync', 'always') },
		question => "INFO server\r\n",
		answer => qr/redis_version:(\S+)/
	},
	etcd => {
		program => 'etcd',
		command => \&etcd,
		question => "GET /version HTTP/1.0\r\n\r\n",
		answer => qr/"etcdserver":"([^"]+)"/
	},
	zookeeper => {
		program => '/usr/share/zookeeper/bin/zkServer.sh',
		command => \&zookeeper,
		question => 'srvr',
		answer => qr/version: ([\d.]+).*^Mode: standalone/ms
	});

sub open_servers
{
	my (%args) = @_;

	($dir, $conf, $library) = @args{qw(dir conf library)};
	open my $random, '<:raw', '/dev/urandom' or die "could not open /dev/urandom: $!\n";
	read($random, my $bytes, 16) == 16 or die "could not read /dev/urandom: $!\n";
	$password = unpack 'H*', $bytes;
	$main = $$;
	return;
}

END
{
	if (defined $main && $main == $$)
	{
		local $?;
		stop($_) foreach keys %server;
	}
}

sub directory { return "$dir/$_[0]" }
sub data { return directory($_[0]) . '/data' }
sub address { return "127.0.0.1:$server{$_[0]}{port}" }
sub version_of { return $server{ $_[0] }{version} }

# Is there such a server on this machine?
sub is_here
{
	my ($name) = @_;
	my $program = $peer{$name} ? $peer{$name}{program} : 'postgres';

	return -x $program if $program =~ m{/};
	return scalar grep { -x "$_/$program" } split /:/, $ENV{PATH};
}

sub free_port
{
	my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 1)
	  or die "could not find a free port: $@\n";
	return $socket->sockport;
}

sub write_file
{
	my ($file, @lines) = @_;

	open my $out, '>>', $file or die "could not write $file: $!\n";
	print $out map { "$_\n" } @lines;
	close $out or die "could not write $file: $!\n";
	return $file;
}

sub read_file
{
	my ($file) = @_;
	open my $in, '<', $file or die "could not open $file: $!\n";
	local $/;
	return <$in> // '';
}

sub wait_until
{
	my ($seconds, $condition) = @_;

	foreach (1 .. 50 * $seconds)
	{
		return 1 if $condition->();
		sleep 0.02;
	}
	return 0;
}

# Run a program; what it says.
sub run
{
	my (@command) = @_;
	my $out = open(my $from, '-|') // die "could not fork: $!\n";

	if ($out == 0)
	{
		open STDERR, '>&', \*STDOUT;
		exec @command or POSIX::_exit(127);
	}
	my $said = do { local $/; <$from> };
	close $from or die "$command[0] failed:\n$said";
	return $said;
}

#
# PostgreSQL
#
sub environment
{
	my ($name) = @_;
	return (
		PGHOST => '127.0.0.1', PGPORT => $server{$name}{port}, PGUSER => 'postgres',
		PGDATABASE => 'postgres', PGPASSWORD => $password, PGOPTIONS => '-c client_min_messages=warning');
}

# What statements return.
sub sql
{
	my ($name, @statements) = @_;
	my %environment = environment($name);

	local @ENV{ keys %environment } = values %environment;
	chomp(my $said = run('psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', map { ('-c', $_) } @statements));
	return $said;
}

# Until nothing is left to be done of what went before; warns if that takes long.
sub settle
{
	my ($name) = @_;
	my $calm = q{SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'autovacuum worker')
		AND (SELECT coalesce(history_pending, 0) FROM lease.status) = 0};

	wait_until(120, sub { sql($name, $calm) eq 't' }) || warn "$name does not come to rest\n";
	return;
}

# Debian's configuration, but for what would disturb: a checkpoint falls into nobody's
# run, and memory is what a server of this kind would have.
sub postgres_settings
{
	my ($name) = @_;
	my ($path) = read_file($conf) =~ /^dynamic_library_path = '(.*)'/m;

	return (
		read_file($conf) =~ s/\n\z//r,
		"dynamic_library_path = '$library:" . ($path // '$libdir') . "'",
		"listen_addresses = '127.0.0.1'", "port = $server{$name}{port}", "unix_socket_directories = ''",
		'shared_buffers = 256MB', 'max_wal_size = 16GB', 'checkpoint_timeout = 1h', 'max_connections = 200');
}

# A running server with the extension and what the scripts in jobs/ need.
sub make_postgres
{
	my ($name, @settings) = @_;

	mkdir directory($name) or die 'could not make ' . directory($name) . ": $!\n";
	$server{$name} = { port => free_port() };
	my $secret = write_file(directory($name) . '/password', $password);
	run('initdb', '-D', data($name), '-A', 'scram-sha-256', "--pwfile=$secret", '-U', 'postgres', '--locale=C',
		'--encoding=UTF8');
	write_file(data($name) . '/postgresql.conf', postgres_settings($name), @settings);
	start($name);
	my %environment = environment($name);
	local @ENV{ keys %environment } = values %environment;
	run('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', dirname(__FILE__) . '/setup.sql');
	$server{$name}{version} = sql($name, 'SHOW server_version');
	return;
}

# Start it and do not wait.
sub begin_start
{
	my ($name) = @_;
	return run('pg_ctl', '-s', '-W', '-D', data($name), '-l', directory($name) . '/log', 'start');
}

sub start_postgres
{
	my ($name) = @_;
	run('pg_ctl', '-s', '-w', '-t', 300, '-D', data($name), '-l', directory($name) . '/log', 'start');
	return;
}

# As a crash leaves it.
sub crash_server
{
	my ($name) = @_;
	run('pg_ctl', '-s', '-w', '-m', 'immediate', '-D', data($name), 'stop');
	return;
}

#
# Peers: the command that starts one, in a directory of its own
#
sub redis
{
	my ($port, @options) = @_;
	return ('redis-server', '--bind', '127.0.0.1', '--port', $port, '--save', '', @options);
}

sub etcd
{
	my ($port) = @_;
	my ($clients, $members) = map { "http://127.0.0.1:$_" } $port, free_port();

	return (
		'etcd', '--data-dir', 'data', '--listen-client-urls', $clients, '--advertise-client-urls', $clients,
		'--listen-peer-urls', $members, '--initial-advertise-peer-urls', $members,
		'--initial-cluster', "default=$members");
}

sub zookeeper
{
	my ($port) = @_;
	my $here = directory('zookeeper');

	unlink "$here/zoo.cfg";
	write_file("$here/zoo.cfg", 'tickTime=2000', "dataDir=$here/data", "clientPort=$port",
		'clientPortAddress=127.0.0.1', 'admin.enableServer=false');
	return ('env', 'JMXDISABLE=true', "ZOO_LOG_DIR=$here", $peer{zookeeper}{program}, 'start-foreground',
		"$here/zoo.cfg");
}

# What a peer answers to its question; nothing while there is nobody.
sub ask
{
	my ($name) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => address($name), Timeout => 1) or return '';
	my $said = '';

	local $SIG{PIPE} = 'IGNORE';
	$socket->syswrite($peer{$name}{question});
	while ($said !~ $peer{$name}{answer})
	{
		vec(my $ready = '', $socket->fileno, 1) = 1;
		return '' unless select($ready, undef, undef, 1) && $socket->sysread($said, 4096, length $said);
	}
	return $said;
}

sub start_peer
{
	my ($name) = @_;
	my $log = directory($name) . '/log';

	mkdir directory($name);
	my $it = $server{$name} //= { port => free_port() };
	my @command = $peer{$name}{command}->($it->{port});

	$it->{pid} = fork() // die "could not fork: $!\n";
	if ($it->{pid} == 0)
	{
		chdir directory($name) or POSIX::_exit(126);
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', $log;
		open STDERR, '>&', \*STDOUT;
		exec @command or POSIX::_exit(127);
	}
	wait_until(60, sub { ask($name) ne '' || waitpid($it->{pid}, POSIX::WNOHANG()) != 0 });
	my $said = ask($name);
	die "$name did not start:\n" . read_file($log) if $said eq '';
	($it->{version}) = $said =~ $peer{$name}{answer};
	return;
}

#
# Both
#
sub is_running
{
	my ($name) = @_;
	return $peer{$name} ? $server{$name} && $server{$name}{pid} : -e data($name) . '/postmaster.pid';
}

sub start
{
	my ($name) = @_;
	return if is_running($name);
	return $peer{$name} ? start_peer($name) : start_postgres($name);
}

sub stop
{
	my ($name) = @_;
	return unless is_running($name);
	unless ($peer{$name})
	{
		return system('pg_ctl', '-s', '-w', '-m', 'fast', '-D', data($name), 'stop');
	}
	my $pid = delete $server{$name}{pid};
	kill 'TERM', $pid;
	wait_until(20, sub { waitpid($pid, POSIX::WNOHANG()) != 0 }) || kill('KILL', $pid) && waitpid($pid, 0);
	return;
}

sub is_postgres { return !$peer{ $_[0] } }
sub running { return grep { is_running($_) } sort keys %server }

# These run, and no others: nobody pays for a server that is not asked.
sub only
{
	my (@names) = @_;
	my %wanted = map { $_ => 1 } @names;

	stop($_) foreach grep { !$wanted{$_} } keys %server;
	start($_) foreach @names;
	return;
}

1;
