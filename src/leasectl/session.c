/*
 * session.c - a connection, questions and answers, each bounded in time
 *
 * libpq never waits for an answer here: its socket is polled, with a bound on
 * CLOCK_BOOTTIME.  To connect may take connect_timeout for each host, which is
 * libpq's business.  An answer that did not come in time is no longer wanted, so the
 * server is told to cancel; the connection is of no use then.
 */
#include <errno.h>
#include <langinfo.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "session.h"

#define DEFAULT_TIMEOUT (10 * SECOND)

/* What lease.acquire takes of a holder. */
#define LONGEST_HOLDER 127

/* How long we try to have a statement cancelled, in seconds. */
#define CANCEL_TIMEOUT 5

int64_t
BootTime(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * SECOND + now.tv_nsec / 1000;
}

int64_t
Patience(const Options *options)
{
	return options->timeout >= 0 ? options->timeout : DEFAULT_TIMEOUT;
}

const char *
DefaultHolder(void)
{
	static char holder[LONGEST_HOLDER + 1];
	const struct passwd *user = getpwuid(geteuid());
	char		name[64];
	char		host[48] = "";

	if (user != NULL)
		snprintf(name, sizeof(name), "%s", user->pw_name);
	else
		snprintf(name, sizeof(name), "%u", (unsigned) geteuid());
	gethostname(host, sizeof(host) - 1);
	snprintf(holder, sizeof(holder), "%s@%s:%d", name, host, (int) getpid());
	return holder;
}

static bool
is_of_class(const char *sqlstate, const char *class)
{
	return strncmp(sqlstate, class, strlen(class)) == 0;
}

int
StatusOfError(const char *sqlstate)
{
	static const struct
	{
		const char *class;		/* a code, or how some begin */
		int			status;
	}			statuses[] = {
		{"08", STATUS_UNREACHABLE}, /* connection */
		{"25006", STATUS_UNREACHABLE},	/* read-only, as a standby is */
		{"28", STATUS_UNREACHABLE}, /* authentication */
		{"3D000", STATUS_UNREACHABLE},	/* no such database */
		{"53300", STATUS_UNREACHABLE},	/* too many connections */
		{"57P0", STATUS_UNREACHABLE},	/* shutting down, starting up */
		{"55P03", STATUS_TAKEN},
		{"LE001", STATUS_LOST}
	};

	if (sqlstate == NULL || sqlstate[0] == '\0')
		return STATUS_UNREACHABLE;
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
	{
		if (is_of_class(sqlstate, statuses[i].class))
			return statuses[i].status;
	}
	return STATUS_REFUSED;
}

const char *
AdviceForError(const char *sqlstate)
{
	static const struct
	{
		const char *sqlstate;
		const char *advice;
	}			advices[] = {
		{"25006", "the server is a standby, or read-only"},
		{"3F000", "the extension lease is not installed in this database (CREATE EXTENSION lease)"},
		{"42501", "lease.allow grants a role the use of leases"}
	};
	static const char *const missing[] = {"42883", "42P01", "42703"};

	if (sqlstate == NULL)
		return "";
	for (size_t i = 0; i < sizeof(advices) / sizeof(advices[0]); i++)
	{
		if (strcmp(sqlstate, advices[i].sqlstate) == 0)
			return advices[i].advice;
	}
	for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++)
	{
		if (strcmp(sqlstate, missing[i]) == 0)
			return "the extension lease is not installed in this database (CREATE EXTENSION lease), "
				"or is older than leasectl " LEASECTL_VERSION " (ALTER EXTENSION lease UPDATE)";
	}
	return "";
}

static const char *
field(const PGresult *result, int code)
{
	const char *text = PQresultErrorField(result, code);

	return text != NULL ? text : "";
}

/* Its fields after the first: " DETAIL HINT". */
static void
describe_rest(const PGresult *result, char *text, size_t size)
{
	const char *detail = field(result, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = field(result, PG_DIAG_MESSAGE_HINT);

	snprintf(text, size, "%s%s%s%s", detail[0] != '\0' ? ": " : "", detail,
			 hint[0] == '\0' ? "" : detail[0] != '\0' ? " " : ": ", hint);
}

void
DescribeError(const PGresult *result, char *line, size_t size)
{
	const char *sqlstate = field(result, PG_DIAG_SQLSTATE);
	const char *message = field(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *advice = AdviceForError(sqlstate);
	char		rest[LONGEST_LINE / 2];

	describe_rest(result, rest, sizeof(rest));
	if (message[0] == '\0')
		message = PQresultErrorMessage(result);
	snprintf(line, size, "%s%s%s%s%s%s%s", message, rest,
			 sqlstate[0] != '\0' ? " (SQLSTATE " : "", sqlstate, sqlstate[0] != '\0' ? ")" : "",
			 advice[0] != '\0' ? "; " : "", advice);
}

/*
 * What the server has to say besides: for people, unless they want to be left alone; or
 * why it is about to hang up.
 */
static void
take_notice(void *arg, const PGresult *result)
{
	const char *severity = field(result, PG_DIAG_SEVERITY_NONLOCALIZED);
	Session    *session = arg;
	char		rest[LONGEST_LINE / 2];

	if (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0)
		DescribeError(result, session->farewell, sizeof(session->farewell));
	else if (session->options->quiet)
		return;
	else
	{
		describe_rest(result, rest, sizeof(rest));
		Complain("%s: %s%s", field(result, PG_DIAG_SEVERITY), field(result, PG_DIAG_MESSAGE_PRIMARY), rest);
	}
}

static void
note_unreachable(Session *session, const char *message)
{
	session->status = STATUS_UNREACHABLE;
	snprintf(session->message, sizeof(session->message), "%s", message);
}

/* The connection is gone. */
static void
note_lost_connection(Session *session)
{
	bool		told = session->farewell[0] != '\0';

	note_unreachable(session, told ? session->farewell : PQerrorMessage(session->connection));
	session->farewell[0] = '\0';
}

void
LoseSession(Session *session)
{
	note_lost_connection(session);
	CloseSession(session);
}

/*
 * What the user says of it counts more, be it in the environment, in a service file
 * or in the connection string.
 */
static void
set_defaults(const Options *options)
{
	char		timeout[32];
	int64_t		seconds = (Patience(options) + SECOND - 1) / SECOND;

	snprintf(timeout, sizeof(timeout), "%lld", (long long) (seconds > 2 ? seconds : 2));
	setenv("PGCONNECT_TIMEOUT", timeout, 0);

	/* A locale without letters, as cron has it, is no reason not to show them. */
	setenv("PGCLIENTENCODING", strcmp(nl_langinfo(CODESET), "ANSI_X3.4-1968") == 0 ? "UTF8" : "auto", 0);
}

bool
OpenSession(Session *session, const Options *options)
{
	const char *keywords[MAX_KEYWORDS + 1];
	const char *values[MAX_KEYWORDS + 1];
	int			n = 0;

	session->options = options;
	session->farewell[0] = '\0';
	set_defaults(options);
	ConnectionKeywords(options, keywords, values);
	while (keywords[n] != NULL)
		n++;
	if (options->json)			/* which is UTF-8 by definition */
	{
		keywords[n] = "client_encoding";
		values[n++] = "UTF8";
	}
	keywords[n] = values[n] = NULL;

	session->connection = PQconnectdbParams(keywords, values, 1);
	if (session->connection == NULL)
		Fail(STATUS_FAILED, "out of memory");
	if (PQstatus(session->connection) != CONNECTION_OK)
	{
		LoseSession(session);
		return false;
	}
	PQsetNoticeReceiver(session->connection, take_notice, session);
	PQsetnonblocking(session->connection, 1);
	return true;
}

void
CloseSession(Session *session)
{
	PQclear(session->pending);
	PQfinish(session->connection);
	session->pending = NULL;
	session->connection = NULL;
}

void
AddSql(Question *question, const char *format,...)
{
	size_t		room = sizeof(question->sql) - question->length;
	va_list		arguments;
	int			length;

	va_start(arguments, format);
	length = vsnprintf(question->sql + question->length, room, format, arguments);
	va_end(arguments);
	if (length < 0 || (size_t) length >= room)
		Fail(STATUS_FAILED, "a statement is too long");
	question->length += length;
}

void
AddParameter(Question *question, Oid type, const char *value)
{
	if (question->n == MAX_PARAMETERS)
		Fail(STATUS_FAILED, "a statement has too many parameters");
	question->types[question->n] = type;
	question->values[question->n++] = value;
	AddSql(question, "$%d", question->n);
}

void
AddNumber(Question *question, Oid type, int64_t number)
{
	char	   *text = question->numbers[question->n % MAX_PARAMETERS];

	snprintf(text, sizeof(question->numbers[0]), "%lld", (long long) number);
	AddParameter(question, type, text);
}

void
AddInterval(Question *question, int64_t duration)
{
	char	   *text = question->numbers[question->n % MAX_PARAMETERS];

	snprintf(text, sizeof(question->numbers[0]), "%lld.%06lld s", (long long) (duration / SECOND),
			 (long long) (duration % SECOND));
	AddParameter(question, INTERVAL_OID, text);
}

bool
SendQuestion(Session *session, const Question *question)
{
	if (PQsendQueryParams(session->connection, question->sql, question->n, question->types,
						  question->values, NULL, NULL, 0) == 0 ||
		PQflush(session->connection) < 0)
	{
		note_lost_connection(session);
		return false;
	}
	return true;
}

/* The answer, or a note of why it is none. */
static PGresult *
judge_answer(Session *session, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (result == NULL)
		note_lost_connection(session);
	else if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
		return result;
	else
	{
		session->status = StatusOfError(PQresultErrorField(result, PG_DIAG_SQLSTATE));
		DescribeError(result, session->message, sizeof(session->message));
	}
	PQclear(result);
	return NULL;
}

/*
 * Take what has arrived.  Returns true once the answer is complete: *answer is NULL
 * if it is a failure, which also closes a connection that was lost.
 */
bool
ReceiveAnswer(Session *session, PGresult **answer)
{
	PGconn	   *connection = session->connection;
	bool		lost = PQflush(connection) < 0 || PQconsumeInput(connection) == 0;
	PGresult   *next = NULL;

	/* The server may have said why before it hung up. */
	while ((lost || !PQisBusy(connection)) && (next = PQgetResult(connection)) != NULL)
	{
		if (session->pending == NULL)
			session->pending = next;
		else
			PQclear(next);
	}
	if (!lost && PQisBusy(connection))
		return false;
	*answer = judge_answer(session, session->pending);
	session->pending = NULL;
	if (lost || PQstatus(connection) != CONNECTION_OK)
		CloseSession(session);
	return true;
}

/*
 * Nobody waits for the answer any more: have the server know, lest it grants a lease
 * to nobody.  To ask it may take as long as the question, so another process does.
 */
static void
cancel_question(Session *session)
{
	PGcancel   *cancel = PQgetCancel(session->connection);
	char		error[256];

	signal(SIGCHLD, SIG_IGN);
	if (cancel != NULL && fork() == 0)
	{
		signal(SIGALRM, SIG_DFL);
		alarm(CANCEL_TIMEOUT);
		(void) PQcancel(cancel, error, sizeof(error));
		_exit(0);
	}
	PQfreeCancel(cancel);
}

/* Wait until there is something to take or to send; false at the deadline. */
static bool
wait_for_socket(const Session *session, int64_t deadline)
{
	struct pollfd socket = {PQsocket(session->connection), POLLIN, 0};
	int64_t		left = deadline == FOREVER ? FOREVER : deadline - BootTime();

	if (left <= 0)
		return false;
	if (PQflush(session->connection) > 0)
		socket.events |= POLLOUT;
	(void) poll(&socket, 1, left / 1000 < 60000 ? (int) (left / 1000) + 1 : 60000);
	return true;
}

PGresult *
Ask(Session *session, const Question *question, int64_t patience)
{
	int64_t		deadline = patience == FOREVER ? FOREVER : BootTime() + patience;
	PGresult   *answer;

	if (!SendQuestion(session, question))
	{
		CloseSession(session);
		return NULL;
	}
	while (!ReceiveAnswer(session, &answer))
	{
		if (wait_for_socket(session, deadline))
			continue;
		AbandonQuestion(session);
		return NULL;
	}
	return answer;
}

void
AbandonQuestion(Session *session)
{
	cancel_question(session);
	CloseSession(session);
	note_unreachable(session, "the server did not answer in time");
}

PGresult *
AskOnce(const Options *options, const Question *question, int64_t patience, int *encoding)
{
	Session		session = {0};
	PGresult   *answer = NULL;

	if (OpenSession(&session, options))
		answer = Ask(&session, question, patience);
	if (answer == NULL && session.status == STATUS_TAKEN && options->quiet)
		exit(STATUS_TAKEN);
	if (answer == NULL)
		Fail(session.status, "%s", session.message);
	if (encoding != NULL)
		*encoding = PQclientEncoding(session.connection);
	CloseSession(&session);
	return answer;
}
