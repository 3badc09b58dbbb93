--
-- Protected tables: written under a guard only.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = warning;
CREATE ROLE regress_keeper;
CREATE ROLE regress_writer;
SELECT count(lease.allow(r::regrole)) FROM unnest(ARRAY['regress_keeper', 'regress_writer']) r \gset
CREATE TEMPORARY VIEW protected AS
	SELECT "table", name_pattern, enabled, covers_truncate FROM lease.protected_tables ORDER BY "table"::text COLLATE "C";

-- Run a statement while the transaction guards these names, and undo it; say how many rows it wrote, or with which error it was refused.
CREATE FUNCTION pg_temp.under(names text[], statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	rows bigint;
BEGIN
	PERFORM lease.acquire(name, scope => 'transaction') FROM unnest(names) name;
	EXECUTE statement;
	GET DIAGNOSTICS rows = ROW_COUNT;
	RAISE EXCEPTION '% written', rows USING ERRCODE = 'RR000';
EXCEPTION
	WHEN SQLSTATE 'RR000' THEN RETURN SQLERRM;
	WHEN OTHERS THEN RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;

-- What is repeated more than nine times is shown once.
CREATE FUNCTION pg_temp.short(said text) RETURNS text LANGUAGE sql AS $$ SELECT regexp_replace(said, '(.)\1{9,}', '\1...', 'g') $$;

--
-- Each way to write a row
--
CREATE TABLE account (id integer PRIMARY KEY, branch text DEFAULT 'north', balance integer DEFAULT 0);
INSERT INTO account VALUES (1), (2), (4);
SELECT lease.protect_table('account', 'account/{id}');
SELECT lease.protect_table('account', 'account/{id}') AS again;
SELECT * FROM protected;
\d account
SELECT pg_temp.attempt('UPDATE account SET balance = 1 WHERE id = 1');
SELECT names, s, pg_temp.under(names::text[], s) FROM (VALUES
	('{}', 'INSERT INTO account VALUES (3)'),
	('{account/1}', 'INSERT INTO account VALUES (3)'),
	('{account/3}', 'INSERT INTO account VALUES (3)'),
	('{}', 'UPDATE account SET balance = 1 WHERE id = 4'),
	('{account/4}', 'UPDATE account SET balance = 1 WHERE id = 4'),
	('{account/4}', 'UPDATE account SET balance = 1'),
	('{account/1,account/2,account/4}', 'UPDATE account SET balance = 2'),
	-- A row that gets another name takes both.
	('{account/4}', 'UPDATE account SET id = 5 WHERE id = 4'),
	('{account/5}', 'UPDATE account SET id = 5 WHERE id = 4'),
	('{account/4,account/5}', 'UPDATE account SET id = 5 WHERE id = 4'),
	('{}', 'DELETE FROM account WHERE id = 4'),
	('{account/4}', 'DELETE FROM account WHERE id = 4'),
	-- What writes no row needs no guard.
	('{}', 'UPDATE account SET balance = 0 WHERE id = 3'),
	('{}', 'SELECT 1 FROM account WHERE id = 1 FOR UPDATE'),
	('{}', 'INSERT INTO account VALUES (1) ON CONFLICT DO NOTHING'),
	('{}', 'INSERT INTO account VALUES (5) ON CONFLICT DO NOTHING'),
	('{}', 'INSERT INTO account VALUES (1) ON CONFLICT (id) DO UPDATE SET balance = 7'),
	('{account/1}', 'INSERT INTO account VALUES (1) ON CONFLICT (id) DO UPDATE SET balance = 7'),
	('{account/1}', 'INSERT INTO account VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 5'),
	('{account/1,account/5}', 'INSERT INTO account VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 5'),
	('{account/5}', 'MERGE INTO account a USING (VALUES (1), (5)) v (id) ON a.id = v.id WHEN MATCHED THEN UPDATE SET balance = 8 WHEN NOT MATCHED THEN INSERT VALUES (v.id)'),
	('{account/1}', 'MERGE INTO account a USING (VALUES (1), (5)) v (id) ON a.id = v.id WHEN MATCHED THEN UPDATE SET balance = 8 WHEN NOT MATCHED THEN INSERT VALUES (v.id)'),
	('{account/1,account/5}', 'MERGE INTO account a USING (VALUES (1), (5)) v (id) ON a.id = v.id WHEN MATCHED THEN UPDATE SET balance = 8 WHEN NOT MATCHED THEN INSERT VALUES (v.id)'),
	('{account/1}', 'MERGE INTO account a USING (VALUES (4)) v (id) ON a.id = v.id WHEN MATCHED THEN DELETE'),
	('{account/4}', 'MERGE INTO account a USING (VALUES (4)) v (id) ON a.id = v.id WHEN MATCHED THEN DELETE'),
	('{}', 'WITH w AS (DELETE FROM account WHERE id = 1 RETURNING id) SELECT * FROM w'),
	('{account/1}', 'WITH w AS (UPDATE account SET balance = 9 WHERE id = 1 RETURNING id) SELECT * FROM w'),
	('{account/1}', 'TRUNCATE account')) v (names, s);
TABLE account;
COPY account FROM STDIN;
6	south	0
\.
BEGIN;
SELECT lease.acquire('account/6', scope => 'transaction') > 0 AS scope_transaction;
COPY account FROM STDIN;
6	south	0
\.
COPY account FROM STDIN;
7	south	0
\.
ROLLBACK;
BEGIN;
SELECT lease.acquire('account/6', scope => 'transaction') > 0 AS scope_transaction;
COPY account FROM STDIN;
6	south	0
\.
COMMIT;
TABLE account;

-- A guard in the statement itself comes before its check.
SELECT lease.acquire('account/1', '1 h') AS t \gset
UPDATE account SET balance = 10 WHERE id = 1 AND lease.guard('account/1', :t) > 0 RETURNING balance;
UPDATE account SET balance = 11 WHERE id = 1 RETURNING balance;

-- A guard that was rolled back is none; one of a released savepoint is one.
BEGIN;
SAVEPOINT s;
SELECT lease.guard('account/1', :t) \gset
ROLLBACK TO s;
SELECT pg_temp.attempt('UPDATE account SET balance = 12 WHERE id = 1') ~ '^LE003' AS refused;
SAVEPOINT s;
SELECT lease.guard('account/1', :t) \gset
RELEASE s;
UPDATE account SET balance = 12 WHERE id = 1;
COMMIT;

-- Held is not guarded; guarded in the last transaction is not guarded.
SELECT pg_temp.attempt('UPDATE account SET balance = 13 WHERE id = 1') ~ '^LE003' AS refused;

-- A lease lost between the write and its commit takes the write with it.
\set VERBOSITY sqlstate
BEGIN;
SELECT lease.guard('account/1', :t) \gset
UPDATE account SET balance = 14 WHERE id = 1;
SELECT lease.force_release('account/1', 'test');
COMMIT;
\set VERBOSITY default
SELECT balance FROM account WHERE id = 1;

-- Shared does not do, nor do permits, even if nobody else has any.
SELECT lease.acquire('account/1', '1 h', mode => 'shared') AS t \gset
BEGIN;
SELECT lease.guard('account/1', :t) \gset
SELECT pg_temp.attempt('UPDATE account SET balance = 15 WHERE id = 1');
COMMIT;
SELECT lease.release('account/1', :t) \gset
SELECT lease.acquire_permit('account/1', 1, ttl => '1 h') AS t \gset
BEGIN;
SELECT lease.guard('account/1', :t) \gset
SELECT pg_temp.attempt('UPDATE account SET balance = 15 WHERE id = 1');
COMMIT;
SELECT lease.release('account/1', :t) \gset

--
-- One lease for the whole table
--
CREATE TABLE ledger (entry text);
INSERT INTO ledger VALUES ('a'), (NULL);
SELECT lease.protect_table('ledger', 'ledger');
SELECT s, pg_temp.under('{}', s) AS without, pg_temp.under('{ledger}', s) AS under_it FROM unnest(ARRAY[
	'INSERT INTO ledger VALUES (''b''), (NULL)', 'UPDATE ledger SET entry = ''b''',
	'DELETE FROM ledger WHERE entry = ''a''', 'TRUNCATE ledger', 'TRUNCATE account, ledger']) s;

-- Another pattern takes the place of the former.
SELECT lease.protect_table('ledger', 'ledger of entries');
SELECT pg_temp.under('{ledger}', 'TRUNCATE ledger'), pg_temp.under('{ledger of entries}', 'TRUNCATE ledger');
SELECT pg_temp.under('{ledger}', 'INSERT INTO ledger VALUES (1)'), pg_temp.under('{ledger of entries}', 'INSERT INTO ledger VALUES (1)');
SELECT * FROM protected;
SELECT lease.unprotect_table('ledger'), lease.unprotect_table('ledger') AS again;
SELECT pg_temp.under('{}', 'INSERT INTO ledger VALUES (1)'), pg_temp.under('{}', 'TRUNCATE ledger');
SELECT * FROM protected;

--
-- Patterns
--
CREATE DOMAIN short AS varchar(300) CHECK (value <> '');
CREATE DOMAIN shorter AS short CHECK (value <> 'x');
CREATE TABLE "Odd Table" (i2 smallint, i4 integer, i8 bigint, t text, v varchar(300), u uuid, d shorter,
	"Mixed ""Case""" integer, n numeric, ts timestamptz, c char(5), nm name, b boolean, a integer[], "é" integer);
SELECT pg_temp.short(p) AS pattern, pg_temp.short(regexp_replace(pg_temp.attempt(format('SELECT lease.protect_table(%L, %L)', '"Odd Table"', p)), '\nHINT.*', '')) AS said FROM unnest(ARRAY[
	'', '{', '}', 'a{', 'a}', '{t', 't}', '{t}}', '{{t}', 'é{', '{}', '{ t}', '{T}', '{nothing}', '{mixed "case"}', '{t{v}}', '{ctid}', '{tableoid}',
	'{n}', '{ts}', '{c}', '{nm}', '{b}', '{a}', repeat('é', 128), repeat('{{', 256), NULL]) p;
SELECT pg_temp.attempt('SELECT lease.protect_table(NULL, ''x'')');
SELECT * FROM protected;
CREATE FUNCTION pg_temp.named(pattern text, name text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lease.protect_table('"Odd Table"', pattern);
	RETURN pg_temp.short(pg_temp.under(ARRAY[name], 'INSERT INTO "Odd Table" VALUES (-2, 4, 8, ''te/x {t}'', ''v'',
		''A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'', ''d'', 0, 1.5, now(), ''c'', ''n'', true, ''{1}'', 5)'));
END
$$;
SELECT pg_temp.short(pattern) AS pattern, pg_temp.short(name) AS name, pg_temp.named(pattern, name), pg_temp.named(pattern, name || '!') AS another
FROM (VALUES ('{i2}{i4}', '-24'), ('{i8}/{i8}', '8/8'), ('{t}', 'te/x {t}'), ('{v}', 'v'), ('u:{u}', 'u:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'),
	('{d}', 'd'), ('{Mixed "Case"}', '0'), ('{{t}}{t}{{{d}}}', '{t}te/x {t}{d}'), ('{{}}', '{}'), ('é{é}é', 'é5é'), ('''quoted'' \x', '''quoted'' \x'),
	(repeat('x', 254), repeat('x', 254)), (repeat('x', 253) || '{i4}', repeat('x', 253) || '4')) v (pattern, name);
SELECT lease.unprotect_table('"Odd Table"');
INSERT INTO "Odd Table" (t, i8, i4) VALUES ('a', 8, 1), ('a', NULL, 2);

-- The name is of the value, not of how a session shows it.
SELECT lease.protect_table('"Odd Table"', '{t}/{i8}');
SET lc_monetary = 'C';
SET DateStyle = 'German';
SET bytea_output = 'escape';
SELECT pg_temp.under('{a/8}', 'INSERT INTO "Odd Table" (t, i8) VALUES (''a'', 8)');

-- A name that no lease can have, and one that nothing makes: nothing is written.
SELECT pg_temp.short(pg_temp.under('{}', format('INSERT INTO "Odd Table" (t, i8) VALUES (repeat(''x'', %s), 8)', n))) FROM unnest(ARRAY[253, 254, 100000]) n;
SELECT names, s, pg_temp.under(names::text[], s) FROM (VALUES
	('{/8}', 'INSERT INTO "Odd Table" (t, i8) VALUES (NULL, 8)'), ('{a/8,/8,a/}', 'UPDATE "Odd Table" SET i8 = NULL WHERE i4 = 1'),
	('{a/8,/8,a/}', 'UPDATE "Odd Table" SET i8 = 8 WHERE i4 = 2'), ('{a/8,/8,a/}', 'DELETE FROM "Odd Table" WHERE i4 = 2'),
	('{/8}', 'INSERT INTO "Odd Table" (t, i8) VALUES ('''', 8)')) v (names, s);
SELECT lease.protect_table('"Odd Table"', '{t}');
SELECT pg_temp.under('{}', 'INSERT INTO "Odd Table" (t) VALUES ('''')');

-- A name of which each byte counts.
SELECT pg_temp.under(ARRAY[name], 'INSERT INTO "Odd Table" (t) VALUES (''Name'')') FROM unnest('{name,"Name ",Nam,Name}'::text[]) name;

-- Columns that go, change or come under a new name: refused, not let through.
SELECT lease.protect_table('"Odd Table"', '{t}/{i8}');
ALTER TABLE "Odd Table" RENAME i8 TO former;
SELECT s, pg_temp.under('{a/8,Name,a/9}', s) FROM unnest(ARRAY['INSERT INTO "Odd Table" (t, former) VALUES (''a'', 8)', 'UPDATE "Odd Table" SET i4 = 0', 'DELETE FROM "Odd Table"']) s;
ALTER TABLE "Odd Table" RENAME former TO i8;
SELECT pg_temp.under('{a/8}', 'INSERT INTO "Odd Table" (t, i8) VALUES (''a'', 8)');
ALTER TABLE "Odd Table" DROP COLUMN i2;
SELECT pg_temp.under('{a/8}', 'INSERT INTO "Odd Table" (t, i8) VALUES (''a'', 8)'), pg_temp.under('{a/9}', 'INSERT INTO "Odd Table" (t, i8) VALUES (''a'', 8)');
ALTER TABLE "Odd Table" ALTER COLUMN i8 TYPE numeric;
SELECT pg_temp.under('{a/8}', 'INSERT INTO "Odd Table" (t, i8) VALUES (''a'', 8)');
ALTER TABLE "Odd Table" DROP COLUMN i8;
SELECT pg_temp.under('{a/8}', 'DELETE FROM "Odd Table"');
SELECT lease.unprotect_table('"Odd Table"');
DROP TABLE "Odd Table";
DROP DOMAIN shorter, short;

--
-- The row as it is stored
--
CREATE TABLE stored (id integer, doubled integer GENERATED ALWAYS AS (2 * id) STORED, plain text);
INSERT INTO stored (id, plain) VALUES (1, 'a!');
SELECT lease.protect_table('stored', 's/{doubled}/{plain}');
CREATE FUNCTION change_key() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.plain := NEW.plain || '!'; RETURN NEW; END $$;
CREATE TRIGGER zz_change_key BEFORE INSERT OR UPDATE ON stored FOR EACH ROW EXECUTE FUNCTION change_key();
SELECT names, s, pg_temp.under(names::text[], s) FROM (VALUES
	('{s/1/a,s/2/a,s/1/a!}', 'INSERT INTO stored (id, plain) VALUES (1, ''a'')'),
	('{s/2/a!}', 'INSERT INTO stored (id, plain) VALUES (1, ''a'')'),
	('{s/2/a!}', 'UPDATE stored SET id = 1'), ('{s/2/a!,s/2/a!!}', 'UPDATE stored SET id = 1'),
	('{s/2/a!,s/4/a!}', 'UPDATE stored SET id = 2'), ('{s/2/a!,s/4/a!!}', 'UPDATE stored SET id = 2')) v (names, s);

-- A trigger that writes elsewhere is checked there.
CREATE FUNCTION book() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE account SET balance = balance + 1 WHERE id = NEW.id; RETURN NULL; END $$;
CREATE TABLE booking (id integer);
CREATE TRIGGER book AFTER INSERT ON booking FOR EACH ROW EXECUTE FUNCTION book();
SELECT pg_temp.under('{}', 'INSERT INTO booking VALUES (1)'), pg_temp.under('{account/1}', 'INSERT INTO booking VALUES (1)');
DROP TABLE booking, stored;

--
-- Foreign keys: what a parent's change does to rows is a write
--
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child (id integer, parent integer REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE orphan (id integer, parent integer REFERENCES parent ON DELETE SET NULL ON UPDATE SET NULL);
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1);
INSERT INTO orphan VALUES (2, 2);
SELECT lease.protect_table('child', 'child of {parent}'), lease.protect_table('orphan', 'orphan {id}');
SELECT names, s, pg_temp.under(names::text[], s) FROM (VALUES
	('{}', 'UPDATE parent SET id = 3 WHERE id = 1'), ('{child of 1}', 'UPDATE parent SET id = 3 WHERE id = 1'), ('{child of 1,child of 3}', 'UPDATE parent SET id = 3 WHERE id = 1'),
	('{}', 'DELETE FROM parent WHERE id = 1'), ('{child of 2}', 'DELETE FROM parent WHERE id = 1'), ('{child of 1}', 'DELETE FROM parent WHERE id = 1'),
	('{}', 'UPDATE parent SET id = 4 WHERE id = 2'), ('{orphan 2}', 'UPDATE parent SET id = 4 WHERE id = 2'), ('{}', 'DELETE FROM parent WHERE id = 2'), ('{orphan 2}', 'DELETE FROM parent WHERE id = 2')) v (names, s);
SELECT lease.protect_table('child', 'children');
SELECT lease.unprotect_table('orphan');
SELECT pg_temp.under('{}', 'TRUNCATE parent CASCADE'), pg_temp.under('{children}', 'TRUNCATE parent CASCADE');
DROP TABLE child, orphan, parent;

--
-- Views: checked where the rows are
--
CREATE VIEW rich AS SELECT id, balance FROM account WHERE balance >= 0;
SELECT pg_temp.under('{}', 'UPDATE rich SET balance = 20 WHERE id = 1'), pg_temp.under('{account/1}', 'UPDATE rich SET balance = 20 WHERE id = 1');
SELECT pg_temp.attempt('SELECT lease.protect_table(''rich'', ''rich'')');

--
-- Partitions
--
CREATE TABLE part (id integer, region text) PARTITION BY LIST (region);
CREATE TABLE part_north PARTITION OF part FOR VALUES IN ('north');
CREATE TABLE part_south (region text, dropped integer, id integer);
ALTER TABLE part_south DROP COLUMN dropped;
ALTER TABLE part ATTACH PARTITION part_south FOR VALUES IN ('south');

-- A partition first, then its root, which puts its own pattern in place of the partition's.
INSERT INTO part VALUES (2, 'south'), (3, 'south');
SELECT lease.protect_table('part_north', 'north/{id}');
SELECT pg_temp.under('{}', 'INSERT INTO part VALUES (1, ''south'')'), pg_temp.under('{}', 'INSERT INTO part VALUES (1, ''north'')'), pg_temp.under('{north/1}', 'INSERT INTO part VALUES (1, ''north'')');
SELECT lease.protect_table('part', 'part/{region}/{id}');
SELECT lease.protect_table('part', 'part/{region}/{id}') AS again;
SELECT * FROM protected;
SELECT names, s, pg_temp.under(names::text[], s) FROM (VALUES
	('{part/north/1}', 'INSERT INTO part VALUES (1, ''south'')'), ('{part/south/1}', 'INSERT INTO part VALUES (1, ''south'')'),
	('{}', 'INSERT INTO part_south VALUES (''south'', 1)'), ('{part/south/1}', 'INSERT INTO part_south VALUES (''south'', 1)'),
	('{}', 'UPDATE part_south SET id = 4 WHERE id = 3'), ('{part/south/3,part/south/4}', 'UPDATE part_south SET id = 4 WHERE id = 3'),
	('{}', 'DELETE FROM part_south WHERE id = 3'), ('{part/south/3}', 'DELETE FROM part_south WHERE id = 3'),
	-- A row that moves is written in both.
	('{part/south/2}', 'UPDATE part SET region = ''north'' WHERE id = 2'), ('{part/north/2}', 'UPDATE part SET region = ''north'' WHERE id = 2'),
	('{part/south/2,part/north/2}', 'UPDATE part SET region = ''north'' WHERE id = 2'),
	('{part/north/2}', 'TRUNCATE part'), ('{part/north/2}', 'TRUNCATE part_north')) v (names, s);

-- One that comes later is protected; its TRUNCATE alone once that is asked for again.
CREATE TABLE part_east PARTITION OF part FOR VALUES IN ('east');
CREATE TABLE part_west (id integer, region text);
ALTER TABLE part ATTACH PARTITION part_west FOR VALUES IN ('west');
SELECT s, pg_temp.under('{}', s) FROM unnest(ARRAY['INSERT INTO part VALUES (5, ''east'')', 'INSERT INTO part_east VALUES (5, ''east'')', 'INSERT INTO part_west VALUES (5, ''west'')', 'TRUNCATE part']) s;
SELECT * FROM protected WHERE NOT covers_truncate;
SELECT lease.protect_table('part', 'part/{region}/{id}');
SELECT * FROM protected WHERE NOT covers_truncate;
SELECT pg_temp.under('{}', 'TRUNCATE part_east'), pg_temp.under('{}', 'TRUNCATE part_west');

-- What a partition has from its root is the root's to change; one that was disabled is mended.
SELECT pg_temp.attempt($$SELECT lease.protect_table('part_north', 'other')$$);
SELECT pg_temp.attempt($$SELECT lease.unprotect_table('part_north')$$);
SELECT lease.protect_table('part_north', 'part/{region}/{id}') AS the_same;
ALTER TABLE part_north DISABLE TRIGGER lease_protect;
SELECT pg_temp.under('{}', 'INSERT INTO part_north VALUES (9, ''north'')');
SELECT lease.protect_table('part', 'part/{region}/{id}') AS mended;
SELECT pg_temp.under('{}', 'INSERT INTO part_north VALUES (9, ''north'')');

-- Detached, a partition keeps what is for statements, and loses what was its root's.
ALTER TABLE part DETACH PARTITION part_west;
SELECT pg_temp.under('{}', 'INSERT INTO part_west VALUES (5, ''west'')'), pg_temp.under('{}', 'TRUNCATE part_west');
SELECT lease.protect_table('part_west', 'west');
SELECT pg_temp.under('{}', 'INSERT INTO part_west VALUES (5, ''west'')'), pg_temp.under('{west}', 'TRUNCATE part_west');
SELECT * FROM protected;
SELECT lease.unprotect_table('part'), lease.unprotect_table('part') AS again, lease.unprotect_table('part_west');
SELECT s, pg_temp.under('{}', s) FROM unnest(ARRAY['INSERT INTO part VALUES (5, ''east'')', 'TRUNCATE part_south', 'TRUNCATE part']) s;

-- Deeper ones; a partition of its own under a root of its own is the root's.
DROP TABLE part_west;
CREATE TABLE part_west PARTITION OF part FOR VALUES IN ('west') PARTITION BY RANGE (id);
CREATE TABLE part_west_1 PARTITION OF part_west FOR VALUES FROM (0) TO (10);
SELECT lease.protect_table('part_west_1', 'deepest'), lease.protect_table('part_west', 'deeper'), lease.protect_table('part', 'all');
SELECT * FROM protected;
SELECT s, pg_temp.under('{deepest,deeper}', s) AS others, pg_temp.under('{all}', s) FROM unnest(ARRAY['INSERT INTO part_west_1 VALUES (5, ''west'')', 'TRUNCATE part_west_1', 'TRUNCATE part']) s;
DROP TABLE part;

--
-- Inheritance: the children that are there
--
CREATE TABLE city (name text);
CREATE TABLE capital (state text) INHERITS (city);
INSERT INTO city VALUES ('A');
INSERT INTO capital VALUES ('B');
SELECT lease.protect_table('city', 'city/{name}');
SELECT names, s, pg_temp.under(names::text[], s) FROM (VALUES
	('{}', 'INSERT INTO capital VALUES (''C'', ''D'')'), ('{city/C}', 'INSERT INTO capital VALUES (''C'', ''D'')'),
	('{city/A,city/C}', 'UPDATE city SET name = ''C'''), ('{city/A,city/B,city/C}', 'UPDATE city SET name = ''C'''), ('{city/A,city/C}', 'UPDATE ONLY city SET name = ''C'''),
	('{city/B}', 'TRUNCATE ONLY capital'), ('{city/A}', 'TRUNCATE ONLY city'), ('{city/A}', 'DELETE FROM city'), ('{city/A,city/B}', 'DELETE FROM city')) v (names, s);
CREATE TABLE village () INHERITS (city);
SELECT lease.protect_table('city', 'city/{name}') AS the_new_one;
SELECT * FROM protected;
SELECT pg_temp.under('{}', 'INSERT INTO village VALUES (''D'')');
SELECT lease.unprotect_table('city');
SELECT * FROM protected;
DROP TABLE city CASCADE;

--
-- What can be protected
--
CREATE FOREIGN DATA WRAPPER regress_dummy;
CREATE SERVER regress_elsewhere FOREIGN DATA WRAPPER regress_dummy;
CREATE FOREIGN TABLE foreign_table (id integer) SERVER regress_elsewhere;
CREATE TABLE partly_foreign (id integer) PARTITION BY LIST (id);
CREATE FOREIGN TABLE foreign_part PARTITION OF partly_foreign FOR VALUES IN (1) SERVER regress_elsewhere;
CREATE MATERIALIZED VIEW mat AS SELECT 1 AS id;
CREATE SEQUENCE seq;
CREATE TYPE composite AS (id integer);
CREATE TEMPORARY TABLE temp (id integer);
CREATE UNLOGGED TABLE unlogged (id integer);
SELECT r, pg_temp.attempt(format('SELECT lease.protect_table(%L, ''x'')', r)), pg_temp.attempt(format('SELECT lease.unprotect_table(%L)', r))
FROM unnest(ARRAY['foreign_table', 'partly_foreign', 'foreign_part', 'mat', 'seq', 'composite', 'account_pkey', 'pg_class', 'lease.leases', 'nowhere', 'temp', 'unlogged']) r;
SELECT pg_temp.attempt('SELECT lease.unprotect_table(NULL)');
DROP FOREIGN DATA WRAPPER regress_dummy CASCADE;
DROP TABLE partly_foreign;
SELECT lease.protect_table('temp', 'temp/{id}'), lease.protect_table('unlogged', 'unlogged/{id}');
SELECT r, pg_temp.under('{}', format('INSERT INTO %s VALUES (1)', r)), pg_temp.under(ARRAY[r || '/1'], format('INSERT INTO %s VALUES (1)', r)) FROM unnest(ARRAY['temp', 'unlogged']) r;
DROP TABLE temp, unlogged;

-- By its owner, and whoever has the owner's privileges; for all who write it.
CREATE SCHEMA vault;
GRANT USAGE, CREATE ON SCHEMA vault TO regress_keeper;
GRANT USAGE ON SCHEMA vault TO regress_writer;
SET ROLE regress_keeper;
CREATE TABLE vault."trea'sure" (id integer);
GRANT INSERT ON vault."trea'sure" TO regress_writer;
SET ROLE regress_writer;
SELECT f, pg_temp.attempt('SELECT lease.' || f) FROM unnest(ARRAY['protect_table(''vault."trea''''sure"'', ''x'')', 'unprotect_table(''vault."trea''''sure"'')']) f;
SET ROLE regress_keeper;
SELECT lease.protect_table('vault."trea''sure"', 'trea''sure/{id}');
SET ROLE regress_writer;
SELECT pg_temp.under('{}', 'INSERT INTO vault."trea''sure" VALUES (1)'), pg_temp.under('{trea''sure/1}', 'INSERT INTO vault."trea''sure" VALUES (1)');
RESET ROLE;

-- The name tells what is in the row: only to those who may read it.
SELECT lease.acquire('trea''sure/42', '1 h') AS t \gset
BEGIN;
SELECT lease.guard('trea''sure/42', :t) > 0 AS guarded;
INSERT INTO vault."trea'sure" VALUES (42);
COMMIT;
SELECT lease.release('trea''sure/42', :t);
GRANT UPDATE ON vault."trea'sure" TO regress_writer;
SET ROLE regress_writer;
SELECT pg_temp.under('{}', 'UPDATE vault."trea''sure" SET id = 0') AS blind;
RESET ROLE;
GRANT SELECT ON vault."trea'sure" TO regress_writer;
SET ROLE regress_writer;
SELECT pg_temp.under('{}', 'UPDATE vault."trea''sure" SET id = 0') AS seeing;
RESET ROLE;
ALTER TABLE vault."trea'sure" ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON vault."trea'sure" USING (true);
SET ROLE regress_writer;
SELECT pg_temp.under('{}', 'UPDATE vault."trea''sure" SET id = 0') AS maybe_blind;
RESET ROLE;
REVOKE EXECUTE ON FUNCTION lease.check_guard() FROM regress_writer;
SET ROLE regress_writer;
SELECT pg_temp.under('{}', 'INSERT INTO vault."trea''sure" VALUES (1)');
RESET ROLE;
DROP SCHEMA vault CASCADE;
BEGIN READ ONLY;
SELECT pg_temp.attempt('SELECT lease.protect_table(''account'', ''x'')');
COMMIT;

--
-- Ways around it, and who can see that they are used
--
SET session_replication_role = replica;
SELECT pg_temp.under('{}', 'UPDATE account SET balance = 30 WHERE id = 1');
ALTER TABLE account ENABLE ALWAYS TRIGGER lease_protect, ENABLE ALWAYS TRIGGER lease_protect_truncate;
SELECT * FROM protected;
SELECT pg_temp.under('{}', 'UPDATE account SET balance = 31 WHERE id = 1'), pg_temp.under('{}', 'TRUNCATE account');
RESET session_replication_role;
ALTER TABLE account ENABLE REPLICA TRIGGER lease_protect;
SELECT * FROM protected;
SELECT pg_temp.under('{}', 'UPDATE account SET balance = 32 WHERE id = 1');
ALTER TABLE account DISABLE TRIGGER lease_protect;
SELECT * FROM protected;
SELECT pg_temp.under('{}', 'UPDATE account SET balance = 33 WHERE id = 1');

-- What is disabled does not count as protection.
SELECT lease.protect_table('account', 'account/{id}'), lease.protect_table('account', 'account/{id}') AS again;
SELECT * FROM protected;
SELECT pg_temp.under('{}', 'UPDATE account SET balance = 34 WHERE id = 1');

-- Triggers made by hand: the right one works, others are refused, not let through.
CREATE TABLE manual (id integer);
INSERT INTO manual VALUES (1);
CREATE TRIGGER t AFTER INSERT ON manual FOR EACH ROW EXECUTE FUNCTION lease.check_guard('manual/{id}');
SELECT * FROM protected;
SELECT pg_temp.under('{}', 'INSERT INTO manual VALUES (1)'), pg_temp.under('{manual/1}', 'INSERT INTO manual VALUES (1)');

-- It is for less than all writes, so protect_table takes its place.
SELECT lease.protect_table('manual', 'manual/{id}');
SELECT pg_temp.under('{}', 'DELETE FROM manual'), pg_temp.under('{manual/1}', 'DELETE FROM manual');
SELECT tgname FROM pg_trigger WHERE tgrelid = 'manual'::regclass ORDER BY 1;
SELECT lease.unprotect_table('manual');
CREATE FUNCTION pg_temp.by_hand(declared text, statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said text;
BEGIN
	EXECUTE 'CREATE TRIGGER t ' || declared;
	said := pg_temp.under('{manual/1,x}', statement);
	DROP TRIGGER t ON manual;
	RETURN said;
END
$$;
SELECT t, pg_temp.by_hand(t, 'INSERT INTO manual VALUES (1)') FROM unnest(ARRAY[
	'BEFORE INSERT ON manual FOR EACH ROW EXECUTE FUNCTION lease.check_guard(''manual/{id}'')',
	'AFTER INSERT ON manual FOR EACH STATEMENT EXECUTE FUNCTION lease.check_guard(''x'')',
	'AFTER INSERT ON manual FOR EACH ROW EXECUTE FUNCTION lease.check_guard()',
	'AFTER INSERT ON manual FOR EACH ROW EXECUTE FUNCTION lease.check_guard(''x'', ''x'')',
	'AFTER INSERT ON manual FOR EACH ROW EXECUTE FUNCTION lease.check_guard('''')',
	'AFTER INSERT ON manual FOR EACH ROW EXECUTE FUNCTION lease.check_guard(''{nothing}'')',
	'AFTER INSERT ON manual FOR EACH ROW EXECUTE FUNCTION lease.check_guard_of_table(''x'')']) t;
SELECT t, pg_temp.by_hand(t, 'TRUNCATE manual') FROM unnest(ARRAY[
	'AFTER TRUNCATE ON manual FOR EACH STATEMENT EXECUTE FUNCTION lease.check_guard_of_table(''x'')',
	'BEFORE TRUNCATE ON manual FOR EACH STATEMENT EXECUTE FUNCTION lease.check_guard_of_table()',
	'BEFORE TRUNCATE ON manual FOR EACH STATEMENT EXECUTE FUNCTION lease.check_guard(''x'')']) t;
SELECT f, pg_temp.attempt('SELECT lease.' || f) FROM unnest(ARRAY['check_guard()', 'check_guard_of_table()']) f;

-- The extension does not go without them.
SELECT pg_temp.attempt('DROP EXTENSION lease') ~ '^2BP01' AS needs_cascade;

DROP VIEW rich;
DROP TABLE account, ledger, manual;
DROP FUNCTION change_key, book;
SELECT * FROM protected;
SELECT count(*) AS leases FROM lease.leases;
SELECT count(lease.disallow(r::regrole)) FROM unnest(ARRAY['regress_keeper', 'regress_writer']) r \gset
DROP ROLE regress_keeper, regress_writer;
