/*
 * run.c - run and elect: keeps a lease while a command runs
 *
 * One loop serves the lease (keepalive.c), the command (command.c) and signals, which
 * are blocked and read from a descriptor.  Of the lease's deadline P, until which it is
 * proven, follow two moments, both moved by each renewal:
 *
 *	stop_at = kill_at - kill_after		the command gets SIGTERM
 *	kill_at = P - a tenth of the TTL	it gets SIGKILL, by us or by the watchdog
 *
 * The tenth is for what we do not control: that we are scheduled late, that a signal
 * takes its time, that two machines' clocks do not run alike.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "command.h"
#include "keepalive.h"
#include "leasectl.h"
#include "session.h"
#include "watchdog.h"

#define DEFAULT_TTL (30 * SECOND)
#define LEAST_TTL (100 * MSEC)
#define LONGEST_TTL (24 * DAY)
#define DEFAULT_PAUSE SECOND

typedef struct Run
{
	const Options *options;
	KeepaliveRequest request;
	const char *keywords[MAX_KEYWORDS];
	const char *values[MAX_KEYWORDS];
	int64_t		kill_after;

	int			signals;		/* descriptors */
	int			timer;
	sigset_t	mask;			/* the signal mask that we were started with */
	int			last_signal;	/* that asked us to end; 0 if none did */

	/* Of one term, from asking for the lease to having released it: */
	Keepalive  *lease;
	Command		command;
	bool		started;		/* the command was */
	bool		failed;			/* or cannot be, or is not to be */
	bool		stopping;		/* it is to end, for the lease is lost */
	bool		troubled;		/* the lease cannot be renewed at present; this was said */
	int64_t		started_at;
	int64_t		deadline;
	int64_t		stop_at;
	int64_t		kill_at;
	int			status;
} Run;

static const int caught[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

/* Blocked for ourselves alone: to hear of children, to write and move the terminal unharmed. */
static const int blocked[] = {SIGCHLD, SIGPIPE, SIGTSTP, SIGTTOU};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static bool
is_running(const Run *run)
{
	return run->command.group != 0;
}

/* Have poll return at some time; 0: never. */
static void
set_timer(const Run *run, int64_t at)
{
	struct itimerspec alarm = {.it_value = {0, 0}};

	if (at != 0)
	{
		alarm.it_value.tv_sec = at / SECOND;
		alarm.it_value.tv_nsec = at % SECOND * 1000 + 1;
	}
	timerfd_settime(run->timer, TFD_TIMER_ABSTIME, &alarm, NULL);
}

static void
kill_command(Run *run)
{
	if (is_running(run) && !run->command.killed)
		SignalCommand(&run->command, SIGKILL);
}

/* The lease cannot be proven any more: the command has to end. */
static void
stop_command(Run *run, const char *reason)
{
	int64_t		kill_at = KeepaliveNow() + run->kill_after;

	Complain("lost the lease on \"%s\": %s; stopping the command", run->request.name,
			 *reason ? reason : "it could not be renewed in time");
	run->stopping = true;
	if (kill_at < run->kill_at)
		run->kill_at = kill_at;
	TellWatchdog(run->command.group, run->kill_at);

	/* A stopped process takes no signal but SIGKILL before it goes on. */
	SignalCommand(&run->command, SIGTERM);
	SignalCommand(&run->command, SIGCONT);
}

/* What the clock demands.  It comes first, whatever has become of the lease meanwhile. */
static void
obey_clock(Run *run)
{
	int64_t		now = KeepaliveNow();

	if (!is_running(run))
		return;
	if (!run->stopping && now >= run->stop_at)
		stop_command(run, KeepaliveMessage(run->lease));
	if (run->stopping && now >= run->kill_at)
		kill_command(run);
	set_timer(run, run->command.killed ? 0 : run->stopping ? run->kill_at : run->stop_at);
}

/* The lease was renewed: all moments move. */
static void
note_deadline(Run *run)
{
	run->deadline = KeepaliveDeadline(run->lease);
	run->kill_at = run->deadline - run->request.ttl / 10;
	run->stop_at = run->kill_at - run->kill_after;
	run->troubled = false;
	if (is_running(run))
		TellWatchdog(run->command.group, run->kill_at);
}

static void
start_command(Run *run)
{
	char		token[32];

	snprintf(token, sizeof(token), "%lld", (long long) KeepaliveToken(run->lease));
	run->started = true;
	run->started_at = KeepaliveNow();
	if (setenv("LEASE_NAME", run->request.name, 1) < 0 || setenv("LEASE_TOKEN", token, 1) < 0)
	{
		Complain("out of memory");
		run->status = STATUS_FAILED;
	}
	else
		run->status = StartCommand(&run->command, run->options->command, &run->mask, run->kill_at);
	if (run->status != 0)
	{
		run->failed = true;
		KeepaliveRelease(run->lease);
	}
}

/* Tell, once, that something goes wrong that may yet mend. */
static void
warn_of_trouble(Run *run)
{
	const char *message = KeepaliveMessage(run->lease);

	if (*message == '\0' || run->troubled)
		return;
	run->troubled = true;
	if (!run->options->quiet)
		Complain("%s the lease on \"%s\" at present: %s",
				 run->started ? "could not renew" : "could not ask for", run->request.name, message);
}

/* Why there is no lease: the exit status, after saying so. */
static int
explain_failure(const Run *run, KeepalivePhase phase)
{
	const char *name = run->request.name;
	const char *message = KeepaliveMessage(run->lease);
	const char *sqlstate = KeepaliveSqlstate(run->lease);

	switch (phase)
	{
		case KEEPALIVE_TAKEN:
			/* Somebody has to do without, which is no error if it was to be so. */
			if (!run->options->quiet)
				Complain("did not get the lease on \"%s\"%s%s", name,
						 *message ? ": " : ", which is taken", message);
			return STATUS_TAKEN;
		case KEEPALIVE_UNREACHABLE:
			Complain("could not ask for the lease on \"%s\": %s", name, message);
			return STATUS_UNREACHABLE;
		case KEEPALIVE_REFUSED:
			Complain("the server refused the lease on \"%s\": %s (%s)%s%s", name, message, sqlstate,
					 *AdviceForError(sqlstate) ? "; " : "", AdviceForError(sqlstate));
			return STATUS_REFUSED;
		default:
			Complain("lost the lease on \"%s\" before the command was started: %s", name, message);
			return STATUS_LOST;
	}
}

/* The command is gone, and so is the lease: how did that end? */
static void
note_release(Run *run, KeepalivePhase phase)
{
	if (phase == KEEPALIVE_LOST && !run->stopping && !run->failed)
	{
		Complain("the lease on \"%s\" was lost before it was released", run->request.name);
		run->status = STATUS_LOST;
	}
	else if (phase == KEEPALIVE_UNREACHABLE && !run->stopping && !run->options->quiet)
		Complain("could not release the lease on \"%s\", which stays until its TTL runs out: %s",
				 run->request.name, KeepaliveMessage(run->lease));
}

/* Follow what has become of the lease.  Returns true if the term is over. */
static bool
follow_lease(Run *run, KeepalivePhase phase)
{
	bool		final = phase > KEEPALIVE_RELEASING;

	if (phase == KEEPALIVE_HELD && KeepaliveDeadline(run->lease) != run->deadline && !run->stopping)
		note_deadline(run);
	if (phase == KEEPALIVE_HELD && !run->started)
		start_command(run);
	else if (phase <= KEEPALIVE_HELD)
		warn_of_trouble(run);
	else if (final && !run->started)
		run->status = explain_failure(run, phase);
	else if (final && is_running(run) && !run->stopping)
		stop_command(run, KeepaliveMessage(run->lease));
	else if (final && !is_running(run))
		note_release(run, phase);
	return final && !is_running(run);
}

/* Children have died: the command, perhaps. */
static void
follow_command(Run *run)
{
	if (ReapCommand(&run->command))
	{
		run->status = run->stopping ? STATUS_LOST : run->command.status;
		set_timer(run, 0);
		KeepaliveRelease(run->lease);
	}
	else if (is_running(run))
		TellWatchdog(run->command.group, run->kill_at); /* it may be a new one */
}

/* No command will be started any more: leave the queue, or give back what was just granted. */
static void
abandon(Run *run, int signal)
{
	run->status = 128 + signal;
	run->started = run->failed = true;
	KeepaliveRelease(run->lease);
}

/* One signal.  Returns true if it ends the term at once. */
static bool
take_signal(Run *run, int signal)
{
	if (signal == SIGCHLD)
	{
		follow_command(run);
		return false;
	}
	if (signal == SIGTSTP)
	{
		/* Who waits may be suspended; who has to renew may not. */
		if (!run->started)
			raise(SIGSTOP);
		return false;
	}
	if (is_running(run))
	{
		SignalCommand(&run->command, signal);
		if (signal != SIGUSR1 && signal != SIGUSR2)
			run->last_signal = signal;
		return false;
	}
	run->last_signal = signal;
	if (run->lease == NULL)
		run->status = 128 + signal;
	else if (!run->started)
	{
		abandon(run, signal);
		return false;
	}
	return true;
}

/* Wait until something happens.  Returns true if a signal ends the term. */
static bool
wait_for_events(Run *run)
{
	struct pollfd ready[] = {
		{run->signals, POLLIN, 0},
		{run->timer, POLLIN, 0},
		{run->lease ? KeepaliveFd(run->lease) : -1, POLLIN, 0}
	};
	struct signalfd_siginfo signal;

	poll(ready, LENGTH(ready), -1);

	/* If we slept past the deadline, the command that has ended was killed for it. */
	obey_clock(run);
	while (read(run->signals, &signal, sizeof(signal)) == sizeof(signal))
	{
		if (take_signal(run, signal.ssi_signo))
			return true;
	}
	return false;
}

/* From asking for the lease to having released it. */
static void
run_term(Run *run)
{
	run->started = run->stopping = run->failed = run->troubled = false;
	run->command = (Command) {0};
	run->deadline = 0;
	run->lease = KeepaliveStart(&run->request);
	if (run->lease == NULL)
		Fail(STATUS_FAILED, "could not begin to ask for a lease: %s", strerror(errno));
	do
	{
		if (follow_lease(run, KeepaliveTurn(run->lease)))
			break;
		obey_clock(run);
	} while (!wait_for_events(run));
	KeepaliveFree(run->lease);
	run->lease = NULL;
}

static void
catch_signals(Run *run)
{
	sigset_t	set;
	sigset_t	read;

	sigemptyset(&read);
	for (size_t i = 0; i < LENGTH(caught); i++)
		sigaddset(&read, caught[i]);
	sigaddset(&read, SIGCHLD);
	sigaddset(&read, SIGTSTP);
	set = read;
	for (size_t i = 0; i < LENGTH(blocked); i++)
		sigaddset(&set, blocked[i]);
	sigprocmask(SIG_BLOCK, &set, &run->mask);

	/* Who ignores its children, as its parent may have made it, is not told of their end. */
	signal(SIGCHLD, SIG_DFL);
	run->signals = signalfd(-1, &read, SFD_CLOEXEC | SFD_NONBLOCK);
	run->timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (run->signals < 0 || run->timer < 0)
		Fail(STATUS_FAILED, "could not create a descriptor: %s", strerror(errno));
}

static int64_t
given(int64_t value, int64_t otherwise)
{
	return value >= 0 ? value : otherwise;
}

static void
prepare(Run *run, const Options *options)
{
	int64_t		ttl = given(options->ttl, DEFAULT_TTL);

	*run = (Run) {.options = options};
	if (ttl < LEAST_TTL || ttl > LONGEST_TTL)
		Fail(STATUS_FAILED, "--ttl: %g s is out of range for a command; it must be from %g ms to %d d",
			 (double) ttl / SECOND, (double) LEAST_TTL / MSEC, (int) (LONGEST_TTL / DAY));
	run->kill_after = given(options->kill_after, ttl / 10);
	if (run->kill_after > ttl / 2)
		Fail(STATUS_FAILED, "--kill-after: %g ms is out of range; it must be at most half of the TTL, %g ms",
			 (double) run->kill_after / MSEC, (double) ttl / 2 / MSEC);
	ConnectionKeywords(options, run->keywords, run->values);
	run->request = (KeepaliveRequest) {
		.keywords = run->keywords,
		.values = run->values,
		.name = options->operands[0],
		.ttl = ttl,
		.manner = options->try_only ? KEEPALIVE_TRY : KEEPALIVE_ACQUIRE,
		.wait = options->wait,
		.shared = options->shared,
		.permits = given(options->permits, 0),
		.capacity = given(options->capacity, 0),
		.lock_delay = given(options->lock_delay, 0),
		.min_hold = given(options->min_hold, 0),
		.holder = options->holder ? options->holder : DefaultHolder(),
		.correlation_id = options->correlation_id,
		.metadata = options->metadata
	};
	catch_signals(run);
	AdoptOrphans();
	if (!StartWatchdog())
		Fail(STATUS_FAILED, "could not start the watchdog: %s", strerror(errno));
}

/* leasectl run */
int
RunCommand(const Options *options)
{
	Run			run;

	prepare(&run, options);
	run_term(&run);
	StopWatchdog();
	return run.status;
}

/* Wait until it is time for another term.  Returns true if a signal came before. */
static bool
rest_until(Run *run, int64_t at)
{
	run->started = false;
	while (KeepaliveNow() < at)
	{
		set_timer(run, at);
		if (wait_for_events(run))
			return true;
	}
	return false;
}

/* A term that was lost before its command was started is no reason to give up. */
static bool
wants_another_term(const Run *run)
{
	return run->last_signal == 0 && !run->options->once && !run->failed &&
		(run->started || run->status == STATUS_LOST);
}

/* leasectl elect */
int
ElectLeader(const Options *options)
{
	Run			run;
	int64_t		pause = given(options->pause, DEFAULT_PAUSE);

	prepare(&run, options);
	run.request.manner = KEEPALIVE_CAMPAIGN;
	run.request.patient = true;
	do
		run_term(&run);
	while (wants_another_term(&run) && !rest_until(&run, run.started_at + pause));
	StopWatchdog();
	return run.status;
}
