--
-- CREATE, DROP, and what the library refuses to work with.
--
\set home :DBNAME
CREATE DATABASE regress_lease TEMPLATE template0;
\c regress_lease
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = warning;

--
-- A schema that somebody else made, or can create in, is refused.
--
CREATE ROLE regress_lease_owner;
CREATE SCHEMA lease AUTHORIZATION regress_lease_owner;
SELECT pg_temp.attempt('CREATE EXTENSION lease');
DROP SCHEMA lease;
CREATE SCHEMA lease;
GRANT CREATE ON SCHEMA lease TO regress_lease_owner;
SELECT pg_temp.attempt('CREATE EXTENSION lease');
REVOKE CREATE ON SCHEMA lease FROM regress_lease_owner;
GRANT CREATE ON SCHEMA lease TO PUBLIC;
SELECT pg_temp.attempt('CREATE EXTENSION lease') ~ '^42501' AS refused;
REVOKE CREATE ON SCHEMA lease FROM PUBLIC;
CREATE FUNCTION lease.trap() RETURNS integer LANGUAGE sql AS 'SELECT 1';
SELECT pg_temp.attempt('CREATE EXTENSION lease');
DROP SCHEMA lease CASCADE;
DROP ROLE regress_lease_owner;
SELECT count(*) FROM pg_extension WHERE extname = 'lease';

-- Nor is there another schema for it, or a move to one later.
CREATE SCHEMA elsewhere;
SELECT pg_temp.attempt('CREATE EXTENSION lease SCHEMA elsewhere');
DROP SCHEMA elsewhere;

--
-- It works from the transaction after the one that created it.
--
BEGIN;
CREATE EXTENSION lease;
SELECT pg_temp.attempt($$SELECT lease.try_acquire('x')$$);
SELECT left(pg_temp.attempt(q), 5)
FROM unnest(ARRAY[$$SELECT lease.renew('x', 1)$$, $$SELECT lease.release('x', 1)$$, $$SELECT lease.is_held('x', 1)$$,
                  $$SELECT lease.transfer('x', 1, 'h')$$, $$SELECT lease.new_epoch('r')$$, 'SELECT FROM lease.leases']) q;
ROLLBACK;
CREATE EXTENSION lease;
SELECT pg_temp.attempt('ALTER EXTENSION lease SET SCHEMA public') ~ '^0A000' AS not_relocatable;
SELECT lease.try_acquire('x', ttl => '1 h', metadata => '{"k": "v"}') AS t \gset
SELECT :t > 0 AS granted;

--
-- A ledger that cannot be durable is not written.
--

-- An index: nobody would keep it up to date.
CREATE INDEX ledger_index ON lease.ledger (token);
SELECT pg_temp.attempt($$SELECT lease.try_acquire('y')$$);
SELECT pg_temp.attempt(format($$SELECT lease.release('x', %s)$$, :t)) ~ '^55000' AS refused,
       pg_temp.attempt(format($$SELECT lease.renew('x', %s, '2 h')$$, :t)) ~ '^55000' AS refused,
       pg_temp.attempt(format($$SELECT lease.transfer('x', %s, 'h')$$, :t)) ~ '^55000' AS refused,
       pg_temp.attempt($$SELECT lease.force_release('x', 'r')$$) ~ '^55000' AS refused,
       pg_temp.attempt($$SELECT lease.new_epoch('r')$$) ~ '^55000' AS refused;
DROP INDEX lease.ledger_index;
SELECT lease.is_held('x', :t);

-- Rewritten or truncated in the current transaction, which may yet roll back.
BEGIN;
ALTER TABLE lease.ledger SET UNLOGGED;
SELECT pg_temp.attempt($$SELECT lease.try_acquire('y')$$);
ROLLBACK;
SELECT lease.is_held('x', :t);

-- Unlogged: empty after a crash.  The lease outlives the mistake.
ALTER TABLE lease.ledger SET UNLOGGED;
SELECT pg_temp.attempt($$SELECT lease.try_acquire('y')$$);
ALTER TABLE lease.ledger SET LOGGED;
SELECT lease.is_held('x', :t);
SELECT lease.renew('x', :t, '2 h');
SELECT name, ttl, metadata FROM lease.leases;
SELECT name, ttl, metadata FROM lease.ledger WHERE kind = 'grant';

-- Not the table that the library knows.
BEGIN;
ALTER TABLE lease.ledger ADD COLUMN more integer;
SELECT pg_temp.attempt($$SELECT lease.try_acquire('y')$$);
ROLLBACK;
SELECT lease.try_renew('x', :t);

--
-- A library of another version says what to do.
--
UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'lease';
\c
\set ECHO none
\ir :tools
SELECT pg_temp.attempt($$SELECT lease.try_acquire('y')$$);
SELECT left(pg_temp.attempt(format(q, :t)), 5)
FROM unnest(ARRAY[$$SELECT lease.renew('x', %s)$$, $$SELECT lease.release('x', %s)$$, $$SELECT lease.is_held('x', %s)$$,
                  'SELECT FROM lease.leases', 'SELECT FROM lease.status']) q;
UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'lease';
SELECT lease.is_held('x', :t);

--
-- DROP EXTENSION ends all leases.  Created again, tokens go on growing.
--
DROP EXTENSION lease;
CREATE EXTENSION lease;
SELECT count(*) FROM lease.leases;
SELECT lease.is_held('x', :t);
SELECT lease.try_acquire('x', ttl => '1 h') AS t2 \gset
SELECT :t2 > :t AS larger;

-- A DROP that is rolled back ends nothing.
BEGIN;
DROP EXTENSION lease;
ROLLBACK;
SELECT lease.is_held('x', :t2), lease.try_renew('x', :t2, '2 h'), lease.release('x', :t2);

--
-- A dump brings one row: how far tokens were handed out.  Restored into a
-- database in use, it raises them at once, whether or not that commits.
--
SELECT extconfig::regclass[], extcondition FROM pg_extension WHERE extname = 'lease';
SELECT next_token + 1000000000 AS ceiling FROM lease.status \gset
BEGIN;
INSERT INTO lease.ledger (kind, token, system_identifier, timeline, database, valid_from)
	VALUES ('ceiling', :ceiling, 1, 1, 1, 0);
ROLLBACK;
SELECT next_token > :ceiling AS raised FROM lease.status;
SELECT lease.try_acquire('x', ttl => '1 h') > :ceiling AS beyond;
INSERT INTO lease.ledger (kind, token, system_identifier, timeline, database, valid_from)
	VALUES ('ceiling', :t, 1, 1, 1, 0);
SELECT next_token > :ceiling AS not_lowered FROM lease.status;
SELECT pg_temp.attempt($$INSERT INTO lease.ledger (kind, token, system_identifier, timeline, database, valid_from)
	VALUES ('ceiling', 9007199254740991, 1, 1, 1, 0)$$) ~ '^54000' AS refused;
SELECT lease.try_acquire('y', ttl => '1 h') > :ceiling AS unharmed;
SELECT bool_and(lease.release(name, token)) FROM lease.leases;

\c :home
DROP DATABASE regress_lease;
