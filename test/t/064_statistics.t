# Statistics and history within their bounds: any number of names, restarts,
# crashes, damaged files, databases and extensions that come and go, a table that
# is locked, a retention that changes, a standby.
#
# What is counted is exact whatever names are forgotten, and outlives a clean
# restart; after a crash counting begins anew, and says so.  A database that
# nobody writes the history of leaves room for the others.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant NAMES_KEPT => 3072;

my $node = lease_node('statistics', allows_streaming => 1, conf => <<'END');
restart_after_crash = on
log_statement = none
END
my $kept_file = $node->data_dir . '/pg_stat/lease.stat';

sub value
{
	my ($sql, %args) = @_;
	return $node->safe_psql($args{db} // 'postgres', $sql);
}

# Take and release names that begin like that.
sub use_names
{
	my ($prefix, $count, %args) = @_;
	return value("SELECT count(lease.release(n, lease.try_acquire(n, scope => 'session')))
		FROM (SELECT '$prefix/' || i FROM generate_series(1, $count) i) names (n)", %args);
}

sub status { return value("SELECT $_[0] FROM lease.status", db => $_[1]) }

# Wait until what happened is in lease.events.
sub await_history
{
	my ($db) = @_;
	return wait_for('history to be written', sub { status('history_pending', $db) == 0 });
}

# All that is counted in a database, as text.
sub all_counts
{
	my ($db) = @_;
	return join "\n", map { value("SELECT * FROM lease.$_ ORDER BY 1", db => $db) }
	  qw(stats totals wait_histogram hold_histogram);
}

sub set_retention
{
	my ($value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET lease.history_retention = '$value'");
	$node->reload;
	return wait_for('the setting', sub {
		value("SELECT current_setting('lease.history_retention')::interval = '$value'") eq 't' });
}

#
# Many names
#
my $many = full_size(30_000, 1_000_000);
my $memory = q{SELECT name, size, allocated_size FROM pg_shmem_allocations WHERE name LIKE 'lease%' ORDER BY 1};
my $free = q{SELECT allocated_size FROM pg_shmem_allocations WHERE name IS NULL};

is(use_names('warm', 10), 10, 'names are used');
value('SELECT lease.reset_stats()');
is(value('SELECT count(*) FROM lease.stats'), 0, 'reset_stats() forgets all names');
is(value('SELECT acquired, released, hold_total, hold_max FROM lease.totals'), '0|0|00:00:00|00:00:00', 'and all totals');
is(value('SELECT sum(count) FROM lease.hold_histogram'), 0, 'and the histograms');

my ($before, $free_before) = (value($memory), value($free));
value(qq{
	SET synchronous_commit = off;
	DO \$\$
	BEGIN
		FOR i IN 1 .. $many LOOP
			PERFORM lease.release('many/' || i, lease.try_acquire('many/' || i, scope => 'session'));
			IF i % 3 = 0 THEN
				PERFORM lease.try_renew('many/' || i, 1);
			END IF;
			IF i % 50 = 0 THEN
				PERFORM lease.release('used often', lease.try_acquire('used often', scope => 'session'));
			END IF;
		END LOOP;
	END
	\$\$});
my $grants = $many + $many / 50;
is(value($memory), $before, "$many names: shared memory is as it was");
cmp_ok(value($free), '>', $free_before - 1_000_000, 'nothing else of it was taken');
is(value('SELECT count(*) FROM lease.stats'), NAMES_KEPT, 'lease.stats has as many names as there is room for');
is(value('SELECT acquired, released, rejected FROM lease.totals'), "$grants|$grants|" . int($many / 3), 'lease.totals are exact');
is(value('SELECT sum(count) FROM lease.hold_histogram'), $grants, 'so is a histogram');
cmp_ok(value('SELECT sum(acquired) FROM lease.stats'), '<', $grants / 2, 'most names were forgotten');
is(value("SELECT acquired, released FROM lease.stats WHERE name = 'used often'"), $many / 50 . '|' . $many / 50,
	'a name that is used again and again stays');
is(value("SELECT count(*) FROM lease.stats WHERE substr(name, 6)::int > $many - 60 AND name LIKE 'many/%'"), 60,
	'so do those that were used last');
is(value(q{SELECT count(*) FROM lease.stats WHERE name IN ('many/1', 'many/2', 'many/3')}), 0,
	'those that were not used for longest are gone');
use_names('many', 1);
is( value(q{SELECT acquired, since > t.t FROM lease.stats, (SELECT since AS t FROM lease.totals) t WHERE name = 'many/1'}),
	'1|t', 'one that comes again is counted from then on');

#
# Counts move from names to the database unnoticed
#
value('SELECT lease.reset_stats()');
my @rounds = 1 .. 8;
my $churn = start_psql($node, join "\n", 'SELECT pg_advisory_lock(64);', map { qq{
	SELECT count(lease.try_renew('heavy/' || i, 1)) FROM generate_series(1, 6000) i, generate_series(1, 10);
	SELECT count(lease.release(n, lease.try_acquire(n, scope => 'session')))
	FROM (SELECT 'light/' || i FROM generate_series(1, 6000) i) names (n);} } @rounds);
wait_for('a crowd of names', sub { value(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}) == 1 });
is( value(qq{
	CREATE FUNCTION pg_temp.look() RETURNS text LANGUAGE plpgsql AS \$\$
	DECLARE
		finished boolean;
		seen bigint;
		last bigint := 0;
		fell integer := 0;
	BEGIN
		LOOP
			finished := pg_try_advisory_lock(64);
			SELECT rejected INTO seen FROM lease.totals;
			fell := fell + (seen < last)::int;
			last := seen;
			EXIT WHEN finished;
		END LOOP;
		RETURN fell || ' ' || last;
	END
	\$\$;
	SELECT pg_temp.look()}) =~ s/^\s+//r,
	'0 ' . 60_000 * @rounds, 'lease.totals never go down while names come and go');
finish_psql($churn);

#
# Two databases
#
create_lease($node, 'other');
value('SELECT lease.reset_stats()');
use_names('here', 3);
use_names('there', 2, db => 'other');
is(value('SELECT string_agg(name, $$ $$ ORDER BY name) FROM lease.stats'), 'here/1 here/2 here/3',
	'lease.stats shows the names of its own database');
is(value('SELECT acquired FROM lease.totals', db => 'other'), 2, 'so do lease.totals');
is(value('SELECT sum(count) FROM lease.hold_histogram', db => 'other'), 2, 'and the histograms');
await_history('other');
is(value(q{SELECT count(*) FROM lease.history WHERE name LIKE 'here%'}, db => 'other'), 0, 'and lease.history');
value('SELECT lease.reset_stats()');
is(value('SELECT acquired FROM lease.totals', db => 'other'), 2, 'reset_stats() leaves other databases alone');

#
# A clean restart
#
# Keep reapers from writing; then more happens than there is room for.
sub lose_some
{
	my ($db) = @_;
	my $locker = $node->background_psql($db);

	$locker->query_safe('BEGIN; LOCK TABLE lease.events IN ACCESS EXCLUSIVE MODE');
	use_names('lost', 25_000, db => $db);
	return $locker;
}

foreach my $mode (qw(fast smart))
{
	await_history('postgres');
	value('SELECT lease.reset_stats(); TRUNCATE lease.events');
	my $locker = lose_some('postgres');
	my $live = acquire($node, 'live', ttl => '1 hour');
	my ($lost, $pending) = (status('history_lost'), status('history_pending'));
	my $since = value('SELECT since FROM lease.totals');

	cmp_ok($lost, '>', 1000, "$mode: events are lost");
	cmp_ok($pending, '>', 10_000, "$mode: others are not written yet");

	# Recent ones; there are few in each partition.
	use_names('recent', 64);
	my $counts = all_counts();
	my $more = $pending + 128;
	($lost, $pending) = (status('history_lost'), status('history_pending'));

	# A smart shutdown waits for sessions, which then may write.
	if ($mode eq 'smart')
	{
		$locker->query_safe('COMMIT');
		$locker->quit;
		await_history('postgres');
	}
	$node->stop($mode);
	$locker->{run}->finish if $mode eq 'fast';
	ok(-e $kept_file, "$mode: a clean shutdown keeps statistics in a file");
	$node->start;
	ok(!-e $kept_file, "$mode: which is gone when the server runs");

	# Nobody uses leases until a reaper has come.
	is($mode eq 'smart' || wait_for('history to be written',
			sub { value(q{SELECT count(*) FROM lease.events WHERE name LIKE 'recent/%' OR name LIKE 'lost/%'}) >= $pending - 2 }),
		1, "$mode: events that were not written yet are so after the restart");
	await_history('postgres');
	is(all_counts(), $counts, "$mode: all counters outlive a clean restart");
	is(value('SELECT since FROM lease.totals'), $since, "$mode: and since when they count");

	# That the ledger was loaded may have been one too many.
	is(value(q{SELECT history_lost + (SELECT count(*) FROM lease.events WHERE event = 'loaded') FROM lease.status}),
		$lost + 1, "$mode: and how many events were lost");
	is(value(q{SELECT count(*) - count(DISTINCT (name, event)) FROM lease.events WHERE name LIKE 'lost/%' OR name LIKE 'recent/%'}),
		0, "$mode: no event is written twice");
	is(value(q{SELECT count(*) FROM lease.events WHERE event <> 'loaded'}), $pending, "$mode: all that were not lost are there");

	use_names('after', 1000);
	is(value(q{SELECT count(*) FROM lease.stats WHERE name LIKE 'recent/%'}), 64,
		"$mode: who was used last before the restart is not forgotten first");
	is( value(q{SELECT acquired + received - released - expired - orphaned - forced - transferred - abandoned FROM lease.totals}),
		1, "$mode: a lease that is held over a restart still counts");
	ok(release($node, 'live', $live), "$mode: and is released");
}

# A session's lease ends as the server stops.
my $session = $node->background_psql('postgres');
$session->query_safe(q{SELECT lease.acquire('until the end', scope => 'session')});
$node->stop('fast');
$session->{run}->finish;
$node->start;
wait_for('the end of a session to be written', sub { value(q{SELECT count(*) FROM lease.history
	WHERE name = 'until the end' AND event = 'orphaned'}) == 1 });
is(value(q{SELECT acquired, orphaned FROM lease.stats WHERE name = 'until the end'}), '1|1',
	'leases that end with the server count as orphans');

#
# After a crash
#
sub starts_anew
{
	my ($what, $cause) = @_;

	use_names('before', 10);
	my $since = value('SELECT since FROM lease.totals');
	$cause->();
	is(value('SELECT count(*) FROM lease.stats'), 0, "$what: lease.stats are empty");
	is(value('SELECT acquired, released FROM lease.totals'), '0|0', "$what: lease.totals begin anew");
	is(value('SELECT sum(count) FROM lease.hold_histogram'), 0, "$what: so do the histograms");
	is(status('history_lost'), 0, "$what: and what is lost");
	use_names('again', 2);
	is(value("SELECT acquired, since > '$since' FROM lease.totals"), '2|t', "$what: and says so");
	return;
}

starts_anew('an immediate stop', sub { stop_at_once($node) });
starts_anew('a crash', sub {
	my $victim = $node->background_psql('postgres');
	crash($node, $victim->query_safe('SELECT pg_backend_pid()'));
	$victim->{run}->finish;
});

#
# Damaged files
#
sub damage
{
	my ($how) = @_;
	my $content = slurp_file($kept_file);

	$how->($content);
	unlink $kept_file;
	append_to_file($kept_file, $content);
	return;
}

foreach (
	[ 'its first byte is another', sub { substr($_[0], 0, 1) ^= "\x01" } ],
	[ 'it is of another server', sub { substr($_[0], 8, 1) ^= "\x01" } ],
	[ 'a byte in the middle is another', sub { substr($_[0], length($_[0]) / 2, 1) ^= "\x01" } ],
	[ 'its last byte is another', sub { substr($_[0], -1, 1) ^= "\x01" } ],
	[ 'the end is missing', sub { $_[0] = substr $_[0], 0, -100 } ],
	[ 'it is empty', sub { $_[0] = '' } ])
{
	my ($what, $how) = @$_;

	use_names('kept', 5);
	$node->stop('fast');
	damage($how);
	my $position = log_position($node);
	$node->start;
	is(value('SELECT acquired FROM lease.totals'), 0, "a damaged file ($what) is ignored");
	like(log_since($node, $position), qr/LOG:  ignoring lease statistics in file "pg_stat\/lease.stat"/,
		"$what: the log says so");
	ok(!-e $kept_file, "$what: the file is gone");
}

#
# An extension that is dropped
#
foreach my $reaper (0, 1)
{
	my $with = $reaper ? 'with a reaper' : 'no reaper';

	starts_anew("DROP and CREATE EXTENSION, $with", sub {
		my $launcher = $reaper ? undef : freeze($node, 'lease launcher');
		value('DROP EXTENSION lease CASCADE');
		wait_for('a reaper', sub { value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'lease reaper'}) == 0 })
		  if $reaper;
		create_lease($node, 'postgres');

		# Whoever uses it first finds nothing of the former one.
		value(q{SELECT lease.is_held('name', 1)});
		thaw($launcher) if $launcher;
	});
}

#
# Databases that nobody can write the history of
#
create_lease($node, $_) foreach qw(greedy modest);
use_names('loaded', 1, db => $_) foreach qw(postgres greedy modest);
await_history($_) foreach qw(postgres greedy modest);
wait_for('reapers to leave', sub { value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'lease reaper'}) == 0 });
my $launcher = freeze($node, 'lease launcher');
use_names('greedy', 25_000, db => 'greedy');
cmp_ok(status('history_lost', 'greedy'), '>', 1000, 'a database without a reaper fills what room it gets');
use_names('modest', 1500, db => 'modest');
is(status('history_lost', 'modest'), 0, 'and leaves some for another');
use_names('modest', 200);
is(status('history_lost'), 0, 'and for a third one');
my $lost = status('history_lost + history_pending', 'greedy');
value('ALTER DATABASE greedy ALLOW_CONNECTIONS false');
thaw($launcher);
await_history('modest');
is(value(q{SELECT count(*) FROM lease.history WHERE name LIKE 'modest/%'}, db => 'modest'), 3000, 'others are written');

# What it cannot write is given up, and its room with it.
$launcher = undef;
wait_for('a reaper to give up', sub {
	my $locker = $node->background_psql('modest');
	$locker->query_safe('SELECT lease.reset_stats(); BEGIN; LOCK TABLE lease.events IN ACCESS EXCLUSIVE MODE');
	use_names('modest', 5000, db => 'modest');
	my $fits = status('history_lost', 'modest') == 0;
	$locker->query_safe('COMMIT');
	$locker->quit;
	await_history('modest');
	return $fits;
});
value('ALTER DATABASE greedy ALLOW_CONNECTIONS true');
is(status('history_lost || $$ $$ || history_pending', 'greedy'), "$lost 0", 'its events count as lost');

# A database that is dropped gives all back, also what is not written yet.
my $locker = lose_some('greedy');
cmp_ok(status('history_pending', 'greedy'), '>', 10_000, 'a database has much to write');
value('DROP DATABASE greedy WITH (FORCE)');
$locker->{run}->finish;
$locker = $node->background_psql('modest');
$locker->query_safe('SELECT lease.reset_stats(); BEGIN; LOCK TABLE lease.events IN ACCESS EXCLUSIVE MODE');
use_names('modest', 5000, db => 'modest');
is(status('history_lost', 'modest'), 0, 'DROP DATABASE frees the room that its events took');
$locker->query_safe('COMMIT');
$locker->quit;
await_history('modest');
create_lease($node, 'fresh');
use_names('fresh', 1, db => 'fresh');
is(value('SELECT acquired, history_lost FROM lease.totals, lease.status', db => 'fresh'), '1|0',
	'a database in its place starts with nothing');
is(value('SELECT string_agg(name, $$ $$) FROM lease.stats', db => 'fresh'), 'fresh/1', 'and no names');

#
# How long history is kept
#
use_names('old', 10);
await_history('postgres');
set_retention('0');
wait_for('history to be emptied', sub { value('SELECT count(*) FROM lease.events') == 0 });
use_names('unseen', 10);
set_retention('1h');
use_names('seen', 10);
wait_for('history to go on', sub { value(q{SELECT count(*) FROM lease.history WHERE name LIKE 'seen/%'}) == 20 });
is(value(q{SELECT count(*) FROM lease.history WHERE name NOT LIKE 'seen/%'}), 0,
	'a retention of 0 removes what was written, and writes nothing');
is(status('history_lost'), 0, 'which is not called lost');

# More than one batch of what is old.
value(q{INSERT INTO lease.events (seq, at, event, name, owner)
	SELECT i, now() - interval '2 hours', 'refused', 'old', 10 FROM generate_series(1, 150000) i});
$node->reload;
wait_for('old history to be removed', sub { value(q{SELECT count(*) FROM lease.events WHERE name = 'old'}) == 0 });
is(value(q{SELECT count(*) FROM lease.history WHERE name LIKE 'seen/%'}), 20, 'what is not older than the retention stays');

# Without anybody's help, every hundredth of the retention.
set_retention('100s');
use_names('aged', 1);
await_history('postgres');
value(q{UPDATE lease.events SET at = at - interval '10 minutes' WHERE name LIKE 'aged/%'});
wait_for('history to be trimmed', sub { value(q{SELECT count(*) FROM lease.events WHERE name LIKE 'aged/%'}) == 0 });
set_retention('7d');

# Its table may be rewritten.
value('VACUUM FULL lease.events');
value('REINDEX TABLE lease.events');
use_names('rewritten', 10);
wait_for('history to go on', sub { value(q{SELECT count(*) FROM lease.history WHERE name LIKE 'rewritten/%'}) == 20 });

#
# A standby
#
use_names('primary', 10);
await_history('postgres');
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
use_names('replicated', 10);
await_history('postgres');
my $lsn = $node->lsn('insert');
value('SELECT pg_switch_wal()');
$node->wait_for_catchup($standby, 'replay', $lsn);

sub check_standby
{
	my ($what) = @_;

	is($standby->safe_psql('postgres', 'SELECT md5(string_agg(h::text, $$ $$ ORDER BY h)) FROM lease.history h'),
		value('SELECT md5(string_agg(h::text, $$ $$ ORDER BY h)) FROM lease.history h'),
		"$what: lease.history shows what the primary's does");
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM lease.stats'), 0, "$what: lease.stats is empty");
	is($standby->safe_psql('postgres', 'SELECT acquired, since FROM lease.totals'), '0|', "$what: lease.totals are zero");
	is($standby->safe_psql('postgres', 'SELECT sum(count) FROM lease.hold_histogram'), 0, "$what: so are histograms");
	is($standby->safe_psql('postgres', 'SELECT history_lost IS NULL AND history_pending IS NULL FROM lease.status'),
		't', "$what: nothing is lost or pending");
	is(sqlstate($standby, 'SELECT lease.reset_stats()'), '25006', "$what: nothing is there to reset");
	return;
}

check_standby('a standby');
$standby->promote;
is($standby->safe_psql('postgres', q{SELECT lease.release('promoted', lease.try_acquire('promoted')); SELECT acquired FROM lease.totals}),
	"t\n1", 'after its promotion it counts');
$standby->poll_query_until('postgres', q{SELECT count(*) = 2 FROM lease.history WHERE name = 'promoted'})
  or fail('and writes history');
$standby->stop;

# One that is made of a primary at rest has its file, which means nothing there.
use_names('cold', 10);
await_history('postgres');
$node->stop('fast');
ok(-e $kept_file, 'a primary at rest has a file');
$node->backup_fs_cold('cold');
$node->start;
$standby = PostgreSQL::Test::Cluster->new('cold');
$standby->init_from_backup($node, 'cold', has_streaming => 1);
$standby->start;
is(value('SELECT acquired > 0 FROM lease.totals'), 't', 'the primary has its counters');
await_history('postgres');
$lsn = $node->lsn('insert');
value('SELECT pg_switch_wal()');
$node->wait_for_catchup($standby, 'replay', $lsn);
check_standby('a standby made of a primary at rest');
$standby->stop;

$node->stop;
done_testing();
