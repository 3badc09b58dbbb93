/*-------------------------------------------------------------------------
 *
 * table.h
 *	  Resources and grants by name.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_TABLE_H
#define LEASE_TABLE_H

#include "arena.h"

/* A name of a database, hashed once: what finds a resource and its lock. */
typedef struct LeaseName
{
	NameKey		key;
	uint32		hash;
	int			index;			/* of its partition */
} LeaseName;

/* What people told about a grant. */
typedef struct GrantLabels
{
	Span		holder;
	Span		request_id;		/* length 0: none */
	Span		correlation_id; /* length 0: none */
} GrantLabels;

/* A grant taken off the free list with all the memory that linking needs. */
typedef struct SpareGrant
{
	Grant	   *grant;			/* NULL: none */
	bool		from_reserve;	/* fit for a queue only */
	uint32		name;			/* chain for a new resource's name */
} SpareGrant;

/* A copy of a grant that needs no lock to look at. */
typedef struct GrantInfo
{
	Grant		grant;			/* its lists and strings are not for use */
	Oid			database;
	int32		capacity;
	uint32		name_length;
	char		name[LEASE_NAME_MAX + 1];
	char		holder[LEASE_LABEL_MAX + 1];
	char		request_id[LEASE_LABEL_MAX + 1];
	char		correlation_id[LEASE_LABEL_MAX + 1];
} GrantInfo;

/* Room in a name for so many permits more? */
#define HasRoom(resource, permits) \
	((resource)->taken + (permits) <= (resource)->capacity)
#define IsSemaphore(resource)	((resource)->capacity != WHOLE_LEASE)

/* A grant with a row in the ledger. */
#define IsDetached(grant)		((grant)->scope == SCOPE_DETACHED)

#define NamePartition(lease)	(&Shared->partitions[(lease)->index])
#define GrantPartition(grant)	(&Shared->partitions[(grant)->partition])

extern void ResolveName(LeaseName *lease, Oid database, const char *name, uint32 length);
extern void ResolveGrant(LeaseName *lease, const Grant *grant, char *name);
extern void LockPartition(int partition, LWLockMode mode);
extern void UnlockPartition(int partition);
extern void LockName(const LeaseName *lease, LWLockMode mode);
extern void UnlockName(const LeaseName *lease);
extern void AnnounceSettled(const LeaseName *lease);

/* Before the lock. */
extern bool PrepareGrant(SpareGrant *spare, const LeaseName *lease,
						 const GrantLabels *labels, bool from_reserve);
extern void DiscardSpare(SpareGrant *spare);

/* Under the partition's lock. */
extern Resource *FindResource(const LeaseName *lease);
extern Grant *FindGrant(const LeaseName *lease, Token token);
extern Grant *LinkGrant(const LeaseName *lease, SpareGrant *spare, int32 capacity);
extern void AttachGrant(Resource *resource, Grant *grant, int partition);
extern void DropGrant(const LeaseName *lease, Grant *grant);
extern void DropUnusedName(const LeaseName *lease, Resource *resource);
extern MonoTime DeadlineAfter(MonoTime now, int64 ttl);
extern void MakeHeld(Grant *grant, MonoTime now);
extern bool IsLive(const Grant *grant, MonoTime now);
extern MonoTime OpensAt(const Grant *grant, MonoTime ended, bool orphaned);
extern MonoTime ClosedUntil(const Grant *grant);
extern MonoTime BlocksUntil(const Grant *grant);
extern bool IsInTheWay(const Grant *grant, MonoTime now);
extern void ClaimGrant(Grant *grant, MonoTime opens_at);
extern void MarkDead(Grant *grant, MonoTime opens_at);
extern bool HasRequestId(const Grant *grant, const Span *request_id);
extern bool IsSameRequest(const Grant *grant, const Grant *other);
extern bool HasHolder(const Grant *grant, const Span *holder);
extern void CopyGrant(const Grant *grant, GrantInfo *info);
extern void CopyGrantOf(const Resource *resource, const Grant *grant, GrantInfo *info);

/* Who waits for a name, in order. */
extern Waiter *NextWaiter(const Resource *resource, const Waiter *after);
extern uint32 CountWaiters(const Resource *resource);
extern void WakeWaiter(const Waiter *waiter);

/* Walking all grants, slot by slot. */
extern Grant *LockGrantSlot(uint32 slot, LWLockMode mode);
extern void UnlockGrantSlot(const Grant *grant);

#endif							/* LEASE_TABLE_H */
