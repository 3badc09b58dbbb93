# The ledger under VACUUM FULL and other rewrites.
#
# A grant remembers where its row is, and a rewrite moves the rows.  Whatever
# was done to the table, what is held keeps its row (invariant 3), and what is
# released loses its own and no other.  A table that would not survive a crash
# takes no leases.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = lease_node('rewrite', conf => 'restart_after_crash = on');
my $tokens = LeaseTest::Tokens->new;

sub grants
{
	return $node->safe_psql('postgres',
		q{SELECT string_agg(name || '=' || token, ' ' ORDER BY token) FROM lease.leases});
}

# Rows and leases are the same, and there is one ceiling.
sub ledger_matches
{
	my ($when) = @_;

	is( $node->safe_psql('postgres',
			q{SELECT string_agg(name || '=' || token, ' ' ORDER BY token) FROM lease.ledger
			  WHERE kind = 'grant'}),
		grants(), "$when: the ledger has a row for each lease");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM lease.ledger WHERE kind = 'ceiling'}),
		1, "$when: and one ceiling");
	return;
}

# Releases are on disk when a later grant is: a crash then leaves all as it is.
sub check_crash
{
	my ($when) = @_;

	acquire($node, 'flushed');
	my $before = grants();
	$node->stop('immediate');
	$node->start;
	is(grants(), $before, "$when: what was held is held after a crash");
	ledger_is_sound($node, $when);
	return;
}

sub release_all
{
	$node->safe_psql('postgres', 'SELECT count(lease.release(name, token)) FROM lease.leases');
	return;
}

#
# Rewrites between acquire and release
#
my $space = PostgreSQL::Test::Utils::tempdir();
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION '$space'");

foreach my $rewrite ('VACUUM lease.ledger', 'VACUUM FREEZE lease.ledger', 'VACUUM FULL lease.ledger',
	'ALTER TABLE lease.ledger SET TABLESPACE elsewhere')
{
	# Rows at the end of the table move to where others were before.
	$node->safe_psql('postgres', <<~'SQL');
		SELECT count(lease.try_acquire('name/' || i, '1 hour', metadata => to_jsonb(i)))
		FROM generate_series(1, 300) i;
		SELECT count(lease.release(name, token)) FROM lease.leases WHERE metadata::int <= 150
		SQL
	$node->safe_psql('postgres', $rewrite);
	is( $node->safe_psql('postgres',
			q{SELECT count(*) FROM lease.leases WHERE name = 'name/' || metadata::text}),
		150, "$rewrite: metadata is found");
	$node->safe_psql('postgres', <<~'SQL');
		SELECT bool_and(lease.release(name, token)) FROM lease.leases WHERE metadata::int > 200;
		SELECT lease.renew(name, token, '2 hours'), lease.transfer(name, token, 'other')
		FROM lease.leases WHERE metadata::int > 180
		SQL
	use_up_tokens($node) if $rewrite =~ /FULL/;
	ledger_matches($rewrite);
	check_crash($rewrite);
	ledger_matches("$rewrite and crash");
	$tokens->saw(acquire($node, $rewrite));
	$tokens->only_grew($rewrite);
	release_all();
}

#
# Rewrites in the middle of it all
#
my @sessions = map { start_psql($node, <<~SQL) } 1 .. 3;
	DO \$\$
	DECLARE
		token bigint;
	BEGIN
		FOR turn IN 1 .. 3000 LOOP
			token := lease.try_acquire('busy/$_/' || turn, '1 hour');
			COMMIT;
			IF turn % 20 > 0 THEN
				PERFORM lease.release('busy/$_/' || turn, token);
				COMMIT;
			END IF;
		END LOOP;
	END
	\$\$;
	SQL
my $rewriter = start_psql($node, "VACUUM FULL lease.ledger;\n" x 20);
is((finish_psql($_))[1], '', 'sessions and VACUUM FULL do not disturb each other')
  foreach @sessions, $rewriter;
is($node->safe_psql('postgres', 'SELECT count(*) FROM lease.leases'), 3 * 150, 'all leases are held');
ledger_matches('VACUUM FULL under load');
check_crash('VACUUM FULL under load');

#
# A ledger that would not last
#
my $grants = grants();
foreach (
	[ 'CREATE INDEX strange ON lease.ledger (token)', 'DROP INDEX lease.strange', 'an index' ],
	[ 'ALTER TABLE lease.ledger SET UNLOGGED', 'ALTER TABLE lease.ledger SET LOGGED', 'an unlogged table' ])
{
	my ($break, $mend, $what) = @$_;

	$node->safe_psql('postgres', $break);
	is(sqlstate($node, q{SELECT lease.try_acquire('refused')}), '55000', "$what is refused");
	$node->safe_psql('postgres', $mend);
	is(grants(), $grants, "$what that was mended: all leases are held");
}
is( sqlstate($node, q{
		BEGIN;
		ALTER TABLE lease.ledger SET TABLESPACE pg_default;
		SELECT lease.try_acquire('refused')}),
	'55000', 'a rewrite that may yet be rolled back is refused');
ok(acquire($node, 'after all that'), 'acquired after it was rolled back');
release_all();
ledger_matches('after all that');

$node->stop;
done_testing();
