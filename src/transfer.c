/*-------------------------------------------------------------------------
 *
 * transfer.c
 *	  Policy for handing a lease over to another holder.
 *
 * The successor is reserved, published and made durable while the former grant
 * is still held; then it takes its place under the partition's lock.  What comes
 * in between leaves the lease with one of the two.
 *
 * A transfer may find that the same transfer is just being made; that takes as
 * long as writing a row, and is waited for.  So are commits in flight that the
 * former grant guards, as long as its TTL lasts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "lessor.h"
#include "transfer.h"

/* The grant of a name that a transfer made, or is making, out of a token. */
static Grant *
FindSuccessor(const LeaseName *lease, Token token)
{
	Resource   *resource = FindResource(lease);
	dlist_iter	iter;

	if (resource == NULL)
		return NULL;
	dlist_foreach(iter, &resource->grants)
	{
		Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);

		if (grant->replaces == token &&
			(grant->state == GRANT_RESERVED || IsLive(grant, MonotonicNow())))
			return grant;
	}
	return NULL;
}

/* Fill in a grant that was just reserved to replace another. */
static void
FillSuccessor(Grant *grant, const Grant *former)
{
	StampGrant(grant, former->ttl);
	grant->acquired_at = GetCurrentTimestamp();
	grant->scope = former->scope;
	grant->replaces = former->token;
	grant->lock_delay = former->lock_delay;
	grant->min_hold = former->min_hold;
	grant->owner = former->owner;
	grant->has_metadata = former->has_metadata;
}

/*
 * Reserve a grant that is to replace one with a token.  If the same transfer
 * was done before, *done is the token it gave; if the lease is lost, the result
 * is NULL and *done invalid.  info and metadata describe the grant as it was.
 */
static Grant *
ReserveTransfer(LeaseDatabase *open, const LeaseName *lease, Token token,
				const Span *to_holder, GrantInfo *info, Span *metadata, Token *done)
{
	Oid			cleared = GetUserId();
	SpareGrant	spare = {.name = NO_CHUNK};

	*done = INVALID_TOKEN;
	for (;;)
	{
		Grant	   *former = LockLiveGrant(lease, token, &cleared);
		bool		bound = former != NULL && !IsDetached(former);
		Grant	   *successor = FindSuccessor(lease, token);
		Grant	   *grant = NULL;
		bool		unlisted = false;
		bool		settling = successor != NULL && successor->state == GRANT_RESERVED;
		Oid			owner = InvalidOid;

		if (successor != NULL && !settling && HasHolder(successor, to_holder))
		{
			*done = successor->token;
			owner = successor->owner;
		}
		if (successor == NULL && former != NULL && !bound && spare.grant != NULL)
		{
			spare.grant->permits = former->permits;
			grant = LinkGrant(lease, &spare, former->resource->capacity);
			unlisted = grant == NULL;
		}
		if (grant != NULL)
			FillSuccessor(grant, former);
		UnlockName(lease);
		DiscardSpare(&spare);

		if (bound)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("cannot transfer lease \"%.*s\"",
							(int) lease->key.length, lease->key.at.probe),
					 errdetail("It ends with the session or transaction that took it; only leases of scope \"detached\" can be handed over.")));
		if (*done != INVALID_TOKEN)
			RequireOwner(lease, owner);
		if (grant != NULL || *done != INVALID_TOKEN)
			return grant;
		if (settling)
		{
			RESUME_INTERRUPTS();
			AwaitSettled(lease);
			HOLD_INTERRUPTS();
		}
		else if (former == NULL)
			return NULL;
		else if (unlisted)
			MakeRoom(open);
		else if (CopyWithMetadata(open, lease, token, &cleared, info, metadata))
		{
			GrantLabels labels = {*to_holder, SpanOf(""), SpanOf(info->correlation_id)};

			while (!PrepareGrant(&spare, lease, &labels, true))
				MakeRoom(open);
		}
	}
}

/*
 * Give a grant that is to replace another its token and its durable row, or
 * raise an error with the grant given back.
 */
static void
PublishSuccessor(LeaseDatabase *open, const LeaseName *lease, Grant *grant, LedgerRow *row)
{
	volatile bool durable = false;
	bool		has_row = false;

	PG_TRY();
	{
		WriteGrant(open, grant, row, &has_row);
		durable = FlushLedger(grant->lsn);
	}
	PG_CATCH();
	{
		AbandonGrant(lease, grant, has_row);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (!durable)
	{
		TakeBackUnconfirmed(open, lease, grant);
		RefuseUnconfirmed();
	}
}

/* A transfer that is published, and not done yet. */
typedef struct Handover
{
	const LeaseName *lease;
	Token		token;			/* what it replaces */
	Grant	   *grant;			/* by this */
} Handover;

/*
 * Do commits in flight pin a grant that has its TTL?  Then it is taken from its
 * holder, so that no new pins can come.
 */
static bool
AwaitsPins(const Handover *handover, MonoTime *deadline)
{
	Grant	   *former;
	bool		pinned = false;

	LockName(handover->lease, LW_EXCLUSIVE);
	former = FindGrant(handover->lease, handover->token);
	if (former != NULL && former->state == GRANT_HELD)
	{
		*deadline = former->deadline;
		pinned = former->pins > 0 && *deadline > MonotonicNow();
		if (pinned)
			former->leaving = true;
	}
	UnlockName(handover->lease);
	return pinned;
}

/* The wait for them was cut short: it is as if nothing had been done. */
static void
AbandonHandover(int code pg_attribute_unused(), Datum arg)
{
	Handover   *handover = (Handover *) DatumGetPointer(arg);
	Grant	   *former;

	LockName(handover->lease, LW_EXCLUSIVE);
	former = FindGrant(handover->lease, handover->token);
	if (former != NULL)
		former->leaving = false;
	UnlockName(handover->lease);
	AbandonGrant(handover->lease, handover->grant, true);
}

/*
 * See that no commit is in flight under a grant that is to be replaced.  If one
 * was, no other will be.
 */
static void
AwaitUnpinned(const LeaseName *lease, Token token, Grant *grant)
{
	Handover	handover = {lease, token, grant};
	MonoTime	deadline;

	if (!AwaitsPins(&handover, &deadline))
		return;
	PG_ENSURE_ERROR_CLEANUP(AbandonHandover, PointerGetDatum(&handover));
	{
		RESUME_INTERRUPTS();
		do
			AwaitSettledUntil(lease, deadline);
		while (AwaitsPins(&handover, &deadline));
		HOLD_INTERRUPTS();
	}
	PG_END_ENSURE_ERROR_CLEANUP(AbandonHandover, PointerGetDatum(&handover));
}

/*
 * Let a published grant take the place of the one it replaces, if that was not
 * ended otherwise (*replaced).  Returns false if a commit in flight pins it now:
 * then nothing is done.
 */
static bool
ReplaceGrant(LeaseDatabase *open, const LeaseName *lease, Token token, Grant *grant,
			 const Span *to_holder, bool *replaced)
{
	Grant	   *former;
	MonoTime	now;
	char		detail[LEASE_LABEL_MAX + 64];

	snprintf(detail, sizeof(detail), "to \"%.*s\" with token " INT64_FORMAT,
			 (int) to_holder->length, to_holder->data, grant->token);

	LockName(lease, LW_EXCLUSIVE);
	now = MonotonicNow();
	former = FindGrant(lease, token);
	if (former != NULL && (former->state != GRANT_HELD || former->deadline <= now))
		former = NULL;
	if (former != NULL && former->pins > 0)
	{
		UnlockName(lease);
		return false;
	}
	*replaced = former != NULL;
	if (former != NULL)
	{
		ClaimHeld(lease, former, 0, EVENT_TRANSFERRED, detail);
		StartHolding(lease, grant, now, EVENT_RECEIVED, 0);
	}
	else
		ClaimReserved(grant);
	UnlockName(lease);
	AnnounceSettled(lease);
	FinishGrant(open, lease, former != NULL ? former : grant);
	return true;
}

/*
 * Hand a lease over to another holder.  Returns the new holder's token, or
 * INVALID_TOKEN if the lease is lost.
 */
Token
TransferLease(const Span *name, Token token, const Span *to_holder)
{
	LeaseDatabase open;
	LeaseName	lease;
	GrantInfo	info;
	Span		metadata;
	Token		new_token;
	Grant	   *grant;

	OpenNameForWrite(name, &open, &lease);
	HOLD_INTERRUPTS();
	grant = ReserveTransfer(&open, &lease, token, to_holder, &info, &metadata, &new_token);
	if (grant != NULL)
	{
		LedgerRow	row;
		bool		replaced;

		DescribeGrant(&info, &row);
		row.holder = *to_holder;
		row.request_id = SpanOf("");
		row.metadata = metadata;
		row.replaces = token;
		row.ttl = grant->ttl;
		row.granted_at = grant->acquired_at;
		PublishSuccessor(&open, &lease, grant, &row);
		do
			AwaitUnpinned(&lease, token, grant);
		while (!ReplaceGrant(&open, &lease, token, grant, to_holder, &replaced));
		new_token = replaced ? row.token : INVALID_TOKEN;
	}
	RESUME_INTERRUPTS();
	ConditionVariableCancelSleep();
	CloseDatabase(&open);
	return new_token;
}
