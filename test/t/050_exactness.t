# A guarded transaction that committed held its lease until after its commit was
# visible.  Clients guard transactions with leases of a few milliseconds, in every
# way there is, and pause at will; they are killed, terminated, cancelled, and
# their leases released by force or transferred behind their backs, also while
# they commit.  Each transaction leaves what it saw as it began to read.  A judge
# then looks at those that committed, whatever their clients were told: each saw
# every one with a smaller token of its name, and none with a larger one.  First
# the judge itself is judged, with histories that must not be.
#
# Guards invariant 6.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $storm = build_storm();

sub committed
{
	my ($who, $token, $below, %it) = @_;
	my %all = (name => 7, mode => 'x', above => 0, %it);
	return join ' ', 'commit', $all{name}, $token, $all{mode}, $below, $all{above}, $who;
}

#
# The judge
#
my ($complaints, $counts) = judge_lines(
	$storm, committed(c => 30, 3), committed(a => 10, 0), committed(b1 => 20, 1), committed(b2 => 20, 1),
	committed(d => 25, 0, name => 8), 'count kills 3');
is_deeply($complaints, [], 'one after the other, two of them with the same token: no complaint');
is_deeply(
	[ @$counts{qw(commits commits_in_order tokens_committed kills)} ],
	[ 5, 3, 4, 3 ],
	'and the judge counts what it compared');

($complaints) = judge_lines(
	$storm, committed(writer => 10, 0), committed(r1 => 20, 1, mode => 's'),
	committed(r2 => 30, 1, mode => 's'), committed(last => 40, 3));
is_deeply($complaints, [], 'readers need not see each other, only writers: no complaint');

is_caught($storm, 'an earlier commit is not seen', qr/^overlap: b \(token 20 of name 7\) saw 0 of 1 .* by a /,
	committed(a => 10, 0), committed(b => 20, 0));
is_caught($storm, 'one of two with the same token is not seen', qr/^overlap: c \(token 30.* saw 2 of 3 /,
	committed(a => 10, 0), committed(b1 => 20, 1), committed(b2 => 20, 1), committed(c => 30, 2));
is_caught($storm, 'a late reader sees who came after it', qr/^overlap: a \(token 10.* larger tokens/,
	committed(a => 10, 0, above => 1), committed(b => 20, 1));
is_caught($storm, 'a reader beside a writer', qr/^overlap: reader \(token 20.* saw 0 of 1 .* by writer /,
	committed(writer => 10, 0), committed(reader => 20, 0, mode => 's'));
is_caught($storm, 'a writer beside a reader', qr/^overlap: writer \(token 20.* saw 0 of 1 .* by reader /,
	committed(reader => 10, 0, mode => 's'), committed(writer => 20, 0));
is_caught($storm, 'a commit that its client was told had failed', qr/^wrong word to c1\.2/,
	'wrong word to c1.2: it committed');

#
# Exactness
#
# A commit that is on its way to disk takes long if told to (commit_delay); that
# works only where writes are flushed.
my $node = lease_node('exactness', conf => <<'END');
max_connections = 100
fsync = on
commit_siblings = 0
lease.max_leases = 2000
log_statement = none
log_min_messages = panic
END
my $history = "$dir/history";

system_or_bail($storm, 'guards', $node->connstr('postgres'), $history, 'clients=32', 'names=8',
	full_size('seconds=8', 'seconds=300'), full_size('least=5', 'least=200'),
	"patience=$PostgreSQL::Test::Utils::timeout_default");
($complaints, $counts) = judge($storm, $history);
is(join("\n", @$complaints), '',
	'no two committed transactions guarded by different tokens of one name overlap, and a later one sees every earlier one');
note("$_: $counts->{$_}") foreach sort keys %$counts;

my %least = (
	(map { $_ => 5 } qw(forced kills terminations cancels
		  at_read_committed at_repeatable_read at_serializable
		  of_transaction of_session of_several of_shared of_others handed_over acquired_inside
		  guarded_before guarded_after guarded_at_commit nested guarded_again
		  renewed released notified crowded)),
	commits_in_order => 200, tokens_committed => 200,
	lost_early => 50, lost_at_commit => 50, too_old => 10, pins_awaited => 10);
foreach (sort keys %least)
{
	cmp_ok($counts->{$_}, '>=', $least{$_} * full_size(1, 30), "and it had enough to check: $_");
}

wait_for('all names to open', sub { leases_used($node) == 0 });
is($node->safe_psql('postgres', 'SELECT waiters FROM lease.status'), 0, 'nobody is left waiting');

$node->stop;
done_testing();
