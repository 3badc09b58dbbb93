/*-------------------------------------------------------------------------
 *
 * acquire.c
 *	  The steps of who wants leases: reserve, wait, publish, hold; or give all
 *	  back.  What a name means for it is in judge.c.
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
#include "judge.h"
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
	MonoTime	waiting_since;	/* 0: it did not wait in a queue */
} Bid;

typedef struct Acquisition
{
	const LeaseRequest *request;
	LeaseDatabase open;
	MonoTime	give_up_at;
	int			count;
	Bid		   *bids;
	Bid		   *last_waited;	/* the one that was waited for last, or NULL */
} Acquisition;

/* Fill in a spare grant with what is asked for. */
static void
FillGrant(Grant *grant, const LeaseRequest *request, int count)
{
	StampGrant(grant, request->ttl);
	grant->permits = request->permits;
	grant->scope = request->scope;
	grant->lock_delay = (request->lock_delay + 999) / 1000;
	grant->min_hold = (request->min_hold + 999) / 1000;
	grant->owner = GetUserId();
	grant->has_metadata = request->metadata.length > 0;
	grant->lsn = InvalidXLogRecPtr;
	grant->awaits_others = count > 1 && request->wait != DO_NOT_WAIT;
}

/* Make one more hold of a lease of our session.  Under the partition's lock. */
static void
HoldAgain(Bid *bid, Grant *grant, const LeaseRequest *request)
{
	ExtendTtl(&bid->lease, grant, request->ttl);
	grant->scope = Max(grant->scope, request->scope);
	bid->grant = grant;
	bid->token = grant->token;
}

/*
 * A lease that needs no row, nor any other with it, can be held as soon as it is
 * reserved.
 */
static bool
CanHoldAtOnce(const Acquisition *acq)
{
	return acq->request->scope != SCOPE_DETACHED && acq->count == 1;
}

/* Take a vacant name with the spare grant, if we have it. */
static Finding
Occupy(Acquisition *acq, Bid *bid)
{
	if (bid->spare.grant == NULL || bid->spare.from_reserve)
		return NAME_VACANT;
	bid->grant = LinkGrant(&bid->lease, &bid->spare, acq->request->capacity);
	if (bid->grant == NULL)
		return NAME_UNLISTED;
	bid->token = CanHoldAtOnce(acq) ? HoldAtOnce(&bid->lease, acq->open.db, bid->grant, bid->waiting_since) : INVALID_TOKEN;
	return bid->token != INVALID_TOKEN ? NAME_HELD : NAME_RESERVED;
}

/* Queue up for a taken name with the spare grant, if we wait and have it. */
static Finding
QueueUp(Acquisition *acq, Bid *bid)
{
	Resource   *resource = FindResource(&bid->lease);
	Waiter	   *twin;

	if (bid->spare.grant == NULL || acq->request->wait == DO_NOT_WAIT)
		return NAME_TAKEN;
	twin = FindTwin(resource, bid->spare.grant);
	if (twin != NULL && Differs(twin->grant, acq->request))
		return NAME_REQUEST_DIFFERS;
	if (bid->waiting_since == 0)
		bid->waiting_since = MonotonicNow();
	JoinQueue(&bid->lease, resource, bid->spare.grant, CanHoldAtOnce(acq) ? acq->open.db : NULL,
			  bid->waiting_since);
	bid->spare.grant = NULL;
	return NAME_QUEUED;
}

/* What an acquisition of a name asked for, that came to nothing. */
static void
RecordVainBid(Bid *bid, const LeaseRequest *request, EventKind kind, const char *detail)
{
	Resource   *resource = FindResource(&bid->lease);
	Attempt		attempt = {
		.labels = &request->labels,
		.permits = request->permits,
		.capacity = resource != NULL ? resource->capacity : request->capacity,
		.scope = request->scope,
		.waited = bid->waiting_since != 0 ? MonotonicNow() - bid->waiting_since : NO_TIME
	};

	RecordAttempt(&bid->lease, &attempt, kind, detail);
}

/* A name is taken for who does not wait. */
static void
RecordRefusal(Bid *bid, const LeaseRequest *request)
{
	Resource   *resource = FindResource(&bid->lease);
	MonoTime	now = MonotonicNow();
	char		detail[64] = "others wait for it";
	dlist_iter	iter;

	dlist_foreach(iter, &resource->grants)
	{
		Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);

		if (grant->state == GRANT_RESERVED)
			strlcpy(detail, "it was being granted", sizeof(detail));
		else if (BlocksUntil(grant) > now)
			snprintf(detail, sizeof(detail), "%s token " INT64_FORMAT,
					 IsLive(grant, now) ? "held with" : "closed after", grant->token);
	}
	RecordVainBid(bid, request, EVENT_REFUSED, detail);
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
	if (finding == NAME_VACANT)
		finding = Occupy(acq, bid);
	else if (finding == NAME_TAKEN)
		finding = QueueUp(acq, bid);
	if (finding == NAME_TAKEN && request->wait == DO_NOT_WAIT)
		RecordRefusal(bid, request);
	else if (finding == NAME_OVERDUE && (acq->open.ledger != NULL || !IsDetached(about)))
		bid->grant = ClaimOverdue(&bid->lease, about) ? about : NULL;
	else if (finding == NAME_RETRIED)
		bid->token = about->token;
	else if (finding == NAME_HELD_HERE)
		HoldAgain(bid, about, request);
	UnlockName(&bid->lease);
	return finding;
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

/*
 * Have a spare grant in hand, filled in, if there is one; of the reserve, which
 * is for a queue only, if it must be.
 */
static bool
PrepareBid(Acquisition *acq, Bid *bid, bool for_queue)
{
	const LeaseRequest *request = acq->request;

	if (bid->spare.grant != NULL && !(bid->spare.from_reserve && !for_queue))
		return true;
	DropSpare(bid, request);
	if (!PrepareGrant(&bid->spare, &bid->lease, &request->labels, for_queue))
		return false;
	FillGrant(bid->spare.grant, request, acq->count);
	if (request->scope != SCOPE_DETACHED)
		PrepareHold(bid->spare.grant);
	return true;
}

/* The same, whatever has to be ended for it. */
static void
RequireBid(Acquisition *acq, Bid *bid, bool for_queue)
{
	while (!PrepareBid(acq, bid, for_queue))
	{
		OpenForWrite(acq);
		MakeRoom(&acq->open);
	}
}

/* The grant is ours to go on with, or held already. */
static void
TakeServed(Acquisition *acq, Bid *bid, const Waiter *waiter)
{
	bid->grant = waiter->grant;
	bid->token = waiter->token;
	bid->state = BID_RESERVED;
	if (bid->token != INVALID_TOKEN)
	{
		AddHold(&bid->lease, bid->grant, bid->token, acq->request->scope);
		bid->state = BID_HELD;
		bid->waiting_since = 0;
	}
}

/* Wait in the queue that we joined.  Returns false if we are to look again. */
static bool
AwaitTurn(Acquisition *acq, Bid *bid)
{
	Waiter	   *waiter = MyWaiter;
	bool		served;

	/* The name is in the table, and stays there as long as we wait. */
	bid->state = BID_QUEUED;
	acq->last_waited = bid;
	DiscardSpare(&bid->spare);
	CloseDatabase(&acq->open);
	WaitInQueue(&bid->lease, &bid->name, acq->request->labels.correlation_id, acq->give_up_at);
	served = WaiterState(waiter) == WAIT_SERVED;
	pg_read_barrier();
	if (served)
		TakeServed(acq, bid, waiter);
	else
	{
		bid->state = BID_NOTHING;
		bid->spare.grant = waiter->grant;
		DropSpare(bid, acq->request);
	}
	pg_atomic_write_u32(&waiter->state, WAIT_NONE);

	/* One that only its TTL would end is not for a client that has gone. */
	if (acq->request->scope == SCOPE_DETACHED)
		CheckClient();
	if (!served)
		OpenDatabaseForRead(&acq->open);
	return served;
}

/* Get hold of one name.  Returns false if it is taken, and we do not wait. */
static bool
Reserve(Acquisition *acq, Bid *bid)
{
	const LeaseRequest *request = acq->request;

	(void) PrepareBid(acq, bid, false);
	for (;;)
	{
		Finding		finding;

		/* What is claimed or held is ours to finish. */
		HOLD_INTERRUPTS();
		bid->grant = NULL;
		finding = Approach(acq, bid);
		if (finding == NAME_OVERDUE && bid->grant != NULL)
			FinishGrant(&acq->open, &bid->lease, bid->grant);
		else if (finding == NAME_HELD)
		{
			AddHold(&bid->lease, bid->grant, bid->token, request->scope);
			bid->state = BID_HELD;
		}
		RESUME_INTERRUPTS();

		switch (finding)
		{
			case NAME_VACANT:
				RequireBid(acq, bid, false);
				break;
			case NAME_UNLISTED:
				OpenForWrite(acq);
				MakeRoom(&acq->open);
				break;
			case NAME_RESERVED:
				bid->state = BID_RESERVED;
				return true;
			case NAME_HELD:
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
				RequireBid(acq, bid, true);
				break;
			case NAME_QUEUED:
				if (AwaitTurn(acq, bid))
					return true;
				(void) PrepareBid(acq, bid, false);
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
				Refuse(&bid->name, request, finding);
		}
	}
}

/* Give back the place in a queue, or what it brought. */
static void
AbandonQueue(Bid *bid, const LeaseRequest *request)
{
	Waiter	   *waiter = MyWaiter;
	Token		token = INVALID_TOKEN;
	EventKind	kind = StopWaiting();

	LockName(&bid->lease, LW_EXCLUSIVE);
	if (WaiterState(waiter) == WAIT_QUEUED)
		LeaveQueue(&bid->lease);
	bid->state = WaiterState(waiter) == WAIT_SERVED ? BID_RESERVED : BID_NOTHING;
	if (bid->state == BID_NOTHING)
		bid->spare.grant = waiter->grant;
	else
	{
		bid->grant = waiter->grant;
		token = waiter->token;
	}
	pg_atomic_write_u32(&waiter->state, WAIT_NONE);
	if (token == INVALID_TOKEN)
		RecordVainBid(bid, request, kind, NULL);
	bid->waiting_since = 0;
	UnlockName(&bid->lease);

	if (token != INVALID_TOKEN)
	{
		DiscardHold(bid->grant);
		AbandonHeld(&bid->lease, token);
		bid->state = BID_NOTHING;
	}
}

/* A wait that is over comes to nothing after all. */
static void
RecordLostWait(Bid *bid, const LeaseRequest *request)
{
	LockName(&bid->lease, LW_EXCLUSIVE);
	RecordVainBid(bid, request, EVENT_CANCELLED, NULL);
	UnlockName(&bid->lease);
	bid->waiting_since = 0;
}

/* Give back what a bid got. */
static void
AbandonBid(Acquisition *acq, Bid *bid)
{
	const LeaseRequest *request = acq->request;
	bool		detached = request->scope == SCOPE_DETACHED;

	if (bid->state == BID_QUEUED)
		AbandonQueue(bid, request);
	if (bid->state == BID_COUNTED || (bid->state == BID_HELD && !detached))
		GiveUpHold(bid->grant, bid->token, request->scope);
	else if (bid->state == BID_HELD)
		AbandonHeld(&bid->lease, bid->token);
	else if (bid->state == BID_RESERVED)
	{
		if (!detached)
			DiscardHold(bid->grant);
		AbandonGrant(&bid->lease, bid->grant, bid->has_row);
	}
	if (bid == acq->last_waited && bid->waiting_since != 0)
		RecordLostWait(bid, request);
	bid->state = BID_NOTHING;
	DropSpare(bid, request);
}

/* Give back all that an acquisition has got so far; once, or again. */
static void
AbandonAcquisition(int code pg_attribute_unused(), Datum arg)
{
	Acquisition *acq = (Acquisition *) DatumGetPointer(arg);

	for (int i = 0; i < acq->count; i++)
		AbandonBid(acq, &acq->bids[i]);
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
			Bid		   *bid = &acq->bids[i];

			bid->state = BID_NOTHING;
			TakeBackUnconfirmed(&acq->open, &bid->lease, bid->grant);
			LockName(&bid->lease, LW_EXCLUSIVE);
			RecordVainBid(bid, acq->request, EVENT_CANCELLED, "no standby confirmed it");
			bid->waiting_since = 0;
			UnlockName(&bid->lease);
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
		StartHolding(&bid->lease, bid->grant, now, EVENT_ACQUIRED, bid->waiting_since);
		UnlockName(&bid->lease);
		AnnounceSettled(&bid->lease);
		if (acq->request->scope != SCOPE_DETACHED)
			AddHold(&bid->lease, bid->grant, bid->token, acq->request->scope);
		bid->state = BID_HELD;
		bid->waiting_since = 0;
	}
}

/*
 * What the transaction is to hold until its end it also guards.  An error leaves
 * nothing guarded.
 */
static void
GuardBids(Acquisition *acq)
{
	for (int i = 0; i < acq->count; i++)
		if (acq->bids[i].state != BID_RENEWED)
			RequireFreshSnapshot(&acq->bids[i].lease, acq->bids[i].grant->serial);
	for (int i = 0; i < acq->count; i++)
		if (acq->bids[i].state != BID_RENEWED)
			AddGuard(&acq->bids[i].lease, acq->bids[i].token, GuardModeOf(acq->bids[i].grant));
}

/*
 * Get hold of all names.  Those that an earlier call got run while we wait for
 * others, so their TTLs start anew once more, and what was lost is asked for
 * again.
 */
static bool
ReserveAll(Acquisition *acq)
{
	bool		lost;

	do
	{
		lost = false;
		for (int i = 0; i < acq->count; i++)
			if (acq->bids[i].state == BID_NOTHING && !Reserve(acq, &acq->bids[i]))
				return false;
		for (int i = 0; i < acq->count && acq->count > 1; i++)
		{
			Bid		   *bid = &acq->bids[i];

			if (bid->state != BID_RENEWED ||
				RenewLease(&bid->name, bid->token, acq->request->ttl) != LEASE_LOST)
				continue;
			bid->state = BID_NOTHING;
			lost = true;
		}
	} while (lost);
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
	if (acq->request->scope == SCOPE_TRANSACTION)
		GuardBids(acq);
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
		EnableHolds(count);
		if (request->scope == SCOPE_TRANSACTION)
			ReserveGuards(count);
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
