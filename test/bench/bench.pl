# bench.pl - measure the extension beside other programs, in one run
#
#	perl bench.pl --dir DIR --conf FILE --library DIR --clients DIR
#	              [--seconds S] [--turns T] [--seed N] [--alive N,N,N] [--jobs NAME,...]
#	              [--idle S] [--no-warm-up] [--document FILE --results DIR]
#
# Makes DIR, and all servers below it.  FILE has the settings that let a PostgreSQL server
# find the extension; the library directory has bench_nothing.so, that of the clients
# the peers' clients, as far as they could be built.  Each contender of a job runs S
# seconds in each of T turns, in an order that the seed shuffles.  With --results, the
# document with its results renewed and the picture go there; the report goes to stdout anyway.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Alive;
use Contenders;
use Figures;
use Getopt::Long;
use Jobs;
use Machine;
use Picture;
use Report;
use Servers;

my %option = (seconds => 1, turns => 9, seed => $$, alive => '1000,100000,1000000', idle => 10, 'warm-up' => 1);
my (%absent, %took_part, %figures, @measured, @specials);

sub read_options
{
	GetOptions(\%option, 'dir=s', 'conf=s', 'library=s', 'clients=s', 'seconds=f', 'turns=i', 'seed=i', 'alive=s',
		'jobs=s', 'idle=f', 'warm-up!', 'document=s', 'results=s') && !@ARGV
	  or die "see the head of $0\n";
	foreach my $needed (qw(dir conf library clients))
	{
		die "--$needed is missing\n" unless defined $option{$needed};
	}
	die "--seconds and --turns must be above 0\n" unless $option{seconds} > 0 && $option{turns} > 0;
	return;
}

sub is_wanted
{
	my ($name) = @_;
	return !defined $option{jobs} || grep { $_ eq $name } split /,/, $option{jobs};
}

# One contender, once; what is left over of the one before is done first.
sub one_run
{
	my ($job, $contender, $size, $turn) = @_;

	settle($_) foreach grep { is_postgres($_) } running();
	my $it = compete($job, $contender, $size, $option{seconds});
	printf "%s, %s, %s: %s %s/s\n", $job->{title}, clients($size), $turn, $contender->{name}, grouped($it->{rate});
	return $it;
}

# A job at all its sizes, in turns.  The warm-up does not count.
sub measure
{
	my ($job) = @_;
	my @present = grep { can_compete($_) } @{ $job->{contenders} };
	my $into = $figures{ $job->{name} } = {};

	$absent{ $_->{name} } = 1 foreach grep { !can_compete($_) } @{ $job->{contenders} };
	$took_part{ $_->{program} } = $_->{server} foreach grep { $_->{program} } @present;
	push @measured, $job;
	only(map { $_->{server} } @present);
	one_run($job, $_, $job->{sizes}[-1], 'warm-up') foreach $option{'warm-up'} ? @present : ();
	foreach my $size (@{ $job->{sizes} })
	{
		foreach my $turn (1 .. $option{turns})
		{
			push @{ $into->{$size}{ $_->{name} } }, one_run($job, $_, $size, "turn $turn of $option{turns}")
			  foreach shuffled(@present);
		}
	}
	return;
}

# What needs servers of its own, with many leases alive.
sub measure_alive
{
	my @alive = split /,/, $option{alive};
	my ($middle, $most) = @alive[ $#alive / 2, -1 ];

	return unless grep { is_wanted($_) } qw(many start idle);
	only();
	print "Making servers with $option{alive} leases ...\n";
	make_alive(@alive);
	push @specials, measure_start("alive-$most", $most) if is_wanted('start');
	if (is_wanted('many'))
	{
		measure($_) foreach alive_jobs(@alive);
	}
	push @specials, measure_idle("alive-$middle", $middle, $option{idle}) if is_wanted('idle');
	return;
}

sub write_results
{
	my ($name, $text) = @_;
	open my $out, '>', "$option{results}/$name" or die "could not write $name: $!\n";
	print $out $text;
	close $out or die "could not write $name: $!\n";
	return;
}

sub write_all
{
	my ($machine) = @_;
	my $how = sprintf 'Medians of %d turns of %s s each, in an order shuffled by --seed %d.', @option{qw(turns seconds seed)};
	my $report = report(
		how => $how, machine => $machine, absent => [ sort keys %absent ], jobs => \@measured,
		figures => \%figures, specials => \@specials);

	print "\n$report";
	if (defined $option{results})
	{
		write_results('benchmarks.md', into_document(read_file($option{document}), $report));
		write_results('benchmarks.svg', picture(\@measured, \%figures));
	}
	return;
}

read_options();
$| = 1;
$SIG{$_} = sub { exit 1 } foreach qw(INT TERM HUP);
srand($option{seed});
mkdir $option{dir} or die "could not make $option{dir}: $!\n";
open_servers(%option);
open_contenders(%option);
make_postgres('postgres');
my @machine = machine($option{dir}, 'postgres');
foreach my $job (grep { is_wanted($_->{name}) } jobs())
{
	measure($job);
}
measure_alive();
write_all([ @machine, map { [ $_, version_of($took_part{$_}) ] } sort keys %took_part ]);
