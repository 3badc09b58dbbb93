/*-------------------------------------------------------------------------
 *
 * queue.h
 *	  Who waits for a name, in which order; hand-over.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_QUEUE_H
#define LEASE_QUEUE_H

#include "events.h"
#include "token.h"

/* The place of a backend, by its number: ours, or another's. */
#define MyWaiter				(&Waiters[MyProc - ProcGlobal->allProcs])
#define WaiterState(waiter)		((WaitState) pg_atomic_read_u32(&(waiter)->state))
#define IsFirstInLine(waiter)	((waiter)->resource->queue == (waiter))

/* All under the partition's lock. */
extern Token HoldAtOnce(const LeaseName *lease, Database *db, Grant *grant, MonoTime waiting_since);
extern void JoinQueue(const LeaseName *lease, Resource *resource, Grant *grant, Database *db,
					  MonoTime since);
extern void LeaveQueue(const LeaseName *lease);
extern void ServeQueue(const LeaseName *lease, Resource *resource);
extern void EvictWaiters(const LeaseName *lease, Resource *resource);
extern void EvictTooLarge(Resource *resource);
extern void AlertFirst(Resource *resource, MonoTime due);
extern Waiter *FindTwin(const Resource *resource, const Grant *grant);
extern MonoTime NextOpening(const Resource *resource);
extern MonoTime IsInTheWayUntil(const Grant *grant);

/* Looking at all queues, place by place. */
extern Waiter *LockWaiter(uint32 number, LWLockMode mode);
extern void UnlockWaiter(const Waiter *waiter);

#endif							/* LEASE_QUEUE_H */
