# leasectl watch and leasectl top: watch tells of each event once, whatever happens to the
# server and to the connection; top shows what there is, and can always be left.

use strict;
use warnings;

use Fcntl;
use FindBin;
use IO::Pty;
use lib $FindBin::RealBin;
use JSON::PP;
use LeaseTest;
use Leasectl;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;

use constant { REFUSED => 121, UNREACHABLE => 122, USAGE => 125 };
use constant { LINES => 16, COLUMNS => 100 };

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = lease_node('watched', allows_streaming => 1);
my @here = at($node);

sub value
{
	my ($sql, $server) = @_;
	return ($server // $node)->safe_psql('postgres', $sql);
}

#
# watch
#

# Lines that it has printed so far, and what it complained of.
sub lines { return split /\n/, slurp_file("$_[0]{output}.out") }
sub complaints { return slurp_file("$_[0]{output}.err") }

# Is somebody there who looks at the history, and looked at it since a time?
sub looked
{
	my ($server, $since) = @_;
	return value("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle' AND query LIKE 'SELECT (extract%lease.history%'"
		. " AND query_start > '$since'", $server);
}

# Start it; it watches when this returns.
sub start_watch
{
	my ($server, @arguments) = @_;
	my $since = value('SELECT clock_timestamp()', $server);
	my $watch = start_leasectl(at($server), 'watch', @arguments);

	wait_for("watch @arguments", sub { looked($server, $since) || has_ended($watch) });
	return $watch;
}

sub stop_watch
{
	my ($watch) = @_;

	kill 'TERM', $watch->{pid};
	return (finish_leasectl($watch))[0];
}

# It has printed a line that looks like this.
sub shows
{
	my ($watch, $pattern) = @_;
	return wait_for("watch: $pattern", sub { grep { $_ =~ $pattern } lines($watch) });
}

# Take and release a name, and see that this is told.
sub is_told_of
{
	my ($watch, $name, $server) = @_;

	$server //= $node;
	release($server, $name, acquire($server, $name));
	return shows($watch, qr/released\b.*"\Q$name\E"|"released".*"\Q$name\E"/);
}

# What it printed as JSON, as words.
sub told
{
	my ($watch) = @_;
	return map { my $event = decode_json($_); "$event->{at} $event->{seq} $event->{event} " . ($event->{name} // '') } lines($watch);
}

# What the history has since a time, in the same words.
sub recorded
{
	my ($since, $server) = @_;
	return split /\n/, value(qq{
		SELECT to_json(at) #>> '{}' || ' ' || seq || ' ' || event || ' ' || coalesce(name, '')
		FROM lease.history WHERE at >= '$since' ORDER BY at, seq}, $server);
}

# One test: all that is recorded was told once.
sub is_all_told
{
	my ($watch, $since, $what, $server) = @_;
	my %times;
	my @wrong;

	$times{$_}++ foreach told($watch);
	foreach my $event (recorded($since, $server))
	{
		push @wrong, "not told: $event" unless $times{$event};
	}
	push @wrong, map { "told $times{$_} times: $_" } grep { $times{$_} > 1 } sort keys %times;
	return is(join("\n", @wrong), '', "$what: each event is told once");
}

sub history_is_written
{
	wait_for('the history', sub { value('SELECT history_pending FROM lease.status') eq '0' });
	return;
}

release($node, 'before', acquire($node, 'before'));
history_is_written();

# What happened by then does not count, even if it is yet to be written down.
my $launcher = freeze($node, 'lease launcher');
wait_for('the reaper to leave', sub { value(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'lease reaper'}) eq '0' });
release($node, 'just before', acquire($node, 'just before'));
my $all = start_watch($node);
thaw($launcher);
my $json = start_watch($node, '--json');
my $some = start_watch($node, 'a*', 'b?', "it's {\"\\,}", '--interval=100ms');
my $token = acquire($node, 'a1', holder => 'some "one"', correlation_id => 'c-1');
is(acquire($node, 'a1', holder => "\e[31mred\nline"), undef, 'a name is taken');
release($node, 'a1', $token);
release($node, $_, acquire($node, $_)) foreach 'b', 'b1', 'b12', "it's {\"\\,}", 'c';
is_told_of($all, 'a2');
ok(shows($_, qr/released\b.*"a2"/), 'watch: tells') foreach $all, $json, $some;
my $time = qr/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}/;
like($all->{lines} = join("\n", lines($all)), qr/^$time acquired +"a1" token $token by "some ""one"""$/m, 'watch: what happened, to what, by whom');
like($all->{lines}, qr/^$time released +"a1" token $token by "some ""one""" held [\d.]+ m?s$/m, 'watch: for how long');
like($all->{lines}, qr/^$time refused +"a1" by "\\x1B\[31mred\\x0Aline" \(held with token $token\)$/m,
	'watch: no control character gets to a terminal');
unlike($all->{lines}, qr/before/, 'watch: from now on');
is(join(' ', sort { $a cmp $b } map { /released +"(.*?)" token/ ? $1 : () } lines($some)), q{a1 a2 b1 it's {""\,}}, 'watch: of names that match');
my ($event) = grep { $_->{event} eq 'released' } map { decode_json($_) } lines($json);
is(join(' ', sort keys %$event), value(q{SELECT string_agg(attname, ' ' ORDER BY attname COLLATE "C") FROM pg_attribute
	WHERE attrelid = 'lease.history'::regclass AND attnum > 0}), 'watch --json: all columns');
is("@$event{qw(name token holder correlation_id)}", qq{a1 $token some "one" c-1}, 'watch --json: with their values');
like(encode_json([ $event->{held} ]), qr/^\[[\d.]+\]$/, 'watch --json: durations are numbers');
is(stop_watch($_), 0, 'watch: a signal ends it, with status 0') foreach $all, $some;
is(complaints($json), '', 'watch: nothing to complain of');

# It is woken for names that the server publishes: a look takes a day otherwise.
$node->append_conf('postgresql.conf', "lease.notify = 'public/%'");
$node->reload;
my $woken = start_watch($node, '--interval=1d');
ok(is_told_of($woken, 'public/1'), 'watch: the server wakes it');
ok(is_told_of($woken, 'public/2'), 'watch: and again');

# Somebody who does not read on.
pipe(my $in, my $out) or die "could not make a pipe: $!";
my $piped = fork // die "could not fork: $!";
unless ($piped)
{
	POSIX::dup2(fileno $out, 1);
	close $_ foreach $in, $out;
	exec $ENV{LEASECTL} // Leasectl::program(), @here, 'watch', '--interval=1d' or POSIX::_exit(99);
}
close $out;
wait_for('watch in a pipe', sub { value(q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT (extract%lease.history%'}) == 3 });
close $in;
wait_for('the end of watch', sub { waitpid($piped, POSIX::WNOHANG()) == $piped });
is($?, 0, 'watch: ends when nobody reads its output, without an event');
is(stop_watch($woken), 0, 'watch: a signal ends it while it waits');

#
# watch: nothing is lost and nothing comes twice
#
my $since = value('SELECT clock_timestamp()');
my $steady = start_watch($node, '--json');
my $early = value('SELECT clock_timestamp()');
my @busy = map { start_psql($node, qq{
	DO \$\$ BEGIN FOR i IN 1..300 LOOP
		PERFORM lease.release('busy/' || i, lease.acquire('busy/' || i, '1 h'));
		PERFORM pg_sleep(0.002);
	END LOOP; END \$\$}) } 1 .. 3;
finish_psql($_) foreach @busy;
is_told_of($steady, 'after the load');
is_all_told($steady, $since, 'watch: a load');

# Sessions write down what they do one after the other, but not in the order of time.
value(qq{INSERT INTO lease.events (seq, at, event, name, owner)
	SELECT max(seq) + 1, '$early', 'released', 'out of order', 10 FROM lease.events});
ok(shows($steady, qr/"out of order"/), 'watch: an event that is late');

is(value(q{SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity WHERE query LIKE '%lease.history%' AND pid <> pg_backend_pid()}),
	't', 'watch: it loses its connection');
is_told_of($steady, 'after the loss');
is_all_told($steady, $since, 'watch: a connection that was lost');
like(complaints($steady), qr/\Aleasectl: connection lost, trying again: [^\n]+\nleasectl: connected again\n\z/, 'watch: and says so');

foreach my $how ('fast', 'immediate')
{
	foreach my $round (1, 2)
	{
		release($node, "before $how $round", acquire($node, "before $how $round"));
		$node->stop($how);
		$node->start;
		is_told_of($steady, "after $how $round");
	}
	history_is_written();
	is_all_told($steady, $since, "watch: two restarts, $how");
}
is((map { scalar @$_ } [ grep { / loaded / } told($steady) ])[0], 4, 'watch: each of them is told');

# A frozen server: it connects again, to a process that can answer.
my $pid = value(q{SELECT pid FROM pg_stat_activity WHERE query LIKE '%lease.history%' AND pid <> pg_backend_pid() LIMIT 1});
my $impatient = start_watch($node, '--timeout=500ms', '--interval=100ms');
$pid = value(qq{SELECT pid FROM pg_stat_activity WHERE query LIKE '%lease.history%' AND pid NOT IN (pg_backend_pid(), $pid)
	ORDER BY backend_start DESC LIMIT 1});
kill 'STOP', $pid;
is_told_of($impatient, 'behind a frozen process');
like(complaints($impatient), qr/\Aleasectl: connection lost, trying again: [^\n]*answer[^\n]*\nleasectl: connected again\n\z/,
	'watch: a server that does not answer is given up');
kill 'CONT', $pid;
stop_watch($impatient);

# Nobody writes a history.
$node->append_conf('postgresql.conf', 'lease.history_retention = 0');
$node->reload;
wait_for('the setting', sub { value('SHOW lease.history_retention') eq '0' });
my @mute = map { start_watch($node, @$_) } [], ['-q'];
like(complaints($mute[0]), qr/\Aleasectl: .*lease\.history_retention.*\n\z/, 'watch: says that it will see nothing');
is(complaints($mute[1]), '', 'watch -q: does not');
stop_watch($_) foreach @mute;
$node->append_conf('postgresql.conf', 'lease.history_retention = 1d');
$node->reload;
wait_for('the setting', sub { value('SHOW lease.history_retention') eq '1d' });

# A standby counts its events anew when it takes over, and so does its primary at a restart.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'hot_standby_feedback = on');
$standby->start;
$node->wait_for_catchup($standby);
$since = value('SELECT clock_timestamp()');
my $far = start_watch($standby, '--json', '--interval=100ms');
release($node, "far/$_", acquire($node, "far/$_")) foreach 1 .. 10;
ok(shows($far, qr/"released".*"far\/10"/), 'watch: on a standby');
$node->restart;
release($node, 'far/11', acquire($node, 'far/11'));
ok(shows($far, qr/"released".*"far\/11"/), 'watch: on a standby whose primary was restarted');
history_is_written();
$node->wait_for_catchup($standby);
stop_watch($steady);
$node->stop;
$standby->promote;
release($standby, 'far/12', acquire($standby, 'far/12'));
ok(shows($far, qr/"released".*"far\/12"/), 'watch: on a standby that was promoted');
is_all_told($far, $since, 'watch: on a standby, a restart, a promotion', $standby);
is(stop_watch($far), 0, 'watch: on a standby: it ends');
$standby->stop;
$node->start;

#
# top
#

# A terminal that knows two things: to go somewhere, and to clear the screen.
append_to_file("$dir/simple.ti", join '', map { "$_\n" } 'simple|a simple terminal,',
	"\tcols#80, lines#24, cup=\\E[%i%p1%d;%p2%dH, clear=\\E[H\\E[2J,", "\tsmcup=\\E[in, rmcup=\\E[out, kcud1=\\E[B, knp=\\E[6~, khome=\\E[H,");
system_or_bail('tic', '-x', '-o', "$dir/terminfo", "$dir/simple.ti");

# Start top on a terminal of its own.
sub start_top
{
	my ($how, @arguments) = @_;
	my $pty = IO::Pty->new;
	my $slave = $pty->slave;
	my $top = { pty => $pty, slave => $slave, bytes => '', screen => [], line => 0, column => 0 };

	$slave->set_winsize(LINES, COLUMNS);
	$top->{modes} = modes($top);
	$top->{pid} = fork // die "could not fork: $!";
	unless ($top->{pid})
	{
		$pty->make_slave_controlling_terminal;
		POSIX::dup2(fileno $slave, $_) foreach 0, 1;
		POSIX::dup2(POSIX::open("$dir/top.err", O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
		@ENV{qw(TERM TERMINFO)} = ($how->{TERM} // 'simple', "$dir/terminfo");
		delete @ENV{qw(LINES COLUMNS)};
		exec Leasectl::program(), @arguments or POSIX::_exit(99);
	}
	$pty->blocking(0);
	return $top;
}

# The settings of its terminal.
sub modes
{
	my ($top) = @_;
	my $name = $top->{slave}->ttyname;
	return `stty -g <$name`;
}

sub write_text
{
	my ($top, $text) = @_;
	my $line = \$top->{screen}[ $top->{line} ];

	$$line = '' unless defined $$line;
	$$line .= ' ' x ($top->{column} - length $$line) if length $$line < $top->{column};
	substr($$line, $top->{column}, length $text, $text);
	$top->{column} += length $text;
	return;
}

# Do as the terminal would with what has arrived.
sub look_at
{
	my ($top) = @_;

	while (sysread $top->{pty}, my $bytes, 65536) { $top->{bytes} .= $bytes }
	for ($top->{bytes})
	{
		while ($_ ne '')
		{
			if (s/\A\e\[(\d+);(\d+)H//) { @$top{qw(line column)} = ($1 - 1, $2 - 1) }
			elsif (s/\A\e\[H\e\[2J//) { @$top{qw(line column screen)} = (0, 0, []) }
			elsif (s/\A\e\[(in|out)//) { $top->{mode} = $1 }
			elsif (s/\A\r//) { $top->{column} = 0 }
			elsif (s/\A\n//) { $top->{line}++ }
			elsif (s/\A\x08//) { $top->{column}-- }
			elsif (s/\A([^\e\r\n\x08]+)//) { write_text($top, $1) }
			elsif (/\A\e(?:\[[\d;]*)?\z/) { last }
			else { die 'a terminal got ' . s/([^ -~])/sprintf '\\x%02x', ord $1/ger }
		}
	}
	return join "\n", map { ($_ // '') =~ s/\s+\z//r } @{ $top->{screen} };
}

sub type
{
	my ($top, $keys) = @_;
	return syswrite $top->{pty}, $keys;
}

# Wait until the screen looks like this.
sub screen_shows
{
	my ($top, $pattern, $what) = @_;
	my $screen = '';

	my $shown = wait_for($what, sub { ($screen = look_at($top)) =~ $pattern });
	ok($shown, $what) or diag($screen);
	return $screen;
}

# Wait until it has ended; returns its status.
sub finish_top
{
	my ($top) = @_;
	my $ended = wait_for('the end of top', sub { look_at($top); waitpid($top->{pid}, POSIX::WNOHANG()) == $top->{pid} });
	my $status = $?;

	kill 'KILL', $top->{pid} unless $ended;
	look_at($top);
	return $status;
}

# It ends as it should, and leaves the terminal as it found it: a test.
sub ends_well
{
	my ($top, $what) = @_;

	my $status = finish_top($top);
	is("$status $top->{mode} " . (modes($top) eq $top->{modes} ? 'restored' : 'changed'), '0 out restored', "top: $what ends it");
	return;
}

# The names that a screen shows, in their order.
sub names_on { return join ' ', $_[0] =~ m{^(\w+/\S+) }mg }

my %token_of = map { $_ => acquire($node, $_, holder => "holder of $_") } 'job/1', 'job/2', 'job/3';
acquire($node, "esc\e[31m", holder => "\xc2\x9b31m");
my @waiting = map {
	my $waiting = start_leasectl(@here, 'acquire', $_, '--holder=patient', '--ttl=1h');
	wait_for('it to wait', sub { value("SELECT count(*) FROM lease.waiters WHERE name = '$_'") });
	$waiting;
} 'job/2', 'job/3';

my $top = start_top({}, @here, 'top', '--interval=200ms');
my $screen = screen_shows($top, qr{^job/3 }m, 'top: shows leases');
like($screen, qr{^postgres as \S+ on \S+, PostgreSQL \d.*\n.*leases \d+ of \d+ +waiters 2 +next token \d+ +worker \w+}, 'top: and the server');
like($screen, qr{^name +holder +mode +token +remaining +held +waiters}m, 'top: under a heading');
like($screen, qr{^job/2 +holder of job/2 +exclusive +$token_of{'job/2'} +59 min \d+ s +\S.*? 1\b}m, 'top: who holds what');
like($screen, qr{^esc\\x1B\[31m +\\xC2\\x9B31m }m, 'top: no control character gets to the terminal');
is(names_on($screen), 'job/1 job/2 job/3', 'top: by name');
type($top, 'r');
$screen = screen_shows($top, qr{by name, descending}, 'top: r reverses');
is(names_on($screen = screen_shows($top, qr{^job/3 .*^job/1 }ms, 'top: the order')), 'job/3 job/2 job/1', 'top: of all rows');
acquire($node, $_) foreach 'later/1', 'job/2';
screen_shows($top, qr{^later/1 }m, 'top: refreshes by itself');
type($top, '2');
$screen = screen_shows($top, qr{^name +position +holder}m, 'top: 2 shows who waits');
like($screen = screen_shows($top, qr{^job/3 +1 +patient +exclusive .* s +$token_of{'job/3'} }m, 'top: for whom'), qr{of 2, by name}, 'top: how many');
type($top, "\t");
screen_shows($top, qr{^name +contended +contention_rate +acquired}m, 'top: Tab shows contention');
screen_shows($top, qr{^job/2 +1 +50 % +1 }m, 'top: with figures');
screen_shows($top, qr{by contended, descending}, 'top: the most contended first');
type($top, '>>>');
screen_shows($top, qr{by wait_mean, descending}, 'top: > sorts by the columns to the right');
type($top, '?');
screen_shows($top, qr{^<.*sort by}m, 'top: ? helps');
type($top, 'x');
screen_shows($top, qr{^name +contended}m, 'top: and any key ends that');

# A small terminal, and many rows.
value(q{SELECT count(lease.try_acquire('many/' || lpad(i::text, 3, '0'), '1 h')) FROM generate_series(1, 100) i});
my $count = value('SELECT count(*) FROM lease.leases');
type($top, '1');
screen_shows($top, qr{1-10 of $count, by name, desc}, 'top: as many rows as fit');
type($top, 'r');
screen_shows($top, qr{1-10 of $count, by name$}m, 'top: the first ones');
type($top, "\e[6~\e[B");
screen_shows($top, qr{12-21 of $count(?s:.*)^many/}m, 'top: scrolls');
$top->{pty}->set_winsize(10, 40);
$screen = screen_shows($top, qr{\A(?:[^\n]*\n){9}1 2 3 page[^\n]*\z}, 'top: another size of the terminal');
is(join(' ', grep { length > 40 } split /\n/, $screen), '', 'top: nothing is wider than that');
type($top, 'q');
ends_well($top, 'q');

$top = start_top({}, @here, 'top', '--sort=longest_queue');
screen_shows($top, qr{by longest_queue, descending}, 'top --sort: the page that has the column');
type($top, "\x03");
ends_well($top, 'Ctrl-C');
$top = start_top({}, @here, 'top');
screen_shows($top, qr{^job/1 }m, 'top: is there');
kill 'TERM', $top->{pid};
ends_well($top, 'SIGTERM');

# What others hold is hidden.
value(q{CREATE ROLE app LOGIN; SELECT lease.allow('app')});
$top = start_top({}, @here, '-U', 'app', 'top');
$screen = screen_shows($top, qr{^\(hidden\) }m, 'top: other roles\' leases are hidden');
unlike($screen, qr{job/}, 'top: all of them');
type($top, 'q');
ends_well($top, 'q');

# A server that does not answer does not matter to q, and is told of.
sub backend_of_top
{
	my $found;
	wait_for('the backend of top', sub {
		$found = value(q{SELECT pid FROM pg_stat_activity WHERE query LIKE '%lease.status s) h%' AND pid <> pg_backend_pid()
			ORDER BY backend_start DESC LIMIT 1}) });
	return $found;
}

$top = start_top({}, @here, 'top', '--interval=100ms', '--timeout=1h');
screen_shows($top, qr{^job/1 }m, 'top: is there');
my $backend = backend_of_top();
kill 'STOP', $backend;
screen_shows($top, qr{^The server has not answered for \d+ s}m, 'top: a server that does not answer');
type($top, '?');
screen_shows($top, qr{^<.*sort by}m, 'top: keys do');
type($top, 'q');
ends_well($top, 'q, while the server is frozen,');
kill 'CONT', $backend;

$top = start_top({}, @here, 'top', '--interval=100ms', '--timeout=300ms');
screen_shows($top, qr{^job/1 }m, 'top: is there');
$backend = backend_of_top();
kill 'STOP', $backend;
acquire($node, 'a/1');
screen_shows($top, qr{^a/1 }m, 'top: connects again when an answer takes too long');
kill 'CONT', $backend;

$node->stop;
$screen = screen_shows($top, qr{^(?:Connecting\. )?connection to server.*failed}m, 'top: a server that is gone');
like($screen, qr{^a/1 .*^job/1 }ms, 'top: what it showed stays');
$node->start;
$screen = screen_shows($top, qr{of \d+, by name(?s:.*)^job/1 }m, 'top: a server that is back');
acquire($node, 'a/2');
screen_shows($top, qr{^a/2 }m, 'top: shows what is new');
unlike(look_at($top), qr{failed}, 'top: and complains no more');
type($top, 'q');
ends_well($top, 'q');

#
# top: what is wrong is told before the screen is taken
#
sub top_fails
{
	my ($what, $status, $message, $how, @arguments) = @_;
	my $failed = start_top($how, @arguments, 'top');
	my $found = finish_top($failed);
	my $err = slurp_file("$dir/top.err");

	is($found >> 8, $status, "top: $what: status");
	like($err, qr/\Aleasectl: [^\n]*$message[^\n]*\n\z/, "top: $what: a line");
	is(($failed->{mode} // '') . look_at($failed), '', "top: $what: and no screen");
	return;
}

top_fails('no such column', USAGE, 'bogus', {}, @here, '--sort=bogus');
top_fails('no such terminal', USAGE, 'no-such-terminal', { TERM => 'no-such-terminal' }, @here);
top_fails('no server', UNREACHABLE, 'failed', {}, '-h', "$dir/nowhere");
top_fails('no extension', REFUSED, 'lease', {}, at($node, db => 'template1'));
my ($status, $printed, $err) = leasectl(@here, 'top');
is("$status $printed", USAGE . ' ', 'top: no terminal');
like($err, qr/\Aleasectl: .*terminal.*\z/, 'top: no terminal: which it says');

$node->stop;
done_testing();
