/*-------------------------------------------------------------------------
 *
 * lease.h
 *	  Types, limits and SQLSTATEs that every room of the extension shares.
 *
 * Nothing here has behaviour, and nothing here includes another file of the
 * project: it is the bottom of the one-way order of dependencies that
 * doc/design.md lists.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_H
#define LEASE_H

#include "datatype/timestamp.h"

/* The version of the SQL objects that this library was built for. */
#define LEASE_SQL_VERSION	"1.0"

/*
 * A fencing token.  Its upper part is the epoch (roughly, the minute since
 * 2026-01-01 UTC at which its range was opened), its lower part counts.
 * Below 2^53, so that it survives a trip through a double, as in JSON.
 */
typedef int64 Token;

#define INVALID_TOKEN		((Token) 0)
#define TOKEN_EPOCH_BITS	27
#define TOKEN_EPOCH_SIZE	(INT64CONST(1) << TOKEN_EPOCH_BITS)
#define TOKEN_LIMIT			(INT64CONST(1) << 53)
#define TokenEpoch(token)	((token) >> TOKEN_EPOCH_BITS)

/* A point on the server's monotonic clock, in microseconds (see clock.c). */
typedef int64 MonoTime;

#define MONO_NEVER			PG_INT64_MAX

/* Bounds of the arguments, in bytes and microseconds. */
#define LEASE_NAME_MAX		255
#define LEASE_LABEL_MAX		127 /* holder, request_id, correlation_id */
#define LEASE_METADATA_MAX	1024
#define LEASE_TTL_MIN		INT64CONST(1000)
#define LEASE_CAPACITY_MAX	1000000 /* permits of a semaphore */

/* The TTL of a lease that only its session or transaction ends. */
#define NO_TTL				INT64CONST(0)

/*
 * A name has so many permits, and each grant takes some.  A semaphore has as
 * many as its capacity says.  A lease is a semaphore of more permits than there
 * can be grants: a shared one takes one of them, an exclusive one all.
 */
#define WHOLE_LEASE			(1 << 24)
#define SHARED_LEASE		1

/* Their names, by LeaseScope. */
static const char *const ScopeNames[] pg_attribute_unused() = {"detached", "transaction", "session"};

/* The mode of a grant, for people. */
static inline const char *
ModeName(int32 permits, int32 capacity)
{
	if (capacity != WHOLE_LEASE)
		return "permit";
	return permits == WHOLE_LEASE ? "exclusive" : "shared";
}

/* What ends a grant, besides release; the later, the longer it lasts. */
typedef enum LeaseScope
{
	SCOPE_DETACHED,				/* its TTL alone; it has a row in the ledger */
	SCOPE_TRANSACTION,			/* also the end of its transaction */
	SCOPE_SESSION				/* also the end of its session */
} LeaseScope;

/*
 * What happens to leases, and is counted and told of (events.c).  The order
 * groups them: grants, their ends, attempts that came to nothing, refusals of
 * tokens, and what administrators and the server do.
 */
typedef enum EventKind
{
	EVENT_ACQUIRED,
	EVENT_RECEIVED,				/* by a transfer */

	EVENT_RELEASED,
	EVENT_EXPIRED,				/* its TTL ran out */
	EVENT_ORPHANED,				/* its session ended */
	EVENT_FORCED,
	EVENT_TRANSFERRED,
	EVENT_ABANDONED,			/* taken back before its holder knew of it */

	EVENT_REFUSED,				/* found it taken, and did not wait */
	EVENT_TIMEOUT,
	EVENT_DEADLOCK,
	EVENT_CANCELLED,

	EVENT_REJECTED,				/* a stale token */
	EVENT_GUARD_FAILED,

	EVENT_REOPENED,
	EVENT_RESIZED,
	EVENT_NEW_EPOCH,
	EVENT_LOADED,
	NUM_EVENTS
} EventKind;

#define IsVainAttempt(kind)		((kind) >= EVENT_REFUSED && (kind) <= EVENT_CANCELLED)

/* A duration that there was not, in usec. */
#define NO_TIME				INT64CONST(-1)

/* SQLSTATEs of our own; the others are the server's. */
#define ERRCODE_LEASE_LOST	MAKE_SQLSTATE('L', 'E', '0', '0', '1')
#define ERRCODE_STALE_TOKEN	MAKE_SQLSTATE('L', 'E', '0', '0', '2')
#define ERRCODE_LEASE_NOT_GUARDED	MAKE_SQLSTATE('L', 'E', '0', '0', '3')

#endif							/* LEASE_H */
