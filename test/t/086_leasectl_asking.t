# leasectl's questions and orders: what they print for people and for programs, whatever
# names and holders are made of, and all the ways to say which server is meant.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;
use LeaseTest;
use Leasectl;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant { LOST => 123, TAKEN => 124 };

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = lease_node('asking', allows_streaming => 1, conf => 'max_connections = 30');
my @here = at($node);

sub value
{
	my ($sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# What it prints if it succeeds and has nothing to complain of.
sub answer
{
	my @arguments = @_;
	my ($status, $out, $err) = leasectl(@here, @arguments);

	return "$status $err" eq '0 ' ? $out : "status $status: $out$err";
}

# The same as a structure; one of another kind if it is no JSON.
sub json
{
	my $text = answer(@_, '--json');
	return eval { decode_json($text) } // [ { error => $text } ];
}

# The values that are no numbers, in JSON's sense.
sub not_numbers
{
	my ($row, @columns) = @_;
	my $json = JSON::PP->new->allow_nonref;
	return join ' ', grep { $json->encode($row->{$_}) !~ /^-?\d/ } @columns;
}

# How it fails: nothing is printed, and one line says that a name is concerned.
sub fails
{
	my ($status, $message, @arguments) = @_;
	my ($got, $out, $err) = leasectl(@here, @arguments);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is("$got $out", "$status ", "$arguments[0]: status $status");
	like($err, qr/\Aleasectl: [^\n]*$message[^\n]*\z/, "$arguments[0]: and one line that says why");
	return;
}

sub history_is_told
{
	return wait_for('the history', sub { value('SELECT history_pending FROM lease.status') == 0 });
}

#
# --help, --version
#
my $help = answer('--help');
my @lines = split /\n/, $help;
cmp_ok(scalar @lines, '<=', 40, '--help fits a screen');
is(join("\n", grep { length > 90 } @lines), '', '--help: as to the width, too');
is_deeply([ grep { $help !~ /\b$_\b/ } qw(run elect acquire renew release transfer force-release list waiters stats
			history explain status watch top) ], [], '--help tells of all commands');
is(answer($_, '--help'), $help, "$_ --help shows the same") foreach qw(run list top);
is(answer('list', '-?'), $help, '-?, too');
is(answer('--version'), 'leasectl (lease) ' . decode_json(slurp_file('META.json'))->{version}, '--version');
is(answer('-V'), answer('--version'), '-V');

#
# acquire, renew, release, transfer, force-release
#
my @same = ('acquire', 'job/1', '--ttl=1h', '--holder=me', '--request-id=r-1', '--lock-delay=2min');
my $token = answer(@same, '--correlation-id=c-1', '--metadata={"a": [1]}');
is(value(q{SELECT concat_ws(' ', token, mode, scope, holder, ttl, correlation_id, metadata, request_id) FROM lease.leases}),
	qq{$token exclusive detached me 01:00:00 c-1 {"a": [1]} r-1}, 'acquire: prints the token; its options arrive');
is(answer(@same), $token, 'acquire: the same request, the same token');
fails(TAKEN, 'job/1', 'acquire', 'job/1', '--try');
fails(TAKEN, "job/1.*$token", 'acquire', 'job/1', '--wait=100ms');
fails(TAKEN, "job/1.*$token", 'acquire', 'job/1', '--wait=0');

is(answer('renew', 'job/1', $token), '', 'renew: prints nothing');
is(answer('renew', 'job/1', $token, '--ttl=1.5h'), '', 'renew --ttl: neither');
is(value('SELECT renewals, ttl FROM lease.leases'), '3|01:30:00', 'renew --ttl: arrives');
my $renewed = json('renew', 'job/1', $token, '--ttl', '90.5');
is($renewed->{ttl}, 90.5, 'renew --json: the TTL, in seconds');
is(not_numbers($renewed, 'ttl'), '', 'renew --json: as a number');

my $newer = answer('transfer', 'job/1', $token, 'you');
is(value('SELECT token, holder FROM lease.leases'), "$newer|you", 'transfer: prints the new token');
fails(LOST, 'job/1', @$_) foreach [ 'renew', 'job/1', $token ], [ 'transfer', 'job/1', $token, 'them' ], [ 'release', 'job/1', $token ];
my $newest = json('transfer', 'job/1', $newer, 'others')->{token};
is($newest, value('SELECT token FROM lease.leases'), 'transfer --json: the new token');

is(answer('force-release', 'job/1', '--reason=other', "--token=$token", '-q'), 0, 'force-release --token: no other grant');
my ($status, $out, $err) = leasectl(@here, 'force-release', 'job/1', '--reason=a test', "--token=$newest");
is("$status $out", '0 1', 'force-release: says how many');
like($err, qr/\Aleasectl: [^\n]*job\/1[^\n]*\z/, 'force-release: and, in one line, until when the holder may go on');
is(value('SELECT closed_until IS NOT NULL FROM lease.leases'), 't', 'acquire --lock-delay: keeps it closed');
answer('force-release', 'job/1', '--reason=again', '--reopen', '-q');
is(leases_used($node), 0, 'force-release --reopen: opens it');
history_is_told();
like(value(q{SELECT detail FROM lease.history WHERE event = 'forced'}), qr/a test/, 'force-release --reason: arrives');

my $shared = json('acquire', 'job/2', '--ttl=1h', '--shared');
is($shared->{token}, value(q{SELECT token FROM lease.leases WHERE mode = 'shared'}), 'acquire --json, --shared');
is(not_numbers($shared, 'token'), '', 'acquire --json: the token is a number');
is(ref json('release', 'job/2', $shared->{token}), 'HASH', 'release --json: an object');
is(leases_used($node), 0, 'release --json: releases it');

like(my $permit = answer('acquire', 'job/3', '--permits=2', '--capacity=3', '--min-hold=1h', '--ttl=2h'), qr/^\d+$/, 'acquire: permits');
is(value('SELECT permits, capacity FROM lease.leases'), '2|3', 'acquire --permits --capacity: arrive');
fails(TAKEN, 'job/3', 'acquire', 'job/3', '--permits=2', '--try');
is(answer('release', 'job/3', $permit), '', 'release: prints nothing');
is(value(q{SELECT closed_until > now() + '30 min' FROM lease.leases}), 't', 'acquire --min-hold: arrives');
answer('force-release', 'job/3', '--reason=done', '--reopen', '-q');

my $own = answer('acquire', 'job/4');
like(value('SELECT ttl, holder FROM lease.leases'), qr/^00:00:30\|[^\s@]+@[^\s@]+:\d+$/, 'acquire: 30 s, for user@host:pid');
answer('release', 'job/4', $own);

#
# Names and holders of all kinds: to people, to programs, and in patterns
#
my @names = (
	'a/1', 'a/2', 'b/1', 'a_1', 'a%1', 'a*1', 'A/1', 'a\\1', 'a[1]', "it's", 'say "x"', '$1', "line\nbreak",
	"tab\tstop", "red\e[31m", "del\x7f", "\xc2\x9b31m", "\xe6\x97\xa5\xe6\x9c\xac", "\xc3\xbc", ' blank ', 'x' x 255);
my %token_of = map {
	my ($status, $out) = leasectl(@here, 'acquire', '--ttl=1h', '--holder=' . substr("<$_>", 0, 100), $_);
	($_ => $out);
} @names;

sub decoded
{
	my ($bytes) = @_;
	utf8::decode($bytes);
	return $bytes;
}

# The names of an answer, as a set that can be compared.
sub set
{
	my $json = JSON::PP->new->ascii;
	return $json->encode([ sort @_ ]);
}

my $list = json('list');
is(set(map { $_->{name} } @$list), set(map { decoded($_) } @names), 'list --json: all names are as they were given');
is_deeply({ map { $_->{name} => $_->{holder} } @$list }, { map { decoded($_) => decoded(substr "<$_>", 0, 100) } @names },
	'list --json: and all holders');
is_deeply({ map { $_->{name} => $_->{token} } @$list }, { map { decoded($_) => $token_of{$_} } @names }, 'list --json: and tokens');
my ($one) = grep { $_->{name} eq 'a/1' } @$list;
is(not_numbers($one, qw(token ttl remaining waiters pid renewals)), '', 'list --json: numbers are numbers');
is($one->{ttl}, 3600, 'list --json: durations are seconds');
my $iso = qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d(?::?\d\d)?)$/;
like($one->{acquired_at}, $iso, 'list --json: times are those of ISO 8601');
is_deeply([ @$one{qw(durable closed_until metadata)} ], [ JSON::PP::true, undef, undef ],
	'list --json: what is true, and what is not there');

foreach my $environment ({ PGCLIENTENCODING => 'LATIN1' }, { LC_ALL => 'C' })
{
	my (undef, $text) = leasectl({ env => $environment }, @here, 'list', '--json');
	my $decoded = eval { decode_json($text) } // [];
	is(set(map { $_->{name} } @$decoded), set(map { decoded($_) } @names),
		"list --json: UTF-8 even with @{[ %$environment ]}");
}

my @rows = split /\n/, answer('list', '-q');
is(scalar @rows, scalar @names, 'list: each has a line');
is(join('', grep { /[\x00-\x1f\x7f]|\xc2[\x80-\x9f]/ } @rows), '', 'list: without control characters');
my @plain = grep { !/[^ -~]/ && length($_) < 255 } @names;
foreach my $name (@plain)
{
	is(scalar(grep { /(?:^|\s)\Q$name\E\s.*\b$token_of{$name}\b.*<\Q$name\E>/ } @rows), 1, "list: $name, with token and holder");
}
like((split /\n/, answer('list'))[0], qr/^\s*name\b.*\btoken\b.*\bholder\b/, 'list: under a heading');

my @patterns = (@names[ 0 .. 18 ], '*', '?', 'a*', 'a?1', 'a\\*', 'A*', '*1', 'a/?', '?*?', '**', 'a*1*', 'a\\?1', "*\n*", '*"', 'nothing');
my @lists = map { start_leasectl(@here, 'list', '--json', $_) } @patterns;
foreach my $pattern (@patterns)
{
	my $meant = quotemeta(decoded($pattern)) =~ s/\\\*/.*/gr =~ s/\\\?/./gr;
	my (undef, $found) = finish_leasectl(shift @lists);

	is(set(map { $_->{name} } @{ decode_json($found) }), set(grep { /\A$meant\z/s } map { decoded($_) } @names),
		'list: pattern ' . $pattern =~ s/([^ -~])/sprintf '\\x%02x', ord $1/ger);
}
is_deeply(json('list', 'nothing'), [], 'list --json: nothing is an empty array');

#
# waiters, stats, history, explain, status
#
my @waiting;
foreach my $holder ('first', "se\e[1mcond")
{
	push @waiting, start_leasectl(@here, 'acquire', 'a/1', "--holder=$holder", '--wait=1h');
	wait_for('it to wait', sub { value('SELECT count(*) FROM lease.waiters') == @waiting });
}
my $waiters = json('waiters', 'a/*');
is_deeply([ map { [ @$_{qw(name position holder mode)} ] } @$waiters ],
	[ [ 'a/1', 1, 'first', 'exclusive' ], [ 'a/1', 2, "se\e[1mcond", 'exclusive' ] ], 'waiters --json: who, and in which order');
is_deeply($waiters->[0]{blocked_by}, [ $token_of{'a/1'} + 0 ], 'waiters --json: tokens that block');
is(not_numbers($_, qw(position waited pid)), '', 'waiters --json: numbers are numbers') foreach @$waiters;
is_deeply(json('waiters', 'b*'), [], 'waiters: a pattern');
like(answer('waiters', '-q'), qr/\A[^\n]*a\/1[^\n]*first[^\n]*\n[^\n\e]*a\/1[^\n\e]*cond[^\n]*\z/, 'waiters: each has a line');

answer('release', 'a/1', $token_of{'a/1'});
my ($first, $second);
($status, $first) = finish_leasectl($waiting[0]);
is($status, 0, 'acquire: it waited, and got it');
answer('release', 'a/1', $first);
($status, $second) = finish_leasectl($waiting[1]);
is($status, 0, 'acquire: so did the next');
history_is_told();

my $stats = json('stats', 'a/1');
is(join(' ', map { $stats->[0]{$_} } qw(name acquired contended released)), 'a/1 3 2 2', 'stats --json');
is(not_numbers($stats->[0], qw(acquired contention_rate wait_total hold_max)), '', 'stats --json: numbers are numbers');
cmp_ok(scalar @{ json('stats') }, '>', scalar @names, 'stats: without a pattern, of all');
like(answer('stats', 'a/1'), qr/\A[^\n]*\bname\b[^\n]*\n(?:[^\n]*\n)?a\/1\s[^\n]*\z/, 'stats: one line');

my @events = ([ 'acquired', $token_of{'a/1'} ], [ 'released', $token_of{'a/1'} ], [ 'acquired', $first ], [ 'released', $first ],
	[ 'acquired', $second ]);
my $history = json('history', 'a/1');
is_deeply([ map { [ @$_{qw(event token)} ] } @$history ], \@events, 'history --json: the oldest first');
like($history->[0]{at}, $iso, 'history --json: times are those of ISO 8601');
is(not_numbers($history->[1], qw(token held)), '', 'history --json: numbers are numbers');
is_deeply([ map { [ @$_{qw(event token)} ] } @{ json('history', 'a/1', '--limit=2') } ], [ @events[ 3, 4 ] ],
	'history --limit: the newest, still the oldest first');
is(scalar @{ json('history', 'a/1', '--since=1h') }, scalar @events, 'history --since: all of the last hour');
is_deeply(json('history', 'a/1', '--since=0'), [], 'history --since: nothing of the future');
cmp_ok(scalar(my @told = split /\n/, answer('history', '-q')), '<=', 100, 'history: a hundred lines, if there are as many');
is(scalar @told, value('SELECT least(100, count(*)) FROM lease.history'), 'history: and not fewer');
is(join('', grep { /[\x00-\x1f\x7f]|\xc2[\x80-\x9f]/ } @told), '', 'history: without control characters');

my $story = json('explain', 'a/1');
is(scalar @$story, value(q{SELECT count(*) FROM lease.explain('a/1')}), 'explain --json: all of the story');
like($story->[0]{story}, qr/<a\/1>/, 'explain --json: as it is told');
is(scalar @{ json('explain', 'a/1', '--since=0') }, value(q{SELECT count(*) FROM lease.explain('a/1', now())}), 'explain --since');
like(answer('explain', 'a/1', '-q'), qr/\A[^\n]*<a\/1>[^\n]*(?:\n[^\n]+)+\z/, 'explain: a line for each sentence');
unlike(answer('explain', 'a/1'), qr/\e/, 'explain: without control characters');

my $standing = json('status');
is($standing->{leases_used}, leases_used($node), 'status --json');
is(not_numbers($standing, qw(next_token leases_used leases_allowed waiters)), '', 'status --json: numbers are numbers');
my %standing = map { /^(\w+)\s+(.*?)\s*$/ } split /\n/, answer('status');
is(join(' ', sort keys %standing), join(' ', sort keys %$standing), 'status: a line for each column');
is($standing{next_token}, $standing->{next_token}, 'status: with its value');

#
# Which server, and as whom
#
$node->safe_psql('postgres', q{
	CREATE ROLE app LOGIN; CREATE ROLE locked LOGIN PASSWORD 'it''s :right\\';
	SELECT lease.allow('app'), lease.allow('locked')});
my $hba = slurp_file($node->data_dir . '/pg_hba.conf');
unlink $node->data_dir . '/pg_hba.conf';
append_to_file($node->data_dir . '/pg_hba.conf', "local all locked scram-sha-256\n$hba");
$node->reload;
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;

my ($host, $port, $me) = ($node->host, $node->port, value('SELECT current_user'));
my $encoded = $host =~ s/([^\w.-])/sprintf '%%%02x', ord $1/ger;
append_to_file("$dir/services", "[leases]\nhost=$host\nport=$port\ndbname=postgres\nuser=app\n");
append_to_file("$dir/passwords", "*:*:*:locked:it's \\:right\\\\\n");
chmod 0600, "$dir/passwords";
my %no_environment = map { $_ => undef } qw(PGHOST PGPORT PGUSER PGDATABASE);

# [ what, environment, arguments, who is to have it then ]
my @ways = (
	[ 'short options', {}, [ '-h', $host, '-p', $port, '-U', 'app', '-d', 'postgres' ], 'app' ],
	[ 'long options', {}, [ "--host=$host", "--port=$port", '--username=app', '--dbname=postgres' ], 'app' ],
	[ 'options in one', {}, [ "-h$host", "-p$port", '-Uapp', '-dpostgres' ], 'app' ],
	[ 'variables', { PGHOST => $host, PGPORT => $port, PGUSER => 'app', PGDATABASE => 'postgres' }, [], 'app' ],
	[ 'a connection string', {}, [ '-d', "host=$host port=$port user=app dbname=postgres" ], 'app' ],
	[ 'a URI', {}, [ '-d', "postgresql://app\@$encoded:$port/postgres" ], 'app' ],
	[ 'a URI, and another user', {}, [ '-d', "postgres://$encoded:$port/postgres", '-U', 'app' ], 'app' ],
	[ 'a service', { PGSERVICEFILE => "$dir/services", PGSERVICE => 'leases' }, [], 'app' ],
	[ 'a service by name', { PGSERVICEFILE => "$dir/services" }, [ '-d', 'service=leases' ], 'app' ],
	[ 'a password file', { PGPASSFILE => "$dir/passwords" }, [ @here, '-U', 'locked' ], 'locked' ],
	[ 'a password', { PGPASSWORD => "it's :right\\" }, [ @here, '-U', 'locked' ], 'locked' ],
	[ 'several servers', {}, [ several($standby, $node) ], $me ],
	[ 'several servers, one of which is none', {}, [ '-d',
			"host=$dir,$host port=$port,$port dbname=postgres target_session_attrs=read-write" ], $me ],
	[ 'several servers, which a variable says', { PGTARGETSESSIONATTRS => 'primary' }, [ '-d',
			"host=" . $standby->host . ",$host port=" . $standby->port . ",$port dbname=postgres" ], $me ]);
foreach my $way (@ways)
{
	my ($what, $environment, $arguments, $owner) = @$way;
	my $how = { env => { %no_environment, %$environment } };

	($status, $out, $err) = leasectl($how, @$arguments, 'acquire', "by $what", '--ttl=1h');
	is("$status $err", '0 ', "connection: $what");
	is(value("SELECT owner FROM lease.leases WHERE token = " . ($out || 0)), $owner, "connection: $what: as whom is meant");
	is((leasectl($how, 'release', "by $what", $out, @$arguments))[0], 0, "connection: $what: also after the order");
}

$node->wait_for_catchup($standby);
@here = at($standby);
is(set(map { $_->{name} } @{ json('list') }), set(map { decoded($_) } @names), 'a standby: it tells what the ledger holds');
is(scalar @{ json('history', 'a/1') }, scalar @events, 'a standby: and the history');
is(json('status')->{worker_state}, 'standby', 'a standby: and that it is one');

$standby->stop;
$node->stop;
done_testing();
