# Runs of leasectl outlive the server's restarts, its crashes and its fail-over, with
# their tokens; and many runs on one machine take little of it.
#
# The lease's TTL is long (30 s), and what is waited for is that the server counts
# renewals, which it does anew after each start: so the run has found it again.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use Leasectl;
use List::Util qw(max sum);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX qw(mkfifo sysconf _SC_CLK_TCK);
use Test::More;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use constant RUNS => full_size(4, 20);
use constant MANY => full_size(30, 1000);

# How often each of the many is renewed while it is measured.
use constant RENEWALS => full_size(1, 12);

my $dir = PostgreSQL::Test::Utils::tempdir();

#
# Runs that end when they are told
#
# Their command is a reader of a pipe that nobody writes to yet.
sub start_runs
{
	my ($prefix, $count, $pipe, @options) = @_;

	mkfifo($pipe, 0600) or die "could not make $pipe: $!";
	return map { start_leasectl('run', "$prefix/$_", @options, '--', 'cat', $pipe) } 1 .. $count;
}

sub end_runs
{
	my ($pipe, @runs) = @_;

	open my $writer, '>', $pipe or die "could not open $pipe: $!";
	close $writer;
	return map { [ finish_leasectl($_) ] } @runs;
}

# The names and tokens of those that were renewed so often.
sub renewed
{
	my ($node, $prefix, $times) = @_;
	return $node->safe_psql('postgres', <<~SQL);
		SELECT name, token FROM lease.leases
		WHERE starts_with(name, '$prefix/') AND closed_until IS NULL AND renewals >= $times ORDER BY name
		SQL
}

sub count_renewed { return scalar(() = renewed(@_) =~ /^/mg) }

# Wait until the server has heard of all of them.
sub await_renewals
{
	my ($node, $prefix, $times, @runs) = @_;

	wait_for("$times renewals of each",
		sub { (grep { has_ended($_) } @runs) || count_renewed($node, $prefix, $times) == @runs });
	return renewed($node, $prefix, 0);
}

sub statuses { return join ' ', map { $_->[0] } @_ }

# How often grants of these names came to an end, by event.
sub ends
{
	my ($node, $prefix) = @_;

	wait_for('the history', sub { $node->safe_psql('postgres', 'SELECT history_pending FROM lease.status') eq '0' });
	return $node->safe_psql('postgres', <<~SQL);
		SELECT event, count(*) FROM lease.history
		WHERE starts_with(name, '$prefix/') AND event NOT IN ('acquired', 'loaded') GROUP BY event ORDER BY event
		SQL
}

#
# One server that comes and goes, and others of which one takes over
#
sub wait_for_standby
{
	my ($node) = @_;
	return wait_for('a synchronous standby',
		sub { $node->safe_psql('postgres', 'SELECT sync_state FROM pg_stat_replication') eq 'sync' });
}

# A grant is there after a fail-over if the standby had it before the client did.
sub start_standby
{
	my ($standby, $primary) = @_;
	my $name = $standby->name;

	$primary->backup($name);
	$standby->init_from_backup($primary, $name, has_streaming => 1);
	$standby->start;
	$primary->append_conf('postgresql.conf', "synchronous_standby_names = '$name'");
	$primary->reload;
	return wait_for_standby($primary);
}

# One of its processes is killed, and it starts anew.  Until then it may turn us away
# before it has heard what we want, which poll_query_until does not bear.
sub crash_in_place
{
	my ($node) = @_;
	my $position = log_position($node);

	kill 'KILL', wait_for_launcher($node);
	wait_for('a crash', sub { log_since($node, $position) =~ /all server processes terminated/ });
	return wait_for('the server to be back',
		sub { (run_command([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'SELECT 1' ]))[0] eq '1' });
}

my $primary = lease_node(
	'primary',
	allows_streaming => 1,
	conf => "max_connections = 100\nrestart_after_crash = on\nlog_statement = none");
my ($second, $third) = map { PostgreSQL::Test::Cluster->new($_) } qw(second third);
start_standby($second, $primary);

my @runs = start_runs('keep', RUNS, "$dir/end", several($primary, $second, $third), '--ttl', '30s');
my $tokens = await_renewals($primary, 'keep', 0, @runs);

sub go_on
{
	my ($node, $what) = @_;
	is(await_renewals($node, 'keep', 1, @runs), $tokens, "$what: all runs go on with their tokens");
	return;
}

$primary->restart;
go_on($primary, 'restart');
stop_at_once($primary);
go_on($primary, 'immediate stop and start');
crash_in_place($primary);
go_on($primary, 'crash of a process');

wait_for_standby($primary);
$primary->stop;
$second->promote;
go_on($second, 'fail-over from a primary that is stopped');

start_standby($third, $second);
my @frozen = freeze_server($second);
$third->promote;
go_on($third, 'fail-over from a primary that is frozen');
kill 'CONT', @frozen;
$second->stop('immediate');

my @ends = end_runs("$dir/end", @runs);
is(statuses(@ends), join(' ', (0) x RUNS), 'and all end with status 0') or diag(map { "$_->[2]\n" } @ends);
is(ends($third, 'keep'), 'released|' . RUNS, 'none was lost, and all are released');
$third->stop;

#
# Many
#
my $node = lease_node('many', conf => 'max_connections = ' . (MANY + 50) . "\nlog_statement = none");

# Seconds that a process was on a processor.
sub processor_time
{
	my ($pid) = @_;

	if (open my $in, '<', "/proc/$pid/schedstat")
	{
		return (split / /, <$in>)[0] / 1e9;
	}
	return sum((split / /, slurp_file("/proc/$pid/stat") =~ s/.*\) //sr)[11, 12]) / sysconf(_SC_CLK_TCK);
}

# Memory of a process in kB: its part of what it shares, and what it wrote to itself.
sub memory
{
	my ($pid) = @_;
	my %found = slurp_file("/proc/$pid/smaps_rollup") =~ /^(\w+): +(\d+) kB/mg;

	return @found{qw(Pss Private_Dirty)};
}

# What each run takes: its two processes together.
sub look
{
	my @found;
	my @of = watchdogs(@runs);

	foreach my $i (0 .. $#runs)
	{
		my @pids = ($runs[$i]{pid}, $of[$i]);
		my @memory = map { [ memory($_) ] } @pids;

		push @found, {
			at => clock_gettime(CLOCK_MONOTONIC),
			time => sum(map { processor_time($_) } @pids),
			pss => sum(map { $_->[0] } @memory),
			dirty => sum(map { $_->[1] } @memory) };
	}
	return @found;
}

sub mean_and_most { return (sum(@_) / @_, max(@_)) }

@runs = start_runs('many', MANY, "$dir/many", at($node), '--ttl', '10s');
$tokens = await_renewals($node, 'many', 1, @runs);
my @before = look();
is(await_renewals($node, 'many', 1 + RENEWALS, @runs), $tokens, MANY . ' runs: each is renewed again and again');
my @after = look();

my @part = map { 100 * ($after[$_]{time} - $before[$_]{time}) / ($after[$_]{at} - $before[$_]{at}) } 0 .. $#runs;
my @pss = map { $_->{pss} / 1024 } @after;
note(sprintf 'each, with its watchdog: %.3f MB of memory (Pss; most: %.3f)', mean_and_most(@pss));
note(sprintf 'of which %.3f MB its own (Private_Dirty; most: %.3f)',
	mean_and_most(map { $_->{dirty} / 1024 } @after));
note(sprintf '%.4f %% of a processor (most: %.4f), in %.0f s', mean_and_most(@part), $after[0]{at} - $before[0]{at});
if (full_size(0, 1))
{
	cmp_ok(max(@pss), '<', 2, 'less than 2 MB each');
	cmp_ok(max(@part), '<', 0.1, 'less than 0.1 % of a processor each');
}

@ends = end_runs("$dir/many", @runs);
is(join(' ', grep { $_ != 0 } map { $_->[0] } @ends), '', 'all end with status 0');
is(ends($node, 'many'), 'released|' . MANY, 'no lease is lost');
$node->stop;
done_testing();
