# Copies of the server: a base backup started without its signal file, and
# recovery to a point in time.
#
# The original went on after the copy, or after the point, and is stopped.  The
# copy has the grants of its moment, for their full TTL (invariants 3 and 4),
# and its tokens are larger than all that the original gave (invariant 2): by
# the clock where the copy runs on the same timeline, by the new timeline where
# tokens are ahead of the clock.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $tokens = LeaseTest::Tokens->new;
my $original = lease_node('original', allows_streaming => 1, has_archiving => 1);

# Take a lease that all later copies have; returns its token.
sub grant
{
	my ($name) = @_;
	$tokens->saw(acquire($original, $name, ttl => '10 min'));
	return $tokens->newest;
}

sub remaining
{
	my ($node, $name) = @_;
	return $node->safe_psql('postgres',
		"SELECT remaining > '9 min' FROM lease.leases WHERE name = '$name'");
}

#
# The original's life: a backup, a moment to come back to, and what came after
#
my $before = grant('before the backup');
my $ended = grant('ended later');
$original->backup('base');
my $after = grant('after the backup');
use_up_tokens($original);
grant('last before a copy');

my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($original, 'base');
$copy->append_conf('postgresql.conf', 'archive_mode = off');
$original->stop;
$copy->start;
is($copy->safe_psql('postgres', 'SELECT timeline FROM lease.status'), 1, 'copy: on the same timeline');
ok(is_held($copy, 'before the backup', $before), 'copy: it has the grants of the backup');
is(remaining($copy, 'before the backup'), 't', 'copy: for their full TTL');
ok(!is_held($copy, 'after the backup', $after), 'copy: it does not have later ones');
my $its_own = LeaseTest::Tokens->new(beyond => $tokens);
$its_own->saw(acquire($copy, 'after the backup'));
$its_own->only_grew('copy, beyond the original');
is(names_held($copy), 'after the backup before the backup ended later', 'copy: nothing is invented');
ledger_is_sound($copy, 'copy');
$copy->stop('immediate');
$copy->start;
$its_own->saw(acquire($copy, 'next'));
$its_own->only_grew('copy, after a crash');
$copy->stop;

#
# Points in time
#
$original->start;
$original->safe_psql('postgres', q{SELECT lease.new_epoch('ahead of the clock')}) for 1 .. 2;
my %point;
foreach my $point ('early', 'late')
{
	$point{$point} = grant($point);
	$original->safe_psql('postgres', "SELECT pg_create_restore_point('$point')");
	release($original, 'ended later', $ended) if $point eq 'early';
	use_up_tokens($original);
	grant("after $point");
}
$tokens->only_grew('original');
$original->stop;

# The second recovery is to come after all that the first one gave.
foreach my $point ('early', 'late')
{
	my $recovered = PostgreSQL::Test::Cluster->new($point);

	$recovered->init_from_backup($original, 'base', has_restoring => 1, standby => 0);
	$recovered->append_conf('postgresql.conf', <<~CONF);
		recovery_target_name = '$point'
		recovery_target_timeline = '1'
		recovery_target_action = 'promote'
		CONF
	$recovered->start;
	$recovered->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()')
	  or die 'recovery did not end';
	is($recovered->safe_psql('postgres', 'SELECT timeline > 1 FROM lease.status'),
		't', "$point: on a timeline of its own");
	ok(is_held($recovered, $point, $point{$point}), "$point: it has the grants of its moment");
	is(remaining($recovered, $point), 't', "$point: for their full TTL");
	is( is_held($recovered, 'ended later', $ended) ? 'held' : 'ended',
		$point eq 'early' ? 'held' : 'ended',
		"$point: what was released later is held, what was released before is not");
	$tokens->saw(acquire($recovered, "after $point"));
	$tokens->only_grew("$point, beyond all that was given before");
	ledger_is_sound($recovered, $point);
	$recovered->stop;
}

done_testing();
