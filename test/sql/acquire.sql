--
-- Taking a lease: who gets it, what shows of it, and that it is no business of
-- the caller's transaction.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools

-- The first gets a token; the next gets NULL, be it the same session.
SELECT lease.try_acquire('billing/invoice/42', ttl => '1 h') AS t1 \gset
SELECT :t1 > 0 AND :t1 < 2::bigint ^ 53 AS token_in_range;
SELECT lease.try_acquire('billing/invoice/42') AS taken;
SELECT lease.try_acquire('billing/invoice/42', holder => 'somebody else') AS taken;

-- A failed attempt leaves nothing behind.
SELECT count(*) FROM lease.ledger WHERE kind = 'grant';

-- Names are compared byte by byte: none of these is taken.
SELECT lease.try_acquire(n, ttl => '1 h') IS NOT NULL AS granted
FROM unnest(ARRAY['billing/invoice/4', 'billing/invoice/42 ', 'Billing/invoice/42', E'n\u00e4me', E'na\u0308me']) n;

-- Tokens grow with each grant, also of different names.
SELECT lease.try_acquire('other', ttl => '1 h') AS t2 \gset
SELECT lease.release('other', :t2);
SELECT lease.try_acquire('other', ttl => '1 h') AS t3 \gset
SELECT lease.release('billing/invoice/42', :t1);
SELECT lease.try_acquire('billing/invoice/42', ttl => '1 h') AS t4 \gset
SELECT :t1 < :t2 AND :t2 < :t3 AND :t3 < :t4 AS strictly_increasing;
SELECT count(*) = 1000 AND bool_and(later > earlier) AS strictly_increasing
FROM (SELECT token AS later, lag(token, 1, 0::bigint) OVER (ORDER BY n) AS earlier
      FROM (SELECT n, lease.try_acquire('many/' || n, ttl => '1 h') AS token
            FROM generate_series(1, 1000) n OFFSET 0) granted) pairs;

-- The next token is known before it is granted, and its epoch with it.
SELECT next_token, epoch FROM lease.status \gset
SELECT lease.try_acquire('next', ttl => '1 h') >= :next_token AS as_announced,
       :next_token >> 27 = :epoch AS epoch_is_upper_part;

-- What ends with the lease: all that it showed.
SELECT count(*) FROM lease.leases;
SELECT count(*) AS released
FROM (SELECT lease.release(name, token) AS done FROM lease.leases) all_of_them WHERE done;
SELECT count(*) FROM lease.leases;
SELECT count(*) FROM lease.ledger WHERE kind = 'grant';

-- All that the view shows of a lease taken with every argument.
SELECT lease.try_acquire('full', ttl => '90 min', mode => 'exclusive', scope => 'detached',
	holder => 'worker 7', request_id => 'r-1', correlation_id => 'c-1',
	lock_delay => '0', min_hold => '0', metadata => '{"why": "test", "n": [1, 2]}') AS t \gset
\x on
SELECT name, mode, scope, token = :t AS "token =", holder, owner = current_user AS "owner =",
       pid = pg_backend_pid() AS "pid =",
       acquired_at BETWEEN statement_timestamp() - interval '1 min' AND clock_timestamp() AS "acquired_at =",
       renewed_at,
       expires_at - acquired_at BETWEEN interval '89 min' AND interval '91 min' AS "expires_at =",
       remaining > interval '85 min' AND remaining <= interval '90 min' AS "remaining =",
       ttl, renewals, durable, closed_until, request_id, correlation_id, metadata
FROM lease.leases;
\x off

-- ... and what the ledger keeps of it, visible to all at once.
\x on
SELECT kind, token = :t AS "token =", name, holder, owner = current_user::regrole AS "owner =", ttl,
       replaces, lock_delay, min_hold, request_id, correlation_id, metadata
FROM lease.ledger WHERE kind = 'grant';
\x off
SELECT lease.release('full', :t);

-- NULL for whatever may be left out means the default.
SELECT lease.try_acquire('bare', NULL, 'exclusive', 'detached', NULL, NULL, NULL, NULL, NULL, NULL) AS t \gset
SELECT ttl, request_id, correlation_id, metadata FROM lease.leases;
SELECT lease.release('bare', :t);
SET lease.default_ttl = '2 min';
SELECT lease.try_acquire('bare') AS t \gset
SELECT ttl FROM lease.leases;
SELECT lease.release('bare', :t);
RESET lease.default_ttl;

-- The empty text is no request id: two of them are no retry of each other.
SELECT lease.try_acquire('bare', request_id => '') AS t \gset
SELECT lease.try_acquire('bare', request_id => '') AS taken;
SELECT lease.release('bare', :t);

--
-- Transactions
--

-- A grant is visible at once, also to a snapshot that is older.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM lease.leases;
SELECT lease.try_acquire('in transaction', ttl => '1 h') AS t \gset
SELECT name, token = :t AS same FROM lease.leases;
SELECT name, token = :t AS same FROM lease.ledger WHERE kind = 'grant';
ROLLBACK;

-- ROLLBACK takes no grant back, and no release.
SELECT lease.is_held('in transaction', :t);
BEGIN;
SELECT lease.release('in transaction', :t);
ROLLBACK;
SELECT lease.is_held('in transaction', :t);

-- Nor does ROLLBACK TO.
BEGIN;
SAVEPOINT s;
SELECT lease.try_acquire('savepoint', ttl => '1 h') AS t \gset
ROLLBACK TO s;
SELECT lease.is_held('savepoint', :t);
SAVEPOINT s2;
SELECT lease.release('savepoint', :t);
ROLLBACK TO s2;
SELECT lease.is_held('savepoint', :t);
COMMIT;

-- Nor does a block that catches an error.
DO $$
BEGIN
	BEGIN
		PERFORM lease.try_acquire('plpgsql', ttl => '1 h');
		RAISE division_by_zero;
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE 'held: %', (SELECT count(*) FROM lease.leases WHERE name = 'plpgsql');
	END;
END
$$;
SELECT lease.release(name, token) FROM lease.leases WHERE name = 'plpgsql';

-- A transaction can be prepared after leases came and went in it.
BEGIN;
SELECT lease.try_acquire('prepared', ttl => '1 h') AS t \gset
PREPARE TRANSACTION 'lease_acquire';
ROLLBACK PREPARED 'lease_acquire';
SELECT lease.release('prepared', :t);

-- No transaction id is spent, be it on taking or on letting go.
BEGIN;
SELECT lease.release('no xid', lease.try_acquire('no xid'));
SELECT pg_current_xact_id_if_assigned() IS NULL AS no_xid;
COMMIT;

-- A cursor takes what it fetches.
BEGIN;
DECLARE c CURSOR FOR SELECT lease.try_acquire('cursor/' || n, ttl => '1 h') IS NOT NULL AS granted
	FROM generate_series(1, 5) n;
FETCH 2 FROM c;
CLOSE c;
SELECT name FROM lease.leases ORDER BY name;
ROLLBACK;

-- LIMIT is no bound on what is taken: to sort by the tokens all must be taken.
SELECT count(*) FROM (SELECT lease.try_acquire('limit/' || n, ttl => '1 h') AS token
                      FROM generate_series(1, 5) n ORDER BY token LIMIT 2) two;
SELECT count(*) FROM lease.leases WHERE name LIKE 'limit/%';
SELECT bool_and(lease.release(name, token)) FROM lease.leases;
