/*-------------------------------------------------------------------------
 *
 * frame.c
 *	  What the clients of the other programs share.
 *
 * A tally is a histogram with a fixed number of buckets in each power of two, so
 * that counting costs the same for every latency, and a percentile is off by
 * less than one part in BUCKETS_PER_OCTAVE.  Tallies are written by one thread
 * each and read when all of them are done; the list of tallies, the gate and the
 * deadline are guarded by the mutex.  The deadline does not change once the gate
 * is open, which is why it may be read without.
 *
 *-------------------------------------------------------------------------
 */
#include "frame.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS 1000000000LL

/* Seconds for getting ready, and for what is under way when the time is up. */
#define PATIENCE 15

#define OCTAVE_BITS 7
#define BUCKETS_PER_OCTAVE (1 << OCTAVE_BITS)
#define OCTAVES (63 - OCTAVE_BITS + 1)

struct Tally
{
	struct Tally *next;
	int64_t		operations;
	int64_t		buckets[OCTAVES * BUCKETS_PER_OCTAVE];
};

typedef struct Thread
{
	pthread_t	id;
	int			number;
	void		(*work) (int thread);
} Thread;

BenchOptions options = {.clients = 1, .threads = 2, .seconds = 1, .ttl = 30000};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_opened = PTHREAD_COND_INITIALIZER;
static int	awaited = 1;		/* threads that did not come to the gate yet */
static int64_t deadline;		/* 0: the gate is closed */
static Tally *tallies;

/* Who holds the one name of a hand-over: its client's number + 1, or 0. */
static atomic_int holder;

static const struct
{
	const char *name;
	int			job;
}			jobs[] = {
	{"renew", JOB_RENEW},
	{"pair", JOB_PAIR},
	{"handover", JOB_HANDOVER}
};

#define JOBS (sizeof(jobs) / sizeof(jobs[0]))

/* Other threads may be at work: they get no chance to say more, or to exit 0. */
void
Fail(const char *format,...)
{
	va_list		args;

	pthread_mutex_lock(&mutex);
	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	_exit(1);
}

int64_t
Now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NANOSECONDS + now.tv_nsec;
}

/* A server that does not answer at all. */
static void
GiveUp(int signal_number)
{
	static const char message[] = "the server did not answer in time\n";

	(void) signal_number;
	_exit(write(STDERR_FILENO, message, sizeof(message) - 1) < 0 ? 2 : 1);
}

static int64_t
ReadNumber(const char *option, const char *text, int64_t lowest, int64_t highest)
{
	char	   *end;
	long long	number;

	errno = 0;
	number = strtoll(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || number < lowest || number > highest)
		Fail("%s must be between %lld and %lld, not \"%s\"", option,
			 (long long) lowest, (long long) highest, text);
	return number;
}

static double
ReadSeconds(const char *text)
{
	char	   *end;
	double		seconds = strtod(text, &end);

	if (end == text || *end != '\0' || !(seconds > 0 && seconds <= 3600))
		Fail("--seconds must be above 0 and at most 3600, not \"%s\"", text);
	return seconds;
}

static int
ReadJob(const char *text, int known)
{
	for (unsigned i = 0; i < JOBS; i++)
		if (strcmp(text, jobs[i].name) == 0 && (jobs[i].job & known) != 0)
			return jobs[i].job;
	Fail("there is no job \"%s\" here", text);
}

static void
ReadAddress(const char *text)
{
	const char *colon = strrchr(text, ':');

	if (colon == NULL || colon == text)
		Fail("--address must be HOST:PORT, not \"%s\"", text);
	options.address = text;
	options.host = strndup(text, colon - text);
	options.port = ReadNumber("the port", colon + 1, 1, 65535);
}

void
ReadOptions(int argc, char **argv, int known)
{
	static const struct option names[] = {
		{"job", required_argument, NULL, 'j'},
		{"clients", required_argument, NULL, 'c'},
		{"threads", required_argument, NULL, 't'},
		{"seconds", required_argument, NULL, 's'},
		{"ttl", required_argument, NULL, 'l'},
		{"address", required_argument, NULL, 'a'},
		{NULL, 0, NULL, 0}
	};
	int			option;

	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1)
	{
		if (option == 'j')
			options.job = ReadJob(optarg, known);
		else if (option == 'c')
			options.clients = ReadNumber("--clients", optarg, 1, 1000);
		else if (option == 't')
			options.threads = ReadNumber("--threads", optarg, 1, 64);
		else if (option == 's')
			options.seconds = ReadSeconds(optarg);
		else if (option == 'l')
			options.ttl = ReadNumber("--ttl", optarg, 1, INT_MAX);
		else if (option == 'a')
			ReadAddress(optarg);
		else
			exit(1);
	}
	if (optind < argc || options.job == 0 || options.address == NULL)
		Fail("usage: --job JOB --address HOST:PORT [--clients N] [--seconds S] "
			 "[--threads N] [--ttl MS]");
	if (options.threads > options.clients)
		options.threads = options.clients;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, GiveUp);
	alarm(PATIENCE);
}

static void *
StartThread(void *arg)
{
	Thread	   *thread = arg;

	thread->work(thread->number);
	return NULL;
}

void
RunThreads(void (*work) (int thread))
{
	Thread	   *threads = calloc(options.threads, sizeof(Thread));

	if (threads == NULL)
		Fail("out of memory");
	awaited = options.threads;
	for (int i = 0; i < options.threads; i++)
	{
		threads[i].number = i;
		threads[i].work = work;
		if (pthread_create(&threads[i].id, NULL, StartThread, &threads[i]) != 0)
			Fail("could not start a thread");
	}
	for (int i = 0; i < options.threads; i++)
		pthread_join(threads[i].id, NULL);
	free(threads);
}

void
PassGate(void)
{
	pthread_mutex_lock(&mutex);
	if (--awaited == 0)
	{
		alarm((unsigned) options.seconds + 1 + PATIENCE);
		deadline = Now() + (int64_t) (options.seconds * NANOSECONDS);
		pthread_cond_broadcast(&gate_opened);
	}
	while (deadline == 0)
		pthread_cond_wait(&gate_opened, &mutex);
	pthread_mutex_unlock(&mutex);
}

bool
TimeIsUp(void)
{
	return Now() >= deadline;
}

Tally *
NewTally(void)
{
	Tally	   *tally = calloc(1, sizeof(Tally));

	if (tally == NULL)
		Fail("out of memory");
	pthread_mutex_lock(&mutex);
	tally->next = tallies;
	tallies = tally;
	pthread_mutex_unlock(&mutex);
	return tally;
}

/*
 * The first two octaves share their width of 1 ns, so that bucket and latency
 * are the same number there; from then on each octave's buckets are twice as
 * wide as those before.
 */
static int
BucketOf(int64_t latency)
{
	int			octave = 0;

	if (latency >= BUCKETS_PER_OCTAVE)
		octave = 63 - __builtin_clzll(latency) - OCTAVE_BITS;
	return octave * BUCKETS_PER_OCTAVE + (int) (latency >> octave);
}

/* The latency in a bucket's middle. */
static double
LatencyOf(int bucket)
{
	int			octave = bucket / BUCKETS_PER_OCTAVE - 1;

	if (octave < 0)
		return bucket;
	bucket -= octave * BUCKETS_PER_OCTAVE;
	return (bucket + 0.5) * (double) (INT64_C(1) << octave);
}

bool
CountOperation(Tally *tally, int64_t began)
{
	int64_t		now = Now();

	if (now >= deadline)
		return false;
	tally->operations++;
	tally->buckets[BucketOf(now - began)]++;
	return true;
}

void
EnterSection(int client)
{
	int			other = atomic_exchange(&holder, client + 1);

	if (other != 0)
		Fail("clients %d and %d hold the same name at the same time", other - 1, client);
}

void
LeaveSection(int client)
{
	if (atomic_exchange(&holder, 0) != client + 1)
		Fail("client %d lost the name while it held it", client);
}

/* In milliseconds. */
static double
Percentile(const Tally *sum, double percent)
{
	int64_t		wanted = (int64_t) (sum->operations * percent / 100);
	int64_t		seen = 0;

	for (int i = 0; i < OCTAVES * BUCKETS_PER_OCTAVE; i++)
	{
		seen += sum->buckets[i];
		if (seen > wanted)
			return LatencyOf(i) / 1e6;
	}
	return 0;
}

void
PrintFigures(void)
{
	Tally	   *sum = NewTally();

	for (Tally *tally = sum->next; tally != NULL; tally = tally->next)
	{
		sum->operations += tally->operations;
		for (int i = 0; i < OCTAVES * BUCKETS_PER_OCTAVE; i++)
			sum->buckets[i] += tally->buckets[i];
	}
	if (sum->operations == 0)
		Fail("no operation came to its end in %.3f s", options.seconds);
	printf("operations %lld\nseconds %.3f\np50 %.3f\np99 %.3f\n",
		   (long long) sum->operations, options.seconds,
		   Percentile(sum, 50), Percentile(sum, 99));
	if (fflush(stdout) != 0)
		Fail("could not write the figures");
}
