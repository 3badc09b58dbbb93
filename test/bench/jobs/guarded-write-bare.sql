-- Write the client's own row, with no guard.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/guarded-write-bare.sql -c 8 -j 2 -T 3

UPDATE bench.account SET balance = balance + 1 WHERE id = :client_id;
