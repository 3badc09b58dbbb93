/*-------------------------------------------------------------------------
 *
 * wait.c
 *	  Standing in a queue: how a backend sleeps, and what ends that.
 *
 * A wait ends when somebody serves us or sends us away, both of which set our
 * latch; at the limit that the caller gave, or lock_timeout; with a cancel or a
 * termination; or when the client has gone.  Nothing is polled.  Who is first in
 * line also wakes when the next grant in its way ends, and ends its row, so that
 * a take-over depends on no other process.  Once a second everybody looks
 * whether there is still a ledger, and every deadlock_timeout whether the wait
 * can ever end.
 *
 * An error leaves us in the queue, or just out of it: whoever called cleans up.
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

#include "caller.h"
#include "clock.h"
#include "deadlock.h"
#include "queue.h"
#include "wait.h"

/* How often to look around. */
#define ROUND			USECS_PER_SEC

/*
 * To watch the client, and to tell in the process title that we wait, is not
 * worth its cost in a wait that ends at once.
 */
#define SETTLE_DOWN_AFTER	(20 * 1000)

/* If our wait ends with an error, what that is to others. */
static EventKind failure = EVENT_CANCELLED;

typedef struct Wait
{
	const LeaseName *lease;
	const Span *name;
	Span		correlation_id;
	MonoTime	since;
	MonoTime	limit;			/* when to give up */
	bool		lock_timeout;	/* because of that setting */
	MonoTime	round_at;		/* when to look around next */
	MonoTime	check_at;		/* when to look for a deadlock */
	bool		settled_down;	/* it is not a short one */
	bool		logged;			/* log_lock_waits said that we wait */
} Wait;

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
		if (more)
			detached = ClaimOverdue(lease, grant);
		UnlockName(lease);
		if (detached)
			FinishGrant(&open, lease, grant);
	}
	RESUME_INTERRUPTS();
	CloseDatabase(&open);
}

/*
 * Until when to sleep, as far as the name is concerned; 0 if there is something
 * to do first.
 */
static MonoTime
PlanSleep(const LeaseName *lease)
{
	Waiter	   *waiter = MyWaiter;
	MonoTime	until = MONO_NEVER;

	LockName(lease, LW_EXCLUSIVE);
	if (WaiterState(waiter) != WAIT_QUEUED)
		until = 0;
	else if (IsFirstInLine(waiter))
	{
		until = NextOpening(waiter->resource);
		if (until <= MonotonicNow())
			until = 0;
	}
	waiter->wake_at = until;
	UnlockName(lease);
	return until;
}

static void
NoteClientGone(void)
{
	ClientConnectionLost = true;
	InterruptPending = true;
}

/* An error, which ends the session, if our client has gone. */
void
CheckClient(void)
{
	if (FeBeWaitSet != NULL && WaitEventSetCanReportClosed() && !pq_check_connection())
		NoteClientGone();
	CHECK_FOR_INTERRUPTS();
}

/* Wait for our latch, as WaitLatch does, and watch our client. */
static void
WaitLatchOrClient(long timeout, uint32 wait_event)
{
	WaitEvent	events[FEBE_EVENT_COUNT];
	int			count;

	ModifyWaitEvent(FeBeWaitSet, FEBE_SOCKET_POSITION, WL_SOCKET_CLOSED, NULL);
	count = WaitEventSetWait(FeBeWaitSet, timeout, events, FEBE_EVENT_COUNT, wait_event);
	for (int i = 0; i < count; i++)
	{
		if (events[i].events & WL_POSTMASTER_DEATH)
			proc_exit(1);
		if (events[i].events & WL_SOCKET_CLOSED)
			NoteClientGone();
	}
}

/* Sleep until our latch is set, our client is gone, or a time has come. */
static void
Sleep(const Wait *wait, MonoTime until)
{
	static uint32 wait_event = 0;
	MonoTime	now = MonotonicNow();
	long		timeout;

	until = Min(until, Min(wait->limit, wait->round_at));
	if (!wait->settled_down)
		until = Min(until, wait->since + SETTLE_DOWN_AFTER);
	if (until <= now)
		return;
	timeout = (until - now + 999) / 1000;

	if (wait_event == 0)
		wait_event = NamedWaitEvent("LeaseAcquire");
	InvalidateCatalogSnapshot();
	if (wait->settled_down && FeBeWaitSet != NULL && WaitEventSetCanReportClosed())
		WaitLatchOrClient(timeout, wait_event);
	else
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 timeout, wait_event);
	ResetLatch(MyLatch);
}

/* Who is in our way; the one that ends next, if several are.  False if nobody. */
static bool
FindObstacle(const LeaseName *lease, GrantInfo *info, int32 *taken)
{
	Resource   *resource;
	Grant	   *next = NULL;
	MonoTime	now = MonotonicNow();
	dlist_iter	iter;

	*taken = 0;
	LockName(lease, LW_SHARED);
	resource = FindResource(lease);
	if (resource != NULL)
	{
		dlist_foreach(iter, &resource->grants)
		{
			Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);

			if (IsInTheWayUntil(grant) <= now)
				continue;
			*taken += grant->permits;
			if (next == NULL || IsInTheWayUntil(grant) < IsInTheWayUntil(next))
				next = grant;
		}
		if (next != NULL)
			CopyGrant(next, info);
	}
	UnlockName(lease);
	return next != NULL;
}

/* What a grant is to who waits for its end. */
static char *
DescribeGrantInTheWay(const GrantInfo *info, const char *what)
{
	MonoTime	now = MonotonicNow();
	double		seconds = Max(info->grant.deadline - now, 0) / (double) USECS_PER_SEC;

	if (!has_privs_of_role(GetUserId(), info->grant.owner))
		return psprintf("%s is held by another role.", what);
	if (info->grant.state == GRANT_RESERVED)
		return psprintf("%s is being granted to \"%s\".", what, info->holder);
	if (!IsLive(&info->grant, now) && info->grant.pins > 0)
		return psprintf("%s is over, but a transaction that it guards with token " INT64_FORMAT " is still committing.",
						what, info->grant.token);
	if (!IsLive(&info->grant, now))
		return psprintf("%s stays closed for %.3f seconds after token " INT64_FORMAT " of \"%s\".",
						what, seconds, info->grant.token, info->holder);
	if (info->grant.deadline == MONO_NEVER)
		return psprintf("%s is held by \"%s\" with token " INT64_FORMAT " without a TTL.",
						what, info->holder, info->grant.token);
	return psprintf("%s is held by \"%s\" with token " INT64_FORMAT " for %.3f seconds more.",
					what, info->holder, info->grant.token, seconds);
}

/* Who is in our way, for people. */
static char *
DescribeObstacle(const LeaseName *lease)
{
	GrantInfo	info;
	int32		taken;

	if (!FindObstacle(lease, &info, &taken))
		return pstrdup("Others are waiting for it.");
	if (info.capacity == WHOLE_LEASE)
		return DescribeGrantInTheWay(&info, "It");
	return psprintf("%d of its %d permits are taken. %s", taken, info.capacity,
					DescribeGrantInTheWay(&info, info.grant.permits == 1 ? "One" : "A part"));
}

pg_noreturn static void
GiveUp(const Wait *wait)
{
	char	   *obstacle = DescribeObstacle(wait->lease);

	failure = EVENT_TIMEOUT;
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 wait->lock_timeout ? errmsg("canceling statement due to lock timeout") :
			 errmsg("could not obtain lease \"%.*s\" in time",
					(int) wait->name->length, wait->name->data),
			 errdetail_internal("%s", obstacle)));
}

/* What log_lock_waits has to say, as the server does of its locks. */
static void
LogWait(const Wait *wait, const char *what, const char *detail)
{
	int64		usec = MonotonicNow() - wait->since;

	ereport(LOG,
			(errmsg("process %d %s lease \"%.*s\" after " INT64_FORMAT ".%03d ms",
					MyProcPid, what, (int) wait->name->length, wait->name->data,
					usec / 1000, (int) (usec % 1000)),
			 detail != NULL ? errdetail_internal("%s", detail) : 0,
			 CorrelationContext(wait->correlation_id)));
}

/*
 * Look around: the extension may have been dropped, which is an error, or made
 * anew, whose load sends us to look again; and there may be a deadlock.
 */
static void
LookAround(Wait *wait, MonoTime now)
{
	LeaseDatabase open;

	wait->round_at = now + ROUND;
	AcceptInvalidationMessages();
	OpenDatabaseForRead(&open);
	if (now < wait->check_at)
		return;
	wait->check_at = now + (int64) DeadlockTimeout * 1000;
	failure = EVENT_DEADLOCK;
	CheckDeadlock(wait->lease);
	failure = EVENT_CANCELLED;
	if (log_lock_waits && !wait->logged)
		LogWait(wait, "still waiting for", DescribeObstacle(wait->lease));
	wait->logged = true;
}

/* The wait is over, well or not.  Returns what ended it, if it was an error. */
EventKind
StopWaiting(void)
{
	EventKind	kind = failure;

	set_ps_display_remove_suffix();
	failure = EVENT_CANCELLED;
	return kind;
}

/*
 * Wait until we are not queued any more; see MyWaiter's state.  After an error
 * the caller calls StopWaiting.
 */
void
WaitInQueue(const LeaseName *lease, const Span *name, Span correlation_id, MonoTime give_up_at)
{
	MonoTime	until = MyWaiter->wake_at;
	MonoTime	now = MonotonicNow();
	Wait		wait = {
		.lease = lease,
		.name = name,
		.correlation_id = correlation_id,
		.since = now,
		.limit = give_up_at,
		.round_at = now + Min((int64) DeadlockTimeout * 1000, ROUND),
		.check_at = now + (int64) DeadlockTimeout * 1000
	};

	if (LockTimeout > 0 && now + (int64) LockTimeout * 1000 < give_up_at)
	{
		wait.limit = now + (int64) LockTimeout * 1000;
		wait.lock_timeout = true;
	}

	for (;;)
	{
		Sleep(&wait, until);
		CHECK_FOR_INTERRUPTS();
		if (WaiterState(MyWaiter) != WAIT_QUEUED)
			break;
		now = MonotonicNow();
		if (!wait.settled_down && now >= wait.since + SETTLE_DOWN_AFTER)
		{
			set_ps_display_suffix("waiting");
			wait.settled_down = true;
		}
		if (now >= wait.limit)
			GiveUp(&wait);
		if (now >= wait.round_at)
			LookAround(&wait, now);
		until = PlanSleep(lease);
		if (until == 0 && WaiterState(MyWaiter) == WAIT_QUEUED)
			EndOverdue(lease);
	}
	if (wait.settled_down)
		StopWaiting();
	if (log_lock_waits && wait.logged && WaiterState(MyWaiter) == WAIT_SERVED)
		LogWait(&wait, "acquired", NULL);
}
