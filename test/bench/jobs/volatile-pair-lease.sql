-- Acquire and release a lease of the session; each client has a name of its own.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/volatile-pair-lease.sql -c 8 -j 2 -T 3

\if :ready = 0
SELECT 'pair/' || :client_id AS name, 1 AS ready \gset
\endif
SELECT lease.try_acquire(:name, scope => 'session') AS token \gset
SELECT lease.release(:name, :token);
