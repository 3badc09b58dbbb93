--
-- The same as a picture: lease.timeline.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = error;
SET lease.holder = 'me';
SELECT lease.reset_stats();

-- The picture, once the history has all events.
CREATE FUNCTION pg_temp.picture(names text[], since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_temp.wait_until('history_pending = 0 FROM lease.status');
	RETURN lease.timeline(names, since, until);
END
$$;

-- What one is told who points at things, but for what varies, in order.
CREATE FUNCTION pg_temp.told(svg text) RETURNS SETOF text LANGUAGE sql AS $$
	SELECT regexp_replace(regexp_replace(regexp_replace(replace(t.told[1], '&quot;' || session_user, '&quot;ADMIN'),
		'token \d{13,}', 'token TOKEN', 'g'),
		'\d{4}-\d\d-\d\d [\d:]+\.\d{3}', 'TIME', 'g'),
		'\m\d+(\.\d+)? (ms|s|min|h)\M( \d+ (s|min|h)\M)?', 'DURATION', 'g')
	FROM regexp_matches(svg, '<title>([^<]*)</title>', 'g') WITH ORDINALITY AS t (told, i) ORDER BY i
$$;

-- How often it has each of its marks.
CREATE FUNCTION pg_temp.marks(svg text) RETURNS TABLE (mark text, count bigint) LANGUAGE sql AS $$
	SELECT m[1], count(*) FROM regexp_matches(svg, '<use href="#lease-([a-z_-]+)" x="[\d.]+" y="\d+"[^f>]*/>', 'g') m
	GROUP BY m[1] ORDER BY m[1] COLLATE "C"
$$;

-- The colour that a holder has in it.
CREATE FUNCTION pg_temp.colour(svg text, holder text) RETURNS text LANGUAGE sql AS $$
	SELECT substring(svg FROM '<title>&quot;' || holder || '&quot;</title><rect y="3" width="10" height="9" fill="([^"]+)"')
$$;

-- A life: taken, tried in vain, lost in every way, refused afterwards.
SELECT lease.acquire('line/one', ttl => '1 min', holder => 'X', correlation_id => 'order-17') AS t1 \gset
SELECT count(lease.try_acquire('line/one', holder => 'A')) FROM generate_series(1, 3);
SELECT pg_temp.attempt($$SELECT lease.acquire('line/one', wait => '10 ms', holder => 'B')$$) ~ '^55P03' AS in_vain;
SELECT pg_temp.run_out('line/one', :t1);
SELECT lease.acquire('line/one', ttl => '1 h', holder => 'Y') AS t2 \gset
SELECT lease.try_renew('line/one', :t1);
SELECT pg_temp.attempt(format('SELECT lease.guard(%L, %s)', 'line/one', :t1)) ~ '^LE001' AS lost;
SELECT lease.transfer('line/one', :t2, 'Z') AS t3 \gset
SELECT lease.force_release('line/one', 'Z hangs');
SELECT lease.release('line/one', lease.acquire('line/one', holder => 'X'));
SELECT lease.acquire('line/one', mode => 'shared', ttl => '1 h', holder => h) > 0 AS taken FROM unnest(ARRAY['X', 'Y']) h;
SELECT pg_temp.picture('{line/one}') AS svg \gset
SELECT pg_temp.told(:'svg');
SELECT * FROM pg_temp.marks(:'svg');

-- It is XML, as far as the server can tell, and says so.
SELECT pg_temp.attempt(format('SELECT xmlparse(DOCUMENT %L)', :'svg')) ~ '^(done|0A000)' AS well_formed;
SELECT :'svg' ~ '^<svg xmlns="http://www.w3.org/2000/svg" width="\d+" height="\d+" viewBox="0 0 \d+ \d+"' AS begins, :'svg' ~ '</svg>$' AS ends;

-- A holder has one colour in all pictures, others have others.
SELECT lease.release('line/two', lease.acquire('line/two', holder => h)) FROM unnest(ARRAY['X', 'Y', 'Z']) h;
SELECT pg_temp.picture('{line/two}') AS svg2 \gset
SELECT h, pg_temp.colour(:'svg', h) = pg_temp.colour(:'svg2', h) AS same FROM unnest(ARRAY['X', 'Y', 'Z']) h;
SELECT count(DISTINCT pg_temp.colour(:'svg', h)) FROM unnest(ARRAY['X', 'Y', 'Z', 'A', 'B', 'me']) h;

-- Lanes: as asked for, once each, also of what nobody knows.
SELECT string_agg(m[1], ', ' ORDER BY i)
FROM regexp_matches(pg_temp.picture('{line/two,line/none,line/one,line/two}'), '<svg [^>]* height="16"><title>([^<]*)', 'g') WITH ORDINALITY AS u (m, i);
SELECT pg_temp.picture('{line/none}') ~ 'There is nothing to show' AS empty;
SELECT pg_temp.picture('{}') ~ 'There is nothing to show' AS empty;

-- A part of the time.
SELECT at AS forced FROM lease.history WHERE name = 'line/one' AND event = 'forced' \gset
SELECT * FROM pg_temp.marks(pg_temp.picture('{line/one}', until => :'forced'));
SELECT * FROM pg_temp.marks(pg_temp.picture('{line/one}', since => :'forced'));
SELECT pg_temp.told(pg_temp.picture('{line/one}', :'forced', :'forced'));
SELECT pg_temp.picture('{line/one}', '-infinity', 'infinity') ~ '</svg>$' AS as_far_as_it_goes,
       pg_temp.picture('{line/one}', '0001-01-01', '9999-12-31') ~ '</svg>$' AS far_and_wide,
       pg_temp.picture('{line/one}', '2001-01-01', '2000-01-01') ~ '</svg>$' AS backwards;

-- Nothing in a name or a holder is taken for a part of the picture.
SELECT lease.release(n, lease.acquire(n, holder => h, correlation_id => h))
FROM (VALUES (E'line/<&>"'']]>\x01\x1b\t\n\u00e9\ufffe', E'</title><script>"&amp;''\x02]]>')) v (n, h);
SELECT pg_temp.picture(ARRAY[E'line/<&>"'']]>\x01\x1b\t\n\u00e9\ufffe']) AS svg3 \gset
SELECT pg_temp.told(:'svg3');
SELECT :'svg3' ~ '<script|[\x01-\x08\x0b\x0c\x0e-\x1f\ufffe]' AS taken,
       pg_temp.attempt(format('SELECT xmlparse(DOCUMENT %L)', :'svg3')) ~ '^(done|0A000)' AS well_formed;

-- All names that one may see, if they are not too many; else the busiest.
CREATE ROLE regress_lease_many;
SELECT lease.allow('regress_lease_many');
SET ROLE regress_lease_many;
SELECT count(lease.release(n, lease.acquire(n))) FROM (SELECT 'line/many/' || i AS n FROM generate_series(10, 69) i, generate_series(1, 1 + i % 2)) n;
SELECT pg_temp.picture(NULL) AS svg4 \gset
SELECT substring(:'svg4' FROM 'Of \d+ names the \d+ busiest') AS said,
       count(*) AS lanes, count(*) FILTER (WHERE m[1]::integer % 2 = 1) AS busy, min(m[1]), max(m[1]) FILTER (WHERE m[1]::integer % 2 = 0) AS idle
FROM regexp_matches(:'svg4', '<svg [^>]* height="16"><title>line/many/(\d+)', 'g') m;
SELECT pg_temp.picture(array_agg('line/many/' || i)) AS svg5 FROM generate_series(10, 69) i \gset
SELECT substring(:'svg5' FROM 'Of \d+ names the \d+ busiest') AS said, count(*) AS lanes
FROM regexp_matches(:'svg5', '<svg [^>]* height="16"><title>', 'g') m;
RESET ROLE;
SELECT lease.disallow('regress_lease_many');
DROP ROLE regress_lease_many;

-- Who may see what.
CREATE ROLE regress_lease_one;
CREATE ROLE regress_lease_two;
SELECT lease.allow(r) FROM unnest('{regress_lease_one,regress_lease_two}'::regrole[]) r;
SET ROLE regress_lease_two;
SELECT lease.acquire('line/secret', ttl => '1 h', holder => 'hidden', correlation_id => 'hidden id') AS t \gset
SET ROLE regress_lease_one;
SELECT lease.try_acquire('line/secret', holder => 'One');
SELECT lease.release('line/mine', lease.acquire('line/mine', holder => 'One'));
SET ROLE regress_lease_two;
SELECT lease.release('line/secret', :t);
SELECT lease.acquire('line/hidden', ttl => '1 h', holder => 'hidden', correlation_id => 'hidden id') AS t \gset
SET ROLE regress_lease_one;
SELECT pg_temp.told(pg_temp.picture(NULL));
SELECT pg_temp.picture(NULL) ~ 'hidden' AS learned, pg_temp.picture('{line/secret,line/mine}') ~ 'hidden' AS learned,
       pg_temp.picture('{line/hidden}') ~ 'There is nothing to show' AS empty;
RESET ROLE;
SELECT lease.force_release('line/hidden', 'done');
SELECT lease.disallow(r) FROM unnest('{regress_lease_one,regress_lease_two}'::regrole[]) r;
DROP ROLE regress_lease_one, regress_lease_two;

-- Bad arguments.
SELECT pg_temp.attempt($$SELECT lease.timeline(ARRAY['x', NULL])$$);
SELECT pg_temp.attempt($$SELECT lease.timeline(ARRAY['x', ''])$$);

-- Bars that overlap get rows of their own, as long as there are rows.
SELECT lease.stacked('{1,1,1,1,2}', '{0,1,2,5,0}', '{10,3,4,6,1}', 6) AS apart,
       lease.stacked('{1,1,1,1}', '{0,1,2,3}', '{10,9,8,Infinity}', 2) AS crowded,
       lease.stacked('{1,1}', '{0,1}', '{1,1}', 2) AS touching, lease.stacked('{}', '{}', '{}', 2) AS none, lease.stacked(NULL, NULL, NULL, 2);
SELECT count(lease.force_release('line/one', 'done'));
