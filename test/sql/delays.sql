--
-- Names that stay closed for a while: lock_delay after an orphan or a forced
-- end, min_hold after a grant.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = warning;

-- A name, and how long it is closed from now on, rounded up to minutes.
CREATE VIEW pg_temp.closed AS
	SELECT name, remaining IS NULL AND expires_at IS NULL AND ttl IS NULL AS over,
	       date_trunc('minute', closed_until - clock_timestamp() + interval '59.999 s') AS closed_for
	FROM lease.leases ORDER BY name;

--
-- lock_delay
--

-- A release opens the name at once.
SELECT lease.try_acquire('delayed', ttl => '1 min', lock_delay => '10 min') AS t \gset
SELECT closed_until FROM lease.leases;
SELECT lease.release('delayed', :t);
SELECT lease.try_acquire('delayed', ttl => '1 min', lock_delay => '10 min', holder => 'h', request_id => 'r') AS t \gset

-- Expiry does not: it is closed for so long after the deadline.
SELECT pg_temp.advance_lease_clock('1 min');
SELECT * FROM pg_temp.closed;
SELECT token = :t AS token, holder, mode, scope, owner = current_user AS owner FROM lease.leases;
SELECT lease.is_held('delayed', :t), lease.try_renew('delayed', :t);
SELECT lease.try_acquire('delayed') AS closed;

-- A retry is no way back in.
SELECT lease.try_acquire('delayed', holder => 'h', request_id => 'r') AS closed;
SELECT pg_temp.advance_lease_clock('9 min');
SELECT lease.try_acquire('delayed') AS closed;
SELECT pg_temp.advance_lease_clock('1 min');
SELECT count(*) FROM lease.leases;
SELECT lease.try_acquire('delayed', ttl => '1 min') > :t AS open_again;
SELECT lease.release(name, token) FROM lease.leases;

-- Renewals put the deadline off, and the closed time with it.
SELECT lease.try_acquire('delayed', ttl => '1 min', lock_delay => '10 min') AS t \gset
SELECT lease.renew('delayed', :t, '1 h');
SELECT pg_temp.advance_lease_clock('1 h');
SELECT * FROM pg_temp.closed;

-- Force closes it, too, counted from then; the next one, too.
SELECT pg_temp.advance_lease_clock('10 min');
SELECT lease.try_acquire('delayed', ttl => '1 h', lock_delay => '10 min') AS t \gset
SELECT lease.force_release('delayed', 'test');
SELECT * FROM pg_temp.closed;
SELECT lease.try_acquire('delayed') AS closed;

-- The closed time is in the ledger, in place of the grant.
SELECT kind, name, token = :t AS token, ttl > interval '9 min' AND ttl <= interval '10 min' AS ttl
FROM lease.ledger WHERE kind <> 'ceiling';

-- A second forced release finds nothing to end; reopen cuts the time short.
SELECT lease.force_release('delayed', 'test');
SELECT * FROM pg_temp.closed;
SELECT lease.force_release('delayed', 'test', reopen => true);
SELECT count(*) FROM lease.leases;
SELECT count(*) FROM lease.ledger WHERE kind <> 'ceiling';
SELECT lease.try_acquire('delayed', ttl => '1 h', lock_delay => '10 min') AS t \gset

-- Ended and opened in one step.
SELECT lease.force_release('delayed', 'test', reopen => true);
SELECT count(*) FROM lease.leases;
SELECT lease.try_acquire('delayed', ttl => '1 h') AS t \gset
SELECT lease.release('delayed', :t);

--
-- min_hold
--

-- A release before it does not let the next in early; nor itself.
SELECT lease.try_acquire('held', ttl => '1 h', min_hold => '10 min') AS t \gset
SELECT lease.release('held', :t);
SELECT lease.is_held('held', :t);
SELECT * FROM pg_temp.closed;
SELECT lease.try_acquire('held') AS closed;
SELECT pg_temp.advance_lease_clock('9 min');
SELECT lease.try_acquire('held') AS closed;
SELECT pg_temp.advance_lease_clock('1 min');
SELECT lease.try_acquire('held', ttl => '1 h', min_hold => '10 min') > :t AS open_again;

-- A release after it does.
SELECT pg_temp.advance_lease_clock('10 min');
SELECT lease.release(name, token) FROM lease.leases;
SELECT count(*) FROM lease.leases;

-- A renewal does not move it: it counts from the grant.
SELECT lease.try_acquire('held', ttl => '1 h', min_hold => '10 min') AS t \gset
SELECT pg_temp.advance_lease_clock('6 min');
SELECT lease.renew('held', :t);
SELECT lease.release('held', :t);
SELECT * FROM pg_temp.closed;
SELECT pg_temp.advance_lease_clock('4 min');
SELECT lease.try_acquire('held', ttl => '1 h') AS t \gset
SELECT lease.release('held', :t);

-- A lease whose TTL runs out before it stays closed until then, no longer.
SELECT lease.try_acquire('held', ttl => '1 min', min_hold => '10 min') AS t \gset
SELECT pg_temp.advance_lease_clock('1 min');
SELECT lease.is_held('held', :t);
SELECT * FROM pg_temp.closed;
SELECT lease.try_acquire('held') AS closed;
SELECT pg_temp.advance_lease_clock('9 min');
SELECT lease.try_acquire('held', ttl => '1 min', min_hold => '10 min') AS t \gset
SELECT :t > 0 AS open_again;

-- A forced release heeds it; reopen does not.
SELECT lease.force_release('held', 'test');
SELECT * FROM pg_temp.closed;
SELECT lease.force_release('held', 'test', reopen => true);
SELECT count(*) FROM lease.leases;

-- A transfer starts it anew, with the new grant.
SELECT lease.try_acquire('held', ttl => '1 h', min_hold => '10 min') AS t \gset
SELECT pg_temp.advance_lease_clock('9 min');
SELECT lease.release('held', lease.transfer('held', :t, 'next'));
SELECT * FROM pg_temp.closed;
SELECT lease.force_release('held', 'test', reopen => true);

--
-- Both: the later of the two.
--
SELECT lease.try_acquire('both', ttl => '1 min', lock_delay => '10 min', min_hold => '5 min') IS NOT NULL AS granted;
SELECT lease.try_acquire('both too', ttl => '1 min', lock_delay => '10 min', min_hold => '20 min') IS NOT NULL AS granted;
SELECT pg_temp.advance_lease_clock('1 min');
SELECT * FROM pg_temp.closed;
SELECT lease.force_release(name, 'test', reopen => true) FROM lease.leases;

-- A release heeds min_hold alone.
SELECT lease.try_acquire('both', ttl => '1 h', lock_delay => '10 min', min_hold => '5 min') AS t \gset
SELECT lease.release('both', :t);
SELECT * FROM pg_temp.closed;
SELECT pg_temp.advance_lease_clock('5 min');
SELECT count(*) FROM lease.leases;

-- Zero is none.
SELECT lease.try_acquire('zero', ttl => '1 min', lock_delay => '0', min_hold => '0 days') AS t \gset
SELECT pg_temp.advance_lease_clock('1 min');
SELECT lease.try_acquire('zero', ttl => '1 min') AS t \gset
SELECT lease.release('zero', :t);
SELECT count(*) FROM lease.leases;
