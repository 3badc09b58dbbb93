# store.pl - a small store that keeps one file and checks fencing tokens
#
#	perl store.pl SOCKET FILE
#
# Stands for any storage that can compare tokens in the write itself.  Clients
# speak lines to it:
#
#	write TOKEN WRITER SEQ	begins a write; answered "go"
#	line TEXT		appended to the file as it arrives
#	end			flushes the file to disk; answered "ok"
#
# A line that comes with a smaller token than the largest seen is answered
# "refused LARGEST" and not written.  Nothing else keeps writers apart: two
# that write at the same time would be seen side by side in the file.  A write
# whose client goes away before its end is taken back if nothing follows it.
#
# Tells the demo what happens by lines on its standard output.

use strict;
use warnings;

use IO::Handle;
use IO::Select;
use IO::Socket::UNIX;

my ($socket, $path) = @ARGV;

my $largest = 0;
my %client;    # by handle: buffer, and the write it is in
my $stop = 0;

$SIG{TERM} = sub { $stop = 1 };
$SIG{PIPE} = 'IGNORE';

open my $file, '+>', $path or die "could not open $path: $!\n";
$file->autoflush;
my $listener = IO::Socket::UNIX->new(Local => $socket, Listen => 16)
  or die "could not listen on $socket: $!\n";
my $select = IO::Select->new($listener);

sub event { syswrite STDOUT, "store @_\n" }

sub refuse
{
	my ($handle, $write) = @_;
	event('refused', @$write{qw(token writer seq)}, $largest);
	syswrite $handle, "refused $largest\n";
	$client{$handle}{write} = undef;
}

sub begin_write
{
	my ($handle, $token, $writer, $seq) = @_;
	my $write = { token => $token, writer => $writer, seq => $seq };

	return refuse($handle, $write) if $token < $largest;
	$largest = $token;
	$write->{start} = tell $file;
	$client{$handle}{write} = $write;
	print $file "begin $token $writer $seq\n";
	$write->{stop} = tell $file;
	syswrite $handle, "go\n";
}

sub append
{
	my ($handle, $write, $text) = @_;

	return refuse($handle, $write) if $write->{token} < $largest;
	print $file "$text\n";
	$write->{stop} = tell $file;
}

sub end_write
{
	my ($handle, $write) = @_;

	append($handle, $write, "end $write->{token} $write->{writer} $write->{seq}");
	return unless $client{$handle}{write};
	$file->sync or die "could not flush $path: $!\n";
	$client{$handle}{write} = undef;
	syswrite $handle, "ok\n";
}

sub obey
{
	my ($handle, $line) = @_;
	my ($verb, $rest) = split / /, $line, 2;
	my $write = $client{$handle}{write};

	return begin_write($handle, split / /, $rest) if $verb eq 'write';
	return unless $write;    # the rest of a write that was refused
	return append($handle, $write, $rest) if $verb eq 'line';
	return end_write($handle, $write);
}

# The client is gone: take back what it left unfinished.
sub forget
{
	my ($handle) = @_;
	my $write = delete($client{$handle})->{write};

	$select->remove($handle);
	close $handle;
	return unless $write && $write->{stop} == tell $file;
	truncate $file, $write->{start};
	seek $file, $write->{start}, 0;
	event('undid', @$write{qw(token writer seq)});
}

sub hear
{
	my ($handle) = @_;
	my $me = $client{$handle};

	return forget($handle) unless sysread $handle, $me->{buffer}, 4096, length $me->{buffer};
	obey($handle, $1) while $me->{buffer} =~ s/^(.*)\n//;
}

event('ready');
until ($stop)
{
	foreach my $handle ($select->can_read)
	{
		if ($handle != $listener)
		{
			hear($handle);
			next;
		}
		my $new = $listener->accept or next;
		$client{$new} = { buffer => '', write => undef };
		$select->add($new);
	}
}
close $file or die "could not close $path: $!\n";
