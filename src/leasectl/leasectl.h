/*
 * leasectl.h - what the rooms of leasectl share
 *
 * main.c		finds the verb and calls it
 * options.c	the command line: one table of options, their bounds, --help
 * complain.c	messages on stderr, one line each
 * session.c	a connection, questions and answers, each bounded in time
 * print.c		answers as tables or as JSON
 * change.c		acquire, renew, release, transfer, force-release
 * show.c		list, waiters, stats, history, explain, status
 * watch.c		watch
 * top.c		top: the screen and its keys; pages.c: what its pages show
 * run.c		run and elect: keeps a lease while a command runs
 * command.c	the command: a process group, and the terminal
 * watchdog.c	the process that kills the command if leasectl cannot
 * keepalive.c	keeps a lease alive; a library, as is hosts.c: they know of nothing else
 * hosts.c		the hosts that a connection string names, one by one
 *
 * Each includes only those below it.  Times are microseconds, those of a clock are
 * CLOCK_BOOTTIME's.
 */
#ifndef LEASECTL_H
#define LEASECTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEASECTL_VERSION "1.0.0"

#define MSEC INT64_C(1000)
#define SECOND (1000 * MSEC)
#define DAY (86400 * SECOND)

/* Exit statuses are promised in doc/leasectl.1: scripts depend on them. */
enum
{
	STATUS_REFUSED = 121,		/* by the server, which was reached */
	STATUS_UNREACHABLE = 122,	/* no server that could do it answered */
	STATUS_LOST = 123,			/* the lease was held and is not any more */
	STATUS_TAKEN = 124,			/* somebody else has it */
	STATUS_FAILED = 125,		/* usage, or leasectl itself */
	STATUS_NOT_EXECUTABLE = 126,	/* the command: as shells have it */
	STATUS_NOT_FOUND = 127
};

/* A set of verbs, for the options that they take. */
enum
{
	VERB_RUN = 1 << 0,
	VERB_ELECT = 1 << 1,
	VERB_ACQUIRE = 1 << 2,
	VERB_RENEW = 1 << 3,
	VERB_RELEASE = 1 << 4,
	VERB_TRANSFER = 1 << 5,
	VERB_FORCE_RELEASE = 1 << 6,
	VERB_LIST = 1 << 7,
	VERB_WAITERS = 1 << 8,
	VERB_STATS = 1 << 9,
	VERB_HISTORY = 1 << 10,
	VERB_EXPLAIN = 1 << 11,
	VERB_STATUS = 1 << 12,
	VERB_WATCH = 1 << 13,
	VERB_TOP = 1 << 14,
	VERB_ANY = (1 << 15) - 1,

	/* Those that end, and those that take a lease */
	VERBS_ASKING = VERB_ANY & ~(VERB_RUN | VERB_ELECT),
	VERBS_TAKING = VERB_RUN | VERB_ELECT | VERB_ACQUIRE
};

/* Numbers and durations that were not given are -1, texts are NULL. */
typedef struct Options
{
	char	  **operands;		/* NAME and the like; ends with NULL */
	int			n_operands;
	char	  **command;		/* after "--"; NULL if that is missing */

	const char *host;
	const char *port;
	const char *user;
	const char *dbname;

	int64_t		ttl;
	int64_t		wait;
	bool		try_only;
	const char *holder;
	bool		shared;
	int64_t		permits;
	int64_t		capacity;
	int64_t		min_hold;
	int64_t		lock_delay;
	const char *correlation_id;
	const char *metadata;
	const char *request_id;
	int64_t		kill_after;
	bool		once;
	int64_t		pause;
	const char *reason;
	int64_t		token;
	bool		reopen;
	int64_t		since;
	int64_t		limit;
	int64_t		interval;
	const char *sort;
	int64_t		timeout;
	bool		json;
	bool		quiet;
} Options;

typedef struct Verb
{
	const char *name;
	unsigned	bit;
	int			min_operands;
	int			max_operands;	/* -1: any number */
	bool		takes_command;
	int			(*call) (const Options *options);	/* returns the exit status */
} Verb;

extern const Verb verbs[];		/* ends with a NULL name */

/* options.c */
extern const Verb *ParseOptions(int argc, char **argv, Options *options);
extern int64_t ParseToken(const char *text);

#define MAX_KEYWORDS 16
extern void ConnectionKeywords(const Options *options, const char **keywords, const char **values);

/* complain.c */
extern void Complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern void Fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
extern void *Allocate(size_t size);

/* The verbs */
extern int	RunCommand(const Options *options);
extern int	ElectLeader(const Options *options);
extern int	AcquireLease(const Options *options);
extern int	RenewLease(const Options *options);
extern int	ReleaseLease(const Options *options);
extern int	TransferLease(const Options *options);
extern int	ForceRelease(const Options *options);
extern int	ListLeases(const Options *options);
extern int	ListWaiters(const Options *options);
extern int	ShowStats(const Options *options);
extern int	ShowHistory(const Options *options);
extern int	ExplainName(const Options *options);
extern int	ShowStatus(const Options *options);
extern int	WatchEvents(const Options *options);
extern int	ShowTop(const Options *options);

#endif
