--
-- Fences: the largest token that a resource has seen.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = warning;
CREATE ROLE regress_owner;
CREATE ROLE regress_mate IN ROLE regress_owner;
CREATE ROLE regress_stranger;
SELECT count(lease.allow(r::regrole)) FROM unnest(ARRAY['regress_owner', 'regress_mate', 'regress_stranger']) r \gset

-- Three tokens, each larger than the one before, and what fences have seen of them.
SELECT lease.acquire('one', '1 h') AS t1 \gset
SELECT lease.acquire('two', '1 h') AS t2 \gset
SELECT lease.acquire('three', '1 h') AS t3 \gset
CREATE FUNCTION pg_temp.nth(token bigint) RETURNS text LANGUAGE sql AS $$ SELECT name FROM lease.leases l WHERE l.token = $1 $$;
CREATE TEMPORARY VIEW seen AS SELECT resource, pg_temp.nth(token) AS token, owner FROM lease.fences ORDER BY resource COLLATE "C";
CREATE FUNCTION pg_temp.fence(resource text, token bigint) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(pg_temp.attempt(format('SELECT lease.fence(%L, %s)', resource, token)), 'Token \d+', 'Token TOKEN') $$;

--
-- A ratchet
--
SELECT lease.fence('bucket', :t2) = :t2 AS the_token;
SELECT lease.fence('bucket', :t2) = :t2 AS equal_token;
SELECT pg_temp.fence('bucket', :t1), pg_temp.fence('Bucket', :t1) AS another;
SELECT lease.fence('bucket', :t3) = :t3 AS larger_token;
SELECT substr(pg_temp.fence('bucket', t), 1, 5) AS refused FROM unnest(ARRAY[:t1, :t2]) t;
SELECT * FROM seen;
SELECT count(*) FROM lease.fences WHERE fenced_at BETWEEN now() - interval '1 h' AND clock_timestamp();

-- The token counts, not whether its lease lives on.
SELECT lease.acquire('gone', '1 h') AS gone \gset
SELECT lease.release('gone', :gone);
SELECT lease.fence('bucket', :gone) = :gone AS released, substr(pg_temp.fence('bucket', :t3), 1, 5) AS former;

--
-- With the transaction
--
BEGIN;
SELECT lease.fence('disk', :t1) \gset
SAVEPOINT s;
SELECT lease.fence('disk', :t3) \gset
SELECT lease.fence('new', :t3) \gset
SELECT substr(pg_temp.fence('disk', :t2), 1, 5) AS refused;
ROLLBACK TO s;
SELECT lease.fence('disk', :t2) = :t2 AS accepted;
COMMIT;
BEGIN;
SELECT lease.fence('disk', :t3) \gset
ROLLBACK;
SELECT * FROM seen;
SELECT lease.fence('disk', :t2) = :t2 AS accepted;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT lease.fence('disk', :t3) = :t3 AS accepted, lease.fence('other', :t1) = :t1 AS accepted, lease.fence('other', :t2) = :t2 AS accepted;
COMMIT;

-- What is refused takes with it what the transaction wrote.
CREATE TABLE effect (what text);
BEGIN;
INSERT INTO effect VALUES ('stale');
\set VERBOSITY sqlstate
SELECT lease.fence('disk', :t1);
\set VERBOSITY default
COMMIT;
WITH w AS (INSERT INTO effect SELECT 'fenced' WHERE lease.fence('disk', :t3) > 0 RETURNING what) SELECT * FROM w;
TABLE effect;
DROP TABLE effect;

--
-- Bad input
--
SELECT args, regexp_replace(regexp_replace(pg_temp.attempt(format('SELECT lease.fence(%s)', args)), '(x{9})x+', '\1...'), 'is \d{13,}', 'is TOKEN') FROM unnest(ARRAY['NULL, 1', '''x'', NULL', ''''', 1', 'repeat(''x'', 256), 1', 'repeat(''é'', 128), 1',
	'''x'', 0', '''x'', -1', '''x'', 9007199254740992', '''x'', 9007199254740991', '''bucket'', 9007199254740991']) args;
SELECT lease.fence(repeat('x', 255), :t1) = :t1 AS accepted;
SELECT next_token AS next FROM lease.status \gset
SELECT substr(pg_temp.fence('bucket', :next + 100000), 1, 5) AS not_yet_granted;
SELECT lease.fence('small', 1) AS of_long_ago;
BEGIN READ ONLY;
SELECT pg_temp.attempt('SELECT lease.fence(''bucket'', 1)');
COMMIT;

--
-- The owner is the role that first used it
--
SET ROLE regress_owner;
SELECT lease.fence('mine', :t1) = :t1 AS accepted;
SET ROLE regress_mate;
SELECT lease.fence('mine', :t2) = :t2 AS accepted, lease.fence('the mate''s', :t1) = :t1 AS accepted;
SET ROLE regress_owner;
SELECT pg_temp.fence('the mate''s', :t2);
SET ROLE regress_stranger;
SELECT pg_temp.fence('mine', :t3), pg_temp.fence('mine', :t1) AS whatever_the_token;
SELECT pg_temp.attempt('SELECT * FROM lease.fences'), pg_temp.attempt('DELETE FROM lease.fences');
RESET ROLE;
SELECT lease.fence('mine', :t3) = :t3 AS superuser;
SELECT * FROM seen WHERE resource ~ 'mine|mate';

SELECT bool_and(lease.release(name, token)) FROM lease.leases \gset
DELETE FROM lease.fences;
SELECT count(lease.disallow(r::regrole)) FROM unnest(ARRAY['regress_owner', 'regress_mate', 'regress_stranger']) r \gset
DROP ROLE regress_owner, regress_mate, regress_stranger;
