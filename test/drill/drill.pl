# drill.pl - plays a runbook: makes its trouble, and says whether it was mended
#
#	perl drill.pl                     what can be played
#	perl drill.pl DIR CONF RUNBOOK    play one
#
# Plays on scratch servers of its own below DIR, which it makes; CONF has the
# settings that let a server find the extension.  The trouble (Troubles.pm) is
# real, only the machine room is not.  Each line that it reads makes it look
# whether all is mended; "q", or the end of its input, gives up.  Exits with 0 only
# if it was mended.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Scene;
use Troubles;

my ($dir, $conf, $wanted) = @ARGV;
my @troubles = troubles();

sub show_list
{
	print "Choose a runbook of doc/runbooks.md to practise, as in\n\n",
	  "    make drill RUNBOOK=\"$troubles[0]{title}\"\n\n", map { "    $_->{title}\n" } @troubles;
	return;
}

# Who started us may be another user than we are, and so is who plays.
sub show_ways_in
{
	my ($title) = @_;
	my $on = ($ENV{DRILL_AS} // '') . make_way_in();

	print "Open doc/runbooks.md, \"\u$title\", and in another terminal\n\n",
	  (map { "    $on $_\n" } servers()),
	  "\nThat is a psql; with \"bash\" behind it, a shell for the commands that are not SQL.\n\n";
	return;
}

# Play until it is mended; false if somebody gives up before.
sub play
{
	my ($trouble) = @_;

	while (1)
	{
		print "Press Enter when it is mended; q and Enter gives up.\n";
		my $answer = <STDIN>;
		return 0 if !defined $answer || $answer =~ /^q/;
		my @wrong = eval { $trouble->{judge}->() };
		push @wrong, "a server does not answer: $@" if $@;
		return 1 unless @wrong;
		print "not mended yet:\n", map { "    - $_\n" } @wrong;
	}
}

$| = 1;
$SIG{PIPE} = 'IGNORE';
$SIG{$_} = sub { exit 1 } foreach qw(INT TERM HUP);

unless (@ARGV)
{
	show_list();
	exit 0;
}
my ($trouble) = grep { $_->{title} eq lc $wanted } @troubles;
die "There is no runbook \"$wanted\"; make drill lists them.\n" unless $trouble;
open_scene($dir, $conf);
print "Making trouble ...\n\n";
$trouble->{make}->();
settle();
show_ways_in($trouble->{title});
my $mended = play($trouble);
print $mended ? "mended\n" : "given up, not mended\n";
exit($mended ? 0 : 1);
