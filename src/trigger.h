/*-------------------------------------------------------------------------
 *
 * trigger.h
 *	  Triggers of ours on users' tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_TRIGGER_H
#define LEASE_TRIGGER_H

#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/relcache.h"

/* A kind of trigger that we put on tables. */
typedef struct TriggerKind
{
	const char *name;
	const char *function;		/* in schema lease */
	const char *event;			/* as CREATE TRIGGER has it */
	int16		type;			/* the same, as pg_trigger.tgtype has it */
} TriggerKind;

extern Relation OpenOwnTable(Oid relid);
extern bool InstallTrigger(Oid relid, const TriggerKind *kind, char **args, int nargs);
extern bool RemoveTrigger(Oid relid, const TriggerKind *kind);
extern Trigger *FindTrigger(Relation rel, const TriggerKind *kind);
extern char *QualifiedName(Relation rel);

/* For the trigger functions. */
extern TriggerData *TriggerCall(FunctionCallInfo fcinfo, const TriggerKind *kind, int nargs);
extern AttrNumber TriggerColumn(const TriggerData *trigdata);
extern bool IsColumnSet(const TriggerData *trigdata, AttrNumber column);

#endif							/* LEASE_TRIGGER_H */
