# The wall clock is nobody's business but people's.
#
# The server runs under libfaketime, which gives it a wall clock that the test
# sets, and leaves its monotonic clock alone.  Stepping it by an hour, either
# way, changes no lease's life: what remains of a TTL, none ends early, none is
# kept late, a closed name opens when it was to.  Tokens grow although the clock
# was set back: within a run, over a restart, over a crash, and to before 2026,
# where the token clock has not begun.
# Guards invariant 2 (tokens only grow), 4 (no lease is lost early) and 5 (none
# is kept late).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use constant HOUR => 3600;

# The library that the command would preload.
my $library = qx{faketime -f +0 printenv LD_PRELOAD 2>/dev/null};
chomp $library;
plan skip_all => 'there is no faketime' unless $library;

my $node = lease_node('clock', conf => 'restart_after_crash = on');
my $tokens = LeaseTest::Tokens->new;
my $clock_file = PostgreSQL::Test::Utils::tempdir() . '/clock';
my $offset;

# Set the server's wall clock, in seconds off the true time.  By renaming,
# since the server's processes read the file at every look at the clock.
sub set_clock
{
	($offset) = @_;
	append_to_file("$clock_file.new", sprintf('%+d', $offset));
	rename "$clock_file.new", $clock_file or die "could not set the clock: $!";
	return;
}

# Start or restart the server with that clock.
sub with_clock
{
	my ($action) = @_;
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{FAKETIME_TIMESTAMP_FILE} = $clock_file;
	local $ENV{FAKETIME_NO_CACHE} = 1;

	# The name depends on the library's version.
	local $ENV{FAKETIME_DONT_FAKE_MONOTONIC} = 1;
	local $ENV{DONT_FAKE_MONOTONIC} = 1;

	$node->$action;
	return;
}

# Without this the test could not fail.
sub clock_is_set
{
	my $off = $node->safe_psql('postgres', 'SELECT extract(epoch FROM now())') - time - $offset;

	ok(abs($off) < HOUR / 4, sprintf 'the wall clock is set: %+d seconds', $offset)
	  or diag("it is $off seconds off that");
	return;
}

# What remains of each lease, in seconds, with the monotonic time before and
# after the look.
sub look
{
	my $before = clock_gettime(CLOCK_MONOTONIC);
	my $rows = $node->safe_psql('postgres',
		'SELECT name, extract(epoch FROM remaining) FROM lease.leases');
	my %remaining = $rows =~ /^(.*)\|(.+)$/mg;

	return { %remaining, since => $before, until => clock_gettime(CLOCK_MONOTONIC) };
}

# Between two looks a lease grows older as the monotonic clock goes on.
sub grew_older
{
	my ($name, $then, $now, $when) = @_;
	my $age = $then->{$name} - $now->{$name};

	ok( $age >= $now->{since} - $then->{until} && $age <= $now->{until} - $then->{since},
		"$when: $name grew older by the time that passed") or diag("$age seconds");
	return;
}

# How far the time of expiry that the view shows is from what it should be.
sub expiry_error
{
	my ($name) = @_;
	return $node->safe_psql('postgres', <<~SQL);
		SELECT extract(epoch FROM expires_at - clock_timestamp() - remaining)
		FROM lease.leases WHERE name = '$name'
		SQL
}

# All that is over is ended, in memory and on disk.
sub becomes_empty
{
	my ($when) = @_;
	return wait_for("$when: reaping",
		sub { leases_used($node) == 0 });
}

# A lease whose TTL runs out while the clock stands elsewhere than when it
# began: lost when its time has come, and not before.
sub check_real_expiry
{
	my ($step, $when) = @_;
	my $began = clock_gettime(CLOCK_MONOTONIC);
	my $token = acquire($node, 'brief', ttl => '500 ms');

	set_clock($step);
	wait_for("$when: expiry", sub { !is_held($node, 'brief', $token) });
	cmp_ok(clock_gettime(CLOCK_MONOTONIC) - $began, '>', 0.5, "$when: a lease is not lost early");
	ok(becomes_empty($when), "$when: nor kept late");
	return;
}

# Leases that end before and after the hour that the clock is stepped by.
sub check_step
{
	my ($step, $when) = @_;
	my ($then, $now, %token);

	set_clock(0);
	clock_is_set();
	$token{$_} = acquire($node, $_, ttl => "$_ min") foreach 50, 70;
	$token{paced} = acquire($node, 'paced', min_hold => '50 min');
	release($node, 'paced', $token{paced});

	$then = look();
	set_clock($step);
	clock_is_set();
	$now = look();
	grew_older($_, $then, $now, $when) foreach 50, 70;
	ok(is_held($node, $_, $token{$_}), "$when: $_ is held") foreach 50, 70;
	is(acquire($node, $_), undef, "$when: $_ is taken") foreach 50, 70, 'paced';
	cmp_ok(abs(expiry_error(50)), '<', HOUR / 4,
		"$when: the view goes by the clock that people see");

	is($node->safe_psql('postgres', "SELECT lease.renew('50', $token{50})"),
		'00:50:00', "$when: a renewal gives the TTL anew");
	advance_clock($node, '51 min');
	ok(!is_held($node, 50, $token{50}), "$when: 50 is over after its 50 minutes");
	ok(is_held($node, 70, $token{70}), "$when: 70 is not");
	$tokens->saw(@token{ 50, 70, 'paced' }, acquire($node, 'paced'));
	$tokens->only_grew("$when, with a name that opened");
	advance_clock($node, '70 min');
	ok(becomes_empty($when), "$when: nothing is kept late");
	check_real_expiry(0, "$when, and back again");
	return;
}

set_clock(0);
$node->stop;
with_clock('start');
check_step(HOUR, 'clock set forward');
check_step(-HOUR(), 'clock set back');
check_real_expiry(HOUR, 'clock set forward meanwhile');
check_real_expiry(-HOUR(), 'clock set back meanwhile');

# Over a restart and a crash.  Tokens begin at the clock, which goes an hour
# ahead and then, as the server stops, two hours back.
sub restart
{
	$node->stop;
	set_clock(-HOUR());
	with_clock('start');
	return;
}

sub crash_at_once
{
	$node->stop('immediate');
	set_clock(-HOUR());
	with_clock('start');
	return;
}

sub crash_in_place
{
	set_clock(-HOUR());
	crash($node, wait_for_launcher($node));
	return;
}

foreach ([ 'restart', \&restart ],
	[ 'immediate stop', \&crash_at_once ],
	[ 'crash of a process', \&crash_in_place ])
{
	my ($what, $happens) = @$_;
	my $held;

	set_clock(HOUR);
	with_clock('restart');
	$tokens->saw($held = acquire($node, 'held'));
	$happens->();
	clock_is_set();
	ok(is_held($node, 'held', $held), "$what, clock set back: a lease is held");
	my $remaining = look()->{held};
	ok($remaining <= HOUR && $remaining > HOUR * 3 / 4, "$what, clock set back: for its own TTL")
	  or diag("$remaining seconds");
	$tokens->saw(acquire($node, 'next'));
	$tokens->only_grew("$what, clock set back");
	$node->safe_psql('postgres', 'SELECT lease.release(name, token) FROM lease.leases');
}

# Before 2026, in the same server and in a database that begins there.
set_clock(1577836800 - time);
with_clock('restart');
clock_is_set();
$tokens->saw(acquire($node, 'earlier'));
$tokens->only_grew('restart before 2026');

create_lease($node, 'early');
my $early = LeaseTest::Tokens->new;
$early->saw(acquire($node, 'first', db => 'early'));
$early->only_grew('a database that begins before 2026');
is($early->newest, 1, 'its first token is 1');
$node->stop('immediate');
with_clock('start');
$early->saw(acquire($node, 'second', db => 'early'));
$early->only_grew('crash before 2026');
set_clock(0);
with_clock('restart');
clock_is_set();
$early->saw(acquire($node, 'third', db => 'early'));
$early->only_grew('restart when the clock is right again');

$node->stop;
done_testing();
