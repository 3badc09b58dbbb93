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
	uint32		name;			/* chain for a new resource's name */
} SpareGrant;

/* A copy of a grant that needs no lock to look at. */
typedef struct GrantInfo
{
	Grant		grant;			/* its lists and strings are not for use */
	Oid			database;
	uint32		name_length;
	char		name[LEASE_NAME_MAX + 1];
	char		holder[LEASE_LABEL_MAX + 1];
	char		request_id[LEASE_LABEL_MAX + 1];
	char		correlation_id[LEASE_LABEL_MAX + 1];
} GrantInfo;

#define NamePartition(lease)	(&Shared->partitions[(lease)->index])
#define GrantPartition(grant)	(&Shared->partitions[(grant)->partition])

extern void ResolveName(LeaseName *lease, Oid database, const char *name, uint32 length);
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
extern Grant *LinkGrant(const LeaseName *lease, SpareGrant *spare);
extern void DropGrant(const LeaseName *lease, Grant *grant);
extern void ClaimGrant(Grant *grant, MonoTime opens_at);
extern void MarkDead(Grant *grant, MonoTime opens_at);
extern bool HasRequestId(const Grant *grant, const Span *request_id);
extern bool HasHolder(const Grant *grant, const Span *holder);
extern void CopyGrant(const Grant *grant, GrantInfo *info);

/* Walking all grants, slot by slot. */
extern Grant *LockGrantSlot(uint32 slot, LWLockMode mode);
extern void UnlockGrantSlot(const Grant *grant);

#endif							/* LEASE_TABLE_H */
