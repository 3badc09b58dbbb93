-- All clients want one advisory lock; who has it releases it at once.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/hand-over-advisory.sql -c 8 -j 2 -T 3

SELECT pg_advisory_lock(1000) AS locked \gset
SELECT pg_advisory_unlock(1000);
