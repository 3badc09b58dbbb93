--
-- Bad input: every argument at its bounds and past them, each with its SQLSTATE
-- and a message that names the value and the bound.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
\pset format unaligned
\pset tuples_only on

--
-- Names: 1 to 255 bytes
--
SELECT pg_temp.attempt($$SELECT lease.try_acquire('')$$);
SELECT pg_temp.attempt($$SELECT lease.try_acquire(NULL)$$);
SELECT pg_temp.attempt($$SELECT lease.try_acquire('x')$$);
SELECT pg_temp.attempt(format('SELECT lease.try_acquire(%L)', repeat('x', 255)));
SELECT replace(pg_temp.attempt(format('SELECT lease.try_acquire(%L)', repeat('x', 256))), repeat('x', 255), '<255 bytes>');
-- Bytes, not characters: 127 of two bytes are within it, 128 are not.
SELECT pg_temp.attempt(format('SELECT lease.try_acquire(%L)', repeat('ä', 127) || 'x'));
SELECT pg_temp.attempt(format('SELECT lease.try_acquire(%L)', repeat('ä', 128))) ~ '^22023: lease name .* has 256 bytes; it must have 1 to 255';
SELECT pg_temp.attempt(format('SELECT lease.try_acquire(%L)', repeat('x', 100000))) ~ '^22023: lease name "x{255}" has 100000 bytes';
-- The message is valid text, even if it cuts the name short.
SELECT pg_temp.attempt(format('SELECT lease.try_acquire(%L)', repeat('€', 1000))) ~ '^22023: lease name "€{85}" has 3000 bytes';
SELECT pg_temp.attempt(format('SELECT lease.try_acquire(%L)', 'x' || repeat('€', 1000))) ~ '^22023: lease name "x€{84}" has 3001 bytes';
-- Invalid encoding does not get as far as here.
SELECT pg_temp.attempt($$SELECT lease.try_acquire(convert_from('\xff', 'UTF8'))$$);
SELECT pg_temp.attempt($$SELECT lease.try_acquire(E'\xc3')$$);
-- Of every function.
SELECT f, pg_temp.attempt(format('SELECT lease.%s', f))
FROM unnest(ARRAY[
	$$renew('', 1)$$, $$renew(NULL, 1)$$, $$try_renew('', 1)$$, $$try_renew(NULL, 1)$$,
	$$release('', 1)$$, $$release(NULL, 1)$$, $$transfer('', 1, 'h')$$, $$transfer(NULL, 1, 'h')$$,
	$$is_held('', 1)$$, $$is_held(NULL, 1)$$, $$force_release('', 'r')$$, $$force_release(NULL, 'r')$$,
	$$acquire('')$$, $$acquire(NULL)$$, $$acquire_permit('', 1)$$, $$acquire_permit(NULL, 1)$$,
	$$try_acquire_permit('', 1)$$, $$try_acquire_permit(NULL, 1)$$, $$set_capacity('', 1)$$, $$set_capacity(NULL, 1)$$]) f;

--
-- Tokens: 1 to 2^53 - 1
--
SELECT f, pg_temp.attempt(format('SELECT lease.%s', format(f, token)))
FROM unnest(ARRAY[$$renew('x', %s)$$, $$try_renew('x', %s)$$, $$release('x', %s)$$,
                  $$transfer('x', %s, 'h')$$, $$is_held('x', %s)$$]) f,
     unnest(ARRAY['0', '-1', '9007199254740992', '-9223372036854775808', 'NULL']) token;
SELECT lease.is_held('x', 1), lease.is_held('x', 9007199254740991), lease.try_renew('x', 1);

-- Tokens that were never issued, yesterday's, and another name's.
SELECT token AS x FROM lease.leases WHERE name = 'x' \gset
SELECT token AS other FROM lease.leases WHERE name = repeat('x', 255) \gset
SELECT pg_temp.attempt(format($$SELECT lease.renew('x', %s)$$, :x + 1000000000));
SELECT pg_temp.attempt(format($$SELECT lease.renew('never taken', %s)$$, :x + 1000000000));
SELECT pg_temp.attempt(format($$SELECT lease.renew('x', %s)$$, :x - (24 * 60::bigint << 27))) ~ '^LE001: lease "x" is not held with token TOKEN';
SELECT pg_temp.attempt(format($$SELECT lease.renew('x', %s)$$, :other)) ~ '^LE001: lease "x" is not held with token TOKEN';
SELECT pg_temp.attempt(format($$SELECT lease.renew('never taken', %s)$$, :x));
SELECT lease.is_held('x', :x);

--
-- TTLs: 1 ms to lease.max_ttl
--
SELECT ttl, pg_temp.attempt(format($$SELECT lease.try_acquire('ttl', %L)$$, ttl))
FROM unnest(ARRAY['0', '-1 s', '1 us', '999 us', '-1 day', '1 day 1 ms', '24:00:00.001', '30 days',
                  '1 month', '1 year', '1 month -30 days', '-178000000 years',
                  '2147483647 days', '-2147483648 days',
                  '2147483647 days 2562047788:00:54.775807', '-2147483647 days -2562047788:00:54.775807']) ttl;
-- A day counts as 24 hours, and parts add up.
SELECT ttl, lease.try_acquire('ttl/' || ttl, ttl::interval) > 0
FROM unnest(ARRAY['1 ms', '1001 us', '1 day', '24 h', '-1 day 25 h', '2 days -24 h']) ttl;
SELECT name, ttl FROM lease.leases WHERE ttl > '1 min' AND name LIKE 'ttl/%' ORDER BY name COLLATE "C";
SET lease.max_ttl = '2 d';
SELECT lease.try_acquire('ttl', '1 day 24 h') AS t \gset
SELECT ttl FROM lease.leases WHERE name = 'ttl';
SELECT lease.release('ttl', :t);
RESET lease.max_ttl;
-- Of every function that takes one.
SELECT f, pg_temp.attempt(format('SELECT lease.%s', format(f, :x, ttl)))
FROM unnest(ARRAY[$$renew('x', %s, '%s')$$, $$try_renew('x', %s, '%s')$$]) f,
     unnest(ARRAY['0', '1 day 1 ms', '1 month']) ttl;
-- For ever is no TTL, where the server knows the word.
SELECT current_setting('server_version_num')::int >= 170000 AS knows_infinity \gset
\if :knows_infinity
\set refused '^22023: TTL "-?infinity" has no fixed length'
\else
\set refused '^22007'
\endif
SELECT bool_and(pg_temp.attempt(format($$SELECT lease.try_acquire('ttl', %L)$$, ttl)) ~ :'refused') FROM unnest(ARRAY['infinity', '-infinity']) ttl;
SELECT lease.is_held('x', :x);

--
-- Waits: 0 to lease.max_ttl, and NULL, which is endless
--
SELECT ttl, pg_temp.attempt(format($$SELECT lease.acquire('wait', wait => %L)$$, ttl))
FROM unnest(ARRAY['-1 us', '-1 day', '1 day 1 ms', '1 month', '1 month -30 days', '2147483647 days']) ttl;
SELECT bool_and(pg_temp.attempt(format('SELECT lease.%s, wait => ''1 day 1 ms'')', f)) ~ '^22023: wait "@ 1 day') AS refused
FROM unnest(ARRAY[$$acquire('x'$$, $$acquire_all('{x}'$$, $$acquire_permit('s', 1$$]) f;
SELECT ttl, lease.acquire('wait/' || ttl, wait => ttl::interval) > 0
FROM unnest(ARRAY['0', '1 us', '1 day']) ttl;
SELECT lease.acquire('wait/NULL', wait => NULL) > 0;

--
-- lock_delay and min_hold: 0 to lease.max_ttl
--
SELECT what, pg_temp.attempt(format($$SELECT lease.try_acquire('delay', %s)$$, what))
FROM unnest(ARRAY[$$lock_delay => '-1 s'$$, $$min_hold => '-1 us'$$, $$lock_delay => '1 day 1 ms'$$,
                  $$min_hold => '1 day 1 ms'$$, $$lock_delay => '1 month'$$, $$min_hold => '1 year'$$,
                  $$lock_delay => '1 day', min_hold => '1 day', ttl => '0'$$]) what;
SELECT lease.try_acquire('delay', lock_delay => '1 day') > 0;

--
-- Labels: at most 127 bytes, and never cut off
--
SELECT what, replace(pg_temp.attempt(format('SELECT lease.try_acquire(%L, %s => %L)', what || n, what, repeat('x', n))), repeat('x', 127), '<127 bytes>')
FROM unnest(ARRAY['holder', 'request_id', 'correlation_id']) what, unnest(ARRAY[127, 128]) n;
SELECT pg_temp.attempt(format($$SELECT lease.try_acquire('label', holder => %L)$$, repeat('ä', 64)));
SELECT replace(pg_temp.attempt(format($$SELECT lease.transfer('x', %s, %L)$$, :x, repeat('x', 128))), repeat('x', 127), '<127 bytes>');
SELECT pg_temp.attempt(format($$SELECT lease.transfer('x', %s, NULL)$$, :x));
SELECT lease.is_held('x', :x);

--
-- metadata: at most 1 kB as text
--
SELECT pg_temp.attempt(format($$SELECT lease.try_acquire('metadata', metadata => %L)$$, to_jsonb(repeat('x', 1023))));
SELECT pg_temp.attempt(format($$SELECT lease.try_acquire('metadata', metadata => %L)$$, to_jsonb(repeat('x', 1000000))));

--
-- mode and scope
--
SELECT what, pg_temp.attempt(format($$SELECT lease.try_acquire('choice', %s)$$, what))
FROM unnest(ARRAY[$$mode => 'no mode'$$, $$mode => 'EXCLUSIVE'$$, $$mode => ''$$, $$mode => NULL$$,
                  $$scope => 'no scope'$$, $$scope => 'Detached'$$, $$scope => ''$$, $$scope => NULL$$]) what;

--
-- Settings
--

-- A default that is longer than the longest is noticed where it is used.
SET lease.default_ttl = '2 d';
SELECT pg_temp.attempt($$SELECT lease.try_acquire('setting')$$);
SELECT lease.try_acquire('setting', ttl => '1 h') > 0;
RESET lease.default_ttl;
SET lease.max_ttl = '10 s';
SELECT pg_temp.attempt($$SELECT lease.try_acquire('setting too')$$);
SELECT pg_temp.attempt($$SELECT lease.try_acquire('setting too', '10001 ms')$$);
RESET lease.max_ttl;

-- What is out of bounds is refused at once.
SELECT left(setting, 40), left(pg_temp.attempt('SET ' || setting), 5)
FROM unnest(ARRAY['lease.default_ttl = 0', 'lease.default_ttl = -1', 'lease.default_ttl = ''1 year''',
                  'lease.max_ttl = 0', 'lease.max_ttl = ''forever''', 'lease.max_leases = 100',
                  'lease.no_such_setting = 1',
                  'lease.holder = ''' || repeat('x', 128) || '''',
                  'lease.correlation_id = ''' || repeat('x', 128) || '''']) setting;
SELECT left(pg_temp.attempt('SET ' || setting), 5)
FROM unnest(ARRAY['lease.holder = ''' || repeat('x', 127) || '''',
                  'lease.correlation_id = ''' || repeat('x', 127) || '''']) setting;
SELECT lease.try_acquire('longest settings') > 0;
RESET lease.holder;
RESET lease.correlation_id;

-- Whatever was refused above left nothing behind.
SELECT CASE WHEN length(name) < 100 THEN name ELSE left(name, 1) || ' x ' || length(name) END
FROM lease.leases WHERE name NOT LIKE 'ttl/%' ORDER BY name COLLATE "C";
SELECT bool_and(lease.release(name, token)) FROM lease.leases WHERE remaining > '1 s';
