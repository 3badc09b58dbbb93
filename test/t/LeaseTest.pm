# LeaseTest.pm - what the TAP tests share
#
#	use FindBin;
#	use lib $FindBin::RealBin;
#	use LeaseTest;
#
#	my $node = lease_node('primary', allows_streaming => 1);
#	my $token = acquire($node, 'job', request_id => 'r-1');
#	ok(is_held($node, 'job', $token));
#	release($node, 'job', $token);
#	advance_clock($node, '1 hour');
#	is(sqlstate($node, "SELECT lease.renew('job', $token)"), 'LE001');
#
# A lease is acquired for an hour unless the test says otherwise: then it ends
# when the test lets it, not because the machine was slow.  All functions work
# in database "postgres"; another one is db => 'other'.

package LeaseTest;

use strict;
use warnings;

use Exporter 'import';
use FindBin;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw(lease_node create_lease acquire release is_held names_held
  advance_clock use_up_tokens sqlstate full_size wait_for start_psql finish_psql ask_session
  await_answer log_position log_since ledger_is_sound leases_used freeze thaw crash stop_at_once
  a_loader wait_for_launcher build_client build_storm judge judge_lines is_caught);

# A started server with the library preloaded and the extension in database
# "postgres".  %params: conf => lines for postgresql.conf; the others are
# Cluster's init's.
sub lease_node
{
	my ($name, %params) = @_;
	my $conf = delete $params{conf};
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(%params);

	# A crash must not take away what a standby has yet to fetch.
	$node->append_conf('postgresql.conf', 'wal_keep_size = 1GB') if $params{allows_streaming};
	$node->append_conf('postgresql.conf', $conf) if defined $conf;
	$node->start;
	create_lease($node, 'postgres');
	return $node;
}

# The extension in a database, which is made if there is none, and with it the
# function behind advance_clock.
sub create_lease
{
	my ($node, $db) = @_;
	my $found = $node->safe_psql('postgres', "SELECT 1 FROM pg_database WHERE datname = '$db'");

	$node->safe_psql('postgres', "CREATE DATABASE $db") unless $found;
	$node->safe_psql(
		$db, q{
		CREATE EXTENSION lease;
		CREATE OR REPLACE FUNCTION advance_lease_clock(interval) RETURNS void
			LANGUAGE C AS '$libdir/lease', 'lease_advance_clock';});
	return;
}

sub literal
{
	my ($text) = @_;
	return "'" . ($text =~ s/'/''/gr) . "'";
}

# Take a lease, with any arguments of lease.try_acquire; undef if it is taken.
sub acquire
{
	my ($node, $name, %args) = @_;
	my $db = delete $args{db} // 'postgres';
	my %all = (ttl => '1 hour', %args);
	my $args = join ', ', map { "$_ => " . literal($all{$_}) } sort keys %all;
	my $token = $node->safe_psql($db, 'SELECT lease.try_acquire(' . literal($name) . ", $args)");

	return $token eq '' ? undef : $token;
}

sub ask
{
	my ($function, $node, $name, $token, %args) = @_;
	return $node->safe_psql($args{db} // 'postgres',
		"SELECT lease.$function(" . literal($name) . ", $token)") eq 't';
}

# lease.release and lease.is_held as Perl booleans.
sub release { return ask('release', @_) }
sub is_held { return ask('is_held', @_) }

# The names that lease.leases shows as held, sorted, in one string.
sub names_held
{
	my ($node, %args) = @_;
	return $node->safe_psql($args{db} // 'postgres',
		q{SELECT string_agg(name, ' ' ORDER BY name COLLATE "C")
		  FROM lease.leases WHERE closed_until IS NULL});
}

# How many slots of the table are taken, in all databases of the server.
sub leases_used
{
	my ($node, %args) = @_;
	return $node->safe_psql($args{db} // 'postgres', 'SELECT leases_used FROM lease.status');
}

# Let the server's lease clock jump forward; the wall clock stays.
sub advance_clock
{
	my ($node, $interval, %args) = @_;
	$node->safe_psql($args{db} // 'postgres', "SELECT advance_lease_clock('$interval')");
	return;
}

# Hand out more tokens than a ceiling reserves at a time.
sub use_up_tokens
{
	my ($node, %args) = @_;
	$node->safe_psql($args{db} // 'postgres', <<~'SQL');
		SET synchronous_commit = off;
		DO $$
		BEGIN
			FOR i IN 1 .. 110000 LOOP
				PERFORM lease.release('many', lease.try_acquire('many'));
			END LOOP;
		END
		$$
		SQL
	return;
}

# The SQLSTATE that a statement fails with; an empty string if it does not.
sub sqlstate
{
	my ($node, $sql, %args) = @_;
	my ($rc, $stdout, $stderr) = $node->psql($args{db} // 'postgres', $sql,
		extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);

	return '' if $rc == 0;
	return $stderr =~ /(?:ERROR|FATAL):\s+(\w{5})/ ? $1 : $stderr;
}

# The size of a test: small in "make test", the full one in "make test-full".
sub full_size
{
	my ($small, $full) = @_;
	return $ENV{LEASE_TEST_FULL} ? $full : $small;
}

# Wait until a condition holds, for as long as Cluster would; a test of its own
# only if it does not come true.
sub wait_for
{
	my ($what, $condition) = @_;

	for (my $tries = 20 * $PostgreSQL::Test::Utils::timeout_default; $tries > 0; $tries--)
	{
		return 1 if $condition->();
		usleep(50_000);
	}
	fail("$what: timed out");
	return 0;
}

# Start a psql that runs a script while the test goes on; it leaves at the first
# error.  Files take its output, so that it never waits for us to read.
sub start_psql
{
	my ($node, $script, %args) = @_;
	my $files = PostgreSQL::Test::Utils::tempdir();
	my @command = (
		'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', "$files/script",
		'-d', $node->connstr($args{db} // 'postgres'));

	append_to_file("$files/script", $script);
	my $run = IPC::Run::start(\@command, '<', \undef, '>', "$files/out", '2>', "$files/err",
		IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default));
	return { run => $run, files => $files };
}

# Wait until it is over; returns its output and what it complained of.
sub finish_psql
{
	my ($psql) = @_;

	$psql->{run}->finish;
	chomp(my ($out, $err) = map { slurp_file("$psql->{files}/$_") } qw(out err));
	return ($out, $err);
}

# Let a session (of background_psql) run statements that may have to wait, while the
# test goes on; returns once it has begun.
sub ask_session
{
	my ($psql, $script) = @_;

	my $begun = $psql->query_until(qr/^asked$/m,
		"\\echo asked\n$script\n\\echo answered\n\\warn answered\n");

	# It may be through already.
	$psql->{stdout} = ($begun =~ s/.*?^asked\n//msr) . $psql->{stdout};
	return;
}

# Wait until it is through with them; returns its output and what it complained of.
sub await_answer
{
	my ($psql) = @_;

	foreach my $stream (qw(stdout stderr))
	{
		pump_until($psql->{run}, $psql->{timeout}, \$psql->{$stream}, qr/answered\n/)
		  or die 'no answer';
	}
	my ($out, $err) = map { $psql->{$_} =~ s/\n?answered\n//r } qw(stdout stderr);
	@$psql{qw(stdout stderr)} = ('', '');
	return ($out, $err);
}

# How long the server's log is, and the part of it since then.
sub log_position { return -s $_[0]->logfile }

sub log_since
{
	my ($node, $position) = @_;
	return substr slurp_file($node->logfile), $position;
}

# The server's own tools find nothing wrong with the ledger: two tests.  The
# tools are extensions, so on a standby they must have been made before it.
sub ledger_is_sound
{
	my ($node, $where, %args) = @_;
	my $db = $args{db} // 'postgres';

  SKIP:
	{
		skip 'this server does not come with amcheck and pg_visibility', 2
		  unless $node->safe_psql($db,
			q{SELECT count(*) = 2 FROM pg_available_extensions
			  WHERE name IN ('amcheck', 'pg_visibility')}) eq 't';
		$node->safe_psql($db,
			'CREATE EXTENSION IF NOT EXISTS amcheck; CREATE EXTENSION IF NOT EXISTS pg_visibility')
		  if $node->safe_psql($db, 'SELECT pg_is_in_recovery()') eq 'f';
		is($node->safe_psql($db, q{SELECT * FROM verify_heapam('lease.ledger')}),
			'', "$where: verify_heapam is silent on the ledger");
		is($node->safe_psql(
				$db, q{SELECT t_ctid FROM pg_check_visible('lease.ledger')
					   UNION ALL SELECT t_ctid FROM pg_check_frozen('lease.ledger')}),
			'', "$where: pg_check_visible and pg_check_frozen are silent on it");
	}
	return;
}

# The process ID of a server's process of a type that pg_stat_activity knows, if it
# waits for something to do (it holds no lock then); else an empty string.
sub idle_process
{
	my ($node, $type) = @_;
	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = '$type'
		 AND wait_event_type IN ('Activity', 'Extension')");
}

sub wait_for_process
{
	my ($node, $type) = @_;
	my $pid;

	wait_for("an idle $type", sub { $pid = idle_process($node, $type) });
	return $pid;
}

# Stop a process of a server with SIGSTOP while it is idle; returns its ID.  One
# that was woken just before the signal must go to sleep again.
sub freeze
{
	my ($node, $type) = @_;
	my $pid;

	wait_for(
		"freezing an idle $type",
		sub {
			$pid = wait_for_process($node, $type);
			kill 'STOP', $pid;
			return 1 if idle_process($node, $type) eq $pid;
			thaw($pid);
			return 0;
		});
	return $pid;
}

sub thaw
{
	my ($pid) = @_;
	return kill 'CONT', $pid;
}

# A crash of the whole server, and its recovery.
sub stop_at_once
{
	my ($node) = @_;

	$node->stop('immediate');
	$node->start;
	return;
}

# The process ID of some session that calls itself "load".
sub a_loader
{
	my ($node) = @_;
	return $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE application_name = 'load' LIMIT 1});
}

# Kill a process of the server, which restarts itself: it must have been told
# to, by restart_after_crash.
sub crash
{
	my ($node, $pid) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	# The session is gone once the server has noticed.
	kill 'KILL', $pid or die "could not kill process $pid";
	$session->{run}->finish;
	$node->poll_query_until('postgres', 'SELECT true') or die 'the server did not come back';
	return;
}

# Wait until the launcher is at work, which says that the server's start is over;
# returns its process ID.
sub wait_for_launcher
{
	my ($node) = @_;
	return wait_for_process($node, 'lease launcher');
}

# Build a client of libpq from its sources, with our own headers' flags; returns its path.
sub build_client
{
	my ($name, @sources) = @_;
	my $program = PostgreSQL::Test::Utils::tempdir() . "/$name";
	my $config = $ENV{PG_CONFIG} // 'pg_config';
	chomp(my ($include, $lib) = map { scalar qx($config --$_) } qw(includedir libdir));

	system_or_bail('gcc', '-O2', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Werror', "-I$include",
		@sources, '-o', $program, "-L$lib", '-lpq', "-Wl,-rpath,$lib");
	return $program;
}

# The client program of the storms, in C.
sub build_storm
{
	return build_client('storm', glob("$FindBin::RealBin/../tools/storm/*.c"));
}

# What the storm's judge says of a history: its complaints, and what it counted.
sub judge
{
	my ($storm, $history) = @_;
	my ($out, $err) = run_command([ $storm, 'judge', $history ]);

	return ([ $out =~ /^violation (.*)/mg ], { $out =~ /^count (\w+) (\d+)/mg }) if $err eq '';
	die $err;
}

# What it says of a history of some lines.
sub judge_lines
{
	my ($storm, @lines) = @_;
	my $history = PostgreSQL::Test::Utils::tempdir() . '/history';

	append_to_file($history, join '', map { "$_\n" } @lines);
	return judge($storm, $history);
}

# It complains of them, once: two tests.
sub is_caught
{
	my ($storm, $what, $complaint, @lines) = @_;
	my ($complaints) = judge_lines($storm, @lines);

	is(scalar @$complaints, 1, "$what: the judge complains once");
	like($complaints->[0] // '', $complaint, "$what: and says so");
	return;
}

# A program that keeps every token it saw.
#
#	my $tokens = LeaseTest::Tokens->new;
#	$tokens->saw(acquire($node, 'a'));
#	$tokens->saw_concurrently(\@by_one, \@by_another);
#	$tokens->only_grew('after the crash');
#
# "Saw" says that the tokens were granted after all that were seen before;
# concurrent lists are each in their own order.
package LeaseTest::Tokens;

use List::Util qw(max);
use Test::More;

# A copy of a database goes on from the tokens of the original: beyond => it.
sub new
{
	my ($class, %args) = @_;
	my $self = {
		highest => $args{beyond} ? $args{beyond}{highest} : 0,
		fresh => 0,
		wrong => []
	};
	return bless $self, $class;
}

sub saw
{
	my ($self, @tokens) = @_;
	return $self->saw_concurrently(\@tokens);
}

sub saw_concurrently
{
	my ($self, @lists) = @_;
	my $before = $self->{highest};
	my %seen;

	foreach my $list (@lists)
	{
		my $last = $before;

		foreach my $token (@$list)
		{
			push @{ $self->{wrong} }, "no token after $last" unless $token;
			next unless $token;
			push @{ $self->{wrong} }, "$token after $last" if $token <= $last;
			push @{ $self->{wrong} }, "$token twice" if $seen{$token}++;
			$last = $token;
		}
		$self->{highest} = max($self->{highest}, grep { $_ } @$list);
		$self->{fresh} += @$list;
	}
	return;
}

# The largest so far.
sub newest { return $_[0]{highest} }

# One test: there were tokens since the last such test, and each was larger
# than every one before it.
sub only_grew
{
	my ($self, $when) = @_;
	my ($fresh, $wrong) = @$self{qw(fresh wrong)};

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	@$self{qw(fresh wrong)} = (0, []);
	ok($fresh > 0 && !@$wrong, "$when: tokens only grew")
	  or diag("$fresh tokens; wrong: " . join('; ', @$wrong[0 .. ($#$wrong < 9 ? $#$wrong : 9)]));
	return;
}

1;
