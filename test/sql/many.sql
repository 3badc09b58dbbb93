--
-- Several leases in one call: renew_all and release_all.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SELECT lease.try_acquire('a', ttl => '10 min') AS a \gset
SELECT lease.try_acquire('b', ttl => '10 min') AS b \gset
SELECT lease.try_acquire('c', ttl => '10 min') AS c \gset

-- Each gets a fresh TTL, its own or the one that is given.
SELECT pg_temp.advance_lease_clock('9 min');
SELECT name, token = (ARRAY[:c, :a, :b])[ordinality] AS token, renewed
FROM lease.renew_all(ARRAY['c', 'a', 'b'], ARRAY[:c, :a, :b]) WITH ORDINALITY;
SELECT pg_temp.advance_lease_clock('9 min');
SELECT name, renewed FROM lease.renew_all(ARRAY['a', 'b', 'c'], ARRAY[:a, :b, :c], '1 h');
SELECT name, ttl, remaining > interval '59 min' AS fresh FROM lease.leases ORDER BY name;

-- One of them is lost: it is told, the others are renewed.
SELECT lease.release('b', :b);
SELECT lease.try_acquire('b', ttl => '10 min', holder => 'somebody else') AS theirs \gset
SELECT name, renewed FROM lease.renew_all(ARRAY['a', 'b', 'c'], ARRAY[:a, :b, :c], '2 h');
SELECT name, ttl FROM lease.leases ORDER BY name;
SELECT name, released FROM lease.release_all(ARRAY['a', 'b', 'c'], ARRAY[:a, :b, :c]);
SELECT name, token = :theirs AS theirs FROM lease.leases;

-- None, one, and one twice.
SELECT * FROM lease.renew_all('{}', '{}');
SELECT * FROM lease.release_all('{}', '{}');
SELECT renewed FROM lease.renew_all(ARRAY['b'], ARRAY[:theirs], '1 h');
SELECT renewed FROM lease.renew_all(ARRAY['b', 'b'], ARRAY[:theirs, :theirs]);
SELECT released FROM lease.release_all(ARRAY['b', 'b'], ARRAY[:theirs, :theirs]);

-- Bounds other than 1 are bounds like any other.
SELECT lease.try_acquire('a', ttl => '10 min') AS a \gset
SELECT name, renewed FROM lease.renew_all('[0:0]={a}', ARRAY[:a]);

--
-- All is checked before anything is done.
--
SELECT lease.try_acquire('b', ttl => '10 min') AS b \gset
SELECT pg_temp.attempt(format($$SELECT lease.renew_all('{a,b}', '{%s}', '1 h')$$, :a));
SELECT pg_temp.attempt(format($$SELECT lease.renew_all('{a}', '{%s,%s}', '1 h')$$, :a, :b));
SELECT pg_temp.attempt(format($$SELECT lease.renew_all('{a,NULL}', '{%s,%s}', '1 h')$$, :a, :b));
SELECT pg_temp.attempt(format($$SELECT lease.renew_all('{a,b}', '{%s,NULL}', '1 h')$$, :a));
SELECT pg_temp.attempt(format($$SELECT lease.renew_all('{a,""}', '{%s,%s}', '1 h')$$, :a, :b));
SELECT pg_temp.attempt(format($$SELECT lease.renew_all('{a,b}', '{%s,0}', '1 h')$$, :a));
SELECT pg_temp.attempt(format($$SELECT lease.renew_all('{{a},{b}}', '{%s,%s}', '1 h')$$, :a, :b));
SELECT pg_temp.attempt(format($$SELECT lease.renew_all('{a,b}', '{%s,%s}', '0')$$, :a, :b));
SELECT pg_temp.attempt(format($$SELECT lease.renew_all(NULL, '{%s,%s}')$$, :a, :b));
SELECT pg_temp.attempt($$SELECT lease.renew_all('{a,b}', NULL)$$);
SELECT pg_temp.attempt(format($$SELECT lease.release_all('{a,b}', '{%s}')$$, :a));
SELECT pg_temp.attempt(format($$SELECT lease.release_all('{a,NULL}', '{%s,%s}')$$, :a, :b));
SELECT pg_temp.attempt(format($$SELECT lease.release_all('{a,b}', '{%s,NULL}')$$, :a));
SELECT pg_temp.attempt(format($$SELECT lease.release_all('{a,b}', '{%s,-1}')$$, :a));
SELECT pg_temp.attempt(format($$SELECT lease.release_all('{a,%s}', '{%s,%s}')$$, repeat('x', 256), :a, :b)) ~ '^22023' AS refused;
SELECT pg_temp.attempt(format($$SELECT lease.release_all(NULL, '{%s,%s}')$$, :a, :b));
SELECT pg_temp.attempt($$SELECT lease.release_all('{a,b}', NULL)$$);
SELECT name, ttl FROM lease.leases ORDER BY name;

-- So are privileges: one that is another role's, and none is touched.
CREATE ROLE regress_lease_other;
SELECT lease.allow('regress_lease_other');
SET ROLE regress_lease_other;
SELECT lease.try_acquire('c', ttl => '10 min') AS c \gset
SELECT pg_temp.attempt(format($$SELECT lease.renew_all('{c,a}', '{%s,%s}', '1 h')$$, :c, :a));
SELECT pg_temp.attempt(format($$SELECT lease.release_all('{c,a}', '{%s,%s}')$$, :c, :a));
RESET ROLE;
SELECT name, ttl FROM lease.leases ORDER BY name;

-- A ROLLBACK takes nothing back.
BEGIN;
SELECT name, released FROM lease.release_all(ARRAY['a', 'b', 'c'], ARRAY[:a, :b, :c]);
ROLLBACK;
SELECT count(*) FROM lease.leases;
SELECT lease.disallow('regress_lease_other');
DROP ROLE regress_lease_other;
