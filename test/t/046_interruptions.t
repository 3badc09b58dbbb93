# Thousands of interruptions at random moments leave nothing behind: clients are
# cancelled, terminated, killed and timed out in the middle of acquiring and
# releasing, in all scopes and modes, with names of all lengths.  After each
# hundred of them all stand still: then the view shows what they say that they
# hold, nobody waits, and no slot of the table is taken besides.  In the end the
# table takes as many leases, and as long ones, as when it was new.
# Guards invariants 7 and 8.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant LEASES => 200;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = lease_node('interruptions',
	conf => "max_connections = 100\nlog_statement = none\nlog_min_messages = panic\nlease.max_leases = " . LEASES);

# How many leases with names of a length the table takes; it is empty again then.
sub capacity
{
	my ($length) = @_;
	my $count = $node->safe_psql('postgres', "SELECT fill($length)");

	advance_clock($node, '2 hours');
	wait_for('the table to be empty', sub { leases_used($node) == 0 });
	return $count;
}

$node->safe_psql('postgres', q{
	CREATE FUNCTION fill(length integer) RETURNS integer LANGUAGE plpgsql AS $$
	DECLARE
		taken integer := 0;
	BEGIN
		LOOP
			PERFORM lease.try_acquire(rpad(taken || '/', length, '-'), '1 hour',
									  holder => rpad('', length / 2, '-'));
			taken := taken + 1;
		END LOOP;
	EXCEPTION
		WHEN configuration_limit_exceeded THEN
			RETURN taken;
	END
	$$});

my $long = capacity(255);
is(capacity(10), LEASES, 'a new table takes lease.max_leases leases');
cmp_ok($long, '<', LEASES, 'and fewer long ones: their strings fill it');

my $storm = build_storm();
my $rounds = full_size(30, 1000);
system_or_bail($storm, 'run', $node->connstr('postgres'), "$dir/history", 'clients=24', 'names=40',
	'padding=255', 'hits=100', "rounds=$rounds",
	"patience=$PostgreSQL::Test::Utils::timeout_default");
my ($out, $err) = run_command([ $storm, 'judge', "$dir/history" ]);
my %counts = $out =~ /^count (\w+) (\d+)/mg;

is($err, '', 'the judge could read the history');
is(join("\n", $out =~ /^violation (.*)/mg), '', 'interruptions leave no slot, no queue entry, no grant behind');
note("$_: $counts{$_}") foreach sort keys %counts;

cmp_ok($counts{interruptions}, '>=', 100 * $rounds, 'there were as many as there should be');
my %least = (
	cancelled => 20, terminated => 3, kills => 1, statement_timeouts => 0.5, lock_timeouts => 0.5,
	wait_timeouts => 1, acquires => 20, checked_holds => 1, campaigns => 0.5, savepoints => 0.5,
	several => 0.5, transfers => 0.5, retries => 1);
foreach (sort keys %least)
{
	cmp_ok($counts{$_}, '>=', $least{$_} * $rounds, "and of each kind: $_");
}

is(leases_used($node), 0, 'when all is over, no lease is in use');
is($node->safe_psql('postgres', 'SELECT waiters FROM lease.status'), 0, 'and nobody waits');
is(capacity(10), LEASES, 'the table takes lease.max_leases leases, as when it was new');
is(capacity(255), $long, 'and as many long ones');
is(capacity(10), LEASES, 'and that can be repeated');

$node->stop;
done_testing();
