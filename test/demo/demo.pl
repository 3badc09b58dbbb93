# demo.pl - eight clients, one file, and a tormentor
#
#	perl demo.pl WORK
#
# Plays on the scratch server in WORK/demo that PGHOST points to.  Eight
# clients write to one file through a store, each write under a lease of its
# own grant, while this process kills clients, freezes one until its lease is
# somebody else's, and crashes the server.  All of them report on one pipe;
# each act of the play waits for what it hears there, never for time alone.
#
# Exits non-zero when the file does not hold in the end what it must.

use strict;
use warnings;

use DBI;
use FindBin;
use IO::Select;
use POSIX ();
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep);

my ($work) = @ARGV;
my $name = 'demo/file';
my $ttl = 2;
my $clients = 8;
my $dir = "$work/demo";
my ($file, $journal, $socket) = map { "$dir/$_" } qw(file journal store);

my $begun = now();
my %pid;             # process by name: store, and clients such as c3.1
my $confirmed = 0;   # writes that clients had confirmed
my %last;            # the last event of each kind: from, token, more, at
my @fresh;           # events heard since the current act last looked

pipe my $ear, my $mouth or die "could not make a pipe: $!\n";
my $listen = IO::Select->new($ear);
my $heard = '';

sub now { return clock_gettime(CLOCK_MONOTONIC) }
sub tell_story { printf "%7.3f  %s\n", now() - $begun, "@_" }
sub headline { print "\n", map { "         $_\n" } @_ }

sub start_process
{
	my ($who, $script, @args) = @_;

	$pid{$who} = fork // die "could not fork: $!\n";
	return if $pid{$who};
	close $ear;
	open STDOUT, '>&', $mouth or die "could not redirect: $!\n";
	exec $^X, "$FindBin::Bin/$script", @args or die "could not run $script: $!\n";
}

sub start_client
{
	my ($who) = @_;
	start_process($who, 'client.pl', $who, $socket, $name, $ttl);
}

sub end_process
{
	my ($who, $signal) = @_;
	my $gone = delete $pid{$who};

	kill $signal, $gone;
	waitpid $gone, 0;
	return $?;
}

# A client that was killed is replaced by one with the next number.
sub replace
{
	my ($who) = @_;
	my $next = $who =~ s/(\d+)$/$1 + 1/er;

	tell_story("tormentor  starts $next in its place");
	start_client($next);
	await($next, sub { $_[0]{from} eq $next && $_[0]{kind} eq 'ready' });
}

sub living_clients
{
	my @names = sort grep { $_ ne 'store' } keys %pid;
	return @names;
}

sub note
{
	open my $out, '>>', $journal or die "could not open $journal: $!\n";
	print $out "@_\n";
	close $out or die "could not write $journal: $!\n";
}

my %phrase = (
	wrote => 'wrote, token %s',
	renewed => 'renewed, token %s',
	lost => 'finds its lease lost, token %s',
	disconnected => 'lost its connection, asks again');

sub take_in
{
	my ($from, $kind, $token, @more) = @_;
	my $event = { from => $from, kind => $kind, token => $token, more => \@more, at => now() };

	if ($kind eq 'wrote')
	{
		$confirmed++;
		note('wrote', $token, $from, $more[0]);
	}
	if ($from eq 'store' && $kind eq 'refused')
	{
		tell_story("store  REFUSED $more[0]'s write: its token $token is smaller than $more[2]");
	}
	elsif ($from eq 'store' && $kind eq 'undid')
	{
		tell_story("store  took back the unfinished write of $more[0], token $token");
	}
	elsif ($phrase{$kind})
	{
		tell_story(sprintf "%-5s  $phrase{$kind}", $from, $token // ());
	}
	$last{$kind} = $event;
	push @fresh, $event;
}

# Take in what the others say, waiting a moment for it.
sub listen_once
{
	$listen->can_read(0.1) or return;
	sysread $ear, $heard, 65536, length $heard or die "the pipe is closed\n";
	take_in(split / /, $1) while $heard =~ s/^(.*)\n//;
}

# Listen until an event fits, and return it.  Events from before do not count.
sub await
{
	my ($what, $fits, $seconds) = @_;
	my $give_up_at = now() + ($seconds // 20);

	@fresh = ();
	while (1)
	{
		while (my $event = shift @fresh)
		{
			return $event if $fits->($event);
		}
		die "waited in vain for $what\n" if now() > $give_up_at;
		listen_once();
		watch_processes();
	}
}

sub await_writes
{
	my ($count) = @_;
	my $enough = $confirmed + $count;
	await("$count writes", sub { $confirmed >= $enough }, 40);
}

# Nobody may go without being sent.
sub watch_processes
{
	my $gone = waitpid -1, POSIX::WNOHANG;
	return if $gone <= 0;
	my ($who) = grep { $pid{$_} == $gone } keys %pid;
	die(($who // 'somebody') . " ended by itself, status $?\n");
}

sub show
{
	my ($caption, $sql, @options) = @_;
	print "\n$caption\n\n";
	system('psql', '-X', '-P', 'footer=off', '-P', 'pager=off', @options, '-c', $sql) == 0 or die "psql failed\n";
}

sub show_tables
{
	show('lease.leases:', 'SELECT name, token, holder, remaining, renewals FROM lease.leases');
	show('lease.ledger:', 'SELECT kind, name, token, holder, ttl FROM lease.ledger');
	print "\n";
}

# The next grant after one that was abandoned, and how long it took.
sub await_takeover
{
	my ($token, $since) = @_;
	my $next = await('another client to write',
		sub { $_[0]{kind} eq 'wrote' && $_[0]{token} > $token });
	my $grant = $last{acquired}{token} == $next->{token} ? $last{acquired} : $next;
	tell_story(sprintf '       %.1f s later %s has the lease, token %s',
		$grant->{at} - $since, $next->{from}, $next->{token});
	return $next;
}

sub kill_in_mid_write
{
	my $victim = await('a client to write', sub { $_[0]{kind} eq 'writing' });
	my $who = $victim->{from};
	my $since = now();

	end_process($who, 'KILL');
	tell_story("tormentor  KILLED $who in the middle of a write, token $victim->{token}");
	await_takeover($victim->{token}, $since);
	replace($who);
}

sub kill_somebody
{
	my @clients = living_clients();
	my $who = $clients[ rand @clients ];

	end_process($who, 'KILL');
	tell_story("tormentor  KILLED $who wherever it was");
	replace($who);
	await_writes(3);
}

# Wait until the kernel says that it has stopped the process.
sub freeze
{
	my ($who) = @_;
	kill 'STOP', $pid{$who};
	waitpid $pid{$who}, POSIX::WUNTRACED;
	die "$who did not stop\n" unless POSIX::WIFSTOPPED(${^CHILD_ERROR_NATIVE});
}

sub freeze_and_thaw
{
	my ($who) = living_clients();

	kill 'USR1', $pid{$who};
	my $poised = await("$who to be about to write",
		sub { $_[0]{from} eq $who && $_[0]{kind} eq 'poised' });
	my $since = now();
	freeze($who);
	tell_story("tormentor  FROZE $who: it has its lease confirmed, token $poised->{token},",
		'and its write on the way');
	await_takeover($poised->{token}, $since);
	show_tables();
	kill 'CONT', $pid{$who};
	tell_story(sprintf 'tormentor  THAWED %s after %.1f s: not knowing, it sends its write',
		$who, now() - $since);
	my $answer = await('the late write to be answered',
		sub { $_[0]{from} eq $who && $_[0]{kind} =~ /^(?:refused|writing)$/ });
	note($answer->{kind}, $poised->{token}, $who, $answer->{more}[0]);
	await_writes(3);
}

# The server process that serves a client.
sub backend_of
{
	my ($who) = @_;
	my $db = DBI->connect('dbi:Pg:', undef, undef, { RaiseError => 1, PrintError => 0 });
	my ($backend) = $db->selectrow_array(
		'SELECT pid FROM pg_stat_activity WHERE application_name = ?', undef, $who);
	$db->disconnect;
	return $backend // die "$who has no connection\n";
}

# Kill one of the server's processes, as the kernel does when memory is short:
# the server throws all shared memory away and recovers from its log.
sub crash_server
{
	my $writing = await('a long write', sub { $_[0]{kind} eq 'renewed' });
	my $backend = backend_of($writing->{from});
	my $since = now();

	kill 'KILL', $backend;
	tell_story("tormentor  CRASHED the server in the middle of a write of $writing->{from},",
		"token $writing->{token}");
	my $next = await('a client to write', sub { $_[0]{kind} eq 'wrote' });
	tell_story(sprintf '       %.1f s later %s has written; the token was %s',
		$next->{at} - $since, $next->{from},
		$next->{token} == $writing->{token} ? 'still good' : 'a new one');
	await_writes(5);
}

sub end_play
{
	kill 'TERM', $pid{$_} foreach living_clients();
	my $give_up_at = now() + 40;
	while (living_clients() && now() < $give_up_at)
	{
		listen_once();
		foreach my $who (living_clients())
		{
			next unless waitpid($pid{$who}, POSIX::WNOHANG) > 0;
			die "$who failed, status $?\n" if $?;
			delete $pid{$who};
		}
	}
	die "some clients did not end\n" if living_clients();
	listen_once() while $listen->can_read(0);
	end_process('store', 'TERM') == 0 or die "the store failed\n";
}

$SIG{PIPE} = 'IGNORE';
$| = 1;
headline("$clients clients write to one file through a store that refuses a smaller token",
	"than it has seen. Each write is made under a lease on '$name', TTL $ttl s.");
start_process('store', 'store.pl', $socket, $file);
await('the store', sub { $_[0]{kind} eq 'ready' });
start_client("c$_.1") foreach 1 .. $clients;
my $ready = 0;
await('the clients', sub { $_[0]{kind} eq 'ready' && ++$ready == $clients });
await_writes(12);

headline('A client dies with the lease in its hand: nobody waits longer than its TTL.');
kill_in_mid_write();

headline('A client freezes between its last check and its write, longer than its TTL.',
	'No clock check of its own can help it: the token does.');
freeze_and_thaw();

headline('The server crashes: who holds the lease keeps it, and tokens go on growing.');
crash_server();

headline('And some more deaths, two of them wherever they come.');
kill_somebody() foreach 1 .. 2;
kill_in_mid_write();
await_writes(10);

headline('All is said: the clients finish and let go.');
end_play();
show_tables();
show('lease.status:', 'SELECT * FROM lease.status', '-x');
print "\nThe last lines of the file:\n\n";
system('tail', '-n', 6, $file);
print "\nThe file, looked at from outside:\n\n";
exit(system($^X, "$FindBin::Bin/check.pl", $file, $journal) == 0 ? 0 : 1);
