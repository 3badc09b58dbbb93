/*-------------------------------------------------------------------------
 *
 * told.h
 *	  Clients that write down what they were told: what their parts share.
 *
 * A line of what they write has these fields, with a tab between them, and \N for
 * what does not apply:
 *
 *	event name token mode scope holder correlation_id pid waited sent replied ttl detail
 *
 * The event is one of lease.history's; or "renewed"; or "leaves", of a grant
 * that ends as its detail says unless somebody else ends it before.  One that
 * nobody ends expires.  Whoever ends a grant need not know more of it than its
 * token.  waited is left out where it is not known.  sent and replied are when
 * the call was; ttl is the grant's.
 *
 * Each file uses only those that come before it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef TOLD_H
#define TOLD_H

#include "storm.h"

#define HOUR			(3600 * SECOND)
#define BRIEF			(SECOND / 3)
#define NAME_ROOM		80
#define LABEL_ROOM		40
#define DO_NOT_WAIT		(-1)

/* So long that it does not run out; but if we may be stopped, we may leave it behind. */
#define LONG_TTL		(options.hits > 0 ? BRIEF : HOUR)

/* told.c */
typedef struct Line
{
	const char *event;
	const char *name;
	int64_t		token;
	const char *mode;
	const char *scope;
	const char *holder;
	const char *correlation;
	int			pid;
	const char *waited;
	int64_t		ttl;
	const char *detail;
} Line;

extern PGconn *helper;			/* a second session of ours, at times */
extern PGresult *answer;		/* of the last call */
extern char sqlstate[6];		/* its SQLSTATE; empty if it succeeded */
extern int64_t sent_at;
extern int64_t replied_at;
extern char marked[LABEL_ROOM];	/* our session's lease.correlation_id, if any */
extern int	impatience;			/* our session's lock_timeout; 0: none */
extern int64_t noticed[64];		/* tokens in notices of the last call */
extern int	nnoticed;
extern void open_session(void);
extern void tell(Line line);
extern void tell_end(const char *event, const char *name, int64_t token, const char *detail);
extern void tell_act(const char *event, const char *name, int64_t token, const char *detail);
extern void keep_answer(PGconn *on, PGresult *reply, const char *allowed, const char *sql);
extern bool call(const char *allowed, const char *format, ...);
extern bool answer_is_true(void);
extern int64_t answer_number(int row, int column);
extern const char *interval_of(int64_t usec);

/* terms.c */
/* What is asked for. */
typedef struct Plan
{
	char		name[NAME_ROOM];
	int			capacity;		/* WHOLE: a lease */
	int			need;
	const char *scope;
	int64_t		ttl;			/* 0: none */
	int64_t		wait;			/* NEVER: as long as it takes */
	bool		private;		/* nobody else uses the name */
	bool		campaign;
	bool		delay;			/* keep the name closed for as long again, if it is lost */
	char		holder[LABEL_ROOM];
	char		correlation[LABEL_ROOM];
	char		request_id[LABEL_ROOM];
} Plan;

/* What was granted. */
typedef struct Held
{
	Plan		plan;
	int64_t		token;
	int64_t		ttl;
	int			holds;			/* how often; 0: it is over */
} Held;

extern Held spent;				/* a lease that is over */
extern int64_t first_token;		/* of all that we got */
extern const char *mode_of(const Plan *plan);
extern Plan new_plan(const char *scope, int64_t ttl);
extern Plan own_plan(const char *what, const char *scope, int64_t ttl);
extern Plan common_plan(void);
extern void write_plan(const Plan *plan, char *sql);
extern void tell_attempt(const Plan *plan, const char *event, const char *name, int pid);
extern void tell_grant(const Held *held, int pid, const char *waited);
extern void tell_failure(const Plan *plan, const char *name);
extern void tell_leave(Held *held, const char *how);
extern void tell_loss(const char *event, Held *held, const char *detail);
extern bool take(const Plan *plan, Held *held);
extern void take_again(Held *held);
extern void prolong(Held *held);
extern void hand_over(Held *held);
extern void let_go(Held *held);
extern void await_loss(const Held *held);
extern void have_guarded(Held *held);

#endif							/* TOLD_H */
