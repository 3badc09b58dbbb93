/*
 * command.c - the command: a process group, and the terminal
 *
 * The command is all of its process group: the lease is kept until the last process of it is
 * gone.  Of that we hear because orphans become our children (PR_SET_CHILD_SUBREAPER).
 * Processes that left the group, as daemons and the jobs of an interactive shell do, are
 * not waited for; but when the command is killed for a lost lease, so are they.
 *
 * If leasectl has the terminal, and both its input and its output are one, the command
 * gets it, as from a shell: Ctrl-C is the command's then.  In a pipeline it is left
 * where it is, since the others need it, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"
#include "leasectl.h"
#include "watchdog.h"

static int	terminal = -1;		/* that we gave to the command */

void
AdoptOrphans(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
}

/* The terminal, if it is ours to give. */
static int
open_terminal(void)
{
	int			fd;

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return -1;
	fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
	if (fd >= 0 && tcgetpgrp(fd) != getpgrp())
	{
		close(fd);
		fd = -1;
	}
	return fd;
}

static void
take_terminal_back(void)
{
	/* SIGTTOU is blocked, so this does not stop us. */
	if (terminal >= 0)
	{
		tcsetpgrp(terminal, getpgrp());
		close(terminal);
		terminal = -1;
	}
}

/*
 * execvp takes a directory of PATH that may not be searched for a command that may not be
 * executed; shells do not.
 */
static bool
is_missing(const char *name)
{
	const char *path = getenv("PATH");
	char		file[4096];

	if (strchr(name, '/') != NULL || path == NULL)
		return false;
	while (*path != '\0')
	{
		int			length = (int) (strchrnul(path, ':') - path);

		snprintf(file, sizeof(file), "%.*s/%s", length, path, name);
		if (access(file, F_OK) == 0)
			return false;
		path += length + (path[length] == ':');
	}
	return true;
}

/* What becomes of the child that is to be the command; an error is written to the pipe. */
static void __attribute__((noreturn))
become_command(char **argv, const sigset_t *mask, pid_t parent, int failure)
{
	ssize_t		written;

	setpgid(0, 0);
	if (terminal >= 0)
		tcsetpgrp(terminal, getpid());
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(STATUS_FAILED);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(argv[0], argv);
	if (errno == EACCES && is_missing(argv[0]))
		errno = ENOENT;
	written = write(failure, &errno, sizeof(errno));
	_exit(written < 0 ? STATUS_FAILED : STATUS_NOT_EXECUTABLE);
}

/* Why it could not be executed, as a shell's exit status; 0 if it runs. */
static int
await_execution(Command *command, char **argv, int failure)
{
	int			error;

	if (read(failure, &error, sizeof(error)) != sizeof(error))
		return 0;
	waitpid(command->group, NULL, 0);
	command->group = 0;
	TellWatchdog(0, 0);
	take_terminal_back();
	Complain("could not execute \"%s\": %s", argv[0], strerror(error));
	return error == ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_EXECUTABLE;
}

int
StartCommand(Command *command, char **argv, const sigset_t *mask, int64_t kill_at)
{
	pid_t		parent = getpid();
	int			failure[2];
	pid_t		child;
	int			status;

	*command = (Command) {0};
	if (pipe2(failure, O_CLOEXEC) < 0)
	{
		Complain("could not create a pipe: %s", strerror(errno));
		return STATUS_FAILED;
	}
	terminal = open_terminal();
	child = fork();
	if (child == 0)
		become_command(argv, mask, parent, failure[1]);
	close(failure[1]);
	if (child < 0)
	{
		Complain("could not fork: %s", strerror(errno));
		close(failure[0]);
		return STATUS_FAILED;
	}

	/* As the child does: whichever of us comes first. */
	setpgid(child, child);
	command->group = child;
	TellWatchdog(child, kill_at);
	status = await_execution(command, argv, failure[0]);
	close(failure[0]);
	return status;
}

/* Kill our children of whatever group, but for the watchdog. */
static void
kill_children(void)
{
	char		path[64];
	FILE	   *children;
	int			pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int) getpid());
	children = fopen(path, "re");
	if (children == NULL)
		return;
	while (fscanf(children, "%d", &pid) == 1)
	{
		if (pid != WatchdogPid())
			kill(pid, SIGKILL);
	}
	fclose(children);
}

void
SignalCommand(Command *command, int signal)
{
	if (command->group == 0)
		return;
	if (kill(-command->group, signal) < 0 && errno == EPERM)
		Complain("not permitted to send signal %d to the command", signal);
	if (signal == SIGKILL)
	{
		command->killed = true;
		kill_children();
	}
}

static void
note_end(Command *command, int status)
{
	command->ended = true;
	command->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

bool
ReapCommand(Command *command)
{
	int			status;
	pid_t		pid;

	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0)
	{
		if (pid == WatchdogPid() && !WIFSTOPPED(status))
			StartWatchdog();
		else if (pid != command->group)
			continue;
		else if (!WIFSTOPPED(status))
			note_end(command, status);
		else if (terminal >= 0 && WSTOPSIG(status) == SIGTSTP)
			kill(-pid, SIGCONT);
	}
	if (command->killed)
		kill_children();
	if (command->group == 0 || !command->ended || kill(-command->group, 0) == 0 || errno != ESRCH)
		return false;
	TellWatchdog(0, 0);
	take_terminal_back();
	command->group = 0;
	return true;
}
