/*-------------------------------------------------------------------------
 *
 * commits.c
 *	  Judging guarded transactions: only those that committed are in a history.
 *
 * Of two that exclude each other the one with the larger token must have found the
 * other there as it began to read.  It read after it was granted its lease, so
 * what it did not find was not over then: the two overlapped, or came in the wrong
 * order.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>

#include "storm.h"

typedef struct Commit
{
	int			name;
	int64_t		token;
	bool		shared;
	int64_t		below;
	int64_t		above;
	char		who[32];
} Commit;

static Commit *commits;
static int	ncommits;

void
read_commit(const char *line)
{
	static int	size = 0;
	Commit	   *commit;
	char		mode;

	if (ncommits == size)
	{
		size = size * 2 + 10000;
		commits = realloc(commits, size * sizeof(Commit));
		if (!commits)
			die("out of memory");
	}
	commit = &commits[ncommits++];
	if (sscanf(line, "commit %d %" SCNd64 " %c %" SCNd64 " %" SCNd64 " %31s", &commit->name,
			   &commit->token, &mode, &commit->below, &commit->above, commit->who) != 6)
		die("cannot read: %s", line);
	commit->shared = mode == 's';
}

static int
by_name_and_token(const void *a, const void *b)
{
	const Commit *x = a;
	const Commit *y = b;

	if (x->name != y->name)
		return x->name - y->name;
	return (x->token > y->token) - (x->token < y->token);
}

/* One whose name has so many commits with smaller tokens, of which the last is given. */
static void
judge_commit(const Commit *commit, int64_t smaller, const Commit *last)
{
	if (commit->below != smaller)
		accuse("overlap: %s (token %" PRId64 " of name %d) saw %" PRId64 " of %" PRId64
			   " commits with smaller tokens, the last of them by %s (token %" PRId64 ")",
			   commit->who, commit->token, commit->name, commit->below, smaller,
			   last ? last->who : "nobody", last ? last->token : 0);
	if (commit->above != 0)
		accuse("overlap: %s (token %" PRId64 " of name %d) saw %" PRId64
			   " commits with larger tokens", commit->who, commit->token, commit->name,
			   commit->above);
}

/*
 * What a commit should have found, name by name in the order of tokens: what an
 * exclusive one excludes is all, what a shared one does are the exclusive ones.
 */
void
judge_commits(void)
{
	const Commit *last[2];
	int64_t		smaller[2];
	int64_t		pairs = 0;
	int64_t		tokens = 0;

	qsort(commits, ncommits, sizeof(Commit), by_name_and_token);
	for (int i = 0, end; i < ncommits; i = end)
	{
		if (i == 0 || commits[i].name != commits[i - 1].name)
			for (int shared = 0; shared < 2; shared++)
			{
				last[shared] = NULL;
				smaller[shared] = 0;
			}
		for (end = i; end < ncommits && by_name_and_token(&commits[i], &commits[end]) == 0; end++)
		{
			int			shared = commits[end].shared;

			pairs += last[shared] != NULL;
			judge_commit(&commits[end], smaller[shared], last[shared]);
		}
		for (int j = i; j < end; j++)
			for (int shared = 0; shared < 2; shared++)
				if (!shared || !commits[j].shared)
				{
					last[shared] = &commits[j];
					smaller[shared]++;
				}
		tokens++;
	}
	count("commits", ncommits);
	count("commits_in_order", pairs);
	count("tokens_committed", tokens);
}
