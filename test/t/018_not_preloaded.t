# A server that did not preload the library.
#
# The extension can be created, dumped and dropped there, and everything else
# works; its functions say what is missing.  A server that lost the setting
# keeps its leases on disk, a standby without it follows, and with the setting
# back, all grants are there again (invariant 3) and tokens grow (invariant 2).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $without = "shared_preload_libraries = ''\nlease.max_leases = 100";
my $with = "shared_preload_libraries = 'lease'";
my $dumps = PostgreSQL::Test::Utils::tempdir();

# Every function that is written in C, called with NULLs, and what is built on
# them.  Triggers are called by writes.
my $uses = q{
	SELECT format('%s %s(%s)', CASE p.prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, p.oid::regproc,
				  (SELECT string_agg('NULL::' || format_type(a.type, NULL), ', ' ORDER BY a.n)
				   FROM unnest(p.proargtypes) WITH ORDINALITY AS a(type, n)))
	FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
	WHERE p.pronamespace = 'lease'::regnamespace AND l.lanname = 'c'
	  AND p.prorettype <> 'trigger'::regtype
	UNION ALL VALUES ('TABLE lease.leases'), ('TABLE lease.waiters'), ('TABLE lease.status'),
		('INSERT INTO lease.ledger (kind, token) VALUES (''ceiling'', 1)'),
		('TRUNCATE lease.ledger')};

sub refuses_everything
{
	my ($node, $what) = @_;
	my @uses = split /\n/, $node->safe_psql('postgres', $uses);

	cmp_ok(scalar @uses, '>=', 15, "$what: there is something to refuse");
	foreach my $use (@uses)
	{
		# A standby refuses to write before anybody else can.
		next if $use =~ /^(INSERT|TRUNCATE)/ && $node->name eq 'standby';
		is(sqlstate($node, $use), '55000', "$what: $use");
	}
	like(($node->psql('postgres', 'TABLE lease.leases'))[2],
		qr/ERROR:.*shared_preload_libraries.*HINT:.*shared_preload_libraries/s,
		"$what: the message says what to do");
	return;
}

#
# Never preloaded
#
my $never = PostgreSQL::Test::Cluster->new('never');
$never->init;
$never->append_conf('postgresql.conf', $without);
$never->start;
is(sqlstate($never, 'CREATE EXTENSION lease'), '', 'never preloaded: CREATE EXTENSION works');
refuses_everything($never, 'never preloaded');
is(sqlstate($never, "LOAD 'lease'; TABLE lease.leases"), '55000',
	'never preloaded: LOAD does not help, and does no harm');
is(sqlstate($never, 'CREATE ROLE app; SELECT lease.allow(\'app\'); SELECT lease.disallow(\'app\')'),
	'', 'never preloaded: privileges can be granted and revoked');
$never->command_ok([ 'pg_dump', '-f', "$dumps/never.sql", $never->connstr('postgres') ],
	'never preloaded: pg_dump works');
is(sqlstate($never, $_), '', "never preloaded: $_")
  foreach 'CREATE DATABASE clone', 'ALTER DATABASE clone RENAME TO renamed', 'DROP DATABASE renamed',
  'VACUUM FULL lease.ledger', 'DROP EXTENSION lease', 'CREATE EXTENSION lease',
  'DROP SCHEMA lease CASCADE', 'CREATE TABLE t AS SELECT 1';
$never->safe_psql('postgres', 'DROP TABLE t');
$never->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', "$dumps/never.sql",
		'-d', $never->connstr('postgres') ], 'never preloaded: an unused extension can be restored');
$never->append_conf('postgresql.conf', $with);
$never->restart;
ok(acquire($never, 'name'), 'never preloaded: preloaded at last');
$never->stop;

#
# No longer preloaded, here and on a standby
#
my $tokens = LeaseTest::Tokens->new;
my $node = lease_node('node', allows_streaming => 1);
my $held = acquire($node, 'held', metadata => '{"a": 1}');
$tokens->saw($held, acquire($node, 'released'));
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', $without);
$standby->start;

release($node, 'released', $tokens->newest);
$tokens->saw(acquire($node, 'later'));
$node->wait_for_catchup($standby);
refuses_everything($standby, 'standby');
is( $standby->safe_psql('postgres', q{SELECT string_agg(name, ' ' ORDER BY name)
		FROM lease.ledger WHERE kind = 'grant'}),
	'held later', 'standby: it follows all the same');

# What triggers of ours are on goes on to be checked, and fails where it cannot be.
$node->safe_psql('postgres', q{
	CREATE TABLE guarded (id integer); CREATE TABLE counted (version integer);
	CREATE TABLE fenced (fencing_token bigint);
	INSERT INTO guarded VALUES (1); INSERT INTO counted VALUES (1); INSERT INTO fenced VALUES (1);
	SELECT lease.protect_table('guarded', 'x'), lease.enable_versioning('counted'), lease.enable_fencing('fenced')});

$node->append_conf('postgresql.conf', $without);
$node->restart;
refuses_everything($node, 'no longer preloaded');
is(sqlstate($node, $_->[0]), $_->[1], "no longer preloaded: $_->[0]")
  foreach [ 'DELETE FROM guarded', 'LE003' ], [ 'TRUNCATE guarded', 'LE003' ],
  [ 'UPDATE counted SET version = 1', '' ], [ 'UPDATE counted SET version = 1', '40001' ],
  [ 'UPDATE fenced SET fencing_token = 1', '' ], [ 'UPDATE fenced SET fencing_token = 0', 'LE002' ],
  [ 'UPDATE fenced SET fencing_token = 2', '55000' ];
$node->command_ok([ 'pg_dump', '-f', "$dumps/later.sql", $node->connstr('postgres') ],
	'no longer preloaded: pg_dump works');
like(slurp_file("$dumps/later.sql"), qr/^ceiling\t/m, 'no longer preloaded: it carries the ceiling');
$node->safe_psql('postgres', 'VACUUM FULL lease.ledger');
$node->append_conf('postgresql.conf', $with);
$node->restart;
ok(is_held($node, 'held', $held), 'preloaded again: what was held is held');
is(names_held($node), 'held later', 'preloaded again: and nothing else');
$tokens->saw(acquire($node, 'released'));
$tokens->only_grew('preloaded again');

$node->wait_for_catchup($standby);
$node->stop('immediate');
$standby->promote;
is(sqlstate($standby, 'TABLE lease.leases'), '55000', 'promoted: without the library');
$standby->append_conf('postgresql.conf', $with);
$standby->restart;
ok(is_held($standby, 'held', $held), 'promoted and preloaded: what was held is held');
$tokens->saw(acquire($standby, 'promoted'));
$tokens->only_grew('promoted and preloaded');
ledger_is_sound($standby, 'promoted and preloaded');
$standby->stop;

done_testing();
