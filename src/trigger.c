/*-------------------------------------------------------------------------
 *
 * trigger.c
 *	  Triggers of ours on users' tables: put, found, taken off.
 *
 * They are ordinary triggers, made by CREATE TRIGGER under the caller's
 * privileges, so they are dumped and restored, and shown by \d.
 *
 * What is said of a table holds for its descendants.  A partitioned table's row
 * triggers are the server's to clone to partitions, those to come included; its
 * statement triggers are not, and children by inheritance get neither.  These we
 * put on each descendant that is there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/sysattr.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "parser/parse_func.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "trigger.h"

/*
 * Open a table, ours by ownership, that can have row triggers which matter.
 *
 * Errors: 42809 of another kind than table and partitioned table; 42501.
 */
Relation
OpenOwnTable(Oid relid, LOCKMODE lockmode)
{
	Relation	rel = relation_open(relid, lockmode);

	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table of this database", RelationGetRelationName(rel)),
				 rel->rd_rel->relkind == RELKIND_VIEW ?
				 errhint("Writes through a view are checked on the tables that it reads.") : 0));
	if (!object_ownercheck(RelationRelationId, relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(rel->rd_rel->relkind),
					   RelationGetRelationName(rel));
	return rel;
}

char *
QualifiedName(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

/* A relation's trigger of a kind, or NULL; valid while the relation is open. */
Trigger *
FindTrigger(Relation rel, const TriggerKind *kind)
{
	List	   *name = list_make2(makeString("lease"), makeString(pstrdup(kind->function)));
	Oid			function = LookupFuncName(name, 0, NULL, false);

	if (rel->trigdesc == NULL)
		return NULL;
	for (int i = 0; i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgfoid == function && !trigger->tgisinternal &&
			(TRIGGER_FOR_ROW(trigger->tgtype) != 0) == kind->for_row)
			return trigger;
	}
	return NULL;
}

static bool
HasArguments(const Trigger *trigger, char **args, int nargs)
{
	if (trigger->tgnargs != nargs)
		return false;
	for (int i = 0; i < nargs; i++)
		if (strcmp(trigger->tgargs[i], args[i]) != 0)
			return false;
	return true;
}

static void
RunCommand(const char *command)
{
	if (SPI_execute(command, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not run \"%s\"", command);
}

/* Drop a relation's trigger of a kind, if it has one of its own. */
static bool
DropFrom(Oid relid, const TriggerKind *kind)
{
	Relation	rel = relation_open(relid, NoLock);
	Trigger    *trigger = FindTrigger(rel, kind);
	bool		drops = trigger != NULL && !trigger->tgisclone;
	char	   *command = NULL;

	if (drops)
		command = psprintf("DROP TRIGGER %s ON %s", quote_identifier(trigger->tgname),
						   QualifiedName(rel));
	relation_close(rel, NoLock);
	if (drops)
		RunCommand(command);
	return drops;
}

/* Have a relation have a trigger of a kind with these arguments. */
static bool
PutOn(Oid relid, const TriggerKind *kind, char **args, int nargs)
{
	Relation	rel = relation_open(relid, NoLock);
	Trigger    *present = FindTrigger(rel, kind);
	bool		fits = present != NULL && HasArguments(present, args, nargs);
	StringInfoData command;

	initStringInfo(&command);
	appendStringInfo(&command, "CREATE TRIGGER %s %s ON %s FOR EACH %s EXECUTE FUNCTION lease.%s(",
					 kind->name, kind->event, QualifiedName(rel),
					 kind->for_row ? "ROW" : "STATEMENT", kind->function);
	relation_close(rel, NoLock);
	if (fits)
		return false;
	for (int i = 0; i < nargs; i++)
		appendStringInfo(&command, "%s%s", i > 0 ? ", " : "", quote_literal_cstr(args[i]));
	appendStringInfoChar(&command, ')');
	(void) DropFrom(relid, kind);
	RunCommand(command.data);
	return true;
}

/* Would a table's trigger be cloned to its descendants? */
static bool
IsCloned(Oid relid, const TriggerKind *kind)
{
	return kind->for_row && get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE;
}

/* A table and its descendants, locked; none of them is foreign. */
static List *
LockFamily(Oid relid)
{
	List	   *family = find_all_inheritors(relid, ShareRowExclusiveLock, NULL);
	ListCell   *cell;

	foreach(cell, family)
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_FOREIGN_TABLE)
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" is not a table of this database",
							get_rel_name(lfirst_oid(cell)))));
	return family;
}

/*
 * See that a table and its descendants have a trigger of a kind with these
 * arguments, and no other of that kind.  Returns false if they had.
 */
bool
InstallTrigger(Oid relid, const TriggerKind *kind, char **args, int nargs)
{
	List	   *family = LockFamily(relid);
	bool		cloned = IsCloned(relid, kind);
	bool		changed = false;
	ListCell   *cell;

	SPI_connect();
	foreach(cell, family)
		if (cloned && lfirst_oid(cell) != relid)
			changed |= DropFrom(lfirst_oid(cell), kind);
	foreach(cell, family)
		if (!cloned || lfirst_oid(cell) == relid)
			changed |= PutOn(lfirst_oid(cell), kind, args, nargs);
	SPI_finish();
	return changed;
}

/* Take the triggers of a kind off.  Returns false if there were none. */
bool
RemoveTrigger(Oid relid, const TriggerKind *kind)
{
	List	   *family = LockFamily(relid);
	bool		changed = false;
	ListCell   *cell;

	SPI_connect();
	foreach(cell, family)
		changed |= DropFrom(lfirst_oid(cell), kind);
	SPI_finish();
	return changed;
}

/*
 * The call of a trigger function, checked: somebody may have made a trigger of
 * it by hand.
 */
TriggerData *
TriggerCall(FunctionCallInfo fcinfo, const TriggerKind *kind, int nargs)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("lease.%s() must be called as a trigger", kind->function)));
	if ((TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) != 0) != kind->for_row ||
		(TRIGGER_FIRED_BEFORE(trigdata->tg_event) != 0) != (strncmp(kind->event, "BEFORE", 6) == 0) ||
		trigdata->tg_trigger->tgnargs != nargs)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("lease.%s() must be called by a trigger %s FOR EACH %s, with %d arguments",
						kind->function, kind->event, kind->for_row ? "ROW" : "STATEMENT", nargs)));
	return trigdata;
}

/* The column that a trigger's first argument names. */
AttrNumber
TriggerColumn(const TriggerData *trigdata)
{
	const char *name = trigdata->tg_trigger->tgargs[0];
	int			column = SPI_fnumber(trigdata->tg_relation->rd_att, name);

	if (column <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table \"%s\" has no column \"%s\", which trigger \"%s\" looks after",
						RelationGetRelationName(trigdata->tg_relation), name,
						trigdata->tg_trigger->tgname)));
	return column;
}

/* Does the statement that fired a trigger for UPDATE set a column? */
bool
IsColumnSet(const TriggerData *trigdata, AttrNumber column)
{
	return bms_is_member(column - FirstLowInvalidHeapAttributeNumber, trigdata->tg_updatedcols);
}
