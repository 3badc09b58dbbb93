# What Prometheus and Grafana get to see: doc/monitoring, set up as its README says,
# with Debian's exporter on servers of our own.  Each metric is on the exporter's
# page, with the value that the database tells, and moves when what it measures
# does; the dashboard is over exactly these, the alerts are over no others, and
# fire when they should.
#
# Guards invariant 9 (no name leaves the database), and that monitoring needs no
# more than pg_monitor and lease.allow, on a standby, too.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP;
use LeaseTest;
use List::Util qw(max min uniq);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = $ENV{TESTDIR} // "$FindBin::RealBin/../..";
my $docs = "$top/doc/monitoring";

foreach my $program (qw(prometheus-postgres-exporter promtool))
{
	plan skip_all => "this system has no package with $program"
	  unless grep { -x "$_/$program" } split /:/, $ENV{PATH};
}

my $readme = slurp_file("$docs/README.md");
my $alerts = slurp_file("$docs/alerts.yaml");
my $alert_tests = slurp_file("$docs/alerts-test.yaml");
my $dashboard = decode_json(slurp_file("$docs/dashboard.json"));
my %promised = promised_metrics();

# What queries.yaml promises: the type of each metric.
sub promised_metrics
{
	my ($query, %type);

	foreach my $line (split /\n/, slurp_file("$docs/queries.yaml"))
	{
		$query = $1 if $line =~ /^(\w+):$/;
		$type{"${query}_$1"} = lc $2
		  if $line =~ /^    - (\w+): \{usage: ([A-KM-Z]\w*), description: "[^"]{5,}"\}$/;
	}
	return %type;
}

# The metrics that an expression is over; a histogram is one.
sub metrics_in
{
	my (@expressions) = @_;
	return uniq sort map { s/_(?:bucket|sum|count)$//r } map { /\b((?:lease|pg)_\w+)/g } @expressions;
}

# promtool finds nothing wrong.
sub promtool_likes
{
	my ($what, @command) = @_;
	my ($out, $err);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok(IPC::Run::run([ 'promtool', @command ], '<', \undef, '>', \$out, '2>', \$err), $what)
	  or diag("$out$err");
	return;
}

# PromQL parses: as rules of a file.
sub parses
{
	my ($what, @expressions) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/rules.yaml';
	my $count = 0;

	append_to_file($file, "groups:\n  - name: all\n    rules:\n" . join '',
		map { "      - record: rule_" . ++$count . "\n        expr: " . JSON::PP->new->allow_nonref->encode($_) . "\n" }
		  @expressions);
	promtool_likes($what, 'check', 'rules', $file);
	return;
}

#
# Alerts
#
sub check_alerts
{
	my %of = $alerts =~ /^      - alert: (\w+)\n(.*?)(?=^      - alert|\z)/msg;
	my $runbooks = slurp_file("$top/doc/runbooks.md");
	my %sections = map { lc(s/[^\w -]//gr =~ s/ /-/gr) => 1 } $runbooks =~ /^#+ (.*)$/mg;

	cmp_ok(scalar keys %of, '>=', 8, 'there are alerts');
	foreach my $name (sort keys %of)
	{
		my ($section) = $of{$name} =~ m{^          runbook_url: doc/runbooks\.md#([\w-]+)$}m;
		my ($fires, $silent) = map { scalar(() = $alert_tests =~ /alertname: $name\n        exp_alerts:$_\n/g) } '', ' \[\]';

		like($of{$name}, qr/^          summary: \S.*\n          description: \S.*\n/m, "$name: it says what is wrong");
		like($of{$name}, qr/^          severity: (?:info|warning|critical)$/m, "$name: and how bad that is");
		ok($section && $sections{$section}, "$name: its runbook exists") or diag($section // 'none');
		like($readme, qr/^\| `$name` \| .* \| \[.*\]\(\.\.\/runbooks\.md#$section\) \|$/m, "$name: the README has both");
		ok($fires && $silent, "$name: it is shown when it fires, and when not");
	}
	promtool_likes('promtool check rules', 'check', 'rules', "$docs/alerts.yaml");
	promtool_likes('promtool test rules', 'test', 'rules', "$docs/alerts-test.yaml");
	is_deeply([ grep { !$promised{$_} && $_ ne 'pg_exporter_last_scrape_error' } metrics_in($alerts =~ /^        expr: (.*?)^        \w/msg) ],
		[], 'alerts are over what is there');
	return;
}

#
# Dashboard
#
# Panels that lie one upon the other, or beyond the page's 24 columns.
sub misplaced
{
	my (@panels) = @_;
	my (%used, @wrong);

	foreach my $panel (@panels)
	{
		my ($x, $y, $w, $h) = @{ $panel->{gridPos} }{qw(x y w h)};
		my @places = map { my $row = $_; map { "$row $_" } $x .. $x + $w - 1 } $y .. $y + $h - 1;

		push @wrong, $panel->{title} if $x + $w > 24 || grep { $used{$_}++ } @places;
	}
	return @wrong;
}

sub check_dashboard
{
	my @panels = @{ $dashboard->{panels} };
	my @shown = grep { $_->{type} ne 'row' } @panels;
	my @targets = map { @{ $_->{targets} // [] } } @shown;
	my @lists = map { @{ $dashboard->{$_}{list} } } qw(templating annotations);
	my @queries = map { $_->{expr} // $_->{definition} // () } @targets, @lists;
	my %variables = map { $_->{name} => 1 } @{ $dashboard->{templating}{list} };
	my %all = map { $_ => 1 } metrics_in(map { $_->{expr} } @targets);

	is($variables{datasource} && $dashboard->{templating}{list}[0]{type}, 'datasource', 'the data source is a variable');
	is_deeply([ grep { $_->{datasource}{uid} ne '${datasource}' } @shown, @targets ], [], 'which all panels use');
	is_deeply([ grep { !@{ $_->{targets} } || !length $_->{description} } @shown ], [], 'each panel shows something, and says what');
	foreach my $key (qw(id title))
	{
		is(scalar(uniq map { $_->{$key} } @panels), scalar @panels, "each panel has its own $key");
	}
	is_deeply([ misplaced(@panels) ], [], 'none covers another');
	is_deeply([ grep { !$variables{$_} && !/^__(?:rate_interval|range)$/ } map { /\$(\w+)/g } @queries ],
		[], 'it uses no variable that it does not have');
	is_deeply([ sort keys %all ], [ sort keys %promised ], 'it is over exactly the metrics that are promised');
	is_deeply([ grep { !$promised{$_} } metrics_in(@queries) ], [], 'variables and annotations are over no others');
	parses('its expressions parse', map { s/\$__\w+/5m/gr } grep { !/^label_values/ } @queries);
	return;
}

#
# The exporter
#
my $node = lease_node(
	'watched',
	allows_streaming => 1,
	conf => q{
	autovacuum = off
	deadlock_timeout = 10ms});
my @databases = qw(app billing);
create_lease($node, $_) foreach @databases;

sub value
{
	my ($sql, $db) = @_;
	return $node->safe_psql($db // 'app', $sql);
}

sub blocks
{
	my ($language) = @_;
	return $readme =~ /^```$language\n(.*?)^```$/msg;
}

my @exporters;

END
{
	my $status = $?;

	$_->{run}->kill_kill foreach @exporters;
	$? = $status;
}

# Start an exporter for a server, with the settings that the README shows: its
# paths and ports are replaced.  What this server has on its page besides is not
# ours, and other versions' affair.
sub start_exporter
{
	my ($of) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my ($settings) = grep { /^ARGS=/m } blocks('sh');
	my %set = $settings =~ /^(\w+)='([^']*)'$/mg;

	local $ENV{DATA_SOURCE_NAME} = $set{DATA_SOURCE_NAME} =~ s{/run/postgresql}{$of->host . ' port=' . $of->port}er;
	my @args = map { s{/etc/prometheus/lease-queries\.yaml}{$docs/queries.yaml}r } split / /, $set{ARGS};
	my $exporter = { url => "http://127.0.0.1:$port/metrics", log => "$dir/log", of => $of, port => $port };

	$exporter->{run} = IPC::Run::start(
		[
			'prometheus-postgres-exporter', @args, "--web.listen-address=127.0.0.1:$port",
			'--disable-default-metrics', '--disable-settings-metrics'
		],
		'<', \undef, '>', "$dir/out", '2>', $exporter->{log});
	push @exporters, $exporter;
	wait_for('the exporter', sub { HTTP::Tiny->new->get($exporter->{url})->{success} });
	return $exporter;
}

# Its page: the text, and the values of what is ours, by database, metric and label.
sub page
{
	my ($exporter) = @_;
	my $answer = HTTP::Tiny->new->get($exporter->{url});
	my %values;

	BAIL_OUT("the exporter: $answer->{status} $answer->{content}") unless $answer->{success};
	while ($answer->{content} =~ /^(lease_\w+)\{([^}]*)\} (\S+)$/mg)
	{
		my ($name, $text, $value) = ($1, $2, $3);
		my %labels = $text =~ /(\w+)="([^"]*)"/g;
		my ($db) = delete @labels{qw(datname server)};

		$values{ key($db, $name, join ' ', map { $labels{$_} } sort keys %labels) } = $value;
	}
	return ($answer->{content}, \%values);
}

# Bounds of buckets are written in one way.
sub key
{
	my ($db, $name, $label) = @_;

	$label = sprintf '%g', $label if $label =~ /^[\d.e-]+$/;
	return join ' ', grep { length } $db, $name, $label;
}

# What should be there, as a database tells it.
my $figures = q{
	SELECT 'lease_' || key || '_total', '', value::float8
	FROM lease.totals t CROSS JOIN jsonb_each_text(to_jsonb(t))
	WHERE NOT pg_is_in_recovery() AND key IN ('acquired', 'contended', 'renewed', 'released', 'expired', 'orphaned', 'forced', 'transferred', 'received',
		'abandoned', 'refused', 'timeouts', 'deadlocks', 'cancelled', 'rejected', 'guard_failures')
	UNION ALL
	SELECT 'lease_' || name, '', extract(epoch FROM value)::float8
	FROM lease.totals CROSS JOIN LATERAL (VALUES
		('wait_max_seconds', wait_max), ('hold_max_seconds', hold_max),
		('wait_seconds_sum', wait_total), ('hold_seconds_sum', hold_total),
		('margin_min_seconds', margin_min), ('margin_p01_seconds', margin_p01),
		('counted_since_seconds', since - 'epoch'::timestamptz)) AS v (name, value)
	WHERE NOT pg_is_in_recovery()
	UNION ALL
	SELECT 'lease_longest_queue', '', longest_queue FROM lease.totals WHERE NOT pg_is_in_recovery()
	UNION ALL
	SELECT name, coalesce(extract(epoch FROM upper_bound)::text, '+Inf'),
	       (SELECT sum(count) FROM all_buckets AS b WHERE b.name = a.name
			AND (b.upper_bound <= a.upper_bound OR a.upper_bound IS NULL))
	FROM all_buckets AS a
	UNION ALL
	SELECT replace(name, 'bucket', 'count'), '', sum(count) FROM all_buckets GROUP BY name
	UNION ALL
	SELECT v.* FROM lease.status AS s CROSS JOIN LATERAL (VALUES
		('lease_status_epoch', '', epoch), ('lease_status_timeline', '', timeline),
		('lease_status_ledger_bytes', '', pg_relation_size('lease.ledger')),
		('lease_status_worker_state', '', CASE worker_state WHEN 'launcher absent' THEN 0 WHEN 'idle' THEN 1
			WHEN 'reaping' THEN 2 WHEN 'standby' THEN 3 END),
		('lease_closed_names', '', (SELECT count(*) FROM lease.leases WHERE scope = 'detached' AND ttl IS NULL))) AS v
	UNION ALL
	SELECT v.* FROM lease.status AS s CROSS JOIN LATERAL (VALUES
		('lease_primary_leases_used', '', leases_used),
		('lease_primary_leases_allowed', '', current_setting('lease.max_leases')::bigint),
		('lease_primary_waiters', '', waiters), ('lease_primary_ledger_garbage_rows', '', ledger_garbage),
		('lease_primary_next_token', '', next_token), ('lease_primary_history_lost_total', '', history_lost),
		('lease_primary_history_pending', '', history_pending),
		('lease_reaper_last_seconds', '', extract(epoch FROM last_reap)),
		('lease_names_tracked', '', (SELECT count(*) FROM lease.stats)),
		('lease_names_contended', '', (SELECT count(*) FROM lease.stats WHERE contention_rate > 0.5)),
		('lease_names_renewed_late', '', (SELECT count(*) FROM lease.stats WHERE margin_p01 < 0.1 * ttl)),
		('lease_names_never_released', '', (SELECT count(*) FROM lease.stats
			WHERE expired > 0 AND released = 0 AND transferred = 0)),
		('lease_queue_waiters', '', (SELECT count(*) FROM lease.waiters)),
		('lease_queue_longest', '', (SELECT count(*) FROM lease.waiters GROUP BY name
			UNION ALL SELECT 0 ORDER BY 1 DESC LIMIT 1)),
		('lease_queue_oldest_seconds', '', (SELECT extract(epoch FROM coalesce(max(waited), '0')) FROM lease.waiters))
		) AS v WHERE NOT pg_is_in_recovery()
	UNION ALL
	SELECT v.* FROM unnest('{exclusive,shared,permit}'::text[]) AS m
	CROSS JOIN unnest('{detached,session,transaction}'::text[]) AS s CROSS JOIN LATERAL (
		SELECT 'lease_held_grants', m || ' ' || s, (SELECT count(*) FROM lease.leases
			WHERE mode = m AND scope = s AND (s <> 'detached' OR ttl IS NOT NULL))
		UNION ALL
		SELECT 'lease_held_oldest_seconds', m || ' ' || s, (SELECT coalesce(max(extract(epoch FROM now() - acquired_at)), 0)
			FROM lease.leases WHERE mode = m AND scope = s AND (s <> 'detached' OR ttl IS NOT NULL))) AS v};

sub figures
{
	my ($of) = @_;
	my %values;

	foreach my $db (@databases)
	{
		foreach my $row (split /\n/, $of->safe_psql($db, qq{
			WITH all_buckets AS (
				SELECT 'lease_wait_seconds_bucket' AS name, * FROM lease.wait_histogram WHERE NOT pg_is_in_recovery()
				UNION ALL
				SELECT 'lease_hold_seconds_bucket', * FROM lease.hold_histogram WHERE NOT pg_is_in_recovery())
			$figures}))
		{
			my ($name, $label, $value) = split /\|/, $row, -1;
			$values{ key($db, $name, $label) } = $value if $value ne '';
		}
	}
	return \%values;
}

# What is on a page and should not be, or the other way round, or has a value that
# it had neither before nor after, nor between.
sub differences
{
	my ($before, $page, $after) = @_;
	my @wrong;

	foreach my $key (uniq sort map { keys %$_ } $before, $page, $after)
	{
		my ($was, $shown, $is) = map { $_->{$key} } $before, $page, $after;

		push @wrong, "$key is " . join ', ', map { $_ // 'nothing' } $was, $shown, $is
		  if (grep { !defined } $was, $shown, $is)
		  || $shown < min($was, $is) - 1e-6
		  || $shown > max($was, $is) + 1e-6;
	}
	return @wrong;
}

# The page tells what the database does.  Workers come and go, so it may take some
# tries.  Returns the page's values.
my %seen;

sub check_page
{
	my ($exporter, $what) = @_;
	my ($text, $page, @wrong);
	my $log = -s $exporter->{log};

	for (1 .. 20)
	{
		my $before = figures($exporter->{of});

		($text, $page) = page($exporter);
		@wrong = differences($before, $page, figures($exporter->{of}));
		last unless @wrong;
	}
	is(join("\n", @wrong), '', "$what: the page tells what the database does");
	like($text, qr/^pg_exporter_last_scrape_error 0$/m, "$what: the exporter knows of no error");
	unlike(substr(slurp_file($exporter->{log}), $log), qr/\berr=/, "$what: and logs none");
	unlike($text, qr/private/, "$what: no name or holder is on it");
	$seen{"$exporter->{port} $_"}{ $page->{$_} } = 1 foreach keys %$page;
	return $page;
}

# What happened in the database "app".
sub has
{
	my ($page, $what, %values) = @_;
	my %shown = map { $_ => $page->{"app lease_$_"} } keys %values;

	return is_deeply(\%shown, \%values, $what);
}

#
# What happens
#
sub session { return $node->background_psql('app', on_error_stop => 0) }

# A client that waits for a lease; returns once it does.
sub start_waiter
{
	my ($name, $scope) = (@_, 'detached');
	my $before = value('SELECT count(*) FROM lease.waiters');
	my $psql = start_psql($node, "SELECT lease.acquire('$name', '1 h', holder => 'private waiter', scope => '$scope')", db => 'app');

	wait_for("a waiter for $name", sub { value('SELECT count(*) FROM lease.waiters') > $before });
	return $psql;
}

# Each kind of event happens another number of times, so that none passes for another.
#
# Attempts that got nothing: four at once, five in time, three cancelled, two in a
# deadlock.
sub try_in_vain
{
	my $token = acquire($node, 'private/taken', db => 'app', holder => 'private holder');

	value(q{SELECT lease.try_acquire('private/taken') FROM generate_series(1, 4)});
	value(q{DO $$ BEGIN FOR i IN 1 .. 5 LOOP
			BEGIN
				PERFORM lease.acquire('private/taken', wait => '2 ms');
			EXCEPTION WHEN lock_not_available THEN
			END;
		END LOOP; END $$});
	foreach (1 .. 3)
	{
		my $waiter = start_waiter('private/taken');
		value('SELECT pg_cancel_backend(pid) FROM lease.waiters');
		finish_psql($waiter);
	}

	# Two sessions that wait for each other; one is told, and lets go.
	my @sessions = (session(), session());
	foreach (1 .. 2)
	{
		$sessions[$_]->query_safe("SELECT lease.acquire('private/$_', scope => 'session')") foreach 0, 1;
		ask_session($sessions[$_], "SELECT lease.acquire('private/" . (1 - $_) . "', scope => 'session');\n"
			. 'SELECT lease.release_session();') foreach 0, 1;
		await_answer($_) foreach @sessions;
	}
	$_->quit foreach @sessions;

	# One is granted it, and cancelled before it knows.
	my $waiter = start_waiter('private/taken', 'session');
	my $backend = freeze($node, 'client backend');
	release($node, 'private/taken', $token, db => 'app');
	value("SELECT pg_cancel_backend($backend)");
	thaw($backend);
	finish_psql($waiter);
	return;
}

# Grants that end in all the ways there are: six renewals come late, seven run out,
# eight are orphaned, nine forced, ten handed over; eleven tokens are stale, twelve
# guards fail.
sub end_grants
{
	my $token = acquire($node, 'private/late', db => 'app', ttl => '100 s');
	my $session = session();

	advance_clock($node, '95 s', db => 'app');
	value("SELECT lease.renew('private/late', $token)");
	value("SELECT lease.renew('private/late', $token) FROM generate_series(2, 6)");
	release($node, 'private/late', $token, db => 'app');
	value(q{SELECT lease.try_acquire('private/gone/' || i, '1 min') FROM generate_series(1, 7) i});
	advance_clock($node, '2 min', db => 'app');
	wait_for('grants to expire', sub { value('SELECT expired FROM lease.totals') == 7 });
	$session->query_safe(q{SELECT lease.acquire('private/orphan/' || i, scope => 'session') FROM generate_series(1, 8) i});
	$session->quit;
	wait_for('a session to end', sub { value('SELECT orphaned FROM lease.totals') == 8 });
	value(q{
		SELECT lease.try_acquire('private/closed/' || i, lock_delay => '1 hour') FROM generate_series(1, 9) i;
		SELECT lease.force_release('private/closed/' || i, 'a test') FROM generate_series(1, 9) i;
		SELECT lease.release(n, lease.transfer(n, lease.try_acquire(n), 'private heir'))
		FROM (SELECT 'private/given/' || i AS n FROM generate_series(1, 10) i) AS names});
	value("SELECT lease.try_renew('private/late', $token) FROM generate_series(1, 11)");
	value("DO \$\$ BEGIN FOR i IN 1 .. 12 LOOP
			BEGIN
				PERFORM lease.guard('private/late', $token);
			EXCEPTION WHEN SQLSTATE 'LE001' THEN
			END;
		END LOOP; END \$\$");
	return;
}

#
# The test
#
check_alerts();
check_dashboard();
cmp_ok(scalar keys %promised, '>', 40, 'there are metrics');

my ($role, $privileges, $questions) = blocks('sql');
value($role);
value($privileges, $_) foreach @databases;
is(value(q{SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication FROM pg_roles WHERE rolname = 'prometheus'}),
	'f', "the exporter's role is an ordinary one");

my $exporter = start_exporter($node);
my $page = check_page($exporter, 'at first');
has($page, 'there is no margin before a renewal', margin_min_seconds => undef, margin_p01_seconds => undef);

acquire($node, 'private/bill', db => 'billing');
try_in_vain();
end_grants();

# What is held, and waited for, just now.
my @tokens = map { acquire($node, "private/$_", db => 'app') } qw(front back);
my $holder = session();
$holder->query_safe($_) foreach
	q{SELECT lease.acquire('private/read', mode => 'shared', scope => 'session')},
	'BEGIN',
	q{SELECT lease.acquire_permit('private/permits', 3, scope => 'transaction')};
my @waiters = map { start_waiter('private/front') } 1, 2;
push @waiters, start_waiter('private/back');

$page = check_page($exporter, 'after all that');
has($page, 'all is counted that happened',
	abandoned_total => 1, deadlocks_total => 2, cancelled_total => 3, refused_total => 4, timeouts_total => 5,
	renewed_total => 6, expired_total => 7, orphaned_total => 8, forced_total => 9,
	transferred_total => 10, received_total => 10, rejected_total => 11, guard_failures_total => 12,
	names_renewed_late => 1, names_never_released => 7, closed_names => 9,
	queue_waiters => 3, queue_longest => 2, primary_waiters => 3,
	'held_grants exclusive detached' => 2, 'held_grants shared session' => 1,
	'held_grants permit transaction' => 1, 'held_grants exclusive session' => 0);
is($page->{'billing lease_acquired_total'}, 1, 'each database has its own');
my ($text) = page($exporter);
my @ours = grep { /^(?:# (?:HELP|TYPE) )?lease_/ } split /(?<=\n)/, $text;
my %type = map { /^# TYPE (\w+) (\w+)$/ } @ours;
is_deeply(\%type, \%promised, 'all metrics that are promised are there, of the type that is promised, and no others');
my $files = PostgreSQL::Test::Utils::tempdir();
append_to_file("$files/metrics", join '', @ours);
ok(system("promtool check metrics <$files/metrics") == 0, 'promtool check metrics');

# What else the README says to do.
value("SET ROLE prometheus; $questions");
is(value('SET ROLE prometheus; SELECT bool_and(name IS NOT NULL) FROM lease.stats'), 't', 'the role can ask which lease it is');
foreach my $script (grep { !/^ARGS=/m } blocks('sh'))
{
	append_to_file("$files/script", "set -e\ncd $docs\n" . $script =~ s/localhost:9187/127.0.0.1:$exporter->{port}/gr);
	is(system("bash $files/script >$files/out"), 0, 'the README: ' . (split /\n/, $script)[0]);
	unlink "$files/script";
}
append_to_file("$files/prometheus.yml", (blocks('yaml'))[0] =~ s{/etc/prometheus/lease-alerts}{$docs/alerts}r);
promtool_likes('promtool check config', 'check', 'config', "$files/prometheus.yml");

release($node, "private/$_->[0]", $_->[1], db => 'app') foreach [ 'front', $tokens[0] ], [ 'back', $tokens[1] ];
wait_for('a waiter to be served', sub { value('SELECT count(*) FROM lease.waiters') == 1 });
value(q{SELECT lease.release(name, token) FROM lease.leases WHERE scope = 'detached' AND closed_until IS NULL});
finish_psql($_) foreach @waiters;
$holder->query_safe('ROLLBACK');
$holder->quit;
value(q{SELECT lease.release(name, token) FROM lease.leases WHERE closed_until IS NULL});

# A renewal with less to spare, though not for what it asked.
value(q{SELECT lease.renew('private/short', token), lease.release('private/short', token)
		FROM lease.try_acquire('private/short', '2 s') AS token});

# Events that nobody writes down, and that do not fit in the end.
my $launcher = freeze($node, 'lease launcher');
use_up_tokens($node, db => 'app');
cmp_ok(value('SELECT history_lost FROM lease.status'), '>', 0, 'events do not fit');
value('SELECT lease.new_epoch($$a test$$)');
$page = check_page($exporter, 'after a flood');
cmp_ok($page->{'app lease_primary_history_pending'}, '>', 1000, 'there is much to write');
thaw($launcher);
wait_for('the history to be written', sub { value('SELECT history_pending FROM lease.status') == 0 });
wait_for('the statistics to know of ended rows', sub { value('SELECT ledger_garbage FROM lease.status') > 0 });
check_page($exporter, 'when all is written');

# A standby, and its promotion.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
acquire($node, 'private/replicated', db => 'app');
$node->wait_for_catchup($standby, 'replay');
my $second = start_exporter($standby);
$page = check_page($second, 'on a standby');
is_deeply([ uniq sort map { /lease_([a-z]+)/ } keys %$page ], [qw(closed held status)], 'a standby tells what it knows');
has($page, 'which are live leases', 'held_grants exclusive detached' => 1, closed_names => 9, status_worker_state => 3);
$standby->promote;
$page = check_page($second, 'after its promotion');
has($page, 'then it tells all', 'held_grants exclusive detached' => 1, status_timeline => 2, acquired_total => 0);
$standby->stop;

# Without a worker, after a clean restart; and without privileges.
$node->append_conf('postgresql.conf', "max_worker_processes = 0\nlease.max_leases = 1000");
$node->restart;
wait_for(
	'the exporter to connect again',
	sub {
		($page) = page($exporter);
		return @databases == grep { $page =~ /^lease_status_epoch\{datname="$_"/m } @databases;
	});
$page = check_page($exporter, 'without workers');
has($page, 'the launcher is absent', status_worker_state => 0, primary_leases_allowed => 1000, expired_total => 7);
value('SELECT lease.reset_stats()');
$page = check_page($exporter, 'after a reset');
has($page, 'counters begin anew', expired_total => 0);
value(q{SELECT lease.disallow('prometheus')});
($text, $page) = page($exporter);
like($text, qr/^pg_exporter_last_scrape_error 1$/m, 'the exporter tells if it may not ask');
is_deeply([ grep { /^app / } keys %$page ], [], 'and has no figures then');

# Each metric has moved.
my %moved = map { (split)[2] => 1 } grep { keys %{ $seen{$_} } > 1 } keys %seen;
is_deeply([ sort grep { !$moved{$_} } map { my $it = $_; $promised{$it} eq 'histogram' ? map { "${it}_$_" } qw(bucket sum count) : $it } keys %promised ],
	[], 'each metric tells more than one thing');

$node->stop;
done_testing();
