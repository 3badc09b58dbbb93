/*-------------------------------------------------------------------------
 *
 * lessor.h
 *	  Policy for who holds a lease: renew, release, guard; and force.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_LESSOR_H
#define LEASE_LESSOR_H

#include "grant.h"

/* NO_TTL is a TTL, too. */
#define LEASE_LOST		INT64CONST(-1)
#define OWN_TTL			INT64CONST(-1)

extern void StampGrant(Grant *grant, int64 ttl);
extern bool RewriteRow(LeaseDatabase *open, const LeaseName *lease, Token token, int64 ttl,
					   Oid *cleared);
extern void RequireOwner(const LeaseName *lease, Oid owner);
extern Grant *LockLiveGrant(const LeaseName *lease, Token token, Oid *cleared);
extern bool CopyWithMetadata(LeaseDatabase *open, const LeaseName *lease, Token token,
							 Oid *cleared, GrantInfo *info, Span *metadata);
extern int64 RenewLease(const Span *name, Token token, int64 ttl);
extern bool ReleaseLease(const Span *name, Token token);
extern bool GuardLease(const Span *name, Token token);
extern int	ForceReleaseLease(const Span *name, Token token, const char *reason, bool reopen);
extern bool IsLeaseHeld(const Span *name, Token token);
extern void RequireLeaseOwner(const Span *name, Token token);
extern void RequireGrantedToken(Token token);
extern int64 BeginEpoch(const char *reason);

#endif							/* LEASE_LESSOR_H */
