/*-------------------------------------------------------------------------
 *
 * compare.c
 *	  compare_and_set: update a versioned row if it is still what was read.
 *
 * Two statements under the caller's privileges and row security: one locks the
 * row and tells its version, one updates it.  Values come in as one jsonb
 * parameter each and become the columns' types by jsonb_to_record; names come
 * from the catalogs, quoted.  Keys are compared by the equality operator that
 * is the default of their type, whatever the search_path.
 *
 * The order of the columns within both statements is that of the jsonb objects.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"

#include "args.h"
#include "version.h"

PG_FUNCTION_INFO_V1(lease_compare_and_set);

/* The columns that the keys of a jsonb object name. */
typedef struct ColumnList
{
	int			count;
	AttrNumber *columns;
} ColumnList;

/* A call of compare_and_set. */
typedef struct Swap
{
	Relation	rel;
	const char *version;		/* name of the version column, quoted */
	ColumnList	key;
	ColumnList	changes;
	Datum		values[2];		/* the two objects */
	int64		expected;
} Swap;

static Form_pg_attribute
ColumnOf(const Swap *swap, AttrNumber column)
{
	return TupleDescAttr(RelationGetDescr(swap->rel), column - 1);
}

static AttrNumber
FindColumn(Relation rel, const JsonbValue *name)
{
	char	   *wanted = pnstrdup(name->val.string.val, name->val.string.len);
	AttrNumber	column = get_attnum(RelationGetRelid(rel), wanted);

	if (column <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of table \"%s\" does not exist",
						wanted, RelationGetRelationName(rel))));
	return column;
}

/* The columns that an object names; what says which argument it is. */
static void
ReadColumns(Relation rel, Jsonb *object, const char *what, bool null_allowed, ColumnList *list)
{
	JsonbIterator *it;
	JsonbValue	item;
	JsonbIteratorToken token;

	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object of columns and values", what)));
	list->columns = palloc(sizeof(AttrNumber) * Max(JB_ROOT_COUNT(object), 1));
	list->count = 0;
	it = JsonbIteratorInit(&object->root);
	while ((token = JsonbIteratorNext(&it, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			list->columns[list->count++] = FindColumn(rel, &item);
		else if (token == WJB_VALUE && item.type == jbvNull && !null_allowed)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("column \"%s\" of the key must not be null",
							get_attname(RelationGetRelid(rel), list->columns[list->count - 1], false))));
	}
}

/* An object as a row: jsonb_to_record($n) AS alias(column type, ...) */
static void
AppendRecord(StringInfo query, const Swap *swap, const ColumnList *list, int parameter,
			 const char *alias)
{
	appendStringInfo(query, "pg_catalog.jsonb_to_record($%d) AS %s(", parameter, alias);
	for (int i = 0; i < list->count; i++)
	{
		Form_pg_attribute column = ColumnOf(swap, list->columns[i]);

		appendStringInfo(query, "%s%s %s", i > 0 ? ", " : "", quote_identifier(NameStr(column->attname)),
						 format_type_extended(column->atttypid, column->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		if (OidIsValid(column->attcollation))
			appendStringInfo(query, " COLLATE %s", generate_collation_name(column->attcollation));
	}
	appendStringInfoChar(query, ')');
}

/* WHERE t.column = k.column AND ... */
static void
AppendKeyMatch(StringInfo query, const Swap *swap)
{
	for (int i = 0; i < swap->key.count; i++)
	{
		Form_pg_attribute column = ColumnOf(swap, swap->key.columns[i]);
		const char *name = quote_identifier(NameStr(column->attname));
		Oid			equals = lookup_type_cache(column->atttypid, TYPECACHE_EQ_OPR)->eq_opr;

		if (!OidIsValid(equals))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("column \"%s\" of type %s cannot be a key: the type has no equality operator",
							NameStr(column->attname), format_type_be(column->atttypid))));
		appendStringInfoString(query, i > 0 ? " AND " : " WHERE ");
		generate_operator_clause(query, psprintf("t.%s", name), column->atttypid, equals,
								 psprintf("k.%s", name), column->atttypid);
	}
}

static void
RunQuery(const char *query, Swap *swap, int wanted)
{
	static Oid	types[2] = {JSONBOID, JSONBOID};

	if (SPI_execute_with_args(query, 2, types, swap->values, NULL, false, 0) != wanted)
		elog(ERROR, "could not run \"%s\"", query);
}

/* The version in the first row of the last query's result. */
static int64
VersionRead(void)
{
	bool		isnull;
	Datum		version = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

	return isnull ? 0 : DatumGetInt64(version);
}

/* Lock the one row that has the key, and see that it is what the caller read. */
static void
LockRow(Swap *swap)
{
	StringInfoData query;
	const char *table = RelationGetRelationName(swap->rel);
	int64		version;

	initStringInfo(&query);
	appendStringInfo(&query, "SELECT t.%s::pg_catalog.int8 FROM %s AS t, ",
					 swap->version, QualifiedName(swap->rel));
	AppendRecord(&query, swap, &swap->key, 1, "k");
	AppendKeyMatch(&query, swap);
	appendStringInfoString(&query, " LIMIT 2 FOR NO KEY UPDATE OF t");
	RunQuery(query.data, swap, SPI_OK_SELECT);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("no row of table \"%s\" has this key", table)));
	if (SPI_processed > 1)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("more than one row of table \"%s\" has this key", table)));
	version = VersionRead();
	if (version != swap->expected)
		RefuseVersion(swap->rel, version, swap->expected);
}

/* Nothing counts the updates of a table, or of the descendant that has the row. */
pg_noreturn static void
RefuseUnversioned(Relation rel)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table \"%s\" does not count versions", RelationGetRelationName(rel)),
			 errhint("Its owner can call lease.enable_versioning.")));
}

/* Update the row that was locked.  Returns its new version. */
static int64
SetRow(Swap *swap)
{
	StringInfoData query;
	int64		version;

	initStringInfo(&query);
	appendStringInfo(&query, "UPDATE %s AS t SET %s = t.%s",
					 QualifiedName(swap->rel), swap->version, swap->version);
	for (int i = 0; i < swap->changes.count; i++)
	{
		const char *name = quote_identifier(NameStr(ColumnOf(swap, swap->changes.columns[i])->attname));

		appendStringInfo(&query, ", %s = c.%s", name, name);
	}
	appendStringInfoString(&query, " FROM ");
	AppendRecord(&query, swap, &swap->key, 1, "k");
	if (swap->changes.count > 0)
	{
		appendStringInfoString(&query, ", ");
		AppendRecord(&query, swap, &swap->changes, 2, "c");
	}
	AppendKeyMatch(&query, swap);
	appendStringInfo(&query, " RETURNING t.%s::pg_catalog.int8", swap->version);
	RunQuery(query.data, swap, SPI_OK_UPDATE_RETURNING);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_NO_DATA_FOUND),
				 errmsg("no row of table \"%s\" with this key was updated",
						RelationGetRelationName(swap->rel)),
				 errhint("A trigger or a policy of the table kept it as it is.")));
	version = VersionRead();
	if (version != swap->expected + 1)
		RefuseUnversioned(swap->rel);
	return version;
}

/* The version column of a table: the one that its trigger counts up. */
static AttrNumber
VersionColumn(Relation rel)
{
	Trigger    *trigger = FindTrigger(rel, &VersionTrigger);

	if (trigger == NULL)
		RefuseUnversioned(rel);
	return get_attnum(RelationGetRelid(rel), trigger->tgargs[0]);
}

/* Check the arguments, which are not NULL. */
static void
ReadSwap(FunctionCallInfo fcinfo, Swap *swap)
{
	AttrNumber	version;
	Jsonb	   *key = PG_GETARG_JSONB_P(1);
	Jsonb	   *changes = PG_GETARG_JSONB_P(3);

	swap->rel = relation_open(PG_GETARG_OID(0), RowExclusiveLock);
	swap->expected = PG_GETARG_INT64(2);
	swap->values[0] = JsonbPGetDatum(key);
	swap->values[1] = JsonbPGetDatum(changes);
	version = VersionColumn(swap->rel);
	swap->version = quote_identifier(get_attname(PG_GETARG_OID(0), version, false));
	ReadColumns(swap->rel, key, "key", false, &swap->key);
	ReadColumns(swap->rel, changes, "changes", true, &swap->changes);
	if (swap->key.count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("key must name at least one column")));
	for (int i = 0; i < swap->changes.count; i++)
		if (swap->changes.columns[i] == version)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("changes must not name the version column %s", swap->version)));
}

/* compare_and_set(rel, key, expected, changes): the row's new version. */
Datum
lease_compare_and_set(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"table", "key", "expected", "changes"};
	Swap		swap;
	int64		version;

	RequireWritable("lease.compare_and_set()");
	for (int i = 0; i < (int) lengthof(names); i++)
		RequireNotNull(fcinfo, i, names[i]);
	ReadSwap(fcinfo, &swap);
	SPI_connect();
	LockRow(&swap);
	version = SetRow(&swap);
	SPI_finish();
	relation_close(swap.rel, NoLock);
	PG_RETURN_INT64(version);
}
