# A storm: many clients acquire, hold, renew, transfer and release a few hundred
# names in all modes and scopes, while they are cancelled, terminated, killed and
# timed out.  A judge reads what they were sure of and finds no two that exclude
# each other, every queue served in order of arrival, tokens that only grow, and
# nobody left waiting.  First the judge itself is judged, with histories that
# must not be.
#
# Then fairness: who asks as often as others gets as much as they.
# Guards invariants 1, 4 and 7.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use List::Util qw(max min);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $storm = build_storm();

sub grant
{
	my ($who, %it) = @_;
	my %all = (
		name => 7, need => 1_000_000, capacity => 1_000_000,
		low => $it{sent}, high => $it{from}, flags => '-ot', %it);
	return join ' ', 'grant',
	  @all{qw(name need capacity token sent from until low high flags)}, $who;
}

#
# The judge
#
my @holder = (token => 100, sent => 10, from => 20, until => 50);
my @next = (token => 101, sent => 15, from => 60, until => 90, low => 16, high => 18, flags => '-otw');
my @third = (token => 102, sent => 25, from => 95, until => 99, low => 26, high => 28, flags => '-otw');
my ($complaints, $counts) =
  judge_lines($storm, grant('a', @holder), grant('b', @next), grant('c', @third), 'count kills 3');
is_deeply($complaints, [], 'a queue that works: the judge has no complaint');
is_deeply(
	[ @$counts{qw(grants intervals waits_served pairs_in_order tokens_compared kills)} ],
	[ 3, 3, 2, 1, 1, 3 ],
	'and counts what it compared');

is_caught($storm, 'two holders', qr/^overlap: b got 1000000 of name 7/,
	grant('a', @holder, until => 61), grant('b', @next));
is_caught($storm, 'a reader beside a writer', qr/^overlap: b got 1 /,
	grant('a', @holder, until => 61), grant('b', @next, need => 1));
is_caught($storm, 'a writer beside a reader', qr/^overlap: b got 1000000 /,
	grant('a', @holder, until => 61, need => 1), grant('b', @next));
is_caught($storm, 'a permit too many', qr/^overlap: c got 2 .* when 2 of 3 were taken/,
	grant('a', @holder, until => 97, need => 1, capacity => 3),
	grant('b', @next, until => 97, need => 1, capacity => 3),
	grant('c', @third, need => 2, capacity => 3));
is_deeply(
	(judge_lines($storm, map { grant($_->[0], @{ $_->[1] }, until => 99, need => 1) }
		[ a => \@holder ], [ b => \@next ], [ c => \@third ]))[0],
	[],
	'readers together: no complaint');
is_caught($storm, 'the second in line is served first', qr/^order: c \(token 101\) was served before b/,
	grant('a', @holder), grant('b', @next, token => 102, from => 95, until => 99),
	grant('c', @third, token => 101, from => 60, until => 90));
is_caught($storm, 'a late-comer who never waited is served first', qr/^order: c \(token 101\) .* before b/,
	grant('a', @holder), grant('b', @next, token => 102, from => 95, until => 99),
	grant('c', token => 101, sent => 55, from => 60, until => 90));
is_caught($storm, 'a token that does not grow', qr/^token: b got 99 of name 8, after 100/,
	grant('a', @holder), grant('b', @next, token => 99, sent => 21, low => 22, high => 23, name => 8));
is_caught($storm, 'a token that comes twice', qr/^token: (?:a and b|b and a) both got 100/,
	grant('a', @holder), grant('b', @next, token => 100));
is_caught($storm, 'another token for one more hold', qr/^again 7 100 101/, 'again 7 100 101 a');
is_caught($storm, 'a lease lost before its TTL', qr/^lost 7 100/, 'lost 7 100 a');
is_caught($storm, 'a waiter that is stuck', qr/^stuck 7 a/, 'stuck 7 a');
is_caught($storm, 'a lease left behind', qr/^left 7 100 a/, 'left 7 100 a');
is_caught($storm, 'anything else', qr/^wrong error/, 'wrong error 40P01');

#
# Mutual exclusion
#
my $node = lease_node('storm', conf => "max_connections = 200\nlog_statement = none\nlog_min_messages = panic");
my $history = "$dir/history";

system_or_bail($storm, 'run', $node->connstr('postgres'), $history, 'clients=64', 'names=200',
	full_size('seconds=5', 'seconds=20'), full_size('rounds=3', 'rounds=30'),
	"patience=$PostgreSQL::Test::Utils::timeout_default");
($complaints, $counts) = judge($storm, $history);
is(join("\n", @$complaints), '', 'a checker finds no overlap, no stuck waiter, and order of service is order of arrival');
note("$_: $counts->{$_}") foreach sort keys %$counts;

my %least = (
	grants => 2000, intervals => 2000, held_together => 20, waits_served => 400,
	pairs_in_order => 4000, tokens_compared => 2000, samples => 500,
	cancelled => 20, statement_timeouts => 10, lock_timeouts => 10, wait_timeouts => 50,
	terminated => 5, kills => 5, renewals => 100, transfers => 50, reentries => 50,
	savepoints => 50, several => 50, campaigns => 20, retries => 10, abandoned => 10);
foreach (sort keys %least)
{
	cmp_ok($counts->{$_}, '>=', $least{$_} * full_size(1, 20), "and it had enough to check: $_");
}
cmp_ok($counts->{most_waiters}, '>=', 16, 'and queues were long enough');
is(leases_used($node), 0, 'the storm leaves no lease behind');
is($node->safe_psql('postgres', 'SELECT waiters FROM lease.status'), 0, 'nor a waiter');

#
# Fairness
#
my ($out, $err) = run_command(
	[
		$storm, 'fair', $node->connstr('postgres'), 64, full_size(50, 650),
		$PostgreSQL::Test::Utils::timeout_default
	]);
my @grants = split ' ', $out;

is($err, '', '64 clients on one name');
is(scalar @grants, 64, 'all of them tell how many grants they got');
note('from ' . min(@grants) . ' to ' . max(@grants));

# A client that is elsewhere for one turn must not matter.
cmp_ok(min(@grants), '>=', 40, 'enough for a ratio');
cmp_ok(max(@grants), '<=', 1.05 * min(@grants) + 1,
	'the busiest gets at most 1.05 times the grants of the least busy');

$node->stop;
done_testing();
