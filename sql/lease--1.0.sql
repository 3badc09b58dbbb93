/* lease 1.0: fenced advisory leases */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION lease" to load this file. \quit

-- Whoever owns the schema, or may create in it, could put objects of their own
-- in the way of ours: so it must be new, or left over from an extension that
-- was dropped.
DO $$
DECLARE
	made_by name;
	alien   text;
BEGIN
	SELECT r.rolname INTO made_by
	FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
	WHERE n.nspname = 'lease' AND NOT r.rolsuper AND r.rolname <> current_user;
	IF FOUND THEN
		RAISE EXCEPTION 'schema "lease" belongs to role "%"', made_by
			USING ERRCODE = 'insufficient_privilege',
			      HINT = 'Drop or rename the schema; CREATE EXTENSION makes its own.';
	END IF;

	SELECT a.grantee::pg_catalog.regrole::text INTO alien
	FROM pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
	WHERE n.nspname = 'lease' AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner;
	IF FOUND THEN
		RAISE EXCEPTION 'schema "lease" lets role "%" create objects in it', alien
			USING ERRCODE = 'insufficient_privilege',
			      HINT = 'Drop or rename the schema; CREATE EXTENSION makes its own.';
	END IF;

	SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0) INTO alien
	FROM pg_catalog.pg_depend d
	WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
	  AND d.refobjid = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'lease')
	  AND d.classid <> 'pg_catalog.pg_extension'::pg_catalog.regclass;
	IF FOUND THEN
		RAISE EXCEPTION 'schema "lease" already contains %', alien
			USING ERRCODE = 'duplicate_object',
			      HINT = 'Drop or rename the schema; CREATE EXTENSION makes its own.';
	END IF;
END
$$;

--
-- The ledger.  The library knows its columns by number.
--
CREATE TABLE lease.ledger
(
	kind              text NOT NULL,
	token             bigint NOT NULL,
	name              text,
	mode              text,
	permits           integer,
	capacity          integer,
	holder            text,
	owner             oid,
	ttl               interval,
	granted_at        timestamptz,
	replaces          bigint,
	lock_delay        interval,
	min_hold          interval,
	request_id        text,
	correlation_id    text,
	metadata          text,
	system_identifier bigint,
	timeline          integer,
	database          oid,
	valid_from        bigint
)
-- Rows come and go all the time, and none of them matters to the planner.  No
-- truncation: its lock would cancel those who read the ledger on a standby.
WITH (autovacuum_vacuum_threshold = 1000,
      autovacuum_vacuum_scale_factor = 0,
      autovacuum_vacuum_insert_threshold = -1,
      vacuum_truncate = false);

COMMENT ON TABLE lease.ledger IS
'What must survive a crash, written by the functions of the extension alone, outside of any transaction: a row for each detached lease (grant), for each name that stays closed (closure), and for the tokens reserved so far (ceiling).';
COMMENT ON COLUMN lease.ledger.kind IS 'grant, closure or ceiling';
COMMENT ON COLUMN lease.ledger.token IS 'grant, closure: fencing token of the grant; ceiling: the last token that is reserved';
COMMENT ON COLUMN lease.ledger.name IS 'name that is leased or closed';
COMMENT ON COLUMN lease.ledger.mode IS 'exclusive, shared or permit';
COMMENT ON COLUMN lease.ledger.permits IS 'permit: how many of the semaphore''s permits it takes';
COMMENT ON COLUMN lease.ledger.capacity IS 'permit: how many permits the semaphore has';
COMMENT ON COLUMN lease.ledger.holder IS 'who holds or held the lease, for people';
COMMENT ON COLUMN lease.ledger.owner IS 'OID of the role that took the lease';
COMMENT ON COLUMN lease.ledger.ttl IS 'grant: TTL that a restart gives it anew; closure: how long the name stays closed';
COMMENT ON COLUMN lease.ledger.granted_at IS 'wall-clock time of the grant, for people';
COMMENT ON COLUMN lease.ledger.replaces IS 'token of the grant that this one was transferred from';
COMMENT ON COLUMN lease.ledger.lock_delay IS 'how long the name stays closed after an orphaned or forced end';
COMMENT ON COLUMN lease.ledger.min_hold IS 'how long after the grant the name opens at the earliest';
COMMENT ON COLUMN lease.ledger.request_id IS 'the client''s id of the attempt';
COMMENT ON COLUMN lease.ledger.correlation_id IS 'what the client marked the grant with';
COMMENT ON COLUMN lease.ledger.metadata IS 'the client''s jsonb, as text';
COMMENT ON COLUMN lease.ledger.system_identifier IS 'ceiling: the server that reserved the tokens';
COMMENT ON COLUMN lease.ledger.timeline IS 'ceiling: its timeline then';
COMMENT ON COLUMN lease.ledger.database IS 'ceiling: OID of the database that they were reserved in';
COMMENT ON COLUMN lease.ledger.valid_from IS 'ceiling: grants with smaller tokens came with a copy of another database, and are void';

CREATE FUNCTION lease.protect_ledger() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'lease_protect_ledger';
COMMENT ON FUNCTION lease.protect_ledger() IS
'Trigger on lease.ledger: refuses every write by SQL (42501) but a superuser''s restore of rows of kind ceiling, after which tokens start beyond them.';

CREATE TRIGGER protect_rows BEFORE INSERT OR UPDATE OR DELETE ON lease.ledger
	FOR EACH ROW EXECUTE FUNCTION lease.protect_ledger();
CREATE TRIGGER protect_table BEFORE TRUNCATE ON lease.ledger
	FOR EACH STATEMENT EXECUTE FUNCTION lease.protect_ledger();
ALTER TABLE lease.ledger ENABLE ALWAYS TRIGGER protect_rows;
ALTER TABLE lease.ledger ENABLE ALWAYS TRIGGER protect_table;
COMMENT ON TRIGGER protect_rows ON lease.ledger IS 'rows are written by the functions of the extension alone';
COMMENT ON TRIGGER protect_table ON lease.ledger IS 'rows are removed by the functions of the extension alone';

-- A dump carries how far tokens were handed out, so that a restored database
-- goes on from there; it does not carry leases, whose holders are elsewhere.
SELECT pg_catalog.pg_extension_config_dump('lease.ledger', $$WHERE kind = 'ceiling'$$);

--
-- Acquire
--
CREATE FUNCTION lease.acquire(
	name text, ttl interval DEFAULT NULL, wait interval DEFAULT NULL,
	mode text DEFAULT 'exclusive', scope text DEFAULT 'detached',
	holder text DEFAULT NULL, request_id text DEFAULT NULL,
	correlation_id text DEFAULT NULL, lock_delay interval DEFAULT NULL,
	min_hold interval DEFAULT NULL, metadata jsonb DEFAULT NULL)
RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_acquire';
COMMENT ON FUNCTION lease.acquire(text, interval, interval, text, text, text, text, text, interval, interval, jsonb) IS
'As lease.try_acquire, but waits until the name is free, first come, first served, and returns the token.
wait: the longest wait; NULL waits as for any lock, until lock_timeout, statement_timeout or a cancel. A retry with the request_id of a call that is still queued shares its place.
Errors: 55P03 the wait timed out; 40P01 it would never end; and those of lease.try_acquire.';

CREATE FUNCTION lease.try_acquire(
	name text, ttl interval DEFAULT NULL,
	mode text DEFAULT 'exclusive', scope text DEFAULT 'detached',
	holder text DEFAULT NULL, request_id text DEFAULT NULL,
	correlation_id text DEFAULT NULL, lock_delay interval DEFAULT NULL,
	min_hold interval DEFAULT NULL, metadata jsonb DEFAULT NULL)
RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_try_acquire';
COMMENT ON FUNCTION lease.try_acquire(text, interval, text, text, text, text, text, interval, interval, jsonb) IS
'Takes the lease on a name and returns its fencing token, or NULL if the name is taken or closed. The grant is visible at once and durable as synchronous_commit demands; ROLLBACK does not take it back.
name: 1 to 255 bytes. ttl: 1 ms to lease.max_ttl, default lease.default_ttl; counted on the monotonic clock. mode: exclusive or shared. scope: detached, only the TTL ends it; session, also the end of the session; transaction, also the end of the transaction; the latter two have no TTL unless one is given, are not durable, and are counted if the same session acquires them again. holder: for people, at most 127 bytes; default lease.holder, else application_name, else client address and pid. request_id: at most 127 bytes; a retry with the same name, role and id while the grant lives returns the same token and starts the TTL anew. correlation_id: at most 127 bytes, default lease.correlation_id. lock_delay: how long the name stays closed if the grant expires or is ended by force. min_hold: how long after the grant the name opens at the earliest. metadata: at most 1 kB as text.
Errors: 22023 argument out of bounds, or request_id used with another mode, scope or holder, upgrade from shared to exclusive; 22004 name is NULL; 53400 table full; 25006 read-only transaction or standby; 55000 not preloaded, or ledger not durable.';

CREATE FUNCTION lease.acquire_all(
	names text[], ttl interval DEFAULT NULL, wait interval DEFAULT NULL,
	mode text DEFAULT 'exclusive', scope text DEFAULT 'detached',
	holder text DEFAULT NULL, request_id text DEFAULT NULL,
	correlation_id text DEFAULT NULL, lock_delay interval DEFAULT NULL,
	min_hold interval DEFAULT NULL, metadata jsonb DEFAULT NULL)
RETURNS TABLE (name text, token bigint)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_acquire_all';
COMMENT ON FUNCTION lease.acquire_all(text[], interval, interval, text, text, text, text, text, interval, interval, jsonb) IS
'Takes the leases on several names, all or none, and returns a row for each, in the order of their bytes, in which it also takes them. Those that it has already are kept for it while it waits for others; the TTLs of all start when it has the last.
wait: the longest wait for all of them together; the other arguments are those of lease.acquire, for each name.
Errors: 22023 a name appears more than once; and those of lease.acquire.';

CREATE FUNCTION lease.try_acquire_all(
	names text[], ttl interval DEFAULT NULL,
	mode text DEFAULT 'exclusive', scope text DEFAULT 'detached',
	holder text DEFAULT NULL, request_id text DEFAULT NULL,
	correlation_id text DEFAULT NULL, lock_delay interval DEFAULT NULL,
	min_hold interval DEFAULT NULL, metadata jsonb DEFAULT NULL)
RETURNS TABLE (name text, token bigint)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_try_acquire_all';
COMMENT ON FUNCTION lease.try_acquire_all(text[], interval, text, text, text, text, text, interval, interval, jsonb) IS
'As lease.acquire_all, but never waits for a holder: no row if any of the names is taken or closed.
Errors: 22023 a name appears more than once; and those of lease.try_acquire.';

CREATE FUNCTION lease.acquire_permit(
	name text, capacity integer DEFAULT NULL, permits integer DEFAULT 1,
	ttl interval DEFAULT NULL, wait interval DEFAULT NULL,
	scope text DEFAULT 'detached',
	holder text DEFAULT NULL, request_id text DEFAULT NULL,
	correlation_id text DEFAULT NULL, lock_delay interval DEFAULT NULL,
	min_hold interval DEFAULT NULL, metadata jsonb DEFAULT NULL)
RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_acquire_permit';
COMMENT ON FUNCTION lease.acquire_permit(text, integer, integer, interval, interval, text, text, text, text, interval, interval, jsonb) IS
'Takes permits of a counting semaphore, waiting until there are enough, first come, first served, and returns the token that renews and releases them. A name is either a lease or a semaphore while it is in use. Permits are never counted per session: each call takes more of them.
capacity: how many permits there are, 1 to 1000000; whoever uses the name first sets it, NULL takes what it is. permits: how many to take, 1 to capacity. The other arguments are those of lease.acquire.
Errors: 22023 argument out of bounds, another capacity than the one in use, no capacity for a name that is not in use, or a name in use as a lease; and those of lease.acquire.';

CREATE FUNCTION lease.try_acquire_permit(
	name text, capacity integer DEFAULT NULL, permits integer DEFAULT 1,
	ttl interval DEFAULT NULL,
	scope text DEFAULT 'detached',
	holder text DEFAULT NULL, request_id text DEFAULT NULL,
	correlation_id text DEFAULT NULL, lock_delay interval DEFAULT NULL,
	min_hold interval DEFAULT NULL, metadata jsonb DEFAULT NULL)
RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_try_acquire_permit';
COMMENT ON FUNCTION lease.try_acquire_permit(text, integer, integer, interval, text, text, text, text, interval, interval, jsonb) IS
'As lease.acquire_permit, but never waits for a holder: NULL if there are too few permits, or others wait for them.
Errors: those of lease.acquire_permit but 55P03 and 40P01.';

CREATE FUNCTION lease.set_capacity(name text, capacity integer) RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_set_capacity';
COMMENT ON FUNCTION lease.set_capacity(text, integer) IS
'Resizes a semaphore in use and returns the capacity that it had. More permits serve who waits at once; fewer take none away, but are granted anew only when enough were released; who waits for more than there are is refused. It is on disk when the function returns.
capacity: 1 to 1000000. It takes the privileges of all roles that hold permits.
Errors: 22023 bad argument, or the name is not in use as a semaphore; 22004 NULL name or capacity; 42501 another role holds permits; 25006 read-only transaction or standby.';

CREATE PROCEDURE lease.campaign(
	name text, ttl interval DEFAULT NULL, wait interval DEFAULT NULL,
	holder text DEFAULT NULL, mode text DEFAULT 'exclusive',
	scope text DEFAULT 'detached', request_id text DEFAULT NULL,
	correlation_id text DEFAULT NULL, lock_delay interval DEFAULT NULL,
	min_hold interval DEFAULT NULL, metadata jsonb DEFAULT NULL,
	INOUT token bigint DEFAULT NULL)
	LANGUAGE C AS 'MODULE_PATHNAME', 'lease_campaign';
COMMENT ON PROCEDURE lease.campaign(text, interval, interval, text, text, text, text, text, interval, interval, jsonb, bigint) IS
'As lease.acquire, for long waits such as a leader election: it commits first and holds no snapshot while it waits, so that it keeps back neither VACUUM nor CREATE INDEX CONCURRENTLY. CALL it by itself, not in a transaction block.
token: returned; what is passed does not matter. scope: detached or session.
Errors: 2D000 called in a transaction; and those of lease.acquire.';

--
-- Keep, end, hand over
--
CREATE FUNCTION lease.renew(name text, token bigint, ttl interval DEFAULT NULL) RETURNS interval
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_renew';
COMMENT ON FUNCTION lease.renew(text, bigint, interval) IS
'Starts the TTL of a lease anew and returns the TTL now running. ttl: a value becomes the lease''s TTL, shorter or longer; NULL keeps the one it has.
Errors: LE001 the lease is lost (its DETAIL says what became of it, if known); 42501 another role''s lease; 22023, 22004 bad arguments; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.try_renew(name text, token bigint, ttl interval DEFAULT NULL) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_try_renew';
COMMENT ON FUNCTION lease.try_renew(text, bigint, interval) IS
'As lease.renew, but returns true, or false if the lease is lost.
Errors: 42501 another role''s lease; 22023, 22004 bad arguments; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.renew_all(names text[], tokens bigint[], ttl interval DEFAULT NULL)
RETURNS TABLE (name text, token bigint, renewed boolean)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_renew_all';
COMMENT ON FUNCTION lease.renew_all(text[], bigint[], interval) IS
'Renews several leases, names[i] with tokens[i], and returns a row for each: renewed, or lost.
Errors, before any is renewed: 42501 one is another role''s; 22023 bad argument, or arrays of different length; 22004 a NULL name or token; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.release(name text, token bigint) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_release';
COMMENT ON FUNCTION lease.release(text, bigint) IS
'Ends a lease at once, or, in a transaction that guards it, when that is over; ROLLBACK does not undo it. Returns true, or false with a WARNING (LE001) if it was lost before. The name opens at once, or when min_hold has passed.
Errors: 42501 another role''s lease; 22023, 22004 bad arguments; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.release_session() RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_release_session';
COMMENT ON FUNCTION lease.release_session() IS
'Releases all leases that the session holds in scope session, however often it acquired them, and returns how many there were. DISCARD ALL does it, too.
Errors: 25006 read-only transaction or standby; 55000 not preloaded.';

CREATE FUNCTION lease.release_all(names text[], tokens bigint[])
RETURNS TABLE (name text, token bigint, released boolean)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_release_all';
COMMENT ON FUNCTION lease.release_all(text[], bigint[]) IS
'Releases several leases, names[i] with tokens[i], and returns a row for each: released, or lost before.
Errors, before any is released: 42501 one is another role''s; 22023 bad argument, or arrays of different length; 22004 a NULL name or token; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.transfer(name text, token bigint, to_holder text) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_transfer';
COMMENT ON FUNCTION lease.transfer(text, bigint, text) IS
'Hands a lease over to another holder and returns its new, larger token; the old token is lost. The TTL starts anew, owner, metadata and correlation id stay, the request id is cleared. Repeated with the old token and the same holder while the new grant lives, it returns the same new token.
to_holder: at most 127 bytes.
Errors: LE001 the lease is lost; 42501 another role''s lease; 22023, 22004 bad arguments; 53400 table full; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.force_release(name text, reason text, token bigint DEFAULT NULL,
                                    reopen boolean DEFAULT false) RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_force_release';
COMMENT ON FUNCTION lease.force_release(text, text, bigint, boolean) IS
'For administrators: ends the grants of a name, or only the one with a token, whatever the holder thinks, and returns how many it ended. The server log records it with its reason; a NOTICE says until when the holder may still act. reopen: open the name at once, cutting lock_delay and min_hold short.
Errors: 22023 bad argument or empty reason; 22004 NULL name or reason; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.new_epoch(reason text) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_new_epoch';
COMMENT ON FUNCTION lease.new_epoch(text) IS
'For administrators, after a server was copied or rewound: lifts all future tokens of this database into a new epoch (token >> 27), which it returns. The server log records it with its reason.
Errors: 22023 empty reason; 22004 NULL reason; 54000 tokens used up; 25006 read-only transaction or standby.';

--
-- Fence
--
CREATE FUNCTION lease.is_held(name text, token bigint) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'lease_is_held';
COMMENT ON FUNCTION lease.is_held(text, bigint) IS
'Is the lease held with this token, now? What was true may be false by the time the answer arrives: let what is to be protected compare tokens.
Errors: 22023, 22004 bad arguments; 25006 on a standby, which does not know.';

CREATE FUNCTION lease.guard(name text, token bigint) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_guard';
COMMENT ON FUNCTION lease.guard(text, bigint) IS
'Lets the current transaction commit only while the lease is held with this token, which it returns. From the check at commit until the effects of the transaction are visible nobody else is granted the name. A guard in a savepoint that is rolled back is dropped; leases of scope transaction are guarded without it.
Errors: LE001 the lease is lost, now or at commit; 40001 at isolation level repeatable read and above, the lease was acquired after the transaction began; 0A000 at PREPARE TRANSACTION; 42501 another role''s lease; 22023, 22004 bad arguments; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.check_guard() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'lease_check_guard';
COMMENT ON FUNCTION lease.check_guard() IS
'Trigger AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW, made by lease.protect_table, with the name pattern as its argument: refuses the write unless the transaction guards the lease that the pattern makes of the row.
Errors: LE003 it does not; 22004 a column of the pattern is NULL; 22023 the name has more than 255 bytes, or the pattern does not fit the table any more.';

CREATE FUNCTION lease.check_guard_of_table() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'lease_check_guard_of_table';
COMMENT ON FUNCTION lease.check_guard_of_table() IS
'Trigger BEFORE TRUNCATE, made by lease.protect_table, with the name pattern as its argument: refuses it unless the transaction guards the one lease of the whole table.
Errors: LE003 it does not, or each row has a lease of its own.';

CREATE FUNCTION lease.protect_table(rel regclass, name_pattern text) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_protect_table';
COMMENT ON FUNCTION lease.protect_table(regclass, text) IS
'Refuses every write to a table (LE003) unless the transaction guards, exclusively, the lease that the pattern names. Returns false if it was protected like that before; another pattern takes the place of the former.
rel: a table of yours; what holds for it holds for its partitions and children. name_pattern: a lease name in which {column} stands for the value of the row as it is stored, old and new if they differ; the column must be integer, text, varchar or uuid; {{ and }} stand for braces. Without columns it is one lease for the whole table, TRUNCATE included.
Errors: 22023 bad pattern; 22004 NULL; 42501 not the owner; 42809 not a table of this database; 55000 a partition that its parent protects otherwise; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.unprotect_table(rel regclass) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_unprotect_table';
COMMENT ON FUNCTION lease.unprotect_table(regclass) IS
'Takes back what lease.protect_table did. Returns false if the table was not protected.
Errors: 22004 NULL; 42501 not the owner; 42809 not a table of this database; 55000 a partition that has it from its parent; 25006 read-only transaction or standby.';

CREATE VIEW lease.protected_tables AS
	SELECT t.tgrelid::pg_catalog.regclass AS "table",
	       pg_catalog.convert_from(pg_catalog.substring(t.tgargs, 1, pg_catalog.octet_length(t.tgargs) - 1),
	                               pg_catalog.getdatabaseencoding()) AS name_pattern,
	       CASE t.tgenabled WHEN 'O' THEN 'origin' WHEN 'R' THEN 'replica'
	                        WHEN 'A' THEN 'always' ELSE 'disabled' END AS enabled,
	       EXISTS (SELECT FROM pg_catalog.pg_trigger o
	               WHERE o.tgrelid = t.tgrelid AND o.tgargs = t.tgargs AND o.tgenabled IN ('O', 'A')
	                 AND o.tgfoid = 'lease.check_guard_of_table()'::pg_catalog.regprocedure) AS covers_truncate
	FROM pg_catalog.pg_trigger t
	WHERE t.tgfoid = 'lease.check_guard()'::pg_catalog.regprocedure;
COMMENT ON VIEW lease.protected_tables IS
'The tables that lease.protect_table protects, partitions and children included, as their triggers tell.';
COMMENT ON COLUMN lease.protected_tables."table" IS 'the table, partition or child';
COMMENT ON COLUMN lease.protected_tables.name_pattern IS 'which lease a write needs; {column} stands for the value of the row';
COMMENT ON COLUMN lease.protected_tables.enabled IS 'when the trigger fires: origin, but not for what logical replication applies; always; replica, only for that; or disabled';
COMMENT ON COLUMN lease.protected_tables.covers_truncate IS 'is TRUNCATE of it checked, too? Not of a partition or child that came later: protect the table again';

-- What fences have seen.  A dump carries it.
CREATE TABLE lease.fences
(
	resource  text PRIMARY KEY,
	token     bigint NOT NULL,
	owner     regrole NOT NULL,
	fenced_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE lease.fences IS 'What lease.fence keeps: the largest token that a resource has seen.';
COMMENT ON COLUMN lease.fences.resource IS 'name that users gave to something outside';
COMMENT ON COLUMN lease.fences.token IS 'the largest fencing token seen for it';
COMMENT ON COLUMN lease.fences.owner IS 'role that first used it, and whose privileges it takes';
COMMENT ON COLUMN lease.fences.fenced_at IS 'wall-clock time at which the token was seen first';
SELECT pg_catalog.pg_extension_config_dump('lease.fences', '');

CREATE FUNCTION lease.fence(resource text, token bigint) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_fence';
COMMENT ON FUNCTION lease.fence(text, bigint) IS
'Remembers, as part of the current transaction, the largest token that a resource has seen, and refuses a smaller one; returns the token. Until the transaction is over, others that fence the resource wait.
resource: 1 to 255 bytes; it belongs to the role that first used it. token: one that was granted in this database.
Errors: LE002 a larger token was seen; 22023 bad argument, or a token that was never granted; 22004 NULL; 42501 the resource is another role''s; 40001 at isolation level repeatable read and above, it was fenced since the transaction began; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.check_token() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'lease_check_token';
COMMENT ON FUNCTION lease.check_token() IS
'Trigger BEFORE UPDATE FOR EACH ROW, made by lease.enable_fencing, with the column and strict or lenient as its arguments: refuses an update that lowers the token in the column.
Errors: LE002 it does; 22023 the token was never granted; 55000 strict, and the update does not set the column.';

CREATE FUNCTION lease.enable_fencing(rel regclass, column_name name DEFAULT 'fencing_token', strict boolean DEFAULT false)
RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_enable_fencing';
COMMENT ON FUNCTION lease.enable_fencing(regclass, name, boolean) IS
'Lets the column of a table keep the largest fencing token that wrote the row: an update that sets it to a smaller one is refused (LE002). Returns false if it was enabled like that before.
rel: a table of yours; partitions and children included. column_name: a column of type bigint; NULL counts as 0. strict: an update must set the column.
Errors: 42703 no such column; 42804 it is not bigint; 22004 NULL; 42501 not the owner; 42809 not a table of this database; 55000 a partition that has it from its parent; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.disable_fencing(rel regclass) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_disable_fencing';
COMMENT ON FUNCTION lease.disable_fencing(regclass) IS
'Takes back what lease.enable_fencing did; the column stays. Returns false if it was not enabled.
Errors: 22004 NULL; 42501 not the owner; 42809 not a table of this database; 55000 a partition that has it from its parent; 25006 read-only transaction or standby.';

--
-- Optimistic versions, idempotency
--
CREATE FUNCTION lease.count_version() RETURNS trigger
	LANGUAGE C AS 'MODULE_PATHNAME', 'lease_count_version';
COMMENT ON FUNCTION lease.count_version() IS
'Trigger BEFORE UPDATE FOR EACH ROW, made by lease.enable_versioning, with the column and strict or lenient as its arguments: adds one to the version in the column, if the update sets it to the version that the row has, to one more, or not at all.
Errors: 40001 another version; 55000 strict, and the update does not set the column; 22003 the column is full.';

CREATE FUNCTION lease.enable_versioning(rel regclass, column_name name DEFAULT 'version', strict boolean DEFAULT false)
RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_enable_versioning';
COMMENT ON FUNCTION lease.enable_versioning(regclass, name, boolean) IS
'Lets the column of a table count the updates of each row. UPDATE ... SET version = <what I read> succeeds only if the row still has it, else it fails with 40001; so does SET version = v + 1 WHERE version = v, which object-relational mappers send. Returns false if it was enabled like that before.
rel: a table of yours; partitions and children included. column_name: a column of type smallint, integer or bigint; NULL counts as 0. strict: an update must set the column.
Errors: 42703 no such column; 42804 it is no integer; 22004 NULL; 42501 not the owner; 42809 not a table of this database; 55000 a partition that has it from its parent; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.disable_versioning(rel regclass) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_disable_versioning';
COMMENT ON FUNCTION lease.disable_versioning(regclass) IS
'Takes back what lease.enable_versioning did; the column stays. Returns false if it was not enabled.
Errors: 22004 NULL; 42501 not the owner; 42809 not a table of this database; 55000 a partition that has it from its parent; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.compare_and_set(rel regclass, key jsonb, expected bigint, changes jsonb) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_compare_and_set';
COMMENT ON FUNCTION lease.compare_and_set(regclass, jsonb, bigint, jsonb) IS
'Updates the row of a versioned table that has a key, if it still has the expected version, and returns its new version. It runs under your privileges and row security.
key: an object of columns and values that one row matches. expected: the version that was read. changes: an object of columns and new values; may be empty.
Errors: 40001 another version; P0002 no such row; 21000 several; 42703 no such column; 22023 key or changes are no objects, key is empty, or changes name the version column; 22004 NULL argument or key value; 55000 the table does not count versions; 25006 read-only transaction or standby; and those of an UPDATE.';

CREATE TABLE lease.keys
(
	key        text PRIMARY KEY,
	owner      regrole NOT NULL,
	claimed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	expires_at timestamptz NOT NULL,
	result     jsonb
);
CREATE INDEX keys_expires_at ON lease.keys (expires_at);
COMMENT ON TABLE lease.keys IS 'What lease.once keeps: the requests that were done, until they expire.';
COMMENT ON COLUMN lease.keys.key IS 'the client''s name for a request';
COMMENT ON COLUMN lease.keys.owner IS 'role that claimed it, and whose privileges it takes';
COMMENT ON COLUMN lease.keys.claimed_at IS 'wall-clock time at which it was claimed';
COMMENT ON COLUMN lease.keys.expires_at IS 'wall-clock time from which it counts for nothing; a reaper removes it';
COMMENT ON COLUMN lease.keys.result IS 'what lease.save_result saved';
SELECT pg_catalog.pg_extension_config_dump('lease.keys', '');

CREATE FUNCTION lease.once(key text, ttl interval DEFAULT '1 day') RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_once';
COMMENT ON FUNCTION lease.once(text, interval) IS
'Claims a key, as part of the current transaction, and returns true, or false if it was claimed before. A second call waits for a first that has not committed yet, and gets the key if that rolls back.
key: 1 to 255 bytes; it belongs to the role that claimed it. ttl: how long the key counts, 1 ms to 366 days, by the wall clock.
Errors: 22023 bad argument; 22004 NULL; 42501 the key is another role''s; 40001 at isolation level repeatable read and above, it was claimed since the transaction began; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.save_result(key text, result jsonb) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_save_result';
COMMENT ON FUNCTION lease.save_result(text, jsonb) IS
'Saves, as part of the current transaction, what came of the request with a key, in place of what was saved before. Returns false if there is no such key, or it has expired.
Errors: 22023 bad argument; 22004 NULL; 42501 the key is another role''s; 25006 read-only transaction or standby.';

CREATE FUNCTION lease.result(key text) RETURNS jsonb
	LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'lease_result';
COMMENT ON FUNCTION lease.result(text) IS
'What lease.save_result saved for a key; NULL if nothing was, if there is no such key, or if it has expired.
Errors: 22023 bad argument; 22004 NULL; 42501 the key is another role''s.';

--
-- Watch
--
CREATE FUNCTION lease.live_leases(
	OUT name text, OUT mode text, OUT scope text, OUT token bigint, OUT holder text,
	OUT owner oid, OUT pid integer, OUT acquired_at timestamptz,
	OUT renewed_at timestamptz, OUT expires_at timestamptz, OUT remaining interval,
	OUT ttl interval, OUT renewals bigint, OUT durable boolean,
	OUT closed_until timestamptz, OUT request_id text, OUT correlation_id text,
	OUT metadata text, OUT waiters bigint, OUT permits integer, OUT capacity integer,
	OUT pinned_by integer[])
RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1000 AS 'MODULE_PATHNAME', 'lease_live_leases';
COMMENT ON FUNCTION lease.live_leases() IS
'What view lease.leases shows.
Errors: 55000 not preloaded, or ledger not durable.';

CREATE VIEW lease.leases AS
	SELECT name, mode, scope, token, holder,
	       pg_catalog.pg_get_userbyid(owner) AS owner, pid,
	       acquired_at, renewed_at, expires_at, remaining, ttl, renewals,
	       waiters, permits, capacity, durable, pinned_by,
	       closed_until, request_id, correlation_id, metadata::jsonb AS metadata
	FROM lease.live_leases();
COMMENT ON VIEW lease.leases IS
'Every live lease of this database, and every name that stays closed for a while after its lease. Other roles'' leases show without name, holder, request_id, correlation_id and metadata, unless you are a member of pg_read_all_stats. On a standby it shows what the ledger holds.';
COMMENT ON COLUMN lease.leases.name IS 'name that is leased or closed';
COMMENT ON COLUMN lease.leases.mode IS 'exclusive, shared, or permit of a semaphore';
COMMENT ON COLUMN lease.leases.scope IS 'what ends it besides release: detached, its TTL alone; session or transaction, also their end';
COMMENT ON COLUMN lease.leases.token IS 'fencing token';
COMMENT ON COLUMN lease.leases.holder IS 'who holds it, for people';
COMMENT ON COLUMN lease.leases.owner IS 'role that took it, and whose privileges it takes to act on it';
COMMENT ON COLUMN lease.leases.pid IS 'process that took it; NULL if that was before the last restart';
COMMENT ON COLUMN lease.leases.acquired_at IS 'wall-clock time of the grant';
COMMENT ON COLUMN lease.leases.renewed_at IS 'what the wall clock showed at the last renewal; NULL if there was none since the last restart, or the lease is over';
COMMENT ON COLUMN lease.leases.expires_at IS 'what the wall clock will show when the TTL runs out; NULL if it is over, or on a standby';
COMMENT ON COLUMN lease.leases.remaining IS 'how much of the TTL is left; NULL if it is over, or on a standby';
COMMENT ON COLUMN lease.leases.ttl IS 'TTL that a renewal without one starts anew';
COMMENT ON COLUMN lease.leases.renewals IS 'number of renewals since the last restart';
COMMENT ON COLUMN lease.leases.waiters IS 'how many wait for the name; NULL on a standby';
COMMENT ON COLUMN lease.leases.permits IS 'permit: how many of the semaphore''s permits it takes';
COMMENT ON COLUMN lease.leases.capacity IS 'permit: how many permits the semaphore has';
COMMENT ON COLUMN lease.leases.durable IS 'the grant is on this server''s disk';
COMMENT ON COLUMN lease.leases.pinned_by IS 'processes that are committing a transaction that it guards: until they are done the name does not open, even if the lease is over; of a transaction that guards more than 16 leases, the first 16 show it';
COMMENT ON COLUMN lease.leases.closed_until IS 'the lease is over, and the name stays closed until then (lock_delay, min_hold)';
COMMENT ON COLUMN lease.leases.request_id IS 'the client''s id of the attempt';
COMMENT ON COLUMN lease.leases.correlation_id IS 'what the client marked the grant with';
COMMENT ON COLUMN lease.leases.metadata IS 'the client''s metadata';

CREATE FUNCTION lease.live_waiters(
	OUT name text, OUT "position" integer, OUT holder text, OUT owner oid, OUT pid integer,
	OUT mode text, OUT permits integer, OUT waiting_since timestamptz, OUT waited interval,
	OUT blocked_by bigint[], OUT correlation_id text)
RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'lease_live_waiters';
COMMENT ON FUNCTION lease.live_waiters() IS
'What view lease.waiters shows.
Errors: 55000 not preloaded.';

CREATE VIEW lease.waiters AS
	SELECT name, "position", holder, pg_catalog.pg_get_userbyid(owner) AS owner, pid,
	       mode, permits, waiting_since, waited, blocked_by, correlation_id
	FROM lease.live_waiters();
COMMENT ON VIEW lease.waiters IS
'Who waits for a lease or permit in this database, in which order, and for whom. Other roles'' waiters show without name, holder and correlation_id, unless you are a member of pg_read_all_stats. Nobody waits on a standby.';
COMMENT ON COLUMN lease.waiters.name IS 'name that is waited for';
COMMENT ON COLUMN lease.waiters."position" IS 'place in the name''s queue; 1 is served next';
COMMENT ON COLUMN lease.waiters.holder IS 'who waits, for people';
COMMENT ON COLUMN lease.waiters.owner IS 'role that waits';
COMMENT ON COLUMN lease.waiters.pid IS 'process that waits';
COMMENT ON COLUMN lease.waiters.mode IS 'exclusive, shared or permit';
COMMENT ON COLUMN lease.waiters.permits IS 'permit: how many it wants';
COMMENT ON COLUMN lease.waiters.waiting_since IS 'what the wall clock showed when it joined the queue';
COMMENT ON COLUMN lease.waiters.waited IS 'how long it has waited';
COMMENT ON COLUMN lease.waiters.blocked_by IS 'tokens of the grants that must end before it, and those ahead of it, can be served; empty while a grant is being made';
COMMENT ON COLUMN lease.waiters.correlation_id IS 'what the attempt is marked with';

CREATE FUNCTION lease.blocking_pids(pid integer) RETURNS integer[]
	LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'lease_blocking_pids';
COMMENT ON FUNCTION lease.blocking_pids(integer) IS
'The processes that keep a process from the lease that it waits for, as pg_blocking_pids tells of locks: those that hold it in scope session or transaction, are being granted it, or are committing a transaction that it guards, and those ahead with a request that excludes its own. 0 stands for a detached lease, which no process holds. Empty if it does not wait for a lease.
pid: process ID of a session.
Errors: 22004 pid is NULL; 55000 not preloaded.';

CREATE FUNCTION lease.server_status(
	OUT version text, OUT epoch bigint, OUT timeline bigint, OUT next_token bigint,
	OUT leases_used bigint, OUT leases_allowed bigint, OUT ledger_size bigint,
	OUT ledger_garbage bigint, OUT worker_state text, OUT last_reap timestamptz,
	OUT waiters bigint, OUT history_lost bigint, OUT history_pending bigint)
RETURNS record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'lease_server_status';
COMMENT ON FUNCTION lease.server_status() IS
'What view lease.status shows.
Errors: 55000 not preloaded, or ledger not durable.';

CREATE VIEW lease.status AS
	SELECT version, epoch, timeline, next_token, leases_used, leases_allowed, waiters,
	       ledger_size, ledger_garbage, worker_state, last_reap, history_lost, history_pending
	FROM lease.server_status();
COMMENT ON VIEW lease.status IS 'The state of leases in this database and server, in one row.';
COMMENT ON COLUMN lease.status.version IS 'version of the SQL objects that the library serves';
COMMENT ON COLUMN lease.status.epoch IS 'epoch of the next token; on a standby, of the tokens reserved so far';
COMMENT ON COLUMN lease.status.timeline IS 'the server''s timeline';
COMMENT ON COLUMN lease.status.next_token IS 'next token that will be granted in this database, or a smaller one; NULL on a standby';
COMMENT ON COLUMN lease.status.leases_used IS 'leases, closed names and unfinished ends in the table, of all databases; NULL on a standby';
COMMENT ON COLUMN lease.status.leases_allowed IS 'lease.max_leases';
COMMENT ON COLUMN lease.status.waiters IS 'how many wait for leases, in all databases; NULL on a standby';
COMMENT ON COLUMN lease.status.ledger_size IS 'size of lease.ledger in bytes';
COMMENT ON COLUMN lease.status.ledger_garbage IS 'ended rows that VACUUM has yet to remove, as the statistics know';
COMMENT ON COLUMN lease.status.worker_state IS 'idle, reaping, launcher absent, or standby';
COMMENT ON COLUMN lease.status.last_reap IS 'when a reaper last looked after this database; NULL if never since the last restart';
COMMENT ON COLUMN lease.status.history_lost IS 'events of this database that could not be kept for lease.history, since statistics were reset; NULL on a standby';
COMMENT ON COLUMN lease.status.history_pending IS 'events of this database that lease.history is yet to show; NULL on a standby';

CREATE FUNCTION lease.live_stats(
	OUT is_total boolean, OUT name text, OUT acquired bigint, OUT received bigint,
	OUT released bigint, OUT expired bigint, OUT orphaned bigint, OUT forced bigint,
	OUT transferred bigint, OUT abandoned bigint, OUT refused bigint, OUT timeouts bigint,
	OUT deadlocks bigint, OUT cancelled bigint, OUT rejected bigint, OUT guard_failures bigint,
	OUT contended bigint, OUT renewed bigint, OUT wait_total interval, OUT wait_max interval,
	OUT hold_total interval, OUT hold_max interval, OUT margin_min interval,
	OUT margin_p01 interval, OUT longest_queue bigint, OUT ttl interval,
	OUT last_used timestamptz, OUT since timestamptz)
RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1000 AS 'MODULE_PATHNAME', 'lease_live_stats';
COMMENT ON FUNCTION lease.live_stats() IS
'What views lease.stats and lease.totals show.
Errors: 55000 not preloaded.';

CREATE VIEW lease.stats AS
	SELECT name, acquired, contended,
	       contended::double precision / nullif(acquired + refused + timeouts + deadlocks + cancelled, 0) AS contention_rate,
	       wait_total, wait_total / nullif(contended - refused, 0) AS wait_mean, wait_max,
	       hold_total,
	       hold_total / nullif(released + expired + orphaned + forced + transferred + abandoned, 0) AS hold_mean,
	       hold_max, margin_min, margin_p01, renewed,
	       released, expired, orphaned, forced, transferred, received, abandoned,
	       refused, timeouts, deadlocks, cancelled, rejected, guard_failures, longest_queue,
	       ttl, last_used, since
	FROM lease.live_stats() WHERE NOT is_total;
COMMENT ON VIEW lease.stats IS
'What was counted of each name of this database that was used of late; when there are too many names, those are forgotten first that were not used for longest. Names that another role took last show as NULL, unless you are a member of pg_read_all_stats. Kept over a clean restart, lost in a crash.';
COMMENT ON COLUMN lease.stats.name IS 'name of the lease or semaphore';
COMMENT ON COLUMN lease.stats.acquired IS 'grants to who asked for the name';
COMMENT ON COLUMN lease.stats.contended IS 'attempts that found the name taken, whatever came of them';
COMMENT ON COLUMN lease.stats.contention_rate IS 'the part of all attempts that was contended; NULL if there were none';
COMMENT ON COLUMN lease.stats.wait_total IS 'time that attempts waited, in vain or not';
COMMENT ON COLUMN lease.stats.wait_mean IS 'mean of those that waited';
COMMENT ON COLUMN lease.stats.wait_max IS 'longest wait';
COMMENT ON COLUMN lease.stats.hold_total IS 'time that grants were held, of those that are over';
COMMENT ON COLUMN lease.stats.hold_mean IS 'mean of these';
COMMENT ON COLUMN lease.stats.hold_max IS 'longest hold';
COMMENT ON COLUMN lease.stats.margin_min IS 'the least that a renewal found left of the TTL; NULL if none was counted';
COMMENT ON COLUMN lease.stats.margin_p01 IS 'what one of a hundred renewals found left at the most, rounded down to a bound of the histograms';
COMMENT ON COLUMN lease.stats.renewed IS 'renewals';
COMMENT ON COLUMN lease.stats.released IS 'grants that their holder released';
COMMENT ON COLUMN lease.stats.expired IS 'grants whose TTL ran out';
COMMENT ON COLUMN lease.stats.orphaned IS 'grants of scope session or transaction whose session ended';
COMMENT ON COLUMN lease.stats.forced IS 'grants that lease.force_release ended';
COMMENT ON COLUMN lease.stats.transferred IS 'grants that were handed over';
COMMENT ON COLUMN lease.stats.received IS 'grants to who a lease was handed over to';
COMMENT ON COLUMN lease.stats.abandoned IS 'grants that were taken back because the call that asked for them was cancelled at that moment';
COMMENT ON COLUMN lease.stats.refused IS 'attempts that found the name taken and did not wait';
COMMENT ON COLUMN lease.stats.timeouts IS 'waits that ran out of time';
COMMENT ON COLUMN lease.stats.deadlocks IS 'waits that would never have ended';
COMMENT ON COLUMN lease.stats.cancelled IS 'waits that were cancelled, or whose client went away';
COMMENT ON COLUMN lease.stats.rejected IS 'calls that showed a token which was not, or no longer, that of the lease';
COMMENT ON COLUMN lease.stats.guard_failures IS 'guards that failed, at once or at commit, and writes without their guard';
COMMENT ON COLUMN lease.stats.longest_queue IS 'most that waited at a time';
COMMENT ON COLUMN lease.stats.ttl IS 'TTL of the last grant or renewal; NULL if it had none';
COMMENT ON COLUMN lease.stats.last_used IS 'wall-clock time of the last grant';
COMMENT ON COLUMN lease.stats.since IS 'when counting of this name began';

CREATE VIEW lease.totals AS
	SELECT acquired, contended,
	       contended::double precision / nullif(acquired + refused + timeouts + deadlocks + cancelled, 0) AS contention_rate,
	       wait_total, wait_total / nullif(contended - refused, 0) AS wait_mean, wait_max,
	       hold_total,
	       hold_total / nullif(released + expired + orphaned + forced + transferred + abandoned, 0) AS hold_mean,
	       hold_max, margin_min, margin_p01, renewed,
	       released, expired, orphaned, forced, transferred, received, abandoned,
	       refused, timeouts, deadlocks, cancelled, rejected, guard_failures, longest_queue,
	       since
	FROM lease.live_stats() WHERE is_total;
COMMENT ON VIEW lease.totals IS
'What was counted of all names of this database together, also of those that lease.stats has forgotten, in one row. Kept over a clean restart, lost in a crash.';
COMMENT ON COLUMN lease.totals.since IS 'when counting began: the first use of leases after a crash, or lease.reset_stats';

CREATE FUNCTION lease.histograms(OUT upper_bound interval, OUT waits bigint, OUT holds bigint)
RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 32 AS 'MODULE_PATHNAME', 'lease_histograms';
COMMENT ON FUNCTION lease.histograms() IS
'What views lease.wait_histogram and lease.hold_histogram show.
Errors: 55000 not preloaded.';

CREATE VIEW lease.wait_histogram AS
	SELECT upper_bound, waits AS count FROM lease.histograms();
COMMENT ON VIEW lease.wait_histogram IS
'How long attempts waited for a name that was taken, in vain or not, in this database: 32 buckets, whose bounds double.';
COMMENT ON COLUMN lease.wait_histogram.upper_bound IS 'longest wait that the bucket counts; NULL for the last one, which has no bound';
COMMENT ON COLUMN lease.wait_histogram.count IS 'waits longer than the bound of the bucket before, and no longer than this one';

CREATE VIEW lease.hold_histogram AS
	SELECT upper_bound, holds AS count FROM lease.histograms();
COMMENT ON VIEW lease.hold_histogram IS
'How long grants that are over were held, in this database: 32 buckets, whose bounds double.';
COMMENT ON COLUMN lease.hold_histogram.upper_bound IS 'longest hold that the bucket counts; NULL for the last one, which has no bound';
COMMENT ON COLUMN lease.hold_histogram.count IS 'holds longer than the bound of the bucket before, and no longer than this one';

CREATE FUNCTION lease.reset_stats() RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'lease_reset_stats';
COMMENT ON FUNCTION lease.reset_stats() IS
'Forgets all that was counted in this database, and begins anew; lease.history stays.
Errors: 25006 read-only transaction or standby; 55000 not preloaded.';

--
-- History.  A reaper writes the table; the library knows its columns by number.
--
CREATE TABLE lease.events
(
	seq            bigint NOT NULL,
	at             timestamptz NOT NULL,
	event          text NOT NULL,
	name           text,
	token          bigint,
	mode           text,
	scope          text,
	holder         text,
	owner          oid NOT NULL,
	pid            integer,
	correlation_id text,
	waited         interval,
	held           interval,
	detail         text
);
-- It is written at the end only, and there is much of it: so an index that costs
-- next to nothing, to find a time or a name by.
CREATE INDEX events_at_name ON lease.events
	USING brin (at, name pg_catalog.text_bloom_ops) WITH (pages_per_range = 32, autosummarize = on);
-- Old rows are deleted, which a publication for all tables would forbid otherwise.
ALTER TABLE lease.events REPLICA IDENTITY FULL;
COMMENT ON TABLE lease.events IS 'What view lease.history shows.';
COMMENT ON COLUMN lease.events.seq IS 'order of events that have the same time, of one run of the server';
COMMENT ON COLUMN lease.events.at IS 'wall-clock time';
COMMENT ON COLUMN lease.events.event IS 'what happened: acquired, received, released, expired, orphaned, forced, transferred, abandoned, refused, timeout, deadlock, cancelled, rejected, guard_failed, reopened, resized, new_epoch, loaded';
COMMENT ON COLUMN lease.events.name IS 'name of the lease or semaphore; NULL if it is about none';
COMMENT ON COLUMN lease.events.token IS 'fencing token of the grant, or that was shown';
COMMENT ON COLUMN lease.events.mode IS 'exclusive, shared, or permit';
COMMENT ON COLUMN lease.events.scope IS 'detached, session or transaction';
COMMENT ON COLUMN lease.events.holder IS 'who held it, or wanted to, for people';
COMMENT ON COLUMN lease.events.owner IS 'role that took it, or wanted to';
COMMENT ON COLUMN lease.events.pid IS 'process that took it, or wanted to';
COMMENT ON COLUMN lease.events.correlation_id IS 'what the session, or the grant, was marked with';
COMMENT ON COLUMN lease.events.waited IS 'how long the attempt waited; NULL if it did not';
COMMENT ON COLUMN lease.events.held IS 'how long the grant was held; NULL if it is not over';
COMMENT ON COLUMN lease.events.detail IS 'more, for people';

-- The barrier must be a view of its own: the planner looks through a UNION ALL,
-- and would run a user's conditions before ours.  Those that tell nothing, as on
-- a name, it still runs first, and finds the rows by the index.
CREATE VIEW lease.own_events WITH (security_barrier) AS
	SELECT * FROM lease.events
	WHERE pg_catalog.pg_has_role(owner, 'USAGE') OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE');
COMMENT ON VIEW lease.own_events IS 'What lease.history shows in full.';

CREATE VIEW lease.history AS
	SELECT at, event, name, token, mode, scope, holder, pg_catalog.pg_get_userbyid(owner) AS owner,
	       pid, correlation_id, waited, held, detail, seq
	FROM lease.own_events
	UNION ALL
	SELECT at, event, NULL, token, mode, scope, NULL, pg_catalog.pg_get_userbyid(owner),
	       pid, NULL, waited, held, NULL, seq
	FROM lease.events
	WHERE NOT (pg_catalog.pg_has_role(owner, 'USAGE') OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'));
COMMENT ON VIEW lease.history IS
'The audit trail: what happened to leases of this database in the last lease.history_retention, a moment after it did. What concerns other roles shows without name, holder, correlation_id and detail, unless you are a member of pg_read_all_stats.';
-- What is the same column is told of in the same words.
DO $$
DECLARE
	same record;
BEGIN
	FOR same IN
		SELECT v.copy, a.attname AS column_name, pg_catalog.col_description(v.original, o.attnum) AS comment
		FROM (VALUES ('lease.stats'::pg_catalog.regclass, 'lease.totals'::pg_catalog.regclass),
		             ('lease.events', 'lease.own_events'),
		             ('lease.events', 'lease.history')) v (original, copy)
		JOIN pg_catalog.pg_attribute a ON a.attrelid = v.copy
		JOIN pg_catalog.pg_attribute o ON o.attrelid = v.original AND o.attname = a.attname
		WHERE a.attnum > 0 AND pg_catalog.col_description(a.attrelid, a.attnum) IS NULL
	LOOP
		EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', same.copy, same.column_name, same.comment);
	END LOOP;
END
$$;

--
-- Privileges
--
CREATE FUNCTION lease.user_objects(OUT what text) RETURNS SETOF text
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE ' ELSE 'FUNCTION ' END || p.oid::regprocedure::text
	FROM pg_proc p
	WHERE p.pronamespace = 'lease'::regnamespace
	  AND p.proname IN ('acquire', 'try_acquire', 'acquire_all', 'try_acquire_all',
	                    'acquire_permit', 'try_acquire_permit', 'set_capacity', 'campaign',
	                    'renew', 'try_renew', 'renew_all', 'release', 'release_all',
	                    'release_session', 'transfer', 'is_held', 'guard', 'fence', 'blocking_pids',
	                    'protect_table', 'unprotect_table', 'check_guard', 'check_guard_of_table',
	                    'enable_fencing', 'disable_fencing', 'check_token',
	                    'enable_versioning', 'disable_versioning', 'count_version',
	                    'compare_and_set', 'once', 'save_result', 'result',
	                    'live_leases', 'live_waiters', 'server_status', 'live_stats', 'histograms')
	UNION ALL
	SELECT 'TABLE ' || v
	FROM unnest(ARRAY['lease.leases', 'lease.waiters', 'lease.status', 'lease.stats', 'lease.totals',
	                  'lease.wait_histogram', 'lease.hold_histogram', 'lease.history',
	                  'lease.protected_tables']) v
$$;
COMMENT ON FUNCTION lease.user_objects() IS
'The functions and views that lease.allow grants and lease.disallow takes back, as GRANT names them.';

CREATE FUNCTION lease.allow(role regrole) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	object text;
BEGIN
	IF role IS NULL THEN
		RAISE EXCEPTION 'role must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	EXECUTE format('GRANT USAGE ON SCHEMA lease TO %s', role);
	FOR object IN SELECT what FROM lease.user_objects() LOOP
		EXECUTE format('GRANT %s ON %s TO %s',
		               CASE WHEN object LIKE 'TABLE %' THEN 'SELECT' ELSE 'EXECUTE' END,
		               object, role);
	END LOOP;
END
$$;
COMMENT ON FUNCTION lease.allow(regrole) IS
'Grants a role the use of leases: USAGE on the schema, EXECUTE on the functions for users, SELECT on the views. What administrators do is granted by hand.
Errors: 42704 no such role; 42501 you may not grant it; 22004 NULL role.';

CREATE FUNCTION lease.disallow(role regrole) RETURNS void
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	object text;
BEGIN
	IF role IS NULL THEN
		RAISE EXCEPTION 'role must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	FOR object IN SELECT what FROM lease.user_objects() LOOP
		EXECUTE format('REVOKE ALL ON %s FROM %s', object, role);
	END LOOP;
	EXECUTE format('REVOKE ALL ON SCHEMA lease FROM %s', role);
END
$$;
COMMENT ON FUNCTION lease.disallow(regrole) IS
'Takes back what lease.allow granted a role. Its leases live on until their TTL runs out.
Errors: 42704 no such role; 42501 you may not revoke it; 22004 NULL role.';

REVOKE ALL ON ALL ROUTINES IN SCHEMA lease FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA lease FROM PUBLIC;
