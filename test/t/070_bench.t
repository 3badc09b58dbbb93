# The benchmark in miniature: every job, at every size, of everybody who is here gives
# figures, and report and picture have them.  Nothing is said about how large they are.
#
# First its parts: medians, ratios and targets of figures that are made up, the order
# that the seed decides, and runs in which something fails, of which there are no figures.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin, "$FindBin::RealBin/../bench";
use Contenders;
use Figures;
use Jobs;
use LeaseTest;
use Picture;
use PostgreSQL::Test::Utils;
use Report;
use Servers;
use Test::More;

my $bench = "$FindBin::RealBin/../bench";
my $dir = PostgreSQL::Test::Utils::tempdir();

#
# Figures
#
sub turns { return [ map { { rate => $_, p50 => $_ / 10, p99 => $_ / 5 } } @_ ] }

is(median(5, 1, 3), 3, 'the median is the middle');
is(median(10, 1, 4, 2), 3, 'or between the two in the middle');
is(percentile(0.5, reverse 1 .. 100), 50, 'half of the values are not above p50');
is(percentile(0.99, 1 .. 100), 99, 'nor 99 of 100 above p99');
is(percentile(0.99, 7, 8), 8, 'of two values it is the larger');
is_deeply(
	summary(@{ turns(30, 10, 20) }),
	{ rate => 20, p50 => 2, p99 => 4, least => 10, most => 30 },
	'a summary has the medians, and how far turns differ');

my %by_contender = (lease => turns(90, 1000, 110), other => turns(50, 60, 40));
my $pair = { ours => 'lease', theirs => 'other', target => 2.2, at => [8] };
is(ratio($pair, \%by_contender), 2.2, 'a ratio of rates is ours by theirs, medians both');
is(ratio({ %$pair, figure => 'p99' }, \%by_contender), 10 / 22, 'of latencies it is theirs by ours');
is(ratio({ %$pair, theirs => 'absent' }, \%by_contender), undef, 'without figures there is none');
is(verdict($pair, 8, 2.2), 'reached', 'a target is reached');
is(verdict($pair, 8, 2.196), 'reached', 'as the ratio is printed');
is(verdict($pair, 8, 2.19), 'short', 'or it is not');
is(verdict($pair, 1, 9), '', 'it is for its sizes only');
is(verdict({ %$pair, target => undef }, 8, 9), '', 'if there is one at all');
is(join(' ', map { grouped($_) } 1234567.4, 999.6, 12.34, 1.234, 0.01234), '1,234,567 1,000 12.3 1.23 0.012',
	'numbers are printed with the digits that count');

sub orders
{
	my ($seed) = @_;
	srand($seed);
	return [ map { [ shuffled('a' .. 'f') ] } 1 .. 20 ];
}

my $orders = orders(7);
is_deeply(orders(7), $orders, 'a seed gives the same orders again');
isnt(join('', map { @$_ } @{ orders(8) }), join('', map { @$_ } @$orders), 'another one gives others');
cmp_ok(keys %{ { map { join('', @$_) => 1 } @$orders } }, '>', 10, 'each turn has an order of its own');
is_deeply([ grep { join('', sort @$_) ne 'abcdef' } @$orders ], [], 'in which everybody is once');

#
# Report and picture
#

# What is wrong with XML without declarations and comments; empty if nothing is.
sub xml_fault
{
	my ($xml) = @_;
	my @open;

	while ($xml =~ m{\G(?:[^<&>]+|&(?:amp|lt|gt|quot);|<(\w+)(?:\ [\w:-]+="[^"<&]*")*(/?)>|</(\w+)>)}gc)
	{
		push @open, $1 if defined $1 && !$2;
		return "</$3> closes nothing" if defined $3 && $3 ne (pop(@open) // '');
	}
	return 'at "' . substr($xml, pos($xml) // 0, 40) . '"' if (pos($xml) // 0) < length $xml;
	return @open ? "<@open> is open" : '';
}

my $made_up = {
	name => 'made-up', title => 'Made <up> & "quoted"', text => 'Nobody does it.', sizes => [ 1, 8 ],
	contenders => [ map { { name => $_ } } qw(lease other absent) ],
	compare => [ $pair, { %$pair, theirs => 'absent' } ]
};
my $figures = { 1 => \%by_contender, 8 => \%by_contender };
my $said = job_report($made_up, $figures);
like($said, qr/^\| lease +\| 110 \(90.0–1,000\) +\| 110 \(90.0–1,000\) +\|$/m, 'the report has medians and turns');
like($said, qr/^\| lease \/ other +\| 2.20 at 8 +\| 2.20 +\| 2.20 reached +\|$/m, 'ratios and targets');
like($said, qr/^\| lease \/ absent +\| 2.20 at 8 +\| - +\| - +\|$/m, 'and what there is not');

my $svg = picture([$made_up], { 'made-up' => $figures });
is(xml_fault($svg), '', 'the picture is well-formed XML');
is(scalar(() = $svg =~ /<rect /g), 2, 'it has a bar for each ratio');
like($svg, qr/<title>lease \/ other at 8: 2.20 reached</, 'which says what it stands for');

is(into_document("a\n<!-- results -->\nold\n<!-- end of results -->\nb\n", 'new'),
	"a\n<!-- results -->\n\nnew\n<!-- end of results -->\nb\n", 'results take the place of the former');
is(eval { into_document('without', 'new') }, undef, 'a document without a place for them is refused');

#
# Runs that fail.  A client is a program: here, a shell script.
#
sub client
{
	my ($name, $script) = @_;
	append_to_file("$dir/$name", "#!/bin/sh\n$script\n");
	chmod 0755, "$dir/$name";
	return eval { run_client("$dir/$name", '127.0.0.1:1', 'pair', 4, 0.1) } // $@;
}

my $answer = 'printf "operations 300\nseconds 1.500\np50 0.123\np99 0.456\n"';
open_contenders(dir => $dir, clients => $dir);
is_deeply(client('good', "test \"\$*\" = '--job pair --clients 4 --seconds 0.1 --threads 2 --address 127.0.0.1:1' && $answer"),
	{ rate => 200, p50 => 0.123, p99 => 0.456 }, "a client is told what to do, and what it tells is taken");
like(client('failing', "$answer; echo 'no server' >&2; exit 1"), qr/failed.*no server/s, 'a client that fails is an error');
like(client('warning', "$answer; echo 'a warning' >&2"), qr/failed.*a warning/s, 'and so is one that complains');
like(client('killed', "$answer; kill -9 \$\$"), qr/failed/, 'or is killed');
like(client('silent', 'true'), qr/no figures/, 'or says nothing');
like(client('idle', 'printf "operations 0\nseconds 1.500\np50 0.000\np99 0.000\n"'), qr/no figures/, 'or did nothing');

#
# All of it
#
my $config = $ENV{PG_CONFIG} // 'pg_config';
system_or_bail('make', '-s', '-C', $bench, 'with_llvm=no', "PG_CONFIG=$config");
mkdir "$dir/clients";
system_or_bail('make', '-s', '-C', "$bench/clients", "OUT=$dir/clients");
append_to_file("$dir/conf", slurp_file($ENV{TEMP_CONFIG}) . "fsync = off\n");
append_to_file("$dir/document.md", "# Benchmarks\n<!-- results -->\nold\n<!-- end of results -->\n");

my @scripts;
open_servers(dir => "$dir/own", conf => "$dir/conf", library => $bench);
mkdir "$dir/own";
make_postgres('failures');

sub script
{
	my ($sql) = @_;
	append_to_file("$dir/script" . @scripts, $sql);
	push @scripts, 1;
	return eval { run_script('failures', "$dir/script$#scripts", 2, 0.2) } // $@;
}

is(ref script('SELECT 1;'), 'HASH', 'a script gives figures');
like(script('SELECT 1/0;'), qr/failed.*division by zero/s, 'a statement that fails is an error of the run');
like(script("SELECT lease.release('none', 1);"), qr/failed.*WARNING/s, 'and so is one that warns');
like(script('SELECT FROM generate_series(1, 0) AS none \gset'), qr/failed.*expected one row/s, 'or returns nothing where something is asked for');

my @alive = (10, 100, 1000);
my ($out, $err) = run_command(
	[
		$^X, "$bench/bench.pl", '--dir', "$dir/all", '--conf', "$dir/conf", '--library', $bench, '--clients',
		"$dir/clients", '--seconds', 0.3, '--turns', 1, '--no-warm-up', '--seed', 42, '--alive', join(',', @alive),
		'--idle', 0.3, '--document', "$dir/document.md", '--results', $dir
	]);
is($err, '', 'the whole benchmark has no complaint');
my ($progress, $report) = $out =~ /\A(.*?)^(Medians of .*)\z/ms or die "no report: $out";
my @missing;

# What became of a job: each contender that is here ran at each size, and is in the report.
foreach my $job (jobs(), alive_jobs(@alive))
{
	my ($part) = $report =~ /^### \Q$job->{title}\E\n(.*?)(?=^### |\z)/ms or push @missing, $job->{title};

	foreach my $contender (@{ $job->{contenders} })
	{
		my $name = $contender->{name};
		my $is_here = is_here($contender->{server}) && (!$contender->{program} || -x "$dir/clients/$contender->{program}");
		my ($row) = ($part // '') =~ /^\| \Q$name\E +\|(.*)\|$/m or push @missing, "$job->{title}, $name";
		my $figures = () = ($row // '') =~ /[\d,.]+ \([\d,.]+–[\d,.]+\)/g;

		foreach my $size (@{ $job->{sizes} })
		{
			my $times = () = $progress =~ m{^\Q$job->{title}\E, $size clients?, turn 1 of 1: \Q$name\E [\d,.]+/s$}mg;
			push @missing, "$job->{title}, $size clients, $name ran $times times" if $times != ($is_here ? 1 : 0);
		}
		push @missing, "$job->{title}, $name: $row" if $figures != ($is_here ? @{ $job->{sizes} } : 0);
		like($report, qr/^Not here, so left out: .*\b\Q$name\E\b/m, "$name is said to be left out") unless $is_here;
	}
}
is_deeply(\@missing, [], 'each job ran once at each size with everybody, and the report has them');
like($report, qr/\bshuffled by --seed 42\./, 'it says how it can be repeated');
like($report, qr/^\| PostgreSQL +\| \d+.*fsync = off/m, 'what it ran on, and how that was set');
like($report, qr/^\| $_ +\| \d+\.\d\d (?:s|%) /m, "it has $_")
  foreach 'crashed just after a checkpoint', 'launcher', '20 waiters';
my $document = slurp_file("$dir/benchmarks.md");
like($document, qr/\A# Benchmarks\n<!-- results -->\n\nMedians of .*<!-- end of results -->\n\z/s, 'the document is renewed');
$svg = slurp_file("$dir/benchmarks.svg");
is(xml_fault($svg), '', 'and the picture is well-formed XML');
cmp_ok(scalar(() = $svg =~ /<rect /g), '>=', 30, 'with a bar for each ratio');
is_deeply([ grep { (readlink($_) // '') =~ m{^\Q$dir\E/all} } glob '/proc/[0-9]*/cwd' ], [], 'no server is left');

done_testing();
