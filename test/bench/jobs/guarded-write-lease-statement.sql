-- Write the client's own row; the guard of its lease is a statement before.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/guarded-write-lease-statement.sql -c 8 -j 2 -T 3

\if :ready = 0
SELECT 'account/' || :client_id AS name, lease.acquire('account/' || :client_id, '1 hour', request_id => 'bench') AS token, 1 AS ready \gset
\endif
BEGIN;
SELECT lease.guard(:name, :token);
UPDATE bench.account SET balance = balance + 1 WHERE id = :client_id;
COMMIT;
