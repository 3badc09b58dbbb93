/*-------------------------------------------------------------------------
 *
 * queue.c
 *	  Who waits for a name, in which order; hand-over.
 *
 * Each backend has one place (a Waiter), so it waits for one name at a time.
 * The places of all that wait for a name form a ring, which the name's resource
 * enters at whoever is first.  Order is order of arrival, and nobody is
 * overtaken: who is first and does not fit keeps all others waiting, and so a
 * writer is not starved by readers, nor they by writers, nor a large request
 * for permits by small ones.
 *
 * Grants are handed over: whoever makes room reserves the grant for who is
 * first in line, under the partition's lock, and wakes it; one that needs no row
 * is even held from then on.  The waiter finds the name its own, and nobody else
 * was woken.  What the grant takes (memory, labels) it brought along.
 *
 * A retry of a request that is queued stands right behind it.  If the first
 * call leaves, the retry has its place; if it is served, the retry is sent to
 * look again, and finds the grant that both asked for.
 *
 * Who is first sleeps no longer than until the next grant in its way ends, so
 * that it takes over what nobody released.  Whoever lets a grant end sooner, or
 * lets somebody else come first, alerts it (AlertFirst).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/proc.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "queue.h"

/* The place in a queue of the request that a grant is for, or NULL. */
Waiter *
FindTwin(const Resource *resource, const Grant *grant)
{
	if (grant->request_length == 0 || !IsDetached(grant))
		return NULL;
	for (Waiter *waiter = NextWaiter(resource, NULL); waiter != NULL;
		 waiter = NextWaiter(resource, waiter))
		if (IsDetached(waiter->grant) && IsSameRequest(waiter->grant, grant))
			return waiter;
	return NULL;
}

/* A grant of the name under the request that another is for, or NULL. */
static Grant *
FindGrantOfRequest(const Resource *resource, const Grant *wanted)
{
	MonoTime	now;
	dlist_iter	iter;

	if (wanted->request_length == 0 || !IsDetached(wanted))
		return NULL;
	now = MonotonicNow();
	dlist_foreach(iter, (dlist_head *) &resource->grants)
	{
		Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);

		if (IsDetached(grant) && IsSameRequest(grant, wanted) &&
			(grant->state == GRANT_RESERVED || IsLive(grant, now)))
			return grant;
	}
	return NULL;
}

/* Until when is a grant in the way of others, if nobody does anything? */
MonoTime
IsInTheWayUntil(const Grant *grant)
{
	/* Somebody has it in hand, and will tell. */
	if (grant->state == GRANT_RESERVED || grant->state == GRANT_ENDING)
		return MONO_NEVER;
	return BlocksUntil(grant);
}

/* When does the next grant of a name get out of the way by itself? */
MonoTime
NextOpening(const Resource *resource)
{
	MonoTime	next = MONO_NEVER;
	dlist_iter	iter;

	dlist_foreach(iter, (dlist_head *) &resource->grants)
		next = Min(next, IsInTheWayUntil(dlist_container(Grant, in_resource, iter.cur)));
	return next;
}

/*
 * Let a RESERVED grant that needs no row be held, if there is a token at hand,
 * which is returned.  Its maker has waited for it since a time, or 0.
 */
Token
HoldAtOnce(const LeaseName *lease, Database *db, Grant *grant, MonoTime waiting_since)
{
	Token		token = TokenAtHand(db);

	if (token != INVALID_TOKEN)
	{
		grant->token = token;
		grant->acquired_at = GetCurrentTimestamp();
		MakeHeld(grant, MonotonicNow());
		RecordGrant(lease, grant, EVENT_ACQUIRED, waiting_since);
	}
	return token;
}

/*
 * Queue up for a name, to be granted what is filled in; the grant is the
 * queue's until we leave it.  Who retries a request that is being granted comes
 * first: it will have its answer with that grant.  If the grant needs no row, db
 * is where its token comes from, so that whoever serves us can let it be held.
 * We have waited since a time, perhaps with an interruption.
 */
void
JoinQueue(const LeaseName *lease, Resource *resource, Grant *grant, Database *db, MonoTime since)
{
	Waiter	   *waiter = MyWaiter;
	Waiter	   *twin = FindTwin(resource, grant);
	bool		first = resource->queue == NULL || FindGrantOfRequest(resource, grant) != NULL;

	Assert(WaiterState(waiter) == WAIT_NONE);
	waiter->resource = resource;
	waiter->grant = grant;
	waiter->pid = MyProcPid;
	waiter->generation++;
	waiter->partition = lease->index;
	waiter->db = db;
	waiter->token = INVALID_TOKEN;
	waiter->since = since;
	waiter->length = CountWaiters(resource) + 1;

	if (twin != NULL)
		dlist_insert_after(&twin->link, &waiter->link);
	else if (resource->queue != NULL)
		dlist_insert_before(&resource->queue->link, &waiter->link);
	else
		waiter->link.next = waiter->link.prev = &waiter->link;
	if (first)
		resource->queue = waiter;
	else
		resource->queue->length = waiter->length;
	CountQueue(lease, grant->owner, waiter->length);
	waiter->wake_at = first ? NextOpening(resource) : MONO_NEVER;
	pg_atomic_fetch_add_u32(&Shared->waiting, 1);
	pg_atomic_write_u32(&waiter->state, WAIT_QUEUED);
}

static void
TakeOut(Waiter *waiter, WaitState state)
{
	Resource   *resource = waiter->resource;
	uint32		left = resource->queue->length - 1;

	if (resource->queue == waiter)
		resource->queue = NextWaiter(resource, waiter);
	if (resource->queue != NULL)
		resource->queue->length = left;
	dlist_delete(&waiter->link);
	pg_atomic_fetch_sub_u32(&Shared->waiting, 1);
	pg_atomic_write_u32(&waiter->state, state);
}

/* Something in the way of who is first in line ends at a time. */
void
AlertFirst(Resource *resource, MonoTime due)
{
	if (resource->queue != NULL && due < resource->queue->wake_at)
		WakeWaiter(resource->queue);
}

/* Somebody is first in line who was not. */
static void
AlertNewFirst(Resource *resource)
{
	if (resource->queue != NULL)
		AlertFirst(resource, NextOpening(resource));
}

/*
 * Serve who is first in line, if it is possible now: true if its place is free.
 */
static bool
ServeFirst(const LeaseName *lease, Resource *resource)
{
	Waiter	   *waiter = resource->queue;
	Grant	   *twin = FindGrantOfRequest(resource, waiter->grant);

	if (twin != NULL && twin->state == GRANT_RESERVED)
		return false;
	if (twin != NULL)
		TakeOut(waiter, WAIT_AGAIN);
	else if (HasRoom(resource, waiter->grant->permits))
	{
		AttachGrant(resource, waiter->grant, lease->index);
		if (waiter->db != NULL)
			waiter->token = HoldAtOnce(lease, waiter->db, waiter->grant, waiter->since);
		TakeOut(waiter, WAIT_SERVED);
	}
	else
		return false;
	WakeWaiter(waiter);
	return true;
}

/*
 * Serve the queue as far as it goes.  To be called whenever there may be room:
 * a grant was dropped, the capacity raised, a request granted.
 */
void
ServeQueue(const LeaseName *lease, Resource *resource)
{
	Waiter	   *first = resource->queue;

	while (resource->queue != NULL && ServeFirst(lease, resource))
		;
	if (resource->queue != first)
		AlertNewFirst(resource);
	DropUnusedName(lease, resource);
}

/* Leave the queue unserved.  Those behind us may fit. */
void
LeaveQueue(const LeaseName *lease)
{
	Waiter	   *waiter = MyWaiter;
	Resource   *resource = waiter->resource;
	bool		was_first = IsFirstInLine(waiter);

	TakeOut(waiter, WAIT_AGAIN);
	if (was_first)
	{
		AlertNewFirst(resource);
		ServeQueue(lease, resource);
	}
}

/* Send a waiter away, to find out what became of its name. */
static void
Evict(Waiter *waiter)
{
	TakeOut(waiter, WAIT_AGAIN);
	WakeWaiter(waiter);
}

/* Send all that wait for a name away. */
void
EvictWaiters(const LeaseName *lease, Resource *resource)
{
	while (resource->queue != NULL)
		Evict(resource->queue);
	DropUnusedName(lease, resource);
}

/* Send those away who wait for more permits than there will ever be. */
void
EvictTooLarge(Resource *resource)
{
	Waiter	   *next;

	for (Waiter *waiter = NextWaiter(resource, NULL); waiter != NULL; waiter = next)
	{
		next = NextWaiter(resource, waiter);
		if (waiter->grant->permits > resource->capacity)
			Evict(waiter);
	}
}

/*
 * Look at the place of a backend: returns it with its partition locked if it
 * is queued, or NULL, with no lock, if not.
 */
Waiter *
LockWaiter(uint32 number, LWLockMode mode)
{
	Waiter	   *waiter = &Waiters[number];
	int			partition;

	if (WaiterState(waiter) != WAIT_QUEUED)
		return NULL;
	pg_read_barrier();
	partition = *((volatile int *) &waiter->partition);
	LockPartition(partition, mode);
	if (WaiterState(waiter) == WAIT_QUEUED && waiter->partition == partition)
		return waiter;
	UnlockPartition(partition);
	return NULL;
}

void
UnlockWaiter(const Waiter *waiter)
{
	UnlockPartition(waiter->partition);
}
