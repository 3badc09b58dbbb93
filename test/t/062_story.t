# The story of a name, as sentences (lease.explain) and as a picture (lease.timeline):
# what other sessions do while it is told, restarts, a picture that is full, and the
# same on a standby.  And what lease.advice says of a server.
#
# Guards invariant 9 (nobody learns what its privileges do not allow): the events of
# another role are in no picture.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = lease_node(
	'primary',
	allows_streaming => 1,
	conf => q{
	lease.max_leases = 128
	restart_after_crash = on
	timezone = 'UTC'});

sub value
{
	my ($sql, $on) = @_;
	return ($on // $node)->safe_psql('postgres', $sql);
}

# The table has all events.
sub drain
{
	wait_for('the history', sub { value('SELECT history_pending FROM lease.status') == 0 });
	return;
}

# The sentences of a story, without tokens, times and durations.
sub story
{
	my ($name, $on) = @_;
	my $told = value("SELECT story FROM lease.explain('$name')", $on);

	return $told =~ s/\d{4}-\d\d-\d\d [\d:]+\.\d{3}/TIME/gr =~ s/token \d+/token N/gr =~
	  s/\b\d+(?:\.\d+)? (?:ms|s|min|h)\b(?: \d+ (?:s|min)\b)?/SPAN/gr;
}

# What is wrong with XML that lease.timeline wrote; empty if nothing is.
sub xml_fault
{
	my ($xml) = @_;
	my @open;

	return 'a character that XML does not know' if $xml =~ /[^\t\n\x20-\x{D7FF}\x{E000}-\x{FFFD}\x{10000}-\x{10FFFF}]/;
	while ($xml =~ m{\G(?:[^<&>]+|&(?:amp|lt|gt|quot|\#\d+|\#x[0-9A-F]+);|<(\w+)(?:\ [\w:-]+="[^"<&]*")*(/?)>|</(\w+)>)}gc)
	{
		my ($begun, $ended, $end) = ($1, $2, $3);

		push @open, $begun if defined $begun && !$ended;
		return "</$end>" if defined $end && (pop(@open) // '') ne $end;
	}
	return 'at "' . substr($xml, pos($xml) // 0, 40) . '"' if (pos($xml) // 0) < length $xml;
	return @open ? "<$open[-1]> is not ended" : '';
}

# What a picture tells of its marks, by their first lines: [name, what happened].
sub told
{
	my ($svg) = @_;
	return map { [ split /\n/ ] } grep { /\n/ } $svg =~ m{<title>([^<]*)</title>}g;
}

#
# What others do while it is told
#
my $token = acquire($node, 'shop', holder => 'A');
my $position = 0;

sub start_waiter
{
	my ($holder, $settings) = @_;
	my $waiter = start_psql($node, ($settings // '') . "SELECT lease.acquire('shop', '1 h', holder => '$holder');\n");

	$position++;
	wait_for("$holder to wait",
		sub { value("SELECT count(*) FROM lease.waiters WHERE name = 'shop'") == $position });
	return $waiter;
}

my @waiters = map { start_waiter($_) } qw(B C);
drain();
is(story('shop'), <<~'END' =~ s/\n\z//r, 'who holds it, and who waits');
	"A" took it with token N.
	Now it is held by "A" with token N until TIME (SPAN left); "B", "C" wait for it, the longest for SPAN.
	END
my $svg = value("SELECT lease.timeline('{shop}')");
is(scalar(grep { $_->[1] =~ /: waiting$/ } told($svg)), 2, 'the picture shows who waits');
is(scalar(() = $svg =~ /<use href="#lease-open" [^>]* stroke="none"/g), 3, 'and that it has no end yet');

value("SELECT pg_cancel_backend(pid) FROM lease.waiters WHERE holder = 'C'");
finish_psql($waiters[1]);
release($node, 'shop', $token);
finish_psql($waiters[0]);
drain();
is(story('shop'), <<~'END' =~ s/\n\z//r, 'who waited, gave up, and was served');
	"A" took it with token N.
	"C" was cancelled after waiting SPAN.
	"A" released it with token N, after holding it for SPAN.
	"B" took it with token N after waiting SPAN.
	Now it is held by "B" with token N until TIME (SPAN left).
	END
like( value("SELECT lease.timeline('{shop}')"),
	qr{<title>shop\n&quot;B&quot;: holding with token \d+\nwaited from [^\n]+, for [\d. ]+ m?s\nheld from [^\n]+</title><rect [^>]*url\(\#lease-hatch\)[^>]*/><rect },
	'the picture has the wait and the grant as one bar');

#
# A crash: sessions are gone, detached leases are not
#
my $session = start_psql($node, "SELECT lease.acquire('bench', scope => 'session', holder => 'S');\nSELECT pg_sleep(3600);\n");
wait_for('the session', sub { names_held($node) eq 'bench shop' });
drain();
value('CHECKPOINT');    # also the history: the reaper does not wait for the disk
stop_at_once($node);
eval { finish_psql($session) };
is(names_held($node), 'shop', 'a crash');
acquire($node, 'bench', holder => 'T');
drain();
is( (split /\n/, story('shop'))[-2],
	'The server had started and loaded the ledger (1 leases, TTLs counted anew).',
	'the story tells the restart');
like((split /\n/, story('shop'))[-1], qr/^Now it is held by "B" with token N until TIME/, 'and that it is still held');
is(story('bench'), <<~'END' =~ s/\n\z//r, 'what had no end when the server stopped');
	"S" took it for its session with token N.
	The server had started and loaded the ledger (1 leases, TTLs counted anew).
	"T" took it with token N.
	Now it is held by "T" with token N until TIME (SPAN left).
	END
$svg = value("SELECT lease.timeline('{bench}')");
like($svg, qr/&quot;S&quot;: holding, how it ended is not known with token \d+\nheld from [^\n]+ to /,
	'in the picture it goes as far as the restart');
is(scalar(() = $svg =~ /<path class="restart" d="M[\d.]+ /g), 1, 'which is a line');
value('SELECT lease.release(name, token) FROM lease.leases');

#
# A full picture: 50 names, 5,000 events
#
value(q{
	CREATE ROLE crowd; SELECT lease.allow('crowd');
	CREATE ROLE stranger; SELECT lease.allow('stranger');
	SET ROLE crowd;
	SET synchronous_commit = off;
	DO $$
	DECLARE
		name  text;
		token bigint;
	BEGIN
		FOR i IN 1 .. 1250 LOOP
			name = 'stock/item <' || i % 50 || '> & "more"';
			token = lease.acquire(name, '1 h', holder => 'worker ''' || i % 17 || '''', mode => CASE i % 3 WHEN 0 THEN 'shared' ELSE 'exclusive' END);
			PERFORM lease.try_acquire(name, holder => 'worker ''' || (i + 1) % 17 || '''');
			PERFORM lease.try_renew(name, token + 1) WHERE i % 4 <> 0;
			PERFORM lease.acquire(name, '1 h', holder => 'sharer', mode => 'shared') WHERE i % 12 = 0;
			IF i % 10 = 0 THEN
				token = lease.transfer(name, token, 'receiver');
			END IF;
			PERFORM lease.release(l.name, l.token) FROM lease.leases l;
		END LOOP;
	END
	$$});
drain();

my $count = value("SELECT count(*) FROM lease.history WHERE name LIKE 'stock/%'");
cmp_ok($count, '>=', 5000, "$count events");
my $began = time;
$svg = value('SET ROLE crowd; SELECT lease.timeline(NULL)');
note(sprintf 'drawn in %.2f s, %.1f kB', time - $began, length($svg) / 1024);
is(xml_fault($svg), '', 'the picture is well-formed XML');
is(scalar(() = $svg =~ / height="16"><title>stock/g), 50, 'it has 50 lanes');

# A grant is one mark, of how it ended; all else is a mark of its own.
sub sorted { return join "\n", sort @_ }
my $happened = value(q{
	SELECT name || ' | "' || holder || '": ' || event || coalesce(' with token ' || token, '') || coalesce(' (' || detail || ')', '')
	FROM lease.history WHERE name LIKE 'stock/%' AND event NOT IN ('acquired', 'received')});
my %entity = (lt => '<', gt => '>', amp => '&', quot => '"', '#39' => "'");
is( sorted(map { "$_->[0] | $_->[1]" =~ s/&([a-z#0-9]+);/$entity{$1}/gr } told($svg)),
	sorted(split /\n/, $happened),
	'every event is in it, once');
is( value("SELECT count(*) FROM lease.history WHERE name LIKE 'stock/%' AND event IN ('acquired', 'received')"),
	scalar(grep { ($_->[2] // '') =~ /^held from .* to .*, for / } told($svg)),
	'and every grant has a beginning and an end');
is(xml_fault(value('SET ROLE stranger; SELECT lease.timeline(NULL)')), '', 'another role gets a picture');
unlike(value('SET ROLE stranger; SELECT lease.timeline(NULL)'), qr/stock|worker|sharer|receiver/, 'with nothing of it');
is( value(q{SET ROLE stranger; SELECT DISTINCT story FROM lease.history h, lease.explain('stock/item <1> & "more"')}),
	'Nothing is known of it, or nothing that you may see.', 'and no story');

#
# The same on a standby
#
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
my $held = acquire($node, 'shop', holder => 'D', lock_delay => '1 h');
value("SELECT lease.try_acquire('shop', holder => 'E')");
drain();
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));

my @here = split /\n/, story('shop');
my @there = split /\n/, story('shop', $standby);
is(pop @there, 'As this standby knows it, it is held by "D" with token N.', 'a standby knows who holds it');
pop @here;
is_deeply(\@there, \@here, 'and tells the same story');
value("SELECT lease.force_release('shop', 'checked')");
drain();
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
like(story('shop', $standby), qr/As this standby knows it, it is closed for a while\.\z/, 'that it is closed');
value("SELECT lease.force_release('shop', 'checked', reopen => true)");
drain();
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
like(story('shop', $standby), qr/As this standby knows it, it is free\.\z/, 'that it is free');
my $drawing = 'SELECT lease.timeline(NULL, until => (SELECT max(at) FROM lease.history))';
is(value($drawing, $standby) eq value($drawing), 1, 'and draws the same picture');
is(value('SELECT count(*) FROM lease.advice', $standby), 0, 'but has no advice');

#
# What lease.advice says of the server
#
sub advice { return value('SELECT string_agg(advice, \' \' ORDER BY advice) FROM lease.advice WHERE name IS NULL') }

is(advice(), '', 'no advice');
value(q{SELECT count(lease.try_acquire('filler ' || i)) FROM generate_series(1, 103) i});
is(advice(), 'table_full', 'the table is nearly full');
value('SELECT lease.release(name, token) FROM lease.leases');
wait_for('the table to be tidied up', sub { leases_used($node) < 102 });
is(advice(), '', 'and is not');

# Nobody can write to the table while more happens than there is room for.
value(q{
	BEGIN;
	LOCK TABLE lease.events;
	DO $$
	BEGIN
		FOR i IN 1 .. 1000000 LOOP
			PERFORM lease.release('flood', lease.acquire('flood'));
			EXIT WHEN i % 1000 = 0 AND (SELECT history_lost > 0 FROM lease.status);
		END LOOP;
	END
	$$;
	COMMIT});
is(advice(), 'history_lost', 'events were lost');
drain();
like(story('flood'), qr/Now it is free\. Events were lost in this database: this may not be all\.\z/, 'the story says so');
ok(value("SELECT lease.timeline('{flood}')") =~ /Events were lost\./, 'and so does the picture');

#
# More than there is room for in a picture
#
acquire($node, 'flood');
for (1 .. 4)
{
	value("SELECT count(lease.try_acquire('flood')) FROM generate_series(1, 5000)");
	drain();
}
$began = time;
$svg = value("SELECT lease.timeline('{flood}')");
note(sprintf 'drawn in %.2f s, %.1f kB', time - $began, length($svg) / 1024);
ok($svg =~ /Only the last 20000 marks\./, 'there are too many marks to draw all, and the picture says so');
is(scalar(() = $svg =~ /<title>flood\n/g), 20000, 'it has that many');
is(xml_fault($svg), '', 'and is well-formed');

$standby->stop;
$node->stop;
done_testing();
