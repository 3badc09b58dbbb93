--
-- Leases taken where statements are not what they seem: in procedures that
-- commit, through cursors, in exception blocks, in plans that would be parallel.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
CREATE TEMPORARY VIEW held AS SELECT name, scope FROM lease.leases ORDER BY name;

--
-- A procedure that commits: transaction scope ends there, session scope goes on
--
CREATE PROCEDURE pg_temp.commits_between() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lease.acquire('of session', scope => 'session');
	PERFORM lease.acquire('before', scope => 'transaction');
	COMMIT;
	RAISE NOTICE 'after COMMIT: %', (SELECT string_agg(name, ', ') FROM held);
	PERFORM lease.acquire('after', scope => 'transaction');
	RAISE NOTICE 'in the next transaction: %', (SELECT string_agg(name, ', ') FROM held);
	ROLLBACK;
	RAISE NOTICE 'after ROLLBACK: %', (SELECT string_agg(name, ', ') FROM held);
	PERFORM lease.acquire('last', scope => 'transaction');
END
$$;
CALL pg_temp.commits_between();
SELECT * FROM held;
SELECT lease.release_session();

-- One that holds a lease over its transactions.
CREATE PROCEDURE pg_temp.works() LANGUAGE plpgsql AS $$
DECLARE
	token bigint := lease.acquire('work', '1 h');
BEGIN
	FOR i IN 1 .. 3 LOOP
		PERFORM lease.renew('work', token);
		COMMIT;
	END LOOP;
	RAISE NOTICE 'released: %', lease.release('work', token);
END
$$;
CALL pg_temp.works();

--
-- Cursors: a row is taken when it is fetched, and not before
--
BEGIN;
DECLARE one CURSOR FOR SELECT lease.acquire('cursor/' || i, scope => 'transaction') > 0 AS got FROM generate_series(1, 5) i;
FETCH 2 FROM one;
SELECT * FROM held;
SAVEPOINT s;
FETCH 1 FROM one;
SELECT * FROM held;
ROLLBACK TO s;
SELECT * FROM held;
CLOSE one;
SELECT count(*) AS still_held FROM held;
COMMIT;
SELECT count(*) AS over FROM held;

-- One WITH HOLD is run to its end when its transaction commits.
BEGIN;
DECLARE kept CURSOR WITH HOLD FOR SELECT lease.acquire('hold/' || i, scope => 'session') > 0 AS got FROM generate_series(1, 3) i;
FETCH 1 FROM kept;
COMMIT;
SELECT * FROM held;
FETCH ALL FROM kept;
CLOSE kept;
SELECT lease.release_session();

-- An error while a portal is open takes what was its transaction's.
BEGIN;
DECLARE failing CURSOR FOR SELECT lease.acquire('x', scope => 'transaction') / (i - 2) IS NOT NULL AS got FROM generate_series(1, 3) i;
FETCH 1 FROM failing;
SELECT * FROM held;
FETCH 1 FROM failing;
ROLLBACK;
SELECT count(*) AS over FROM held;

--
-- Exception blocks, one in the other
--
DO $$
BEGIN
	PERFORM lease.acquire('outer', scope => 'transaction');
	BEGIN
		PERFORM lease.acquire('middle', scope => 'transaction');
		PERFORM lease.acquire('outer', scope => 'transaction');
		BEGIN
			PERFORM lease.acquire('inner', scope => 'transaction');
			PERFORM lease.acquire('of session', scope => 'session');
			PERFORM lease.acquire('', scope => 'transaction');
		EXCEPTION WHEN invalid_parameter_value THEN
			RAISE NOTICE 'inner block failed: %', (SELECT string_agg(name, ', ') FROM held);
		END;
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE 'middle block failed: %', (SELECT string_agg(name, ', ') FROM held);
	END;
END
$$;
SELECT * FROM held;
SELECT lease.release_session();

--
-- A parallel worker must not take a lease, which its leader would not know
--
BEGIN;
ALTER FUNCTION lease.try_acquire PARALLEL SAFE;
ALTER FUNCTION lease.try_acquire_all PARALLEL SAFE;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SELECT set_config(name, 'on', true) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SELECT pg_temp.attempt($$SELECT lease.try_acquire('x', scope => 'session') FROM pg_class$$);
SELECT pg_temp.attempt($$SELECT lease.try_acquire_all('{x}') FROM pg_class$$);
ROLLBACK;
SELECT count(*) AS held FROM held;
SELECT leases_used FROM lease.status;
