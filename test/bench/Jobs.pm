# Jobs.pm - who does what, and what is hoped for
#
# A job: its name and title, the numbers of clients, the contenders, and what is
# compared with what.  A contender is a script of jobs/ that pgbench runs on a
# PostgreSQL server, or, if it has a program, a peer's client.
#
# The tables have latencies only of a job that is about them: pgbench reads the clock once
# for all that it does before it waits again, so that an answer that is there at once
# counts as no time, and the one after it as both.
#
# A comparison says how many times as good ours is as theirs: in operations per second,
# or, with figure => 'p99', in a latency.  target is the ratio to reach, at those sizes
# (everywhere, if it names none); it is said, and nothing else comes of it.

package Jobs;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(jobs alive_jobs);

# What the peers are, wherever they take part.
my %redis = (name => 'redis', program => 'redis', server => 'redis');
my %redis_aof = (name => 'redis-aof', program => 'redis', server => 'redis-aof');
my %etcd = (name => 'etcd', program => 'etcd', server => 'etcd');
my %zookeeper = (name => 'zookeeper', program => 'zookeeper', server => 'zookeeper');

my @jobs = (
	{
		name => 'renew',
		title => 'Renew',
		text => 'Each client renews a lease of its own, again and again.',
		sizes => [ 1, 8, 32 ],
		asked => 'renew',
		contenders => [
			{ name => 'lease', text => '`lease.try_renew`' },
			{ name => 'nothing', text => 'a C function with the same arguments that does nothing: the limit' },
			{ name => 'table', text => '`UPDATE` of the row in a lease table' },
			{ %redis, text => '`PEXPIRE` after a comparison in a script; nothing on disk' },
			{ %etcd, text => '`LeaseKeepAlive` on a stream that stays open' },
		],
		compare => [
			{ ours => 'lease', theirs => 'nothing', target => 0.95, at => [ 8, 32 ] },
			{ ours => 'lease', theirs => 'table' },
			{ ours => 'lease', theirs => 'redis' },
			{ ours => 'lease', theirs => 'etcd' },
		]
	},
	{
		name => 'durable-pair',
		title => 'Durable pair',
		text => 'Each client acquires and releases a name of its own; the grant is on disk before it is told.',
		sizes => [ 1, 8, 32 ],
		asked => 'pair',
		contenders => [
			{ name => 'lease', text => '`lease.try_acquire`, `lease.release`' },
			{ name => 'table', text => '`INSERT … ON CONFLICT DO UPDATE … WHERE` expired, then `UPDATE`' },
			{ name => 'commit', text => 'one-row `INSERT`, then `SELECT 1`: the limit of two round trips and one flush' },
			{ %redis_aof, text => '`SET NX PX`, then `DEL` after a comparison in a script; `appendfsync always`' },
			{ %etcd, text => '`Lock`, `Unlock`' },
			{ %zookeeper, text => 'an ephemeral node, created and deleted' },
		],
		compare => [
			{ ours => 'lease', theirs => 'table', target => 2 },
			{ ours => 'lease', theirs => 'commit', target => 1 },
			{ ours => 'lease', theirs => 'redis-aof', target => 1, at => [32] },
			{ ours => 'lease', theirs => 'etcd', target => 8 },
			{ ours => 'lease', theirs => 'zookeeper', target => 8 },
		]
	},
	{
		name => 'volatile-pair',
		title => 'Volatile pair',
		text => 'The same, with nothing on disk.',
		sizes => [ 1, 8, 32 ],
		asked => 'pair',
		contenders => [
			{ name => 'lease', text => "`lease.try_acquire` in scope `session`, `lease.release`" },
			{ name => 'advisory', text => '`pg_advisory_lock`, `pg_advisory_unlock`' },
			{ name => 'nothing', text => 'a C function that does nothing, twice: the limit of two round trips' },
			{ %redis, text => '`SET NX PX`, then `DEL` after a comparison in a script; nothing on disk' },
		],
		compare => [
			{ ours => 'lease', theirs => 'advisory', target => 0.95 },
			{ ours => 'lease', theirs => 'nothing' },
			{ ours => 'nothing', theirs => 'redis' },
			{ ours => 'lease', theirs => 'redis', target => 0.95, at => [32] },
		]
	},
	{
		name => 'hand-over',
		title => 'Hand-over',
		text => 'All clients want one name; who gets it releases it at once, and asks again.',
		sizes => [ 2, 16, 64 ],
		latencies => 1,
		asked => 'handover',
		contenders => [
			{ name => 'lease', text => '`lease.acquire` in scope `session`, `lease.release`' },
			{ name => 'lease-durable', text => '`lease.acquire`, `lease.release`; each grant on disk' },
			{ name => 'advisory', text => '`pg_advisory_lock`, `pg_advisory_unlock`' },
			{ name => 'table', text => 'a lease table, polled every 10 ms; each grant on disk' },
			{ %redis, text => '`SET NX PX`, again after 10 ms; nothing on disk' },
			{ %etcd, text => '`Lock`, `Unlock`; each grant on disk' },
		],
		compare => [
			{ ours => 'lease', theirs => 'advisory', target => 1 },
			{ ours => 'lease', theirs => 'advisory', target => 1, figure => 'p99' },
			{ ours => 'lease', theirs => 'redis' },
			{ ours => 'lease-durable', theirs => 'table' },
			{ ours => 'lease-durable', theirs => 'etcd' },
		]
	},
	{
		name => 'guarded-write',
		title => 'Guarded write',
		text => 'Each client updates a row of its own, while it holds a lease of its own.',
		sizes => [ 1, 8, 32 ],
		contenders => [
			{ name => 'lease', text => '`UPDATE … WHERE id = … AND lease.guard(name, token) = token`' },
			{ name => 'bare', text => '`UPDATE` alone' },
			{ name => 'lease-statement', text => '`BEGIN`, `lease.guard`, `UPDATE`, `COMMIT`' },
			{ name => 'row-lock', text => '`BEGIN`, `SELECT … FOR UPDATE` of the row in a lease table, `UPDATE`, `COMMIT`' },
		],
		compare => [
			{ ours => 'lease', theirs => 'bare', target => 0.9 },
			{ ours => 'lease', theirs => 'row-lock' },
			{ ours => 'lease-statement', theirs => 'row-lock' },
		]
	});

# A contender without a program runs the script that bears the job's name and its own.
sub jobs
{
	foreach my $job (@jobs)
	{
		foreach my $contender (grep { !$_->{program} } @{ $job->{contenders} })
		{
			$contender->{script} //= "$job->{name}-$contender->{name}";
			$contender->{server} //= 'postgres';
		}
	}
	return @jobs;
}

# What ours do beside so many other leases: each on servers where so many are alive
# ("alive-1000"), compared with the first of them.
sub alive_jobs
{
	my ($first, @more) = @_;
	my $most = $more[-1];
	my @alive;

	foreach my $job (jobs())
	{
		foreach my $ours (grep { $_->{name} =~ /^lease(?!-statement)/ } @{ $job->{contenders} })
		{
			my $durable = $ours->{name} eq 'lease-durable';
			push @alive, {
				name => "many-$job->{name}" . ($durable ? '-durable' : ''),
				title => "Many alive: \l$job->{title}" . ($durable ? ', durable' : ''),
				text => "$ours->{text}, while so many other leases are alive.",
				sizes => [ $job->{name} eq 'hand-over' ? 16 : 8 ],
				latencies => $job->{latencies},
				contenders => [ map { +{ name => $_, script => $ours->{script}, server => "alive-$_" } } $first, @more ],
				compare => [ map { +{ ours => $_, theirs => $first, $_ == $most ? (target => 0.9) : () } } @more ]
			};
		}
	}
	return @alive;
}

1;
