/*
 * keepalive.c - keeps one lease of the PostgreSQL extension lease alive
 *
 * A Keepalive is a state machine in two dimensions.  Its phase is what the program
 * knows of: asking, held, releasing, or one of the ends.  What it is doing is its
 * own affair:
 *
 *	DIALLING	connects to a host of the list		-> AWAITING, PAUSING
 *	AWAITING	has sent a request					-> RESTING, PAUSING
 *	RESTING		has nothing to do until wake_at		-> AWAITING, PAUSING
 *	PAUSING		tries again at wake_at				-> DIALLING, AWAITING
 *
 * wake_at also bounds how long it dials or awaits, and give_up_at bounds the phase.  The
 * descriptor that the program watches is an epoll set of the connection's socket, which
 * changes, and of a timer that runs out at the earlier of the two.
 *
 * Whenever it is connected it sends the request that is due: release, if the program
 * wants to; renew, if it has a token; else acquire.  So a connection that was lost at
 * any point is mended by making another one.
 */
#include <errno.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "hosts.h"
#include "keepalive.h"

#define MILLISECOND INT64_C(1000)
#define SECOND (1000 * MILLISECOND)

/* How long we try what nothing else bounds: to connect, to release. */
#define PATIENCE (10 * SECOND)

/* The first pause after all hosts failed, and how often it doubles. */
#define FIRST_PAUSE (20 * MILLISECOND)
#define MOST_DOUBLINGS 6

#define NEVER INT64_MAX
#define UUID_LENGTH 36

/* Object identifiers of types, which are the same in every server. */
enum
{
	INT8_TYPE = 20,
	INT4_TYPE = 23,
	TEXT_TYPE = 25,
	INTERVAL_TYPE = 1186,
	JSONB_TYPE = 3802
};

typedef enum Doing
{
	DIALLING,
	AWAITING,
	RESTING,
	PAUSING
} Doing;

typedef enum Purpose
{
	TO_ACQUIRE,
	TO_RENEW,
	TO_RELEASE
} Purpose;

struct Keepalive
{
	KeepaliveRequest request;
	char		request_id[UUID_LENGTH + 1];

	Hosts		hosts;
	int			host;			/* which one is next, or connected */
	int64_t		patience;		/* how long we try one */

	KeepalivePhase phase;
	Doing		doing;
	Purpose		purpose;		/* of the request that we await the answer of */
	int64_t		token;			/* 0: none yet */
	int64_t		sent_at;		/* when that request was about to be sent */
	int64_t		deadline;		/* until when the lease is proven */
	int64_t		wake_at;
	int64_t		give_up_at;
	int			attempts;		/* that failed since the last answer */
	bool		served;			/* a server has once taken a request of ours */

	PGconn	   *conn;
	PGresult   *answer;
	short		events;			/* which of its socket we wait for */
	int			epoll;
	int			timer;

	char		message[1024];
	char		sqlstate[6];
};

/* A request: an SQL function's named arguments, as they are put together. */
typedef struct Call
{
	char		sql[512];
	int			n;
	Oid			types[12];
	const char *values[12];
	char		numbers[12][40];
} Call;

int64_t
KeepaliveNow(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * SECOND + now.tv_nsec / 1000;
}

static int64_t
min_time(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* A moment after now; NEVER for a duration beyond all clocks. */
static int64_t
after(int64_t duration)
{
	int64_t		now = KeepaliveNow();

	return duration < NEVER - now ? now + duration : NEVER;
}

static bool
is_final(KeepalivePhase phase)
{
	return phase > KEEPALIVE_RELEASING;
}

static void
set_message(Keepalive *k, const char *sqlstate, const char *message, const char *detail)
{
	snprintf(k->sqlstate, sizeof(k->sqlstate), "%s", sqlstate ? sqlstate : "");
	snprintf(k->message, sizeof(k->message), "%s%s%s%s", message,
			 detail ? " (" : "", detail ? detail : "", detail ? ")" : "");
}

static void
drop_connection(Keepalive *k)
{
	PQclear(k->answer);
	PQfinish(k->conn);
	k->answer = NULL;
	k->conn = NULL;
}

static void
end(Keepalive *k, KeepalivePhase phase)
{
	drop_connection(k);
	k->phase = phase;
}

static void
pause_until(Keepalive *k, int64_t time)
{
	k->doing = PAUSING;
	k->wake_at = time;
}

/*
 * How long to pause after a failure: not at all before each host had its turn, then
 * longer each time, by chance, so that a thousand clients of a server that restarts do
 * not come at once.
 */
static int64_t
backoff(const Keepalive *k)
{
	int			rounds = k->attempts / k->hosts.n;
	int64_t		pause = FIRST_PAUSE << (rounds < MOST_DOUBLINGS ? rounds : MOST_DOUBLINGS);
	uint32_t	chance = 0;

	if (k->attempts <= k->hosts.n)
		return 0;
	if (getrandom(&chance, sizeof(chance), GRND_NONBLOCK) < 0)
		chance = (uint32_t) KeepaliveNow();
	return min_time(pause, k->request.ttl / 20) / 1024 * (512 + chance % 1024);
}

/* An attempt came to nothing, for the reason that was set; the connection is of no more use. */
static void
fail_attempt(Keepalive *k, bool next_host)
{
	drop_connection(k);
	k->attempts++;
	if (next_host)
		k->host = (k->host + 1) % k->hosts.n;
	if (k->phase == KEEPALIVE_ASKING && !k->served && !k->request.patient && k->attempts >= k->hosts.n)
		end(k, KEEPALIVE_UNREACHABLE);
	else
		pause_until(k, after(backoff(k)));
}

/* The phase has lasted too long. */
static void
give_up(Keepalive *k)
{
	if (k->message[0] == '\0')
		set_message(k, NULL, "the server did not answer in time", NULL);
	if (k->phase == KEEPALIVE_HELD || (k->phase == KEEPALIVE_ASKING && k->token != 0))
		end(k, KEEPALIVE_LOST);
	else
		end(k, KEEPALIVE_UNREACHABLE);
}

/* How long one host may take to connect, or to answer. */
static int64_t
attempt_bound(const Keepalive *k)
{
	return k->token == 0 ? k->patience : min_time(k->patience, k->request.ttl / 6);
}

/* Notices would go to stderr; what matters is in the results. */
static void
ignore_notice(void *arg, const PGresult *notice)
{
	(void) arg;
	(void) notice;
}

/* Begin to connect to the host that is next. */
static void
dial(Keepalive *k)
{
	k->doing = DIALLING;
	k->wake_at = after(attempt_bound(k));
	k->events = POLLOUT;
	k->conn = DialHost(&k->hosts, k->host);
	if (k->conn == NULL || PQstatus(k->conn) == CONNECTION_BAD)
	{
		set_message(k, NULL, k->conn ? PQerrorMessage(k->conn) : "out of memory", NULL);
		fail_attempt(k, true);
		return;
	}
	PQsetNoticeReceiver(k->conn, ignore_notice, NULL);
}

static void
add_argument(Call *call, const char *name, Oid type, const char *value)
{
	size_t		length = strlen(call->sql);

	if (value == NULL)
		return;
	call->types[call->n] = type;
	call->values[call->n++] = value;
	snprintf(call->sql + length, sizeof(call->sql) - length, "%s%s => $%d",
			 call->n > 1 ? ", " : "", name, call->n);
}

static void
add_number(Call *call, const char *name, Oid type, int64_t value)
{
	char	   *text = call->numbers[call->n];

	snprintf(text, sizeof(call->numbers[0]), type == INTERVAL_TYPE ? "%lld microseconds" : "%lld",
			 (long long) value);
	add_argument(call, name, type, text);
}

static void
add_optional(Call *call, const char *name, Oid type, int64_t value)
{
	if (value > 0)
		add_number(call, name, type, value);
}

/* What is left of the wait that the program wants. */
static int64_t
wait_left(const Keepalive *k)
{
	int64_t		left = k->give_up_at - PATIENCE - KeepaliveNow();

	return left > 0 ? left : 0;
}

static void
compose_acquire(const Keepalive *k, Call *call)
{
	const KeepaliveRequest *r = &k->request;
	bool		permits = r->permits > 0 || r->capacity > 0;
	bool		campaign = r->manner == KEEPALIVE_CAMPAIGN;

	snprintf(call->sql, sizeof(call->sql), "%s lease.%s%s(", campaign ? "CALL" : "SELECT",
			 campaign ? "campaign" : r->manner == KEEPALIVE_TRY ? "try_acquire" : "acquire",
			 permits ? "_permit" : "");
	add_argument(call, "name", TEXT_TYPE, r->name);
	add_number(call, "ttl", INTERVAL_TYPE, r->ttl);
	if (r->manner != KEEPALIVE_TRY && r->wait >= 0)
		add_number(call, "wait", INTERVAL_TYPE, wait_left(k));
	if (r->shared)
		add_argument(call, "mode", TEXT_TYPE, "shared");
	add_optional(call, "permits", INT4_TYPE, r->permits);
	add_optional(call, "capacity", INT4_TYPE, r->capacity);
	add_optional(call, "lock_delay", INTERVAL_TYPE, r->lock_delay);
	add_optional(call, "min_hold", INTERVAL_TYPE, r->min_hold);
	add_argument(call, "holder", TEXT_TYPE, r->holder);
	add_argument(call, "correlation_id", TEXT_TYPE, r->correlation_id);
	add_argument(call, "metadata", JSONB_TYPE, r->metadata);
	add_argument(call, "request_id", TEXT_TYPE, k->request_id);
}

static void
compose(const Keepalive *k, Call *call)
{
	if (k->purpose == TO_ACQUIRE)
		compose_acquire(k, call);
	else
	{
		snprintf(call->sql, sizeof(call->sql), "SELECT lease.%s(",
				 k->purpose == TO_RENEW ? "renew" : "release");
		add_argument(call, "name", TEXT_TYPE, k->request.name);
		add_number(call, "token", INT8_TYPE, k->token);
		if (k->purpose == TO_RENEW)
			add_number(call, "ttl", INTERVAL_TYPE, k->request.ttl);
	}
	strcat(call->sql, ")");
}

/* Send the request that is due. */
static void
ask(Keepalive *k)
{
	Call		call = {.n = 0};
	bool		waits = k->token == 0 && k->request.manner != KEEPALIVE_TRY;

	k->purpose = k->token == 0 ? TO_ACQUIRE : k->phase == KEEPALIVE_RELEASING ? TO_RELEASE : TO_RENEW;
	compose(k, &call);
	k->doing = AWAITING;
	k->wake_at = waits ? NEVER : after(attempt_bound(k));
	k->events = POLLIN;
	k->sent_at = KeepaliveNow();
	if (!PQsendQueryParams(k->conn, call.sql, call.n, call.types, call.values, NULL, NULL, 0))
	{
		set_message(k, NULL, PQerrorMessage(k->conn), NULL);
		fail_attempt(k, false);
	}
}

/* The last answer proves the lease. */
static void
prove(Keepalive *k)
{
	k->deadline = k->sent_at + k->request.ttl;
	k->doing = RESTING;
	k->wake_at = k->sent_at + k->request.ttl / 3;
	if (k->phase == KEEPALIVE_RELEASING)
		return;
	k->phase = KEEPALIVE_HELD;
	k->give_up_at = k->deadline;
}

/* A version 4 UUID. */
static void
make_request_id(Keepalive *k)
{
	unsigned char b[16];

	while (getrandom(b, sizeof(b), 0) != sizeof(b))
		;
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	snprintf(k->request_id, sizeof(k->request_id),
			 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
			 b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7],
			 b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

/* Begin to ask; also again, if the grant was lost before it could be used. */
static void
start_asking(Keepalive *k)
{
	const KeepaliveRequest *r = &k->request;

	make_request_id(k);
	k->token = r->token;
	if (r->token != 0)
		k->give_up_at = after(r->ttl);
	else if (r->manner == KEEPALIVE_TRY)
		k->give_up_at = after(PATIENCE);
	else
		k->give_up_at = r->wait < 0 ? NEVER : after(min_time(r->wait, NEVER - PATIENCE) + PATIENCE);
}

static void
take_grant(Keepalive *k, const PGresult *answer)
{
	if (PQgetisnull(answer, 0, 0))
	{
		end(k, KEEPALIVE_TAKEN);
		return;
	}
	k->token = strtoll(PQgetvalue(answer, 0, 0), NULL, 10);

	/* If it waited, its TTL began we do not know when: ask again. */
	if (KeepaliveNow() < k->sent_at + k->request.ttl / 3)
		prove(k);
	else
	{
		k->give_up_at = after(k->request.ttl);
		pause_until(k, 0);
	}
}

static void
take_answer(Keepalive *k, const PGresult *answer)
{
	k->attempts = 0;
	k->served = true;
	set_message(k, NULL, "", NULL);
	switch (k->purpose)
	{
		case TO_ACQUIRE:
			take_grant(k, answer);
			break;
		case TO_RENEW:
			prove(k);
			break;
		case TO_RELEASE:
			end(k, strcmp(PQgetvalue(answer, 0, 0), "t") == 0 ? KEEPALIVE_RELEASED : KEEPALIVE_LOST);
			break;
	}
}

/* Is it an error of the connection, or of the moment, rather than of the request? */
static bool
is_passing(const char *sqlstate)
{
	static const char *const passing[] = {"08", "25006", "40001", "53300", "57014", "57P"};

	for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++)
	{
		if (strncmp(sqlstate, passing[i], strlen(passing[i])) == 0)
			return true;
	}
	return sqlstate[0] == '\0';
}

static void
take_error(Keepalive *k, const PGresult *answer)
{
	const char *message = answer ? PQresultErrorField(answer, PG_DIAG_MESSAGE_PRIMARY) : NULL;

	set_message(k, answer ? PQresultErrorField(answer, PG_DIAG_SQLSTATE) : NULL,
				message ? message : PQerrorMessage(k->conn),
				answer ? PQresultErrorField(answer, PG_DIAG_MESSAGE_DETAIL) : NULL);

	if (strcmp(k->sqlstate, "LE001") == 0)
	{
		if (k->phase != KEEPALIVE_ASKING || k->request.token != 0)
			end(k, KEEPALIVE_LOST);
		else
		{
			start_asking(k);
			pause_until(k, 0);
		}
	}
	else if (k->purpose == TO_ACQUIRE && strcmp(k->sqlstate, "55P03") == 0)
		end(k, KEEPALIVE_TAKEN);
	else if (k->phase == KEEPALIVE_ASKING && !is_passing(k->sqlstate))
		end(k, KEEPALIVE_REFUSED);
	else
	{
		/* A standby, and who has become one, is for the next host to mend. */
		bool		standby = strcmp(k->sqlstate, "25006") == 0;

		k->served |= !standby;
		fail_attempt(k, standby);
	}
}

/* The connection broke, or the server sent an end to it. */
static void
lose_connection(Keepalive *k)
{
	set_message(k, NULL, PQerrorMessage(k->conn), NULL);
	k->served = true;
	fail_attempt(k, false);
}

static bool
go_on_awaiting(Keepalive *k)
{
	int			unsent = PQflush(k->conn);

	if (unsent < 0 || !PQconsumeInput(k->conn))
	{
		lose_connection(k);
		return true;
	}
	k->events = unsent > 0 ? POLLIN | POLLOUT : POLLIN;
	while (!PQisBusy(k->conn))
	{
		PGresult   *next = PQgetResult(k->conn);
		PGresult   *answer = k->answer;

		if (next != NULL)
		{
			PQclear(k->answer);
			k->answer = next;
			continue;
		}
		k->answer = NULL;
		if (PQresultStatus(answer) == PGRES_TUPLES_OK && PQntuples(answer) == 1)
			take_answer(k, answer);
		else
			take_error(k, answer);
		PQclear(answer);
		return true;
	}
	return false;
}

/* libpq wants to be called only when the socket is ready. */
static bool
is_ready(const Keepalive *k)
{
	struct pollfd socket = {PQsocket(k->conn), k->events, 0};

	return poll(&socket, 1, 0) != 0;
}

static bool
go_on_dialling(Keepalive *k)
{
	if (!is_ready(k))
		return false;
	switch (PQconnectPoll(k->conn))
	{
		case PGRES_POLLING_READING:
			k->events = POLLIN;
			break;
		case PGRES_POLLING_WRITING:
			k->events = POLLOUT;
			break;
		case PGRES_POLLING_OK:
			PQsetnonblocking(k->conn, 1);
			ask(k);
			break;
		default:
			set_message(k, NULL, PQerrorMessage(k->conn), NULL);
			fail_attempt(k, true);
	}
	return true;
}

/* Between renewals: is the server still there? */
static bool
go_on_resting(Keepalive *k)
{
	if (is_ready(k) && !PQconsumeInput(k->conn))
	{
		lose_connection(k);
		return true;
	}
	return false;
}

/* One step, if one can be made without waiting.  Is it worth trying another one? */
static bool
advance(Keepalive *k)
{
	int64_t		now = KeepaliveNow();

	if (now >= k->give_up_at)
	{
		give_up(k);
		return false;
	}
	switch (k->doing)
	{
		case PAUSING:
			if (now < k->wake_at)
				return false;
			if (k->conn == NULL)
				dial(k);
			else
				ask(k);
			return true;
		case RESTING:
			if (now < k->wake_at && k->phase != KEEPALIVE_RELEASING)
				return go_on_resting(k);
			ask(k);
			return true;
		case DIALLING:
		case AWAITING:
			if (now < k->wake_at)
				return k->doing == DIALLING ? go_on_dialling(k) : go_on_awaiting(k);
			set_message(k, NULL, "the server does not answer", NULL);
			fail_attempt(k, true);
			return true;
	}
	return false;
}

/* Let the descriptor become readable when there is something to do. */
static void
arm(Keepalive *k)
{
	struct epoll_event socket = {.events = k->events & POLLOUT ? EPOLLIN | EPOLLOUT : EPOLLIN};
	int64_t		at = is_final(k->phase) ? NEVER : min_time(k->wake_at, k->give_up_at);
	struct itimerspec alarm = {.it_value = {0, 0}};

	/* libpq may have closed a socket and opened one of the same number. */
	if (k->conn != NULL && PQsocket(k->conn) >= 0 &&
		epoll_ctl(k->epoll, EPOLL_CTL_MOD, PQsocket(k->conn), &socket) < 0)
		epoll_ctl(k->epoll, EPOLL_CTL_ADD, PQsocket(k->conn), &socket);
	if (at != NEVER)
	{
		alarm.it_value.tv_sec = at / SECOND;
		alarm.it_value.tv_nsec = at % SECOND * 1000 + 1;
	}
	timerfd_settime(k->timer, TFD_TIMER_ABSTIME, &alarm, NULL);
}

KeepalivePhase
KeepaliveTurn(Keepalive *k)
{
	uint64_t	expirations;

	while (read(k->timer, &expirations, sizeof(expirations)) > 0)
		;
	while (!is_final(k->phase) && advance(k))
		;
	arm(k);
	return k->phase;
}

KeepalivePhase
KeepaliveRelease(Keepalive *k)
{
	/* The answer may be here already; if it is not, the server leaves us out when the connection ends. */
	KeepaliveTurn(k);
	if (k->token == 0 && !is_final(k->phase))
		end(k, KEEPALIVE_RELEASED);
	else if (k->phase == KEEPALIVE_HELD || k->phase == KEEPALIVE_ASKING)
	{
		k->phase = KEEPALIVE_RELEASING;
		k->give_up_at = min_time(k->give_up_at, after(PATIENCE));
	}
	return KeepaliveTurn(k);
}

Keepalive *
KeepaliveStart(const KeepaliveRequest *request)
{
	Keepalive  *k = calloc(1, sizeof(Keepalive));
	struct epoll_event timer = {.events = EPOLLIN};

	if (k == NULL)
		return NULL;
	k->request = *request;
	k->epoll = epoll_create1(EPOLL_CLOEXEC);
	k->timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (k->epoll < 0 || k->timer < 0 || epoll_ctl(k->epoll, EPOLL_CTL_ADD, k->timer, &timer) < 0 ||
		!FindHosts(&k->hosts, request->keywords, request->values))
	{
		KeepaliveFree(k);
		return NULL;
	}
	k->patience = k->hosts.timeout > 0 ? k->hosts.timeout * SECOND : PATIENCE;
	start_asking(k);
	pause_until(k, 0);
	arm(k);
	return k;
}

void
KeepaliveFree(Keepalive *k)
{
	int			saved_errno = errno;

	if (k == NULL)
		return;
	drop_connection(k);
	ForgetHosts(&k->hosts);
	if (k->epoll >= 0)
		close(k->epoll);
	if (k->timer >= 0)
		close(k->timer);
	free(k);
	errno = saved_errno;
}

int
KeepaliveFd(const Keepalive *k)
{
	return k->epoll;
}

KeepalivePhase
KeepaliveState(const Keepalive *k)
{
	return k->phase;
}

int64_t
KeepaliveToken(const Keepalive *k)
{
	return k->token;
}

int64_t
KeepaliveDeadline(const Keepalive *k)
{
	return k->deadline;
}

const char *
KeepaliveMessage(const Keepalive *k)
{
	return k->message;
}

const char *
KeepaliveSqlstate(const Keepalive *k)
{
	return k->sqlstate;
}
