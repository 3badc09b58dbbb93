/*-------------------------------------------------------------------------
 *
 * statement.c
 *	  SQL that we run ourselves, through SPI.
 *
 * It may run as another role than the one that set search_path, so nothing in it
 * may depend on that: each table, operator and function names its schema.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "statement.h"

/* Run a statement; how many rows it found or wrote. */
uint64
RunStatement(Statement *statement, Datum *values)
{
	int			rc;

	if (statement->plan == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(statement->query, statement->nargs, statement->types);

		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\"", statement->query);
		statement->plan = plan;
	}
	rc = SPI_execute_plan(statement->plan, values, NULL, false, 0);
	if (rc < 0)
		elog(ERROR, "could not run \"%s\": %s", statement->query, SPI_result_code_string(rc));
	return SPI_processed;
}

/* A column of the first row that was found. */
Datum
FoundValue(int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, isnull);
}
