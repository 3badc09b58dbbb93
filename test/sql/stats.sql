--
-- lease.stats, lease.totals and the histograms: what each call counts, and
-- nothing else does.
--
-- In a database of its own, where nobody else counts.  Queues and what ends a
-- wait from outside are in ../specs/waiting_stats.spec.
--
\set home :DBNAME
CREATE DATABASE regress_lease_stats TEMPLATE template0;
\c regress_lease_stats
\set ECHO none
SET client_min_messages = warning;
\pset null -
\set VERBOSITY sqlstate
CREATE EXTENSION lease;
CREATE ROLE regress_lease_one;
CREATE ROLE regress_lease_other;
CREATE ROLE regress_lease_monitor IN ROLE pg_monitor;
SELECT count(lease.allow(r::regrole)) FROM unnest(ARRAY['regress_lease_one', 'regress_lease_other', 'regress_lease_monitor']) r \gset
CREATE FUNCTION advance_lease_clock(interval) RETURNS void
	LANGUAGE C AS '$libdir/lease', 'lease_advance_clock';

-- Run a statement that fails; its SQLSTATE.
CREATE FUNCTION failure(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE statement;
	RETURN 'none';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;

\set where public
\getenv srcdir PG_ABS_SRCDIR
\set wait :srcdir '/sql/include/wait.psql'
\ir :wait

-- The counters of a row that are not zero, by their names.
CREATE FUNCTION counters(statistics json) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(key || ' ' || value, ', ')
	FROM json_each_text(statistics)
	WHERE value ~ '^[1-9]\d*$' AND key NOT IN ('name', 'contention_rate')
$$;
CREATE FUNCTION counted(which text) RETURNS text LANGUAGE sql AS $$
	SELECT counters(row_to_json(s)) FROM lease.stats s WHERE name = which
$$;

-- Let time pass, and then renew so many times.
CREATE FUNCTION renew_after(which text, token bigint, passes interval, times integer) RETURNS void LANGUAGE sql AS $$
	SELECT advance_lease_clock(passes);
	SELECT count(lease.renew(which, token)) FROM generate_series(1, times);
$$;
\set ECHO all

--
-- Nothing yet
--
SELECT count(*) FROM lease.stats;
SELECT counters(row_to_json(t)), contention_rate, wait_total, wait_mean, hold_mean, margin_min, margin_p01, since <= clock_timestamp() AS counted FROM lease.totals t;
SELECT count(*), sum(count) FROM lease.wait_histogram;
-- The bounds double, from 64 us on; the last bucket has none.
SELECT bool_and(upper_bound IS NOT DISTINCT FROM interval '64 us' * 2 ^ (number - 1)) AS double, count(*)
FROM (SELECT upper_bound, row_number() OVER () AS number FROM lease.hold_histogram) b WHERE number < 32;
SELECT count(*) FROM lease.hold_histogram WHERE upper_bound IS NULL;

--
-- Grants and their ends
--
SELECT lease.release('plain', lease.acquire('plain', '1 h'));
SELECT counted('plain');
SELECT contention_rate, wait_total, wait_mean, wait_max, hold_total > '0' AS held, hold_mean = hold_total AND hold_max = hold_total AS once,
       margin_min, margin_p01, ttl, last_used BETWEEN now() - interval '1 min' AND clock_timestamp() AS used, since BETWEEN now() - interval '1 min' AND clock_timestamp() AS counted
FROM lease.stats WHERE name = 'plain';
SELECT counters(row_to_json(t)), since BETWEEN now() - interval '1 min' AND clock_timestamp() AS counted FROM lease.totals t;
SELECT (SELECT sum(count) FROM lease.hold_histogram) AS holds, (SELECT sum(count) FROM lease.wait_histogram) AS waits;

-- What is not over has no hold yet.
SELECT lease.acquire('open', '2 h') AS t \gset
SELECT hold_total, hold_mean, hold_max, ttl FROM lease.stats WHERE name = 'open';
SELECT advance_lease_clock('1 h');
SELECT lease.release('open', :t);
SELECT counted('open'), hold_max BETWEEN '1 h' AND '2 h' AS held FROM lease.stats WHERE name = 'open';

-- What expires was held for its TTL: total, mean and longest are exact.  Whoever
-- finds out counts it, once.
SELECT lease.acquire('expired', '1 min') AS t \gset
SELECT advance_lease_clock('2 min');
SELECT lease.acquire('expired', '3 min') > :t AS larger;
SELECT advance_lease_clock('5 min');
SELECT lease.acquire('expired', '1 day') > :t AS larger;
SELECT counted('expired');
SELECT hold_total, hold_mean, hold_max, ttl FROM lease.stats WHERE name = 'expired';
-- Each in its bucket: 1 min, 3 min, and 1 h (and what was let go at once).
SELECT upper_bound, count FROM lease.hold_histogram WHERE count > 0 AND (upper_bound > '10 s') IS NOT FALSE;
SELECT sum(count) FROM lease.hold_histogram;

-- By force; handed over, which is a hold of each; given back by a call that fails.
SELECT count(lease.acquire('forced', '1 h', mode => 'shared')) FROM generate_series(1, 3);
SELECT lease.force_release('forced', 'test'), counted('forced');
SELECT lease.acquire('transferred', '1 h') AS t \gset
SELECT lease.transfer('transferred', :t, 'heir') AS t2 \gset
SELECT lease.transfer('transferred', :t, 'heir') = :t2 AS same, lease.release('transferred', :t2), counted('transferred');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT lease.acquire('abandoned', scope => 'transaction');
ROLLBACK;
SELECT counted('abandoned');
SELECT hold_mean * 2 BETWEEN hold_total - interval '1 us' AND hold_total + interval '1 us' AS of_two FROM lease.stats WHERE name = 'transferred';

-- Opened again, resized, lifted: nobody's grant.
SELECT lease.acquire('reopened', '1 h', lock_delay => '1 h') AS t \gset
SELECT lease.force_release('reopened', 'test'), lease.force_release('reopened', 'test', reopen => true), lease.new_epoch('test') > 0 AS lifted, counted('reopened');

-- With the transaction, or the session; held several times it is one grant.
BEGIN;
SELECT lease.acquire('scopes', scope => 'transaction') = lease.acquire('scopes', scope => 'transaction') AS same;
COMMIT;
SELECT lease.acquire('scopes', scope => 'session') = lease.acquire('scopes', '1 h', scope => 'session') AS same;
SELECT lease.release_session(), counted('scopes'), ttl FROM lease.stats WHERE name = 'scopes';
SELECT lease.acquire('orphaned', scope => 'session') IS NOT NULL AS done;
\c -
SET client_min_messages = warning;
SELECT wait_until('orphaned > 0 FROM lease.totals');
SELECT counted('orphaned');

--
-- Attempts in vain: contended are those that found it taken, whatever came of them
--
SELECT lease.acquire('taken', '1 h') AS t \gset
SELECT lease.try_acquire('taken'), lease.try_acquire('taken', mode => 'shared', scope => 'session');
SELECT failure($$SELECT lease.acquire('taken', wait => '0')$$);
SET lock_timeout = '2 ms';
SELECT failure($$SELECT lease.acquire('taken')$$);
SET lock_timeout = '1 ms';
SELECT failure($$SELECT lease.acquire('taken')$$);
RESET lock_timeout;
SELECT counted('taken'), contention_rate FROM lease.stats WHERE name = 'taken';
-- Refusals do not wait, so they have no part in the mean.
SELECT wait_total >= '3 ms' AS waited, wait_max BETWEEN '2 ms' AND wait_total - interval '1 ms' AS longest, wait_mean * 3 BETWEEN wait_total - interval '2 us' AND wait_total + interval '2 us' AS of_three
FROM lease.stats WHERE name = 'taken';
SELECT sum(count) AS waits, sum(count) FILTER (WHERE upper_bound < '1 ms') <= 1 AS short FROM lease.wait_histogram;
-- A name that is shared is taken for those who want it alone; it is not for others.
SELECT count(lease.acquire('readers', '1 h', mode => 'shared')) FROM generate_series(1, 2);
SELECT lease.try_acquire('readers'), counted('readers');
SELECT contention_rate FROM lease.stats WHERE name = 'readers';
-- All or none: only the name that was taken counts.
SELECT count(*) FROM lease.try_acquire_all('{free,taken}');
SELECT count(*), counted('taken') FROM lease.stats WHERE name = 'free';
-- So does a name that stays closed.
SELECT lease.acquire('closed', '1 h', min_hold => '1 h') AS t2 \gset
SELECT lease.release('closed', :t2), lease.try_acquire('closed'), counted('closed');

-- Permits: a grant each, however many.
SELECT lease.acquire_permit('permits', 5, 3, '1 h') AS p \gset
SELECT lease.try_acquire_permit('permits', permits => 3), lease.try_acquire_permit('permits', permits => 2, ttl => '2 h') IS NOT NULL AS done;
SELECT lease.set_capacity('permits', 6), lease.release('permits', :p), counted('permits'), ttl FROM lease.stats WHERE name = 'permits';

-- What is wrong from the start counts nowhere.
SELECT failure($$SELECT lease.acquire('wrong', ttl => '-1 s')$$), failure($$SELECT lease.acquire_permit('wrong')$$), counted('wrong');

--
-- Tokens and guards that are worth nothing
--
SELECT lease.acquire('stale', '1 h') AS t \gset
SELECT lease.release('stale', :t) \gset
SELECT lease.try_renew('stale', :t), lease.release('stale', :t), failure(format($$SELECT lease.renew('stale', %s)$$, :t)),
       failure(format($$SELECT lease.transfer('stale', %s, 'heir')$$, :t));
SELECT lease.is_held('stale', :t), counted('stale'), contention_rate FROM lease.stats WHERE name = 'stale';
SELECT failure(format($$SELECT lease.guard('stale', %s)$$, :t)), counted('stale');
SELECT lease.acquire('guarded', '1 h') AS t2 \gset
BEGIN;
SELECT lease.guard('guarded', :t2) = :t2 AS guarded;
SELECT lease.force_release('guarded', 'test');
COMMIT;
SELECT counted('guarded');
SELECT lease.fence('bucket', :t2) = :t2 AS passed, failure(format($$SELECT lease.fence('bucket', %s)$$, :t)), counted('bucket');
CREATE TABLE account (id integer, fencing_token bigint);
SELECT lease.protect_table('account', 'account/{id}');
SELECT failure('INSERT INTO account VALUES (7, 1)'), counted('account/7');
SELECT lease.unprotect_table('account');
-- A row's token is of no name: only the totals have it.
INSERT INTO account VALUES (7, :t2);
SELECT lease.enable_fencing('account'), rejected AS rejected FROM lease.totals \gset
SELECT failure(format('UPDATE account SET fencing_token = %s', :t));
SELECT rejected - :rejected AS rejected FROM lease.totals;

--
-- Renewals: how much of the TTL they find left
--
SELECT lease.acquire('renewed', '1 h') AS t \gset
SELECT renew_after('renewed', :t, '40 min', 1);
SELECT counted('renewed'), margin_min BETWEEN '19 min' AND '20 min' AS least, margin_p01 = margin_min AS first_percentile, ttl FROM lease.stats WHERE name = 'renewed';
-- One of a hundred came that close; then it is fewer, and the next closest found
-- nearly all of it left: of that, the bound below 1 h is known.
SELECT renew_after('renewed', :t, '0', 99);
SELECT counted('renewed'), margin_min BETWEEN '19 min' AND '20 min' AS least, margin_p01 = margin_min AS first_percentile FROM lease.stats WHERE name = 'renewed';
SELECT renew_after('renewed', :t, '0', 1);
SELECT counted('renewed'), margin_min BETWEEN '19 min' AND '20 min' AS least, margin_p01 FROM lease.stats WHERE name = 'renewed';
-- The second closest of 102.
SELECT renew_after('renewed', :t, '50 min', 1);
SELECT margin_min BETWEEN '9 min' AND '10 min' AS least, margin_p01 FROM lease.stats WHERE name = 'renewed';
-- Another TTL is what is shown from then on.
SELECT lease.renew('renewed', :t, '2 h'), (SELECT ttl FROM lease.stats WHERE name = 'renewed'), counted('renewed');
SELECT renewed FROM lease.renew_all('{renewed,renewed}', ARRAY[:t, :t]);
SELECT counted('renewed');

-- Without a TTL there is no margin, and none to show.
SELECT lease.acquire('endless', scope => 'session') AS t \gset
SELECT lease.renew('endless', :t), (SELECT ttl FROM lease.stats WHERE name = 'endless');
SELECT counted('endless'), margin_min, margin_p01 FROM lease.stats WHERE name = 'endless';
SELECT lease.renew('endless', :t, '1 h'), lease.renew('endless', :t, '1 h'), (SELECT ttl FROM lease.stats WHERE name = 'endless');
SELECT counted('endless'), margin_min BETWEEN '59 min' AND '1 h' AS least FROM lease.stats WHERE name = 'endless';

-- A retried request renews, and is no other grant.
SELECT lease.acquire('retried', '1 h', request_id => 'r') = lease.try_acquire('retried', '1 h', request_id => 'r') AS same, counted('retried');
SELECT lease.try_acquire('retried', '1 h', request_id => 'other'), counted('retried');

--
-- The totals are the sum of all names, and what is of none
--

-- Every grant is over, or still there.
SELECT wait_until($$acquired + received - (released + expired + orphaned + forced + transferred + abandoned) = (SELECT count(*) FROM lease.leases WHERE closed_until IS NULL)
	FROM lease.totals$$);
CREATE TEMPORARY VIEW sums AS
	SELECT key, sum(value::bigint) AS names, (SELECT t.value::bigint FROM lease.totals, json_each_text(row_to_json(totals)) t WHERE t.key = n.key) AS total
	FROM lease.stats, json_each_text(row_to_json(stats)) n
	WHERE key IN ('acquired', 'contended', 'renewed', 'released', 'expired', 'orphaned', 'forced', 'transferred', 'received', 'abandoned', 'refused', 'timeouts',
	              'deadlocks', 'cancelled', 'rejected', 'guard_failures')
	GROUP BY key;
SELECT key, total - names AS of_no_name FROM sums WHERE total <> names;
SELECT count(*) AS counters, count(*) FILTER (WHERE total > 0) AS that_moved FROM sums;
SELECT sum(s.hold_total) = max(t.hold_total) AS holds, max(s.hold_max) = max(t.hold_max) AS longest_hold, sum(s.wait_total) = max(t.wait_total) AS waits,
       max(s.wait_max) = max(t.wait_max) AS longest_wait, min(s.margin_min) = max(t.margin_min) AS least_margin
FROM lease.stats s, lease.totals t;
SELECT contention_rate = contended::float8 / (acquired + refused + timeouts) AS rate, (SELECT sum(count) FROM lease.wait_histogram) = contended - refused AS waits,
       (SELECT sum(count) FROM lease.hold_histogram) = released + expired + orphaned + forced + transferred + abandoned AS holds
FROM lease.totals;
SELECT count(*) = count(DISTINCT name) AS one_row_each FROM lease.stats;
-- Names are compared byte by byte, and may be long.
SELECT count(lease.try_acquire(name, '1 h')) FROM unnest(ARRAY['Case', 'case', 'case ', repeat('x', 255), E'"\n\x01€']) name;
SELECT count(*) FROM lease.stats WHERE name IN ('Case', 'case', 'case ', repeat('x', 255), E'"\n\x01€') AND acquired = 1;

--
-- Many names: those used last are kept; of the others, the totals know
--
SELECT acquired, released, hold_total FROM lease.totals \gset before_
DO $$
BEGIN
	FOR i IN 1 .. 10000 LOOP
		PERFORM lease.release(i::text, lease.acquire(i::text, scope => 'session'));
	END LOOP;
END
$$;
SELECT count(*) <= 3072 AS bounded, count(*) FILTER (WHERE name ~ '^\d+$' AND name::integer > 9000) AS of_the_last,
       count(*) FILTER (WHERE name ~ '^\d+$' AND name::integer <= 1000) AS of_the_first FROM lease.stats WHERE name ~ '^\d+$';
SELECT acquired - :before_acquired AS acquired, released - :before_released AS released, hold_total > :'before_hold_total' AS held,
       (SELECT sum(count) FROM lease.hold_histogram) = released + expired + orphaned + forced + transferred + abandoned AS holds, margin_min < '10 min' AS least_margin
FROM lease.totals;
-- One that was forgotten begins anew.
SELECT lease.release('1', lease.acquire('1', scope => 'session')), counted('1');

--
-- Other roles
--
SET ROLE regress_lease_one;
SELECT lease.acquire('one''s', '1 h') AS t \gset
SELECT name, acquired FROM lease.stats WHERE name IS NOT NULL;
RESET ROLE;
SET ROLE regress_lease_other;
SELECT name FROM lease.stats WHERE name IS NOT NULL;
SELECT count(*) > 10 AS rows, count(acquired) = count(*) AS with_counts, count(last_used) = count(*) AS with_times FROM lease.stats;
SELECT counters(row_to_json(t)) IS NOT NULL AS totals, (SELECT count(*) FROM lease.hold_histogram) AS buckets FROM lease.totals t;
-- Who wanted a name in vain does not learn it that way; who took it last does.
SELECT lease.try_acquire('one''s'), lease.try_renew('one''s', 1);
SELECT count(*) FROM lease.stats WHERE name IS NOT NULL;
RESET ROLE;
SELECT lease.release('one''s', :t);
SET ROLE regress_lease_other;
SELECT lease.acquire('one''s', '1 h') > :t AS larger;
SELECT counted('one''s');
RESET ROLE;
SET ROLE regress_lease_one;
SELECT count(*) FROM lease.stats WHERE name IS NOT NULL;
RESET ROLE;
SET ROLE regress_lease_monitor;
SELECT count(*) = count(name) AS all_names, count(*) FILTER (WHERE name = 'one''s') AS of_others FROM lease.stats;
SELECT failure('SELECT lease.reset_stats()');
RESET ROLE;

--
-- reset_stats
--
SET ROLE regress_lease_one;
SELECT failure('SELECT lease.reset_stats()');
RESET ROLE;
SELECT lease.acquire('living', '1 h') AS t \gset
SELECT count(*) > 10 AS still_there, max(since) AS since FROM lease.stats \gset
GRANT EXECUTE ON FUNCTION lease.reset_stats() TO regress_lease_one;
SET ROLE regress_lease_one;
SELECT lease.reset_stats();
RESET ROLE;
SELECT :'still_there', count(*) FROM lease.stats;
SELECT counters(row_to_json(t)), contention_rate, wait_total, wait_mean, wait_max, hold_total, hold_mean, hold_max, margin_min, margin_p01, since > :'since' AS anew FROM lease.totals t;
SELECT (SELECT sum(count) FROM lease.hold_histogram) AS holds, (SELECT sum(count) FROM lease.wait_histogram) AS waits;
-- Leases live on; what becomes of them is counted anew.
SELECT lease.release('living', :t), counted('living');
SELECT counters(row_to_json(t)) FROM lease.totals t;

--
-- Another database counts by itself
--
\c :home
SELECT count(*) FROM lease.stats WHERE name = 'living';
DROP DATABASE regress_lease_stats;
DROP ROLE regress_lease_one, regress_lease_other, regress_lease_monitor;
