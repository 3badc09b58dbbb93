# What is written about leasectl is so: its manual page, its completion, --help and
# doc/leasectl.md name the same commands and options, and those are what the program
# takes; the completion completes, in a real bash; every block of the guide runs as it
# stands; its crontab line runs as cron would run it, and its units as systemd would.
#
# In the guide an sh block that begins with "# in another terminal" goes on beside the
# following ones; a text block is what one sees after the sh block before it, where
# "…" stands for whatever varies.  What it calls in /usr/local/bin is ours here.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;

my $top = $ENV{TESTDIR} // "$FindBin::RealBin/../..";
my ($manual, $guide, $completion) =
  map { "$top/$_" } qw(doc/leasectl.1 doc/leasectl.md src/leasectl/leasectl.bash);
my ($leasectl) = grep { -x } map { "$_/leasectl" } split /:/, $ENV{PATH};
my $node;

sub is_there
{
	my ($program) = @_;
	return scalar grep { -x "$_/$program" } split /:/, $ENV{PATH};
}

# Run a program in an environment; returns its status (as a shell has it) and what it said.
sub run_in
{
	my ($env, @command) = @_;
	my ($out, $err) = ('', '');

	local %ENV = %$env;
	IPC::Run::run(\@command, '<', '/dev/null', '>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	return (status_of($?), $out, $err);
}

sub status_of { return $_[0] & 127 ? 128 + ($_[0] & 127) : $_[0] >> 8 }

sub words { return join ' ', sort @_ }

#
# What each of them says
#

# The options of the manual page, each with the commands that take it.
sub options_in_manual
{
	my ($text, %options) = (slurp_file($manual) =~ s/\\([-&])/$1 eq '-' ? '-' : ''/egr);

	while ($text =~ /^\.TP\n\.BI? "?(?:(-.), )?--([a-z-]+)[^\n]*\nFor ([^.]*)\./mg)
	{
		$options{"--$2"} = { letter => $1, verbs => $3 };
	}
	return \%options;
}

sub verbs_in_manual
{
	my ($commands) = slurp_file($manual) =~ /^\.SH COMMANDS\n(.*?)^\.SH/ms;
	return map { s/\\-/-/gr } $commands =~ /^\.TP\n\.BI? "?([a-z\\-]+)/mg;
}

# The commands that --help shows, in the lines of its usage.
sub verbs_in_help
{
	my ($help) = @_;
	my %verbs;

	foreach my $line ($help =~ /^ +leasectl (.*)$/mg)
	{
		$line =~ s/COMMAND.*|--\S+|\[[^]]*\]//g;
		$verbs{$_} = 1 foreach $line =~ /(?<![\w-])([a-z][a-z-]+)/g;
	}
	return keys %verbs;
}

# What the completion offers for the last of some words.
sub completed
{
	my (@words) = @_;
	my ($out, $err) = run_command([
		'bash', '--norc', '-c',
		'set -u; . "$1" || exit; shift; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
		 _leasectl && [ ${#COMPREPLY[@]} -eq 0 ] || printf "%s\n" "${COMPREPLY[@]}"',
		'bash', $completion, 'leasectl', @words ]);

	is($err, '', "completion of \"@words\": bash has nothing to complain of") if $err ne '';
	return split /\n/, $out;
}

#
# They agree
#
sub check_names
{
	my ($help) = run_command([ $leasectl, '--help' ]);
	my ($in_manual, @offered) = (options_in_manual(), completed(''));
	my %letters = map { $_->{letter} ? ($_->{letter} => 1) : () } values %$in_manual;

	cmp_ok(scalar(() = $help =~ /\n/g), '<=', 24, '--help fits a screen');
	is(join("\n", grep { length > 80 } split /\n/, $help), '', '--help fits its width');
	is(words(verbs_in_manual()), words(@offered), 'the manual page has the commands that the completion has');
	is(words(verbs_in_help($help)), words(@offered), '--help has them, too');
	is(words(grep { slurp_file($guide) !~ /^leasectl[^\n]*\b$_\b/m } @offered), '', 'and the guide');
	is(words($help =~ /(?<![\w-])(--[a-z][a-z-]+)/g), words(keys %$in_manual),
		'--help has the options of the manual page');
	is(words($help =~ /(?<![\w-])(-[^\s-])(?=, )/g), words(keys %letters), 'and its letters');
	is(words(grep { !$in_manual->{$_} } slurp_file($guide) =~ /leasectl \w+ [^`\n]*?(--[a-z][a-z-]+)/g),
		'', 'the guide uses no other options');
	return;
}

# What to give an option, so that it is none the worse.
my %values = (
	'--ttl' => '1s', '--wait' => '1s', '--kill-after' => '100ms', '--pause' => '1s', '--since' => '1h',
	'--interval' => '1s', '--timeout' => '10s', '--min-hold' => '0', '--lock-delay' => '0', '--metadata' => '{}',
	'--permits' => 1, '--capacity' => 1, '--token' => 1, '--limit' => 1, '--sort' => 'name',
	'--host' => '/nowhere', '--port' => 1,
	map { $_ => 'x' } qw(--username --dbname --holder --correlation-id --request-id --reason));

# What a command needs besides.  Nothing gets as far as to do anything: there is no
# such server, and who would try for ever to reach it is given a TTL that is too short.
my %operands = (
	run => [qw(x -- true)], elect => [qw(x --ttl 1ms -- true)], acquire => ['x'], renew => [qw(x 1)],
	release => [qw(x 1)], transfer => [qw(x 1 y)], 'force-release' => [qw(x --reason y)], explain => ['x']);

sub takes
{
	my ($verb, $option) = @_;
	my @value = exists $values{$option} ? $values{$option} : ();
	my ($status, $out, $err) =
	  run_in({ %ENV, PGHOST => '/nowhere' }, $leasectl, $option, @value, $verb, @{ $operands{$verb} // [] });

	die "leasectl $verb $option: $err" if $status == 0 && $option !~ /--help|--version/;
	return $err !~ /\Q$verb\E does not know \Q$option\E;/;
}

# The options that the page, the completion and the program give to a command.
sub check_verb
{
	my ($verb) = @_;
	my $in_manual = options_in_manual();
	my @documented = grep { $in_manual->{$_}{verbs} =~ /^all$|(?<![\w-])$verb(?![\w-])/ } keys %$in_manual;

	is(words(completed($verb, '--')), words(@documented), "$verb: completion and manual page give it the same options");
	is(words(grep { takes($verb, $_) } keys %$in_manual), words(@documented), "$verb: and those it takes");
	return;
}

sub check_manual_page
{
	my ($version) = slurp_file("$top/META.json") =~ /"version": "([^"]*)"/;

	like(slurp_file($manual), qr/^\.TH LEASECTL 1 "[^"]*" "lease \Q$version\E"/m, 'the page is of this version');
	is((run_command([ $leasectl, '--version' ]))[0], "leasectl (lease) $version", 'and so is the program');
  SKIP:
	{
		skip 'there is no groff', 1 unless is_there('groff');
		my ($out, $err) = run_command([ 'groff', '-ww', '-man', '-Tutf8', $manual ]);
		is($err, '', 'groff has nothing to complain of in the manual page');
	}
	return;
}

#
# Completion
#
sub completes
{
	my ($words, $expected, $why) = @_;

	is(words(completed(@$words)), $expected, "completion: $why");
	return;
}

sub check_completion
{
	completes(['re'], 'release renew', 'commands that begin so');
	completes(['-q', '--host', 'run', 're'], 'release renew', 'the value of an option is no command');
	completes(['--host', '=', 'run', 're'], 'release renew', 'nor is it behind an =, of which readline makes a word');
	completes(['--host=run', 're'], 'release renew', 'or does not');
	completes(['--quiet', 're'], 'release renew', 'an option without a value takes none');
	completes(['top', '--s'], '--sort', 'an option that begins so');
	completes(['--ttl', '1s', 'renew', '--t'], '--timeout --ttl', 'the command may stand behind options');
	completes([ 'run', '' ], '', 'a name is for the user to type');
	completes([ 'run', 'x', '' ], '--', 'then comes the command, after --');
	completes([ 'run', '--holder', 'x', '' ], '', 'a value is no name');
	completes([ 'list', 'x', '' ], '', 'there is no command to come');
	completes([ 'run', '--ttl', '' ], '', 'a duration is for the user to type');
	completes([ 'run', '--ttl', '-' ], '', 'whatever it begins with');
	completes([ 'top', '--sort', 'hold' ], 'holder', 'a column of top');
	check_columns(completed('top', '--sort', ''));
	completes([ 'top', '--sort', '=' ], words(completed('top', '--sort', '')), 'or behind an =');
	completes([ 'top', '--sort', '=', 'hold' ], 'holder', 'or what begins so');
	my $some = substr getpwuid($<), 0, 3;
	completes([ 'run', '-U', $some ], words(grep { index($_, $some) == 0 } users()), 'a user');
	return;
}

# What top sorts by: it says so if it does not.
sub check_columns
{
	my @columns = @_;

  SKIP:
	{
		my $complaint = sub { return (run_in(\%ENV, $leasectl, 'top', '--sort', @_))[2] };
		skip 'this leasectl was built without curses', 1 if $complaint->('nothing') =~ /without curses/;
		is(words(grep { $complaint->($_) =~ /there is no column/ } 'nothing', @columns),
			'nothing', 'completion: top has these columns');
	}
	return;
}

sub users
{
	my @users;

	while (my ($name) = getpwent) { push @users, $name }
	return @users;
}

# After "--" it is the command's turn.
sub check_completion_of_commands
{
	my $dir = PostgreSQL::Test::Utils::tempdir();

	append_to_file("$dir/lease-file", '');
	append_to_file("$dir/lease-program", '');
	chmod 0755, "$dir/lease-program";
	local $ENV{PATH} = "$dir:$ENV{PATH}";
	completes([ 'run', 'x', '--', 'lease-pro' ], 'lease-program', 'after -- a program');
	completes([ 'run', 'x', '--', "$dir/lease-f" ], "$dir/lease-file", 'or a path');
	completes([ 'run', 'x', '--', 'cat', "$dir/lease-" ], "$dir/lease-file $dir/lease-program", 'and then files');
	completes([ 'run', 'x', '--', 'cat', '--tt' ], '', 'whose options are not ours');

	# With the bash-completion package around it is asked, and told where the command stands.
	foreach my $function (qw(_command_offset _comp_command_offset))
	{
		local $ENV{"BASH_FUNC_$function%%"} = '() { COMPREPLY=("offset $1"); }';
		completes([ 'run', 'x', '--', 'cat', '' ], 'offset 4', "$function completes the command");
	}
	my ($out) = run_command([ 'bash', '--norc', '-c', '. "$1"; complete -p leasectl', 'bash', $completion ]);
	like($out, qr/-F _leasectl leasectl/, 'bash knows whom to ask');
	return;
}

#
# The guide
#

# Its fenced blocks: [line, language, text] each.
sub blocks
{
	my ($language) = @_;
	my $text = slurp_file($guide);
	my @found;

	while ($text =~ /^```($language)\n(.*?)^```$/msg)
	{
		push @found, [ 1 + (substr($text, 0, $-[2]) =~ tr/\n//), $1, $2 ];
	}
	return @found;
}

# A block that says in its first line which file it is.
sub file_block
{
	my ($name) = @_;
	my ($block) = grep { $_->[2] =~ /\A# \Q$name\E\n/ } blocks('ini');

	die "the guide has no $name" unless $block;
	return $block->[2];
}

# A home with the service file of the guide.  Its first host is gone, the second is ours.
sub make_home
{
	my $home = PostgreSQL::Test::Utils::tempdir();
	my $services = file_block('~/.pg_service.conf');

	$services =~ s{^host=[\w.]+,[\w.]+$}{"host=/nowhere,@{[$node->host]}\nport=1,@{[$node->port]}"}me
	  or die 'the service does not name two hosts';
	append_to_file("$home/.pg_service.conf", $services);
	return $home;
}

# The environment of somebody who logs in, with the database and the role of a superuser.
sub environment_of_user
{
	my ($home) = @_;
	return { %ENV, HOME => $home, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'app' };
}

# Run a block in a home, in the background or until it is over; returns its status and where its
# output goes.
sub start_block
{
	my ($env, $block) = @_;
	my $out = PostgreSQL::Test::Utils::tempdir() . '/out';
	my $pid = fork // die 'could not fork';

	if ($pid == 0)
	{
		POSIX::setpgid(0, 0);
		%ENV = %$env;
		chdir $env->{HOME};
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', $out;
		open STDERR, '>&', \*STDOUT;
		exec 'bash', '-e', '-c', $block->[2] or POSIX::_exit(127);
	}
	wait_for('output', sub { -e $out });
	return { pid => $pid, out => $out };
}

sub run_block
{
	my ($env, $block) = @_;
	my $run = start_block($env, $block);

	waitpid $run->{pid}, 0;
	$run->{status} = status_of($?);
	return $run;
}

# Do the runs say what a text block has?  Who watches may have come too late for the
# last one: then that is done again.
sub is_seen
{
	my ($env, $block, $last, @others) = @_;
	my @patterns =
	  map { join '.*', map { s/\s+/ /gr =~ s/([^\w ])/\\$1/gr } split /…/, $_ } split /\n/, $block->[2];
	my $until = time + $PostgreSQL::Test::Utils::timeout_default;
	my ($all, @missing);

	for (;;)
	{
		$all = join("\n", map { slurp_file($_->{out}) } $last->{run}, @others) =~ s/[ \t]+/ /gr;
		@missing = grep { $all !~ /^$_/m } @patterns;
		last if !@missing || time > $until;
		$last->{run} = run_block($env, $last->{block});
	}
	is(join("\n", @missing), '', "leasectl.md line $block->[0]: it is seen") or diag($all);
	return;
}

# A block beside the others is under way once it holds what it is to hold.
sub start_beside
{
	my ($env, $block) = @_;
	my ($name) = $block->[2] =~ /leasectl run (\S+)/;
	my $run = start_block($env, $block);

	wait_for("leasectl.md line $block->[0]: to hold $name", sub { names_held($node, db => 'app') =~ /\Q$name\E/ })
	  if defined $name;
	return $run;
}

sub check_guide
{
	my ($env) = @_;
	my (%last, @beside);

	foreach my $block (blocks('sql|sh|text'))
	{
		my ($line, $language, $text) = @$block;

		if ($language eq 'text') { is_seen($env, $block, \%last, @beside); }
		elsif ($language eq 'sql') { $node->safe_psql('app', $text); }
		elsif ($text =~ /\A# in another terminal\n/) { push @beside, start_beside($env, $block); }
		else
		{
			%last = (block => $block, run => run_block($env, $block));
			is($last{run}{status}, 0, "leasectl.md line $line: it goes as it says")
			  or diag(slurp_file($last{run}{out}));
		}
	}
	kill 'TERM', map { -$_->{pid} } @beside;
	waitpid $_->{pid}, 0 foreach @beside;
	is(names_held($node, db => 'app'), '', 'the guide leaves nothing behind');
	return;
}

#
# What cron and systemd start
#

# A directory for /usr/local/bin, in which a program of the guide notes how it was called
# and ends as it is told.
sub make_programs
{
	my (@names) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();

	symlink $leasectl, "$dir/leasectl";
	foreach my $name (@names)
	{
		append_to_file("$dir/$name", <<~"END");
			#!/bin/sh
			on_stop() { echo stopped >>$dir/calls; exit 0; }
			[ -e $dir/deaf ] || trap on_stop TERM
			echo "$name \$* \$LEASE_NAME \$LEASE_TOKEN" >>$dir/calls
			while [ -e $dir/stays ]; do sleep 600 & wait; done
			exit "\$(cat $dir/status)"
			END
		chmod 0755, "$dir/$name";
	}
	append_to_file("$dir/status", "0\n");
	append_to_file("$dir/calls", '');
	return $dir;
}

# How often a program was called, or stopped.
sub times_in
{
	my ($dir, $pattern) = @_;
	return scalar(() = slurp_file("$dir/calls") =~ /^$pattern/mg);
}

sub write_file
{
	my ($file, $text) = @_;

	unlink $file;
	append_to_file($file, $text);
	return;
}

# What cron and systemd give to a program of a user.
sub bare_environment
{
	my ($home, $path) = @_;
	return { HOME => $home, LOGNAME => 'batch', SHELL => '/bin/sh', PATH => $path };
}

# All that a text calls in /usr/local/bin is in our directory.
sub localize
{
	my ($text, $dir) = @_;

	$text =~ s{/usr/local/bin/}{$dir/}g;
	return $text;
}

# The lines of a crontab as cron takes them: what they set, and of each job the fields of its
# time, its command, and what it reads (after a % that is not escaped).
sub crontab
{
	my ($text) = @_;
	my (%set, @jobs);

	foreach my $line (split /\n/, $text)
	{
		if ($line =~ /^(\w+)\s*=\s*(.*)$/) { $set{$1} = $2; next; }
		my ($time, $rest) = $line =~ /^((?:[\d*,\/-]+\s+){5})(.*)$/ or die "cron would not take: $line";
		my ($command, $input) = split /(?<!\\)%/, $rest, 2;

		push @jobs, { time => $time, command => $command =~ s/\\%/%/gr, input => $input };
	}
	return (\%set, @jobs);
}

# The day after: the name of the report is open again.
sub open_report
{
	$node->safe_psql('app', q{SELECT lease.force_release('report/nightly', 'the next day', reopen => true)});
	return;
}

sub check_crontab
{
	my ($home) = @_;
	my $dir = make_programs('nightly-report');
	my ($block, $another) = blocks('cron');
	my ($set, $job, @more) = crontab(localize($block->[2], $dir));
	my $env = { %{ bare_environment($home, '/usr/bin:/bin') }, %$set };
	my $day = POSIX::strftime('%F', localtime);
	my $run = sub { return join ', ', run_in($env, '/bin/sh', '-c', $job->{command}) };

	ok(!$another && !@more && !defined $job->{input}, 'there is one line for cron, and cron does not cut it');
	is($run->(), '0, , ', 'cron: the job runs, and cron has nothing to mail');
	like(slurp_file("$dir/calls"),
		qr/\Anightly-report (?:$day|@{[POSIX::strftime('%F', localtime)]}) report\/nightly \d+\n\z/,
		'cron: the report is told the day, the name and the token');
	is($run->(), '124, , ', 'cron: the second host does not, and cron has nothing to mail');
	is(times_in($dir, 'nightly-report'), 1, 'cron: the report is made once');

	# The day after it fails.
	open_report();
	write_file("$dir/status", "3\n");
	is($run->(), '3, , ', 'cron: a report that fails is seen to');
	is($run->(), '124, , ', 'cron: and not made again');
	open_report();
	return;
}

#
# systemd
#

# The settings of a unit.
sub unit
{
	my ($name, $dir) = @_;
	my ($section, %unit) = ('');

	foreach my $line (split /\n/, localize(file_block("/etc/systemd/system/$name"), $dir))
	{
		next if $line =~ /^(?:#.*)?$/;
		if ($line =~ /^\[(\w+)\]$/) { $section = $1; next; }
		my ($key, $value) = $line =~ /^(\w+)=(.+)$/ or die "$name: systemd would not take: $line";
		die "$name: $key is there twice" if exists $unit{$section}{$key};
		$unit{$section}{$key} = $value;
	}
	return { name => $name, %{ $unit{Service} // {} }, timer => $unit{Timer} };
}

# Start a service: no shell, and an environment of systemd's.
sub start_service
{
	my ($unit, $home) = @_;
	my %set = map { split /=/, $_, 2 } split ' ', $unit->{Environment};
	my $env = bare_environment($home, '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin');
	my $out = PostgreSQL::Test::Utils::tempdir() . '/out';

	die "$unit->{name}: a variable, a specifier or a quote" if $unit->{ExecStart} =~ /[\$%"'\\;@]/;
	append_to_file($out, '');
	my $pid = fork // die 'could not fork';
	if ($pid == 0)
	{
		POSIX::setsid();
		%ENV = (%$env, USER => $unit->{User}, %set);
		chdir '/';
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', $out;
		open STDERR, '>>', $out;
		exec { (split ' ', $unit->{ExecStart})[0] } split ' ', $unit->{ExecStart} or POSIX::_exit(203);
	}
	return { pid => $pid, out => $out };
}

# Wait until a service ends; returns its status as systemd tells it: a signal has a name there.
sub await_service
{
	my ($service) = @_;
	my $timeout = 10 * $PostgreSQL::Test::Utils::timeout_default;

	while (waitpid($service->{pid}, POSIX::WNOHANG()) == 0)
	{
		die 'the service does not end' if $timeout-- == 0;
		select undef, undef, undef, 0.1;
	}
	return $? & 127 ? 'SIG' . ($? & 127) : $? >> 8;
}

# Stop it as KillMode=mixed has it: the main process is told, the others are not.
sub stop_service
{
	my ($unit, $service) = @_;

	is($unit->{KillMode}, 'mixed', "$unit->{name}: only leasectl is told to stop");
	kill 'TERM', $service->{pid};
	return await_service($service);
}

# What systemd makes of a status: a failure?  And is the service started again?
sub is_clean
{
	my ($unit, $status) = @_;
	return scalar grep { $_ eq $status } qw(0 SIG1 SIG2 SIG13 SIG15), split ' ', $unit->{SuccessExitStatus} // '';
}

sub is_restarted
{
	my ($unit, $status) = @_;
	my $restart = $unit->{Restart} // 'no';

	return 0 if grep { $_ eq $status } split ' ', $unit->{RestartPreventExitStatus} // '';
	return $restart eq 'always' || $restart eq 'on-failure' && !is_clean($unit, $status) ? 1 : 0;
}

# Wait for a relay to be at work, or for its leasectl to be in the queue.
sub await_call { my ($dir, $times) = @_; return wait_for('the relay', sub { times_in($dir, 'relay ') >= $times }); }

sub await_waiter
{
	return wait_for('a waiter', sub { $node->safe_psql('app', 'SELECT count(*) FROM lease.waiters') eq '1' });
}

# A stop is no failure, whatever it finds: a relay that leaves when it is told, one that has no
# handler for that, and none since another host leads.
sub check_stop
{
	my ($unit, $dir, $home) = @_;
	my ($service, $token);

	append_to_file("$dir/stays", '');
	$service = start_service($unit, $home);
	await_call($dir, 1);
	is(names_held($node, db => 'app'), 'relay', 'relay: who runs it leads');
	is(stop_service($unit, $service), 0, 'relay: it may leave by itself');
	is(times_in($dir, 'stopped'), 1, 'relay: it is told to stop');
	is(names_held($node, db => 'app'), '', 'relay: another host can lead at once');

	append_to_file("$dir/deaf", '');
	$service = start_service($unit, $home);
	await_call($dir, 2);
	ok(is_clean($unit, stop_service($unit, $service)), 'relay: it may have no handler');
	is(names_held($node, db => 'app'), '', 'relay: then, too, another host can lead');

	$token = acquire($node, 'relay', db => 'app');
	$service = start_service($unit, $home);
	await_waiter();
	ok(is_clean($unit, stop_service($unit, $service)), 'relay: a host that does not lead can stop');
	is(times_in($dir, 'relay '), 2, 'relay: and has not run it');
	release($node, 'relay', $token, db => 'app');
	unlink "$dir/stays", "$dir/deaf";
	return;
}

# A relay that ends is started again by leasectl; a leasectl that ends is by systemd, unless it
# would not help.
sub check_restart
{
	my ($unit, $dir, $home) = @_;
	my $ends = sub {
		my ($status, $restarts, $why) = @_;
		my $service = start_service($unit, $home);
		my $ended = await_service($service);

		is($ended, $status, "relay, $why: status $status") or diag(slurp_file($service->{out}));
		is(is_restarted($unit, $ended), $restarts, "relay, $why: systemd " . ($restarts ? 'starts it again' : 'lets it be'));
		ok(!is_clean($unit, $ended), "relay, $why: it is a failure");
	};

	write_file("$dir/calls", '');
	my $service = start_service($unit, $home);
	await_call($dir, 2);
	ok(is_clean($unit, stop_service($unit, $service)), 'relay: when it ends it is started again');

	$node->safe_psql('app', q{SELECT lease.disallow('batch')});
	$ends->(121, 1, 'no privilege');
	$node->safe_psql('app', q{SELECT lease.allow('batch')});
	chmod 0644, "$dir/relay";
	$ends->(126, 0, 'not executable');
	unlink "$dir/relay";
	$ends->(127, 0, 'not there');
	$unit->{ExecStart} =~ s/--ttl 30s/--ttl soon/;
	$ends->(125, 0, 'a mistake in the unit');
	is(is_restarted($unit, 'SIG9'), 1, 'relay: leasectl was killed, and is started again');
	return;
}

# Two hosts and a timer.
sub check_report
{
	my ($unit, $timer, $dir, $home) = @_;
	my $run = sub { return await_service(start_service($unit, $home)) };
	my @times = $timer->{timer}{OnCalendar} =~ /^\*-\*-\* 02:(\d+),(\d+),(\d+):00$/;
	my ($hold) = $unit->{ExecStart} =~ /--min-hold 1h /;

	is($timer->{name}, $unit->{name} =~ s/service$/timer/r, 'report: the timer is its own');
	ok($hold && @times == 3 && $times[2] < 60, 'report: the name stays closed for longer than it is tried');
	is($run->(), 0, 'report: it is made');
	my $second = $run->();
	is($second, 124, 'report: the other host, or the next try, finds it taken');
	ok(is_clean($unit, $second), 'report: which is no failure');
	is(times_in($dir, 'nightly-report +report/nightly'), 1, 'report: it is made once');

	open_report();
	write_file("$dir/status", "3\n");
	my $failed = $run->();
	is($failed, 3, 'report: its own status is the unit\'s');
	ok(!is_clean($unit, $failed) && !is_restarted($unit, $failed), 'report: it stays failed');
	is($run->(), 124, 'report: for who would start it again it is taken');

	open_report();
	append_to_file("$dir/$_", '') foreach qw(stays deaf);
	my $service = start_service($unit, $home);
	wait_for('the report', sub { times_in($dir, 'nightly-report') == 3 });
	is(stop_service($unit, $service), 143, 'report: it can be stopped');
	ok(!is_clean($unit, 143) && !is_clean($unit, 122) && !is_clean($unit, 123), 'report: half a report is a failure');
	return;
}

# What systemd itself says to the units.
sub verify_units
{
	my ($dir, @units) = @_;

  SKIP:
	{
		skip 'there is no systemd-analyze', 1 unless is_there('systemd-analyze');
		write_file("$dir/$_", localize(file_block("/etc/systemd/system/$_"), $dir)) foreach @units;
		my ($status, $out, $err) = run_in(\%ENV, 'systemd-analyze', 'verify', map { "$dir/$_" } @units);
		skip 'systemd-analyze does not run here', 1 if $err =~ m{^Failed to create directory '/run/systemd};
		is("$status, $out, $err", '0, , ', 'systemd-analyze finds nothing wrong with the units');
	}
	return;
}

sub check_units
{
	my ($home) = @_;
	my @names = file_names();
	my $dir = make_programs('relay', 'nightly-report');
	my ($report, $timer, $relay) = map { unit($_, $dir) } @names;

	is(words(@names), 'nightly-report.service nightly-report.timer relay.service', 'there are three units');
	verify_units($dir, @names);
	check_stop($relay, $dir, $home);
	check_restart($relay, $dir, $home);
	check_report($report, $timer, $dir, $home);
	return;
}

sub file_names { return sort map { $_->[2] =~ m{\A# /etc/systemd/system/(\S+)\n} ? $1 : () } blocks('ini') }

#
# All of it
#
die 'there is no leasectl in PATH' unless $leasectl;
check_manual_page();
check_names();
check_verb($_) foreach completed('');
check_completion();
check_completion_of_commands();

$node = PostgreSQL::Test::Cluster->new('manual');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE DATABASE app');
my $home = make_home();
check_guide(environment_of_user($home));
check_crontab($home);
check_units($home);
$node->stop;
done_testing();
