-- What users would assert in their own databases: leases in a test that is
-- rolled back, and the errors that their code must know.

BEGIN;
SELECT * FROM no_plan();

-- A lease is no business of the transaction, so the test gives it back itself.
CREATE TABLE pg_temp.lease AS SELECT 'pgtap/job' AS name, lease.try_acquire('pgtap/job', '1 h', holder => 'job') AS token;

SELECT ok(token > 0, 'the lease is ours') FROM pg_temp.lease;
SELECT ok(lease.is_held(name, token), 'and known to be') FROM pg_temp.lease;
SELECT is(lease.try_acquire(name), NULL, 'nobody else gets it') FROM pg_temp.lease;
SELECT is(lease.renew(name, token, '2 h'), '2 h', 'it can be renewed') FROM pg_temp.lease;

SELECT throws_ok(
	$$SELECT lease.renew(name, token - 1) FROM pg_temp.lease$$,
	'LE001', NULL, 'a stale token renews nothing');
SELECT throws_ok($$SELECT lease.try_acquire('')$$, '22023', NULL, 'a bad name is refused');
SELECT throws_ok($$SELECT lease.try_acquire(NULL)$$, '22004', NULL, 'so is none');
SELECT lives_ok($$SELECT lease.try_renew(name, token - 1) FROM pg_temp.lease$$, 'who asks politely is answered');

-- Errors did no harm.
SELECT results_eq(
	$$SELECT l.name, l.holder, l.ttl FROM lease.leases l JOIN pg_temp.lease USING (token)$$,
	$$VALUES ('pgtap/job', 'job', interval '2 h')$$,
	'the view shows it');

SELECT ok(lease.release(name, token), 'it is given back') FROM pg_temp.lease;
SELECT ok(NOT lease.is_held(name, token), 'and gone') FROM pg_temp.lease;

SELECT * FROM finish();
ROLLBACK;
