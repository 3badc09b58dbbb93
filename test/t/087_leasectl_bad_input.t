# What is wrong is told in one line on stderr, with the exit status that the manual
# promises and nothing on stdout; the command is not started, and no lease is left.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IO::Socket::INET;
use LeaseTest;
use Leasectl;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant { REFUSED => 121, UNREACHABLE => 122, USAGE => 125 };

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = lease_node('bad_input', allows_streaming => 1, conf => 'max_connections = 60');
my @here = at($node);
my @command = ('--', 'touch', "$dir/ran");

# No extension: what gets past the command line ends as a refusal, quickly.
my @empty = at($node, db => 'template1');

my %operands = (
	(map { $_ => ['x'] } qw(run elect acquire explain force-release)),
	(map { $_ => [ 'x', '1' ] } qw(renew release)),
	(map { $_ => [] } qw(list waiters stats history status watch top)),
	transfer => [ 'x', '1', 'me' ]);
my %takes_command = (run => 1, elect => 1);

# A command line for a verb, with what the verb cannot do without.
sub line
{
	my ($verb, @options) = @_;

	push @options, '--reason=why' if $verb eq 'force-release' && "@options" !~ /--reason/;
	return ($verb, @{ $operands{$verb} }, @options, $takes_command{$verb} ? @command : ());
}

# The words of a command line as a test's name shows them.
sub shown
{
	my @words = grep { !ref } @_;
	my $places = qr{(?:\Q$dir\E|@{[ quotemeta $node->host ]})\S*};

	splice @words, 0, 6, "($words[5])" if @words > 5 && $words[0] eq '-h' && $words[4] eq '-d';
	my $words = join ' ', map { !length ? "''" : length > 40 && !/$places/ ? substr($_, 0, 20) . '...' : $_ } @words;
	$words =~ s/ (?:-- touch )?$places//g;
	return $words =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ger;
}

# What is wrong with how it complained; an empty string if nothing is.
sub verdict
{
	my ($wanted, $message, $status, $out, $err) = @_;
	my @wrong;

	push @wrong, "status $status" if $status != $wanted;
	push @wrong, "stdout: $out" if $out ne '';
	push @wrong, "stderr: $err" if $err !~ /\Aleasectl: [^\x00-\x1f\x7f]+\z/ || $err !~ $message;
	push @wrong, 'stderr: a control character of UTF-8' if $err =~ /\xc2[\x80-\x9f]/;
	return join '; ', @wrong;
}

# Several at once: each a pattern for what it says, and the arguments.
sub complains
{
	my ($what, $status, @cases) = @_;
	my @runs = map { start_leasectl(@$_[ 1 .. $#$_ ]) } @cases;

	foreach my $case (@cases)
	{
		my ($message, @arguments) = @$case;
		is(verdict($status, $message, finish_leasectl(shift @runs)), '', "$what: " . shown(@arguments));
	}
	return;
}

sub leaves_nothing
{
	my ($what) = @_;

	is(leases_used($node) . ' ' . $node->safe_psql('postgres', 'SELECT waiters FROM lease.status'),
		'0 0', "$what: nobody holds or awaits a lease");
	ok(!-e "$dir/ran", "$what: no command was started");
	return;
}

#
# The command line; nothing is asked of a server
#
my @unreadable = ([ 'ttl', '' ], [ 'ttl', 'soon' ], [ 'ttl', '1w' ], [ 'ttl', '1 week' ], [ 'ttl', '1.2.3' ],
	[ 'ttl', '1s2' ], [ 'ttl', 'inf' ], [ 'ttl', 'nan' ], [ 'ttl', '0x10' ], [ 'ttl', '+' ], [ 'ttl', '-' ],
	[ 'ttl', '1 s s' ], [ 'ttl', ' 1' ], [ 'ttl', '1S' ], [ 'ttl', '.' ], [ 'wait', 's' ],
	map { [ 'permits', $_ ] } '', 'x', '1.5', '0x1', '1 2', '99999999999999999999');

# [ verb, option, too small, smallest, largest, too large ]
my @bounds = (
	[ 'run', 'ttl', '99.999ms', '100ms', '24d', '24.001d' ],
	[ 'elect', 'ttl', '99.999ms', '100ms', '24d', '24.001d' ],
	(map { [ $_, 'ttl', '999us', '1ms', '36500d', '36500.001d' ] } qw(acquire renew)),
	[ 'acquire', 'ttl', '-1', '1e-3', '876000h', '1e400' ],
	[ 'run', 'permits', 0, 1, 1_000_000, 1_000_001 ],
	[ 'acquire', 'capacity', -1, 1, 1_000_000, 1_000_001 ],
	(map { [ 'acquire', $_, '-1us', '0', '36500d', '36501d' ] } qw(wait min-hold lock-delay)),
	[ 'run', 'kill-after', '-1us', '0', '15s', '15.001s' ],
	[ 'elect', 'kill-after', '-1us', '0', '15s', '15.001s' ],
	[ 'elect', 'pause', '-1us', '0', '36500d', '36501d' ],
	[ 'force-release', 'token', 0, 1, '9223372036854775807', '9223372036854775808' ],
	[ 'history', 'since', '-1us', '0', '36500d', '36501d' ],
	[ 'explain', 'since', '-1us', '0', '36500d', '36501d' ],
	[ 'history', 'limit', 0, 1, 1_000_000, 1_000_001 ],
	[ 'watch', 'interval', '99.9ms', '100ms', '1d', '1.001d' ],
	[ 'list', 'timeout', '99.9ms', '100ms', '1d', '1.001d' ]);

{
	local $ENV{PGHOST} = "$dir/nowhere";

	complains('no such thing', USAGE,
		[ qr/leasectl --help/ ],
		[ qr/"bogus"/, 'bogus' ],
		[ qr/""/, '' ],
		[ qr/"lis"/, 'lis' ],
		[ qr/"LIST"/, 'LIST' ],
		[ qr/--bogus/, '--bogus', 'list' ],
		[ qr/-x/, 'list', '-x' ],
		[ qr/-x/, 'list', '-qx' ],
		[ qr/--t\b/, 'acquire', 'x', '--t', '5s' ],
		[ qr/--try/, line('run', '--try=1') ],
		[ qr/--json/, 'list', '--json=yes' ],
		[ qr/\[31m/, 'list', "--a\e[31m\nb\tc\x7f" ],
		[ qr/31m/, "a\xc2\x9b31m" ]);
	complains('too little', USAGE,
		(map { [ qr/$_ needs/, $_, @command ] } qw(run elect)),
		(map { [ qr/$_ needs a command/, $_, 'x' ], [ qr/$_ needs a command/, $_, 'x', '--' ] } qw(run elect)),
		(map { [ qr/$_ needs/, $_ ] } qw(acquire renew release transfer force-release explain)),
		(map { [ qr/$_ needs/, $_, 'x' ] } qw(renew release transfer)),
		[ qr/transfer needs/, 'transfer', 'x', '1' ],
		[ qr/--reason/, 'force-release', 'x' ],
		(map { [ qr/--$_ needs an argument/, 'acquire', 'x', "--$_" ] } qw(ttl holder permits host)),
		[ qr/needs an argument/, 'list', '-h' ]);
	complains('too much', USAGE,
		(map { [ qr/"many"/, $_, @{ $operands{$_} }, 'many', $takes_command{$_} ? @command : () ] }
			qw(run elect acquire renew release transfer force-release explain status top)),
		(map { [ qr/"many"/, $_, 'x', 'many' ] } qw(list waiters stats history)),
		[ qr/after --/, 'run', 'x', 'true' ],
		(map { [ qr/takes no command/, line($_), '--', 'true' ] } qw(acquire list watch)),
		[ qr/--try and --wait/, line('run', '--try', '--wait=1') ],
		[ qr/--try and --wait/, line('acquire', '--try', '--wait=0') ],
		[ qr/--shared/, line('run', '--shared', '--permits=1') ],
		[ qr/--shared/, line('acquire', '--shared', '--capacity=1') ]);
	complains('no token', USAGE, map { my $token = $_; map { [ qr/"\Q$token\E"/, @$_ ] }
			[ 'renew', 'x', $token ], [ 'release', 'x', $token ], [ 'transfer', 'x', $token, 'me' ] }
		'', 'x', '0', '1.5', '1x', '9223372036854775808');
	complains('no value', USAGE, map { [ qr/--$_->[0].*\Q$_->[1]\E/, line('run', "--$_->[0]=$_->[1]") ] } @unreadable);
	complains('out of range', USAGE, map { my ($verb, $option, $below, $least, $most, $above) = @$_;
			map { [ qr/--$option: .*(?:must be|fits)/, line($verb, "--$option=$_") ] } $below, $above } @bounds);
	complains('out of range', USAGE,
		[ qr/--kill-after/, line('run', '--ttl=10s', '--kill-after=5.001s') ],
		(map { [ qr/--$_->[0]/, line('top', "--$_->[0]=$_->[1]") ] }
			[ 'interval', '99.9ms' ], [ 'interval', '1.001d' ], [ 'sort', 'bogus' ]));
}

complains('in range', REFUSED, map { my ($verb, $option, $below, $least, $most) = @$_;
		map { [ qr/lease/, @empty, line($verb, "--$option=$_") ] } $least, $most } @bounds);
complains('in range', REFUSED, [ qr/lease/, @empty, line('run', '--ttl=10s', '--kill-after=5s') ]);

# Which verbs know which options.
my $taking = 'run elect acquire';
my $asking = 'acquire renew release transfer force-release list waiters stats history explain status watch';
my %known = (
	'ttl=5s' => "$taking renew",
	'wait=1s' => $taking,
	'try' => 'run acquire',
	'holder=me' => $taking,
	'shared' => 'run acquire',
	'permits=1' => 'run acquire',
	'capacity=1' => 'run acquire',
	'min-hold=1s' => $taking,
	'lock-delay=1s' => $taking,
	'correlation-id=c' => $taking,
	'metadata={}' => $taking,
	'request-id=r' => 'acquire',
	'kill-after=0' => 'run elect',
	'once' => 'elect',
	'pause=0' => 'elect',
	'reason=why' => 'force-release',
	'token=1' => 'force-release',
	'reopen' => 'force-release',
	'since=1s' => 'history explain',
	'limit=1' => 'history',
	'interval=1s' => 'watch top',
	'sort=name' => 'top',
	'timeout=1min' => "$asking top",
	'json' => $asking,
	'quiet' => "run elect $asking top");

foreach my $verb (sort keys %operands)
{
	my @options = sort keys %known;
	my @runs = map { start_leasectl(@empty, line($verb, "--$_")) } @options;
	my (@known, @odd);

	foreach my $option (@options)
	{
		my ($status, $out, $err) = finish_leasectl(shift @runs);
		my ($name) = $option =~ /^([\w-]+)/;

		push @known, $option unless $err =~ /\A\Qleasectl: $verb does not know --$name\E\b.*\z/;
		push @odd, $option if $err =~ /does not know/ && ($status != USAGE || $out ne '');
	}
	is("@known", join(' ', grep { $known{$_} =~ /(?<!\S)$verb(?!\S)/ } @options), "$verb: the options that it knows");
	is("@odd", '', "$verb: others are errors of usage");
}
leaves_nothing('the command line');

#
# No server, or not the one that is meant
#
my $listener = IO::Socket::INET->new(Listen => 100, LocalAddr => '127.0.0.1') or die "could not listen: $!";
my $refused = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die "could not listen: $!";
my @refused = ('-h', '127.0.0.1', '-p', $refused->sockport);
my @hung = ('-h', '127.0.0.1', '-p', $listener->sockport);
$refused->close;

$node->safe_psql('postgres', q{
	CREATE ROLE locked LOGIN PASSWORD 'right'; CREATE ROLE stranger LOGIN; CREATE ROLE app LOGIN;
	SELECT lease.allow('app'); SELECT lease.allow('locked')});
my $hba = $node->data_dir . '/pg_hba.conf';
my $rules = slurp_file($hba);
unlink $hba;
append_to_file($hba, "local all locked scram-sha-256\n$rules");
$node->reload;

# All but elect, which goes on trying, and top, which needs a terminal.
my @all = grep { !/elect|top/ } sort keys %operands;
my @asking = grep { $_ ne 'run' } @all;

complains('a refused connection', UNREACHABLE, map { [ qr/refused Is the server/, @refused, line($_) ] } @all);
complains('no socket', UNREACHABLE, map { [ qr/No such file/, '-h', "$dir/nowhere", line($_) ] } @all);
complains('one of several', UNREACHABLE,
	[ qr/refused|No such file/i, '-d', "host=127.0.0.1,$dir/nowhere port=$refused[-1]", line('run') ]);
complains('not the one', UNREACHABLE,
	[ qr/"nowhere"/, at($node, db => 'nowhere'), line('run') ],
	[ qr/"nowhere"/, at($node, db => 'nowhere'), line('list') ],
	[ qr/"nobody"/, @here, '-U', 'nobody', line('run') ],
	[ qr/password authentication failed/, { env => { PGPASSWORD => 'wrong' } }, @here, '-U', 'locked', line('run') ],
	[ qr/no password/, @here, '-U', 'locked', line('list') ],
	[ qr/\S/, '-p', '99999', line('list') ],
	[ qr/nowhere/, '-d', 'service=nowhere', line('list') ],
	[ qr/bogus/, '-d', 'bogus=1', line('run') ],
	[ qr/\S/, '-d', 'postgresql://[half', line('list') ]);
complains('a server that does not answer', UNREACHABLE,
	(map { [ qr/\S/, @hung, line($_, '--timeout=300ms') ] } @asking),
	[ qr/\S/, '-d', "host=127.0.0.1 port=$hung[-1] connect_timeout=1", line('run') ]);

# It is cancelled, or it would be granted when nobody waits for the answer.
my $locker = $node->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK lease.ledger');
complains('a question that is not answered', UNREACHABLE,
	[ qr/\S/, @here, line('acquire', '--wait=0', '--timeout=300ms') ],
	[ qr/\S/, @here, line('acquire', '--try', '--timeout=300ms') ]);
$locker->query_safe('COMMIT');
$locker->quit;
wait_for('the sessions to end', sub {
	$node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()}) == 0 });

# What answers is no server of this kind.
my $talker = fork // die "could not fork: $!";
while ($talker == 0)
{
	my $client = $listener->accept or next;
	print $client "HTTP/1.1 400 Bad \e[31mRequest\r\n\r\n";
	close $client;
}
complains('another kind of server', UNREACHABLE, map { [ qr/\S/, @hung, line($_) ] } qw(run list));
kill 'KILL', $talker;
waitpid $talker, 0;

# elect goes on trying.
my $election = start_leasectl(@hung, line('elect'));
foreach (1 .. 2)
{
	local $SIG{ALRM} = sub { die 'nobody connects' };
	alarm $PostgreSQL::Test::Utils::timeout_default;
	close $listener->accept;
	alarm 0;
}
ok(!has_ended($election), 'elect without a server: it tries again');
kill 'TERM', $election->{pid};
my ($status, $out, $err) = finish_leasectl($election);
is($status, 143, 'elect without a server: until a signal ends it');
leaves_nothing('no server');

#
# A server that refuses
#
my $long = 'n' x 256;
my @too_large = (
	[ qr/255/, 'acquire', $long ], [ qr/255/, 'run', $long, @command ], [ qr/255/, 'elect', $long, @command ],
	[ qr/name/, 'acquire', '' ], [ qr/name/, 'run', '', @command ], [ qr/name/, 'elect', '', @command ],
	(map { [ qr/255/, $_, $long, '1' ], [ qr/name/, $_, '', '1' ] } qw(renew release)),
	[ qr/255/, 'transfer', $long, '1', 'me' ], [ qr/255/, 'force-release', $long, '--reason=why' ],
	(map { my $option = $_; map { [ qr/127/, line($_, "--$option=" . 'h' x 128) ] } qw(run acquire) }
		qw(holder correlation-id)),
	[ qr/127/, line('acquire', '--request-id=' . 'r' x 128) ],
	[ qr/json/, line('run', '--metadata={') ],
	[ qr/metadata/, line('acquire', '--metadata="' . 'm' x 1024 . '"') ],
	(map { my $option = $_; map { [ qr/./, line($_, "--$option=25h") ] } qw(run acquire) }
		qw(ttl wait min-hold lock-delay)),
	[ qr/3/, line('run', '--permits=3', '--capacity=2') ],
	[ qr/UTF8/, 'acquire', "a\xff" ], [ qr/UTF8/, 'run', "a\xff", @command ]);

complains('out of its bounds', REFUSED, map { [ $_->[0], @here, @$_[ 1 .. $#$_ ] ] } @too_large[ 0 .. 14 ]);
complains('out of its bounds', REFUSED, map { [ $_->[0], @here, @$_[ 1 .. $#$_ ] ] } @too_large[ 15 .. $#too_large ]);

my $semaphore = (leasectl(@here, 'acquire', 'x', '--capacity=2'))[1];
complains('another kind of name', REFUSED,
	[ qr/2/, @here, line('acquire', '--capacity=3') ],
	[ qr/semaphore/, @here, line('run') ],
	[ qr/semaphore/, @here, line('elect') ]);
is((leasectl(@here, 'release', 'x', $semaphore))[0], 0, 'the semaphore is released');

complains('no extension', REFUSED, map { [ qr/lease/, @empty, line($_) ] } @all, 'elect');

# What was there before has the names, and not all that is asked for.
$node->safe_psql('postgres', 'CREATE DATABASE old');
$node->safe_psql('old', q{
	CREATE SCHEMA lease;
	CREATE VIEW lease.leases AS SELECT 'x' AS name, 1 AS token;
	CREATE VIEW lease.waiters AS TABLE lease.leases;
	CREATE VIEW lease.stats AS TABLE lease.leases;
	CREATE FUNCTION lease.try_acquire(name text, ttl interval) RETURNS bigint RETURN 1;
	CREATE FUNCTION lease.acquire(name text, ttl interval) RETURNS bigint RETURN 1;
	CREATE FUNCTION lease.renew(name text) RETURNS boolean RETURN true;});
complains('an older extension', REFUSED, map { [ qr/lease/, at($node, db => 'old'), line($_) ] }
	  grep { $_ ne 'status' } @all, 'elect');

complains('no privilege', REFUSED, map { [ qr/permission denied/, @here, '-U', 'stranger', line($_) ] } @all, 'elect');
my $token = acquire($node, 'x');
complains("somebody else's", REFUSED,
	(map { [ qr/"x"/, @here, '-U', 'app', $_, 'x', $token, $_ eq 'transfer' ? 'me' : () ] } qw(renew release transfer)),
	[ qr/permission denied/, @here, '-U', 'app', line('force-release') ]);
ok(release($node, 'x', $token), "somebody else's: it stays with its holder");
leaves_nothing('a server that refuses');

#
# A standby, and a server without the library
#
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
complains('a standby', UNREACHABLE,
	map { [ qr/standby|recovery|read-only/, at($standby), line($_) ] } qw(run acquire renew release transfer force-release));
complains('a standby', UNREACHABLE,
	map { [ qr/\S/, '-d', $standby->connstr('postgres') . ' target_session_attrs=read-write', line($_) ] } qw(run list));
$standby->stop('immediate');

complains('nowhere to write', USAGE, map { [ qr/\S/, { through => [ 'sh', '-c', 'exec "$@" >/dev/full', 'sh' ] }, @$_ ] }
	[ @here, 'status' ], [ @here, 'list', '--json' ], ['--help'], ['--version']);

leaves_nothing('a standby');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
complains('not preloaded', REFUSED, map { [ qr/shared_preload_libraries/, @here, line($_) ] } qw(run elect acquire renew list status));
ok(!-e "$dir/ran", 'not preloaded: no command was started');

$node->stop;
done_testing();
