# Alive.pm - servers on which many leases are alive
#
# How they start after a crash, and what they need while nothing happens.

package Alive;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(dirname);
use List::Util qw(sum0);
use POSIX ();
use Servers;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(make_alive measure_start measure_idle);

my $ticks_a_second = POSIX::sysconf(POSIX::_SC_CLK_TCK());

# Servers "alive-N" with N durable leases each, made at the same time.
sub make_alive
{
	my (@counts) = @_;
	my ($most) = sort { $b <=> $a } @counts;
	my @children;

	make_postgres("alive-$_", 'lease.max_leases = ' . ($most + 100_000)) foreach @counts;
	foreach my $count (@counts)
	{
		my $pid = fork() // die "could not fork: $!\n";
		push @children, $pid;
		next if $pid;
		my $made = eval { populate("alive-$count", $count) };
		warn $@ unless $made;
		POSIX::_exit($made ? 0 : 1);
	}
	my @failed = grep { waitpid($_, 0) != $_ || $? } @children;
	die "could not make the leases\n" if @failed;
	return;
}

# A client of its own for each of them would take as long again.
sub populate
{
	my ($server, $count) = @_;
	my $made = sql(
		$server, 'SET synchronous_commit = off',
		"SELECT count(lease.try_acquire('alive/' || i, '1 day')) FROM generate_series(1, $count) i");

	die "$server has $made leases, not $count\n" if $made != $count;
	return 1;
}

# Seconds from the start after a crash to the first grant.
sub start_after_crash
{
	my ($server) = @_;
	my $grant = sub { eval { sql($server, "SELECT lease.acquire('first', request_id => 'bench') > 0") } // '' };

	crash_server($server);
	my $began = time;
	begin_start($server);
	wait_until(600, sub { $grant->() eq 't' }) || die "$server does not come back\n";
	return time - $began;
}

# The first crash leaves all the WAL since the leases were made to be replayed.
sub measure_start
{
	my ($server, $alive) = @_;
	my $first = start_after_crash($server);
	sql($server, 'CHECKPOINT');
	my $again = start_after_crash($server);

	return {
		name => 'start',
		title => 'Start',
		text => 'Seconds from the start of a crashed server to its first grant, with '
		  . "$alive durable leases alive.",
		rows => [
			{ name => 'all its WAL to be replayed, from the first lease on', value => $first, unit => 's' },
			{ name => 'crashed just after a checkpoint', value => $again, unit => 's', most => 3 } ]
	};
}

sub fields
{
	my ($file) = @_;
	open my $in, '<', $file or return;
	return split ' ', (<$in> // return) =~ s/.*\) //sr;
}

# The seconds of CPU time that processes have used.  The scheduler knows it exactly;
# else it is in clock ticks.
sub cpu_time
{
	my @used = map {
		my @exact = fields("/proc/$_/schedstat");
		my @ticks = fields("/proc/$_/stat") or die "process $_ is gone\n";
		@exact ? $exact[0] / 1e9 : ($ticks[11] + $ticks[12]) / $ticks_a_second;
	} @_;
	return sum0(@used);
}

# What the children of a process had used when they ended.
sub cpu_time_of_ended
{
	my ($pid) = @_;
	my @ticks = fields("/proc/$pid/stat") or die "process $pid is gone\n";
	return ($ticks[13] + $ticks[14]) / $ticks_a_second;
}

sub pids
{
	my ($server, $where) = @_;
	return split /\n/, sql($server, "SELECT pid FROM pg_stat_activity WHERE $where");
}

# Clients that wait for a lease for as long as they are let.
sub start_waiters
{
	my ($server, $count) = @_;
	my %environment = environment($server);
	my $pid = fork() // die "could not fork: $!\n";

	if ($pid == 0)
	{
		@ENV{ keys %environment } = values %environment;
		open STDOUT, '>', '/dev/null';
		open STDERR, '>&', \*STDOUT;
		exec 'pgbench', '-n', '-t', 1, '-c', $count, '-f', dirname(__FILE__) . '/jobs/idle-wait.sql'
		  or POSIX::_exit(127);
	}
	wait_until(120, sub { sql($server, 'SELECT count(*) FROM lease.waiters') == $count })
	  || die "there are not $count waiters\n";
	return $pid;
}

# CPU time, as a percentage of a core, of those who have nothing to do.
sub measure_idle
{
	my ($server, $alive, $seconds) = @_;

	sql($server, "SELECT lease.acquire('idle', '1 hour')");
	my $crowd = start_waiters($server, 20);
	my @launcher = pids($server, "backend_type = 'lease launcher'");
	my @waiters = pids($server, "pid IN (SELECT pid FROM lease.waiters)");
	my ($postmaster) = fields(directory($server) . '/data/postmaster.pid');
	my $look = sub { [ cpu_time(@launcher), cpu_time_of_ended($postmaster), cpu_time(@waiters) ] };

	# What a reaper did before counts when it ends.
	settle($server);
	wait_until(60, sub { !pids($server, "backend_type IN ('lease reaper', 'autovacuum worker')") })
	  || warn "$server does not come to rest\n";
	my ($before, $began) = ($look->(), time);
	sleep $seconds;
	my ($after, $took) = ($look->(), time - $began);
	my ($of_launcher, $of_ended, $of_waiters) = map { 100 * ($after->[$_] - $before->[$_]) / $took } 0 .. 2;

	kill 'KILL', $crowd;
	waitpid $crowd, 0;
	sql($server, "SELECT lease.force_release('idle', 'no longer idle')");
	return {
		name => 'idle',
		title => 'Idle',
		text => "CPU time in $seconds s in which nothing happens, as a percentage of a core, with "
		  . "$alive leases alive.",
		rows => [
			{ name => 'launcher', value => $of_launcher, unit => '%', most => 0.2 },
			{ name => 'reapers, and others that came and went', value => $of_ended, unit => '%' },
			{ name => '20 waiters', value => $of_waiters, unit => '%', most => 0 } ]
	};
}

1;
