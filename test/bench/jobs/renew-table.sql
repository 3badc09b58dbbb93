-- Renew the client's own row of a lease table.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/renew-table.sql -c 8 -j 2 -T 3

\if :ready = 0
SELECT name, token, 1 AS ready FROM bench.lease WHERE name = 'renew/' || :client_id \gset
\endif
UPDATE bench.lease SET expires_at = now() + '1 hour' WHERE name = :name AND token = :token AND expires_at > now() RETURNING true AS renewed \gset
