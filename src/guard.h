/*-------------------------------------------------------------------------
 *
 * guard.h
 *	  What our transaction guards.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_GUARD_H
#define LEASE_GUARD_H

#include "grant.h"

/* How a transaction guards a lease; the later, the more it excludes. */
typedef enum GuardMode
{
	GUARD_NONE,
	GUARD_SHARED,				/* of a shared lease, or permits */
	GUARD_EXCLUSIVE
} GuardMode;

extern void InitGuards(void);
extern void NoteTransactionStart(void);
extern void NoteImportedSnapshot(void);

extern void ReserveGuards(int count);
extern GuardMode GuardModeOf(const Grant *grant);
extern void AddGuard(const LeaseName *lease, Token token, GuardMode mode);
extern void RequireFreshSnapshot(const LeaseName *lease, uint64 serial);

extern bool IsGuarded(const LeaseName *lease, Token token);
extern GuardMode HowGuarded(const Span *name);
extern void ReleaseAtEnd(const LeaseName *lease, Token token);

#endif							/* LEASE_GUARD_H */
