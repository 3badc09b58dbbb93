# The programs of doc/clients.md, as they stand there: each takes its lease, keeps
# it and gives it back; gets over a lost connection; and stops when the lease is
# lost, or when no server says that it is not.
#
# All of them run at the same time, each on jobs of its own, as an ordinary role.
# What keeps a job from being done too early is a lock on its row.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Utils;
use Test::More;

# Seconds; a client loses no lease because the machine is slow for less.
use constant TTL => 6;

my $document = slurp_file(($ENV{TESTDIR} // "$FindBin::RealBin/../..") . '/doc/clients.md');
my ($python) = grep { can_run($_, '-c', 'import psycopg') } '/usr/bin/python3', 'python3';
my $jdbc = '/usr/share/java/postgresql.jar';

# language in the document => how its program is run, what that takes
my %languages = (
	python => {
		file => 'worker.py',
		command => [ $python // () ],
		wants => 'Python 3 with psycopg 3'
	},
	js => {
		file => 'worker.js',
		command => [ can_run('node', '-e', 'require("pg")') ? 'node' : () ],
		wants => 'Node.js with pg'
	},
	java => {
		file => 'Worker.java',
		command => [ -e $jdbc && can_run('java', '--version') ? ('java', '-cp', $jdbc) : () ],
		wants => 'Java with the JDBC driver'
	},
	ruby => {
		file => 'worker.rb',
		command => [ can_run('ruby', '-r', 'pg', '-e', '') ? 'ruby' : () ],
		wants => 'Ruby with pg'
	});
my $node = lease_node('clients', conf => "autovacuum = off\nlisten_addresses = '127.0.0.1'");
my (%running, @frozen);

sub can_run
{
	my @command = @_;
	return eval { IPC::Run::run(\@command, '<', \undef, '>&', \my $said) };
}

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# The program of a language, in a file of its own; the only one there is.
sub write_program
{
	my ($language) = @_;
	my @programs = $document =~ /^```$language\n(.*?)^```$/msg;
	my $file = PostgreSQL::Test::Utils::tempdir() . "/$languages{$language}{file}";

	is(scalar @programs, 1, "$language: the document has a program");
	append_to_file($file, $programs[0]);
	$languages{$language}{path} = $file;
	return;
}

sub start_worker
{
	my ($language, $job) = @_;
	my $said = PostgreSQL::Test::Utils::tempdir() . '/said';
	my @command = (@{ $languages{$language}{command} }, $languages{$language}{path}, "$language/$job", TTL);

	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGUSER} = "worker_$language";
	local $ENV{PGDATABASE} = 'postgres';
	local $ENV{PGAPPNAME} = "$language/$job";
	local $ENV{JDBC_URL} =
	  "jdbc:postgresql://127.0.0.1:$ENV{PGPORT}/postgres?user=$ENV{PGUSER}&ApplicationName=$ENV{PGAPPNAME}";
	my $run = IPC::Run::start(\@command, '<', \undef, '>&', $said,
		IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default));
	$running{$run} = $run;
	return { run => $run, said => $said };
}

# It ends by itself: its status, and what it said.
sub finish_worker
{
	my ($worker) = @_;

	$worker->{run}->finish;
	delete $running{ $worker->{run} };
	chomp(my $said = slurp_file($worker->{said}));
	return ($worker->{run}->result || 0, $said);
}

# A session that has a lock on the rows of jobs with such names, until it is told to let go.
sub lock_jobs
{
	my ($pattern) = @_;
	my $session = $node->background_psql('postgres');

	$session->query_safe("BEGIN; SELECT name FROM job WHERE name LIKE '$pattern' FOR UPDATE");
	return $session;
}

# What is shown of a job's lease, once it is so, and its work is held up by us.
sub wait_for_lease
{
	my ($name, $columns, $condition) = @_;
	my $shown;

	wait_for("$name: $condition", sub {
		$shown = value(qq{
			SELECT $columns FROM lease.leases l WHERE name = '$name' AND $condition AND EXISTS
				(SELECT FROM pg_stat_activity WHERE application_name = l.name AND wait_event_type = 'Lock')});
		$shown ne '' });
	return $shown;
}

sub wait_for_waiter
{
	my ($name, $condition) = @_;
	my $pid;

	wait_for("$name: a waiter, $condition", sub {
		$pid = value("SELECT pid FROM lease.waiters WHERE name = '$name' AND $condition");
		$pid ne '' });
	return $pid;
}

# All server processes of the workers are gone, also those that were in the midst of something.
sub wait_for_silence
{
	my ($what) = @_;
	return wait_for("$what: no worker", sub {
		value(q{SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'worker\_%'}) == 0 });
}

sub ends_well
{
	my ($worker, $what) = @_;
	my ($status, $said) = finish_worker($worker);

	is($status, 0, "$what: it ends well");
	is($said, '', "$what: and has nothing to complain of");
	return;
}

#
# A normal run
#
# Returns the token, and how often it was renewed before that.
sub cut_keeper
{
	my ($language) = @_;
	my $name = "$language/kept";
	my ($token, $ttl) = split /\|/,
	  wait_for_lease($name, 'token, extract(epoch FROM ttl)::integer', 'renewals > 0 AND request_id IS NOT NULL');

	is($ttl, TTL, "$name: the TTL is what it asked for");
	wait_for("$name: the connection that renews to be lost", sub {
		value(qq{
			SELECT bool_and(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity
			WHERE application_name = '$name' AND state = 'idle'}) eq 't' });
	return [ $token, wait_for_lease($name, 'renewals', 'true') ];
}

sub check_kept
{
	my ($language, $seen) = @_;
	my ($token, $renewals) = @$seen;

	is(wait_for_lease("$language/kept", 'token', "renewals > $renewals"),
		$token, "$language/kept: it goes on with the same token");
	return;
}

sub check_done
{
	my ($language, $worker, $seen) = @_;
	my $name = "$language/kept";

	ends_well($worker, $name);
	is(value("SELECT done, token FROM job WHERE name = '$name'"), "2|$seen->[0]", "$name: it did all steps with its token");
	is(value("SELECT acquired, released FROM lease.stats WHERE name = '$name'"), '1|1', "$name: and released the lease");
	return;
}

#
# It has to wait first, for more than half of its TTL, and loses the connection meanwhile
#
# Returns the process that waited for it.
sub cut_waiter
{
	my ($language) = @_;
	my $pid = wait_for_waiter("$language/waited", 'true');

	is(value("SELECT pg_terminate_backend($pid, 60000)"), 't', "$language/waited: the connection that waits is lost");
	return $pid;
}

sub check_waiting
{
	my ($language, $former) = @_;
	return wait_for_waiter("$language/waited", "pid <> $former AND waited > '@{[ 0.6 * TTL ]} s'");
}

sub check_waited
{
	my ($language, $worker) = @_;
	my $name = "$language/waited";

	ends_well($worker, $name);
	is(value("SELECT done FROM job WHERE name = '$name'"), 2, "$name: it did all steps");
	is(value("SELECT acquired, renewed > 0, released FROM lease.stats WHERE name = '$name'"),
		'2|t|2', "$name: it renewed the lease before");
	return;
}

#
# The lease is taken away
#
sub take_away
{
	my ($language) = @_;

	wait_for_lease("$language/lost", 'token', 'true');
	return value("SELECT lease.force_release('$language/lost', 'to see what happens')");
}

sub check_lost
{
	my ($language, $worker) = @_;
	my $name = "$language/lost";
	my ($status, $said) = finish_worker($worker);

	is($status, 123, "$name: it stops, in the middle of its work");
	like($said, qr{\Q$name\E: .*\(LE001\)$}s, "$name: and says why");
	return;
}

sub did_nothing
{
	my ($name) = @_;
	is(value("SELECT done FROM job WHERE name = '$name'"), 0, "$name: nothing was written after that");
	return;
}

#
# The server is frozen
#
# Freeze one of its processes while it waits for its client, and so holds no lock of the server's.
sub freeze_session
{
	my ($watcher, $pid) = @_;

	return wait_for("freezing $pid", sub {
		kill 'STOP', $pid;
		return 1 if $watcher->query_safe(
			"SELECT 1 FROM pg_stat_activity WHERE pid = $pid AND wait_event IS DISTINCT FROM 'ClientRead'") eq '';
		thaw($pid);
		return 0;
	});
}

# What makes new connections, and all that there are but those that do the work: they
# wait for us.
sub freeze_server
{
	my (@names) = @_;
	my $watcher = $node->background_psql('postgres');

	wait_for_lease($_, 'token', 'renewals > 0') foreach @names;
	push @frozen, slurp_file($node->data_dir . '/postmaster.pid') =~ /\A(\d+)/;
	kill 'STOP', $frozen[0];
	push @frozen, split /\n/, $watcher->query_safe(q{
		SELECT pid FROM pg_stat_activity
		WHERE usename LIKE 'worker\_%' AND wait_event_type IS DISTINCT FROM 'Lock'});
	freeze_session($watcher, $_) foreach @frozen[1 .. $#frozen];
	return $watcher;
}

sub check_frozen
{
	my ($language, $worker) = @_;
	my ($status, $said) = finish_worker($worker);

	is($status, 123, "$language/frozen: it stops, without an answer");
	is($said, '', "$language/frozen: nobody told it that the lease is lost");
	return;
}

value($document =~ /^```sql\n(.*?)^```$/ms);
my @present;
foreach my $language (sort keys %languages)
{
	write_program($language);
	if (!@{ $languages{$language}{command} })
	{
		diag("$language: there is no $languages{$language}{wants}");
	  SKIP: { skip "there is no $languages{$language}{wants}", 1 }
		next;
	}
	push @present, $language;
	value(qq{
		CREATE ROLE worker_$language LOGIN;
		SELECT lease.allow('worker_$language');
		GRANT SELECT, UPDATE ON job TO worker_$language;
		INSERT INTO job (name, steps)
		SELECT '$language/' || what, 2 FROM unnest('{kept,waited,lost,frozen}'::text[]) what});
}

# From now on a step without its guard would be refused.
value(q{SELECT lease.protect_table('job', '{name}')});

my %gates = map { $_ => acquire($node, "$_/waited") } @present;
my %locks = map { $_ => lock_jobs("%/$_") } qw(kept lost frozen);
my %workers;
foreach my $language (@present)
{
	$workers{$language}{$_} = start_worker($language, $_) foreach qw(kept waited lost frozen);
}

my %waiters = map { $_ => cut_waiter($_) } @present;
my %seen = map { $_ => cut_keeper($_) } @present;
take_away($_) foreach @present;
check_kept($_, $seen{$_}) foreach @present;
check_waiting($_, $waiters{$_}) foreach @present;
release($node, "$_/waited", $gates{$_}) foreach @present;
$locks{kept}->quit;
check_done($_, $workers{$_}{kept}, $seen{$_}) foreach @present;
check_waited($_, $workers{$_}{waited}) foreach @present;
check_lost($_, $workers{$_}{lost}) foreach @present;

my $watcher = freeze_server(map { "$_/frozen" } @present);
check_frozen($_, $workers{$_}{frozen}) foreach @present;
thaw($_) foreach splice @frozen;
$watcher->quit;

$locks{$_}->quit foreach qw(lost frozen);
wait_for_silence('after all');
foreach my $language (@present)
{
	did_nothing("$language/$_") foreach qw(lost frozen);
}

$node->stop;
done_testing();

END
{
	local $?;
	thaw($_) foreach @frozen;
	$_->kill_kill foreach values %running;
}
