/*-------------------------------------------------------------------------
 *
 * acquire.h
 *	  The steps of who wants leases.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_ACQUIRE_H
#define LEASE_ACQUIRE_H

#include "judge.h"

extern bool AcquireLeases(const LeaseRequest *request, const Span *names, int count, Token *tokens);

#endif							/* LEASE_ACQUIRE_H */
