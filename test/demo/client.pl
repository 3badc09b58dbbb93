# client.pl - one of the demo's clients
#
#	perl client.pl WRITER SOCKET NAME TTL
#
# Takes the lease NAME over and over, and writes under each grant one record of
# a few lines to the store, slowly.  It keeps the rules for clients: the lease
# is its own from a clock reading taken before it asked until TTL later; it
# renews at a third of that, and stops at that deadline whatever happens.
#
# Every attempt has a request id.  If the server's answer is lost in a crash
# the client asks again with the same id and learns the token it was granted.
#
# SIGUSR1 asks it to report when it has its lease confirmed and its write is
# about to leave, and to leave it there until it was frozen and thawed: a
# process that the kernel stops at that point has checked all that it could.

use strict;
use warnings;

use DBI;
use IO::Socket::UNIX;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep);

my ($writer, $socket, $name, $ttl) = @ARGV;
my $patience = 30;    # seconds to wait for a server that is away

my ($db, $deadline, $renew_at);
my ($stop, $aimed_at, $thawed);

$SIG{TERM} = sub { $stop = 1 };
$SIG{USR1} = sub { $aimed_at = 1 };
$SIG{CONT} = sub { $thawed = 1 };

sub now { return clock_gettime(CLOCK_MONOTONIC) }
sub event { syswrite STDOUT, "$writer @_\n" }

# From now on the lease is ours for a TTL, if the server says so.
sub start_clock
{
	my ($asked_at) = @_;
	$deadline = $asked_at + $ttl;
	$renew_at = $asked_at + $ttl / 3;
}

sub connect_db
{
	return DBI->connect("dbi:Pg:application_name=$writer",
		undef, undef, { RaiseError => 1, PrintError => 0, PrintWarn => 0 });
}

# Run a query whose answer is one value.  A lost connection is mended and the
# query repeated, so it must be one that may be repeated.
sub ask
{
	my ($give_up_at, $sql, @values) = @_;

	while (1)
	{
		$db ||= eval { connect_db() };
		if ($db)
		{
			my $value = eval { ($db->selectrow_array($sql, undef, @values))[0] };
			my $error = $@ or return $value;
			die $error if $db->ping;
			event('disconnected');
			$db = undef;
		}
		die "$writer: no answer from the server\n" if now() > $give_up_at;
		sleep 0.05;
	}
}

# Take the lease, or return nothing when it is taken.
sub acquire
{
	my ($request_id) = @_;
	my $asked_at = now();
	my $token = ask(
		$asked_at + $patience,
		'SELECT lease.try_acquire(?, ttl => make_interval(secs => ?),
								  holder => ?, request_id => ?)',
		$name, $ttl, $writer, $request_id);

	start_clock($asked_at) if defined $token;
	return $token;
}

# Renew when it is time to; false as soon as the lease may be lost.
sub still_ours
{
	my ($token) = @_;
	my $asked_at = now();

	if ($asked_at >= $renew_at)
	{
		my $renewed =
		  eval { ask($deadline, 'SELECT lease.try_renew(?, ?)', $name, $token) };
		return 0 unless $renewed;
		start_clock($asked_at);
		event('renewed', $token);
	}
	return now() < $deadline;
}

# Where the tormentor freezes us: the lease is confirmed, the write not sent.
sub stand_still
{
	my ($token) = @_;

	$aimed_at = $thawed = 0;
	event('poised', $token);
	my $give_up_at = now() + $patience;
	sleep 0.01 until $thawed || now() > $give_up_at;
}

sub tell_store
{
	my ($store, $line) = @_;
	defined syswrite $store, "$line\n" or die "$writer: the store is gone\n";
}

sub hear_store
{
	my ($store) = @_;
	my $answer = <$store> // die "$writer: the store is gone\n";
	chomp $answer;
	return $answer;
}

# Write one record: true when the store has it on disk.  If the lease may be
# lost half way, hang up, and the store takes the unfinished write back.
sub write_record
{
	my ($token, $seq) = @_;
	my $lines = 4;
	my $pause = $seq % 6 == 0 ? $ttl / 3 : 0.02;    # some take longer than the TTL
	my $store = IO::Socket::UNIX->new(Peer => $socket) or die "could not reach the store: $!\n";

	return 0 unless still_ours($token);
	stand_still($token) if $aimed_at;
	tell_store($store, "write $token $writer $seq");
	my $answer = hear_store($store);
	if ($answer ne 'go')
	{
		event('refused', $token, $seq);
		return 0;
	}
	event('writing', $token, $seq);
	foreach my $n (1 .. $lines)
	{
		sleep $pause;
		return 0 unless still_ours($token);
		tell_store($store, "line $token $writer $seq: line $n of $lines");
	}
	tell_store($store, 'end');
	return hear_store($store) eq 'ok';
}

my $seq = 0;
my $attempt = 0;

event('ready');
until ($stop)
{
	my $token = acquire("$writer/" . ++$attempt);
	unless (defined $token)
	{
		sleep 0.02 + rand 0.08;
		next;
	}
	event('acquired', $token);
	$seq++;
	event('wrote', $token, $seq) if write_record($token, $seq);
	my $released = ask(now() + $patience, 'SELECT lease.release(?, ?)', $name, $token);
	event($released ? 'released' : 'lost', $token);
	sleep rand 0.1;
}
