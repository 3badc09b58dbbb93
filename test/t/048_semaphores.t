# Semaphores and several names at once, over crashes and DROP EXTENSION.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = lease_node('semaphores');

# Take permits of semaphore "s" for an hour; undef if there are too few.
sub take_permits
{
	my ($permits, %args) = @_;
	my $more = join '', map { ", $_ => '$args{$_}'" } sort keys %args;
	my $token = $node->safe_psql('postgres',
		"SELECT lease.try_acquire_permit('s', permits => $permits, ttl => '1 h'$more)");

	return $token eq '' ? undef : $token;
}

sub capacities
{
	return $node->safe_psql('postgres',
		q{SELECT string_agg(DISTINCT capacity::text, ' ') FROM lease.leases WHERE name = 's'});
}

# Releases are not flushed, and a crash may undo the last of them.
sub crash_after_checkpoint
{
	$node->safe_psql('postgres', 'CHECKPOINT');
	stop_at_once($node);
	return;
}

#
# Permits and capacity survive a crash
#
my @held = map { take_permits(1, capacity => 4) } 1 .. 2;
push @held, take_permits(2);
is(take_permits(1), undef, 'no more permits than capacity');
stop_at_once($node);
is(capacities(), '4', 'after a crash a semaphore has the capacity that its first user set');
is(take_permits(1), undef, 'and all permits are taken');
ok(release($node, 's', $held[2]), 'one of its grants is released');
is(take_permits(3), undef, 'its permits are free, and no others');
ok($held[2] = take_permits(2), 'who fits gets them');

#
# So does a new size, up and down, whichever grants are left
#
foreach my $capacity (6, 3)
{
	$node->safe_psql('postgres', "SELECT lease.set_capacity('s', $capacity)");
	release($node, 's', pop @held);
	crash_after_checkpoint();
	is(capacities(), $capacity, "resized to $capacity, it has that size after a crash");
	is(sqlstate($node, "SELECT lease.try_acquire_permit('s', capacity => 4)"),
		'22023', 'and the old one is refused');
	push @held, take_permits($capacity - @held);
	ok($held[-1], 'so many fit');
	is(take_permits(1), undef, 'and no more');
}
release($node, 's', $_) for @held;

# A name that stays closed after its grant knows the size, too.
my $token = take_permits(1, capacity => 2, min_hold => '1 h');
release($node, 's', $token);
$node->safe_psql('postgres', q{SELECT lease.set_capacity('s', 5)});
crash_after_checkpoint();
is(capacities(), '5', 'a permit that stays closed keeps the new size');
is(take_permits(5), undef, 'and counts');
ok($token = take_permits(4), 'but for itself alone');
release($node, 's', $token);
$node->safe_psql('postgres', q{SELECT lease.force_release('s', 'test', reopen => true)});
is(leases_used($node), 0, 'nothing is left');

#
# acquire_all while it waits: what it has is taken; a crash forgets it
#
my $all = q{SELECT count(*) FROM lease.acquire_all('{a,b,c}', '1 h', request_id => 'r')};
my $waits_for_c = sub {
	$node->safe_psql('postgres', q{SELECT string_agg(name, ' ') FROM lease.waiters}) eq 'c';
};
$token = acquire($node, 'c');
my $waiter = start_psql($node, $all);
wait_for('acquire_all to wait for its last name', $waits_for_c);
is(acquire($node, 'a'), undef, 'what acquire_all has while it waits is taken');
is(acquire($node, 'a', request_id => 'r'), undef, 'also for a retry that does not wait');
is(names_held($node), 'c', 'but not held yet');

# Its retry stands in front of those who came first, and has the same tokens.
my $behind = start_psql($node, q{SELECT lease.acquire('a', '1 h') > 0});
wait_for('a waiter behind it',
	sub { $node->safe_psql('postgres', 'SELECT count(*) FROM lease.waiters') == 2 });
my $retry = start_psql($node, $all =~ s/count\(\*\)/sum(token)/r);
wait_for('its retry', sub { $node->safe_psql('postgres', 'SELECT count(*) FROM lease.waiters') == 3 });
is( $node->safe_psql('postgres', q{SELECT position FROM lease.waiters WHERE name = 'a' ORDER BY waiting_since DESC LIMIT 1}),
	1, 'a retry of acquire_all stands in front of the queue');
release($node, 'c', $token);
is((finish_psql($waiter))[0], 3, 'all three names are had');
is((finish_psql($retry))[0], $node->safe_psql('postgres', 'SELECT sum(token) FROM lease.leases'),
	'a retry gets the same tokens');
release($node, 'a', $node->safe_psql('postgres', q{SELECT token FROM lease.leases WHERE name = 'a'}));
is((finish_psql($behind))[0], 't', 'the next in line is served after it');
$node->safe_psql('postgres', 'SELECT lease.release(name, token) FROM lease.leases; CHECKPOINT');

$token = acquire($node, 'c');
$waiter = start_psql($node, $all);
wait_for('acquire_all to wait', $waits_for_c);
stop_at_once($node);
$waiter->{run}->finish;
is(names_held($node), 'c', 'a crash forgets what acquire_all had');
ok(acquire($node, 'a', ttl => '1 s'), 'so that it is free');

#
# DROP EXTENSION while acquire_all has some names in hand
#
$waiter = start_psql($node, $all =~ s/a,b,c/b,c,d/r);
wait_for('acquire_all to wait', $waits_for_c);
$node->safe_psql('postgres', 'DROP EXTENSION lease');
my (undef, $said) = finish_psql($waiter);
like($said, qr/extension "lease" is not installed/, 'DROP EXTENSION ends the wait of acquire_all with an error');
$node->safe_psql('postgres', 'CREATE EXTENSION lease');
wait_for('the table to be empty', sub { leases_used($node) == 0 });
ok(acquire($node, $_), "$_ is free in the new extension") foreach qw(b c d);

# The same, but the extension is there again before the waiter looks.
$waiter = start_psql($node, $all =~ s/'r'/'s'/r);
wait_for('acquire_all to wait', sub {
	$node->safe_psql('postgres', q{SELECT string_agg(name, ' ') FROM lease.waiters}) eq 'b' });
$node->safe_psql('postgres', 'BEGIN; DROP EXTENSION lease; CREATE EXTENSION lease; COMMIT');
is((finish_psql($waiter))[0], 3, 'DROP and CREATE EXTENSION in one: it has its names in the new one');
is(names_held($node), 'a b c', 'and they are held');
stop_at_once($node);
is(names_held($node), 'a b c', 'durably');

$node->stop;
done_testing();
