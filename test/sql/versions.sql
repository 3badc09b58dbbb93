--
-- Optimistic versions: an update says which version it read, or nothing.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = warning;
CREATE ROLE regress_keeper;
CREATE ROLE regress_writer;
SELECT count(lease.allow(r::regrole)) FROM unnest(ARRAY['regress_keeper', 'regress_writer']) r \gset

-- Run a statement and undo it; say how many rows it wrote, or with which error it was refused.
CREATE FUNCTION pg_temp.would(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	rows bigint;
BEGIN
	EXECUTE statement;
	GET DIAGNOSTICS rows = ROW_COUNT;
	RAISE EXCEPTION '% written', rows USING ERRCODE = 'RR000';
EXCEPTION
	WHEN SQLSTATE 'RR000' THEN RETURN SQLERRM;
	WHEN OTHERS THEN RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;

--
-- Counted, and compared with what was read
--
CREATE TABLE item (id integer PRIMARY KEY, name text, version bigint NOT NULL DEFAULT 1);
INSERT INTO item VALUES (1, 'a', 1), (2, 'b', 7);
SELECT lease.enable_versioning('item'), lease.enable_versioning('item') AS again;
\d item
UPDATE item SET name = 'c' RETURNING *;
UPDATE item SET name = 'd', version = 2 WHERE id = 1 RETURNING *;
SELECT pg_temp.attempt('UPDATE item SET name = ''e'', version = 2 WHERE id = 1');
SELECT s, pg_temp.would(s) FROM unnest(ARRAY[
	'UPDATE item SET name = ''e'', version = 3 WHERE id = 1',
	'UPDATE item SET version = 3 WHERE id = 1',
	'UPDATE item SET name = ''e'', version = 0 WHERE id = 1',
	'UPDATE item SET name = ''e'', version = 5 WHERE id = 1',
	'UPDATE item SET name = ''e'', version = -3 WHERE id = 1',
	'UPDATE item SET name = ''e'', version = NULL WHERE id = 1',
	'UPDATE item SET name = ''e'', version = DEFAULT WHERE id = 1',
	'UPDATE item SET name = ''e'', version = 9223372036854775807 WHERE id = 1',
	'UPDATE item SET name = ''e'', version = -9223372036854775808 WHERE id = 1',
	'UPDATE item SET version = 8',
	'UPDATE item SET version = version',
	'UPDATE item SET (name, version) = (SELECT ''e'', 3) WHERE id = 1',
	'UPDATE item SET version = 7 WHERE false']) s;
TABLE item;

-- The statements that object-relational mappers send: one row written, or none if it is stale.
ALTER TABLE item ADD lock_version integer NOT NULL DEFAULT 0, ADD version_id integer NOT NULL DEFAULT 1;
PREPARE hibernate (text, bigint, integer, bigint) AS UPDATE item SET name = $1, version = $2 WHERE id = $3 AND version = $4;
EXECUTE hibernate ('h1', 4, 1, 3);
\echo :ROW_COUNT
EXECUTE hibernate ('h2', 4, 1, 3);
\echo :ROW_COUNT
EXECUTE hibernate ('h3', 5, 1, 4);
\echo :ROW_COUNT
SELECT lease.enable_versioning('item', 'version_id');
PREPARE sqlalchemy (text, integer, integer, integer) AS UPDATE item SET name = $1, version_id = $2 WHERE item.id = $3 AND item.version_id = $4;
EXECUTE sqlalchemy ('s1', 2, 1, 1);
\echo :ROW_COUNT
EXECUTE sqlalchemy ('s2', 2, 1, 1);
\echo :ROW_COUNT
SELECT lease.enable_versioning('item', 'lock_version');
PREPARE rails (text, integer, integer, integer) AS UPDATE "item" SET "name" = $1, "lock_version" = $2 WHERE "item"."id" = $3 AND "item"."lock_version" = $4;
EXECUTE rails ('r1', 1, 1, 0);
\echo :ROW_COUNT
EXECUTE rails ('r2', 1, 1, 0);
\echo :ROW_COUNT
SELECT lease.enable_versioning('item', 'lock_version', strict => true);
EXECUTE rails ('r3', 2, 1, 1);
\echo :ROW_COUNT
TABLE item;

--
-- Strict
--
SELECT lease.enable_versioning('item', strict => true), lease.enable_versioning('item', 'version', true) AS again;
SELECT pg_temp.attempt('UPDATE item SET name = ''blind'' WHERE id = 1');
SELECT s, pg_temp.would(s) FROM unnest(ARRAY[
	'UPDATE item SET lock_version = 0', 'UPDATE item SET name = ''x'' WHERE false',
	'UPDATE item SET name = ''x'', version = 5 WHERE id = 1', 'UPDATE item SET name = ''x'', version = 4 WHERE id = 1',
	'UPDATE item SET name = ''x'', version = version WHERE id = 1', 'UPDATE item SET name = ''x'', version = version + 1 WHERE id = 1',
	'INSERT INTO item VALUES (1) ON CONFLICT (id) DO UPDATE SET name = ''x''',
	'INSERT INTO item VALUES (1, ''x'', 5) ON CONFLICT (id) DO UPDATE SET name = excluded.name, version = excluded.version',
	'INSERT INTO item VALUES (1, ''x'', 4) ON CONFLICT (id) DO UPDATE SET name = excluded.name, version = excluded.version',
	'INSERT INTO item VALUES (9, ''x'', 4) ON CONFLICT (id) DO UPDATE SET name = excluded.name',
	'MERGE INTO item USING (VALUES (1, 5)) v (id, version) ON item.id = v.id WHEN MATCHED THEN UPDATE SET name = ''x''',
	'MERGE INTO item USING (VALUES (1, 5)) v (id, version) ON item.id = v.id WHEN MATCHED THEN UPDATE SET name = ''x'', version = v.version',
	'MERGE INTO item USING (VALUES (1, 4)) v (id, version) ON item.id = v.id WHEN MATCHED THEN UPDATE SET name = ''x'', version = v.version',
	'DELETE FROM item WHERE id = 1', 'TRUNCATE item']) s;
SELECT lease.enable_versioning('item'), lease.enable_versioning('item', 'version', false) AS again;
UPDATE item SET name = 'lenient' WHERE id = 1 RETURNING version;
SELECT lease.disable_versioning('item'), lease.disable_versioning('item') AS again;
UPDATE item SET version = 100 WHERE id = 1 RETURNING version;
UPDATE item SET name = 'not counted' WHERE id = 1 RETURNING version;
DROP TABLE item;

--
-- Types and bounds
--
CREATE DOMAIN counter AS smallint;
CREATE TABLE typed (i2 smallint, i4 integer, i8 bigint, d counter, n numeric, t text, generated integer GENERATED ALWAYS AS (i4) STORED, "the ""Version""" integer);
INSERT INTO typed VALUES (1, 1, 1, 1, 1, '1', DEFAULT, 1);
CREATE FUNCTION pg_temp.counts(name name) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said text;
BEGIN
	PERFORM lease.enable_versioning('typed', name);
	EXECUTE format('UPDATE typed SET %1$I = 1 WHERE %1$I = 1 RETURNING %1$I', name) INTO said;
	EXECUTE format('UPDATE typed SET %1$I = 3 WHERE %1$I = 2 RETURNING %1$I', name) INTO said;
	EXECUTE format('UPDATE typed SET t = t RETURNING %I', name) INTO said;
	RETURN said;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;
SELECT name, pg_temp.counts(name) FROM unnest(ARRAY['i2', 'i4', 'i8', 'd', 'the "Version"', 'n', 't', 'generated', 'I2', 'nothing', 'ctid', 'tableoid', '']) name;
SELECT pg_temp.attempt('SELECT lease.enable_versioning(''typed'', ''nothing'')');
SELECT f, pg_temp.attempt('SELECT lease.' || f) FROM unnest(ARRAY['enable_versioning(NULL)', 'enable_versioning(''typed'', NULL)', 'enable_versioning(''typed'', ''i4'', NULL)', 'disable_versioning(NULL)']) f;

-- The last number is an error, not the first again.
CREATE FUNCTION pg_temp.full(name name, last text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM lease.disable_versioning('typed');
	EXECUTE format('UPDATE typed SET %I = %s - 1', name, last);
	PERFORM lease.enable_versioning('typed', name);
	RETURN pg_temp.would('UPDATE typed SET t = ''x''') || ', ' || pg_temp.would(format('UPDATE typed SET t = ''x'', %I = %s', name, last))
		|| ', ' || pg_temp.attempt('UPDATE typed SET t = ''y''') || ', ' || pg_temp.attempt('UPDATE typed SET t = ''z''')
		|| ', ' || pg_temp.attempt(format('UPDATE typed SET t = ''z'', %I = %s', name, last));
END
$$;
SELECT name, pg_temp.full(name, last) FROM (VALUES ('i2', '32767'), ('d', '32767'), ('i4', '2147483647'), ('i8', '9223372036854775807')) v (name, last);
SELECT t FROM typed;

-- NULL comes before the first.
SELECT lease.disable_versioning('typed');
UPDATE typed SET i4 = NULL;
SELECT lease.enable_versioning('typed', 'i4');
SELECT s, pg_temp.would(s) FROM unnest(ARRAY['UPDATE typed SET i4 = NULL', 'UPDATE typed SET i4 = 0', 'UPDATE typed SET i4 = 1', 'UPDATE typed SET i4 = 2', 'UPDATE typed SET i4 = -1']) s;
UPDATE typed SET t = 'x' RETURNING i4;

-- The column goes, or changes: updates are refused.
ALTER TABLE typed RENAME i4 TO former;
SELECT pg_temp.attempt('UPDATE typed SET t = ''x''');
ALTER TABLE typed RENAME former TO i4;
ALTER TABLE typed DROP COLUMN generated, ALTER i4 TYPE numeric;
SELECT pg_temp.attempt('UPDATE typed SET t = ''x''');
ALTER TABLE typed DROP COLUMN i4;
SELECT pg_temp.would('UPDATE typed SET t = ''x''');
DROP TABLE typed;
DROP DOMAIN counter;

--
-- Other triggers
--
CREATE TABLE logged (id integer, name text, touched integer DEFAULT 0, version integer DEFAULT 0, doubled integer GENERATED ALWAYS AS (2 * version) STORED);
INSERT INTO logged VALUES (1, 'a');
SELECT lease.enable_versioning('logged', strict => true);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched := NEW.touched + 1; NEW.name := NEW.name || TG_NAME; RETURN NEW; END $$;
CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER a BEFORE UPDATE ON logged FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER z BEFORE UPDATE ON logged FOR EACH ROW EXECUTE FUNCTION touch();
UPDATE logged SET id = 2, version = 0 RETURNING *;
-- What a trigger changes the statement did not set.
SELECT pg_temp.would('UPDATE logged SET id = 3');
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.version := 77; RETURN NEW; END $$;
CREATE TRIGGER b BEFORE UPDATE ON logged FOR EACH ROW EXECUTE FUNCTION meddle();
SELECT lease.enable_versioning('logged');
UPDATE logged SET id = 3 RETURNING version, doubled;
SELECT pg_temp.would('UPDATE logged SET id = 3, version = 2');
DROP TRIGGER b ON logged;
CREATE TRIGGER b BEFORE UPDATE ON logged FOR EACH ROW EXECUTE FUNCTION skip();
UPDATE logged SET id = 4 RETURNING version;
SELECT id, version FROM logged;
DROP TABLE logged;
DROP FUNCTION touch, skip, meddle;

-- Cascades of foreign keys are updates.
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child (parent integer REFERENCES parent ON UPDATE CASCADE ON DELETE SET NULL, version integer DEFAULT 1);
INSERT INTO parent VALUES (1);
INSERT INTO child VALUES (1);
SELECT lease.enable_versioning('child');
UPDATE parent SET id = 2;
TABLE child;
SELECT lease.enable_versioning('child', strict => true);
SELECT s, pg_temp.would(s) FROM unnest(ARRAY['UPDATE parent SET id = 3', 'DELETE FROM parent']) s;
DROP TABLE child, parent;

--
-- Partitions and children, whatever the order of their columns
--
CREATE TABLE part (id integer, version integer DEFAULT 1, name text) PARTITION BY LIST (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
CREATE TABLE part_2 (name text, dropped text, version integer DEFAULT 1, id integer);
ALTER TABLE part_2 DROP dropped;
ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES IN (2);
INSERT INTO part VALUES (1), (2);
SELECT lease.enable_versioning('part', strict => true), lease.enable_versioning('part', strict => true) AS again;
CREATE TABLE part_3 PARTITION OF part FOR VALUES IN (3);
INSERT INTO part VALUES (3);
SELECT s, pg_temp.would(s) FROM unnest(ARRAY['UPDATE part SET name = ''x''', 'UPDATE part_2 SET name = ''x''', 'UPDATE part_3 SET name = ''x''',
	'UPDATE part SET name = ''x'', version = 1', 'UPDATE part_2 SET name = ''x'', version = 1', 'UPDATE part SET version = 5', 'UPDATE part_2 SET version = 5', 'UPDATE part_3 SET version = 5']) s;
-- A row that moves is counted once, and must be the one that was read.
UPDATE part SET id = 2, version = 1 WHERE id = 1 RETURNING tableoid::regclass, id, version;
SELECT pg_temp.would('UPDATE part SET id = 1, version = 1 WHERE version = 2'), pg_temp.would('UPDATE part SET id = 1, version = 5 WHERE version = 2');
UPDATE part SET id = 3, version = 2 WHERE version = 2 RETURNING tableoid::regclass, id, version;
SELECT pg_temp.attempt($$SELECT lease.disable_versioning('part_3')$$);
SELECT lease.disable_versioning('part');
SELECT pg_temp.would('UPDATE part SET version = 50');
DROP TABLE part;

CREATE TABLE base (id integer, version integer DEFAULT 1);
CREATE TABLE derived (name text) INHERITS (base);
INSERT INTO derived VALUES (1, 1, 'a');
SELECT lease.enable_versioning('base');
SELECT s, pg_temp.would(s) FROM unnest(ARRAY['UPDATE base SET id = 2', 'UPDATE base SET version = 4', 'UPDATE derived SET version = 4']) s;
UPDATE derived SET name = 'b' RETURNING version;
SELECT lease.disable_versioning('base');
SELECT pg_temp.would('UPDATE derived SET version = 4');
DROP TABLE base CASCADE;

--
-- Who may, and of what
--
CREATE TABLE kept (id integer, version integer DEFAULT 0);
INSERT INTO kept VALUES (1);
ALTER TABLE kept OWNER TO regress_keeper;
GRANT SELECT, UPDATE ON kept TO regress_writer;
GRANT CREATE ON SCHEMA public TO regress_keeper;
SET ROLE regress_writer;
SELECT f, pg_temp.attempt('SELECT lease.' || f) FROM unnest(ARRAY['enable_versioning(''kept'')', 'disable_versioning(''kept'')']) f;
SET ROLE regress_keeper;
SELECT lease.enable_versioning('kept');
SET ROLE regress_writer;
UPDATE kept SET id = 2 RETURNING version;
SELECT pg_temp.would('UPDATE kept SET version = 7');
RESET ROLE;
CREATE VIEW seen AS SELECT * FROM kept;
UPDATE seen SET id = 3 RETURNING version;
SELECT pg_temp.would('UPDATE seen SET version = 7'), pg_temp.would('UPDATE seen SET version = 2');
SELECT lease.enable_versioning('kept', strict => true);
SELECT pg_temp.would('UPDATE seen SET id = 7'), pg_temp.would('UPDATE seen SET version = 2');
CREATE TEMPORARY TABLE temp (version integer);
SELECT r, pg_temp.attempt(format('SELECT lease.enable_versioning(%L)', r)) FROM unnest(ARRAY['seen', 'pg_class', 'lease.status', 'temp']) r;

-- Triggers made by hand.
CREATE TABLE manual (id integer, version integer DEFAULT 1);
INSERT INTO manual VALUES (1);
CREATE FUNCTION pg_temp.by_hand(declared text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said text;
BEGIN
	EXECUTE 'CREATE TRIGGER t ' || declared;
	said := pg_temp.would('UPDATE manual SET id = 2');
	DROP TRIGGER t ON manual;
	RETURN said;
END
$$;
SELECT t, pg_temp.by_hand(t) FROM unnest(ARRAY[
	'BEFORE UPDATE ON manual FOR EACH ROW EXECUTE FUNCTION lease.count_version(''version'', ''lenient'')',
	'AFTER UPDATE ON manual FOR EACH ROW EXECUTE FUNCTION lease.count_version(''version'', ''lenient'')',
	'BEFORE UPDATE ON manual FOR EACH STATEMENT EXECUTE FUNCTION lease.count_version(''version'', ''lenient'')',
	'BEFORE UPDATE ON manual FOR EACH ROW EXECUTE FUNCTION lease.count_version(''version'')',
	'BEFORE UPDATE ON manual FOR EACH ROW EXECUTE FUNCTION lease.count_version(''nothing'', ''lenient'')']) t;
SELECT pg_temp.attempt('SELECT lease.count_version()');
DROP TABLE manual;
DROP VIEW seen;
DROP TABLE kept;
REVOKE CREATE ON SCHEMA public FROM regress_keeper;
SELECT count(lease.disallow(r::regrole)) FROM unnest(ARRAY['regress_keeper', 'regress_writer']) r \gset
DROP ROLE regress_keeper, regress_writer;
