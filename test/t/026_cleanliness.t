# The ledger is a table like any other, whatever happened to it.
#
# Its rows are written outside of the rules for transactions, and its visibility
# map is kept by hand: so here the server's own tools look for corruption, on
# the primary and on its standby.  They do page by page of the map; while VACUUM
# runs against grants and releases, so that its bits come and go; and after
# backends were killed and the server was stopped in the middle of that.  Memory
# agrees with the view each time; and when all leases have expired, nothing is
# left in either.
# Guards invariant 3 (a grant is a row that lasts) and 8 (nothing is left in
# shared memory by what ended early).

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant SESSIONS => 4;

my $primary = lease_node(
	'primary',
	allows_streaming => 1,
	conf => q{
		restart_after_crash = on
		log_statement = none
		autovacuum = off
		autovacuum_naptime = 1s});
plan skip_all => 'this server does not come with amcheck and pg_visibility'
  unless value($primary, q{SELECT count(*) FROM pg_available_extensions
						   WHERE name IN ('amcheck', 'pg_visibility')}) == 2;
value($primary, 'CREATE EXTENSION amcheck; CREATE EXTENSION pg_visibility');
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'wal_retrieve_retry_interval = 100ms');
$standby->start;

sub value
{
	my ($node, $sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# A session's work, of so many turns.  Of ten leases nine end, in one way or
# another, and their rows are of all lengths.
sub start_work
{
	my ($turns) = @_;
	return start_psql($primary, <<~SQL);
		SET application_name = 'load';
		SET client_min_messages = error;
		DO \$\$
		DECLARE
			name text;
			token bigint;
		BEGIN
			FOR turn IN 1 .. $turns LOOP
				name := format('load/%s/%s', pg_backend_pid(), turn);
				token := lease.try_acquire(name, '1 hour',
					holder => rpad('holder', turn % 100 + 1, '.'),
					min_hold => CASE turn % 50 WHEN 7 THEN interval '1 hour' END,
					metadata => CASE turn % 4
						WHEN 1 THEN jsonb_build_object('a', repeat('b', turn % 800)) END);
				COMMIT;
				CASE turn % 10
					WHEN 0 THEN
						CONTINUE;
					WHEN 1 THEN
						PERFORM lease.renew(name, token, '90 min');
					WHEN 2 THEN
						token := lease.transfer(name, token, 'heir');
					ELSE
						NULL;
					END CASE;
				COMMIT;
				PERFORM lease.release(name, token);
				COMMIT;
			END LOOP;
		END
		\$\$;
		SQL
}

sub start_vacuum
{
	return start_psql($primary,
		"SET application_name = 'vacuum';\n" .
		  "VACUUM lease.ledger;\nVACUUM (FREEZE, DISABLE_PAGE_SKIPPING) lease.ledger;\n" x 100_000);
}

# Start sessions without end, and wait until they have done something.
sub start_load
{
	my $before = value($primary, 'SELECT next_token FROM lease.status');
	my @sessions = map { start_work(1_000_000) } 1 .. SESSIONS;

	$primary->poll_query_until('postgres', "SELECT next_token > $before + 1000 FROM lease.status")
	  or die 'the load did not start';
	return @sessions;
}

# Nothing is wrong with the ledger, here and on the standby, nor with memory.
sub all_is_sound
{
	my ($when) = @_;
	my $rows = q{SELECT count(*), md5(string_agg(l::text, ' ' ORDER BY l::text))
				 FROM lease.ledger l};

	ok( wait_for("$when: catch-up", sub { value($standby, $rows) eq value($primary, $rows) }),
		"$when: the standby has the same rows");
	foreach my $node ($primary, $standby)
	{
		my $where = "$when, " . $node->name;

		ledger_is_sound($node, $where);
		$node->command_ok([ 'pg_amcheck', '-t', 'lease.ledger', 'postgres' ],
			"$where: so is pg_amcheck");
	}
	ok( wait_for(
			"$when: reaping",
			sub {
				value($primary, q{SELECT leases_used = (SELECT count(*) FROM lease.leases)
								  FROM lease.status}) eq 't';
			}),
		"$when: what the table holds is what the view shows");
	return;
}

# Let all leases run out: nothing is left.
sub ends_well
{
	my ($when) = @_;

	# A closed name opens later than a lease that came back closes it.
	foreach my $turn ('what was held is over', 'what was closed is open')
	{
		advance_clock($primary, '3 hours');
		ok( wait_for(
				"$when: reaping",
				sub { leases_used($primary) == 0 }),
			"$when: memory is empty after $turn");
	}
	is(value($primary, q{SELECT string_agg(kind, ' ') FROM lease.ledger}),
		'ceiling', "$when: and the ledger has nothing but its ceiling");
	return;
}

# The visibility map, page by page.
sub pages
{
	my ($condition) = @_;
	return value($primary,
		"SELECT count(*) FROM pg_visibility_map('lease.ledger') WHERE $condition");
}

value($primary,
	q{SELECT count(lease.try_acquire('page/' || i, '1 hour')) FROM generate_series(1, 2000) i});
value($primary, 'VACUUM (FREEZE) lease.ledger');
is(pages('NOT all_visible OR NOT all_frozen'), 0, 'VACUUM marks every page');
cmp_ok(pages('true'), '>', 10, 'of which there are some');

acquire($primary, "more/$_") foreach 1 .. 3;
cmp_ok(pages('all_visible'), '>', 0, 'grants leave pages marked');
all_is_sound('grants on marked pages');

value($primary, 'CHECKPOINT');
value($primary, q{SELECT lease.release(name, token) FROM lease.leases
				  WHERE name LIKE 'page/%' AND substr(name, 6)::integer % 20 = 0});
is(pages('all_visible'), 0, 'releases take the mark off each page');
all_is_sound('releases on marked pages');
stop_at_once($primary);
is(pages('all_visible'), 0, 'a crash does not bring the mark back');
all_is_sound('releases on marked pages, crash');
value($primary, 'VACUUM (FREEZE) lease.ledger');
is(pages('NOT all_visible OR NOT all_frozen'), 0, 'VACUUM marks every page again');
ends_well('the visibility map');

# VACUUM in all its forms while leases are taken and released.
$primary->append_conf('postgresql.conf', 'autovacuum = on');
$primary->reload;
my $vacuum = start_vacuum();
my @load = map { start_work(full_size(2000, 50_000)) } 1 .. SESSIONS;
ledger_is_sound($primary, 'under load');
is((finish_psql($_))[1], '', 'the load ran to its end') foreach @load;
value($primary,
	q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vacuum'});
finish_psql($vacuum);
all_is_sound('VACUUM under load');
ends_well('VACUUM under load');

# The same, in the middle of which something breaks.
my $rounds = full_size(1, 20);
foreach ([ 'SIGKILL of a backend', sub { crash($primary, a_loader($primary)) } ], [ 'immediate stop', sub { stop_at_once($primary) } ])
{
	my ($what, $break) = @$_;

	foreach my $round (1 .. $rounds)
	{
		my @sessions = (start_vacuum(), start_load());

		$break->();
		finish_psql($_) foreach @sessions;
		all_is_sound("$what, $round of $rounds");
	}
	ends_well($what);
}

$standby->stop;
$primary->stop;
done_testing();
