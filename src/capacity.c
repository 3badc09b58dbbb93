/*-------------------------------------------------------------------------
 *
 * capacity.c
 *	  Policy for the size of a semaphore.
 *
 * A semaphore is as large as its first user said until somebody resizes it.  The
 * new size holds at once in memory: a larger one serves who waits, a smaller one
 * takes nothing from anybody.  So that it holds after a crash, too, the rows of
 * all its permits are written anew; at a load the latest of them tells.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"

#include "capacity.h"
#include "clock.h"
#include "lessor.h"
#include "queue.h"

/* What there is to do before a semaphore has its new size. */
typedef enum ResizeStep
{
	RESIZE_DONE,				/* in memory */
	RESIZE_UNUSED,				/* nobody uses the name */
	RESIZE_LEASE,				/* it is a lease */
	RESIZE_ASK					/* may we act on what that role took? */
} ResizeStep;

/*
 * Give a semaphore its new size, if we are cleared for all who hold permits.
 * Under the partition's lock.
 */
static ResizeStep
TryResize(const LeaseName *lease, int32 capacity, const List *cleared, int32 *former, Oid *owner)
{
	Resource   *resource = FindResource(lease);
	MonoTime	now = MonotonicNow();
	bool		used;
	dlist_iter	iter;

	if (resource == NULL)
		return RESIZE_UNUSED;
	used = resource->queue != NULL;
	dlist_foreach(iter, &resource->grants)
	{
		Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);

		if (!IsInTheWay(grant, now))
			continue;
		used = true;
		*owner = grant->owner;
		if (!list_member_oid(cleared, grant->owner))
			return IsSemaphore(resource) ? RESIZE_ASK : RESIZE_LEASE;
	}
	if (!used)
		return RESIZE_UNUSED;
	if (!IsSemaphore(resource))
		return RESIZE_LEASE;

	*former = resource->capacity;
	resource->capacity = capacity;
	EvictTooLarge(resource);
	ServeQueue(lease, resource);
	return RESIZE_DONE;
}

static void
RefuseResize(const Span *name, ResizeStep step)
{
	if (step == RESIZE_LEASE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%.*s\" is in use as a lease", (int) name->length, name->data),
				 errdetail("Only a semaphore has a capacity.")));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("semaphore \"%.*s\" is not in use", (int) name->length, name->data),
			 errhint("Whoever uses it first sets its capacity.")));
}

/*
 * Find a grant whose row tells another capacity than its name has.  A live one's
 * token is returned; one that keeps the name closed is claimed.  *settling: one
 * is being written.
 */
static Token
FindOutdated(const LeaseName *lease, Grant **closure, bool *settling)
{
	Resource   *resource;
	Token		token = INVALID_TOKEN;
	MonoTime	now;
	dlist_iter	iter;

	*closure = NULL;
	*settling = false;
	LockName(lease, LW_EXCLUSIVE);
	now = MonotonicNow();
	resource = FindResource(lease);
	if (resource != NULL)
	{
		dlist_foreach(iter, &resource->grants)
		{
			Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);

			if (!IsDetached(grant) || !IsInTheWay(grant, now) || grant->state == GRANT_PINNED ||
				grant->ledger_capacity == resource->capacity)
				continue;
			if (grant->state == GRANT_RESERVED || grant->state == GRANT_ENDING)
				*settling = true;
			else if (IsLive(grant, now))
				token = grant->token;
			else
			{
				ClaimGrant(grant, ClosedUntil(grant));
				*closure = grant;
				break;
			}
		}
	}
	UnlockName(lease);
	return token;
}

/* See that all rows of a semaphore tell the capacity that it has now. */
static void
RewriteCapacity(LeaseDatabase *open, const LeaseName *lease)
{
	for (;;)
	{
		Token		token;
		Grant	   *closure;
		bool		settling;
		Oid			cleared = GetUserId();

		HOLD_INTERRUPTS();
		token = FindOutdated(lease, &closure, &settling);
		if (closure != NULL)
			FinishGrant(open, lease, closure);
		RESUME_INTERRUPTS();

		if (closure == NULL && token != INVALID_TOKEN)
			(void) RewriteRow(open, lease, token, OWN_TTL, &cleared);
		else if (closure == NULL && settling)
			AwaitSettled(lease);
		else if (closure == NULL)
			break;
	}
	ConditionVariableCancelSleep();
}

/*
 * Resize a semaphore in use, for which the current role needs the privileges of
 * all who hold its permits.  Returns the capacity that it had.
 */
int32
ResizeSemaphore(const Span *name, int32 capacity)
{
	LeaseDatabase open;
	LeaseName	lease;
	List	   *cleared = NIL;
	int32		former;

	OpenNameForWrite(name, &open, &lease);
	for (;;)
	{
		ResizeStep	step;
		Oid			owner;

		LockName(&lease, LW_EXCLUSIVE);
		step = TryResize(&lease, capacity, cleared, &former, &owner);
		UnlockName(&lease);
		if (step == RESIZE_DONE)
			break;
		if (step != RESIZE_ASK)
			RefuseResize(name, step);
		RequireOwner(&lease, owner);
		cleared = lappend_oid(cleared, owner);
	}
	RecordAct(name, EVENT_RESIZED, psprintf("from %d to %d", former, capacity));
	RewriteCapacity(&open, &lease);
	CloseDatabase(&open);
	return former;
}
