-- Write the client's own row, in one statement with the guard of its lease.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/guarded-write-lease.sql -c 8 -j 2 -T 3

\if :ready = 0
SELECT 'account/' || :client_id AS name, lease.acquire('account/' || :client_id, '1 hour', request_id => 'bench') AS token, 1 AS ready \gset
\endif
UPDATE bench.account SET balance = balance + 1 WHERE id = :client_id AND lease.guard(:name, :token) = :token;
