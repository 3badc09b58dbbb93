-- Take and release an advisory lock; each client has a key of its own.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/volatile-pair-advisory.sql -c 8 -j 2 -T 3

SELECT pg_advisory_lock(:client_id) AS locked \gset
SELECT pg_advisory_unlock(:client_id);
