# What is told of leases as it happens, to those who LISTEN and in the server's log;
# when settings of that take effect; and that no view or function, nor its plan,
# tells another role what it may not know.
#
# Guards invariant 9 (nobody learns what its privileges do not allow).

use strict;
use warnings;
use feature qw(state);

use Encode qw(decode encode);
use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;
use LeaseTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Names that are awkward in JSON, in quotes, and in a line.
use constant AWKWARD => map { "app/$_" } (
	'plain', q{"quoted" 'name'}, 'back\\slash\\', "new\nline\r", "tab\tbell\x07 escape\x1b delete\x7f",
	'{"event":"forged","token":1}', '%s $1 {x}', "\x{e4}\x{20ac}\x{1f512}", ' key=value  x="y"', "\x01" x 251, 'x' x 251);
use constant TRACE => '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';

my $node = lease_node(
	'events', conf => q{
	logging_collector = on
	log_destination = 'stderr,jsonlog'
	log_directory = 'log'
	log_filename = 'server'
	log_rotation_age = 0
	log_rotation_size = 0
	log_statement = none
	log_lock_waits = on
	deadlock_timeout = 10ms
	client_encoding = 'UTF8'
	restart_after_crash = off});
create_lease($node, 'elsewhere');

sub value
{
	my ($sql, %args) = @_;
	return $node->safe_psql($args{db} // 'postgres', $sql);
}

sub quoted
{
	my ($text) = @_;
	return "'" . encode('UTF-8', $text =~ s/'/''/gr) . "'";
}

# Wait until all that happened is written, and so told of.
sub settle
{
	my (%args) = @_;
	return wait_for('the history to be written',
		sub { value('SELECT history_pending FROM lease.status', %args) eq '0' });
}

# Change settings of the server; who connects then has them, so everybody was told.
sub configure
{
	my (%settings) = @_;

	settle();
	value(join "\n", (map { "ALTER SYSTEM SET lease.$_ = '$settings{$_}';" } keys %settings), 'SELECT pg_reload_conf()');
	foreach my $name (keys %settings)
	{
		wait_for("$name to be set", sub { value("SHOW lease.$name") eq $settings{$name} });
	}
	return;
}

#
# LISTEN
#
my %listeners;

sub listener
{
	my ($db) = @_;
	my $psql = $listeners{$db} //= $node->background_psql($db);

	$psql->query_safe('LISTEN lease');
	return $psql;
}

# What a database's listener hears, up to an event of a name: [event, name, token] each.
# Notifications come in the order of what they tell of.
sub heard_up_to
{
	my ($db, $last) = @_;
	my $psql = $listeners{$db};
	my @heard;

	wait_for(
		"hearing of $last",
		sub {
			my $output = $psql->query('SELECT 1');

			while ($output =~ /^Asynchronous notification "lease" with payload "(.*)" received from server process with PID (\d+)\.$/mg)
			{
				push @heard, { pid => $2, %{ decode_json($1) } };
			}
			return grep { $_->{name} eq $last } @heard;
		});
	return @heard;
}

# Take and release a lease that everybody is to hear of; what was heard before.
my $marks = 0;

sub heard
{
	my ($db) = @_;
	my $mark = 'app/mark/' . ++$marks;

	value("SELECT lease.try_acquire('$mark', '1 h')", db => $db);
	return grep { $_->{name} !~ m{^app/mark/} } heard_up_to($db, $mark);
}

sub as_text { return join ', ', map { join ' ', $_->{event}, $_->{name}, $_->{token} // 'null' } @_ }

listener($_) foreach qw(postgres elsewhere);

# Off unless it is asked for.
is(value('SHOW lease.notify'), '', 'lease.notify is off by default');
acquire($node, 'app/early');
value(q{SELECT lease.try_acquire('app/early')});
configure(notify => 'app/%');
is(as_text(heard('postgres')), '', 'then nothing is heard');

my %tokens;
my $acquirer = $node->background_psql('postgres', on_error_stop => 0);
my $acquirer_pid = $acquirer->query_safe('SELECT pg_backend_pid()');
foreach my $name (AWKWARD)
{
	$tokens{$name} = $acquirer->query_safe('SELECT lease.try_acquire(' . quoted($name) . ", '1 h')");
}
acquire($node, "$_/private") foreach qw(other App ap);
my @heard = heard('postgres');
is_deeply(
	[ map { { %$_, pid => undef } } @heard ],
	[ map { { event => 'acquired', name => $_, token => $tokens{$_} + 0, pid => undef } } AWKWARD ],
	'each name that matches is heard as it is, with event and token, and no other');
is(scalar(grep { $_->{pid} == $acquirer_pid } @heard), 0, 'from another process than the caller\'s');

my $early = value(q{SELECT token FROM lease.leases WHERE name = 'app/early'});
value(qq{SELECT lease.try_acquire('app/early');
	SELECT lease.try_renew('app/early', 1);
	SELECT lease.transfer('app/early', $early, 'heir') AS token \\gset
	SELECT lease.force_release('app/early', 'private reason')});
my $heir = value(q{SELECT token FROM lease.history WHERE event = 'received'}) if settle();
is( as_text(heard('postgres')),
	"refused app/early null, rejected app/early 1, transferred app/early $early, received app/early $heir, forced app/early $heir",
	'of what came of it, too; a token only where there is one');

# The reaper tells, so the caller's transaction has no part in it.
$acquirer->query_safe('BEGIN');
my $token = $acquirer->query_safe(q{SELECT lease.try_acquire('app/undone', '1 h')});
is(as_text(heard('postgres')), "acquired app/undone $token", 'while the transaction of the caller is open');
$acquirer->query_safe('ROLLBACK');
is(as_text(heard('postgres')), '', 'its end is no news');
$acquirer->query_safe(q{BEGIN; SELECT lease.try_acquire('app/bound', scope => 'transaction')});
$token = value(q{SELECT token FROM lease.leases WHERE name = 'app/bound'});
$acquirer->query_safe('ROLLBACK');
is(as_text(heard('postgres')), "acquired app/bound $token, released app/bound $token", 'a transaction that is rolled back tells all the same');

is(as_text(heard('elsewhere')), '', 'in another database nothing is heard of it');
$token = acquire($node, 'app/there', db => 'elsewhere');
is(as_text(heard('elsewhere')), "acquired app/there $token", 'but of what happens there');
is(as_text(heard('postgres')), '', 'which is not heard here');

configure(notify => '%');
value(q{SELECT lease.new_epoch('private')});
is(as_text(heard('postgres')), '', 'what is about no name is nobody\'s to hear');
configure(notify => 'app/mark/%');
$acquirer->query_safe(q{SELECT lease.try_acquire('app/plain')});
is(as_text(heard('postgres')), '', 'the pattern may be changed');

#
# The server's log
#
my %log = map { $_ => $node->data_dir . "/log/server$_" } ('', '.json');

# What was logged in a format since a position.
sub logged
{
	my ($format, $since) = @_;
	return substr slurp_file($log{$format}), $since->{$format};
}

# What was logged before, and by the reapers for the history, is in the files.
sub settle_log
{
	state $marks = 0;
	my $mark = 'mark ' . ++$marks . ' of the log';

	settle();
	value("DO 'BEGIN RAISE LOG ''$mark''; END'");
	return wait_for('the log', sub { !grep { slurp_file($log{$_}) !~ /$mark/ } keys %log });
}

sub log_positions
{
	settle_log();
	return { map { $_ => -s $log{$_} } keys %log };
}

# A line of keys and values, as its keys and values; an error if it is anything else.
sub parsed
{
	my ($line) = @_;
	my %escaped = ('\\' => '\\', '"' => '"');
	my ($event, $rest) = $line =~ /^lease (\w+):(.*)\z/s or return "no event in: $line";
	my %values = (event => $event);

	while ($rest =~ s/^ (\w+)=(?:"((?:[^"\\\x00-\x1f\x7f]|\\["\\]|\\x[0-9a-f]{2})*)"|([^"\s]+))//)
	{
		my ($key, $text) = ($1, $2 // $3);

		return "$key twice in: $line" if exists $values{$key};
		$text =~ s/\\(?:x(..)|(.))/defined $1 ? chr hex $1 : $escaped{$2}/ge;
		$values{$key} = decode('UTF-8', $text);
	}
	return $rest eq '' ? \%values : "what is $rest in: $line";
}

# The same of events in the history, from one on, in their order.
sub history_since
{
	my ($seq) = @_;
	return decode_json(value(qq{
		SELECT coalesce(json_agg(json_strip_nulls(json_build_object('event', event, 'name', name, 'token', token::text, 'mode', mode,
			'scope', scope, 'holder', holder, 'owner', owner, 'pid', pid::text, 'correlation_id', correlation_id,
			'waited', to_char(extract(epoch FROM waited), 'FM9999990.000000'),
			'held', to_char(extract(epoch FROM held), 'FM9999990.000000'), 'detail', detail)) ORDER BY seq), '[]')
		FROM lease.history WHERE seq > $seq}));
}

sub last_seq
{
	settle();
	return value('SELECT coalesce(max(seq), 0) FROM lease.history');
}

sub lines_of_text
{
	my ($since) = @_;
	return map { parsed($_) } logged('', $since) =~ /^[^\n]* LOG:  (lease \w+:[^\n]*)$/mg;
}

sub lines_of_json
{
	my ($since) = @_;
	my @entries = map { decode_json($_) } split /\n/, logged('.json', $since);
	return map { parsed(encode('UTF-8', $_->{message})) } grep { $_->{message} =~ /^lease \w+:/ } @entries;
}

# All kinds of events that one session can make, with a name that is awkward.
sub make_events
{
	my ($name) = @_;
	my $quoted = quoted($name);

	$acquirer->query(qq{
		SET client_min_messages = error;
		SET lease.holder = $quoted;
		SET lease.correlation_id = '@{[TRACE]}';
		SELECT lease.acquire($quoted, '1 h', mode => 'shared', lock_delay => '1 h', correlation_id => '"argument" \\') AS token \\gset
		SELECT lease.renew($quoted, :token);
		SELECT lease.try_acquire($quoted);
		SELECT lease.acquire($quoted, wait => '0');
		SELECT lease.transfer($quoted, :token, 'heir' || $quoted);
		SELECT lease.release($quoted, :token);
		SELECT lease.guard($quoted, :token);
		SELECT lease.force_release($quoted, E'reason \\n"' || $quoted);
		SELECT lease.force_release($quoted, 'reason', reopen => true);
		SELECT lease.acquire_permit('permits ' || $quoted, 2, scope => 'session') AS token \\gset
		SELECT lease.set_capacity('permits ' || $quoted, 3);
		SELECT lease.release('permits ' || $quoted, :token);
		SELECT lease.new_epoch($quoted);
		BEGIN; SELECT lease.acquire($quoted, scope => 'transaction'); COMMIT;});

	# Some of them are errors, and meant to be.
	$acquirer->{stderr} = '';
	return;
}

sub kinds { return join ' ', map { ref $_ ? $_->{event} : $_ } @_ }

my $made = 'acquired refused timeout transferred received rejected guard_failed forced reopened acquired resized released new_epoch acquired released';
my $since = log_positions();
my $seq = last_seq();
make_events('app/plain log');
settle_log();
is(kinds(@{ history_since($seq) }), $made, 'events are in the history');
is(kinds(lines_of_text($since), lines_of_json($since)), '', 'and not in the log, unless it is asked for');

configure(log_events => 'all');
foreach my $name (map { substr $_, 4, 60 } AWKWARD)
{
	my $shown = substr $name =~ s{[^ -~]+}{?}gr, 0, 20;

	$since = log_positions();
	$seq = last_seq();
	make_events($name);
	settle_log();
	my $history = history_since($seq);
	is(kinds(@$history), $made, "$shown: all events are in the history");
	is_deeply([ lines_of_text($since) ], $history, "$shown: lines of the log, as keys and values, are the same");
	is_deeply([ lines_of_json($since) ], $history, "$shown: so are those of jsonlog");
	is(scalar(grep { ($_->{correlation_id} // '') ne TRACE } grep { $_->{event} !~ /^(?:refused|timeout)$/ } @$history),
		2, "$shown: all but what has its own show the session's correlation id");
}

configure(log_events => 'Forced , expired');
$since = log_positions();
make_events('app/some');
acquire($node, 'app/late', ttl => '1 min');
advance_clock($node, '1 min');
wait_for('the launcher', sub { value(q{SELECT expired FROM lease.stats WHERE name = 'app/late'}) eq '1' });
settle_log();
is(kinds(lines_of_text($since)), 'forced expired', 'lease.log_events: only those that it names');
configure(log_events => 'none');

# What the server logs of itself has the correlation id as its context.
$since = log_positions();
$acquirer->query_safe(q{SET client_min_messages = error; RESET lease.correlation_id; RESET lease.holder});
$acquirer->query_safe(q{SELECT lease.acquire('contexts', '1 h', lock_delay => '1 h', correlation_id => 'of the grant')});
my $waiter = start_psql($node, qq{SET lease.correlation_id = '@{[TRACE]}'; SELECT lease.acquire('contexts', '1 h')});
wait_for('the log of a wait', sub { logged('', $since) =~ /still waiting for lease "contexts"/ });
value(q{SET client_min_messages = error; SELECT lease.force_release('contexts', 'context', reopen => false)});
value(q{SET client_min_messages = error; SELECT lease.force_release('contexts', 'context', reopen => true)});
finish_psql($waiter);
settle_log();

sub contexts
{
	my ($format, $message) = @_;
	my @lines;

	@lines = logged('', $since) =~ /LOG:  ([^\n]*\n(?:[^\n]* (?:DETAIL|CONTEXT):  [^\n]*\n)*)/g if $format eq 'text';
	@lines = map { "$_->{message} CONTEXT:  " . ($_->{context} // '') }
	  map { decode_json($_) } split /\n/, logged('.json', $since) if $format eq 'jsonlog';
	return join ', ', map { /CONTEXT:  lease correlation ID "(.*)"/ ? $1 : 'none' } grep { $_ =~ $message } @lines;
}

foreach my $format (qw(text jsonlog))
{
	is(contexts($format, qr/still waiting for lease "contexts"/), TRACE, "$format: log_lock_waits, who waits");
	is(contexts($format, qr/acquired lease "contexts"/), TRACE, "$format: log_lock_waits, who waited");
	is(contexts($format, qr/lease "contexts" .* was released by force/), 'of the grant', "$format: a forced release, of the grant's");
	is(contexts($format, qr/lease name "contexts".* was opened by force/), 'of the grant', "$format: one that opens the name");
}

#
# Found by others, or gone
#
# Without the launcher, who comes across an expired lease finds out, once: the next
# that acquires it, or the session that has it and lets go.
$seq = last_seq();
acquire($node, 'found', ttl => '1 min');
$acquirer->query_safe(q{SELECT lease.acquire('session', '1 min', scope => 'session')});
$acquirer->query_safe(q{BEGIN; SELECT lease.acquire('transaction', '1 min', scope => 'transaction')});
my $launcher = freeze($node, 'lease launcher');
advance_clock($node, '1 min');
acquire($node, 'found');
$acquirer->query_safe('ROLLBACK');
$acquirer->query_safe('SELECT lease.release_session()');
thaw($launcher);
settle();
is( join(', ', map { join ' ', $_->{event}, $_->{name}, $_->{held} // () } @{ history_since($seq) }),
	'acquired found, acquired session, acquired transaction, expired found 60.000000, acquired found, '
	  . 'expired transaction 60.000000, expired session 60.000000',
	'what only the next acquirer, or the session that has it, finds expired is told once, and as expired');

$waiter = start_psql($node, q{SELECT lease.acquire('found', holder => 'gone')});
wait_for('a waiter', sub { value('SELECT count(*) FROM lease.waiters') eq '1' });
$seq = last_seq();
$waiter->{run}->signal('KILL');
$waiter->{run}->finish;
wait_for('the waiter to leave', sub { value('SELECT count(*) FROM lease.waiters') eq '0' });
wait_for('that to be told', sub { last_seq() > $seq });
is(kinds(@{ history_since($seq) }), 'cancelled', 'a client that goes away while it waits is told as cancelled');

#
# Other roles
#
my $secret = 'S3CRET';
my @shown = qw(name holder request correlation metadata session reason heir waiter);
value(q{
	CREATE ROLE anna; CREATE ROLE bert; CREATE ROLE guard IN ROLE pg_monitor;
	SELECT lease.allow(r::regrole) FROM unnest(ARRAY['anna', 'bert', 'guard']) r;
	CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
		$$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $$});
# A secret in every place that takes one; some is over, some lives, and some waits.
my $mine = "name => '$secret-name', holder => '$secret-holder', correlation_id => '$secret-correlation'";
value(qq{
	SET client_min_messages = error;
	SET ROLE anna;
	SET lease.correlation_id = '$secret-session';
	SELECT lease.acquire($mine, ttl => '1 h', request_id => '$secret-request', metadata => '{"k": "$secret-metadata"}') AS t \\gset
	SELECT lease.try_acquire($mine);
	SELECT lease.try_renew('$secret-name', 1);
	SELECT lease.transfer('$secret-name', :t, '$secret-heir') AS t2 \\gset
	SELECT lease.once('$secret-key'), lease.save_result('$secret-key', '"$secret-result"'), lease.fence('$secret-resource', :t2);
	SELECT lease.acquire('$secret-name/closed', '1 h', lock_delay => '1 h');
	RESET ROLE;
	SELECT lease.force_release('$secret-name', '$secret-reason'), lease.force_release('$secret-name/closed', '$secret-reason');
	SET ROLE anna;
	SELECT lease.acquire_permit('$secret-name/permits', 2, holder => '$secret-holder', ttl => '1 h');
	SELECT lease.acquire($mine, ttl => '1 h', request_id => '$secret-request', metadata => '{"k": "$secret-metadata"}')});
$waiter = start_psql($node, qq{
	SET ROLE anna; SET lease.correlation_id = '$secret-session';
	SELECT lease.acquire('$secret-name', '1 h', holder => '$secret-waiter')});
wait_for('a waiter', sub { value('SELECT count(*) FROM lease.waiters') eq '1' });
settle();
value('ANALYZE');

# What a role may read, in the order of its names: relations, and functions that
# show something, called with a name where they ask for one.
sub readable
{
	my ($role, $name) = @_;
	return split /\n/, value(qq{
		SELECT c.oid::regclass::text FROM pg_class c
		WHERE relnamespace = 'lease'::regnamespace AND relkind IN ('r', 'v', 'm', 'f', 'p') AND has_table_privilege('$role', oid, 'SELECT')
		UNION ALL
		SELECT format('%s(%s)', p.oid::regproc, a.args)
		FROM pg_proc p, LATERAL (
			SELECT string_agg(CASE t WHEN 'text'::regtype THEN '''$name''' WHEN 'text[]'::regtype THEN 'ARRAY[''$name'']' END, ', ' ORDER BY n),
			       count(*) FILTER (WHERE t NOT IN ('text'::regtype, 'text[]'::regtype))
			FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY u (t, n) WHERE n <= p.pronargs - p.pronargdefaults) a (args, unknown)
		WHERE pronamespace = 'lease'::regnamespace AND prokind = 'f' AND (proretset OR prorettype = 'record'::regtype OR proname = 'timeline')
		  AND a.unknown = 0 AND proname !~ 'acquire' AND has_function_privilege('$role', p.oid, 'EXECUTE')
		ORDER BY 1});
}

sub columns
{
	my ($what) = @_;
	return split /\n/, value(qq{SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(\$\$$what\$\$) AND attnum > 0});
}

# All that a statement says to a role: rows, errors, notices.
sub said
{
	my ($role, $sql) = @_;
	my (undef, $out, $err) = $node->psql('postgres', "SET ROLE $role; $sql", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return "$out\n$err";
}

# The ways to have a look: as it is; with a function, or a cast that fails, in WHERE,
# which the planner must not move before what hides a row; and the plan of that.
sub looks
{
	my ($what) = @_;
	my @filters = map { ("leak(t.\"$_\"::text)", "t.\"$_\"::text::integer > 0") } columns($what);

	return (
		"SELECT t::text FROM $what t", "SELECT count(*) FROM $what t WHERE leak(t::text)",
		"EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM $what t WHERE leak(t::text)",
		map { "SELECT count(*) FROM $what t WHERE $_" } @filters);
}

my @readable = readable('bert', "$secret-name");
is_deeply([ grep { !/\(/ } @readable ],
	[ split /\n/, value(q{SELECT (regexp_match(what, '^TABLE (.*)'))[1] FROM lease.user_objects() what WHERE what LIKE 'TABLE %' ORDER BY 1}) ],
	'the views that another role may read');
foreach my $what (qw(lease.leases lease.waiters lease.stats lease.history lease.totals lease.status lease.live_leases() lease.live_stats() lease.live_waiters()))
{
	is(scalar(grep { $_ eq $what } @readable), 1, "$what is one that is looked at");
}
my %leaked;
foreach my $what (@readable)
{
	foreach my $look (looks($what))
	{
		# What it is asked about is repeated in what it says.
		my $said = said('bert', $look) =~ s/\Q$secret\E-name'//gr;

		$leaked{$what} //= "$look\n" . substr $said, 0, 500 if $said =~ /\Q$secret\E/ && $what !~ /'/;
		$leaked{$what} //= "$look\n" . substr $said, 0, 500 if $said =~ /\Q$secret\E-(?!name)/;
	}
	is($leaked{$what}, undef, "$what tells another role no secret");
}
foreach my $what (qw(leases waiters stats history))
{
	my ($theirs, $all) = map { value("SET ROLE $_; SELECT count(*) FROM lease.$what") } qw(bert guard);

	ok($theirs == $all && $all > 0, "but lease.$what shows that there is something");
}

# A name that somebody else uses is told of as one that nobody ever used.
foreach my $call (q{story FROM lease.explain('%s')}, q{lease.timeline(ARRAY['%s'], '2020-01-01', '2100-01-01')})
{
	my ($used, $unused) = map { said('bert', sprintf("SELECT $call", $_)) =~ s/\d+|\Q$_\E//gr } "$secret-name", 'never used';

	is($used, $unused, "$call: whether the name is in use does not show");
	unlike(said('guard', sprintf("SELECT $call", "$secret-name")), qr/nothing that you may see/, "$call: it does to who may see it");
}
unlike(said('bert', 'SELECT s::text FROM pg_stats s'), qr/$secret/, 'nor do the planner\'s statistics');

# What it learns by asking for what somebody else has.
foreach my $call ("try_acquire('$secret-name')", "acquire('$secret-name', wait => '0')", "try_renew('$secret-name', 1)",
	"is_held('$secret-name', 1)", "force_release('$secret-name', 'r')", "set_capacity('$secret-name/permits', 3)",
	"acquire_permit('$secret-name/permits', permits => 2, wait => '0')", "result('$secret-key')", "once('$secret-key')")
{
	unlike(said('bert', "SELECT lease.$call") =~ s/\Q$call\E//gr =~ s/"$secret-(?:name|key)[^"]*"//gr, qr/$secret/, "$call tells no more");
}

# Who monitors sees it all, so that the above could have failed.
my $monitored = join "\n", map { said('guard', $_) } map { ("SELECT t::text FROM $_ t", "SELECT count(*) FROM $_ t WHERE leak(t::text)") }
  qw(lease.leases lease.waiters lease.stats lease.history);
is(join(' ', grep { $monitored !~ /(?:NOTICE:.*leaked.*)\Q$secret-$_\E/ } @shown), '', 'a member of pg_monitor sees each, also through a function');
foreach my $what (qw(leases waiters stats history))
{
	like(said('guard', "SELECT t::text FROM lease.$what t"), qr/$secret-name/, "in lease.$what, too");
	like(said('anna', "SELECT t::text FROM lease.$what t"), qr/$secret-name/, "so does who took it, in lease.$what");
}
value(q{SELECT lease.release(name, token) FROM lease.leases WHERE closed_until IS NULL AND name ~ '^S3CRET-name$'});
finish_psql($waiter);

#
# Settings of the history
#

# Nobody wants to be told: a session that was there before does not even note it.
configure(history_retention => '0', notify => '', log_events => 'none');
wait_for('the history to be emptied', sub { value('SELECT count(*) FROM lease.events') eq '0' });
$acquirer->query_safe(q{SELECT lease.try_acquire('unheard', '1 h')});
is(value('SELECT history_pending FROM lease.status'), '0', 'without history, notifications and log nothing is noted');
configure(notify => 'app/mark/%');
is(as_text(heard('postgres')), '', 'events are heard of without a history');
is(value('SELECT count(*) FROM lease.history'), '0', 'which stays empty');
configure(history_retention => '1h');
$acquirer->query_safe(q{SELECT lease.try_acquire('heard', '1 h')});
settle();
is(value(q{SELECT string_agg(name, ' ') FROM lease.history}), 'heard', 'it is filled again, also by sessions that were there before');

# What is older goes, when the setting says so, and no more than that.
acquire($node, 'old');
settle();
value(q{UPDATE lease.events SET at = at - interval '2 h' WHERE name = 'old'});
configure(history_retention => '1d');
is(value(q{SELECT string_agg(name, ' ' ORDER BY name) FROM lease.history}), 'heard old', 'a longer retention keeps all');
configure(history_retention => '1h');
wait_for('the old to go', sub { value(q{SELECT count(*) FROM lease.history WHERE name = 'old'}) eq '0' });
is(value(q{SELECT string_agg(name, ' ' ORDER BY name) FROM lease.history}), 'heard', 'a shorter one what is old enough');
is(value('SELECT history_lost FROM lease.status'), '0', 'none was lost in all that');

# A start loads the leases that were held, in each database.
my ($held, $there) = map { value('SELECT count(*) FROM lease.leases', db => $_) } qw(postgres elsewhere);
$_->quit foreach values %listeners, $acquirer;
$node->restart;
foreach my $db (qw(postgres elsewhere))
{
	value('SELECT count(*) FROM lease.leases', db => $db);
	settle(db => $db);
}
is(value(q{SELECT detail FROM lease.history WHERE event = 'loaded' ORDER BY at DESC LIMIT 1}), "$held leases, TTLs counted anew", 'a start is told of, with the leases that it found');
is(value(q{SELECT detail FROM lease.history WHERE event = 'loaded' ORDER BY at DESC LIMIT 1}, db => 'elsewhere'), "$there leases, TTLs counted anew", 'in each database');

$node->stop;
done_testing();
