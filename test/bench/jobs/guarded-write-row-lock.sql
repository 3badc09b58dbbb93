-- Write the client's own row, with the row lock of its row of a lease table as the guard.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/guarded-write-row-lock.sql -c 8 -j 2 -T 3

\if :ready = 0
SELECT name, token, 1 AS ready FROM bench.lease WHERE name = 'account/' || :client_id \gset
\endif
BEGIN;
SELECT token AS mine FROM bench.lease WHERE name = :name AND token = :token FOR UPDATE \gset
UPDATE bench.account SET balance = balance + 1 WHERE id = :client_id;
COMMIT;
