/*-------------------------------------------------------------------------
 *
 * statement.h
 *	  SQL that we run ourselves, through SPI.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_STATEMENT_H
#define LEASE_STATEMENT_H

#include "executor/spi.h"

/* A statement that is prepared at its first use, and kept. */
typedef struct Statement
{
	const char *query;
	int			nargs;
	Oid			types[3];
	SPIPlanPtr	plan;
} Statement;

extern uint64 RunStatement(Statement *statement, Datum *values);
extern Datum FoundValue(int column, bool *isnull);

#endif							/* LEASE_STATEMENT_H */
