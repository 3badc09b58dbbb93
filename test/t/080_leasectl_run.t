# leasectl run and elect: a command that runs while its lease is held, and no longer.
#
# What it finds around it, what becomes of signals, of losses and of its children, and
# what a lost connection or a lost answer change: nothing.  Time is for 081.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IO::Pty;
use IO::Select;
use IO::Socket::UNIX;
use LeaseTest;
use Leasectl;
use POSIX qw(mkfifo);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant { LOST => 123, TAKEN => 124 };
use constant SIGNALS => (HUP => 1, INT => 2, QUIT => 3, USR1 => 10, USR2 => 12, TERM => 15);

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = lease_node('run', conf => "autovacuum = off\nmax_connections = 60");
my @here = at($node);
my $psql = "psql -XAtq -d '" . ($node->connstr('postgres') =~ s/'//gr) . "'";
my %signals = (SIGNALS);
my @ends;    # of all gates, so that nobody waits for one to be opened

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

sub start { return start_leasectl(@here, @_) }
sub shell { return ('--', 'sh', '-c', @_) }

# What a command waits for: "read go <GATE" returns when the test lets it pass.
sub new_gate
{
	my $path = "$dir/gate" . @ends;

	mkfifo($path, 0600) or die "could not make a pipe: $!";
	open my $ends, '+<', $path or die "could not open a pipe: $!";
	push @ends, $ends;
	return { path => $path, ends => $ends };
}

sub let_go { return syswrite $_[0]{ends}, "go\n" }

# A command that says that it began, waits, and ends well.
sub until_gate
{
	my ($gate) = @_;
	return shell("echo begun \$LEASE_TOKEN; read go <$gate->{path}");
}

sub said
{
	my ($run) = @_;
	return -e "$run->{output}.out" ? slurp_file("$run->{output}.out") : '';
}

# Wait for the command to say something; returns what the pattern captures.
sub hear
{
	my ($run, $pattern) = @_;
	my @heard;

	wait_for("the command to say $pattern", sub { @heard = said($run) =~ $pattern; @heard || has_ended($run) });
	return $heard[0] if @heard;
	diag("leasectl says: " . slurp_file("$run->{output}.err"));
	return '';
}

sub token_of { return hear($_[0], qr/^begun (\d+)/m) }

sub wait_for_waiters
{
	my ($count) = @_;
	return wait_for("$count to wait", sub { value('SELECT count(*) FROM lease.waiters') == $count });
}

# What the lease of a name is like, as the view has it.
sub shown
{
	my ($name, $columns) = @_;
	return value("SELECT $columns FROM lease.leases WHERE name = '$name'");
}

# Wait for renewals from now on: whoever keeps the lease is at it.
sub wait_for_renewals
{
	my ($name, $count) = @_;
	my $before = shown($name, 'renewals');

	return wait_for("renewals of $name", sub { (shown($name, 'renewals') || 0) >= $before + $count });
}

sub ends_with
{
	my ($run, $status, $what) = @_;
	my ($got, $out, $err) = finish_leasectl($run);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($got, $status, $what) or diag("$out$err");
	return ($out, $err);
}

sub history_is_told
{
	return wait_for('the history', sub { value('SELECT history_pending FROM lease.status') == 0 });
}

sub nothing_is_left
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_for_waiters(0);    # who was cut off is noticed a moment later
	is(value('SELECT count(*) FROM lease.leases'), 0, "$what: no lease is left");
	return;
}

#
# These take a while, so they begin here: leases that are kept over a lost connection, and
# that are lost.
#
my $kept_gate = new_gate();
my $kept = start('run', 'kept', '--ttl=3s', until_gate($kept_gate));
my $kept_token = token_of($kept);
my $kept_pid = shown('kept', 'pid');

my $obeys = start('run', 'obeys', '--ttl=3s', '--kill-after=1s', '--lock-delay=1min',
	shell('trap "echo told to stop; exit 0" TERM; echo begun $LEASE_TOKEN; while :; do read go <' . new_gate()->{path} . '; done'));
my $ignores = start('run', 'ignores', '--ttl=3s', '--kill-after=500ms',
	shell('trap "echo told to stop" TERM; echo begun $LEASE_TOKEN; while :; do read go <' . new_gate()->{path} . '; done'));
my $at_once = start('run', 'at once', '--ttl=3s', '--kill-after=0',
	shell('trap "echo told to stop" TERM; echo begun $LEASE_TOKEN; while :; do read go <' . new_gate()->{path} . '; done'));
my $stubborn = start('run', 'child', '--ttl=3s', '--kill-after=500ms', shell(
		'sh -c "trap \"\" TERM; echo child \$\$; read go <' . new_gate()->{path} . '" & '
		. 'trap "exit 0" TERM; echo begun $LEASE_TOKEN; wait'));
token_of($_) foreach $obeys, $ignores, $at_once, $stubborn;
my $child = hear($stubborn, qr/^child (\d+)/m);

is(value("SELECT pg_terminate_backend($kept_pid)"), 't', 'the connection is cut');
value("SET client_min_messages = error; SELECT lease.force_release('$_', 'for good reason')")
  foreach 'obeys', 'ignores', 'at once', 'child';

#
# Statuses
#
my @statuses = ([ 0, 'true' ], [ 7, 'exit 7' ], [ 255, 'exit 255' ], (map { [ $_, "exit $_" ] } 121 .. 127),
	map { [ 128 + $signals{$_}, "kill -$_ \$\$" ] } sort keys %signals);
push @statuses, [ 137, 'kill -KILL $$' ], [ 139, 'kill -SEGV $$' ];
my @runs = map { start('run', "status/$_->[1]", '--ttl=1h', shell("ulimit -c 0; $_->[1]")) } @statuses;
foreach (@statuses)
{
	my ($out, $err) = ends_with(shift @runs, $_->[0], "status: $_->[1]");
	is("$out$err", '', "status: $_->[1]: and nothing is said");
}
is(value(q{SELECT count(*) FROM lease.leases WHERE name LIKE 'status/%'}), 0, 'at the end each lease is released');

# It must be released at once, not by its TTL.
append_to_file("$dir/text", "#!/bin/sh\n");
foreach ([ 127, "$dir/nothing" ], [ 127, 'no-such-command' ], [ 126, "$dir/text" ], [ 126, $dir ], [ 127, "$dir/text/x" ], [ 127, '' ])
{
	my ($wanted, $command) = @$_;
	my $shown = $command =~ s/.*\///r;
	$wanted = 126 if $command =~ /text.x/;    # ENOTDIR is not "not found"

	foreach my $verb ('run', 'elect')
	{
		my ($status, $out, $err) = leasectl(@here, $verb, 'no command', '--ttl=1h', '--', $command);

		is("$status $out", "$wanted ", "$verb: no command \"$shown\"");
		like($err, qr/\Aleasectl: [^\n]*\Q$shown\E[^\n]*\z/, "$verb: no command \"$shown\": one line says so");
		is(shown('no command', 'name'), '', "$verb: no command \"$shown\": the lease is free");
	}
}

# A directory of PATH that may not be searched hides nothing, as in a shell.
mkdir "$dir/private", 0 or die "could not make a directory: $!";
my @hidden = ({ env => { PATH => "$dir/private:$ENV{PATH}" } }, @here, 'run', 'no command', '--');
is((leasectl(@hidden, 'no-such-command'))[0], 127, 'no command: also with a directory in PATH that is private');
is((leasectl(@hidden, 'sh', '-c', 'exit 5'))[0], 5, 'and a command behind it is found');

#
# What the command finds around it
#
my $name = q{it's $a "job"};
my ($status, $out, $err) = leasectl({ env => { LEASE_NAME => 'outer', LEASE_TOKEN => 1 } }, @here, 'run', $name, shell(
		qq{printf '%s\\n' "\$LEASE_NAME"; env | grep -cE '^LEASE_(NAME|TOKEN)=';}
		. qq{$psql -c "SELECT token = \$LEASE_TOKEN, lease.is_held(name, \$LEASE_TOKEN) FROM lease.leases WHERE holder ~ ':\$PPID\\\$'"}));
is($out, "$name\n2\nt|t", 'LEASE_NAME and LEASE_TOKEN: they are held');
is("$status $err", '0 ', 'and that is all that is said');

append_to_file("$dir/in", "first\nsecond\n");
is((leasectl({ in => "$dir/in" }, @here, 'run', 'in', '--', 'cat'))[1], "first\nsecond", 'standard input is the command\'s');
is_deeply([ (leasectl(@here, 'run', 'out', shell('echo o; echo e >&2')))[ 1, 2 ] ], [ 'o', 'e' ], 'so is output, and standard error');
is((leasectl(@here, 'run', 'words', '--', 'printf', '<%s>', 'a b', '', '--try', '-x', '--'))[1], '<a b><><--try><-x><-->', 'its arguments');
is((leasectl('run', '--ttl=1h', @here, 'words', '--', 'echo', 'x'))[1], 'x', 'options may stand anywhere before --');

# The same as without leasectl.
chomp(my $descriptors = `ls /proc/self/fd`);
is((leasectl(@here, 'run', 'files', '--', 'ls', '/proc/self/fd'))[1], $descriptors, 'no descriptor of leasectl\'s leaks into it');
my ($signals) = map { join "\n", /^(Sig(?:Blk|Ign|Cgt):.*)/mg } scalar `cat /proc/self/status`;
is(join("\n", (leasectl(@here, 'run', 'mask', '--', 'cat', '/proc/self/status'))[1] =~ /^(Sig(?:Blk|Ign|Cgt):.*)/mg), $signals,
	'signals are as they were');
like((leasectl(@here, 'run', 'group', '--', 'perl', '-e', 'print $$ == getpgrp ? 1 : 0'))[1],
	qr/^1$/, 'it has a process group of its own');
is((leasectl({ through => [ 'sh', '-c', "cd $dir; umask 027; exec \"\$@\"", 'sh' ] }, @here, 'run', 'place', shell('pwd; umask')))[1],
	"$dir\n0027", 'its directory and umask are the caller\'s');

#
# Signals
#
my $traps = join '; ', map { qq{trap "echo got $_; exit 3" $_} } sort keys %signals;
my %of = map { $_ => start('run', "signal/$_", shell("$traps; echo begun; while :; do read go <" . new_gate()->{path} . '; done')) }
  keys %signals;
foreach (sort keys %of)
{
	hear($of{$_}, qr/(begun)/);
	kill $_, $of{$_}{pid};
	($out, $err) = ends_with($of{$_}, 3, "signal $_: the command goes on to its own end");
	is($out . $err, "begun\ngot $_", "signal $_: it got it, once");
}
%of = map { $_ => start('run', "signal/$_", shell('ulimit -c 0; echo begun; exec sleep 600')) } keys %signals;
foreach (sort keys %of)
{
	hear($of{$_}, qr/(begun)/);
	kill $_, $of{$_}{pid};
	ends_with($of{$_}, 128 + $signals{$_}, "signal $_: which ends it");
}
my $family = start('run', 'family', shell('sh -c "trap \"echo child; exit\" TERM; echo begun; while :; do read go <'
			. new_gate()->{path} . '; done" & trap : TERM; while ! wait; do :; done; exit 8'));
hear($family, qr/(begun)/);
kill 'TERM', $family->{pid};
is((ends_with($family, 8, 'a signal: the command waits for its child'))[0], "begun\nchild", 'a signal: the whole group got it');

# While it waits.
my $taken = acquire($node, 'taken');
%of = map { $_ => start('run', 'taken', shell("touch $dir/ran")) } keys %signals;
wait_for_waiters(scalar keys %of);
foreach (sort keys %of)
{
	kill $_, $of{$_}{pid};
	is((ends_with($of{$_}, 128 + $signals{$_}, "signal $_ while it waits"))[0], '', "signal $_ while it waits: it says nothing");
}
ok(wait_for_waiters(0), 'a signal while it waits: it leaves the queue');

foreach (['--try'], ['--wait=100ms'], ['--wait=0'])
{
	($status, $out, $err) = leasectl(@here, 'run', 'taken', @$_, shell("touch $dir/ran"));
	is("$status $out", TAKEN . ' ', "@$_: taken");
	like($err, qr/\Aleasectl: [^\n]*taken[^\n]*\z/, "@$_: one line says so");
}
is((leasectl(@here, 'run', 'free', $_, '--', 'echo', 'ran'))[1], 'ran', "$_: free") foreach '--try', '--wait=0';
ok(!-e "$dir/ran", 'what did not get the lease has not run its command');

# The signal and the grant come at the same time: nobody is to have the lease.
my $before = acquire($node, 'granted');
my $late = start('run', 'granted', '--ttl=1h', shell("touch $dir/ran"));
wait_for_waiters(1);
freeze_processes($late->{pid});
release($node, 'granted', $before);
wait_for('the grant', sub { (shown('granted', 'token') || $before) != $before });
kill $_, $late->{pid} foreach 'TERM', 'CONT';
ends_with($late, 143, 'a signal when it is granted');
ok(wait_for('its release', sub { shown('granted', 'token') eq '' }), 'a signal when it is granted: the lease is free');
ok(!-e "$dir/ran", 'a signal when it is granted: the command has not run');

# A connection that is cut while it waits.
my $waits = start('run', 'taken', '--ttl=1h', '--', 'echo', 'ran');
wait_for_waiters(1);
my $pid = value('SELECT pid FROM lease.waiters');
value("SELECT pg_terminate_backend($pid)");
wait_for('it to wait again', sub { value("SELECT count(*) FROM lease.waiters WHERE pid <> $pid") == 1 });
release($node, 'taken', $taken);
is((ends_with($waits, 0, 'a connection is cut while it waits: it waits again'))[0], 'ran', 'and runs');

#
# Options
#
my @gates = map { new_gate() } 1 .. 3;
my $run = start('run', 'options', '--ttl=90s', '--holder=me', '--correlation-id=c-1', '--metadata={"a": 1}', '--min-hold=1h',
	until_gate($gates[0]));
my $token_of_run = token_of($run);
is(shown('options', 'token, ttl, holder, correlation_id, metadata, mode, scope'),
	"$token_of_run|00:01:30|me|c-1|{\"a\": 1}|exclusive|detached", 'options arrive');
let_go($gates[0]);
ends_with($run, 0, 'options: it ends');
is(shown('options', q{closed_until > now() + '30 min'}), 't', '--min-hold: the name stays closed');
is((leasectl(@here, 'run', 'options', '--try', '--', 'true'))[0], TAKEN, '--min-hold: for the next one');
value(q{SET client_min_messages = error; SELECT lease.force_release('options', 'enough', reopen => true)});

@runs = map { start('run', 'shared', '--shared', until_gate($gates[$_])) } 0, 1;
is(scalar(grep { token_of($_) } @runs), 2, '--shared: two at once');
is((leasectl(@here, 'run', 'shared', '--try', '--', 'true'))[0], TAKEN, '--shared: and nobody exclusively');
like(shown('shared', 'DISTINCT ttl'), qr/^00:00:30$/, 'the TTL is 30 s by default');
my $me = getpwuid($>) . '@' . substr((POSIX::uname())[1], 0, 47);
is(join(' ', sort split /\n/, shown('shared', 'holder')), join(' ', sort map { "$me:$_->{pid}" } @runs),
	'the holder is user@host:pid by default');
let_go($_) foreach @gates[ 0, 1 ];
ends_with($_, 0, '--shared: it ends') foreach @runs;

@runs = map { start('run', 'semaphore', '--capacity=3', '--permits=' . $_->[0], until_gate($gates[ $_->[1] ])) } [ 2, 0 ], [ 1, 1 ];
is(scalar(grep { token_of($_) } @runs), 2, '--permits: as many at once as there are permits for');
push @runs, start('run', 'semaphore', '--permits=1', until_gate($gates[2]));
wait_for_waiters(1);
is(said($runs[2]), '', '--permits: the next one waits');
let_go($gates[1]);
ok(token_of($runs[2]), '--permits: until there is one');
let_go($_) foreach @gates[ 0, 2 ];
ends_with($_, 0, '--permits: it ends') foreach @runs;

#
# Children
#
my $gate = $gates[0];
$run = start('run', 'children', '--ttl=1s', shell("(read go <$gate->{path}; echo child) & echo main \$\$; exit 5"));
my $main = hear($run, qr/^main (\d+)/m);
wait_for('the command to end', sub { !is_alive($main) });
ok(wait_for_renewals('children', 2), 'the command is over, its child is not: the lease is kept');
let_go($gate);
like((ends_with($run, 5, 'the child is over: the status is the command\'s'))[0], qr/^child$/m, 'the child was left alone');

#
# A pooler, in transaction mode, with one connection for those who wait and one for all else
#
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $home = PostgreSQL::Test::Utils::tempdir_short();
append_to_file("$home/pgbouncer.ini", <<~INI);
	[databases]
	pool = host=@{[ $node->host ]} port=@{[ $node->port ]} dbname=postgres user=@{[ value('SELECT current_user') ]} pool_size=3
	[pgbouncer]
	listen_port = $port
	unix_socket_dir = $home
	auth_type = any
	pool_mode = transaction
	logfile = $home/log
	INI
my $bouncer = IPC::Run::start([ '/usr/sbin/pgbouncer', '-q', "$home/pgbouncer.ini" ], '<', \undef, '>&', \my $complaints);
my @pool = ('-h', $home, '-p', $port, '-d', 'pool');
wait_for('the pooler', sub { -S "$home/.s.PGSQL.$port" });

$run = start_leasectl(@pool, 'run', 'pooled', '--ttl=1s', until_gate($gates[1]));
my $token = token_of($run);
$waits = start_leasectl(@pool, 'run', 'pooled', '--', 'echo', 'ran');
wait_for_waiters(1);
ok(wait_for_renewals('pooled', 2), 'a pooler: it renews');
is(shown('pooled', 'token'), $token, 'a pooler: its lease');
my $leaves = start_leasectl(@pool, 'run', 'pooled', '--', 'echo', 'ran');
wait_for_waiters(2);
kill 'TERM', $leaves->{pid};
ends_with($leaves, 143, 'a pooler: a signal while it waits');
ok(wait_for_waiters(1), 'a pooler: it leaves the queue');
let_go($gates[1]);
ends_with($run, 0, 'a pooler: it ends');
is((ends_with($waits, 0, 'a pooler: the next one gets it'))[0], 'ran', 'a pooler: and runs');

#
# A terminal
#
# A shell runs leasectl there, and goes on to read from it.
sub start_on_terminal
{
	my ($script) = @_;
	my $terminal = IO::Pty->new;
	my $child = fork // die "could not fork: $!";

	return { pty => $terminal, pid => $child, seen => '' } if $child;
	$terminal->make_slave_controlling_terminal;
	POSIX::dup2(fileno $terminal->slave, $_) foreach 0 .. 2;
	exec 'sh', '-c', $script or POSIX::_exit(98);
}

# Read until the terminal shows something.
sub see
{
	my ($terminal, $pattern) = @_;
	my $ready = IO::Select->new($terminal->{pty});
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;

	while ($terminal->{seen} !~ $pattern)
	{
		return 0 if time > $end;
		next unless $ready->can_read(0.1);
		return 0 unless sysread $terminal->{pty}, $terminal->{seen}, 4096, length $terminal->{seen};
	}
	return 1;
}

sub type { return syswrite $_[0]{pty}, $_[1] }

append_to_file("$dir/inner", <<~'SH');
	trap "echo interrupted; exit 9" INT
	perl -MPOSIX -e 'print POSIX::tcgetpgrp(0) == getpgrp ? "foreground\n" : "background\n"'
	read line
	echo "heard=$line"
	while :; do read line; done
	SH
my $terminal = start_on_terminal(
	'before=$(stty -g); ' . Leasectl::program() . " @here run terminal -- sh $dir/inner; echo status=\$?; "
	  . 'test "$before" = "$(stty -g)" && echo modes=same; read line; echo after=$line');
$terminal->{pty}->close_slave;
ok(see($terminal, qr/^foreground\r/m), 'a terminal: the command is in the foreground') or diag($terminal->{seen});
type($terminal, "\cZ");
type($terminal, "hello\n");
ok(see($terminal, qr/^heard=hello\r/m), 'a terminal: it reads, and Ctrl-Z does not stop it') or diag($terminal->{seen});
type($terminal, "\cC");
ok(see($terminal, qr/interrupted.*^status=9\r/ms), 'a terminal: Ctrl-C reaches it') or diag($terminal->{seen});
is(scalar(() = $terminal->{seen} =~ /interrupted/g), 1, 'a terminal: once');
ok(see($terminal, qr/^modes=same\r/m), 'a terminal: its modes are as before');
type($terminal, "more\n");
ok(see($terminal, qr/^after=more\r/m), 'a terminal: and it is given back') or diag($terminal->{seen});
close $terminal->{pty};    # which hangs up, should anybody still be there
waitpid $terminal->{pid}, 0;

#
# A lost answer
#
# Between the client and the server: passes everything on, but of the first connection
# nothing that comes back once somebody asked for a lease; it is cut when there is a file.
sub start_proxy
{
	my ($at, $cut) = @_;
	my $listener = IO::Socket::UNIX->new(Local => $at, Listen => 5) or die "could not listen: $!";
	my $child = fork // die "could not fork: $!";

	return $child if $child;
	for (my $first = 1;; $first = 0)
	{
		my $client = $listener->accept;
		my $server = IO::Socket::UNIX->new(Peer => $node->host . '/.s.PGSQL.' . $node->port) or POSIX::_exit(1);
		relay($client, $server, $first ? $cut : undef);
	}
}

sub relay
{
	my ($client, $server, $cut) = @_;
	my $ready = IO::Select->new($client, $server);
	my $mute = 0;

	while (!$mute || !-e $cut)
	{
		foreach my $from ($ready->can_read(0.02))
		{
			sysread $from, my $bytes, 65536 or return;
			$mute = 1 if defined $cut && $from == $client && $bytes =~ /acquire/;
			syswrite $from == $client ? $server : $client, $bytes unless $mute && $from == $server;
		}
	}
	return;
}

my $proxy = start_proxy("$dir/.s.PGSQL.1", "$dir/cut");
$run = start_leasectl('-h', $dir, '-p', 1, '-d', 'postgres', 'run', 'lost answer', '--ttl=1h', until_gate($gates[2]));
wait_for('the grant', sub { shown('lost answer', 'token') ne '' });
my $granted = shown('lost answer', 'token');
is(said($run), '', 'a lost answer: it is not known yet');
append_to_file("$dir/cut", '');
is(token_of($run), $granted, 'a lost answer: asked again, it is the same');
let_go($gates[2]);
ends_with($run, 0, 'a lost answer: it ends');
kill 'KILL', $proxy;
waitpid $proxy, 0;
is(value(q{SELECT acquired, released FROM lease.stats WHERE name = 'lost answer'}), '1|1', 'a lost answer: there was one grant');

#
# What was started at the beginning
#
foreach ([ $obeys, 'obeys', 1 ], [ $ignores, 'ignores SIGTERM', 1 ], [ $at_once, '--kill-after=0', 0 ],
	[ $stubborn, 'a child ignores SIGTERM' ])
{
	my ($run, $what, $told) = @$_;

	($out, $err) = ends_with($run, LOST, "lost, $what: its status");
	is(scalar(() = $out =~ /told to stop/g), $told, "lost, $what: was it told?") if defined $told;
	like($err, qr/\A(?:leasectl: [^\n]*\n?)+\z/, "lost, $what: it says so");
	like($err, qr/lost/, "lost, $what: and why");
}
ok(!is_alive($child), 'lost, a child ignores SIGTERM: it is dead');
is(shown('obeys', 'closed_until IS NOT NULL'), 't', '--lock-delay: a lease that is ended by force');
value(q{SET client_min_messages = error; SELECT lease.force_release('obeys', 'enough', reopen => true)});

ok(wait_for_renewals('kept', 1), 'its connection was cut: it renews');
is(shown('kept', 'token'), $kept_token, 'its connection was cut: the same token');
let_go($kept_gate);
ends_with($kept, 0, 'its connection was cut: it ends well');
nothing_is_left('run');
history_is_told();
is(value(q{SELECT string_agg(event, ' ' ORDER BY at, seq) FROM lease.history WHERE name = 'kept'}), 'acquired released',
	'its connection was cut: the history knows of nothing');

#
# elect
#
my $office = 'office';
my @terms = map { new_gate() } 1 .. 2;
my @candidates;

# A candidate with a command that tells of each term, which ends with a line from the gate.
sub stand_for
{
	my ($gate, @options) = @_;
	return start('elect', $office, '--pause=1ms', @options,
		shell("trap 'echo told to stop; exit 4' TERM; echo begun \$LEASE_TOKEN \$\$; read go <$gate->{path}; exit 6"));
}

# The terms that a candidate has had: tokens and processes.
sub terms { return map { [ split ] } said($_[0]) =~ /^begun (.*)/mg }

# Wait for a candidate's next term; returns its token and process.
sub wait_for_term
{
	my ($candidate, $nth) = @_;
	my @terms;

	wait_for("term $nth", sub { @terms = terms($candidate); @terms >= $nth });
	return @{ $terms[ $nth - 1 ] // [ 0, 0 ] };
}

my $tokens = LeaseTest::Tokens->new;
$candidates[0] = stand_for($terms[0], '--ttl=2s');
$tokens->saw((wait_for_term($candidates[0], 1))[0]);
$candidates[1] = stand_for($terms[1], '--ttl=2s');
wait_for_waiters(1);
is(value(q{SELECT concat_ws(' ', 'waits', backend_xmin, backend_xid) FROM pg_stat_activity JOIN lease.waiters USING (pid)}), 'waits',
	'elect: who waits holds no snapshot');
is(scalar terms($candidates[1]), 0, 'elect: and does not lead');

let_go($terms[0]);
my ($term, $command) = wait_for_term($candidates[1], 1);
$tokens->saw($term);
ok($term, "elect: when the leader's command ends, the other one leads");
ok(wait_for_waiters(1), 'elect: the former leader campaigns again');

kill 'KILL', $candidates[1]{pid};
ends_with($candidates[1], 137, 'elect: the leader is killed');
ok(wait_for('its command', sub { !is_alive($command) }), 'elect: its command dies');
($term) = wait_for_term($candidates[0], 2);
$tokens->saw($term);
ok($term, 'elect: the other one leads');

# A loss, which a renewal finds out.
value("SET client_min_messages = error; SELECT lease.force_release('$office', 'for good reason')");
($term, $command) = wait_for_term($candidates[0], 3);
$tokens->saw($term);
$tokens->only_grew('elect');
is(said($candidates[0]) =~ s/^begun.*\n//mgr, "told to stop\n", 'elect: after a loss the command is stopped, and it campaigns again');
like(slurp_file("$candidates[0]{output}.err"), qr/\A(?:leasectl: [^\n]*lost[^\n]*\n)\z/, 'elect: which it tells');

# Signals: to one that waits, and to the leader.
$candidates[1] = stand_for($terms[1]);
wait_for_waiters(1);
kill 'TERM', $candidates[1]{pid};
is((ends_with($candidates[1], 143, 'elect: a signal to one that does not lead ends it'))[0], '', 'elect: without its command');
ok(wait_for_waiters(0), 'elect: it leaves the queue');
kill 'TERM', $candidates[0]{pid};
like((ends_with($candidates[0], 4, 'elect: a signal to the leader ends it, with the status of the command'))[0], qr/told to stop\z/,
	'elect: which got it');
nothing_is_left('elect');

# --once, --pause
is((leasectl(@here, 'elect', $office, '--once', shell('exit 6')))[0], 6, 'elect --once: one term, and its status');
my $once = stand_for($terms[0], '--once', '--ttl=2s');
wait_for_term($once, 1);
value("SET client_min_messages = error; SELECT lease.force_release('$office', 'for good reason')");
ends_with($once, LOST, 'elect --once: a loss');

my $rests = start_leasectl({ env => { PGAPPNAME => 'rests' } }, @here, 'elect', $office, '--pause=1h', '--', 'echo', 'begun');
hear($rests, qr/(begun)/);
wait_for('it to rest', sub { value(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rests'}) == 0 });
is(value('SELECT count(*) FROM lease.leases'), 0, 'elect --pause: nobody leads meanwhile');
kill 'TERM', $rests->{pid};
is((ends_with($rests, 143, 'elect --pause: a signal ends it'))[0], 'begun', 'elect --pause: there was one start');

# Connections that are cut, of one that waits and of the leader.
$candidates[0] = stand_for($terms[0], '--ttl=2s');
($term) = wait_for_term($candidates[0], 1);
$candidates[1] = stand_for($terms[1], '--ttl=2s');
wait_for_waiters(1);
my $cut = value('SELECT array_agg(pid) FROM (SELECT pid FROM lease.leases UNION ALL SELECT pid FROM lease.waiters) s');
is(value("SELECT bool_and(pg_terminate_backend(pid)) FROM unnest('$cut'::integer[]) pid"), 't', 'elect: all connections are cut');
ok(wait_for_renewals($office, 1), 'elect: the leader renews');
is(value('SELECT token FROM lease.leases'), $term, 'elect: the same term');
ok(wait_for_waiters(1), 'elect: the other one waits again');
let_go($terms[0]);
ok((wait_for_term($candidates[1], 1))[0] > $term, 'elect: and leads when it is over');

# The one that waits goes first: what it is granted as it leaves would stay for its TTL.
wait_for_waiters(1);
kill 'TERM', $candidates[0]{pid};
ends_with($candidates[0], 143, 'elect: the end of one');
wait_for_waiters(0);
kill 'TERM', $candidates[1]{pid};
ends_with($candidates[1], 4, 'elect: and of the other');
nothing_is_left('elect');

$node->stop;
done_testing();

END
{
	local $?;
	$bouncer->kill_kill if $bouncer;
}
