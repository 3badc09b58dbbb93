/*
 * pages.c - the pages of top: what they show, and how the server is asked for it
 *
 * An answer has the head in each of its rows, so that one question is enough.
 */
#include <string.h>

#include "pages.h"

#define MOST_ROWS "1000"

static const char header[] =
	"SELECT pg_catalog.current_database(), current_user, pg_catalog.current_setting('server_version'),"
	" lease.time_text(pg_catalog.now()), s.leases_used, s.leases_allowed, s.waiters, s.next_token,"
	" s.worker_state, s.history_lost FROM lease.status s";

static const Column lease_columns[] = {
	{"name", COLUMN_NAME, true},
	{"holder", COLUMN_TEXT, true},
	{"mode", COLUMN_TEXT, true},
	{"token", COLUMN_NUMBER, true},
	{"remaining", COLUMN_DURATION, true},
	{"held", COLUMN_DURATION, true},
	{"waiters", COLUMN_NUMBER, true},
	{"owner", COLUMN_TEXT, true},
	{0}
};

static const Column waiter_columns[] = {
	{"name", COLUMN_NAME, true},
	{"position", COLUMN_NUMBER, true},
	{"holder", COLUMN_TEXT, true},
	{"mode", COLUMN_TEXT, true},
	{"waited", COLUMN_DURATION, true},
	{"blocked_by", COLUMN_LIST, true},
	{"owner", COLUMN_TEXT, true},
	{0}
};

static const Column contention_columns[] = {
	{"name", COLUMN_NAME, true},
	{"contended", COLUMN_NUMBER, true},
	{"contention_rate", COLUMN_RATE, true},
	{"acquired", COLUMN_NUMBER, true},
	{"wait_mean", COLUMN_DURATION, true},
	{"wait_max", COLUMN_DURATION, true},
	{"longest_queue", COLUMN_NUMBER, true},
	{"refused", COLUMN_NUMBER, true},
	{"timeouts", COLUMN_NUMBER, true},
	{"expired", COLUMN_NUMBER, true},
	{"rejected", COLUMN_NUMBER, true},
	{0}
};

const Page TopPages[N_PAGES] = {
	{
		"leases", lease_columns,
		"(SELECT name, holder, CASE WHEN closed_until IS NULL THEN mode ELSE 'closed' END AS mode, token,"
		" coalesce(remaining, closed_until - pg_catalog.now()) AS remaining,"
		" CASE WHEN closed_until IS NULL THEN pg_catalog.now() - acquired_at END AS held, waiters, owner"
		" FROM lease.leases)",
		"v.name COLLATE \"C\", v.token", 0
	},
	{"waiters", waiter_columns, "lease.waiters", "v.name COLLATE \"C\", v.position", 0},
	{"contention", contention_columns, "lease.stats", "v.name COLLATE \"C\"", 1}
};

int
CountPageColumns(const Page *page)
{
	int			n = 0;

	while (page->columns[n].name != NULL)
		n++;
	return n;
}

static bool
is_text(const Column *column)
{
	return column->kind == COLUMN_TEXT || column->kind == COLUMN_NAME;
}

bool
IsDescending(const Page *page, int sort, bool reversed)
{
	const Column *column = &page->columns[sort];
	bool		descending = IsRightAligned(column->kind) && strcmp(column->name, "position") != 0;

	return descending != reversed;
}

void
PutPageQuestion(Question *question, const Page *page, int sort, bool reversed)
{
	const Column *column = &page->columns[sort];

	*question = (Question) {.length = 0};
	AddSql(question, "SELECT * FROM (%s) h LEFT JOIN (SELECT ", header);
	AddColumns(question, page->columns, false);
	AddSql(question, ", pg_catalog.row_number() OVER (ORDER BY v.\"%s\"%s %s NULLS LAST, %s) AS ordinal,"
		   " pg_catalog.count(*) OVER () AS total FROM %s v ORDER BY ordinal LIMIT " MOST_ROWS
		   ") p ON true ORDER BY ordinal", column->name, is_text(column) ? " COLLATE \"C\"" : "",
		   IsDescending(page, sort, reversed) ? "DESC" : "ASC", page->then_by, page->from);
}

bool
FindPageColumn(const char *name, int *page, int *column)
{
	for (*page = 0; *page < N_PAGES; (*page)++)
	{
		const Column *columns = TopPages[*page].columns;

		for (*column = 0; columns[*column].name != NULL; (*column)++)
		{
			if (strcmp(columns[*column].name, name) == 0)
				return true;
		}
	}
	return false;
}
