# tap.pl - run TAP tests and count them
#
#	perl tap.pl COUNTS perl|psql FILE...
#
# Appends one line "PASSED FAILED" to the file COUNTS.  A test file that died
# or kept no plan counts as a failure even if no single test in it failed.
# PostgreSQL::Test::Utils keeps logs of each test and of its servers; those of
# tests that failed are shown.

use strict;
use warnings;

use TAP::Harness;

my ($counts, $kind, @files) = @ARGV;
@files = sort @files;

my %exec = (
	perl => [ 'perl', '-w' ],
	psql => [ 'psql', '-X', '-qAt', '-v', 'ON_ERROR_STOP=1', '-f' ]);

my $harness = TAP::Harness->new(
	{
		exec => $exec{$kind},
		jobs => $kind eq 'psql' ? 1 : 2,
		timer => 1,
		merge => $kind eq 'psql',
		failures => 1
	});
my $result = $harness->runtests(@files);

my $passed = $result->passed;
my $failed = $result->failed;

sub show_logs
{
	my ($file) = @_;
	my ($name) = $file =~ m{([^/]+)\.t$} or return;

	foreach my $log (glob "tmp_check/log/regress_log_$name tmp_check/log/${name}_*.log")
	{
		next unless -e $log;
		print "\n--- $log\n";
		system 'tail', '-n', 50, $log;
	}
}

$| = 1;
foreach my $file (@files)
{
	my ($parser) = $result->parsers($file);
	next unless $parser->has_problems;
	$failed++ unless $parser->failed;
	show_logs($file);
}

open my $out, '>>', $counts or die "could not open $counts: $!\n";
print $out "$passed $failed\n";
close $out or die "could not write $counts: $!\n";
