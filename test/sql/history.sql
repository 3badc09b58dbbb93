--
-- lease.history: every kind of event, from the call that makes it.
--
-- In a database of its own, whose history begins with its first use.  What takes
-- a wait by others, a deadlock, or a cancel is in ../specs/waiting_stats.spec.
--
\set home :DBNAME
CREATE DATABASE regress_lease_history TEMPLATE template0;
\c regress_lease_history
\set ECHO none
SET client_min_messages = warning;
\pset null -
CREATE EXTENSION lease;
CREATE FUNCTION advance_lease_clock(interval) RETURNS void
	LANGUAGE C AS '$libdir/lease', 'lease_advance_clock';
CREATE SEQUENCE told_up_to MINVALUE 0;

\set where public
\getenv srcdir PG_ABS_SRCDIR
\set wait :srcdir '/sql/include/wait.psql'
\ir :wait

-- A text with its tokens replaced by their ordinals.
CREATE FUNCTION numbered(said text, tokens bigint[]) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. cardinality(tokens) LOOP
		said := replace(said, tokens[i]::text, '#' || i);
	END LOOP;
	RETURN said;
END
$$;

-- What is new in the history since the last look; tokens by their ordinals, so
-- that it is the same in every run.
CREATE FUNCTION told() RETURNS TABLE (event text, name text, token text, mode text, scope text, holder text,
	owner text, waited boolean, held boolean, correlation_id text, detail text) LANGUAGE plpgsql AS $$
DECLARE
	mark   bigint := (SELECT last_value FROM told_up_to);
	tokens bigint[];
BEGIN
	PERFORM wait_until('history_pending = 0 FROM lease.status');
	tokens := ARRAY(
		SELECT h.token FROM lease.history h WHERE h.seq > mark AND h.token > 1
		UNION
		SELECT substring(h.detail, 'token (\d+)')::bigint FROM lease.history h WHERE h.seq > mark AND h.detail ~ 'token \d'
		ORDER BY 1);
	RETURN QUERY
		SELECT h.event, h.name, numbered(h.token::text, tokens), h.mode, h.scope, h.holder,
		       CASE h.owner WHEN current_user THEN 'me' ELSE h.owner::text END,
		       h.waited IS NOT NULL, h.held IS NOT NULL, h.correlation_id,
		       replace(numbered(h.detail, tokens), format('"%s"', current_user), '"me"')
		FROM lease.history h WHERE h.seq > mark ORDER BY h.at, h.seq;
	PERFORM setval('told_up_to', max(h.seq)) FROM lease.history h;
END
$$;

-- Only some of it.
CREATE FUNCTION told_briefly() RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(concat_ws(' ', event, name, token, '(' || detail || ')'), ', ') FROM told()
$$;

-- Run a statement that fails; its SQLSTATE.
CREATE FUNCTION failure(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;
\set VERBOSITY sqlstate
\set ECHO all
SET lease.holder = 'h';

--
-- Beginnings: acquired
--

-- The first use of leases loads them.
SELECT lease.acquire('first', '1 h') AS t \gset
SELECT * FROM told();
SELECT bool_and(at BETWEEN now() - interval '1 min' AND clock_timestamp()) AS just_now,
       bool_and(pid = pg_backend_pid()) AS by_this_process,
       bool_and(token IS NOT DISTINCT FROM nullif(:t, CASE event WHEN 'loaded' THEN :t END)) AS with_its_token
FROM lease.history;

-- Every way to acquire, mode and scope.
SELECT lease.try_acquire('try', '1 h', 'shared', holder => 'another') IS NOT NULL AS done;
SELECT count(*) FROM lease.acquire_all('{b,a}', '1 h');
SELECT lease.acquire_permit('permits', 3, 2, '1 h') IS NOT NULL AS done;
SELECT count(*) FROM lease.try_acquire_all('{d,c}', mode => 'shared', scope => 'session');
CALL lease.campaign('campaign', '1 h') \gset
SELECT * FROM told();

-- A retry of a request is no other grant; nor is what the session has.
SELECT lease.acquire('again', '1 h', request_id => 'r') = lease.acquire('again', '1 h', request_id => 'r') AS same;
SELECT lease.acquire('mine', scope => 'session') = lease.acquire('mine', scope => 'session') AS same;
SELECT told_briefly();

--
-- Ends: released
--
SELECT lease.release('first', :t);
SELECT * FROM told();
SELECT bool_and(held BETWEEN '0' AND clock_timestamp() - (SELECT at FROM lease.history WHERE token = :t AND event = 'acquired')) AS held_since
FROM lease.history WHERE event = 'released';

-- What is held several times ends once, with the last release.
SELECT token AS t FROM lease.leases WHERE name = 'mine' \gset
SELECT lease.release('mine', :t), told_briefly();
SELECT lease.release('mine', :t), told_briefly();

-- At the end of the transaction that guards it, and not before; either way.
SELECT lease.acquire('guarded', '1 h') AS t \gset
BEGIN;
SELECT lease.guard('guarded', :t) = :t AS guarded;
SELECT lease.release('guarded', :t), told_briefly();
COMMIT;
SELECT told_briefly();
SELECT lease.acquire('guarded', '1 h') AS t \gset
BEGIN;
SELECT lease.guard('guarded', :t) = :t AS guarded;
SELECT lease.release('guarded', :t), told_briefly();
ROLLBACK;
SELECT told_briefly();

-- Outside of that at once, ROLLBACK or not.
SELECT lease.acquire('undone', '1 h') AS t \gset
BEGIN;
SELECT lease.release('undone', :t);
ROLLBACK;
SELECT told_briefly();

-- With the transaction: COMMIT, ROLLBACK, of a savepoint, and an error.
BEGIN;
SELECT lease.acquire('commit', scope => 'transaction') = lease.acquire('commit', scope => 'transaction') AS same;
SELECT told_briefly();
COMMIT;
SELECT told_briefly();
BEGIN;
SELECT lease.acquire('rollback', scope => 'transaction') IS NOT NULL AS done;
SAVEPOINT s;
SELECT lease.acquire('savepoint', scope => 'transaction') IS NOT NULL AS done;
SELECT told_briefly();
ROLLBACK TO s;
SELECT told_briefly();
ROLLBACK;
SELECT * FROM told();
BEGIN;
SELECT lease.acquire('error', scope => 'transaction') IS NOT NULL AS done;
SELECT 1 / 0;
ROLLBACK;
SELECT told_briefly();

-- With the session's: one by one, then those that are left.
SELECT count(*) FROM lease.release_all('{c}', ARRAY(SELECT token FROM lease.leases WHERE name = 'c'));
SELECT lease.release_session(), told_briefly();
SELECT lease.acquire('discard', scope => 'session') IS NOT NULL AS done;
DISCARD ALL;
SELECT told_briefly();

--
-- Ends: expired, orphaned, forced, abandoned
--

-- Nobody wants it: the launcher finds out.
SET lease.holder = 'h';
SELECT lease.acquire('late', '3 min') AS t \gset
SELECT lease.renew('late', :t), lease.renew('late', :t, '2 min');
SELECT advance_lease_clock('2 min');
SELECT wait_until($$count(*) > 0 FROM lease.history WHERE event = 'expired'$$);
SELECT * FROM told();
SELECT held BETWEEN '2 min' AND '4 min' AS held FROM lease.history WHERE token = :t AND event = 'expired';

-- Who wants it finds out, unless the launcher was faster: it is told once in any
-- case, and was held for its TTL, to the microsecond.
SELECT lease.acquire('wanted', '1 min') AS t \gset
SELECT advance_lease_clock('2 min');
SELECT lease.acquire('wanted', '1 h') > :t AS larger;
SELECT event, name, detail FROM told() ORDER BY token, event;
SELECT held FROM lease.history WHERE token = :t AND event = 'expired';

-- So does who has it, in scope session or transaction.
SELECT lease.acquire('session', '1 min', scope => 'session') IS NOT NULL AS done;
BEGIN;
SELECT lease.acquire('transaction', '1 min', scope => 'transaction') IS NOT NULL AS done;
SELECT advance_lease_clock('2 min');
ROLLBACK;
SELECT lease.release_session();
SELECT event, name, scope, held FROM told() ORDER BY token, event;

-- The session ends.
SELECT lease.acquire('orphan', '1 h', scope => 'session') IS NOT NULL AS done;
BEGIN;
SELECT lease.acquire('orphan of a transaction', scope => 'transaction') IS NOT NULL AS done;
\c -
SET client_min_messages = warning;
SET lease.holder = 'h';
SELECT wait_until($$count(*) = 2 FROM lease.history WHERE event = 'orphaned'$$);
SELECT * FROM told() ORDER BY token, event;
SELECT bool_and(o.pid = a.pid AND o.pid <> pg_backend_pid()) AS by_that_process
FROM lease.history o JOIN lease.history a USING (token) WHERE o.event = 'orphaned';

-- By force: of all, of one, and of none; reopened.
SELECT count(lease.acquire('seized', '1 h', mode => 'shared')) FROM generate_series(1, 2);
SELECT lease.force_release('seized', 'they hang'), lease.force_release('seized', 'too late');
SELECT * FROM told();
SELECT lease.acquire('closed', '1 h', lock_delay => '1 h') AS t \gset
SELECT lease.renew('closed', :t);
SELECT lease.force_release('closed', 'it hangs', token => :t);
SELECT lease.force_release('closed', 'it was stopped', reopen => true);
SELECT * FROM told();
SELECT lease.acquire('both', '1 h', lock_delay => '1 h') AS t \gset
SELECT lease.force_release('both', 'at once', reopen => true), told_briefly();
SELECT lease.acquire('long gone', '1 min') AS t \gset
SELECT advance_lease_clock('2 min');
SELECT lease.force_release('long gone', 'too late'), wait_until($$count(*) > 0 FROM lease.history WHERE event = 'expired' AND name = 'long gone'$$);
SELECT event, detail FROM told() ORDER BY event;

-- A call that fails after the grant gives it back.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT lease.acquire('abandoned', scope => 'transaction');
ROLLBACK;
SELECT * FROM told();

--
-- Handed over
--
SELECT lease.acquire('handed over', '1 h') AS t1 \gset
SELECT lease.renew('handed over', :t1);
SELECT lease.transfer('handed over', :t1, 'heir') AS t2 \gset
-- The same answer again is no other event.
SELECT lease.transfer('handed over', :t1, 'heir') = :t2 AS same;
SELECT lease.release('handed over', :t2);
SELECT * FROM told();

--
-- In vain: refused, timeout
--
SELECT lease.acquire('taken', '1 h', holder => 'holder') AS t \gset
SELECT lease.try_acquire('taken', holder => 'in vain'), lease.try_acquire('taken', mode => 'shared', scope => 'session');
SELECT count(*) FROM lease.try_acquire_all('{free,taken}');
SELECT lease.acquire_permit('some', 3, 2, '1 h') AS p \gset
SELECT lease.try_acquire_permit('some', permits => 2);
SELECT * FROM told();
-- A name that stays closed.
SELECT lease.acquire('shut', '1 h', min_hold => '1 h') AS t2 \gset
SELECT lease.release('shut', :t2), lease.try_acquire('shut'), told_briefly();
-- The longest wait, and lock_timeout; the attempt is made, so it counts.
SELECT failure($$SELECT lease.acquire('taken', wait => '0')$$), failure($$SELECT lease.acquire('taken', wait => '1 ms', mode => 'shared', holder => 'in vain')$$);
SET lock_timeout = '1 ms';
SELECT failure($$SELECT lease.acquire('taken', scope => 'session')$$), failure($$SELECT lease.acquire_permit('some', permits => 3)$$);
RESET lock_timeout;
SELECT failure($$SELECT lease.acquire_all('{taken,free}', wait => '1 ms')$$);
SELECT * FROM told();
SELECT bool_and(waited >= '0') AS waited, count(*) FILTER (WHERE waited >= '1 ms') >= 2 AS as_long_as_told FROM lease.history WHERE event = 'timeout';
-- What is wrong from the start is no attempt.
SELECT failure($$SELECT lease.acquire('taken', ttl => '-1 s')$$), failure($$SELECT lease.acquire_permit('taken', 3)$$), told_briefly();

--
-- Rejected: a stale token was shown
--
SELECT lease.acquire('stale', '1 h') AS t \gset
SELECT lease.release('stale', :t) \gset
SELECT failure(format($$SELECT lease.renew('stale', %s)$$, :t)), lease.try_renew('stale', :t),
       (SELECT renewed FROM lease.renew_all('{stale}', ARRAY[:t])),
       lease.release('stale', :t), (SELECT released FROM lease.release_all('{stale}', ARRAY[:t])),
       failure(format($$SELECT lease.transfer('stale', %s, 'heir')$$, :t));
SELECT * FROM told();
-- A token that was never granted, a name that never was; but it is no event to ask.
SELECT lease.try_renew('never taken', 1), lease.is_held('stale', :t), told_briefly();

-- By a fence, and by a row.
SELECT lease.acquire('stale', '1 h') AS t2 \gset
SELECT lease.fence('bucket', :t2) = :t2 AS passed, failure(format($$SELECT lease.fence('bucket', %s)$$, :t));
CREATE TABLE "a row" (id integer, fencing_token bigint);
SELECT lease.enable_fencing('"a row"');
INSERT INTO "a row" VALUES (1, :t2);
SELECT failure(format($$UPDATE "a row" SET fencing_token = %s$$, :t));
SELECT * FROM told();

--
-- Guards that failed: at once, at commit, and where there was none
--
SELECT failure(format($$SELECT lease.guard('stale', %s)$$, :t));
BEGIN;
SELECT lease.guard('stale', :t2) = :t2 AS guarded;
SELECT lease.force_release('stale', 'test');
COMMIT;
CREATE TABLE account (id integer, balance integer);
SELECT lease.protect_table('account', 'account/{id}');
SELECT failure('INSERT INTO account VALUES (7, 1)');
SELECT * FROM told();

--
-- Acts
--
SELECT lease.set_capacity('some', 5), lease.set_capacity('some', 2);
SELECT lease.new_epoch('the server was copied') > 0 AS lifted;
SELECT * FROM told();

--
-- Correlation ids: what the session is marked with; the argument comes first, and
-- the grant remembers it
--
SELECT lease.acquire('plain', '1 h') AS t1 \gset
SELECT lease.acquire('argument', '1 h', correlation_id => 'argument') AS t2 \gset
SELECT lease.release('plain', :t1), lease.release('argument', :t2);
SELECT event, name, correlation_id FROM told();

SET lease.correlation_id = 'session';
SELECT lease.acquire('plain', '1 h') AS t1 \gset
SELECT lease.acquire('argument', '1 h', correlation_id => 'argument') AS t2 \gset
SELECT lease.try_acquire('plain'), lease.try_acquire('plain', correlation_id => 'argument'), failure($$SELECT lease.acquire('plain', wait => '0', correlation_id => 'argument')$$);
SELECT lease.release('plain', :t1), lease.release('argument', :t2), lease.release('argument', :t2);
SELECT event, name, correlation_id, detail FROM told();

-- Of one transaction.
BEGIN;
SET LOCAL lease.correlation_id = 'local';
SELECT lease.acquire('plain', '1 h') AS t1 \gset
SELECT lease.acquire('bound', scope => 'transaction') AS t2 \gset
SELECT lease.try_renew('plain', 1);
COMMIT;
SELECT lease.release('plain', :t1);
SELECT event, name, correlation_id FROM told();
BEGIN;
SET LOCAL lease.correlation_id = 'local';
SELECT lease.acquire('bound', scope => 'transaction') AS t2 \gset
ROLLBACK;
SELECT event, name, correlation_id FROM told();
RESET lease.correlation_id;

-- What is handed over stays marked; who ends it by force says so with its own mark.
-- What ends by itself shows the grant's, whoever finds out.
SELECT lease.acquire('marked', '1 min', correlation_id => 'argument') AS t1 \gset
SET lease.correlation_id = 'session';
SELECT lease.transfer('marked', :t1, 'heir') AS t2 \gset
SELECT advance_lease_clock('2 min');
SELECT lease.acquire('marked', '1 h', correlation_id => 'other argument') AS t3 \gset
SELECT lease.force_release('marked', 'test');
SELECT lease.new_epoch('test') > 0 AS lifted;
SELECT token, event, correlation_id FROM told() ORDER BY token, event;
RESET lease.correlation_id;
SELECT lease.acquire('marked', '1 h', correlation_id => 'argument') AS t \gset
SELECT lease.force_release('marked', 'test');
SELECT event, correlation_id FROM told();

--
-- Bounds
--
SET lease.correlation_id = '12345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678';
SHOW lease.correlation_id;
SELECT failure(format($$SELECT lease.try_acquire('x', correlation_id => %L)$$, repeat('x', 128)));
SELECT set_config('lease.correlation_id', repeat('ä', 63) || 'x', false) = repeat('ä', 63) || 'x' AS set;

-- The longest of each.
SELECT lease.acquire(repeat('n', 255), '1 h', holder => repeat('h', 127)) AS t \gset
SELECT lease.force_release(repeat('n', 255), repeat('r', 1000));
SELECT wait_until('history_pending = 0 FROM lease.status');
SELECT event, name = repeat('n', 255) AS name, holder = repeat('h', 127) AS holder, correlation_id = repeat('ä', 63) || 'x' AS correlation_id,
       length(detail), detail ~ '^by ".*": r+$' AS detail
FROM lease.history WHERE token = :t ORDER BY at, seq;
RESET lease.correlation_id;

-- A detail is cut off where it is too long, between characters.
SELECT count(*) FROM told();
SELECT count(lease.new_epoch(reason)) FROM unnest(ARRAY[repeat('r', 255), repeat('r', 256), repeat('€', 100), 'x' || repeat('€', 100), 'xx' || repeat('€', 100)]) reason;
SELECT replace(replace(detail, repeat('r', 255), '255 r'), repeat('€', 84), '84 €') AS detail, octet_length(detail) FROM told();

-- Bytes that are awkward elsewhere are kept as they are.
SELECT lease.acquire(E'"quoted"\\ \n\t\x01 €', '1 h', holder => E'"h"\\\n', correlation_id => E'%s ''$1''') IS NOT NULL AS done;
SELECT name = E'"quoted"\\ \n\t\x01 €' AS name, holder = E'"h"\\\n' AS holder, correlation_id FROM told();

-- Kinds of events for the server's log, by name; for the whole server.
SET lease.log_events = 'all';
\set VERBOSITY default
ALTER SYSTEM SET lease.log_events = 'nonsense';
ALTER SYSTEM SET lease.log_events = 'expired, nonsense, all';
ALTER SYSTEM SET lease.log_events = 'expired forced';
-- A pattern that LIKE would refuse only when it comes to its end.
ALTER SYSTEM SET lease.notify = 'app\';
ALTER SYSTEM SET lease.notify = 'app\\\';
SET lease.correlation_id = '12345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678';
SELECT name, setting, unit, min_val, context FROM pg_settings
WHERE name IN ('lease.history_retention', 'lease.notify', 'lease.log_events', 'lease.correlation_id') ORDER BY name;

--
-- In order
--

-- By time and number: what happened earlier in a session comes first.  (What
-- expired did so at its deadline, wherever the clock jumped.)
SELECT array_agg(seq ORDER BY at, seq) = array_agg(seq ORDER BY seq) AS in_order, count(DISTINCT seq) = count(*) AS numbered
FROM lease.history WHERE event NOT IN ('expired', 'orphaned');
SELECT history_lost, history_pending FROM lease.status;
-- Every grant has one beginning, and one end if it is over.
SELECT bool_and(begun = 1 AND ended = CASE WHEN live THEN 0 ELSE 1 END) AS accounted
FROM (SELECT count(*) FILTER (WHERE event IN ('acquired', 'received')) AS begun, count(held) AS ended,
             EXISTS (SELECT FROM lease.leases l WHERE l.token = h.token AND closed_until IS NULL) AS live
      FROM lease.history h WHERE token > 1 AND event NOT IN ('rejected', 'guard_failed') GROUP BY token) grants;

\c :home
DROP DATABASE regress_lease_history;
