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
	OUT contended bigint, OUT contention_rate double precision, OUT renewed bigint,
	OUT wait_total interval, OUT wait_mean interval, OUT wait_max interval,
	OUT hold_total interval, OUT hold_mean interval, OUT hold_max interval,
	OUT margin_min interval, OUT margin_p01 interval, OUT longest_queue bigint, OUT ttl interval,
	OUT last_used timestamptz, OUT since timestamptz)
RETURNS SETOF record
	LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 1000 AS 'MODULE_PATHNAME', 'lease_live_stats';
COMMENT ON FUNCTION lease.live_stats() IS
'What views lease.stats and lease.totals show.
Errors: 55000 not preloaded, or ledger not durable.';

CREATE VIEW lease.stats AS
	SELECT name, acquired, contended, contention_rate, wait_total, wait_mean, wait_max,
	       hold_total, hold_mean, hold_max, margin_min, margin_p01, renewed,
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
	SELECT acquired, contended, contention_rate, wait_total, wait_mean, wait_max,
	       hold_total, hold_mean, hold_max, margin_min, margin_p01, renewed,
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
Errors: 55000 not preloaded, or ledger not durable.';

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
)
-- What is only added needs no VACUUM, which would cancel those who read on a
-- standby with an older snapshot.
WITH (autovacuum_vacuum_insert_threshold = -1);
-- It is written at the end only, and there is much of it: so an index that costs
-- next to nothing, to find a time or a name by.
CREATE INDEX events_at_name ON lease.events
	USING brin (at, name pg_catalog.text_bloom_ops) WITH (pages_per_range = 32, autosummarize = on);
-- Logical decoding is told of neither what is added nor what is removed.
ALTER TABLE lease.events REPLICA IDENTITY NOTHING;
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
-- The story of a name
--
-- The small helpers are written as expressions: their names are bound here, so
-- they need no search_path of their own, and the planner takes them into the
-- query.
CREATE FUNCTION lease.duration_text(duration interval) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN (
		SELECT CASE
			WHEN s > 0 AND s < 0.001 THEN pg_catalog.round(s * 1000, 3) || ' ms'
			WHEN s < 60 THEN pg_catalog.replace(pg_catalog.round(s, 3)::text, '.000', '') || ' s'
			WHEN s < 3600 THEN pg_catalog.div(s, 60) || ' min'
				|| coalesce(' ' || nullif(pg_catalog.div(s % 60, 1), 0) || ' s', '')
			WHEN s < 86400 THEN pg_catalog.div(s, 3600) || ' h'
				|| coalesce(' ' || nullif(pg_catalog.div(s % 3600, 60), 0) || ' min', '')
			ELSE pg_catalog.div(s, 86400) || ' d'
				|| coalesce(' ' || nullif(pg_catalog.div(s % 86400, 3600), 0) || ' h', '')
			END
		FROM (SELECT extract(epoch FROM duration)) AS d (s));
COMMENT ON FUNCTION lease.duration_text(interval) IS
'A duration as people say it: 1.250 s, 3 min 2 s, 2 h 5 min, 3 d 4 h. NULL for NULL.
Errors: none.';

CREATE FUNCTION lease.time_text(at timestamptz) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	RETURN pg_catalog.to_char(at, 'YYYY-MM-DD HH24:MI:SS.MS');
COMMENT ON FUNCTION lease.time_text(timestamptz) IS
'A time in a sentence, to the millisecond, in the session''s time zone.
Errors: none.';

-- The holder as a sentence names it.  A quote in it is doubled, so that nobody's
-- holder can pass for the rest of the sentence.
CREATE FUNCTION lease.holder_text(holder text, owner name, shown boolean) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE WHEN NOT shown THEN 'another role'
	            ELSE coalesce('"' || pg_catalog.replace(holder, '"', '""') || '"',
	                          'role "' || owner::text || '"', 'somebody') END;
COMMENT ON FUNCTION lease.holder_text(text, name, boolean) IS
'Who holds, waits or tries, as a sentence names it; "another role" if it is not shown to the caller.
Errors: none.';

CREATE FUNCTION lease.list_text(items text[]) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN pg_catalog.array_to_string(items[1:5], ', ')
	       || CASE WHEN pg_catalog.cardinality(items) > 5
	               THEN ' and ' || (pg_catalog.cardinality(items) - 5) || ' more' ELSE '' END;
COMMENT ON FUNCTION lease.list_text(text[]) IS
'The first five of a list in a sentence, and how many more there are.
Errors: none.';

CREATE FUNCTION lease.story_events(names text[], since timestamptz, until timestamptz)
RETURNS TABLE (about text, at timestamptz, seq bigint, event text, token bigint, mode text, scope text,
               who text, correlation_id text, waited interval, held interval, detail text)
	LANGUAGE plpgsql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
	wrong text;
BEGIN
	IF array_position(names, NULL) IS NOT NULL THEN
		RAISE EXCEPTION 'lease name must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	SELECT n INTO wrong FROM unnest(names) n WHERE octet_length(n) NOT BETWEEN 1 AND 255;
	IF FOUND THEN
		RAISE EXCEPTION 'lease name "%" has % bytes; it must have 1 to 255', left(wrong, 255), octet_length(wrong)
			USING ERRCODE = 'invalid_parameter_value';
	END IF;

	-- What is told of a grant without its name belongs to the story, too, if the
	-- story knows the token: rows refused for it, and grants of other roles that an
	-- attempt of the caller's was told of.  A token that was only presented proves
	-- nothing.
	RETURN QUERY
	WITH named AS MATERIALIZED (
		SELECT * FROM lease.history h
		WHERE h.at >= coalesce(since, '-infinity') AND h.at <= coalesce(until, 'infinity')
		  AND (names IS NULL AND h.name IS NOT NULL OR h.name = ANY (names))
	), tokens AS (
		SELECT t.token, min(t.name) AS name
		FROM (SELECT n.token, n.name FROM named n WHERE n.event NOT IN ('rejected', 'guard_failed')
		      UNION ALL
		      SELECT substring(n.detail FROM '^held with token (\d+)$')::bigint, n.name
		      FROM named n WHERE n.event = 'refused') t
		GROUP BY t.token
	), found AS (
		SELECT n.name AS about, n.* FROM named n
		UNION ALL
		SELECT t.name, h.*
		FROM lease.history h LEFT JOIN tokens t USING (token)
		WHERE h.at >= (SELECT min(n.at) FROM named n) AND h.at <= coalesce(until, 'infinity')
		  AND (h.event IN ('loaded', 'new_epoch')
		       OR t.name IS NOT NULL AND (h.name IS NULL OR names IS NOT NULL AND h.name <> ALL (names)))
	)
	SELECT f.about, f.at, f.seq, f.event, f.token, f.mode, f.scope,
	       lease.holder_text(f.holder, f.owner, coalesce(f.name, f.detail) IS NOT NULL),
	       f.correlation_id, f.waited, f.held, f.detail
	FROM found f;
END
$$;
COMMENT ON FUNCTION lease.story_events(text[], timestamptz, timestamptz) IS
'What lease.explain and lease.timeline tell: the rows of lease.history that are about some names (NULL: all), and those of the whole database, for which about is NULL.
Errors: 22004 a NULL name; 22023 a name is empty or has more than 255 bytes.';

CREATE FUNCTION lease.present_text(name text, tokens bigint[]) RETURNS text
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
	WITH waiting AS (
		SELECT w."position" AS place, lease.holder_text(w.holder, w.owner, true) AS who, w.waited, w.blocked_by
		FROM lease.waiters w WHERE w.name = present_text.name
	), grants AS (
		-- Every detached lease has a TTL, unless it is over and closes its name.
		SELECT l.*, lease.holder_text(l.holder, l.owner, l.name IS NOT NULL) AS who,
		       l.scope = 'detached' AND l.ttl IS NULL AS ended
		FROM lease.leases l
		WHERE l.name = present_text.name
		   OR l.name IS NULL AND (l.token = ANY (tokens) OR EXISTS (SELECT FROM waiting w WHERE l.token = ANY (w.blocked_by)))
	), held AS (
		SELECT 'held by ' || lease.list_text(array_agg(
		           who || ' with token ' || token || CASE
		               WHEN expires_at IS NOT NULL THEN
		                   format(' until %s (%s left)', lease.time_text(expires_at), lease.duration_text(remaining))
		               WHEN scope <> 'detached' THEN ' until its ' || scope || ' ends'
		               ELSE '' END
		           ORDER BY token)) AS told
		FROM grants WHERE NOT ended
	), closed AS (
		SELECT CASE WHEN max(closed_until) IS NOT NULL THEN 'closed until ' || lease.time_text(max(closed_until))
		            WHEN count(*) > 0 THEN 'closed for a while' END AS told
		FROM grants WHERE ended
	), queue AS (
		SELECT lease.list_text(array_agg(who ORDER BY place))
		       || CASE WHEN count(*) > 1 THEN ' wait for it, the longest for ' ELSE ' waits for it, for ' END
		       || lease.duration_text(max(waited)) AS told
		FROM waiting
	)
	SELECT coalesce(nullif(concat_ws(' and ', held.told, closed.told), ''), 'being granted') || coalesce('; ' || queue.told, '')
	FROM held, closed, queue
	WHERE concat(held.told, closed.told, queue.told) <> ''
$$;
COMMENT ON FUNCTION lease.present_text(text, bigint[]) IS
'For the last sentence of lease.explain: by whom a name is held, until when it is closed, who waits; NULL if nobody holds it or waits. tokens: grants that are known to be of this name, also if it is not shown.
Errors: those of lease.leases.';

CREATE FUNCTION lease.explain(name text, since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL)
RETURNS TABLE (at timestamptz, story text)
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
	WITH sentences (kind, once, often) AS (VALUES
		-- 1 who, 2 token, 3 how long it held, 4 waited, 5 detail, 6 what it took, 7 times, 8 from when to when
		('acquired',     '%1$s took %6$s%2$s%4$s', NULL),
		('received',     '%1$s was handed it%2$s%5$s', NULL),
		('turn',         '%1$s took %6$s%2$s%4$s and released it %3$s later%5$s',
		                 '%1$s took %6$s and released it %7$s times in a row%8$s, and held it for %3$s in all'),
		('released',     '%1$s released it%2$s, after holding it for %3$s%5$s', NULL),
		('expired',      'The TTL of %1$s ran out: it lost the lease%2$s, after holding it for %3$s%5$s', NULL),
		('orphaned',     'The session of %1$s ended: it lost the lease%2$s, after holding it for %3$s%5$s', NULL),
		('forced',       '%1$s lost the lease%2$s by force, after holding it for %3$s%5$s', NULL),
		('transferred',  '%1$s handed it over%2$s, after holding it for %3$s%5$s', NULL),
		('abandoned',    '%1$s was granted it%2$s, but its call was cancelled that moment, and the grant taken back%5$s', NULL),
		('refused',      '%1$s tried, and found it taken%5$s', '%1$s tried %7$s times, and found it taken%8$s%5$s'),
		('timeout',      '%1$s gave up%4$s', '%1$s gave up %7$s times%8$s,%4$s at most'),
		('cancelled',    '%1$s was cancelled%4$s', '%1$s was cancelled %7$s times%8$s,%4$s at most'),
		('deadlock',     '%1$s was refused%4$s, since the wait would never have ended',
		                 '%1$s was refused %7$s times%8$s,%4$s at most, since the wait would never have ended'),
		('rejected',     '%1$s was refused%2$s, which was stale%5$s', '%1$s was refused %7$s times with stale tokens%8$s%5$s'),
		('guard_failed', 'A transaction of %1$s failed for want of the lease%5$s',
		                 '%7$s transactions of %1$s failed for want of the lease%8$s%5$s'),
		('reopened',     'It was opened again by force%5$s', NULL),
		('resized',      '%1$s resized the semaphore%5$s', NULL),
		('new_epoch',    'A new epoch of tokens began%5$s', NULL),
		('loaded',       'The server had started and loaded the ledger%5$s', NULL)
	), events AS MATERIALIZED (
		SELECT * FROM lease.story_events(ARRAY[explain.name], since, until)
	), known AS MATERIALIZED (
		SELECT k.*, lease.present_text(explain.name, k.tokens) AS present
		FROM (SELECT min(e.at) AS began, max(e.at) AS ended, array_agg(coalesce(e.token, substring(e.detail FROM '^held with token (\d+)$')::bigint)) AS tokens
		      FROM events e WHERE about IS NOT NULL) k
	), told AS (
		-- To take and release it with nothing in between is one sentence.
		SELECT e.*, CASE
			WHEN event = 'acquired' AND (lead(event) OVER w, lead(token) OVER w) = ('released', token)
			  OR event = 'released' AND (lag(event) OVER w, lag(token) OVER w) = ('acquired', token) THEN 'turn'
			ELSE event END AS kind
		FROM events e, known k
		WHERE about IS NOT NULL OR e.at > k.began AND (e.at < k.ended OR k.present IS NOT NULL)
		WINDOW w AS (ORDER BY e.at, e.seq)
	), stretches AS (
		-- What is alike is one sentence, unless the lease changed hands in between.
		SELECT *, count(*) FILTER (WHERE changes) OVER (ORDER BY at, seq) AS stretch
		FROM (SELECT *, kind NOT IN ('refused', 'timeout', 'cancelled', 'deadlock', 'rejected', 'guard_failed')
		             AND (kind <> 'turn' OR (kind, who, mode, scope) IS DISTINCT FROM
		                  (lag(kind) OVER w, lag(who) OVER w, lag(mode) OVER w, lag(scope) OVER w)) AS changes
		      FROM told WINDOW w AS (ORDER BY at, seq)) t
	), folded AS (
		SELECT min(t.at) AS at, min(seq) AS seq, kind, who,
		       count(*) / CASE kind WHEN 'turn' THEN 2 ELSE 1 END AS times,
		       CASE WHEN min(token) = max(token) THEN ' with token ' || min(token) END AS token,
		       lease.duration_text(sum(held)) AS held,
		       ' after waiting ' || lease.duration_text(max(waited)) AS waited,
		       CASE WHEN min(detail) = max(detail) THEN ' (' || min(detail) || ')' END AS detail,
		       concat(CASE mode WHEN 'shared' THEN 'it shared' WHEN 'permit' THEN 'permits' ELSE 'it' END,
		              CASE WHEN scope <> 'detached' THEN ' for its ' || scope END) AS how,
		       CASE WHEN min(correlation_id) = max(correlation_id)
		            THEN format(', correlation id "%s"', replace(min(correlation_id), '"', '""')) END AS marked,
		       format(', from %s to %s', lease.time_text(min(t.at)), lease.time_text(max(t.at))) AS span
		FROM stretches t
		GROUP BY stretch, kind, who, mode, scope, CASE WHEN kind IN ('rejected', 'guard_failed') THEN concat_ws(' ', token, detail) END
	), story AS (
		SELECT f.at, false AS present, seq,
		       format(coalesce(CASE WHEN times = 1 THEN once ELSE often END, '%1$s%2$s: ' || kind || '%5$s'),
		              who, token, held, waited, detail, how, times, span) || coalesce(marked, '') || '.' AS told
		FROM folded f LEFT JOIN sentences USING (kind)
		UNION ALL
		SELECT clock_timestamp(), true, NULL,
		       CASE WHEN coalesce(began::text, present) IS NULL THEN 'Nothing is known of it, or nothing that you may see.'
		            ELSE CASE WHEN pg_is_in_recovery() THEN 'As this standby knows it, it is ' ELSE 'Now it is ' END
		                 || coalesce(present, 'free' || CASE WHEN EXISTS (SELECT FROM lease.leases l WHERE l.name IS NULL)
		                                                     THEN ', or held by another role' ELSE '' END) || '.' END
		       || CASE WHEN (SELECT history_lost FROM lease.status) > 0
		               THEN ' Events were lost in this database: this may not be all.' ELSE '' END
		FROM known
	)
	SELECT at, upper(left(told, 1)) || substr(told, 2) FROM story ORDER BY present, at, seq
$$;
COMMENT ON FUNCTION lease.explain(text, timestamptz, timestamptz) IS
'The story of a name in order, as sentences: who took it, with which token, after which wait; who tried meanwhile; how it ended; restarts and new epochs in between; and at last how it stands now. What one holder did several times in a row is told once. What happened in the last second may be missing; what you may not see is told of "another role", if it concerns you, or not at all.
name: 1 to 255 bytes. since, until: which part of the history to tell, NULL: as far as it goes.
Errors: 22004 name is NULL; 22023 name is empty or too long; and those of lease.history and lease.leases.';

--
-- The same as a picture
--
CREATE FUNCTION lease.xml_text(content text) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	-- XML has no way to write most control characters: they become U+FFFD.
	RETURN pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(
		pg_catalog.regexp_replace(pg_catalog.replace(content, '&', '&amp;'),
			'[\x01-\x08\x0b\x0c\x0e-\x1f'
			|| CASE pg_catalog.getdatabaseencoding() WHEN 'UTF8' THEN '\ufffe\uffff]' ELSE ']' END,
			'&#xFFFD;', 'g'),
		'<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;');
COMMENT ON FUNCTION lease.xml_text(text) IS
'A text as XML writes it, in an element or an attribute.
Errors: none.';

CREATE FUNCTION lease.stacked(lanes integer[], begins float8[], ends float8[], most integer) RETURNS integer[]
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	rows   integer[] = '{}';
	free   float8[];		-- from when on each row of the lane is free
	chosen integer;
BEGIN
	FOR i IN 1 .. coalesce(cardinality(lanes), 0) LOOP
		IF i = 1 OR lanes[i] <> lanes[i - 1] THEN
			free = '{}';
		END IF;
		chosen = 1;
		WHILE chosen <= cardinality(free) AND free[chosen] > begins[i] LOOP
			chosen = chosen + 1;
		END LOOP;
		IF chosen > most THEN
			chosen = array_position(free, (SELECT min(f) FROM unnest(free) f));
		END IF;
		free[chosen] = greatest(free[chosen], ends[i]);
		rows[i] = chosen;
	END LOOP;
	RETURN rows;
END
$$;
COMMENT ON FUNCTION lease.stacked(integer[], float8[], float8[], integer) IS
'For bars that are sorted by lane and beginning: in which row of its lane each one goes, so that none covers another, unless a lane would need more than so many rows.
Errors: none.';

CREATE FUNCTION lease.timeline_marks(names text[], since timestamptz, until timestamptz, most integer)
RETURNS TABLE (about text, who text, how text, at timestamptz, came timestamptz, began timestamptz,
               ended timestamptz, title text)
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
	-- Also of what ended after the time that is drawn, since it may have begun before.
	WITH events AS MATERIALIZED (
		SELECT * FROM lease.story_events(names, since, NULL)
	), pieces (about, token, who, came, began, ended, how, live, correlation_id, detail) AS (
		SELECT about, token, who, at - waited, at, NULL::timestamptz, NULL, false, correlation_id, NULL
		FROM events WHERE event IN ('acquired', 'received')
		UNION ALL
		SELECT about, token, who, NULL, at - held, at, event, false, correlation_id, detail
		FROM events WHERE held IS NOT NULL
		UNION ALL
		SELECT coalesce(l.name, e.about), token, lease.holder_text(l.holder, l.owner, l.name IS NOT NULL), NULL, l.acquired_at,
		       NULL, NULL, true, l.correlation_id, NULL
		FROM lease.leases l LEFT JOIN events e USING (token)
		WHERE (l.name = ANY (names) OR names IS NULL AND l.name IS NOT NULL OR l.name IS NULL AND e.about IS NOT NULL)
		  AND (l.scope <> 'detached' OR l.ttl IS NOT NULL)
	), grants AS (
		SELECT about, token, min(who) AS who, min(came) AS came, min(began) AS began, max(ended) AS ended,
		       max(how) AS how, bool_or(live) AS live, max(correlation_id) AS correlation_id, max(detail) AS detail
		FROM pieces GROUP BY about, token
	), marks (about, token, who, how, at, came, began, ended, correlation_id, detail) AS (
		-- A grant that does not live and has no end went with a server that stopped, or
		-- its end is not in the history.
		SELECT about, token, who, how, NULL::timestamptz, came, began,
		       coalesce(ended, CASE WHEN NOT live THEN
		           coalesce((SELECT min(e.at) FROM events e WHERE e.event = 'loaded' AND e.at > began), began) END),
		       correlation_id, detail
		FROM grants
		UNION ALL
		SELECT about, token, who, event, CASE WHEN waited IS NULL THEN at END, at - waited, NULL,
		       CASE WHEN waited IS NOT NULL THEN at END, correlation_id, detail
		FROM events WHERE held IS NULL AND event NOT IN ('acquired', 'received')
		UNION ALL
		SELECT name, NULL, lease.holder_text(holder, owner, true), NULL, NULL, waiting_since, NULL, NULL, NULL, NULL
		FROM lease.waiters WHERE name = ANY (names) OR names IS NULL AND name IS NOT NULL
	)
	SELECT about, who, how, at, came, began, ended,
	       concat_ws(E'\n', about,
	           concat(CASE WHEN about IS NOT NULL THEN who || ': ' END,
	                  coalesce(how, CASE WHEN began IS NULL THEN 'waiting' WHEN ended IS NULL THEN 'holding' ELSE 'holding, how it ended is not known' END),
	                  ' with token ' || token, ' (' || detail || ')'),
	           'at ' || lease.time_text(at),
	           'waited from ' || lease.time_text(came) || coalesce(', for ' || lease.duration_text(coalesce(began, ended) - came), ''),
	           'held from ' || lease.time_text(began) || coalesce(' to ' || lease.time_text(ended) || ', for ' || lease.duration_text(ended - began), ''),
	           'correlation id ' || correlation_id)
	FROM marks
	WHERE least(at, came, began) <= until
	ORDER BY coalesce(at, ended, 'infinity') DESC
	LIMIT most
$$;
COMMENT ON FUNCTION lease.timeline_marks(text[], timestamptz, timestamptz, integer) IS
'What lease.timeline draws, the newest so many: what happened at a moment; or waits from came, grants from began, to ended (NULL: still going), and how they ended.
Errors: those of lease.explain.';

CREATE FUNCTION lease.scaled(at timestamptz, first timestamptz, last timestamptz, low float8, high float8) RETURNS float8
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN CASE WHEN at <= first THEN low WHEN at >= last THEN high
	            ELSE low + (high - low) * extract(epoch FROM at - first)::float8
	                       / extract(epoch FROM last - first)::float8 END;
COMMENT ON FUNCTION lease.scaled(timestamptz, timestamptz, timestamptz, float8, float8) IS
'Where a time lies between low and high, if first lies at low and last at high; what is outside goes to the nearest end. NULL for NULL.
Errors: none.';

CREATE FUNCTION lease.short_text(content text, most integer) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	RETURN CASE WHEN pg_catalog.length(content) <= most THEN lease.xml_text(content)
	            ELSE lease.xml_text(pg_catalog.left(content, most / 3)) || '&#8230;'
	                 || lease.xml_text(pg_catalog.right(content, most - most / 3 - 1)) END;
COMMENT ON FUNCTION lease.short_text(text, integer) IS
'A text as XML writes it, with at most so many characters: the middle of a longer one is left out.
Errors: none.';

CREATE FUNCTION lease.timeline(names text[], since timestamptz DEFAULT NULL, until timestamptz DEFAULT NULL) RETURNS text
	LANGUAGE sql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
	-- Measures in pixels, and what the picture has room for.
	WITH sizes (x0, x1, row_height, most_rows, most_lanes, most_holders, most_marks) AS (
		VALUES (240, 1155, 10, 6, 50, 24, 20000)
	), asked AS (
		SELECT CASE WHEN isfinite(since) THEN since END AS first,
		       CASE WHEN isfinite(until) THEN until ELSE statement_timestamp() END AS last
	), marks AS MATERIALIZED (
		SELECT m.* FROM sizes, asked a, lease.timeline_marks(names, a.first, a.last, most_marks) m
	), span AS (
		SELECT least(coalesce(a.first, s.first), a.last - interval '10 ms') AS first, a.last
		FROM asked a, (SELECT min(least(at, came, began)) AS first FROM marks) s
	), chosen AS (
		SELECT name, min(place) AS place FROM unnest(names) WITH ORDINALITY AS n (name, place) GROUP BY name
		UNION ALL
		(SELECT about, NULL FROM marks WHERE names IS NULL AND about IS NOT NULL
		 GROUP BY about ORDER BY count(*) DESC, about COLLATE "C" LIMIT (SELECT most_lanes FROM sizes))
	), lanes AS (
		SELECT name, (row_number() OVER (ORDER BY place, name COLLATE "C"))::integer AS lane FROM chosen
	), bars AS (
		SELECT m.*, l.lane, row_number() OVER (ORDER BY lane, coalesce(came, began), ended) AS nth
		FROM marks m JOIN lanes l ON l.name = m.about WHERE at IS NULL
	), stacks AS MATERIALIZED (
		SELECT lease.stacked(array_agg(lane ORDER BY nth), array_agg(extract(epoch FROM coalesce(came, began))::float8 ORDER BY nth),
		                     array_agg(extract(epoch FROM coalesce(ended, 'infinity'))::float8 ORDER BY nth),
		                     (SELECT most_rows FROM sizes)) AS rows FROM bars
	), wanted AS (
		SELECT who, count(*) AS marks, abs(hashtext(who)::bigint) % 54 AS slot,
		       row_number() OVER (PARTITION BY abs(hashtext(who)::bigint) % 54 ORDER BY who COLLATE "C") > 1 AS again
		FROM marks JOIN lanes ON name = about GROUP BY who
	), spare AS (
		SELECT slot, row_number() OVER (ORDER BY slot * 23 % 54) AS nth
		FROM generate_series(0, 53) slot WHERE slot NOT IN (SELECT w.slot FROM wanted w)
	), holders AS (
		-- A colour is its holder's in every picture, unless two of this one would share it.
		SELECT who, row_number() OVER (ORDER BY marks DESC, who COLLATE "C") - 1 AS place,
		       CASE WHEN who = 'another role' THEN '#888'
		            ELSE format('hsl(%s,%s%%,%s%%)', ('{0,18,33,48,70,95,130,155,175,190,205,220,245,265,285,305,325,343}'::integer[])[1 + c % 18],
		                        50 + c / 18 * 12, 64 - c / 18 * 11) END AS colour
		FROM (SELECT w.who, w.marks, coalesce(s.slot, w.slot) AS c
		      FROM (SELECT *, CASE WHEN again THEN row_number() OVER (PARTITION BY again ORDER BY who COLLATE "C") END AS nth FROM wanted) w
		      LEFT JOIN spare s USING (nth)) p
	), layout AS (
		SELECT 90 + 16 * least(ceil(count(*) / 6.0), 4)::integer AS top FROM holders
	), tracks AS (
		-- A lane has a row for each bar that overlaps others, and a strip for moments.
		SELECT name, lane, height, top + (sum(height) OVER (ORDER BY lane) - height)::integer AS y
		FROM (SELECT l.name, l.lane, 14 + row_height * coalesce(max(s.rows[b.nth]), 1) AS height
		      FROM sizes, stacks s, lanes l LEFT JOIN bars b USING (lane) GROUP BY l.name, l.lane, row_height) h, layout
	), frame AS (
		SELECT top, coalesce(max(y + height), top + 30) AS bottom FROM layout LEFT JOIN tracks ON true GROUP BY top
	), ticks AS (
		SELECT t, step, round(lease.scaled(t, first, last, x0, x1)::numeric, 1) AS x
		FROM span, sizes, LATERAL (
			SELECT coalesce(min(s), last - first) AS step
			FROM unnest('{1 ms,2 ms,5 ms,10 ms,20 ms,50 ms,100 ms,200 ms,500 ms,1 s,2 s,5 s,10 s,15 s,30 s,1 min,2 min,5 min,10 min,15 min,30 min,1 h,2 h,3 h,6 h,12 h,1 day,2 days,7 days,14 days,28 days,91 days,364 days}'::interval[]) s
			WHERE s * 10 >= last - first) n,
			generate_series(date_bin(step, first, date_trunc('day', first)), last, step) t
		WHERE t >= first
	), drawn AS (
		SELECT b.nth, b.how, b.ended, b.title, h.colour, t.y + 3 + row_height * (s.rows[b.nth] - 1) AS y,
		       round(lease.scaled(came, first, last, x0, x1)::numeric, 1) AS came,
		       round(lease.scaled(began, first, last, x0, x1)::numeric, 1) AS began,
		       round(lease.scaled(coalesce(ended, least(last, statement_timestamp())), first, last, x0, x1)::numeric, 1) AS x,
		       ended IS NULL OR ended > last AS open
		FROM sizes, span, stacks s, bars b JOIN tracks t USING (lane) JOIN holders h USING (who)
	), moments AS (
		SELECT row_number() OVER (ORDER BY m.at, m.title COLLATE "C") AS nth, m.how, m.title, h.colour, t.y + t.height - 7 AS y,
		       round(lease.scaled(m.at, first, last, x0, x1)::numeric, 1) AS x
		FROM sizes, span, marks m JOIN tracks t ON t.name = m.about JOIN holders h USING (who) WHERE m.at IS NOT NULL
	), symbols (how, place, told) AS (VALUES
		('wait', 1, 'waits'), ('open', 2, 'still going'), ('tick', 3, 'refused'), ('gave-up', 4, 'gave up waiting'),
		('expired', 5, 'expired'), ('orphaned', 6, 'orphaned'), ('forced', 7, 'forced'),
		('rejected', 8, 'stale token'), ('guard_failed', 9, 'guard failed'), ('restart', 10, 'restart, new epoch')
	), notes AS (
		SELECT concat_ws('  ',
			(SELECT format('%s to %s, time zone %s.', lease.time_text(first), lease.time_text(last), current_setting('TimeZone')) FROM span),
			(SELECT format('Of %s names the %s busiest.', count(DISTINCT about), most_lanes)
			 FROM marks, sizes WHERE names IS NULL GROUP BY most_lanes HAVING count(DISTINCT about) > most_lanes),
			(SELECT format('Only the last %s marks.', most_marks) FROM marks, sizes GROUP BY most_marks HAVING count(*) >= most_marks),
			(SELECT 'Events were lost.' FROM lease.status WHERE history_lost > 0)) AS text
	), parts (layer, place, svg) AS (
		SELECT 0, 0, format(
			'<svg xmlns="http://www.w3.org/2000/svg" width="1200" height="%1$s" viewBox="0 0 1200 %1$s" font-family="system-ui, sans-serif" font-size="11">'
			'<style>.bg{fill:#fff}.odd{fill:#f3f4f6}text{fill:#333}.grid{stroke:#dcdfe3}.restart{stroke:#777;stroke-dasharray:3 3;stroke-width:1.5}'
			'.halo{fill:none;stroke:#fff}.loss{fill:#c1121f;stroke:#fff}.line{fill:none;stroke:#c1121f}.quit{stroke:#333}'
			'@media (prefers-color-scheme:dark){.bg{fill:#1b1c1f}.odd{fill:#24262a}text{fill:#ddd}.grid{stroke:#3a3d42}.restart{stroke:#aaa}'
			'.halo{stroke:#1b1c1f}.loss{fill:#ff5c66;stroke:#1b1c1f}.line{stroke:#ff5c66}.quit{stroke:#ddd}}</style>'
			'<defs><pattern id="lease-hatch" width="4" height="4" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path d="M1 0v4" stroke="#888" stroke-width="1.3"/></pattern>'
			'<rect id="lease-wait" x="-7" y="-4" width="14" height="8" fill="url(#lease-hatch)" stroke="#888"/>'
			'<path id="lease-open" d="M1-4l4 4l-4 4z"/>'
			'<path id="lease-tick" d="M0-3v6" stroke-width="1.5"/>'
			'<path id="lease-gave-up" class="quit" d="M0-5v10" stroke-width="2"/>'
			'<g id="lease-expired"><path class="halo" d="M-4-4l8 8m0-8l-8 8" stroke-width="4"/><path class="line" d="M-4-4l8 8m0-8l-8 8" stroke-width="2"/></g>'
			'<g id="lease-orphaned"><circle class="halo" r="4" stroke-width="4"/><circle class="line" r="4" stroke-width="2"/></g>'
			'<path id="lease-forced" class="loss" d="M0-5l5 9h-10z"/>'
			'<path id="lease-rejected" class="loss" d="M-3-3h6v6h-6z"/>'
			'<path id="lease-guard_failed" class="loss" d="M0-5l4 5l-4 5l-4-5z"/>'
			'<path id="lease-restart" class="restart" d="M0-5v10"/></defs>'
			'<rect class="bg" width="1200" height="%1$s"/>', bottom + 26)
		FROM frame
		UNION ALL
		SELECT 1, 0, format('<text x="10" y="20" font-size="14" font-weight="bold">Leases</text><text x="70" y="20">%s</text>', lease.xml_text(text)) FROM notes
		UNION ALL
		SELECT 1, 1, '<text x="10" y="38">There is nothing to show, or nothing that you may see.</text>' WHERE NOT EXISTS (SELECT FROM marks)
		UNION ALL
		SELECT 2, place, CASE WHEN place < most_holders THEN
			format('<svg x="%s" y="%s" width="185" height="14"><title>%s</title><rect y="3" width="10" height="9" fill="%s"/><text x="15" y="11">%s</text></svg>',
			       10 + place % 6 * 195, 30 + place / 6 * 16, lease.xml_text(who), colour, lease.short_text(who, 26))
			ELSE format('<text x="1190" y="20" text-anchor="end">and %s holders more</text>', count(*) OVER () - most_holders) END
		FROM sizes, holders WHERE place <= most_holders
		UNION ALL
		SELECT 3, place, format('<use href="#lease-%s" x="%s" y="%s" fill="#888" stroke="#888"/><text x="%s" y="%s">%s</text>',
		                        how, place * 115 - 95, top - 36, place * 115 - 83, top - 32, told) FROM symbols, layout
		UNION ALL
		SELECT 4, lane, concat(CASE WHEN lane % 2 = 1 THEN format('<rect class="odd" y="%s" width="1200" height="%s"/>', y, height) END,
			format('<svg x="10" y="%s" width="%s" height="16"><title>%s</title><text y="12">%s</text></svg>',
			       y + (height - 16) / 2, x0 - 16, lease.xml_text(name), lease.short_text(name, 34)))
		FROM sizes, tracks
		UNION ALL
		SELECT 5, 0, format('<path class="grid" d="M%1$s %2$sV%3$s"/><g text-anchor="middle"><text x="%1$s" y="%4$s">%6$s</text><text x="%1$s" y="%5$s">%6$s</text></g>',
		                    x, top, bottom, top - 6, bottom + 15,
			to_char(t, CASE WHEN t = date_trunc('day', t) THEN 'YYYY-MM-DD' WHEN step < '1 s' THEN 'HH24:MI:SS.MS'
			                WHEN step < '1 min' THEN 'HH24:MI:SS' ELSE 'HH24:MI' END))
		FROM frame, ticks
		UNION ALL
		SELECT 6, 0, format('<path class="restart" d="M%s %sV%s"><title>%s</title></path>', round(lease.scaled(at, first, last, x0, x1)::numeric, 1), top, bottom, lease.xml_text(title))
		FROM sizes, span, frame, marks WHERE about IS NULL
		UNION ALL
		SELECT 7, nth, concat('<g fill="', colour, '" stroke="', colour, '"><title>', lease.xml_text(title), '</title>',
			'<rect x="' || came || '" y="' || y || '" width="' || greatest(coalesce(began, x) - came, 1.5) || '" height="8" fill="url(#lease-hatch)" stroke-width=".8"/>',
			'<rect x="' || began || '" y="' || y || '" width="' || greatest(x - began, 1.5) || '" height="8" stroke="none"/>',
			CASE WHEN open THEN format('<use href="#lease-open" x="%s" y="%s" stroke="none"/>', x, y + 4) END, '</g>')
		FROM drawn
		UNION ALL
		SELECT 8, nth, format('<g stroke="%s"><title>%s</title><use href="#lease-%s" x="%s" y="%s"/></g>', colour, lease.xml_text(title),
		                    CASE WHEN how IN ('rejected', 'guard_failed') THEN how ELSE 'tick' END, x, y + 3)
		FROM moments
		UNION ALL
		SELECT 9, nth, format('<use href="#lease-%s" x="%s" y="%s" pointer-events="none"/>',
		                      CASE WHEN how IN ('expired', 'orphaned', 'forced') THEN how ELSE 'gave-up' END, x, y + 4)
		FROM drawn WHERE NOT open AND how IN ('expired', 'orphaned', 'forced', 'timeout', 'deadlock', 'cancelled')
		UNION ALL
		SELECT 10, 0, '</svg>'
	)
	SELECT string_agg(svg, E'\n' ORDER BY layer, place) FROM parts
$$;
COMMENT ON FUNCTION lease.timeline(text[], timestamptz, timestamptz) IS
'The history of names as an SVG picture: a lane for each name; bars for grants, in a colour for each holder, hatched while it waited; marks for attempts and losses; whoever points at one is told what it is.
names: NULL takes all that you may see, and of these the 50 busiest. since, until: which part of the history; NULL: as far as it goes, and until now. Of more than 20000 marks the last are drawn.
Errors: 22004 a NULL name; 22023 a name is empty or too long; and those of lease.history and lease.leases.';

--
-- What to change
--
CREATE VIEW lease.advice AS
	-- From when on something is worth a word.  A single event never is.
	WITH limits AS (
		SELECT 20 AS enough,                   -- events, before any advice is drawn from them
		       0.25 AS late,                   -- part of the TTL that is left at a renewal
		       interval '1 min' AS long_ttl,
		       0.05 AS short_hold,             -- part of the TTL that is used
		       0.5 AS busy,                    -- part of the attempts that have to wait
		       0.5 AS long_wait,               -- part of a hold
		       10 AS long_queue,               -- who wait at a time
		       10 AS polling,                  -- attempts refused for each grant
		       0.1 AS losing,                  -- part of the grants that are lost
		       0.8 AS nearly_full              -- part of the table that is used
	)
	SELECT s.name, a.advice,
	       CASE WHEN s.name IS NULL THEN 'A name of another role. ' ELSE '' END || a.why AS why, a.change
	FROM limits l CROSS JOIN lease.stats s
	CROSS JOIN LATERAL (SELECT s.released + s.expired + s.orphaned + s.forced + s.transferred,
	                           s.acquired + s.timeouts + s.deadlocks + s.cancelled) AS n (ends, willing)
	CROSS JOIN LATERAL (VALUES
		('ttl_short', s.renewed >= enough AND s.margin_p01 < late * s.ttl,
		 pg_catalog.format('Renewals come late: one in 100 found about %s or less left of a TTL of %s.',
		                   lease.duration_text(s.margin_p01), lease.duration_text(s.ttl)),
		 pg_catalog.format('Renew at a third of the TTL, or take a TTL of %s.',
		                   lease.duration_text(3 * (s.ttl - s.margin_p01)))),
		('ttl_long', ends >= enough AND s.ttl >= long_ttl AND s.hold_mean < short_hold * s.ttl,
		 pg_catalog.format('The TTL is %s, but a hold takes %s on average: who dies with it blocks all others for long.',
		                   lease.duration_text(s.ttl), lease.duration_text(s.hold_mean)),
		 pg_catalog.format('Take a TTL of about %s, and renew it at a third.',
		                   lease.duration_text(greatest(10 * s.hold_mean, interval '1 s')))),
		('queue', s.acquired >= enough
		          AND (s.contended - s.refused >= busy * willing AND s.wait_mean >= long_wait * s.hold_mean
		               OR s.longest_queue >= long_queue),
		 pg_catalog.format('Everything queues for it: %s of %s attempts had to wait, waits took %s and holds %s on average, and up to %s waited at a time.',
		                   s.contended - s.refused, willing,
		                   lease.duration_text(s.wait_mean), lease.duration_text(s.hold_mean), s.longest_queue),
		 'Lease smaller things, one name for each; hold it for the critical part alone; share it, or use a semaphore, where that will do.'),
		('polling', s.refused >= enough AND s.refused >= polling * s.acquired,
		 pg_catalog.format('It was tried %s times in vain, for %s grants.', s.refused, s.acquired),
		 'Wait for it with lease.acquire or lease.campaign, which cost nothing meanwhile, rather than try again and again.'),
		('never_released', s.expired >= enough AND s.released = 0,
		 pg_catalog.format('It was never released, and expired %s times: each time the name was closed for the rest of its TTL.', s.expired),
		 'Release it when the work is done. If it is to stay closed for a while, say so with min_hold.'),
		('often_lost', s.released > 0 AND s.expired + s.orphaned >= enough AND s.expired + s.orphaned >= losing * ends,
		 pg_catalog.format('%s of %s grants were lost: the TTL ran out, or the session ended.', s.expired + s.orphaned, ends),
		 'Renew while the work lasts, or take a TTL that it fits in; see in lease.history whose leases are lost.'),
		('stale_tokens', s.rejected >= enough,
		 pg_catalog.format('Stale tokens were presented %s times: holders go on after they have lost it.', s.rejected),
		 'Let holders stop at their deadline, and see in lease.history who they are.'),
		('guards_failed', s.guard_failures >= enough,
		 pg_catalog.format('%s transactions failed since they did not hold it.', s.guard_failures),
		 'Renew before the transaction, or make it shorter than the TTL; see in lease.history what failed.'),
		('deadlocks', s.deadlocks >= enough,
		 pg_catalog.format('%s waits would never have ended.', s.deadlocks),
		 'Take several names with one lease.acquire_all, or always in the same order.')
	) AS a (advice, applies, why, change)
	WHERE a.applies
	UNION ALL
	SELECT NULL, a.advice, a.why, a.change
	FROM limits l CROSS JOIN lease.status s
	CROSS JOIN LATERAL (VALUES
		('history_lost', s.history_lost > 0,
		 pg_catalog.format('%s events are not in lease.history: more came in a moment than fit.', s.history_lost),
		 'See in lease.status that a reaper is at work; polling fills the history, too.'),
		('table_full', s.leases_used >= nearly_full * s.leases_allowed,
		 pg_catalog.format('%s of %s leases are in use.', s.leases_used, s.leases_allowed),
		 'Raise lease.max_leases and restart, or see in lease.leases which need not be held.'),
		('launcher_absent', s.worker_state = 'launcher absent',
		 'Nobody tidies up: rows and memory of leases that are over stay, and no history is written.',
		 'Raise max_worker_processes and restart.')
	) AS a (advice, applies, why, change)
	WHERE a.applies;
COMMENT ON VIEW lease.advice IS
'What to change, and why, drawn from lease.stats and lease.status: a row for each name and piece of advice. Names of other roles count, too, but are not told. Nothing is drawn from fewer than 20 events.';
COMMENT ON COLUMN lease.advice.name IS 'name that it is about; NULL if it is another role''s, or it is about the server';
COMMENT ON COLUMN lease.advice.advice IS
'ttl_short: one renewal in 100 comes with less than a quarter of the TTL left; ttl_long: a TTL of 1 min or more of which holds use less than 5 % on average; queue: half of those who would wait for it have to, for half a hold or more, or 10 wait at a time; polling: 10 attempts are refused for each grant; never_released: it only expires; often_lost: one grant in 10 is lost; stale_tokens, guards_failed, deadlocks: 20 of them; history_lost, table_full (from 80 %), launcher_absent: the server';
COMMENT ON COLUMN lease.advice.why IS 'what was seen';
COMMENT ON COLUMN lease.advice.change IS 'what to do about it';

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
	                    'live_leases', 'live_waiters', 'server_status', 'live_stats', 'histograms',
	                    'explain', 'timeline', 'story_events', 'present_text', 'timeline_marks',
	                    'duration_text', 'time_text', 'holder_text', 'list_text', 'xml_text',
	                    'short_text', 'stacked', 'scaled')
	UNION ALL
	SELECT 'TABLE ' || v
	FROM unnest(ARRAY['lease.leases', 'lease.waiters', 'lease.status', 'lease.stats', 'lease.totals',
	                  'lease.wait_histogram', 'lease.hold_histogram', 'lease.history', 'lease.advice',
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
