# A full table, and a ledger that does not fit into memory.
#
# Shared memory is fixed at start by lease.max_leases.  When it is full, grants
# are refused with a hint, and nothing else is: what is held can be renewed,
# handed over and released (invariant 4).  What is over makes room at once, also
# when nobody reaps (invariant 5).  A refusal leaves nothing behind, and a ledger
# that holds more than fits is not loaded rather than loaded in part
# (invariant 8).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use Test::More;

my $node = lease_node('full', conf => "lease.max_leases = 32\nmax_connections = 10");
create_lease($node, 'other');


# Acquire so many names; returns the SQLSTATE that this ended with.
sub fill
{
	my ($prefix, $count, %args) = @_;
	my $more = $args{labels} // '';
	return sqlstate($node,
		"SELECT count(lease.try_acquire('$prefix/' || i, '1 hour' $more)) FROM generate_series(1, $count) i",
		%args);
}

sub release_all
{
	$node->safe_psql('postgres', 'SELECT count(lease.release(name, token)) FROM lease.leases');
	return;
}

my $launcher;
END { thaw($launcher) if $launcher }

#
# As many as fit
#
my $token = acquire($node, 'held', request_id => 'first');
is(fill('short', 31), '', 'lease.max_leases leases can be held');
is(leases_used($node, db => 'other'), 32, 'leases_used counts them');
is(fill('one too many', 1), '53400', 'one more is refused');
is(fill('one too many', 1, db => 'other'), '53400', 'in another database, too');
like(($node->psql('postgres', q{SELECT lease.try_acquire('too many')}))[2],
	qr/HINT:.*lease\.max_leases/, 'with a hint at the setting');
is(leases_used($node, db => 'other'), 32, 'a refusal leaves nothing behind');

is(acquire($node, 'short/1'), undef, 'full: a name that is taken is taken, not refused');
is(acquire($node, 'held', request_id => 'first'), $token, 'full: a retry gets its token');
is($node->safe_psql('postgres', "SELECT lease.renew('held', $token, '2 hours')"), '02:00:00',
	'full: a renewal, with a new row');
$token = $node->safe_psql('postgres', <<~SQL);
	WITH RECURSIVE t(turn, token) AS (
		SELECT 0, $token
		UNION ALL
		SELECT turn + 1, lease.transfer('held', token, 'worker ' || turn) FROM t WHERE turn < 100)
	SELECT max(token) FROM t
	SQL
ok(is_held($node, 'held', $token), 'full: a hundred transfers');
is(leases_used($node, db => 'other'), 32, 'full: that leave nothing behind');
release($node, 'held', $token);
ok(acquire($node, 'instead'), 'full: a release makes room');

#
# The dead make room, with nobody there to end them
#
$launcher = freeze($node, 'lease launcher');
advance_clock($node, '2 hours');
is(names_held($node), '', 'what is past its deadline is gone for every reader');
is(fill('next', 32), '', 'an acquirer that finds the table full ends the dead itself');
is($node->safe_psql('postgres', q{SELECT count(*) FROM lease.ledger WHERE kind = 'grant'}), 32,
	'with their rows');
advance_clock($node, '2 hours');
thaw($launcher);
ok( wait_for('a reaper', sub { fill('other', 32, db => 'other') eq '' }),
	'those of another database are ended by its reaper');
$node->safe_psql('other', 'SELECT count(lease.release(name, token)) FROM lease.leases');
is(leases_used($node, db => 'other'), 0, 'nothing is left');

#
# Strings
#
my $labels = join '', map { ", $_ => repeat('x', 127)" } qw(holder request_id correlation_id);
my $long = 'n' x 250;
is(fill($long, 32, labels => $labels), '53400', 'the longest strings do not fit as often');
my $fitting = leases_used($node, db => 'other');
cmp_ok($fitting, '>', 10, 'but some do');
is(fill($_ x 250, 32, labels => $labels), '53400', "refused again, $_") for 'a' .. 'e';
is(leases_used($node, db => 'other'), $fitting, 'refusals leave nothing behind');
release_all();
is(leases_used($node, db => 'other'), 0, 'nothing is left');
is(fill($long, $fitting, labels => $labels), '', 'as many fit again');
is(leases_used($node, db => 'other'), $fitting, 'all of them');
release_all();
is(fill('short', 32), '', 'and as many short ones as before');
release_all();

#
# More in the ledger than fits
#
$node->append_conf('postgresql.conf', 'lease.max_leases = 500');
$node->restart;
fill('many', 400);
my $held = names_held($node);
my $there = acquire($node, 'there', db => 'other');
$node->append_conf('postgresql.conf', 'lease.max_leases = 16');
$node->restart;

foreach my $use ("lease.try_acquire('new')", "lease.is_held('many/1', 1)", "lease.try_renew('many/1', 1)",
	"lease.release('many/1', 1)", 'lease.live_leases()', 'lease.server_status()')
{
	is(sqlstate($node, "SELECT $use"), '53400', "too many in the ledger: $use is refused");
}
ok(is_held($node, 'there', $there, db => 'other'), 'another database works');
is(fill('room', 15, db => 'other'), '', 'and has all the room');
is($node->safe_psql('postgres', q{SELECT count(*) FROM lease.ledger WHERE kind = 'grant'}), 400,
	'none was dropped');
$node->append_conf('postgresql.conf', 'lease.max_leases = 500');
$node->restart;
is(names_held($node), $held, 'with more room, all are back');
my $tokens = LeaseTest::Tokens->new;
$tokens->saw($node->safe_psql('postgres', 'SELECT max(token) FROM lease.leases'), acquire($node, 'new'));
$tokens->only_grew('after that');
ledger_is_sound($node, 'after that');

$node->stop;
done_testing();
