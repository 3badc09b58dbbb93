# DROP EXTENSION and CREATE EXTENSION.
#
# The leases go with the extension, but tokens go on: after a restart, too, when
# nothing but the clock is left to say how far they were (invariant 2).  If
# tokens are ahead of the clock, DROP waits for it.  A DROP that is rolled back
# changes nothing (invariant 8), and what a dropped extension had in shared
# memory is freed.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use Test::More;

my $node = lease_node('extension', conf => 'restart_after_crash = on');
my $tokens = LeaseTest::Tokens->new;
create_lease($node, 'app');


#
# Dropped and created again.  First, tokens are lifted a second ahead of the
# clock, in the way that restoring a dump does it.
#
my $lift_and_take = <<'SQL';
INSERT INTO lease.ledger (kind, token, system_identifier, timeline, database, valid_from)
SELECT kind, extract(epoch FROM clock_timestamp() - '2026-01-01 00:00 UTC' + '1 s') * (1 << 27) / 60,
	   system_identifier, timeline, database, valid_from
FROM lease.ledger WHERE kind = 'ceiling';
SELECT lease.try_acquire('ahead of the clock');
SQL
my $there = acquire($node, 'there');

foreach (
	[ 'DROP EXTENSION lease', 'nothing', sub { } ],
	[ 'DROP SCHEMA lease CASCADE', 'nothing', sub { } ],
	[ 'DROP EXTENSION lease', 'a restart', sub { $node->restart } ],
	[ 'DROP EXTENSION lease', 'a crash', sub { $node->stop('immediate'); $node->start } ])
{
	my ($drop, $what, $between) = @$_;
	my $case = "$drop, $what, CREATE EXTENSION";
	my $old = acquire($node, $case, db => 'app');
	my ($rc, $out, $err) = $node->psql('app', "$lift_and_take; $drop");

	is($rc, 0, "$case: it is dropped");
	like($err, qr/NOTICE:  waiting \d+ seconds until the clock has passed/, "$case: after a wait");
	$tokens->saw($old, $out);
	$between->();
	$node->safe_psql('app', 'CREATE EXTENSION lease');
	ok(!is_held($node, $case, $old, db => 'app'), "$case: the former leases are lost");
	is(names_held($node, db => 'app'), '', "$case: there are none");
	$tokens->saw(acquire($node, $case, db => 'app'));
	$tokens->only_grew($case);
	ok(is_held($node, 'there', $there), "$case: another database keeps its leases");
}

# A wait for the clock can be cancelled; then nothing has happened.
my $name = acquire($node, 'kept', db => 'app');
$node->safe_psql('app', q{SELECT lease.new_epoch('ahead of the clock')}) for 1 .. 2;
is(sqlstate($node, q{SET statement_timeout = '100ms'; DROP EXTENSION lease}, db => 'app'),
	'57014', 'a DROP that waits for the clock can be cancelled');
ok(is_held($node, 'kept', $name, db => 'app'), 'and drops nothing');

# Far ahead of the clock, it warns instead; memory still knows.
$node->safe_psql('app', q{SELECT lease.new_epoch('far ahead of the clock')}) for 1 .. 12;
$tokens->saw(acquire($node, 'far ahead', db => 'app'));
like(($node->psql('app', 'DROP EXTENSION lease'))[2],
	qr/WARNING:  fencing tokens are ahead of the clock/, 'DROP warns if it would have to wait long');
$node->safe_psql('app', 'CREATE EXTENSION lease');
$tokens->saw(acquire($node, 'far ahead', db => 'app'));
$tokens->only_grew('without a restart, far ahead of the clock');
$node->safe_psql('postgres', 'DROP DATABASE app');
create_lease($node, 'app');

#
# Rolled back
#
my $held = acquire($node, 'held', db => 'app', metadata => '{"a": 1}');
my $again = 'DROP EXTENSION lease; CREATE EXTENSION lease';
is(sqlstate($node, 'DROP TABLE lease.ledger', db => 'app'), '2BP01', 'the ledger is not dropped alone');
is(sqlstate($node, "BEGIN; $again; SELECT lease.try_acquire('held')", db => 'app'), '55000',
	'a ledger that may yet be rolled back takes no leases');
is(sqlstate($node, "BEGIN; SAVEPOINT s; $again; ROLLBACK TO s;
		SELECT lease.renew('held', $held); COMMIT", db => 'app'), '', 'renewed after a rollback to a savepoint');
$node->safe_psql('app', "BEGIN; $again; ROLLBACK");
ok(is_held($node, 'held', $held, db => 'app'), 'held after a rollback');
is(acquire($node, 'held', db => 'app'), undef, 'so its name is taken');
is($node->safe_psql('app', 'SELECT name, metadata FROM lease.leases'), 'held|{"a": 1}', 'and shown');
$node->restart;
ok(is_held($node, 'held', $held, db => 'app'), 'and held after a restart');
release($node, 'held', $held, db => 'app');
is($node->safe_psql('app', q{SELECT count(*) FROM lease.ledger WHERE kind = 'grant'}), 0,
	'its release ends its row');

#
# Under the feet of two sessions, one that used the extension before and one
# that comes in the middle.  Both wait for the end of the dropper's transaction.
#
# Without history, so that no reaper comes for that and tidies up on the way.
$node->append_conf('postgresql.conf', 'lease.history_retention = 0');
$node->reload;
my $dropping = q{EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
	WHERE d.datname = 'app' AND l.mode = 'AccessExclusiveLock' AND l.granted)};
my $blocked = q{(SELECT count(*) >= 2 FROM pg_locks WHERE NOT granted)};

sub await
{
	my ($condition) = @_;
	return "DO \$\$ BEGIN WHILE NOT $condition LOOP PERFORM pg_sleep(0.01); END LOOP; END \$\$;\n";
}

$tokens = LeaseTest::Tokens->new;
foreach my $end ('ROLLBACK', 'CREATE EXTENSION lease; COMMIT', 'COMMIT')
{
	my $warm = start_psql($node, "SELECT lease.try_acquire('warm 1');\n" . await($dropping)
		  . "SELECT lease.try_acquire('warm 2')", db => 'app');
	$node->poll_query_until('app', q{SELECT count(*) = 1 FROM lease.leases WHERE name = 'warm 1'})
	  or die 'the session did not start';
	my $dropper = start_psql($node, "BEGIN; DROP EXTENSION lease;\n" . await($blocked) . $end,
		db => 'app');
	$node->poll_query_until('postgres', "SELECT $dropping") or die 'the dropper did not start';
	my $cold = start_psql($node, q{SELECT lease.try_acquire('cold')}, db => 'app');

	is((finish_psql($dropper))[1], '', "$end in the middle: the dropper is through");
	my ($out_warm, $err_warm) = finish_psql($warm);
	my ($out_cold, $err_cold) = finish_psql($cold);
	my ($before, @after) = split /\n/, $out_warm;
	$tokens->saw($before);

	if ($end eq 'COMMIT')
	{
		like($_, qr/extension "lease" is not installed/, "$end: the others are told")
		  foreach $err_warm, $err_cold;
	}
	else
	{
		$tokens->saw_concurrently(\@after, [$out_cold]);
		is($err_warm . $err_cold, '', "$end: the others get what they wanted");
		$tokens->only_grew($end);
	}
	$node->safe_psql('app', 'SELECT count(lease.release(name, token)) FROM lease.leases')
	  unless $end eq 'COMMIT';
}

#
# Memory.  That left a lease, and no extension.
#
is(leases_used($node), 2, 'a lease of a dropped extension is in memory');
advance_clock($node, '30 s');
ok(wait_for('memory', sub { leases_used($node) == 1 }), 'and leaves it when it expires');
ok(is_held($node, 'there', $there), 'one of another database stays');
$node->stop;

done_testing();
