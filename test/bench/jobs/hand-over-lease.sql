-- All clients want one lease, of the session; who has it releases it at once.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/hand-over-lease.sql -c 8 -j 2 -T 3

SELECT lease.acquire('hand-over', scope => 'session') AS token \gset
SELECT lease.release('hand-over', :token);
