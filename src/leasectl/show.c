/*
 * show.c - list, waiters, stats, history, explain, status
 */
#include <stdio.h>
#include <stdlib.h>

#include "show.h"

#define DEFAULT_LIMIT 100

static const Column lease_columns[] = {
	{"name", COLUMN_NAME, true},
	{"mode", COLUMN_TEXT, true},
	{"scope", COLUMN_TEXT, true},
	{"token", COLUMN_NUMBER, true},
	{"holder", COLUMN_TEXT, true},
	{"owner", COLUMN_TEXT, true},
	{"pid", COLUMN_NUMBER, false},
	{"acquired_at", COLUMN_TIME, true},
	{"renewed_at", COLUMN_TIME, false},
	{"expires_at", COLUMN_TIME, false},
	{"remaining", COLUMN_DURATION, true},
	{"ttl", COLUMN_DURATION, true},
	{"renewals", COLUMN_NUMBER, true},
	{"waiters", COLUMN_NUMBER, true},
	{"permits", COLUMN_NUMBER, true},
	{"capacity", COLUMN_NUMBER, true},
	{"durable", COLUMN_TEXT, false},
	{"pinned_by", COLUMN_LIST, false},
	{"closed_until", COLUMN_TIME, true},
	{"request_id", COLUMN_TEXT, false},
	{"correlation_id", COLUMN_TEXT, false},
	{"metadata", COLUMN_TEXT, false},
	{0}
};

static const Column waiter_columns[] = {
	{"name", COLUMN_NAME, true},
	{"position", COLUMN_NUMBER, true},
	{"mode", COLUMN_TEXT, true},
	{"permits", COLUMN_NUMBER, true},
	{"holder", COLUMN_TEXT, true},
	{"owner", COLUMN_TEXT, true},
	{"pid", COLUMN_NUMBER, true},
	{"waiting_since", COLUMN_TIME, true},
	{"waited", COLUMN_DURATION, true},
	{"blocked_by", COLUMN_LIST, true},
	{"correlation_id", COLUMN_TEXT, false},
	{0}
};

static const Column stats_columns[] = {
	{"name", COLUMN_NAME, true},
	{"acquired", COLUMN_NUMBER, true},
	{"contended", COLUMN_NUMBER, true},
	{"contention_rate", COLUMN_RATE, true},
	{"wait_total", COLUMN_DURATION, false},
	{"wait_mean", COLUMN_DURATION, true},
	{"wait_max", COLUMN_DURATION, true},
	{"hold_total", COLUMN_DURATION, false},
	{"hold_mean", COLUMN_DURATION, true},
	{"hold_max", COLUMN_DURATION, true},
	{"margin_min", COLUMN_DURATION, false},
	{"margin_p01", COLUMN_DURATION, false},
	{"renewed", COLUMN_NUMBER, true},
	{"released", COLUMN_NUMBER, true},
	{"expired", COLUMN_NUMBER, true},
	{"orphaned", COLUMN_NUMBER, true},
	{"forced", COLUMN_NUMBER, true},
	{"transferred", COLUMN_NUMBER, false},
	{"received", COLUMN_NUMBER, false},
	{"abandoned", COLUMN_NUMBER, false},
	{"refused", COLUMN_NUMBER, true},
	{"timeouts", COLUMN_NUMBER, true},
	{"deadlocks", COLUMN_NUMBER, false},
	{"cancelled", COLUMN_NUMBER, false},
	{"rejected", COLUMN_NUMBER, true},
	{"guard_failures", COLUMN_NUMBER, false},
	{"longest_queue", COLUMN_NUMBER, true},
	{"ttl", COLUMN_DURATION, false},
	{"last_used", COLUMN_TIME, false},
	{"since", COLUMN_TIME, false},
	{0}
};

const Column HistoryColumns[] = {
	{"at", COLUMN_TIME, true},
	{"event", COLUMN_TEXT, true},
	{"name", COLUMN_TEXT, true},	/* some events have none */
	{"token", COLUMN_NUMBER, true},
	{"mode", COLUMN_TEXT, false},
	{"scope", COLUMN_TEXT, false},
	{"holder", COLUMN_TEXT, true},
	{"owner", COLUMN_TEXT, true},
	{"pid", COLUMN_NUMBER, false},
	{"correlation_id", COLUMN_TEXT, false},
	{"waited", COLUMN_DURATION, true},
	{"held", COLUMN_DURATION, true},
	{"detail", COLUMN_TEXT, true},
	{"seq", COLUMN_NUMBER, false},
	{0}
};

static const Column story_columns[] = {
	{"at", COLUMN_TIME, true},
	{"story", COLUMN_TEXT, true},
	{0}
};

static const Column status_columns[] = {
	{"version", COLUMN_TEXT, true},
	{"epoch", COLUMN_NUMBER, true},
	{"timeline", COLUMN_NUMBER, true},
	{"next_token", COLUMN_NUMBER, true},
	{"leases_used", COLUMN_NUMBER, true},
	{"leases_allowed", COLUMN_NUMBER, true},
	{"waiters", COLUMN_NUMBER, true},
	{"ledger_size", COLUMN_NUMBER, true},
	{"ledger_garbage", COLUMN_NUMBER, true},
	{"worker_state", COLUMN_TEXT, true},
	{"last_reap", COLUMN_TIME, true},
	{"history_lost", COLUMN_NUMBER, true},
	{"history_pending", COLUMN_NUMBER, true},
	{0}
};

/* Begin to select columns; for JSON, as a subquery whose rows become an array. */
static void
begin(Question *question, const Options *options, const Column *columns)
{
	AddSql(question, options->json
		   ? "SELECT coalesce(pg_catalog.json_agg(r), '[]') FROM (SELECT " : "SELECT ");
	AddColumns(question, columns, options->json);
}

/* Ask what was put together, and print the answer. */
static int
finish(Question *question, const Options *options, const Column *columns)
{
	PGresult   *answer;
	int			encoding;

	if (options->json)
		AddSql(question, ") r");
	answer = AskOnce(options, question, Patience(options), &encoding);
	if (options->json)
		PrintLine(PQgetvalue(answer, 0, 0));
	else
		PrintTable(answer, columns, encoding, !options->quiet);
	PQclear(answer);
	return 0;
}

/* "WHERE", and what the pattern says of a name, if there is one. */
static void
add_pattern(Question *question, const Options *options)
{
	if (options->n_operands == 0)
		AddSql(question, " WHERE true");
	else
	{
		AddSql(question, " WHERE name COLLATE \"C\" LIKE ");
		AddParameter(question, TEXT_OID, LikePattern(options->operands[0]));
	}
}

static int
show_view(const Options *options, const Column *columns, const char *view, const char *order)
{
	Question   *question = Allocate(sizeof(Question));

	begin(question, options, columns);
	AddSql(question, " FROM lease.%s v", view);
	add_pattern(question, options);
	AddSql(question, " ORDER BY %s", order);
	return finish(question, options, columns);
}

int
ListLeases(const Options *options)
{
	return show_view(options, lease_columns, "leases", "v.name COLLATE \"C\", v.token");
}

int
ListWaiters(const Options *options)
{
	return show_view(options, waiter_columns, "waiters", "v.name COLLATE \"C\", v.position");
}

int
ShowStats(const Options *options)
{
	return show_view(options, stats_columns, "stats", "v.contended DESC, v.name COLLATE \"C\"");
}

/* The newest, the oldest of them first. */
int
ShowHistory(const Options *options)
{
	Question   *question = Allocate(sizeof(Question));

	begin(question, options, HistoryColumns);
	AddSql(question, " FROM (SELECT * FROM lease.history");
	add_pattern(question, options);
	if (options->since >= 0)
	{
		AddSql(question, " AND at >= pg_catalog.now() - ");
		AddInterval(question, options->since);
	}
	AddSql(question, " ORDER BY at DESC, seq DESC LIMIT ");
	AddNumber(question, INT8_OID, options->limit > 0 ? options->limit : DEFAULT_LIMIT);
	AddSql(question, ") v ORDER BY v.at, v.seq");
	return finish(question, options, HistoryColumns);
}

int
ExplainName(const Options *options)
{
	Question   *question = Allocate(sizeof(Question));

	begin(question, options, story_columns);
	AddSql(question, " FROM lease.explain(name => ");
	AddParameter(question, TEXT_OID, options->operands[0]);
	if (options->since >= 0)
	{
		AddSql(question, ", since => pg_catalog.now() - ");
		AddInterval(question, options->since);
	}
	AddSql(question, ")");
	return finish(question, options, story_columns);
}

int
ShowStatus(const Options *options)
{
	Question   *question = Allocate(sizeof(Question));
	PGresult   *answer;
	int			encoding;

	AddSql(question, options->json ? "SELECT pg_catalog.row_to_json(r) FROM (SELECT " : "SELECT ");
	AddColumns(question, status_columns, options->json);
	AddSql(question, " FROM lease.status%s", options->json ? ") r" : "");
	answer = AskOnce(options, question, Patience(options), &encoding);
	if (options->json)
		PrintLine(PQgetvalue(answer, 0, 0));
	else
		PrintRecord(answer, encoding);
	PQclear(answer);
	return 0;
}
