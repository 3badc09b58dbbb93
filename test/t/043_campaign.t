# campaign: a wait of hours that keeps back neither VACUUM nor CREATE INDEX
# CONCURRENTLY, and that leaves nothing behind if it does not end well.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant WAIT => full_size(2, 3600);    # seconds

my $node = lease_node(
	'campaign', conf => q{
	autovacuum = off
	log_statement = none
	lease.max_ttl = '2 days'});
my $timeout = $PostgreSQL::Test::Utils::timeout_default + full_size(0, 3600);

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

value(q{
	CREATE TABLE rows AS SELECT generate_series(1, 1000) i;
	CREATE TABLE more (LIKE rows);
	CREATE PROCEDURE stand_for(office text, INOUT token bigint) LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO more VALUES (0);
		CALL lease.campaign(office, '1 day', token => token);
		INSERT INTO more VALUES (1);
	END$$});

sub start_session
{
	my ($name) = @_;
	my $psql = $node->background_psql('postgres', on_error_stop => 0, timeout => $timeout);

	$psql->query_safe("SET application_name = '$name'; SET client_min_messages = error");
	return $psql;
}

# Let a session run a statement that has to wait, until it does.
sub ask
{
	my ($psql, $sql) = @_;

	ask_session($psql, "$sql;");
	wait_for('somebody to wait', sub { value('SELECT count(*) FROM lease.waiters') == 1 });
	return;
}

# What of the waiter's transaction others have to respect.
sub horizon
{
	return value(q{SELECT concat_ws(' ', 'waits', backend_xmin, backend_xid)
				   FROM pg_stat_activity JOIN lease.waiters USING (pid)});
}

# Delete all rows and VACUUM: does that give the disk space back?
sub vacuum_removes_rows
{
	value('INSERT INTO rows SELECT generate_series(1, 1000)');
	value('DELETE FROM rows');
	value('VACUUM rows');
	return value('SELECT pg_relation_size($$rows$$)') == 0;
}

sub holder_gets_it
{
	my ($holder) = @_;
	return $holder->query_safe(q{SELECT lease.acquire('leader', scope => 'session')});
}

my $holder = start_session('holder');
my $candidate = start_session('candidate');

#
# What it is there for.  An acquire does keep back VACUUM, so these tests can tell.
#
holder_gets_it($holder);
ask($candidate, q{SELECT lease.acquire('leader', '1 day')});
isnt(horizon(), 'waits', 'an acquire that waits holds a snapshot');
ok(!vacuum_removes_rows(), 'and keeps back VACUUM');
$holder->query_safe('SELECT lease.release_session()');
my ($token, $err) = await_answer($candidate);
ok(release($node, 'leader', $token), 'it gets its lease');

# Nobody is kept back; returns what is wrong.
sub keeps_back
{
	my @wrong;

	push @wrong, horizon() unless horizon() eq 'waits';
	push @wrong, 'VACUUM leaves rows' unless vacuum_removes_rows();
	return "@wrong" if @wrong;    # an index would be waited for in vain
	foreach my $by (undef, $holder)
	{
		my $sql = 'CREATE INDEX CONCURRENTLY i ON rows (i)';

		$by ? $by->query_safe($sql) : value($sql);
		push @wrong, 'index is not valid'
		  unless value(q{SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass}) eq 't';
		value('DROP INDEX i');
	}
	return join ', ', @wrong;
}

sub waited { return value("SELECT waited >= '$_[0]' FROM lease.waiters") eq 't' }

foreach (
	[ 'campaign', q{CALL lease.campaign('leader', '1 day')}, WAIT ],
	[ "a procedure of the user's that calls it", q{CALL stand_for('leader', NULL)}, 0 ])
{
	my ($what, $call, $seconds) = @$_;

	holder_gets_it($holder);
	ask($candidate, $call);
	is(keeps_back(), '', "$what: keeps back neither VACUUM nor CREATE INDEX CONCURRENTLY while it waits");
	for (my $after = 60; $after < $seconds + 60; $after += 60)
	{
		my $then = $after < $seconds ? $after : $seconds;

		wait_for("$then seconds", sub { waited("$then s") });
		is(keeps_back(), '', "$what: nor after $then seconds");
	}
	is(value('SELECT string_agg(i::text, $$ $$) FROM more'), '0', "$what: it has committed what came before")
	  if $call =~ /stand_for/;
	$holder->query_safe('SELECT lease.release_session()');
	($token, $err) = await_answer($candidate);
	is($err, '', "$what: it goes on");
	ok(is_held($node, 'leader', $token), "$what: with the lease");
	release($node, 'leader', $token);
	is(leases_used($node), 0, "$what: which it can release");
}
is(value('SELECT string_agg(i::text, $$ $$ ORDER BY i) FROM more'), '0 1', 'all that the procedure wrote is there');

#
# What does not end well
#
foreach (
	[ 'cancelled', 'pg_cancel_backend', qr/canceling statement due to user request/ ],
	[ 'terminated', 'pg_terminate_backend', qr/terminating connection due to administrator command/ ])
{
	my ($what, $how, $error) = @$_;

	holder_gets_it($holder);
	my $session = start_session('to end');
	ask($session, q{CALL lease.campaign('leader', '1 day')});
	value("SELECT $how(pid) FROM lease.waiters");
	wait_for('the end of the wait', sub { value('SELECT count(*) FROM lease.waiters') == 0 });
	pump_until($session->{run}, $session->{timeout}, \$session->{stderr}, $error);
	like($session->{stderr}, $error, "$what: with an error");
	$session->{run}->finish if $what eq 'terminated';
	$session->quit if $what eq 'cancelled';
	$holder->query_safe('SELECT lease.release_session()');
	is(leases_used($node), 0, "$what: nobody has the lease when its holder lets go");
	is($node->safe_psql('postgres', q{SELECT lease.try_acquire('leader', scope => 'transaction') IS NOT NULL}),
		't', "$what: whoever asks gets it");
}

holder_gets_it($holder);
ask($candidate, q{CALL lease.campaign('leader', '1 day', wait => '300 ms')});
(undef, $err) = await_answer($candidate);
like($err, qr/could not obtain lease "leader" in time/, 'a limited wait: it times out');
$candidate->quit;
$holder->quit;
is(value('SELECT count(*) FROM lease.waiters'), 0, 'nobody waits');

$node->stop;
done_testing();
