# Foreign tables in guarded transactions: postgres_fdw commits on the other
# server ahead of the commit here, but not before the guards were checked.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $node = lease_node('foreign');

plan skip_all => 'postgres_fdw is not installed'
  unless $node->safe_psql('postgres',
	q{SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'});

$node->safe_psql('postgres', 'CREATE DATABASE there');
$node->safe_psql('there', 'CREATE TABLE told (what text)');
$node->safe_psql('postgres', q{
	CREATE EXTENSION postgres_fdw;
	CREATE SERVER there FOREIGN DATA WRAPPER postgres_fdw
		OPTIONS (dbname 'there', host '} . $node->host . q{', port '} . $node->port . q{');
	CREATE USER MAPPING FOR CURRENT_USER SERVER there;
	CREATE FOREIGN TABLE told (what text) SERVER there;
	CREATE TABLE kept (what text)});

# Write here and there under a guard that is lost before the commit.
sub write_too_late
{
	my ($session, $name) = @_;

	$session->query_safe(qq{SELECT lease.acquire('$name', '1 h') AS t \\gset
		BEGIN;
		SELECT lease.guard('$name', :t);
		INSERT INTO kept VALUES ('$name');
		INSERT INTO told VALUES ('$name')});
	$node->safe_psql('postgres', qq{SELECT lease.force_release('$name', 'test')});
	$session->query('COMMIT');
	like($session->{stderr}, qr/lease "$name" is not held/, "$name: the commit fails");
	$session->{stderr} = '';
	return;
}

sub told { return $node->safe_psql('there', 'SELECT what FROM told ORDER BY what') }

my $session = $node->background_psql('postgres', on_error_stop => 0);

# Its first use is what the guard comes too late for.
write_too_late($session, 'first');
is(told(), 'first', 'a wrapper that the session uses for the first time commits before the check');
write_too_late($session, 'second');
is(told(), 'first', 'from then on the check comes before');
is($node->safe_psql('postgres', 'SELECT count(*) FROM kept'), '0', 'here nothing was committed');

$session->query_safe(q{SELECT lease.acquire('third', '1 h') AS t \gset
	BEGIN;
	SELECT lease.guard('third', :t);
	INSERT INTO told VALUES ('third');
	COMMIT});
is(told(), "first\nthird", 'what is guarded to the end is committed there, too');
$session->quit;

$node->stop;
done_testing();
