# Versions and keys under contention, and for how long records are kept.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = lease_node('records', conf => "max_connections = 120\nmax_prepared_transactions = 5");

sub query { return $node->safe_psql('postgres', $_[0]) }

# Wait until a row of lease.keys is there no more; returns whether that came true.
sub gone
{
	my ($key, $db) = @_;

	return wait_for("key $key to be removed",
		sub { $node->safe_psql($db // 'postgres', "SELECT count(*) FROM lease.keys WHERE key = '$key'") eq '0' });
}

# How many sessions wait for a lock.
sub blocked { return query(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'}) }

# A session that goes on with what it began.
sub session
{
	my ($script) = @_;
	my $psql = $node->background_psql('postgres');

	$psql->query_safe($script);
	return $psql;
}

#
# Read, compute, write with versions: no update is lost, whatever the statement
#
my $clients = 32;
my $rounds = full_size(5, 50);

# A client commits between reading and writing, so that others come in between.  It
# starts when the gate is open.
query(q{
	CREATE TABLE gate (i integer);
	CREATE TABLE counter (id integer PRIMARY KEY, n integer DEFAULT 0, version integer DEFAULT 0);
	SELECT lease.enable_versioning('counter', strict => true);
	CREATE TABLE done (form text, successes integer, conflicts integer);

	CREATE FUNCTION write(form text, was counter) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		CASE form
			WHEN 'what was read' THEN
				UPDATE counter SET n = was.n + 1, version = was.version WHERE id = was.id;
			WHEN 'mapper' THEN
				UPDATE counter SET n = was.n + 1, version = was.version + 1 WHERE id = was.id AND version = was.version;
			WHEN 'compare_and_set' THEN
				PERFORM lease.compare_and_set('counter', jsonb_build_object('id', was.id), was.version, jsonb_build_object('n', was.n + 1));
		END CASE;
		RETURN FOUND;
	EXCEPTION WHEN serialization_failure THEN
		RETURN false;
	END
	$$;

	CREATE PROCEDURE client(form text, key integer, rounds integer) LANGUAGE plpgsql AS $$
	DECLARE
		was       counter;
		successes integer := 0;
		conflicts integer := 0;
	BEGIN
		LOCK TABLE gate IN ACCESS SHARE MODE;
		COMMIT;
		WHILE successes < rounds LOOP
			SELECT * INTO STRICT was FROM counter WHERE id = key;
			COMMIT;
			IF write(form, was) THEN
				successes := successes + 1;
			ELSE
				conflicts := conflicts + 1;
			END IF;
			COMMIT;
		END LOOP;
		INSERT INTO done VALUES (form, successes, conflicts);
	END
	$$;});

my $key = 0;

foreach my $form ('what was read', 'mapper', 'compare_and_set')
{
	query('INSERT INTO counter VALUES (' . ++$key . ')');
	my $gate = session('BEGIN; LOCK TABLE gate;');
	my @clients = map { start_psql($node, "CALL client('$form', $key, $rounds);") } 1 .. $clients;

	wait_for('all to be there', sub { blocked() == $clients });
	$gate->quit;
	my @complaints = grep { $_ } map { (finish_psql($_))[1] } @clients;
	is("@complaints", '', "$form: every client gets through");
	is(query("SELECT n FROM counter WHERE id = $key"),
		query("SELECT sum(successes) FROM done WHERE form = '$form'"),
		"$form: the count equals the successes, no update is lost");
	is(query("SELECT n = version AND n = $clients * $rounds FROM counter WHERE id = $key"),
		't', "$form: each success is a version");
	note("$form: " . query("SELECT sum(conflicts) FROM done WHERE form = '$form'") . ' conflicts');
}
is(sqlstate($node, 'UPDATE counter SET n = 0'), '55000', 'a blind update is refused in strict mode');

#
# Sixty-four clients race for a key
#
query('CREATE TABLE effect (key text, client integer)');

# All wait for a first one, which ends like this; some of them roll back what they did.
# Returns who had an effect.
sub race
{
	my ($key, $number, $end) = @_;
	my $first = session("BEGIN; INSERT INTO effect SELECT '$key', 0 WHERE lease.once('$key');");
	my @racers = map {
		start_psql($node,
			"BEGIN; INSERT INTO effect SELECT '$key', $_ WHERE lease.once('$key'); " . ($_ % 2 ? 'ROLLBACK' : 'COMMIT'))
	} 1 .. $number;

	wait_for('all to be there', sub { blocked() == $number });
	is(query("SELECT count(*) FROM effect WHERE key = '$key'"), 0, 'nobody does anything while the first may commit');
	$first->query_safe($end);
	$first->quit;
	is(join('', map { (finish_psql($_))[1] } @racers), '', 'nobody fails');
	return query("SELECT client FROM effect WHERE key = '$key'");
}

is(race('committed', 8, 'COMMIT'), 0, 'the first commits: its effect is the only one');
my $winner = race('aborted', 64, 'ROLLBACK');
like($winner, qr/^\d+$/, 'the first of 65 aborts, and so do half of the others: there is one effect');
is($winner % 2, 0, 'of one that committed');
is(query(q{SELECT lease.once('aborted')}), 'f', 'and nobody gets it after that');

#
# Expired keys are removed: at once, later, after a commit that came late
#
query(q{SELECT lease.once('kept', '1 h'), lease.save_result('kept', '{"n": 1}'), lease.once('brief', '1 ms')});
ok(gone('brief'), 'an expired key is removed');
query(q{SELECT lease.once('later', '2 s')});
wait_for_launcher($node);
ok(gone('later'), 'a key that expires while the launcher sleeps is removed');

my $late = session(q{BEGIN; SELECT lease.once('late', '1 ms');});
my $undone = session(q{BEGIN; SELECT lease.once('undone', '1 ms');});
query(q{SELECT lease.once('meanwhile', '1 ms')});
ok(gone('meanwhile'), 'a key is removed while others are not committed');
$late->query_safe('COMMIT');
$late->quit;
ok(gone('late'), 'one that was expired when it was committed is removed');
$undone->query_safe('ROLLBACK');
$undone->quit;
is(query(q{SELECT count(*) FROM lease.keys WHERE key = 'undone'}), 0, 'one that was rolled back is not there');

# Sooner than one that was noted before.
query(qq{SELECT lease.once('$_->[0]', '$_->[1]')}) for [ 'an hour', '1 h' ], [ 'sooner', '1 s' ];
ok(gone('sooner'), 'a key that expires before those that are there is removed');

# More than a batch.
query(q{SELECT count(lease.once('many ' || n, '1 ms')) FROM generate_series(1, 2500) n});
wait_for('all of many keys to be removed', sub { query(q{SELECT count(*) FROM lease.keys WHERE key LIKE 'many%'}) eq '0' });
is(query(q{SELECT string_agg(key, ' ' ORDER BY key) FROM lease.keys}), 'aborted an hour committed kept', 'those that live are kept');

#
# Databases with nothing else to reap; restarts and crashes
#
create_lease($node, 'keys_only');
$node->safe_psql('keys_only', q{SELECT lease.once('brief', '1 ms')});
ok(gone('brief', 'keys_only'), 'a database without leases has its keys removed');

# These keys expire unnoticed: nobody is told.
my $expire = q{UPDATE lease.keys SET expires_at = now() WHERE key = 'unnoticed'};
query(q{SELECT lease.once('unnoticed', '1 h')});
$node->safe_psql('keys_only', q{SELECT lease.once('unnoticed', '1 h')});
query($expire);
$node->safe_psql('keys_only', $expire);
my $token = acquire($node, 'fenced');
query(qq{SELECT lease.fence('disk', $token)});

stop_at_once($node);
foreach my $db ('postgres', 'keys_only')
{
	$node->safe_psql($db, q{SELECT lease.once('first of the new day')});
	ok(gone('unnoticed', $db), "after a restart $db has its expired keys removed, once it is used");
}

my $records = q{SELECT key, owner, result, expires_at FROM lease.keys ORDER BY key};
my $fences = 'SELECT resource, token, owner FROM lease.fences';
my ($kept, $fenced) = map { query($_) } $records, $fences;
is(query(q{SELECT lease.once('kept'), lease.result('kept')}), 'f|{"n": 1}', 'keys and results survive a crash');
is( query('SELECT resource, token, owner = current_user::regrole FROM lease.fences'),
	"disk|$token|t", 'and so do fences');

#
# Dump and restore
#
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE template0');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('copy') ], 'it is restored');
is($node->safe_psql('copy', $records), $kept, 'keys and results are restored');
is($node->safe_psql('copy', $fences), $fenced, 'and fences');
is(sqlstate($node, q{SELECT lease.fence('disk', 1)}, db => 'copy'), 'LE002', 'which refuse what they refused');
is($node->safe_psql('copy', q{SELECT lease.once('kept')}), 'f', 'and what was done is done');

$node->stop;
done_testing();
