# What leasectl runs is dead before its lease can be anybody else's.
#
# Commands that tell when they were last alive (test/tools/heartbeat.c) run under
# leases of a second; then the server is frozen, the network between is cut, or
# leasectl is frozen, at a moment that is drawn at random.  What counts is the
# server's deadline, as its history has it, and the first sign of life of whoever
# gets the lease next.  Where leasectl and its watchdog are both frozen nobody can
# stop the command, so there it is the time from the thaw on that counts.
#
# Also: leasectl killed, 200 that take turns, and wall clocks that are set.
# LEASE_TEST_SEED repeats the moments of another run; LEASE_TEST_NETWORK=proxy
# cuts what a proxy passes on, as is done where namespaces are not to be had.

use strict;
use warnings;

# The network can be cut by who may configure it: in a namespace of our own we may.
BEGIN
{
	my @own = qw(unshare -U --map-current-user --keep-caps -n);

	$ENV{PATH} .= ':/usr/sbin:/sbin';
	if (!defined $ENV{LEASE_TEST_NETWORK})
	{
		my $try = 'ip link set lo up && ip link add far type veth peer name near && unshare -n true';

		$ENV{LEASE_TEST_NETWORK} = system("@own sh -c '$try' >/dev/null 2>&1") == 0 ? 'namespaces' : 'proxy';
		exec @own, $^X, '-w', $0, @ARGV if $ENV{LEASE_TEST_NETWORK} eq 'namespaces';
	}
}

use FindBin;
use lib $FindBin::RealBin;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use LeaseTest;
use Leasectl;
use List::Util qw(max min shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(clock_gettime usleep);

use constant CLOCK_BOOTTIME => 7;
use constant HOUR => 3600;
use constant TTL => 1;
use constant TOGETHER => full_size(2, 10);
use constant ROUNDS => full_size(1, 10);
use constant TURNS => full_size(40, 200);

my $namespaces = $ENV{LEASE_TEST_NETWORK} eq 'namespaces';
my ($here, $there) = qw(10.111.0.1 10.111.0.2);
my $network = $namespaces ? make_network() : undef;
my $node = lease_node(
	'server', conf => <<~CONF);
	max_connections = 300
	log_statement = none
	listen_addresses = '@{[ $namespaces ? $here : '' ]}'
	CONF
my $proxy = $namespaces ? undef : start_proxy();
my $seed = $ENV{LEASE_TEST_SEED} // (time ^ $$);

srand $seed;
note("LEASE_TEST_SEED=$seed");
note('the network is cut ' . ($namespaces ? 'between two namespaces' : 'in a proxy'));
append_to_file($node->data_dir . '/pg_hba.conf', "host all all $there/32 trust\n");
$node->reload;

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

#
# The network
#
# A namespace at the other end of a cable.  It is there as long as a process is,
# which ends when the test does, with its input.
sub make_network
{
	my $pid = open my $input, '|-', qw(unshare -n cat) or die "could not run unshare: $!";
	my $ours = readlink '/proc/self/ns/net';

	wait_for('another namespace', sub { readlink("/proc/$pid/ns/net") ne $ours });
	system_or_bail(split / /, $_) foreach 'ip link set lo up',
	  "ip link add far type veth peer name near netns $pid",
	  "ip addr add $here/30 dev far", 'ip link set far up',
	  "nsenter -t $pid -n ip addr add $there/30 dev near", "nsenter -t $pid -n ip link set near up";

	# There, and without our privileges.
	return {
		input => $input,
		through => [ qw(nsenter -t), $pid, qw(-n setpriv --inh-caps=-all --ambient-caps=-all) ] };
}

# Pass on what comes to a port.  Whoever stops the process cuts the network.
sub start_proxy
{
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 100) or die "could not listen: $!";
	my $pid = fork // die "could not fork: $!";

	pass_on($listener) unless $pid;
	return { pid => $pid, port => $listener->sockport };
}

sub pass_on
{
	my ($listener) = @_;
	my $select = IO::Select->new($listener);
	my %other;    # of a connection's two sockets

	$SIG{PIPE} = 'IGNORE';
	while (1)
	{
		foreach my $from ($select->can_read)
		{
			my ($to, $bytes) = $other{$from};

			if ($from == $listener)
			{
				my $client = $listener->accept or next;
				my $server = IO::Socket::UNIX->new(Peer => $node->host . '/.s.PGSQL.' . $node->port) or next;
				@other{ $client, $server } = ($server, $client);
				$select->add($client, $server);
			}
			elsif ($to && !(sysread($from, $bytes, 65536) && syswrite($to, $bytes)))
			{
				$select->remove($from, $to);
				delete @other{ $from, $to };
			}
		}
	}
	return;
}

sub cut_network
{
	return freeze_processes($proxy->{pid}) if $proxy;
	return system_or_bail(qw(ip link set far down));
}

sub mend_network
{
	return thaw($proxy->{pid}) if $proxy;
	return system_or_bail(qw(ip link set far up));
}

# How leasectl gets to the server, so that it can be cut off.
sub over_network
{
	return ({}, '-h', '127.0.0.1', '-p', $proxy->{port}, '-d', 'postgres') if $proxy;
	return ({ through => $network->{through} }, '-h', $here, '-p', $node->port, '-d', 'postgres');
}

#
# What may happen
#
# Each run at a moment of its own, unless it is over.
sub freeze_each
{
	my ($which, @runs) = @_;

	foreach my $run (shuffle(@runs))
	{
		pause_at_random(TTL / @runs);
		freeze_processes($which->($run));
	}
	return;
}

# Not to wait for something: what happens next is to happen at any moment.
sub pause_at_random
{
	my ($most) = @_;
	usleep(rand(1e6 * $most));
	return;
}

# The command of each run is to be dead before the next run is thawed, so that it is
# its own death that is measured.
sub thaw_each
{
	my ($which, @runs) = @_;

	foreach my $run (@runs)
	{
		my @pids = shuffle($which->($run));

		$run->{thawed} = clock_gettime(CLOCK_BOOTTIME);
		kill 'CONT', @pids;
		await_death($run);
	}
	return;
}

my (@server, $moment);

# Renewals that it finds then come too late.  In full size, some do not.
sub thaw_server
{
	wait_for('the end of all leases', sub { clock_gettime(CLOCK_BOOTTIME) > $moment + TTL })
	  unless full_size(0, rand > 0.7);
	kill 'CONT', @server;
	return;
}

sub leasectl_of { return $_[0]{pid} }
sub watchdog_of { return $_[0]{watchdog} // () }
sub both_of { return ($_[0]{pid}, watchdog_of($_[0])) }
sub all_of { return (both_of($_[0]), map { $_->{pid} } beats($_[0]{heart})) }

# For each kind of trouble: begin and end, which are given the runs; whether the
# command can be stopped meanwhile, and what signal, if any, it hears of then before it
# is killed; whether others can get the lease meanwhile.
my %trouble = (
	'server frozen' => {
		begin => sub { @server = freeze_server($node); $moment = clock_gettime(CLOCK_BOOTTIME) },
		end => \&thaw_server,
		stoppable => 1,
		signal => 15
	},
	'server and watchdog frozen' => {
		begin => sub {
			freeze_processes(map { watchdog_of($_) } @_);
			@server = freeze_server($node);
			$moment = clock_gettime(CLOCK_BOOTTIME);
		},
		end => \&thaw_server,
		stoppable => 1,
		signal => 15
	},
	'network cut' => {
		begin => \&cut_network,
		end => \&mend_network,
		over_network => 1,
		stoppable => 1,
		next => 1,
		signal => 15
	},
	'leasectl frozen' => {
		begin => sub { freeze_each(\&leasectl_of, @_) },
		end => sub { thaw_each(\&leasectl_of, @_) },
		stoppable => 1,
		next => 1,
		signal => 0
	},
	'leasectl and watchdog frozen' => {
		begin => sub { freeze_each(\&both_of, @_) },
		end => sub { thaw_each(\&both_of, @_) },
		next => 1
	},
	'leasectl, watchdog and command frozen' => {
		begin => sub { freeze_each(\&all_of, @_) },
		end => sub { thaw_each(\&all_of, @_) },
		next => 1
	});

#
# Runs
#
my $names = 0;

# A run whose command is one of four: with a child or without one, and one that
# ends when it is asked to or one that has to be killed.
sub start_run
{
	my ($how, @at) = @_;
	my $name = 'run/' . ++$names;
	my $heart = new_heart();
	my @options = (('ignore') x ($names % 2), ('child') x ($names % 4 > 1));
	my @command = (truly($how), heart($heart, @options));
	my $run = start_leasectl($how, @at, 'run', $name, '--ttl', TTL, '--', @command);

	@$run{qw(name heart hearts)} = ($name, $heart, 1 + grep { $_ eq 'child' } @options);
	return $run;
}

# What is set for leasectl is not for its command.
sub truly
{
	my ($how) = @_;
	return ('env', map { ('-u', $_) } sort keys %{ $how->{env} // {} });
}

# Whoever is next in line.
sub start_next
{
	my ($run) = @_;
	my $heart = new_heart();
	my $next = start_leasectl(at($node), 'run', $run->{name}, '--', heart($heart, 'once'));

	$next->{heart} = $heart;
	return $run->{next} = $next;
}

sub await_beats
{
	my ($run) = @_;
	return wait_for("$run->{name}: its command", sub { (() = beats($run->{heart})) == $run->{hearts} });
}

sub await_death
{
	my ($run) = @_;
	return wait_for("$run->{name}: the end of its command",
		sub { !grep { is_alive($_->{pid}) } beats($run->{heart}) });
}

# Some runs, each with somebody who waits for its lease.
sub start_runs
{
	my ($count, @how) = @_;
	my @runs = map { start_run(@how) } 1 .. $count;

	await_beats($_) foreach @runs;
	start_next($_) foreach @runs;
	wait_for('others to wait', sub { value('SELECT count(*) FROM lease.waiters') == grep { !has_ended($_) } @runs });
	my @watchdogs = watchdogs(@runs);
	$runs[$_]{watchdog} = $watchdogs[$_] foreach 0 .. $#runs;
	return @runs;
}

# Some runs live through a trouble.
sub endure
{
	my ($kind, $count, @how) = @_;
	my $trouble = $trouble{$kind};
	my @runs = start_runs($count, @how ? @how : $trouble->{over_network} ? over_network() : ({}, at($node)));

	pause_at_random(TTL);

	# On a slow machine one may have lost its lease before.
	$_->{early} = has_ended($_) foreach @runs;
	$trouble->{begin}->(@runs);
	if ($trouble->{stoppable}) { await_death($_) foreach @runs }
	if ($trouble->{next}) { wait_for('the next one', sub { has_ended($_->{next}) }) foreach @runs }
	$trouble->{end}->(@runs);
	await_death($_) foreach @runs;
	foreach my $run (@runs)
	{
		@$run{qw(code out err)} = finish_leasectl($run);
		@{ $run->{next} }{qw(code out err)} = finish_leasectl($run->{next});
	}
	return @runs;
}

#
# Judgement
#
# When leases were over, by token; and likewise those that ran out, at that moment.
# What the server could hear of in time was released.
sub ends_of_leases
{
	my @tokens = @_;
	my (%at, $rows);

	wait_for(
		'the history of all runs',
		sub {
			$rows = value(<<~SQL);
				SELECT token, extract(epoch FROM at), event FROM lease.history
				WHERE event IN ('expired', 'released') AND token IN (@{[ join ', ', @tokens ]})
				SQL
			%at = $rows =~ /^(\d+)\|([\d.]+)/mg;
			return keys %at == @tokens;
		});
	return (\%at, { $rows =~ /^(\d+)\|([\d.]+)\|expired$/mg });
}

sub token_of { return (beats($_[0]{heart}))[0]{token} }

# What is wrong with a run.
sub complaints
{
	my ($trouble, $run, $end) = @_;
	my @beats = beats($run->{heart});
	my $last = $run->{last} = max(map { $_->{last} } @beats);
	my $next = (beats($run->{next}{heart}))[0];
	my @wrong;

	push @wrong, "status $run->{code}" if $run->{code} != 123;
	push @wrong, "the next one has status $run->{next}{code}: $run->{next}{err}" if $run->{next}{code} != 0;
	push @wrong, 'its lease does not end' unless $end;
	$run->{gap} = max(map { $_->{gap} } @beats);
	if ($trouble->{stoppable})
	{
		push @wrong, 'alive ' . milliseconds($last - $end) . ' after that' if $end && $end <= $last;
		push @wrong, "alive at the next one's first beat" if $next && $next->{first} <= $last;
	}
	elsif (!$run->{early})
	{
		# Not even one more beat counts as none.
		$run->{late} = max(0, max(map { $_->{last_boot} } @beats) - $run->{thawed});
	}

	# How far leasectl got in time is for a quiet machine to say.
	push @wrong, "signal $_->{signal}" foreach full_size(0, $trouble->{stoppable})
	  ? grep { !$run->{early} && $_->{signal} != $trouble->{signal} } @beats
	  : ();
	return map { "$run->{name}: $_ ($run->{err})" } @wrong;
}

sub milliseconds { return sprintf '%.1f ms', 1000 * $_[0] }

sub say_margins
{
	my ($kind, @runs) = @_;
	my @margins = sort { $a <=> $b } map { $_->{deadline} - $_->{last} }
	  grep { $_->{deadline} && !defined $_->{late} } @runs;
	my @late = sort { $a <=> $b } map { $_->{late} // () } @runs;
	my $figures = '';

	$figures .= sprintf ', dead %s before the deadline at the latest (p50 %s)',
	  map { milliseconds($_) } $margins[0], $margins[@margins / 2]
	  if @margins;
	$figures .= sprintf ', dead after the thaw within %s (p50 %s)',
	  map { milliseconds($_) } $late[-1], $late[@late / 2]
	  if @late;
	note("$kind: " . @runs . " runs, " . grep({ $_->{early} } @runs) . ' of them lost before'
		  . $figures . ', longest gap between beats ' . milliseconds(max(map { $_->{gap} } @runs)));
	return max(@late, 0);
}

# One test, and in full size another.
sub judge_runs
{
	my ($kind, @runs) = @_;
	my ($ends, $deadlines) = ends_of_leases(map { token_of($_) } @runs);
	my @wrong = map { complaints($trouble{$kind}, $_, $ends->{ token_of($_) }) } @runs;

	$_->{deadline} = $deadlines->{ token_of($_) } foreach @runs;
	my $late = say_margins($kind, @runs);

	is(join("\n", @wrong[0 .. min(9, $#wrong)]), '',
		$trouble{$kind}{stoppable}
		? "$kind: every command is dead before its lease is over"
		: "$kind: every command is killed after the thaw");
	cmp_ok($late, '<=', 0.05, "$kind: within 50 ms") if full_size(0, 1) && !$trouble{$kind}{stoppable};
	return;
}

foreach my $kind (sort keys %trouble)
{
	judge_runs($kind, map { endure($kind, TOGETHER) } 1 .. ROUNDS);
}

#
# Killed
#
# A run with a child that does not end when it is asked to, and its watchdog.
sub start_stubborn
{
	my ($name) = @_;
	my $heart = new_heart();
	my $run = start_leasectl(at($node), 'run', $name, '--ttl', TTL, '--', heart($heart, 'ignore', 'child'));

	@$run{qw(name heart hearts)} = ($name, $heart, 2);
	await_beats($run);
	($run->{watchdog}) = watchdogs($run);
	start_next($run);
	return $run;
}

sub is_at_rest
{
	my @pids = @_;
	my $processes = processes();
	return !grep { ($processes->{$_}{state} // '') ne 'S' } @pids;
}

sub ends_and_frees
{
	my ($run, $what) = @_;
	my @beats;
	my ($code, $out, $err);

	await_death($run);
	@beats = beats($run->{heart});
	($code, $out, $err) = finish_leasectl($run->{next});
	is($code, 0, "$what: the next run starts") or diag($err);
	my ($deadline) = values %{ (ends_of_leases($beats[0]{token}))[1] };
	cmp_ok($deadline, '>', max(map { $_->{last} } @beats), "$what: the command is dead before the lease is over");
	cmp_ok((beats($run->{next}{heart}))[0]{first}, '>', $deadline, "$what: and the next one starts after that");
	return;
}

my $run = start_stubborn('killed');
kill 'KILL', $run->{pid};
ends_and_frees($run, 'leasectl is killed');
is((finish_leasectl($run))[0], 128 + 9, 'leasectl is killed: it was');

# Neither can do anything about the other.
$run = start_stubborn('both killed');
freeze_processes(both_of($run));
kill 'KILL', both_of($run);
my ($command, $child) = map { $_->{pid} } beats($run->{heart});
ok(wait_for('the end of the command', sub { !is_alive($command) }), 'leasectl and its watchdog are killed: so is the command');
kill 'KILL', $child;
ends_and_frees($run, 'leasectl and its watchdog are killed');

# Another one is there at once, and does the same.
$run = start_stubborn('watchdog killed');
my ($former) = watchdog_of($run);
kill 'KILL', $former;
ok( wait_for(
		'another watchdog, which has its orders',
		sub {
			($run->{watchdog}) = watchdogs($run);
			return ($run->{watchdog} // $former) != $former && is_at_rest(both_of($run));
		}),
	'a watchdog is killed: there is another one');
kill 'KILL', $run->{pid};
ends_and_frees($run, 'and then leasectl is');

#
# One at a time
#
my $log = PostgreSQL::Test::Utils::tempdir() . '/log';
my $append = "echo begin \$LEASE_TOKEN >>$log; echo end \$LEASE_TOKEN >>$log";
my @turns = map { start_leasectl(at($node), 'run', 'x', '--', 'sh', '-c', $append) } 1 .. TURNS;
my @answers = map { [ finish_leasectl($_) ] } @turns;
my @lines = split /\n/, slurp_file($log);
my @tokens = map { /^begin (\d+)$/ } @lines;

is(join(' ', grep { $_ != 0 } map { $_->[0] } @answers), '', TURNS . ' runs of one name: all end well');
is(join('', map { $_->[2] } @answers), '', 'without a word');
is(scalar @tokens, TURNS, 'none is lost');
is_deeply(\@lines, [ map { ("begin $_", "end $_") } @tokens ], 'one begins when the one before has ended');
is_deeply(\@tokens, [ sort { $a <=> $b } @tokens ], 'and has a larger token');

#
# Wall clocks
#
my $clock = PostgreSQL::Test::Utils::tempdir() . '/clock';
my %faked = (LD_PRELOAD => "$clock.so", WALLCLOCK => $clock);

sub make_clock
{
	system_or_bail(qw(gcc -O2 -Wall -Wextra -Werror -shared -fPIC), "$FindBin::RealBin/../tools/wallclock.c",
		'-o', "$clock.so");
	append_to_file($clock, pack 'q', 0);
	return;
}

# In seconds off the true time, for who has it preloaded.
sub set_clock
{
	my ($offset) = @_;

	open my $out, '+<:raw', $clock or die "could not open $clock: $!";
	print $out pack 'q', $offset;
	close $out or die "could not write $clock: $!";
	return;
}

# A run under a lease that is long enough for a slow machine.
sub start_steady
{
	my ($name, $how, $server) = @_;
	my $heart = new_heart();
	my $run = start_leasectl($how, at($server), 'run', $name, '--ttl', 3, '--', truly($how), heart($heart));

	@$run{qw(name heart hearts server)} = ($name, $heart, 1, $server);
	await_beats($run);
	return $run;
}

sub renewals
{
	my ($run) = @_;
	my ($beats) = beats($run->{heart});
	return $run->{server}->safe_psql('postgres',
		"SELECT renewals FROM lease.leases WHERE name = '$run->{name}' AND token = $beats->{token}");
}

# It goes on, on the connection that it has and on another one.
sub goes_on
{
	my ($run, $when) = @_;

	foreach my $disconnect ('', q{
		SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()})
	{
		my $before = renewals($run);

		$run->{server}->safe_psql('postgres', $disconnect);
		ok( wait_for("$when: renewals", sub { has_ended($run) || renewals($run) >= $before + 2 }) && !has_ended($run),
			"$when: $run->{name} goes on" . ($disconnect ? ', also with a new connection' : ''));
	}
	return;
}

# The clock of leasectl is set, and the server does not answer any more.
sub dead_in_time
{
	my ($step, $when) = @_;
	my $kind = "server frozen, $when";
	my $frozen = $trouble{'server frozen'};

	$trouble{$kind} = { %$frozen, begin => sub { set_clock($step); $frozen->{begin}->() } };
	set_clock(0);
	judge_runs($kind, endure($kind, TOGETHER, { env => \%faked }, at($node)));
	return;
}

sub steps_of_clocks
{
	my $faked_node = PostgreSQL::Test::Cluster->new('faked');

	make_clock();
	$faked_node->init;
	{
		local %ENV = (%ENV, %faked);
		$faked_node->start;
	}
	create_lease($faked_node, 'postgres');
	my @runs = (start_steady('the clock of leasectl', { env => \%faked }, $node),
		start_steady('the clock of the server', {}, $faked_node));

	foreach my $step (HOUR, -HOUR())
	{
		my $when = sprintf 'clock set by %+d', $step;

		dead_in_time($step, $when);
		my $off = $faked_node->safe_psql('postgres', 'SELECT extract(epoch FROM clock_timestamp())') - time - $step;
		cmp_ok(abs $off, '<', HOUR / 4, "$when: it is");
		goes_on($_, $when) foreach @runs;
	}
	foreach my $run (@runs)
	{
		kill 'TERM', $run->{pid};
		is((finish_leasectl($run))[0], 128 + 15, "$run->{name}: ends as its command does");
	}
	$faked_node->stop;
	return;
}

steps_of_clocks();
$node->stop;
done_testing();

END
{
	local $?;
	if ($proxy && $proxy->{pid})
	{
		kill 'KILL', $proxy->{pid};
		waitpid $proxy->{pid}, 0;
	}
}
