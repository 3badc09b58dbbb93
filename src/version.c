/*-------------------------------------------------------------------------
 *
 * version.c
 *	  Columns of users' tables that only grow: versions and fencing tokens.
 *
 * A version counts the updates of a row.  A statement proves that it knows the
 * row as it is by setting the column, either to what it read (which compare_and_set
 * does) or to one more under a WHERE that asks for what it read (which
 * object-relational mappers do); the trigger, before the update, sees the row
 * under its lock, as the last committed transaction left it.
 *
 * A fencing column keeps the largest token that wrote the row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "args.h"
#include "lessor.h"
#include "version.h"

PG_FUNCTION_INFO_V1(lease_enable_versioning);
PG_FUNCTION_INFO_V1(lease_disable_versioning);
PG_FUNCTION_INFO_V1(lease_count_version);
PG_FUNCTION_INFO_V1(lease_enable_fencing);
PG_FUNCTION_INFO_V1(lease_disable_fencing);
PG_FUNCTION_INFO_V1(lease_check_token);

const TriggerKind VersionTrigger = {
	"lease_versioning", "count_version", "BEFORE UPDATE",
	TRIGGER_TYPE_ROW | TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_UPDATE
};
static const TriggerKind FencingTrigger = {
	"lease_fencing", "check_token", "BEFORE UPDATE",
	TRIGGER_TYPE_ROW | TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_UPDATE
};

#define STRICT	"strict"
#define LENIENT	"lenient"

/* An integer column's value; NULL counts as 0, which comes before the first. */
static int64
ColumnValue(const TriggerData *trigdata, HeapTuple row, AttrNumber column)
{
	TupleDesc	desc = RelationGetDescr(trigdata->tg_relation);
	bool		isnull;
	Datum		value = heap_getattr(row, column, desc, &isnull);

	if (isnull)
		return 0;
	switch (getBaseType(TupleDescAttr(desc, column - 1)->atttypid))
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		case INT8OID:
			return DatumGetInt64(value);
		default:
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of table \"%s\" is not of an integer type",
							trigdata->tg_trigger->tgargs[0],
							RelationGetRelationName(trigdata->tg_relation))));
	}
}

/* A value for an integer column. */
static Datum
IntegerDatum(Oid type, int64 value)
{
	Datum		given = Int64GetDatum(value);

	switch (getBaseType(type))
	{
		case INT2OID:
			return DirectFunctionCall1(int82, given);
		case INT4OID:
			return DirectFunctionCall1(int84, given);
		default:
			return given;
	}
}

/* A statement that is to name a column did not. */
static void
RequireColumnSet(const TriggerData *trigdata, AttrNumber column, const char *hint)
{
	if (IsColumnSet(trigdata, column) || strcmp(trigdata->tg_trigger->tgargs[1], STRICT) != 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot update table \"%s\" without setting column \"%s\"",
					RelationGetRelationName(trigdata->tg_relation), trigdata->tg_trigger->tgargs[0]),
			 errhint("%s", hint)));
}

/* A row is not what who updates it thinks. */
void
RefuseVersion(Relation rel, int64 present, int64 expected)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not update a row of table \"%s\": its version is " INT64_FORMAT ", not " INT64_FORMAT,
					RelationGetRelationName(rel), present, expected),
			 errhint("Somebody else updated it. Read it again, and retry.")));
}

/* count_version('column', 'strict' or 'lenient'): the trigger before an update. */
Datum
lease_count_version(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = TriggerCall(fcinfo, &VersionTrigger, 2);
	TupleDesc	desc = RelationGetDescr(trigdata->tg_relation);
	int			column = TriggerColumn(trigdata);
	int64		present = ColumnValue(trigdata, trigdata->tg_trigtuple, column);
	int64		given = ColumnValue(trigdata, trigdata->tg_newtuple, column);
	Datum		next;
	bool		isnull = false;

	RequireColumnSet(trigdata, column, "Set it to the version that you read.");
	if (IsColumnSet(trigdata, column) && given != present && given - 1 != present)
		RefuseVersion(trigdata->tg_relation, present, given);
	if (present == PG_INT64_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("bigint out of range")));
	next = IntegerDatum(TupleDescAttr(desc, column - 1)->atttypid, present + 1);
	return PointerGetDatum(heap_modify_tuple_by_cols(trigdata->tg_newtuple, desc, 1, &column,
													 &next, &isnull));
}

/* check_token('column', 'strict' or 'lenient'): the trigger before an update. */
Datum
lease_check_token(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = TriggerCall(fcinfo, &FencingTrigger, 2);
	AttrNumber	column = TriggerColumn(trigdata);
	Token		present = ColumnValue(trigdata, trigdata->tg_trigtuple, column);
	Token		given = ColumnValue(trigdata, trigdata->tg_newtuple, column);

	RequireColumnSet(trigdata, column, "Set it to the fencing token of your lease.");
	if (given < present)
	{
		Span		nameless = SpanOf("");

		RecordMisuse(&nameless, given, EVENT_REJECTED,
					 psprintf("row of table %s", RelationGetRelationName(trigdata->tg_relation)));
		ereport(ERROR,
				(errcode(ERRCODE_STALE_TOKEN),
				 errmsg("stale token " INT64_FORMAT " for a row of table \"%s\"",
						given, RelationGetRelationName(trigdata->tg_relation)),
				 errdetail("The row was written with token " INT64_FORMAT ".", present)));
	}
	if (given > present)
		RequireGrantedToken(given);
	return PointerGetDatum(trigdata->tg_newtuple);
}

/* See that a table has a column that a trigger can look after. */
static void
CheckColumn(Relation rel, const char *name, bool bigint_only)
{
	AttrNumber	column = get_attnum(RelationGetRelid(rel), name);
	Oid			type;

	if (column <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist",
						name, RelationGetRelationName(rel)),
				 errhint("Add it first: ALTER TABLE %s ADD COLUMN %s bigint NOT NULL DEFAULT 0.",
						 QualifiedName(rel), quote_identifier(name))));
	type = getBaseType(get_atttype(RelationGetRelid(rel), column));
	if (type != INT8OID && (bigint_only || (type != INT2OID && type != INT4OID)))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of table \"%s\" is of type %s; it must be %s",
						name, RelationGetRelationName(rel), format_type_be(type),
						bigint_only ? "bigint" : "smallint, integer or bigint")));
	if (TupleDescAttr(RelationGetDescr(rel), column - 1)->attgenerated != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of table \"%s\" is a generated column",
						name, RelationGetRelationName(rel))));
}

/* enable_…(rel, column_name, strict): false if it was enabled like that. */
static Datum
EnableColumn(FunctionCallInfo fcinfo, const char *function, const TriggerKind *kind,
			 bool bigint_only)
{
	Oid			relid;
	char	   *args[2];
	Relation	rel;

	RequireWritable(function);
	RequireNotNull(fcinfo, 0, "table");
	RequireNotNull(fcinfo, 1, "column_name");
	RequireNotNull(fcinfo, 2, "strict");
	relid = PG_GETARG_OID(0);
	args[0] = pstrdup(NameStr(*PG_GETARG_NAME(1)));
	args[1] = PG_GETARG_BOOL(2) ? STRICT : LENIENT;

	rel = OpenOwnTable(relid);
	CheckColumn(rel, args[0], bigint_only);
	relation_close(rel, NoLock);
	PG_RETURN_BOOL(InstallTrigger(relid, kind, args, 2));
}

/* disable_…(rel): false if it was not enabled. */
static Datum
DisableColumn(FunctionCallInfo fcinfo, const char *function, const TriggerKind *kind)
{
	Oid			relid;

	RequireWritable(function);
	RequireNotNull(fcinfo, 0, "table");
	relid = PG_GETARG_OID(0);
	relation_close(OpenOwnTable(relid), NoLock);
	PG_RETURN_BOOL(RemoveTrigger(relid, kind));
}

Datum
lease_enable_versioning(PG_FUNCTION_ARGS)
{
	return EnableColumn(fcinfo, "lease.enable_versioning()", &VersionTrigger, false);
}

Datum
lease_disable_versioning(PG_FUNCTION_ARGS)
{
	return DisableColumn(fcinfo, "lease.disable_versioning()", &VersionTrigger);
}

Datum
lease_enable_fencing(PG_FUNCTION_ARGS)
{
	return EnableColumn(fcinfo, "lease.enable_fencing()", &FencingTrigger, true);
}

Datum
lease_disable_fencing(PG_FUNCTION_ARGS)
{
	return DisableColumn(fcinfo, "lease.disable_fencing()", &FencingTrigger);
}
