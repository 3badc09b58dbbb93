# Whatever ends a call early, shared memory is as if the call had not been made
# (invariant 8): a disk that takes no more rows, and cancels and terminations at
# random moments.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = lease_node('failures', extra => ['--wal-segsize=1']);

# A grant whose row has no room on disk.  New sessions may write no file larger
# than this, so the ledger cannot grow beyond it.
my $limit = 2 * 1024 * 1024;
my ($pid) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
system_or_bail('prlimit', '--pid', $pid, "--fsize=$limit:unlimited");

my $first = acquire($node, 'first');
my $metadata = '{"fill": "' . ('x' x 900) . '"}';
my $filled = $node->safe_psql('postgres', qq{
	CREATE FUNCTION fill() RETURNS integer LANGUAGE plpgsql AS \$\$
	DECLARE n integer := 0;
	BEGIN
		LOOP
			PERFORM lease.try_acquire('fill/' || n, '1 hour', metadata => '$metadata');
			n := n + 1;
		END LOOP;
	EXCEPTION WHEN others THEN
		RAISE NOTICE '%', SQLERRM;
		RETURN n;
	END \$\$;
	SELECT fill()});
cmp_ok($filled, '>', 100, 'leases fill the disk');
is(leases_used($node), $filled + 1, 'the grant that failed left nothing in memory');
isnt(sqlstate($node, "SELECT lease.try_acquire('fill/$filled', metadata => '$metadata')"),
	'', 'its name is not taken: another attempt fails for want of disk, too');
is(leases_used($node), $filled + 1, 'and leaves nothing either');

# A short row may find a gap that a long one does not; this one is long.
my $victim = $node->safe_psql('postgres', "SELECT token FROM lease.leases WHERE name = 'fill/7'");
isnt(sqlstate($node, "SELECT lease.transfer('fill/7', $victim, 'heir')"), '', 'a transfer fails');
ok(is_held($node, 'fill/7', $victim), 'and its lease is held as before');
isnt(sqlstate($node, "SELECT lease.renew('fill/7', $victim, '2 hours')"),
	'', 'a renewal that needs a row fails');
is($node->safe_psql('postgres', "SELECT ttl FROM lease.leases WHERE name = 'fill/7'"),
	'01:00:00', 'and its lease has the TTL that it had');
is($node->safe_psql('postgres', "SELECT lease.renew('fill/7', $victim)"),
	'01:00:00', 'a renewal that needs none works');

$node->safe_psql('postgres', "SELECT lease.release(name, token) FROM lease.leases WHERE name <> 'first'");
$node->safe_psql('postgres', 'VACUUM lease.ledger');
ok(defined acquire($node, "fill/$filled", metadata => $metadata), 'released rows make room');
ok(is_held($node, 'first', $first), 'others were not touched');
$node->safe_psql('postgres', 'SELECT lease.release(name, token) FROM lease.leases');
system_or_bail('prlimit', '--pid', $pid, '--fsize=unlimited:unlimited');

# Cancels and terminations at random moments of all that takes and ends leases.
# Each block below is one statement, so that a signal finds it at work.
my $storm = q{
	\set ON_ERROR_STOP 0
	SET application_name = 'storm';
	SET client_min_messages = 'error';
} . (q{
	DO $$
	DECLARE
		n text; t bigint;
	BEGIN
		FOR i IN 1..200 LOOP
			n := 'storm/' || (random() * 5)::int;
			t := lease.try_acquire(n, '10 min', request_id => 'r' || i,
			                       lock_delay => '1 ms', metadata => '{"i": 1}');
			CONTINUE WHEN t IS NULL;
			PERFORM lease.renew(n, t, '20 min');
			t := lease.transfer(n, t, 'heir');
			IF i % 3 = 0 THEN
				PERFORM lease.force_release(n, 'storm');
			ELSE
				PERFORM lease.release(n, t);
			END IF;
		END LOOP;
	EXCEPTION WHEN SQLSTATE 'LE001' THEN
		NULL;                      -- forced by another
	END $$;
} x 400);
my $wanted = full_size(200, 5000);
$node->safe_psql('postgres', q{
	CREATE PROCEDURE torment(wanted integer) LANGUAGE plpgsql AS $$
	DECLARE
		victim integer;
		n integer := 0;
	BEGIN
		WHILE n < wanted LOOP
			PERFORM pg_stat_clear_snapshot();
			SELECT pid INTO victim FROM pg_stat_activity
			WHERE application_name = 'storm' AND state = 'active'
			ORDER BY random() LIMIT 1;
			IF victim IS NOT NULL THEN
				IF n % 10 = 0 THEN
					PERFORM pg_terminate_backend(victim);
				ELSE
					PERFORM pg_cancel_backend(victim);
				END IF;
				n := n + 1;
			END IF;
			COMMIT;
		END LOOP;
	END $$;});

# A client that was cut off connects again, until it is told to stop.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $stop = "$dir/stop";
append_to_file("$dir/storm", $storm);
my $client = 'until [ -e "$1" ]; do psql -XAtq -d "$2" -f "$3" >/dev/null 2>&1; done';
my @clients = map {
	IPC::Run::start([ 'sh', '-c', $client, 'client', $stop, $node->connstr('postgres'), "$dir/storm" ])
} 1 .. 4;
my ($rc, $stdout, $stderr) = $node->psql('postgres', "CALL torment($wanted)",
	timeout => 4 * $PostgreSQL::Test::Utils::timeout_default);
is($rc, 0, "$wanted signals were sent") or diag($stderr);
append_to_file($stop, '');
$node->safe_psql('postgres',
	"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'storm'");
$_->finish for @clients;

# What was granted to a client that was cut off runs out; nothing else is left.
advance_clock($node, '1 hour');
ok(wait_for('an empty table', sub { leases_used($node) eq '0' }), 'no slot is left behind');
is($node->safe_psql('postgres', q{SELECT string_agg(kind, ' ') FROM lease.ledger}),
	'ceiling', 'no row is left behind');
ledger_is_sound($node, 'after the storm');

$node->stop;
done_testing();
