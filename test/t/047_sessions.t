# What ends with a session or a transaction, however that comes to its end, and
# what a session that dies leaves to others.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = lease_node('sessions', conf => 'max_connections = 40');

# A client that takes leases with a statement, and then waits for us to end it.
sub start_holder
{
	my ($sql) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);

	$session->query_safe($sql);
	return $session;
}

sub is_waited_for
{
	my ($name) = @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM lease.waiters WHERE name = '$name'");
}

# A client that waits for a name, and prints whether it has it in the end.
sub start_waiting
{
	my ($name, $acquire) = @_;
	my $psql = start_psql($node, "SELECT $acquire > 0; SELECT pg_backend_pid() > 0;");

	wait_for("a waiter for $name", sub { is_waited_for($name) > 0 });
	return $psql;
}

#
# A client killed with SIGKILL abandons its lease: the next gets it at once
# (session), or after the TTL (detached)
#
my $holder = start_holder(q{SELECT lease.acquire('session', scope => 'session');
	SELECT lease.acquire('transaction', scope => 'session');
	SELECT lease.acquire('detached', '1 h');});
my $of_session = start_waiting('session', q{lease.acquire('session')});
my $of_detached = start_waiting('detached', q{lease.acquire('detached')});
$holder->{run}->kill_kill;
is((finish_psql($of_session))[0], "t\nt", 'a client killed with SIGKILL: its session-scoped lease goes to the next at once');
is(is_waited_for('detached'), 1, 'its detached one does not');
advance_clock($node, '1 h');
is((finish_psql($of_detached))[0], "t\nt", 'but does after the TTL');
is(names_held($node), 'detached', 'nothing of it is left');
advance_clock($node, '1 h');

#
# idle_session_timeout ends a session: its session-scoped leases go with it
#
$holder = start_holder(q{SELECT lease.acquire('idle', scope => 'session');});
my $waiter = start_waiting('idle', q{lease.acquire('idle', scope => 'session')});
$holder->query_safe(q{SET idle_session_timeout = '10 ms'});
is((finish_psql($waiter))[0], "t\nt", 'idle_session_timeout ends a session: its session-scoped leases go with it');
$holder->{run}->finish;

# idle_in_transaction_session_timeout, the transaction's.
$holder = start_holder(q{BEGIN; SELECT lease.acquire('idle', scope => 'transaction');});
$waiter = start_waiting('idle', q{lease.acquire('idle', scope => 'session')});
$holder->query_safe(q{SET idle_in_transaction_session_timeout = '10 ms'});
is((finish_psql($waiter))[0], "t\nt",
	'idle_in_transaction_session_timeout ends a transaction: so do its leases');
$holder->{run}->finish;

#
# A pooler's DISCARD ALL serves who waits; a transaction's end does
#
$holder = start_holder(q{SELECT lease.acquire('pooled', scope => 'session');});
$waiter = start_waiting('pooled', q{lease.acquire('pooled', scope => 'session')});
$holder->query_safe('DISCARD ALL');
is((finish_psql($waiter))[0], "t\nt", 'DISCARD ALL lets go of session-scoped leases');

foreach my $end (qw(COMMIT ROLLBACK))
{
	$holder->query_safe(q{BEGIN; SELECT lease.acquire('x', scope => 'transaction')});
	$waiter = start_waiting('x', q{lease.acquire('x', scope => 'session')});
	$holder->query_safe($end);
	is((finish_psql($waiter))[0], "t\nt", "$end frees a transaction-scoped lease");
}

#
# A cancelled permit wait leaves no orphaned permit
#
my @permits = map {
	$node->safe_psql('postgres', "SELECT lease.acquire_permit('s', capacity => 2, ttl => '1 h')")
} 1 .. 2;
$waiter = start_waiting('s', q{lease.acquire_permit('s', permits => 2)});
$node->safe_psql('postgres', 'SELECT pg_cancel_backend(pid) FROM lease.waiters');
like((finish_psql($waiter))[1], qr/canceling statement due to user request/, 'a permit wait is cancelled');
release($node, 's', $_) for @permits;
is($node->safe_psql('postgres', "SELECT lease.try_acquire_permit('s', capacity => 2, permits => 2) > 0"),
	't', 'a cancelled permit wait leaves no orphaned permit');
$node->safe_psql('postgres', 'SELECT lease.release(name, token) FROM lease.leases');

#
# Many clients increment an unprotected counter under the lease, inside
# transactions: no increment is lost
#
my $rounds = full_size(100, 5000);
$node->safe_psql('postgres', 'CREATE TABLE counter AS SELECT 0 AS value');
foreach my $scope (qw(transaction session detached))
{
	my $before = $scope eq 'transaction' ? 'BEGIN;' : '';
	my $after = $scope eq 'transaction' ? 'COMMIT;' : q{SELECT lease.release('counter', :token);};

	$node->safe_psql('postgres', 'UPDATE counter SET value = 0');
	$node->pgbench(
		"--no-vacuum --client=8 --transactions=$rounds", 0,
		[qr/processed: @{[ 8 * $rounds ]}\//], [qr/^$/],
		"increments under a lease of scope $scope",
		{ "047_$scope" => qq{
			$before
			SELECT lease.acquire('counter', ttl => '1 h', scope => '$scope') AS token \\gset
			SELECT value FROM counter \\gset
			UPDATE counter SET value = :value + 1;
			$after} });
	is($node->safe_psql('postgres', 'SELECT value FROM counter'),
		8 * $rounds, "scope $scope: no increment is lost");
}
is(leases_used($node), 0, 'nothing is left');

$node->stop;
done_testing();
