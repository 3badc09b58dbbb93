--
-- Who may do what, and who sees what.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = warning;
CREATE ROLE regress_lease_app;
CREATE ROLE regress_lease_member IN ROLE regress_lease_app;
CREATE ROLE regress_lease_noinherit NOINHERIT IN ROLE regress_lease_app;
CREATE ROLE "regress lease Stranger";
CREATE ROLE regress_lease_monitor IN ROLE pg_read_all_stats;
CREATE ROLE regress_lease_operator;
CREATE ROLE regress_lease_nobody;
SELECT lease.allow('regress_lease_app');
SELECT lease.allow('regress_lease_noinherit');
SELECT lease.allow('"regress lease Stranger"');
SELECT lease.allow('regress_lease_monitor');

-- Everything there is to look at or to call.
CREATE FUNCTION pg_temp.attempt_all() RETURNS TABLE (f text, attempt text) LANGUAGE sql AS $all$
	SELECT f, pg_temp.attempt(CASE WHEN f ~ '^campaign' THEN 'CALL lease.' ELSE 'SELECT * FROM lease.' END || f)
	FROM unnest(ARRAY['leases', 'waiters', 'status', 'protected_tables', 'ledger', 'fences', 'keys',
		'stats', 'totals', 'wait_histogram', 'hold_histogram', 'history', 'events', 'own_events', 'advice',
		'live_leases()', 'live_waiters()', 'server_status()', 'live_stats()', 'histograms()', 'user_objects()',
		$$acquire('x')$$, $$try_acquire('x')$$, $$acquire_all('{x}')$$, $$try_acquire_all('{x}')$$,
		$$acquire_permit('x', 1)$$, $$try_acquire_permit('x', 1)$$, $$set_capacity('x', 1)$$,
		$$campaign('x')$$, 'release_session()', 'blocking_pids(1)', $$renew('x', 1)$$, $$try_renew('x', 1)$$, $$renew_all('{x}', '{1}')$$,
		$$release('x', 1)$$, $$release_all('{x}', '{1}')$$, $$transfer('x', 1, 'h')$$, $$is_held('x', 1)$$, $$guard('x', 1)$$,
		$$protect_table('pg_class', 'x')$$, $$unprotect_table('pg_class')$$, $$fence('x', 1)$$,
		$$enable_fencing('pg_class')$$, $$disable_fencing('pg_class')$$, $$enable_versioning('pg_class')$$,
		$$disable_versioning('pg_class')$$, $$compare_and_set('pg_class', '{}', 1, '{}')$$,
		$$once('x')$$, $$save_result('x', '1')$$, $$result('x')$$,
		$$force_release('x', 'r')$$, $$new_epoch('r')$$, 'reset_stats()', $$explain('x')$$, $$timeline('{x}')$$,
		$$allow('regress_lease_nobody')$$, $$disallow('regress_lease_nobody')$$]) f;
$all$;

--
-- A role without USAGE sees nothing, and can do nothing.
--
SET ROLE regress_lease_nobody;
SELECT * FROM pg_temp.attempt_all();
RESET ROLE;

-- Nor does USAGE of the schema alone help.
GRANT USAGE ON SCHEMA lease TO regress_lease_nobody;
SET ROLE regress_lease_nobody;
SELECT * FROM pg_temp.attempt_all();
RESET ROLE;
REVOKE USAGE ON SCHEMA lease FROM regress_lease_nobody;

--
-- What lease.allow grants: no more than this.
--
CREATE VIEW pg_temp.granted AS
	SELECT a.grantee::regrole AS role, a.privilege_type || ' ON ' || o.object AS privilege, a.is_grantable
	FROM (SELECT 'SCHEMA ' || nspname, coalesce(nspacl, acldefault('n', nspowner)), nspowner FROM pg_namespace WHERE nspname = 'lease'
	      UNION ALL
	      SELECT relname::text, coalesce(relacl, acldefault('r', relowner)), relowner FROM pg_class WHERE relnamespace = 'lease'::regnamespace
	      UNION ALL
	      SELECT proname || '()', coalesce(proacl, acldefault('f', proowner)), proowner FROM pg_proc WHERE pronamespace = 'lease'::regnamespace) o (object, acl, owner),
	     aclexplode(o.acl) a
	WHERE a.grantee <> o.owner;
SELECT privilege, is_grantable FROM pg_temp.granted WHERE role = 'regress_lease_app'::regrole
ORDER BY privilege COLLATE "C";
SELECT count(*) AS to_public FROM pg_temp.granted WHERE role::oid = 0;

-- To be used by administrators alone; again is no mistake.
SELECT lease.allow('regress_lease_app');
SELECT pg_temp.attempt($$SELECT lease.allow(NULL)$$);
SELECT pg_temp.attempt($$SELECT lease.disallow(NULL)$$);
SELECT pg_temp.attempt($$SELECT lease.allow('regress_lease_no_such_role')$$);
SET ROLE regress_lease_app;
SELECT f, pg_temp.attempt('SELECT * FROM lease.' || f)
FROM unnest(ARRAY['ledger', 'fences', 'keys', 'user_objects()', $$force_release('x', 'r')$$, $$new_epoch('r')$$,
	$$allow('regress_lease_app')$$, $$disallow('regress_lease_app')$$]) f;
SELECT pg_temp.attempt('SET lease.max_ttl = ''2 d''') ~ '^42501' AS max_ttl_refused;

--
-- The owner is the role that took it.
--
SELECT lease.try_acquire('app/1', ttl => '1 h', holder => 'h', request_id => 'r', correlation_id => 'c',
	metadata => '{"m": 1}') AS t \gset
SELECT owner, holder FROM lease.leases;
RESET ROLE;
SELECT lease.try_acquire('root/1', ttl => '1 h', holder => 'h', request_id => 'r', correlation_id => 'c',
	metadata => '{"m": 1}', lock_delay => '1 h') AS root \gset

-- A stranger may use leases of its own...
SET ROLE "regress lease Stranger";
SELECT lease.try_acquire('stranger/1', ttl => '1 h', holder => 'h') AS mine \gset
SELECT lease.try_renew('stranger/1', :mine);

-- ... and sees of others that they are there, ...
SELECT name, mode, scope, token IN (:t, :root) AS of_others, holder, owner = current_user AS mine, pid IS NOT NULL AS pid,
       remaining > '30 min' AS remaining, ttl, request_id, correlation_id, metadata
FROM lease.leases ORDER BY token;
SELECT name, holder, request_id, correlation_id, metadata FROM lease.live_leases() WHERE token = :t;

-- ... but can do nothing to them, with the right token and name.
SELECT f, pg_temp.attempt(format('SELECT lease.%s', format(f, :t)))
FROM unnest(ARRAY[$$renew('app/1', %s)$$, $$renew('app/1', %s, '2 h')$$, $$try_renew('app/1', %s)$$,
	$$renew_all('{app/1}', '{%s}')$$, $$release('app/1', %s)$$, $$release_all('{app/1}', '{%s}')$$,
	$$transfer('app/1', %s, 'me')$$]) f;
SELECT lease.try_acquire('app/1') AS taken;
SELECT lease.try_acquire('app/1', holder => 'h', request_id => 'r') AS taken;

-- Nor does it learn by guessing a name which of the tokens is the name's.
SELECT pg_temp.attempt($$SELECT lease.renew('app/1', 1)$$);
RESET ROLE;
SELECT ttl, renewals, holder FROM lease.leases WHERE name = 'app/1';

-- Nor does waiting for it tell who has it.
SET ROLE "regress lease Stranger";
SELECT pg_temp.attempt(format('SELECT * FROM lease.%s', f))
FROM unnest(ARRAY[$$acquire('app/1', wait => '1 ms')$$, $$acquire_all('{app/1,x}', wait => '1 ms')$$]) f;
SELECT pg_temp.attempt($$SELECT lease.acquire('app/1', wait => '1 ms', holder => 'h', request_id => 'r')$$) ~ '^55P03' AS taken;
RESET ROLE;

--
-- A semaphore is whose permits are taken; all of them have a say in its size.
--
SET ROLE regress_lease_app;
SELECT lease.acquire_permit('app/s', 2, ttl => '1 h', holder => 'h') AS p \gset
SELECT lease.set_capacity('app/s', 3);
SET ROLE regress_lease_member;
SELECT lease.set_capacity('app/s', 4);
SET ROLE regress_lease_noinherit;
SELECT pg_temp.attempt($$SELECT lease.set_capacity('app/s', 5)$$);
SET ROLE "regress lease Stranger";
SELECT pg_temp.attempt($$SELECT lease.set_capacity('app/s', 5)$$);
SELECT pg_temp.attempt($$SELECT lease.acquire_permit('app/s', 4, 4, wait => '1 ms')$$);
SELECT name, mode, permits, capacity, waiters, holder FROM lease.leases WHERE token = :p;
SELECT lease.acquire_permit('app/s', 4, ttl => '1 h', holder => 'h') AS q \gset
SELECT pg_temp.attempt($$SELECT lease.set_capacity('app/s', 5)$$) ~ '^42501' AS refused;
SET ROLE regress_lease_member;
SELECT pg_temp.attempt($$SELECT lease.set_capacity('app/s', 5)$$) ~ '^42501' AS refused;
SELECT pg_temp.attempt(format($$SELECT lease.release('app/s', %s)$$, :q)) ~ '^42501' AS refused;
SET ROLE regress_lease_monitor;
SELECT pg_temp.attempt($$SELECT lease.set_capacity('app/s', 5)$$) ~ '^42501' AS refused;
SELECT name, permits, capacity, holder FROM lease.leases WHERE token IN (:p, :q) ORDER BY token;
RESET ROLE;
SELECT lease.set_capacity('app/s', 5);
SET ROLE "regress lease Stranger";
SELECT lease.release('app/s', :q), lease.blocking_pids(pg_backend_pid()), (SELECT count(*) FROM lease.waiters) AS waiters;
SET ROLE regress_lease_app;
SELECT lease.set_capacity('app/s', 1), lease.release('app/s', :p);
RESET ROLE;

-- A transferred lease stays the owner's: a repeated transfer is no way in.
SET ROLE regress_lease_app;
SELECT lease.try_acquire('app/2', ttl => '1 h', holder => 'first') AS t1 \gset
SELECT lease.transfer('app/2', :t1, 'second') AS t2 \gset
SET ROLE "regress lease Stranger";
SELECT pg_temp.attempt(format($$SELECT lease.transfer('app/2', %s, 'second')$$, :t1)) ~ '^(42501|LE001)' AS refused;

--
-- A member of the owner's role has its privileges, unless it does not inherit.
--
SET ROLE regress_lease_member;
SELECT name, holder, request_id, correlation_id, metadata FROM lease.leases WHERE token = :t;
SELECT lease.renew('app/1', :t), lease.try_renew('app/1', :t), lease.is_held('app/1', :t);
SELECT lease.transfer('app/2', :t2, 'third') AS t3 \gset
SELECT owner, holder FROM lease.leases WHERE token = :t3;
SELECT lease.release('app/2', :t3);

-- A retry must come from the very role that asked first.
SELECT lease.try_acquire('app/1', request_id => 'r') AS taken;

SET ROLE regress_lease_noinherit;
SELECT name, holder FROM lease.leases WHERE token = :t;
SELECT pg_temp.attempt(format($$SELECT lease.renew('app/1', %s)$$, :t)) ~ '^42501' AS refused;

-- A superuser may do all of it.
RESET ROLE;
SELECT lease.try_renew('app/1', :t);
SELECT name, holder FROM lease.leases ORDER BY name;

--
-- pg_read_all_stats: sees everything, may touch nothing.
--
SET ROLE regress_lease_monitor;
SELECT name, holder, request_id, correlation_id, metadata FROM lease.leases ORDER BY name;
SELECT pg_temp.attempt(format('SELECT lease.%s', format(f, :t))) ~ '^42501' AS refused
FROM unnest(ARRAY[$$renew('app/1', %s)$$, $$release('app/1', %s)$$, $$transfer('app/1', %s, 'me')$$,
	$$force_release('app/1', 'reason')$$]) f;
RESET ROLE;

-- A closed name is shown by the same rules.
SELECT lease.force_release('root/1', 'test');
SET ROLE "regress lease Stranger";
SELECT name, holder, closed_until IS NOT NULL AS closed FROM lease.leases WHERE token = :root;
SET ROLE regress_lease_monitor;
SELECT name, holder, closed_until IS NOT NULL AS closed FROM lease.leases WHERE token = :root;
RESET ROLE;
SELECT lease.force_release('root/1', 'test', reopen => true);

--
-- What administrators do is granted by hand, and heeds no owner.
--
SELECT lease.allow('regress_lease_operator');
GRANT EXECUTE ON FUNCTION lease.force_release TO regress_lease_operator;
SET ROLE regress_lease_operator;
SELECT lease.force_release('app/1', 'operator''s wish');
SELECT pg_temp.attempt($$SELECT lease.new_epoch('reason')$$) ~ '^42501' AS refused;
RESET ROLE;
SELECT lease.is_held('app/1', :t);

--
-- The effective role counts: SECURITY DEFINER.
--
CREATE SCHEMA regress_lease_schema AUTHORIZATION regress_lease_app;
GRANT USAGE ON SCHEMA regress_lease_schema TO PUBLIC;
SET ROLE regress_lease_app;
CREATE FUNCTION regress_lease_schema.take(name text) RETURNS bigint
	LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
	AS $$ SELECT lease.try_acquire(name, ttl => '1 h') $$;
SET ROLE regress_lease_nobody;
SELECT regress_lease_schema.take('app/3') AS t \gset
SELECT pg_temp.attempt(format($$SELECT lease.release('app/3', %s)$$, :t)) ~ '^42501' AS refused;
SET ROLE "regress lease Stranger";
SELECT regress_lease_schema.take('app/3') AS taken;
SELECT pg_temp.attempt(format($$SELECT lease.release('app/3', %s)$$, :t)) ~ '^42501' AS refused;
SET ROLE regress_lease_member;
SELECT name, owner FROM lease.leases WHERE token = :t;
SELECT lease.release('app/3', :t);
RESET ROLE;
DROP SCHEMA regress_lease_schema CASCADE;

--
-- disallow takes back all that allow granted; leases live on.
--
SELECT lease.disallow('"regress lease Stranger"');
SELECT count(*) FROM pg_temp.granted WHERE role = '"regress lease Stranger"'::regrole;
SET ROLE "regress lease Stranger";
SELECT pg_temp.attempt(format($$SELECT lease.release('stranger/1', %s)$$, :mine)) ~ '^42501' AS refused;
RESET ROLE;
SELECT name, owner, lease.is_held(name, token) FROM lease.leases;

-- The owner's role can be dropped meanwhile; then it is nobody's but superusers'.
SELECT lease.disallow('regress_lease_app');
DROP ROLE "regress lease Stranger";
SELECT name, owner = format('unknown (OID=%s)', (SELECT l.owner FROM lease.ledger l WHERE l.token = :mine)) AS unknown FROM lease.leases;
SET ROLE regress_lease_noinherit;
SELECT name, holder FROM lease.leases;
RESET ROLE;
SELECT lease.release('stranger/1', :mine);

SELECT lease.disallow(r::regrole)
FROM unnest(ARRAY['regress_lease_noinherit', 'regress_lease_monitor', 'regress_lease_operator']) r;
REVOKE ALL ON FUNCTION lease.force_release FROM regress_lease_operator;
DROP ROLE regress_lease_app, regress_lease_member, regress_lease_noinherit,
          regress_lease_monitor, regress_lease_operator, regress_lease_nobody;
