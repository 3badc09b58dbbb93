# Waiting: served in order of arrival, handed over at once, and nothing left
# behind by those who do not wait to the end.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = lease_node('queue', conf => 'max_connections = 60');

# A client that waits for a lease, and tells when it has it; returns once it
# waits.
my $waits = 0;

sub start_waiter
{
	my ($name, %args) = @_;
	my $label = 'waiter ' . ++$waits;
	my $more = join '', map { ", $_ => '$args{$_}'" } sort keys %args;
	my $psql = start_psql(
		$node, qq{
		SET application_name = '$label';
		INSERT INTO served SELECT '$label', lease.acquire('$name', ttl => '1 h'$more);});

	wait_for("$label to wait", sub { process_of($label) ne '' });
	return { %$psql, label => $label };
}

# The process ID of a client that waits in a queue; empty if it does not.
sub process_of
{
	my ($label) = @_;
	return $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE application_name = '$label'
		 AND wait_event_type = 'Extension'");
}

sub is_served
{
	my ($waiter) = @_;
	return $node->safe_psql('postgres', "SELECT token FROM served WHERE client = '$waiter->{label}'");
}

# Let a lease go and wait until a waiter has it; returns its token.
sub hand_over
{
	my ($name, $token, $waiter) = @_;

	release($node, $name, $token);
	wait_for("$waiter->{label} to be served", sub { is_served($waiter) ne '' });
	return is_served($waiter);
}

sub end_process
{
	my ($waiter, $how) = @_;
	my $pid = process_of($waiter->{label});

	$node->safe_psql('postgres', "SELECT $how($pid)");
	wait_for("$waiter->{label} to leave", sub { process_of($waiter->{label}) eq '' });
	$waiter->{run}->finish;
	return;
}

$node->safe_psql('postgres', 'CREATE TABLE served (client text, token bigint)');

#
# Twenty waiters are served in the order they came
#
my $token = acquire($node, 'order');
my @waiters = map { start_waiter('order') } 1 .. 20;

is($node->safe_psql('postgres', "SELECT lease.try_acquire('order')"), '', 'who does not wait gets nothing');
$token = hand_over('order', $token, $_) for @waiters;
is( $node->safe_psql('postgres', 'SELECT string_agg(client, chr(32) ORDER BY token) FROM served'),
	join(' ', map { $_->{label} } @waiters),
	'twenty waiters are served in the order they came');
finish_psql($_) for @waiters;
release($node, 'order', $token);
is(leases_used($node), 0, 'and leave nothing behind');

#
# Who leaves: cancelled, terminated, gone; in the middle and in front
#
$token = acquire($node, 'leave');
@waiters = map { start_waiter('leave') } 1 .. 5;
end_process($waiters[1], 'pg_cancel_backend');
end_process($waiters[2], 'pg_terminate_backend');
is($node->safe_psql('postgres', "SELECT lease.is_held('leave', $token)"),
	't', 'a waiter in the middle dies: nobody is promoted before the holder lets go');
is(is_served($_), '', 'none is served') for @waiters[ 0, 3, 4 ];
$waiters[0]{run}->kill_kill;
wait_for('the server to notice that a client is gone', sub { process_of($waiters[0]{label}) eq '' });
$token = hand_over('leave', $token, $waiters[3]);
$token = hand_over('leave', $token, $waiters[4]);
finish_psql($_) for @waiters[ 3, 4 ];
is(is_served($_), '', 'who left was not served') for @waiters[ 0 .. 2 ];
release($node, 'leave', $token);
is(leases_used($node), 0, 'those who left leave nothing behind');

#
# The end of a TTL, and of a session
#
my $launcher = freeze($node, 'lease launcher');
acquire($node, 'expiry', ttl => '500 ms');
my $waiter = start_waiter('expiry');
wait_for('the waiter', sub { is_served($waiter) ne '' });
ok(is_held($node, 'expiry', is_served($waiter)), 'an expired lease is taken over without a launcher');
finish_psql($waiter);
release($node, 'expiry', is_served($waiter));
thaw($launcher);

my $gate = acquire($node, 'gate');
my $holder = start_psql($node, q{
	SET application_name = 'holder';
	SELECT lease.acquire('session', scope => 'session');
	SELECT lease.acquire('gate');});
wait_for('the holder', sub { names_held($node) eq 'gate session' });
$waiter = start_waiter('session');
$node->safe_psql('postgres',
	q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holder'});
wait_for('the waiter', sub { is_served($waiter) ne '' });
ok(is_held($node, 'session', is_served($waiter)), "the holder's session is killed: the waiter gets the lease");
finish_psql($waiter);
$holder->{run}->finish;
release($node, 'session', is_served($waiter));
release($node, 'gate', $gate);

#
# Readers and writers
#
my $reader = acquire($node, 'shared', mode => 'shared');
my $writer = start_waiter('shared');
is(acquire($node, 'shared', mode => 'shared'), undef, 'a waiting writer is not overtaken by later readers');
my @readers = map { start_waiter('shared', mode => 'shared') } 1 .. 3;
$token = hand_over('shared', $reader, $writer);
is(is_served($_), '', 'a reader behind it waits') for @readers;
release($node, 'shared', $token);
foreach (@readers)
{
	my $it = $_;
	wait_for('a reader', sub { is_served($it) ne '' });
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM lease.leases WHERE mode = 'shared'}),
	3, 'then all readers are served');
finish_psql($_) for $writer, @readers;
release($node, 'shared', is_served($_)) for @readers;

#
# A retry shares the place of its first call
#
$token = acquire($node, 'retry');
my $first = start_waiter('retry', request_id => 'r', holder => 'it');
my $other = start_waiter('retry');
my $retry = start_waiter('retry', request_id => 'r', holder => 'it');
release($node, 'retry', $token);
wait_for('both', sub { is_served($first) ne '' && is_served($retry) ne '' });
is(is_served($retry), is_served($first), 'a retry gets the token of its first call, which was queued');
$token = hand_over('retry', is_served($first), $other);
finish_psql($_) for $first, $other, $retry;

$first = start_waiter('retry', request_id => 's');
$other = start_waiter('retry');
$retry = start_waiter('retry', request_id => 's');
end_process($first, 'pg_terminate_backend');
$token = hand_over('retry', $token, $retry);
is(is_served($other), '', 'a retry has the place of its first call, which died');
$token = hand_over('retry', $token, $other);
finish_psql($_) for $other, $retry;
release($node, 'retry', $token);

#
# The extension goes
#
$token = acquire($node, 'drop');
$waiter = start_waiter('drop');
$node->safe_psql('postgres', 'DROP EXTENSION lease');
my (undef, $said) = finish_psql($waiter);
like($said, qr/extension "lease" is not installed/, 'dropping the extension ends waits with an error');

$node->stop;
done_testing();
