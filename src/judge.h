/*-------------------------------------------------------------------------
 *
 * judge.h
 *	  What a name means for who asks for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_JUDGE_H
#define LEASE_JUDGE_H

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

/* What an acquirer finds. */
typedef enum Finding
{
	NAME_VACANT,				/* there is room, but no spare grant to fill it */
	NAME_UNLISTED,				/* the same, but the name table is full */
	NAME_RESERVED,				/* reserved for us */
	NAME_HELD,					/* and held, too */
	NAME_OVERDUE,				/* a dead grant in the way, now claimed by us */
	NAME_SETTLING,				/* somebody is writing; look again after that */
	NAME_TAKEN,					/* held, being granted, or closed */
	NAME_QUEUED,				/* the same, and we stand in its queue */
	NAME_RETRIED,				/* held under the same request id */
	NAME_HELD_HERE,				/* held by our session; one more hold */

	/* Refused. */
	NAME_IS_SEMAPHORE,
	NAME_IS_LEASE,
	NAME_HAS_NO_CAPACITY,
	NAME_HAS_OTHER_CAPACITY,
	NAME_IS_TOO_SMALL,
	NAME_CANNOT_UPGRADE,
	NAME_REQUEST_DIFFERS
} Finding;

/* Under the partition's lock. */
extern Finding JudgeName(const LeaseName *lease, const LeaseRequest *request, Grant **about);
extern bool Differs(const Grant *grant, const LeaseRequest *request);

extern void Refuse(const Span *name, const LeaseRequest *request, Finding finding);

#endif							/* LEASE_JUDGE_H */
