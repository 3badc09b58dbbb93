/*-------------------------------------------------------------------------
 *
 * rows.h
 *	  Rows as values and NULLs: of the functions behind the views, and of the
 *	  history.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_ROWS_H
#define LEASE_ROWS_H

#include "arena.h"
#include "fmgr.h"
#include "funcapi.h"

#define MAX_COLUMNS		32

typedef struct RowBuilder
{
	ReturnSetInfo *rsinfo;
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];
} RowBuilder;

extern void StartRows(RowBuilder *row, FunctionCallInfo fcinfo);
extern void ClearRow(RowBuilder *row);
extern void Put(RowBuilder *row, int column, Datum value);
extern void PutSpan(RowBuilder *row, int column, Span span);
extern void PutOptional(RowBuilder *row, int column, Span span);
extern void PutUsec(RowBuilder *row, int column, int64 usec);
extern void EmitRow(RowBuilder *row);
extern bool MayReadOwner(Oid owner);

#endif							/* LEASE_ROWS_H */
