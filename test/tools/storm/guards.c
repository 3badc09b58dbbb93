/*-------------------------------------------------------------------------
 *
 * guards.c
 *	  What fills the life of a client whose transactions are guarded by leases.
 *
 * A transaction leaves a row for each lease that guards it, which says how many
 * rows of other tokens there were as it began to read.  So the table tells of
 * those that committed, whatever their clients learned.  Nothing else keeps two of
 * them apart: no row is written twice, and no key is unique.
 *
 * Statements are sent one by one or several together, as chance will have it.
 * Tokens are left where others find them, who then guard, transfer, renew or
 * release with them, too.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storm.h"

#define MAX_TERMS	2

/* One lease, as a client knows it. */
typedef struct Term
{
	int			name;
	int64_t		token;
	bool		shared;
	bool		detached;
	int			ttl;			/* milliseconds */
} Term;

/* One transaction. */
typedef struct Deal
{
	Term		terms[MAX_TERMS];
	int			count;
	bool		implied;		/* the leases are the transaction's: no guard is needed */
	uint32_t	traits;
} Deal;

static char script[8000];		/* what is to be sent next */
static size_t script_length;
static PGresult *result;		/* of its last statement */
static Fate fate;				/* COMMITTED, as long as nothing failed */
static bool in_deal;
static bool session_holds;		/* it may hold leases, for all we know */

static const char *
guard_name(int name)
{
	static char buffers[4][40];
	static int	turn = 0;
	char	   *buffer = buffers[turn++ % 4];

	sprintf(buffer, "guard/%05d", name);
	return buffer;
}

static int
any_name(void)
{
	return siege->round * options.names + below(options.names);
}

/* What an error means; does not return if the session is over. */
static Fate
judge_failure(void)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = result ? PQresultErrorMessage(result) : PQerrorMessage(conn);

	if (PQstatus(conn) != CONNECTION_OK || !state)
	{
		if (me->doomed_at == 0)
			wrong("wrong connection of client %d lost: %s", my_number, message);
		longjmp(connection_lost, 1);
	}
	if (strcmp(state, "LE001") == 0)
		return PQtransactionStatus(conn) == PQTRANS_IDLE ? LOST_AT_COMMIT : LOST_EARLY;
	if (strcmp(state, "40001") == 0)
		return strstr(message, "could not serialize") ? CONFLICTED : TOO_OLD;
	if (strcmp(state, "57014") == 0)
		return STOPPED;
	if (strcmp(state, "55P03") == 0)
		return TIRED;
	wrong("wrong error %s: %.100s: %.60s", state, message, script);
	return STOPPED;
}

/* Send what was said.  After a failure nothing is, until the next beginning. */
static void
send_script(void)
{
	ExecStatusType status;

	if (script_length == 0)
		return;
	PQclear(result);
	result = NULL;
	result = PQexec(conn, script);
	status = PQresultStatus(result);
	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		fate = judge_failure();
	script_length = 0;
}

static void
say(const char *format, ...)
{
	va_list		args;

	if (fate != COMMITTED)
		return;
	va_start(args, format);
	script_length += vsnprintf(script + script_length, sizeof(script) - script_length, format, args);
	va_end(args);
	if (script_length >= sizeof(script))
		die("too much to say");
	if (chance(40))
		send_script();
}

/* Say something by itself; false if it failed. */
static bool
say_alone(const char *format, ...)
{
	va_list		args;

	send_script();
	if (fate != COMMITTED)
		return false;
	va_start(args, format);
	script_length = vsnprintf(script, sizeof(script), format, args);
	va_end(args);
	send_script();
	return fate == COMMITTED;
}

/* What fails outside of a transaction is of no interest. */
static bool
try(const char *format, const char *name, int64_t token)
{
	bool		done;

	fate = COMMITTED;
	done = say_alone(format, name, token);
	fate = COMMITTED;
	return done;
}

static int64_t
number(int row, int column)
{
	return row >= PQntuples(result) || PQgetisnull(result, row, column) ? 0 :
		atoll(PQgetvalue(result, row, column));
}

/* Pretend to work, sometimes until after the TTL. */
static void
work(const Deal *deal)
{
	if (chance(60))
		return;
	send_script();
	pause_ms(below(2 * deal->terms[0].ttl + 1));
}

/* Leave a token to others. */
static void
publish(const Term *term)
{
	siege->tokens[term->name] = term->token * 4 + term->shared * 2 + term->detached;
	siege->latest = term->name;
}

/* The latest one may well be in use just now. */
static bool
find_published(Term *term)
{
	int			name = chance(50) ? siege->latest : any_name();
	int64_t		found = siege->tokens[name];

	*term = (Term) {name, found / 4, found & 2, found & 1, 5};
	return found != 0;
}

/* Wait for a lease, or several. */
static bool
obtain(Deal *deal, const char *scope, int count)
{
	Term	   *first = &deal->terms[0];
	char		names[200];
	char		ttl[40];

	*first = (Term) {.name = any_name(), .shared = chance(15), .ttl = 1 + below(10)};
	first->detached = *scope == 'd';
	sprintf(names, "'%s'", guard_name(first->name));
	deal->count = count;
	if (count == 2)
	{
		/* The next name, or that and the last but one of those in use. */
		first->name -= first->name % options.names == options.names - 1;
		deal->terms[1] = *first;
		deal->terms[1].name++;
		sprintf(names, "ARRAY['%s', '%s']", guard_name(first->name), guard_name(first->name + 1));
	}
	session_holds |= *scope == 's';
	sprintf(ttl, "'%d ms'", first->ttl);
	if (!say_alone("SELECT %s(%s, ttl => %s, wait => '%d ms', mode => '%s', scope => '%s')%s",
				   count == 2 ? "token FROM lease.acquire_all" : "lease.acquire", names,
				   *scope == 't' && chance(50) ? "NULL" : ttl, 1 + below(40),
				   first->shared ? "shared" : "exclusive", scope,
				   count == 2 ? " ORDER BY name" : ""))
		return false;
	for (int i = 0; i < count; i++)
	{
		deal->terms[i].token = number(i, 0);
		if (chance(70))
			publish(&deal->terms[i]);
	}
	return true;
}

/* Hand a lease over, without waiting for the disk, and go on with the new token. */
static bool
hand_over(Term *term)
{
	if (!term->detached ||
		!try("SELECT lease.transfer('%s', %" PRId64 ", 'next')"
			 " FROM set_config('synchronous_commit', 'off', true)",
			 guard_name(term->name), term->token))
		return false;
	term->token = number(0, 0);
	publish(term);
	return true;
}

static void
begin(Deal *deal, int level)
{
	static const char *const levels[] = {"READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"};

	if (me->op + 1 >= MAX_OPS)
		die("too many transactions");
	me->op++;
	in_deal = true;
	fate = COMMITTED;
	deal->traits |= 1U << (AT_READ_COMMITTED + level);
	say("BEGIN ISOLATION LEVEL %s;", levels[level]);
}

static int
any_level(void)
{
	return chance(60) ? 0 : chance(65) ? 1 : 2;
}

/* NTRAITS: in the statement that reads, which has done so when it comes to the guard. */
static Trait
any_way(void)
{
	int			kind = below(100);

	return kind < 60 ? NTRAITS : kind < 75 ? GUARDED_AFTER : kind < 90 ? GUARDED_BEFORE :
		GUARDED_AT_COMMIT;
}

/* Leave a row, and guard it; a row that is late is guarded by a trigger at commit. */
static void
record(Deal *deal, const Term *term)
{
	Trait		way = deal->implied ? OF_TRANSACTION : any_way();
	const char *shared = term->shared ? "true" : "false";
	char		token[30];
	char		guard[100];

	sprintf(token, "%" PRId64, term->token);
	sprintf(guard, "lease.guard('%s', %" PRId64 ")", guard_name(term->name), term->token);
	if (way != NTRAITS)
		deal->traits |= 1U << way;
	if (way == GUARDED_BEFORE)
	{
		say("SELECT %s;", guard);
		work(deal);
	}
	say("INSERT INTO commits SELECT %d, %s, %s, count(*) FILTER (WHERE token < %s),"
		" count(*) FILTER (WHERE token > %s), %d, %d, %s FROM commits"
		" WHERE name = %d AND NOT (shared AND %s);", term->name, way == NTRAITS ? guard : token,
		shared, token, token, my_number, me->op, way == GUARDED_AT_COMMIT ? "true" : "false",
		term->name, shared);
	if (way == GUARDED_AFTER)
	{
		work(deal);
		say("SELECT %s;", guard);
	}
}

/* More that a transaction may do with its lease, or otherwise. */
static void
embellish(Deal *deal)
{
	const Term *term = &deal->terms[below(deal->count)];

	if (chance(12))
	{
		deal->traits |= 1U << RENEWED;
		say("SELECT lease.renew('%s', %" PRId64 ");", guard_name(term->name), term->token);
	}
	if (chance(12))
	{
		deal->traits |= 1U << RELEASED;
		say("SELECT lease.release('%s', %" PRId64 ");", guard_name(term->name), term->token);
	}
	if (chance(20))
	{
		deal->traits |= 1U << NOTIFIED;
		say("NOTIFY guards;");
	}
	if (chance(4))
	{
		deal->traits |= 1U << CROWDED;
		say("SELECT crowd();");
	}
}

static void
count_end(const Deal *deal)
{
	in_deal = false;
	siege->fates[my_number][fate]++;
	siege->words[my_number][me->op] = fate == COMMITTED ? YES : NO;
	for (int i = 0; i < NTRAITS; i++)
		siege->traits[my_number][i] += fate == COMMITTED && (deal->traits & 1U << i) != 0;
}

/* Returns whether it committed, as wished or not. */
static bool
end(const Deal *deal, bool commit)
{
	bool		committed;

	if (commit && deal->terms[0].detached)
		publish(&deal->terms[0]);
	if (commit)
		say("COMMIT;");
	send_script();
	if (fate == COMMITTED && PQtransactionStatus(conn) != PQTRANS_IDLE)
		fate = ROLLED_BACK;
	count_end(deal);
	committed = fate == COMMITTED;
	while (PQtransactionStatus(conn) != PQTRANS_IDLE)
		try("ROLLBACK", NULL, 0);
	return committed;
}

/* All of a transaction that has begun. */
static bool
go_on(Deal *deal)
{
	bool		nested = chance(12);

	if (!deal->implied && chance(8))
	{
		deal->traits |= 1U << GUARDED_AGAIN;
		say("SAVEPOINT vain; SELECT lease.guard('%s', %" PRId64 "); ROLLBACK TO vain;",
			guard_name(deal->terms[0].name), deal->terms[0].token);
	}
	if (nested)
	{
		deal->traits |= 1U << NESTED;
		say("SAVEPOINT nest;");
	}
	for (int i = 0; i < deal->count; i++)
		record(deal, &deal->terms[i]);
	if (deal->terms[0].shared)
		deal->traits |= 1U << OF_SHARED;
	if (deal->count > 1)
		deal->traits |= 1U << OF_SEVERAL;
	work(deal);
	if (nested)
		say("RELEASE nest;");
	embellish(deal);
	work(deal);
	return end(deal, chance(93));
}

static bool
transact(Deal *deal, uint32_t trait)
{
	deal->traits = trait;
	begin(deal, any_level());
	return go_on(deal);
}

/* Some transactions under a lease, or several. */
static void
episode_ordinary(int count)
{
	Deal		deal = {0};
	bool		detached = chance(50);
	uint32_t	trait = detached ? 0 : 1U << OF_SESSION;

	fate = COMMITTED;
	if (!obtain(&deal, detached ? "detached" : "session", count))
	{
		siege->fates[my_number][fate]++;
		return;
	}
	while (transact(&deal, trait) && chance(40))
	{
		if (chance(40) && !hand_over(&deal.terms[0]))
			break;
		trait = deal.count == 1 && detached ? 1U << HANDED_OVER : trait;
	}
	if (chance(60))
		for (int i = 0; i < count; i++)
			try("SELECT lease.release('%s', %" PRId64 ")", guard_name(deal.terms[i].name),
				deal.terms[i].token);
}

/* The transaction's own lease, which guards it without being asked to. */
static void
episode_own(void)
{
	Deal		deal = {.implied = true};

	begin(&deal, 0);
	if (obtain(&deal, "transaction", 1))
		go_on(&deal);
	else
		end(&deal, false);
}

/* A lease that comes to a transaction which has begun to read. */
static void
episode_late(void)
{
	Deal		deal = {.traits = 1U << ACQUIRED_INSIDE};
	bool		found;

	begin(&deal, any_level());
	say("SELECT count(*) FROM commits WHERE name = %d;", any_name());
	send_script();
	pause_ms(below(5));
	if (fate == COMMITTED && chance(70))
		found = obtain(&deal, chance(50) ? "detached" : "session", 1);
	else
	{
		found = find_published(&deal.terms[0]);
		deal.count = 1;
	}

	/* Only a warning, and no younger snapshot. */
	if (chance(20))
		say("BEGIN;");
	if (found)
		go_on(&deal);
	else
		end(&deal, false);
}

/* What others hold: act on it, too. */
static void
episode_borrowed(void)
{
	Deal		deal = {.count = 1};
	Term	   *term = &deal.terms[0];
	int			kind = below(100);

	if (!find_published(term))
		return;
	if (kind < 55)
	{
		if (hand_over(term))
			transact(&deal, 1U << HANDED_OVER);
	}
	else if (kind < 84)
		transact(&deal, 1U << OF_OTHERS);
	else
		try(kind < 92 ? "SELECT lease.renew('%s', %" PRId64 ")" :
			"SELECT lease.release('%s', %" PRId64 ")", guard_name(term->name), term->token);
}

void
guard_episode(void)
{
	int			kind = below(100);

	/* An upgrade of what the session still holds would be an error. */
	if (session_holds)
		session_holds = !try("SELECT lease.release_session()", NULL, 0);
	if (session_holds)
		return;
	if (kind < 46)
		episode_ordinary(1);
	else if (kind < 54)
		episode_ordinary(2);
	else if (kind < 64)
		episode_own();
	else if (kind < 75)
		episode_late();
	else
		episode_borrowed();
}

/* Some sessions take long from when a commit cannot fail to when it is visible. */
void
begin_guard(void)
{
	if (in_deal)
		siege->fates[my_number][VANISHED]++;
	in_deal = false;
	session_holds = false;
	script_length = 0;
	reconnect();
	while (!try("SET enable_seqscan = off", NULL, 0))
		;
	if (chance(40))
		try("SET synchronous_commit = off", NULL, 0);
	else if (chance(60))
		try(chance(50) ? "SET commit_delay = 3000" : "SET commit_delay = 10000", NULL, 0);
}
