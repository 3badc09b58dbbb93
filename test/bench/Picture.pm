# Picture.pm - the ratios as one picture, in SVG
#
# For each job a group of bars: a row for each comparison, in it a bar for each size,
# from 1 to the ratio on a log scale, to the right where ours is better; a mark
# stands where the target is, if there is one for this size.  Readable on light and on dark ground.

package Picture;

use strict;
use warnings;

use Exporter 'import';
use Figures;
use List::Util qw(max min);

our @EXPORT = qw(picture);

my $width = 900;
my $left = 250;      # where the scale begins
my $right = 850;     # and where it ends; behind it is room for a figure
my $bar = 11;        # height of a bar, with the gap to the next
my ($low, $high) = (0.1, 100);    # a bar beyond that is cut off, its figure is not

my $style = <<'STYLE';
<style>
text { font: 12px sans-serif; fill: #57606a; }
.title { font-weight: bold; }
.small { font-size: 9px; }
.grid { stroke: #8b949e; stroke-opacity: 0.3; }
.one { stroke: #8b949e; }
.target { stroke: #cf222e; stroke-width: 2; }
.size0 { fill: #79b8ff; }
.size1 { fill: #2f81f7; }
.size2 { fill: #1158c7; }
@media (prefers-color-scheme: dark) { text { fill: #adbac7; } .target { stroke: #ff7b72; } }
</style>
STYLE

sub escaped
{
	my ($text) = @_;
	my %entity = ('&' => '&amp;', '<' => '&lt;', '>' => '&gt;', '"' => '&quot;');
	return $text =~ s/([&<>"])/$entity{$1}/gr;
}

# Where a ratio is on the scale.
sub place
{
	my ($ratio) = @_;
	my $part = log(max($low, min($high, $ratio)) / $low) / log($high / $low);
	return sprintf '%.1f', $left + $part * ($right - $left);
}

sub text
{
	my ($x, $y, $class, $text) = @_;
	return qq{<text x="$x" y="$y" class="$class">} . escaped($text) . "</text>\n";
}

sub line
{
	my ($x, $from, $to, $class) = @_;
	return qq{<line x1="$x" y1="$from" x2="$x" y2="$to" class="$class"/>\n};
}

# $it says what it is: comparison, its name, size, the number of that, and the ratio.
sub bar
{
	my ($y, $it) = @_;
	my ($pair, $ratio) = @$it{qw(pair ratio)};
	my $verdict = verdict($pair, $it->{size}, $ratio);
	my $said = sprintf('%s at %d: %.2f', @$it{qw(name size ratio)}) . ($verdict && " $verdict");
	my ($from, $to) = sort { $a <=> $b } place(1), place($ratio);
	my $mark = $verdict ? place($pair->{target}) : $to;

	return sprintf(qq{<rect x="%s" y="%s" width="%.1f" height="%s" class="size%d"><title>%s</title></rect>\n},
		$from, $y, $to - $from, $bar - 2, min($it->{number}, 2), escaped($said))
	  . ($verdict ? line($mark, $y - 1, $y + $bar - 1, 'target') : '')
	  . text(max($to, $mark) + 4, $y + $bar - 3, 'small', sprintf('%.2f', $ratio));
}

# A comparison's row: its bars, and how high it is.
sub row
{
	my ($y, $job, $pair, $figures) = @_;
	my $name = "$pair->{ours} / $pair->{theirs}" . ($pair->{figure} ? ", $pair->{figure}" : '');
	my $svg = '';
	my $to = $y;

	foreach my $number (0 .. $#{ $job->{sizes} })
	{
		my $size = $job->{sizes}[$number];
		my $ratio = ratio($pair, $figures->{$size}) // next;

		$svg .= bar($to, { pair => $pair, name => $name, size => $size, number => $number, ratio => $ratio });
		$to += $bar;
	}
	return ('', 0) if $to == $y;
	$svg .= text(20, $y + ($to - $y) / 2 + 4, 'name', $name);
	return ($svg, $to - $y + 6);
}

# A job's group; nothing, if it has no ratio.
sub group
{
	my ($y, $job, $figures) = @_;
	my $sizes = join ', ', @{ $job->{sizes} };
	my $svg = text(8, $y + 14, 'title', $job->{title} . " ($sizes clients)");
	my $to = $y + 24;

	foreach my $pair (@{ $job->{compare} })
	{
		my ($row, $height) = row($to, $job, $pair, $figures);
		$svg .= $row;
		$to += $height;
	}
	return $to == $y + 24 ? ('', 0) : ($svg, $to - $y + 4);
}

sub scale
{
	my ($from, $to) = @_;
	my $svg = '';

	for (my $ratio = $low; $ratio <= $high * 1.01; $ratio *= 10)
	{
		my $label = $ratio < 1 ? sprintf('%.1f', $ratio) : sprintf('%.0f', $ratio);
		$svg .= line(place($ratio), $from, $to, $label eq '1' ? 'one' : 'grid');
		$svg .= text(place($ratio) - 4, $from - 4, 'small', $label);
	}
	return $svg;
}

sub picture
{
	my ($jobs, $figures) = @_;
	my $top = 50;
	my ($groups, $to) = ('', $top + 6);

	foreach my $job (@$jobs)
	{
		my ($svg, $height) = group($to, $job, $figures->{ $job->{name} });
		$groups .= $svg;
		$to += $height;
	}
	my $height = $to + 10;
	return qq{<svg xmlns="http://www.w3.org/2000/svg" width="$width" height="$height" viewBox="0 0 $width $height">\n}
	  . "<title>How many times as good as others</title>\n"
	  . $style
	  . text(8, 20, 'title', 'How many times as good: operations per second, ours by theirs')
	  . text(8, 36, 'small', 'More clients, darker bar. To the right of 1 ours is better. The red mark is the target.')
	  . scale($top, $to) . $groups . "</svg>\n";
}

1;
