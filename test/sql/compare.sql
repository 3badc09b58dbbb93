--
-- compare_and_set: update a row if it is still what was read.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = warning;
CREATE ROLE regress_clerk;
CREATE ROLE regress_guest;
SELECT count(lease.allow(r::regrole)) FROM unnest(ARRAY['regress_clerk', 'regress_guest']) r \gset

--
-- One row, one version further
--
CREATE TABLE item (id integer PRIMARY KEY, name text, price numeric(8, 2), tags text[], doc jsonb, version bigint DEFAULT 1);
INSERT INTO item VALUES (1, 'a', 1.5, '{x}', '{"k": 1}', 1), (2, 'b', 2.5, NULL, NULL, 7), (3, NULL, NULL, NULL, NULL, NULL);
SELECT pg_temp.attempt('SELECT lease.compare_and_set(''item'', ''{"id": 1}'', 1, ''{"name": "c"}'')');
SELECT lease.enable_versioning('item');
SELECT lease.compare_and_set('item', '{"id": 1}', 1, '{"name": "c"}');
SELECT pg_temp.attempt('SELECT lease.compare_and_set(''item'', ''{"id": 1}'', 1, ''{"name": "d"}'')');
SELECT lease.compare_and_set('item', '{"id": 1}', 2, '{}') AS nothing_changed;
SELECT lease.compare_and_set('item', '{"id": 1}', 3, '{"name": null, "price": 1e3, "tags": ["a,b", null, "\"q\""], "doc": {"a": [1, {"b": null}]}}');
SELECT lease.compare_and_set('item', '{"id": 2}', 7, '{"id": 4, "doc": null, "price": "12.345"}');
SELECT lease.compare_and_set('item', '{"id": 3}', 0, '{"name": "it''s; DROP TABLE item; --"}') AS no_version_is_0;
SELECT lease.compare_and_set('item', '{"tags": ["a,b", null, "\"q\""]}', 4, '{"doc": "text"}') AS array_key;
TABLE item ORDER BY id;
SELECT lease.enable_versioning('item', strict => true);
SELECT lease.compare_and_set('item', '{"id": 1}', 5, '{"name": "strict"}');

-- In a transaction, with itself.
BEGIN;
SELECT lease.compare_and_set('item', '{"id": 1}', 6, '{"name": "e"}'), lease.compare_and_set('item', '{"id": 1}', 7, '{"name": "f"}');
ROLLBACK;
SELECT name, version FROM item WHERE id = 1;

-- Under isolation levels that keep one snapshot, too.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT lease.compare_and_set('item', '{"id": 1}', 6, '{"name": "g"}');
COMMIT;

--
-- What is wrong is said, and nothing is written
--
SELECT args, pg_temp.attempt(format('SELECT lease.compare_and_set(%s)', args)) FROM unnest(ARRAY[
	$$'item', '{"id": 9}', 1, '{}'$$, $$'item', '{"id": 1, "name": "other"}', 7, '{}'$$, $$'item', '{"id": 1}', 6, '{}'$$, $$'item', '{"id": 1}', 8, '{}'$$, $$'item', '{"id": 1}', -1, '{}'$$,
	$$'item', '{"nothing": 1}', 7, '{}'$$, $$'item', '{"id": 1}', 7, '{"nothing": 1}'$$, $$'item', '{"ID": 1}', 7, '{}'$$, $$'item', '{"": 1}', 7, '{}'$$,
	$$'item', '{"id": 1}', 7, '{"name = ''x'', id": 1}'$$, $$'item', '{"id = 1 OR true --": 1}', 7, '{}'$$,
	$$'item', '{"ctid": "(0,1)"}', 7, '{}'$$, $$'item', '{"id": 1}', 7, '{"xmin": 1}'$$, $$'item', '{"tableoid": 1}', 7, '{}'$$,
	$$'item', '{"id": "one"}', 7, '{}'$$, $$'item', '{"id": 1.5}', 7, '{}'$$, $$'item', '{"id": [1]}', 7, '{}'$$, $$'item', '{"id": 1}', 7, '{"price": "cheap"}'$$, $$'item', '{"id": 1}', 7, '{"tags": "x"}'$$,
	$$'item', '{"id": 99999999999}', 7, '{}'$$, $$'item', '{"id": 1}', 7, '{"price": 1e9}'$$,
	$$'item', '{}', 7, '{}'$$, $$'item', '[1]', 7, '{}'$$, $$'item', '1', 7, '{}'$$, $$'item', 'null', 7, '{}'$$, $$'item', '{"id": 1}', 7, '[]'$$, $$'item', '{"id": 1}', 7, '"x"'$$, $$'item', '{"id": 1}', 7, 'null'$$,
	$$'item', '{"id": null}', 7, '{}'$$, $$'item', '{"id": 1, "name": null}', 7, '{}'$$,
	$$'item', '{"id": 1}', 7, '{"version": 8}'$$,
	$$NULL, '{"id": 1}', 7, '{}'$$, $$'item', NULL, 7, '{}'$$, $$'item', '{"id": 1}', NULL, '{}'$$, $$'item', '{"id": 1}', 7, NULL$$,
	$$'item', '{"id": 1}', 7, '{"id": 4}'$$]) args;
SELECT name, version FROM item WHERE id = 1;
BEGIN READ ONLY;
SELECT pg_temp.attempt($$SELECT lease.compare_and_set('item', '{"id": 1}', 7, '{}')$$);
COMMIT;

-- The version may be part of the key.
SELECT lease.compare_and_set('item', '{"id": 1, "version": 7}', 7, '{"name": "h"}');
DROP TABLE item;

--
-- Keys of many types
--
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"');
CREATE TYPE pair AS (a integer, b text);
CREATE DOMAIN code AS varchar(5) CHECK (value <> 'bad');
CREATE TABLE typed (t text, v varchar(10), c char(5), u uuid, d date, n numeric, f double precision, ts timestamptz, iv interval, b boolean, by bytea, inet inet,
	e mood, p pair, dom code, i2 smallint, "char" "char", nm name, arr integer[], arr2 text[][], r int4range, j json, jb jsonb, pt point, tc text COLLATE "C", reg regclass, o oid, bits bit(3), m money,
	version smallint DEFAULT 0);
INSERT INTO typed VALUES ('it''s "q" $1 \x', 'v', 'c', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2020-02-29', 1.50, 0.1, '2020-01-01 12:00+00', '1 month 2 days', true, '\xdead', '10.0.0.1/8',
	'it''s "ok"', ROW(1, 'x, "y"'), 'ok', -3, 'x', 'name', '{1,2}', '{{a,b},{c,d}}', '[1,5)', '{"a":1}', '{"a": 1}', '(1,2)', 'É', 'pg_class', 42, B'101', 1.5);
SELECT lease.enable_versioning('typed');
CREATE FUNCTION pg_temp.finds(key jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN lease.compare_and_set('typed', key, (SELECT version FROM typed), '{}') - (SELECT version FROM typed);
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;
SELECT column_name, pg_temp.finds(jsonb_build_object(column_name, (SELECT to_jsonb(typed) -> column_name FROM typed)))
FROM information_schema.columns WHERE table_name = 'typed' AND column_name <> 'version' ORDER BY ordinal_position;
SELECT key, pg_temp.finds(key::jsonb) FROM unnest(ARRAY['{"t": "IT''S"}', '{"v": "v "}', '{"c": "c    "}', '{"n": 1.5}', '{"n": "1.500"}', '{"n": "NaN"}', '{"d": "2020-02-30"}', '{"e": "happy"}', '{"dom": "bad"}', '{"dom": "too long"}',
	'{"p": {"a": 1, "b": "x, \"y\""}}', '{"p": {"a": 1}}', '{"p": "(1,\"x, \"\"y\"\"\")"}', '{"arr": "{1,2}"}', '{"arr": []}', '{"tc": "é"}', '{"tc": "É"}', '{"jb": {"a": 1.0}}', '{"ts": "2020-01-01 13:00+01"}', '{"ts": "2020-01-01 13:00"}', '{"i2": 70000}', '{"f": 0.1, "n": 1.5, "b": true}']) key;
DROP TABLE typed;
DROP TYPE mood, pair;
DROP DOMAIN code;

-- Several key columns; a key that several rows have; names that must be quoted.
CREATE SCHEMA "Odd schema";
CREATE TABLE "Odd schema"."Table; --" ("a""b" integer, "select" text, t text, k text, c text, "Version" integer DEFAULT 1, g integer GENERATED ALWAYS AS ("a""b" * 2) STORED, PRIMARY KEY ("a""b", "select"));
INSERT INTO "Odd schema"."Table; --" VALUES (1, 'x', 't', 'k', 'c'), (1, 'y', 't', 'k', 'c'), (2, 'x', 't', 'k', 'c');
SELECT lease.enable_versioning('"Odd schema"."Table; --"', 'Version', true);
SELECT lease.compare_and_set('"Odd schema"."Table; --"', '{"a\"b": 1, "select": "y"}', 1, '{"select": "z", "t": "t2", "k": "k2", "c": "c2"}');
SELECT lease.compare_and_set('"Odd schema"."Table; --"', '{"t": "t2", "k": "k2", "c": "c2"}', 2, '{"t": "t3", "k": "k3", "c": "c3"}');
SELECT lease.compare_and_set('"Odd schema"."Table; --"', '{"g": 4}', 1, '{"a\"b": 3}');
SELECT args, pg_temp.attempt(format('SELECT lease.compare_and_set(''"Odd schema"."Table; --"'', %s)', args)) FROM unnest(ARRAY[
	$$'{"a\"b": 1}', 1, '{}'$$, $$'{"t": "t"}', 1, '{"t": "u"}'$$, $$'{"a\"b": 1, "select": "x"}', 1, '{"g": 5}'$$, $$'{"a\"b": 1, "select": "x"}', 1, '{"Version": 5}'$$]) args;
SELECT * FROM "Odd schema"."Table; --" ORDER BY 1, 2;
DROP SCHEMA "Odd schema" CASCADE;

--
-- Partitions and children
--
CREATE TABLE part (id integer, region text, version integer DEFAULT 1) PARTITION BY LIST (region);
CREATE TABLE part_north PARTITION OF part FOR VALUES IN ('north');
CREATE TABLE part_south (region text, version integer DEFAULT 1, id integer);
ALTER TABLE part ATTACH PARTITION part_south FOR VALUES IN ('south');
INSERT INTO part VALUES (1, 'north'), (2, 'south');
SELECT lease.enable_versioning('part');
SELECT lease.compare_and_set('part', '{"id": 2}', 1, '{"id": 3}'), lease.compare_and_set('part_south', '{"id": 3}', 2, '{"id": 4}'), lease.compare_and_set('part', '{"id": 4}', 3, '{"region": "north"}');
SELECT pg_temp.attempt($$SELECT lease.compare_and_set('part_south', '{"id": 4}', 4, '{}')$$), pg_temp.attempt($$SELECT lease.compare_and_set('part_north', '{"id": 4}', 4, '{"region": "south"}')$$);
SELECT tableoid::regclass, * FROM part ORDER BY id;
DROP TABLE part;
CREATE TABLE base (id integer, version integer DEFAULT 1);
CREATE TABLE derived (id integer, more text) INHERITS (base);
INSERT INTO derived VALUES (1);
SELECT lease.enable_versioning('base');
SELECT lease.compare_and_set('base', '{"id": 1}', 1, '{"id": 2}');
DROP TABLE base CASCADE;

--
-- Other triggers have their say
--
CREATE TABLE item (id integer, name text, version integer DEFAULT 1);
INSERT INTO item VALUES (1, 'a');
SELECT lease.enable_versioning('item');
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.name = 'keep' THEN RETURN NULL; END IF; NEW.name := NEW.name || '!'; RETURN NEW; END $$;
CREATE TRIGGER keep BEFORE UPDATE ON item FOR EACH ROW EXECUTE FUNCTION keep();
SELECT lease.compare_and_set('item', '{"id": 1}', 1, '{"name": "b"}');
SELECT pg_temp.attempt($$SELECT lease.compare_and_set('item', '{"id": 1}', 2, '{"name": "keep"}')$$);
TABLE item;
DROP TRIGGER keep ON item;
DROP FUNCTION keep;
SELECT pg_temp.attempt(format('SELECT lease.compare_and_set(%L, ''{"id": 1}'', 1, ''{}'')', r)) FROM unnest(ARRAY['pg_class', 'lease.status', 'lease.keys', 'pg_toast.pg_toast_1255', 'nowhere']) r;

--
-- The caller's privileges and row security
--
GRANT SELECT, UPDATE ON item TO regress_clerk;
INSERT INTO item VALUES (2, 'secret');
ALTER TABLE item ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON item USING (name <> 'secret') WITH CHECK (name <> 'forbidden');
SET ROLE regress_clerk;
SELECT lease.compare_and_set('item', '{"id": 1}', 2, '{"name": "c"}');
SELECT args, pg_temp.attempt(format('SELECT lease.compare_and_set(''item'', %s)', args)) FROM unnest(ARRAY[$$'{"id": 2}', 1, '{"name": "d"}'$$, $$'{"id": 1}', 3, '{"name": "forbidden"}'$$]) args;
SET ROLE regress_guest;
SELECT pg_temp.attempt($$SELECT lease.compare_and_set('item', '{"id": 1}', 3, '{"name": "d"}')$$);
RESET ROLE;
ALTER TABLE item DISABLE ROW LEVEL SECURITY;
GRANT SELECT ON item TO regress_guest;
SET ROLE regress_guest;
SELECT pg_temp.attempt($$SELECT lease.compare_and_set('item', '{"id": 1}', 3, '{"name": "d"}')$$);
RESET ROLE;
REVOKE ALL ON item FROM regress_guest;
GRANT SELECT (id, name, version), UPDATE (name, version) ON item TO regress_guest;
SET ROLE regress_guest;
SELECT pg_temp.attempt($$SELECT lease.compare_and_set('item', '{"id": 1}', 3, '{"id": 4}')$$);
SELECT lease.compare_and_set('item', '{"id": 1}', 3, '{"name": "d"}');
RESET ROLE;
REVOKE ALL ON item FROM regress_guest;
GRANT SELECT (name, version), UPDATE (name, version) ON item TO regress_guest;
SET ROLE regress_guest;
SELECT pg_temp.attempt($$SELECT lease.compare_and_set('item', '{"id": 1}', 4, '{"name": "d"}')$$);
RESET ROLE;

-- What stands first in search_path is not called.
CREATE SCHEMA trap;
CREATE FUNCTION trap.sprung() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trap sprung'; END $$;
CREATE FUNCTION trap.eq(integer, integer) RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT trap.sprung(); SELECT true';
CREATE FUNCTION trap.eq(text, text) RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT trap.sprung(); SELECT true';
CREATE OPERATOR trap.= (FUNCTION = trap.eq, LEFTARG = integer, RIGHTARG = integer);
CREATE OPERATOR trap.= (FUNCTION = trap.eq, LEFTARG = text, RIGHTARG = text);
CREATE FUNCTION trap.jsonb_to_record(jsonb) RETURNS record LANGUAGE sql VOLATILE AS 'SELECT trap.sprung(); SELECT 1, 2';
CREATE DOMAIN trap.int8 AS text;
CREATE DOMAIN trap.text AS bytea;
CREATE COLLATION trap."default" FROM "C";
CREATE TABLE trap.item (id integer);
SET search_path = trap, public, pg_catalog;
SELECT lease.compare_and_set('public.item', '{"id": 1}', 4, '{"name": "e"}'), lease.compare_and_set('public.item', '{"name": "e"}', 5, '{"name": "f"}');
RESET search_path;
TABLE item ORDER BY id;
DROP SCHEMA trap CASCADE;
DROP TABLE item;
SELECT count(lease.disallow(r::regrole)) FROM unnest(ARRAY['regress_clerk', 'regress_guest']) r \gset
DROP ROLE regress_clerk, regress_guest;
