/*
 * main.c - leasectl, leases for shells, cron and services
 */
#include <locale.h>
#include <stdlib.h>

#include "leasectl.h"

const Verb	verbs[] = {
	{"run", VERB_RUN, 1, 1, true, RunCommand},
	{"elect", VERB_ELECT, 1, 1, true, ElectLeader},
	{"acquire", VERB_ACQUIRE, 1, 1, false, AcquireLease},
	{"renew", VERB_RENEW, 2, 2, false, RenewLease},
	{"release", VERB_RELEASE, 2, 2, false, ReleaseLease},
	{"transfer", VERB_TRANSFER, 3, 3, false, TransferLease},
	{"force-release", VERB_FORCE_RELEASE, 1, 1, false, ForceRelease},
	{"list", VERB_LIST, 0, 1, false, ListLeases},
	{"waiters", VERB_WAITERS, 0, 1, false, ListWaiters},
	{"stats", VERB_STATS, 0, 1, false, ShowStats},
	{"history", VERB_HISTORY, 0, 1, false, ShowHistory},
	{"explain", VERB_EXPLAIN, 1, 1, false, ExplainName},
	{"status", VERB_STATUS, 0, 0, false, ShowStatus},
	{"watch", VERB_WATCH, 0, -1, false, WatchEvents},
	{"top", VERB_TOP, 0, 0, false, ShowTop},
	{NULL, 0, 0, 0, false, NULL}
};

int
main(int argc, char **argv)
{
	Options		options;
	const Verb *verb;

	setlocale(LC_CTYPE, "");
	verb = ParseOptions(argc, argv, &options);
	return verb->call(&options);
}
