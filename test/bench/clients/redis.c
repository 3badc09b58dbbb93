/*-------------------------------------------------------------------------
 *
 * redis.c
 *	  Locks of Redis as its manual tells to make them, through hiredis.
 *
 * A lock is a key that is set if it is not there (SET NX PX) to a text that only
 * its holder knows; a script on the server deletes it or lengthens its life if it
 * still has that text.  Who waits for one asks again every POLL_INTERVAL.
 *
 * Each thread has an event loop with a share of the clients, each of which has a
 * connection of its own and one request under way.  What is kept lean, so that
 * the server is measured and not this program: commands are formatted once; a
 * request is written at once and not in the loop's next round; and epoll is told
 * nothing of that, as a connection is watched for answers all the time.
 *
 *-------------------------------------------------------------------------
 */
#include "frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#define RELEASE_SCRIPT \
	"if redis.call('get', KEYS[1]) == ARGV[1] then " \
	"return redis.call('del', KEYS[1]) else return 0 end"
#define RENEW_SCRIPT \
	"if redis.call('get', KEYS[1]) == ARGV[1] then " \
	"return redis.call('pexpire', KEYS[1], ARGV[2]) else return 0 end"

#define TEXT_LENGTH 64

static const struct timeval POLL_INTERVAL = {.tv_usec = 10000};

typedef struct Command
{
	char	   *text;
	int			length;
} Command;

/* One event loop and those who live in it. */
typedef struct Worker
{
	struct event_base *loop;
	Tally	   *tally;
	struct Client *clients;
	int			count;
	int			busy;			/* clients that did not end this phase */
} Worker;

typedef struct Client
{
	Worker	   *worker;
	int			number;
	redisAsyncContext *redis;
	struct event *readable;
	struct event *writable;		/* pending only if a write was cut short */
	struct event *again;		/* fires when it is time to ask again */
	char		secret[TEXT_LENGTH];
	Command		take;
	Command		release;
	Command		renew;
	int64_t		began;
	int			to_warm_up;		/* operations that do not count yet */
} Client;

/* A step begins something that sooner or later ends in Rest. */
typedef void (*Step) (Client *client);

/* The scripts' names on the server, hexadecimal. */
static char release_sha[TEXT_LENGTH];
static char renew_sha[TEXT_LENGTH];

static void Begin(Client *client);

/* The client ended its part of the phase; the last one ends the phase. */
static void
Rest(Client *client)
{
	if (--client->worker->busy == 0)
		event_base_loopbreak(client->worker->loop);
}

static void
RunPhase(Worker *worker, Step step)
{
	worker->busy = worker->count;
	for (int i = 0; i < worker->count; i++)
		step(&worker->clients[i]);
	if (worker->busy > 0 && event_base_dispatch(worker->loop) != 0)
		Fail("the event loop broke");
}

/*
 * What hiredis asks of an event loop.  The adapter that comes with it stops and
 * starts to watch for answers with every one that is read.
 */
static void
OnReadable(evutil_socket_t fd, short what, void *arg)
{
	(void) fd;
	(void) what;
	redisAsyncHandleRead(((Client *) arg)->redis);
}

static void
OnWritable(evutil_socket_t fd, short what, void *arg)
{
	(void) fd;
	(void) what;
	redisAsyncHandleWrite(((Client *) arg)->redis);
}

static void
StartWriting(void *arg)
{
	event_add(((Client *) arg)->writable, NULL);
}

static void
StopWriting(void *arg)
{
	event_del(((Client *) arg)->writable);
}

static void
Unwatch(void *arg)
{
	Client	   *client = arg;

	event_free(client->readable);
	event_free(client->writable);
}

static void
Watch(Client *client)
{
	redisAsyncContext *redis = client->redis;
	struct event_base *loop = client->worker->loop;

	client->readable = event_new(loop, redis->c.fd, EV_READ | EV_PERSIST, OnReadable, client);
	client->writable = event_new(loop, redis->c.fd, EV_WRITE, OnWritable, client);
	if (client->readable == NULL || client->writable == NULL ||
		event_add(client->readable, NULL) != 0 || event_add(client->writable, NULL) != 0)
		Fail("could not watch a connection");
	redis->ev.data = client;
	redis->ev.addWrite = StartWriting;
	redis->ev.delWrite = StopWriting;
	redis->ev.cleanup = Unwatch;
}

static void
Send(Client *client, const Command *command, redisCallbackFn *answered)
{
	redisAsyncContext *redis = client->redis;

	if (redisAsyncFormattedCommand(redis, answered, client,
								   command->text, command->length) != REDIS_OK)
		Fail("could not send to %s", options.address);
	redisAsyncHandleWrite(redis);
}

/* The answer of something that cannot be refused. */
static const redisReply *
CheckAnswer(const Client *client, const redisReply *answer)
{
	if (answer == NULL)
		Fail("lost the connection to %s: %s", options.address, client->redis->errstr);
	if (answer->type == REDIS_REPLY_ERROR)
		Fail("%s refused: %s", options.address, answer->str);
	return answer;
}

static bool
WasTaken(const Client *client, const redisReply *answer)
{
	CheckAnswer(client, answer);
	if (answer->type == REDIS_REPLY_NIL)
		return false;
	if (answer->type != REDIS_REPLY_STATUS || strcmp(answer->str, "OK") != 0)
		Fail("%s gave an unknown answer to SET", options.address);
	return true;
}

/* The scripts answer 1 if the lock was there. */
static void
CheckHeld(const Client *client, const redisReply *answer)
{
	CheckAnswer(client, answer);
	if (answer->type != REDIS_REPLY_INTEGER || answer->integer != 1)
		Fail("client %d lost its lock", client->number);
}

/* An operation is done: begin another one, or rest. */
static void
Finish(Client *client)
{
	bool		go_on;

	if (client->to_warm_up > 0)
		go_on = --client->to_warm_up > 0;
	else
		go_on = CountOperation(client->worker->tally, client->began);

	if (go_on)
		Begin(client);
	else
		Rest(client);
}

/* Whose lock is kept by somebody else asks again, but not after the end. */
static void
AskAgain(Client *client)
{
	if (TimeIsUp())
		Rest(client);
	else
		event_add(client->again, &POLL_INTERVAL);
}

static void
Confirmed(redisAsyncContext *redis, void *answer, void *arg)
{
	(void) redis;
	CheckHeld(arg, answer);
	Finish(arg);
}

static void
Answered(redisAsyncContext *redis, void *answer, void *arg)
{
	Client	   *client = arg;

	(void) redis;
	if (WasTaken(client, answer))
	{
		if (options.job == JOB_HANDOVER && client->to_warm_up == 0)
		{
			EnterSection(client->number);
			LeaveSection(client->number);
		}
		Send(client, &client->release, Confirmed);
	}
	else if (options.job == JOB_HANDOVER)
		AskAgain(client);
	else
		Fail("the lock of client %d is taken", client->number);
}

static void
TryAgain(evutil_socket_t fd, short what, void *arg)
{
	Client	   *client = arg;

	(void) fd;
	(void) what;
	Send(client, &client->take, Answered);
}

static void
Begin(Client *client)
{
	client->began = Now();
	if (options.job == JOB_RENEW)
		Send(client, &client->renew, Confirmed);
	else
		Send(client, &client->take, Answered);
}

/* The lock that is renewed is taken before, and given back after all. */
static void
Taken(redisAsyncContext *redis, void *answer, void *arg)
{
	Client	   *client = arg;

	(void) redis;
	if (!WasTaken(client, answer))
		Fail("the lock of client %d is taken", client->number);
	Rest(client);
}

static void
Take(Client *client)
{
	Send(client, &client->take, Taken);
}

static void
GivenBack(redisAsyncContext *redis, void *answer, void *arg)
{
	(void) redis;
	CheckHeld(arg, answer);
	Rest(arg);
}

static void
GiveBack(Client *client)
{
	Send(client, &client->release, GivenBack);
}

static void
FormatCommand(Command *command, int count, const char **words)
{
	if (command->text != NULL)
		redisFreeCommand(command->text);
	command->length = redisFormatCommandArgv(&command->text, count, words, NULL);
	if (command->length < 0)
		Fail("out of memory");
}

/*
 * From now on the client's lock has a name with this in it, and the process's
 * number: what a run that was cut short left behind is not in the way.
 */
static void
UseName(Client *client, int number)
{
	char		name[TEXT_LENGTH];
	char		ttl[TEXT_LENGTH];

	snprintf(name, sizeof(name), "bench/%ld/%d", (long) getpid(), number);
	snprintf(ttl, sizeof(ttl), "%lld", (long long) options.ttl);
	FormatCommand(&client->take, 6,
				  (const char *[]) {"SET", name, client->secret, "NX", "PX", ttl});
	FormatCommand(&client->release, 5,
				  (const char *[]) {"EVALSHA", release_sha, "1", name, client->secret});
	FormatCommand(&client->renew, 6,
				  (const char *[]) {"EVALSHA", renew_sha, "1", name, client->secret, ttl});
}

static void
Connected(const redisAsyncContext *redis, int status)
{
	if (status != REDIS_OK)
		Fail("could not connect to %s: %s", options.address, redis->errstr);
	Rest(redis->data);
}

static void
Disconnected(const redisAsyncContext *redis, int status)
{
	if (status != REDIS_OK)
		Fail("lost the connection to %s: %s", options.address, redis->errstr);
}

static void
Connect(Client *client)
{
	redisAsyncContext *redis = redisAsyncConnect(options.host, options.port);

	if (redis == NULL || redis->err != 0)
		Fail("could not connect to %s: %s", options.address,
			 redis == NULL ? "out of memory" : redis->errstr);
	redis->data = client;
	client->redis = redis;
	Watch(client);
	redisAsyncSetConnectCallback(redis, Connected);
	redisAsyncSetDisconnectCallback(redis, Disconnected);
}

static void
InitClient(Client *client, Worker *worker, int number)
{
	client->worker = worker;
	client->number = number;
	client->to_warm_up = WARM_UP_OPERATIONS;
	client->again = evtimer_new(worker->loop, TryAgain, client);
	if (client->again == NULL)
		Fail("out of memory");
	snprintf(client->secret, sizeof(client->secret), "%ld-%d", (long) getpid(), number);
	UseName(client, number);
}

static void
InitWorker(Worker *worker, int thread)
{
	struct event_config *config = event_config_new();

	if (config == NULL ||
		event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) != 0 ||
		event_config_set_flag(config, EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST) != 0 ||
		(worker->loop = event_base_new_with_config(config)) == NULL)
		Fail("could not make an event loop");
	event_config_free(config);

	worker->tally = NewTally();
	worker->clients = calloc(options.clients, sizeof(Client));
	if (worker->clients == NULL)
		Fail("out of memory");
	for (int number = thread; number < options.clients; number += options.threads)
		InitClient(&worker->clients[worker->count++], worker, number);
}

static void
FreeWorker(Worker *worker)
{
	for (int i = 0; i < worker->count; i++)
	{
		Client	   *client = &worker->clients[i];

		redisAsyncFree(client->redis);
		event_free(client->again);
		redisFreeCommand(client->take.text);
		redisFreeCommand(client->release.text);
		redisFreeCommand(client->renew.text);
	}
	event_base_free(worker->loop);
	free(worker->clients);
}

static void
Work(int thread)
{
	Worker		worker = {0};

	InitWorker(&worker, thread);
	RunPhase(&worker, Connect);
	if (options.job == JOB_RENEW)
		RunPhase(&worker, Take);
	RunPhase(&worker, Begin);	/* warms up, each on a name of its own */
	if (options.job == JOB_HANDOVER)	/* then all on one, nobody's own */
		for (int i = 0; i < worker.count; i++)
			UseName(&worker.clients[i], options.clients);
	PassGate();
	RunPhase(&worker, Begin);
	if (options.job == JOB_RENEW)
		RunPhase(&worker, GiveBack);
	FreeWorker(&worker);
}

static void
LoadScript(redisContext *redis, const char *script, char *sha)
{
	redisReply *answer = redisCommand(redis, "SCRIPT LOAD %s", script);

	if (answer == NULL)
		Fail("lost the connection to %s: %s", options.address, redis->errstr);
	if (answer->type != REDIS_REPLY_STRING || answer->len >= TEXT_LENGTH)
		Fail("%s does not take scripts: %s", options.address, answer->str);
	strcpy(sha, answer->str);
	freeReplyObject(answer);
}

static void
LoadScripts(void)
{
	redisContext *redis = redisConnect(options.host, options.port);

	if (redis == NULL || redis->err != 0)
		Fail("could not connect to %s: %s", options.address,
			 redis == NULL ? "out of memory" : redis->errstr);
	LoadScript(redis, RELEASE_SCRIPT, release_sha);
	LoadScript(redis, RENEW_SCRIPT, renew_sha);
	redisFree(redis);
}

int
main(int argc, char **argv)
{
	ReadOptions(argc, argv, JOB_RENEW | JOB_PAIR | JOB_HANDOVER);
	LoadScripts();
	RunThreads(Work);
	PrintFigures();
	return 0;
}
