/*-------------------------------------------------------------------------
 *
 * lessor.h
 *	  The one place of policy: acquire, renew, release, transfer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_LESSOR_H
#define LEASE_LESSOR_H

#include "grant.h"

/* What an acquire asks for; checked by the caller. */
typedef struct LeaseRequest
{
	Span		name;
	GrantLabels labels;
	bool		holder_is_default;	/* nobody named a holder */
	int64		ttl;			/* usec */
	int64		lock_delay;		/* usec, 0 = none */
	int64		min_hold;		/* usec, 0 = none */
	Span		metadata;		/* jsonb as text; length 0: none */
} LeaseRequest;

#define LEASE_LOST		INT64CONST(-1)
#define OWN_TTL			INT64CONST(-1)

extern Token TryAcquireLease(const LeaseRequest *request);
extern int64 RenewLease(const Span *name, Token token, int64 ttl);
extern bool ReleaseLease(const Span *name, Token token);
extern Token TransferLease(const Span *name, Token token, const Span *to_holder);
extern int	ForceReleaseLease(const Span *name, Token token, const char *reason, bool reopen);
extern bool IsLeaseHeld(const Span *name, Token token);
extern void RequireLeaseOwner(const Span *name, Token token);
extern int64 BeginEpoch(const char *reason);

#endif							/* LEASE_LESSOR_H */
