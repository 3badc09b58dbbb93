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

/* Under the partition's lock. */
extern bool IsLive(const Grant *grant, MonoTime now);
extern MonoTime OpensAt(const Grant *grant, MonoTime ended, bool orphaned);
extern MonoTime BlocksUntil(const Grant *grant);
extern void StartHolding(Grant *grant);
extern void RestartTtl(Grant *grant, int64 ttl);
extern void ClaimReserved(Grant *grant);

/* Steps of the process that owns a grant; it holds interrupts, and no lock. */
extern void DescribeGrant(const GrantInfo *info, LedgerRow *row);
extern void PublishGrant(LeaseDatabase *open, const LeaseName *lease, Grant *grant,
						 LedgerRow *row);
extern XLogRecPtr FinishGrant(LeaseDatabase *open, const LeaseName *lease, Grant *grant);
pg_noreturn extern void RefuseUnconfirmed(void);

/* Housekeeping. */
extern bool ExpireGrants(int partition, MonoTime now);
extern int	ReapGrants(LeaseDatabase *open, int most);

#endif							/* LEASE_GRANT_H */
