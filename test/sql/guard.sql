--
-- Guarded transactions: they commit only while their leases are held.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = warning;
SET lock_timeout = '30 s';
CREATE ROLE regress_owner;
CREATE ROLE regress_mate IN ROLE regress_owner;
CREATE ROLE regress_stranger;
SELECT count(lease.allow(r::regrole)) FROM unnest(ARRAY['regress_owner', 'regress_mate', 'regress_stranger']) r \gset
CREATE TABLE effect (what text);
CREATE TEMPORARY VIEW held AS SELECT name, scope, closed_until IS NOT NULL AS closed, pinned_by FROM lease.leases ORDER BY name;
CREATE FUNCTION pg_temp.lose(name text) RETURNS integer LANGUAGE sql AS $$ SELECT lease.force_release(name, 'test') $$;
CREATE FUNCTION pg_temp.effects() RETURNS text LANGUAGE sql AS $$ SELECT string_agg(what, ', ' ORDER BY what) FROM effect $$;

-- What COMMIT says has a token in it.
\set VERBOSITY sqlstate

--
-- Checked at once
--
SELECT lease.acquire('a', '1 h') AS t \gset
SELECT lease.guard('a', :t) = :t AS the_token;
SELECT pg_temp.attempt(format('SELECT lease.guard(%s)', args)) FROM unnest(ARRAY[
	'''a'', 1', '''other'', ' || :t, '''a'', 9007199254740991',
	'NULL, 1', '''a'', NULL', ''''', 1', 'repeat(''x'', 256), 1', '''a'', 0', '''a'', -1']) args;
BEGIN READ ONLY;
SELECT pg_temp.attempt(format('SELECT lease.guard(''a'', %s)', :t));
COMMIT;
SET ROLE regress_stranger;
SELECT pg_temp.attempt(format('SELECT lease.guard(''a'', %s)', :t));
RESET ROLE;

-- Past its TTL it is lost, reaped or not, wanted or not.
SELECT lease.acquire('late', '1 min') AS late \gset
SELECT pg_temp.advance_lease_clock('1 min') \gset
SELECT pg_temp.attempt(format('SELECT lease.guard(''late'', %s)', :late)) ~ '^LE001' AS lost;
SELECT lease.acquire('taken', '1 h') AS former \gset
SELECT lease.transfer('taken', :former, 'next') AS t2 \gset
SELECT pg_temp.attempt(format('SELECT lease.guard(''taken'', %s)', :former));
SELECT lease.release('taken', :t2) \gset

-- What was refused is not guarded.
BEGIN;
SELECT pg_temp.attempt(format('SELECT lease.guard(''late'', %s)', :late)) ~ '^LE001' AS lost;
INSERT INTO effect VALUES ('after a refusal');
COMMIT;
SELECT pg_temp.effects();
TRUNCATE effect;

--
-- Checked at commit
--

-- Held: by its TTL, or a renewed one; however often it is guarded.
BEGIN;
INSERT INTO effect VALUES ('held');
SELECT lease.guard('a', :t) = :t, lease.guard('a', :t) = :t;
SELECT pg_temp.advance_lease_clock('50 min') \gset
COMMIT;
BEGIN;
INSERT INTO effect VALUES ('renewed');
SELECT lease.renew('a', :t) \gset
SELECT lease.guard('a', :t) \gset
SELECT pg_temp.advance_lease_clock('50 min') \gset
SELECT lease.renew('a', :t) \gset
SELECT pg_temp.advance_lease_clock('50 min') \gset
COMMIT;
SELECT * FROM held;

-- Lost: to its TTL, ...
BEGIN;
INSERT INTO effect VALUES ('expired');
SELECT lease.guard('a', :t) \gset
SELECT pg_temp.advance_lease_clock('1 h') \gset
COMMIT;
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('shortened');
SELECT lease.guard('a', :t) \gset
SELECT lease.renew('a', :t, '1 min') \gset
SELECT pg_temp.advance_lease_clock('1 min') \gset
COMMIT;

-- ... by force, also if the name is had again, ...
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('forced');
SELECT lease.guard('a', :t) \gset
SELECT pg_temp.lose('a') \gset
COMMIT;
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('had again');
SELECT lease.guard('a', :t) \gset
SELECT pg_temp.lose('a') \gset
SELECT lease.acquire('a', '1 h') AS t \gset
SELECT lease.guard('a', :t) \gset
COMMIT;

-- ... to a transfer: not even to oneself is it the same lease.
BEGIN;
INSERT INTO effect VALUES ('transferred');
SELECT lease.guard('a', :t) \gset
SELECT lease.transfer('a', :t, 'me') AS t \gset
COMMIT;
SELECT pg_temp.effects();
SELECT * FROM held;

-- A transaction that ended takes its guards with it.
BEGIN;
SELECT lease.guard('a', :t) \gset
COMMIT AND CHAIN;
INSERT INTO effect VALUES ('chained');
SELECT pg_temp.lose('a') \gset
COMMIT;
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
SELECT lease.guard('a', :t) \gset
ROLLBACK;
BEGIN;
INSERT INTO effect VALUES ('after ROLLBACK');
SELECT pg_temp.lose('a') \gset
COMMIT;
SELECT pg_temp.effects();
TRUNCATE effect;

-- All of them are checked; those that were before one is lost are free again.
SELECT lease.acquire('a', '1 h') AS a, lease.acquire('b', '1 h') AS b, lease.acquire('c', '1 h') AS c \gset
BEGIN;
INSERT INTO effect VALUES ('one of three is lost');
SELECT lease.guard('a', :a), lease.guard('b', :b), lease.guard('c', :c) \gset
SELECT pg_temp.lose('b') \gset
COMMIT;
SELECT * FROM held;
SELECT lease.release('a', :a), lease.try_acquire('a', '1 h') > :a AS open_again;
SELECT bool_and(lease.release(name, token)) FROM lease.leases \gset

-- More than are shown, more than there was room for at first.
SELECT count(lease.acquire('many/' || i, '1 h')) FROM generate_series(1, 100) i;
BEGIN;
INSERT INTO effect VALUES ('many');
SELECT count(lease.guard(name, token)) FROM lease.leases;
COMMIT;
BEGIN;
INSERT INTO effect VALUES ('many and a lost one');
SELECT count(lease.guard(name, token)) FROM lease.leases;
SELECT pg_temp.lose('many/100') \gset
COMMIT;
SELECT pg_temp.effects();
SELECT count(*), count(pinned_by) FROM lease.leases;
SELECT bool_and(lease.release(name, token)) FROM lease.leases \gset
TRUNCATE effect;

-- Shared leases and permits, each on its own.
SELECT lease.acquire('s', '1 h', mode => 'shared') AS s1, lease.acquire('s', '1 h', mode => 'shared') AS s2 \gset
SELECT lease.acquire_permit('p', 3, 2, '1 h') AS p1, lease.acquire_permit('p', 3, 1, '1 h') AS p2 \gset
BEGIN;
INSERT INTO effect VALUES ('another''s is lost');
SELECT lease.guard('s', :s1), lease.guard('p', :p1) \gset
SELECT lease.release('s', :s2), lease.release('p', :p2);
COMMIT;
SELECT lease.acquire('s', '1 h', mode => 'shared') AS s2, lease.acquire_permit('p', 3, 1, '1 h') AS p2 \gset
BEGIN;
INSERT INTO effect VALUES ('shared one is lost');
SELECT lease.guard('s', :s1) \gset
SELECT lease.force_release('s', 'test', :s1);
COMMIT;
BEGIN;
INSERT INTO effect VALUES ('permit is lost');
SELECT lease.guard('p', :p1) \gset
SELECT lease.force_release('p', 'test', :p1);
COMMIT;
SELECT pg_temp.effects();
SELECT bool_and(lease.release(name, token)) FROM lease.leases \gset
TRUNCATE effect;

--
-- Savepoints
--
SELECT lease.acquire('a', '1 h') AS t \gset

-- Rolled back: dropped.
BEGIN;
INSERT INTO effect VALUES ('rolled back');
SAVEPOINT one;
SELECT lease.guard('a', :t) \gset
ROLLBACK TO one;
SELECT pg_temp.lose('a') \gset
COMMIT;

-- Released: the parent's, and dropped with that.
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('released');
SAVEPOINT one;
SAVEPOINT two;
SELECT lease.guard('a', :t) \gset
RELEASE two;
RELEASE one;
SELECT pg_temp.lose('a') \gset
COMMIT;
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('rolled back with the parent');
SAVEPOINT one;
SAVEPOINT two;
SELECT lease.guard('a', :t) \gset
RELEASE two;
ROLLBACK TO one;
SELECT pg_temp.lose('a') \gset
COMMIT;

-- Released, it is no business of a savepoint that comes later.
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('released, then another rolled back');
SAVEPOINT one;
SELECT lease.guard('a', :t) \gset
RELEASE one;
SAVEPOINT one;
ROLLBACK TO one;
SELECT pg_temp.lose('a') \gset
COMMIT;

-- Guarded outside, too, it stays so; before, or after the inner one is gone.
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('outside before');
SELECT lease.guard('a', :t) \gset
SAVEPOINT one;
SELECT lease.guard('a', :t) \gset
ROLLBACK TO one;
SELECT pg_temp.lose('a') \gset
COMMIT;
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('outside after');
SAVEPOINT one;
SELECT lease.guard('a', :t) \gset
ROLLBACK TO one;
SELECT lease.guard('a', :t) \gset
SELECT pg_temp.lose('a') \gset
COMMIT;

-- Others in the same transaction are not touched.
SELECT lease.acquire('a', '1 h') AS a, lease.acquire('b', '1 h') AS b, lease.acquire('c', '1 h') AS c \gset
BEGIN;
INSERT INTO effect VALUES ('outer one is lost');
SELECT lease.guard('a', :a) \gset
SAVEPOINT one;
SELECT lease.guard('b', :b) \gset
ROLLBACK TO one;
SELECT lease.guard('c', :c) \gset
SELECT pg_temp.lose('a') \gset
COMMIT;
BEGIN;
INSERT INTO effect VALUES ('later one is lost');
SAVEPOINT one;
SELECT lease.guard('b', :b) \gset
ROLLBACK TO one;
SELECT lease.guard('c', :c) \gset
SELECT pg_temp.lose('c') \gset
COMMIT;
SELECT pg_temp.effects();
SELECT bool_and(lease.release(name, token)) FROM lease.leases \gset
TRUNCATE effect;

-- Exception blocks are savepoints.
SELECT lease.acquire('a', '1 h') AS t \gset
SELECT set_config('test.token', :'t', false) \gset
DO $$
BEGIN
	INSERT INTO effect VALUES ('an exception');
	BEGIN
		PERFORM lease.guard('a', current_setting('test.token')::bigint);
		RAISE EXCEPTION 'no';
	EXCEPTION WHEN raise_exception THEN
		PERFORM pg_temp.lose('a');
	END;
END
$$;
SELECT lease.acquire('a', '1 h') AS t \gset
SELECT set_config('test.token', :'t', false) \gset
DO $$
BEGIN
	INSERT INTO effect VALUES ('no exception');
	BEGIN
		PERFORM lease.guard('a', current_setting('test.token')::bigint);
	EXCEPTION WHEN raise_exception THEN
		NULL;
	END;
	PERFORM pg_temp.lose('a');
END
$$;

-- A procedure that commits: each of its transactions for itself.
SELECT lease.acquire('a', '1 h') AS t \gset
CREATE PROCEDURE pg_temp.commits(token bigint) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lease.guard('a', token);
	INSERT INTO effect VALUES ('first of a procedure');
	COMMIT;
	INSERT INTO effect VALUES ('second of a procedure');
	PERFORM pg_temp.lose('a');
	COMMIT;
	token := lease.acquire('a', '1 h');
	PERFORM lease.guard('a', token);
	INSERT INTO effect VALUES ('third of a procedure');
	PERFORM pg_temp.lose('a');
	COMMIT;
	INSERT INTO effect VALUES ('fourth of a procedure');
END
$$;
CALL pg_temp.commits(:t);
SELECT pg_temp.effects();
TRUNCATE effect;

-- What a transaction first guards as it commits: in a deferred trigger, or a cursor
-- that is to outlive it.
CREATE FUNCTION guards() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lease.guard('a', token) FROM lease.leases;
	IF NEW.what ~ 'lost' THEN
		PERFORM pg_temp.lose('a');
	END IF;
	RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER guards AFTER INSERT ON effect DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION guards();
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('deferred trigger');
COMMIT;
BEGIN;
INSERT INTO effect VALUES ('deferred trigger, lost');
COMMIT;
DROP TRIGGER guards ON effect;
DROP FUNCTION guards;
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('cursor');
DECLARE held_on CURSOR WITH HOLD FOR SELECT lease.guard('a', :t) = :t AS guarded;
COMMIT;
FETCH ALL FROM held_on;
CLOSE held_on;
BEGIN;
INSERT INTO effect VALUES ('cursor, lost');
DECLARE lost CURSOR WITH HOLD FOR SELECT lease.guard('a', :t), pg_temp.lose('a');
COMMIT;
SELECT pg_temp.effects();
SELECT * FROM held;
TRUNCATE effect;

--
-- Transaction-scoped leases guard without lease.guard
--
BEGIN;
INSERT INTO effect VALUES ('transaction scope');
SELECT lease.acquire('t', scope => 'transaction') \gset
COMMIT;
BEGIN;
INSERT INTO effect VALUES ('transaction scope, lost');
SELECT lease.acquire('t', scope => 'transaction') \gset
SELECT pg_temp.lose('t') \gset
COMMIT;
BEGIN;
INSERT INTO effect VALUES ('transaction scope, expired');
SELECT lease.acquire('t', '1 min', scope => 'transaction') > 0 AS done;
SELECT pg_temp.advance_lease_clock('1 min') \gset
COMMIT;
BEGIN;
INSERT INTO effect VALUES ('transaction scope, lost and had again');
SELECT lease.acquire('t', scope => 'transaction') \gset
SELECT pg_temp.lose('t') \gset
SELECT lease.acquire('t', scope => 'transaction') \gset
COMMIT;
BEGIN;
INSERT INTO effect VALUES ('one of several, lost');
SELECT count(*) FROM lease.acquire_all('{x,y,z}', scope => 'transaction');
SELECT pg_temp.lose('y') \gset
COMMIT;
BEGIN;
INSERT INTO effect VALUES ('permit of a transaction, lost');
SELECT lease.acquire_permit('p', 3, scope => 'transaction') \gset
SELECT pg_temp.lose('p') \gset
COMMIT;

-- The session's, which the transaction acquires as well.
SELECT lease.acquire('t', scope => 'session') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('counted, lost');
SELECT lease.acquire('t', scope => 'transaction') = :t AS same;
SELECT pg_temp.lose('t') \gset
COMMIT;

-- With the savepoint the lease goes, and its guard.
BEGIN;
INSERT INTO effect VALUES ('savepoint of a transaction scope');
SAVEPOINT one;
SELECT lease.acquire('t', scope => 'transaction') \gset
ROLLBACK TO one;
COMMIT;
SELECT pg_temp.effects();
SELECT * FROM held;
TRUNCATE effect;

--
-- PREPARE TRANSACTION
--
\set VERBOSITY default
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('prepared');
SELECT lease.guard('a', :t) \gset
PREPARE TRANSACTION 'guarded';
BEGIN;
INSERT INTO effect VALUES ('prepared');
SELECT lease.acquire('t', scope => 'transaction') \gset
PREPARE TRANSACTION 'holds';
BEGIN;
INSERT INTO effect VALUES ('guarded no more');
SAVEPOINT one;
SELECT lease.guard('a', :t) \gset
ROLLBACK TO one;
PREPARE TRANSACTION 'guarded no more';
SELECT pg_temp.lose('a') \gset
COMMIT PREPARED 'guarded no more';
\set VERBOSITY sqlstate
SELECT pg_temp.effects();
SELECT * FROM held;
TRUNCATE effect;

--
-- Release in the transaction that guards: when that ends, either way
--
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
SELECT lease.release('a', :t) AS "not yet guarded: at once", lease.is_held('a', :t);
ROLLBACK;
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('release');
SELECT lease.guard('a', :t) \gset
SELECT lease.release('a', :t), lease.release('a', :t) AS again;
SELECT lease.is_held('a', :t), lease.try_acquire('a', '1 h') AS taken;
SELECT * FROM held;
COMMIT;
SELECT lease.is_held('a', :t);
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
SELECT lease.guard('a', :t) \gset
SELECT lease.release('a', :t) \gset
ROLLBACK;
SELECT lease.is_held('a', :t);

-- Rolled back with a savepoint: the guard is dropped, the release is not undone.
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
SAVEPOINT one;
SELECT lease.guard('a', :t) \gset
SELECT lease.release('a', :t) \gset
ROLLBACK TO one;
SELECT lease.is_held('a', :t);
COMMIT;
SELECT lease.is_held('a', :t);
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
SELECT lease.guard('a', :t) \gset
SAVEPOINT one;
SELECT lease.release('a', :t) \gset
ROLLBACK TO one;
SELECT lease.is_held('a', :t);
COMMIT;
SELECT lease.is_held('a', :t);

-- Guarded no more, or again, it can be released once more.
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
SAVEPOINT one;
SELECT lease.guard('a', :t) \gset
SELECT lease.release('a', :t) \gset
ROLLBACK TO one;
SELECT lease.release('a', :t) AS at_once, lease.is_held('a', :t);
SELECT lease.acquire('a', '1 h') AS t \gset
COMMIT;
SELECT lease.is_held('a', :t) AS the_next_one_is_not_touched;
BEGIN;
INSERT INTO effect VALUES ('guarded again, lost');
SAVEPOINT one;
SELECT lease.guard('a', :t) \gset
SELECT lease.release('a', :t) \gset
ROLLBACK TO one;
SELECT lease.guard('a', :t) \gset
SELECT lease.release('a', :t), lease.is_held('a', :t);
SELECT pg_temp.lose('a') \gset
COMMIT;

-- Released and lost meanwhile is lost.
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('released, lost');
SELECT lease.guard('a', :t) \gset
SELECT lease.release('a', :t) \gset
SELECT pg_temp.lose('a') \gset
SELECT lease.release('a', :t);
COMMIT;

-- Several at once.
SELECT lease.acquire('a', '1 h') AS a, lease.acquire('b', '1 h') AS b \gset
BEGIN;
SELECT lease.guard('a', :a) \gset
SELECT name, released FROM lease.release_all('{a,b}', ARRAY[:a, :b]);
SELECT * FROM held;
COMMIT;
SELECT * FROM held;

-- min_hold counts, lock_delay does not.
SELECT lease.acquire('a', '1 h', min_hold => '10 min', lock_delay => '30 min') AS t \gset
BEGIN;
SELECT lease.guard('a', :t) \gset
SELECT lease.release('a', :t) \gset
COMMIT;
SELECT * FROM held;
SELECT lease.try_acquire('a', '1 h') AS closed;
SELECT pg_temp.advance_lease_clock('10 min') \gset
SELECT lease.release('a', lease.try_acquire('a', '1 h')) AS open;

-- But what outlives its TTL in the transaction was not released in time: lock_delay counts.
SELECT lease.acquire('late', '1 h', lock_delay => '30 min') AS t \gset
BEGIN;
SELECT lease.guard('late', :t) > 0 AS guarded, lease.release('late', :t);
SELECT pg_temp.advance_lease_clock('61 min');
COMMIT;
SELECT lease.try_acquire('late') IS NULL AS closed;
SELECT lease.force_release('late', 'test', reopen => true);

-- A shared lease and a permit.
SELECT lease.acquire('s', '1 h', mode => 'shared') AS s, lease.acquire_permit('p', 1, ttl => '1 h') AS p \gset
BEGIN;
SELECT lease.guard('s', :s), lease.guard('p', :p) \gset
SELECT lease.release('s', :s), lease.release('p', :p), lease.is_held('s', :s), lease.is_held('p', :p);
COMMIT;
SELECT lease.is_held('s', :s), lease.is_held('p', :p);

-- Of the session: one hold of several; the last one stays as the transaction's.
SELECT lease.acquire('s', scope => 'session') AS t, lease.acquire('s', scope => 'session') \gset
BEGIN;
SELECT lease.guard('s', :t) \gset
SELECT lease.release('s', :t) \gset
COMMIT;
SELECT * FROM held;
BEGIN;
SELECT lease.guard('s', :t) \gset
SELECT lease.release('s', :t), lease.release('s', :t) AS again;
SELECT * FROM held;
COMMIT;
SELECT * FROM held;
SELECT lease.acquire('s', scope => 'session') AS t \gset
BEGIN;
SELECT lease.guard('s', :t) \gset
SELECT lease.release('s', :t) \gset
ROLLBACK;
SELECT * FROM held;
SELECT lease.acquire('s', scope => 'session') AS t \gset
BEGIN;
SAVEPOINT one;
SELECT lease.guard('s', :t) \gset
SELECT lease.release('s', :t) \gset
ROLLBACK TO one;
SELECT * FROM held;
COMMIT;
SELECT * FROM held;

-- Released, and acquired by the session once more.
SELECT lease.acquire('s', scope => 'session') AS t \gset
BEGIN;
SELECT lease.guard('s', :t) \gset
SELECT lease.release('s', :t), lease.acquire('s', scope => 'session') = :t AS same;
COMMIT;
SELECT * FROM held;

-- release_session: what is guarded at the end, the others at once.
BEGIN;
SELECT lease.acquire('s', scope => 'session') = :t AS same, lease.acquire('u', scope => 'session') > 0 AS unguarded;
SELECT lease.guard('s', :t) \gset
SELECT lease.release_session();
SELECT * FROM held;
COMMIT;
SELECT * FROM held;
SELECT lease.acquire('s', scope => 'session') AS t \gset
BEGIN;
INSERT INTO effect VALUES ('release_session, lost');
SELECT lease.guard('s', :t) \gset
SELECT lease.release_session(), lease.release_session() AS again;
SELECT pg_temp.lose('s') \gset
COMMIT;

-- DISCARD ALL has no place in a transaction; after it, it has nothing to do.
SELECT lease.acquire('s', scope => 'session') AS t \gset
BEGIN;
SELECT lease.guard('s', :t) \gset
DISCARD ALL;
ROLLBACK;
SELECT * FROM held;
SELECT lease.release_session();
SELECT pg_temp.effects();
TRUNCATE effect;

-- By a member of the role that took it; whoever the session is by the end.
SET ROLE regress_owner;
SELECT lease.acquire('a', '1 h') AS t \gset
SET ROLE regress_mate;
BEGIN;
SELECT lease.guard('a', :t) \gset
SELECT lease.release('a', :t) \gset
SET LOCAL ROLE regress_stranger;
COMMIT;
RESET ROLE;
SELECT * FROM held;

--
-- Snapshots that last for the transaction
--
SELECT lease.acquire('a', '1 h') AS t \gset
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO effect VALUES ('repeatable read');
SELECT lease.guard('a', :t) \gset
COMMIT;
START TRANSACTION ISOLATION LEVEL SERIALIZABLE;
INSERT INTO effect VALUES ('serializable');
SELECT lease.guard('a', :t) \gset
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO effect VALUES ('repeatable read, lost');
SELECT lease.guard('a', :t) \gset
SELECT pg_temp.lose('a') \gset
COMMIT;
SELECT pg_temp.effects();
TRUNCATE effect;

-- Acquired after the transaction began, though nothing else was read: refused.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT lease.acquire('a', '1 h') AS t \gset
SELECT pg_temp.attempt(format('SELECT lease.guard(''a'', %s)', :t));
SELECT pg_temp.attempt($$SELECT lease.acquire('t', scope => 'transaction')$$);
SELECT pg_temp.attempt($$SELECT lease.acquire_all('{x,y}', scope => 'transaction')$$);
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('p', 3, scope => 'transaction')$$);
SELECT * FROM held;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT lease.guard('a', :t) \gset
SELECT lease.acquire('b', '1 h') AS b \gset
SELECT lease.guard('b', :b);
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT lease.guard('b', :b) = :b AS in_the_next_transaction;
COMMIT AND CHAIN;
SELECT lease.guard('b', :b) = :b AS in_the_next_transaction;
SELECT lease.transfer('b', :b, 'me') AS b \gset
SELECT lease.guard('b', :b);
ROLLBACK;

-- A renewal does not make it a later lease.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT lease.renew('a', :t, '2 h') \gset
SELECT lease.guard('a', :t) \gset
COMMIT;

-- The session's, acquired before, is the transaction's, too.
SELECT lease.acquire('s', scope => 'session') AS s \gset
BEGIN ISOLATION LEVEL REPEATABLE READ;
INSERT INTO effect VALUES ('counted, lost');
SELECT lease.acquire('s', scope => 'transaction') = :s AS same;
SELECT pg_temp.lose('s') \gset
COMMIT;

-- A second BEGIN begins nothing.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT lease.transfer('a', :t, 'me') AS t \gset
BEGIN;
SELECT lease.guard('a', :t);
ROLLBACK;
SELECT pg_temp.effects();

-- Transactions that nobody began.
SET default_transaction_isolation = 'repeatable read';
SELECT lease.guard('a', :t) \gset
SELECT lease.guard('b', lease.transfer('b', :b, 'me'));
SELECT lease.guard(name, token) = token AS in_the_next_statement FROM lease.leases WHERE name = 'b';
CALL lease.campaign('c', '1 h') \gset
SELECT lease.guard(name, token) = token AS guarded FROM lease.leases WHERE name = 'c';
SELECT lease.acquire('d', '1 h') > 0 AS done\; BEGIN\; SELECT lease.guard(name, token) FROM lease.leases WHERE name = 'd';
ROLLBACK;
RESET default_transaction_isolation;

-- Under READ COMMITTED each statement sees what was there when it began.
BEGIN;
SELECT lease.guard('e', lease.acquire('e', '1 h')) > 0 AS guarded;
COMMIT;

SELECT bool_and(lease.release(name, token)) FROM lease.leases \gset
SELECT * FROM held;
DROP TABLE effect;
SELECT count(lease.disallow(r::regrole)) FROM unnest(ARRAY['regress_owner', 'regress_mate', 'regress_stranger']) r \gset
DROP ROLE regress_owner, regress_mate, regress_stranger;
