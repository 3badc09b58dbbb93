/*-------------------------------------------------------------------------
 *
 * zookeeper.c
 *	  Locks of ZooKeeper: ephemeral nodes, made and deleted.
 *
 * Each client has a session, and so a connection, of its own.  The library comes
 * in two builds: one gives each session two threads, which hand each answer from
 * one to the other; this program links the other one, which has no threads and
 * wants a loop to say when a connection can be read.  The threads would take three
 * times as much of the processors that the server runs on, too.  One thread
 * is enough for all sessions, whatever --threads says: it is idle most of the time.
 *
 *-------------------------------------------------------------------------
 */
#include "frame.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zookeeper/zookeeper.h>

#define PARENT "/lease-bench"

typedef struct Client
{
	int			number;
	zhandle_t  *session;
	char		path[64];
	int64_t		began;
	int			to_warm_up;		/* operations that do not count yet */
	bool		connected;
	bool		closing;
} Client;

/* A step begins something that sooner or later ends in Rest. */
typedef void (*Step) (Client *client);

static Client *clients;
static struct pollfd *sockets;	/* the same order as clients */
static Tally *tally;
static int	busy;				/* clients that did not end this phase */

static void Begin(Client *client);

static void
Check(int code, const char *action, const char *path)
{
	if (code != ZOK)
		Fail("could not %s %s at %s: %s", action, path, options.address, zerror(code));
}

/* The client ended its part of the phase. */
static void
Rest(void)
{
	busy--;
}

/* What the library wants to wait for; the answer is for how long at most. */
static int
Prepare(Client *client, struct pollfd *socket)
{
	int			interest;
	struct timeval longest;

	Check(zookeeper_interest(client->session, &socket->fd, &interest, &longest),
		  "reach", client->path);
	socket->events = ((interest & ZOOKEEPER_READ) ? POLLIN : 0) |
		((interest & ZOOKEEPER_WRITE) ? POLLOUT : 0);
	return longest.tv_sec * 1000 + longest.tv_usec / 1000;
}

/* Let the library read and write what it can; it calls back from here. */
static void
Process(Client *client, const struct pollfd *socket)
{
	int			events = 0;
	int			code;

	if (socket->revents & POLLOUT)
		events |= ZOOKEEPER_WRITE;
	if (socket->revents & (POLLIN | POLLHUP | POLLERR))
		events |= ZOOKEEPER_READ;
	if (events == 0)
		return;
	code = zookeeper_process(client->session, events);
	if (code != ZNOTHING)
		Check(code, "reach", client->path);
}

static void
RunPhase(Step step)
{
	busy = options.clients;
	for (int i = 0; i < options.clients; i++)
		step(&clients[i]);
	while (busy > 0)
	{
		int			longest = 1000;

		for (int i = 0; i < options.clients; i++)
		{
			int			wait = Prepare(&clients[i], &sockets[i]);

			longest = wait < longest ? wait : longest;
		}
		if (poll(sockets, options.clients, longest) < 0 && errno != EINTR)
			Fail("could not wait for %s: %s", options.address, strerror(errno));
		for (int i = 0; i < options.clients; i++)
			Process(&clients[i], &sockets[i]);
	}
}

/* The library would try again; why, it tells its log only. */
static void
Logged(const char *message)
{
	Fail("%s: %s", options.address, message);
}

static void
Watch(zhandle_t *session, int type, int state, const char *path, void *arg)
{
	Client	   *client = arg;

	(void) session;
	(void) path;
	if (type != ZOO_SESSION_EVENT || client->closing)
		return;
	if (state != ZOO_CONNECTED_STATE || client->connected)
		Fail("client %d lost its session with %s", client->number, options.address);
	client->connected = true;
	Rest();
}

static void
Connect(Client *client)
{
	client->session = zookeeper_init2(options.address, Watch, (int) options.ttl,
									  NULL, client, 0, Logged);
	if (client->session == NULL)
		Fail("could not connect to %s: %s", options.address, strerror(errno));
	/* Else the address is looked up again in every round of the loop. */
	Check(zoo_set_servers_resolution_delay(client->session, -1), "keep", "the address");
}

static void
Disconnect(Client *client)
{
	client->closing = true;
	Check(zookeeper_close(client->session), "close the session of", client->path);
}

/* An operation is done: begin another one, or rest. */
static void
Finish(Client *client)
{
	bool		go_on;

	if (client->to_warm_up > 0)
		go_on = --client->to_warm_up > 0;
	else
		go_on = CountOperation(tally, client->began);

	if (go_on)
		Begin(client);
	else
		Rest();
}

static void
Deleted(int code, const void *arg)
{
	Client	   *client = (Client *) arg;

	Check(code, "delete", client->path);
	Finish(client);
}

static void
Created(int code, const char *path, const void *arg)
{
	Client	   *client = (Client *) arg;

	(void) path;
	Check(code, "create", client->path);
	Check(zoo_adelete(client->session, client->path, -1, Deleted, client),
		  "delete", client->path);
}

static void
Begin(Client *client)
{
	client->began = Now();
	Check(zoo_acreate(client->session, client->path, "", 0, &ZOO_OPEN_ACL_UNSAFE,
					  ZOO_EPHEMERAL, Created, client),
		  "create", client->path);
}

/* All try it, and it stays; so it may be there. */
static void
ParentCreated(int code, const char *path, const void *arg)
{
	(void) path;
	(void) arg;
	if (code != ZNODEEXISTS)
		Check(code, "create", PARENT);
	Rest();
}

static void
CreateParent(Client *client)
{
	Check(zoo_acreate(client->session, PARENT, "", 0, &ZOO_OPEN_ACL_UNSAFE,
					  ZOO_PERSISTENT, ParentCreated, client),
		  "create", PARENT);
}

static void
MakeClients(void)
{
	clients = calloc(options.clients, sizeof(Client));
	sockets = calloc(options.clients, sizeof(struct pollfd));
	if (clients == NULL || sockets == NULL)
		Fail("out of memory");
	tally = NewTally();
	for (int i = 0; i < options.clients; i++)
	{
		clients[i].number = i;
		clients[i].to_warm_up = WARM_UP_OPERATIONS;
		/* What a run that was cut short left behind is not in the way. */
		snprintf(clients[i].path, sizeof(clients[i].path), PARENT "/%ld-%d",
				 (long) getpid(), i);
	}
}

int
main(int argc, char **argv)
{
	ReadOptions(argc, argv, JOB_PAIR);
	zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
	MakeClients();
	RunPhase(Connect);
	RunPhase(CreateParent);
	RunPhase(Begin);			/* warms up */
	PassGate();
	RunPhase(Begin);
	for (int i = 0; i < options.clients; i++)
		Disconnect(&clients[i]);
	free(sockets);
	free(clients);
	PrintFigures();
	return 0;
}
