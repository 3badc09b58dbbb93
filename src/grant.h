/*-------------------------------------------------------------------------
 *
 * grant.h
 *	  The life of one grant: made, held, over, ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_GRANT_H
#define LEASE_GRANT_H

#include "database.h"
#include "events.h"

/* Under the partition's lock. */
extern void FreeGrant(const LeaseName *lease, Grant *grant);
extern void EndHeld(const LeaseName *lease, Grant *grant, EventKind kind, const char *detail);
extern void ClaimHeld(const LeaseName *lease, Grant *grant, MonoTime opens_at, EventKind kind,
					  const char *detail);
extern bool ClaimOverdue(const LeaseName *lease, Grant *grant);
extern void StartHolding(const LeaseName *lease, Grant *grant, MonoTime now, EventKind kind,
						 MonoTime waiting_since);
extern void RestartTtl(const LeaseName *lease, Grant *grant, int64 ttl);
extern void ExtendTtl(const LeaseName *lease, Grant *grant, int64 ttl);
extern void ClaimReserved(Grant *grant);

/* Steps of the process that owns a grant; it holds interrupts, and no lock. */
extern void DescribeGrant(const GrantInfo *info, LedgerRow *row);
extern void WriteGrant(LeaseDatabase *open, Grant *grant, LedgerRow *row, bool *has_row);
extern void AbandonGrant(const LeaseName *lease, Grant *grant, bool has_row);
extern void AbandonHeld(const LeaseName *lease, Token token);
extern void ReleaseUnwritten(const LeaseName *lease, Token token);
extern bool PinGrant(const LeaseName *lease, Token token);
extern void UnpinGrant(const LeaseName *lease, Token token);
extern int	FindPinner(Oid database, Token token, int from);
extern void TakeBackUnconfirmed(LeaseDatabase *open, const LeaseName *lease, Grant *grant);
extern XLogRecPtr FinishGrant(LeaseDatabase *open, const LeaseName *lease, Grant *grant);
pg_noreturn extern void RefuseUnconfirmed(void);

/* Housekeeping. */
extern void AwaitSettled(const LeaseName *lease);
extern void AwaitSettledUntil(const LeaseName *lease, MonoTime until);
extern void MakeRoom(LeaseDatabase *open);
extern bool ExpireGrants(int partition, MonoTime now);
extern int	ReapGrants(LeaseDatabase *open, int most);

#endif							/* LEASE_GRANT_H */
