/*-------------------------------------------------------------------------
 *
 * protect.c
 *	  Tables that are written under a guard only.
 *
 * A protected table has a pattern, such as "account/{id}", which makes a lease
 * name of a row.  A trigger after each row's write asks whether our transaction
 * guards the lease of that name exclusively: after, since only then the row is
 * what is stored.  An update that changes the name needs both.
 *
 * The pattern is the trigger's argument; it is parsed once a statement.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "args.h"
#include "guard.h"
#include "trigger.h"

PG_FUNCTION_INFO_V1(lease_protect_table);
PG_FUNCTION_INFO_V1(lease_unprotect_table);
PG_FUNCTION_INFO_V1(lease_check_guard);
PG_FUNCTION_INFO_V1(lease_check_guard_of_table);

static const TriggerKind OnRows = {
	"lease_protect", "check_guard", "AFTER INSERT OR UPDATE OR DELETE",
	TRIGGER_TYPE_ROW | TRIGGER_TYPE_INSERT | TRIGGER_TYPE_UPDATE | TRIGGER_TYPE_DELETE
};
static const TriggerKind OnTruncate = {
	"lease_protect_truncate", "check_guard_of_table", "BEFORE TRUNCATE",
	TRIGGER_TYPE_BEFORE | TRIGGER_TYPE_TRUNCATE
};

/* A part of a pattern: a text, or a column's value. */
typedef struct PatternPart
{
	Span		text;			/* if column is InvalidAttrNumber */
	AttrNumber	column;
	FmgrInfo	output;			/* of the column's type */
} PatternPart;

typedef struct Pattern
{
	int			nparts;
	bool		has_columns;
	PatternPart parts[FLEXIBLE_ARRAY_MEMBER];
} Pattern;

pg_noreturn static void
RefusePattern(const char *text, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid name pattern \"%s\"", text),
			 errdetail_internal("%s", why),
			 errhint("A pattern is a lease name in which {column} stands for the row's value; {{ and }} stand for braces.")));
}

/* Types whose text depends on no setting of the session. */
static bool
IsPlainType(Oid type)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case TEXTOID:
		case VARCHAROID:
		case UUIDOID:
			return true;
		default:
			return false;
	}
}

/* Fill in the part for a column, whose name is given. */
static void
ParseColumn(PatternPart *part, const char *text, const Span *name, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	char	   *wanted = pnstrdup(name->data, name->length);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		Oid			output;
		bool		is_varlena;

		if (attribute->attisdropped || strcmp(NameStr(attribute->attname), wanted) != 0)
			continue;
		if (!IsPlainType(getBaseType(attribute->atttypid)))
			RefusePattern(text, psprintf("Column \"%s\" is of type %s; it must be integer, text, varchar or uuid.",
										 wanted, format_type_be(attribute->atttypid)));
		if (attribute->attgenerated != '\0' && attribute->attgenerated != ATTRIBUTE_GENERATED_STORED)
			RefusePattern(text, psprintf("Column \"%s\" is generated and not stored.", wanted));
		part->column = attribute->attnum;
		getTypeOutputInfo(attribute->atttypid, &output, &is_varlena);
		fmgr_info(output, &part->output);
		return;
	}
	RefusePattern(text, psprintf("Table \"%s\" has no column \"%s\".",
								 RelationGetRelationName(rel), wanted));
}

/* Parse a pattern for a relation, into the current memory context. */
static Pattern *
ParsePattern(const char *text, Relation rel)
{
	Pattern    *pattern = palloc0(offsetof(Pattern, parts) +
								  sizeof(PatternPart) * (strlen(text) + 1));
	uint32		literal = 0;
	const char *at = text;

	while (*at != '\0')
	{
		PatternPart *part = &pattern->parts[pattern->nparts++];
		uint32		length = strcspn(at, "{}");

		if (length == 0 && at[0] == at[1])
		{
			/* A doubled brace is one. */
			part->text.data = at;
			part->text.length = 1;
			at += 2;
		}
		else if (length == 0)
		{
			Span		name = {at + 1, strcspn(at + 1, "{}")};

			if (*at == '}' || name.data[name.length] != '}')
				RefusePattern(text, psprintf("The brace at position %d has no counterpart.",
											 pg_mbstrlen_with_len(text, at - text) + 1));
			ParseColumn(part, text, &name, rel);
			pattern->has_columns = true;
			at += name.length + 2;
		}
		else
		{
			part->text.data = at;
			part->text.length = length;
			at += length;
		}
		literal += part->text.length;
	}
	if (pattern->nparts == 0)
		RefusePattern(text, "It is empty.");
	if (literal > LEASE_NAME_MAX)
		RefusePattern(text, psprintf("It makes names of %u bytes and more; a lease name has at most %d.",
									 literal, LEASE_NAME_MAX));
	return pattern;
}

/* The lease name that a pattern makes of a row. */
static Span
MakeName(const Pattern *pattern, Relation rel, HeapTuple row)
{
	StringInfoData name;
	Span		span;

	initStringInfo(&name);
	for (int i = 0; i < pattern->nparts; i++)
	{
		const PatternPart *part = &pattern->parts[i];
		Datum		value;
		bool		isnull;

		if (part->column == InvalidAttrNumber)
		{
			appendBinaryStringInfo(&name, part->text.data, part->text.length);
			continue;
		}
		value = heap_getattr(row, part->column, RelationGetDescr(rel), &isnull);
		if (isnull)
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("column \"%s\" of table \"%s\" must not be null: it makes the name of the lease that protects the row",
							NameStr(TupleDescAttr(RelationGetDescr(rel), part->column - 1)->attname),
							RelationGetRelationName(rel))));
		appendStringInfoString(&name, OutputFunctionCall((FmgrInfo *) &part->output, value));
	}
	span.data = name.data;
	span.length = name.len;
	CheckBounds(&span, "lease name");
	return span;
}

/* A name tells values of a row: is it for the current role to read? */
static bool
MayRead(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);

	return pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
		check_enable_rls(relid, InvalidOid, true) != RLS_ENABLED;
}

/* Raise an error unless our transaction guards a name exclusively. */
static void
RequireGuard(Relation rel, const Span *name)
{
	GuardMode	mode = HowGuarded(name);

	if (mode == GUARD_EXCLUSIVE)
		return;
	RecordMisuse(name, INVALID_TOKEN, EVENT_GUARD_FAILED,
				 psprintf("write to table %s without a guard", RelationGetRelationName(rel)));
	ereport(ERROR,
			(errcode(ERRCODE_LEASE_NOT_GUARDED),
			 errmsg("cannot write to table \"%s\": the transaction does not guard %s",
					RelationGetRelationName(rel),
					MayRead(rel) ? psprintf("lease \"%.*s\"", (int) name->length, name->data) :
					"the lease of the row"),
			 mode == GUARD_SHARED ?
			 errdetail("It guards it in mode shared; it must hold it exclusively.") : 0,
			 errhint("Acquire the lease, and call lease.guard with its name and token before the write.")));
}

/* The pattern of a trigger, parsed once for all calls with the same FmgrInfo. */
static const Pattern *
PatternOf(FunctionCallInfo fcinfo, const TriggerData *trigdata)
{
	MemoryContext former;

	if (fcinfo->flinfo->fn_extra == NULL)
	{
		former = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
		fcinfo->flinfo->fn_extra = ParsePattern(pstrdup(trigdata->tg_trigger->tgargs[0]),
												trigdata->tg_relation);
		MemoryContextSwitchTo(former);
	}
	return fcinfo->flinfo->fn_extra;
}

/* check_guard('pattern'): the trigger after the write of a row. */
Datum
lease_check_guard(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = TriggerCall(fcinfo, &OnRows, 1);
	Relation	rel = trigdata->tg_relation;
	const Pattern *pattern = PatternOf(fcinfo, trigdata);
	Span		name = MakeName(pattern, rel, trigdata->tg_trigtuple);

	RequireGuard(rel, &name);
	if (TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event))
	{
		Span		new_name = MakeName(pattern, rel, trigdata->tg_newtuple);

		if (!SpansEqual(&name, &new_name))
			RequireGuard(rel, &new_name);
	}
	return PointerGetDatum(NULL);
}

/* check_guard_of_table('pattern'): the trigger before TRUNCATE. */
Datum
lease_check_guard_of_table(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = TriggerCall(fcinfo, &OnTruncate, 1);
	Relation	rel = trigdata->tg_relation;
	const Pattern *pattern = PatternOf(fcinfo, trigdata);
	Span		name;

	if (pattern->has_columns)
		ereport(ERROR,
				(errcode(ERRCODE_LEASE_NOT_GUARDED),
				 errmsg("cannot truncate table \"%s\": each of its rows is protected by a lease of its own",
						RelationGetRelationName(rel)),
				 errhint("Delete the rows under their guards, or call lease.unprotect_table first.")));
	name = MakeName(pattern, rel, NULL);
	RequireGuard(rel, &name);
	return PointerGetDatum(NULL);
}

/* protect_table(rel, name_pattern): false if it was protected like that. */
Datum
lease_protect_table(PG_FUNCTION_ARGS)
{
	Oid			relid;
	char	   *pattern;
	Relation	rel;
	bool		changed;

	RequireWritable("lease.protect_table()");
	RequireNotNull(fcinfo, 0, "table");
	RequireNotNull(fcinfo, 1, "name pattern");
	relid = PG_GETARG_OID(0);
	pattern = text_to_cstring(PG_GETARG_TEXT_PP(1));

	rel = OpenOwnTable(relid);
	(void) ParsePattern(pattern, rel);
	relation_close(rel, NoLock);
	changed = InstallTrigger(relid, &OnRows, &pattern, 1);
	changed |= InstallTrigger(relid, &OnTruncate, &pattern, 1);
	PG_RETURN_BOOL(changed);
}

/* unprotect_table(rel): false if it was not protected. */
Datum
lease_unprotect_table(PG_FUNCTION_ARGS)
{
	Oid			relid;
	bool		changed;

	RequireWritable("lease.unprotect_table()");
	RequireNotNull(fcinfo, 0, "table");
	relid = PG_GETARG_OID(0);
	relation_close(OpenOwnTable(relid), NoLock);
	changed = RemoveTrigger(relid, &OnRows);
	changed |= RemoveTrigger(relid, &OnTruncate);
	PG_RETURN_BOOL(changed);
}
