# What administrators see of those who wait: in views, by process, in the server
# log; and what it costs to wait, also for clients that are gone.
#
# Guards invariant 7 (none is forgotten, and a grant is never given to a waiter
# that has gone) and 9 (nobody learns what its privileges do not allow).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use POSIX;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use constant CROWD => 20;

my $node = lease_node(
	'watching', conf => q{
	deadlock_timeout = 10ms
	log_lock_waits = on
	log_statement = none
	update_process_title = on
	max_connections = 60});

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

value(q{
	CREATE TABLE served (client text, token bigint);
	CREATE ROLE anna; CREATE ROLE bert; CREATE ROLE guard IN ROLE pg_monitor;
	GRANT INSERT ON served TO anna, bert;
	SELECT lease.allow(r::regrole) FROM unnest(ARRAY['anna', 'bert', 'guard']) r});

# A client that does something ("first") and then makes a call, for which it has to
# wait, and tells what it got; returns once it waits.
my $clients = 0;

sub start_waiter
{
	my ($call, $first) = @_;
	my $label = 'client ' . ++$clients;
	my $psql = start_psql($node, "SET application_name = '$label';\n"
		. ($first ? "$first;\n" : '') . "INSERT INTO served SELECT '$label', $call;\n");
	my $pid;

	wait_for(
		"$label to wait",
		sub {
			$pid = value("SELECT pid FROM lease.waiters JOIN pg_stat_activity USING (pid)
						  WHERE application_name = '$label'");
		});
	return { %$psql, label => $label, pid => $pid };
}

sub token_of
{
	my ($waiter) = @_;
	return value("SELECT token FROM served WHERE client = '$waiter->{label}'");
}

# Wait until clients have been served, and are gone.
sub finish_waiters
{
	foreach my $waiter (@_)
	{
		wait_for("$waiter->{label} to be served", sub { token_of($waiter) ne '' });
		finish_psql($waiter);
	}
	return;
}

# Some of the queues' columns, as a role sees them, in order of arrival.
sub queues
{
	my ($columns, $role) = @_;
	return value(($role ? "SET ROLE $role; " : '') .
		"SELECT string_agg(concat_ws(' ', $columns), ', ' ORDER BY waiting_since) FROM lease.waiters");
}

sub blocking
{
	my ($waiter) = @_;
	return value("SELECT array_agg(p ORDER BY p) FROM unnest(lease.blocking_pids($waiter->{pid})) p");
}

sub sorted { return '{' . join(',', sort { $a <=> $b } @_) . '}' }

#
# A queue, and a detached lease in its way
#
my $position = log_position($node);
my $token = acquire($node, 'one');
my @waiters = (
	start_waiter("lease.acquire('one', '1 h', holder => 'a')"),
	start_waiter("lease.acquire('one', '1 h', holder => 'b', mode => 'shared')"),
	start_waiter("lease.acquire('one', '1 h', holder => 'c', mode => 'shared')"));

is( queues('name, position, holder, mode, permits'),
	'one 1 a exclusive, one 2 b shared, one 3 c shared',
	'lease.waiters shows a queue in its order');
is(queues('pid'), join(', ', map { $_->{pid} } @waiters), 'with the processes');
is(queues('owner = current_user'), 't, t, t', 'their roles');
is(value('SELECT DISTINCT blocked_by FROM lease.waiters'), "{$token}", 'what is in their way');
is( value(q{SELECT bool_and(waited > '0' AND waiting_since < now() AND
							waiting_since + waited BETWEEN now() - interval '1 min' AND clock_timestamp() + interval '1 min')
			FROM lease.waiters}),
	't',
	'and since when, and for how long, they wait');
is(value('SELECT waiters FROM lease.leases'), 3, 'lease.leases counts them');
is(value('SELECT waiters FROM lease.status'), 3, 'lease.status, too');
is(blocking($waiters[0]), '{0}', 'blocking_pids: no process holds a detached lease');
is(blocking($_), "{0,$waiters[0]{pid}}", 'blocking_pids: a writer is ahead; readers ahead of readers do not count')
  foreach @waiters[ 1, 2 ];
is(value('SELECT lease.blocking_pids(pg_backend_pid())'), '{}', 'blocking_pids: who does not wait is not blocked');
is(value('SELECT lease.blocking_pids(0)'), '{}', 'blocking_pids: nor is who does not exist');

foreach my $waiter (@waiters)
{
	wait_for('the server log',
		sub {
			log_since($node, $position) =~ /process\ $waiter->{pid}\ still\ waiting\ for\ lease\ "one"\ after\ \d+\.\d{3}\ ms
				\n[^\n]*DETAIL:\ \ It\ is\ held\ by\ "[^"]*"\ with\ token\ $token\ for/x;
		});
}
release($node, 'one', $token);
finish_waiters($waiters[0]);
is(queues('holder, position'), 'b 1, c 2', 'who is served leaves the queue');
is( value('SELECT DISTINCT blocked_by FROM lease.waiters'),
	'{' . token_of($waiters[0]) . '}',
	'and is in the way of the others');
release($node, 'one', token_of($waiters[0]));
finish_waiters(@waiters[ 1, 2 ]);
is(value('SELECT count(*) FROM lease.waiters'), 0, 'then nobody waits any more');
is(value('SELECT waiters FROM lease.status'), 0, 'which lease.status says, too');
is(value('SELECT DISTINCT waiters FROM lease.leases'), 0, 'and lease.leases');
is( scalar(grep { log_since($node, $position) =~ /process $_->{pid} acquired lease "one" after \d+\.\d{3} ms/ } @waiters),
	3,
	'log_lock_waits: still waiting, and acquired');
release($node, 'one', token_of($_)) foreach @waiters[ 1, 2 ];

#
# Sessions in the way, permits, other roles
#
my $gate = acquire($node, 'gate');
my @holders = map {
	start_waiter("lease.acquire('gate', scope => 'session')",
		"SELECT lease.acquire('shared', mode => 'shared', scope => 'session')")
} 1 .. 2;
my $reader = acquire($node, 'shared', mode => 'shared');
my $writer = start_waiter("lease.acquire('shared', '1 h')");
my $late = start_waiter("lease.acquire('shared', '1 h', mode => 'shared')");
my $permit = value(q{SELECT lease.acquire_permit('permits', 3, 2, '1 h')});
my $all = start_waiter("lease.acquire_permit('permits', permits => 3, ttl => '1 h')");
my $single = start_waiter("lease.acquire_permit('permits', ttl => '1 h')");

is( blocking($writer), sorted(0, map { $_->{pid} } @holders),
	'blocking_pids: all who hold it in scope session, and 0 for a detached lease');
is(blocking($late), "{$writer->{pid}}", 'blocking_pids: nobody that it could share the lease with');
is(value("SELECT cardinality(blocked_by) FROM lease.waiters WHERE pid = $writer->{pid}"),
	3, 'lease.waiters: the tokens of all of them');
is( value(q{SELECT string_agg(concat_ws(' ', mode, permits), ', ' ORDER BY position)
			FROM lease.waiters WHERE name = 'permits'}),
	'permit 3, permit 1',
	'lease.waiters: how many permits');
is(blocking($all), '{0}', 'blocking_pids: the holder of permits');
is(blocking($single), sorted(0, $all->{pid}), 'blocking_pids: and who is ahead');

my @roles = map { start_waiter("lease.acquire('gate', '1 h', holder => '$_')", "SET ROLE $_") } qw(anna bert);
my %shown = map { $_ => value("SET ROLE $_; SELECT string_agg(concat_ws(' ', owner, name, holder), ', ' ORDER BY position)
	FROM lease.waiters WHERE pid IN ($roles[0]{pid}, $roles[1]{pid})") } qw(anna bert guard);
is($shown{anna}, 'anna gate anna, bert', 'another role sees that somebody waits, and not for what');
is($shown{bert}, 'anna, bert gate bert', 'each sees its own');
is($shown{guard}, 'anna gate anna, bert gate bert', 'pg_monitor sees all');
is(value('SET ROLE anna; SELECT count(*) FROM lease.waiters WHERE name IS NULL'), 7,
	'as many as there are');

release($node, 'gate', $gate);
finish_waiters(@holders);
release($node, 'shared', $reader);
finish_waiters($writer, $roles[0]);
release($node, 'shared', token_of($writer));
finish_waiters($late);
release($node, 'gate', token_of($roles[0]));
finish_waiters($roles[1]);
release($node, 'permits', $permit);
finish_waiters($all);
release($node, 'permits', token_of($all));
finish_waiters($single);
value('SELECT lease.release(name, token) FROM lease.leases');
is(leases_used($node), 0, 'all let go');

#
# The process: title, wait event; nothing in the log unless it is asked for
#
sub title
{
	my ($pid) = @_;
	return slurp_file("/proc/$pid/cmdline") =~ tr/\0/ /r;
}

# A statement that waits for a lease and then sleeps; look at it before and after.
sub look_at_process
{
	my ($what, $call, $between) = @_;
	my $token = acquire($node, 'title');
	my $waiter = start_waiter("held_or_not('title')", qq{
		SET log_lock_waits = off;
		CREATE OR REPLACE FUNCTION held_or_not(name text) RETURNS bigint LANGUAGE plpgsql AS \$\$
		BEGIN
			BEGIN
				PERFORM $call;
			EXCEPTION WHEN OTHERS THEN
			END;
			PERFORM pg_sleep(3600);
			RETURN 0;
		END\$\$});

	wait_for('a longer wait', sub { value("SELECT waited > '0.1 s' FROM lease.waiters") eq 't' });
	like(title($waiter->{pid}), qr/ INSERT waiting\s*$/, "$what: the process title says waiting");
	is( value("SELECT wait_event_type || ' ' || CASE WHEN current_setting('server_version_num')::integer >= 170000
			   THEN wait_event ELSE 'LeaseAcquire' END FROM pg_stat_activity WHERE pid = $waiter->{pid}"),
		'Extension LeaseAcquire', "$what: so does pg_stat_activity");
	$between->($token);
	wait_for('the wait to be over',
		sub { value("SELECT wait_event FROM pg_stat_activity WHERE pid = $waiter->{pid}") eq 'PgSleep' });
	like(title($waiter->{pid}), qr/ INSERT\s*$/, "$what: after it the title does not");
	value("SELECT pg_cancel_backend($waiter->{pid})");
	finish_psql($waiter);
	value('SELECT lease.release(name, token) FROM lease.leases');
	return $waiter->{pid};
}

$position = log_position($node);
my $served = look_at_process('served', "lease.acquire(name, '1 h')", sub { release($node, 'title', $_[0]) });
my $failed = look_at_process('timed out', "lease.acquire(name, '1 h', '1 s')", sub { });
unlike(log_since($node, $position), qr/process ($served|$failed) (still waiting|acquired)/,
	'log_lock_waits off: the log says nothing');

#
# A limited wait
#
$token = acquire($node, 'limit');
is( value(q{
	CREATE FUNCTION waits(how_long interval) RETURNS interval LANGUAGE plpgsql AS $$
	DECLARE
		began timestamptz := clock_timestamp();
	BEGIN
		PERFORM lease.acquire('limit', wait => how_long);
	EXCEPTION WHEN lock_not_available THEN
		RETURN clock_timestamp() - began;
	END$$;
	SELECT bool_and(waits(w) >= w) FROM unnest('{1 ms,15 ms,30 ms,300 ms,1.2 s}'::interval[]) w}),
	't', 'a wait with a limit waits at least that long');
release($node, 'limit', $token);

#
# A crowd: what it costs, and what it leaves behind when its clients are killed
#
# CPU time of processes in seconds, and how often they went to sleep.
sub cost
{
	my ($ticks, $sleeps) = (0, 0);

	foreach my $waiter (@_)
	{
		# utime and stime, counted from behind the name.
		my @stat = split ' ', slurp_file("/proc/$waiter->{pid}/stat") =~ s/.*\) //sr;
		my ($switches) = slurp_file("/proc/$waiter->{pid}/status") =~ /^voluntary_ctxt_switches:\s+(\d+)/m;

		$ticks += $stat[11] + $stat[12];
		$sleeps += $switches;
	}
	return ($ticks / POSIX::sysconf(POSIX::_SC_CLK_TCK), $sleeps);
}

$token = acquire($node, 'crowd');
my @crowd = map { start_waiter("lease.acquire('crowd', '1 h')") } 1 .. CROWD;
my $since = time;
my ($cpu, $sleeps) = cost(@crowd);
my $rounds = value(q{SELECT max(waited) + interval '3.5 s' FROM lease.waiters});
wait_for('three looks around', sub { value("SELECT min(waited) > '$rounds' FROM lease.waiters") eq 't' });
my ($cpu_then, $sleeps_then) = cost(@crowd);
$since = time - $since;
$_ /= $since foreach $cpu = $cpu_then - $cpu, $sleeps = ($sleeps_then - $sleeps) / CROWD;
note(sprintf 'each of %d waiters woke %.1f times a second; all used %.3f s of CPU a second', CROWD, $sleeps, $cpu);
cmp_ok($cpu, '<', 0.2, 'waiting backends use no CPU');
cmp_ok($sleeps, '<', 10, 'nor do they wake to see whether it is their turn');

sub kill_clients
{
	$_->{run}->signal('KILL') foreach @_;
	$_->{run}->finish foreach @_;
	return;
}

# The holder lets go and who stands behind the crowd is served; none of the crowd
# got anything, or stays.
sub serves_behind
{
	my ($what, $behind, @gone) = @_;

	finish_waiters($behind);
	is(join('', map { token_of($_) } @gone), '', "$what: none of them got the lease");
	is(value('SELECT token FROM lease.leases'), token_of($behind), "$what: who stood behind them has it");
	release($node, 'crowd', token_of($behind));
	wait_for("$what: the dead to leave", sub {
		value('SELECT count(*) FROM pg_stat_activity WHERE pid IN (' . join(', ', map { $_->{pid} } @gone) . ')') == 0 });
	is(value('SELECT count(*) FROM lease.waiters'), 0, "$what: nobody waits");
	is(leases_used($node), 0, "$what: nothing is left");
	return;
}

my $behind = start_waiter("lease.acquire('crowd', '1 h')");
kill_clients(@crowd);
release($node, 'crowd', $token);
serves_behind('dead waiters in front do not lengthen the wait of those behind', $behind, @crowd);

# Backends that are stopped learn last that their clients are gone: when the lease
# has been handed to the first of them.  One that waits holds no lock.
sub stop_while_it_waits
{
	my ($waiter) = @_;

	return wait_for(
		'stopping a backend',
		sub {
			kill 'STOP', $waiter->{pid};
			return 1 if value("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $waiter->{pid}") eq 'Extension';
			thaw($waiter->{pid});
			return 0;
		});
}

$token = acquire($node, 'crowd');
@crowd = map { start_waiter("lease.acquire('crowd', '1 h')") } 1 .. 3;
$behind = start_waiter("lease.acquire('crowd', '1 h')");
stop_while_it_waits($_) foreach @crowd;
kill_clients(@crowd);
release($node, 'crowd', $token);
is(value('SELECT count(*) FROM lease.waiters'), 3, 'the lease is handed to a dead client');
thaw($_->{pid}) foreach @crowd;
serves_behind('it is handed on', $behind, @crowd);

$node->stop;
done_testing();
