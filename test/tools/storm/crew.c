/*-------------------------------------------------------------------------
 *
 * crew.c
 *	  The processes of the clients: started, alive, interrupted, replaced.
 *
 *-------------------------------------------------------------------------
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storm.h"

/* Have a new session, which nobody has doomed yet. */
void
reconnect(void)
{
	PQfinish(conn);
	conn = open_connection();
	me->doomed_at = 0;
	__sync_synchronize();
	me->backend = PQbackendPID(conn);
}

/* The life of a client: one episode after the other; begun anew if the session is lost. */
static _Noreturn void
live(int n)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	me = &storm->clients[n];
	my_number = n;
	srandom(n * 7919 + (unsigned) now_us());
	setjmp(connection_lost);
	me->busy = true;
	options.begin();
	while (storm->phase != QUIT)
	{
		me->busy = storm->phase == RUN;
		if (me->busy)
			options.episode();
		else
			pause_ms(5);
	}
	PQfinish(conn);
	me->busy = false;
	exit(0);
}

void
start_client(int n)
{
	Client	   *client = &storm->clients[n];
	pid_t		pid;

	client->busy = true;
	pid = fork();
	if (pid < 0)
		die("could not fork");
	if (pid == 0)
		live(n);
	client->process = pid;
}

/* Processes that ended were to be killed; each gets a successor, until the storm ends. */
void
replace_dead(void)
{
	bool		restart = storm->phase != QUIT;
	pid_t		pid;
	int			status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < options.clients; i++)
			if (storm->clients[i].process == pid)
			{
				if (!WIFSIGNALED(status) && restart)
					wrong("wrong end of client %d: status %d", i, status);
				storm->clients[i].process = 0;
				bury_session(&storm->clients[i]);
				if (restart)
					start_client(i);
			}
}

/* Do something bad to somebody: so often terminate, so often kill, else cancel. */
void
interrupt(int terminate_percent, int kill_percent)
{
	Client	   *victim = &storm->clients[below(options.clients)];
	int			backend = victim->backend;
	int			kind = below(100);
	bool		fatal = kind < terminate_percent + kill_percent;

	if (backend == 0 || victim->process == 0)
		return;

	/* Whoever does it twice must not make it later than it was. */
	if (fatal && victim->doomed_at == 0)
		victim->doomed_at = now_us();
	__sync_synchronize();
	if (kind < kill_percent)
	{
		kill(victim->process, SIGKILL);
		tally.kills++;
		return;
	}
	PQclear(query("SELECT pg_%s_backend(%d)", fatal ? "terminate" : "cancel", backend));
	if (fatal)
		tally.terminations++;
	else
		tally.cancels++;
}

/* How many clients are not at rest. */
int
count_busy(void)
{
	int			busy = 0;

	for (int i = 0; i < options.clients; i++)
		busy += storm->clients[i].busy;
	return busy;
}

/* How many clients there are, at rest or not. */
int
count_alive(void)
{
	int			alive = 0;

	for (int i = 0; i < options.clients; i++)
		alive += storm->clients[i].process != 0;
	return alive;
}

/* The storm cannot go on: say so, with what has been seen so far. */
void
give_up(const char *why)
{
	wrong("wrong end: %s", why);
	for (int i = 0; i < options.clients; i++)
		if (storm->clients[i].process != 0)
			kill(storm->clients[i].process, SIGKILL);
	write_history();
	exit(0);
}
