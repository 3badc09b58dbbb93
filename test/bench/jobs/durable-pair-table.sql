-- Acquire and release a row of a lease table; each client has a name of its own.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/durable-pair-table.sql -c 8 -j 2 -T 3

\if :ready = 0
SELECT 'pair/' || :client_id AS name, 1 AS ready \gset
\endif
INSERT INTO bench.lease AS l VALUES (:name, 1, now() + '30 s') ON CONFLICT (name) DO UPDATE SET token = l.token + 1, expires_at = EXCLUDED.expires_at WHERE l.expires_at <= now() RETURNING token \gset
UPDATE bench.lease SET expires_at = '-infinity' WHERE name = :name AND token = :token;
