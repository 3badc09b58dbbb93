# Through a connection pooler.
#
# PgBouncer in transaction mode gives each transaction whatever server connection
# is free: detached leases do not mind, and a second pool for renewals and
# releases keeps holders from queueing behind those who wait.  In session mode
# its DISCARD ALL gives back what a client held in scope session.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant CLIENTS => 200;
use constant ROUNDS => full_size(2, 25);
use constant NAMES => 20;

my $node = lease_node('pooled', conf => "autovacuum = off\nmax_connections = 60\nlog_statement = none");
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $home = PostgreSQL::Test::Utils::tempdir_short();
my $user = $node->safe_psql('postgres', 'SELECT current_user');
my $server = 'host=' . $node->host . ' port=' . $node->port . ' dbname=postgres';

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

value(q{
	CREATE ROLE pooled LOGIN;
	ALTER ROLE pooled SET lease.allow_session_scope = off;
	SELECT lease.allow('pooled');
	CREATE TABLE seen (name text, token bigint);
	CREATE TABLE counter AS SELECT 'name/' || i AS name, 0 AS n FROM generate_series(1, } . NAMES . q{) i;});

# Its databases are its pools.
append_to_file("$home/pgbouncer.ini", <<~INI);
	[databases]
	waiting = $server user=$user pool_mode=transaction pool_size=10
	keeping = $server user=$user pool_mode=transaction pool_size=4
	restricted = $server user=pooled pool_mode=transaction pool_size=1
	sessions = $server user=$user pool_mode=session pool_size=1
	[pgbouncer]
	listen_port = $port
	unix_socket_dir = $home
	auth_type = any
	max_client_conn = 500
	query_wait_timeout = 0
	server_reset_query = DISCARD ALL
	ignore_startup_parameters = extra_float_digits
	logfile = $home/log
	INI
my $bouncer = IPC::Run::start([ '/usr/sbin/pgbouncer', '-q', "$home/pgbouncer.ini" ], '<', \undef, '>&', \my $said);

sub pool { return "host=$home port=$port dbname=$_[0]" }

# A statement through a pool; its answer.
sub through
{
	my ($pool, $sql) = @_;
	my ($out, $err) = run_command([ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', pool($pool), '-c', $sql ]);
	return $err =~ /ERROR:\s+(\w{5})/ ? $1 : $out . $err;
}

# A client of a pool that runs a script while the test goes on.
sub start_client
{
	my ($pool, $script) = @_;
	my $files = PostgreSQL::Test::Utils::tempdir();

	append_to_file("$files/script", $script);
	my $run = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-f', "$files/script", '-d', pool($pool) ],
		'<', \undef, '>', "$files/out", '2>', "$files/err",
		IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default));
	return { run => $run, files => $files };
}

sub wait_for_waiters
{
	my ($count) = @_;
	return wait_for("$count to wait", sub { value('SELECT count(*) FROM lease.waiters') == $count });
}

ok(wait_for('the pooler', sub { through('sessions', 'SELECT 1') eq '1' }), 'the pooler is there');

#
# Transaction mode, two pools
#
# What a client reads of a counter, and writes back plus one, is nobody else's
# meanwhile.  It waits for its lease on one pool; all else is done on the other.
sub client_script
{
	my ($client) = @_;
	my $script = '';

	foreach my $round (1 .. ROUNDS)
	{
		my $name = 'name/' . (1 + ($client + 7 * $round) % NAMES);
		$script .= <<~SQL;
			SELECT lease.acquire('$name', '1 hour') AS token \\gset
			\\c '@{[ pool('keeping') ]}'
			SELECT n FROM counter WHERE name = '$name' \\gset
			SELECT lease.renew('$name', :token) \\g /dev/null
			UPDATE counter SET n = :n + 1 WHERE name = '$name';
			INSERT INTO seen VALUES ('$name', :token);
			SELECT lease.release('$name', :token);
			\\c '@{[ pool('waiting') ]}'
			SQL
	}
	return $script;
}

my @clients = map { start_client('waiting', client_script($_)) } 1 .. CLIENTS;
my @answers = map { [ finish_psql($_) ] } @clients;
my $grants = CLIENTS * ROUNDS;

is(join('', map { $_->[1] } @answers), '', CLIENTS . ' clients over 10 server connections: no lease is lost');
is(scalar(grep { $_->[0] eq join "\n", ('t') x ROUNDS } @answers), CLIENTS, 'each is released by its holder');
is(value('SELECT count(DISTINCT token) FROM seen'), $grants, 'no token is seen twice');
is(value('SELECT sum(n) FROM counter'), $grants, 'nobody else held the name meanwhile');
is(value('SELECT count(*) FROM lease.waiters'), 0, 'nobody waits any more');
is(leases_used($node), 0, 'all are released');

# More wait than there are connections for it.
my $gate = acquire($node, 'gate');
@clients = map {
	start_client('waiting', <<~SQL)
		SELECT lease.acquire('gate', '1 hour') AS token \\gset
		\\c '@{[ pool('keeping') ]}'
		SELECT lease.release('gate', :token);
		SQL
} 1 .. 12;
wait_for_waiters(10);
is(through('keeping', "SELECT lease.try_renew('gate', $gate)"), 't', 'all connections for waiting are taken: a holder renews');
is(through('keeping', "SELECT lease.release('gate', $gate)"), 't', 'and releases');
is(join(' ', map { join '', finish_psql($_) } @clients), join(' ', ('t') x 12), 'and all are served');

# A client that is killed.
$gate = acquire($node, 'gate');
my $waiter = start_client('waiting', q{SELECT lease.acquire('gate', '1 hour')});
wait_for_waiters(1);
$waiter->{run}->signal('KILL');
$waiter->{run}->finish;
ok(wait_for_waiters(0), 'a client that is killed while it waits leaves the queue');
release($node, 'gate', $gate);
is(leases_used($node), 0, 'and nothing behind');

#
# lease.allow_session_scope
#
is(through('restricted', q{SELECT lease.acquire('a', scope => 'session')}),
	'22023', 'lease.allow_session_scope = off refuses the scope that poolers break');
is(through('restricted', q{SELECT lease.release('a', lease.acquire('a'))}), 't', 'and no other: detached');
is(through('restricted', q{SELECT lease.acquire('a', scope => 'transaction') > 0}), 't', 'transaction');

#
# Session mode, one server connection
#
# The next client gets it when the pooler has cleaned up after the one before.
my $before = through('sessions',
	q{SELECT pg_backend_pid() FROM lease.acquire('mine', scope => 'session')});
is(through('sessions', 'SELECT pg_backend_pid()'), $before, 'session mode: the server connection stays');
is(leases_used($node), 0, 'session mode: a lease in scope session is freed when its client goes');

my ($in, $out, $err) = (qq{SELECT lease.acquire('mine', scope => 'session') > 0;\n}, '', '');
my $client = IPC::Run::start([ 'psql', '-XAtq', '-d', pool('sessions') ], '<', \$in, '>', \$out, '2>', \$err,
	my $timer = IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
pump_until($client, $timer, \$out, qr/t\n/);
is(names_held($node), 'mine', 'session mode: another one holds it');
$client->signal('KILL');
$client->finish;
is(through('sessions', 'SELECT leases_used FROM lease.status'), 0, 'session mode: and is killed, which frees it, too');

$node->stop;
done_testing();

END
{
	local $?;
	$bouncer->kill_kill if $bouncer;
}
