-- Call a function that does nothing with the arguments of a renewal.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/renew-nothing.sql -c 8 -j 2 -T 3

\if :ready = 0
SELECT 'renew/' || :client_id AS name, lease.acquire('renew/' || :client_id, '1 hour', request_id => 'bench') AS token, 1 AS ready \gset
\endif
SELECT bench.nothing(:name, :token, '1 hour') AS renewed \gset
\if not :renewed
SELECT 'the lease is lost'::integer;
\endif
