/*-------------------------------------------------------------------------
 *
 * acquire.h
 *	  Policy for who wants a lease: who gets it, who waits, who is refused.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_ACQUIRE_H
#define LEASE_ACQUIRE_H

#include "grant.h"

/* What an acquire asks for, of each of its names; checked by the caller. */
typedef struct LeaseRequest
{
	GrantLabels labels;
	bool		holder_is_default;	/* nobody named a holder */
	int32		permits;		/* how much of the name */
	int32		capacity;		/* WHOLE_LEASE for a lease; of a semaphore,
								 * 0 takes the one it has */
	LeaseScope	scope;
	int64		ttl;			/* usec, or NO_TTL */
	int64		wait;			/* usec, DO_NOT_WAIT or WAIT_FOREVER */
	int64		lock_delay;		/* usec, 0 = none */
	int64		min_hold;		/* usec, 0 = none */
	Span		metadata;		/* jsonb as text; length 0: none */
} LeaseRequest;

#define DO_NOT_WAIT		INT64CONST(-1)
#define WAIT_FOREVER	PG_INT64_MAX

extern bool AcquireLeases(const LeaseRequest *request, const Span *names, int count, Token *tokens);

#endif							/* LEASE_ACQUIRE_H */
