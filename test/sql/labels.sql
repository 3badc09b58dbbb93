--
-- What people tell about a lease, and where it comes from when they do not:
-- holder, correlation_id, metadata.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
CREATE VIEW pg_temp.labels AS
	SELECT name, holder, correlation_id, metadata FROM lease.leases ORDER BY name COLLATE "C";

--
-- holder: the argument, else lease.holder, else application_name, else the
-- client's address and the process.
--
SET application_name = 'the application';
SET lease.holder = 'the setting';
SELECT lease.try_acquire('1 argument', ttl => '1 h', holder => 'the argument') IS NOT NULL AS granted;
SELECT lease.try_acquire('2 setting', ttl => '1 h') IS NOT NULL AS granted;
SET lease.holder = '';
SELECT lease.try_acquire('3 application', ttl => '1 h') IS NOT NULL AS granted;
SET application_name = '';
SELECT lease.try_acquire('4 address', ttl => '1 h') IS NOT NULL AS granted;
SELECT name, CASE holder WHEN coalesce(host(inet_client_addr()), '[local]') || ' pid ' || pg_backend_pid()
             THEN 'address and pid' ELSE holder END AS holder
FROM pg_temp.labels;
RESET application_name;
RESET lease.holder;

-- A setting of this transaction alone.
BEGIN;
SET LOCAL lease.holder = 'the transaction';
SELECT lease.try_acquire('5 local', ttl => '1 h') IS NOT NULL AS granted;
COMMIT;
SELECT holder FROM pg_temp.labels WHERE name = '5 local';

-- The empty text is a holder like any other, and hides no default.
SELECT lease.try_acquire('6 empty', ttl => '1 h', holder => '') IS NOT NULL AS granted;
SELECT holder = '' AS empty FROM pg_temp.labels WHERE name = '6 empty';

-- Whose holder it is does not change when the settings do.
SET lease.holder = 'late';
SELECT holder FROM pg_temp.labels WHERE name = '2 setting';
RESET lease.holder;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

--
-- correlation_id: the argument, else the setting, else none.
--
SELECT lease.try_acquire('1 none', ttl => '1 h', holder => 'h') IS NOT NULL AS granted;
SET lease.correlation_id = 'trace-7';
SELECT lease.try_acquire('2 setting', ttl => '1 h', holder => 'h') IS NOT NULL AS granted;
SELECT lease.try_acquire('3 argument', ttl => '1 h', holder => 'h', correlation_id => 'trace-8') IS NOT NULL AS granted;
BEGIN;
SET LOCAL lease.correlation_id = 'trace-9';
SELECT lease.try_acquire('4 local', ttl => '1 h', holder => 'h') IS NOT NULL AS granted;
COMMIT;
SELECT name, correlation_id FROM pg_temp.labels;
SELECT name, correlation_id FROM lease.ledger WHERE kind = 'grant' ORDER BY name COLLATE "C";
RESET lease.correlation_id;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

--
-- metadata: any jsonb, kept in the ledger.
--
SELECT lease.try_acquire(n::text, ttl => '1 h', holder => 'h', metadata => m) IS NOT NULL AS granted
FROM (VALUES (1, '{}'::jsonb), (2, '[]'), (3, '"text"'), (4, 'null'), (5, '12.50'), (6, '{"ä": ["\"", {"b": null}]}'), (7, NULL)) v (n, m);
SELECT name, metadata, metadata IS NULL AS none FROM pg_temp.labels;

-- A kilobyte of it.
SELECT lease.try_acquire('8', ttl => '1 h', metadata => to_jsonb(repeat('m', 1022))) IS NOT NULL AS granted;
SELECT length(metadata::text) FROM pg_temp.labels WHERE name = '8';
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

--
-- Bytes, not characters: labels and names that are not ASCII.
--
SELECT lease.try_acquire(repeat('ä', 127) || 'x', ttl => '1 h', holder => repeat('€', 42) || 'y',
	request_id => repeat('ö', 63) || 'z', correlation_id => repeat('𝄞', 31) || 'abc') AS t \gset
SELECT octet_length(name) AS name, octet_length(holder) AS holder,
       octet_length(request_id) AS request_id, octet_length(correlation_id) AS correlation_id,
       name = repeat('ä', 127) || 'x' AND holder = repeat('€', 42) || 'y' AND
       request_id = repeat('ö', 63) || 'z' AND correlation_id = repeat('𝄞', 31) || 'abc' AS unharmed
FROM lease.leases;
SELECT lease.release(repeat('ä', 127) || 'x', :t);
