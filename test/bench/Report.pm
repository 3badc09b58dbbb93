# Report.pm - the figures as tables, in Markdown that can be read as it is

package Report;

use strict;
use warnings;

use Exporter 'import';
use Figures;
use List::Util qw(max);

our @EXPORT = qw(report job_report special_report clients table into_document);

my ($begin, $end) = ('<!-- results -->', '<!-- end of results -->');

# In characters; the texts are UTF-8.
sub width { return length($_[0] =~ tr/\x80-\xBF//dr) }

# Rows of texts, the first one being the head; columns as wide as they must be.
sub table
{
	my ($head, @rows) = @_;
	my @width = map { my $column = $_; max(map { width($_->[$column] // '') } $head, @rows) } 0 .. $#$head;
	my $cell = sub { my ($text, $column) = @_; $text . ' ' x ($width[$column] - width($text)) };
	my $line = sub { my ($row) = @_; '| ' . join(' | ', map { $cell->($row->[$_] // '', $_) } 0 .. $#$head) . " |\n" };

	return join '', $line->($head), '| ' . join(' | ', map { '---' } @$head) . " |\n", map { $line->($_) } @rows;
}

sub clients { return $_[0] == 1 ? '1 client' : "$_[0] clients" }

# One contender at one size: the median of the rates, how far turns differ, and the
# latencies if the job is about them.
sub cell
{
	my ($turns, $latencies) = @_;
	return '-' unless $turns;
	my $it = summary(@$turns);
	my ($rate, $least, $most, @latencies) = map { grouped($it->{$_}) } qw(rate least most), $latencies ? qw(p50 p99) : ();
	return "$rate ($least–$most)" . ($latencies ? ', ' . join(' / ', @latencies) : '');
}

sub compared
{
	my ($compared) = @_;
	return "$compared->{ours} / $compared->{theirs}" . ($compared->{figure} ? ", $compared->{figure}" : '');
}

sub target
{
	my ($compared) = @_;
	return '' unless defined $compared->{target};
	return sprintf('%.2f', $compared->{target}) . ($compared->{at} ? ' at ' . join(', ', @{ $compared->{at} }) : '');
}

# A job's two tables: what each did, and how many times as good ours is.
sub job_report
{
	my ($job, $figures) = @_;
	my @sizes = @{ $job->{sizes} };
	my @did = map {
		my $name = $_->{name};
		[ $name, map { cell($figures->{$_}{$name}, $job->{latencies}) } @sizes ];
	} @{ $job->{contenders} };
	my @ratios = map {
		my $pair = $_;
		[ compared($pair), target($pair), map { ratio_text($pair, $_, $figures->{$_}) } @sizes ];
	} @{ $job->{compare} };

	my $what = 'per second (turns)' . ($job->{latencies} ? ', p50 / p99 in ms' : '');

	return join "\n", "### $job->{title}\n", "$job->{text}\n", explained($job),
	  table([ $what, map { clients($_) } @sizes ], @did),
	  table([ 'times as good', 'to reach', map { clients($_) } @sizes ], @ratios);
}

# What the contenders do, if it is not said elsewhere.
sub explained
{
	my ($job) = @_;
	my @said = grep { $_->{text} } @{ $job->{contenders} };
	return @said ? join('', map { "- $_->{name}: $_->{text}\n" } @said) : ();
}

sub ratio_text
{
	my ($pair, $size, $by_contender) = @_;
	my $ratio = ratio($pair, $by_contender) // return '-';
	my $verdict = verdict($pair, $size, $ratio);
	return sprintf('%.2f', $ratio) . ($verdict && " $verdict");
}

# Figures that are no ratios, some with a bound.
sub special_report
{
	my ($special) = @_;
	my @rows = map {
		my $it = $_;
		my $bounded = defined $it->{most};
		[
			$it->{name}, sprintf('%.2f %s', @$it{qw(value unit)}), $bounded ? "$it->{most} $it->{unit}" : '',
			$bounded ? sprintf('%.2f', $it->{value}) <= $it->{most} ? 'reached' : 'short' : ''
		];
	} @{ $special->{rows} };

	return join "\n", "### $special->{title}\n", "$special->{text}\n",
	  table([ 'what', 'value', 'at most', '' ], @rows);
}

# All of it: %what has machine => pairs, how => a sentence, jobs, figures, specials, absent => names.
sub report
{
	my (%what) = @_;
	my @absent = @{ $what{absent} };

	return join "\n", "$what{how}\n", table([ 'what', 'on this machine' ], @{ $what{machine} }),
	  @absent ? 'Not here, so left out: ' . join(', ', @absent) . ".\n" : (),
	  (map { job_report($_, $what{figures}{ $_->{name} }) } @{ $what{jobs} }),
	  map { special_report($_) } @{ $what{specials} };
}

# The document with these results in the place of the former.
sub into_document
{
	my ($document, $results) = @_;
	$document =~ s/^\Q$begin\E\n.*?^\Q$end\E$/$begin\n\n$results\n$end/ms
	  or die "the document has no \"$begin\" and \"$end\"\n";
	return $document;
}

1;
