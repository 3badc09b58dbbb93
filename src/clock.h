/*-------------------------------------------------------------------------
 *
 * clock.h
 *	  The monotonic clock that leases are counted on.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_CLOCK_H
#define LEASE_CLOCK_H

#include "lease.h"
#include "port/atomics.h"

extern void ClockAttach(pg_atomic_uint64 *offset);
extern MonoTime MonotonicNow(void);
extern TimestampTz WallTimeOf(MonoTime when, MonoTime now);
extern void AdvanceClock(int64 usec);

#endif							/* LEASE_CLOCK_H */
