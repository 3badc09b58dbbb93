/*-------------------------------------------------------------------------
 *
 * wheel.h
 *	  Which grant of a partition expires next.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_WHEEL_H
#define LEASE_WHEEL_H

#include "shmem.h"

/* All for the holder of the partition's lock, exclusively. */
extern void WheelAdd(Partition *part, Grant *grant);
extern void WheelRemove(Grant *grant);
extern Grant *WheelPop(Partition *part, MonoTime now, int *budget);

#endif							/* LEASE_WHEEL_H */
