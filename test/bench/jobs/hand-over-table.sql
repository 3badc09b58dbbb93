-- All clients want one row of a lease table, and poll for it; who has it releases it at once.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/hand-over-table.sql -c 8 -j 2 -T 3

CALL bench.acquire_polled('hand-over', NULL) \gset
UPDATE bench.lease SET expires_at = '-infinity' WHERE name = 'hand-over' AND token = :granted;
