/*-------------------------------------------------------------------------
 *
 * flush.h
 *	  WAL gets to disk: at once and together, or soon.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_FLUSH_H
#define LEASE_FLUSH_H

#include "lease.h"

extern void FlushTogether(XLogRecPtr lsn);
extern void FlushSoon(XLogRecPtr lsn);
extern void FlushDue(MonoTime now);

#endif							/* LEASE_FLUSH_H */
