--
-- A read-only transaction may look, and do nothing else.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SELECT lease.try_acquire('held', ttl => '1 h') AS t \gset
BEGIN READ ONLY;
SELECT f, pg_temp.attempt(format('SELECT lease.%s', format(f, :t)))
FROM unnest(ARRAY[
	$$try_acquire('new')$$, $$try_acquire('held')$$, $$acquire('new')$$, $$acquire('held')$$,
	$$acquire('new', scope => 'session')$$, $$acquire('new', scope => 'transaction')$$,
	$$acquire_all('{new}')$$, $$try_acquire_all('{new}')$$,
	$$acquire_permit('new', 3)$$, $$try_acquire_permit('new', 3)$$, $$set_capacity('held', 3)$$,
	$$renew('held', %s)$$, $$try_renew('held', %s)$$, $$renew_all('{held}', '{%s}')$$,
	$$release('held', %s)$$, $$release_all('{held}', '{%s}')$$, $$transfer('held', %s, 'next')$$,
	$$release_session()$$, $$guard('held', %s)$$, $$fence('held', %s)$$, $$once('key')$$, $$save_result('key', '1')$$,
	$$force_release('held', 'reason')$$, $$new_epoch('reason')$$, $$reset_stats()$$, $$allow('pg_monitor')$$]) f;

SELECT pg_temp.attempt($$CALL lease.campaign('new')$$);

-- It comes before what is wrong with the arguments.
SELECT pg_temp.attempt($$SELECT lease.release(NULL, 0)$$);
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('new', 0)$$);
SELECT pg_temp.attempt($$SELECT lease.set_capacity('new', NULL)$$);

SELECT lease.is_held('held', :t);
SELECT lease.result('key');
SELECT name FROM lease.leases;
SELECT count(*) FROM lease.waiters;
SELECT lease.blocking_pids(pg_backend_pid());
SELECT version FROM lease.status;
SELECT name FROM lease.stats WHERE name = 'held' AND acquired > 0;
SELECT count(*) > 0 AS counted FROM lease.totals, lease.wait_histogram, lease.hold_histogram;
SELECT count(*) >= 0 AS readable FROM lease.history;
COMMIT;

-- As a session's default.
SET default_transaction_read_only = on;
SELECT pg_temp.attempt($$SELECT lease.try_acquire('new')$$);
CALL lease.campaign('new');
-- A pooler's clean-up is not refused.
SET default_transaction_read_only = off;
SELECT lease.acquire('pooled', scope => 'session') > 0 AS held;
SET default_transaction_read_only = on;
DISCARD ALL;
SELECT name FROM lease.leases;
SELECT lease.release('held', :t);
