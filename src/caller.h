/*-------------------------------------------------------------------------
 *
 * caller.h
 *	  How our session calls itself, and marks what it does.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_CALLER_H
#define LEASE_CALLER_H

#include "arena.h"

extern Span DefaultHolder(void);
extern Span CurrentCorrelation(Span otherwise);
extern int	CorrelationContext(Span correlation_id);

#endif							/* LEASE_CALLER_H */
