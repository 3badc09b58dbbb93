/*-------------------------------------------------------------------------
 *
 * stats.h
 *	  Counters and histograms, by name and by database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_STATS_H
#define LEASE_STATS_H

#include "table.h"

/* Under the partition's lock. */
extern void CountGrant(const LeaseName *lease, const Grant *grant, EventKind kind, int64 waited);
extern void CountEnd(const LeaseName *lease, const Grant *grant, EventKind kind, int64 held);
extern void CountVainAttempt(const LeaseName *lease, Oid owner, EventKind kind, int64 waited);
extern void CountRenewal(const LeaseName *lease, const Grant *grant, int64 margin);
extern void CountOther(const LeaseName *lease, Oid owner, EventKind kind);
extern void CountQueue(const LeaseName *lease, Oid owner, uint64 length);

/* Of no name. */
extern void CountNameless(Database *db, EventKind kind);

extern TimestampTz SumStats(Oid database, Counters *total);
extern int	CopyStats(int partition, Oid database, NameStats *copies);
extern void RestoreStats(const NameStats *stats);
extern void ForgetStats(Oid database);

/* The statistics table's hash, match and keycopy. */
extern int	StatsKeyMatch(const void *stored, const void *probe, Size keysize);
extern void *StatsKeyCopy(void *stored, const void *probe, Size keysize);

#endif							/* LEASE_STATS_H */
