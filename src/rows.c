/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  Rows as values and NULLs: of the functions behind the views, and of the
 *	  history.
 *
 * A role sees in full what is of roles whose privileges it has, and everything if
 * it has those of pg_read_all_stats.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "rows.h"

/* Get ready to return rows, the first of which is empty. */
void
StartRows(RowBuilder *row, FunctionCallInfo fcinfo)
{
	InitMaterializedSRF(fcinfo, 0);
	row->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ClearRow(row);
}

void
ClearRow(RowBuilder *row)
{
	memset(row->nulls, true, sizeof(row->nulls));
}

void
Put(RowBuilder *row, int column, Datum value)
{
	row->values[column] = value;
	row->nulls[column] = false;
}

void
PutSpan(RowBuilder *row, int column, Span span)
{
	Put(row, column, PointerGetDatum(cstring_to_text_with_len(span.data, span.length)));
}

/* A text that is NULL if empty. */
void
PutOptional(RowBuilder *row, int column, Span span)
{
	if (span.length > 0)
		PutSpan(row, column, span);
}

/* A duration, as an interval. */
void
PutUsec(RowBuilder *row, int column, int64 usec)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = usec;
	Put(row, column, IntervalPGetDatum(interval));
}

/* Return the row, and begin the next. */
void
EmitRow(RowBuilder *row)
{
	tuplestore_putvalues(row->rsinfo->setResult, row->rsinfo->setDesc, row->values, row->nulls);
	ClearRow(row);
}

/* May our role see whose what is of another? */
bool
MayReadOwner(Oid owner)
{
	return has_privs_of_role(GetUserId(), owner) ||
		has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
}
