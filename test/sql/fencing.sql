--
-- Fencing tokens on rows: they never go down.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = warning;
SELECT lease.acquire('one', '1 h') AS t1 \gset
SELECT lease.acquire('two', '1 h') AS t2 \gset
SELECT lease.acquire('three', '1 h') AS t3 \gset
CREATE FUNCTION pg_temp.nth(token bigint) RETURNS text LANGUAGE sql AS $$ SELECT name FROM lease.leases l WHERE l.token = $1 $$;

-- Run a statement, in which t1 to t3 stand for tokens, and undo it; say how many rows it wrote, or with which error it was refused.
CREATE FUNCTION pg_temp.would(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	rows bigint;
BEGIN
	SELECT replace(replace(replace(statement, 't1', min(token)::text), 't3', max(token)::text), 't2', (sum(token) - min(token) - max(token))::text)
	INTO statement FROM lease.leases;
	EXECUTE statement;
	GET DIAGNOSTICS rows = ROW_COUNT;
	RAISE EXCEPTION '% written', rows USING ERRCODE = 'RR000';
EXCEPTION
	WHEN SQLSTATE 'RR000' THEN RETURN SQLERRM;
	WHEN OTHERS THEN RETURN pg_temp.masked(SQLSTATE || ': ' || SQLERRM);
END
$$;

--
-- Lenient
--
CREATE TABLE job (id integer PRIMARY KEY, state text, fencing_token bigint);
INSERT INTO job VALUES (1, 'new', NULL), (2, 'new', :t2);
SELECT lease.enable_fencing('job'), lease.enable_fencing('job') AS again;
\d job
SELECT regexp_replace(pg_temp.attempt(format('UPDATE job SET fencing_token = %s', :t1)), 'with token \d+', 'with token TOKEN');
SELECT s, pg_temp.would(s) FROM unnest(ARRAY[
	'UPDATE job SET fencing_token = t1 WHERE id = 1', 'UPDATE job SET fencing_token = t1 WHERE id = 2', 'UPDATE job SET state = ''x'', fencing_token = t2 WHERE id = 2', 'UPDATE job SET fencing_token = t3',
	'UPDATE job SET fencing_token = NULL WHERE id = 1', 'UPDATE job SET fencing_token = NULL WHERE id = 2', 'UPDATE job SET fencing_token = 0 WHERE id = 1', 'UPDATE job SET fencing_token = -1 WHERE id = 1',
	'UPDATE job SET fencing_token = 9007199254740991 WHERE id = 1', 'UPDATE job SET fencing_token = 9223372036854775807 WHERE id = 2',
	'UPDATE job SET state = ''x''',
	'INSERT INTO job VALUES (2, ''x'', t1) ON CONFLICT (id) DO UPDATE SET state = excluded.state, fencing_token = excluded.fencing_token',
	'INSERT INTO job VALUES (2, ''x'', t3) ON CONFLICT (id) DO UPDATE SET state = excluded.state, fencing_token = excluded.fencing_token',
	'MERGE INTO job USING (VALUES (2)) v (id) ON job.id = v.id WHEN MATCHED THEN UPDATE SET fencing_token = t1',
	'MERGE INTO job USING (VALUES (2)) v (id) ON job.id = v.id WHEN MATCHED THEN UPDATE SET fencing_token = t3',
	'INSERT INTO job VALUES (3, ''x'', t1)', 'DELETE FROM job']) s;
UPDATE job SET fencing_token = :t2;
UPDATE job SET fencing_token = :t3 WHERE id = 2;
SELECT id, state, pg_temp.nth(fencing_token) FROM job ORDER BY id;

--
-- Strict
--
SELECT lease.enable_fencing('job', strict => true), lease.enable_fencing('job', 'fencing_token', true) AS again;
SELECT pg_temp.attempt('UPDATE job SET state = ''x''');
SELECT s, pg_temp.would(s) FROM unnest(ARRAY[
	'UPDATE job SET state = ''x'', fencing_token = t2 WHERE id = 1', 'UPDATE job SET state = ''x'', fencing_token = t2 WHERE id = 2', 'UPDATE job SET state = ''x'', fencing_token = fencing_token', 'UPDATE job SET state = ''x'' WHERE false',
	'INSERT INTO job VALUES (2) ON CONFLICT (id) DO UPDATE SET state = ''x''']) s;

-- Beside versions.
ALTER TABLE job ADD version integer DEFAULT 1;
SELECT lease.enable_versioning('job', strict => true);
SELECT s, pg_temp.would(s) FROM unnest(ARRAY['UPDATE job SET version = 1', 'UPDATE job SET fencing_token = t3', 'UPDATE job SET version = 1, fencing_token = t3', 'UPDATE job SET version = 1, fencing_token = t2', 'UPDATE job SET version = 3, fencing_token = t3']) s;
SELECT lease.disable_fencing('job'), lease.disable_fencing('job') AS again;
SELECT pg_temp.would('UPDATE job SET version = 1, fencing_token = t1'), pg_temp.would('UPDATE job SET version = 3, fencing_token = t1');
SELECT lease.disable_versioning('job');
SELECT pg_temp.would('UPDATE job SET fencing_token = 9007199254740991, version = 9');
DROP TABLE job;

--
-- Columns, and what a trigger makes of them
--
CREATE DOMAIN token AS bigint;
CREATE TABLE typed (id integer, i2 smallint, n numeric, t text, d token, "The ""Token""" bigint, g bigint GENERATED ALWAYS AS (id) STORED, fencing_token bigint);
INSERT INTO typed (id, d, "The ""Token""") VALUES (1, :t2, :t2);
SELECT c, pg_temp.attempt(format('SELECT lease.enable_fencing(''typed'', %L)', c)) FROM unnest(ARRAY['id', 'i2', 'n', 't', 'd', 'g', 'FENCING_TOKEN', 'ctid', NULL, 'The "Token"']) c;
SELECT pg_temp.would('UPDATE typed SET "The ""Token""" = t1'), pg_temp.would('UPDATE typed SET "The ""Token""" = t3');
SELECT f, pg_temp.attempt('SELECT lease.' || f) FROM unnest(ARRAY['enable_fencing(NULL)', 'enable_fencing(''typed'', strict => NULL)', 'disable_fencing(NULL)', 'enable_fencing(''lease.status'')', 'disable_fencing(''lease.status'')']) f;
SELECT lease.enable_fencing('typed', 'd', true);
SELECT pg_temp.would('UPDATE typed SET d = t1'), pg_temp.would('UPDATE typed SET d = t3'), pg_temp.would('UPDATE typed SET id = 2');
CREATE FUNCTION lower_token() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.d := 1; RETURN NEW; END $$;
CREATE TRIGGER a BEFORE UPDATE ON typed FOR EACH ROW EXECUTE FUNCTION lower_token();
SELECT pg_temp.would('UPDATE typed SET d = t3');
DROP TRIGGER a ON typed;
ALTER TABLE typed RENAME d TO former;
SELECT pg_temp.would('UPDATE typed SET former = t3'), pg_temp.would('UPDATE typed SET id = 2');
SELECT pg_temp.attempt('SELECT lease.check_token()');
DROP TABLE typed;
DROP DOMAIN token;
DROP FUNCTION lower_token;

CREATE ROLE regress_writer;
SELECT lease.allow('regress_writer');
CREATE TABLE other (fencing_token bigint);
SET ROLE regress_writer;
SELECT f, pg_temp.attempt('SELECT lease.' || f) FROM unnest(ARRAY['enable_fencing(''other'')', 'disable_fencing(''other'')']) f;
RESET ROLE;
SELECT lease.disallow('regress_writer');
DROP ROLE regress_writer;
DROP TABLE other;

--
-- Partitions, whatever the order of their columns, and children
--
CREATE TABLE part (id integer, name text, fencing_token bigint) PARTITION BY LIST (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
CREATE TABLE part_2 (fencing_token bigint, id integer, name text);
ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES IN (2);
INSERT INTO part VALUES (1, 'a', :t2), (2, 'b', :t2);
SELECT lease.enable_fencing('part', strict => true);
SELECT s, pg_temp.would(s) FROM unnest(ARRAY['UPDATE part SET fencing_token = t1', 'UPDATE part_2 SET fencing_token = t1', 'UPDATE part_2 SET name = ''x''', 'UPDATE part SET name = ''x''', 'UPDATE part SET fencing_token = t3',
	-- A row that moves takes its token along.
	'UPDATE part SET id = 2, fencing_token = t1 WHERE id = 1', 'UPDATE part SET id = 2 WHERE id = 1', 'UPDATE part SET id = 2, fencing_token = t3 WHERE id = 1', 'UPDATE part SET id = 1, fencing_token = t1 WHERE id = 2']) s;
UPDATE part SET id = 2, fencing_token = :t3 WHERE id = 1;
SELECT pg_temp.would('UPDATE part SET fencing_token = t2 WHERE name = ''a''');
SELECT lease.disable_fencing('part');
SELECT pg_temp.would('UPDATE part SET fencing_token = t1');
DROP TABLE part;
CREATE TABLE base (fencing_token bigint);
CREATE TABLE derived (id integer) INHERITS (base);
INSERT INTO derived VALUES (:t2, 1);
SELECT lease.enable_fencing('base');
SELECT pg_temp.would('UPDATE base SET fencing_token = t1'), pg_temp.would('UPDATE derived SET fencing_token = t1'), pg_temp.would('UPDATE derived SET fencing_token = t3');
DROP TABLE base CASCADE;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;
