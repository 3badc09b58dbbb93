--
-- Idempotency: a key is claimed once, with the transaction that claims it.
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
CREATE TEMPORARY VIEW held AS SELECT key COLLATE "C" AS key, owner, result, expires_at > now() AS live FROM lease.keys ORDER BY 1;

-- Wait until the clock is past a key's end; a row may be gone by then.
CREATE FUNCTION pg_temp.await_end(wanted text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE EXISTS (SELECT FROM lease.keys WHERE key = wanted AND expires_at > clock_timestamp()) LOOP
		PERFORM pg_sleep(0.001);
	END LOOP;
END
$$;

--
-- The first that commits
--
SELECT lease.once('a'), lease.once('a') AS again, lease.once('A') AS other_key;
SELECT lease.once('a') AS again;
BEGIN;
SELECT lease.once('b'), lease.once('b') AS again;
ROLLBACK;
BEGIN;
SELECT lease.once('b') AS after_a_rollback;
SAVEPOINT s;
SELECT lease.once('c'), lease.once('b') AS again;
ROLLBACK TO s;
SELECT lease.once('c') AS after_a_rollback;
SAVEPOINT s;
SELECT lease.once('d');
RELEASE s;
COMMIT;
SELECT lease.once('b') AS again, lease.once('c') AS again, lease.once('d') AS again;
SELECT * FROM held;
SELECT expires_at - claimed_at BETWEEN '23 h 59 min' AND '1 day' AS a_day_by_default FROM lease.keys WHERE key = 'a';

-- Each effect once, however the statement gets there.
CREATE TABLE effect (what text);
INSERT INTO effect SELECT 'e' FROM generate_series(1, 5) WHERE lease.once('e');
DO $$ BEGIN PERFORM lease.once('f'); INSERT INTO effect VALUES ('f'); RAISE 'undone'; EXCEPTION WHEN raise_exception THEN INSERT INTO effect VALUES (lease.once('f')::text); END $$;
SELECT * FROM effect;
DROP TABLE effect;

-- Snapshots that last for the transaction see what is theirs.
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT lease.once('a') AS again, lease.once('g'), lease.once('g') AS again;
COMMIT;
PREPARE claim AS SELECT lease.once('h');
BEGIN;
EXECUTE claim;
PREPARE TRANSACTION 'regress_once';
COMMIT PREPARED 'regress_once';
EXECUTE claim;

--
-- Results
--
SELECT lease.result('a') IS NULL AS none_yet, lease.save_result('a', '{"paid": [1, null]}'), lease.result('a');
SELECT lease.save_result('a', '"paid"') AS instead, lease.result('a'), lease.save_result('a', 'null') AS json_null, lease.result('a') = 'null' AS json_null;
BEGIN;
SELECT lease.once('i'), lease.save_result('i', '1'), lease.result('i');
SAVEPOINT s;
SELECT lease.save_result('i', '2'), lease.result('i');
ROLLBACK TO s;
SELECT lease.result('i');
COMMIT;
SELECT lease.result('i'), lease.once('i') AS again, lease.result('i');
BEGIN;
SELECT lease.save_result('i', '3');
ROLLBACK;
SELECT lease.result('i');
SELECT lease.save_result('nothing', '1') AS no_such_key, lease.result('nothing') IS NULL AS no_such_key;
SELECT lease.save_result('i', (SELECT jsonb_agg(md5(n::text)) FROM generate_series(1, 10000) n)) AS large, md5(lease.result('i')::text) = md5((SELECT jsonb_agg(md5(n::text)) FROM generate_series(1, 10000) n)::text) AS the_same;
BEGIN READ ONLY;
SELECT jsonb_array_length(lease.result('i'));
SELECT pg_temp.attempt('SELECT lease.once(''x'')'), pg_temp.attempt('SELECT lease.save_result(''i'', ''1'')');
COMMIT;

--
-- An end
--
SELECT lease.once('short', '1 ms'), lease.save_result('short', '1') IN (true, false) AS done;
SELECT pg_temp.await_end('short');
SELECT lease.result('short') IS NULL AS ended, lease.save_result('short', '2') AS ended;
SELECT lease.once('short', '1 h'), lease.once('short') AS again, lease.result('short') IS NULL AS of_its_own;
SELECT expires_at - claimed_at BETWEEN '59 min' AND '1 h' AS a_new_end FROM lease.keys WHERE key = 'short';

-- What has ended is not made to last by who comes too late, or rolls back.
SELECT lease.once('rolled back', '1 ms');
SELECT pg_temp.await_end('rolled back');
BEGIN;
SELECT lease.once('rolled back', '1 h'), lease.save_result('rolled back', '1');
ROLLBACK;
SELECT lease.result('rolled back') IS NULL AS ended, lease.once('rolled back', '1 h');

-- An end counts from the first call alone.
SELECT lease.once('first', '1 h');
SELECT lease.once('first', '2 h') AS again;
SELECT expires_at < now() + interval '1 h' AS as_it_was FROM lease.keys WHERE key = 'first';

--
-- The owner is the role that claimed it
--
SET ROLE regress_owner;
SELECT lease.once('mine'), lease.save_result('mine', '1');
SET ROLE regress_mate;
SELECT lease.once('mine') AS again, lease.save_result('mine', '2'), lease.result('mine'), lease.once('the mate''s');
SET ROLE regress_owner;
SELECT pg_temp.attempt('SELECT lease.once(''the mate''''s'')');
SET ROLE regress_stranger;
SELECT f, pg_temp.attempt('SELECT lease.' || f) FROM unnest(ARRAY['once(''mine'')', 'once(''mine'', ''1 ms'')', 'save_result(''mine'', ''3'')', 'result(''mine'')']) f;
SELECT pg_temp.attempt('SELECT * FROM lease.keys'), pg_temp.attempt('INSERT INTO lease.keys VALUES (''x'', ''regress_stranger'', now(), now())');
RESET ROLE;
SELECT lease.once('mine') AS again, lease.result('mine') AS superuser_sees;
CREATE FUNCTION once_as_owner(key text) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT lease.once(key)';
SET ROLE regress_stranger;
SELECT once_as_owner('definer''s');
RESET ROLE;
DROP FUNCTION once_as_owner;
SELECT key, owner FROM held WHERE key ~ 'mine|mate|definer';

-- Ended, it is anybody's.
SET ROLE regress_owner;
SELECT lease.once('lapsed', '1 ms');
RESET ROLE;
SELECT pg_temp.await_end('lapsed');
SET ROLE regress_stranger;
SELECT lease.result('lapsed') IS NULL AS ended, lease.once('lapsed'), lease.save_result('lapsed', '3');
SET ROLE regress_owner;
SELECT pg_temp.attempt('SELECT lease.once(''lapsed'')'), pg_temp.attempt('SELECT lease.result(''lapsed'')');
RESET ROLE;
SELECT * FROM held WHERE key = 'lapsed';

--
-- Bounds
--
SELECT args, regexp_replace(pg_temp.attempt(format('SELECT lease.once(%s)', args)), '(x{9})x+', '\1...') FROM unnest(ARRAY['NULL', '''x'', NULL', '''''', 'repeat(''x'', 256)', 'repeat(''x'', 255)', 'repeat(''é'', 128)',
	'''x'', ''0''', '''x'', ''999 us''', '''x'', ''-1 s''', '''x'', ''1 month''', '''x'', ''367 days''', '''x'', ''366 days 1 us''', '''y'', ''366 days''', '''z'', ''1 ms''']) args;
SELECT f, pg_temp.attempt('SELECT lease.' || f) FROM unnest(ARRAY['save_result(NULL, ''1'')', 'save_result(''a'', NULL)', 'save_result('''', ''1'')', 'result(NULL)', 'result('''')']) f;

-- What stands first in search_path is not called: it would run as the extension's owner.
CREATE SCHEMA trap AUTHORIZATION regress_stranger;
SET ROLE regress_stranger;
CREATE FUNCTION trap.sprung(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trap sprung by %: %', current_user, $1; END $$;
CREATE FUNCTION trap.texts(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT trap.sprung('texts') $$;
CREATE FUNCTION trap.times(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS $$ SELECT trap.sprung('times') $$;
CREATE FUNCTION trap.numbers(bigint, bigint) RETURNS boolean LANGUAGE sql AS $$ SELECT trap.sprung('numbers') $$;
CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT trap.sprung('clock'); SELECT now() $$;
CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT trap.sprung('now'); SELECT pg_catalog.now() $$;
CREATE FUNCTION trap.min(timestamptz) RETURNS timestamptz LANGUAGE sql AS $$ SELECT trap.sprung('min'); SELECT $1 $$;
DO $$
DECLARE
	operator text;
BEGIN
	FOREACH operator IN ARRAY ARRAY['=', '<', '<=', '>', '>=', '<>'] LOOP
		EXECUTE format('CREATE OPERATOR trap.%s (FUNCTION = trap.texts, LEFTARG = text, RIGHTARG = text)', operator);
		EXECUTE format('CREATE OPERATOR trap.%s (FUNCTION = trap.times, LEFTARG = timestamptz, RIGHTARG = timestamptz)', operator);
		EXECUTE format('CREATE OPERATOR trap.%s (FUNCTION = trap.numbers, LEFTARG = bigint, RIGHTARG = bigint)', operator);
	END LOOP;
END
$$;
CREATE DOMAIN trap.text AS pg_catalog.text CHECK (trap.sprung('type'));
CREATE DOMAIN trap.timestamptz AS pg_catalog.timestamptz CHECK (trap.sprung('type'));
CREATE TEMPORARY TABLE keys (key text, owner oid, expires_at timestamptz, result jsonb, claimed_at timestamptz);
CREATE TEMPORARY TABLE fences (resource text, token bigint, owner oid, fenced_at timestamptz);
RESET ROLE;
SELECT lease.acquire('some', '1 h') AS t \gset

-- Statements are planned anew, and in a session that has never run them.  A key that
-- has ended is one that no reaper sees.
\set expired 'INSERT INTO lease.keys VALUES (''trapped'', ''regress_stranger'', now(), now())'
BEGIN;
:expired;
SET ROLE regress_stranger;
SET search_path = pg_temp, trap, public, pg_catalog;
SELECT lease.once('trapped'), lease.once('trapped'), lease.save_result('trapped', '1'), lease.result('trapped'), lease.once('new');
SELECT lease.fence('trapped', :t) IS NOT NULL AS fenced, lease.fence('trapped', :t) IS NOT NULL AS fenced;
COMMIT;
\c -
SELECT lease.acquire('more', '1 h') AS t2 \gset
BEGIN;
UPDATE lease.keys SET expires_at = now() WHERE key = 'trapped';
SET ROLE regress_stranger;
SET search_path = trap, public, pg_catalog;
SELECT lease.once('trapped'), lease.save_result('trapped', '1'), lease.result('trapped'), lease.once('newer');
SELECT lease.fence('trapped', :t) IS NOT NULL AS fenced, lease.fence('trapped', :t2) IS NOT NULL AS raised, lease.fence('new', :t) IS NOT NULL AS fenced;
COMMIT;
SELECT sprung('set');
RESET search_path;
RESET ROLE;
SET client_min_messages = warning;
DROP SCHEMA trap CASCADE;
SELECT lease.release('some', :t), lease.release('more', :t2);

DELETE FROM lease.keys;
DELETE FROM lease.fences;
SELECT count(lease.disallow(r::regrole)) FROM unnest(ARRAY['regress_owner', 'regress_mate', 'regress_stranger']) r \gset
DROP ROLE regress_owner, regress_mate, regress_stranger;
