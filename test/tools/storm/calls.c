/*-------------------------------------------------------------------------
 *
 * calls.c
 *	  What a client asks the server for, and what it believes of the answers.
 *
 * Each call is noted before it is sent and settled when there is an answer; who is
 * interrupted does not know what became of the call, and looks.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storm.h"

PGconn	   *conn;
jmp_buf		connection_lost;	/* where to go on if it is */

static const char *const scope_names[] = {"detached", "session", "transaction"};

static PGresult *result;		/* of the last statement */

static void
count_interruption(const char *state, const char *message)
{
	if (strcmp(state, "57P01") == 0)
		me->counts[TERMINATED]++;
	else if (strcmp(state, "55P03") == 0)
		me->counts[strstr(message, "lock timeout") ? LOCK_TIMEOUTS : WAIT_TIMEOUTS]++;
	else if (strstr(message, "statement timeout"))
		me->counts[STATEMENT_TIMEOUTS]++;
	else
		me->counts[CANCELLED]++;
}

/* What an error says of its statement; does not return if the session is over. */
static Outcome
judge_error(const char *sql)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = result ? PQresultErrorMessage(result) : PQerrorMessage(conn);

	if (state && (strcmp(state, "57014") == 0 || strcmp(state, "55P03") == 0 ||
				  strcmp(state, "57P01") == 0))
		count_interruption(state, message);
	if (PQstatus(conn) != CONNECTION_OK || !state)
	{
		if (me->doomed_at == 0)
			wrong("wrong connection of client %d lost: %s", my_number, message);
		longjmp(connection_lost, 1);
	}
	if (strcmp(state, "57014") == 0)
		return INTERRUPTED;
	if (strcmp(state, "55P03") == 0)
		return TIMED_OUT;
	if (strcmp(state, "LE001") == 0)
		return LOST;
	wrong("wrong error %s: %.100s: %.60s", state, message, sql);
	return INTERRUPTED;
}

/*
 * Keeps the first error: after that of a termination another one says only that
 * the connection is closed.
 */
static Outcome
run(const char *sql)
{
	PGresult   *next;
	bool		failed = false;

	PQclear(result);
	result = NULL;
	if (PQsendQuery(conn, sql))
		while ((next = PQgetResult(conn)) != NULL)
		{
			if (failed)
			{
				PQclear(next);
				continue;
			}
			PQclear(result);
			result = next;
			failed = PQresultStatus(next) != PGRES_TUPLES_OK &&
				PQresultStatus(next) != PGRES_COMMAND_OK;
		}
	return result == NULL || failed ? judge_error(sql) : DONE;
}

Outcome
ask(const char *format, ...)
{
	char		sql[4000];
	va_list		args;

	va_start(args, format);
	vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);
	return run(sql);
}

/* Ask until there is an answer. */
Outcome
insist(const char *format, ...)
{
	char		sql[4000];
	va_list		args;
	Outcome		outcome;

	va_start(args, format);
	vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);
	for (int tries = 1; (outcome = run(sql)) == INTERRUPTED; tries++)
		if (tries > 3 && PQtransactionStatus(conn) == PQTRANS_IDLE)
			run("RESET statement_timeout");
	return outcome;
}

static int64_t
number(int row, int column)
{
	return PQgetisnull(result, row, column) ? 0 : atoll(PQgetvalue(result, row, column));
}

static bool
is_true(void)
{
	return PQntuples(result) == 1 && *PQgetvalue(result, 0, 0) == 't';
}

/* The server says that it is lost: too early, if we are still sure of it. */
static void
hear_of_loss(const Hold *hold, bool was_sure)
{
	if (was_sure && now_us() < hold->deadline && storm->phase == RUN)
		wrong("lost %d %" PRId64 " c%d.%u", hold->name, hold->token, my_number, hold->op);
}

/* Let go of a lease, however often we hold it. */
void
release(Hold *hold)
{
	bool		was_sure = hold->until == 0;
	Outcome		outcome;

	end_hold(hold, now_us());
	outcome = ask("SELECT lease.release('%s', %" PRId64 ")", name_of(hold->name), hold->token);
	if (outcome == DONE && !is_true())
		hear_of_loss(hold, was_sure);
	for (;;)
	{
		insist("SELECT lease.is_held('%s', %" PRId64 ")", name_of(hold->name), hold->token);
		if (!is_true())
			break;
		ask("SELECT lease.release('%s', %" PRId64 ")", name_of(hold->name), hold->token);
	}
	hold->over = true;
}

/* A TTL, in microseconds and as SQL; 0 and NULL: none. */
static const char *
random_ttl(Scope scope, int64_t *ttl)
{
	static char buffer[40];
	int			kind = below(10);

	*ttl = 0;
	if (scope != DETACHED && chance(70))
		return "NULL";
	if (kind < 2)
		*ttl = 2000 + below(20000);
	else if (kind < 5)
		*ttl = 50000 + below(500000);
	else if (kind < 9)
		*ttl = SECOND + below(2 * SECOND);
	else
		*ttl = 20 * SECOND;
	sprintf(buffer, "'%" PRId64 " us'", *ttl);
	return buffer;
}

/* Until the answer is there it may end at the earlier of both times. */
void
renew(Hold *hold)
{
	int64_t		sent = now_us();
	int64_t		former = hold->deadline;
	int64_t		ttl;
	const char *text = random_ttl(DETACHED, &ttl);
	Outcome		outcome;

	if (hold->ttl == 0 || hold->until != 0)
		return;
	if (sent + ttl < former)
		hold->deadline = sent + ttl;
	outcome = ask("SELECT lease.%s('%s', %" PRId64 ", %s)", chance(50) ? "renew" : "try_renew",
				  name_of(hold->name), hold->token, text);
	if (outcome == LOST || (outcome == DONE && *PQgetvalue(result, 0, 0) == 'f'))
	{
		hold->deadline = former;
		hear_of_loss(hold, true);
		end_hold(hold, sent);
		hold->over = true;
	}
	else if (outcome == DONE)
	{
		me->counts[RENEWALS]++;
		hold->deadline = sent + ttl;
		hold->ttl = ttl;
	}
	else
		hold->ttl = ttl < hold->ttl ? ttl : hold->ttl;
}

/*
 * What we asked for in vain may be ours all the same, if the interruption came
 * late: let go of it.  After a time-out it must not.
 */
void
look_for_leftovers(Outcome outcome)
{
	if (level > 0)
		return;
	insist("SELECT name, token FROM lease.leases WHERE holder = 'c%d.%u'", my_number, me->op);
	if (PQntuples(result) == 0)
		return;
	if (outcome == TIMED_OUT)
		wrong("left %s %s c%d.%u", PQgetvalue(result, 0, 0), PQgetvalue(result, 0, 1),
			  my_number, me->op);
	me->counts[LATE]++;
	insist("SELECT count(lease.release(name, token)) FROM lease.leases WHERE holder = 'c%d.%u'",
		   my_number, me->op);
}

/* Hand a lease over to ourselves; returns what we hold then, or NULL. */
Hold *
transfer(Hold *hold)
{
	int64_t		sent = now_us();
	Outcome		outcome;
	Hold	   *next;

	if (hold->until != 0)
		return hold;
	end_hold(hold, sent);
	me->op++;
	me->asking = true;
	outcome = ask("SELECT lease.transfer('%s', %" PRId64 ", 'c%d.%u')", name_of(hold->name),
				  hold->token, my_number, me->op);
	if (outcome == LOST)
		hear_of_loss(hold, true);
	if (outcome == INTERRUPTED)
	{
		release(hold);
		look_for_leftovers(outcome);
	}
	hold->over = true;
	if (outcome != DONE)
	{
		me->asking = false;
		return NULL;
	}
	next = add_hold(hold->name, hold->need, number(0, 0), sent, DETACHED, hold->ttl);
	me->asking = false;
	next->in_order = false;
	me->counts[TRANSFERS]++;
	return next;
}

static const char *
random_wait(void)
{
	static char buffer[40];

	if (chance(70))
		return "NULL";
	sprintf(buffer, "'%d us'", 200 + below(30000));
	return buffer;
}

/* The call that asks for it, and its TTL. */
static void
write_call(const Wish *wish, char *sql, int64_t *ttl)
{
	const char *try = wish->no_wait ? "try_" : "";
	int			capacity = capacity_of(wish->names[0]);

	if (wish->campaign)
		sql += sprintf(sql, "CALL lease.campaign('%s'", name_of(wish->names[0]));
	else if (wish->count > 1)
	{
		sql += sprintf(sql, "SELECT token, name FROM lease.%sacquire_all(ARRAY[", try);
		for (int i = wish->count - 1; i >= 0; i--)
			sql += sprintf(sql, "'%s'%s", name_of(wish->names[i]), i > 0 ? "," : "]");
	}
	else if (capacity == WHOLE)
		sql += sprintf(sql, "SELECT lease.%sacquire('%s'", try, name_of(wish->names[0]));
	else
		sql += sprintf(sql, "SELECT lease.%sacquire_permit('%s', %d, %d", try,
					   name_of(wish->names[0]), capacity, wish->need);
	if (capacity == WHOLE)
		sql += sprintf(sql, ", mode => '%s'", wish->need == WHOLE ? "exclusive" : "shared");
	if (!wish->no_wait)
		sql += sprintf(sql, ", wait => %s", random_wait());
	if (wish->request_id)
		sql += sprintf(sql, ", request_id => '%s'", wish->request_id);
	sprintf(sql, ", ttl => %s, scope => '%s', holder => 'c%d.%u')",
			random_ttl(wish->scope, ttl), scope_names[wish->scope], my_number, me->op);
}

/* Stand still while we are to, with all that we hold. */
void
check_point(void)
{
	while (storm->phase == PAUSE)
	{
		me->busy = false;
		pause_ms(5);
	}
	me->busy = true;
}

/*
 * Ask for it.  Returns how many grants there are now, the last of our holds:
 * all that we wished for, or none.
 */
int
acquire(const Wish *wish)
{
	char		sql[4000];
	int64_t		ttl;
	int64_t		sent;
	Outcome		outcome;
	int			got = 0;

	check_point();
	if (storm->phase != RUN)
		return 0;
	if (!wish->request_id)
		me->op++;
	write_call(wish, sql, &ttl);
	me->asking = true;
	doubt(level);
	sent = now_us();
	outcome = run(sql);
	settle(outcome == DONE);
	if (outcome == DONE && !PQgetisnull(result, 0, 0))
		for (; got < PQntuples(result); got++)
			add_hold(wish->names[got], wish->need, number(got, 0), sent, wish->scope, ttl);
	if (outcome != DONE && !wish->request_id)
		look_for_leftovers(outcome);
	if (outcome == DONE || !wish->request_id)
		me->asking = false;
	if (outcome == DONE && got != wish->count && !(wish->no_wait && got == 0))
		wrong("wrong %d of %d leases for %s", got, wish->count, sql);
	return got;
}

/* Let go of all that the session holds. */
void
release_session(void)
{
	int			at = me->first_open;
	Hold	   *hold;

	while ((hold = next_open(&at)))
		if (hold->scope == SESSION)
			end_hold(hold, now_us());
	insist("SELECT lease.release_session()");
	for (int i = me->first_open; i < me->nholds; i++)
		me->holds[i].over |= me->holds[i].scope == SESSION;
}

/*
 * Once more what we hold in a session or transaction: the same token, unless
 * the TTL was over.
 */
void
acquire_again(Hold *hold)
{
	int64_t		sent = now_us();
	int64_t		token;

	doubt(level);
	if (ask("SELECT lease.acquire('%s', mode => '%s', scope => '%s', ttl => %s)",
			name_of(hold->name), hold->need == WHOLE ? "exclusive" : "shared",
			scope_names[hold->scope], hold->ttl ? "'10 s'" : "NULL") != DONE)
	{
		settle(false);
		if (hold->scope == SESSION && hold->ttl > 0)
			release_session();
		return;
	}
	settle(true);
	token = number(0, 0);
	if (token != hold->token)
	{
		if (hold->ttl == 0)
			wrong("again %d %" PRId64 " %" PRId64 " c%d.%u", hold->name, hold->token, token,
				  my_number, me->op);
		end_hold(hold, sent);
		hold->over = true;
		hold = add_hold(hold->name, hold->need, token, sent, hold->scope, 10 * SECOND);
		hold->in_order = false;
		if (hold->scope == SESSION)
			release(hold);
		return;
	}
	me->counts[REENTRIES]++;
	if (chance(50))
		return;
	doubt(level);
	settle(ask("SELECT lease.release('%s', %" PRId64 ")", name_of(hold->name), token) == DONE);
}
