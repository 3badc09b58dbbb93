/*
 * print.c - answers as tables or as JSON
 *
 * The server writes JSON, durations and times: here is only what a terminal is shown.
 * What users put into names and holders gets there as text or not at all: a control
 * character is shown as \xNN.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "print.h"

#define GAP 2					/* between two columns */
#define SQL_ASCII 0				/* libpq's number */

bool
IsRightAligned(ColumnKind kind)
{
	return kind == COLUMN_NUMBER || kind == COLUMN_RATE || kind == COLUMN_DURATION;
}

/* A column as people want to read it. */
static void
add_for_people(Question *question, const Column *column)
{
	static const char *const formats[] = {
		[COLUMN_TEXT] = "\"%s\"",
		[COLUMN_NAME] = "coalesce(\"%s\", '(hidden)')",
		[COLUMN_LIST] = "pg_catalog.array_to_string(\"%s\", ' ')",
		[COLUMN_NUMBER] = "\"%s\"",
		[COLUMN_RATE] = "pg_catalog.round(100 * \"%s\") || ' %%'",
		[COLUMN_DURATION] = "lease.duration_text(\"%s\")",
		[COLUMN_TIME] = "lease.time_text(\"%s\")"
	};

	AddSql(question, formats[column->kind], column->name);
}

/* Numbers stay numbers: durations are seconds. */
static void
add_for_json(Question *question, const Column *column)
{
	if (column->kind == COLUMN_DURATION)
		AddSql(question, "pg_catalog.trim_scale(extract(epoch FROM \"%s\"))", column->name);
	else
		AddSql(question, "\"%s\"", column->name);
}

void
AddColumns(Question *question, const Column *columns, bool json)
{
	const char *separator = "";

	for (const Column *column = columns; column->name != NULL; column++)
	{
		if (!json && !column->in_tables)
			continue;
		AddSql(question, "%s", separator);
		if (json)
			add_for_json(question, column);
		else
			add_for_people(question, column);
		AddSql(question, " AS \"%s\"", column->name);
		separator = ", ";
	}
}

char *
LikePattern(const char *pattern)
{
	char	   *like = Allocate(2 * strlen(pattern) + 1);
	char	   *to = like;

	for (; *pattern != '\0'; pattern++)
	{
		if (strchr("\\%_", *pattern) != NULL)
			*to++ = '\\';
		*to++ = *pattern == '*' ? '%' : *pattern == '?' ? '_' : *pattern;
	}
	return like;
}

/* How many bytes the first character of a text has, if a terminal may see it; else 0. */
static int
printable_character(const char *text, int encoding)
{
	int			length = PQmblen(text, encoding);

	if (length == 1 && (unsigned char) *text >= 0x80)
		return encoding == SQL_ASCII || (unsigned char) *text < 0xa0 ? 0 : 1;
	for (int i = 0; i < length; i++)
	{
		if ((unsigned char) text[i] < ' ' || text[i] == 0x7f)
			return 0;
	}
	return PQdsplen(text, encoding) < 0 ? 0 : length;
}

const char *
PrintableText(const char *text, int encoding)
{
	static char *printable = NULL;
	static size_t room = 0;
	size_t		most = 4 * strlen(text) + 1;
	char	   *to;

	if (most > room)
	{
		free(printable);
		room = 2 * most;
		printable = Allocate(room);
	}
	to = printable;
	while (*text != '\0')
	{
		int			length = printable_character(text, encoding);

		if (length == 0)
			to += sprintf(to, "\\x%02X", (unsigned char) *text++);
		else
		{
			memcpy(to, text, length);
			to += length;
			text += length;
		}
	}
	*to = '\0';
	return printable;
}

int
PrintableLength(const char *text, int encoding, int width)
{
	const char *at = text;

	while (*at != '\0')
	{
		width -= PQdsplen(at, encoding);
		if (width < 0)
			break;
		at += PQmblen(at, encoding);
	}
	return at - text;
}

int
PrintableWidth(const char *text, int encoding)
{
	int			width = 0;

	for (; *text != '\0'; text += PQmblen(text, encoding))
		width += PQdsplen(text, encoding);
	return width;
}

static const char *
printable_value(const PGresult *answer, int row, int column, int encoding)
{
	return PrintableText(PQgetvalue(answer, row, column), encoding);
}

/* How wide each column must be. */
static int *
measure(const PGresult *answer, int encoding, bool heading)
{
	int		   *widths = Allocate(sizeof(int) * (PQnfields(answer) + 1));

	for (int column = 0; column < PQnfields(answer); column++)
	{
		if (heading)
			widths[column] = PrintableWidth(PQfname(answer, column), encoding);
		for (int row = 0; row < PQntuples(answer); row++)
		{
			int			width = PrintableWidth(printable_value(answer, row, column, encoding), encoding);

			if (width > widths[column])
				widths[column] = width;
		}
	}
	return widths;
}

/*
 * Print a cell.  *blanks are those that a line owes: a line does not end with any.
 */
static void
print_cell(const char *text, int width, int encoding, bool to_the_right, int *blanks)
{
	int			rest = width - PrintableWidth(text, encoding);

	if (to_the_right)
		*blanks += rest;
	if (*text != '\0')
	{
		printf("%*s%s", *blanks, "", text);
		*blanks = 0;
	}
	else
		*blanks += width - rest;
	if (!to_the_right)
		*blanks += rest;
	*blanks += GAP;
}

void
PrintTable(const PGresult *answer, const Column *columns, int encoding, bool heading)
{
	int		   *widths = measure(answer, encoding, heading);

	for (int row = heading ? -1 : 0; row < PQntuples(answer); row++)
	{
		const Column *column = columns;
		int			blanks = 0;

		for (int i = 0; i < PQnfields(answer); i++, column++)
		{
			while (!column->in_tables)
				column++;
			print_cell(row < 0 ? PQfname(answer, i) : printable_value(answer, row, i, encoding),
					   widths[i], encoding, IsRightAligned(column->kind), &blanks);
		}
		putchar('\n');
	}
	free(widths);
	FinishOutput();
}

void
PrintRecord(const PGresult *answer, int encoding)
{
	int			width = 0;

	for (int i = 0; i < PQnfields(answer); i++)
	{
		int			length = PrintableWidth(PQfname(answer, i), encoding);

		width = length > width ? length : width;
	}
	for (int i = 0; i < PQnfields(answer); i++)
	{
		bool		known = !PQgetisnull(answer, 0, i);

		printf("%-*s%s\n", width + GAP, PQfname(answer, i),
			   known ? printable_value(answer, 0, i, encoding) : "-");
	}
	FinishOutput();
}

void
PrintLine(const char *text)
{
	puts(text);
	FinishOutput();
}

void
FinishOutput(void)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		Fail(STATUS_FAILED, "could not write the output: %m");
}
