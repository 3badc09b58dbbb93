--
-- The ledger: nobody writes it but the extension, and the server's own
-- maintenance of tables does it no harm.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SELECT lease.try_acquire('kept', ttl => '10 min', metadata => '{"k": "v"}') AS t \gset

-- Not even a superuser, and not even as a replica would.
\pset format unaligned
\pset tuples_only on
SELECT statement, pg_temp.attempt(statement)
FROM unnest(ARRAY[
	$$INSERT INTO lease.ledger (kind, token, name) VALUES ('grant', 1, 'forged')$$,
	$$INSERT INTO lease.ledger (kind, token, name) VALUES ('closure', 1, 'forged')$$,
	$$INSERT INTO lease.ledger (kind, token, name) VALUES ('what', 1, 'forged')$$,
	$$INSERT INTO lease.ledger (kind, token) VALUES ('ceiling', 0)$$,
	$$INSERT INTO lease.ledger (kind, token) VALUES ('ceiling', 9007199254740992)$$,
	$$UPDATE lease.ledger SET token = token + 1$$,
	$$UPDATE lease.ledger SET token = token + 1 WHERE kind = 'ceiling'$$,
	$$DELETE FROM lease.ledger$$,
	$$TRUNCATE lease.ledger$$,
	$$MERGE INTO lease.ledger l USING (VALUES ('kept')) v (name) ON l.name = v.name WHEN MATCHED THEN DELETE$$]) statement;
\pset format aligned
\pset tuples_only off
SET session_replication_role = replica;
SELECT left(pg_temp.attempt($$DELETE FROM lease.ledger$$), 5), left(pg_temp.attempt($$TRUNCATE lease.ledger$$), 5);
RESET session_replication_role;
CREATE ROLE regress_lease_writer;
GRANT USAGE ON SCHEMA lease TO regress_lease_writer;
GRANT ALL ON lease.ledger TO regress_lease_writer;
SET ROLE regress_lease_writer;
SELECT left(pg_temp.attempt($$INSERT INTO lease.ledger (kind, token) VALUES ('ceiling', 1)$$), 5),
       left(pg_temp.attempt($$DELETE FROM lease.ledger$$), 5);
RESET ROLE;
REVOKE ALL ON lease.ledger FROM regress_lease_writer;
REVOKE ALL ON SCHEMA lease FROM regress_lease_writer;
DROP ROLE regress_lease_writer;
SELECT pg_temp.attempt($$SELECT lease.protect_ledger()$$);
SELECT kind, name, token = :t AS token FROM lease.ledger WHERE kind <> 'ceiling';
SELECT lease.is_held('kept', :t);

--
-- VACUUM in all its forms, with live leases
--
VACUUM lease.ledger;
VACUUM (FREEZE, ANALYZE) lease.ledger;
SELECT lease.is_held('kept', :t);
SELECT count(lease.try_acquire('filler/' || n, ttl => '1 h')) FROM generate_series(1, 300) n;
SELECT count(*) FROM (SELECT lease.release(name, token) AS done FROM lease.leases
                      WHERE name LIKE 'filler/%' AND name NOT LIKE '%7') released WHERE done;

-- VACUUM FULL moves every row; each is found again.
SELECT pg_relation_filenode('lease.ledger') AS before \gset
VACUUM FULL lease.ledger;
SELECT pg_relation_filenode('lease.ledger') <> :before AS moved;
SELECT lease.renew('kept', :t, '1 h');
SELECT name, ttl, metadata FROM lease.leases WHERE name = 'kept';
SELECT name, ttl, token = :t AS token FROM lease.ledger WHERE name = 'kept';
SELECT lease.transfer('kept', :t, 'next') AS t2 \gset
SELECT name, holder, token = :t2 AS token, metadata FROM lease.ledger WHERE name = 'kept';
VACUUM FULL lease.ledger;
SELECT count(*) FROM (SELECT lease.release(name, token) AS done FROM lease.leases) released WHERE done;
SELECT count(*) FROM lease.ledger WHERE kind <> 'ceiling';
SELECT count(*) FROM lease.ledger WHERE kind = 'ceiling';

-- What is closed is found again, too.
SELECT lease.try_acquire('closed', ttl => '1 h', min_hold => '1 h') AS t \gset
SELECT lease.release('closed', :t);
VACUUM FULL lease.ledger;
SET client_min_messages = warning;
SELECT lease.force_release('closed', 'test', reopen => true);
RESET client_min_messages;
SELECT count(*) FROM lease.ledger WHERE kind <> 'ceiling';

-- And the ceiling: raised after VACUUM FULL, it is still one row.
VACUUM FULL lease.ledger;
SELECT lease.new_epoch('test') > 0 AS raised;
SELECT count(*) FROM lease.ledger WHERE kind = 'ceiling';

--
-- Ten thousand names used once leave nothing behind.
--

-- Wait until all that is over is out of the table, for a minute at most.  No
-- other database of the server may have leases.
CREATE FUNCTION pg_temp.await_reaped(expected bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	deadline timestamptz = clock_timestamp() + interval '1 min';
BEGIN
	WHILE (SELECT leases_used FROM lease.status) > expected LOOP
		IF clock_timestamp() > deadline THEN
			RETURN format('%s left', (SELECT leases_used FROM lease.status) - expected);
		END IF;
	END LOOP;
	RETURN 'none left';
END
$$;
SELECT pg_temp.await_reaped(0);
VACUUM FULL lease.ledger;

-- Released, each at once: the table never grew.
SELECT count(*) FROM (SELECT lease.release(n::text, lease.try_acquire(n::text, ttl => '1 h')) AS done
                      FROM generate_series(1, 10000) n) released WHERE done;
SELECT leases_used FROM lease.status;

-- Expired, and reaped together; failed attempts leave nothing, either.
SELECT count(lease.try_acquire(n::text, ttl => '1 h', holder => 'h' || n, request_id => 'r' || n, correlation_id => 'c' || n))
FROM generate_series(1, 10000) n;
SELECT count(lease.try_acquire(n::text)) FROM generate_series(1, 10000) n;
SELECT leases_used FROM lease.status;
SELECT count(*) FROM lease.ledger WHERE kind = 'grant';
SELECT pg_temp.advance_lease_clock('1 h');
SELECT pg_temp.await_reaped(0);
SELECT count(*) FROM lease.leases;
SELECT count(*) FROM lease.ledger WHERE kind = 'grant';
SELECT last_reap > statement_timestamp() - interval '10 min' AS reaped FROM lease.status;

-- VACUUM empties the ledger: the same again does not make it grow.
VACUUM lease.ledger;
SELECT ledger_size AS before FROM lease.status \gset
SELECT count(*) FROM (SELECT lease.release(n::text, lease.try_acquire(n::text, ttl => '1 h')) AS done
                      FROM generate_series(1, 10000) n) released WHERE done;
SELECT ledger_size <= :before AS not_grown FROM lease.status;
VACUUM FULL lease.ledger;
SELECT ledger_size = current_setting('block_size')::int AS one_page FROM lease.status;

--
-- lease.status
--
\x on
SELECT version = (SELECT extversion FROM pg_extension WHERE extname = 'lease') AS "version =",
       epoch = next_token >> 27 AS "epoch =", timeline = (SELECT timeline_id FROM pg_control_checkpoint()) AS "timeline =",
       leases_used, leases_allowed = current_setting('lease.max_leases')::int AS "leases_allowed =",
       ledger_size = pg_relation_size('lease.ledger') AS "ledger_size =", ledger_garbage >= 0 AS "ledger_garbage =",
       worker_state IN ('idle', 'reaping') AS "worker_state ="
FROM lease.status;
\x off
