# pg_dump and restore.
#
# A dump carries how far tokens were reserved, and no lease: the holders are
# elsewhere.  Wherever it is restored, tokens grow beyond those that the
# original had given, also if it gave many more after the dump was taken
# (invariant 2).  A database that has leases and gets a dump's data keeps them
# (invariant 4).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = lease_node('original', conf => 'restart_after_crash = on');
my $elsewhere = lease_node('elsewhere');
my $dumps = PostgreSQL::Test::Utils::tempdir();
my $tokens = LeaseTest::Tokens->new;

sub dump_app
{
	my ($file, @options) = @_;
	$node->command_ok([ 'pg_dump', '-f', "$dumps/$file", @options, $node->connstr('app') ],
		"pg_dump @options");
	return;
}

# Restore a dump into a database, a new one unless there is such.
sub restore
{
	my ($to, $db, $file, @options) = @_;
	my @command = $file =~ /\.sql$/ ? ('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f') : 'pg_restore';
	my $exists = $to->safe_psql('postgres', "SELECT 1 FROM pg_database WHERE datname = '$db'");

	$to->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE template0") unless $exists;
	$to->command_ok([ @command, "$dumps/$file", @options, '-d', $to->connstr($db) ],
		"$file is restored into $db of " . $to->name . " @options");
	return;
}

# A restored database has no leases, and larger tokens than the original gave.
sub check_restored
{
	my ($to, $db) = @_;
	my $its_own = LeaseTest::Tokens->new(beyond => $tokens);
	my $where = "$db of " . $to->name;

	is(names_held($to, db => $db), '', "$where: no leases are restored");
	$its_own->saw(acquire($to, 'held', db => $db));
	$its_own->only_grew("$where, beyond the original");
	return $its_own;
}

#
# What a dump holds.  Tokens are ahead of the clock, so that it is no help.
#
create_lease($node, 'app');
$node->safe_psql('app', q{SELECT lease.new_epoch('ahead of the clock')}) for 1 .. 2;
$tokens->saw(acquire($node, 'held', db => 'app', holder => 'its holder', lock_delay => '1 h'));
$tokens->saw(acquire($node, 'closed', db => 'app', holder => 'its holder', min_hold => '1 h'));
release($node, 'closed', $tokens->newest, db => 'app');
dump_app('older.sql');
dump_app('older.dump', '-Fc');
dump_app('data.sql', '--data-only');
dump_app('data_without_triggers.sql', '--data-only', '--disable-triggers');

my $older = slurp_file("$dumps/older.sql");
my ($rows) = $older =~ /^COPY lease\.ledger [^\n]*\n(.*?)^\\\.$/ms;
like($rows, qr/\Aceiling\t[^\n]*\n\z/, 'a dump holds one row, a ceiling');
unlike($older, qr/its holder/, 'and no lease');

# The original goes on, beyond the ceiling that the dumps know.
use_up_tokens($node, db => 'app');
$tokens->saw(acquire($node, 'last of the original', db => 'app'));
$tokens->only_grew('the original');
my $original = $tokens;
ok($node->safe_psql('app', q{SELECT max(token) FROM lease.ledger WHERE kind = 'ceiling'})
	  > ($rows =~ /^ceiling\t(\d+)/)[0] + 100000, 'it went beyond the ceiling of the dumps');

#
# Restored, with the original still there, and in its place
#
restore($node, 'beside', 'older.sql');
check_restored($node, 'beside');
restore($node, 'atomic', 'older.dump', '--single-transaction');
check_restored($node, 'atomic');
restore($elsewhere, 'app', 'older.sql', '--single-transaction');
my $moved = check_restored($elsewhere, 'app');
restore($elsewhere, 'parallel', 'older.dump', '--jobs=2');
check_restored($elsewhere, 'parallel');

$elsewhere->stop('immediate');
$elsewhere->start;
is(names_held($elsewhere, db => 'app'), 'held', 'leases of a restored database outlive a crash');
$moved->saw(acquire($elsewhere, 'after a crash', db => 'app'));
$moved->only_grew('a restored database, after a crash');

$node->safe_psql('postgres', 'DROP DATABASE app');
restore($node, 'app', 'older.sql');
$tokens = check_restored($node, 'app');
ledger_is_sound($node, 'a restored database', db => 'app');

#
# Restored, used, and restored again: the first restore's tokens were given, too
#
create_lease($elsewhere, 'source');
$tokens = LeaseTest::Tokens->new;
$tokens->saw(acquire($elsewhere, 'held', db => 'source'));
$elsewhere->command_ok([ 'pg_dump', '-f', "$dumps/again.sql", $elsewhere->connstr('source') ], 'pg_dump');
for my $time ('once', 'twice')
{
	restore($elsewhere, 'again', 'again.sql');
	$tokens->saw(acquire($elsewhere, 'held', db => 'again'));
	$tokens->only_grew("restored $time");
	$elsewhere->safe_psql('postgres', 'DROP DATABASE again');
}

#
# The data alone, into a database that has leases already
#
foreach my $file ('data.sql', 'data_without_triggers.sql')
{
	my $db = $file =~ s/\.sql//r;

	create_lease($elsewhere, $db);
	my $mine = acquire($elsewhere, 'mine', db => $db);
	my $its_own = LeaseTest::Tokens->new(beyond => $original);
	restore($elsewhere, $db, $file);
	ok(is_held($elsewhere, 'mine', $mine, db => $db), "$db: leases are kept");

	# What no trigger tells is found out at the next start.
	$its_own->saw(acquire($elsewhere, 'at once', db => $db)) unless $file =~ /without/;
	$elsewhere->restart;
	ok(is_held($elsewhere, 'mine', $mine, db => $db), "$db: over a restart");

	# What that wrote reaches the disk before the crash, with another's grant.
	acquire($elsewhere, "flush $db");
	$elsewhere->stop('immediate');
	$elsewhere->start;
	ok(is_held($elsewhere, 'mine', $mine, db => $db), "$db: and over a crash");
	$its_own->saw(acquire($elsewhere, 'next', db => $db));
	$its_own->only_grew("$db, beyond the original");
	$elsewhere->stop('immediate');
	$elsewhere->start;
	like(names_held($elsewhere, db => $db), qr/mine next$/, "$db: and over another crash");
	$its_own->saw(acquire($elsewhere, 'last', db => $db));
	$its_own->only_grew("$db, after another crash");
	ledger_is_sound($elsewhere, $db, db => $db);
}

$node->stop;
$elsewhere->stop;
done_testing();
