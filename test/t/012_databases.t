# Databases: two in one server, cloned, renamed, moved and dropped.
#
# Leases belong to the database that they were taken in.  A clone starts with
# none, and with larger tokens than its source had given (invariant 2); the
# source keeps its leases (invariant 4).  Statements that want a database for
# themselves get it although a reaper is at work in there.  What a dropped
# database had in shared memory is free again.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = lease_node('databases', conf => 'restart_after_crash = on');
my $tokens = LeaseTest::Tokens->new;
create_lease($node, 'source');


sub grants_in_ledger
{
	my ($db) = @_;
	return $node->safe_psql($db, q{SELECT count(*) FROM lease.ledger WHERE kind = 'grant'});
}

# Have leases expire in a database for a minute, every tenth of a second, so
# that a reaper stays there, and wait until it has come.
sub keep_reaper_in
{
	my ($db) = @_;

	$node->safe_psql($db, q{SELECT count(lease.try_acquire('brief/' || i, i * interval '100 ms'))
		FROM generate_series(1, 600) i});
	$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity
		WHERE datname = '$db' AND backend_type = 'lease reaper'")
	  or die "no reaper in $db";
	return;
}

# Release those that are left, and wait for a reaper to end the others' rows.
sub let_reaper_go
{
	my ($db) = @_;

	$node->safe_psql($db, q{SELECT count(lease.release(name, token)) FROM lease.leases
		WHERE name LIKE 'brief/%'});
	$node->poll_query_until($db, q{SELECT count(*) = 0 FROM lease.ledger WHERE name LIKE 'brief/%'})
	  or die "no reaper came back to $db";
	return;
}

#
# Two databases
#
my $token = acquire($node, 'name');
my $other = acquire($node, 'name', db => 'source');
ok($token && $other, 'two databases can hold the same name');
ok(!is_held($node, 'name', $other), "one database's token means nothing in the other");
release($node, 'name', $token);
ok(is_held($node, 'name', $other, db => 'source'), 'a release in one leaves the other');
is(names_held($node), '', 'lease.leases shows those of its own database');
is(leases_used($node), 1, 'leases_used counts all databases');

#
# Clones.  The source's tokens are ahead of the clock, so that it is no help.
#
my %tokens_of = (source => LeaseTest::Tokens->new);
$node->safe_psql('source', q{SELECT lease.new_epoch('ahead of the clock')}) for 1 .. 2;
$tokens_of{source}->saw(map { acquire($node, $_, db => 'source', min_hold => '1 hour') } qw(kept closed));
release($node, 'closed', $tokens_of{source}->newest, db => 'source');
my $kept = $node->safe_psql('source', q{SELECT token FROM lease.leases WHERE name = 'kept'});

# A clone is as it should be: none of its template's leases, larger tokens.
sub check_clone
{
	my ($clone, $template, $when) = @_;

	ok(!is_held($node, 'kept', $kept, db => $clone), "$clone, $when: grants of the source are void");
	is(names_held($node, db => $clone), '', "$clone, $when: it starts without leases");
	is(grants_in_ledger($clone), 0, "$clone, $when: their rows are ended");
	$tokens_of{$clone} = LeaseTest::Tokens->new(beyond => $tokens_of{$template});
	$tokens_of{$clone}->saw(map { acquire($node, $_, db => $clone) } qw(kept closed));
	$tokens_of{$clone}->only_grew("$clone, $when: beyond its template's");
	ok(is_held($node, 'kept', $kept, db => 'source'), "$clone, $when: the source keeps its grants");
	return;
}

foreach ([ 'by_log', 'source', 'wal_log' ], [ 'by_copy', 'source', 'file_copy' ],
	[ 'clone_of_clone', 'by_log', 'wal_log' ])
{
	my ($clone, $template, $strategy) = @$_;

	keep_reaper_in($template);
	is(sqlstate($node, "CREATE DATABASE $clone TEMPLATE $template STRATEGY $strategy"),
		'', "$clone: CREATE DATABASE succeeds with a reaper in its template");
	let_reaper_go($template);
	check_clone($clone, $template, 'at once');
}

# After a crash, too, also if nobody looked at the clone before.
$node->safe_psql('postgres', 'CREATE DATABASE unused TEMPLATE source');
$node->stop('immediate');
$node->start;
check_clone('unused', 'source', 'after a crash');
foreach my $db (qw(by_log by_copy clone_of_clone))
{
	is(names_held($node, db => $db), 'closed kept', "$db: its own grants outlive a crash");
	$tokens_of{$db}->saw(acquire($node, 'after the crash', db => $db));
	$tokens_of{$db}->only_grew("$db: after a crash");
	ledger_is_sound($node, $db, db => $db);
}
is(names_held($node, db => 'source'), 'kept name', 'the source has its grants after a crash');
is(acquire($node, 'closed', db => 'source'), undef, 'and its closed name');

#
# Moved and renamed
#
my $space = PostgreSQL::Test::Utils::tempdir();
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$space'");
foreach (
	[ 'SET TABLESPACE', 'ALTER DATABASE source SET TABLESPACE elsewhere', 'source' ],
	[ 'RENAME', 'ALTER DATABASE source RENAME TO renamed', 'renamed' ])
{
	my ($what, $statement, $db) = @$_;
	my $token = acquire($node, $what, db => 'source');

	keep_reaper_in('source');
	is(sqlstate($node, $statement), '', "$what: succeeds with a reaper in the database");
	let_reaper_go($db);
	ok(is_held($node, 'kept', $kept, db => $db), "$what: leases live on");
	release($node, $what, $token, db => $db);
	$tokens_of{source}->saw(acquire($node, "$what 2", db => $db));
}
$tokens_of{source}->only_grew('moved and renamed');
$node->restart;
is(names_held($node, db => 'renamed'), 'RENAME 2 SET TABLESPACE 2 kept name',
	'a moved and renamed database has its leases after a restart');
$node->stop('immediate');
$node->start;
is(names_held($node, db => 'renamed'), 'RENAME 2 SET TABLESPACE 2 kept name',
	'and after a crash');
$tokens_of{source}->saw(acquire($node, 'last', db => 'renamed'));
$tokens_of{source}->only_grew('moved, renamed and crashed');
ledger_is_sound($node, 'renamed', db => 'renamed');

#
# Dropped
#
keep_reaper_in('renamed');
$node->safe_psql('postgres', 'CREATE ROLE nobody');
is(sqlstate($node, 'BEGIN; DROP DATABASE renamed'), '25001', 'a DROP DATABASE fails');
is(sqlstate($node, 'SET ROLE nobody; DROP DATABASE renamed'), '42501', 'and another one');
let_reaper_go('renamed');
ok(is_held($node, 'kept', $kept, db => 'renamed'), 'leases outlive a DROP DATABASE that fails');

acquire($node, 'here');
keep_reaper_in('renamed');
foreach my $db (qw(renamed by_log by_copy clone_of_clone unused))
{
	acquire($node, 'dropped', db => $db);
	is(sqlstate($node, "DROP DATABASE $db"), '', "DROP DATABASE $db");
}
is(names_held($node), 'here', 'leases of another database stay');
is(leases_used($node), 1, 'those of dropped databases leave nothing behind in memory');
is(sqlstate($node, 'DROP DATABASE IF EXISTS renamed'), '', 'DROP DATABASE of none');

# The table of databases has 256 entries, and they are freed.
$node->safe_psql('template1', 'CREATE EXTENSION lease');
for my $i (1 .. full_size(3, 300))
{
	$node->safe_psql('postgres', 'CREATE DATABASE passing');
	acquire($node, 'name', db => 'passing') or die "no lease in database $i";
	$node->safe_psql('postgres', 'DROP DATABASE passing');
}
is(leases_used($node), 1, 'databases come and go');

$node->stop;
done_testing();
