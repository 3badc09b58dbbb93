--
-- The story of a name, told by lease.explain.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = error;
SET lease.holder = 'me';
SELECT lease.reset_stats();

-- The sentences, once the history has all events.
CREATE FUNCTION pg_temp.story(name text, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.wait_until('history_pending = 0 FROM lease.status');
	RETURN QUERY
	SELECT regexp_replace(regexp_replace(regexp_replace(replace(story, 'by "' || session_user || '"', 'by "ADMIN"'),
		'token \d{13,}', 'token TOKEN', 'g'),
		'\d{4}-\d\d-\d\d [\d:]+\.\d{3}', 'TIME', 'g'),
		'\m\d+(\.\d+)? (ms|s|min|h|d)\M( \d+ (s|min|h)\M)?', 'DURATION', 'g')
	FROM lease.explain(name, since, until) WITH ORDINALITY ORDER BY ordinality;
END
$$;

-- Service X took it and let go; A tried in between and failed, B waited in vain.
SELECT lease.acquire('story/one', ttl => '1 h', holder => 'X', correlation_id => 'order-17') AS t \gset
SELECT count(lease.try_acquire('story/one', holder => CASE WHEN i % 4 = 0 THEN 'C' ELSE 'A' END)) FROM generate_series(1, 1000) i;
SELECT pg_temp.attempt($$SELECT lease.acquire('story/one', wait => '10 ms', holder => 'B')$$) ~ '^55P03' AS in_vain;
SELECT pg_temp.story('story/one');
SELECT lease.renew('story/one', :t) FROM generate_series(1, 2);
SELECT lease.release('story/one', :t);
SELECT pg_temp.story('story/one');

-- Times are those of the history, in order; the last sentence is of now.
SELECT count(*), count(DISTINCT at), min(at) = (SELECT min(at) FROM lease.history WHERE name = 'story/one') AS begins,
       max(at) > (SELECT max(at) FROM lease.history WHERE name = 'story/one') AS ends
FROM lease.explain('story/one');

-- To take and to release it is one sentence; so is to do it again and again.
SELECT lease.release('story/two', lease.acquire('story/two', holder => 'X'));
SELECT lease.release('story/two', lease.acquire('story/two', holder => 'Y')) FROM generate_series(1, 3);
SELECT lease.acquire('story/two', scope => 'session', holder => 'X') AS t \gset
SELECT pg_temp.story('story/two');
SELECT lease.release('story/two', :t);
SELECT pg_temp.story('story/two');

-- All the ways to lose it; what was lost is refused.
SELECT lease.acquire('story/lost', ttl => '1 min', holder => 'X', lock_delay => '1 h', correlation_id => 'seen') AS t1 \gset
SELECT pg_temp.run_out('story/lost', :t1);
SELECT lease.try_acquire('story/lost', holder => 'Y');
SELECT pg_temp.story('story/lost');
SELECT lease.force_release('story/lost', 'checked by hand', reopen => true);
SELECT lease.acquire('story/lost', ttl => '1 h', holder => 'Y') AS t2 \gset
SELECT lease.transfer('story/lost', :t2, 'Z') AS t3 \gset
SELECT lease.force_release('story/lost', 'Z hangs');
SELECT lease.try_renew('story/lost', :t3), lease.release('story/lost', :t2), lease.release('story/lost', :t2);
CREATE TABLE fenced (id integer, fencing_token bigint);
SELECT lease.enable_fencing('fenced');
INSERT INTO fenced VALUES (1, :t3);
SELECT pg_temp.attempt(format('UPDATE fenced SET fencing_token = %s', :t2)) ~ '^LE002' AS stale;
SELECT pg_temp.attempt(format('SELECT lease.guard(%L, %s)', 'story/lost', :t3)) ~ '^LE001' AS lost;
CREATE TABLE protected (id integer);
SELECT lease.protect_table('protected', 'story/lost');
SELECT pg_temp.attempt('INSERT INTO protected VALUES (1)') ~ '^LE003' AS unguarded;
SELECT pg_temp.story('story/lost');
DROP TABLE fenced, protected;

-- A token that was presented for a name need not be one of it.
SELECT lease.acquire('story/mixed up', ttl => '1 h', holder => 'X') AS t \gset
SELECT lease.try_renew('story/taken for it', :t), lease.release('story/mixed up', :t);
SELECT pg_temp.story('story/taken for it');

-- Many at a time.
SELECT lease.acquire('story/shared', mode => 'shared', ttl => '1 h', holder => h) > 0 AS taken FROM unnest(ARRAY['X', 'Y']) h;
SELECT pg_temp.story('story/shared');
SELECT count(lease.acquire_permit('story/permits', capacity => 7, ttl => '1 h', holder => 'holder ' || i)) FROM generate_series(1, 7) i;
SELECT lease.set_capacity('story/permits', 9);
SELECT pg_temp.story('story/permits');
SELECT count(lease.force_release(n, 'done')) FROM unnest(ARRAY['story/shared', 'story/permits']) n;

-- What no holder says of itself can pass for a sentence of ours.
SELECT lease.release('story/forged', lease.acquire('story/forged', holder => 'X" took it. "Y', correlation_id => 'a"b'));
SELECT pg_temp.story('story/forged');

-- A part of it; a new epoch is told in between, and not before or after.
SELECT lease.acquire('story/part', ttl => '1 h', holder => 'X') AS t \gset
SELECT lease.new_epoch('copied server') > 0 AS lifted;
SELECT lease.try_acquire('story/part', holder => 'Y');
SELECT lease.release('story/part', :t);
SELECT lease.new_epoch('copied again') > 0 AS lifted;
SELECT pg_temp.story('story/part');
SELECT at AS refused FROM lease.history WHERE name = 'story/part' AND event = 'refused' \gset
SELECT pg_temp.story('story/part', since => :'refused');
SELECT pg_temp.story('story/part', until => :'refused');
SELECT pg_temp.story('story/part', :'refused', :'refused');
SELECT pg_temp.story('story/part', 'infinity'), pg_temp.story('story/part', NULL, '-infinity');
SELECT count(*) FROM lease.explain('story/part', '-infinity', 'infinity');

-- Every event has a sentence; these are hard to bring about.
BEGIN;
INSERT INTO lease.events (seq, at, event, name, token, mode, scope, holder, owner, waited, held, detail)
SELECT i, now() + i * interval '1 s', e, CASE WHEN e <> 'loaded' THEN 'story/rare' END, CASE WHEN e <> 'loaded' THEN 9007199254740991 END,
       'exclusive', 'session', 'X', current_user::regrole,
       CASE WHEN e IN ('deadlock', 'cancelled') THEN interval '1.5 s' END,
       CASE WHEN e IN ('orphaned', 'abandoned') THEN interval '2 s' END, CASE WHEN e = 'loaded' THEN '3 leases' END
FROM unnest(ARRAY['acquired', 'deadlock', 'cancelled', 'loaded', 'orphaned', 'abandoned', 'cancelled', 'cancelled', 'something new'])
     WITH ORDINALITY AS u (e, i);
SELECT pg_temp.story('story/rare');
ROLLBACK;

-- Who may see what.
CREATE ROLE regress_lease_one;
CREATE ROLE regress_lease_two;
CREATE ROLE regress_lease_monitor IN ROLE pg_read_all_stats;
SELECT lease.allow(r) FROM unnest('{regress_lease_one,regress_lease_two,regress_lease_monitor}'::regrole[]) r;
SET ROLE regress_lease_two;
SELECT lease.acquire('story/secret', ttl => '1 h', holder => 'Secret', correlation_id => 'secret id') AS t \gset
SELECT lease.acquire('story/other', ttl => '1 h', holder => 'Secret') AS other \gset
RESET ROLE;
SET ROLE regress_lease_one;
SELECT pg_temp.story('story/secret');
SELECT pg_temp.story('story/nobody');
SELECT lease.release('story/one', lease.acquire('story/one', holder => 'One'));
SELECT pg_temp.story('story/one');
SELECT lease.try_acquire('story/secret', holder => 'One');
SELECT pg_temp.story('story/secret');
SET ROLE regress_lease_two;
SELECT lease.release('story/secret', :t);
SET ROLE regress_lease_one;
SELECT pg_temp.story('story/secret');
SET ROLE regress_lease_monitor;
SELECT pg_temp.story('story/secret');
RESET ROLE;
SELECT lease.release('story/other', :other);
SELECT lease.disallow(r) FROM unnest('{regress_lease_one,regress_lease_two,regress_lease_monitor}'::regrole[]) r;
DROP ROLE regress_lease_one, regress_lease_two, regress_lease_monitor;

-- Bad arguments.
SELECT pg_temp.attempt('SELECT lease.explain(NULL)');
SELECT pg_temp.attempt($$SELECT lease.explain('')$$);
SELECT left(pg_temp.attempt(format('SELECT lease.explain(%L)', repeat('é', 128))), 40),
       right(pg_temp.attempt(format('SELECT lease.explain(%L)', repeat('é', 128))), 36);
SELECT count(*) FROM lease.explain(repeat('n', 255));

-- Durations as people say them.
SELECT d, lease.duration_text(d)
FROM unnest('{0,42 us,999.4 us,1 ms,1.25 s,59.9994 s,1 min,3 min 2.5 s,59 min 59.9 s,1 h,2 h 5 min 10 s,1 day,100 h}'::interval[]) d;
