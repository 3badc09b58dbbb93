# Scene.pm - what the troubles of a drill are made of
#
# Servers, clients and processes below one directory, which all go when the drill
# ends, also those that are frozen.  Clients are psql.

package Scene;

use strict;
use warnings;

use Exporter 'import';
use POSIX ();
use Time::HiRes qw(sleep);

our @EXPORT = qw(open_scene servers make_way_in run make_server start_server stop_server give_up_server configure
  sql failure wait_until start_client start_holder start_waiter freeze is_running put_file
  make_command settle holds);

my $dir;       # where all of it is
my $conf;      # settings that let a server find the extension
my $main;      # the process that made it
my %server;    # name => settings of its environment
my %client;    # name => { pid, in }

sub open_scene
{
	($dir, $conf) = @_;
	mkdir $dir or die "could not make $dir: $!\n";
	chdir $dir or die "could not enter $dir: $!\n";
	$main = $$;
	return;
}

END
{
	if (defined $main && $main == $$)
	{
		local $?;
		kill 'KILL', $_->{pid} foreach values %client;
		foreach my $name (grep { -e data($_) . '/postmaster.pid' } keys %server)
		{
			system('pg_ctl', '-s', '-w', '-m', 'immediate', '-D', data($name), 'stop');
		}
	}
}

# The servers, by name.
sub servers { return sort keys %server }

# The command that runs another where the runbook's commands work as they stand.
sub make_way_in
{
	return make_command('on', <<~SH);
		server=\${1:?which server?} && shift
		export PGHOST=$dir/\$server PGUSER=postgres PGDATABASE=postgres PGDATA=$dir/\$server/data
		export HOME=$dir PATH="$dir/bin:$ENV{PATH}"
		[ \$# -gt 0 ] || set -- psql -X
		exec "\$\@"
		SH
}

# A server that is gone for good.
sub give_up_server
{
	my ($name) = @_;

	stop_server($name, 'immediate');
	delete $server{$name};
	return;
}

sub data { return "$dir/$_[0]/data" }

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

sub start_server
{
	my ($name) = @_;
	local @ENV{ keys %{ $server{$name} } } = values %{ $server{$name} };
	run('pg_ctl', '-s', '-w', '-D', data($name), '-l', "$dir/$name/start.log", 'start');
	return;
}

sub stop_server { return run('pg_ctl', '-s', '-w', '-m', $_[1], '-D', data($_[0]), 'stop') }

sub configure
{
	my ($name, @settings) = @_;
	open my $out, '>>', data($name) . '/postgresql.conf' or die "could not configure $name: $!\n";
	print $out map { "$_\n" } @settings;
	close $out or die "could not configure $name: $!\n";
	return;
}

# A server that its users can restart as the runbook says: its log is a file of
# its own whoever starts it.
sub make_server
{
	my ($name, %args) = @_;
	my $socket = "$dir/$name";

	mkdir $socket or die "could not make $socket: $!\n";
	if ($args{from})
	{
		run('pg_basebackup', '-D', data($name), '-h', "$dir/$args{from}", '-U', 'postgres',
			'-c', 'fast', @{ $args{how} // [] });
	}
	else
	{
		run('initdb', '-D', data($name), '-A', 'trust', '-U', 'postgres', '--locale=C', '--encoding=UTF8');
		open my $settings, '<', $conf or die "could not read $conf: $!\n";
		chomp(my @settings = <$settings>);
		configure($name, @settings, "listen_addresses = ''", 'logging_collector = on',
			"log_filename = 'server.log'", 'fsync = off');
	}
	configure($name, "unix_socket_directories = '$socket'", "log_directory = '$socket'", @{ $args{conf} // [] });
	$server{$name} = $args{env} // {};
	return if $args{stopped};
	start_server($name);
	sql($name, 'CREATE EXTENSION lease') unless $args{from};
	return;
}

sub psql
{
	my ($name, @options) = @_;
	return ('psql', '-X', '-q', '-h', "$dir/$name", '-U', 'postgres', '-d', 'postgres', @options);
}

# What a statement returns.
sub sql
{
	my ($name, $sql) = @_;
	chomp(my $said = run(psql($name, '-At', '-v', 'ON_ERROR_STOP=1', '-c', $sql)));
	return $said;
}

# What a client's statement fails with, which it must.
sub failure
{
	my ($name, $who, $sql) = @_;
	local $ENV{PGAPPNAME} = $who;

	eval { sql($name, $sql) };
	die "this was to fail: $sql\n" unless $@;
	return $@ =~ s/^.*failed:\n//r;
}

sub wait_until
{
	my ($what, $condition) = @_;

	foreach (1 .. 1200)
	{
		return if eval { $condition->() };
		sleep 0.05;
	}
	die "waited in vain for $what\n";
}

# A client of a server: a psql with something to do, which stays connected until it fails or dies.
sub start_client
{
	my ($name, $who, $script) = @_;
	my $pid = open(my $in, '|-') // die "could not fork: $!\n";

	if ($pid == 0)
	{
		$ENV{PGAPPNAME} = $who;
		open STDOUT, '>', "$dir/$who.out";
		open STDERR, '>&', \*STDOUT;
		exec psql($name, '-At', '-v', 'ON_ERROR_STOP=1') or POSIX::_exit(127);
	}
	$in->autoflush(1);
	print $in "$script\n";
	$client{$who} = { pid => $pid, in => $in };
	return $pid;
}

# A client that takes a lease and renews it; returns its token.
sub start_holder
{
	my ($name, $who, $lease, $ttl) = @_;
	my $token = sql($name, "SELECT lease.acquire('$lease', '$ttl', holder => '$who')");

	start_client($name, $who, "SELECT lease.renew('$lease', $token) \\watch 0.5");
	wait_until("$who to renew", sub { sql($name, "SELECT renewals > 0 FROM lease.leases WHERE token = $token") eq 't' });
	return $token;
}

# A client that waits for a lease, and keeps it.
sub start_waiter
{
	my ($name, $who, $lease) = @_;

	start_client($name, $who, "SELECT lease.acquire('$lease', '1 hour', holder => '$who');");
	wait_until("$who to wait", sub { sql($name, "SELECT count(*) FROM lease.waiters WHERE holder = '$who'") == 1 });
	return;
}

sub freeze
{
	my ($who) = @_;
	kill 'STOP', $client{$who}{pid};
	waitpid $client{$who}{pid}, POSIX::WUNTRACED();
	return;
}

sub is_running
{
	my ($who) = @_;
	my $runs = $client{$who} && waitpid($client{$who}{pid}, POSIX::WNOHANG()) == 0;

	delete $client{$who} unless $runs;
	return $runs;
}
# A file, of one line, which nobody finds half written; returns its path.
sub put_file
{
	my ($name, $text) = @_;

	open my $out, '>', "$dir/$name.new" or die "could not write $name: $!\n";
	print $out "$text\n";
	close $out or die "could not write $name: $!\n";
	rename "$dir/$name.new", "$dir/$name" or die "could not write $name: $!\n";
	return "$dir/$name";
}

# A command that stands for what others do: it is in the PATH of who plays.
sub make_command
{
	my ($name, $script) = @_;
	my $file = put_file($name, "#!/bin/sh\n$script");

	mkdir "$dir/bin";
	chmod 0755, $file;
	rename $file, "$dir/bin/$name" or die "could not make $name: $!\n";
	return "$dir/bin/$name";
}

# Until what happened so far shows in lease.history.
sub settle
{
	foreach my $name (grep { my $server = $_; eval { sql($server, 'SELECT 1') } } servers())
	{
		wait_until("the history of $name",
			sub { sql($name, 'SELECT coalesce(history_pending, 0) FROM lease.status') == 0 });
	}
	return;
}

# Who ought to hold a lease does: nothing, or else what is wrong.
sub holds
{
	my ($name, $who, $lease, $token) = @_;
	my $is = defined $token ? " AND token = $token" : '';
	my $found = sql($name, "SELECT count(*) FROM lease.leases WHERE name = '$lease' AND holder = '$who'
		AND closed_until IS NULL$is");
	return $found ? () : "$who does not hold $lease" . (defined $token ? " with token $token any more" : '');
}

1;
