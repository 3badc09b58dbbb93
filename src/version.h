/*-------------------------------------------------------------------------
 *
 * version.h
 *	  Columns of users' tables that only grow.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_VERSION_H
#define LEASE_VERSION_H

#include "compat.h"
#include "trigger.h"

/* Its first argument is the version column. */
extern const TriggerKind VersionTrigger;

pg_noreturn extern void RefuseVersion(Relation rel, int64 present, int64 expected);

#endif							/* LEASE_VERSION_H */
