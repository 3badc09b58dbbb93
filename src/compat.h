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
#include "storage/latch.h"
#include "utils/ps_status.h"
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

/* 16 has one function for the owners of all kinds of objects. */
#define object_ownercheck(class, object, role)	pg_class_ownercheck(object, role)

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

/* 16 allocates what goes with a setting itself. */
#if PG_VERSION_NUM >= 160000
#define AllocateExtra(size)				guc_malloc(LOG, size)
#else
#define AllocateExtra(size)				malloc(size)
#endif

/* 16 adds what is done before to the process title while it waits. */
#if PG_VERSION_NUM < 160000
static inline void
set_ps_display_remove_suffix(void)
{
	int			length;
	const char *title = get_ps_display(&length);

	if (length >= 8 && strcmp(title + length - 8, " waiting") == 0)
		set_ps_display(pnstrdup(title, length - 8));
}

static inline void
set_ps_display_suffix(const char *suffix)
{
	int			length;
	const char *title = get_ps_display(&length);

	set_ps_display(psprintf("%.*s %s", length, title, suffix));
}
#endif

/*
 * The server's wait set with the client's socket in it, and a look at that.
 * Their own header, libpq/libpq.h, wants those of Kerberos, which need not be
 * there.
 */
extern PGDLLIMPORT WaitEventSet *FeBeWaitSet;
extern bool pq_check_connection(void);
#define FEBE_SOCKET_POSITION	0
#define FEBE_EVENT_COUNT		3

#endif							/* LEASE_COMPAT_H */
