/*-------------------------------------------------------------------------
 *
 * query.c
 *	  Connections, and questions whose failure ends the program.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "storm.h"

static PGconn *watch;

static void
quiet(void *arg, const PGresult *res)
{
	(void) arg;
	(void) res;
}

PGconn *
open_connection(void)
{
	PGconn	   *connection = PQconnectdb(options.conninfo);

	if (PQstatus(connection) != CONNECTION_OK)
		die("%s", PQerrorMessage(connection));
	PQsetNoticeReceiver(connection, quiet, NULL);
	return connection;
}

/* The connection of a process that asks questions. */
void
open_watch(void)
{
	watch = open_connection();
}

void
close_watch(void)
{
	PQfinish(watch);
}

PGresult *
query(const char *format, ...)
{
	char		sql[2000];
	PGresult   *res;
	va_list		args;

	va_start(args, format);
	vsnprintf(sql, sizeof(sql), format, args);
	va_end(args);
	res = PQexec(watch, sql);
	if (PQresultStatus(res) != PGRES_TUPLES_OK)
		die("%s: %s", sql, PQerrorMessage(watch));
	return res;
}

int64_t
query_number(const char *sql)
{
	PGresult   *res = query("%s", sql);
	int64_t		value = atoll(PQgetvalue(res, 0, 0));

	PQclear(res);
	return value;
}
