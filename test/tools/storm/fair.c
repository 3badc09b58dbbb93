/*-------------------------------------------------------------------------
 *
 * fair.c
 *	  Fairness: one name, and who gets how many grants of it.
 *
 *-------------------------------------------------------------------------
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storm.h"

/* What the processes share. */
typedef struct Race
{
	volatile bool over;
	volatile int ready;
	volatile int64_t grants[MAX_CLIENTS];
} Race;

static Race *race;

static _Noreturn void
be_one_of_many(int n, int clients)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	open_watch();
	__sync_fetch_and_add(&race->ready, 1);
	while (race->ready < clients)
		pause_ms(1);
	while (!race->over)
	{
		int64_t		token = query_number("SELECT lease.acquire('fair', scope => 'session')");

		/* Turns are long, so that who is late for the queue misses none. */
		pause_ms(1);
		PQclear(query("SELECT lease.release('fair', %" PRId64 ")", token));
		if (!race->over)
			race->grants[n]++;
	}
	close_watch();
	exit(0);
}

static int64_t
grants_of_all(int clients)
{
	int64_t		sum = 0;

	for (int i = 0; i < clients; i++)
		sum += race->grants[i];
	return sum;
}

/* Print how many grants each got, by the time that there are so many for each. */
void
be_fair(int clients, int grants)
{
	int			clients_left = clients;

	race = share_memory(sizeof(Race));
	for (int i = 0; i < clients; i++)
		if (fork() == 0)
			be_one_of_many(i, clients);
	while (race->ready < clients)
		pause_ms(1);
	for (int64_t since = now_us(); grants_of_all(clients) < (int64_t) clients * grants && !too_late(since);)
		pause_ms(5);
	race->over = true;

	/* Who is still not served dies with us. */
	for (int64_t since = now_us(); !too_late(since); pause_ms(5))
	{
		while (waitpid(-1, NULL, WNOHANG) > 0)
			clients_left--;
		if (clients_left == 0)
			break;
	}
	for (int i = 0; i < clients; i++)
		printf("%" PRId64 "\n", race->grants[i]);
}
