-- Wait for a lease that somebody has.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/idle-wait.sql -c 8 -j 2 -T 3

SELECT lease.acquire('idle');
