--
-- Several names at once, all or none: acquire_all and try_acquire_all.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
CREATE TEMPORARY VIEW held AS SELECT name, mode, scope, ttl, holder FROM lease.leases ORDER BY name COLLATE "C";
CREATE TEMPORARY TABLE got (name text, token bigint);

-- All of them, in the order of their bytes.
INSERT INTO got SELECT * FROM lease.acquire_all(ARRAY['b', 'ä', 'a', 'aa', 'B'], '10 min', holder => 'h', metadata => '{"m": 1}');
SELECT name FROM got;
SELECT bool_and(lease.is_held(name, token)), count(DISTINCT token) FROM got;
SELECT * FROM held;
SELECT count(*), count(metadata) FROM lease.ledger WHERE kind = 'grant';

-- A multi-lease of which one fails leaves none held
SELECT * FROM lease.try_acquire_all('{0,B,c}');
SELECT pg_temp.attempt($$SELECT * FROM lease.acquire_all('{0,B,c}', wait => '20 ms')$$);
SELECT pg_temp.attempt($$SELECT * FROM lease.acquire_all('{z,aa}', wait => '0')$$);
SET lock_timeout = '20 ms';
SELECT pg_temp.attempt($$SELECT * FROM lease.acquire_all('{z,y,aa}')$$);
RESET lock_timeout;
SELECT name FROM held;
SELECT leases_used FROM lease.status;
SELECT count(*) FROM lease.ledger WHERE kind = 'grant';
SELECT name FROM lease.try_acquire_all('{0,c,z,y}', '10 min');
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

-- As sets go: none, one; other bounds than 1.
TRUNCATE got;
SELECT * FROM lease.acquire_all('{}');
SELECT * FROM lease.try_acquire_all('{}');
SELECT * FROM lease.try_acquire_all('{}', scope => 'session');
SELECT name FROM lease.acquire_all('{a}', '10 min');
SELECT name FROM lease.try_acquire_all('{a}');
SELECT name FROM lease.try_acquire_all('[-1:0]={c,b}', '10 min');
SELECT name FROM held;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

-- What is not a set of names.
SELECT left(what, 20), replace(pg_temp.attempt(format('SELECT * FROM lease.%s(%s)', f, what)), repeat('x', 255), '<255 bytes>')
FROM unnest(ARRAY['acquire_all', 'try_acquire_all']) f,
     unnest(ARRAY['NULL', $$'{a,b,a}'$$, $$'{a,NULL}'$$, $$'{{a,b},{c,d}}'$$, $$'{a,""}'$$, $$ARRAY['a', repeat('x', 256)]$$]) what;
SELECT count(*) FROM held;

-- The other arguments are those of acquire, for each name.
SELECT what, pg_temp.attempt(format('SELECT * FROM lease.%s(''{a,b}'', %s)', f, what))
FROM unnest(ARRAY['acquire_all', 'try_acquire_all']) f,
     unnest(ARRAY[$$ttl => '0'$$, $$mode => 'permit'$$, $$scope => NULL$$, $$scope => 'session', lock_delay => '1 s'$$]) what;
SELECT pg_temp.attempt($$SELECT * FROM lease.acquire_all('{a,b}', wait => '-1 ms')$$);
SELECT leases_used FROM lease.status;

-- TTL and delay are those of each.
INSERT INTO got SELECT * FROM lease.acquire_all('{a,b}', '1 min', lock_delay => '10 min');
SELECT pg_temp.advance_lease_clock('1 min');
SELECT bool_or(lease.is_held(name, token)) FROM got;
SELECT name, closed_until IS NOT NULL AS closed FROM lease.leases ORDER BY name;
SELECT * FROM lease.try_acquire_all('{0,b}', '1 min');
SELECT name FROM lease.try_acquire_all('{0,c}', '1 min');
SELECT pg_temp.advance_lease_clock('10 min');

-- What is past its TTL is in nobody's way.
SELECT name FROM lease.try_acquire_all('{0,a,b,c}', '1 min');
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

--
-- Modes
--
SELECT name FROM lease.acquire_all('{a,b}', '1 h', mode => 'shared');
SELECT name FROM lease.try_acquire_all('{b,c}', '1 h', mode => 'shared');
SELECT * FROM lease.try_acquire_all('{c,d}');
SELECT name, mode FROM held;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

--
-- Scope session: counted, name by name
--
SELECT lease.acquire('b', scope => 'session') AS b \gset
TRUNCATE got;
INSERT INTO got SELECT * FROM lease.acquire_all('{c,b,a}', scope => 'session');
SELECT name, token = :b AS same FROM got;
SELECT count(*) FROM lease.ledger WHERE kind = 'grant';
SELECT name, released FROM lease.release_all('{a,b}', (SELECT array_agg(token ORDER BY name) FROM got WHERE name < 'c'));
SELECT name FROM held;
SELECT lease.release('b', :b);
SELECT name FROM held;

-- One that is taken gives back the count of those that are not.
SELECT lease.acquire('b', scope => 'session') AS b \gset
SELECT lease.acquire('x', '1 h') AS x \gset
SELECT * FROM lease.try_acquire_all('{b,d,x}', scope => 'session');
SELECT pg_temp.attempt($$SELECT * FROM lease.acquire_all('{b,d,x}', scope => 'session', wait => '1 ms')$$) ~ '^55P03: could not obtain lease "x" in time' AS timed_out;
SELECT name FROM held;
SELECT lease.release('b', :b), lease.is_held('b', :b);
SELECT lease.release('x', :x);

-- An upgrade of one of them is refused, and none is held.
SELECT lease.acquire('b', mode => 'shared', scope => 'session') AS b \gset
SELECT pg_temp.attempt($$SELECT * FROM lease.acquire_all('{a,b,e}', scope => 'session')$$);
SELECT name, mode FROM held;
SELECT lease.release('b', :b);
SELECT lease.release_session();
SELECT leases_used FROM lease.status;

--
-- Scope transaction
--
BEGIN;
SELECT name FROM lease.acquire_all('{a,b}', scope => 'transaction');
SAVEPOINT one;
SELECT name FROM lease.acquire_all('{b,c}', scope => 'transaction');
SELECT name, scope FROM held;
ROLLBACK TO one;
SELECT name FROM held;
SAVEPOINT two;
SELECT name FROM lease.try_acquire_all('{b,d}', scope => 'transaction');
RELEASE two;
SELECT name FROM held;
ROLLBACK;
SELECT count(*) FROM held;

-- Detached ones stay.
BEGIN;
SELECT name FROM lease.acquire_all('{a,b}', '1 h');
ROLLBACK;
SELECT name FROM held;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

-- An error in the middle, caught: nothing is left of it.
SELECT lease.acquire_permit('m', 2, ttl => '1 h') AS m \gset
BEGIN;
SELECT name FROM lease.acquire_all('{a,b}', scope => 'transaction');
SELECT pg_temp.attempt(format('SELECT * FROM lease.acquire_all(''{b,c,m}'', scope => %L)', scope))
FROM unnest(ARRAY['transaction', 'session']) scope;
SELECT name FROM held;

-- A detached lease is not the session's, which waits for itself: that never ends.
SET deadlock_timeout = '10 ms';
SELECT pg_temp.attempt($$SELECT * FROM lease.acquire_all('{0,b,c}')$$) ~ '^40P01: deadlock detected' AS never_ends;
RESET deadlock_timeout;
SELECT name FROM held;
COMMIT;
SELECT pg_temp.attempt($$SELECT * FROM lease.acquire_all('{b,c,m}')$$) ~ '^22023: "m" is in use as a semaphore' AS refused;
SELECT name FROM held;
SELECT lease.release('m', :m);
SELECT leases_used FROM lease.status;

--
-- The same request retried after a lost reply counts once and gives the same tokens
--
TRUNCATE got;
INSERT INTO got SELECT * FROM lease.acquire_all('{a,b,c}', '10 min', holder => 'h', request_id => 'r');
SELECT pg_temp.advance_lease_clock('9 min');
SELECT name, token = (SELECT got.token FROM got WHERE got.name = retry.name) AS same
FROM lease.acquire_all('{c,a,b}', '10 min', request_id => 'r') retry;
SELECT pg_temp.advance_lease_clock('9 min');
SELECT name, token = (SELECT got.token FROM got WHERE got.name = retry.name) AS same
FROM lease.try_acquire_all('{c,a,b}', '10 min', request_id => 'r') retry;
SELECT bool_and(lease.is_held(name, token)) FROM got;
SELECT count(*) FROM lease.leases;
SELECT count(*) FROM lease.ledger WHERE kind = 'grant';

-- One was released in between: it is granted anew, the others stay.
SELECT lease.release(name, token) FROM got WHERE name = 'b';
SELECT name, token = (SELECT got.token FROM got WHERE got.name = retry.name) AS same
FROM lease.acquire_all('{a,b,c}', '10 min', request_id => 'r') retry;

-- Or somebody else has it: then there is none, and what the first call got stays.
SELECT lease.release(name, token) FROM lease.leases WHERE name = 'b';
SELECT lease.acquire('b', '10 min', holder => 'next') AS b \gset
SELECT * FROM lease.try_acquire_all('{a,b,c}', '10 min', request_id => 'r');
SELECT name, holder FROM held;
SELECT lease.is_held(name, token) FROM got WHERE name <> 'b';

-- Another mode, scope or holder is a mistake of the client's.
SELECT lease.release('b', :b);
SELECT pg_temp.attempt($$SELECT * FROM lease.acquire_all('{a,b}', mode => 'shared', request_id => 'r')$$) ~ '^22023: request id "r"' AS refused,
       pg_temp.attempt($$SELECT * FROM lease.acquire_all('{b,c}', holder => 'not h', request_id => 'r')$$) ~ '^22023: request id "r"' AS refused;
SELECT name FROM held;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

--
-- A thousand of them
--
TRUNCATE got;
INSERT INTO got SELECT * FROM lease.acquire_all((SELECT array_agg(i::text ORDER BY -i) FROM generate_series(1, 1000) i), '1 h');
SELECT count(*), count(DISTINCT token), count(*) FILTER (WHERE lease.is_held(name, token)) AS held FROM got;
SELECT * FROM lease.try_acquire_all((SELECT array_agg(i::text) FROM generate_series(1000, 2000) i));
SELECT count(*) FROM lease.leases;
SELECT count(*) FILTER (WHERE released) AS released
FROM lease.release_all((SELECT array_agg(name ORDER BY token) FROM got), (SELECT array_agg(token ORDER BY token) FROM got));
SELECT count(*) FROM lease.acquire_all((SELECT array_agg(i::text) FROM generate_series(1, 1000) i), scope => 'session');
SELECT lease.release_session();
BEGIN;
SELECT count(*) FROM lease.acquire_all((SELECT array_agg(i::text) FROM generate_series(1, 1000) i), scope => 'transaction');
COMMIT;
SELECT leases_used, waiters FROM lease.status;
SELECT count(*) FROM lease.ledger WHERE kind = 'grant';
