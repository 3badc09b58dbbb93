/*
 * keeper.c - a program that keeps several leases by means of keepalive.c alone
 *
 *	keeper TTL NAME...		TTL in milliseconds; NAME=TOKEN keeps one that is held already
 *
 * The connection is libpq's default, or $KEEPER_CONNINFO.  Each change of a lease is a
 * line: its name, what it is now, and its token or why.  A name on standard input
 * releases it, an empty line ends the program.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../src/leasectl/keepalive.h"

#define MOST 16

static const char *const phases[] = {
	"asking", "held", "releasing", "released", "taken", "lost", "unreachable", "refused"
};

static char *names[MOST];
static Keepalive *leases[MOST];
static KeepalivePhase shown[MOST];

static Keepalive *
start(char *name, int64_t ttl)
{
	static const char *keywords[] = {"dbname", NULL};
	static const char *values[] = {NULL, NULL};
	char	   *token = strchr(name, '=');
	KeepaliveRequest request = {
		.keywords = keywords, .values = values, .name = name, .ttl = ttl, .wait = -1, .holder = "keeper"
	};

	values[0] = getenv("KEEPER_CONNINFO");
	if (values[0] == NULL)
		keywords[0] = NULL;
	if (token != NULL)
	{
		*token = '\0';
		request.token = atoll(token + 1);
	}
	return KeepaliveStart(&request);
}

static void
show(int i, KeepalivePhase phase)
{
	if (phase == shown[i])
		return;
	shown[i] = phase;
	printf("%s %s ", names[i], phases[phase]);
	if (phase == KEEPALIVE_HELD)
		printf("%lld", (long long) KeepaliveToken(leases[i]));
	else
		printf("%s %s", KeepaliveSqlstate(leases[i]), KeepaliveMessage(leases[i]));
	printf("\n");
	fflush(stdout);
}

/* Returns false when it is to end. */
static bool
obey(int n)
{
	char		line[256];

	if (fgets(line, sizeof(line), stdin) == NULL || line[0] == '\n')
		return false;
	line[strcspn(line, "\n")] = '\0';
	for (int i = 0; i < n; i++)
	{
		if (strcmp(line, names[i]) == 0)
			show(i, KeepaliveRelease(leases[i]));
	}
	return true;
}

int
main(int argc, char **argv)
{
	struct pollfd ready[MOST + 1] = {{STDIN_FILENO, POLLIN, 0}};
	int			n = argc - 2 < MOST ? argc - 2 : MOST;

	setvbuf(stdin, NULL, _IONBF, 0);
	for (int i = 0; i < n; i++)
	{
		names[i] = argv[i + 2];
		leases[i] = start(names[i], atoll(argv[1]) * 1000);
		if (leases[i] == NULL)
			return 1;
		ready[i + 1] = (struct pollfd) {KeepaliveFd(leases[i]), POLLIN, 0};
	}
	do
	{
		poll(ready, n + 1, -1);
		for (int i = 0; i < n; i++)
		{
			if (ready[i + 1].revents != 0 || shown[i] == KEEPALIVE_ASKING)
				show(i, KeepaliveTurn(leases[i]));
		}
	} while (ready[0].revents == 0 || obey(n));
	for (int i = 0; i < n; i++)
		KeepaliveFree(leases[i]);
	return 0;
}
