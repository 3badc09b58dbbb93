# Every SQL block of README.md and doc/*.md runs as it stands, in the order of
# its file, in a database of its own; a block that is to fail says so in a line
# "-- ERROR 12345".  Every "make" command that they show is a goal of the
# Makefile.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = $ENV{TESTDIR} // "$FindBin::RealBin/../..";

# The fenced blocks of a language in a document: [line, text] each.
sub blocks
{
	my ($file, $language) = @_;
	my $text = slurp_file($file);
	my @found;

	while ($text =~ /^```$language\n(.*?)^```$/msg)
	{
		push @found, [ 1 + (substr($text, 0, $-[1]) =~ tr/\n//), $1 ];
	}
	return @found;
}

my @documents = ("$top/README.md", sort glob "$top/doc/*.md");
my $makefile = slurp_file("$top/Makefile");
my $node = PostgreSQL::Test::Cluster->new('documents');
my $count = 0;

$node->init;
$node->start;
foreach my $document (@documents)
{
	my ($name) = $document =~ m{([^/]+)\.md$};
	my @blocks = blocks($document, 'sql');
	my $db = lc "doc_$name";
	my $script = "\\set ON_ERROR_STOP 1\n";

	foreach my $command (blocks($document, 'sh'))
	{
		while ($command->[1] =~ /\bmake (\w[\w-]*)/g)
		{
			like($makefile, qr/^(?:\w[\w-]* )*\Q$1\E\b[\w -]*:/m,
				"$name.md line $command->[0]: make $1 is a goal of the Makefile");
		}
	}
	next unless @blocks;

	# Only a document that does not show it itself needs it done.
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION lease')
	  unless grep { $_->[1] =~ /CREATE EXTENSION/ } @blocks;

	# One session a document, as its reader would have: variables carry over.
	foreach my $block (@blocks)
	{
		my ($line, $sql) = @$block;

		$count++;
		$script .= "\\echo line $line\n";
		$script .=
		  $sql =~ /^-- ERROR (\w{5})/m
		  ? "\\set ON_ERROR_STOP 0\n$sql\\echo got :SQLSTATE want $1\n\\set ON_ERROR_STOP 1\n"
		  : $sql;
	}
	my ($rc, $stdout, $stderr) = $node->psql($db, $script);
	is($rc, 0, "$name.md: every SQL block runs") or diag("$stdout\n$stderr");
	while ($stdout =~ /^got (\w+) want (\w+)$/mg)
	{
		is($1, $2, "$name.md: a block fails with SQLSTATE $2");
	}
}
cmp_ok($count, '>', 5, 'there are SQL blocks at all');

$node->stop;
done_testing();
