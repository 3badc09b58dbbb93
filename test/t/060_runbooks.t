# doc/runbooks.md does what it says: each of its sections is played as its drill
# (make drill) makes it, and mended with the section's own commands, in the order
# in which they stand there.
#
# The drill must not be content before that, nor if somebody does harm on the way;
# afterwards it must be.  What a text block says that one sees is seen: "…" stands
# for whatever varies.  A block that begins with "-- server X" (or "# server X")
# is that server's, else the primary's; one that is to fail says "-- ERROR 12345".

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $document = "$FindBin::RealBin/../../doc/runbooks.md";
my $program = "$FindBin::RealBin/../drill/drill.pl";
my $can_fake_time = qx{faketime -f +0 printenv LD_PRELOAD 2>/dev/null} ne '';
my ($to_run, $have_run) = (0, 0);

# The sections that have commands: title => [line, language, text] of each block.
sub sections
{
	my $text = slurp_file($document);
	my (%blocks, @titles);

	while ($text =~ /^## (?<title>[^\n]*)|^```(?<language>\w+)\n(?<text>.*?)^```$/msg)
	{
		push @titles, $+{title} if defined $+{title};
		push @{ $blocks{ $titles[-1] } }, [ 1 + (substr($text, 0, $-[0]) =~ tr/\n//), $+{language}, $+{text} ]
		  if defined $+{language};
	}
	return map { +{ title => $_, blocks => $blocks{$_} } } grep { $blocks{$_} } @titles;
}

#
# A drill: what it says, and how one tells it to look
#
sub start_drill
{
	my ($title) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short() . '/drill';
	my $drill = { dir => $dir, in => '', out => '', err => '' };

	$drill->{timeout} = IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default);
	$drill->{run} = IPC::Run::start([ $^X, $program, $dir, $ENV{TEMP_CONFIG}, $title ],
		'<', \$drill->{in}, '>', \$drill->{out}, '2>', \$drill->{err}, $drill->{timeout});
	pump_until($drill->{run}, $drill->{timeout}, \$drill->{out}, qr/Press Enter/)
	  or die "the drill did not start: $drill->{out}$drill->{err}";
	$drill->{said} = $drill->{out};
	like($drill->{said}, qr/"\Q$title\E"/, "$title: the drill says which section to open");
	return $drill;
}

# What it says to a line from whoever plays.
sub answer
{
	my ($drill, $line) = @_;

	$drill->{out} = '';
	$drill->{in} .= "$line\n";
	pump_until($drill->{run}, $drill->{timeout}, \$drill->{out}, qr/Press Enter|mended\n\z/)
	  or die "the drill did not answer: $drill->{out}$drill->{err}";
	return $drill->{out};
}

sub is_mended { return answer($_[0], '') =~ /^mended$/m }

# It ends, with all that it had started.
sub finish_drill
{
	my ($drill, $what, $status) = @_;

	$drill->{run}->finish;
	is($drill->{run}->result || 0, $status, "$what: the drill exits with $status");
	is(join(' ', glob "$drill->{dir}/*/data/postmaster.pid"), '', "$what: no server is left running");
	return;
}

#
# The commands of a section, as they stand
#
sub run_on
{
	my ($drill, $server, @command) = @_;
	my ($said, $typed) = map { "$drill->{dir}/$_" } qw(said typed);
	my ($seen) = $drill->{said} =~ /smaller than (\d+)/;

	# For a \prompt.  Files, so that nobody waits for us.
	append_to_file($typed, ($seen // '') . "\n") unless -e $typed;
	my $run = IPC::Run::start([ "$drill->{dir}/bin/on", $server, @command ],
		'<', $typed, '>', $said, '2>&1', $drill->{timeout});
	$run->finish;
	$drill->{status} = $run->result || 0;
	$said = slurp_file($said) =~ s/^psql:\S+:\d+: //mgr;
	$drill->{said} .= $said;
	return $said;
}

# SQL blocks of one server, in one session.
sub run_sql
{
	my ($drill, $server, @blocks) = @_;
	my $script = PostgreSQL::Test::Utils::tempdir() . '/script';
	my $said;

	append_to_file($script, join '', map {
		"\\set LAST_ERROR_SQLSTATE 00000\n$_->[2]\n\\echo block $_->[0]: :LAST_ERROR_SQLSTATE\n" } @blocks);
	$said = run_on($drill, $server, 'psql', '-X', '-f', $script);
	note($said);
	unlike($said, qr/^(?:error|no rows returned|more than one row|invalid|unterminated|\\\w+: )/m,
		"runbooks.md from line $blocks[0][0] on: psql has nothing to complain of");
	foreach my $block (@blocks)
	{
		my $state = $block->[2] =~ /^-- ERROR (\w{5})/m ? $1 : '00000';

		like($said, qr/^block $block->[0]: $state$/m, "runbooks.md line $block->[0]: it goes as it says");
		$have_run++;
	}
	return;
}

sub run_shell
{
	my ($drill, $server, $block) = @_;
	my $said = run_on($drill, $server, 'bash', '-e', '-c', $block->[2]);

	is($drill->{status}, 0, "runbooks.md line $block->[0]: it goes as it says") or diag($said);
	$have_run++;
	return;
}

sub run_blocks
{
	my ($drill, @blocks) = @_;
	my (@sql, $server);
	my $run = sub { run_sql($drill, $server, splice @sql) if @sql };

	foreach my $block (@blocks)
	{
		my ($of) = $block->[2] =~ /\A(?:--|#) server (\w+)/;

		$of //= 'primary';
		$run->() if $block->[1] ne 'sql' || $of ne ($server // $of);
		$server = $of;
		push @sql, $block if $block->[1] eq 'sql';
		run_shell($drill, $server, $block) if $block->[1] eq 'sh';
	}
	$run->();
	return;
}

# What was said to anybody, and logged by any server, has what a block shows.
sub is_seen
{
	my ($drill, $block) = @_;
	my ($all, @missing);

	foreach my $line (split /\n/, $block->[2])
	{
		my $pattern = join '.*', map { s/\s+/ /gr =~ s/([^\w ])/\\$1/gr } split /…/, $line;
		my $found = wait_for("runbooks.md line $block->[0]: \"$line\" to be seen", sub {
			$all = join "\n", $drill->{said}, map { slurp_file($_) } glob "$drill->{dir}/*/server.log";
			return ($all =~ s/[ \t]+/ /gr) =~ /$pattern/ });
		push @missing, $line unless $found;
	}
	is(join("\n", @missing), '', "runbooks.md line $block->[0]: it is seen");
	return;
}

sub play
{
	my ($section) = @_;
	my ($title, @blocks) = ($section->{title}, @{ $section->{blocks} });
	my $drill = start_drill($title);

	ok(!is_mended($drill), "$title: with nothing done it is not mended");
	run_blocks($drill, grep { $_->[1] ne 'text' } @blocks);
	is_seen($drill, $_) foreach grep { $_->[1] eq 'text' } @blocks;

	# Who waits is served by now, and may be about to say so.
	ok(wait_for("$title: to be mended", sub { is_mended($drill) }), "$title: the runbook mends it");
	finish_drill($drill, $title, 0);
	return;
}

# Somebody mends it at others' cost, or makes it worse: the drill tells.
sub play_wrong
{
	my ($title, $complaint, $server, @command) = @_;
	my $drill = start_drill($title);

	run_on($drill, $server, @command);
	is($drill->{status}, 0, "$title: the wrong way can be gone");
	wait_for("$title: a verdict", sub { answer($drill, '') =~ /$complaint|^mended$/m });
	like($drill->{out}, qr/^not mended yet:$/m, "$title, the wrong way: it is not mended");
	like($drill->{out}, $complaint, "$title, the wrong way: the drill says why");
	like(answer($drill, 'q'), qr/^given up, not mended$/m, "$title, the wrong way: one can give up");
	finish_drill($drill, "$title, the wrong way", 1);
	return;
}

my @sections = sections();
my ($list) = run_command([ $^X, $program ]);
is(join(', ', map { lc $_->{title} } @sections), join(', ', $list =~ /^ {4}(?!make)(.*)$/mg),
	'each section that has commands has a drill');
my %anchors = map { (lc =~ s/ /-/gr) => 1 } slurp_file($document) =~ /^## (.*)$/mg;
is(join(' ', grep { !$anchors{$_} } slurp_file($document) =~ /\]\(#(.*?)\)/g), '', 'links lead to sections');
my @command = run_command([ $^X, $program, 'nowhere', 'none', 'no such' ]);
like($command[1], qr/no runbook "no such"/, 'another title is refused');

foreach my $section (@sections)
{
  SKIP:
	{
		skip 'there is no faketime', 1 if $section->{title} eq 'Clock trouble' && !$can_fake_time;
		$to_run += grep { $_->[1] ne 'text' } @{ $section->{blocks} };
		play($section);
	}
}
is($have_run, $to_run, 'every command was run');

my @all = ('psql', '-X', '-c', q{SELECT lease.force_release(name, 'all of them', token) FROM lease.leases});
play_wrong('Lease stuck', qr/host-1 does not hold import\/stock with token \d+ any more/, 'primary', @all);
play_wrong('Table full', qr/host-1 does not hold billing\/42 with token \d+ any more/, 'primary', @all);
play_wrong('Holder unreachable', qr/it may still act/, 'primary', @all);
play_wrong('Suspected double holder', qr/host-4 does not hold ledger\/close with token/, 'primary', @all);
play_wrong('Clock trouble', qr/payment\/8d3f may be made again/, 'primary', 'set_clock') if $can_fake_time;
play_wrong('Fail-over', qr/the old primary runs/, 'standby', 'bash', '-c',
	q{psql -Xqc 'SELECT pg_promote()' && on primary pg_ctl start -s -w -l /dev/null});

done_testing();
