/*-------------------------------------------------------------------------
 *
 * judge.c
 *	  What a name means for who asks for it: vacant, taken, or not to be had.
 *
 * It looks, and changes nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "clock.h"
#include "judge.h"
#include "session.h"

/* What is known of a name that was looked at. */
typedef struct Look
{
	Grant	   *overdue;		/* a dead grant in the way */
	Grant	   *same;			/* held, or being made, under our request id, or
								 * held by our session */
	bool		being_made;		/* our request is, at this moment, by another call */
	bool		settling;		/* a dead grant in the way is being ended */
	int64		blocked;		/* permits that nobody can have yet */
} Look;

/* Is a grant, or one that waits to be, of the same attempt as a bid? */
static bool
IsRetryOf(const Grant *grant, const LeaseRequest *request)
{
	return grant->owner == GetUserId() &&
		HasRequestId(grant, &request->labels.request_id) &&
		(IsDetached(grant) || grant->pid == MyProcPid);
}

static void
LookAtGrant(Look *look, Grant *grant, const LeaseRequest *request, MonoTime now)
{
	bool		retry = IsRetryOf(grant, request);

	switch (grant->state)
	{
		case GRANT_RESERVED:
			look->being_made |= retry && !grant->awaits_others;
			look->blocked += grant->permits;
			break;
		case GRANT_ENDING:
			if (grant->deadline > now)
				look->blocked += grant->permits;
			else
				look->settling = true;
			break;
		default:
			if (IsLive(grant, now) &&
				(retry || (request->scope != SCOPE_DETACHED &&
						   request->capacity == WHOLE_LEASE && IsOurHold(grant))))
				look->same = grant;
			if (BlocksUntil(grant) > now)
				look->blocked += grant->permits;
			else
				look->overdue = grant;
	}
}

/* Does what is asked for differ from what was under the same request id? */
bool
Differs(const Grant *grant, const LeaseRequest *request)
{
	return grant->permits != request->permits ||
		grant->scope != request->scope ||
		(!request->holder_is_default && !HasHolder(grant, &request->labels.holder));
}

/* What does a grant that is the session's, or the request's, already mean? */
static Finding
JudgeOwn(const Grant *grant, const LeaseRequest *request)
{
	if (IsRetryOf(grant, request))
		return Differs(grant, request) ? NAME_REQUEST_DIFFERS : NAME_RETRIED;
	return grant->permits < request->permits ? NAME_CANNOT_UPGRADE : NAME_HELD_HERE;
}

/* Can the name not be what the request takes it for?  VACANT if it can. */
static Finding
JudgeKind(const Resource *resource, const LeaseRequest *request)
{
	if (request->capacity == WHOLE_LEASE)
		return IsSemaphore(resource) ? NAME_IS_SEMAPHORE : NAME_VACANT;
	if (!IsSemaphore(resource))
		return NAME_IS_LEASE;
	if (request->capacity != 0 && request->capacity != resource->capacity)
		return NAME_HAS_OTHER_CAPACITY;
	return request->permits > resource->capacity ? NAME_IS_TOO_SMALL : NAME_VACANT;
}

/* Nothing to find out grant by grant? */
static bool
IsPlainlyVacant(const Resource *resource, const LeaseRequest *request)
{
	return resource->queue == NULL && HasRoom(resource, request->permits) &&
		request->capacity != 0 && request->labels.request_id.length == 0 &&
		(request->scope == SCOPE_DETACHED || !HoldsLeases());
}

/* What a name means for a request, and the grant that is about. */
Finding
JudgeName(const LeaseName *lease, const LeaseRequest *request, Grant **about)
{
	Resource   *resource = FindResource(lease);
	MonoTime	now = MonotonicNow();
	Look		look = {0};
	Finding		kind;
	bool		in_use;
	dlist_iter	iter;

	*about = NULL;
	if (resource == NULL)
		return request->capacity == 0 ? NAME_HAS_NO_CAPACITY : NAME_VACANT;
	kind = JudgeKind(resource, request);
	if (kind == NAME_VACANT && IsPlainlyVacant(resource, request))
		return NAME_VACANT;

	dlist_foreach(iter, &resource->grants)
		LookAtGrant(&look, dlist_container(Grant, in_resource, iter.cur), request, now);
	in_use = look.blocked > 0 || resource->queue != NULL;
	if (in_use && (kind == NAME_IS_SEMAPHORE || kind == NAME_IS_LEASE))
		return kind;

	/* A retry is known though the capacity is another by now. */
	if (look.same != NULL)
	{
		*about = look.same;
		return JudgeOwn(look.same, request);
	}
	if (look.being_made)
		return NAME_SETTLING;
	if (in_use && kind != NAME_VACANT)
		return kind;
	if (!in_use && request->capacity == 0)
		return NAME_HAS_NO_CAPACITY;
	if (kind == NAME_VACANT)
	{
		if (resource->queue != NULL)
			return NAME_TAKEN;
		if (HasRoom(resource, request->permits))
			return NAME_VACANT;
		if (look.blocked + request->permits > resource->capacity)
			return NAME_TAKEN;
	}
	*about = look.overdue;
	return look.overdue != NULL ? NAME_OVERDUE : NAME_SETTLING;
}

/* Say why a request is refused. */
void
Refuse(const Span *lease, const LeaseRequest *request, Finding finding)
{
	int			length = (int) lease->length;
	const char *name = lease->data;

	switch (finding)
	{
		case NAME_IS_SEMAPHORE:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%.*s\" is in use as a semaphore", length, name),
					 errhint("Take a permit of it with lease.acquire_permit, or use another name.")));
			break;
		case NAME_IS_LEASE:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("\"%.*s\" is in use as a lease", length, name),
					 errhint("Take it with lease.acquire, or use another name.")));
			break;
		case NAME_HAS_NO_CAPACITY:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("semaphore \"%.*s\" is not in use and needs a capacity", length, name),
					 errhint("Whoever uses it first sets its capacity.")));
			break;
		case NAME_HAS_OTHER_CAPACITY:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("semaphore \"%.*s\" is in use with another capacity than %d",
							length, name, request->capacity),
					 errhint("Use lease.set_capacity to resize it.")));
			break;
		case NAME_IS_TOO_SMALL:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("semaphore \"%.*s\" has fewer permits than %d", length, name,
							request->permits)));
			break;
		case NAME_CANNOT_UPGRADE:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("cannot upgrade lease \"%.*s\" from shared to exclusive", length, name),
					 errhint("Release it first.")));
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("request id \"%.*s\" was used for lease \"%.*s\" with another mode, scope or holder",
							(int) request->labels.request_id.length, request->labels.request_id.data,
							length, name),
					 errdetail("This call asks for mode \"%s\"%s, scope \"%s\" and holder \"%.*s\".",
							   ModeName(request->permits, request->capacity),
							   request->capacity == WHOLE_LEASE ? "" :
							   psprintf(" (%d)", request->permits),
							   ScopeNames[request->scope],
							   (int) request->labels.holder.length, request->labels.holder.data)));
	}
}
