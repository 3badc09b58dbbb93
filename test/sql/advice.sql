--
-- What to change, and why: lease.advice.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = error;
SELECT lease.reset_stats();

CREATE FUNCTION pg_temp.advice() RETURNS TABLE (name text, advice text) LANGUAGE sql AS $$
	SELECT name, advice FROM lease.advice WHERE advice <> 'history_lost' ORDER BY 1, 2
$$;

-- Do something several times.
CREATE PROCEDURE pg_temp.repeat(times integer, statement text) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. times LOOP
		EXECUTE statement;
	END LOOP;
END
$$;

-- Too few to draw anything from; and one that goes well.
CALL pg_temp.repeat(19, $$SELECT lease.release('fine', lease.acquire('fine', ttl => '1 h'))$$);
CALL pg_temp.repeat(50, $$SELECT lease.release('well', lease.acquire('well'))$$);
SELECT * FROM pg_temp.advice();

-- Each by itself.
CALL pg_temp.repeat(20, $$SELECT lease.release('long ttl', lease.acquire('long ttl', ttl => '1 h'))$$);
SELECT lease.acquire('late', ttl => '40 s') AS late \gset
CALL pg_temp.repeat(20, format($$SELECT pg_temp.advance_lease_clock('35 s'), lease.renew('late', %s)$$, :late));
SELECT lease.acquire('in time', ttl => '40 s') AS in_time \gset
CALL pg_temp.repeat(20, format($$SELECT pg_temp.advance_lease_clock('15 s'), lease.renew('in time', %s)$$, :in_time));
CALL pg_temp.repeat(20, $$SELECT lease.acquire('never released', ttl => '30 s'), pg_temp.advance_lease_clock('30 s')$$);
CALL pg_temp.repeat(180, $$SELECT lease.release('often lost', lease.acquire('often lost', ttl => '30 s'))$$);
CALL pg_temp.repeat(20, $$SELECT lease.acquire('often lost', ttl => '30 s'), pg_temp.advance_lease_clock('30 s')$$);
CALL pg_temp.repeat(190, $$SELECT lease.release('seldom lost', lease.acquire('seldom lost', ttl => '30 s'))$$);
CALL pg_temp.repeat(20, $$SELECT lease.acquire('seldom lost', ttl => '30 s'), pg_temp.advance_lease_clock('30 s')$$);
SELECT lease.acquire('polled', ttl => '1 h') AS polled \gset
CALL pg_temp.repeat(20, $$SELECT lease.try_acquire('polled')$$);
CALL pg_temp.repeat(20, $$SELECT lease.try_renew('stale', 1)$$);
CALL pg_temp.repeat(20, $$SELECT pg_temp.attempt('SELECT lease.guard(''unguarded'', 1)')$$);
-- Each waits until the TTL of the one before is over.
CALL pg_temp.repeat(30, $$SELECT lease.acquire('queue', ttl => '50 ms')$$);
SELECT lease.release('queue', lease.acquire('queue'));
SELECT * FROM pg_temp.advice();

-- In words, without what varies.
SELECT a.name, regexp_replace(regexp_replace(a.why, '\m\d+(\.\d+)? (ms|s|min|h)\M( \d+ (s|min|h)\M)?', 'DURATION', 'g'), '\d+ of \d+', 'M of N') AS why
FROM lease.advice a WHERE a.advice <> 'history_lost' ORDER BY a.name, a.advice;
SELECT a.name, a.change FROM lease.advice a WHERE a.advice IN ('ttl_long', 'ttl_short') ORDER BY a.name;

-- Names of others count, and are not told; nor is it said whose they are.
CREATE ROLE regress_lease_one;
SELECT lease.allow('regress_lease_one');
SET ROLE regress_lease_one;
CALL pg_temp.repeat(20, $$SELECT lease.release('mine', lease.acquire('mine', ttl => '2 h'))$$);
SELECT name, advice, count(*), count(*) FILTER (WHERE why ~ '^A name of another role\. ') AS of_others
FROM lease.advice WHERE advice <> 'history_lost' GROUP BY 1, 2 ORDER BY 1, 2;
RESET ROLE;
SELECT lease.disallow('regress_lease_one');
DROP ROLE regress_lease_one;

-- Statistics begun anew: nothing to say.
SELECT lease.reset_stats();
SELECT * FROM pg_temp.advice();
SELECT count(lease.release(name, token)) > 0 AS released FROM lease.leases WHERE name IN ('late', 'in time', 'polled');
