/*-------------------------------------------------------------------------
 *
 * storm.c
 *	  Many clients of leases at once, and a judge of what they saw.
 *
 *	storm run CONNINFO HISTORY KEY=VALUE...   clients, killed and interrupted
 *	storm judge HISTORY                       what was wrong; nothing is asked
 *	storm fair CONNINFO CLIENTS SECONDS PATIENCE   grants of each client of one name
 *
 * Every client is a process of its own.  What it is sure of it notes in shared
 * memory before it sends anything that might end that, so that it counts even
 * if the client is killed.  The parent watches the queues, kills, cancels and
 * terminates; then it writes the history, which the judge reads:
 *
 *	grant NAME NEED CAPACITY TOKEN SENT FROM UNTIL LOW HIGH FLAGS WHO
 *		WHO asked at SENT, arrived in the queue between LOW and HIGH, and was
 *		sure to hold NEED of CAPACITY from FROM until UNTIL.  Flag o: served in
 *		order of arrival; t: its token is a new one; w: was seen waiting.
 *	again NAME TOKEN SECOND WHO		one more hold of a token gave a second
 *	lost NAME TOKEN WHO				lost before its TTL
 *	stuck NAME WHO					waits for a name that nobody holds
 *	left NAME TOKEN WHO				holds what it never got or has let go
 *	wrong TEXT						anything else that must not be
 *	count KEY VALUE					what was done
 *
 * All times are microseconds of CLOCK_MONOTONIC, the server's lease clock.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "libpq-fe.h"

#define MAX_CLIENTS		128
#define MAX_HOLDS		200000
#define MAX_NAMES		256
#define MAX_TOGETHER	3
#define MAX_WRONG		500
#define MAX_LOST_OPS	64
#define WHOLE			1000000
#define NEVER			INT64_MAX
#define SECOND			INT64_C(1000000)

typedef enum Scope
{
	DETACHED,
	SESSION,
	TRANSACTION
} Scope;

static const char *const scope_names[] = {"detached", "session", "transaction"};

/* One grant, as its holder knows it. */
typedef struct Hold
{
	int64_t		token;
	int64_t		sent;			/* when it was asked for */
	int64_t		from;			/* when the reply was there */
	int64_t		until;			/* when it ceased to be sure; 0: not yet */
	int64_t		deadline;		/* of its TTL, counted from before it started */
	int64_t		ttl;			/* 0: none */
	int64_t		low;			/* arrived in the queue between these */
	int64_t		high;
	uint32_t	op;
	int			name;
	int			need;
	Scope		scope;
	int			level;			/* of nested transactions */
	bool		in_order;
	bool		is_new;
	bool		waited;
	bool		over;			/* known to be */
} Hold;

/* What is counted, by each client alone. */
typedef enum Count
{
	ACQUIRES,
	CANCELLED,
	STATEMENT_TIMEOUTS,
	LOCK_TIMEOUTS,
	WAIT_TIMEOUTS,
	TERMINATED,
	RENEWALS,
	TRANSFERS,
	REENTRIES,
	SAVEPOINTS,
	SEVERAL,
	CAMPAIGNS,
	RETRIES,
	ABANDONED,
	LATE,						/* granted, and interrupted after that */
	COMPLETED,
	NCOUNTS
} Count;

static const char *const count_names[] = {
	"acquires", "cancelled", "statement_timeouts", "lock_timeouts", "wait_timeouts",
	"terminated", "renewals", "transfers", "reentries", "savepoints", "several", "campaigns",
	"retries", "abandoned", "late", "episodes"
};

typedef enum State
{
	BUSY,
	IDLE,
	GONE
} State;

typedef struct Client
{
	pid_t		process;
	volatile int backend;
	volatile int state;
	volatile int64_t doomed_at; /* its session was to be ended then; 0: no */
	volatile uint32_t op;
	volatile bool asking;		/* for what op says, or whether it was granted */
	uint32_t	lost_ops[MAX_LOST_OPS]; /* nobody knows what became of these */
	int			nlost;
	int64_t		counts[NCOUNTS];
	int			nholds;
	int			first_open;
	Hold		holds[MAX_HOLDS];
} Client;

/* What clients are to do. */
typedef enum Phase
{
	RUN,
	PAUSE,						/* stand still, and keep what you hold */
	DRAIN,						/* let go of everything, then stand still */
	QUIT
} Phase;

typedef struct Storm
{
	volatile int phase;
	volatile int nwrong;
	char		wrong[MAX_WRONG][200];
	volatile int64_t grants[MAX_CLIENTS];	/* storm fair */
	volatile int ready;
	Client		clients[];
} Storm;

static Storm *storm;
static const char *conninfo;
static int	nclients = 64;
static int	nnames = 200;
static int	padding = 0;		/* names are up to so long */
static double weights[MAX_NAMES];

static int64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec / 1000;
}

static int
below(int n)
{
	return (int) (random() % n);
}

static bool
chance(int percent)
{
	return below(100) < percent;
}

static void
die(const char *format, ...)
{
	va_list		args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

/* Note a line of the history that must not be there. */
static void
wrong(const char *format, ...)
{
	va_list		args;
	int			at = __sync_fetch_and_add(&storm->nwrong, 1);

	if (at >= MAX_WRONG)
		return;
	va_start(args, format);
	vsnprintf(storm->wrong[at], sizeof(storm->wrong[at]), format, args);
	va_end(args);
	for (char *c = storm->wrong[at]; *c; c++)
		if (*c == '\n')
			*c = ' ';
}

static void
pause_ms(int ms)
{
	poll(NULL, 0, ms);
}

/*
 * Names: some are semaphores, a few are much wanted
 */
static int
capacity_of(int name)
{
	return name % 5 == 3 ? 2 + name % 3 : WHOLE;
}

static void
weigh_names(void)
{
	double		sum = 0;

	for (int i = 0; i < nnames; i++)
		weights[i] = (sum += 1.0 / (i + 1));
}

/* A name, of a semaphore or not, that sorts after another. */
static int
pick_name(bool semaphore, int after)
{
	for (;;)
	{
		double		x = random() / (double) RAND_MAX * weights[nnames - 1];
		int			name = 0;

		while (name < nnames - 1 && weights[name] < x)
			name++;
		if (after >= 0 && name <= after)
			name = after + 1 + below(nnames - after);
		if (name < nnames && (capacity_of(name) != WHOLE) == semaphore)
			return name;
		if (after >= nnames - 5)
			return -1;
	}
}

static const char *
name_of(int name)
{
	static char buffers[4][300];
	static int	turn = 0;
	char	   *buffer = buffers[turn++ % 4];
	int			length = sprintf(buffer, "storm/%03d/", name);

	while (length < padding * (name % 8) / 7)
		buffer[length++] = 'x';
	buffer[length] = '\0';
	return buffer;
}

/*
 * A client: asking the server
 */
static Client *me;
static int	my_number;
static PGconn *conn;
static jmp_buf connection_lost;
static int	level;				/* 0: no transaction, 1, or 2 in a savepoint */
static bool timeouts_set;

typedef enum Outcome
{
	DONE,
	INTERRUPTED,				/* it may have been done */
	TIMED_OUT,					/* it was not done */
	LOST
} Outcome;

static PGresult *result;		/* of the last statement */

static void
note_lost_op(Client *client)
{
	if (client->asking)
		client->lost_ops[client->nlost++ % MAX_LOST_OPS] = client->op;
	client->asking = false;
}

/* Our holds that are still sure, from first_open on. */
static Hold *
next_open(int *at)
{
	for (; *at < me->nholds; (*at)++)
		if (me->holds[*at].until == 0)
			return &me->holds[(*at)++];
	return NULL;
}

/* What a transaction holds is not sure while one of its statements runs. */
static void
doubt(int from_level)
{
	for (int i = me->nholds - 1; level > 0 && i >= me->first_open; i--)
		if (me->holds[i].scope == TRANSACTION && me->holds[i].level >= from_level &&
			me->holds[i].until == 0)
			me->holds[i].until = -now_us();
}

/* It is again, or it is over. */
static void
settle(bool still)
{
	for (int i = me->nholds - 1; i >= me->first_open; i--)
		if (me->holds[i].until < 0)
			me->holds[i].until = still ? 0 : -me->holds[i].until;
}

/* What a transaction held from a level on is known to be over. */
static void
forget(int from_level)
{
	settle(false);
	for (int i = me->nholds - 1; i >= me->first_open; i--)
		if (me->holds[i].scope == TRANSACTION && me->holds[i].level >= from_level)
			me->holds[i].over = true;
}

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

static Outcome
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
static Outcome
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

/*
 * A client: keeping and ending
 */
static void
end_hold(Hold *hold, int64_t when)
{
	if (hold->until == 0)
		hold->until = when < hold->deadline ? when : hold->deadline;
}

/* The server says that it is lost: too early, if we are still sure of it. */
static void
hear_of_loss(const Hold *hold, bool was_sure)
{
	if (was_sure && now_us() < hold->deadline && storm->phase == RUN)
		wrong("lost %d %" PRId64 " c%d.%u", hold->name, hold->token, my_number, hold->op);
}

/* Let go of a lease, however often we hold it. */
static void
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

static void
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

static Hold *
add_hold(int name, int need, int64_t token, int64_t sent, Scope scope, int64_t ttl)
{
	Hold	   *hold = &me->holds[me->nholds];

	if (me->nholds >= MAX_HOLDS)
		die("too many grants");
	*hold = (Hold) {
		.token = token, .sent = sent, .from = now_us(), .ttl = ttl,
		.deadline = ttl > 0 ? sent + ttl : NEVER,
		.op = me->op, .name = name, .need = need, .scope = scope,
		.level = level, .in_order = true, .is_new = true
	};
	__sync_synchronize();
	me->nholds++;
	me->counts[ACQUIRES]++;
	return hold;
}

/*
 * What we asked for in vain may be ours all the same, if the interruption came
 * late: let go of it.  After a time-out it must not.
 */
static void
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
static Hold *
transfer(Hold *hold)
{
	int64_t		sent = now_us();
	Outcome		outcome;
	Hold	   *next;

	if (hold->until != 0)
		return hold;
	hold->until = sent < hold->deadline ? sent : hold->deadline;
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

/* Stand still while we are to, with all that we hold. */
static void
check_point(void)
{
	while (storm->phase == PAUSE)
	{
		me->state = IDLE;
		pause_ms(5);
	}
	me->state = BUSY;
}

/* Pretend to work. */
static void
work(void)
{
	check_point();
	if (chance(50))
		pause_ms(below(6));
	check_point();
}

/*
 * A client: acquiring
 */
static const char *
random_wait(void)
{
	static char buffer[40];

	if (chance(70))
		return "NULL";
	sprintf(buffer, "'%d us'", 200 + below(30000));
	return buffer;
}

typedef struct Wish
{
	int			count;
	int			names[MAX_TOGETHER];
	int			need;
	Scope		scope;
	bool		no_wait;
	bool		campaign;
	const char *request_id;		/* NULL: none */
} Wish;

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

/*
 * Ask for it.  Returns how many grants there are now, the last of our holds:
 * all that we wished for, or none.
 */
static int
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

static Hold *
last_hold(void)
{
	return &me->holds[me->nholds - 1];
}

static void
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
static void
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

static void
leave_without_a_word(void)
{
	/* We may have been terminated before, and not know. */
	if (me->doomed_at == 0)
		me->doomed_at = now_us();
	me->counts[ABANDONED]++;
	longjmp(connection_lost, 1);
}

static void
episode_single(bool semaphore)
{
	Wish		wish = {.count = 1, .scope = chance(50) ? DETACHED : SESSION};
	Hold	   *hold;

	wish.names[0] = pick_name(semaphore, -1);
	wish.need = semaphore ? 1 + below(capacity_of(wish.names[0])) : chance(70) ? WHOLE : 1;
	wish.no_wait = chance(15);
	wish.campaign = !semaphore && !wish.no_wait && chance(15);
	if (acquire(&wish) == 0)
		return;
	me->counts[CAMPAIGNS] += wish.campaign;
	hold = last_hold();
	work();
	if (hold->ttl > 0 && chance(40))
		renew(hold);
	if (hold->scope == SESSION && !semaphore && hold->until == 0 && chance(30))
		acquire_again(hold);
	if (hold->scope == DETACHED && chance(20) && !(hold = transfer(hold)))
		return;
	work();
	if (hold->scope == DETACHED && hold->ttl < SECOND / 5 && chance(20))
		me->counts[ABANDONED]++;
	else if (hold->scope == SESSION && chance(5))
		leave_without_a_word();
	else if (hold->scope == SESSION && chance(10))
		release_session();
	else
		release(hold);
}

static void
episode_several(void)
{
	Wish		wish = {.need = chance(70) ? WHOLE : 1};
	int			after = -1;
	int			got;

	for (int want = 2 + below(2); wish.count < want; wish.count++)
	{
		after = wish.names[wish.count] = pick_name(false, after);
		if (after < 0)
			break;
	}
	if (wish.count < 2)
		return;
	wish.scope = chance(50) ? DETACHED : SESSION;
	wish.no_wait = chance(10);
	got = acquire(&wish);
	if (got == 0)
		return;
	me->counts[SEVERAL]++;
	work();
	for (int i = me->nholds - got, end = me->nholds; i < end; i++)
		release(&me->holds[i]);
}

/* A retry of a call that may have been granted gets the same grant. */
static void
episode_retry(void)
{
	Wish		wish = {.count = 1, .need = WHOLE, .scope = DETACHED};
	char		id[40];

	wish.names[0] = pick_name(false, -1);
	me->op++;
	sprintf(id, "r%d.%u", my_number, me->op);
	wish.request_id = id;
	for (int turn = 0; turn < 4; turn++)
	{
		if (acquire(&wish) > 0)
		{
			Hold	   *hold = last_hold();

			hold->in_order = hold->is_new = turn == 0;
			work();
			release(hold);
			return;
		}
		me->counts[RETRIES]++;
	}
	look_for_leftovers(INTERRUPTED);
	me->asking = false;
}

static void
end_transaction(const char *how)
{
	doubt(1);
	settle(false);
	insist(how);
	forget(1);
	level = 0;
}

/* A second lease in a savepoint, which is then dropped or kept. */
static void
nest(Wish *wish)
{
	int			name = pick_name(false, wish->names[0]);
	bool		keep = chance(50);

	if (name < 0)
		return;
	doubt(1);
	if (run("SAVEPOINT nest") != DONE)
		return;
	settle(true);
	level = 2;
	wish->names[0] = name;
	wish->need = chance(70) ? WHOLE : 1;
	keep &= acquire(wish) > 0;
	if (keep && chance(20))
		acquire_again(last_hold());
	work();
	if (PQtransactionStatus(conn) == PQTRANS_INERROR)
		keep = false;

	/* What is not released to the end can still be dropped. */
	doubt(keep ? 1 : 2);
	if (keep && run("RELEASE nest") != DONE)
	{
		settle(false);
		level = 1;
		return;
	}
	settle(keep);
	if (!keep)
	{
		insist("ROLLBACK TO nest");
		forget(2);
	}
	for (int i = me->first_open; i < me->nholds; i++)
		if (me->holds[i].level == 2)
			me->holds[i].level = 1;
	level = 1;
	me->counts[SAVEPOINTS]++;
}

static void
episode_transaction(void)
{
	Wish		wish = {.count = 1, .scope = TRANSACTION, .need = chance(70) ? WHOLE : 1};

	wish.names[0] = pick_name(false, -1);
	if (run("BEGIN") != DONE)
		return;
	level = 1;
	if (acquire(&wish) > 0)
	{
		work();
		if (chance(20))
			acquire_again(last_hold());
		if (PQtransactionStatus(conn) == PQTRANS_INTRANS && chance(60))
			nest(&wish);
		work();
	}
	end_transaction(chance(50) ? "COMMIT" : "ROLLBACK");
}

/* Time-outs for some episodes, in milliseconds. */
static void
set_timeouts(void)
{
	bool		wanted = chance(15);

	if (timeouts_set && !wanted)
		insist("RESET lock_timeout; RESET statement_timeout");
	else if (wanted)
		ask("SET %s = %d", chance(50) ? "lock_timeout" : "statement_timeout", 1 + below(15));
	timeouts_set = wanted;
}

static void
episode(void)
{
	int			kind = below(100);

	set_timeouts();
	if (kind < 50)
		episode_single(false);
	else if (kind < 65)
		episode_single(true);
	else if (kind < 75)
		episode_several();
	else if (kind < 80)
		episode_retry();
	else
		episode_transaction();
	me->counts[COMPLETED]++;

	/* What is over need not be looked at again. */
	for (int i = me->first_open; i < me->nholds; i++)
		if (me->holds[i].until == 0 && me->holds[i].deadline < now_us())
			end_hold(&me->holds[i], NEVER);
	while (me->first_open < me->nholds && me->holds[me->first_open].until != 0 &&
		   me->holds[me->first_open].from < now_us() - 30 * SECOND)
		me->first_open++;
}

/* A session is over, by whomever: with it goes what it held. */
static void
bury_session(Client *client)
{
	int64_t		end = client->doomed_at ? client->doomed_at : now_us();

	for (int i = client->first_open; i < client->nholds; i++)
	{
		Hold	   *hold = &client->holds[i];

		if (hold->scope == DETACHED || hold->over)
			continue;
		if (hold->until < 0)
			hold->until = -hold->until;
		end_hold(hold, end);
		if (hold->until > end)
			hold->until = end;
		hold->over = true;
	}
	note_lost_op(client);
}

/*
 * Detached leases of ours from before: TTLs end some, we the others, and what
 * we were granted as we died.
 */
static void
recover(void)
{
	int			at = me->first_open;
	Hold	   *hold;

	while ((hold = next_open(&at)))
		if (hold->deadline > now_us() + SECOND)
			release(hold);
	if (me->nlost > 0)
		insist("SELECT count(lease.release(name, token)) FROM lease.leases"
			   " WHERE holder = 'c%d.%u' AND scope = 'detached'", my_number,
			   me->lost_ops[(me->nlost - 1) % MAX_LOST_OPS]);
}

static void
connect_client(void)
{
	PQfinish(conn);
	bury_session(me);
	level = 0;
	timeouts_set = false;
	conn = PQconnectdb(conninfo);
	if (PQstatus(conn) != CONNECTION_OK)
		die("%s", PQerrorMessage(conn));
	me->doomed_at = 0;
	__sync_synchronize();
	me->backend = PQbackendPID(conn);
}

static void
quiet(void *arg, const PGresult *res)
{
	(void) arg;
	(void) res;
}

static void
be_client(int n)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	me = &storm->clients[n];
	my_number = n;
	srandom(n * 7919 + (unsigned) now_us());
	conn = NULL;
	result = NULL;
	setjmp(connection_lost);
	me->state = BUSY;
	connect_client();
	PQsetNoticeReceiver(conn, quiet, NULL);
	recover();
	for (;;)
	{
		while (storm->phase != RUN && storm->phase != QUIT)
		{
			me->state = IDLE;
			pause_ms(5);
		}
		me->state = BUSY;
		if (storm->phase == QUIT)
			break;
		episode();
	}
	PQfinish(conn);
	me->state = GONE;
	exit(0);
}

/*
 * The parent: watching
 */
static PGconn *watch;

/* When who arrived in which queue: of each client in the order of its calls. */
typedef struct Arrival
{
	uint32_t	op;
	int			name;
	int64_t		low;
	int64_t		high;
} Arrival;

static struct
{
	Arrival    *list;
	int			count;
	int			size;
} arrivals[MAX_CLIENTS];

static int64_t samples, kills, terminations, cancels, most_waiters;

static PGresult *
query(const char *format, ...)
{
	char		sql[2000];
	PGresult   *res;
	va_list		args;

	va_start(args, format);
	vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);
	res = PQexec(watch, sql);
	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		die("%s: %s", sql, PQerrorMessage(watch));
	return res;
}

static int64_t
query_number(const char *sql)
{
	PGresult   *res = query("%s", sql);
	int64_t		value = atoll(PQgetvalue(res, 0, 0));

	PQclear(res);
	return value;
}

static void
note_arrival(int client, uint32_t op, int name, int64_t low, int64_t high)
{
	int			count = arrivals[client].count;
	Arrival    *last = count > 0 ? &arrivals[client].list[count - 1] : NULL;

	if (last && last->op == op && last->name == name)
	{
		last->low = low > last->low ? low : last->low;
		last->high = high < last->high ? high : last->high;
		return;
	}
	if (count == arrivals[client].size)
	{
		arrivals[client].size = count * 2 + 1000;
		arrivals[client].list = realloc(arrivals[client].list,
										arrivals[client].size * sizeof(Arrival));
		if (!arrivals[client].list)
			die("out of memory");
	}
	arrivals[client].list[count] = (Arrival) {op, name, low, high};
	arrivals[client].count++;
}

/* Look at all queues; what the lease clock says counts only while it is true. */
static void
sample(void)
{
	int64_t		before = now_us();
	PGresult   *res = query("SELECT name, holder, (extract(epoch FROM waited) * 1000000)::bigint"
							" FROM lease.waiters");
	int64_t		after = now_us();

	for (int i = 0; i < PQntuples(res); i++)
	{
		int64_t		waited = atoll(PQgetvalue(res, i, 2));
		int			client;
		int			name;
		uint32_t	op;

		if (sscanf(PQgetvalue(res, i, 0), "storm/%d", &name) == 1 &&
			sscanf(PQgetvalue(res, i, 1), "c%d.%u", &client, &op) == 2)
			note_arrival(client, op, name, before - waited - 2, after - waited + 2);
	}
	if (PQntuples(res) > most_waiters)
		most_waiters = PQntuples(res);
	samples++;
	PQclear(res);
}

static void
start_client(int n)
{
	Client	   *client = &storm->clients[n];

	pid_t		pid;

	client->state = BUSY;
	pid = fork();
	if (pid < 0)
		die("could not fork");
	if (pid == 0)
		be_client(n);
	client->process = pid;
}

/* Processes that ended are to be ours; each gets a successor. */
static void
replace_dead(bool restart)
{
	pid_t		pid;
	int			status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < nclients; i++)
			if (storm->clients[i].process == pid)
			{
				if (!WIFSIGNALED(status) && restart)
					wrong("wrong end of client %d: status %d", i, status);
				storm->clients[i].process = 0;
				bury_session(&storm->clients[i]);
				if (restart)
					start_client(i);
			}
}

/* Do something bad to somebody. */
static void
interrupt(int terminate_percent, int kill_percent)
{
	Client	   *victim = &storm->clients[below(nclients)];
	int			backend = victim->backend;
	int			kind = below(100);

	if (backend == 0 || victim->process == 0)
		return;

	/* Whoever does it twice must not make it later than it was. */
	if (kind < terminate_percent + kill_percent && victim->doomed_at == 0)
		victim->doomed_at = now_us();
	__sync_synchronize();
	if (kind < kill_percent)
	{
		kill(victim->process, SIGKILL);
		kills++;
		return;
	}
	PQclear(query("SELECT pg_%s_backend(%d)", kind < terminate_percent + kill_percent ?
				  "terminate" : "cancel", backend));
	if (kind < terminate_percent + kill_percent)
		terminations++;
	else
		cancels++;
}

static int64_t
interruptions(void)
{
	int64_t		sum = kills;

	for (int i = 0; i < nclients; i++)
		for (int kind = CANCELLED; kind <= TERMINATED; kind++)
			sum += storm->clients[i].counts[kind];
	return sum;
}

/* The clients that are not at rest; all of them are to be waiters, or not. */
static int
count_busy(void)
{
	int			busy = 0;

	for (int i = 0; i < nclients; i++)
		busy += storm->clients[i].state == BUSY;
	return busy;
}

static int64_t patience = 180;	/* seconds for anything to happen */
static const char *history;

static void write_history(void);

static bool
too_late(int64_t since)
{
	return now_us() > since + patience * SECOND;
}

/* The storm cannot go on: say so, with what has been seen so far. */
static void
give_up(const char *why)
{
	wrong("wrong end: %s", why);
	for (int i = 0; i < nclients; i++)
		if (storm->clients[i].process != 0)
			kill(storm->clients[i].process, SIGKILL);
	write_history();
	exit(0);
}

/* Who waits now? */
static void
report_waiters(void)
{
	PGresult   *res = query("SELECT name, holder FROM lease.waiters");

	for (int i = 0; i < PQntuples(res); i++)
		wrong("stuck %.20s %s", PQgetvalue(res, i, 0), PQgetvalue(res, i, 1));
	PQclear(res);
	PQclear(query("SELECT count(pg_cancel_backend(pid)) FROM lease.waiters"));
}

/*
 * Nobody is interrupted any more, and everybody lets go: whoever waits is served.
 * Leases that nobody is left to release end as time jumps.
 */
static void
drain(void)
{
	int64_t		since = now_us();
	int			idle_looks = 0;

	storm->phase = DRAIN;
	while (count_busy() > 0)
	{
		replace_dead(true);
		if (query_number("SELECT waiters FROM lease.status") < count_busy())
			idle_looks = 0;
		else if (query_number("SELECT leases_used FROM lease.status") == 0)
			idle_looks++;
		else
			PQclear(query("SELECT advance_lease_clock('1 hour')"));
		if (idle_looks >= 100 || too_late(since))
		{
			report_waiters();
			idle_looks = 0;
			if (too_late(since + 5 * SECOND))
				give_up("clients do not come to rest");
		}
		pause_ms(5);
	}
	PQclear(query("SELECT advance_lease_clock('1 hour')"));
	for (since = now_us(); query_number("SELECT leases_used FROM lease.status") > 0; pause_ms(5))
		if (too_late(since))
		{
			wrong("wrong number of leases in use when all are over: %" PRId64,
				  query_number("SELECT leases_used FROM lease.status"));
			return;
		}
	if (query_number("SELECT waiters FROM lease.status") != 0)
		wrong("wrong number of waiters when nobody waits");
}

/* Whether a time lies within one in which the lease clock was true. */
static struct
{
	int64_t		from;
	int64_t		until;
} rounds[1000];
static int	nrounds;

static void
start_round(void)
{
	rounds[nrounds].from = now_us();
	rounds[nrounds].until = NEVER;
	storm->phase = RUN;
}

static void
end_round(void)
{
	rounds[nrounds++].until = now_us();
	if (nrounds == 1000)
		die("too many rounds");
}

/*
 * The parent: counting what is held while everybody stands still
 */
static void
stand_still(void)
{
	int64_t		since = now_us();

	storm->phase = PAUSE;
	for (;;)
	{
		replace_dead(true);
		if (count_busy() == 0)
			return;
		PQclear(query("SELECT count(pg_cancel_backend(pid)) FROM lease.waiters"));
		if (too_late(since))
			give_up("clients do not stand still");
		pause_ms(2);
	}
}

/* Sessions that were ended are gone. */
static void
await_sessions(void)
{
	int64_t		since = now_us();
	char		sql[2000];
	int			length = sprintf(sql, "SELECT count(*) FROM pg_stat_activity WHERE pid <>"
								 " pg_backend_pid() AND backend_type = 'client backend'"
								 " AND pid NOT IN (0");

	for (int i = 0; i < nclients; i++)
		length += sprintf(sql + length, ",%d", storm->clients[i].backend);
	strcpy(sql + length, ")");
	while (query_number(sql) > 0)
	{
		if (too_late(since))
			give_up("sessions do not end");
		pause_ms(2);
	}
}

static Hold *
find_hold(Client *client, int64_t token)
{
	for (int i = client->nholds - 1; i >= client->first_open; i--)
		if (client->holds[i].token == token)
			return &client->holds[i];
	return NULL;
}

static bool
is_lost_op(const Client *client, uint32_t op)
{
	for (int i = 0; i < MAX_LOST_OPS; i++)
		if (client->lost_ops[i] == op)
			return true;
	return false;
}

/* A lease that the view shows must be somebody's; returns its hold, if known. */
static void
check_shown(const char *name, const char *token, const char *holder, const char *scope)
{
	int			n;
	uint32_t	op;
	Hold	   *hold = NULL;

	/* A lease taken again by whom the first label does not name counts, too. */
	for (int i = 0; i < nclients && hold == NULL; i++)
		hold = find_hold(&storm->clients[i], atoll(token));
	if (hold)
	{
		if (hold->over)
			wrong("left %.20s %s %s", name, token, holder);
	}
	else if (sscanf(holder, "c%d.%u", &n, &op) != 2 || strcmp(scope, "detached") != 0 ||
			 !is_lost_op(&storm->clients[n], op))
		wrong("left %.20s %s %s", name, token, holder);
}

static bool
is_shown(PGresult *res, int64_t token)
{
	for (int i = 0; i < PQntuples(res); i++)
		if (atoll(PQgetvalue(res, i, 1)) == token)
			return true;
	return false;
}

static int64_t checked_holds;

/* The view shows what clients say that they hold, and the table has no more. */
static void
check_holds(void)
{
	int64_t		since = now_us();
	PGresult   *res;
	int64_t		after;

	await_sessions();
	res = query("SELECT name, token, holder, scope FROM lease.leases");
	after = now_us();
	for (int i = 0; i < PQntuples(res); i++)
		check_shown(PQgetvalue(res, i, 0), PQgetvalue(res, i, 1), PQgetvalue(res, i, 2),
					PQgetvalue(res, i, 3));
	for (int n = 0; n < nclients; n++)
	{
		Client	   *client = &storm->clients[n];

		for (int i = client->first_open; i < client->nholds; i++)
		{
			Hold	   *hold = &client->holds[i];

			if (hold->until != 0 || hold->deadline <= after ||
				(hold->scope != DETACHED && client->doomed_at != 0))
				continue;
			checked_holds++;
			if (!is_shown(res, hold->token))
				wrong("lost %d %" PRId64 " c%d.%u", hold->name, hold->token, n, hold->op);
		}
	}
	PQclear(res);

	if (query_number("SELECT waiters FROM lease.status") +
		query_number("SELECT count(*) FROM lease.waiters") > 0)
		wrong("wrong number of waiters when nobody waits");
	while (query_number("SELECT leases_used - (SELECT count(*) FROM lease.leases)"
						" FROM lease.status") != 0)
	{
		if (too_late(since))
		{
			wrong("wrong number of leases in use: %" PRId64 " more than are shown",
				  query_number("SELECT leases_used - (SELECT count(*) FROM lease.leases)"
							   " FROM lease.status"));
			return;
		}
		pause_ms(5);
	}
}

/*
 * The parent: writing the history
 */
static const Arrival *
find_arrival(int client, uint32_t op, int name)
{
	int			low = 0;
	int			high = arrivals[client].count;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (arrivals[client].list[middle].op < op)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < arrivals[client].count && arrivals[client].list[low].op == op; low++)
		if (arrivals[client].list[low].name == name)
			return &arrivals[client].list[low];
	return NULL;
}

static int64_t
end_of_round(int64_t from)
{
	for (int i = 0; i < nrounds; i++)
		if (from >= rounds[i].from && from < rounds[i].until)
			return rounds[i].until;
	return 0;
}

static void
write_grant(FILE *out, int client, Hold *hold)
{
	const Arrival *arrival = find_arrival(client, hold->op, hold->name);
	int64_t		until = end_of_round(hold->from);

	/* A retry has the place that the first call was given, and lost. */
	if (!hold->in_order)
		arrival = NULL;
	hold->low = hold->sent;
	hold->high = hold->from;
	if (arrival)
	{
		hold->low = arrival->low > hold->low ? arrival->low : hold->low;
		hold->high = arrival->high < hold->high ? arrival->high : hold->high;
	}
	if (hold->until < 0)
		hold->until = -hold->until;
	if (hold->until > 0 && hold->until < until)
		until = hold->until;
	if (hold->deadline < until)
		until = hold->deadline;
	fprintf(out, "grant %d %d %d %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64
			" %" PRId64 " -%s%s%s c%d.%u\n", hold->name, hold->need, capacity_of(hold->name),
			hold->token, hold->sent, hold->from, until, hold->low, hold->high,
			hold->in_order ? "o" : "", hold->is_new ? "t" : "", arrival ? "w" : "",
			client, hold->op);
}

static void
write_history(void)
{
	FILE	   *out = fopen(history, "w");

	if (!out)
		die("could not write %s", history);
	for (int n = 0; n < nclients; n++)
		for (int i = 0; i < storm->clients[n].nholds; i++)
			write_grant(out, n, &storm->clients[n].holds[i]);
	for (int i = 0; i < storm->nwrong && i < MAX_WRONG; i++)
		fprintf(out, "%s\n", storm->wrong[i]);
	for (int kind = 0; kind < NCOUNTS; kind++)
	{
		int64_t		sum = 0;

		for (int n = 0; n < nclients; n++)
			sum += storm->clients[n].counts[kind];
		fprintf(out, "count %s %" PRId64 "\n", count_names[kind], sum);
	}
	fprintf(out, "count samples %" PRId64 "\ncount kills %" PRId64 "\ncount terminations %" PRId64
			"\ncount cancels %" PRId64 "\ncount most_waiters %" PRId64
			"\ncount checked_holds %" PRId64 "\ncount rounds %d\ncount interruptions %" PRId64 "\n",
			samples, kills, terminations, cancels, most_waiters, checked_holds, nrounds,
			interruptions());
	if (fclose(out) != 0)
		die("could not write %s", history);
}

static void
open_storm(void)
{
	storm = mmap(NULL, sizeof(Storm) + nclients * sizeof(Client), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (storm == MAP_FAILED)
		die("out of memory");
	srandom((unsigned) now_us());
}

static void
open_watch(void)
{
	watch = PQconnectdb(conninfo);
	if (PQstatus(watch) != CONNECTION_OK)
		die("%s", PQerrorMessage(watch));
	PQsetNoticeReceiver(watch, quiet, NULL);
}

/* A round of so many seconds, looking at queues as often as possible. */
static void
blow_for(int64_t seconds)
{
	int64_t		end = now_us() + seconds * SECOND;

	start_round();
	while (now_us() < end)
	{
		replace_dead(true);
		sample();
		if (chance(4))
			interrupt(12, 8);
	}
	end_round();
	drain();
}

/* A round of so many interruptions; then look what is held, and go on. */
static void
strike(int64_t hits)
{
	int64_t		end = interruptions() + hits;

	if (storm->phase != RUN)
		start_round();
	while (interruptions() < end)
	{
		volatile int spin = below(40000);

		replace_dead(true);
		interrupt(15, 3);
		while (spin-- > 0)
			;
	}
	stand_still();
	check_holds();
	storm->phase = RUN;
}

static void
end_storm(void)
{
	storm->phase = QUIT;
	for (int64_t since = now_us(); !too_late(since); pause_ms(5))
	{
		bool		all = true;

		replace_dead(false);
		for (int i = 0; i < nclients; i++)
			all &= storm->clients[i].process == 0;
		if (all)
			break;
	}
	write_history();
}

static int
run_storm(int argc, char **argv)
{
	int64_t		seconds = 5;
	int64_t		count = 1;
	int64_t		hits = 0;

	conninfo = argv[0];
	history = argv[1];
	for (int i = 2; i < argc; i++)
	{
		char		key[40];
		int			value;

		if (sscanf(argv[i], "%39[a-z]=%d", key, &value) != 2)
			die("what is %s?", argv[i]);
		if (strcmp(key, "clients") == 0)
			nclients = value;
		else if (strcmp(key, "names") == 0)
			nnames = value;
		else if (strcmp(key, "padding") == 0)
			padding = value;
		else if (strcmp(key, "seconds") == 0)
			seconds = value;
		else if (strcmp(key, "rounds") == 0)
			count = value;
		else if (strcmp(key, "hits") == 0)
			hits = value;
		else if (strcmp(key, "patience") == 0)
			patience = value;
	}
	if (nclients > MAX_CLIENTS || nnames > MAX_NAMES)
		die("too many");
	open_storm();
	weigh_names();
	open_watch();
	storm->phase = DRAIN;
	for (int i = 0; i < nclients; i++)
		start_client(i);
	while (count_busy() > 0)
		pause_ms(5);
	for (int i = 0; i < count; i++)
		if (hits > 0)
			strike(hits);
		else
			blow_for(seconds);
	if (hits > 0)
	{
		end_round();
		drain();
	}
	end_storm();
	return 0;
}

/*
 * The judge
 */
typedef struct Event
{
	int			name;
	int			need;
	int			capacity;
	int64_t		token;
	int64_t		sent;
	int64_t		from;
	int64_t		until;
	int64_t		low;
	int64_t		high;
	bool		in_order;
	bool		is_new;
	bool		waited;
	char		who[32];
} Event;

static Event *events;
static int	nevents;
static int	violations;

static void
accuse(const char *format, ...)
{
	va_list		args;

	if (violations++ >= 50)
		return;
	printf("violation ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

static void
count(const char *key, int64_t value)
{
	printf("count %s %" PRId64 "\n", key, value);
}

static void
read_grant(const char *line)
{
	static int	size = 0;
	Event	   *event;
	char		flags[8];

	if (nevents == size)
	{
		size = size * 2 + 10000;
		events = realloc(events, size * sizeof(Event));
		if (!events)
			die("out of memory");
	}
	event = &events[nevents++];
	if (sscanf(line, "grant %d %d %d %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64
			   " %" SCNd64 " %7s %31s", &event->name, &event->need, &event->capacity, &event->token,
			   &event->sent, &event->from, &event->until, &event->low, &event->high, flags,
			   event->who) != 11)
		die("cannot read: %s", line);
	event->in_order = strchr(flags, 'o') != NULL;
	event->is_new = strchr(flags, 't') != NULL;
	event->waited = strchr(flags, 'w') != NULL;
	if (event->low > event->high)
		accuse("contradiction: %s arrived before it asked, or after it was served", event->who);
}

static int
compare(int64_t a, int64_t b)
{
	return (a > b) - (a < b);
}

/* One edge of an interval in which somebody is sure to hold something. */
typedef struct Edge
{
	int			name;
	int64_t		at;
	int			need;			/* negative: the end */
	const Event *event;
} Edge;

static int
compare_edges(const void *a, const void *b)
{
	const Edge *x = a;
	const Edge *y = b;
	int			order = compare(x->name, y->name);

	order = order ? order : compare(x->at, y->at);

	/* At the same moment ends come first. */
	return order ? order : compare(x->need, y->need);
}

/* Nobody is sure of what somebody else is sure of. */
static void
judge_overlap(void)
{
	Edge	   *edges = malloc(2 * sizeof(Edge) * (nevents + 1));
	int			nedges = 0;
	int64_t		taken = 0;
	int64_t		together = 0;

	for (int i = 0; i < nevents; i++)
	{
		const Event *event = &events[i];

		if (event->until <= event->from)
			continue;
		edges[nedges++] = (Edge) {event->name, event->from, event->need, event};
		edges[nedges++] = (Edge) {event->name, event->until, -event->need, event};
	}
	qsort(edges, nedges, sizeof(Edge), compare_edges);
	for (int i = 0; i < nedges; i++)
	{
		if (i > 0 && edges[i].name != edges[i - 1].name)
			taken = 0;
		if (edges[i].need > 0 && taken > 0)
			together++;
		taken += edges[i].need;
		if (edges[i].need > 0 && taken > edges[i].event->capacity)
			accuse("overlap: %s got %d of name %d (token %" PRId64 ") when %" PRId64
				   " of %d were taken", edges[i].event->who, edges[i].need, edges[i].name,
				   edges[i].event->token, taken - edges[i].need, edges[i].event->capacity);
	}
	count("intervals", nedges / 2);
	count("held_together", together);
	free(edges);
}

static int
by_name_and_token(const void *a, const void *b)
{
	const Event *x = a;
	const Event *y = b;
	int			order = compare(x->name, y->name);

	return order ? order : compare(x->token, y->token);
}

static bool
exclude_each_other(const Event *a, const Event *b)
{
	return a->in_order && b->in_order && a->name == b->name && a->need + b->need > a->capacity;
}

/*
 * Of two that exclude each other, who arrived first is served first.  (Of those
 * that hold a name together, who has the smaller token is a matter of chance.)
 */
static void
judge_order(void)
{
	int64_t    *earliest = malloc(sizeof(int64_t) * (nevents + 1));
	int64_t		pairs = 0;
	int64_t		waits = 0;

	qsort(events, nevents, sizeof(Event), by_name_and_token);
	earliest[nevents] = NEVER;
	for (int i = nevents - 1; i >= 0; i--)
	{
		int64_t		next = i + 1 < nevents && events[i + 1].name == events[i].name ?
			earliest[i + 1] : NEVER;

		earliest[i] = events[i].in_order && events[i].high < next ? events[i].high : next;
	}
	for (int i = 0; i < nevents; i++)
	{
		const Event *served = &events[i];
		int			j;

		waits += served->waited;
		for (j = i + 1; j < nevents && events[j].name == served->name &&
			 earliest[j] < served->low; j++)
			if (exclude_each_other(served, &events[j]) && events[j].high < served->low)
				accuse("order: %s (token %" PRId64 ") was served before %s (token %" PRId64
					   "), who came to name %d first", served->who, served->token, events[j].who,
					   events[j].token, served->name);
		for (j = i + 1; j < nevents && j < i + 200 && served->waited; j++)
			pairs += events[j].waited && exclude_each_other(served, &events[j]) &&
				served->high < events[j].low && events[j].low < served->from;
	}
	count("waits_served", waits);
	count("pairs_in_order", pairs);
	free(earliest);
}

static int
by_sent(const void *a, const void *b)
{
	return compare(((const Event *) a)->sent, ((const Event *) b)->sent);
}

static int
by_from(const void *a, const void *b)
{
	return compare((*(const Event *const *) a)->from, (*(const Event *const *) b)->from);
}

/* A token is larger than all that were returned before it was asked for. */
static void
judge_tokens(void)
{
	const Event **replies = malloc(sizeof(Event *) * (nevents + 1));
	int64_t		largest = 0;
	int			done = 0;
	int64_t		compared = 0;

	qsort(events, nevents, sizeof(Event), by_sent);
	for (int i = 0; i < nevents; i++)
		replies[i] = &events[i];
	qsort(replies, nevents, sizeof(Event *), by_from);
	for (int i = 0; i < nevents; i++)
	{
		for (; done < nevents && replies[done]->from < events[i].sent; done++)
			if (replies[done]->token > largest)
				largest = replies[done]->token;
		if (!events[i].is_new)
			continue;
		compared += largest > 0;
		if (events[i].token <= largest)
			accuse("token: %s got %" PRId64 " of name %d, after %" PRId64, events[i].who,
				   events[i].token, events[i].name, largest);
	}
	count("tokens_compared", compared);
	free(replies);
}

/* Two names may not have the same token either. */
static void
judge_twice(void)
{
	for (int i = 1; i < nevents; i++)
		if (events[i].name == events[i - 1].name && events[i].token == events[i - 1].token &&
			events[i].is_new && events[i - 1].is_new)
			accuse("token: %s and %s both got %" PRId64 " of name %d", events[i].who,
				   events[i - 1].who, events[i].token, events[i].name);
}

static int
judge(const char *path)
{
	FILE	   *in = fopen(path, "r");
	char		line[1000];

	if (!in)
		die("could not read %s", path);
	while (fgets(line, sizeof(line), in))
	{
		int64_t		first;
		int64_t		second;

		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "grant ", 6) == 0)
			read_grant(line);
		else if (sscanf(line, "again %*d %" SCNd64 " %" SCNd64, &first, &second) == 2)
		{
			if (first != second)
				accuse("%s", line);
		}
		else if (strncmp(line, "count ", 6) == 0)
			puts(line);
		else
			accuse("%s", line);
	}
	fclose(in);
	judge_overlap();
	judge_order();
	judge_twice();
	judge_tokens();
	count("grants", nevents);
	count("violations", violations);
	return 0;
}

/*
 * Fairness: one name, and who gets how many grants of it
 */
static void
be_one_of_many(int n, int clients)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	watch = NULL;
	open_watch();
	__sync_fetch_and_add(&storm->ready, 1);
	while (storm->ready < clients)
		pause_ms(1);
	while (storm->phase == RUN)
	{
		int64_t		token = query_number("SELECT lease.acquire('fair', scope => 'session')");

		/* Turns are long, so that who is late for the queue misses none. */
		pause_ms(1);
		PQclear(query("SELECT lease.release('fair', %" PRId64 ")", token));
		if (storm->phase == RUN)
			storm->grants[n]++;
	}
	PQfinish(watch);
	exit(0);
}

static int
be_fair(int clients, int seconds)
{
	int			clients_left = clients;

	nclients = 0;
	open_storm();
	storm->phase = RUN;
	for (int i = 0; i < clients; i++)
		if (fork() == 0)
			be_one_of_many(i, clients);
	while (storm->ready < clients)
		pause_ms(1);
	pause_ms(seconds * 1000);
	storm->phase = QUIT;

	/* Who is still not served dies with us. */
	for (int64_t since = now_us(); !too_late(since); pause_ms(5))
	{
		while (waitpid(-1, NULL, WNOHANG) > 0)
			clients_left--;
		if (clients_left == 0)
			break;
	}
	for (int i = 0; i < clients; i++)
		printf("%" PRId64 "\n", storm->grants[i]);
	return 0;
}

int
main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc >= 4 && strcmp(argv[1], "run") == 0)
		return run_storm(argc - 2, argv + 2);
	if (argc == 3 && strcmp(argv[1], "judge") == 0)
		return judge(argv[2]);
	if (argc == 6 && strcmp(argv[1], "fair") == 0 && atoi(argv[3]) <= MAX_CLIENTS)
	{
		conninfo = argv[2];
		patience = atoi(argv[5]);
		return be_fair(atoi(argv[3]), atoi(argv[4]));
	}
	die("usage: storm run CONNINFO HISTORY KEY=VALUE... | judge HISTORY | fair CONNINFO CLIENTS SECONDS PATIENCE");
	return 1;
}
