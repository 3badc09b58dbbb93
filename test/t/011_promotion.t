# A standby: what it shows, and what becomes of leases when it is promoted.
#
# Replication is asynchronous, and the standby misses the old primary's last
# tokens, more than the ceiling that it knows of.  Tokens are ahead of the clock,
# so it is the timeline that must put the new primary's beyond them all.  Guards
# invariant 2 over a fail-over, and what invariants 4 and 5 say of one: grants
# that the standby knew are held for their full TTL from the promotion on, and
# expire if nobody renews them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $tokens = LeaseTest::Tokens->new;

# Standbys compare each page that they replayed with what it was on the primary.
my $primary = lease_node('primary', allows_streaming => 1, conf => 'wal_consistency_checking = generic');
ledger_is_sound($primary, 'primary');
$primary->backup('base');

sub make_standby
{
	my ($name, $of) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init_from_backup($primary, 'base');
	$node->enable_streaming($of);
	$node->start;
	return $node;
}

# A release is not flushed: all that was inserted counts, written or not.
sub catch_up
{
	my ($from, @standbys) = @_;
	my $lsn = $from->lsn('insert');

	foreach my $standby (@standbys)
	{
		$from->wait_for_catchup($standby, 'replay', $lsn);
		$from = $standby;
	}
	return;
}

my $standby = make_standby('standby', $primary);
my $cascaded = make_standby('cascaded', $standby);

#
# What a standby shows
#
$primary->safe_psql('postgres', q{SELECT lease.new_epoch('ahead of the clock')}) for 1 .. 2;
$tokens->saw(acquire($primary, 'known', ttl => '10 min', holder => 'worker 1', metadata => '{"a": 1}'));
my $known = $tokens->newest;
$tokens->saw(acquire($primary, 'renewed', ttl => '10 min'));
my $renewed = $tokens->newest;
$tokens->saw(acquire($primary, 'released'));
release($primary, 'released', $tokens->newest);
$tokens->saw(acquire($primary, 'transferred'));
$tokens->saw($primary->safe_psql('postgres',
		"SELECT lease.transfer('transferred', @{[$tokens->newest]}, 'worker 2')"));
my $transferred = $tokens->newest;
$tokens->saw(acquire($primary, 'closed', min_hold => '1 hour'));
release($primary, 'closed', $tokens->newest);
$primary->safe_psql('template1', 'CREATE DATABASE clone TEMPLATE postgres');
$tokens->only_grew('primary');
catch_up($primary, $standby, $cascaded);

my $summary = q{SELECT name, token, holder, ttl, metadata FROM lease.leases
	WHERE name IN ('known', 'renewed', 'transferred', 'released') ORDER BY name};
foreach my $node ($standby, $cascaded)
{
	my $name = $node->name;

	is( $node->safe_psql('postgres', $summary),
		$primary->safe_psql('postgres', $summary),
		"$name: lease.leases shows the grants that the primary shows");
	is(names_held($node), 'closed known renewed transferred',
		"$name: it shows what the ledger holds, and nothing else");
	is( $node->safe_psql('postgres', q{SELECT DISTINCT remaining IS NULL, expires_at IS NULL,
			closed_until IS NULL, pid IS NULL, durable FROM lease.leases}),
		't|t|t|t|t', "$name: it does not guess how long they last");
	is( $node->safe_psql('postgres', q{SELECT timeline, next_token IS NULL, leases_used IS NULL,
			last_reap IS NULL, worker_state, ledger_size > 0 FROM lease.status}),
		'1|t|t|t|standby|t', "$name: lease.status says what is known");
	is( $node->safe_psql('postgres', 'SELECT epoch FROM lease.status'),
		$primary->safe_psql('postgres', 'SELECT epoch FROM lease.status'),
		"$name: its epoch is the primary's");
	is(names_held($node, db => 'clone'), '', "$name: a cloned database has no leases");
	is(sqlstate($node, $_), '25006', "$name: refuses " . s/.*(lease\.\w+).*/$1/r)
	  foreach "SELECT lease.try_acquire('name')", "SELECT lease.is_held('known', $known)",
	  "SELECT lease.renew('known', $known)", "SELECT lease.try_renew('known', $known)",
	  "SELECT lease.renew_all('{known}', '{$known}')", "SELECT lease.release('known', $known)",
	  "SELECT lease.release_all('{known}', '{$known}')",
	  "SELECT lease.transfer('known', $known, 'other')",
	  q{SELECT lease.force_release('known', 'no reason')}, q{SELECT lease.new_epoch('no reason')};
	ledger_is_sound($node, $name);
}

#
# Promotion of a standby that missed something
#
$standby->stop;
use_up_tokens($primary);
my $missed = acquire($primary, 'missed');
$tokens->saw($missed);
ok(release($primary, 'renewed', $renewed), 'a release that the standby misses');
$primary->stop('immediate');

# A session from before the promotion goes on after it.
$standby->start;
my $session = start_psql($standby, <<'SQL');
SET application_name = 'waits for promotion';
SELECT count(*) FROM lease.leases;
DO $$
BEGIN
	WHILE pg_is_in_recovery() LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;
SELECT lease.try_acquire('by a session from before');
SQL
$standby->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE application_name = 'waits for promotion' AND wait_event = 'PgSleep'})
  or die 'the session did not start';

# The TTL counts from the promotion: not from when the standby started, to say
# nothing of when the lease was granted.
advance_clock($standby, '9 min');
$standby->promote;
my ($out, $err) = finish_psql($session);
like($out, qr/^4\n\d+$/, 'a session from before the promotion acquires after it')
  or diag($err);
$tokens->saw($out =~ /(\d+)$/);
$tokens->saw(acquire($standby, 'missed'));
$tokens->only_grew('promotion of a standby that missed grants');

ok(is_held($standby, 'known', $known), 'a grant that the standby knew is held');
ok(is_held($standby, 'transferred', $transferred), 'so is one that was transferred');
ok(is_held($standby, 'renewed', $renewed), 'a release that it missed is undone');
ok(!is_held($standby, 'missed', $missed), 'a grant that it missed is not held');
ok(defined acquire($standby, 'released'), 'what was released is free');
is(acquire($standby, 'known'), undef, 'what is held is not');
is(acquire($standby, 'closed'), undef, 'a name that was closed is still closed');
is( $standby->safe_psql('postgres',
		q{SELECT remaining > '9 min', metadata FROM lease.leases WHERE name = 'known'}),
	't|{"a": 1}', 'a known grant has its full TTL');
is($standby->safe_psql('postgres', 'SELECT timeline, worker_state <> \'standby\' FROM lease.status'),
	'2|t', 'lease.status shows the new timeline');

advance_clock($standby, '9 min');
is($standby->safe_psql('postgres', "SELECT lease.renew('renewed', $renewed)"), '00:10:00', 'renewal');
advance_clock($standby, '1 min');
ok(!is_held($standby, 'known', $known), 'a lease that nobody renews expires after the promotion');
ok(is_held($standby, 'renewed', $renewed), 'one that is renewed does not');
$tokens->saw(acquire($standby, 'known', ttl => '10 min'));
ledger_is_sound($standby, 'after the promotion');

#
# Another promotion, of a standby that followed the first one
#
$tokens->saw(acquire($standby, 'second'));
my $second = $tokens->newest;
catch_up($standby, $cascaded);
$cascaded->stop;
use_up_tokens($standby);
$tokens->saw(acquire($standby, 'missed again'));
$standby->stop('immediate');
$cascaded->start;
$cascaded->promote;
ok(is_held($cascaded, 'second', $second), 'second promotion: a known grant is held');
$tokens->saw(acquire($cascaded, 'missed again'));
$tokens->only_grew('second promotion');
ledger_is_sound($cascaded, 'after the second promotion');
$cascaded->stop;

done_testing();
