/*-------------------------------------------------------------------------
 *
 * deadlock.h
 *	  Would this wait ever end; who is in whose way.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_DEADLOCK_H
#define LEASE_DEADLOCK_H

#include "grant.h"

extern void CheckDeadlock(const LeaseName *lease);
extern int *BlockingPids(int pid, int *count);

#endif							/* LEASE_DEADLOCK_H */
