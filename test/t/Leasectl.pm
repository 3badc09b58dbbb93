# Leasectl.pm - what the tests of leasectl share
#
#	my ($status, $out, $err) = leasectl(at($node), 'list', '--json');
#	my $run = start_leasectl(at($node), 'run', 'job', '--', 'sleep', '60');
#	kill 'TERM', $run->{pid};
#	($status, $out, $err) = finish_leasectl($run);
#
# The first argument may be a hash: env => { VARIABLE => value, or undef to
# unset it }, through => [ program and arguments that exec leasectl ], in =>
# a file for its standard input.  A status is the shell's: 128 + N after signal N.
#
# A command that a test can ask when it was last alive is a heart:
#
#	my $heart = new_heart();
#	start_leasectl(at($node), 'run', 'job', '--', heart($heart, 'ignore'));
#	wait_for('the command', sub { beats($heart) });
#	my ($program, $child) = beats($heart);    # hashes, of those that live or lived
#
# Whatever was started and not finished is killed when the test ends.

package Leasectl;

use strict;
use warnings;

use Exporter 'import';
use FindBin;
use LeaseTest;
use PostgreSQL::Test::Utils;
use POSIX qw(:fcntl_h :sys_wait_h);

our @EXPORT = qw(leasectl start_leasectl finish_leasectl has_ended at several processes watchdogs
  freeze_processes freeze_server is_alive new_heart heart beats);

my $test = $$;
my $dir = PostgreSQL::Test::Utils::tempdir();
my $files = 0;
my %running;    # pid => what start_leasectl returned
my $heartbeat;

# The program, as it was built or installed for the test.
sub program
{
	my $top = "$FindBin::RealBin/../..";
	my ($path) = grep { -x && !-d } map { "$_/leasectl" } "$top/src/leasectl", $top, split /:/, $ENV{PATH};

	return $path // die 'there is no leasectl';
}

# Connection options for a server, by its socket.
sub at
{
	my ($node, %args) = @_;
	return ('-h', $node->host, '-p', $node->port, '-d', $args{db} // 'postgres');
}

# For several servers, of which the one that takes writes is meant.
sub several
{
	my @nodes = @_;
	my ($hosts, $ports) = map {
		my $what = $_;
		join ',', map { $_->$what } @nodes
	} qw(host port);

	return ('-d', "host=$hosts port=$ports dbname=postgres target_session_attrs=read-write");
}

sub become
{
	my ($how, $output, @command) = @_;

	foreach my $variable (keys %{ $how->{env} // {} })
	{
		delete $ENV{$variable};
		$ENV{$variable} = $how->{env}{$variable} if defined $how->{env}{$variable};
	}
	open STDIN, '<', $how->{in} // '/dev/null' or POSIX::_exit(99);
	foreach ([ 1, "$output.out" ], [ 2, "$output.err" ])
	{
		my ($number, $path) = @$_;
		my $file = POSIX::open($path, O_WRONLY | O_CREAT, 0600);

		POSIX::_exit(99) unless defined $file && POSIX::dup2($file, $number);
		POSIX::close($file);
	}
	{ no warnings 'exec'; exec { $command[0] } @command; }
	POSIX::_exit(98);
}

# Start it while the test goes on.  Files take its output, so that it never waits
# for us to read.
sub start_leasectl
{
	my $how = ref $_[0] eq 'HASH' ? shift : {};
	my $output = "$dir/run" . ++$files;
	my $program = program();
	my $pid = fork // die "could not fork: $!";

	become($how, $output, @{ $how->{through} // [] }, $program, @_) unless $pid;
	return $running{$pid} = { pid => $pid, output => $output };
}

# Is it over?  Its status is known then.
sub has_ended
{
	my ($run) = @_;

	if (!defined $run->{status} && waitpid($run->{pid}, WNOHANG) == $run->{pid})
	{
		$run->{status} = WIFSIGNALED($?) ? 128 + WTERMSIG($?) : WEXITSTATUS($?);
		delete $running{ $run->{pid} };
	}
	return defined $run->{status};
}

# Wait until it is over; returns its status, its output and what it complained of.
sub finish_leasectl
{
	my ($run) = @_;

	wait_for('leasectl to end', sub { has_ended($run) }) or kill 'KILL', $run->{pid};
	chomp(my ($out, $err) = map { slurp_file("$run->{output}.$_") } qw(out err));
	return ($run->{status} // -1, $out, $err);
}

sub leasectl { return finish_leasectl(start_leasectl(@_)) }

# All processes there are: pid => { parent, state, name }.
sub processes
{
	my %found;

	foreach my $file (glob '/proc/[0-9]*/stat')
	{
		open my $in, '<', $file or next;
		my $line = <$in> // '';
		$found{$1} = { name => $2, state => $3, parent => $4 }
		  if $line =~ /^(\d+) \((.*)\) (\S) (\d+)/s;
	}
	return \%found;
}

sub is_alive
{
	my ($pid) = @_;
	open my $in, '<', "/proc/$pid/stat" or return 0;
	return (<$in> // '') =~ /\) [^ZX] /;
}

# The watchdog of each of some that run, in their order.
sub watchdogs
{
	my @runs = @_;
	my $processes = processes();
	my %of = map { $processes->{$_}{parent} => $_ }
	  grep { $processes->{$_}{name} eq 'lease-watchdog' && $processes->{$_}{state} ne 'Z' } keys %$processes;

	return map { $of{ $_->{pid} } } @runs;
}

# Stop processes with SIGSTOP, and wait until they stand still.
sub freeze_processes
{
	my @pids = @_;

	kill 'STOP', @pids;
	foreach my $pid (@pids)
	{
		wait_for(
			"process $pid to stop",
			sub {
				open my $in, '<', "/proc/$pid/stat" or return 1;
				return (<$in> // '') =~ /\) [TZX] /;
			});
	}
	return;
}

# Stop a whole server: it says nothing any more, and its connections stay.  No
# process is made while the first of them stands still.  Returns what to thaw.
sub freeze_server
{
	my ($node) = @_;
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;

	freeze_processes($postmaster);
	my $processes = processes();
	my @pids = ($postmaster, grep { $processes->{$_}{parent} == $postmaster } keys %$processes);
	freeze_processes(@pids);
	return @pids;
}

# A file for the beats of a command.
sub new_heart { return "$dir/heart" . ++$files }

# The command that beats there: see test/tools/heartbeat.c.
sub heart
{
	my ($file, @options) = @_;

	$heartbeat //= build_heartbeat();
	return ($heartbeat, $file, @options);
}

sub build_heartbeat
{
	my $program = "$dir/heartbeat";

	system_or_bail('gcc', '-O2', '-Wall', '-Wextra', '-Werror',
		"$FindBin::RealBin/../tools/heartbeat.c", '-o', $program);
	return $program;
}

# What the file says of the program and of its child, if they beat at all; times
# in seconds.
sub beats
{
	my ($file) = @_;
	my @found;

	open my $in, '<:raw', $file or return;
	while (read($in, my $bytes, 56) == 56)
	{
		my %of;

		@of{qw(pid token signal first last last_boot gap)} = unpack 'q*', $bytes;
		$of{$_} /= 1e9 foreach qw(first last last_boot gap);
		push @found, \%of if $of{first};
	}
	return @found;
}

END
{
	local $?;
	if ($$ == $test && %running)
	{
		kill $_, keys %running foreach 'KILL', 'CONT';
		waitpid $_, 0 foreach keys %running;
	}
}

1;
