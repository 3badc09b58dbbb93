/*-------------------------------------------------------------------------
 *
 * explain.h
 *	  What became of a lease that its holder finds lost.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_EXPLAIN_H
#define LEASE_EXPLAIN_H

#include "grant.h"

extern char *ExplainLoss(const Span *name, Token token);
extern void ReportLost(int elevel, const Span *name, Token token, EventKind kind,
					   const char *tried);

#endif							/* LEASE_EXPLAIN_H */
