/*
 * print.h - answers as tables or as JSON
 */
#ifndef PRINT_H
#define PRINT_H

#include "session.h"

/* What a column holds, and so how it is shown. */
typedef enum ColumnKind
{
	COLUMN_TEXT,
	COLUMN_NAME,				/* of a lease; another role's is hidden */
	COLUMN_LIST,				/* an array */
	COLUMN_NUMBER,
	COLUMN_RATE,				/* a part of one */
	COLUMN_DURATION,
	COLUMN_TIME
} ColumnKind;

/* A column of a view; a list of them ends with a NULL name. */
typedef struct Column
{
	const char *name;
	ColumnKind	kind;
	bool		in_tables;		/* or in JSON alone */
} Column;

/*
 * Add the columns to a statement, as people want to read them, or for JSON: then
 * the statement must become a subquery, whose rows the server puts into JSON.
 */
extern void AddColumns(Question *question, const Column *columns, bool json);

/* "*" and "?" of a pattern in LIKE's words; to be freed. */
extern char *LikePattern(const char *pattern);

/* All rows under a heading, if there is to be one; numbers to the right. */
extern void PrintTable(const PGresult *answer, const Column *columns, int encoding, bool heading);

/* The first row: a name and a value a line. */
extern void PrintRecord(const PGresult *answer, int encoding);

/* A value as it is: JSON, a token. */
extern void PrintLine(const char *text);

/* All that was printed must have arrived. */
extern void FinishOutput(void);

/*
 * A text that does no harm to a terminal, in static storage until the next call; NULL is
 * an empty one.  The encoding is libpq's number; of SQL_ASCII only ASCII is safe.
 */
extern const char *PrintableText(const char *text, int encoding);

/* How many columns of a terminal it fills. */
extern int	PrintableWidth(const char *text, int encoding);

/* So many bytes of it fill at most a width. */
extern int	PrintableLength(const char *text, int encoding, int width);

extern bool IsRightAligned(ColumnKind kind);

#endif
