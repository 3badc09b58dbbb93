/*
 * watchdog.h - the process that kills the command if leasectl cannot
 */
#ifndef WATCHDOG_H
#define WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Fork it.  Returns false, and sets errno, if that fails. */
extern bool StartWatchdog(void);

/* End it, when there is nothing left to watch. */
extern void StopWatchdog(void);

/* Its process ID; 0 before it was started. */
extern pid_t WatchdogPid(void);

/* Which process group is to be dead by when; group 0: there is none to kill. */
extern void TellWatchdog(pid_t group, int64_t kill_at);

#endif
