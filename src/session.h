/*-------------------------------------------------------------------------
 *
 * session.h
 *	  What our session holds, in scopes session and transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_SESSION_H
#define LEASE_SESSION_H

#include "guard.h"

/* What a release found out about a lease of our session. */
typedef enum HoldRelease
{
	HOLD_OVER,					/* there is none (any more): end the lease */
	HOLD_KEPT					/* there are others, or the transaction's end
								 * will release it */
} HoldRelease;

extern void EnableHolds(int count);
extern bool HoldsLeases(void);
extern bool IsOurHold(const Grant *grant);
extern void PrepareHold(Grant *grant);
extern void DiscardHold(Grant *grant);
extern void AddHold(const LeaseName *lease, Grant *grant, Token token, LeaseScope scope);
extern void GiveUpHold(Grant *grant, Token token, LeaseScope scope);
extern HoldRelease TakeOffHold(Grant *grant, bool guarded);
extern int	ReleaseSession(void);

#endif							/* LEASE_SESSION_H */
