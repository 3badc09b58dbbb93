# Protected tables beyond one session and one server: a lease lost in between, dumps,
# logical replication.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = lease_node('origin', conf => 'wal_level = logical', allows_streaming => 'logical');
my $dumps = PostgreSQL::Test::Utils::tempdir();

sub balance { return $_[0]->safe_psql($_[1] // 'postgres', 'SELECT balance FROM account WHERE id = 1') }

# Run statements in a session, none of which has to wait; returns the SQLSTATE of the last.
sub state_after
{
	my ($psql, $script) = @_;
	my @lines = split /\n/, $psql->query("$script\n\\echo :SQLSTATE");

	return $lines[-1];
}

# The write of a row under its guard, in a database; the SQLSTATE if it is refused.
sub guarded_write
{
	my ($server, $db) = @_;
	my $token = acquire($server, 'account/1', db => $db);
	my $state = sqlstate(
		$server,
		qq{BEGIN; SELECT lease.guard('account/1', $token);
		   UPDATE account SET balance = balance + 1, version = version, fencing_token = $token WHERE id = 1; COMMIT},
		db => $db);

	release($server, 'account/1', $token, db => $db);
	return $state;
}

$node->safe_psql(
	'postgres', q{
	CREATE TABLE account (id integer PRIMARY KEY, balance integer, version integer DEFAULT 1, fencing_token bigint DEFAULT 0);
	INSERT INTO account VALUES (1, 100);
	CREATE TABLE part (id integer) PARTITION BY LIST (id);
	CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
	CREATE TABLE part_2 PARTITION OF part FOR VALUES IN (2);
	INSERT INTO part VALUES (1), (2);
	SELECT lease.protect_table('account', 'account/{id}'), lease.protect_table('part', 'it''s \ {{a}} part');
	SELECT lease.enable_versioning('account', strict => true), lease.enable_fencing('account', strict => true);});
my $protected = 'SELECT * FROM lease.protected_tables ORDER BY "table"::text';
my $as_made = $node->safe_psql('postgres', $protected);
my $lowered = 'UPDATE account SET version = version, fencing_token = 1';
is(guarded_write($node, 'postgres'), '', 'a guarded write commits');

#
# The lease is lost between the write and its commit, and somebody else has it
#
my ($late, $next) = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 2;
my $token = acquire($node, 'account/1');
$node->safe_psql('postgres', 'SELECT lease.disable_fencing(rel), lease.disable_versioning(rel) FROM (VALUES (\'account\'::regclass)) v (rel)');
is(state_after($late, qq{BEGIN; SELECT lease.guard('account/1', $token); UPDATE account SET balance = balance - 10;}),
	'00000', 'a write under its guard');
$node->safe_psql('postgres', q{SELECT lease.force_release('account/1', 'test')});
my $second = acquire($node, 'account/1');
ask_session($next, qq{BEGIN; SELECT lease.guard('account/1', $second); UPDATE account SET balance = balance - 30; COMMIT;});
is(state_after($late, 'COMMIT;'), 'LE001', 'its lease is lost: it does not commit');
my (undef, $said) = await_answer($next);
is($said, '', 'the next holder does');
is(balance($node), 71, 'and what it writes is on top of what was committed alone');

# The next holder writes first.
release($node, 'account/1', $second);
$token = acquire($node, 'account/1');
is(state_after($late, qq{BEGIN; SELECT lease.guard('account/1', $token);}), '00000', 'a guard');
$node->safe_psql('postgres', q{SELECT lease.force_release('account/1', 'test')});
is(guarded_write($node, 'postgres'), '', 'the next holder writes');
is(state_after($late, 'UPDATE account SET balance = 0;'), '00000', 'who lost the lease writes, and does not know');
is(state_after($late, 'COMMIT;'), 'LE001', 'until it commits');
is(balance($node), 72, 'nothing of it is left');
$_->quit for $late, $next;
$node->safe_psql('postgres',
	q{SELECT lease.enable_versioning('account', strict => true), lease.enable_fencing('account', strict => true)});

#
# A dump brings its tables back, and their protection
#
sub dump_and_restore
{
	my ($db, @options) = @_;

	$node->command_ok([ 'pg_dump', '-f', "$dumps/$db.sql", @options, $node->connstr('postgres') ], "pg_dump @options");
	return [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=sqlstate', '-f', "$dumps/$db.sql", '-d', $node->connstr($db) ];
}

$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE template0');
$node->command_ok(dump_and_restore('copy'), 'it is restored');
is($node->safe_psql('copy', $protected), $as_made, 'all is protected as it was');
is($node->safe_psql('copy', 'SELECT count(*) FROM part'), 2, 'with its rows');
is(sqlstate($node, 'UPDATE account SET balance = 0', db => 'copy'), '55000', 'strict versions are restored');
is(sqlstate($node, 'UPDATE account SET version = 0, fencing_token = fencing_token', db => 'copy'), '40001', 'and compared');
is(sqlstate($node, $lowered, db => 'copy'), 'LE002', 'fencing is restored');
is(sqlstate($node, 'UPDATE account SET version = version, fencing_token = fencing_token', db => 'copy'),
	'LE003', 'a write without its guard is refused');
is(sqlstate($node, 'TRUNCATE part_1', db => 'copy'), 'LE003', 'and TRUNCATE of a partition');
is(guarded_write($node, 'copy'), '', 'a guarded write commits');
is(balance($node, 'copy'), 73, 'there');

# Data alone is written like anybody's, unless triggers are off.
my $data = dump_and_restore('copy', '--data-only', '--table=account');
$node->safe_psql('copy', 'ALTER TABLE account DISABLE TRIGGER lease_protect; DELETE FROM account; ALTER TABLE account ENABLE TRIGGER lease_protect');
$node->command_fails_like($data, qr/LE003/, 'data alone is refused without a guard');
is(balance($node, 'copy'), '', 'and nothing of it is written');
$data = dump_and_restore('copy', '--data-only', '--table=account', '--disable-triggers');
$node->command_ok($data, 'data alone is restored with triggers disabled');
is(balance($node, 'copy'), 72, 'all of it');
is($node->safe_psql('copy', $protected), $as_made, 'and the protection is on again');

#
# Logical replication writes what was checked where it came from
#
my $subscriber = lease_node('subscriber');
$subscriber->safe_psql(
	'postgres', q{
	CREATE TABLE account (id integer PRIMARY KEY, balance integer, version integer, fencing_token bigint);
	SELECT lease.protect_table('account', 'account/{id}'), lease.enable_versioning('account', strict => true);});
$node->safe_psql('postgres', 'CREATE PUBLICATION p FOR TABLE account');
$subscriber->safe_psql('postgres',
	"CREATE SUBSCRIPTION s CONNECTION '" . $node->connstr . " dbname=postgres' PUBLICATION p");
wait_for('the first copy',
	sub { $subscriber->safe_psql('postgres', 'SELECT srsubstate FROM pg_subscription_rel') eq 'r' });
is(balance($subscriber), 72, 'the first copy of a table needs no guard');
guarded_write($node, 'postgres');
$node->wait_for_catchup('s');
is(balance($subscriber), 73, 'nor do later changes');
is($subscriber->safe_psql('postgres', 'SELECT version FROM account'),
	$node->safe_psql('postgres', 'SELECT version FROM account'), 'whose versions are those of the publisher');
is(sqlstate($subscriber, 'UPDATE account SET balance = 0, version = version'), 'LE003', 'everybody else does');

# Told to, it checks these, too.
$subscriber->safe_psql('postgres', 'ALTER TABLE account ENABLE ALWAYS TRIGGER lease_protect');
is($subscriber->safe_psql('postgres', 'SELECT enabled FROM lease.protected_tables'), 'always', 'the view says so');
my $position = log_position($subscriber);
guarded_write($node, 'postgres');
wait_for('the subscriber to refuse a change',
	sub { log_since($subscriber, $position) =~ /does not guard lease "account\/1"/ });
is(balance($subscriber), 73, 'a trigger that fires always refuses what is applied');
$subscriber->safe_psql('postgres', 'ALTER TABLE account ENABLE TRIGGER lease_protect');
$node->wait_for_catchup('s');
is(balance($subscriber), 74, 'until it is as it was');
$subscriber->safe_psql('postgres', 'DROP SUBSCRIPTION s');

$subscriber->stop;
$node->stop;
done_testing();
