--
-- request_id: a client that never saw its answer asks again, and counts once.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
-- The retry gets the same token.  It may spell out the holder, or not.
SELECT lease.try_acquire('r', ttl => '10 min', holder => 'me', request_id => 'id-1') AS t \gset
SELECT lease.try_acquire('r', ttl => '10 min', holder => 'me', request_id => 'id-1') = :t AS same;
SELECT lease.try_acquire('r', ttl => '10 min', request_id => 'id-1') = :t AS same;
SELECT count(*), min(holder) AS holder FROM lease.leases;
SELECT count(*) FROM lease.ledger WHERE kind = 'grant';

-- Its TTL is fresh.
SELECT pg_temp.advance_lease_clock('9 min');
SELECT lease.try_acquire('r', ttl => '10 min', request_id => 'id-1') = :t AS same;
SELECT remaining > interval '9 min' AS fresh FROM lease.leases;
SELECT pg_temp.advance_lease_clock('9 min');
SELECT lease.is_held('r', :t);

-- It is the TTL that the retry asks for: longer, and the ledger has it; shorter.
SELECT lease.try_acquire('r', ttl => '1 h', request_id => 'id-1') = :t AS same;
SELECT ttl FROM lease.leases;
SELECT ttl FROM lease.ledger WHERE kind = 'grant';
SELECT lease.try_acquire('r', ttl => '5 min', request_id => 'id-1') = :t AS same;
SELECT ttl, remaining <= interval '5 min' AS shorter FROM lease.leases;

-- Another id, or none, is another request.
SELECT lease.try_acquire('r', request_id => 'id-2') AS taken;
SELECT lease.try_acquire('r', request_id => 'ID-1') AS taken;
SELECT lease.try_acquire('r', request_id => 'id-1 ') AS taken;
SELECT lease.try_acquire('r') AS taken;

-- The same id for another name is one, too.
SELECT lease.try_acquire('s', request_id => 'id-1') > :t AS another;
SELECT bool_and(lease.release(name, token)) FROM lease.leases WHERE name = 's';

-- The same id with another holder, mode or scope is a mistake of the client's.
SELECT pg_temp.attempt($$SELECT lease.try_acquire('r', holder => 'not me', request_id => 'id-1')$$);
SELECT pg_temp.attempt($$SELECT lease.try_acquire('r', mode => 'shared', request_id => 'id-1')$$) ~ '^22023' AS refused;
SELECT pg_temp.attempt($$SELECT lease.try_acquire('r', scope => 'session', request_id => 'id-1')$$) ~ '^22023' AS refused;
SELECT lease.is_held('r', :t) AS still_held;

-- Another role may make up the same id: to it, the name is just taken, and it
-- does not learn that it guessed one.
CREATE ROLE regress_lease_other;
SELECT lease.allow('regress_lease_other');
SET ROLE regress_lease_other;
SELECT lease.try_acquire('r', holder => 'me', request_id => 'id-1') AS taken;
SELECT lease.try_acquire('r', holder => 'not me', request_id => 'id-1') AS taken;
RESET ROLE;

-- Once the grant is gone, the id means nothing: a new grant, a new token.
SELECT lease.release('r', :t);
SELECT lease.try_acquire('r', ttl => '10 min', holder => 'me', request_id => 'id-1') AS t2 \gset
SELECT :t2 > :t AS new_token;
SELECT pg_temp.advance_lease_clock('10 min');
SELECT lease.try_acquire('r', ttl => '10 min', holder => 'not me', request_id => 'id-1') AS t3 \gset
SELECT :t3 > :t2 AS new_token;

-- Taken by somebody else meanwhile: the late retry gets nothing.
SELECT pg_temp.advance_lease_clock('10 min');
SELECT lease.try_acquire('r', ttl => '10 min', holder => 'next') AS t4 \gset
SELECT lease.try_acquire('r', request_id => 'id-1') AS taken;
SELECT lease.is_held('r', :t4) AS still_theirs;

-- A retry in the same statement, and one of a rolled-back transaction.
SELECT lease.release('r', :t4);
SELECT count(DISTINCT lease.try_acquire('r', ttl => '10 min', request_id => 'id-5')) FROM generate_series(1, 10);
BEGIN;
SELECT lease.try_acquire('q', ttl => '10 min', request_id => 'id-6') AS t6 \gset
ROLLBACK;
SELECT lease.try_acquire('q', ttl => '10 min', request_id => 'id-6') = :t6 AS same;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

SELECT lease.disallow('regress_lease_other');
DROP ROLE regress_lease_other;
