# Deadlocks: of those who would wait for ever one is told so, and nobody else.
#
# A cycle of waits may lead through leases and permits, the server's own locks,
# and the order of a queue.  Whoever in it waits for a lease finds out, whichever
# wait closed it; one victim gets 40P01 and a DETAIL that tells the cycle, and the
# others go on.  What only looks like a cycle is let be: TTLs end, sessions wake
# up, permits come free.

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
	'deadlock', conf => q{
	deadlock_timeout = 100ms
	log_lock_waits = on
	autovacuum = off
	max_connections = 60});
my $deadlocks = 0;    # that were found
my $slowest = 0;      # how long that took, with all that comes after it

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

value(q{
	CREATE TABLE account AS SELECT id, 0 AS balance FROM generate_series(1, 6) id;
	CREATE ROLE anna; CREATE ROLE bert; CREATE ROLE cora;
	SELECT lease.allow(r::regrole) FROM unnest(ARRAY['anna', 'bert', 'cora']) r});

sub start_session
{
	my $psql = $node->background_psql('postgres', on_error_stop => 0);

	$psql->query_safe("\\set VERBOSITY verbose\nSET client_min_messages = error");
	return { psql => $psql, pid => $psql->query_safe('SELECT pg_backend_pid()') };
}

# Let a session do something that it need not wait for.
sub has
{
	my ($session, @statements) = @_;
	$session->{psql}->query_safe($_) foreach @statements;
	return;
}

sub let_go { return has($_[0], 'SELECT lease.release_session()') }

# What a session asks for, and how that is told of.
sub request
{
	my ($who, $sql, $words) = @_;
	return { who => $who, sql => $sql, words => $words };
}

# An exclusive lease in scope session, if nothing else is said.
sub a_lease
{
	my ($who, $name, %args) = @_;
	my %all = (scope => 'session', mode => 'exclusive', %args);
	my $args = join '', map { ", $_ => '$all{$_}'" } sort keys %all;

	return request($who, "SELECT lease.acquire('$name'$args)", qr/$all{mode} lease "$name"/);
}

# Permits of a semaphore of three.
sub permits
{
	my ($who, $name, $permits) = @_;
	return request(
		$who,
		"SELECT lease.acquire_permit('$name', 3, $permits, scope => 'session')",
		qr/$permits of 3 permits of semaphore "$name"/);
}

my $update = 'UPDATE account SET balance = balance + 1 WHERE id = 1 RETURNING id';

sub the_row { return request($_[0], $update, qr/ShareLock on transaction \d+/) }

# Sessions have what they ask for.
sub get
{
	has($_->{who}, $_->{sql}) foreach @_;
	return;
}

sub is_waiting
{
	my ($request) = @_;
	my $pid = $request->{who}{pid};

	return value("SELECT EXISTS (SELECT 1 FROM lease.waiters WHERE pid = $pid)
		     OR EXISTS (SELECT 1 FROM pg_locks WHERE pid = $pid AND NOT granted)") eq 't';
}

# The first look of a session for a deadlock is over: only then that is logged.
sub wait_for_look
{
	my ($who, $position) = @_;
	return wait_for('a look for a deadlock',
		sub { log_since($node, $position) =~ /process $who->{pid} still waiting for lease/ });
}

# Sessions ask, one after the other, and have to wait; when that is over, either
# way, each lets go of all that it has.  Some are to look for a deadlock before the
# next one asks.
sub ask
{
	my (@requests) = @_;

	foreach my $it (@requests)
	{
		my $position = log_position($node);

		ask_session($it->{who}{psql}, <<~SQL);
			$it->{sql};
			ROLLBACK;
			SELECT lease.release_session() \\g /dev/null
			SELECT pg_advisory_unlock_all() \\g /dev/null
			SQL
		wait_for('a session to wait', sub { is_waiting($it) }) unless $it == $requests[-1];
		wait_for_look($it->{who}, $position) if $it->{looks};
	}
	return;
}

# What a session has got, and what it was told; waits for either.
sub answer { return await_answer($_[0]{who}{psql}) }

# Is a DETAIL a cycle of so many?  It leads from the victim through sessions, each
# of which waits for what it asked for, back to it.
sub is_cycle
{
	my ($what, $detail, $length, $victim, @requests) = @_;
	my %words = map { $_->{who}{pid} => $_->{words} } @requests;
	my @lines = $detail =~ /(?:^|DETAIL:  )(Process \d+ waits .*)$/mg;
	my $next = $victim;

	foreach my $line (@lines)
	{
		my ($pid, $blocker) = $line =~ /^Process (\d+) .* blocked by process (\d+)\.$/;

		$next = $pid == $next && $line =~ /^Process $pid waits for $words{$pid};/ ? $blocker : 'nobody';
	}
	ok(@lines == $length && $next eq $victim,
		"$what: the DETAIL tells who waits for what, and blocked by whom")
	  or diag("victim $victim, $length wanted: $detail");
	return;
}

sub nothing_is_left
{
	my ($what) = @_;

	is(value('SELECT count(*) FROM lease.waiters'), 0, "$what: nobody waits");
	is(leases_used($node), 0, "$what: no grant is left");
	return;
}

# Sessions ask, and for some of them, so many, that is a cycle: one fails and is
# told of it, the others go on; "then" is what must happen first.  Returns the
# victim and what it was told.
sub is_deadlock
{
	my ($what, $length, $requests, $then) = @_;
	my $position = log_position($node);
	my (@victims, @failed, $told, $since);

	ask(@$requests);
	$since = time;
	wait_for("$what: a victim", sub { log_since($node, $position) =~ /deadlock detected/ });
	$slowest = time - $since if time - $since > $slowest;
	$then->() if $then;
	foreach my $it (@$requests)
	{
		my ($out, $err) = answer($it);

		if ($err =~ /ERROR:  40P01: deadlock detected/)
		{
			push @victims, $it->{who};
			$told = $err;
		}
		elsif ($err ne '' || $out eq '')
		{
			push @failed, "$it->{sql}: $out$err";
		}
	}
	$deadlocks += @victims;
	is(scalar @victims, 1, "$what: there is one victim");
	is("@failed", '', "$what: the others get what they asked for");
	is_cycle($what, $told, $length, $victims[0]{pid}, @$requests) if @victims;
	nothing_is_left($what);
	return ($victims[0], $told);
}

# Sessions ask, and wait on after they looked for a deadlock; when something
# happens, all are served.
sub is_none
{
	my ($what, $requests, $then) = @_;
	my $position = log_position($node);
	my @wrong;

	# When the last has come all are there.
	ask(@$requests);
	wait_for_look($requests->[-1]{who}, $position);
	is(scalar(grep { is_waiting($_) } @$requests), scalar @$requests, "$what: all wait");
	$then->();
	foreach my $it (@$requests)
	{
		my ($out, $err) = answer($it);
		push @wrong, "$it->{sql}: $out$err" if $out eq '' || $err ne '';
	}
	is("@wrong", '', "$what: all get what they asked for");
	return;
}

my ($one, $two, $three) = map { start_session() } 1 .. 3;

#
# Two leases
#
get(a_lease($one, 'a'), a_lease($two, 'b'));
is_deadlock('a deadlock between two sessions is resolved by failing one',
	2, [ a_lease($one, 'b'), a_lease($two, 'a') ]);

my @scope = (scope => 'transaction');
has($_, 'BEGIN') foreach $one, $two;
get(a_lease($one, 'a', @scope), a_lease($two, 'b', @scope));
is_deadlock('scope transaction', 2, [ a_lease($one, 'b', @scope), a_lease($two, 'a', @scope) ]);

#
# A lease and a lock, whichever comes last
#
has($one, 'BEGIN', $update);
get(a_lease($two, 'a'));
my ($victim) = is_deadlock('also when half of the cycle is a row lock, which comes last',
	2, [ { %{ a_lease($one, 'a') }, looks => 1 }, the_row($two) ]);
is($victim->{pid}, $one->{pid}, 'the victim is who waits for the lease');

has($one, 'BEGIN', $update);
get(a_lease($two, 'a'));
($victim) = is_deadlock('also when half of the cycle is a row lock, which comes first',
	2, [ the_row($two), a_lease($one, 'a') ]);
is($victim->{pid}, $one->{pid}, 'the victim is who waits for the lease');

has($one, 'SELECT pg_advisory_lock(7)');
get(a_lease($two, 'a'));
is_deadlock('an advisory lock', 2,
	[
		request($two, 'SELECT pg_advisory_lock(7) IS NOT NULL', qr/ExclusiveLock on advisory lock .*/),
		a_lease($one, 'a')
	]);

#
# Three parties
#
get(a_lease($one, 'a'), a_lease($two, 'b'), a_lease($three, 'c'));
is_deadlock('three leases', 3, [ a_lease($one, 'b'), a_lease($two, 'c'), a_lease($three, 'a') ]);

has($one, 'BEGIN', $update);
get(a_lease($two, 'b'), a_lease($three, 'c'));
is_deadlock('two leases and a row lock', 3,
	[ a_lease($one, 'b'), a_lease($two, 'c'), the_row($three) ]);

get(a_lease($one, 'a'), a_lease($two, 'b'));
is_deadlock('two, and a third who waits for one of them', 2,
	[ a_lease($three, 'a'), a_lease($one, 'b'), a_lease($two, 'a') ]);

#
# Shared mode, and a queue's order
#
my @shared = (mode => 'shared');
get(a_lease($one, 'x', @shared), a_lease($two, 'y', @shared));
is_deadlock('two readers who want to write', 2, [ a_lease($one, 'y'), a_lease($two, 'x') ]);

get(a_lease($one, 'x', @shared), a_lease($two, 'x', @shared), a_lease($three, 'z'));
is_deadlock(
	'a writer behind two readers, of which one waits for it', 2,
	[ a_lease($one, 'z'), a_lease($three, 'x') ],
	sub { let_go($two) });

get(a_lease($one, 'x', @shared), a_lease($two, 'held'));
my (undef, $told) = is_deadlock("a queue's order", 2,
	[ a_lease($three, 'x'), a_lease($two, 'x', @shared), a_lease($one, 'held') ]);
like(
	$told,
	qr/lease "x"; behind process $three->{pid}, which waits for exclusive lease "x"; blocked by process $one->{pid}\./,
	"a queue's order: the DETAIL tells who is in between");

#
# Permits: who waits is stuck if not enough of them can come free
#
my @all = ($one, $two, $three);

get(map { permits($_, 's', 1) } @all);
is_none(
	'one permit may come free, and is enough',
	[ permits($one, 's', 1), permits($two, 's', 1) ],
	sub { let_go($three) });
nothing_is_left('one permit may come free, and is enough');

get(map { permits($_, 's', 1) } @all);
is_deadlock(
	'one permit may come free, and is not enough', 2,
	[ permits($one, 's', 2), permits($two, 's', 2) ],
	sub { let_go($three) });

get(permits($one, 's', 1), permits($two, 's', 2));
is_deadlock('no permit may come free', 2, [ permits($one, 's', 1), permits($two, 's', 1) ]);

get(permits($one, 's', 3));
is_deadlock('a session that has all permits and wants one more', 1, [ permits($one, 's', 1) ]);

# Who waits for those two waits no longer when their cycle is broken; it alone
# looks for deadlocks, and is in none.
has($_, q{SET deadlock_timeout = '1 h'}) foreach $two, $three;
get(permits($one, 's', 1), permits($two, 's', 2), a_lease($two, 'b'), a_lease($three, 'c'));
my $position = log_position($node);
my @requests = (a_lease($two, 'c'), a_lease($three, 'b'), permits($one, 's', 1));
ask(@requests);
wait_for('a look', sub { log_since($node, $position) =~ /process $one->{pid} still waiting|deadlock detected/ });
value("SELECT pg_cancel_backend($three->{pid})");
my @errors = map { join ' ', (answer($_))[1] =~ /ERROR:  (\w+):/g } @requests;
$deadlocks += grep { /40P01/ } @errors;
is("@errors", ' 57014 ', "who waits for permits that others' deadlock keeps is not shot");
has($_, 'RESET deadlock_timeout') foreach $two, $three;

#
# Several names at once, and one's own
#
get(a_lease($two, 'b'));
is_deadlock('acquire_all keeps what it has while it waits', 2,
	[
		request($one, q{SELECT count(*) FROM lease.acquire_all('{a,b}', scope => 'session')},
			qr/exclusive lease "b"/),
		a_lease($two, 'a')
	]);

get(a_lease($two, 'b'));
is_deadlock('acquire_all in scope detached', 2,
	[
		request($one, q{SELECT count(lease.release(name, token)) FROM lease.acquire_all('{a,b}')},
			qr/exclusive lease "b"/),
		a_lease($two, 'a')
	]);

get(a_lease($one, 'own'));
is_deadlock("a session that waits for a lease of its own", 1, [ a_lease($one, 'own', scope => 'detached') ]);

#
# A lease that nobody needs to let go
#
my @long = (scope => 'detached', ttl => '1 hour');
my @longer = (scope => 'detached', ttl => '3 hours');
get(a_lease($one, 'a', @long), a_lease($two, 'b', @long));
is_none(
	'a detached lease in the cycle ends by its TTL',
	[ a_lease($one, 'b', @longer), a_lease($two, 'a', @longer) ],
	sub { advance_clock($node, '1 hour') });
advance_clock($node, '3 hours');
wait_for('reaping', sub { leases_used($node) == 0 });

my $token = acquire($node, 'b');
get(a_lease($two, 'a'));
is_none(
	'a detached lease in the cycle is released from elsewhere',
	[ a_lease($one, 'a'), a_lease($two, 'b', @long) ],
	sub { release($node, 'b', $token) });
advance_clock($node, '1 hour');
wait_for('reaping', sub { leases_used($node) == 0 });

get(a_lease($two, 'a'));
is_none('its holder has nothing to do', [ a_lease($one, 'a') ], sub { let_go($two) });

get(a_lease($one, 'a', @long), a_lease($two, 'b', @long));
@requests = map { a_lease($_, $_ == $one ? 'b' : 'a', scope => 'detached', wait => '500 ms') } $one, $two;
ask(@requests);
@errors = map { (answer($_))[1] } @requests;
like($_, qr/ERROR:  55P03:/, 'detached leases and a limited wait: it times out') foreach @errors;
advance_clock($node, '1 hour');
wait_for('reaping', sub { leases_used($node) == 0 });

#
# What is nobody else's business; here it is known who finds out
#
my %role = ($one->{pid} => 'anna', $two->{pid} => 'bert', $three->{pid} => 'cora');
has($_, q{SET deadlock_timeout = '1 h'}) foreach $two, $three;
has($_, "SET ROLE $role{$_->{pid}}") foreach @all;
get(a_lease($one, 'secret1'), a_lease($two, 'secret2'), a_lease($three, 'secret3'));
@requests = (a_lease($two, 'secret3'), a_lease($three, 'secret1'), a_lease($one, 'secret2'));
$requests[0]{words} = qr/a lease/;
$position = log_position($node);
($victim, $told) = is_deadlock('leases of several roles', 3, \@requests);
is($victim->{pid}, $one->{pid}, 'leases of several roles: who looks first is the victim');
unlike($told, qr/secret3/, 'leases of several roles: the client is not told what does not concern it');
$requests[0]{words} = qr/exclusive lease "secret3"/;
is_cycle('in the server log', log_since($node, $position) =~ s/\n\t/\n/gr, 3, $one->{pid}, @requests);
like(log_since($node, $position), qr/\n\tProcess $two->{pid}: \\?.*\Q$requests[0]{sql}\E/,
	'in the server log is what each of them runs');

$_->{psql}->quit foreach @all;
wait_for('statistics',
	sub { value(q{SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'}) == $deadlocks });
is(value(q{SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'}),
	$deadlocks, 'pg_stat_database counts them');
note(sprintf 'found and told of within %.1f s', $slowest);

#
# No deadlock, however often somebody looks
#
# Whatever a transaction waits for comes after what it holds (a row, leases by
# name, a row), or ends by itself (a detached lease), or is enough for one more
# (permits).
use constant CLIENTS => 8;

my $tries = full_size(304, 10_000);
my $files = PostgreSQL::Test::Utils::tempdir();
my %load = (
	order => q{
		\set first random(1, 2)
		\set a random(1, 2)
		\set b random(3, 4)
		\set last random(5, 6)
		BEGIN;
		UPDATE account SET balance = balance + 1 WHERE id = :first;
		SELECT lease.acquire('s' || :a, scope => 'session');
		SELECT lease.acquire('s' || :b, scope => 'transaction');
		UPDATE account SET balance = balance + 1 WHERE id = :last;
		COMMIT;
		SELECT lease.release_session();},
	shared => q{
		\set a random(1, 2)
		\set b random(3, 4)
		SELECT lease.acquire('s' || :a, scope => 'session', mode => 'shared');
		SELECT lease.acquire('s' || :b, scope => 'session', mode => (ARRAY['shared', 'exclusive'])[:a]);
		SELECT lease.release_session();},
	all => q{
		SELECT count(*) FROM lease.acquire_all('{s1,s3,s4}', scope => 'session');
		SELECT lease.release_session();},
	detached => q{
		\set a random(1, 2)
		SELECT lease.acquire('d' || :a, '20 ms');
		SELECT lease.acquire('s' || (5 - :a), scope => 'session');
		SELECT lease.acquire('d' || (3 - :a), '20 ms');
		SELECT lease.release_session();},
	permits => q{
		SELECT lease.acquire_permit('p', } . (CLIENTS + 1) . q{, scope => 'session');
		SELECT lease.acquire_permit('p', } . (CLIENTS + 1) . q{, scope => 'session');
		SELECT lease.release_session();});
append_to_file("$files/$_", $load{$_}) foreach keys %load;
$node->append_conf('postgresql.conf', "deadlock_timeout = 1ms\nlog_statement = none");
$node->reload;
$position = log_position($node);
my ($out, $err) = run_command(
	[
		'pgbench', '-n', '-c', CLIENTS, '-j', 2, '-t', $tries / CLIENTS,
		(map { ('-f', "$files/$_") } sort keys %load),
		'-h', $node->host, '-p', $node->port, 'postgres'
	]);
my $log = log_since($node, $position);
my $looks = () = $log =~ /still waiting for lease/g;

like($out, qr/actually processed: $tries\/$tries$/m, "$tries tries under load: all go through")
  or diag($err);
unlike($log, qr/deadlock detected/, "$tries tries under load: nobody is shot");
cmp_ok($looks, '>', $tries / 20, "$tries tries under load: many looked for a deadlock");
note("$looks looks that found none");
advance_clock($node, '1 min');
wait_for('reaping', sub { leases_used($node) == 0 });
nothing_is_left("$tries tries under load");

$node->stop;
done_testing();
