/*-------------------------------------------------------------------------
 *
 * storm.h
 *	  What the parts of the storm share.
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
 *	commit NAME TOKEN MODE BELOW ABOVE WHO
 *		WHO committed a transaction that a lease guarded, in MODE x (exclusive) or
 *		s (shared).  Of those that exclude it, it saw as it began to read BELOW
 *		with smaller tokens and ABOVE with larger ones.
 *	again NAME TOKEN SECOND WHO		one more hold of a token gave another one
 *	lost NAME TOKEN WHO				lost before its TTL
 *	stuck NAME WHO					waits for a name that nobody holds
 *	left NAME TOKEN WHO				holds what it never got or has let go
 *	wrong TEXT						anything else that must not be
 *	count KEY VALUE					what was done
 *
 * All times are microseconds of CLOCK_MONOTONIC, the server's lease clock.
 *
 * Below, each file uses only those that come before it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef STORM_H
#define STORM_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

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

/* What the command line says. */
typedef struct Options
{
	const char *conninfo;
	const char *history;
	int			clients;
	int			names;
	int			padding;		/* names are up to so long */
	int			seconds;		/* of a round */
	int			rounds;
	int			hits;			/* interruptions in a round; 0: it ends by time */
	int			least;			/* how often everything has to happen */
	int			patience;		/* seconds for anything to happen */
	void		(*begin) (void);	/* a client's session */
	void		(*episode) (void);	/* of its life */
} Options;

typedef enum Scope
{
	DETACHED,
	SESSION,
	TRANSACTION
} Scope;

/* One grant, as its holder knows it. */
typedef struct Hold
{
	int64_t		token;
	int64_t		sent;			/* when it was asked for */
	int64_t		from;			/* when the reply was there */
	int64_t		until;			/* when it ceased to be sure; 0: not yet;
								 * negative: it did then, for the moment */
	int64_t		deadline;		/* of its TTL, counted from before it started */
	int64_t		ttl;			/* 0: none */
	uint32_t	op;
	int			name;
	int			need;
	Scope		scope;
	int			level;			/* of nested transactions */
	bool		in_order;
	bool		is_new;
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
	EPISODES,
	NCOUNTS
} Count;

typedef struct Client
{
	pid_t		process;
	volatile int backend;
	volatile bool busy;			/* not at rest */
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
	Client		clients[];
} Storm;

/* common.c */
extern Options options;
extern Storm *storm;
extern int64_t now_us(void);
extern int	below(int n);
extern bool chance(int percent);
extern void pause_ms(int ms);
extern bool too_late(int64_t since);
extern _Noreturn void die(const char *format, ...);
extern void *share_memory(size_t size);
extern void wrong(const char *format, ...);

/* names.c */
extern void weigh_names(void);
extern int	capacity_of(int name);
extern int	pick_name(bool semaphore, int after);
extern const char *name_of(int name);

/* query.c */
extern PGconn *open_connection(void);
extern void open_watch(void);
extern void close_watch(void);
extern PGresult *query(const char *format, ...);
extern int64_t query_number(const char *sql);

/* holds.c */
extern Client *me;
extern int	my_number;
extern int	level;				/* 0: no transaction, 1, or 2 in a savepoint */
extern Hold *next_open(int *at);
extern Hold *last_hold(void);
extern Hold *add_hold(int name, int need, int64_t token, int64_t sent, Scope scope, int64_t ttl);
extern void end_hold(Hold *hold, int64_t when);
extern void doubt(int from_level);
extern void settle(bool still);
extern void forget(int from_level);
extern void bury_session(Client *client);

/* calls.c */
typedef enum Outcome
{
	DONE,
	INTERRUPTED,				/* it may have been done */
	TIMED_OUT,					/* it was not done */
	LOST
} Outcome;

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

extern PGconn *conn;
extern jmp_buf connection_lost;
extern Outcome ask(const char *format, ...);
extern Outcome insist(const char *format, ...);
extern void check_point(void);
extern int	acquire(const Wish *wish);
extern void acquire_again(Hold *hold);
extern void renew(Hold *hold);
extern Hold *transfer(Hold *hold);
extern void release(Hold *hold);
extern void release_session(void);
extern void look_for_leftovers(Outcome outcome);

/* client.c */
extern void begin_client(void);
extern void client_episode(void);

/* history.c */
typedef struct Tally
{
	int64_t		samples;
	int64_t		kills;
	int64_t		terminations;
	int64_t		cancels;
	int64_t		most_waiters;
	int64_t		checked_holds;
} Tally;

extern Tally tally;
extern void write_count(FILE *out, const char *key, int64_t value);
extern void write_common(FILE *out);
extern void sample(void);
extern void open_round(void);
extern void close_round(void);
extern int64_t interruptions(void);
extern void write_history(void);

/* crew.c */
extern void reconnect(void);
extern void start_client(int n);
extern void replace_dead(void);
extern void interrupt(int terminate_percent, int kill_percent);
extern int	count_busy(void);
extern int	count_alive(void);
extern void give_up(const char *why);

/* audit.c */
extern void check_holds(void);

/* control.c */
extern void start_clients(void);
extern void end_clients(void);
extern void run_storm(void);

/* guards.c */
#define MAX_ROUNDS		400
#define MAX_OPS			100000

/* What may become of a guarded transaction; its client alone counts. */
typedef enum Fate
{
	COMMITTED,
	ROLLED_BACK,				/* as its client wished */
	LOST_EARLY,					/* when a statement needed the lease */
	LOST_AT_COMMIT,
	TOO_OLD,					/* its snapshot, for the lease */
	CONFLICTED,					/* as SERIALIZABLE does */
	STOPPED,					/* cancelled */
	VANISHED,					/* nobody was told */
	TIRED,						/* no lease came */
	NFATES
} Fate;

/* What was special about one that committed. */
typedef enum Trait
{
	AT_READ_COMMITTED,
	AT_REPEATABLE_READ,
	AT_SERIALIZABLE,
	OF_TRANSACTION,				/* the lease is of that scope */
	OF_SESSION,
	OF_SEVERAL,					/* leases */
	OF_SHARED,
	OF_OTHERS,					/* with another session's token */
	HANDED_OVER,				/* the lease had just been transferred */
	ACQUIRED_INSIDE,
	GUARDED_BEFORE,				/* the first read, by an earlier statement */
	GUARDED_AFTER,
	GUARDED_AT_COMMIT,			/* by a deferred trigger */
	NESTED,						/* in a savepoint */
	GUARDED_AGAIN,				/* after a savepoint with the guard was rolled back */
	RENEWED,
	RELEASED,					/* by a statement of its own */
	NOTIFIED,
	CROWDED,					/* with many subtransactions */
	NTRAITS
} Trait;

/* What a client was told of a transaction. */
typedef enum Word
{
	NOTHING,
	YES,
	NO
} Word;

/* What the processes of a siege share, besides what those of a storm do. */
typedef struct Siege
{
	volatile int round;			/* tells which names are in use */
	volatile int64_t tokens[MAX_ROUNDS * MAX_NAMES];	/* for others to use; 0: none */
	volatile int latest;		/* name whose token was left last */
	int64_t		fates[MAX_CLIENTS][NFATES];
	int64_t		traits[MAX_CLIENTS][NTRAITS];
	volatile uint8_t words[MAX_CLIENTS][MAX_OPS];
} Siege;

extern Siege *siege;
extern void begin_guard(void);
extern void guard_episode(void);

/* siege.c */
extern void run_guards(void);

/* truth.c */
extern void run_truth(void);

/* verdict.c */
extern int	violations;
extern void accuse(const char *format, ...);
extern void count(const char *key, int64_t value);

/* commits.c */
extern void read_commit(const char *line);
extern void judge_commits(void);

/* judge.c */
extern void judge(const char *path);

/* fair.c */
extern void be_fair(int clients, int grants);

#endif							/* STORM_H */
