/*-------------------------------------------------------------------------
 *
 * judge.c
 *	  Judging a history: nothing is asked but what it says.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storm.h"

typedef struct Event
{
	int			name;
	int			need;
	int			capacity;
	int64_t		token;
	int64_t		sent;
	int64_t		from;
	int64_t		until;
	int64_t		low;
	int64_t		high;
	bool		in_order;
	bool		is_new;
	bool		waited;
	char		who[32];
} Event;

static Event *events;
static int	nevents;

static void
read_grant(const char *line)
{
	static int	size = 0;
	Event	   *event;
	char		flags[8];

	if (nevents == size)
	{
		size = size * 2 + 10000;
		events = realloc(events, size * sizeof(Event));
		if (!events)
			die("out of memory");
	}
	event = &events[nevents++];
	if (sscanf(line, "grant %d %d %d %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64
			   " %" SCNd64 " %7s %31s", &event->name, &event->need, &event->capacity, &event->token,
			   &event->sent, &event->from, &event->until, &event->low, &event->high, flags,
			   event->who) != 11)
		die("cannot read: %s", line);
	event->in_order = strchr(flags, 'o') != NULL;
	event->is_new = strchr(flags, 't') != NULL;
	event->waited = strchr(flags, 'w') != NULL;
	if (event->low > event->high)
		accuse("contradiction: %s arrived before it asked, or after it was served", event->who);
}

static int
compare(int64_t a, int64_t b)
{
	return (a > b) - (a < b);
}

/* One edge of an interval in which somebody is sure to hold something. */
typedef struct Edge
{
	int			name;
	int64_t		at;
	int			need;			/* negative: the end */
	const Event *event;
} Edge;

static int
compare_edges(const void *a, const void *b)
{
	const Edge *x = a;
	const Edge *y = b;
	int			order = compare(x->name, y->name);

	order = order ? order : compare(x->at, y->at);

	/* At the same moment ends come first. */
	return order ? order : compare(x->need, y->need);
}

/* Nobody is sure of what somebody else is sure of. */
static void
judge_overlap(void)
{
	Edge	   *edges = malloc(2 * sizeof(Edge) * (nevents + 1));
	int			nedges = 0;
	int64_t		taken = 0;
	int64_t		together = 0;

	for (int i = 0; i < nevents; i++)
	{
		const Event *event = &events[i];

		if (event->until <= event->from)
			continue;
		edges[nedges++] = (Edge) {event->name, event->from, event->need, event};
		edges[nedges++] = (Edge) {event->name, event->until, -event->need, event};
	}
	qsort(edges, nedges, sizeof(Edge), compare_edges);
	for (int i = 0; i < nedges; i++)
	{
		if (i > 0 && edges[i].name != edges[i - 1].name)
			taken = 0;
		if (edges[i].need > 0 && taken > 0)
			together++;
		taken += edges[i].need;
		if (edges[i].need > 0 && taken > edges[i].event->capacity)
			accuse("overlap: %s got %d of name %d (token %" PRId64 ") when %" PRId64
				   " of %d were taken", edges[i].event->who, edges[i].need, edges[i].name,
				   edges[i].event->token, taken - edges[i].need, edges[i].event->capacity);
	}
	count("intervals", nedges / 2);
	count("held_together", together);
	free(edges);
}

static int
by_name_and_token(const void *a, const void *b)
{
	const Event *x = a;
	const Event *y = b;
	int			order = compare(x->name, y->name);

	return order ? order : compare(x->token, y->token);
}

static bool
exclude_each_other(const Event *a, const Event *b)
{
	return a->in_order && b->in_order && a->name == b->name && a->need + b->need > a->capacity;
}

/*
 * Of two that exclude each other, who arrived first is served first.  (Of those
 * that hold a name together, who has the smaller token is a matter of chance.)
 */
static void
judge_order(void)
{
	int64_t    *earliest = malloc(sizeof(int64_t) * (nevents + 1));
	int64_t		pairs = 0;
	int64_t		waits = 0;

	qsort(events, nevents, sizeof(Event), by_name_and_token);
	earliest[nevents] = NEVER;
	for (int i = nevents - 1; i >= 0; i--)
	{
		int64_t		next = i + 1 < nevents && events[i + 1].name == events[i].name ?
			earliest[i + 1] : NEVER;

		earliest[i] = events[i].in_order && events[i].high < next ? events[i].high : next;
	}
	for (int i = 0; i < nevents; i++)
	{
		const Event *served = &events[i];
		int			j;

		waits += served->waited;
		for (j = i + 1; j < nevents && events[j].name == served->name &&
			 earliest[j] < served->low; j++)
			if (exclude_each_other(served, &events[j]) && events[j].high < served->low)
				accuse("order: %s (token %" PRId64 ") was served before %s (token %" PRId64
					   "), who came to name %d first", served->who, served->token, events[j].who,
					   events[j].token, served->name);
		for (j = i + 1; j < nevents && j < i + 200 && served->waited; j++)
			pairs += events[j].waited && exclude_each_other(served, &events[j]) &&
				served->high < events[j].low && events[j].low < served->from;
	}
	count("waits_served", waits);
	count("pairs_in_order", pairs);
	free(earliest);
}

static int
by_sent(const void *a, const void *b)
{
	return compare(((const Event *) a)->sent, ((const Event *) b)->sent);
}

static int
by_from(const void *a, const void *b)
{
	return compare((*(const Event *const *) a)->from, (*(const Event *const *) b)->from);
}

/* A token is larger than all that were returned before it was asked for. */
static void
judge_tokens(void)
{
	const Event **replies = malloc(sizeof(Event *) * (nevents + 1));
	int64_t		largest = 0;
	int			done = 0;
	int64_t		compared = 0;

	qsort(events, nevents, sizeof(Event), by_sent);
	for (int i = 0; i < nevents; i++)
		replies[i] = &events[i];
	qsort(replies, nevents, sizeof(Event *), by_from);
	for (int i = 0; i < nevents; i++)
	{
		for (; done < nevents && replies[done]->from < events[i].sent; done++)
			if (replies[done]->token > largest)
				largest = replies[done]->token;
		if (!events[i].is_new)
			continue;
		compared += largest > 0;
		if (events[i].token <= largest)
			accuse("token: %s got %" PRId64 " of name %d, after %" PRId64, events[i].who,
				   events[i].token, events[i].name, largest);
	}
	count("tokens_compared", compared);
	free(replies);
}

/* No two grants of a name have the same token; judge_order has sorted them by it. */
static void
judge_twice(void)
{
	for (int i = 1; i < nevents; i++)
		if (events[i].name == events[i - 1].name && events[i].token == events[i - 1].token &&
			events[i].is_new && events[i - 1].is_new)
			accuse("token: %s and %s both got %" PRId64 " of name %d", events[i].who,
				   events[i - 1].who, events[i].token, events[i].name);
}

/* Print what was wrong, and what was counted. */
void
judge(const char *path)
{
	FILE	   *in = fopen(path, "r");
	char		line[1000];

	if (!in)
		die("could not read %s", path);
	while (fgets(line, sizeof(line), in))
	{
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "grant ", 6) == 0)
			read_grant(line);
		else if (strncmp(line, "commit ", 7) == 0)
			read_commit(line);
		else if (strncmp(line, "count ", 6) == 0)
			puts(line);
		else
			accuse("%s", line);
	}
	fclose(in);
	judge_overlap();
	judge_order();
	judge_twice();
	judge_tokens();
	judge_commits();
	count("grants", nevents);
	count("violations", violations);
}
