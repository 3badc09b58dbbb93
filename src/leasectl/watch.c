/*
 * watch.c - prints events as they are recorded
 *
 * A reaper writes events into lease.history in the order of seq, a moment after they
 * happened, so their times (at) may be somewhat out of order.  seq begins anew whenever
 * the server does, or another one takes over; then the first events include one that
 * is called "loaded".  Clocks may be set.  So neither tells by itself what is new, and a
 * look at the history asks for all that
 *
 *	- is not much older (MARGIN) than the last event we know of, and than what the
 *	  server's clock must have shown at our last look, and
 *	- has a larger seq than the last one, or is called "loaded"; after that, or when the
 *	  connection was lost, any seq will do until we know the new ones,
 *
 * and the events that we know are remembered, so that none is printed twice.
 *
 * What escapes us is an event that is recorded half a minute after its time (one that
 * expired while the launcher was frozen) when others were recorded meanwhile.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "show.h"

#define DEFAULT_INTERVAL SECOND
#define RECONNECT_PAUSE SECOND
#define MARGIN (30 * SECOND)

/* So many events are remembered at least: a clock may be set back by any time. */
#define REMEMBERED 50000

/* What tells two events apart: wall-clock time, in microseconds since 1970, and seq. */
typedef struct Event
{
	int64_t		at;
	int64_t		seq;
} Event;

typedef struct Watch
{
	const Options *options;
	Session		session;
	char	   *patterns;		/* as an array's literal; NULL: all */
	int64_t		began;			/* when we did, on the server's wall clock ... */
	int64_t		began_here;		/* ... and on ours */
	int64_t		looked_at;		/* when we looked last, on ours */
	int64_t		latest;			/* largest time of an event we know of */
	int64_t		seq;			/* what is to be larger; 0 if any will do */
	Event	   *known;			/* sorted */
	size_t		n_known;
	size_t		room;
} Watch;

/* The columns of a look. */
enum
{
	LOOK_AT,
	LOOK_SEQ,
	LOOK_LOADED,
	LOOK_WANTED,
	LOOK_LINE
};

static void
leave_at_once(int signal)
{
	(void) signal;
	_exit(0);
}

/* Patterns as the literal of an array; NULL if there is none. */
static char *
patterns_literal(const Options *options)
{
	char	   *literal = NULL;
	size_t		length;
	FILE	   *out = open_memstream(&literal, &length);

	if (options->n_operands == 0 || out == NULL)
		return NULL;
	for (int i = 0; i < options->n_operands; i++)
	{
		char	   *like = LikePattern(options->operands[i]);

		fputs(i == 0 ? "{\"" : "\",\"", out);
		for (const char *from = like; *from != '\0'; from++)
		{
			if (*from == '"' || *from == '\\')
				putc('\\', out);
			putc(*from, out);
		}
		free(like);
	}
	fputs("\"}", out);
	fclose(out);
	return literal;
}

static int
compare_events(const void *a, const void *b)
{
	const Event *x = a;
	const Event *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return (x->seq > y->seq) - (x->seq < y->seq);
}

static bool
is_known(const Watch *watch, const Event *event)
{
	return watch->n_known > 0 &&
		bsearch(event, watch->known, watch->n_known, sizeof(Event), compare_events) != NULL;
}

/* Forget what no look will find again, if we know a lot. */
static void
forget_old(Watch *watch)
{
	size_t		n = 0;

	while (watch->n_known - n > REMEMBERED && watch->known[n].at < watch->latest - 2 * MARGIN)
		n++;
	if (n < REMEMBERED)
		return;
	watch->n_known -= n;
	memmove(watch->known, watch->known + n, watch->n_known * sizeof(Event));
}

/* Remember an event, behind those that are sorted. */
static void
remember(Watch *watch, size_t place, const Event *event)
{
	if (place >= watch->room)
	{
		watch->room = 2 * place + 1000;
		watch->known = realloc(watch->known, watch->room * sizeof(Event));
		if (watch->known == NULL)
			Fail(STATUS_FAILED, "out of memory");
	}
	watch->known[place] = *event;
	if (event->at > watch->latest)
		watch->latest = event->at;
}

/* What the server's wall clock shows; that of a standby, when it last replayed. */
#define SERVER_TIME "least(pg_catalog.now(), CASE WHEN pg_catalog.pg_is_in_recovery()" \
	" THEN pg_catalog.pg_last_xact_replay_timestamp() END)"

#define MICROSECONDS(time) "(extract(epoch FROM " time ") * 1000000)::pg_catalog.int8"

/* The line of an event. */
static void
add_line(Question *question, bool json)
{
	if (json)
	{
		AddSql(question, "(SELECT pg_catalog.row_to_json(r) FROM (SELECT ");
		AddColumns(question, HistoryColumns, true);
		AddSql(question, ") r)");
	}
	else
		AddSql(question, "pg_catalog.concat_ws(' ', lease.time_text(at), pg_catalog.rpad(event, 12),"
			   " '\"' || pg_catalog.replace(name, '\"', '\"\"') || '\"', 'token ' || token,"
			   " 'by \"' || pg_catalog.replace(holder, '\"', '\"\"') || '\"',"
			   " 'waited ' || lease.duration_text(waited), 'held ' || lease.duration_text(held),"
			   " '(' || detail || ')')");
}

/* What we want to know at a look. */
static void
put_look(Question *question, const Watch *watch)
{
	*question = (Question) {.length = 0};
	AddSql(question, "SELECT " MICROSECONDS("at") ", seq, event = 'loaded', wanted, ");
	add_line(question, watch->options->json);
	AddSql(question, " FROM (SELECT *, coalesce(");
	if (watch->patterns == NULL)
		AddSql(question, "true");
	else
	{
		AddSql(question, "name COLLATE \"C\" LIKE ANY (");
		AddParameter(question, TEXT_ARRAY_OID, watch->patterns);
		AddSql(question, ")");
	}
	AddSql(question, ", false) AS wanted FROM lease.history"
		   " WHERE at > (SELECT least(pg_catalog.to_timestamp(");
	AddNumber(question, FLOAT8_OID, watch->latest);
	AddSql(question, " / 1e6), " SERVER_TIME " - ");
	AddInterval(question, BootTime() - watch->looked_at);
	AddSql(question, ") - ");
	AddInterval(question, MARGIN);
	AddSql(question, ") AND (seq > ");
	AddNumber(question, INT8_OID, watch->seq);
	AddSql(question, " OR event = 'loaded')) h WHERE wanted OR event = 'loaded' ORDER BY at, seq");
}

/* Print an event, unless it happened before we began but was written after that. */
static void
print_event(const Watch *watch, const Event *event, const char *line)
{
	if (event->at < watch->began && BootTime() - watch->began_here < MARGIN)
		return;
	if (!watch->options->json)
		line = PrintableText(line, PQclientEncoding(watch->session.connection));

	/* Who has heard enough closes the pipe. */
	if (puts(line) < 0 || fflush(stdout) != 0)
	{
		if (errno == EPIPE)
			exit(0);
		Fail(STATUS_FAILED, "could not write the output: %m");
	}
}

/* Take in what a look has found, and print what is new. */
static void
take_look(Watch *watch, const PGresult *answer, bool print)
{
	int64_t		largest = watch->seq;
	bool		loaded = false;
	size_t		n = watch->n_known;

	for (int row = 0; row < PQntuples(answer); row++)
	{
		Event		event = {
			.at = strtoll(PQgetvalue(answer, row, LOOK_AT), NULL, 10),
			.seq = strtoll(PQgetvalue(answer, row, LOOK_SEQ), NULL, 10)
		};

		if (is_known(watch, &event))
			continue;
		remember(watch, n++, &event);
		if (PQgetvalue(answer, row, LOOK_LOADED)[0] == 't')
			loaded = true;
		if (event.seq > largest)
			largest = event.seq;
		if (print && PQgetvalue(answer, row, LOOK_WANTED)[0] == 't')
			print_event(watch, &event, PQgetvalue(answer, row, LOOK_LINE));
	}
	watch->n_known = n;
	if (n > 0)
		qsort(watch->known, n, sizeof(Event), compare_events);
	watch->seq = loaded ? 0 : largest;
	forget_old(watch);
}

/* Look at the history.  Returns false if there is no answer. */
static bool
look(Watch *watch, bool print)
{
	static Question question;
	int64_t		now = BootTime();
	PGresult   *answer;

	put_look(&question, watch);
	answer = Ask(&watch->session, &question, Patience(watch->options));
	if (answer == NULL)
		return false;
	take_look(watch, answer, print);
	PQclear(answer);
	watch->looked_at = now;
	return true;
}

/* Have the server wake us where it can: a standby cannot. */
static bool
listen(Watch *watch)
{
	Question	question = {.length = 0};

	AddSql(&question, "LISTEN lease");
	PQclear(Ask(&watch->session, &question, Patience(watch->options)));
	return watch->session.connection != NULL;
}

static bool
connect_and_listen(Watch *watch)
{
	watch->seq = 0;
	return OpenSession(&watch->session, watch->options) && listen(watch);
}

/* From when on we watch; what is in the history by now is not for us to print. */
static bool
begin(Watch *watch)
{
	Question	question = {.length = 0};
	PGresult   *answer;

	AddSql(&question, "SELECT " MICROSECONDS(SERVER_TIME)
		   ", pg_catalog.current_setting('lease.history_retention') FROM lease.status");
	answer = Ask(&watch->session, &question, Patience(watch->options));
	if (answer == NULL)
		return false;
	watch->began = watch->latest = strtoll(PQgetvalue(answer, 0, 0), NULL, 10);
	watch->began_here = watch->looked_at = BootTime();
	if (strcmp(PQgetvalue(answer, 0, 1), "0") == 0 && !watch->options->quiet)
		Complain("lease.history_retention is 0: the server records no events");
	PQclear(answer);
	return look(watch, false);
}

/* Has the server said that there is something? */
static bool
has_news(PGconn *connection)
{
	PGnotify   *notification;
	bool		any = false;

	while (connection != NULL && (notification = PQnotifies(connection)) != NULL)
	{
		any = true;
		PQfreemem(notification);
	}
	return any;
}

/*
 * Wait until a time, or until the server says that there is something.  Ends leasectl
 * if nobody reads its output any more.  Returns false if the connection is lost.
 */
static bool
wait_for_news(Watch *watch, int64_t until)
{
	PGconn	   *connection = watch->session.connection;
	struct pollfd fds[] = {
		{connection != NULL ? PQsocket(connection) : -1, POLLIN, 0},
		{STDOUT_FILENO, 0, 0}
	};
	int64_t		left;

	while (!has_news(connection) && (left = until - BootTime()) > 0)
	{
		(void) poll(fds, 2, left < 60 * SECOND ? (int) (left / 1000) + 1 : 60000);
		if ((fds[1].revents & (POLLERR | POLLHUP)) != 0)
			exit(0);
		if (connection != NULL && PQconsumeInput(connection) == 0)
			return false;
	}
	return true;
}

/* Connect again, as often as it takes. */
static void
mend(Watch *watch)
{
	const Session *session = &watch->session;

	if (!watch->options->quiet)
		Complain("connection lost, trying again: %s", session->message);
	while (!connect_and_listen(watch))
	{
		if (session->status != STATUS_UNREACHABLE)
			Fail(session->status, "%s", session->message);
		(void) wait_for_news(watch, BootTime() + RECONNECT_PAUSE);
	}
	if (!watch->options->quiet)
		Complain("connected again");
}

int
WatchEvents(const Options *options)
{
	int64_t		interval = options->interval >= 0 ? options->interval : DEFAULT_INTERVAL;
	Watch		watch = {.options = options, .patterns = patterns_literal(options)};

	signal(SIGINT, leave_at_once);
	signal(SIGTERM, leave_at_once);
	signal(SIGPIPE, SIG_IGN);
	if (!connect_and_listen(&watch) || !begin(&watch))
		Fail(watch.session.status, "%s", watch.session.message);
	for (;;)
	{
		if (!wait_for_news(&watch, watch.looked_at + interval))
			LoseSession(&watch.session);
		else if (look(&watch, true))
			continue;
		if (watch.session.status != STATUS_UNREACHABLE)
			Fail(watch.session.status, "%s", watch.session.message);
		mend(&watch);
	}
}
