/*
 * hosts.c - the hosts that a connection string names, one by one
 *
 * libpq goes through several hosts by itself.  But when it is not to wait, it has no
 * bound for one that does not answer, so its caller must be able to go on to the next.
 */
#include <stdlib.h>
#include <string.h>

#include "hosts.h"

/* As many as libpq has options, and then some. */
#define MOST_KEYWORDS 64

/* What a connection is made with: the caller's keywords, and at most six of ours. */
typedef struct Connection
{
	int			n;
	const char *keywords[MOST_KEYWORDS + 7];
	const char *values[MOST_KEYWORDS + 7];
} Connection;

/* Of two values for a keyword libpq takes the later one. */
static void
add_keyword(Connection *connection, const char *keyword, const char *value)
{
	connection->keywords[connection->n] = keyword;
	connection->values[connection->n++] = value;
	connection->keywords[connection->n] = NULL;
	connection->values[connection->n] = NULL;
}

static void
add_all_keywords(Connection *connection, const Hosts *hosts)
{
	for (int i = 0; hosts->keywords[i] != NULL && i < MOST_KEYWORDS; i++)
		add_keyword(connection, hosts->keywords[i], hosts->values[i]);
}

/* The value of an option; NULL if it is empty. */
static const char *
find_option(const Hosts *hosts, const char *keyword)
{
	for (const PQconninfoOption *option = hosts->options; option->keyword != NULL; option++)
	{
		if (strcmp(option->keyword, keyword) == 0)
			return option->val != NULL && *option->val != '\0' ? option->val : NULL;
	}
	return NULL;
}

/* A host's item of a comma-separated option, of which an only one is for all; or NULL. */
static char *
find_item(const Hosts *hosts, const char *keyword, int host)
{
	const char *list = find_option(hosts, keyword);
	const char *end;

	if (list == NULL)
		return NULL;
	end = strchrnul(list, ',');
	for (int place = *end == '\0' ? 0 : host; place > 0 && *end != '\0'; place--)
	{
		list = end + 1;
		end = strchrnul(list, ',');
	}
	return strndup(list, end - list);
}

bool
FindHosts(Hosts *hosts, const char *const *keywords, const char *const *values)
{
	Connection	connection = {.n = 0};
	PGconn	   *probe;
	const char *list;
	const char *timeout;

	*hosts = (Hosts) {.keywords = keywords, .values = values};

	/* libpq tells what it makes of the keywords also of a connection that it refuses to begin. */
	add_all_keywords(&connection, hosts);
	add_keyword(&connection, "sslmode", "(this is not to be connected)");
	probe = PQconnectStartParams(connection.keywords, connection.values, true);
	hosts->options = PQconninfo(probe);
	PQfinish(probe);
	if (hosts->options == NULL)
		return false;

	list = find_option(hosts, find_option(hosts, "hostaddr") ? "hostaddr" : "host");
	for (hosts->n = 1; list != NULL && *list != '\0'; list++)
		hosts->n += *list == ',';
	timeout = find_option(hosts, "connect_timeout");
	hosts->timeout = timeout != NULL ? atoi(timeout) : 0;
	return true;
}

PGconn *
DialHost(const Hosts *hosts, int host)
{
	static const char *const lists[] = {"host", "hostaddr", "port"};
	char	   *items[3] = {NULL, NULL, NULL};
	Connection	connection = {.n = 0};
	PGconn	   *dialled;

	/* A network that was cut is noticed within 35 seconds, unless the user wants otherwise. */
	add_keyword(&connection, "keepalives_idle", "20");
	add_keyword(&connection, "keepalives_interval", "5");
	add_keyword(&connection, "keepalives_count", "3");
	add_all_keywords(&connection, hosts);
	for (int i = 0; i < 3 && hosts->n > 1; i++)
	{
		items[i] = find_item(hosts, lists[i], host);
		add_keyword(&connection, lists[i], items[i] ? items[i] : "");
	}
	dialled = PQconnectStartParams(connection.keywords, connection.values, true);
	for (int i = 0; i < 3; i++)
		free(items[i]);
	return dialled;
}

void
ForgetHosts(Hosts *hosts)
{
	PQconninfoFree(hosts->options);
	hosts->options = NULL;
}
