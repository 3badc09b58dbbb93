/*-------------------------------------------------------------------------
 *
 * record.h
 *	  What the extension records in tables, within the caller's transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_RECORD_H
#define LEASE_RECORD_H

#include "database.h"

/* For the reaper, in a transaction: removes expired keys, and tells how many. */
extern int	SweepKeys(Database *db, MonoTime now);

#endif							/* LEASE_RECORD_H */
