--
-- What people are told, word by word: WARNING, NOTICE, and what goes to the
-- server's log, which a session can have sent to itself.
--
\set ECHO none
\getenv srcdir PG_ABS_SRCDIR
\set tools :srcdir '/sql/include/tools.psql'
\ir :tools

-- A session of its own runs a statement; what varies in its answer is masked.
\setenv PGDATABASE :DBNAME
\setenv TELL 'PGOPTIONS="-c client_min_messages=log" psql -XAtq -c "$STATEMENT" 2>&1 | sed -E -e "s/(token|now) [0-9]{13,}/\\1 TOKEN/g" -e "s/until 2.*/until TIME/" -e "s/[0-9]+[.][0-9]{3} seconds/SECONDS/"'

--
-- release: why there was nothing to release, as far as that is known
--
SELECT lease.try_acquire('told', ttl => '1 h', holder => 'first') AS t1 \gset
SELECT lease.release('told', :t1);
SELECT format('SELECT lease.release(%L, %s)', 'told', :t1) AS statement \gset
\setenv STATEMENT :statement
\! eval "$TELL"

-- Somebody else has it.
SELECT lease.try_acquire('told', ttl => '1 h', holder => 'second', min_hold => '1 h') AS t2 \gset
\! eval "$TELL"

-- It was handed over.
SELECT lease.transfer('told', :t2, 'third') AS t3 \gset
SELECT format('SELECT lease.release(%L, %s)', 'told', :t2) AS statement \gset
\setenv STATEMENT :statement
\! eval "$TELL"

-- It ended, and the name is closed.
SELECT lease.release('told', :t3);
SELECT format('SELECT lease.release(%L, %s)', 'told', :t3) AS statement \gset
\setenv STATEMENT :statement
\! eval "$TELL"

-- There was never such a lease.
SELECT format('SELECT lease.release(%L, %s)', 'told', :t3 + 1000000000) AS statement \gset
\setenv STATEMENT :statement
\! eval "$TELL"

-- An error says the same.
SELECT format('SELECT lease.renew(%L, %s)', 'told', :t3) AS statement \gset
\setenv STATEMENT :statement
\! eval "$TELL"

-- try_renew and is_held answer, and say nothing.
SELECT format('SELECT lease.try_renew(%1$L, %2$s), lease.is_held(%1$L, %2$s)', 'told', :t3) AS statement \gset
\setenv STATEMENT :statement
\! eval "$TELL"

--
-- force_release: for the log, who lost what, and why; for its caller, what the
-- holder may still believe
--
SELECT lease.try_acquire('forced', ttl => '1 h', holder => 'worker 7') AS t \gset
\setenv STATEMENT 'SELECT lease.force_release(\'forced\', \'worker 7 hangs\')'
\! eval "$TELL"

-- Nothing to end: nothing to say.
\! eval "$TELL"

-- Opening a closed name ends no grant, and is on record all the same.
\setenv STATEMENT 'SELECT lease.force_release(\'told\', \'needed\', reopen => true)'
\! eval "$TELL" | grep -c '^LOG:'

--
-- new_epoch
--
\setenv STATEMENT 'SELECT lease.new_epoch(\'the server was copied\') > 0'
\! eval "$TELL | sed -E 's/epoch [0-9]+/epoch N/'"
