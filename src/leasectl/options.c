/*
 * options.c - the command line
 *
 * One table says of each option what it takes, where that goes, its bounds, and
 * which verbs know it.  What is wrong ends leasectl with STATUS_FAILED.
 */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leasectl.h"

typedef enum Kind
{
	FLAG,
	TEXT,
	NUMBER,
	DURATION,
	HELP,
	VERSION
} Kind;

typedef struct Option
{
	const char *name;
	char		letter;			/* 0: it has none */
	Kind		kind;
	size_t		field;
	unsigned	verbs;
	int64_t		min;			/* of a number or duration */
	int64_t		max;
} Option;

#define FIELD(name) offsetof(Options, name)

/* The longest that fits an interval, and its deadline any clock. */
#define LONGEST (INT64_C(36500) * DAY)

static const Option option_table[] = {
	{"host", 'h', TEXT, FIELD(host), VERB_ANY, 0, 0},
	{"port", 'p', TEXT, FIELD(port), VERB_ANY, 0, 0},
	{"username", 'U', TEXT, FIELD(user), VERB_ANY, 0, 0},
	{"dbname", 'd', TEXT, FIELD(dbname), VERB_ANY, 0, 0},
	{"ttl", 0, DURATION, FIELD(ttl), VERBS_TAKING | VERB_RENEW, MSEC, LONGEST},
	{"wait", 0, DURATION, FIELD(wait), VERBS_TAKING, 0, LONGEST},
	{"try", 0, FLAG, FIELD(try_only), VERB_RUN | VERB_ACQUIRE, 0, 0},
	{"holder", 0, TEXT, FIELD(holder), VERBS_TAKING, 0, 0},
	{"shared", 0, FLAG, FIELD(shared), VERB_RUN | VERB_ACQUIRE, 0, 0},
	{"permits", 0, NUMBER, FIELD(permits), VERB_RUN | VERB_ACQUIRE, 1, 1000000},
	{"capacity", 0, NUMBER, FIELD(capacity), VERB_RUN | VERB_ACQUIRE, 1, 1000000},
	{"min-hold", 0, DURATION, FIELD(min_hold), VERBS_TAKING, 0, LONGEST},
	{"lock-delay", 0, DURATION, FIELD(lock_delay), VERBS_TAKING, 0, LONGEST},
	{"correlation-id", 0, TEXT, FIELD(correlation_id), VERBS_TAKING, 0, 0},
	{"metadata", 0, TEXT, FIELD(metadata), VERBS_TAKING, 0, 0},
	{"request-id", 0, TEXT, FIELD(request_id), VERB_ACQUIRE, 0, 0},
	{"kill-after", 0, DURATION, FIELD(kill_after), VERB_RUN | VERB_ELECT, 0, LONGEST},
	{"once", 0, FLAG, FIELD(once), VERB_ELECT, 0, 0},
	{"pause", 0, DURATION, FIELD(pause), VERB_ELECT, 0, LONGEST},
	{"reason", 0, TEXT, FIELD(reason), VERB_FORCE_RELEASE, 0, 0},
	{"token", 0, NUMBER, FIELD(token), VERB_FORCE_RELEASE, 1, INT64_MAX},
	{"reopen", 0, FLAG, FIELD(reopen), VERB_FORCE_RELEASE, 0, 0},
	{"since", 0, DURATION, FIELD(since), VERB_HISTORY | VERB_EXPLAIN, 0, LONGEST},
	{"limit", 0, NUMBER, FIELD(limit), VERB_HISTORY, 1, 1000000},
	{"interval", 0, DURATION, FIELD(interval), VERB_WATCH | VERB_TOP, 100 * MSEC, DAY},
	{"sort", 0, TEXT, FIELD(sort), VERB_TOP, 0, 0},
	{"timeout", 0, DURATION, FIELD(timeout), VERBS_ASKING, 100 * MSEC, DAY},
	{"json", 0, FLAG, FIELD(json), VERBS_ASKING & ~VERB_TOP, 0, 0},
	{"quiet", 'q', FLAG, FIELD(quiet), VERB_ANY, 0, 0},
	{"help", '?', HELP, 0, VERB_ANY, 0, 0},
	{"version", 'V', VERSION, 0, VERB_ANY, 0, 0},
};

#define N_OPTIONS ((int) (sizeof(option_table) / sizeof(option_table[0])))

/* getopt's value of an option without a letter is this and its place in the table. */
#define LONG_ONLY 256

static const char help[] =
	"leasectl keeps leases of the PostgreSQL extension lease.\n"
	"\n"
	"  leasectl run NAME [OPTION]... -- COMMAND...    while the lease is held\n"
	"  leasectl elect NAME [OPTION]... -- COMMAND...  while leader, again and again\n"
	"  leasectl acquire NAME  renew|release NAME TOKEN  transfer NAME TOKEN HOLDER\n"
	"  leasectl force-release NAME --reason=TEXT [--token=TOKEN] [--reopen]\n"
	"  leasectl list|waiters|stats|history [PATTERN]  explain NAME  status\n"
	"  leasectl watch [PATTERN]...  top\n"
	"\n"
	"Connection:   -h, --host  -p, --port  -U, --username  -d, --dbname (or a URI)\n"
	"Take a lease: --ttl=30s  --wait=DURATION  --try  --shared  --permits=N\n"
	"              --capacity=N  --min-hold=DURATION  --lock-delay=DURATION\n"
	"              --holder=TEXT  --correlation-id=TEXT  --metadata=JSON\n"
	"              acquire: --request-id=TEXT\n"
	"The command:  --kill-after=DURATION, SIGTERM to SIGKILL, a tenth of the TTL\n"
	"              elect: --once  --pause=1s, least time between two starts\n"
	"Look:         --since=DURATION  --limit=100  --interval=DURATION  --sort=COLUMN\n"
	"Answers:      --json  -q, --quiet  --timeout=10s  -?, --help  -V, --version\n"
	"\n"
	"DURATION: a number with us, ms, s, min, h or d; seconds without one.\n"
	"PATTERN: * and ?.  Exit status: the command's, or 121 refused by the server,\n"
	"122 cannot connect, 123 lease lost, 124 not acquired, 125 usage,\n"
	"126 cannot execute, 127 not found.\n";

static void
print_and_exit(const char *text)
{
	fputs(text, stdout);
	if (fflush(stdout) != 0)
		Fail(STATUS_FAILED, "could not write: %s", strerror(errno));
	exit(0);
}

/* A duration in microseconds; false if the text is none.  Bounds are the caller's. */
static bool
parse_duration(const char *text, double *duration)
{
	static const struct
	{
		const char *name;
		int64_t		length;
	}			units[] = {
		{"", SECOND}, {"us", 1}, {"ms", MSEC}, {"s", SECOND}, {"m", 60 * SECOND},
		{"min", 60 * SECOND}, {"h", 3600 * SECOND}, {"d", DAY}
	};
	char	   *end;

	/* strtod would take blanks, hexadecimal, "inf" and "nan", too. */
	if (!isdigit((unsigned char) *text) && *text != '-' && *text != '.')
		return false;
	if (text[strspn(text, "-.0123456789")] == 'x')
		return false;
	*duration = strtod(text, &end);
	if (end == text)
		return false;
	end += strspn(end, " ");
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
	{
		if (strcmp(end, units[i].name) == 0)
		{
			*duration = round(*duration * units[i].length);
			return true;
		}
	}
	return false;
}

static bool
parse_number(const char *text, int64_t *number)
{
	char	   *end;

	errno = 0;
	*number = strtoll(text, &end, 10);
	return end != text && *end == '\0' && errno == 0;
}

/* A bound as people write it. */
static const char *
duration_text(int64_t duration, char *text, size_t size)
{
	if (duration % DAY == 0 && duration > 0)
		snprintf(text, size, "%lld d", (long long) (duration / DAY));
	else if (duration % SECOND == 0)
		snprintf(text, size, "%lld s", (long long) (duration / SECOND));
	else
		snprintf(text, size, "%g ms", (double) duration / MSEC);
	return text;
}

static int64_t
take_duration(const Option *option, const char *text, int64_t min, int64_t max)
{
	double		duration;
	char		least[32],
				most[32];

	if (!parse_duration(text, &duration))
		Fail(STATUS_FAILED, "--%s: \"%s\" is no duration; it is a number with us, ms, s, min, h or d",
			 option->name, text);
	if (!(duration >= (double) min && duration <= (double) max))
		Fail(STATUS_FAILED, "--%s: \"%s\" is out of range; it must be from %s to %s", option->name, text,
			 duration_text(min, least, sizeof(least)), duration_text(max, most, sizeof(most)));
	return (int64_t) duration;
}

static int64_t
take_number(const Option *option, const char *text)
{
	int64_t		number;

	if (!parse_number(text, &number))
		Fail(STATUS_FAILED, "--%s: \"%s\" is no integer that fits", option->name, text);
	if (number < option->min || number > option->max)
		Fail(STATUS_FAILED, "--%s: %s is out of range; it must be from %lld to %lld", option->name, text,
			 (long long) option->min, (long long) option->max);
	return number;
}

/* Put what an option says where it belongs. */
static void
take_option(Options *options, const Option *option, const char *text)
{
	void	   *field = (char *) options + option->field;

	switch (option->kind)
	{
		case FLAG:
			*(bool *) field = true;
			break;
		case TEXT:
			*(const char **) field = text;
			break;
		case NUMBER:
			*(int64_t *) field = take_number(option, text);
			break;
		case DURATION:
			*(int64_t *) field = take_duration(option, text, option->min, option->max);
			break;
		case HELP:
			print_and_exit(help);
			break;
		case VERSION:
			print_and_exit("leasectl (lease) " LEASECTL_VERSION "\n");
			break;
	}
}

/* What getopt wants to know: the table in its own words. */
static void
describe_options(struct option *longs, char *letters)
{
	*letters++ = ':';
	for (int i = 0; i < N_OPTIONS; i++)
	{
		const Option *option = &option_table[i];
		bool		has_argument = option->kind >= TEXT && option->kind <= DURATION;

		longs[i] = (struct option) {option->name, has_argument, NULL, LONG_ONLY + i};
		if (option->letter != 0)
		{
			*letters++ = option->letter;
			if (has_argument)
				*letters++ = ':';
		}
	}
	longs[N_OPTIONS] = (struct option) {0};
	*letters = '\0';
}

static const Option *
find_option(int code)
{
	if (code >= LONG_ONLY)
		return &option_table[code - LONG_ONLY];
	for (int i = 0; i < N_OPTIONS; i++)
	{
		if (option_table[i].letter == code)
			return &option_table[i];
	}
	return NULL;
}

/* The options, wherever they stand; notes which were given. */
static void
take_options(int argc, char **argv, Options *options, bool *given)
{
	struct option longs[N_OPTIONS + 1];
	char		letters[2 * N_OPTIONS + 2];
	int			code;

	describe_options(longs, letters);
	opterr = 0;
	while ((code = getopt_long(argc, argv, letters, longs, NULL)) != -1)
	{
		const char *word = argv[optind - 1];
		const Option *option;

		/* "-?" is an option here, and getopt's word for one that is unknown. */
		if (code == '?' && optopt != '?' && !(optopt == 0 && strcmp(word, "-?") == 0))
		{
			if (optopt >= LONG_ONLY)
				Fail(STATUS_FAILED, "--%s takes no argument", find_option(optopt)->name);
			if (optopt != 0)
				Fail(STATUS_FAILED, "unknown option -%c; see leasectl --help", optopt);
			Fail(STATUS_FAILED, "unknown option %s; see leasectl --help", word);
		}
		if (code == ':')
			Fail(STATUS_FAILED, "--%s needs an argument", find_option(optopt)->name);
		option = find_option(code);
		take_option(options, option, optarg);
		given[option - option_table] = true;
	}
}

static const Verb *
find_verb(const char *name)
{
	for (const Verb *verb = verbs; verb->name != NULL; verb++)
	{
		if (strcmp(verb->name, name) == 0)
			return verb;
	}
	Fail(STATUS_FAILED, "unknown command \"%s\"; see leasectl --help", name);
}

static void
check_operands(const Verb *verb, const Options *options)
{
	if (options->n_operands < verb->min_operands)
		Fail(STATUS_FAILED, "%s needs %s; see leasectl --help", verb->name,
			 verb->min_operands == 1 ? "a NAME" :
			 verb->min_operands == 2 ? "NAME and TOKEN" : "NAME, TOKEN and HOLDER");
	if (verb->max_operands >= 0 && options->n_operands > verb->max_operands)
		Fail(STATUS_FAILED, "%s: too many arguments, the first is \"%s\"%s", verb->name,
			 options->operands[verb->max_operands],
			 verb->takes_command ? "; the command stands after --" : "");
	if (!verb->takes_command && options->command != NULL)
		Fail(STATUS_FAILED, "%s takes no command", verb->name);
	if (verb->takes_command && (options->command == NULL || options->command[0] == NULL))
		Fail(STATUS_FAILED, "%s needs a command after --", verb->name);
}

static void
check_options(const Verb *verb, const Options *options, const bool *given)
{
	for (int i = 0; i < N_OPTIONS; i++)
	{
		if (given[i] && (option_table[i].verbs & verb->bit) == 0)
			Fail(STATUS_FAILED, "%s does not know --%s; see leasectl --help", verb->name, option_table[i].name);
	}
	if (options->try_only && options->wait >= 0)
		Fail(STATUS_FAILED, "--try and --wait exclude each other");
	if (options->shared && (options->permits >= 0 || options->capacity >= 0))
		Fail(STATUS_FAILED, "--shared is for a lease, --permits and --capacity are for a semaphore");
	if (verb->bit == VERB_FORCE_RELEASE && options->reason == NULL)
		Fail(STATUS_FAILED, "force-release needs a --reason");
}

/*
 * Read the command line.  Returns the verb; its operands and options are in
 * *options.  Exits if something is wrong with them, or for --help and --version.
 */
const Verb *
ParseOptions(int argc, char **argv, Options *options)
{
	bool		given[N_OPTIONS] = {false};
	const Verb *verb;

	*options = (Options) {
		.ttl = -1, .wait = -1, .permits = -1, .capacity = -1, .min_hold = -1, .lock_delay = -1,
		.kill_after = -1, .pause = -1, .token = -1, .since = -1, .limit = -1, .interval = -1, .timeout = -1
	};

	/* getopt would not tell on which side of "--" an argument stood. */
	for (int i = 1; i < argc && options->command == NULL; i++)
	{
		if (strcmp(argv[i], "--") == 0)
		{
			options->command = &argv[i + 1];
			argv[i] = NULL;
			argc = i;
		}
	}
	take_options(argc, argv, options, given);
	if (optind == argc)
		Fail(STATUS_FAILED, "what is to be done? See leasectl --help");
	verb = find_verb(argv[optind]);
	options->operands = &argv[optind + 1];
	options->n_operands = argc - optind - 1;
	check_operands(verb, options);
	check_options(verb, options, given);
	return verb;
}

/* A fencing token that was given as an operand. */
int64_t
ParseToken(const char *text)
{
	int64_t		token;

	if (!parse_number(text, &token) || token < 1)
		Fail(STATUS_FAILED, "\"%s\" is no token; it is a positive integer", text);
	return token;
}

/*
 * What the options say of the connection, as PQconnectdbParams takes it (with
 * expand_dbname): arrays of MAX_KEYWORDS that end with NULL.
 */
void
ConnectionKeywords(const Options *options, const char **keywords, const char **values)
{
	const char *const given[][2] = {
		{"host", options->host},
		{"port", options->port},
		{"user", options->user},
		{"dbname", options->dbname},	/* after what it may override, as in psql */
		{"fallback_application_name", "leasectl"}
	};
	int			n = 0;

	for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++)
	{
		if (given[i][1] == NULL)
			continue;
		keywords[n] = given[i][0];
		values[n++] = given[i][1];
	}
	keywords[n] = values[n] = NULL;
}
