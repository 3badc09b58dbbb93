# Machine.pm - on what was measured: [what, value] pairs, without the machine's name

package Machine;

use strict;
use warnings;

use Exporter 'import';
use Figures;
use POSIX ();
use Servers;
use Time::HiRes qw(time);

our @EXPORT = qw(machine);

sub first_line
{
	my ($file, $pattern) = @_;
	open my $in, '<', $file or return 'unknown';

	while (my $line = <$in>)
	{
		return $1 if $line =~ $pattern;
	}
	return 'unknown';
}

# How often a second 8 kB can be forced to disk, one after the other; dd writes each
# with O_DSYNC.
sub flushes
{
	my ($dir) = @_;
	my $file = "$dir/flushes";
	my @to = ('dd', 'if=/dev/zero', "of=$file", 'bs=8k', 'status=none');

	system(@to, 'count=500', 'conv=fsync') == 0 or die "could not write $file\n";
	my $began = time;
	system(@to, 'count=500', 'conv=notrunc', 'oflag=dsync') == 0 or die "could not write $file\n";
	my $took = time - $began;
	unlink $file;
	return grouped(500 / $took) . ' a second';
}

# What was set in the server, but for where its files are.
sub settings
{
	my ($server) = @_;
	return sql(
		$server, q{SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name)
		FROM pg_settings WHERE source = 'configuration file'
		  AND name !~ '^(lc_|log_|default_text|DateStyle|TimeZone|listen|port|unix|dynamic_library|extension_)'});
}

# Of the machine, and of the PostgreSQL server.
sub machine
{
	my ($dir, $postgres) = @_;
	my ($system, undef, $release, undef, $architecture) = POSIX::uname();
	my ($memory) = first_line('/proc/meminfo', qr/^MemTotal:\s+(\d+)/);
	chomp(my $cores = qx(nproc));
	chomp(my $file_system = qx(findmnt -n -o FSTYPE -T "$dir" 2>/dev/null) || 'unknown');

	return (
		[ 'CPU', first_line('/proc/cpuinfo', qr/^model name\s*:\s*(.*)/) . ", $cores cores" ],
		[ 'memory', sprintf('%.0f GB', $memory / 2**20) ],
		[ 'system', first_line('/etc/os-release', qr/^PRETTY_NAME="(.*)"/) . ", $system $release, $architecture" ],
		[ 'file system', $file_system ],
		[ '8 kB forced to disk', flushes($dir) ],
		[ 'PostgreSQL', version_of($postgres) . '; ' . settings($postgres) ],
		[ 'assertions', sql($postgres, 'SHOW debug_assertions') eq 'on' ? '**on**: not for measuring' : 'off' ]);
}

1;
