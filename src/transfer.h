/*-------------------------------------------------------------------------
 *
 * transfer.h
 *	  Policy for handing a lease over to another holder.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_TRANSFER_H
#define LEASE_TRANSFER_H

#include "grant.h"

extern Token TransferLease(const Span *name, Token token, const Span *to_holder);

#endif							/* LEASE_TRANSFER_H */
