--
-- Keeping a lease and losing it: renew, release, is_held, and the deadline.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools

--
-- Renewal
--
SELECT lease.try_acquire('kept', ttl => '10 min') AS t \gset

-- Without a TTL it starts the lease's own anew.
SELECT pg_temp.advance_lease_clock('6 min');
SELECT remaining <= interval '4 min' AS ran FROM lease.leases;
SELECT lease.renew('kept', :t);
SELECT ttl, remaining > interval '9 min' AS anew, renewals,
       renewed_at >= acquired_at AND renewed_at <= clock_timestamp() AS renewed_at_set
FROM lease.leases;
SELECT pg_temp.advance_lease_clock('6 min');
SELECT lease.is_held('kept', :t) AS still_held;

-- A longer one goes to the ledger: its row is replaced, not doubled.
SELECT lease.renew('kept', :t, '1 h');
SELECT ttl, remaining > interval '59 min' AS longer, renewals, durable FROM lease.leases;
SELECT kind, name, token = :t AS same, ttl FROM lease.ledger WHERE kind = 'grant';
SELECT lease.renew('kept', :t);

-- A shorter one counts at once, and need not be in the ledger.
SELECT lease.renew('kept', :t, '1 min');
SELECT ttl, remaining <= interval '1 min' AS shorter FROM lease.leases;
SELECT ttl FROM lease.ledger WHERE kind = 'grant';
SELECT pg_temp.advance_lease_clock('61 s');
SELECT lease.is_held('kept', :t);
SELECT count(*) FROM lease.leases;

-- Past its deadline a lease is lost, reaped or not, wanted or not: neither way
-- of renewing gives it back, and is_held knows.
SELECT pg_temp.attempt(format('SELECT lease.renew(%L, %s)', 'kept', :t)) ~ '^LE001: lease "kept" is not held with token TOKEN' AS lost;
SELECT pg_temp.attempt(format('SELECT lease.renew(%L, %s, %L)', 'kept', :t, '1 h')) ~ '^LE001' AS lost;
SELECT lease.try_renew('kept', :t), lease.try_renew('kept', :t, '1 h'), lease.is_held('kept', :t);

-- The same in the very statement that finds it expired.
SELECT lease.try_acquire('instant', ttl => '1 min') AS t \gset
SELECT pg_temp.advance_lease_clock('1 min'), lease.try_renew('instant', :t);

-- Until its deadline it holds.
SELECT lease.try_acquire('to the end', ttl => '1 h') AS t \gset
SELECT pg_temp.advance_lease_clock('59 min'), lease.try_renew('to the end', :t);
SELECT pg_temp.advance_lease_clock('59 min'), lease.try_acquire('to the end') AS taken;
SELECT pg_temp.advance_lease_clock('61 s');
SELECT lease.try_acquire('to the end') > :t AS taken_over;
SELECT lease.release(name, token) FROM lease.leases;

-- A name counts, not only a token; a token counts, not only a name.
SELECT lease.try_acquire('one', ttl => '1 h') AS t1 \gset
SELECT lease.try_acquire('two', ttl => '1 h') AS t2 \gset
SELECT lease.is_held('one', :t1), lease.is_held('two', :t2), lease.is_held('one', :t2), lease.is_held('two', :t1);
SELECT lease.try_renew('one', :t2), lease.try_renew('two', :t1), lease.try_renew('one', :t1 - 1);

-- Metadata outlasts the renewal that replaces the row.
SELECT lease.try_acquire('with metadata', ttl => '1 s', metadata => '{"k": "v"}') AS t3 \gset
SELECT lease.renew('with metadata', :t3, '1 h');
SELECT metadata FROM lease.leases WHERE name = 'with metadata';
SELECT lease.release('with metadata', :t3);

-- A renewal is no business of the transaction, either.
BEGIN;
SELECT lease.renew('one', :t1, '2 h');
ROLLBACK;
SELECT ttl FROM lease.leases WHERE name = 'one';
SELECT ttl FROM lease.ledger WHERE name = 'one';

--
-- Release
--
SELECT lease.release('one', :t1);
SELECT lease.is_held('one', :t1), lease.try_renew('one', :t1);

-- Released already: false, and a warning.
\set VERBOSITY sqlstate
SELECT lease.release('one', :t1);

-- A release retried after somebody else acquired does not release theirs, nor
-- does an old term's release end the newer term of the same holder.
SELECT lease.try_acquire('one', ttl => '1 h', holder => 'somebody else') AS theirs \gset
SELECT lease.release('one', :t1);
SELECT lease.is_held('one', :theirs) AS still_theirs;
SELECT lease.try_renew('one', :t1) AS renewed_by_old_term;
SELECT lease.is_held('one', :theirs) AS still_theirs;

-- Without the token nobody releases.
SELECT lease.release('one', :theirs + 1), lease.release('one', :t2), lease.release('three', :theirs);
SELECT lease.is_held('one', :theirs) AS still_theirs;

-- Expired counts as lost, too.
SELECT pg_temp.advance_lease_clock('1 h');
SELECT lease.release('one', :theirs), lease.release('two', :t2);
\set VERBOSITY default
SELECT count(*) FROM lease.leases;

-- Many deadlines at once, the way a restart makes them: all are over together,
-- and all names can be taken again.
SELECT count(lease.try_acquire('mass/' || n, ttl => '5 min')) FROM generate_series(1, 500) n;
SELECT pg_temp.advance_lease_clock('5 min');
SELECT count(*) FROM lease.leases;
SELECT count(lease.try_acquire('mass/' || n, ttl => '5 min')) FROM generate_series(1, 500) n;
SELECT count(*) FROM lease.leases;
SELECT count(*) FROM (SELECT lease.release(name, token) AS done FROM lease.leases) released WHERE done;
