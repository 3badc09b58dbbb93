--
-- campaign: acquire in a transaction of its own, for long waits.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
CREATE TEMPORARY VIEW held AS
	SELECT name, mode, scope, ttl, holder, request_id, correlation_id, metadata FROM lease.leases ORDER BY name;

-- What is passed for the token does not matter; the token is that of the lease.
CALL lease.campaign('n', '1 h', holder => 'me', token => 42) \gset
SELECT lease.is_held('n', :token);
CALL lease.campaign('m', '10 min', '1 min', 'it', 'shared', 'detached', 'r', 'c', '1 min', '0', '{"m": 1}', NULL) \gset
SELECT lease.is_held('m', :token);
SELECT * FROM held;
SELECT name, lock_delay FROM lease.ledger WHERE kind = 'grant' ORDER BY name;
SELECT :token AS first \gset
CALL lease.campaign('m', mode => 'shared', request_id => 'r') \gset
SELECT :token = :first AS same_for_a_retry;

-- The wait limit, and what is in the way.
\set VERBOSITY sqlstate
CALL lease.campaign('n', wait => '20 ms');
CALL lease.campaign('n', wait => '0');
SET lock_timeout = '20 ms';
CALL lease.campaign('n');
RESET lock_timeout;
SELECT name FROM held;

--
-- Not in a transaction, whatever that looks like
--
BEGIN;
CALL lease.campaign('b');
ROLLBACK;
BEGIN;
SAVEPOINT one;
CALL lease.campaign('b');
ROLLBACK TO one;
SELECT lease.acquire('survivor', scope => 'transaction') > 0 AS not_committed;
ROLLBACK;
\set VERBOSITY default
SELECT pg_temp.attempt($$CALL lease.campaign('b')$$);
CREATE FUNCTION pg_temp.elect() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	mine bigint;
BEGIN
	CALL lease.campaign('b', token => mine);
	RETURN mine;
END
$$;
SELECT pg_temp.attempt('SELECT pg_temp.elect()') ~ '^2D000: ' AS refused;
\set VERBOSITY sqlstate
SELECT pg_temp.elect();
BEGIN;
DO $$
DECLARE
	mine bigint;
BEGIN
	CALL lease.campaign('b', token => mine);
END
$$;
ROLLBACK;
-- Nor below an exception block.
DO $$
DECLARE
	mine bigint;
BEGIN
	CALL lease.campaign('b', token => mine);
EXCEPTION WHEN lock_not_available THEN
	NULL;
END
$$;
-- A procedure with settings of its own may not commit.
CREATE PROCEDURE pg_temp.settled(INOUT mine bigint) LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
	CALL lease.campaign('b', token => mine);
END
$$;
CALL pg_temp.settled(NULL);
\set VERBOSITY default
SELECT name FROM held;

--
-- It commits: what came before in the transaction is done, and it is over
--
CREATE TABLE pg_temp.work (what text, at xid8);
CREATE PROCEDURE pg_temp.lead(name text, INOUT mine bigint) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO pg_temp.work VALUES ('before', pg_current_xact_id());
	PERFORM lease.acquire('gone', scope => 'transaction');
	CREATE TEMPORARY TABLE gone () ON COMMIT DROP;
	CALL lease.campaign(lead.name, '1 h', token => mine);
	ASSERT pg_current_xact_id_if_assigned() IS NULL, 'the transaction is a new one';
	ASSERT to_regclass('pg_temp.gone') IS NULL, 'the former one was committed';
	ASSERT NOT EXISTS (SELECT FROM lease.leases WHERE leases.name = 'gone'), 'its leases ended with it';
	INSERT INTO pg_temp.work VALUES ('after', pg_current_xact_id());
	ROLLBACK;
END
$$;
CALL pg_temp.lead('p', NULL) \gset
SELECT lease.is_held('p', :mine);
SELECT what FROM pg_temp.work;

-- So does one in a DO that may commit, and one after the other.
DO $$
DECLARE
	first  bigint;
	second bigint;
BEGIN
	CALL lease.campaign('d1', '1 h', token => first);
	CALL lease.campaign('d2', '1 h', token => second);
	ASSERT second > first AND lease.is_held('d1', first) AND lease.is_held('d2', second);
END
$$;
SELECT name FROM held;

-- A failed one has committed, too: its caller's work stays.
TRUNCATE pg_temp.work;
\set VERBOSITY sqlstate
DO $$
DECLARE
	mine bigint;
BEGIN
	INSERT INTO pg_temp.work VALUES ('before');
	CALL lease.campaign('p', wait => '0', token => mine);
END
$$;
\set VERBOSITY default
SELECT what FROM pg_temp.work;

SELECT bool_and(lease.release(name, token)) FROM lease.leases;

--
-- Scopes
--
CALL lease.campaign('s', scope => 'session') \gset
SELECT name, scope, ttl FROM held;
SELECT :token AS first \gset
CALL lease.campaign('s', scope => 'session') \gset
SELECT :token = :first AS same, lease.release('s', :token), lease.release('s', :token);
SELECT count(*) FROM held;
\set VERBOSITY sqlstate
CALL lease.campaign('s', scope => 'transaction');
SET lease.allow_session_scope = off;
CALL lease.campaign('s', scope => 'session');
RESET lease.allow_session_scope;
\set VERBOSITY default

--
-- Bad arguments
--
CALL lease.campaign('s', scope => 'transaction');
CALL lease.campaign('');
CALL lease.campaign(NULL);
CALL lease.campaign('x', '0');
CALL lease.campaign('x', wait => '-1 s');
CALL lease.campaign('x', mode => 'permit');
CALL lease.campaign('x', scope => NULL);
CALL lease.campaign('x', scope => 'session', min_hold => '1 s');
SELECT lease.acquire_permit('x', 2, ttl => '1 h') AS x \gset
CALL lease.campaign('x');
SELECT lease.release('x', :x);
SELECT leases_used, waiters FROM lease.status;
