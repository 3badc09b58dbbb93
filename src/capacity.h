/*-------------------------------------------------------------------------
 *
 * capacity.h
 *	  Policy for the size of a semaphore.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_CAPACITY_H
#define LEASE_CAPACITY_H

#include "grant.h"

extern int32 ResizeSemaphore(const Span *name, int32 capacity);

#endif							/* LEASE_CAPACITY_H */
