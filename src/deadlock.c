/*-------------------------------------------------------------------------
 *
 * deadlock.c
 *	  Would this wait ever end; who is in whose way.
 *
 * Waits for leases are invisible to the server's deadlock detector, so every
 * waiter looks for itself, now and then, at the graph of who waits for whom: for
 * leases, and in the lock manager.  A process that waits for a lease waits for
 * the processes that hold it in scope session or transaction, or have it
 * reserved while they wait for another.  A detached lease is in nobody's hands
 * for ever: its TTL ends it, so it is no edge.  But what pins a lease outlasts its
 * TTL: a commit in flight may wait for a lock.
 *
 * A wait can end if enough of what is in its way can go away: for a lock all of
 * it, for permits as much as is wanted.  So the graph is reduced: whoever is not
 * waiting, or waits for enough that is not stuck, is not stuck either.  Nobody is
 * overtaken in a queue; so who stands behind a larger request than its own wants
 * as much as that.  Who is stuck and does not depend on us is taken for free in a
 * second reduction: then we are in a deadlock only if it is our own.
 *
 * The graph is read process by process, each at another moment.  What looks
 * stuck is therefore read again, under a lock that lets one process at a time do
 * so: if each of the stuck stands in the same wait as before, with the same
 * grants in its way, then all of them did at the moment between the two
 * readings, and none of them can have moved, or ever will.  Then we are the
 * victim, and out of the queue before the next process may look.
 *
 * After Holt, "Some deadlock properties of computer systems" (1972), for the
 * reduction of graphs with several units of a resource.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "clock.h"
#include "deadlock.h"
#include "grant.h"
#include "queue.h"

/* Something in the way of a wait. */
typedef struct Edge
{
	int			pid;			/* who could end it; 0: it ends by itself */
	int32		permits;
	int64		identity;		/* of the grant, for as long as it exists */
} Edge;

/* A process that waits, or did when its place in the graph was found. */
typedef struct Party
{
	int			pid;
	int			number;			/* of its PGPROC */
	bool		in_queue;		/* for a lease; else for a lock */
	uint64		generation;		/* of its wait */
	int32		capacity;
	int32		permits;		/* what it asked for */
	int32		wanted;			/* the largest of that and of what those ahead
								 * asked for */
	int			ahead;			/* who asked for the largest, if not itself */
	Oid			owner;
	char		name[LEASE_NAME_MAX + 1];
	int			nedges;
	Edge	   *edges;
	bool		stuck;
	bool		leads_to_us;	/* it depends on us */
	int			reached_from;	/* index of a party, in the search for a cycle */
} Party;

/* A process that seems to wait for something. */
typedef struct Sleeper
{
	int			pid;
	int			number;
	int			party;			/* its index in the graph, or -1 */
} Sleeper;

typedef struct Graph
{
	int			nparties;
	Party	   *parties;			/* the first is our own */
	int			nsleepers;
	Sleeper    *sleepers;		/* by pid */
} Graph;

/*
 * Who could end a grant that is in the way: who holds it, or is being granted it,
 * or commits under it (the first, if several do); 0 if it ends by itself.
 */
static int
WhoEnds(const Resource *resource, const Grant *grant, MonoTime now)
{
	int			pinner = grant->pins == 0 ? -1 :
		FindPinner(resource->key.database, grant->token, 0);

	if (pinner >= 0)
		return ProcGlobal->allProcs[pinner].pid;
	if (grant->state == GRANT_RESERVED || (!IsDetached(grant) && IsLive(grant, now)))
		return grant->pid;
	return 0;
}

/* Note the grants in the way of a waiter.  Returns how many there are. */
static int
CopyGrantEdges(const Resource *resource, Edge *edges, int room)
{
	MonoTime	now = MonotonicNow();
	int			count = 0;
	dlist_iter	iter;

	dlist_foreach(iter, (dlist_head *) &resource->grants)
	{
		Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);
		bool		reserved = grant->state == GRANT_RESERVED;

		if (!IsInTheWay(grant, now))
			continue;
		if (count < room)
		{
			edges[count].pid = WhoEnds(resource, grant, now);
			edges[count].permits = grant->permits;
			edges[count].identity = reserved ? -1 - (grant - Grants) : grant->token;
		}
		count++;
	}
	return count;
}

/* Note who is ahead of a waiter and asked for what excludes it. */
static int
CopyAheadEdges(const Waiter *waiter, Edge *edges, int room)
{
	const Resource *resource = waiter->resource;
	int			count = 0;

	for (Waiter *ahead = NextWaiter(resource, NULL); ahead != waiter;
		 ahead = NextWaiter(resource, ahead))
	{
		if (!IsSemaphore(resource) &&
			ahead->grant->permits + waiter->grant->permits <= resource->capacity)
			continue;
		if (count < room)
		{
			edges[count].pid = ahead->pid;
			edges[count].permits = ahead->grant->permits;
			edges[count].identity = 0;
		}
		count++;
	}
	return count;
}

/* What a waiter asked for, and the largest that must be served before it. */
static void
CopyWait(const Waiter *waiter, Party *party)
{
	const Resource *resource = waiter->resource;
	const NameKey *key = &resource->key;

	party->pid = waiter->pid;
	party->generation = waiter->generation;
	party->capacity = resource->capacity;
	party->permits = party->wanted = waiter->grant->permits;
	party->ahead = 0;
	party->owner = waiter->grant->owner;
	ReadChunks(key->at.chunks, 0, party->name, key->length);
	party->name[key->length] = '\0';
	for (Waiter *ahead = NextWaiter(resource, NULL); ahead != waiter;
		 ahead = NextWaiter(resource, ahead))
		if (ahead->grant->permits > party->wanted)
		{
			party->wanted = ahead->grant->permits;
			party->ahead = ahead->pid;
		}
}

/*
 * Read what a process waits for in a queue, and what is in its way there: the
 * grants and, on demand, the waiters ahead.  Returns false if it is in none.
 */
static bool
ReadLeaseWait(Party *party, bool with_ahead)
{
	int			room = 0;

	for (;;)
	{
		Waiter	   *waiter = LockWaiter(party->number, LW_SHARED);
		int			count;

		if (waiter == NULL)
			return false;
		count = CopyGrantEdges(waiter->resource, party->edges, room);
		if (with_ahead)
			count += CopyAheadEdges(waiter, party->edges + Min(count, room), room - Min(count, room));
		CopyWait(waiter, party);
		UnlockWaiter(waiter);
		party->nedges = count;
		if (count <= room)
			return true;
		room = count * 2;
		party->edges = palloc(sizeof(Edge) * room);
	}
}

/* Read what a process waits for in the lock manager: all of it must go away. */
static void
ReadLockWait(Party *party)
{
	ArrayType  *pids;
	Datum	   *elements;

	party->generation = pg_atomic_read_u64(&ProcGlobal->allProcs[party->number].waitStart);
	party->capacity = party->permits = party->wanted = 1;
	pids = DatumGetArrayTypeP(DirectFunctionCall1(pg_blocking_pids, Int32GetDatum(party->pid)));
	deconstruct_array(pids, INT4OID, sizeof(int32), true, TYPALIGN_INT, &elements, NULL,
					  &party->nedges);
	party->edges = palloc(sizeof(Edge) * Max(party->nedges, 1));
	for (int i = 0; i < party->nedges; i++)
	{
		party->edges[i].pid = DatumGetInt32(elements[i]);
		party->edges[i].permits = 1;
		party->edges[i].identity = 0;
	}
}

static int
CompareSleepers(const void *a, const void *b)
{
	const Sleeper *left = a;
	const Sleeper *right = b;

	return (left->pid > right->pid) - (left->pid < right->pid);
}

/*
 * Who seems to wait, for a lease or for a lock.  Looked at without a lock: the
 * second reading, and the next, will tell.
 */
static void
ReadSleepers(Graph *graph)
{
	graph->sleepers = palloc(sizeof(Sleeper) * MaxBackends);
	graph->nsleepers = 0;
	for (int i = 0; i < MaxBackends; i++)
	{
		volatile PGPROC *proc = &ProcGlobal->allProcs[i];
		Sleeper    *sleeper = &graph->sleepers[graph->nsleepers];

		sleeper->pid = proc->pid;
		sleeper->number = i;
		sleeper->party = -1;
		if (sleeper->pid != 0 &&
			(WaiterState(&Waiters[i]) == WAIT_QUEUED ||
			 proc->waitLock != NULL || proc->lockGroupLeader != NULL))
			graph->nsleepers++;
	}
	qsort(graph->sleepers, graph->nsleepers, sizeof(Sleeper), CompareSleepers);
}

static Sleeper *
FindSleeper(const Graph *graph, int pid)
{
	Sleeper		key = {.pid = pid};

	return bsearch(&key, graph->sleepers, graph->nsleepers, sizeof(Sleeper), CompareSleepers);
}

/* The party of a process, or NULL if it is not in the graph. */
static Party *
FindParty(const Graph *graph, int pid)
{
	Sleeper    *sleeper = FindSleeper(graph, pid);

	return sleeper == NULL || sleeper->party < 0 ? NULL : &graph->parties[sleeper->party];
}

static void
AddParty(Graph *graph, int pid)
{
	Sleeper    *sleeper = FindSleeper(graph, pid);
	Party	   *party;

	if (sleeper == NULL || sleeper->party >= 0)
		return;
	sleeper->party = graph->nparties;
	party = &graph->parties[graph->nparties++];
	memset(party, 0, sizeof(Party));
	party->pid = pid;
	party->number = sleeper->number;
	party->in_queue = ReadLeaseWait(party, false);
	if (!party->in_queue)
		ReadLockWait(party);
}

/* All that our wait depends on. */
static void
ReadGraph(Graph *graph)
{
	ReadSleepers(graph);
	graph->parties = MemoryContextAllocHuge(CurrentMemoryContext,
										  sizeof(Party) * Max(graph->nsleepers, 1));
	graph->nparties = 0;
	AddParty(graph, MyProcPid);
	for (int i = 0; i < graph->nparties; i++)
		for (int j = 0; j < graph->parties[i].nedges; j++)
			AddParty(graph, graph->parties[i].edges[j].pid);
}

/* Is what a party wants more than what those who are not stuck leave? */
static bool
StaysStuck(const Graph *graph, const Party *party)
{
	int64		taken = 0;

	for (int i = 0; i < party->nedges; i++)
	{
		Party	   *other = FindParty(graph, party->edges[i].pid);

		if (other != NULL && other->stuck)
			taken += party->edges[i].permits;
	}
	return taken + party->wanted > party->capacity;
}

/* Let go whoever is not stuck if only those are who are thought so. */
static void
Reduce(Graph *graph)
{
	bool		changed;

	do
	{
		changed = false;
		for (int i = 0; i < graph->nparties; i++)
		{
			Party	   *party = &graph->parties[i];

			if (party->stuck && !StaysStuck(graph, party))
			{
				party->stuck = false;
				changed = true;
			}
		}
	} while (changed);
}

/* Does a party depend on one that leads to us, or on us? */
static bool
LeadsToUs(const Graph *graph, const Party *party)
{
	for (int i = 0; i < party->nedges; i++)
	{
		Party	   *other = FindParty(graph, party->edges[i].pid);

		if (other != NULL && other->stuck && other->leads_to_us)
			return true;
	}
	return false;
}

/*
 * Take those who do not depend on us for not stuck: if they are, somebody else
 * is to blame, and finds out.
 */
static void
DropIndependent(Graph *graph)
{
	bool		changed;

	for (int i = 0; i < graph->nparties; i++)
		graph->parties[i].leads_to_us = i == 0;
	do
	{
		changed = false;
		for (int i = 0; i < graph->nparties; i++)
		{
			Party	   *party = &graph->parties[i];

			if (party->stuck && !party->leads_to_us && LeadsToUs(graph, party))
				party->leads_to_us = changed = true;
		}
	} while (changed);
	for (int i = 0; i < graph->nparties; i++)
		graph->parties[i].stuck &= graph->parties[i].leads_to_us;
}

/*
 * We are stuck: find the shortest cycle of those who are with us.  Returns its
 * length, and its parties in order, ours first.
 */
static int
FindCycle(Graph *graph, Party **cycle)
{
	Party	   *self = &graph->parties[0];
	int		   *queue = palloc(sizeof(int) * graph->nparties);
	int			queued = 1;
	int			last = 0;
	int			length = 0;

	for (int i = 0; i < graph->nparties; i++)
		graph->parties[i].reached_from = -1;
	queue[0] = 0;
	for (int i = 0; i < queued && last == 0; i++)
	{
		Party	   *party = &graph->parties[queue[i]];

		for (int j = 0; j < party->nedges; j++)
		{
			Party	   *next = FindParty(graph, party->edges[j].pid);

			if (next == NULL || !next->stuck)
				continue;
			if (next == self)
				last = queue[i];
			else if (next->reached_from < 0)
			{
				next->reached_from = queue[i];
				queue[queued++] = next - graph->parties;
			}
		}
	}

	/* If nobody else is with us, we are in our own way. */
	for (int at = last; at >= 0; at = graph->parties[at].reached_from)
		length++;
	for (int at = last, i = length; at >= 0; at = graph->parties[at].reached_from)
		cycle[--i] = &graph->parties[at];
	pfree(queue);
	return length;
}

/* Look whether we are in a deadlock; the length of a cycle in it, or 0. */
static int
LookForCycle(Graph *graph, Party ***cycle)
{
	ReadGraph(graph);
	if (graph->nparties == 0)
		return 0;
	for (int i = 0; i < graph->nparties; i++)
		graph->parties[i].stuck = true;
	Reduce(graph);
	DropIndependent(graph);
	Reduce(graph);
	if (!graph->parties[0].stuck)
		return 0;
	*cycle = palloc(sizeof(Party *) * graph->nparties);
	return FindCycle(graph, *cycle);
}

/* Does a party stand in the same wait, with the same in its way? */
static bool
IsSameWait(const Party *party, const Party *before)
{
	if (before == NULL || party->generation != before->generation ||
		party->in_queue != before->in_queue || party->nedges != before->nedges)
		return false;
	for (int i = 0; i < party->nedges; i++)
		if (party->edges[i].pid != before->edges[i].pid ||
			party->edges[i].identity != before->edges[i].identity)
			return false;
	return true;
}

/* Was all that is stuck in the second reading stuck in the same way before? */
static bool
IsConfirmed(const Graph *first, const Graph *second)
{
	for (int i = 0; i < second->nparties; i++)
		if (second->parties[i].stuck &&
			!IsSameWait(&second->parties[i], FindParty(first, second->parties[i].pid)))
			return false;
	return true;
}

/* Tell what a process waits for in the lock manager. */
static void
DescribeLockWait(StringInfo text, int pid)
{
	BlockedProcsData *status = GetBlockerStatusData(pid);

	for (int i = 0; i < status->nlocks; i++)
	{
		LockInstanceData *lock = &status->locks[i];

		if (lock->pid != pid || lock->waitLockMode == NoLock)
			continue;
		appendStringInfo(text, "%s on ",
						 GetLockmodeName(lock->locktag.locktag_lockmethodid, lock->waitLockMode));
		DescribeLockTag(text, &lock->locktag);
		return;
	}
	appendStringInfoString(text, "a lock");
}

static void
DescribeLeaseWait(StringInfo text, const Party *party, int32 permits, bool may_know)
{
	if (!may_know)
		appendStringInfoString(text, "a lease");
	else if (party->capacity == WHOLE_LEASE)
		appendStringInfo(text, "%s lease \"%s\"", ModeName(permits, party->capacity), party->name);
	else
		appendStringInfo(text, "%d of %d permits of semaphore \"%s\"",
						 permits, party->capacity, party->name);
}

/*
 * A cycle, as the server tells its own.  Names of leases that do not concern
 * the current role are for the log only.
 */
static char *
DescribeCycle(Party **cycle, int length, bool for_log)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < length; i++)
	{
		const Party *party = cycle[i];
		int			blocker = cycle[(i + 1) % length]->pid;
		bool		may_know = for_log || blocker == MyProcPid ||
			has_privs_of_role(GetUserId(), party->owner);

		if (i > 0)
			appendStringInfoChar(&text, '\n');
		appendStringInfo(&text, "Process %d waits for ", party->pid);
		if (!party->in_queue)
			DescribeLockWait(&text, party->pid);
		else
		{
			DescribeLeaseWait(&text, party, party->permits, may_know);
			if (party->ahead != 0)
			{
				appendStringInfo(&text, "; behind process %d, which waits for ", party->ahead);
				DescribeLeaseWait(&text, party, party->wanted, may_know);
			}
		}
		appendStringInfo(&text, "; blocked by process %d.", blocker);
	}
	if (for_log)
		for (int i = 0; i < length; i++)
			appendStringInfo(&text, "\nProcess %d: %s", cycle[i]->pid,
							 pgstat_get_backend_current_activity(cycle[i]->pid, false));
	return text.data;
}

/* Leave the queue, unless we are served after all. */
static bool
BecomeVictim(const LeaseName *lease)
{
	bool		queued;

	LockName(lease, LW_EXCLUSIVE);
	queued = WaiterState(MyWaiter) == WAIT_QUEUED;
	if (queued)
		LeaveQueue(lease);
	UnlockName(lease);
	return queued;
}

/*
 * We wait for a lease: raise an error if that would never end.
 *
 * Errors: 40P01.
 */
void
CheckDeadlock(const LeaseName *lease)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "lease deadlock check",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext former = MemoryContextSwitchTo(context);
	Graph		first;
	Graph		second;
	Party	  **cycle;
	int			length = LookForCycle(&first, &cycle);

	if (length > 0)
	{
		LWLockAcquire(DeadlockLock, LW_EXCLUSIVE);
		length = LookForCycle(&second, &cycle);
		if (length > 0 && !(IsConfirmed(&first, &second) && BecomeVictim(lease)))
			length = 0;
		LWLockRelease(DeadlockLock);
	}
	if (length > 0)
	{
		pgstat_report_deadlock();
		ereport(ERROR,
				(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
				 errmsg("deadlock detected"),
				 errdetail_internal("%s", DescribeCycle(cycle, length, false)),
				 errdetail_log("%s", DescribeCycle(cycle, length, true)),
				 errhint("See server log for query details.")));
	}
	MemoryContextSwitchTo(former);
	MemoryContextDelete(context);
}

/* The place of a process in a queue, or -1. */
static int
FindWaiterOf(int pid)
{
	for (int i = 0; i < MaxBackends; i++)
		if (WaiterState(&Waiters[i]) == WAIT_QUEUED && ProcGlobal->allProcs[i].pid == pid)
			return i;
	return -1;
}

/*
 * The processes that keep one from the lease that it waits for: who holds it in
 * scope session or transaction, or is being granted it, and who is ahead with a
 * request that excludes its own.  A detached lease, which no process holds, is
 * told as 0, like a prepared transaction by pg_blocking_pids().
 */
int *
BlockingPids(int pid, int *count)
{
	Party		party = {.number = FindWaiterOf(pid)};
	int		   *pids;

	*count = 0;
	if (party.number < 0 || !ReadLeaseWait(&party, true))
		return NULL;
	pids = palloc(sizeof(int) * Max(party.nedges, 1));
	for (int i = 0; i < party.nedges; i++)
		if (party.capacity != WHOLE_LEASE ||
			party.permits + party.edges[i].permits > party.capacity)
			pids[(*count)++] = party.edges[i].pid;
	return pids;
}
