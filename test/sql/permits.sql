--
-- Counting semaphores: acquire_permit, try_acquire_permit, set_capacity.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
CREATE TEMPORARY VIEW held AS
	SELECT name, mode, scope, permits, capacity, waiters, holder FROM lease.leases ORDER BY name, token;
CREATE TEMPORARY VIEW rows AS
	SELECT kind, name, mode, permits, capacity FROM lease.ledger WHERE kind <> 'ceiling' ORDER BY name, token;

-- The first use sets the capacity, NULL takes what it is; a lease has none.
SELECT lease.acquire_permit('s', 3, ttl => '1 h', holder => 'a') AS a \gset
SELECT lease.acquire_permit('s', 3, 1, '1 h', holder => 'b') AS b \gset
SELECT lease.try_acquire_permit('s', ttl => '1 h', holder => 'c') AS c \gset
SELECT lease.acquire('lease', '1 h') AS lease \gset
SELECT :a < :b AND :b < :c AS tokens_grow;
SELECT * FROM held;
SELECT * FROM rows;
SELECT lease.try_acquire_permit('s') AS none_left, lease.try_acquire_permit('s', 3) AS none_left;

-- Another capacity is refused, and so is none at all for a name that is not in use.
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('s', 2)$$);
SELECT pg_temp.attempt($$SELECT lease.try_acquire_permit('s', 4)$$);
SELECT pg_temp.attempt($$SELECT lease.try_acquire_permit('t')$$);
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('t', NULL, 2)$$);

-- Releasing one of several frees one.
SELECT lease.release('s', :b), lease.is_held('s', :a), lease.is_held('s', :b), lease.is_held('s', :c);
SELECT lease.try_acquire_permit('s', permits => 2) AS too_many;
SELECT lease.try_acquire_permit('s', ttl => '1 h', holder => 'b') AS b \gset
SELECT :b > :c AS larger, lease.try_acquire_permit('s') AS none_left;
SELECT name, released FROM lease.release_all(ARRAY['s', 's', 's', 'lease'], ARRAY[:a, :b, :c, :lease]);
SELECT * FROM rows;

-- Several in one: they are released as one.
SELECT lease.acquire_permit('s', 5, 3, '1 h', holder => 'a') AS a \gset
SELECT lease.try_acquire_permit('s', permits => 3) AS too_many;
SELECT lease.try_acquire_permit('s', permits => 2, ttl => '1 h', holder => 'b') AS b \gset
SELECT * FROM held;
SELECT * FROM rows;
SELECT pg_temp.attempt($$SELECT lease.try_acquire_permit('s', permits => 6)$$);
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('s', 5, 6)$$);
SELECT lease.release('s', :a);
SELECT lease.try_acquire_permit('s', 5, 3, '1 h') AS a \gset
SELECT lease.release('s', :a), lease.release('s', :b);

-- All of it, so it is as good as exclusive; and the largest there is.
SELECT lease.acquire_permit('s', 1, ttl => '1 h') AS a \gset
SELECT lease.try_acquire_permit('s', 1) AS none_left;
SELECT lease.release('s', :a);
SELECT lease.acquire_permit('s', 1000000, 1000000, '1 h') AS a \gset
SELECT permits, capacity FROM held;
SELECT lease.try_acquire_permit('s') AS none_left;
SELECT lease.release('s', :a);

--
-- A name used as a semaphore cannot be taken as a lease, and the other way round
--
SELECT lease.acquire_permit('s', 3, ttl => '1 h') AS s \gset
SELECT pg_temp.attempt($$SELECT lease.try_acquire('s')$$);
SELECT pg_temp.attempt($$SELECT lease.acquire('s', mode => 'shared')$$) ~ '^22023: "s" is in use as a semaphore' AS refused;
SELECT pg_temp.attempt($$SELECT lease.acquire('s', scope => 'session')$$) ~ '^22023: "s" is in use as a semaphore' AS refused;
SELECT pg_temp.attempt($$SELECT * FROM lease.try_acquire_all('{r,s}')$$) ~ '^22023: "s" is in use as a semaphore' AS refused;
SELECT lease.acquire('l', '1 h', mode => 'shared') AS l \gset
SELECT pg_temp.attempt($$SELECT lease.try_acquire_permit('l', 3)$$);
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('l')$$) ~ '^22023: "l" is in use as a lease' AS refused;
SELECT name FROM held;

-- Once it is free again it can; also when it was not released, but is past its TTL.
SELECT lease.release('s', :s), lease.release('l', :l);
SELECT lease.try_acquire('s', '1 min') > :s AS lease, lease.try_acquire_permit('l', 2, ttl => '1 min') > :l AS permit;
SELECT pg_temp.advance_lease_clock('1 min');
SELECT lease.try_acquire_permit('s', 4, ttl => '1 min') IS NOT NULL AS permit, lease.try_acquire('l', '1 min') IS NOT NULL AS lease;
SELECT name, mode, capacity FROM held;
SELECT pg_temp.advance_lease_clock('1 min');
SELECT lease.try_acquire_permit('s', 2, ttl => '1 min') AS s \gset
SELECT lease.try_acquire_permit('l', 1, ttl => '1 min') AS l \gset
SELECT name, capacity FROM held;
SELECT lease.release('s', :s), lease.release('l', :l);

--
-- Permits are never re-entrant
--
SELECT lease.acquire_permit('s', 2, scope => 'session') AS a \gset
SELECT lease.acquire_permit('s', 2, scope => 'session') AS b \gset
SELECT :b > :a AS another, lease.try_acquire_permit('s', 2, scope => 'session') AS none_left;
SELECT * FROM held;
SELECT count(*) FROM rows;
SELECT lease.release('s', :a), lease.is_held('s', :b);
SELECT lease.try_acquire_permit('s', scope => 'session') > :b AS another;
SELECT lease.release_session();
SELECT count(*) FROM held;

-- Scope transaction: its end and that of a savepoint free permits.
BEGIN;
SELECT lease.acquire_permit('s', 3, scope => 'transaction') AS a \gset
SAVEPOINT one;
SELECT lease.acquire_permit('s', permits => 2, scope => 'transaction') > :a AS another;
SELECT lease.try_acquire_permit('s', scope => 'transaction') AS none_left;
ROLLBACK TO one;
SELECT scope, permits, capacity FROM held;
SELECT lease.acquire_permit('s', ttl => '1 h', holder => 'stays') AS b \gset
SELECT lease.try_acquire_permit('s', scope => 'transaction') > :b AS another;
ROLLBACK;
SELECT scope, permits, capacity, holder FROM held;
BEGIN;
SELECT lease.acquire_permit('s', permits => 2, scope => 'transaction') > :b AS another;
SELECT lease.try_acquire_permit('s') AS none_left;
COMMIT;
SELECT lease.try_acquire_permit('s', permits => 3) AS too_many, lease.release('s', :b);
SELECT count(*) FROM held;

--
-- The same request retried after a lost reply counts once and gives the same token
--
SELECT lease.acquire_permit('s', 3, 2, '10 min', holder => 'h', request_id => 'r') AS a \gset
SELECT pg_temp.advance_lease_clock('9 min');
SELECT lease.acquire_permit('s', 3, 2, '10 min', holder => 'h', request_id => 'r') = :a AS same,
       lease.try_acquire_permit('s', NULL, 2, '10 min', request_id => 'r') = :a AS same;
SELECT pg_temp.advance_lease_clock('9 min');
SELECT lease.is_held('s', :a);
SELECT permits, capacity FROM held;
SELECT * FROM rows;
SELECT pg_temp.attempt($$SELECT lease.try_acquire_permit('s', permits => 1, request_id => 'r')$$);
SELECT lease.try_acquire_permit('s', ttl => '10 min', request_id => 'another') > :a AS another;
SELECT lease.try_acquire_permit('s') AS none_left, lease.try_acquire_permit('s', request_id => 'third') AS none_left;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;
SELECT lease.acquire_permit('s', 3, 2, '10 min', holder => 'h', request_id => 'r') > :a AS new_token;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

--
-- TTL, delays, transfer, force
--

-- Past its TTL a permit is free, one by one; a renewal puts that off.
SELECT lease.acquire_permit('s', 2, ttl => '1 min') AS a \gset
SELECT lease.acquire_permit('s', 2, ttl => '1 min') AS b \gset
SELECT lease.renew('s', :b, '1 h');
SELECT pg_temp.advance_lease_clock('1 min');
SELECT lease.is_held('s', :a), lease.is_held('s', :b), lease.try_renew('s', :a);
SELECT permits, capacity FROM held;
SELECT lease.try_acquire_permit('s', permits => 2) AS too_many;
SELECT lease.try_acquire_permit('s', ttl => '1 h') AS a \gset
SELECT lease.try_acquire_permit('s') AS none_left;
SELECT lease.release('s', :a);

-- Handed over: as many permits, under a new token.
SELECT lease.try_acquire_permit('s', ttl => '1 h', holder => 'first') AS a \gset
SELECT lease.transfer('s', :a, 'second') AS c \gset
SELECT :c > :a AS larger, lease.is_held('s', :a), lease.try_acquire_permit('s') AS none_left;
SELECT mode, permits, capacity, holder FROM held WHERE holder = 'second';
SELECT lease.release('s', :b);
SELECT lease.transfer('s', :c, 'third') AS a \gset
SELECT * FROM rows;

-- By force: one of them, and all.
SET client_min_messages = warning;
SELECT lease.try_acquire_permit('s', ttl => '1 h') AS b \gset
SELECT lease.force_release('s', 'test', :a);
SELECT lease.is_held('s', :a), lease.is_held('s', :b), lease.try_acquire_permit('s', ttl => '1 h') > :b AS another;
SELECT lease.force_release('s', 'test');
SELECT count(*) FROM held;
RESET client_min_messages;

-- A delay keeps the grant's own permits closed, and not those of others.
SELECT lease.acquire_permit('s', 3, 2, '1 min', lock_delay => '10 min') AS a \gset
SELECT pg_temp.advance_lease_clock('1 min');
SELECT lease.is_held('s', :a), (SELECT closed_until IS NOT NULL FROM lease.leases) AS closed;
SELECT lease.try_acquire_permit('s', 3, 2) AS closed, lease.try_acquire_permit('s', 3, ttl => '1 min') > :a AS granted;
SELECT pg_temp.advance_lease_clock('10 min');
SELECT lease.try_acquire_permit('s', 3, 3, ttl => '1 h', min_hold => '10 min') AS a \gset
SELECT lease.release('s', :a), lease.try_acquire_permit('s', 3) AS closed;
SELECT * FROM rows;
SELECT pg_temp.attempt($$SELECT lease.try_acquire('s')$$) ~ '^22023: "s" is in use as a semaphore' AS refused;
SELECT pg_temp.advance_lease_clock('10 min');
SELECT lease.try_acquire('s', '1 h') AS a \gset
SELECT lease.release('s', :a);

--
-- A semaphore is resized while in use, up and down
--
SELECT lease.acquire_permit('s', 2, ttl => '1 h', holder => 'a') AS a \gset
SELECT lease.acquire_permit('s', 2, ttl => '1 h', holder => 'b') AS b \gset
SELECT lease.acquire_permit('other', 2, ttl => '1 h', holder => 'o') AS o \gset
SELECT lease.set_capacity('s', 3);
SELECT name, holder, permits, capacity FROM held;
SELECT * FROM rows;
SELECT pg_temp.attempt($$SELECT lease.try_acquire_permit('s', 2)$$);
SELECT lease.try_acquire_permit('s', 3, ttl => '1 h', holder => 'c') AS c \gset
SELECT lease.try_acquire_permit('s') AS none_left;

-- A smaller one takes none away, it stops new grants.
SELECT lease.set_capacity('s', 1);
SELECT lease.is_held('s', :a), lease.is_held('s', :b), lease.is_held('s', :c), lease.try_renew('s', :a);
SELECT * FROM rows;
SELECT lease.try_acquire_permit('s', 1) AS none_left;
SELECT lease.release('s', :a), lease.try_acquire_permit('s', 1) AS none_left;
SELECT lease.release('s', :b), lease.try_acquire_permit('s', 1) AS none_left;
SELECT lease.release('s', :c), lease.try_acquire_permit('s', 1, ttl => '1 h') > :c AS granted;
SELECT lease.set_capacity('s', 1), lease.set_capacity('s', 1000000), lease.set_capacity('s', 2);
SELECT name, capacity FROM held;

-- What is taken after it is written with the new size, renewed and handed over, too.
SELECT lease.try_acquire_permit('s', ttl => '1 h') AS a \gset
SELECT lease.renew('s', :a, '2 h');
SELECT lease.transfer('s', :a, 'next') > :a AS larger;
SELECT * FROM rows;

-- It lasts as long as the semaphore is in use; whoever is next sets its own.
SELECT bool_and(lease.release(name, token)) FROM lease.leases;
SELECT lease.acquire_permit('s', 7, ttl => '1 h') AS s \gset
SELECT lease.set_capacity('s', 8);
SELECT lease.release('s', :s);

-- Of permits without a row; ROLLBACK does not undo it.
BEGIN;
SELECT lease.acquire_permit('s', 1, scope => 'session') AS s \gset
SELECT lease.set_capacity('s', 2);
ROLLBACK;
SELECT scope, permits, capacity FROM held;
SELECT lease.release_session();

-- Of one that only a delay keeps in use: the closure's row tells it.
SELECT lease.acquire_permit('s', 2, ttl => '1 h', min_hold => '10 min') AS s \gset
SELECT lease.release('s', :s);
SELECT lease.set_capacity('s', 5);
SELECT * FROM rows;
SELECT capacity, closed_until IS NOT NULL AS closed FROM lease.leases;
SELECT pg_temp.advance_lease_clock('10 min');

-- Not of a name that is not in use (any more), nor of a lease.
SELECT pg_temp.attempt($$SELECT lease.set_capacity('never used', 3)$$);
SELECT pg_temp.attempt($$SELECT lease.set_capacity('s', 3)$$) ~ '^22023: semaphore "s" is not in use' AS refused;
SELECT lease.acquire('l', '1 h') AS l \gset
SELECT pg_temp.attempt($$SELECT lease.set_capacity('l', 3)$$);
SELECT lease.release('l', :l);

--
-- Arguments at their bounds and past them
--
SELECT args, pg_temp.attempt(format('SELECT lease.%s(''x'', %s)', f, args))
FROM unnest(ARRAY['try_acquire_permit', 'acquire_permit']) f,
     unnest(ARRAY['0', '-1', '1000001', '3, 0', '3, -1', '3, 4', '3, NULL', 'NULL, 1000001', '-2147483648, 1', '3, 2147483647']) args;
SELECT args, pg_temp.attempt(format('SELECT lease.set_capacity(%s)', args))
FROM unnest(ARRAY[$$'x', 0$$, $$'x', -1$$, $$'x', 1000001$$, $$'x', NULL$$, $$NULL, 1$$, $$'', 1$$]) args;
SELECT lease.acquire_permit('s', 2, ttl => '1 h') AS s \gset
SELECT pg_temp.attempt($$SELECT lease.set_capacity('s', 0)$$), (SELECT capacity FROM held);

--
-- A wait with a limit
--
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('s', permits => 2, wait => '20 ms')$$);
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('s', permits => 2, wait => '0')$$);
SET lock_timeout = '20 ms';
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('s', 2, 2, scope => 'transaction')$$);
RESET lock_timeout;
SELECT lease.acquire_permit('s', ttl => '30 min', permits => 1, wait => '0', holder => 'other') > :s AS granted;
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('s', wait => '1 ms')$$);
SELECT lease.set_capacity('s', 3);
SELECT lease.set_capacity('s', 1);
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('s', wait => '1 ms')$$);
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

-- A grant of several permits; and one that only keeps them closed.
SELECT lease.acquire_permit('s', 3, 3, '1 h', min_hold => '10 min', holder => 'batch') AS s \gset
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('s', 3, 2, wait => '1 ms')$$);
SELECT lease.release('s', :s);
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('s', 3, 2, wait => '1 ms')$$);
SELECT pg_temp.advance_lease_clock('10 min');

--
-- Whose permits they are
--
SET client_min_messages = warning;
CREATE ROLE regress_lease_one;
CREATE ROLE regress_lease_two;
CREATE ROLE regress_lease_boss IN ROLE regress_lease_one, regress_lease_two;
SELECT lease.allow(r::regrole) FROM unnest(ARRAY['regress_lease_one', 'regress_lease_two', 'regress_lease_boss']) r;
SET ROLE regress_lease_one;
SELECT lease.acquire_permit('s', 3, ttl => '1 h', holder => 'one') AS a \gset
SELECT lease.set_capacity('s', 4);
SET ROLE regress_lease_two;
SELECT pg_temp.attempt($$SELECT lease.set_capacity('s', 5)$$);

-- Anybody may take permits; then each has a say in the capacity.
SELECT lease.acquire_permit('s', ttl => '1 h', holder => 'two') AS b \gset
SELECT pg_temp.attempt($$SELECT lease.set_capacity('s', 5)$$) ~ '^42501' AS refused;
SET ROLE regress_lease_one;
SELECT pg_temp.attempt($$SELECT lease.set_capacity('s', 5)$$) ~ '^42501' AS refused;
SET ROLE regress_lease_boss;
SELECT lease.set_capacity('s', 2);
SET ROLE regress_lease_one;
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('s', wait => '1 ms')$$);
SET ROLE regress_lease_two;
SELECT lease.release('s', :b);
RESET ROLE;
SELECT lease.set_capacity('s', 3);
SELECT owner, capacity FROM lease.leases;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;
SELECT lease.disallow(r::regrole) FROM unnest(ARRAY['regress_lease_one', 'regress_lease_two', 'regress_lease_boss']) r;
DROP ROLE regress_lease_one, regress_lease_two, regress_lease_boss;

-- A retry is known by its id, though the size is another meanwhile.
SELECT lease.acquire_permit('s', 3, ttl => '1 min', request_id => 'r') AS a \gset
SELECT lease.set_capacity('s', 5);
SELECT lease.acquire_permit('s', 3, ttl => '1 min', request_id => 'r') = :a AS same_token;

-- But not by a call that takes the name for a lease, nor is a hold of permits one
-- of a lease.
SELECT pg_temp.attempt($$SELECT lease.acquire('s', mode => 'shared', request_id => 'r')$$);
SELECT lease.acquire_permit('mine', 3, scope => 'session', request_id => 'r') AS b \gset
SELECT pg_temp.attempt($$SELECT lease.acquire('mine', mode => 'shared', scope => 'session')$$);
SELECT pg_temp.attempt($$SELECT lease.try_acquire('mine', scope => 'session')$$);
SELECT lease.release('mine', :b);

-- Once all permits are over the name has no size, whether they were reaped or not.
SELECT pg_temp.advance_lease_clock('1 min');
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('s')$$);
SELECT lease.acquire_permit('s', 7, 7) AS a \gset
SELECT lease.release('s', :a);

SELECT leases_used, waiters FROM lease.status;
SELECT * FROM rows;
