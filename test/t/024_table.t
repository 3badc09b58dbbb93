# A full table: its size, its speed, and that nothing stays in it.
#
# What lease.max_leases asks for in shared memory is at most 400 bytes a lease;
# and that many leases fit, with names of 64 and holders of 32 bytes each, but
# not one more.  How long try_acquire takes among so many, compared with among a
# thousand, is measured and not asserted.  All of them expire together, are gone
# at once, and are reaped; the table is good for as many again after that.
# Names that were used once leave nothing behind, however their leases ended.
# Guards invariant 8 (shared memory is as if there had been no call), and that
# nothing can run out in the middle of a grant.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use constant {
	FEW => 1000,
	MILLION => 1_000_000,
	BYTES_PER_LEASE => 400
};

my $leases = full_size(20_000, MILLION);

# How often, and how many at once, are acquired to be timed.
my $rounds = full_size(5, 51);
my $timed = full_size(5000, 10_000);

# Room for the ledger, so that it is memory that is measured.
my $conf = q{
	autovacuum = off
	shared_buffers = } . full_size('128MB', '1GB') . q{
	max_wal_size = 8GB
	lease.max_leases = };

sub value
{
	my ($node, $sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

sub becomes_empty
{
	my ($node, $when) = @_;
	ok(wait_for($when, sub { leases_used($node) == 0 }), "$when: nothing is left in the table");
	is(value($node, q{SELECT string_agg(kind, ' ') FROM lease.ledger}),
		'ceiling', "$when: nor in the ledger");
	return;
}

sub table_node
{
	my ($name, $max_leases) = @_;
	my $node = lease_node($name, conf => $conf . $max_leases);

	# Acquire so many leases, or fewer if the table is full before; how many?
	value($node, <<~'SQL');
		CREATE FUNCTION fill(prefix text, name_bytes integer, holder_bytes integer, wanted integer)
			RETURNS integer LANGUAGE plpgsql SET synchronous_commit = off AS $$
		DECLARE
			holder text := rpad('holder', holder_bytes, '.');
			filled integer := 0;
		BEGIN
			WHILE filled < wanted LOOP
				IF lease.try_acquire(rpad(prefix || filled, name_bytes, '.'), '1 hour',
									 holder => holder) IS NULL THEN
					RAISE '% % is taken', prefix, filled;
				END IF;
				filled := filled + 1;
			END LOOP;
			RETURN filled;
		EXCEPTION WHEN configuration_limit_exceeded THEN
			RETURN filled;
		END
		$$;
		SQL

	# Acquire and release so many; how many microseconds did one acquire take?
	# The clock counts what the process had of a processor, so that on a busy
	# machine, too, it is the work that is measured.  It is milliseconds coarse.
	value($node, <<~'SQL');
		CREATE FUNCTION processor_time() RETURNS bigint LANGUAGE sql AS $$
			SELECT coalesce(
				split_part(pg_read_file('/proc/self/schedstat', 0, 100, true), ' ', 1)::bigint,
				(extract(epoch FROM clock_timestamp()) * 1e9)::bigint)
		$$;
		CREATE FUNCTION time_acquire(prefix text, wanted integer)
			RETURNS float8 LANGUAGE plpgsql SET synchronous_commit = off AS $$
		DECLARE
			names text[] := ARRAY(SELECT rpad(prefix || i, 64, '.')
								  FROM generate_series(1, wanted) i);
			holder text := rpad('holder', 32, '.');
			tokens bigint[];
			began bigint;
			ended bigint;
		BEGIN
			began := processor_time();
			FOR i IN 1 .. wanted LOOP
				tokens[i] := lease.try_acquire(names[i], '1 hour', holder => holder);
			END LOOP;
			ended := processor_time();
			PERFORM lease.release(n, t) FROM unnest(names, tokens) AS u(n, t);
			RETURN (ended - began) / 1000.0 / wanted;
		END
		$$;
		SQL
	return $node;
}

sub fill
{
	my ($node, $prefix, $name_bytes, $holder_bytes, $wanted) = @_;
	return value($node, "SELECT fill('$prefix/', $name_bytes, $holder_bytes, $wanted)");
}

sub fill_with_ordinary
{
	my ($node, $wanted) = @_;
	return fill($node, 'ordinary', 64, 32, $wanted);
}

# Let everything expire together.
sub expire_all
{
	my ($node, $when) = @_;
	my $before = leases_used($node);
	my $began = clock_gettime(CLOCK_MONOTONIC);

	advance_clock($node, '1 hour');
	is(value($node, 'SELECT count(*) FROM lease.leases'), 0, "$when: all are gone at once");
	becomes_empty($node, $when);
	note(sprintf '%s: %d leases were reaped within %.1f seconds',
		$when, $before, clock_gettime(CLOCK_MONOTONIC) - $began);
	return;
}

# What the string space and the table hold: the longest strings, and when no
# more of these fit, the shortest; then the shortest alone.
sub capacity
{
	my ($node, $when) = @_;
	my $longest = fill($node, 'longest', 255, 127, MILLION);
	my $besides = fill($node, 'shortest', 16, 1, MILLION);

	expire_all($node, "$when, the longest strings");
	my $shortest = fill($node, 'shortest', 16, 1, MILLION);
	expire_all($node, "$when, the shortest strings");
	return "$longest longest with $besides shortest, or $shortest shortest";
}

# Ten thousand names used once, in a table that is much smaller.
my $many = table_node('many', FEW);
my $capacity = capacity($many, 'a new table');
like($capacity, qr/ 1000 shortest$/, "as many leases fit as lease.max_leases says");
note("capacity: $capacity");

is(value($many, <<~'SQL'), 10_000, '10000 names are used once');
	SET synchronous_commit = off;
	SET client_min_messages = error;
	SET log_min_messages = fatal;
	CREATE TEMPORARY TABLE used_names (name text);
	DO $$
	DECLARE
		name text;
		request_id text;
		token bigint;
	BEGIN
		FOR i IN 1 .. 10000 LOOP
			name := rpad('once/' || i, 64, '.');
			request_id := rpad('r' || i, 127, '.');
			token := CASE i % 8
				WHEN 0 THEN lease.try_acquire(name, '1 ms')
				WHEN 1 THEN lease.try_acquire(name, '1 ms', lock_delay => '1 ms')
				WHEN 2 THEN lease.try_acquire(name, '1 hour', min_hold => '5 ms')
				WHEN 3 THEN lease.try_acquire(name, '1 hour', request_id => request_id)
				ELSE lease.try_acquire(name, '1 hour', metadata => '{"a": 1}')
				END;
			CASE i % 8
				WHEN 0, 1 THEN
					PERFORM lease.try_acquire(name, '1 ms');
				WHEN 3 THEN
					ASSERT token = lease.try_acquire(name, '1 hour', request_id => request_id);
					PERFORM lease.renew(name, token, '2 hours');
					PERFORM lease.release(name, token);
				WHEN 4 THEN
					token := lease.transfer(name, token, rpad('heir', 127, '.'));
					PERFORM lease.release(name, token);
				WHEN 5 THEN
					PERFORM lease.force_release(name, 'test');
				WHEN 6 THEN
					ASSERT lease.try_acquire(name, '1 hour') IS NULL;
					PERFORM lease.release(name, token);
				ELSE
					PERFORM lease.release(name, token);
				END CASE;
			INSERT INTO used_names VALUES (name);
		END LOOP;
	END
	$$;
	SELECT count(DISTINCT name) FROM used_names
	SQL
becomes_empty($many, 'names used once');
is(capacity($many, 'names used once'), $capacity, 'names used once: there is room as before');

# How much memory a million leases are, in a server that is not running.
sub shared_memory
{
	my (@settings) = @_;
	my @command = ('postgres', '-D', $many->data_dir, '-C', 'shared_memory_size');
	my ($megabytes) = run_command([ @command, map { ('-c', $_) } @settings ]);

	return $megabytes * 1024 * 1024;
}

$many->stop;
my $bytes = shared_memory('lease.max_leases=' . MILLION) -
  shared_memory('shared_preload_libraries=');
cmp_ok($bytes, '>', 0, 'the table is in shared memory');
cmp_ok($bytes / MILLION, '<=', BYTES_PER_LEASE,
	'a million leases take at most ' . BYTES_PER_LEASE . ' bytes of shared memory each');
note(sprintf '%.1f bytes of shared memory a lease', $bytes / MILLION);

# They fit; and are taken among as among few.
$many->append_conf('postgresql.conf', "lease.max_leases = $leases");
$many->start;
my $few = table_node('few', $leases);
is(fill_with_ordinary($many, $leases - $timed), $leases - $timed, 'almost all leases are live');
is(fill_with_ordinary($few, FEW), FEW, FEW . ' are live in another server');

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return $sorted[ @sorted / 2 ];
}

my (@among_few, @among_many);
foreach my $round (1 .. $rounds)
{
	my $time = "SELECT time_acquire('timed/$round/', $timed)";

	push @among_few, value($few, $time);
	push @among_many, value($many, $time);
}
my ($usec_few, $usec_many) = (median(@among_few), median(@among_many));
note(sprintf 'try_acquire among %d leases: %.2f us, among %d: %.2f us, %+.1f %%',
	FEW, $usec_few, $leases, $usec_many, 100 * ($usec_many - $usec_few) / ($usec_few || 1));
$few->stop;

is(fill($many, 'rest', 64, 32, $timed), $timed, "$leases leases fit");
is(leases_used($many), $leases, 'and are all of them in use');
is(sqlstate($many, q{SELECT lease.try_acquire('one more')}), '53400', 'one more is refused');
expire_all($many, "$leases leases");
is(fill_with_ordinary($many, $leases + 1), $leases, 'as many fit again, and not one more');
expire_all($many, "$leases leases again");

$many->stop;
done_testing();
