# keepalive.c as another program uses it: several leases in one loop, each with
# its own connection, kept, released, lost, taken over from elsewhere.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run ();
use LeaseTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = lease_node('keepalive');
my $tree = "$FindBin::RealBin/../..";
my $keeper = build_client('keeper', "$tree/test/tools/keeper.c",
	map { "$tree/src/leasectl/$_.c" } qw(keepalive hosts));

sub start_keeper
{
	my ($ttl, @names) = @_;
	my %k = (in => '', out => '', err => '');

	local $ENV{KEEPER_CONNINFO} = $node->connstr('postgres');
	$k{run} = IPC::Run::start([ $keeper, $ttl, @names ], '<', \$k{in}, '>', \$k{out}, '2>', \$k{err},
		IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default));
	return \%k;
}

# Wait for a line; returns what it captures.
sub await
{
	my ($k, $line) = @_;

	pump_until($k->{run}, $k->{run}{TIMERS}[0], \$k->{out}, qr/$line/m);
	return $k->{out} =~ /$line/m ? $1 : undef;
}

sub release_by
{
	my ($k, $name) = @_;
	$k->{in} .= "$name\n";
	return;
}

# A server that was started meanwhile may hold the other end of its input open.
sub stop_keeper
{
	my ($k) = @_;
	$k->{in} .= "\n";
	return $k->{run}->finish;
}

sub renewals
{
	my ($name) = @_;
	return $node->safe_psql('postgres', "SELECT renewals FROM lease.leases WHERE name = '$name'") || 0;
}

# Kept and released
my $held = acquire($node, 'held');
my $k = start_keeper(900, 'a', 'b', "held=$held");
my $a = await($k, '^a held (\d+)$');
my $b = await($k, '^b held (\d+)$');
ok(is_held($node, 'a', $a) && is_held($node, 'b', $b), 'two leases are kept by one loop');
is(await($k, '^held held (\d+)$'), $held, 'and one that was held before, under its token');
ok(wait_for('renewals', sub { !grep { renewals($_) < 2 } qw(a b held) }), 'all are renewed');
is($node->safe_psql('postgres', q{SELECT ttl FROM lease.leases WHERE name = 'held'}),
	'00:00:00.9', 'a renewal brings the TTL that was asked for');
is($k->{err}, '', 'nothing is written to stderr');

# Each has its own connection
$node->safe_psql('postgres',
	q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%lease.renew%' AND pid <> pg_backend_pid()});
my $before = renewals('a');
ok(wait_for('renewals', sub { renewals('a') > $before + 1 }), 'after its session was ended it connects again');
ok(is_held($node, 'a', $a), 'and keeps the token');

release_by($k, 'a');
ok(defined await($k, '^(a released)'), 'a lease is released');
ok(!is_held($node, 'a', $a), 'and the server knows');
ok(is_held($node, 'b', $b), 'others are not');

# Lost
$node->safe_psql('postgres', q{SELECT lease.force_release('b', 'test')});
like(await($k, '^b lost (.*)$'), qr/^LE001 /, 'a lease that was taken away is lost');
$before = renewals('held');
ok(wait_for('renewals', sub { renewals('held') > $before }), 'others are kept');
stop_keeper($k);

# Waits, and does not take the time of the wait for that of the lease
my $taken = acquire($node, 'w');
$k = start_keeper(900, 'w');
wait_for('the queue', sub { $node->safe_psql('postgres', q{SELECT waiters FROM lease.status}) == 1 });
my $long = sub { $node->safe_psql('postgres', q{SELECT waited > '0.4 s' FROM lease.waiters}) eq 't' };
wait_for('a wait longer than a third of the TTL', $long);
release($node, 'w', $taken);
ok(is_held($node, 'w', await($k, '^w held (\d+)$')), 'who waited holds it');
cmp_ok(renewals('w'), '>=', 1, 'and has renewed it before it said so');
stop_keeper($k);

# Ends
$k = start_keeper(900, 'held=1');
like(await($k, '^held (.*)$'), qr/^lost LE001/, 'a token that is not the lease\'s keeps nothing');
stop_keeper($k);
$k = start_keeper(900, 'x' x 200, 'y' x 256);
like(await($k, '^y+ (.*)$'), qr/^refused 22023 .*256 bytes/, 'bad arguments are refused');
stop_keeper($k);
wait_for('the TTLs of what was kept', sub { names_held($node) !~ /held|w|x/ });

# A server that stops, and one that is not there
$k = start_keeper(3_600_000, 's');
await($k, '^s held (\d+)$');
$node->stop('immediate');
$node->start;
release_by($k, 's');
ok(defined await($k, '^(s released)'), 'a lease outlives a crash of the server, and is released after it');
stop_keeper($k);
$node->stop;
$k = start_keeper(900, 'n');
like(await($k, '^n (.*)$'), qr/^unreachable +connection to server/, 'without a server there is none');
stop_keeper($k);

done_testing();
