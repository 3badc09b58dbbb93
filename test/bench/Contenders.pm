# Contenders.pm - let a contender do a job
#
#	my $figures = compete($job, $contender, $clients, $seconds);
#
# returns { rate, p50, p99 }: operations per second, and latencies in milliseconds; pgbench
# logs those only for a job that is about them, since each line costs it time.
# Whatever goes wrong, if only a client complains, dies: a run with an error in it has
# no figures.

package Contenders;

use strict;
use warnings;

use Exporter 'import';
use Figures;
use File::Basename qw(dirname);
use List::Util qw(min);
use POSIX ();
use Servers;

our @EXPORT = qw(open_contenders can_compete compete run_script run_client);

my $scripts = dirname(__FILE__) . '/jobs';
my $clients_dir;    # where the peers' clients are
my $dir;            # for what the runs write

# How long a run may take beyond its time.
my $patience = 120;

sub open_contenders
{
	my (%args) = @_;
	($dir, $clients_dir) = @args{qw(dir clients)};
	return;
}

# Is all here that the contender needs?
sub can_compete
{
	my ($contender) = @_;
	my $program = $contender->{program};

	return is_here($contender->{server}) && (!defined $program || -x "$clients_dir/$program");
}

sub compete
{
	my ($job, $contender, $clients, $seconds) = @_;

	return run_script($contender->{server}, "$scripts/$contender->{script}.sql", $clients, $seconds,
		$job->{latencies})
	  unless $contender->{program};
	return run_client("$clients_dir/$contender->{program}",
		address($contender->{server}), $job->{asked}, $clients, $seconds);
}

# Run a program to its end, which is at hand; what it says, if it does not complain.
sub run
{
	my ($seconds, $meanwhile, @command) = @_;
	my $pid = fork() // die "could not fork: $!\n";

	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', "$dir/out";
		open STDERR, '>', "$dir/err";
		exec @command or POSIX::_exit(127);
	}
	my $in_time = eval {
		local $SIG{ALRM} = sub { die "late\n" };
		alarm($seconds + $patience);
		$meanwhile->($pid) if $meanwhile;
		waitpid($pid, 0);
		alarm(0);
		1;
	};
	unless ($in_time)
	{
		kill 'KILL', $pid;
		waitpid($pid, 0);
	}
	my ($status, $out, $err) = ($?, read_file("$dir/out"), read_file("$dir/err"));
	die join(' ', @command) . ($in_time ? " failed ($status)" : ' did not end') . ":\n$err$out"
	  if !$in_time || $status != 0 || $err ne '';
	return $out;
}

#
# A script, by pgbench
#

# Has pgbench connected its clients, or ended?  It catches the alarm before that.
sub is_under_way
{
	my ($pid, $clients) = @_;
	my $status = read_file("/proc/$pid/status");
	my ($caught) = $status =~ /^SigCgt:\s*([0-9a-f]+)/m;
	my $sockets = grep { (readlink($_) // '') =~ /^socket:/ } glob "/proc/$pid/fd/*";

	return 1 if $status =~ /^State:\s*Z/m;
	return $sockets >= $clients && hex(substr $caught, -8) >> (POSIX::SIGALRM - 1) & 1;
}

# pgbench runs for whole seconds, and ends them by an alarm.  For less we send it that;
# it tells what it did in which time.
sub end_early
{
	my ($pid, $clients, $seconds) = @_;

	wait_until($patience, sub { is_under_way($pid, $clients) });
	select undef, undef, undef, $seconds;
	kill 'ALRM', $pid;
	return;
}

# The latencies that pgbench logged, in milliseconds.
sub logged_latencies
{
	my @latencies;

	foreach my $file (glob "$dir/latency.*")
	{
		open my $in, '<', $file or die "could not open $file: $!\n";
		while (my $line = <$in>)
		{
			$line =~ /^\d+ \d+ (\d+) / or die "pgbench logged: $line";
			push @latencies, $1 / 1000;
		}
		close $in;
		unlink $file;
	}
	return @latencies;
}

sub run_script
{
	my ($server, $script, $clients, $seconds, $latencies) = @_;
	my %environment = environment($server);
	my @log = $latencies ? ('--log', "--log-prefix=$dir/latency") : ();
	my $whole = POSIX::ceil($seconds);
	my $meanwhile = $whole == $seconds ? undef : sub { end_early($_[0], $clients, $seconds) };

	local @ENV{ keys %environment } = values %environment;
	unlink glob "$dir/latency.*";
	my $said = run($whole, $meanwhile, 'pgbench', '-n', '-M', 'prepared', '-D', 'ready=0', '-f', $script,
		'-c', $clients, '-j', min($clients, 2), '-T', $whole, @log);
	my ($rate) = $said =~ /^tps = ([\d.]+)/m;
	die "$script failed:\n$said" unless $said =~ /^number of failed transactions: 0 /m && $rate;
	return { rate => $rate } unless $latencies;
	my @latencies = logged_latencies();
	return { rate => $rate, p50 => percentile(0.5, @latencies), p99 => percentile(0.99, @latencies) };
}

#
# A peer's client
#
sub run_client
{
	my ($program, $address, $asked, $clients, $seconds) = @_;
	my $said = run($seconds, undef, $program, '--job', $asked, '--clients', $clients, '--seconds', $seconds,
		'--threads', min($clients, 2), '--address', $address);
	my %figures = $said =~ /^(\w+) ([\d.]+)$/mg;

	foreach my $figure (qw(operations seconds p50 p99))
	{
		die "$program gave no figures:\n$said" unless $figures{$figure};
	}
	return { rate => $figures{operations} / $figures{seconds}, p50 => $figures{p50}, p99 => $figures{p99} };
}

1;
