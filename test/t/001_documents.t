# Every SQL block of README.md and doc/*.md runs as it stands, in the order of
# its file, in a database of its own; a block that is to fail says so in a line
# "-- ERROR 12345".  One session a document, as its reader would have, so that
# variables carry over; a block that begins with "-- client X" runs in a session
# of that client's.  Every sh block that calls psql or leasectl runs, too; every "make"
# command that they show is a goal of the Makefile.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use LeaseTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = $ENV{TESTDIR} // "$FindBin::RealBin/../..";

# The fenced blocks of a document, in some language: [line, language, text] each.
sub blocks
{
	my ($file, $language) = @_;
	my $text = slurp_file($file);
	my @found;

	while ($text =~ /^```($language)\n(.*?)^```$/msg)
	{
		push @found, [ 1 + (substr($text, 0, $-[2]) =~ tr/\n//), $1, $2 ];
	}
	return @found;
}

my @documents = ("$top/README.md", sort glob "$top/doc/*.md");
my $makefile = slurp_file("$top/Makefile");
my $node = PostgreSQL::Test::Cluster->new('documents');
my $count = 0;

# Run a SQL block in the session that it names; returns what is wrong with it.
sub run_sql
{
	my ($db, $sessions, $sql) = @_;
	my ($client) = $sql =~ /\A-- client (\w+)/;
	my ($expected) = $sql =~ /^-- ERROR (\w{5})/m;
	my $session = $sessions->{ $client // '' } //= $node->background_psql($db, on_error_stop => 0);
	my ($state, $err);

	$session->{stderr} = '';
	$session->query("\\set LAST_ERROR_SQLSTATE 00000\n$sql");
	$err = $session->{stderr};
	return $err =~ /ERROR:/ ? $err : '' unless $expected;
	$state = $session->query('\echo :LAST_ERROR_SQLSTATE');
	return $state eq $expected ? '' : "SQLSTATE $state instead of $expected: $err";
}

# Run a shell block in a directory of its own.
sub run_shell
{
	my ($db, $script) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();

	local $ENV{PGDATABASE} = $db;
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	append_to_file("$dir/script", "set -e\ncd $dir\n$script");
	return system('bash', "$dir/script") == 0 ? '' : "status $?";
}

$node->init;
$node->start;
foreach my $document (@documents)
{
	my ($name) = $document =~ m{([^/]+)\.md$};
	my @blocks = grep { $_->[1] eq 'sql' || $_->[2] =~ /\b(?:psql|leasectl)\b/ } blocks($document, 'sql|sh');
	my $db = lc "doc_$name";
	my %sessions;

	foreach my $command (blocks($document, 'sh'))
	{
		while ($command->[2] =~ /\bmake (\w[\w-]*)/g)
		{
			like($makefile, qr/^(?:\w[\w-]* )*\Q$1\E\b[\w -]*:/m,
				"$name.md line $command->[0]: make $1 is a goal of the Makefile");
		}
	}
	# t/060_runbooks runs those, each in the trouble that it is for, t/083_leasectl_manual
	# those that need several terminals.
	next if !@blocks || $name =~ /^(?:runbooks|leasectl)$/;

	# Only a document that does not show it itself needs it done.
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION lease')
	  unless grep { $_->[2] =~ /CREATE EXTENSION/ } @blocks;

	foreach my $block (@blocks)
	{
		my ($line, $language, $text) = @$block;
		my $wrong = $language eq 'sql' ? run_sql($db, \%sessions, $text) : run_shell($db, $text);

		is($wrong, '', "$name.md line $line: it goes as it says");
		$count++;
	}
	$_->quit foreach values %sessions;
}
cmp_ok($count, '>', 5, 'there are blocks at all');

$node->stop;
done_testing();
