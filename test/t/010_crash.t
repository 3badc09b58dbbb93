# Crashes and restarts under load.
#
# Several sessions acquire and release as fast as they can; in the middle of it
# a backend is killed with SIGKILL, or the server is stopped at once.  Every
# token that a session was told is kept.  Guards invariant 2 (tokens only grow)
# and invariant 3 (a grant that was returned outlives the crash for its full
# TTL; with synchronous_commit = off only the tokens are promised).  A clean
# restart loses nothing: what is held stays held, for its full TTL, and what was
# released stays released.
#
# Tokens that start from the clock would grow without a ledger, too.  So each
# round begins a new epoch, a minute ahead of the clock, which then is no help.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use Test::More;

use constant SESSIONS => 4;

# The WAL writer must not write in time what nobody flushed.
my $node = lease_node('crash', conf => "restart_after_crash = on\nwal_writer_delay = 10s");
my $tokens = LeaseTest::Tokens->new;

# A session's work: contend for a few names, and keep a name of its own now and
# then.  It tells of each grant as soon as it knows of it.
my $work = <<'SQL';
SET application_name = 'load';
DO $$
DECLARE
	name text;
	token bigint;
BEGIN
	FOR turn IN 1 .. 1000000 LOOP
		name := CASE turn % 50 WHEN 0 THEN format('kept/%s/%s', pg_backend_pid(), turn)
							   ELSE format('work/%s', turn % 3) END;
		token := lease.try_acquire(name, '1 hour');
		COMMIT;
		CONTINUE WHEN token IS NULL;
		RAISE INFO 'got % %', token, name;
		IF name LIKE 'work/%' THEN
			PERFORM lease.release(name, token);
			COMMIT;
		END IF;
	END LOOP;
END
$$;
SQL

sub begin_epoch
{
	$node->safe_psql('postgres', q{SELECT lease.new_epoch('the clock is not to help')});
	return;
}

# Run the sessions until the server has granted some thousand tokens, and break
# something.  Returns the grants that nobody released, name => token.
sub grants_until
{
	my ($break, $setting) = @_;

	begin_epoch();
	my $before = $node->safe_psql('postgres', 'SELECT next_token FROM lease.status');
	my @sessions = map { start_psql($node, "$setting;\n$work") } 1 .. SESSIONS;

	$node->poll_query_until('postgres', <<~SQL) or die 'the load did not start';
		SELECT next_token > $before + 2000 FROM lease.status
		WHERE (SELECT count(*) FROM pg_stat_activity
			   WHERE application_name = 'load') = @{[SESSIONS]}
		SQL
	$break->();

	my @told = map { (finish_psql($_))[1] } @sessions;
	$tokens->saw_concurrently(map { [ /got (\d+)/g ] } @told);
	return map { reverse /got (\d+) (kept\S+)/g } @told;
}

sub kill_a_backend
{
	my $pid = a_loader($node);

	kill 'KILL', $pid or die "could not kill process $pid";
	return;
}

# How many of some grants does the server not know, or not in full?
sub count_lost
{
	my (%grants) = @_;
	my $list = join ',', map { "('$_', $grants{$_})" } keys %grants;

	return $node->safe_psql('postgres', <<~SQL);
		SELECT count(*) FROM (VALUES $list) AS g(name, token)
		LEFT JOIN lease.leases l USING (name, token)
		WHERE NOT lease.is_held(name, token)
		   OR l.ttl IS DISTINCT FROM '1 hour' OR l.remaining < '59 min'
		SQL
}

sub release_everything
{
	$node->safe_psql('postgres', <<~'SQL');
		SELECT count(lease.release(name, token)) FROM lease.leases
		SQL
	return;
}

my $rounds = full_size(2, 20);
my %kept;

begin_epoch();
foreach my $kind (
	[ 'SIGKILL of a backend', \&kill_a_backend, 'SET synchronous_commit = on' ],
	[ 'immediate stop, asynchronous', sub { stop_at_once($node) }, 'SET synchronous_commit = off' ],
	[ 'immediate stop', sub { stop_at_once($node) }, 'SET synchronous_commit = on' ])
{
	my ($what, $break, $setting) = @$kind;

	for my $round (1 .. $rounds)
	{
		release_everything();
		%kept = grants_until($break, $setting);
		$node->poll_query_until('postgres', 'SELECT true') or die 'the server did not come back';
		cmp_ok(keys %kept, '>', 10, "$what, $round of $rounds: grants were kept");
		is(count_lost(%kept), 0, "$what, $round of $rounds: each is held, for its full TTL")
		  unless $setting =~ /off/;
		$tokens->saw(acquire($node, 'next'));
		$tokens->only_grew("$what, $round of $rounds");
	}
	ledger_is_sound($node, $what);
}

# Tokens are reserved on disk before they are handed out, also if nothing else
# of the session gets there.
begin_epoch();
$tokens->saw($node->safe_psql('postgres', <<~'SQL'));
	SET synchronous_commit = off;
	SELECT lease.new_epoch('beyond what is reserved') \gset
	SELECT lease.try_acquire('unflushed');
	SQL
stop_at_once($node);
$tokens->saw(acquire($node, 'after the unflushed'));
$tokens->only_grew('crash of a server that flushed nothing but its reservation');

# A clean restart.
my $held = acquire($node, 'restart/held', ttl => '10 min');
my $freed = acquire($node, 'restart/freed');
$tokens->saw($held, $freed);
release($node, 'restart/freed', $freed);
advance_clock($node, '5 min');
$node->restart;
ok(is_held($node, 'restart/held', $held), 'clean restart: a live lease stays live');
is(acquire($node, 'restart/held'), undef, 'clean restart: its name stays taken');
is( $node->safe_psql('postgres',
		q{SELECT remaining > '9 min' FROM lease.leases WHERE name = 'restart/held'}),
	't', 'clean restart: it has its full TTL again');
ok(!is_held($node, 'restart/freed', $freed), 'clean restart: a released lease stays released');
is(count_lost(%kept), 0, 'clean restart: what crashes left is held');
$tokens->saw(acquire($node, 'restart/freed'));
$tokens->only_grew('clean restart');

# Nobody renews: the TTL that the restart gave is the last.
advance_clock($node, '10 min');
ok(!is_held($node, 'restart/held', $held), 'a lease that nobody renews expires after the restart');
$tokens->saw(acquire($node, 'restart/held'));
$tokens->only_grew('expiry after the restart');
is($node->safe_psql('postgres', q{SELECT count(*) FROM lease.ledger WHERE kind = 'ceiling'}),
	1, 'all of this leaves one ceiling row');

$node->stop;
done_testing();
