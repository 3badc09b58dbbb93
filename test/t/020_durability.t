# A grant outlives a crash.
#
# A grant that a client was told of stands after an immediate stop or the
# SIGKILL of a backend, with full_page_writes on and off, in a ledger that is
# brand-new and right after a checkpoint; and it has its full TTL then, counted
# from when the server accepted connections.  What was released may come back
# for one TTL after a crash, and never after a clean restart; what was released
# by force does not come back at all; a closed name does not open early.
# Guards invariant 3 (grants outlive crashes), 4 (no lease is lost early) and 5
# (a restart counts each TTL anew, once).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant CLIENTS => 4;

# Where nothing else writes WAL, freezing the WAL writer leaves on disk only
# what the caller of a lease function has flushed.
my $node = lease_node(
	'durability', conf => q{
	restart_after_crash = on
	autovacuum = off
	shared_buffers = 32MB
	lease.max_leases = 200000});

# A client takes one lease after the other and releases every third, telling
# of each as soon as it knows.
sub start_client
{
	my ($db, $prefix) = @_;
	return start_psql($node, <<~SQL, db => $db);
		SET application_name = 'load';
		DO \$\$
		DECLARE
			name text;
			token bigint;
		BEGIN
			FOR i IN 1 .. 1000000 LOOP
				name := '$prefix/' || i;
				token := lease.try_acquire(name, '1 hour');
				COMMIT;
				RAISE INFO 'held % %', name, token;
				CONTINUE WHEN i % 3 > 0;
				RAISE INFO 'leaving % %', name, token;
				PERFORM lease.release(name, token);
				COMMIT;
			END LOOP;
		END
		\$\$;
		SQL
}

sub count_live
{
	my ($db) = @_;
	return $node->safe_psql($db, 'SELECT count(*) FROM lease.leases');
}

# Run clients, break something while they are at it, and return what they told.
sub told_until
{
	my ($db, $break) = @_;
	my @clients = map { start_client($db, "client$_") } 1 .. CLIENTS;
	my $told = '';

	wait_for('the load',
		sub { $_->{run}->pump_nb foreach @clients; count_live($db) > 200 });
	$break->();
	$told .= (finish_psql($_))[1] foreach @clients;
	$node->poll_query_until($db, 'SELECT true') or die 'the server did not come back';
	return $told;
}

# What a client was told of, against what the server knows: of what it was told
# last, and of that alone, a client cannot know how it went on.
sub check_grants
{
	my ($db, $told, $when) = @_;
	my %live = $node->safe_psql($db, 'SELECT name, token FROM lease.leases') =~ /^(.*)\|(\d+)$/mg;
	my %held = $told =~ /held (\S+) (\d+)/g;
	my %left = $told =~ /leaving (\S+) (\d+)/g;
	my @missing = grep { !$left{$_} && ($live{$_} // 0) != $held{$_} } sort keys %held;
	my @returned = grep { $left{$_} } keys %live;
	my @untold = grep { !$held{$_} } keys %live;

	note(sprintf '%s: %d grants, %d released, of which %d came back', $when,
		scalar keys %held, scalar keys %left, scalar @returned);
	cmp_ok(keys(%held) - keys(%left), '>', 100, "$when: clients were told of grants");
	is(scalar @missing, 0, "$when: every one of them stands")
	  or diag("missing: @missing[0 .. ($#missing < 9 ? $#missing : 9)]");
	cmp_ok(scalar @untold, '<=', CLIENTS, "$when: nothing else does, but a last one each");
	return;
}

# Whatever came back is gone after one TTL.
sub check_one_ttl
{
	my ($db, $when) = @_;
	advance_clock($node, '1 hour');
	is(count_live($db), '0', "$when: nothing outlives one more TTL");
	wait_for('reaping',
		sub { $node->safe_psql($db, 'SELECT leases_used = 0 FROM lease.status') eq 't' });
	return;
}

sub kill_a_backend
{
	my $pid = a_loader($node);

	kill 'KILL', $pid or die "could not kill process $pid";
	return;
}

sub stop_after_checkpoint
{
	$node->safe_psql('postgres', 'CHECKPOINT');
	stop_at_once($node);
	return;
}

# The very first rows of a ledger: its page has never been on disk.
sub check_first_rows
{
	my ($db, $fpw) = @_;
	my $token;

	create_lease($node, $db);
	$token = acquire($node, 'first', db => $db);
	stop_at_once($node);
	ok(is_held($node, 'first', $token, db => $db),
		"full_page_writes $fpw: the first grant of a ledger stands after an immediate stop");
	release($node, 'first', $token, db => $db);
	return;
}

foreach my $fpw (qw(on off))
{
	my $db = "fpw_$fpw";

	$node->append_conf('postgresql.conf', "full_page_writes = $fpw");
	$node->reload;
	check_first_rows($db, $fpw);
	for my $round (1 .. full_size(1, 7))
	{
		foreach ([ 'immediate stop', sub { stop_at_once($node) } ],
			[ 'immediate stop after a checkpoint', \&stop_after_checkpoint ],
			[ 'SIGKILL of a backend', \&kill_a_backend ])
		{
			my ($what, $break) = @$_;
			my $when = "full_page_writes $fpw, $what";

			check_grants($db, told_until($db, $break), $when);
			check_one_ttl($db, $when);
		}
	}
	ledger_is_sound($node, "full_page_writes $fpw", db => $db);
}

# What a caller did not flush itself is lost in a crash now.
my $walwriter = freeze($node, 'walwriter');
my $kept = acquire($node, 'kept');
my $released = acquire($node, 'released');
my $forced = acquire($node, 'forced');
$node->safe_psql('postgres', q{SELECT lease.force_release('forced', 'test')});
release($node, 'released', $released);
crash($node, $walwriter);
ok(is_held($node, 'kept', $kept), 'a grant is flushed before the client hears of it');
ok(!is_held($node, 'forced', $forced), 'a forced release is flushed');
note('a release came ' . (is_held($node, 'released', $released) ? 'back' : 'through'));
check_one_ttl('postgres', 'crash without a WAL writer');

# A release is on disk before long, though nobody else has anything to flush: no
# buffer has to be evicted, the background writer, which logs a snapshot now and
# then, is frozen, and the reaper has left.
$node->append_conf('postgresql.conf', q{lease.history_retention = 0});
$node->restart;
wait_for_launcher($node);
$released = acquire($node, 'released');
wait_for('the reaper to have removed the history', sub {
	$node->safe_psql('postgres', q{
		SELECT (SELECT count(*) FROM lease.history) +
			(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'lease reaper')}) eq '0' });
my $bgwriter = freeze($node, 'background writer');
sub all_is_flushed { return $node->lsn('flush') eq $node->lsn('insert') }
wait_for('what the server itself has to write', \&all_is_flushed);
release($node, 'released', $released);
wait_for('the release to be flushed', \&all_is_flushed);
crash($node, $bgwriter);
ok(!is_held($node, 'released', $released), 'a release of some time ago stays one after a crash');
wait_for_launcher($node);
$node->append_conf('postgresql.conf', q{lease.history_retention = 7d});
$node->reload;

# Who is told of a grant while others flush, too, has it on disk then: of that the
# leader of a flush could be wrong, who wakes those that it flushed for.
$node->pgbench(
	'--no-vacuum --client=16 --jobs=2 --protocol=prepared --transactions=' . full_size(400, 20000), 0,
	[qr/number of failed transactions: 0 /], [qr/^$/], 'each of sixteen clients finds its grants on disk',
	{ '020_together' => q{
		SELECT pg_current_wal_insert_lsn() AS before \gset
		SELECT lease.try_acquire('together/' || :client_id, '1 hour') AS token \gset
		SELECT 1 / (pg_current_wal_flush_lsn() > :before::pg_lsn)::integer AS is_on_disk \gset
		SELECT lease.release('together/' || :client_id, :token);
		} });

# synchronous_commit = off leaves the flush to the WAL writer.
sub is_durable
{
	my ($name) = @_;
	return $node->safe_psql('postgres', "SELECT durable FROM lease.leases WHERE name = '$name'");
}

$walwriter = freeze($node, 'walwriter');
my $soft = $node->safe_psql('postgres',
	q{SET synchronous_commit = off; SELECT lease.try_acquire('soft', '1 hour')});
ok(is_held($node, 'soft', $soft), 'synchronous_commit = off: the lease is granted');
is(is_durable('soft'), 'f', 'the view shows it as not durable while it is not flushed');
thaw($walwriter);
wait_for('the WAL writer', sub { is_durable('soft') eq 't' });
stop_at_once($node);
ok(is_held($node, 'soft', $soft), 'once it shows as durable, it stands after an immediate stop');
release($node, 'soft', $soft);

# TTLs count from when the server accepted connections, not from first use.
sub remaining_minutes
{
	my ($name) = @_;
	return $node->safe_psql('postgres',
		"SELECT extract(epoch FROM remaining) / 60 FROM lease.leases WHERE name = '$name'");
}

sub is_about
{
	my ($minutes, $wanted, $what) = @_;
	ok($minutes <= $wanted && $minutes > $wanted - 5, $what) or diag("$minutes minutes");
	return;
}

foreach my $mode (qw(immediate fast))
{
	my $token = acquire($node, 'ttl');
	advance_clock($node, '50 min');
	$node->stop($mode);
	$node->start;
	wait_for_launcher($node);
	advance_clock($node, '30 min');
	is_about(remaining_minutes('ttl'), 30, "$mode stop: the TTL counts from the start");
	ok($node->safe_psql('postgres', "SELECT lease.try_renew('ttl', $token)") eq 't',
		"$mode stop: its holder may renew it");
	is_about(remaining_minutes('ttl'), 60, "$mode stop: to its full TTL");
	release($node, 'ttl', $token);
}

# A renewal to a longer TTL is what a crash gives back.
my $longer = acquire($node, 'longer');
$node->safe_psql('postgres', "SELECT lease.renew('longer', $longer, '3 hours')");
stop_at_once($node);
is_about(remaining_minutes('longer'), 180, 'a renewal to a longer TTL outlives a crash');
$node->safe_psql('postgres', "SELECT lease.renew('longer', $longer, '1 min')");

# What was released stays released over a clean restart.
release($node, 'longer', $longer);
$kept = acquire($node, 'kept');
$node->restart;
is(names_held($node), 'kept', 'clean restart: what was released stays released');
release($node, 'kept', $kept);

# Closed names.  One lease with a lock_delay expires and is reaped, one has
# expired when the server crashes, one with a min_hold is released.
sub close_names
{
	my $paced;

	acquire($node, 'reaped', lock_delay => '2 hours');
	advance_clock($node, '1 hour');
	wait_for(
		'closing the name',
		sub {
			$node->safe_psql(
				'postgres', q{
				SELECT count(*) FROM lease.ledger WHERE name = 'reaped' AND kind = 'closure'}) == 1;
		});
	$paced = acquire($node, 'paced', min_hold => '2 hours');
	release($node, 'paced', $paced);
	return;
}

sub check_closed
{
	my ($when, @names) = @_;
	foreach my $name (@names)
	{
		is(acquire($node, $name), undef, "$when: $name is closed");
	}
	return;
}

sub check_open
{
	my ($when, @names) = @_;
	foreach my $name (@names)
	{
		my $token = acquire($node, $name);
		ok($token, "$when: $name is open");
		release($node, $name, $token) if $token;
	}
	return;
}

close_names();
acquire($node, 'expired', lock_delay => '2 hours');
my $launcher = freeze($node, 'lease launcher');
advance_clock($node, '1 hour');
check_closed('before the crash', qw(reaped expired paced));
crash($node, $launcher);
wait_for_launcher($node);
advance_clock($node, '119 min');
check_closed('119 minutes after the crash', qw(reaped expired paced));
advance_clock($node, '62 min');
check_open('three hours after it', qw(reaped expired paced));

close_names();
$node->restart;
wait_for_launcher($node);
advance_clock($node, '119 min');
check_closed('119 minutes after a clean restart', qw(reaped paced));
advance_clock($node, '2 min');
check_open('two hours after it', qw(reaped paced));

# By force, and for good.
close_names();
$walwriter = freeze($node, 'walwriter');
$node->safe_psql('postgres',
	"SELECT lease.force_release('$_', 'test', reopen => true)") foreach qw(reaped paced);
crash($node, $walwriter);
check_open('reopened by force, and a crash', qw(reaped paced));

$node->stop;
done_testing();
