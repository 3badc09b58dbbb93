/*
 * watchdog.c - the process that kills the command if leasectl cannot
 *
 * leasectl may be stopped, be killed, or hang in a look-up of a host name that libpq
 * makes for it.  So the deadline is kept by a second process, too, which does nothing
 * else: it is told the command's process group and until when it may live, and kills
 * it then, or as soon as leasectl is gone, whose end of the socket is closed with it.
 *
 * It is in a process group of its own and holds no files of the user's; of signals
 * it takes none but those that cannot be refused.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "leasectl.h"
#include "watchdog.h"

typedef struct Order
{
	pid_t		group;
	int64_t		kill_at;
} Order;

static pid_t watchdog;
static int	leash = -1;			/* our end of the socket */

static void __attribute__((noreturn))
keep_watch(int orders)
{
	Order		order = {0};
	int			timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC);
	struct pollfd ready[] = {{orders, POLLIN, 0}, {timer, POLLIN, 0}};

	for (;;)
	{
		struct itimerspec alarm = {.it_value = {0, 0}};
		Order		next;
		ssize_t		length;

		poll(ready, 2, -1);

		/* The latest order counts, also if the timer ran out before it was read. */
		while ((length = recv(orders, &next, sizeof(next), MSG_DONTWAIT)) == sizeof(next))
		{
			order = next;
			alarm.it_value.tv_sec = order.kill_at / SECOND;
			alarm.it_value.tv_nsec = order.kill_at % SECOND * 1000 + 1;
			if (order.group == 0)
				alarm.it_value = (struct timespec) {0, 0};
			timerfd_settime(timer, TFD_TIMER_ABSTIME, &alarm, NULL);
			ready[1].revents = 0;
		}
		if (order.group != 0 && (length == 0 || (ready[1].revents & POLLIN)))
		{
			kill(-order.group, SIGKILL);
			order.group = 0;
			timerfd_settime(timer, 0, &alarm, NULL);
		}
		if (length == 0)
			_exit(0);
	}
}

/* Become the watchdog: keep nothing of the user's open. */
static void __attribute__((noreturn))
become_watchdog(int orders)
{
	sigset_t	all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	setpgid(0, 0);
	prctl(PR_SET_NAME, "lease-watchdog");
	if (chdir("/") < 0 || dup2(orders, 0) < 0 || close_range(1, ~0U, 0) < 0)
		_exit(STATUS_FAILED);
	keep_watch(0);
}

bool
StartWatchdog(void)
{
	int			ends[2];

	if (leash >= 0)
		close(leash);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return false;
	watchdog = fork();
	if (watchdog == 0)
		become_watchdog(ends[1]);
	close(ends[1]);
	leash = ends[0];
	return watchdog > 0;
}

void
StopWatchdog(void)
{
	/* It may be stopped. */
	kill(watchdog, SIGKILL);
	waitpid(watchdog, NULL, 0);
}

pid_t
WatchdogPid(void)
{
	return watchdog;
}

void
TellWatchdog(pid_t group, int64_t kill_at)
{
	Order		order = {group, kill_at};

	/* Should it be gone, or stopped for very long, then our own timers have to do. */
	send(leash, &order, sizeof(order), MSG_DONTWAIT | MSG_NOSIGNAL);
}
