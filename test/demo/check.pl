# check.pl - does the store's file hold what it must
#
#	perl check.pl FILE JOURNAL
#
# JOURNAL holds what the demo heard while it ran: "wrote TOKEN WRITER SEQ" for
# each write that a client had confirmed, "refused TOKEN WRITER SEQ" for the one
# that came too late.  Prints one line for each check; exits non-zero when
# one fails.

use strict;
use warnings;

my ($path, $journal) = @ARGV;
my $failed = 0;

sub check
{
	my ($ok, $what, @why) = @_;
	printf "%s  %s\n", $ok ? 'ok    ' : 'FAILED', $what;
	print map { "        $_\n" } @why unless $ok;
	$failed = 1 unless $ok;
}

sub lines_of
{
	my ($file) = @_;
	open my $in, '<', $file or die "could not open $file: $!\n";
	chomp(my @lines = <$in>);
	return @lines;
}

# Read the file as a row of whole writes.  Whatever does not continue the
# write that was begun is stray: two writers side by side would make it so.
sub read_writes
{
	my (@writes, @stray);
	my $open;

	foreach my $line (lines_of($path))
	{
		if (!$open && $line =~ /^begin ((\d+) (\S+) (\d+))$/)
		{
			$open = { id => $1, token => $2, writer => $3, next => 1 };
		}
		elsif ($open && $line =~ /^\Q$open->{id}\E: line (\d+) of (\d+)$/
			&& $1 == $open->{next})
		{
			$open->{next}++;
			$open->{lines} = $2;
		}
		elsif ($open && $line eq "end $open->{id}" && $open->{next} == $open->{lines} + 1)
		{
			push @writes, $open;
			$open = undef;
		}
		else
		{
			push @stray, $line;
		}
	}
	push @stray, "begin $open->{id}" if $open;
	return (\@writes, \@stray);
}

my ($writes, $stray) = read_writes();
my (%confirmed, %late, %written, %writer_of);

foreach (lines_of($journal))
{
	$confirmed{$1} = 1 if /^wrote (.*)/;
	$late{$1} = 1 if /^refused (.*)/;
}
$written{ $_->{id} }++ foreach @$writes;

my @tokens = map { /^begin (\d+)/ } lines_of($path);
my @down = map { "$tokens[$_] follows $tokens[ $_ - 1 ]" }
  grep { $tokens[$_] < $tokens[ $_ - 1 ] } 1 .. $#tokens;
my @shared = grep { ($writer_of{ $_->{token} } //= $_->{writer}) ne $_->{writer} } @$writes;
my @missing = grep { !$written{$_} } sort keys %confirmed;
my @repeated = grep { $written{$_} > 1 } sort keys %written;
my @leaked = grep { $written{$_} } sort keys %late;

check(@$writes > 0, scalar(@$writes) . ' writes are in the file');
check(!@$stray, 'every one is whole, none is interleaved with another', @$stray);
check(!@down, 'tokens never go down', @down);
check(!@shared, 'no token has two writers', map { $_->{id} } @shared);
check(!@missing, scalar(keys %confirmed) . ' writes were confirmed, none is lost', @missing);
check(!@repeated, 'none is there twice', @repeated);
check(keys %late && !@leaked, "the frozen client's late write was refused", @leaked);
exit $failed;
