/*-------------------------------------------------------------------------
 *
 * wait.h
 *	  Standing in a queue: how a backend sleeps, and what ends that.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_WAIT_H
#define LEASE_WAIT_H

#include "queue.h"

extern void WaitInQueue(const LeaseName *lease, const Span *name, Span correlation_id,
						MonoTime give_up_at);
extern EventKind StopWaiting(void);
extern void CheckClient(void);

#endif							/* LEASE_WAIT_H */
