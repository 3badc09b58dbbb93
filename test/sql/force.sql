--
-- What administrators do: end a lease by force, and lift all future tokens.
-- What they are told of it is in messages.sql.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools
SET client_min_messages = warning;

-- The holder's next renewal notices; so does everything else that it tries.
SELECT lease.try_acquire('seized', ttl => '1 h') AS t1 \gset
SELECT lease.force_release('seized', 'holder hangs');
SELECT lease.is_held('seized', :t1), lease.try_renew('seized', :t1);
SELECT pg_temp.attempt(format('SELECT lease.renew(%L, %s)', 'seized', :t1));
SELECT pg_temp.attempt(format('SELECT lease.transfer(%L, %s, %L)', 'seized', :t1, 'next')) ~ '^LE001' AS lost;
SELECT count(*) FROM lease.ledger WHERE kind <> 'ceiling';

-- Without a token it ends whatever there is; with one that grant or none.
SELECT lease.try_acquire('seized', ttl => '1 h') AS t2 \gset
SELECT lease.force_release('seized', 'too late', token => :t1);
SELECT lease.is_held('seized', :t2) AS still_held;
SELECT lease.force_release('seized', 'in time', token => :t2);
SELECT lease.is_held('seized', :t2) AS still_held;

-- Nothing there, or nothing any more.
SELECT lease.force_release('seized', 'again'), lease.force_release('never taken', 'nothing');
SELECT lease.try_acquire('seized', ttl => '1 min') AS t3 \gset
SELECT pg_temp.advance_lease_clock('1 min');
SELECT lease.force_release('seized', 'expired');

-- ROLLBACK does not undo it.
SELECT lease.try_acquire('seized', ttl => '1 h') AS t4 \gset
BEGIN;
SELECT lease.force_release('seized', 'for good');
ROLLBACK;
SELECT lease.is_held('seized', :t4) AS still_held;

-- Bad arguments.
SELECT lease.try_acquire('seized', ttl => '1 h') AS t5 \gset
SELECT pg_temp.attempt($$SELECT lease.force_release('seized', NULL)$$);
SELECT pg_temp.attempt($$SELECT lease.force_release('seized', '')$$);
SELECT pg_temp.attempt($$SELECT lease.force_release(NULL, 'reason')$$);
SELECT pg_temp.attempt($$SELECT lease.force_release('', 'reason')$$);
SELECT pg_temp.attempt($$SELECT lease.force_release('seized', 'reason', token => 0)$$);
SELECT pg_temp.attempt($$SELECT lease.force_release('seized', 'reason', reopen => NULL)$$);
SELECT lease.is_held('seized', :t5) AS still_held;
SELECT lease.release('seized', :t5);

--
-- new_epoch
--
SELECT epoch, next_token FROM lease.status \gset
SELECT lease.try_acquire('epoch', ttl => '1 h') AS t1 \gset
SELECT lease.new_epoch('the server was copied') AS lifted \gset
SELECT lease.try_acquire('epoch too', ttl => '1 h') AS t2 \gset
SELECT :lifted > :epoch AS lifted, :t2 >> 27 = :lifted AS tokens_are_in_it, :t2 > :t1 AS larger;
SELECT epoch = :lifted AS shown FROM lease.status;

-- Leases live on, and so do their tokens.
SELECT lease.is_held('epoch', :t1), lease.try_renew('epoch', :t1), lease.is_held('epoch too', :t2);

-- One is not enough?  Another; ROLLBACK does not undo it, and the ledger has it.
BEGIN;
SELECT lease.new_epoch('once more') > :lifted AS lifted;
ROLLBACK;
SELECT epoch > :lifted AS lifted FROM lease.status;
SELECT count(*), bool_and(token >> 27 > :lifted) AS beyond FROM lease.ledger WHERE kind = 'ceiling';
SELECT pg_temp.attempt($$SELECT lease.new_epoch(NULL)$$);
SELECT pg_temp.attempt($$SELECT lease.new_epoch('')$$);
SELECT bool_and(lease.release(name, token)) FROM lease.leases;
