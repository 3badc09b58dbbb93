/*-------------------------------------------------------------------------
 *
 * heartbeat.c
 *	  A command for leasectl whose last sign of life can be told to the millisecond.
 *
 *	heartbeat FILE [ignore] [child] [once]
 *
 * Writes down the time every millisecond, in a file that it has mapped: that
 * takes no system call which could wait, and the last time written stays when
 * the program is killed.  It lives until a signal ends it.
 *
 *	ignore	signals that ask it to end do not
 *	child	there is a child, too, in the same process group, that does the same
 *	once	it ends after the first beat
 *
 *-------------------------------------------------------------------------
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* What the file has of each process; times in nanoseconds. */
typedef struct Beats
{
	int64_t		pid;
	int64_t		token;			/* LEASE_TOKEN */
	int64_t		signal;			/* that asked it to end; 0 if none did */
	int64_t		first;			/* CLOCK_REALTIME of the first beat */
	int64_t		last;			/* of the last one so far */
	int64_t		last_boot;		/* CLOCK_BOOTTIME of it */
	int64_t		gap;			/* the longest time between two */
} Beats;

static const int endings[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};

static volatile sig_atomic_t asked;

static void
remember(int signal)
{
	asked = signal;
}

/* Without SA_RESTART, and a sleep ends at once. */
static void
watch_signals(void)
{
	struct sigaction action = {.sa_handler = remember};

	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++)
		sigaction(endings[i], &action, NULL);
}

static int64_t
now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return INT64_C(1000000000) * time.tv_sec + time.tv_nsec;
}

static void
beat(volatile Beats *beats)
{
	int64_t		boot = now(CLOCK_BOOTTIME);

	if (beats->last_boot != 0 && boot - beats->last_boot > beats->gap)
		beats->gap = boot - beats->last_boot;
	beats->last_boot = boot;
	beats->last = now(CLOCK_REALTIME);
	if (beats->first == 0)
		beats->first = beats->last;
	if (asked != 0)
		beats->signal = asked;
}

static void
die(const char *what)
{
	perror(what);
	exit(1);
}

/* Room for two processes, all of it there before the first beat. */
static Beats *
map_file(const char *path)
{
	Beats		none[2] = {0};
	int			fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	void	   *map;

	if (fd < 0 || write(fd, none, sizeof(none)) != sizeof(none))
		die(path);
	map = mmap(NULL, sizeof(none), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die("mmap");
	close(fd);
	return map;
}

/* Live until asked to end, and then end as who does not handle signals. */
static void
live(Beats *beats, int ignore, int once)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	const char *token = getenv("LEASE_TOKEN");

	beats->token = token ? strtoll(token, NULL, 10) : 0;
	beats->pid = getpid();
	for (beat(beats); !once && (ignore || asked == 0); beat(beats))
		nanosleep(&pause, NULL);
	if (asked != 0)
	{
		signal(asked, SIG_DFL);
		raise(asked);
	}
}

int
main(int argc, char **argv)
{
	int			ignore = 0,
				child = 0,
				once = 0;
	Beats	   *beats;

	for (int i = 2; i < argc; i++)
	{
		ignore |= strcmp(argv[i], "ignore") == 0;
		child |= strcmp(argv[i], "child") == 0;
		once |= strcmp(argv[i], "once") == 0;
	}
	if (argc < 2)
		return 2;
	beats = map_file(argv[1]);
	watch_signals();
	if (child && fork() == 0)
		beats++;
	live(beats, ignore, once);
	return 0;
}
