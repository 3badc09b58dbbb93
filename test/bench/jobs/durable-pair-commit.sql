-- The limit of a durable pair: two round trips and one commit.
--
--	pgbench -n -M prepared -D ready=0 -f test/bench/jobs/durable-pair-commit.sql -c 8 -j 2 -T 3

INSERT INTO bench.commits VALUES (:client_id);
SELECT 1 AS one \gset
