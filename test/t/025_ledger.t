# The ledger stays small, and is nobody's business but ours.
#
# A lease that ends leaves a dead row, whatever snapshots are open: ledger.c
# ends rows so that VACUUM may take them at once, here and on a standby.  So
# the fastest possible acquire and release, with a REPEATABLE READ snapshot
# open all the time on the primary and one on a hot standby, must leave a
# ledger that autovacuum knows of and that VACUUM empties; must cancel no query
# on the standby; and must be no change that a publication FOR ALL TABLES hands
# on.  This is the cost side of invariant 3, that a grant is a durable row.
#
# The load runs twice, with hot_standby_feedback off and on; in full size for
# ten minutes each, under the server's own autovacuum settings.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use LeaseTest;
use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $seconds = full_size(3, 600);
my $naptime = full_size('1s', '1min');
my $limit = 512 * 1024 * 1024;

my $primary = lease_node(
	'primary',
	allows_streaming => 'logical',
	conf => qq{
		log_statement = none
		shared_buffers = 128MB
		max_connections = 40
		max_wal_size = 1GB
		autovacuum_naptime = $naptime});
my $has_pgstattuple = $primary->safe_psql('postgres',
	"SELECT count(*) FROM pg_available_extensions WHERE name = 'pgstattuple'");

$primary->safe_psql('postgres', 'CREATE EXTENSION pgstattuple') if $has_pgstattuple;
$primary->safe_psql(
	'postgres', q{
	CREATE TABLE ordinary (id integer PRIMARY KEY);
	INSERT INTO ordinary VALUES (1);
	CREATE PUBLICATION everything FOR ALL TABLES;
	SELECT pg_create_physical_replication_slot('standby');
	SELECT pg_create_logical_replication_slot('subscriber', 'pgoutput')});
$primary->backup('base');

# A conflict is to cancel a query at once.
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf(
	'postgresql.conf', q{
	primary_slot_name = 'standby'
	max_standby_streaming_delay = 0});
$standby->start;

my $script = PostgreSQL::Test::Utils::tempdir() . '/acquire_release.sql';
append_to_file($script, <<'END');
\set n random(1, 1000000)
SELECT lease.try_acquire('load/' || :client_id || '/' || :n, '1 minute') AS token \gset
SELECT lease.release('load/' || :client_id || '/' || :n, :token);
END

sub start_load
{
	my ($duration) = @_;
	my %load = (out => '');

	$load{run} = IPC::Run::start(
		[
			'pgbench', '-n', '-M', 'prepared', '-c', '8', '-j', '2', '-T', $duration,
			'-f', $script, '-h', $primary->host, '-p', $primary->port, 'postgres'
		],
		'<', \undef, '>', \$load{out}, '2>', \$load{out});
	return \%load;
}

# How many changes the subscriber is handed; takes them.
sub decoded_changes
{
	return $primary->safe_psql(
		'postgres', q{
		SELECT count(*) FROM pg_logical_slot_get_binary_changes('subscriber', NULL, NULL,
			'proto_version', '1', 'publication_names', 'everything')});
}

sub ledger_size
{
	return $primary->safe_psql('postgres', 'SELECT ledger_size FROM lease.status');
}

# Run the load to its end; returns the ledger's largest size, how many changes
# were decoded meanwhile, and how many pairs of calls there were.
sub run_load
{
	my ($duration) = @_;
	my $load = start_load($duration);
	my ($largest, $decoded) = (0, 0);

	while ($load->{run}->pumpable)
	{
		$largest = max($largest, ledger_size());
		$decoded += decoded_changes();
		$load->{run}->pump_nb;
		usleep(200_000);
	}
	ok($load->{run}->finish, "$duration seconds of acquire and release, none failed")
	  or diag($load->{out});
	my ($pairs) = $load->{out} =~ /transactions actually processed: (\d+)/;
	return ($largest, $decoded, $pairs // 0);
}

sub autovacuum_came
{
	return $primary->safe_psql('postgres',
		q{SELECT autovacuum_count > 0 FROM pg_stat_all_tables
		  WHERE relid = 'lease.ledger'::regclass}) eq 't';
}

# A session that keeps its snapshot.
sub open_snapshot
{
	my ($node) = @_;
	my $session = $node->background_psql('postgres');

	# It is allowed to idle longer than a query may take.
	$session->set_query_timer_restart(1);
	$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
	$session->query_safe('SELECT count(*) FROM lease.ledger');
	return $session;
}

sub check_vacuum
{
	my ($when) = @_;

	is( leases_used($primary),
		'0', "$when: no lease is left");
	$primary->safe_psql('postgres', 'VACUUM lease.ledger');
  SKIP:
	{
		skip 'this server does not come with pgstattuple', 1 unless $has_pgstattuple;
		is( $primary->safe_psql(
				'postgres', q{
				SELECT tuple_count, dead_tuple_count FROM pgstattuple('lease.ledger')}),
			'1|0',
			"$when: VACUUM leaves the ceiling's row alone");
	}
	return;
}

foreach my $feedback (qw(off on))
{
	$standby->append_conf('postgresql.conf', "hot_standby_feedback = $feedback");
	$standby->reload;

	my $here = open_snapshot($primary);
	$primary->wait_for_catchup($standby);
	my $there = open_snapshot($standby);

	my ($largest, $decoded, $pairs) = run_load($seconds);
	note(sprintf 'feedback %s: %d pairs a second, ledger at most %.1f MB, after %d seconds',
		$feedback, $pairs / $seconds, $largest / 1024 / 1024, $seconds);
	cmp_ok($largest, '<', $limit, "feedback $feedback: the ledger stays below 512 MB");
	ok(wait_for('autovacuum', \&autovacuum_came), "feedback $feedback: autovacuum looks after it");
	check_vacuum("feedback $feedback, snapshots open");
	is($here->query_safe('SELECT count(*) FROM ordinary'),
		'1', "feedback $feedback: the snapshot on the primary still answers");
	$here->quit;

	# Now nothing but the standby's snapshot could hold rows back.
	(undef, my $more) = run_load(max(2, $seconds / 60));
	check_vacuum("feedback $feedback, snapshot on the standby open");
	$primary->wait_for_catchup($standby);
	is($there->query_safe('SELECT count(*) FROM ordinary'),
		'1', "feedback $feedback: the snapshot on the standby still answers");
	$there->quit;

	is($decoded + $more + decoded_changes(),
		0, "feedback $feedback: leases are no change to a subscriber");
}

is( $standby->safe_psql(
		'postgres', q{
		SELECT sum(confl_tablespace + confl_lock + confl_snapshot + confl_bufferpin +
				   confl_deadlock) FROM pg_stat_database_conflicts}),
	'0',
	'no query was cancelled on the standby');

$primary->safe_psql('postgres', 'INSERT INTO ordinary VALUES (2)');
cmp_ok(decoded_changes(), '>', 0, 'whereas an ordinary row is a change to a subscriber');

$standby->stop;
$primary->stop;
done_testing();
