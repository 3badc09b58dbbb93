# The end of a TTL, with and without those who look after it.
#
# A lease is over at its deadline for whoever looks, even if nobody has noted it;
# the launcher and the reapers only tidy up.  They do that soon, in no blocking
# burst, start again if they die, come back when a slot is free, and leave alone
# the databases that want to be.  Guards invariant 5 (no name stays taken later
# than its deadline because of anything that died) and, for the crash that a
# killed worker is, invariant 3 (grants outlive it).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant MASS => full_size(2000, 100_000);

# Two worker slots are left for reapers; the log tells of their coming and going.
# Without history, which they would come for, too.
my $node = lease_node(
	'expiry', conf => q{
	lease.history_retention = 0
	autovacuum = off
	restart_after_crash = on
	max_worker_processes = 3
	max_logical_replication_workers = 0
	log_min_messages = debug1
	lease.max_leases = } . (MASS + 1000));

sub query
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}


# Housekeeping is done when this many leases, of all databases, are left.
sub wait_for_reaping
{
	my ($left, $what) = @_;
	return ok(wait_for($what, sub { leases_used($node) == $left }), $what);
}

sub count_processes
{
	my ($type) = @_;
	return query("SELECT count(*) FROM pg_stat_activity WHERE backend_type = '$type'");
}

sub wait_for_no_reaper
{
	return wait_for('the reaper to leave', sub { count_processes('lease reaper') == 0 });
}

#
# How soon
#
# From the deadline to a free slot, on an idle server; the first lease finds no
# reaper at work yet.  The deadline is counted from before the call, so the
# figures are a little too large.
my @delays = sort { $a <=> $b } split /\n/, query(
	q{
	SET client_min_messages = error;
	SELECT lease.release('soon', lease.try_acquire('soon')) \g /dev/null
	CREATE TEMP TABLE delay (ms double precision);
	DO $$
	DECLARE
		ttl interval;
		deadline timestamptz;
	BEGIN
		FOR i IN 1 .. } . full_size(20, 200) . q{ LOOP
			ttl := make_interval(secs => 0.05 + 0.007 * (i % 20));
			deadline := clock_timestamp() + ttl;
			PERFORM lease.try_acquire('soon', ttl);
			WHILE (SELECT leases_used FROM lease.status) > 0 LOOP
				ASSERT clock_timestamp() < deadline + interval '1 min', 'nobody tidies up';
				PERFORM pg_sleep(0.001);
			END LOOP;
			INSERT INTO delay SELECT extract(epoch FROM clock_timestamp() - deadline) * 1000;
		END LOOP;
	END
	$$;
	SELECT ms FROM delay});
note(sprintf 'from the deadline to a free slot, %d leases: %.1f ms at most, median %.1f ms',
	scalar @delays, $delays[-1], $delays[ @delays / 2 ]);
cmp_ok($delays[0], '>', 0, 'expired leases are tidied up unasked, and none before its deadline');
is(query(q{SELECT count(*) FROM lease.ledger WHERE kind <> 'ceiling'}), '0', 'their rows are gone');
ok(wait_for_no_reaper(), 'a reaper leaves when it has nothing to do');

#
# Nobody to notice
#
my $launcher = freeze($node, 'lease launcher');
my $old = acquire($node, 'noticed', ttl => '10 min');
acquire($node, 'closed', ttl => '10 min', lock_delay => '10 min');
advance_clock($node, '10 min');
is(leases_used($node), '2', 'without the launcher nothing is tidied up');
ok(!is_held($node, 'noticed', $old), 'and yet an expired lease is not held');
is(names_held($node), '', 'nor shown');
foreach my $call ("renew('noticed', $old)", "renew('noticed', $old, '1 hour')",
	"transfer('noticed', $old, 'heir')")
{
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT lease.$call");
	like($err, qr/ERROR:  LE001: .*DETAIL:  Its TTL ran out \d+\.\d+ seconds ago/s, "$call finds it lost");
}
is(query("SELECT lease.try_renew('noticed', $old)"), 'f', 'try_renew says so');
my ($rc, $out, $err) = $node->psql('postgres', "SELECT lease.release('noticed', $old)");
is($out, 'f', 'release says so');
like($err, qr/WARNING: .*DETAIL:  Its TTL ran out/s, 'and warns');
my $new = acquire($node, 'noticed');
cmp_ok($new, '>', $old, 'the next one has it at once, with a larger token');
is(acquire($node, 'closed'), undef, 'a lock_delay keeps a name closed');
advance_clock($node, '10 min');
ok($old = acquire($node, 'closed'), 'and no longer than it should');
release($node, 'closed', $old);
release($node, 'noticed', $new);
thaw($launcher);

#
# Workers that die
#
sub check_launcher
{
	my ($when) = @_;

	ok(wait_for('another launcher', sub { wait_for_launcher($node) ne $launcher }),
		"$when: there is another one");
	acquire($node, 'after', ttl => '10 min');
	advance_clock($node, '10 min');
	wait_for_reaping(1, "$when: it tidies up");
	return;
}

my $kept = acquire($node, 'kept', ttl => '1 day');
$launcher = wait_for_launcher($node);
query("SELECT pg_terminate_backend($launcher)");
check_launcher('launcher terminated');

$launcher = wait_for_launcher($node);
crash($node, $launcher);
ok(is_held($node, 'kept', $kept), 'launcher killed: grants outlive that');
check_launcher('launcher killed');

# A reaper that is terminated when it has ended one batch of rows.  It gets at
# the ledger between two locks that keep it out.
wait_for_no_reaper();
query(q{SELECT count(lease.try_acquire('batch/' || i, '10 min')) FROM generate_series(1, 1500) i});

sub start_locking
{
	my $session = $node->background_psql('postgres');
	$session->query_until(qr/locking/,
		"BEGIN;\n\\echo locking\nLOCK TABLE lease.ledger IN SHARE ROW EXCLUSIVE MODE;\n");
	return $session;
}

sub wait_for_locks
{
	my ($what, $waiting) = @_;
	return wait_for(
		$what,
		sub {
			query(q{SELECT string_agg(backend_type, ', ' ORDER BY waitstart)
					FROM pg_locks JOIN pg_stat_activity USING (pid)
					WHERE relation = 'lease.ledger'::regclass AND NOT granted}) eq $waiting;
		});
}

my $before = start_locking();
$before->query_safe('SELECT true');
advance_clock($node, '10 min');
wait_for_locks('a reaper at the gate', 'lease reaper');
my $after = start_locking();
wait_for_locks('a lock behind it', 'lease reaper, client backend');
$before->query_safe('COMMIT');
$before->quit;
$after->query_safe('SELECT true');
wait_for_locks('the reaper between two batches', 'lease reaper');
is(leases_used($node), '501', 'a reaper has done one batch');
query(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'lease reaper'});
wait_for_no_reaper();
$after->query_safe('COMMIT');
$after->quit;
advance_clock($node, '10 s');
wait_for_reaping(1, 'reaper terminated: another one does the rest');

#
# No worker slot
#
wait_for_no_reaper();

# A query that is made to run in a parallel worker takes a slot, if there is one: that
# of a reaper is free a moment after it is gone.
my @occupants;
sub occupy
{
	push @occupants, start_psql($node, <<'SQL');
SELECT set_config(name, 'on', false) FROM pg_settings
WHERE name IN ('force_parallel_mode', 'debug_parallel_query');    -- before 16, and since
SET application_name = 'occupant';
SELECT pg_sleep(3600);
SQL
	return;
}

wait_for(
	'parallel workers',
	sub {
		return 1 if count_processes('parallel worker') == 2;
		occupy() if @occupants == query(q{SELECT count(*) FROM pg_stat_activity
				WHERE application_name = 'occupant' AND backend_type = 'client backend'
				AND query LIKE '%pg_sleep%' AND state = 'active'});
		return 0;
	});

my $position = log_position($node);
foreach my $name (qw(one two three))
{
	acquire($node, $name, ttl => '10 min');
	advance_clock($node, '10 min');
	wait_for(
		'a try to start a reaper',
		sub { log_since($node, $position) =~ /could not start a lease reaper/ });
	wait_for_launcher($node);
}
is(leases_used($node), '4', 'no slot: expired leases are not tidied up');
ok($new = acquire($node, 'one'), 'no slot: they change hands');
release($node, 'one', $new);
query(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity
		WHERE application_name = 'occupant' AND backend_type = 'client backend'});
finish_psql($_) foreach @occupants;
advance_clock($node, '10 s');
wait_for_reaping(1, 'a slot is free: the rest is tidied up');
is(scalar(() = log_since($node, $position) =~ /could not start a lease reaper/g),
	1, 'the log mentions once that there was none');

#
# Databases that want nobody in
#
create_lease($node, 'shut');
my $shut_oid = query(q{SELECT oid FROM pg_database WHERE datname = 'shut'});
my $came = qr/starting background worker process "lease reaper for database $shut_oid"/;
foreach ([ 'ALLOW_CONNECTIONS false', 'ALLOW_CONNECTIONS true' ],
	[ 'IS_TEMPLATE true', 'IS_TEMPLATE false' ])
{
	my ($shut, $open) = @$_;

	wait_for_no_reaper();
	acquire($node, 'inside', db => 'shut', ttl => '10 min');
	query("ALTER DATABASE shut $shut");
	$position = log_position($node);
	advance_clock($node, '10 min');
	ok( wait_for(
			'a reaper to come and go',
			sub { log_since($node, $position) =~ /$came.*background worker "lease reaper" .*exited with exit code 0/s }),
		"$shut: a reaper turns round at the door");
	advance_clock($node, '5 s') for 1 .. 5;
	wait_for_launcher($node);
	is(leases_used($node), '2', "$shut: it has touched nothing");
	is(scalar(() = log_since($node, $position) =~ /$came/g), 1, "$shut: it does not come again at once");
	unlike(log_since($node, $position), qr/(ERROR|FATAL):/, "$shut: nobody complains");
	query("ALTER DATABASE shut $open");
	advance_clock($node, '1 min');
	wait_for_reaping(1, "$open: it does its work");
}

#
# Closed names open on time, and their rows go without anybody asking
#
acquire($node, 'delayed', ttl => '10 min', lock_delay => '1 hour');
$old = acquire($node, 'paced', min_hold => '70 min');
release($node, 'paced', $old);
advance_clock($node, '10 min');
wait_for('closing both names',
	sub { query(q{SELECT count(*) FROM lease.ledger WHERE kind = 'closure'}) == 2 });
advance_clock($node, '55 min');
is(acquire($node, 'delayed'), undef, 'lock_delay: the name is closed until it has passed');
is(acquire($node, 'paced'), undef, 'min_hold: so it is');
advance_clock($node, '5 min');
wait_for_reaping(1, 'both are tidied up then');
is(query(q{SELECT string_agg(concat_ws(' ', kind, name), ', ' ORDER BY kind) FROM lease.ledger}),
	'ceiling, grant kept', 'their rows are gone');
foreach my $name (qw(delayed paced))
{
	ok($old = acquire($node, $name), "$name: the name is open then");
	release($node, $name, $old);
}

#
# A mass of leases that got the same deadline from a restart
#
query(q{
	SET synchronous_commit = off;
	SELECT count(lease.try_acquire('mass/' || i, '10 min')) FROM generate_series(1, } . MASS . ') i');
$node->restart;
wait_for_launcher($node);
is(leases_used($node), MASS + 1, MASS . ' leases are restored');

# Acquire, renew and release as fast as can be until all of them are gone, then
# tell how often that was done while they went, and how long a call took at most.
my $bystander = start_psql(
	$node, q{
	SET application_name = 'bystander';
	SET synchronous_commit = off;
	DO $$
	DECLARE
		used integer;
		token bigint;
		called timestamptz;
		took interval;
		longest interval = '0';
		rounds integer = 0;
	BEGIN
		LOOP
			SELECT leases_used INTO used FROM lease.status;
			EXIT WHEN used = 1;
			called := clock_timestamp();
			token := lease.try_acquire('bystander', '1 day');
			took := clock_timestamp() - called;
			PERFORM lease.renew('bystander', token);
			took := greatest(took, clock_timestamp() - called - took);
			PERFORM lease.release('bystander', token);
			longest := greatest(longest, took);
			rounds := rounds + (used <= } . MASS . q{)::integer;
		END LOOP;
		RAISE INFO '% rounds, % ms', rounds, extract(epoch FROM longest) * 1000;
	END
	$$});
wait_for(
	'the bystander',
	sub {
		query(q{SELECT count(*) FROM pg_stat_activity
				WHERE application_name = 'bystander' AND query LIKE '%rounds%'}) == 1;
	});
advance_clock($node, '10 min');
(undef, $err) = finish_psql($bystander);
my ($rounds, $longest) = $err =~ /INFO:  (\d+) rounds, ([\d.]+) ms/;
ok(defined $rounds, 'while they expire others acquire, renew and release') or diag($err);
note(sprintf 'while %d expired: %d rounds, no call took longer than %.1f ms', MASS, $rounds, $longest)
  if defined $rounds;
is(names_held($node), 'kept', 'the mass is gone');
$node->stop;
done_testing();
