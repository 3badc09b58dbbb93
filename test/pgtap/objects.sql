-- What CREATE EXTENSION lease makes: objects, signatures, owners, comments,
-- and that nothing of it is PUBLIC's.

BEGIN;
SELECT * FROM no_plan();

-- All objects of the extension: what, with class and OID for their comments.
CREATE TEMPORARY VIEW member AS
	SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS what
	FROM pg_depend d
	WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	  AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'lease');

-- Its functions and relations alone: their row types need no looking after.
CREATE TEMPORARY VIEW function AS
	SELECT p.* FROM pg_proc p JOIN pg_temp.member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid;
CREATE TEMPORARY VIEW relation AS
	SELECT c.* FROM pg_class c JOIN pg_temp.member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid;

--
-- The extension
--
SELECT bag_eq(
	$$SELECT extnamespace::regnamespace::text, extrelocatable, extconfig::regclass[]::text, extcondition::text
	  FROM pg_extension WHERE extname = 'lease'$$,
	$$VALUES ('lease', false, '{lease.ledger,lease.fences,lease.keys}', '{"WHERE kind = ''ceiling''","",""}')$$,
	'the extension lives in schema lease, and its dump carries the ceilings, fences and keys');

SELECT is_empty(
	$$SELECT what FROM pg_temp.member WHERE classid NOT IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_type'::regclass)$$,
	'it has functions and relations, and nothing else');

SELECT is_empty(
	$$SELECT oid::regprocedure::text FROM pg_temp.function WHERE pronamespace <> 'lease'::regnamespace
	  UNION ALL SELECT oid::regclass::text FROM pg_temp.relation WHERE relnamespace <> 'lease'::regnamespace$$,
	'all of them are in schema lease');

SELECT is_empty(
	$$SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'lease'::regnamespace
	  EXCEPT SELECT oid::regprocedure::text FROM pg_temp.function$$,
	'no other function is there');

SELECT is_empty(
	$$SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'lease'::regnamespace AND relkind NOT IN ('c', 'i')
	  EXCEPT SELECT oid::regclass::text FROM pg_temp.relation$$,
	'no other relation is there');

--
-- Owners and privileges
--
SELECT is_empty(
	$$SELECT oid::regprocedure::text FROM pg_temp.function
	  WHERE proowner <> (SELECT extowner FROM pg_extension WHERE extname = 'lease')
	  UNION ALL SELECT oid::regclass::text FROM pg_temp.relation
	  WHERE relowner <> (SELECT extowner FROM pg_extension WHERE extname = 'lease')
	  UNION ALL SELECT nspname FROM pg_namespace
	  WHERE nspname = 'lease' AND nspowner <> (SELECT extowner FROM pg_extension WHERE extname = 'lease')$$,
	'all of it is owned by who created the extension');

SELECT is_empty(
	$$SELECT 'schema ' || nspname FROM pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
	  WHERE nspname = 'lease' AND grantee <> nspowner
	  UNION ALL SELECT oid::regprocedure::text FROM pg_temp.function, aclexplode(coalesce(proacl, acldefault('f', proowner)))
	  WHERE grantee <> proowner
	  UNION ALL SELECT oid::regclass::text FROM pg_temp.relation, aclexplode(coalesce(relacl, acldefault('r', relowner)))
	  WHERE grantee <> relowner
	  UNION ALL SELECT attrelid::regclass || '.' || attname FROM pg_attribute
	  WHERE attrelid IN (SELECT oid FROM pg_temp.relation) AND attacl IS NOT NULL$$,
	'nobody but the owner has any privilege, PUBLIC neither');

SELECT is_empty(
	$$SELECT oid::regprocedure::text FROM pg_temp.function WHERE prosecdef$$,
	'no function runs with privileges that its caller does not have');

SELECT is_empty(
	$$SELECT oid::regprocedure::text FROM pg_temp.function
	  WHERE prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c')
	    AND prosqlbody IS NULL AND NOT coalesce(proconfig, '{}') @> '{"search_path=pg_catalog, pg_temp"}'$$,
	'all that is not C fixes its search_path, or was bound to it when it was made');

--
-- Functions
--

-- What users call: as they may rely on it.
SELECT bag_eq(
	$$SELECT proname::text, pg_get_function_arguments(oid), pg_get_function_result(oid) FROM pg_temp.function
	  WHERE proname NOT IN ('protect_ledger', 'live_leases', 'live_waiters', 'server_status', 'live_stats', 'histograms', 'user_objects',
	                      'story_events', 'present_text', 'timeline_marks', 'duration_text', 'time_text', 'holder_text',
	                      'list_text', 'xml_text', 'short_text', 'stacked', 'scaled')$$,
	$$VALUES
	('acquire', 'name text, ttl interval DEFAULT NULL::interval, wait interval DEFAULT NULL::interval, mode text DEFAULT ''exclusive''::text, scope text DEFAULT ''detached''::text, holder text DEFAULT NULL::text, request_id text DEFAULT NULL::text, correlation_id text DEFAULT NULL::text, lock_delay interval DEFAULT NULL::interval, min_hold interval DEFAULT NULL::interval, metadata jsonb DEFAULT NULL::jsonb', 'bigint'),
	('try_acquire_all', 'names text[], ttl interval DEFAULT NULL::interval, mode text DEFAULT ''exclusive''::text, scope text DEFAULT ''detached''::text, holder text DEFAULT NULL::text, request_id text DEFAULT NULL::text, correlation_id text DEFAULT NULL::text, lock_delay interval DEFAULT NULL::interval, min_hold interval DEFAULT NULL::interval, metadata jsonb DEFAULT NULL::jsonb', 'TABLE(name text, token bigint)'),
	('acquire_all', 'names text[], ttl interval DEFAULT NULL::interval, wait interval DEFAULT NULL::interval, mode text DEFAULT ''exclusive''::text, scope text DEFAULT ''detached''::text, holder text DEFAULT NULL::text, request_id text DEFAULT NULL::text, correlation_id text DEFAULT NULL::text, lock_delay interval DEFAULT NULL::interval, min_hold interval DEFAULT NULL::interval, metadata jsonb DEFAULT NULL::jsonb', 'TABLE(name text, token bigint)'),
	('try_acquire_permit', 'name text, capacity integer DEFAULT NULL::integer, permits integer DEFAULT 1, ttl interval DEFAULT NULL::interval, scope text DEFAULT ''detached''::text, holder text DEFAULT NULL::text, request_id text DEFAULT NULL::text, correlation_id text DEFAULT NULL::text, lock_delay interval DEFAULT NULL::interval, min_hold interval DEFAULT NULL::interval, metadata jsonb DEFAULT NULL::jsonb', 'bigint'),
	('acquire_permit', 'name text, capacity integer DEFAULT NULL::integer, permits integer DEFAULT 1, ttl interval DEFAULT NULL::interval, wait interval DEFAULT NULL::interval, scope text DEFAULT ''detached''::text, holder text DEFAULT NULL::text, request_id text DEFAULT NULL::text, correlation_id text DEFAULT NULL::text, lock_delay interval DEFAULT NULL::interval, min_hold interval DEFAULT NULL::interval, metadata jsonb DEFAULT NULL::jsonb', 'bigint'),
	('set_capacity', 'name text, capacity integer', 'integer'),
	('campaign', 'IN name text, IN ttl interval DEFAULT NULL::interval, IN wait interval DEFAULT NULL::interval, IN holder text DEFAULT NULL::text, IN mode text DEFAULT ''exclusive''::text, IN scope text DEFAULT ''detached''::text, IN request_id text DEFAULT NULL::text, IN correlation_id text DEFAULT NULL::text, IN lock_delay interval DEFAULT NULL::interval, IN min_hold interval DEFAULT NULL::interval, IN metadata jsonb DEFAULT NULL::jsonb, INOUT token bigint DEFAULT NULL::bigint', NULL),
	('blocking_pids', 'pid integer', 'integer[]'),
	('release_session', '', 'integer'),
	('try_acquire', 'name text, ttl interval DEFAULT NULL::interval, mode text DEFAULT ''exclusive''::text, scope text DEFAULT ''detached''::text, holder text DEFAULT NULL::text, request_id text DEFAULT NULL::text, correlation_id text DEFAULT NULL::text, lock_delay interval DEFAULT NULL::interval, min_hold interval DEFAULT NULL::interval, metadata jsonb DEFAULT NULL::jsonb', 'bigint'),
	('renew', 'name text, token bigint, ttl interval DEFAULT NULL::interval', 'interval'),
	('try_renew', 'name text, token bigint, ttl interval DEFAULT NULL::interval', 'boolean'),
	('renew_all', 'names text[], tokens bigint[], ttl interval DEFAULT NULL::interval', 'TABLE(name text, token bigint, renewed boolean)'),
	('release', 'name text, token bigint', 'boolean'),
	('release_all', 'names text[], tokens bigint[]', 'TABLE(name text, token bigint, released boolean)'),
	('transfer', 'name text, token bigint, to_holder text', 'bigint'),
	('force_release', 'name text, reason text, token bigint DEFAULT NULL::bigint, reopen boolean DEFAULT false', 'integer'),
	('new_epoch', 'reason text', 'bigint'),
	('reset_stats', '', 'void'),
	('explain', 'name text, since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone', 'TABLE(at timestamp with time zone, story text)'),
	('timeline', 'names text[], since timestamp with time zone DEFAULT NULL::timestamp with time zone, until timestamp with time zone DEFAULT NULL::timestamp with time zone', 'text'),
	('is_held', 'name text, token bigint', 'boolean'),
	('guard', 'name text, token bigint', 'bigint'),
	('check_guard', '', 'trigger'),
	('check_guard_of_table', '', 'trigger'),
	('protect_table', 'rel regclass, name_pattern text', 'boolean'),
	('unprotect_table', 'rel regclass', 'boolean'),
	('fence', 'resource text, token bigint', 'bigint'),
	('check_token', '', 'trigger'),
	('enable_fencing', 'rel regclass, column_name name DEFAULT ''fencing_token''::name, strict boolean DEFAULT false', 'boolean'),
	('disable_fencing', 'rel regclass', 'boolean'),
	('count_version', '', 'trigger'),
	('enable_versioning', 'rel regclass, column_name name DEFAULT ''version''::name, strict boolean DEFAULT false', 'boolean'),
	('disable_versioning', 'rel regclass', 'boolean'),
	('compare_and_set', 'rel regclass, key jsonb, expected bigint, changes jsonb', 'bigint'),
	('once', 'key text, ttl interval DEFAULT ''1 day''::interval', 'boolean'),
	('save_result', 'key text, result jsonb', 'boolean'),
	('result', 'key text', 'jsonb'),
	('allow', 'role regrole', 'void'),
	('disallow', 'role regrole', 'void')$$,
	'the functions have the signatures that they are documented with');

-- None may be moved, folded or left out by the planner; a NULL is an error
-- that they raise themselves.  None runs in a parallel worker; those that only
-- look leave the rest of their query free to.
SELECT bag_eq(
	$$SELECT proname::text, provolatile, proparallel, proisstrict FROM pg_temp.function
	  WHERE prolang = (SELECT oid FROM pg_language WHERE lanname = 'c')$$,
	$$VALUES
	('acquire', 'v'::"char", 'u'::"char", false), ('acquire_all', 'v', 'u', false), ('try_acquire_all', 'v', 'u', false),
	('acquire_permit', 'v', 'u', false), ('try_acquire_permit', 'v', 'u', false), ('set_capacity', 'v', 'u', false),
	('campaign', 'v', 'u', false), ('blocking_pids', 'v', 'r', false), ('live_waiters', 'v', 'r', false), ('release_session', 'v', 'u', false), ('try_acquire', 'v', 'u', false),
	('renew', 'v', 'u', false), ('try_renew', 'v', 'u', false),
	('renew_all', 'v', 'u', false), ('release', 'v', 'u', false), ('release_all', 'v', 'u', false),
	('transfer', 'v', 'u', false), ('force_release', 'v', 'u', false), ('new_epoch', 'v', 'u', false),
	('guard', 'v', 'u', false),
	('protect_table', 'v', 'u', false), ('unprotect_table', 'v', 'u', false), ('check_guard', 'v', 'u', false),
	('check_guard_of_table', 'v', 'u', false), ('fence', 'v', 'u', false), ('check_token', 'v', 'u', false),
	('enable_fencing', 'v', 'u', false), ('disable_fencing', 'v', 'u', false), ('count_version', 'v', 'u', false),
	('enable_versioning', 'v', 'u', false), ('disable_versioning', 'v', 'u', false), ('compare_and_set', 'v', 'u', false),
	('once', 'v', 'u', false), ('save_result', 'v', 'u', false), ('result', 'v', 'r', false),
	('is_held', 'v', 'r', false), ('live_leases', 'v', 'r', false), ('server_status', 'v', 'r', false),
	('live_stats', 'v', 'r', false), ('histograms', 'v', 'r', false), ('reset_stats', 'v', 'u', false),
	('protect_ledger', 'v', 'u', false)$$,
	'the functions are volatile, and parallel as far as they may be');

SELECT bag_eq(
	$$SELECT what FROM lease.user_objects()$$,
	$$SELECT 'FUNCTION ' || f FROM unnest(ARRAY[
		'lease.acquire(text,interval,interval,text,text,text,text,text,interval,interval,jsonb)', 'lease.release_session()',
		'lease.acquire_all(text[],interval,interval,text,text,text,text,text,interval,interval,jsonb)',
		'lease.acquire_permit(text,integer,integer,interval,interval,text,text,text,text,interval,interval,jsonb)',
		'lease.try_acquire_all(text[],interval,text,text,text,text,text,interval,interval,jsonb)',
		'lease.try_acquire_permit(text,integer,integer,interval,text,text,text,text,interval,interval,jsonb)',
		'lease.set_capacity(text,integer)', 'lease.blocking_pids(integer)', 'lease.live_waiters()',
		'lease.is_held(text,bigint)', 'lease.guard(text,bigint)', 'lease.fence(text,bigint)',
		'lease.protect_table(regclass,text)', 'lease.unprotect_table(regclass)', 'lease.check_guard()', 'lease.check_guard_of_table()',
		'lease.enable_fencing(regclass,name,boolean)', 'lease.disable_fencing(regclass)', 'lease.check_token()',
		'lease.enable_versioning(regclass,name,boolean)', 'lease.disable_versioning(regclass)', 'lease.count_version()',
		'lease.compare_and_set(regclass,jsonb,bigint,jsonb)', 'lease.once(text,interval)', 'lease.save_result(text,jsonb)',
		'lease.result(text)', 'lease.live_leases()', 'lease.release(text,bigint)', 'lease.release_all(text[],bigint[])',
		'lease.renew(text,bigint,interval)', 'lease.renew_all(text[],bigint[],interval)', 'lease.server_status()',
		'lease.transfer(text,bigint,text)', 'lease.live_stats()', 'lease.histograms()',
		'lease.duration_text(interval)', 'lease.time_text(timestamp with time zone)', 'lease.holder_text(text,name,boolean)',
		'lease.list_text(text[])', 'lease.xml_text(text)', 'lease.short_text(text,integer)',
		'lease.stacked(integer[],double precision[],double precision[],integer)',
		'lease.scaled(timestamp with time zone,timestamp with time zone,timestamp with time zone,double precision,double precision)',
		'lease.story_events(text[],timestamp with time zone,timestamp with time zone)', 'lease.present_text(text,bigint[])',
		'lease.explain(text,timestamp with time zone,timestamp with time zone)',
		'lease.timeline_marks(text[],timestamp with time zone,timestamp with time zone,integer)',
		'lease.timeline(text[],timestamp with time zone,timestamp with time zone)',
		'lease.try_acquire(text,interval,text,text,text,text,text,interval,interval,jsonb)',
		'lease.try_renew(text,bigint,interval)']) f
	  UNION ALL VALUES
	  ('PROCEDURE lease.campaign(text,interval,interval,text,text,text,text,text,interval,interval,jsonb,bigint)'),
	  ('TABLE lease.leases'), ('TABLE lease.waiters'), ('TABLE lease.status'), ('TABLE lease.protected_tables'),
	  ('TABLE lease.stats'), ('TABLE lease.totals'), ('TABLE lease.wait_histogram'), ('TABLE lease.hold_histogram'),
	  ('TABLE lease.history'), ('TABLE lease.advice')$$,
	'lease.allow grants what users need');

--
-- Views
--
SELECT bag_eq(
	$$SELECT attnum, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
	  WHERE attrelid = 'lease.leases'::regclass AND attnum > 0$$,
	$$VALUES (1::smallint, 'name', 'text'), (2, 'mode', 'text'), (3, 'scope', 'text'), (4, 'token', 'bigint'), (5, 'holder', 'text'),
	  (6, 'owner', 'name'), (7, 'pid', 'integer'), (8, 'acquired_at', 'timestamp with time zone'),
	  (9, 'renewed_at', 'timestamp with time zone'), (10, 'expires_at', 'timestamp with time zone'),
	  (11, 'remaining', 'interval'), (12, 'ttl', 'interval'), (13, 'renewals', 'bigint'),
	  (14, 'waiters', 'bigint'), (15, 'permits', 'integer'), (16, 'capacity', 'integer'), (17, 'durable', 'boolean'),
	  (18, 'pinned_by', 'integer[]'),
	  (19, 'closed_until', 'timestamp with time zone'), (20, 'request_id', 'text'), (21, 'correlation_id', 'text'),
	  (22, 'metadata', 'jsonb')$$,
	'lease.leases has its columns');

SELECT bag_eq(
	$$SELECT attnum, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
	  WHERE attrelid = 'lease.waiters'::regclass AND attnum > 0$$,
	$$VALUES (1::smallint, 'name', 'text'), (2, 'position', 'integer'), (3, 'holder', 'text'), (4, 'owner', 'name'),
	  (5, 'pid', 'integer'), (6, 'mode', 'text'), (7, 'permits', 'integer'),
	  (8, 'waiting_since', 'timestamp with time zone'), (9, 'waited', 'interval'), (10, 'blocked_by', 'bigint[]'),
	  (11, 'correlation_id', 'text')$$,
	'lease.waiters has its columns');

SELECT bag_eq(
	$$SELECT attnum, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
	  WHERE attrelid = 'lease.protected_tables'::regclass AND attnum > 0$$,
	$$VALUES (1::smallint, 'table', 'regclass'), (2, 'name_pattern', 'text'), (3, 'enabled', 'text'),
	  (4, 'covers_truncate', 'boolean')$$,
	'lease.protected_tables has its columns');

SELECT bag_eq(
	$$SELECT attnum, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
	  WHERE attrelid = 'lease.status'::regclass AND attnum > 0$$,
	$$VALUES (1::smallint, 'version', 'text'), (2, 'epoch', 'bigint'), (3, 'timeline', 'bigint'), (4, 'next_token', 'bigint'),
	  (5, 'leases_used', 'bigint'), (6, 'leases_allowed', 'bigint'), (7, 'waiters', 'bigint'), (8, 'ledger_size', 'bigint'),
	  (9, 'ledger_garbage', 'bigint'), (10, 'worker_state', 'text'), (11, 'last_reap', 'timestamp with time zone'),
	  (12, 'history_lost', 'bigint'), (13, 'history_pending', 'bigint')$$,
	'lease.status has its columns');

SELECT bag_eq(
	$$SELECT attnum, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
	  WHERE attrelid = 'lease.advice'::regclass AND attnum > 0$$,
	$$VALUES (1::smallint, 'name', 'text'), (2, 'advice', 'text'), (3, 'why', 'text'), (4, 'change', 'text')$$,
	'lease.advice has its columns');

SELECT is(count(*), 1::bigint, 'lease.status has one row') FROM lease.status;

SELECT bag_eq(
	$$SELECT attnum, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
	  WHERE attrelid = 'lease.stats'::regclass AND attnum > 0$$,
	$$VALUES (1::smallint, 'name', 'text'), (2, 'acquired', 'bigint'), (3, 'contended', 'bigint'),
	  (4, 'contention_rate', 'double precision'), (5, 'wait_total', 'interval'), (6, 'wait_mean', 'interval'),
	  (7, 'wait_max', 'interval'), (8, 'hold_total', 'interval'), (9, 'hold_mean', 'interval'), (10, 'hold_max', 'interval'),
	  (11, 'margin_min', 'interval'), (12, 'margin_p01', 'interval'), (13, 'renewed', 'bigint'), (14, 'released', 'bigint'),
	  (15, 'expired', 'bigint'), (16, 'orphaned', 'bigint'), (17, 'forced', 'bigint'), (18, 'transferred', 'bigint'),
	  (19, 'received', 'bigint'), (20, 'abandoned', 'bigint'), (21, 'refused', 'bigint'), (22, 'timeouts', 'bigint'),
	  (23, 'deadlocks', 'bigint'), (24, 'cancelled', 'bigint'), (25, 'rejected', 'bigint'), (26, 'guard_failures', 'bigint'),
	  (27, 'longest_queue', 'bigint'), (28, 'ttl', 'interval'), (29, 'last_used', 'timestamp with time zone'),
	  (30, 'since', 'timestamp with time zone')$$,
	'lease.stats has its columns');

SELECT bag_eq(
	$$SELECT attnum, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
	  WHERE attrelid = 'lease.totals'::regclass AND attnum > 0$$,
	$$VALUES (1::smallint, 'acquired', 'bigint'), (2, 'contended', 'bigint'), (3, 'contention_rate', 'double precision'),
	  (4, 'wait_total', 'interval'), (5, 'wait_mean', 'interval'), (6, 'wait_max', 'interval'), (7, 'hold_total', 'interval'),
	  (8, 'hold_mean', 'interval'), (9, 'hold_max', 'interval'), (10, 'margin_min', 'interval'), (11, 'margin_p01', 'interval'),
	  (12, 'renewed', 'bigint'), (13, 'released', 'bigint'), (14, 'expired', 'bigint'), (15, 'orphaned', 'bigint'),
	  (16, 'forced', 'bigint'), (17, 'transferred', 'bigint'), (18, 'received', 'bigint'), (19, 'abandoned', 'bigint'),
	  (20, 'refused', 'bigint'), (21, 'timeouts', 'bigint'), (22, 'deadlocks', 'bigint'), (23, 'cancelled', 'bigint'),
	  (24, 'rejected', 'bigint'), (25, 'guard_failures', 'bigint'), (26, 'longest_queue', 'bigint'),
	  (27, 'since', 'timestamp with time zone')$$,
	'lease.totals has its columns');

SELECT bag_eq(
	$$SELECT attnum, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
	  WHERE attrelid = 'lease.wait_histogram'::regclass AND attnum > 0$$,
	$$VALUES (1::smallint, 'upper_bound', 'interval'), (2, 'count', 'bigint')$$,
	'lease.wait_histogram has its columns');

SELECT bag_eq(
	$$SELECT attnum, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
	  WHERE attrelid = 'lease.hold_histogram'::regclass AND attnum > 0$$,
	$$VALUES (1::smallint, 'upper_bound', 'interval'), (2, 'count', 'bigint')$$,
	'lease.hold_histogram has its columns');

SELECT bag_eq(
	$$SELECT attnum, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
	  WHERE attrelid = 'lease.history'::regclass AND attnum > 0$$,
	$$VALUES (1::smallint, 'at', 'timestamp with time zone'), (2, 'event', 'text'), (3, 'name', 'text'), (4, 'token', 'bigint'),
	  (5, 'mode', 'text'), (6, 'scope', 'text'), (7, 'holder', 'text'), (8, 'owner', 'name'), (9, 'pid', 'integer'),
	  (10, 'correlation_id', 'text'), (11, 'waited', 'interval'), (12, 'held', 'interval'), (13, 'detail', 'text'),
	  (14, 'seq', 'bigint')$$,
	'lease.history has its columns');

SELECT bag_eq(
	$$SELECT attnum, attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
	  WHERE attrelid = 'lease.events'::regclass AND attnum > 0$$,
	$$VALUES (1::smallint, 'seq', 'bigint'), (2, 'at', 'timestamp with time zone'), (3, 'event', 'text'), (4, 'name', 'text'),
	  (5, 'token', 'bigint'), (6, 'mode', 'text'), (7, 'scope', 'text'), (8, 'holder', 'text'), (9, 'owner', 'oid'),
	  (10, 'pid', 'integer'), (11, 'correlation_id', 'text'), (12, 'waited', 'interval'), (13, 'held', 'interval'),
	  (14, 'detail', 'text')$$,
	'the table of events has the columns that the library knows by number');

--
-- The ledger
--
SELECT bag_eq(
	$$SELECT attnum, attname::text, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
	  WHERE attrelid = 'lease.ledger'::regclass AND attnum > 0$$,
	$$VALUES (1::smallint, 'kind', 'text', true), (2, 'token', 'bigint', true), (3, 'name', 'text', false), (4, 'mode', 'text', false),
	  (5, 'permits', 'integer', false), (6, 'capacity', 'integer', false), (7, 'holder', 'text', false),
	  (8, 'owner', 'oid', false), (9, 'ttl', 'interval', false), (10, 'granted_at', 'timestamp with time zone', false),
	  (11, 'replaces', 'bigint', false), (12, 'lock_delay', 'interval', false), (13, 'min_hold', 'interval', false),
	  (14, 'request_id', 'text', false), (15, 'correlation_id', 'text', false), (16, 'metadata', 'text', false),
	  (17, 'system_identifier', 'bigint', false), (18, 'timeline', 'integer', false), (19, 'database', 'oid', false),
	  (20, 'valid_from', 'bigint', false)$$,
	'the ledger has the columns that the library knows by number');

SELECT bag_eq(
	$$SELECT relkind, relpersistence, relhasindex, relrowsecurity FROM pg_class WHERE oid = 'lease.ledger'::regclass$$,
	$$VALUES ('r'::"char", 'p'::"char", false, false)$$,
	'the ledger is a plain, permanent table without indexes');

SELECT bag_eq(
	$$SELECT unnest(reloptions) FROM pg_class WHERE oid = 'lease.ledger'::regclass$$,
	$$VALUES ('autovacuum_vacuum_threshold=1000'), ('autovacuum_vacuum_scale_factor=0'),
	  ('autovacuum_vacuum_insert_threshold=-1'), ('vacuum_truncate=false')$$,
	'the ledger is vacuumed by what was ended, and never truncated');

SELECT bag_eq(
	$$SELECT relreplident, relhasindex, unnest(reloptions) FROM pg_class WHERE oid = 'lease.events'::regclass$$,
	$$VALUES ('n'::"char", true, 'autovacuum_vacuum_insert_threshold=-1')$$,
	'the table of events is not vacuumed for what was added, and has nothing to tell a subscriber');

-- Also where a replica replays, or a superuser says that it does.
SELECT bag_eq(
	$$SELECT tgname::text, tgenabled, tgfoid::regproc::text, pg_get_triggerdef(oid) FROM pg_trigger
	  WHERE tgrelid = 'lease.ledger'::regclass$$,
	$$VALUES
	('protect_rows', 'A'::"char", 'lease.protect_ledger',
	 'CREATE TRIGGER protect_rows BEFORE INSERT OR DELETE OR UPDATE ON lease.ledger FOR EACH ROW EXECUTE FUNCTION lease.protect_ledger()'),
	('protect_table', 'A', 'lease.protect_ledger',
	 'CREATE TRIGGER protect_table BEFORE TRUNCATE ON lease.ledger FOR EACH STATEMENT EXECUTE FUNCTION lease.protect_ledger()')$$,
	'the ledger is protected, always');

--
-- Comments: \dx+, \df+ and \d+ are a manual page
--
SELECT isnt(obj_description(oid, 'pg_extension'), NULL, 'the extension has a comment')
FROM pg_extension WHERE extname = 'lease';

SELECT is_empty(
	$$SELECT what FROM pg_temp.member WHERE classid <> 'pg_type'::regclass
	  AND coalesce(obj_description(objid, classid::regclass::name), '') = ''$$,
	'every function, table and view has a comment');

SELECT is_empty(
	$$SELECT attrelid::regclass || '.' || attname FROM pg_attribute
	  WHERE attrelid IN (SELECT oid FROM pg_temp.relation WHERE relkind IN ('r', 'v')) AND attnum > 0 AND NOT attisdropped
	    AND coalesce(col_description(attrelid, attnum), '') = ''$$,
	'every column has a comment');

SELECT is_empty(
	$$SELECT tgname FROM pg_trigger
	  WHERE tgrelid IN (SELECT oid FROM pg_temp.relation) AND coalesce(obj_description(oid, 'pg_trigger'), '') = ''$$,
	'every trigger has a comment');

SELECT is_empty(
	$$SELECT oid::regprocedure::text FROM pg_temp.function
	  WHERE proname NOT IN ('protect_ledger', 'user_objects') AND obj_description(oid, 'pg_proc') !~ '\mErrors[:,] '$$,
	'the comment of every function says which errors it raises');

--
-- Settings
--
SELECT bag_eq(
	$$SELECT name, vartype, unit, context, min_val, max_val, boot_val FROM pg_settings WHERE name LIKE 'lease.%'$$,
	$$VALUES
	('lease.max_leases', 'integer', NULL, 'postmaster', '16', '16777216', '32768'),
	('lease.default_ttl', 'integer', 'ms', 'user', '1', '2147483647', '30000'),
	('lease.max_ttl', 'integer', 'ms', 'superuser', '1', '2147483647', '86400000'),
	('lease.holder', 'string', NULL, 'user', NULL, NULL, ''),
	('lease.correlation_id', 'string', NULL, 'user', NULL, NULL, ''),
	('lease.allow_session_scope', 'bool', NULL, 'superuser', NULL, NULL, 'on'),
	('lease.history_retention', 'integer', 's', 'sighup', '0', '2147483647', '604800'),
	('lease.notify', 'string', NULL, 'sighup', NULL, NULL, ''),
	('lease.log_events', 'string', NULL, 'sighup', NULL, NULL, 'none')$$,
	'the settings have their units, bounds and defaults');

SELECT is_empty(
	$$SELECT name FROM pg_settings WHERE name LIKE 'lease.%' AND coalesce(short_desc, '') = ''$$,
	'every setting has a description');

SELECT * FROM finish();
ROLLBACK;
