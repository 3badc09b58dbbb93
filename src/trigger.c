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

static void
RequireOwnTable(Oid relid)
{
	if (!object_ownercheck(RelationRelationId, relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

/*
 * Lock and open a table, ours by ownership, that can have row triggers which
 * matter.  Whose it is is asked before the lock, too, which would stop others.
 *
 * Errors: 42P01; 42809 of another kind than table and partitioned table; 42501.
 */
Relation
OpenOwnTable(Oid relid)
{
	Relation	rel;

	RequireOwnTable(relid);
	rel = relation_open(relid, ShareRowExclusiveLock);
	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table of this database", RelationGetRelationName(rel)),
				 rel->rd_rel->relkind == RELKIND_VIEW ?
				 errhint("Writes through a view are checked on the tables that it reads.") : 0));
	RequireOwnTable(relid);
	return rel;
}

char *
QualifiedName(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

static Oid
FunctionOf(const TriggerKind *kind)
{
	List	   *name = list_make2(makeString("lease"), makeString(pstrdup(kind->function)));

	return LookupFuncName(name, 0, NULL, false);
}

/*
 * Does a trigger do all that its kind is for?  Somebody may have disabled it, or
 * have made one by hand that fires less often.
 */
static bool
IsEffective(const Trigger *trigger, const TriggerKind *kind)
{
	return trigger->tgtype == kind->type && trigger->tgqual == NULL && trigger->tgnattr == 0 &&
		(trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN || trigger->tgenabled == TRIGGER_FIRES_ALWAYS);
}

/*
 * A relation's next trigger of a kind, effective or not, from a place in its list
 * on, or NULL; valid while the relation is open.
 */
static Trigger *
NextTrigger(Relation rel, const TriggerKind *kind, int *at)
{
	Oid			function = FunctionOf(kind);

	while (rel->trigdesc != NULL && *at < rel->trigdesc->numtriggers)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[(*at)++];

		if (trigger->tgfoid == function)
			return trigger;
	}
	return NULL;
}

/* A relation's effective trigger of a kind, or NULL. */
Trigger *
FindTrigger(Relation rel, const TriggerKind *kind)
{
	Trigger    *trigger;
	int			at = 0;

	while ((trigger = NextTrigger(rel, kind, &at)) != NULL && !IsEffective(trigger, kind))
		;
	return trigger;
}

/* One that a relation has from its parent, or one of its own; or NULL. */
static Trigger *
FindTriggerBy(Relation rel, const TriggerKind *kind, bool from_parent)
{
	Trigger    *trigger;
	int			at = 0;

	while ((trigger = NextTrigger(rel, kind, &at)) != NULL && trigger->tgisclone != from_parent)
		;
	return trigger;
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

/* Drop one of a relation's own triggers of a kind.  Returns false if it has none. */
static bool
DropOne(Oid relid, const TriggerKind *kind)
{
	Relation	rel = relation_open(relid, NoLock);
	Trigger    *trigger = FindTriggerBy(rel, kind, false);
	char	   *command = NULL;

	if (trigger != NULL)
		command = psprintf("DROP TRIGGER %s ON %s", quote_identifier(trigger->tgname),
						   QualifiedName(rel));
	relation_close(rel, NoLock);
	if (command != NULL)
		RunCommand(command);
	return command != NULL;
}

static bool
DropFrom(Oid relid, const TriggerKind *kind)
{
	bool		dropped = false;

	while (DropOne(relid, kind))
		dropped = true;
	return dropped;
}

/* Has a relation a trigger of a kind, and each of them is just what is wanted? */
static bool
IsInPlace(Oid relid, const TriggerKind *kind, char **args, int nargs)
{
	Relation	rel = relation_open(relid, NoLock);
	bool		fits = FindTrigger(rel, kind) != NULL;
	Trigger    *trigger;
	int			at = 0;

	while ((trigger = NextTrigger(rel, kind, &at)) != NULL)
		fits &= IsEffective(trigger, kind) && HasArguments(trigger, args, nargs);
	relation_close(rel, NoLock);
	return fits;
}

/* Make a relation's trigger of a kind. */
static void
PutOn(Oid relid, const TriggerKind *kind, char **args, int nargs)
{
	Relation	rel = relation_open(relid, NoLock);
	StringInfoData command;

	initStringInfo(&command);
	appendStringInfo(&command, "CREATE TRIGGER %s %s ON %s FOR EACH %s EXECUTE FUNCTION lease.%s(",
					 kind->name, kind->event, QualifiedName(rel),
					 TRIGGER_FOR_ROW(kind->type) ? "ROW" : "STATEMENT", kind->function);
	relation_close(rel, NoLock);
	for (int i = 0; i < nargs; i++)
		appendStringInfo(&command, "%s%s", i > 0 ? ", " : "", quote_literal_cstr(args[i]));
	appendStringInfoChar(&command, ')');
	RunCommand(command.data);
}

/* What a partition has from its parent is the parent's to change. */
static void
RefuseClone(Oid relid, const TriggerKind *kind)
{
	Relation	rel = relation_open(relid, NoLock);
	Trigger    *trigger = FindTriggerBy(rel, kind, true);

	if (trigger != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("partition \"%s\" has trigger \"%s\" from its parent",
						RelationGetRelationName(rel), trigger->tgname),
				 errhint("Call the function for the parent.")));
	relation_close(rel, NoLock);
}

/* Would a table's trigger be cloned to its descendants? */
static bool
IsCloned(Oid relid, const TriggerKind *kind)
{
	return TRIGGER_FOR_ROW(kind->type) && get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE;
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
	bool		in_place = true;
	ListCell   *cell;

	foreach(cell, family)
		in_place &= IsInPlace(lfirst_oid(cell), kind, args, nargs);
	if (in_place)
		return false;

	RefuseClone(relid, kind);
	SPI_connect();
	foreach(cell, family)
		(void) DropFrom(lfirst_oid(cell), kind);
	foreach(cell, family)
		if (!cloned || lfirst_oid(cell) == relid)
			PutOn(lfirst_oid(cell), kind, args, nargs);
	SPI_finish();
	return true;
}

/* Take the triggers of a kind off.  Returns false if there were none. */
bool
RemoveTrigger(Oid relid, const TriggerKind *kind)
{
	List	   *family = LockFamily(relid);
	bool		changed = false;
	ListCell   *cell;

	RefuseClone(relid, kind);
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
	int16		moment = TRIGGER_TYPE_ROW | TRIGGER_TYPE_TIMING_MASK;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("lease.%s() must be called as a trigger", kind->function)));
	if ((trigdata->tg_trigger->tgtype & moment) != (kind->type & moment) ||
		trigdata->tg_trigger->tgnargs != nargs)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("lease.%s() must be called by a trigger %s FOR EACH %s; its number of arguments is %d",
						kind->function, kind->event,
						TRIGGER_FOR_ROW(kind->type) ? "ROW" : "STATEMENT", nargs)));
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
