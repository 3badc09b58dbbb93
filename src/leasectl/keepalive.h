/*
 * keepalive.h - keeps one lease of the PostgreSQL extension lease alive
 *
 * A small library for C programs: take keepalive.c, hosts.c and their headers, and
 * link libpq.  It has no globals, handles no signals, and never waits: everything happens
 * in KeepaliveTurn, which a program calls when KeepaliveFd is readable, in
 * whatever event loop it has.
 *
 *	Keepalive  *lease = KeepaliveStart(&request);
 *	struct pollfd ready = {KeepaliveFd(lease), POLLIN, 0};
 *
 *	while (KeepaliveTurn(lease) <= KEEPALIVE_HELD)
 *	{
 *		if (KeepaliveState(lease) == KEEPALIVE_HELD)
 *			... act, until KeepaliveDeadline(lease) at the latest ...
 *		poll(&ready, 1, -1);
 *	}
 *	KeepaliveFree(lease);
 *
 * What it takes care of: the deadline counts from before the last request that was
 * answered was sent, on CLOCK_BOOTTIME; a renewal is sent at a third of the TTL; a
 * request that gets no answer, or a server that went away, costs a sixth of the TTL,
 * then the next host of the connection string is asked, for the same token; a grant whose
 * answer was lost is found again by its request id.
 *
 * What is left to the program: to be at rest by the deadline.  libpq looks up host
 * names, and asks Kerberos, in calls that may wait, so a program must not let its
 * deadline depend on KeepaliveTurn's return: give addresses (hostaddr), or watch the
 * deadline elsewhere, as leasectl does.
 *
 * Times and durations are in microseconds.
 */
#ifndef KEEPALIVE_H
#define KEEPALIVE_H

#include <stdbool.h>
#include <stdint.h>

/* How the lease is asked for. */
typedef enum KeepaliveManner
{
	KEEPALIVE_ACQUIRE,			/* waits its turn */
	KEEPALIVE_TRY,				/* does not wait */
	KEEPALIVE_CAMPAIGN			/* waits without a snapshot, for very long waits */
} KeepaliveManner;

/* What to keep alive.  Strings and arrays must live as long as the Keepalive does. */
typedef struct KeepaliveRequest
{
	const char *const *keywords;	/* the connection, as PQconnectdbParams */
	const char *const *values;	/* takes it, with expand_dbname */

	const char *name;
	int64_t		ttl;			/* must be given: deadlines follow from it */
	int64_t		token;			/* of a lease that is held already, to keep that one; or 0 */
	bool		patient;		/* go on if at first no server can be reached */

	/* How to acquire it.  Zero or NULL is the server's default, but for wait. */
	KeepaliveManner manner;
	int64_t		wait;			/* the longest wait; negative: no bound */
	bool		shared;
	int			permits;		/* with either of these it is a semaphore */
	int			capacity;
	int64_t		lock_delay;
	int64_t		min_hold;
	const char *holder;
	const char *correlation_id;
	const char *metadata;
} KeepaliveRequest;

/* In the order in which they may follow each other; those after RELEASING are final. */
typedef enum KeepalivePhase
{
	KEEPALIVE_ASKING,			/* not held yet */
	KEEPALIVE_HELD,				/* ours until the deadline */
	KEEPALIVE_RELEASING,
	KEEPALIVE_RELEASED,
	KEEPALIVE_TAKEN,			/* somebody else has it, or the wait was over */
	KEEPALIVE_LOST,				/* the server says so, or the deadline is over */
	KEEPALIVE_UNREACHABLE,		/* no server answered that can grant leases */
	KEEPALIVE_REFUSED			/* the server will not, whoever has it */
} KeepalivePhase;

typedef struct Keepalive Keepalive;

/* Begin to ask for a lease.  Returns NULL, and sets errno, if a resource is lacking. */
extern Keepalive *KeepaliveStart(const KeepaliveRequest *request);

/* Do what can be done without waiting; returns the phase that follows from it. */
extern KeepalivePhase KeepaliveTurn(Keepalive *keepalive);

/*
 * Begin to give the lease back, if it is held; ends in RELEASED, LOST or UNREACHABLE.
 * Returns the phase, as KeepaliveTurn does, since it may be over at once.
 */
extern KeepalivePhase KeepaliveRelease(Keepalive *keepalive);

/* Close the connection and forget all.  A lease that was not released stays until its TTL. */
extern void KeepaliveFree(Keepalive *keepalive);

/* One descriptor for its whole life: readable if KeepaliveTurn has something to do. */
extern int	KeepaliveFd(const Keepalive *keepalive);

extern KeepalivePhase KeepaliveState(const Keepalive *keepalive);
extern int64_t KeepaliveToken(const Keepalive *keepalive);	/* 0 before the grant */

/* Until when the lease is proven, on KeepaliveNow's clock; 0 if it never was. */
extern int64_t KeepaliveDeadline(const Keepalive *keepalive);

/* Why it is as it is, in the server's or libpq's words; empty if all is well. */
extern const char *KeepaliveMessage(const Keepalive *keepalive);
extern const char *KeepaliveSqlstate(const Keepalive *keepalive);	/* may be empty, too */

/* CLOCK_BOOTTIME, which goes on while the machine sleeps, as does the server's. */
extern int64_t KeepaliveNow(void);

#endif
