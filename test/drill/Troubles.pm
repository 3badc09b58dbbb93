# Troubles.pm - the troubles of doc/runbooks.md, each as its own drill makes it
#
# A trouble has the title of its section, makes itself, and judges whether it is
# mended: it returns what is still wrong.  What the person must not do is judged, too:
# in each there are holders that are innocent.

package Troubles;

use strict;
use warnings;

use Exporter 'import';
use Scene;

our @EXPORT = qw(troubles);

sub alert { print map { "    $_\n" } map { split /\n/ } @_; print "\n"; return }

sub troubles
{
	return (lease_stuck(), holder_unreachable(), table_full(), ledger_large(), fail_over(),
		restored_backup(), clock_trouble(), copied_server(), double_holder());
}

# Who waits longest, as monitoring would tell it.
sub queue_alert
{
	my ($name) = @_;
	return 'ALERT  somebody waits for a lease: '
	  . sql($name, q{SELECT format('%s, since %s', name, waiting_since) FROM lease.waiters ORDER BY waited DESC LIMIT 1});
}

# A holder that was lost with its host, long before its TTL is over.
sub lease_stuck
{
	my $kept;

	return {
		title => 'lease stuck',
		make => sub {
			make_server('primary');
			$kept = start_holder('primary', 'host-1', 'import/stock', '1 min');
			sql('primary', q{SELECT lease.acquire('import/orders', '1 day', holder => 'host-3')});
			start_waiter('primary', 'host-4', 'import/orders');
			alert(queue_alert('primary'), 'host-5 logs:',
				failure('primary', 'host-5', q{SELECT lease.acquire('import/orders', wait => '100 ms')}));
		},
		judge => sub {
			return (holds('primary', 'host-4', 'import/orders'), holds('primary', 'host-1', 'import/stock', $kept));
		} };
}

# A client that is stopped in the middle of things: its connection stands, and
# nobody knows what it does next.
sub holder_unreachable
{
	return {
		title => 'holder unreachable',
		make => sub {
			make_server('primary');
			my $pid = start_client('primary', 'host-3', q{
				SELECT lease.acquire('import/orders', scope => 'session');
				SELECT lease.acquire('import/stock', '1 hour', lock_delay => '1 hour');});
			wait_until('host-3 to hold both',
				sub { sql('primary', q{SELECT count(*) FROM lease.leases WHERE holder = 'host-3'}) == 2 });
			freeze('host-3');
			start_waiter('primary', 'host-4', 'import/orders');
			start_waiter('primary', 'host-5', 'import/stock');
			make_command('switch_off', "kill -KILL $pid");
			alert('ALERT  host-3 does not answer', queue_alert('primary'));
		},
		judge => sub {
			return (holds('primary', 'host-4', 'import/orders'), holds('primary', 'host-5', 'import/stock'),
				is_running('host-3') ? 'host-3 is not switched off: it may still act' : ());
		} };
}

# A program that takes a lease for each thing that it does, and releases none.
sub table_full
{
	my $kept;

	return {
		title => 'table full',
		make => sub {
			make_server('primary', conf => ['lease.max_leases = 64']);
			$kept = sql('primary', q{SELECT lease.acquire('billing/42', '12 hours', holder => 'host-1')});
			sql('primary', q{SELECT count(lease.acquire('cart/' || i, '1 day', holder => 'web'))
				FROM generate_series(1, 63) i});
			alert('ALERT  the lease table is full: '
				  . sql('primary', q{SELECT format('%s of %s', leases_used, leases_allowed) FROM lease.status}),
				'host-5 logs:', failure('primary', 'host-5', q{SELECT lease.acquire('import/orders')}));
		},
		judge => sub {
			return (holds('primary', 'host-1', 'billing/42', $kept),
				sql('primary', 'SELECT leases_used > leases_allowed / 2 FROM lease.status') eq 't'
				? 'the table is still more than half full' : ());
		} };
}

# Nobody vacuums, and a transaction that guards a lease is left open.
sub ledger_large
{
	my $kept;

	return {
		title => 'ledger large',
		make => sub {
			make_server('primary', conf => ['autovacuum = off']);
			$kept = start_holder('primary', 'host-1', 'billing/42', '1 min');
			sql('primary', q{SET synchronous_commit = off;
				DO $$BEGIN FOR i IN 1 .. 20000 LOOP
					PERFORM lease.release('import/' || i, lease.acquire('import/' || i));
				END LOOP; END$$});
			start_client('primary', 'host-3', q{
				SELECT lease.acquire('import/stock', '1 day') AS token \gset
				BEGIN;
				SELECT lease.guard('import/stock', :token);});
			wait_until('the statistics', sub { sql('primary', 'SELECT ledger_garbage >= 20000 FROM lease.status') eq 't' });
			alert('ALERT  lease.ledger is large: '
				  . sql('primary', q{SELECT format('%s, %s ended rows', pg_size_pretty(ledger_size), ledger_garbage)
					FROM lease.status}));
		},
		judge => sub {
			return (holds('primary', 'host-1', 'billing/42', $kept),
				sql('primary', 'SELECT ledger_size > 1024 * 1024 FROM lease.status') eq 't' ? 'it is still large' : (),
				sql('primary', 'SHOW autovacuum') eq 'off' ? 'it will be again: autovacuum is off' : ());
		} };
}

# The primary is lost, and its standby is configured as it was.
sub fail_over
{
	my $kept;

	return {
		title => 'fail-over',
		make => sub {
			make_server('primary');
			make_server('standby', from => 'primary', how => ['-R'], conf => ["cluster_name = 'standby'"]);
			wait_until('the standby', sub { sql('primary', 'SELECT count(*) FROM pg_stat_replication') == 1 });
			foreach my $name (qw(primary standby))
			{
				configure($name, "synchronous_standby_names = '*'");
				sql($name, 'SELECT pg_reload_conf()');
			}
			$kept = sql('primary', q{SELECT lease.acquire('billing/42', '12 hours', holder => 'host-1')});
			start_client('standby', 'host-4', q{
				DO $$BEGIN WHILE pg_is_in_recovery() LOOP PERFORM pg_sleep(0.1); END LOOP; END$$;
				SELECT lease.acquire('import/orders', '12 hours');});
			wait_until('the grant to arrive',
				sub { sql('standby', q{SELECT count(*) FROM lease.leases WHERE name = 'billing/42'}) == 1 });
			stop_server('primary', 'immediate');
			alert('ALERT  primary is down, its disk is gone', 'host-4, which was sent to the standby, logs:',
				failure('standby', 'host-4', q{SELECT lease.acquire('import/orders')}));
		},
		judge => sub {
			return ('the standby is not promoted') if sql('standby', 'SELECT pg_is_in_recovery()') eq 't';
			return (holds('standby', 'host-1', 'billing/42', $kept), holds('standby', 'host-4', 'import/orders'),
				eval { sql('primary', 'SELECT 1') } ? 'the old primary runs, and grants leases of its own' : ());
		} };
}

# A base backup was brought up; the server that it is of went on for a while, and is gone.
sub restored_backup
{
	my $kept;

	return {
		title => 'restored backup',
		make => sub {
			make_server('original');
			my $ghost = sql('original', q{SELECT lease.acquire('import/orders', '1 day', holder => 'host-3')});
			$kept = sql('original', q{SELECT lease.acquire('billing/42', '1 hour', holder => 'host-1')});
			make_server('primary', from => 'original', stopped => 1);
			sql('original', "SELECT lease.release('import/orders', $ghost)");
			my $later = sql('original', q{SELECT lease.acquire('import/stock', '1 day', holder => 'host-5')});
			give_up_server('original');
			start_server('primary');
			start_client('primary', 'host-1', "SELECT lease.renew('billing/42', $kept) \\watch 0.5");
			wait_until('host-1 to renew', sub { sql('primary', "SELECT renewals > 0 FROM lease.leases WHERE token = $kept") eq 't' });
			start_waiter('primary', 'host-4', 'import/orders');
			alert('The server was restored from last night\'s backup.', queue_alert('primary'), 'host-5 logs:',
				failure('primary', 'host-5', "SELECT lease.renew('import/stock', $later)"));
		},
		judge => sub {
			return (holds('primary', 'host-4', 'import/orders'), holds('primary', 'host-1', 'billing/42', $kept));
		} };
}

# The wall clock of the server is two days behind, and payments have been made since.
sub clock_trouble
{
	my $kept;

	return {
		title => 'clock trouble',
		make => sub {
			chomp(my $library = qx{faketime -f +0 printenv LD_PRELOAD 2>/dev/null});
			die "this drill needs faketime\n" unless $library;
			my $clock = put_file('clock', -172800);
			make_command('set_clock', "echo +0 >$clock.new && mv $clock.new $clock");
			make_server('primary', env => {
				LD_PRELOAD => $library, FAKETIME_TIMESTAMP_FILE => $clock, FAKETIME_NO_CACHE => 1,
				FAKETIME_DONT_FAKE_MONOTONIC => 1, DONT_FAKE_MONOTONIC => 1 });
			$kept = start_holder('primary', 'host-1', 'billing/42', '1 min');
			sql('primary', q{SELECT lease.once('payment/8d3f', '1 day')});
			alert('ALERT  the clock of the database server is behind: its '
				  . sql('primary', q{SELECT to_char(now(), 'YYYY-MM-DD HH24:MI')}) . ' is two days ago');
		},
		judge => sub {
			return (holds('primary', 'host-1', 'billing/42', $kept),
				abs(sql('primary', 'SELECT extract(epoch FROM now())') - time) > 600 ? 'the clock is still behind' : (),
				sql('primary', q{SELECT count(*) FROM lease.keys WHERE key = 'payment/8d3f' AND expires_at > now()})
				? () : 'payment/8d3f may be made again: its key has expired');
		} };
}

# A backup was started beside the server that it is of; its jobs believe to be in production.
sub copied_server
{
	my ($seen, $stale);

	return {
		title => 'copied or rewound server',
		make => sub {
			make_server('primary');
			sql('primary', q{SELECT lease.acquire('billing/42', '12 hours', holder => 'host-1')});
			make_server('copy', from => 'primary');
			$stale = start_holder('primary', 'host-1', 'import/orders', '1 hour');
			$seen = start_holder('copy', 'host-3', 'import/orders', '1 hour');
			start_waiter('primary', 'host-4', 'import/orders');
			die "the copy's tokens are not larger\n" unless $seen > $stale;
			alert("The storage refuses host-1's writes of import/orders: "
				  . "its token $stale is smaller than $seen, which it has seen.");
		},
		judge => sub {
			my @wrong = holds('primary', 'host-4', 'import/orders');

			push @wrong, 'the copy still grants leases' if eval { sql('copy', 'SELECT 1') };
			push @wrong, 'host-4 holds import/orders with a token that the storage refuses'
			  if !@wrong && sql('primary', q{SELECT token FROM lease.leases WHERE name = 'import/orders'}) <= $seen;
			return @wrong;
		} };
}

# A lease was ended by force while its holder lived, and nothing checks what that writes.
sub double_holder
{
	my $kept;

	return {
		title => 'suspected double holder',
		make => sub {
			make_server('primary');
			sql('primary', q{CREATE TABLE entry (token bigint, host text, at timestamptz DEFAULT clock_timestamp())});
			my $lost = sql('primary', q{SELECT lease.acquire('ledger/close', '1 day', holder => 'host-3')});
			start_client('primary', 'host-3', "INSERT INTO entry VALUES ($lost, 'host-3') \\watch 0.5");
			sql('primary', q{SELECT lease.force_release('ledger/close', 'host-3 looked dead')});
			$kept = sql('primary', q{SELECT lease.acquire('ledger/close', '1 day', holder => 'host-4')});
			start_client('primary', 'host-4', "INSERT INTO entry SELECT lease.guard('ledger/close', $kept), 'host-4' \\watch 0.5");
			wait_until('both to write', sub {
				sql('primary', "SELECT count(DISTINCT host) FROM entry
					WHERE at > (SELECT min(at) FROM entry WHERE token = $kept)") == 2 });
			alert('ALERT  table entry, which only the holder of ledger/close writes, has rows of two hosts:',
				sql('primary', q{SELECT format('%s wrote last at %s', host, max(at)) FROM entry GROUP BY host ORDER BY 1}));
		},
		judge => sub {
			return (holds('primary', 'host-4', 'ledger/close', $kept),
				sql('primary', q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'host-3'})
				? 'host-3 still writes' : (),
				sql('primary', q{SELECT count(*) FROM lease.protected_tables WHERE "table" = 'entry'::regclass})
				? () : 'nothing keeps it from happening again: entry is not protected');
		} };
}

1;
