-- Renew the client's own lease, again and again.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/renew-lease.sql -c 8 -j 2 -T 3

\if :ready = 0
SELECT 'renew/' || :client_id AS name, lease.acquire('renew/' || :client_id, '1 hour', request_id => 'bench') AS token, 1 AS ready \gset
\endif
SELECT lease.try_renew(:name, :token, '1 hour') AS renewed \gset
\if not :renewed
SELECT 'the lease is lost'::integer;
\endif
