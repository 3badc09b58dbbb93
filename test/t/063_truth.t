# Statistics and history tell the truth.  Clients acquire, wait, renew, guard, hand
# over, release and lose leases in every way there is, and write down what they
# were told; when all is over, each counter of lease.totals and lease.stats, and
# each row of lease.history, must be what they wrote, and nothing else.
#
# A second storm makes more events than there is room for, while nobody can write
# lease.events: nobody waits for that, rows are missing, and exactly as many as
# lease.status says.  In a third one clients are cancelled, terminated and killed,
# so that nobody knows what became of their calls; what was counted and what was
# written must still agree with each other.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use List::Util qw(max);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @ends = qw(released expired orphaned forced transferred abandoned);
my @counted = (qw(acquired received), @ends,
	qw(refused timeout deadlock cancelled rejected guard_failed));
my %column = (timeout => 'timeouts', deadlock => 'deadlocks', guard_failed => 'guard_failures');

my $dir = PostgreSQL::Test::Utils::tempdir();
my $storm = build_storm();
my $node = lease_node('truth', conf => <<'END');
max_connections = 200
deadlock_timeout = 10ms
log_statement = none
log_min_messages = panic
END

sub value
{
	my ($db, $sql) = @_;
	return $node->safe_psql($db, $sql);
}

# A storm in a new database, until all its clients have gone; returns what they wrote.
sub storm_in
{
	my ($db, @options) = @_;
	my $records = "$dir/$db";
	my ($out, $err) = run_command(
		[
			$storm, 'truth', $node->connstr($db), $records, @options,
			"patience=$PostgreSQL::Test::Utils::timeout_default"
		]);

	is($out . $err, '', "$db: the clients understood all that they were told");
	wait_for('sessions to end', sub { value($db, q{
		SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'
			AND datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'locker'}) == 0 });
	return map { slurp_file($_) } glob "$records.*";
}

# What is left runs out: then every grant has ended.
sub end_all
{
	my ($db) = @_;

	advance_clock($node, '2 hours', db => $db);
	return wait_for('all leases to end', sub { leases_used($node) == 0 });
}

sub await_history
{
	my ($db) = @_;
	return wait_for('history to be written', sub { value($db, 'SELECT history_pending FROM lease.status') == 0 });
}

#
# What was told, as lease.history should show it
#
sub load_records
{
	my ($db, @records) = @_;
	my $file = "$dir/all";

	unlink $file;
	append_to_file($file, join '', @records);
	value($db, qq{
		CREATE TABLE told (event text, name text, token bigint, mode text, scope text, holder text,
			correlation_id text, pid integer, waited boolean, sent bigint, replied bigint, ttl bigint, detail text);
		\\copy told FROM '$file'
	});
	my $ends = join ', ', map { "'$_'" } @ends;
	value($db, qq{
		CREATE INDEX ON told (token);
		ANALYZE told;

		-- Who is granted a lease at the moment when its time is up is told of that alone.
		CREATE TABLE late AS
		SELECT t.ctid AS row, h.token, h.waited IS NOT NULL AS waited FROM told t JOIN lease.history h USING (holder, name)
		WHERE t.event IN ('timeout', 'deadlock') AND h.event = 'acquired'
		  AND NOT EXISTS (SELECT FROM told g WHERE g.token = h.token AND g.event = 'acquired');
		UPDATE told t SET event = 'acquired', token = l.token, waited = l.waited FROM late l WHERE t.ctid = l.row;
		INSERT INTO told (event, token, detail) SELECT 'leaves', token, 'abandoned' FROM late;

		CREATE TABLE grants AS SELECT * FROM told WHERE event IN ('acquired', 'received');
		CREATE TABLE renewals AS
			SELECT token, count(*) AS count, (array_agg(ttl ORDER BY sent DESC))[1] AS ttl,
			       max(sent) AS sent, max(replied) AS replied
			FROM told WHERE event = 'renewed' GROUP BY token;

		-- Who ends a grant is believed more than who left it.
		CREATE TABLE ends AS
		SELECT coalesce(e.event, l.detail, 'expired') AS event, g.name, g.token, g.mode, coalesce(l.scope, g.scope) AS scope, g.holder,
		       CASE WHEN coalesce(e.event, l.detail) IN ('released', 'transferred', 'forced')
		       THEN coalesce((CASE WHEN e.event IS NULL THEN l ELSE e END).correlation_id, g.correlation_id)
		       ELSE g.correlation_id END AS correlation_id, g.pid,
		       coalesce(e.detail, 'renewed ' || r.count || CASE r.count WHEN 1 THEN ' time' ELSE ' times' END) AS detail,
		       r.token IS NOT NULL AS was_renewed, g.ttl, coalesce(r.ttl, g.ttl) AS last_ttl,
		       g.sent AS asked, g.replied AS granted,
		       coalesce(r.sent, g.sent) AS renewal_sent, coalesce(r.replied, g.replied) AS renewal_replied,
		       coalesce(e.sent, l.sent) AS end_sent, coalesce(e.replied, l.replied) AS end_replied
		FROM grants g
		     LEFT JOIN told e ON e.token = g.token AND e.event IN ($ends)
		     LEFT JOIN told l ON l.token = g.token AND l.event = 'leaves'
		     LEFT JOIN renewals r ON r.token = g.token
		WHERE g.token IS NOT NULL;

		CREATE VIEW should_be AS
		SELECT event, name, token, mode, scope, holder, correlation_id, pid, detail FROM grants
		UNION ALL
		SELECT event, name, token, mode, scope, holder, correlation_id, pid, detail FROM ends
		UNION ALL
		SELECT event, name, token, mode, scope, holder, correlation_id, pid, detail FROM told
		WHERE event NOT IN ('acquired', 'received', 'renewed', 'leaves')
		  AND (event NOT IN ($ends) OR token IS NULL);

		-- Nobody is told the token of a grant that came to nothing, nor what was in the
		-- way of an attempt.
		CREATE VIEW shown AS
		SELECT event, name, CASE WHEN name NOT LIKE 'blind/%' OR name IS NULL THEN token END AS token,
		       mode, scope, holder, correlation_id, pid, CASE WHEN event <> 'refused' THEN detail END AS detail
		FROM lease.history WHERE event <> 'loaded' AND name IS DISTINCT FROM 'filler'});
	return;
}

# One test: a query has no rows.
sub none
{
	my ($db, $sql, $name) = @_;
	return is(value($db, "SELECT * FROM ($sql) q LIMIT 8"), '', "$db: $name");
}

# Every counter is what was told; "many" says what there must be enough of.
sub check_counters
{
	my ($db, $what, $by_name) = @_;
	my $columns = join ', ', 'renewed', map { $column{$_} // $_ } @counted;
	my $counts = join ', ', q{count(*) FILTER (WHERE event = 'renewed')},
	  map { "count(*) FILTER (WHERE event = '$_')" } @counted;
	my ($told, $seen) = $by_name
	  ? ("SELECT name, $counts FROM all_told WHERE name IS NOT NULL GROUP BY name",
		"SELECT name, $columns FROM lease.stats")
	  : ("SELECT $counts FROM all_told", "SELECT $columns FROM lease.totals");

	none($db, "WITH all_told AS (SELECT event, name FROM should_be
			UNION ALL SELECT event, name FROM told WHERE event = 'renewed'),
		told_counts AS ($told), seen AS ($seen)
		(SELECT 'told', * FROM told_counts EXCEPT SELECT 'told', * FROM seen)
		UNION ALL (SELECT 'counted', * FROM seen EXCEPT SELECT 'counted', * FROM told_counts)", $what);
	return;
}

# What must hold of counters whatever happened, when nobody holds a lease.
sub check_identities
{
	my ($db) = @_;
	my $end_sum = join ' + ', @ends;

	foreach my $view (qw(totals stats))
	{
		none($db, "SELECT * FROM lease.$view WHERE acquired + received <> $end_sum",
			"lease.$view: every grant ended once");
		none($db, "SELECT * FROM lease.$view WHERE transferred <> received",
			"lease.$view: each transfer made one grant of another");
	}
	is( value($db, "SELECT (SELECT sum(count) FROM lease.wait_histogram) = contended - refused,
			(SELECT sum(count) FROM lease.hold_histogram) = $end_sum FROM lease.totals"),
		't|t', "$db: the histograms count as many waits and holds");
	return;
}

# Counters agree with history, where none of it was lost.
sub check_agreement
{
	my ($db) = @_;
	my $columns = join ', ', map { $column{$_} // $_ } @counted;
	my $counts = join ', ', map { "count(*) FILTER (WHERE event = '$_')" } @counted;
	my $ends = join ', ', map { "'$_'" } @ends;
	my $times = qq{
		count(waited) + count(*) FILTER (WHERE event = 'refused'), coalesce(sum(waited), '0'), max(waited),
		coalesce(sum(held), '0'), max(held)};
	my $time_columns = q{contended, wait_total, nullif(wait_max, '0'), hold_total, nullif(hold_max, '0')};

	none($db, "(SELECT $columns, $time_columns FROM lease.totals)
		EXCEPT SELECT $counts, $times FROM lease.history", 'lease.totals are the sums of lease.history');
	none($db, "(SELECT name, $columns, $time_columns FROM lease.stats)
		EXCEPT SELECT name, $counts, $times FROM lease.history GROUP BY name",
		'so is each row of lease.stats');
	none($db, "SELECT token FROM lease.history WHERE event IN ('acquired', 'received', $ends)
		GROUP BY token HAVING count(*) FILTER (WHERE event IN ('acquired', 'received')) <> 1
			OR count(*) FILTER (WHERE event IN ($ends)) <> 1
			OR (array_agg(event ORDER BY seq))[1] NOT IN ('acquired', 'received')",
		'each token was granted once, and ended once, after that');
	foreach my $kind (qw(wait hold))
	{
		none($db, "SELECT upper_bound, count FROM lease.${kind}_histogram
			EXCEPT SELECT h.upper_bound, count(l.*) FROM
				(SELECT upper_bound, coalesce(lag(upper_bound) OVER (ORDER BY upper_bound), '-1') AS above
				 FROM lease.${kind}_histogram) h
				LEFT JOIN (SELECT ${kind}ed AS time FROM lease.history) l
				ON time > above AND (time <= upper_bound OR upper_bound IS NULL)
				GROUP BY 1" =~ s/holded/held/r, "lease.${kind}_histogram counts each ${kind} where it belongs");
	}
	return;
}

#
# Exactly
#
create_lease($node, 'exact');
my @size = (full_size('clients=16', 'clients=64'), full_size('names=12', 'names=40'));
my @records = storm_in('exact', @size, full_size('seconds=5', 'seconds=60'));
end_all('exact');
await_history('exact');
load_records('exact', @records);
is(value('exact', 'SELECT history_lost FROM lease.status'), 0, 'no event was lost');

none('exact', '(TABLE should_be EXCEPT ALL TABLE shown)', 'lease.history has all that clients were told');
none('exact', '(TABLE shown EXCEPT ALL TABLE should_be)', 'and nothing else');
is(value('exact', q{SELECT count(*) FROM lease.history WHERE event = 'loaded'}), 1,
	'but that the ledger was loaded');
check_counters('exact', 'lease.totals count all that clients were told, and nothing else', 0);
check_counters('exact', 'so does each row of lease.stats', 1);
check_identities('exact');
check_agreement('exact');

my $late = value('exact', 'SELECT count(*) FROM late');
cmp_ok($late, '<=', 10 + value('exact', 'SELECT acquired / 100 FROM lease.totals'), 'few were granted a lease too late');
note("granted too late: $late");

# Who waited: of those who cannot but know.
none('exact', q{
	SELECT * FROM lease.history h JOIN grants g USING (token)
	WHERE h.event = g.event AND (h.waited IS NOT NULL) <> g.waited}, 'waited is set if the call had to wait, and only then');
none('exact', q{SELECT * FROM lease.history
	WHERE (event IN ('timeout', 'deadlock', 'cancelled') AND waited IS NULL)
	   OR (event NOT IN ('acquired', 'timeout', 'deadlock', 'cancelled') AND waited IS NOT NULL)},
	'and of nothing else');
none('exact', q{SELECT * FROM lease.history WHERE (held IS NOT NULL) <>
	(event IN ('released', 'expired', 'orphaned', 'forced', 'transferred', 'abandoned'))},
	'held is set of ends, and only of them');

# How long: between what the client saw from inside, and from outside.
none('exact', q{
	SELECT h.*, t.took FROM lease.history h
		JOIN (SELECT holder, name, event, max(replied - sent) AS took FROM told GROUP BY 1, 2, 3) t
		USING (holder, name, event)
	WHERE h.waited > t.took * interval '1 us'}, 'nobody waited longer than its call took');
none('exact', q{
	SELECT h.*, end_sent - granted, end_replied - asked FROM lease.history h JOIN ends e USING (token, event)
	WHERE event <> 'expired' AND event <> 'orphaned' AND (held > (end_replied - asked) * interval '1 us'
		OR held < (end_sent - granted) * interval '1 us')}, 'leases were held as long as their holders know');
none('exact', q{
	SELECT h.*, last_ttl FROM lease.history h JOIN ends e USING (token, event)
	WHERE event = 'expired' AND (CASE WHEN was_renewed
		THEN held > (renewal_replied + last_ttl - asked) * interval '1 us' OR
			held < (renewal_sent + last_ttl - granted) * interval '1 us'
		ELSE held <> ttl * interval '1 us' END)}, 'those that expired were held for their TTL, counted from the last renewal');

# Margins: of the least one that a client may have seen.
is(value('exact', q{
		SELECT margin_min BETWEEN '0' AND
			(SELECT min(g.replied + g.ttl - t.sent) * interval '1 us' FROM told t JOIN grants g USING (token)
			 JOIN renewals r USING (token) WHERE t.event = 'renewed' AND r.count = 1 AND g.ttl IS NOT NULL)
		FROM lease.totals}), 't', 'margin_min is not more than what any client had left');
is(value('exact', q{SELECT longest_queue BETWEEN 1 AND 128 FROM lease.totals}), 't', 'queues had a length');

# There must be enough of everything.
my %seen = map { split /\|/ } split /\n/, value('exact', q{
	SELECT event, count(*) FROM (SELECT event FROM should_be UNION ALL SELECT event FROM told WHERE event = 'renewed') e
	GROUP BY 1 UNION ALL SELECT 'waited', count(*) FROM grants WHERE waited
	UNION ALL SELECT 'did not wait', count(*) FROM grants WHERE NOT waited
	UNION ALL SELECT detail, count(*) FROM told WHERE event IN ('rejected', 'guard_failed') GROUP BY 1
	UNION ALL SELECT format('%s %s', event, scope), count(*) FROM ends GROUP BY 1});
note("$_: $seen{$_}") foreach sort keys %seen;
my %least = (
	acquired => 1000, received => 50, released => 500, 'released session' => 100, 'released transaction' => 50,
	expired => 100, 'expired transaction' => 10, 'expired session' => 5, orphaned => 10, forced => 10,
	transferred => 50, abandoned => 5, refused => 100, timeout => 50, deadlock => 2, cancelled => 5,
	rejected => 100, guard_failed => 50, reopened => 5, resized => 5, renewed => 100, waited => 3,
	'did not wait' => 100, renew => 10, release => 10, transfer => 10, fence => 5, guard => 5, commit => 5,
	'row of table fenced' => 5, 'write to table protected without a guard' => 5);
foreach (sort keys %least)
{
	cmp_ok($seen{$_} // 0, '>=', $least{$_}, "there was enough of it: $_");
}

#
# More than there is room for
#
create_lease($node, 'lost');
my $locker = $node->background_psql('lost');
$locker->query_safe(q{SET application_name = 'locker'; BEGIN; LOCK TABLE lease.events IN ACCESS EXCLUSIVE MODE});
value('lost', q{SELECT count(lease.release('filler', lease.try_acquire('filler', scope => 'session')))
	FROM generate_series(1, 10000); SELECT lease.reset_stats()});
@records = storm_in('lost', @size, full_size('seconds=1', 'seconds=20'), 'least=2000');
end_all('lost');
is(value('lost', 'SELECT history_pending > 10000 AND history_lost >= 2000 FROM lease.status'), 't',
	'nobody writes lease.events, and events are lost: all calls went on, and all rows of the ledger are ended');
is($locker->query_safe('SELECT count(*) FROM lease.events'), 0, 'nothing was written');
$locker->query_safe('COMMIT');
$locker->quit;
await_history('lost');
load_records('lost', @records);
none('lost', '(TABLE shown EXCEPT ALL TABLE should_be)', 'what was written is what clients were told');
is( value('lost', q{SELECT (SELECT count(*) FROM should_be) - (SELECT count(*) FROM shown) - history_lost
		FROM lease.status}),
	0, 'and as many rows are missing as lease.status says that were lost');
check_counters('lost', 'lease.totals count what was lost from history as well', 0);
check_counters('lost', 'so does each row of lease.stats', 1);
check_identities('lost');
is(value('lost', 'SELECT lease.reset_stats(); SELECT history_lost FROM lease.status') =~ s/\s//gr, 0,
	'reset_stats() resets history_lost');

#
# A wait whose client was gone when its turn came
#
foreach my $scope (qw(detached session))
{
	my $token = acquire($node, 'gone', db => 'lost');
	my $waiter = start_psql($node, "SELECT lease.acquire('gone', scope => '$scope', holder => 'dead')", db => 'lost');
	my $pid;

	wait_for('a waiter', sub { $pid = value('lost', 'SELECT pid FROM lease.waiters') });
	wait_for('stopping it', sub {
		kill 'STOP', $pid;
		return 1 if value('lost', "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid") eq 'Extension';
		thaw($pid);
		return 0;
	});
	$waiter->{run}->signal('KILL');
	$waiter->{run}->finish;
	release($node, 'gone', $token, db => 'lost');
	thaw($pid);
	wait_for('the waiter to leave', sub { value('lost', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") == 0 });
	await_history('lost');

	# Of scope session it is granted at once; it may be as late as that it notices.
	like( value('lost', q{SELECT string_agg(event, ', ' ORDER BY seq) FROM lease.history WHERE holder = 'dead'; DELETE FROM lease.events}),
		$scope eq 'detached' ? qr/^cancelled$/m : qr/^acquired, (?:abandoned|orphaned)$/m,
		"scope $scope: what became of a wait whose client was gone when its turn came");
	is(value('lost', q{SELECT contended, acquired + cancelled FROM lease.stats WHERE name = 'gone'; SELECT lease.reset_stats()}) =~ s/\s//gr,
		'1|2', 'and it was counted');
}

#
# With cancels, terminations and kills
#
create_lease($node, 'rough');
storm_in('rough', @size, full_size('seconds=3', 'seconds=60'), 'hits=100');
end_all('rough');
await_history('rough');
is(value('rough', 'SELECT history_lost FROM lease.status'), 0, 'no event was lost');
check_identities('rough');
check_agreement('rough');
my ($cancelled, $abandoned, $orphaned) = split /\|/,
  value('rough', 'SELECT cancelled, abandoned, orphaned FROM lease.totals');
note("cancelled: $cancelled, abandoned: $abandoned, orphaned: $orphaned");
cmp_ok($cancelled, '>=', 5, 'waits were cancelled');
cmp_ok($orphaned, '>=', 5, 'sessions ended with leases');
is(value('exact', q{SELECT count(*) FROM lease.history WHERE event = 'loaded'}), 1,
	'what happened in one database is not in the history of another');

$node->stop;
done_testing();
