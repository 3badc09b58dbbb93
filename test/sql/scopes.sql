--
-- Scopes session and transaction, mode shared, and waits that end by themselves.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools

CREATE TEMPORARY VIEW held AS SELECT name, mode, scope, ttl FROM lease.leases ORDER BY name;

--
-- Session
--

-- The same session gets the same token again; each release takes one hold off.
SELECT lease.acquire('s', scope => 'session') AS t \gset
SELECT lease.acquire('s', scope => 'session') = :t AS same, lease.try_acquire('s', scope => 'session') = :t AS same;
SELECT * FROM held;
SELECT durable, remaining FROM lease.leases;
SELECT count(*) FROM lease.ledger WHERE kind = 'grant';
SELECT lease.release('s', :t), lease.release('s', :t), (SELECT count(*) FROM held) AS held;
SELECT lease.release('s', :t), (SELECT count(*) FROM held) AS held;
SET client_min_messages = error;
SELECT lease.release('s', :t);
RESET client_min_messages;
SELECT lease.acquire('s', scope => 'session') > :t AS larger;

-- ROLLBACK does not take it, nor its release, back.
BEGIN;
SELECT lease.acquire('r', scope => 'session') AS t \gset
ROLLBACK;
SELECT lease.is_held('r', :t);
BEGIN;
SELECT lease.release('r', :t);
ROLLBACK;
SELECT lease.is_held('r', :t);

-- A TTL may be given, and is restarted by a renewal; without one there is none.
SELECT lease.acquire('t', ttl => '1 h', scope => 'session') AS t \gset
SELECT lease.renew('t', :t), lease.renew('t', :t, '2 h');
SELECT pg_temp.advance_lease_clock('3 h');
SELECT lease.is_held('t', :t), lease.try_renew('t', :t);
SELECT * FROM held;
SELECT lease.renew('s', token) IS NULL AS endless FROM lease.leases;

-- A repeated acquire makes it last longer, never shorter.
SELECT lease.acquire('t', ttl => '1 h', scope => 'session') AS t \gset
SELECT lease.acquire('t', ttl => '1 min', scope => 'session') = :t AS same;
SELECT ttl FROM held WHERE name = 't';
SELECT lease.acquire('t', scope => 'session') = :t AS same;
SELECT ttl FROM held WHERE name = 't';

-- release_session and DISCARD ALL end them, however often they were acquired.
SELECT lease.release_session();
SELECT lease.release_session();
SELECT lease.acquire('d', scope => 'session') IS NOT NULL AS done;
DISCARD ALL;
SELECT count(*) FROM lease.leases;
\set ECHO none
\ir :tools
CREATE TEMPORARY VIEW held AS SELECT name, mode, scope, ttl FROM lease.leases ORDER BY name;

--
-- Transaction
--
BEGIN;
SELECT lease.acquire('t', scope => 'transaction') = lease.acquire('t', scope => 'transaction') AS same;
SAVEPOINT one;
SELECT lease.acquire('one', scope => 'transaction') IS NOT NULL AS done;
SAVEPOINT two;
SELECT lease.acquire('two', scope => 'transaction') IS NOT NULL AS done;
RELEASE two;
SELECT * FROM held;
ROLLBACK TO one;
SELECT * FROM held;
SAVEPOINT three;
SELECT lease.acquire('three', scope => 'transaction') IS NOT NULL AS done;
RELEASE three;
SELECT * FROM held;

-- A release takes effect when the transaction ends.
SELECT lease.release(name, token) FROM lease.leases WHERE name = 't';
SELECT * FROM held;
COMMIT;
SELECT * FROM held;

BEGIN;
SELECT lease.acquire('t', scope => 'transaction') IS NOT NULL AS done;
ROLLBACK;
SELECT * FROM held;

-- An exception block is a savepoint.
DO $$
BEGIN
	BEGIN
		PERFORM lease.acquire('inner', scope => 'transaction');
		RAISE EXCEPTION 'no';
	EXCEPTION WHEN OTHERS THEN
		ASSERT NOT EXISTS (SELECT FROM lease.leases WHERE name = 'inner');
	END;
	PERFORM lease.acquire('outer', scope => 'transaction');
	COMMIT;
	ASSERT NOT EXISTS (SELECT FROM lease.leases);
END
$$;

-- Held by both, a lease lasts as long as the longer one.
BEGIN;
SELECT lease.acquire('b', scope => 'transaction') AS t \gset
SELECT lease.acquire('b', scope => 'session') = :t AS same;
SELECT * FROM held;
SELECT lease.release('b', :t);
SELECT * FROM held;
SELECT lease.acquire('b', scope => 'session') = :t AS same;
SELECT lease.acquire('other', scope => 'transaction') IS NOT NULL AS done;
COMMIT;
SELECT * FROM held;
BEGIN;
SELECT lease.acquire('b', scope => 'transaction') = :t AS same;
SELECT lease.release_session();
SELECT * FROM held;
COMMIT;
SELECT * FROM held;

-- It cannot be prepared.
BEGIN;
SELECT lease.acquire('p', scope => 'transaction') IS NOT NULL AS done;
PREPARE TRANSACTION 'p';
SELECT * FROM held;

--
-- Modes
--
SELECT lease.acquire('m', ttl => '1 h', mode => 'shared') AS r1 \gset
SELECT lease.acquire('m', ttl => '1 h', mode => 'shared') AS r2 \gset
SELECT :r1 < :r2 AS two_tokens, lease.try_acquire('m') AS taken;
SELECT * FROM held;
SELECT name, mode FROM lease.ledger WHERE kind = 'grant';
SELECT lease.release('m', :r1), lease.try_acquire('m') AS taken;
SELECT lease.release('m', :r2), lease.try_acquire('m', ttl => '1 h') AS w \gset
SELECT lease.try_acquire('m', mode => 'shared') AS taken;
SELECT lease.release('m', :w);

-- Shared by the session: counted; an upgrade is refused, a downgrade no change.
SELECT lease.acquire('m', mode => 'shared', scope => 'session') AS t \gset
SELECT lease.acquire('m', mode => 'shared', scope => 'session') = :t AS same;
SELECT pg_temp.attempt($$SELECT lease.acquire('m', scope => 'session')$$);
SELECT lease.release_session();
SELECT lease.acquire('m', scope => 'session') AS t \gset
SELECT lease.acquire('m', mode => 'shared', scope => 'session') = :t AS same;
SELECT lease.release_session();

--
-- Waits that end by themselves, and refusals
--
SELECT lease.acquire('w', ttl => '1 h', holder => 'worker') AS t \gset
SELECT pg_temp.attempt($$SELECT lease.acquire('w', wait => '0')$$);
SELECT pg_temp.attempt($$SELECT lease.acquire('w', wait => '20 ms')$$);
SET lock_timeout = '20 ms';
SELECT pg_temp.attempt($$SELECT lease.acquire('w')$$);
SELECT pg_temp.attempt($$SELECT lease.acquire('w', scope => 'transaction')$$);
RESET lock_timeout;
SET client_min_messages = warning;
SELECT lease.force_release('w', 'test', :t);
RESET client_min_messages;
SELECT lease.acquire('w', wait => '0', ttl => '1 h') > :t AS larger;
SELECT lease.release(name, token) FROM lease.leases;

SELECT pg_temp.attempt(format('SELECT lease.acquire(''x'', %s)', bad)) FROM unnest(ARRAY[
	$$wait => '-1 s'$$, $$wait => '1 month'$$, $$wait => '2 days'$$,
	$$scope => 'session', lock_delay => '1 s'$$, $$scope => 'transaction', min_hold => '1 s'$$,
	$$scope => 'session', metadata => '{}'$$]) bad;
SET lease.allow_session_scope = off;
SELECT pg_temp.attempt($$SELECT lease.acquire('x', scope => 'session')$$);
RESET lease.allow_session_scope;
SELECT lease.acquire('x', scope => 'session') AS t \gset
SELECT pg_temp.attempt(format('SELECT lease.transfer(''x'', %s, ''you'')', :t));
SET client_min_messages = warning;
SELECT lease.force_release('x', 'test');
RESET client_min_messages;
SELECT lease.release_session();
SELECT leases_used FROM lease.status;
