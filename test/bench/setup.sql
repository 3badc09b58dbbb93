-- What the scripts in jobs/ work with.  Run it once in a database of its own, after
-- "make -C test/bench install" for the function that does nothing:
--
--	psql -X -v ON_ERROR_STOP=1 -f test/bench/setup.sql
--
-- A client is a number, 0 to 99, and its names and rows have that number.

CREATE EXTENSION IF NOT EXISTS lease;
CREATE SCHEMA bench;

CREATE FUNCTION bench.nothing(name text, token bigint, ttl interval DEFAULT NULL) RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'bench_nothing', 'bench_nothing';

-- The usual lease table, at its best: the rows are there, each update finds room
-- beside the old version, and no index but the key's has to be kept.
CREATE TABLE bench.lease
(
	name       text PRIMARY KEY,
	token      bigint NOT NULL,
	expires_at timestamptz NOT NULL
)
WITH (fillfactor = 50);
INSERT INTO bench.lease
SELECT kind || '/' || client, 1, CASE kind WHEN 'pair' THEN '-infinity' ELSE 'infinity' END::timestamptz
FROM generate_series(0, 99) client, unnest(ARRAY['renew', 'pair', 'account']) kind;
INSERT INTO bench.lease VALUES ('hand-over', 1, '-infinity');

-- Acquire from it as its users do: ask, and ask again after 10 ms.  Who finds the name
-- taken writes nothing; the loop is here, so that a poll takes no round trip.
CREATE PROCEDURE bench.acquire_polled(wanted text, INOUT granted bigint)
	LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		UPDATE bench.lease SET token = token + 1, expires_at = clock_timestamp() + '30 s'
		WHERE name = wanted AND expires_at <= clock_timestamp()
		RETURNING token INTO granted;
		EXIT WHEN FOUND;
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
END
$$;

-- A commit of one row.
CREATE TABLE bench.commits (client integer NOT NULL);

-- What is written under guard.
CREATE TABLE bench.account (id integer PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO bench.account SELECT client, 0 FROM generate_series(0, 99) client;

-- The leases that are held all the time.  The scripts ask for them by the same
-- request id, and so get the tokens of these grants.
SELECT count(lease.acquire(kind || '/' || client, '1 hour', request_id => 'bench')) AS held
FROM generate_series(0, 99) client, unnest(ARRAY['renew', 'account']) kind;

VACUUM (ANALYZE) bench.lease, bench.account;
