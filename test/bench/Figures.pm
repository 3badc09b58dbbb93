# Figures.pm - what is made of the figures that the runs gave
#
# Figures are kept as $figures->{job}{size}{contender}, a list with one entry a turn,
# each { rate, p50, p99 }: operations per second, and latencies in milliseconds, if there are any.
# What somebody did not do (a program that is not here) has no entry.

package Figures;

use strict;
use warnings;

use Exporter 'import';
use List::Util qw(max min);
use POSIX qw(ceil);

our @EXPORT = qw(median percentile shuffled summary ratio verdict grouped);

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	my $middle = $#sorted / 2;

	die "a median of nothing\n" unless @sorted;
	return ($sorted[$middle] + $sorted[ $middle + 0.5 ]) / 2;
}

# The least value that such a part of them does not exceed.
sub percentile
{
	my ($part, @values) = @_;
	my @sorted = sort { $a <=> $b } @values;

	die "a percentile of nothing\n" unless @sorted;
	return $sorted[ max(1, ceil($part * @sorted)) - 1 ];
}

# In an order that srand() decides.
sub shuffled
{
	my (@items) = @_;

	foreach my $last (reverse 1 .. $#items)
	{
		my $other = int rand($last + 1);
		@items[ $last, $other ] = @items[ $other, $last ];
	}
	return @items;
}

# Medians of some turns, and between what they were.
sub summary
{
	my (@turns) = @_;
	my %of = map { my $what = $_; $what => median(map { $_->{$what} } @turns) } keys %{ $turns[0] };
	my @rates = map { $_->{rate} } @turns;

	return { %of, least => min(@rates), most => max(@rates) };
}

# How many times as good ours is as theirs: more operations, or a shorter latency.
# Undefined if one of them has no figures.
sub ratio
{
	my ($compared, $by_contender) = @_;
	my ($ours, $theirs) = map { $by_contender->{ $compared->{$_} } } qw(ours theirs);
	my $figure = $compared->{figure} // 'rate';

	return undef unless $ours && $theirs;
	($ours, $theirs) = map { summary(@$_)->{$figure} } $ours, $theirs;
	return $figure eq 'rate' ? $ours / $theirs : $theirs / $ours;
}

# What is to be said of a ratio at a size; nothing where there is no target.  It counts
# as it is printed.
sub verdict
{
	my ($compared, $size, $ratio) = @_;
	my $at = $compared->{at};

	return '' unless defined $compared->{target} && defined $ratio;
	return '' if $at && !grep { $_ == $size } @$at;
	return sprintf('%.2f', $ratio) >= $compared->{target} ? 'reached' : 'short';
}

# 1234567 as 1,234,567; small numbers with the decimals that they need.
sub grouped
{
	my ($number) = @_;
	my $text = sprintf($number >= 100 ? '%.0f' : $number >= 10 ? '%.1f' : $number >= 1 ? '%.2f' : '%.3f', $number);

	1 while $text =~ s/^(\d+)(\d{3})/$1,$2/;
	return $text;
}

1;
