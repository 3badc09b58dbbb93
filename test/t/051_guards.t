# A guarded transaction against all that can happen to its lease: its commit fails
# when the lease was lost before, and keeps the name shut until others can see what
# it did when the lease is lost after that.
#
# A commit is held up in flight by a synchronous standby that is not there: it is on
# disk, and not visible.
#
# Guards that among the transactions that commit, no two that are guarded by different
# tokens of one name overlap.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = lease_node(
	'primary',
	allows_streaming => 1,
	conf => q{
		autovacuum = off
		max_connections = 80
		synchronous_commit = local
		synchronous_standby_names = 'standby'});
create_lease($primary, 'other');
$primary->safe_psql($_, 'CREATE TABLE effect (name text, what text)') for qw(postgres other);
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);

sub value
{
	my ($sql) = @_;
	return $primary->safe_psql('postgres', $sql);
}

sub activity
{
	my ($session, $what) = @_;
	return value("SELECT $what FROM pg_stat_activity WHERE application_name = '$session'");
}

sub wait_until
{
	my ($session, $what, $expected) = @_;
	return wait_for("$session: $what $expected", sub { activity($session, $what) eq $expected });
}

# What was written under a name, in order.
sub effects { return value("SELECT string_agg(what, ' ' ORDER BY what) FROM effect WHERE name = '$_[0]'") }

# A session that is told what to do step by step.
sub open_session
{
	my ($label) = @_;
	my $session = $primary->background_psql('postgres', on_error_stop => 0);

	$session->query_safe("SET application_name = '$label';\n\\set VERBOSITY verbose");
	return $session;
}

# What begins a transaction that writes under the guard of a lease.
sub guarded
{
	my ($name, $token, $what) = @_;
	return "BEGIN; SELECT lease.guard('$name', $token) \\gset\nINSERT INTO effect VALUES ('$name', '$what');\n";
}

# A commit that waits for the standby.  It runs the statements of "before", and
# guards the lease of a token, or what "before" acquired in this transaction.
sub start_commit
{
	my ($name, %args) = @_;
	my $label = $args{label} // $name;
	my $begin = $args{token} ? guarded($name, $args{token}, $label)
	  : "INSERT INTO effect VALUES ('$name', '$label');\n";
	my $before = $args{before} // '';
	my $psql = start_psql(
		$primary, <<~SQL, %args);
		\\set VERBOSITY verbose
		SET application_name = '$label';
		SET synchronous_commit = on;
		$before
		$begin
		COMMIT;
		\\echo committed
		SQL

	wait_until($label, 'wait_event', 'SyncRep');
	return { %$psql, label => $label, pid => activity($label, 'pid') };
}

# Who waits for a name, and tells what it finds there with its first look.
sub start_waiter
{
	my ($name, $begin) = @_;
	$begin //= '';
	my $psql = start_psql(
		$primary, <<~SQL);
		SET application_name = 'next of $name';
		SELECT lease.acquire('$name', '1 h') AS token \\gset
		$begin
		SELECT string_agg(what, ' ' ORDER BY what) FROM effect WHERE name = '$name';
		COMMIT;
		SELECT lease.release('$name', :token) \\gset
		SQL

	wait_for("a waiter for $name", sub { waits_for($name) });
	return $psql;
}

sub waits_for { return value("SELECT count(*) FROM lease.waiters WHERE name = '$_[0]'") }
sub pinned_by { return value("SELECT pinned_by FROM lease.leases WHERE name = '$_[0]'") }

# The name of a commit in flight opens to nobody.
sub check_shut
{
	my ($name, $what, @commits) = @_;
	my $pids = join ',', sort { $a <=> $b } map { $_->{pid} } @commits;

	is(acquire($primary, $name), undef, "$what: nobody is granted the name");
	is(value("SELECT array_agg(p ORDER BY p) FROM lease.leases, unnest(pinned_by) p WHERE name = '$name'"),
		"{$pids}", "$what: and it shows whose commit that is for");
	return;
}

# The name opened, to who waited for it, and that saw what was committed.
sub check_opened
{
	my ($what, $waiter, $sees) = @_;
	my ($out) = finish_psql($waiter);

	is($out, $sees, "$what: who is next sees it with its first look");
	return;
}

sub check_committed
{
	my ($what, $commit) = @_;
	my ($out, $err) = finish_psql($commit);

	is("$out$err", 'committed', "$what: the commit succeeds");
	return;
}

#
# The story: client A guards and pauses past its TTL, B takes the lease and commits
#
sub take_over
{
	my ($name) = @_;
	return value("SELECT lease.acquire('$name', '1 h') AS t \\gset\n" . guarded($name, ':t', 'b') . "COMMIT; SELECT :t");
}

sub check_refused
{
	my ($name, $what, $token, $err) = @_;

	like($err, qr/ERROR:  LE001: lease "$name" is not held with token \d+\nDETAIL:  The name is now held with token $token\./,
		"$what: A's commit fails, and says who has the lease");
	is(effects($name), 'b', "$what: B's write is there, and A's is not");
	release($primary, $name, $token);
	return;
}

my $pauser = open_session('a');
my $token = acquire($primary, 'pause');
$pauser->query_safe(guarded('pause', $token, 'a'));
advance_clock($primary, '1 h');
my $next = take_over('pause');
$pauser->query('COMMIT;');
check_refused('pause', 'a pause past the TTL', $next, $pauser->{stderr});
$pauser->{stderr} = '';

# A's client is stopped between its last statement and COMMIT.
$token = acquire($primary, 'client');
my $pid_file = PostgreSQL::Test::Utils::tempdir() . '/pid';
my $client = start_psql($primary, "\\set VERBOSITY verbose\n"
	. guarded('client', $token, 'a')
	. "SELECT lease.renew('client', $token, '10 ms') \\gset\n"
	. "\\! echo \$PPID > $pid_file; kill -STOP \$PPID\nCOMMIT;");
my $pid;
wait_for('the client to stop', sub {
	chomp($pid = -s $pid_file ? slurp_file($pid_file) : '');
	return $pid && slurp_file("/proc/$pid/stat") =~ /\) T /;
});
$next = take_over('client');
kill 'CONT', $pid;
check_refused('client', 'a client that is stopped', $next, (finish_psql($client))[1]);

# A's server process is.
$token = acquire($primary, 'backend');
$pauser->query_safe(guarded('backend', $token, 'a') . "SELECT lease.renew('backend', $token, '10 ms')");
wait_until('a', 'state', 'idle in transaction');
$pid = activity('a', 'pid');
kill 'STOP', $pid;
ask_session($pauser, 'COMMIT;');
$next = take_over('backend');
kill 'CONT', $pid;
check_refused('backend', 'a server process that is stopped', $next, (await_answer($pauser))[1]);

# A waits for a synchronous standby inside its commit: B waits for A.
my %token = (story => acquire($primary, 'story', ttl => '1 h'));
my %commit = (story => start_commit('story', token => $token{story}));
is(value("SELECT lease.renew('story', $token{story})"), '01:00:00', 'in flight: the lease is held, and can be renewed');
advance_clock($primary, '1 h');
ok(!is_held($primary, 'story', $token{story}), 'in flight past the TTL: it is not');
check_shut('story', 'in flight past the TTL', $commit{story});
my %waiter = (story => start_waiter('story'));
is(value(q{SELECT blocked_by FROM lease.waiters WHERE name = 'story'}), "{$token{story}}", 'B waits for A');
is(effects('story'), '', 'what is in flight cannot be seen');

#
# Whatever else ends the lease while the commit is in flight
#
sub start_flight
{
	my ($name, %args) = @_;

	$token{$name} = acquire($primary, $name, ttl => $args{ttl} // '10 h');
	$commit{$name} = start_commit($name, token => $token{$name});
	return;
}

my %ends = (
	'force' => sub { value(q{SELECT lease.force_release('force', 'test')}) },
	'reopen' => sub { value(q{SELECT lease.force_release('reopen', 'test', reopen => true)}) },
	'release' => sub { value("SELECT lease.release('release', $token{release})") eq 't' },
	'expiry' => sub { advance_clock($primary, '10 min'); return 1 });

foreach my $name (sort keys %ends)
{
	start_flight($name, ttl => $name eq 'expiry' ? '10 min' : '10 h');
	is($ends{$name}->(), 1, "$name: it ends a lease whose commit is in flight");
	ok(!is_held($primary, $name, $token{$name}), "$name: at once");
	check_shut($name, $name, $commit{$name});
	$waiter{$name} = start_waiter($name, $name eq 'force' ? 'BEGIN ISOLATION LEVEL REPEATABLE READ;' : 'BEGIN;');
}
wait_for('the reaper', sub { value(q{SELECT count(*) FROM lease.ledger WHERE name = 'expiry'}) eq '0' });
check_shut('expiry', 'expired and reaped', $commit{expiry});

# Leases of the committing session: by force, by its TTL, at the end of the transaction.
my $held = q{SELECT lease.acquire('%s', scope => '%s', ttl => '%s') AS token \gset
	BEGIN; SELECT lease.guard('%1$s', :token) \gset};
$commit{session} = start_commit('session', before => sprintf $held, 'session', 'session', '10 h');
$commit{lapse} = start_commit('lapse', before => sprintf $held, 'lapse', 'session', '10 min');
$commit{transaction} = start_commit('transaction',
	before => q{BEGIN; SELECT lease.acquire('transaction', scope => 'transaction') \gset});
is(value(q{SELECT lease.force_release('session', 'test')}), 1, 'session scope: it can be ended by force');
advance_clock($primary, '10 min');
foreach my $name (qw(session lapse transaction))
{
	check_shut($name, "scope of $name", $commit{$name});
	$waiter{$name} = start_waiter($name);
}

# One of another session, which goes away.
my $holder = open_session('holder');
$token{orphan} = $holder->query_safe(q{SELECT lease.acquire('orphan', scope => 'session')});
$commit{orphan} = start_commit('orphan', token => $token{orphan});
$holder->quit;
wait_for('the holder to leave', sub { !is_held($primary, 'orphan', $token{orphan}) });
check_shut('orphan', 'the session that held it is gone', $commit{orphan});
$waiter{orphan} = start_waiter('orphan');

# Two transactions that guard with one token: the name opens with the last.
start_flight('twice');
my $second = start_commit('twice', label => 'second', token => $token{twice});
value(q{SELECT lease.force_release('twice', 'test')});
check_shut('twice', 'two in flight', $commit{twice}, $second);
$waiter{twice} = start_waiter('twice');
value("SELECT pg_cancel_backend($second->{pid})");
like((finish_psql($second))[1], qr/WARNING: .* canceling wait for synchronous replication/, 'one of two: it is warned of what is only local');
check_shut('twice', 'one of two is over', $commit{twice});
is(waits_for('twice'), 1, 'one of two is over: who is next still waits');

#
# The wait for the standby is cut short: the commit is local, and the name opens
#
foreach my $end (qw(pg_cancel_backend pg_terminate_backend))
{
	start_flight($end);
	value("SELECT lease.force_release('$end', 'test')");
	$waiter{$end} = start_waiter($end);
	value("SELECT $end($commit{$end}{pid})");
	check_opened($end, delete $waiter{$end}, $end);
	like((finish_psql(delete $commit{$end}))[1], qr/WARNING: .* canceling (?:the )?wait for synchronous replication/,
		"$end: its client is warned");
}

#
# A transfer waits for the commits in flight
#
sub start_transfer
{
	my ($name) = @_;
	my $psql = start_psql($primary, "SET application_name = 'heir of $name';\n"
		. "SELECT lease.transfer('$name', $token{$name}, 'heir');");

	wait_until("heir of $name", 'wait_event_type', 'Extension');
	return $psql;
}

my %cut_short = (cancelled => 'pg_cancel_backend', terminated => 'pg_terminate_backend');
my %transfer;
foreach my $name ('transferred', 'forced', sort keys %cut_short)
{
	start_flight($name);
	$transfer{$name} = start_transfer($name);
	ok(!is_held($primary, $name, $token{$name}), "$name: a transfer that waits has taken the lease");
	check_shut($name, $name, $commit{$name});
}
foreach my $name (sort keys %cut_short)
{
	activity("heir of $name", "$cut_short{$name}(pid)");
	like((finish_psql($transfer{$name}))[1], qr/canceling statement|terminating connection/, "$name: its wait is cut short");
	wait_for("$name: the lease is held again", sub { is_held($primary, $name, $token{$name}) });
	is(value("SELECT lease.renew('$name', $token{$name})"), '10:00:00', "$name: all is as before the call");
	is(value("SELECT holder IS DISTINCT FROM 'heir' FROM lease.leases WHERE name = '$name'"), 't', "$name: and it alone is there");
	check_shut($name, "$name once more", $commit{$name});
}
$transfer{$_} = start_transfer($_) for sort keys %cut_short;

#
# The extension stays while a transaction guards; and who wrote nothing, waits for nobody
#
my $other = acquire($primary, 'other', db => 'other');
$commit{other} = start_commit('other', token => $other, db => 'other');
my $drop = start_psql($primary, q{SET application_name = 'drop'; DROP EXTENSION lease;}, db => 'other');
wait_until('drop', 'wait_event_type', 'Lock');
is(activity('drop', 'pg_blocking_pids(pid)'), "{$commit{other}{pid}}", 'DROP EXTENSION waits for a commit in flight');

$token = acquire($primary, 'idle');
is(value("SET synchronous_commit = on; BEGIN; SELECT lease.guard('idle', $token); COMMIT; SELECT lease.release('idle', $token)"),
	"$token\nt", 'a guarded transaction that wrote nothing commits without the standby');

# One that expired behind the launcher's back: who is next does without it.
my $launcher = freeze($primary, 'lease launcher');
start_flight('unnoticed', ttl => '10 min');
$waiter{unnoticed} = start_waiter('unnoticed');
advance_clock($primary, '10 min');

#
# The standby is back
#
is(value(q{SELECT count(*) FROM effect JOIN lease.leases USING (name) WHERE pinned_by IS NOT NULL AND what <> 'second'}),
	'0', 'nothing of what is in flight could be seen');
$standby->start;
check_committed($_, $commit{$_}) for sort keys %commit;
check_opened($_, $waiter{$_}, $_ eq 'twice' ? "second twice" : $_) for sort keys %waiter;
thaw($launcher);
foreach my $name (sort keys %transfer)
{
	my ($heirs) = finish_psql($transfer{$name});

	cmp_ok($heirs, '>', $token{$name}, "$name: a transfer goes on when the commit is over");
	ok(is_held($primary, $name, $heirs), "$name: with the next token");
	is(effects($name), $name, "$name: and the commit can be seen");
	release($primary, $name, $heirs);
}
is((finish_psql($drop))[1], '', 'DROP EXTENSION goes on when the commit is over');
create_lease($primary, 'other');
is(names_held($primary, db => 'other'), '', 'and nothing of it is left');
is(sqlstate($standby, q{SELECT lease.guard('story', 1)}), '25006', 'a standby guards nothing');

is(names_held($primary), '', 'nothing is held in the end');
is(value(q{SELECT count(pinned_by) FROM lease.leases}), '0', 'nor pinned');
wait_for('the reaper', sub { leases_used($primary) eq '0' });
is(leases_used($primary), '0', 'the table is empty');

#
# A commit that is terminated between its check and its end: as if it had not been
#
$pauser->query_safe('CREATE TEMPORARY TABLE gate (i int) ON COMMIT DELETE ROWS');
$token = $pauser->query_safe(q{SELECT lease.acquire('undone', scope => 'session')});
$pauser->query_safe(guarded('undone', $token, 'a') . 'INSERT INTO gate VALUES (1)');
my $gate = open_session('gate');
$gate->query_safe(q{BEGIN; SELECT format('LOCK TABLE %s IN ACCESS SHARE MODE', oid::regclass)
	FROM pg_class WHERE relname = 'gate' \gexec});
ask_session($pauser, 'COMMIT;');
wait_until('a', 'wait_event_type', 'Lock');
check_shut('undone', 'before the end', { pid => activity('a', 'pid') });
my $waiter = start_waiter('undone');
activity('a', 'pg_terminate_backend(pid)');
check_opened('terminated before the end', $waiter, '');
$gate->quit;
$pauser->{run}->finish;

#
# A snapshot of another transaction, which may be older than the lease
#
my $exporter = open_session('exporter');
my $snapshot = $exporter->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_export_snapshot()');
$token = acquire($primary, 'snapshot');
my $import = "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '$snapshot'; SELECT lease.guard('snapshot', $token); COMMIT;";
is(sqlstate($primary, $import), '40001', 'a transaction with an exported snapshot that is older than the lease cannot guard it');
is(sqlstate($primary, $import =~ s/SET TRANSACTION SNAPSHOT '.*?';//r), '', 'with its own it can');
$exporter->quit;
release($primary, 'snapshot', $token);

#
# A release that comes too late is none: the lease has expired, and its name stays
# closed, also if nobody but the transaction has noticed yet
#
$token = acquire($primary, 'late', ttl => '1 min', lock_delay => '1 h');
my $late = $primary->background_psql('postgres', on_error_stop => 0);
$late->query("BEGIN; SELECT lease.guard('late', $token), lease.release('late', $token)");
$launcher = freeze($primary, 'lease launcher');
advance_clock($primary, '2 min');
$late->query('COMMIT');
like($late->{stderr}, qr/lease "late" is not held/, 'released in a transaction that outlives the TTL: it does not commit');
$late->quit;
is(value("SELECT lease.try_acquire('late') IS NULL"), 't', 'and lock_delay counts');
thaw($launcher);
value("SELECT lease.force_release('late', 'test', reopen => true)");

#
# The server crashes while commits are in flight: they were on disk
#
$standby->stop;
start_flight($_) for qw(crash gone);
$commit{scoped} = start_commit('scoped', before => sprintf $held, 'scoped', 'session', '1 h');
value(q{SELECT lease.force_release('gone', 'test')});
$waiter = start_waiter('gone');
stop_at_once($primary);
finish_psql($_) for $waiter, @commit{qw(crash gone scoped)};
is(names_held($primary), 'crash', 'after a crash: the leases are those that were held');
is(pinned_by('crash'), '', 'after a crash: no commit is in flight');
is(effects($_), $_, "after a crash: what $_ committed is there") for qw(crash gone scoped);
is(value("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT lease.guard('crash', $token{crash}); COMMIT"),
	$token{crash}, 'after a crash: the lease still guards');
ledger_is_sound($primary, 'after a crash');
release($primary, 'crash', $token{crash});
$token = acquire($primary, 'gone');
cmp_ok($token, '>', $token{gone}, 'after a crash: the name of a lost lease is open');
release($primary, 'gone', $token);
wait_for('the reaper', sub { leases_used($primary) eq '0' });
is(leases_used($primary), '0', 'after a crash: the table is empty in the end');

$primary->stop;
done_testing();
