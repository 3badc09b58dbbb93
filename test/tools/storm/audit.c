/*-------------------------------------------------------------------------
 *
 * audit.c
 *	  While everybody stands still: is what is held what the server says?
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storm.h"

/* Wait until sessions that were ended are gone. */
static void
await_sessions(void)
{
	int64_t		since = now_us();
	char		sql[2000];
	int			length = sprintf(sql, "SELECT count(*) FROM pg_stat_activity WHERE pid <>"
								 " pg_backend_pid() AND backend_type = 'client backend'"
								 " AND pid NOT IN (0");

	for (int i = 0; i < options.clients; i++)
		length += sprintf(sql + length, ",%d", storm->clients[i].backend);
	strcpy(sql + length, ")");
	while (query_number(sql) > 0)
	{
		if (too_late(since))
			give_up("sessions do not end");
		pause_ms(2);
	}
}

static Hold *
find_hold(Client *client, int64_t token)
{
	for (int i = client->nholds - 1; i >= client->first_open; i--)
		if (client->holds[i].token == token)
			return &client->holds[i];
	return NULL;
}

static bool
is_lost_op(const Client *client, uint32_t op)
{
	for (int i = 0; i < MAX_LOST_OPS; i++)
		if (client->lost_ops[i] == op)
			return true;
	return false;
}

/*
 * A lease that the view shows must be somebody's who has not let it go, or have
 * been granted to somebody who never learned of it.
 */
static void
check_shown(const char *name, const char *token, const char *holder, const char *scope)
{
	int			n;
	uint32_t	op;
	Hold	   *hold = NULL;

	/* A lease taken again by whom the first label does not name counts, too. */
	for (int i = 0; i < options.clients && hold == NULL; i++)
		hold = find_hold(&storm->clients[i], atoll(token));
	if (hold ? hold->over :
		sscanf(holder, "c%d.%u", &n, &op) != 2 || strcmp(scope, "detached") != 0 ||
		!is_lost_op(&storm->clients[n], op))
		wrong("left %.20s %s %s", name, token, holder);
}

static bool
is_shown(PGresult *res, int64_t token)
{
	for (int i = 0; i < PQntuples(res); i++)
		if (atoll(PQgetvalue(res, i, 1)) == token)
			return true;
	return false;
}

/* The view shows what clients say that they hold, and nothing else. */
static void
check_view(void)
{
	PGresult   *res = query("SELECT name, token, holder, scope FROM lease.leases");
	int64_t		after = now_us();

	for (int i = 0; i < PQntuples(res); i++)
		check_shown(PQgetvalue(res, i, 0), PQgetvalue(res, i, 1), PQgetvalue(res, i, 2),
					PQgetvalue(res, i, 3));
	for (int n = 0; n < options.clients; n++)
	{
		Client	   *client = &storm->clients[n];

		for (int i = client->first_open; i < client->nholds; i++)
		{
			Hold	   *hold = &client->holds[i];

			if (hold->until != 0 || hold->deadline <= after ||
				(hold->scope != DETACHED && client->doomed_at != 0))
				continue;
			tally.checked_holds++;
			if (!is_shown(res, hold->token))
				wrong("lost %d %" PRId64 " c%d.%u", hold->name, hold->token, n, hold->op);
		}
	}
	PQclear(res);
}

/* Nobody waits, and the view agrees with clients and with the table. */
void
check_holds(void)
{
	int64_t		since = now_us();
	int64_t		more;

	await_sessions();
	check_view();
	if (query_number("SELECT waiters FROM lease.status") +
		query_number("SELECT count(*) FROM lease.waiters") > 0)
		wrong("wrong number of waiters when nobody waits");
	while ((more = query_number("SELECT leases_used - (SELECT count(*) FROM lease.leases)"
								" FROM lease.status")) != 0)
	{
		if (too_late(since))
		{
			wrong("wrong number of leases in use: %" PRId64 " more than are shown", more);
			return;
		}
		pause_ms(5);
	}
}
