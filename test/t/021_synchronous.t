# A grant reaches the synchronous standby before its client hears of it.
#
# A wait for the standby can be cut short: by a cancel, a time-out, a termination.
# A commit would stand then; a grant is taken back, on this server at once, and
# on a standby that got its row but not the end of it after one TTL.  Guards
# invariant 3 over a fail-over (the client's grants are there), 8 (whatever ends
# a call early, it is as if the call had not been made) and 5 (no name stays taken
# for longer than a TTL because of it).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $primary = lease_node(
	'primary',
	allows_streaming => 1,
	conf => q{
		autovacuum = off
		wal_sender_timeout = 0
		wal_receiver_timeout = 0});
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
require_standby('standby');
wait_for_standby();

# The name that the primary waits for, or none.
sub require_standby
{
	my ($name) = @_;

	$primary->append_conf('postgresql.conf', "synchronous_standby_names = '$name'");
	$primary->reload;
	return;
}

sub wait_for_standby
{
	return wait_for('a synchronous standby',
		sub { $primary->safe_psql('postgres', 'SELECT sync_state FROM pg_stat_replication') eq 'sync' });
}

# Nothing goes to the standby from now on, until the result is thawed.
sub cut_off { return freeze($primary, 'walsender') }

# What a session does without waiting for the standby.
sub locally
{
	my ($sql) = @_;
	return $primary->safe_psql('postgres', "SET synchronous_commit = local; $sql");
}

sub activity
{
	my ($session, $what) = @_;
	return $primary->safe_psql('postgres',
		"SELECT $what FROM pg_stat_activity WHERE application_name = '$session'");
}

# Start a session that makes a call; %set are its settings.
sub start_call
{
	my ($session, $call, %set) = @_;
	my $set = join '', map { "SET $_ = '$set{$_}';\n" } sort keys %set;

	return start_psql($primary,
		"\\set VERBOSITY verbose\nSET application_name = '$session';\n${set}SELECT $call");
}

# The same, and wait until it waits for the standby.
sub start_waiting
{
	my ($session, @call) = @_;
	my $psql = start_call($session, @call);

	wait_for("$session waiting for the standby",
		sub { activity($session, 'wait_event') eq 'SyncRep' });
	return $psql;
}

#
# Who waits for what
#
foreach my $mode (qw(remote_write on remote_apply))
{
	my $walsender = cut_off();
	my $waiting =
	  start_waiting($mode, "lease.try_acquire('$mode')", synchronous_commit => $mode);

	is(names_held($primary), '', "$mode: no lease is held before the standby has it");
	thaw($walsender);
	my ($token) = finish_psql($waiting);
	ok(is_held($primary, $mode, $token), "$mode: the lease is held once it has");
	is(names_held($standby), $mode, 'remote_apply: the standby shows it by then')
	  if $mode eq 'remote_apply';
	locally("SELECT lease.release('$mode', $token)");
}

my $walsender = cut_off();
foreach my $mode (qw(off local))
{
	my $token = $primary->safe_psql('postgres',
		"SET synchronous_commit = $mode; SELECT lease.try_acquire('$mode')");
	ok(is_held($primary, $mode, $token), "$mode: no wait for a standby that is cut off");
	ok(release($primary, $mode, $token), "$mode: nor does a release wait, in any mode");
}
thaw($walsender);

# A standby that has the row on disk and does not replay it.
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
my $flushed = acquire($primary, 'flushed');
ok(is_held($primary, 'flushed', $flushed), 'on: what is on the standby\'s disk is granted');
unlike(names_held($standby), qr/flushed/, 'though the standby does not show it yet');
my $applying = start_waiting('applied', q{lease.try_acquire('applied')},
	synchronous_commit => 'remote_apply');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
finish_psql($applying);
is(names_held($standby), 'applied flushed', 'remote_apply: granted when the standby shows it');
locally('SELECT lease.release(name, token) FROM lease.leases');

#
# Waits that are cut short
#
my @calls = qw(acquire transfer renew);
my @signals = qw(cancel terminate);
my %sql;
my %held;

foreach my $end (@signals, 'timeout')
{
	$sql{"acquire/$end"} = "lease.try_acquire('acquire/$end', '1 hour', request_id => 'mine')";
	$held{$_} = acquire($primary, $_) for "transfer/$end", "renew/$end";
	$sql{"transfer/$end"} = qq{lease.transfer('transfer/$end', $held{"transfer/$end"}, 'heir')};
	$sql{"renew/$end"} = qq{lease.renew('renew/$end', $held{"renew/$end"}, '2 hours')};
}

# A lease as memory has it and as the ledger has it: token and TTL each.
sub memory
{
	my ($name) = @_;
	return $primary->safe_psql('postgres', "SELECT token, ttl FROM lease.leases WHERE name = '$name'");
}

sub ledger
{
	my ($name) = @_;
	return $primary->safe_psql('postgres', "SELECT token, ttl FROM lease.ledger WHERE name = '$name'");
}

# The lease that there was before the call, if any.
sub former
{
	my ($name) = @_;
	return $held{$name} ? "$held{$name}|01:00:00" : '';
}

sub check_taken_back
{
	my ($name) = @_;

	is(memory($name), former($name), "$name: leases are as before the call");
	is(ledger($name), former($name), "$name: so are the ledger's rows");
	return;
}

# The same call again, by somebody who does not wait for the standby.
sub check_open
{
	my ($name) = @_;

	isnt(locally("SELECT $sql{$name}"), '', "$name: the same call is open to others");
	return;
}

$walsender = cut_off();
foreach my $call (@calls)
{
	my $name = "$call/timeout";
	my ($out, $err) = finish_psql(start_call($name, $sql{$name}, statement_timeout => '300ms'));

	like($err, qr/ERROR:  57014: /, "$name: statement_timeout fails the call");
	is($out, '', "$name: it returns nothing");
	check_taken_back($name);
	check_open($name);
}

my %waiting = map { $_ => start_waiting($_, $sql{$_}) }
  map { my $call = $_; map { "$call/$_" } @signals } @calls;
my $patient = start_waiting('patient', q{lease.try_acquire('patient', request_id => 'mine')});

# While they wait.
foreach my $name (sort keys %waiting)
{
	is(memory($name), former($name), "$name: nothing is done yet");
}
is(acquire($primary, 'acquire/cancel'), undef, 'a racer is turned away at once');
is(acquire($primary, 'acquire/cancel', request_id => 'another'),
	undef, 'so is one with a request id of its own');
is($primary->safe_psql('postgres', "SELECT lease.renew('renew/cancel', $held{'renew/cancel'})"),
	'01:00:00', 'a renewal that waits does not keep a plain one from the holder');

# Retries of two first attempts: one will be cancelled, one will be confirmed.
my %retry = map { $_->[0] => start_call(@$_) }
  [ 'retry', $sql{'acquire/cancel'} ],
  [ 'impatient', q{lease.try_acquire('patient', request_id => 'mine')} ];
foreach my $session (sort keys %retry)
{
	wait_for("$session waiting for the first attempt",
		sub { activity($session, 'wait_event_type') eq 'Extension' });
}

foreach my $name (sort keys %waiting)
{
	my ($signal, $complaint) = $name =~ /cancel/
	  ? ('pg_cancel_backend', qr/ERROR:  57014: .*DETAIL:  No synchronous standby confirmed/s)
	  : ('pg_terminate_backend', qr/terminating connection/);

	activity($name, "$signal(pid)");
	my ($out, $err) = finish_psql($waiting{$name});
	like($err, $complaint, "$name: the call fails, and the client hears why");
	is($out, '', "$name: it returns nothing");
}

# All but what a retry has asked for already.
foreach my $name (grep { $_ ne 'acquire/cancel' } sort keys %waiting)
{
	check_taken_back($name);
	check_open($name);
}

# The retry of what was cancelled asks for a grant of its own.
wait_for('the retry waiting for the standby', sub { activity('retry', 'wait_event') eq 'SyncRep' });
is(memory('acquire/cancel'), '', 'the retry of a cancelled call does not get that one\'s lease');

# A forced release is not taken back: its caller is warned.
my $forced = start_waiting('forced', q{lease.force_release('transfer/cancel', 'test')});
activity('forced', 'pg_cancel_backend(pid)');
my ($out, $err) = finish_psql($forced);
is($out, '1', 'a forced release whose wait is cancelled stands');
like($err, qr/WARNING: .* canceling wait for synchronous replication/, 'and warns of it');

# The standby is back.
thaw($walsender);
($out, $err) = finish_psql($retry{retry});
is(memory('acquire/cancel'), "$out|01:00:00", 'the retry of a cancelled call gets a lease');
($out, $err) = finish_psql($patient);
is(memory('patient'), "$out|00:00:30", 'who waited until the standby is back gets the lease');
is((finish_psql($retry{impatient}))[0], $out, 'and its retry the same token');
is(ledger('patient'), "$out|00:00:30", 'with one row');

# No standby to wait for, any more.
$walsender = cut_off();
my $relieved = start_waiting('relieved', q{lease.try_acquire('relieved')});
require_standby('');
($out, $err) = finish_psql($relieved);
is(memory('relieved'), "$out|00:00:30", 'synchronous_standby_names = \'\' lets a wait succeed');
is($err, '', 'without a warning');
thaw($walsender);
require_standby('standby');
wait_for_standby();
locally('SELECT lease.release(name, token) FROM lease.leases');

#
# Fail-over under load, each client with another synchronous_commit.  A client
# tells of each grant as soon as it knows.
#
my %clients = map {
	$_ => start_psql($primary, <<~SQL)
		SET application_name = 'load';
		SET synchronous_commit = $_;
		DO \$\$
		DECLARE
			token bigint;
		BEGIN
			FOR i IN 1 .. 1000000 LOOP
				token := lease.try_acquire('$_/' || i, '2 hours');
				RAISE INFO 'held $_/% %', i, token;
			END LOOP;
		END
		\$\$;
		SQL
} qw(remote_write on remote_apply);

sub count_held
{
	my ($mode) = @_;
	return $primary->safe_psql('postgres',
		"SELECT count(*) FROM lease.leases WHERE starts_with(name, '$mode/')");
}

foreach my $mode (sort keys %clients)
{
	wait_for("grants with $mode", sub { count_held($mode) > full_size(20, 2000) });
}

# One grant is to be cancelled when the standby has its row, but does not have
# the end of it any more.
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
my $halfway = start_waiting('halfway', q{lease.try_acquire('halfway', '1 hour')},
	synchronous_commit => 'remote_apply');
$primary->wait_for_catchup($standby, 'flush', $primary->lsn('insert'));
$walsender = cut_off();
activity($_, 'pg_cancel_backend(pid)') for qw(halfway load);
like((finish_psql($halfway))[1], qr/ERROR:  57014: /, 'fail-over: a grant is cancelled on its way');
my $told = join '', map { (finish_psql($_))[1] } values %clients;
my %told = $told =~ /held (\S+) (\d+)/g;

is(memory('halfway'), '', 'fail-over: the old primary has taken it back');
$standby->promote;
thaw($walsender);
$primary->stop('immediate');

my $found = $standby->safe_psql('postgres', 'SELECT name, token FROM lease.leases');
my %found = $found =~ /^(.*)\|(\d+)$/mg;
my @missing = grep { ($found{$_} // 0) != $told{$_} } sort keys %told;
my @untold = grep { !$told{$_} } sort keys %found;

note(sprintf 'fail-over: %d grants were told of, %d others are there',
	scalar keys %told, scalar @untold);
is("@missing[0 .. ($#missing < 9 ? $#missing : 9)]",
	'', 'fail-over: every grant that a client saw is there');
ok($found{halfway}, 'fail-over: so is the one that was cancelled on its way');
cmp_ok(scalar @untold, '<=', 1 + keys %clients,
	'fail-over: nothing else is, but a last one of each client');
advance_clock($standby, '1 hour');
ok(acquire($standby, 'halfway'), 'fail-over: after one TTL its name is free');
advance_clock($standby, '1 hour');
is(names_held($standby), '', 'fail-over: nothing is held for longer than its TTL');

$standby->stop;
done_testing();
