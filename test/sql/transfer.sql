--
-- Handing a lease over: the next holder's token, and what becomes of the old.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SELECT lease.try_acquire('baton', ttl => '10 min', holder => 'first', request_id => 'r-1',
	correlation_id => 'c-1', lock_delay => '1 min', min_hold => '1 s', metadata => '{"lap": 1}') AS t1 \gset
SELECT pg_temp.advance_lease_clock('8 min');
SELECT lease.transfer('baton', :t1, 'second') AS t2 \gset
SELECT :t2 > :t1 AS larger;

-- The TTL starts anew, the request id is cleared, the rest stays.
\x on
SELECT name, token = :t2 AS "token =", holder, owner = current_user AS "owner =",
       acquired_at > statement_timestamp() - interval '1 min' AS "acquired_at =", renewed_at, renewals,
       ttl, remaining > interval '9 min' AS "remaining =", closed_until, request_id, correlation_id, metadata
FROM lease.leases;
SELECT kind, token = :t2 AS "token =", replaces = :t1 AS "replaces =", holder, ttl, lock_delay, min_hold,
       request_id, correlation_id, metadata
FROM lease.ledger WHERE kind <> 'ceiling';
\x off

-- The old token is stale.
SELECT lease.is_held('baton', :t1), lease.try_renew('baton', :t1), lease.is_held('baton', :t2);
SELECT pg_temp.attempt(format('SELECT lease.renew(%L, %s)', 'baton', :t1));
\set VERBOSITY sqlstate
SELECT lease.release('baton', :t1);
\set VERBOSITY default
SELECT lease.is_held('baton', :t2);

-- Repeated with the old token and the same holder it gives the same new one.
SELECT lease.transfer('baton', :t1, 'second') = :t2 AS same;
SELECT count(*) FROM lease.leases;

-- Repeated for another holder, the old token is just stale.
SELECT pg_temp.attempt(format('SELECT lease.transfer(%L, %s, %L)', 'baton', :t1, 'third'));
SELECT holder FROM lease.leases;

-- Passed on, the first token leads nowhere, and the second to the third.
SELECT lease.transfer('baton', :t2, 'third') AS t3 \gset
SELECT :t3 > :t2 AS larger, lease.transfer('baton', :t2, 'third') = :t3 AS same;
SELECT pg_temp.attempt(format('SELECT lease.transfer(%L, %s, %L)', 'baton', :t1, 'second')) ~ '^LE001' AS lost;

-- To oneself is a new token, too; renewed, it is the same grant still.
SELECT lease.transfer('baton', :t3, 'third') AS t4 \gset
SELECT :t4 > :t3 AS larger;
SELECT lease.renew('baton', :t4, '1 h');
SELECT lease.transfer('baton', :t3, 'third') = :t4 AS same;
SELECT ttl, metadata FROM lease.leases;

-- The TTL that a renewal set is what the next holder gets.
SELECT lease.transfer('baton', :t4, 'fifth') AS t5 \gset
SELECT ttl, remaining > interval '59 min' AS anew FROM lease.leases;
SELECT ttl FROM lease.ledger WHERE kind = 'grant';

-- Once the new grant is gone the repeated transfer is lost as well.
SELECT lease.release('baton', :t5);
SELECT pg_temp.attempt(format('SELECT lease.transfer(%L, %s, %L)', 'baton', :t4, 'fifth')) ~ '^LE001' AS lost;

-- What expired cannot be handed over.
SELECT lease.try_acquire('late', ttl => '10 min') AS t \gset
SELECT pg_temp.advance_lease_clock('10 min');
SELECT pg_temp.attempt(format('SELECT lease.transfer(%L, %s, %L)', 'late', :t, 'second')) ~ '^LE001' AS lost;

-- No business of the transaction.  A failed call leaves all as it was.
SELECT lease.try_acquire('baton', ttl => '10 min', holder => 'first') AS t1 \gset
BEGIN;
SELECT lease.transfer('baton', :t1, 'second') AS t2 \gset
ROLLBACK;
SELECT holder, token = :t2 AS same FROM lease.leases;
SELECT pg_temp.attempt(format('SELECT lease.transfer(%L, %s, %L)', 'baton', :t2, repeat('x', 128))) ~ '^22023' AS refused;
SELECT pg_temp.attempt(format('SELECT lease.transfer(%L, %s, NULL)', 'baton', :t2)) ~ '^22004' AS refused;
SELECT holder, token = :t2 AS same FROM lease.leases;

-- The former holder's request id does not lead to the new holder's token.
SELECT lease.release('baton', :t2);
SELECT lease.try_acquire('baton', ttl => '10 min', holder => 'first', request_id => 'r-9') AS t1 \gset
SELECT lease.transfer('baton', :t1, 'second') AS t2 \gset
SELECT lease.try_acquire('baton', request_id => 'r-9') AS taken;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;
SELECT kind FROM lease.ledger WHERE name = 'baton';
