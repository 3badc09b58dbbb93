-- The limit of a volatile pair: two calls of a function that does nothing.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/volatile-pair-nothing.sql -c 8 -j 2 -T 3

\if :ready = 0
SELECT 'pair/' || :client_id AS name, 1 AS ready \gset
\endif
SELECT bench.nothing(:name, 1) AS acquired \gset
SELECT bench.nothing(:name, 1);
