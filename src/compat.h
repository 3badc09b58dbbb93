/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Every difference between the supported server versions, 15 to 18.
 *
 * A wrapper has the signature, or the name, that the newest server gives the
 * thing; no other file looks at PG_VERSION_NUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_COMPAT_H
#define LEASE_COMPAT_H

#include "access/hio.h"
#include "replication/walsender_private.h"
#include "utils/rel.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM < 150000
#error "lease needs PostgreSQL 15 or later"
#endif

#if PG_VERSION_NUM < 160000

/* 16 renamed the physical address of a relation. */
typedef Oid RelFileNumber;

#define InvalidRelFileNumber			InvalidOid
#define rd_newRelfilelocatorSubid		rd_newRelfilenodeSubid
#define rd_firstRelfilelocatorSubid		rd_firstRelfilenodeSubid
#define RelationRelFileNumber(rel)		((rel)->rd_node.relNode)

/* 16 let the caller ask for several pages at once. */
#define RelationGetBufferForTuple(rel, len, other, options, bistate, vm, vm_other, num_pages) \
	RelationGetBufferForTuple(rel, len, other, options, bistate, vm, vm_other)

#else

#define RelationRelFileNumber(rel)		((rel)->rd_locator.relNumber)

#endif

/* 18 puts the mark before the declaration. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn						pg_attribute_noreturn()
#endif

/*
 * Is synchronous replication configured?  A minor release of each branch
 * turned the flag into a bit of a mask.  The caller holds SyncRepLock.
 */
#ifdef SYNC_STANDBY_DEFINED
#define SyncStandbysAreDefined() \
	((WalSndCtl->sync_standbys_status & SYNC_STANDBY_DEFINED) != 0)
#else
#define SyncStandbysAreDefined()		(WalSndCtl->sync_standbys_defined)
#endif

/*
 * From 17 on an extension may name its wait events; before, they all read
 * "Extension".
 */
#if PG_VERSION_NUM >= 170000
#define NamedWaitEvent(name)			WaitEventExtensionNew(name)
#else
#define NamedWaitEvent(name)			PG_WAIT_EXTENSION
#endif

#endif							/* LEASE_COMPAT_H */
