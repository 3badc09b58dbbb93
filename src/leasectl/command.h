/*
 * command.h - the command: a process group, and the terminal
 */
#ifndef COMMAND_H
#define COMMAND_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct Command
{
	pid_t		group;			/* its process group, 0 if there is none; its first process's ID */
	bool		ended;			/* the first process; others of the group may be left */
	int			status;			/* its exit status then, as a shell gives it */
	bool		killed;			/* SIGKILL was sent: none may be left, in whatever group */
} Command;

/*
 * Start it under a signal mask; the watchdog is to kill it at kill_at.  Returns 0, or the
 * exit status that tells why it could not be started.
 */
extern int	StartCommand(Command *command, char **argv, const sigset_t *mask, int64_t kill_at);

/* Send a signal to all of it. */
extern void SignalCommand(Command *command, int signal);

/* Children have died, or stopped: returns true if the command is gone, with all of its group. */
extern bool ReapCommand(Command *command);

/* Have processes that lose their parent become our children, so that we hear of their end. */
extern void AdoptOrphans(void);

#endif
