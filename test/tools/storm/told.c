/*-------------------------------------------------------------------------
 *
 * told.c
 *	  Calls, and the lines that tell of them.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "told.h"

PGconn	   *helper;
PGresult   *answer;
char		sqlstate[6];
int64_t		sent_at;
int64_t		replied_at;
char		marked[LABEL_ROOM];
int			impatience;
int64_t		noticed[64];
int			nnoticed;

static FILE *records;

static void
put(const char *text)
{
	fprintf(records, "\t%s", text && *text ? text : "\\N");
}

static void
put_number(int64_t number)
{
	if (number == 0)
		put(NULL);
	else
		fprintf(records, "\t%" PRId64, number);
}

void
tell(Line line)
{
	fputs(line.event, records);
	put(line.name);
	put_number(line.token);
	put(line.mode);
	put(line.scope);
	put(line.holder);
	put(line.correlation);
	put_number(line.pid);
	put(line.waited);
	put_number(sent_at);
	put_number(replied_at);
	put_number(line.ttl);
	put(line.detail);
	putc('\n', records);
}

/* The end of a grant, by our session. */
void
tell_end(const char *event, const char *name, int64_t token, const char *detail)
{
	tell((Line) {.event = event, .name = name, .token = token, .correlation = marked, .detail = detail});
}

/* Something of our session, and of no grant of it. */
void
tell_act(const char *event, const char *name, int64_t token, const char *detail)
{
	char		holder[LABEL_ROOM];

	snprintf(holder, sizeof(holder), "client %d", my_number);
	tell((Line) {.event = event, .name = name, .token = token, .holder = holder,
		.correlation = marked, .pid = me->backend, .detail = detail});
}

static void
hear_notice(void *arg, const PGresult *notice)
{
	const char *message = PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY);
	const char *token = message ? strstr(message, " may still act on ") : NULL;

	(void) arg;
	if (token && (token = strstr(token, "\" with token ")) && nnoticed < 64)
		noticed[nnoticed++] = atoll(token + strlen("\" with token "));
}

/* A call has failed: may it?  Does not return if the session is over. */
static void
judge_state(PGconn *on, const char *allowed, const char *sql)
{
	const char *what = PQresultErrorField(answer, PG_DIAG_SQLSTATE);
	const char *message = answer ? PQresultErrorMessage(answer) : PQerrorMessage(on);

	snprintf(sqlstate, sizeof(sqlstate), "%s", what ? what : "lost");
	if (what && strstr(allowed, sqlstate))
		return;
	if (options.hits == 0)
		wrong("wrong error %s: %.100s: %.80s", sqlstate, message, sql);
	if (PQstatus(on) != CONNECTION_OK || !what)
		longjmp(connection_lost, 1);
}

void
keep_answer(PGconn *on, PGresult *reply, const char *allowed, const char *sql)
{
	replied_at = now_us();
	PQclear(answer);
	answer = reply;
	sqlstate[0] = '\0';
	if (PQresultStatus(answer) != PGRES_TUPLES_OK && PQresultStatus(answer) != PGRES_COMMAND_OK)
		judge_state(on, allowed, sql);
}

/* Call; true if it succeeded.  It may fail with the SQLSTATEs that are allowed. */
bool
call(const char *allowed, const char *format, ...)
{
	char		sql[2000];
	va_list		args;

	va_start(args, format);
	vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);
	nnoticed = 0;
	sent_at = now_us();
	keep_answer(conn, PQexec(conn, sql), allowed, sql);
	return sqlstate[0] == '\0';
}

bool
answer_is_true(void)
{
	return PQntuples(answer) == 1 && *PQgetvalue(answer, 0, PQnfields(answer) - 1) == 't';
}

int64_t
answer_number(int row, int column)
{
	return PQgetisnull(answer, row, column) ? 0 : atoll(PQgetvalue(answer, row, column));
}

const char *
interval_of(int64_t usec)
{
	static char buffers[4][LABEL_ROOM];
	static int	turn = 0;
	char	   *buffer = buffers[turn++ % 4];

	if (usec == 0 || usec == NEVER)
		return "NULL";
	sprintf(buffer, "'%" PRId64 " us'", usec);
	return buffer;
}

/* A new session of our own. */
void
open_session(void)
{
	char		path[1000];

	snprintf(path, sizeof(path), "%s.%d", options.history, my_number);
	if (!records && !(records = fopen(path, "w")))
		die("could not write %s", path);
	PQfinish(helper);
	helper = NULL;
	reconnect();
	PQsetNoticeReceiver(conn, hear_notice, NULL);
	marked[0] = '\0';
	impatience = 0;
	call("", "SET lease.holder = 'client %d'", my_number);
}
