/*-------------------------------------------------------------------------
 *
 * wait.c
 *	  Standing in a queue: how a backend sleeps, and what ends that.
 *
 * A wait ends when somebody serves us or sends us away, both of which set our
 * latch; at the limit that the caller gave, or lock_timeout; with a cancel or a
 * termination; or when the client has gone.  Nothing is polled.  Who is first in
 * line also wakes when the next grant in its way ends, and ends its row, so that
 * a take-over depends on no other process.
 *
 * An error leaves us in the queue: whoever called cleans up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"

#include "clock.h"
#include "grant.h"
#include "wait.h"

/* Sleep no longer than this without a look at whether there is still a ledger. */
#define LONGEST_SLEEP	(USECS_PER_SEC)

/* A grant that is over and nobody has in hand, or NULL. */
static Grant *
FindOverdue(const Resource *resource, MonoTime now)
{
	dlist_iter	iter;

	dlist_foreach(iter, (dlist_head *) &resource->grants)
	{
		Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);

		if (IsInTheWayUntil(grant) <= now)
			return grant;
	}
	return NULL;
}

/* End what is over and in our way, having seen that there is something. */
static void
EndOverdue(const LeaseName *lease)
{
	LeaseDatabase open;
	bool		more = true;

	OpenDatabaseForWrite(&open);
	HOLD_INTERRUPTS();
	while (more)
	{
		Grant	   *grant = NULL;
		bool		detached = false;

		LockName(lease, LW_EXCLUSIVE);
		if (WaiterState(MyWaiter) == WAIT_QUEUED)
			grant = FindOverdue(MyWaiter->resource, MonotonicNow());
		more = grant != NULL;
		detached = more && IsDetached(grant);
		if (detached)
			ClaimGrant(grant, 0);
		else if (more)
			EndHeld(lease, grant);
		UnlockName(lease);
		if (detached)
			FinishGrant(&open, lease, grant);
	}
	RESUME_INTERRUPTS();
	CloseDatabase(&open);
}

/*
 * Before we sleep until a time, at most: returns until when, or 0 if there is
 * something to do first.
 */
static MonoTime
PlanSleep(const LeaseName *lease, MonoTime until)
{
	Waiter	   *waiter = MyWaiter;

	LockName(lease, LW_EXCLUSIVE);
	if (WaiterState(waiter) != WAIT_QUEUED)
		until = 0;
	else if (IsFirstInLine(waiter))
	{
		until = Min(until, NextOpening(waiter->resource));
		if (until <= MonotonicNow())
			until = 0;
	}
	waiter->wake_at = until;
	UnlockName(lease);
	return until;
}

/*
 * Wait for our latch, as WaitLatch does, and watch our client.  Returns false if
 * it is gone.
 */
static bool
WaitLatchOrClient(long timeout, uint32 wait_event)
{
	WaitEvent	events[FEBE_EVENT_COUNT];
	int			count;

	if (FeBeWaitSet == NULL || !WaitEventSetCanReportClosed())
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 timeout, wait_event);
		return true;
	}
	ModifyWaitEvent(FeBeWaitSet, FEBE_SOCKET_POSITION, WL_SOCKET_CLOSED, NULL);
	count = WaitEventSetWait(FeBeWaitSet, timeout, events, FEBE_EVENT_COUNT, wait_event);
	for (int i = 0; i < count; i++)
	{
		if (events[i].events & WL_POSTMASTER_DEATH)
			proc_exit(1);
		if (events[i].events & WL_SOCKET_CLOSED)
			return false;
	}
	return true;
}

/* Sleep until our latch is set, our client is gone, or a time has come. */
static void
Sleep(MonoTime until)
{
	static uint32 wait_event = 0;
	int64		usec = until - MonotonicNow();

	if (usec <= 0)
		return;
	if (wait_event == 0)
		wait_event = NamedWaitEvent("LeaseAcquire");
	InvalidateCatalogSnapshot();
	if (!WaitLatchOrClient((usec + 999) / 1000, wait_event))
	{
		ClientConnectionLost = true;
		InterruptPending = true;
	}
	ResetLatch(MyLatch);
}

/* Who is in our way, as a sentence. */
static char *
DescribeObstacle(const LeaseName *lease)
{
	GrantInfo	info;
	Resource   *resource;
	MonoTime	now = MonotonicNow();
	bool		found = false;

	LockName(lease, LW_SHARED);
	resource = FindResource(lease);
	if (resource != NULL && !dlist_is_empty(&resource->grants))
	{
		CopyGrant(dlist_head_element(Grant, in_resource, &resource->grants), &info);
		found = true;
	}
	UnlockName(lease);

	if (!found)
		return pstrdup("Others are waiting for it.");
	if (!has_privs_of_role(GetUserId(), info.grant.owner))
		return pstrdup("It is held by another role.");
	if (info.grant.state == GRANT_RESERVED)
		return psprintf("It is being granted to \"%s\".", info.holder);
	if (!IsLive(&info.grant, now))
		return psprintf("The name stays closed for %.3f seconds after token " INT64_FORMAT " of \"%s\".",
						Max(info.grant.deadline - now, 0) / (double) USECS_PER_SEC,
						info.grant.token, info.holder);
	if (info.grant.deadline == MONO_NEVER)
		return psprintf("It is held by \"%s\" with token " INT64_FORMAT " without a TTL.",
						info.holder, info.grant.token);
	return psprintf("It is held by \"%s\" with token " INT64_FORMAT " for %.3f seconds more.",
					info.holder, info.grant.token,
					(info.grant.deadline - now) / (double) USECS_PER_SEC);
}

pg_noreturn static void
GiveUp(const LeaseName *lease, const Span *name, bool lock_timeout)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 lock_timeout ? errmsg("canceling statement due to lock timeout") :
			 errmsg("could not obtain lease \"%.*s\" in time", (int) name->length, name->data),
			 errdetail_internal("%s", DescribeObstacle(lease))));
}

/* The extension may be dropped while we wait: that is an error. */
static void
RequireLedger(void)
{
	AcceptInvalidationMessages();
	(void) LedgerOid();
}

/* Wait until we are not queued any more; see MyWaiter's state. */
void
WaitInQueue(const LeaseName *lease, const Span *name, MonoTime give_up_at)
{
	MonoTime	lock_timeout = LockTimeout > 0 ?
		MonotonicNow() + (int64) LockTimeout * 1000 : MONO_NEVER;

	set_ps_display_suffix("waiting");
	for (;;)
	{
		MonoTime	now;
		MonoTime	until;

		CHECK_FOR_INTERRUPTS();
		if (WaiterState(MyWaiter) != WAIT_QUEUED)
			break;
		RequireLedger();
		now = MonotonicNow();
		if (now >= give_up_at || now >= lock_timeout)
			GiveUp(lease, name, lock_timeout < give_up_at);

		until = PlanSleep(lease, Min(now + LONGEST_SLEEP, Min(give_up_at, lock_timeout)));
		if (until > 0)
			Sleep(until);
		else if (WaiterState(MyWaiter) == WAIT_QUEUED)
			EndOverdue(lease);
	}
	set_ps_display_remove_suffix();
}
