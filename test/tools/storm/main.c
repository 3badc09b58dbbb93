/*-------------------------------------------------------------------------
 *
 * main.c
 *	  Many clients of leases at once, and a judge of what they saw.
 *
 *	storm run CONNINFO HISTORY KEY=VALUE...   clients, killed and interrupted
 *	storm guards CONNINFO HISTORY KEY=VALUE... likewise, of guarded transactions
 *	storm truth CONNINFO RECORDS KEY=VALUE... clients that write down what they were told
 *	storm judge HISTORY                       what was wrong; nothing is asked
 *	storm fair CONNINFO CLIENTS GRANTS PATIENCE   grants of each client of one name
 *
 *-------------------------------------------------------------------------
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storm.h"

static void
read_option(const char *text)
{
	const struct
	{
		const char *key;
		int		   *value;
	}			known[] = {
		{"clients", &options.clients},
		{"names", &options.names},
		{"padding", &options.padding},
		{"seconds", &options.seconds},
		{"rounds", &options.rounds},
		{"hits", &options.hits},
		{"least", &options.least},
		{"patience", &options.patience}
	};
	char		key[40];
	int			value;

	if (sscanf(text, "%39[a-z]=%d", key, &value) != 2)
		die("what is %s?", text);
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(key, known[i].key) == 0)
			*known[i].value = value;
}

static void
read_options(int argc, char **argv)
{
	options = (Options) {
		.conninfo = argv[0], .history = argv[1], .begin = begin_client, .episode = client_episode,
		.clients = 64, .names = 200, .seconds = 5, .rounds = 1, .patience = 180
	};
	for (int i = 2; i < argc; i++)
		read_option(argv[i]);
	if (options.clients > MAX_CLIENTS || options.names > MAX_NAMES)
		die("too many");
}

int
main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc >= 4 && strcmp(argv[1], "run") == 0)
	{
		read_options(argc - 2, argv + 2);
		run_storm();
	}
	else if (argc >= 4 && strcmp(argv[1], "guards") == 0)
	{
		read_options(argc - 2, argv + 2);
		run_guards();
	}
	else if (argc >= 4 && strcmp(argv[1], "truth") == 0)
	{
		read_options(argc - 2, argv + 2);
		run_truth();
	}
	else if (argc == 3 && strcmp(argv[1], "judge") == 0)
		judge(argv[2]);
	else if (argc == 6 && strcmp(argv[1], "fair") == 0 && atoi(argv[3]) <= MAX_CLIENTS)
	{
		options.conninfo = argv[2];
		options.patience = atoi(argv[5]);
		be_fair(atoi(argv[3]), atoi(argv[4]));
	}
	else
		die("usage: storm run|guards|truth CONNINFO HISTORY KEY=VALUE... | judge HISTORY"
			" | fair CONNINFO CLIENTS GRANTS PATIENCE");
	return 0;
}
