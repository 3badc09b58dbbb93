/*-------------------------------------------------------------------------
 *
 * acquire.c
 *	  Policy for who wants a lease: who gets it, who waits, who is refused.
 *
 * An acquisition wants one name or several, all or none.  It reserves them one
 * by one, in the order given, which may mean to wait in a name's queue; then it
 * gives each grant its token and row, and then all are held, their TTLs counted
 * from the same moment.
 *
 * Until the last step every failure, be it an error, a cancel or the end of the
 * session, gives back all that was reserved (AbandonAcquisition), and that goes
 * to whoever is next in line.
 *
 * A name may be found settling: one process is in the middle of ending a dead
 * grant, or is making the very grant that is asked for.  That takes as long as
 * writing a row, and also an acquire that does not wait for holders waits for it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "acquire.h"
#include "clock.h"
#include "lessor.h"
#include "queue.h"
#include "session.h"
#include "wait.h"

/* How far a name of an acquisition got. */
typedef enum BidState
{
	BID_NOTHING,
	BID_QUEUED,					/* we stand in its queue, or were just served */
	BID_RESERVED,				/* its grant is RESERVED, and ours */
	BID_HELD,					/* its grant is HELD */
	BID_COUNTED,				/* it was ours before; one more hold is counted */
	BID_RENEWED					/* an earlier call of this request got it */
} BidState;

/* One of the names. */
typedef struct Bid
{
	LeaseName	lease;
	Span		name;
	BidState	state;
	SpareGrant	spare;
	Grant	   *grant;
	bool		has_row;
	Token		token;
} Bid;

typedef struct Acquisition
{
	const LeaseRequest *request;
	LeaseDatabase open;
	MonoTime	give_up_at;
	int			count;
	Bid		   *bids;
} Acquisition;

/* What an acquirer finds. */
typedef enum Finding
{
	NAME_VACANT,				/* there is room, but no spare grant to fill it */
	NAME_UNLISTED,				/* the same, but the name table is full */
	NAME_RESERVED,				/* reserved for us */
	NAME_OVERDUE,				/* a dead grant in the way, now claimed by us */
	NAME_SETTLING,				/* somebody is writing; look again after that */
	NAME_TAKEN,					/* held, being granted, or closed */
	NAME_QUEUED,				/* the same, and we stand in its queue */
	NAME_RETRIED,				/* held under the same request id */
	NAME_HELD_HERE,				/* held by our session; one more hold */

	/* Refused. */
	NAME_IS_SEMAPHORE,
	NAME_IS_LEASE,
	NAME_HAS_NO_CAPACITY,
	NAME_HAS_OTHER_CAPACITY,
	NAME_IS_TOO_SMALL,
	NAME_CANNOT_UPGRADE,
	NAME_REQUEST_DIFFERS
} Finding;

/* What is known of a name that was looked at. */
typedef struct Look
{
	Grant	   *overdue;		/* a dead grant in the way */
	Grant	   *same;			/* held, or being made, under our request id, or
								 * held by our session */
	bool		being_made;		/* our request is, by another call */
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
			look->being_made |= retry;
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
static bool
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
		request->labels.request_id.length == 0 &&
		(request->scope == SCOPE_DETACHED || !HoldsLeases());
}

/* What a name means for a request, and the grant that is about. */
static Finding
JudgeName(const LeaseName *lease, const LeaseRequest *request, Grant **about)
{
	Resource   *resource = FindResource(lease);
	MonoTime	now = MonotonicNow();
	Look		look = {0};
	Finding		kind;
	dlist_iter	iter;

	*about = NULL;
	if (resource == NULL)
		return request->capacity == 0 ? NAME_HAS_NO_CAPACITY : NAME_VACANT;
	kind = JudgeKind(resource, request);
	if (kind == NAME_VACANT && IsPlainlyVacant(resource, request))
		return NAME_VACANT;

	dlist_foreach(iter, &resource->grants)
		LookAtGrant(&look, dlist_container(Grant, in_resource, iter.cur), request, now);
	if (kind != NAME_VACANT && (look.blocked > 0 || resource->queue != NULL))
		return kind;
	if (look.same != NULL)
	{
		*about = look.same;
		return JudgeOwn(look.same, request);
	}
	if (look.being_made)
		return NAME_SETTLING;
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

/* Fill in a spare grant with what is asked for. */
static void
FillGrant(Grant *grant, const LeaseRequest *request)
{
	StampGrant(grant, request->ttl);
	grant->permits = request->permits;
	grant->scope = request->scope;
	grant->lock_delay = (request->lock_delay + 999) / 1000;
	grant->min_hold = (request->min_hold + 999) / 1000;
	grant->owner = GetUserId();
	grant->has_metadata = request->metadata.length > 0;
	grant->lsn = InvalidXLogRecPtr;
}

/* Make one more hold of a lease of our session.  Under the partition's lock. */
static void
HoldAgain(Bid *bid, Grant *grant, const LeaseRequest *request)
{
	ExtendTtl(grant, request->ttl);
	grant->scope = Max(grant->scope, request->scope);
	bid->grant = grant;
	bid->token = grant->token;
}

/*
 * Look at a name once, and take the step that the finding allows: reserve it
 * with the spare grant, queue up with it, or claim what is dead.
 */
static Finding
Approach(Acquisition *acq, Bid *bid)
{
	const LeaseRequest *request = acq->request;
	Finding		finding;
	Grant	   *about;

	LockName(&bid->lease, LW_EXCLUSIVE);
	finding = JudgeName(&bid->lease, request, &about);
	if (finding == NAME_VACANT && bid->spare.grant != NULL && !bid->spare.from_reserve)
	{
		Grant	   *grant = LinkGrant(&bid->lease, &bid->spare, request->capacity);

		finding = grant != NULL ? NAME_RESERVED : NAME_UNLISTED;
		bid->grant = grant;
	}
	else if (finding == NAME_TAKEN && bid->spare.grant != NULL && request->wait != DO_NOT_WAIT)
	{
		Resource   *resource = FindResource(&bid->lease);
		Waiter	   *twin = FindTwin(resource, bid->spare.grant);

		if (twin != NULL && Differs(twin->grant, request))
			finding = NAME_REQUEST_DIFFERS;
		else
		{
			JoinQueue(&bid->lease, resource, bid->spare.grant);
			bid->spare.grant = NULL;
			finding = NAME_QUEUED;
		}
	}
	else if (finding == NAME_OVERDUE && !IsDetached(about))
		EndHeld(&bid->lease, about);
	else if (finding == NAME_OVERDUE && acq->open.ledger != NULL)
	{
		ClaimGrant(about, 0);
		bid->grant = about;
	}
	else if (finding == NAME_RETRIED)
		bid->token = about->token;
	else if (finding == NAME_HELD_HERE)
		HoldAgain(bid, about, request);
	UnlockName(&bid->lease);
	return finding;
}

static void
Refuse(const Bid *bid, const LeaseRequest *request, Finding finding)
{
	int			length = (int) bid->name.length;
	const char *name = bid->name.data;

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
					 errdetail("This call asks for mode \"%s\", scope \"%s\" and holder \"%.*s\".",
							   ModeName(request->permits, request->capacity),
							   ScopeNames[request->scope],
							   (int) request->labels.holder.length, request->labels.holder.data)));
	}
}

/* See that the ledger is open, for those who end or write rows. */
static void
OpenForWrite(Acquisition *acq)
{
	if (acq->open.ledger == NULL)
		OpenDatabaseForWrite(&acq->open);
}

/* Give back what a bid has in hand. */
static void
DropSpare(Bid *bid, const LeaseRequest *request)
{
	if (bid->spare.grant != NULL && request->scope != SCOPE_DETACHED)
		DiscardHold(bid->spare.grant);
	DiscardSpare(&bid->spare);
}

/* Have a spare grant in hand, filled in; one of the reserve is for a queue. */
static void
PrepareBid(Acquisition *acq, Bid *bid, bool for_queue)
{
	const LeaseRequest *request = acq->request;

	if (bid->spare.grant != NULL && !(bid->spare.from_reserve && !for_queue))
		return;
	DropSpare(bid, request);
	while (!PrepareGrant(&bid->spare, &bid->lease, &request->labels, for_queue))
	{
		OpenForWrite(acq);
		MakeRoom(&acq->open);
	}
	FillGrant(bid->spare.grant, request);
	if (request->scope != SCOPE_DETACHED)
		PrepareHold(bid->spare.grant);
}

/* Wait in the queue that we joined.  Returns false if we are to look again. */
static bool
AwaitTurn(Acquisition *acq, Bid *bid)
{
	bid->state = BID_QUEUED;
	CloseDatabase(&acq->open);
	WaitInQueue(&bid->lease, &bid->name, acq->give_up_at);
	bid->grant = MyWaiter->grant;
	if (WaiterState(MyWaiter) == WAIT_SERVED)
		bid->state = BID_RESERVED;
	else
	{
		bid->state = BID_NOTHING;
		bid->spare.grant = bid->grant;
		OpenDatabaseForRead(&acq->open);
	}
	pg_atomic_write_u32(&MyWaiter->state, WAIT_NONE);
	return bid->state == BID_RESERVED;
}

/* Get hold of one name.  Returns false if it is taken, and we do not wait. */
static bool
Reserve(Acquisition *acq, Bid *bid)
{
	const LeaseRequest *request = acq->request;

	for (;;)
	{
		Finding		finding;

		/* What is claimed is ours to finish. */
		HOLD_INTERRUPTS();
		bid->grant = NULL;
		finding = Approach(acq, bid);
		if (finding == NAME_OVERDUE && bid->grant != NULL)
			FinishGrant(&acq->open, &bid->lease, bid->grant);
		RESUME_INTERRUPTS();

		switch (finding)
		{
			case NAME_VACANT:
				PrepareBid(acq, bid, false);
				break;
			case NAME_UNLISTED:
				OpenForWrite(acq);
				MakeRoom(&acq->open);
				break;
			case NAME_RESERVED:
				bid->state = BID_RESERVED;
				return true;
			case NAME_OVERDUE:
				OpenForWrite(acq);
				break;
			case NAME_SETTLING:
				AwaitSettled(&bid->lease);
				break;
			case NAME_TAKEN:
				if (request->wait == DO_NOT_WAIT)
					return false;
				PrepareBid(acq, bid, true);
				break;
			case NAME_QUEUED:
				if (AwaitTurn(acq, bid))
					return true;
				break;
			case NAME_RETRIED:
				if (RenewLease(&bid->name, bid->token, request->ttl) == LEASE_LOST)
					break;
				bid->state = BID_RENEWED;
				return true;
			case NAME_HELD_HERE:
				PrepareHold(bid->grant);
				AddHold(&bid->lease, bid->grant, bid->token, request->scope);
				bid->state = BID_COUNTED;
				return true;
			default:
				Refuse(bid, request, finding);
		}
	}
}

/* Give back what a bid got. */
static void
AbandonBid(Bid *bid, const LeaseRequest *request)
{
	if (bid->state == BID_QUEUED)
	{
		LockName(&bid->lease, LW_EXCLUSIVE);
		if (WaiterState(MyWaiter) == WAIT_QUEUED)
			bid->spare.grant = LeaveQueue(&bid->lease);
		else if (WaiterState(MyWaiter) == WAIT_AGAIN)
			bid->spare.grant = MyWaiter->grant;
		else if (WaiterState(MyWaiter) == WAIT_SERVED)
		{
			bid->grant = MyWaiter->grant;
			bid->state = BID_RESERVED;
		}
		pg_atomic_write_u32(&MyWaiter->state, WAIT_NONE);
		UnlockName(&bid->lease);
	}
	if (bid->state == BID_COUNTED || (bid->state == BID_HELD && request->scope != SCOPE_DETACHED))
		GiveUpHold(bid->grant, bid->token, request->scope);
	else if (bid->state == BID_RESERVED || bid->state == BID_HELD)
	{
		if (request->scope != SCOPE_DETACHED)
			DiscardHold(bid->grant);
		AbandonGrant(&bid->lease, bid->grant, bid->has_row);
	}
	bid->state = BID_NOTHING;
	DropSpare(bid, request);
}

/* Give back all that an acquisition has got so far; once, or again. */
static void
AbandonAcquisition(int code pg_attribute_unused(), Datum arg)
{
	Acquisition *acq = (Acquisition *) DatumGetPointer(arg);

	for (int i = 0; i < acq->count; i++)
		AbandonBid(&acq->bids[i], acq->request);
}

/* The row of a detached grant. */
static void
WriteBid(Acquisition *acq, Bid *bid)
{
	const LeaseRequest *request = acq->request;
	Grant	   *grant = bid->grant;
	LedgerRow	row = {
		.name = bid->name,
		.holder = request->labels.holder,
		.request_id = request->labels.request_id,
		.correlation_id = request->labels.correlation_id,
		.metadata = request->metadata,
		.owner = grant->owner,
		.ttl = grant->ttl,
		.lock_delay = (int64) grant->lock_delay * 1000,
		.min_hold = (int64) grant->min_hold * 1000,
		.permits = grant->permits,
		.capacity = grant->ledger_capacity,
		.granted_at = grant->acquired_at
	};

	WriteGrant(&acq->open, grant, &row, &bid->has_row);
	bid->token = row.token;
}

/* Give each grant its token, and its row if it has one. */
static void
PublishBids(Acquisition *acq)
{
	bool		detached = acq->request->scope == SCOPE_DETACHED;
	XLogRecPtr	written = InvalidXLogRecPtr;

	for (int i = 0; i < acq->count; i++)
	{
		Bid		   *bid = &acq->bids[i];

		if (bid->state != BID_RESERVED)
			continue;
		bid->grant->acquired_at = GetCurrentTimestamp();
		if (detached)
		{
			WriteBid(acq, bid);
			written = bid->grant->lsn;
			continue;
		}
		bid->token = TokenAtHand(acq->open.db);
		if (bid->token == INVALID_TOKEN)
		{
			OpenForWrite(acq);
			bid->token = NextToken(acq->open.db, acq->open.ledger);
		}
		bid->grant->token = bid->token;
	}
	if (XLogRecPtrIsInvalid(written) || FlushLedger(written))
		return;

	for (int i = 0; i < acq->count; i++)
		if (acq->bids[i].state == BID_RESERVED)
		{
			acq->bids[i].state = BID_NOTHING;
			TakeBackUnconfirmed(&acq->open, &acq->bids[i].lease, acq->bids[i].grant);
		}
	RefuseUnconfirmed();
}

/* From now on all of them are held. */
static void
HoldBids(Acquisition *acq)
{
	MonoTime	now = MonotonicNow();

	for (int i = 0; i < acq->count; i++)
	{
		Bid		   *bid = &acq->bids[i];

		if (bid->state != BID_RESERVED)
			continue;
		LockName(&bid->lease, LW_EXCLUSIVE);
		StartHolding(&bid->lease, bid->grant, now);
		UnlockName(&bid->lease);
		AnnounceSettled(&bid->lease);
		if (acq->request->scope != SCOPE_DETACHED)
			AddHold(&bid->lease, bid->grant, bid->token, acq->request->scope);
		bid->state = BID_HELD;
	}
}

static bool
ReserveAll(Acquisition *acq)
{
	for (int i = 0; i < acq->count; i++)
		if (!Reserve(acq, &acq->bids[i]))
			return false;
	return true;
}

/* Reserve, publish, hold; an interrupt that comes late still undoes it all. */
static bool
RunAcquisition(Acquisition *acq)
{
	if (!ReserveAll(acq))
	{
		AbandonAcquisition(0, PointerGetDatum(acq));
		return false;
	}
	if (acq->request->scope == SCOPE_DETACHED)
		OpenForWrite(acq);

	HOLD_INTERRUPTS();
	PublishBids(acq);
	HoldBids(acq);
	RESUME_INTERRUPTS();
	CHECK_FOR_INTERRUPTS();
	return true;
}

/*
 * Grant some names, all or none, and set their tokens.  Returns false if one is
 * taken and the request does not wait.
 *
 * A retry (same name, role and request id, while the grant lives) gets the same
 * token with a fresh TTL.
 */
bool
AcquireLeases(const LeaseRequest *request, const Span *names, int count, Token *tokens)
{
	Acquisition acq = {
		.request = request,
		.count = count,
		.give_up_at = WAIT_FOREVER
	};
	bool		granted;

	if (request->wait != DO_NOT_WAIT && request->wait != WAIT_FOREVER)
		acq.give_up_at = MonotonicNow() + request->wait;
	if (request->scope == SCOPE_DETACHED)
		OpenDatabaseForWrite(&acq.open);
	else
	{
		EnableHolds();
		OpenDatabaseForRead(&acq.open);
	}

	acq.bids = palloc0(sizeof(Bid) * count);
	for (int i = 0; i < count; i++)
	{
		acq.bids[i].name = names[i];
		acq.bids[i].spare.name = NO_CHUNK;
		ResolveName(&acq.bids[i].lease, acq.open.db->oid, names[i].data, names[i].length);
	}

	PG_ENSURE_ERROR_CLEANUP(AbandonAcquisition, PointerGetDatum(&acq));
	{
		granted = RunAcquisition(&acq);
	}
	PG_END_ENSURE_ERROR_CLEANUP(AbandonAcquisition, PointerGetDatum(&acq));

	for (int i = 0; i < count; i++)
	{
		DropSpare(&acq.bids[i], request);
		tokens[i] = acq.bids[i].token;
	}
	ConditionVariableCancelSleep();
	CloseDatabase(&acq.open);
	pfree(acq.bids);
	return granted;
}
