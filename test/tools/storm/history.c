/*-------------------------------------------------------------------------
 *
 * history.c
 *	  What the parent saw, and the history that it writes.
 *
 * The parent looks at all queues over and over: what the server says of how long
 * somebody has been waiting tells when it arrived, give or take the time that the
 * look itself took.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>

#include "storm.h"

static const char *const count_names[] = {
	"acquires", "cancelled", "statement_timeouts", "lock_timeouts", "wait_timeouts",
	"terminated", "renewals", "transfers", "reentries", "savepoints", "several", "campaigns",
	"retries", "abandoned", "late", "episodes"
};

Tally		tally;

/* When who arrived in which queue: of each client in the order of its calls. */
typedef struct Arrival
{
	uint32_t	op;
	int			name;
	int64_t		low;
	int64_t		high;
} Arrival;

static struct
{
	Arrival    *list;
	int			count;
	int			size;
} arrivals[MAX_CLIENTS];

/* While these lasted the lease clock was true. */
static struct
{
	int64_t		from;
	int64_t		until;
} rounds[1000];
static int	nrounds;

static void
note_arrival(int client, uint32_t op, int name, int64_t low, int64_t high)
{
	int			count = arrivals[client].count;
	Arrival    *last = count > 0 ? &arrivals[client].list[count - 1] : NULL;

	if (last && last->op == op && last->name == name)
	{
		last->low = low > last->low ? low : last->low;
		last->high = high < last->high ? high : last->high;
		return;
	}
	if (count == arrivals[client].size)
	{
		arrivals[client].size = count * 2 + 1000;
		arrivals[client].list = realloc(arrivals[client].list,
										arrivals[client].size * sizeof(Arrival));
		if (!arrivals[client].list)
			die("out of memory");
	}
	arrivals[client].list[count] = (Arrival) {op, name, low, high};
	arrivals[client].count++;
}

/* Look at all queues; what the lease clock says counts only while it is true. */
void
sample(void)
{
	int64_t		before = now_us();
	PGresult   *res = query("SELECT name, holder, (extract(epoch FROM waited) * 1000000)::bigint"
							" FROM lease.waiters");
	int64_t		after = now_us();

	for (int i = 0; i < PQntuples(res); i++)
	{
		int64_t		waited = atoll(PQgetvalue(res, i, 2));
		int			client;
		int			name;
		uint32_t	op;

		if (sscanf(PQgetvalue(res, i, 0), "storm/%d", &name) == 1 &&
			sscanf(PQgetvalue(res, i, 1), "c%d.%u", &client, &op) == 2)
			note_arrival(client, op, name, before - waited - 2, after - waited + 2);
	}
	if (PQntuples(res) > tally.most_waiters)
		tally.most_waiters = PQntuples(res);
	tally.samples++;
	PQclear(res);
}

void
open_round(void)
{
	rounds[nrounds].from = now_us();
	rounds[nrounds].until = NEVER;
}

void
close_round(void)
{
	rounds[nrounds++].until = now_us();
	if (nrounds == 1000)
		die("too many rounds");
}

/* When a client came to a queue with its call of that number, if that was seen. */
static const Arrival *
find_arrival(int client, uint32_t op, int name)
{
	int			low = 0;
	int			high = arrivals[client].count;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (arrivals[client].list[middle].op < op)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < arrivals[client].count && arrivals[client].list[low].op == op; low++)
		if (arrivals[client].list[low].name == name)
			return &arrivals[client].list[low];
	return NULL;
}

/* The end of the round that a time lies in; 0: it lies in none. */
static int64_t
end_of_round(int64_t from)
{
	for (int i = 0; i < nrounds; i++)
		if (from >= rounds[i].from && from < rounds[i].until)
			return rounds[i].until;
	return 0;
}

static int64_t
sum_of(Count kind)
{
	int64_t		sum = 0;

	for (int n = 0; n < options.clients; n++)
		sum += storm->clients[n].counts[kind];
	return sum;
}

/* How many there were, as their victims tell, or cannot tell. */
int64_t
interruptions(void)
{
	int64_t		sum = tally.kills;

	for (int kind = CANCELLED; kind <= TERMINATED; kind++)
		sum += sum_of(kind);
	return sum;
}

static void
write_grant(FILE *out, int client, const Hold *hold)
{
	const Arrival *arrival = find_arrival(client, hold->op, hold->name);
	int64_t		until = end_of_round(hold->from);
	int64_t		ended = hold->until < 0 ? -hold->until : hold->until;
	int64_t		low = hold->sent;
	int64_t		high = hold->from;

	/* A retry has the place that the first call was given, and lost. */
	if (!hold->in_order)
		arrival = NULL;
	if (arrival)
	{
		low = arrival->low > low ? arrival->low : low;
		high = arrival->high < high ? arrival->high : high;
	}
	if (ended > 0 && ended < until)
		until = ended;
	if (hold->deadline < until)
		until = hold->deadline;
	fprintf(out, "grant %d %d %d %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64
			" %" PRId64 " -%s%s%s c%d.%u\n", hold->name, hold->need, capacity_of(hold->name),
			hold->token, hold->sent, hold->from, until, low, high,
			hold->in_order ? "o" : "", hold->is_new ? "t" : "", arrival ? "w" : "",
			client, hold->op);
}

void
write_count(FILE *out, const char *key, int64_t value)
{
	fprintf(out, "count %s %" PRId64 "\n", key, value);
}

/* What must not be, and how often there were interruptions. */
void
write_common(FILE *out)
{
	for (int i = 0; i < storm->nwrong && i < MAX_WRONG; i++)
		fprintf(out, "%s\n", storm->wrong[i]);
	write_count(out, "kills", tally.kills);
	write_count(out, "terminations", tally.terminations);
	write_count(out, "cancels", tally.cancels);
}

void
write_history(void)
{
	FILE	   *out = fopen(options.history, "w");

	if (!out)
		die("could not write %s", options.history);
	for (int n = 0; n < options.clients; n++)
		for (int i = 0; i < storm->clients[n].nholds; i++)
			write_grant(out, n, &storm->clients[n].holds[i]);
	write_common(out);
	for (int kind = 0; kind < NCOUNTS; kind++)
		write_count(out, count_names[kind], sum_of(kind));
	write_count(out, "samples", tally.samples);
	write_count(out, "most_waiters", tally.most_waiters);
	write_count(out, "checked_holds", tally.checked_holds);
	write_count(out, "rounds", nrounds);
	write_count(out, "interruptions", interruptions());
	if (fclose(out) != 0)
		die("could not write %s", options.history);
}
