/*-------------------------------------------------------------------------
 *
 * lessor.c
 *	  The one place of policy: acquire, renew, release, transfer.
 *
 * Each function here finds out under the partition's lock what may be done,
 * and does it in the steps of grant.c.  They hold interrupts from when a grant
 * is theirs until it is settled.
 *
 * Nobody here waits for a holder.  A name may be found settling, though: one
 * process is in the middle of ending a dead grant, or is making the very grant
 * that is asked for.  That takes as long as writing a row, and is waited for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "lessor.h"

/* How many dead grants an acquirer ends to make room, at the most. */
#define MAKE_ROOM_BATCH		64

/* The name's live grant with a token, or NULL.  Under the partition's lock. */
static Grant *
FindLiveGrant(const LeaseName *lease, Token token)
{
	Grant	   *grant = FindGrant(lease, token);

	return grant != NULL && IsLive(grant, MonotonicNow()) ? grant : NULL;
}

static void
RequireOwner(const LeaseName *lease, Oid owner)
{
	if (has_privs_of_role(GetUserId(), owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for lease \"%.*s\"",
					(int) lease->key.length, lease->key.probe),
			 errdetail("Only roles with the privileges of the role that took it may do that.")));
}

/*
 * Lock a name and find its live grant with a token; NULL, still locked, if it
 * is lost.  An error, unlocked, if the current role must not touch it.
 *
 * cleared is a role whose privileges we are known to have, to begin with our
 * own: catalogs cannot be asked under the lock.
 */
static Grant *
LockLiveGrant(const LeaseName *lease, Token token, Oid *cleared)
{
	for (;;)
	{
		Grant	   *grant;
		Oid			owner;

		LockName(lease, LW_EXCLUSIVE);
		grant = FindLiveGrant(lease, token);
		if (grant == NULL || grant->owner == *cleared)
			return grant;
		owner = grant->owner;
		UnlockName(lease);
		RequireOwner(lease, owner);
		*cleared = owner;
	}
}

/* What an acquirer finds. */
typedef enum Finding
{
	NAME_VACANT,				/* nothing in the way */
	NAME_UNLISTED,				/* the same, but the name table is full */
	NAME_RESERVED,				/* nothing in the way, and now reserved for us */
	NAME_OVERDUE,				/* a dead grant in the way, now claimed by us */
	NAME_SETTLING,				/* somebody is writing; look again after that */
	NAME_TAKEN,					/* held, being granted, or closed */
	NAME_OURS					/* held under the same request id */
} Finding;

static bool
IsSameRequest(const Grant *grant, const LeaseRequest *request)
{
	return grant->owner == GetUserId() && HasRequestId(grant, &request->labels.request_id);
}

/* What does one grant of a name mean for a request? */
static Finding
JudgeGrant(const Grant *grant, const LeaseRequest *request, MonoTime now)
{
	if (grant->state == GRANT_RESERVED)
		return IsSameRequest(grant, request) ? NAME_SETTLING : NAME_TAKEN;
	if (grant->state == GRANT_ENDING)
		return grant->deadline > now ? NAME_TAKEN : NAME_SETTLING;
	if (IsLive(grant, now))
		return IsSameRequest(grant, request) ? NAME_OURS : NAME_TAKEN;
	return BlocksUntil(grant) > now ? NAME_TAKEN : NAME_OVERDUE;
}

/* The most serious finding about a name, and the grant it is about. */
static Finding
JudgeName(const LeaseName *lease, const LeaseRequest *request, Grant **about)
{
	Resource   *resource = FindResource(lease);
	MonoTime	now = MonotonicNow();
	Finding		worst = NAME_VACANT;
	dlist_iter	iter;

	*about = NULL;
	if (resource == NULL)
		return NAME_VACANT;
	dlist_foreach(iter, &resource->grants)
	{
		Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);
		Finding		finding = JudgeGrant(grant, request, now);

		if (finding > worst)
		{
			worst = finding;
			*about = grant;
		}
	}
	return worst;
}

/* What every grant that was just reserved begins with. */
static void
StampGrant(Grant *grant, int64 ttl)
{
	grant->ttl = ttl;
	grant->ledger_ttl = ttl;
	grant->pid = MyProcPid;
	grant->acquired_at = GetCurrentTimestamp();
	grant->renewed_at = 0;
	grant->renewals = 0;
}

/* Fill in a grant that was just reserved for a request. */
static void
FillGrant(Grant *grant, const LeaseRequest *request)
{
	StampGrant(grant, request->ttl);
	grant->lock_delay = request->lock_delay;
	grant->min_hold = request->min_hold;
	grant->owner = GetUserId();
	grant->has_metadata = request->metadata.length > 0;
}

/*
 * Look at a name once, and take the step that the finding allows: reserve it
 * with the spare grant, if there is one, or claim what is dead.  The grant that
 * this leaves to us is in *grant; of a grant that is ours already, *token.
 */
static Finding
ApproachName(const LeaseName *lease, const LeaseRequest *request, SpareGrant *spare,
			 Grant **grant, Token *token)
{
	Finding		finding;
	bool		other_holder = false;

	LockName(lease, LW_EXCLUSIVE);
	finding = JudgeName(lease, request, grant);
	if (finding == NAME_VACANT && spare->grant != NULL)
	{
		*grant = LinkGrant(lease, spare);
		if (*grant != NULL)
			FillGrant(*grant, request);
		finding = *grant != NULL ? NAME_RESERVED : NAME_UNLISTED;
	}
	else if (finding == NAME_OVERDUE)
		ClaimGrant(*grant, 0);
	else if (finding == NAME_OURS)
	{
		*token = (*grant)->token;
		other_holder = !request->holder_is_default &&
			!HasHolder(*grant, &request->labels.holder);
	}
	UnlockName(lease);
	DiscardSpare(spare);

	if (other_holder)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("request id \"%.*s\" was used for lease \"%.*s\" with another holder than \"%.*s\"",
						(int) request->labels.request_id.length, request->labels.request_id.data,
						(int) request->name.length, request->name.data,
						(int) request->labels.holder.length, request->labels.holder.data)));
	return finding;
}

/* The table or its strings are full: end what is dead, or give up. */
static void
MakeRoom(LeaseDatabase *open)
{
	MonoTime	now = MonotonicNow();

	for (int i = 0; i < NUM_PARTITIONS; i++)
		ExpireGrants(i, now);
	if (ReapGrants(open, MAKE_ROOM_BATCH) > 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("the lease table or its string space is full: %u of %d leases are in use",
					Min(CountUsedGrants(), (uint32) MaxLeases), MaxLeases),
			 errhint("Raise lease.max_leases and restart the server.")));
}

static Token
GrantReserved(LeaseDatabase *open, const LeaseName *lease, Grant *grant,
			  const LeaseRequest *request)
{
	LedgerRow	row = {
		.name = request->name,
		.holder = request->labels.holder,
		.request_id = request->labels.request_id,
		.correlation_id = request->labels.correlation_id,
		.metadata = request->metadata,
		.owner = grant->owner,
		.ttl = grant->ttl,
		.lock_delay = grant->lock_delay,
		.min_hold = grant->min_hold,
		.granted_at = grant->acquired_at
	};

	PublishGrant(open, lease, grant, &row);
	LockName(lease, LW_EXCLUSIVE);
	StartHolding(grant);
	UnlockName(lease);
	AnnounceSettled(lease);
	return row.token;
}

/* Wait until some grant of the name's partition went on, and look again. */
static void
AwaitSettled(const LeaseName *lease)
{
	RESUME_INTERRUPTS();
	ConditionVariableSleep(&NamePartition(lease)->settled, NamedWaitEvent("LeaseSettled"));
	HOLD_INTERRUPTS();
}

/* The acquirer's loop, with interrupts held. */
static Token
TryUntilSettled(LeaseDatabase *open, const LeaseName *lease, const LeaseRequest *request)
{
	SpareGrant	spare = {NULL, NO_CHUNK};

	for (;;)
	{
		Grant	   *grant;
		Token		token = INVALID_TOKEN;

		switch (ApproachName(lease, request, &spare, &grant, &token))
		{
			case NAME_TAKEN:
				return INVALID_TOKEN;
			case NAME_RESERVED:
				return GrantReserved(open, lease, grant, request);
			case NAME_OURS:
				if (RenewLease(&request->name, token, request->ttl) != LEASE_LOST)
					return token;
				break;
			case NAME_OVERDUE:
				FinishGrant(open, lease, grant);
				break;
			case NAME_SETTLING:
				AwaitSettled(lease);
				break;
			case NAME_UNLISTED:
				MakeRoom(open);
				break;
			case NAME_VACANT:
				while (!PrepareGrant(&spare, lease, &request->labels, false))
					MakeRoom(open);
				break;
		}
	}
}

/*
 * Grant a lease, or return INVALID_TOKEN if the name is taken.
 *
 * A retry (same name, role and request id, while the grant lives) returns the
 * same token with a fresh TTL.
 */
Token
TryAcquireLease(const LeaseRequest *request)
{
	LeaseDatabase open;
	LeaseName	lease;
	Token		token;

	OpenNameForWrite(&request->name, &open, &lease);
	HOLD_INTERRUPTS();
	token = TryUntilSettled(&open, &lease, request);
	RESUME_INTERRUPTS();
	ConditionVariableCancelSleep();
	CloseDatabase(&open);
	return token;
}

/*
 * Copy a live grant together with its metadata.  Returns false if it is lost.
 * A renewal may move the row between the two looks: then look again.
 */
static bool
CopyWithMetadata(LeaseDatabase *open, const LeaseName *lease, Token token, Oid *cleared,
				 GrantInfo *info, Span *metadata)
{
	for (;;)
	{
		Grant	   *grant = LockLiveGrant(lease, token, cleared);
		char	   *text;

		if (grant != NULL)
			CopyGrant(grant, info);
		UnlockName(lease);
		*metadata = SpanOf("");
		if (grant == NULL)
			return false;
		if (!info->grant.has_metadata)
			return true;
		text = FetchMetadata(open->ledger, &info->grant.tid, token);
		if (text != NULL)
		{
			*metadata = SpanOf(text);
			return true;
		}
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Renew with a longer TTL than the ledger would give back after a crash: its
 * row is written anew, and is durable before the holder hears of it.
 */
static int64
RenewWithNewRow(LeaseDatabase *open, const LeaseName *lease, Token token, int64 ttl, Oid *cleared)
{
	GrantInfo	info;
	LedgerRow	row;
	Span		metadata;
	ItemPointerData tid;
	XLogRecPtr	lsn;
	Grant	   *grant;
	bool		durable;

	if (!CopyWithMetadata(open, lease, token, cleared, &info, &metadata))
		return LEASE_LOST;
	DescribeGrant(&info, &row);
	row.kind = LEDGER_GRANT;
	row.token = token;
	row.ttl = ttl;
	row.metadata = metadata;

	HOLD_INTERRUPTS();
	lsn = AppendRow(open->ledger, &row, &tid);
	durable = FlushLedger(lsn);

	/* Swap the rows; without a grant, or in vain, the new one goes. */
	LockName(lease, LW_EXCLUSIVE);
	grant = FindLiveGrant(lease, token);
	if (grant != NULL && durable)
	{
		ItemPointerData former = grant->tid;

		grant->tid = tid;
		grant->lsn = lsn;
		grant->ledger_ttl = ttl;
		RestartTtl(grant, ttl);
		tid = former;
	}
	UnlockName(lease);
	EndRow(open->ledger, &tid, token);
	if (!durable)
		RefuseUnconfirmed();
	RESUME_INTERRUPTS();
	return grant != NULL ? ttl : LEASE_LOST;
}

/*
 * Start a lease's TTL anew; OWN_TTL is the one it has.  Returns the TTL now
 * running, or LEASE_LOST.
 */
int64
RenewLease(const Span *name, Token token, int64 ttl)
{
	LeaseDatabase open;
	LeaseName	lease;
	Oid			cleared = GetUserId();
	Grant	   *grant;
	bool		needs_row = false;

	OpenNameForRead(name, &open, &lease);
	grant = LockLiveGrant(&lease, token, &cleared);
	if (grant != NULL)
	{
		if (ttl == OWN_TTL)
			ttl = grant->ttl;
		needs_row = ttl > grant->ledger_ttl;
		if (!needs_row)
			RestartTtl(grant, ttl);
	}
	UnlockName(&lease);
	if (grant == NULL)
		return LEASE_LOST;

	if (needs_row)
	{
		OpenDatabaseForWrite(&open);
		ttl = RenewWithNewRow(&open, &lease, token, ttl, &cleared);
		CloseDatabase(&open);
	}
	return ttl;
}

/*
 * End a lease.  Returns false if it was lost before.  The end is in WAL but not
 * flushed: a crash may undo it, and the name is then taken for one more TTL.
 */
bool
ReleaseLease(const Span *name, Token token)
{
	LeaseDatabase open;
	LeaseName	lease;
	Oid			cleared = GetUserId();
	Grant	   *grant;

	OpenNameForWrite(name, &open, &lease);
	HOLD_INTERRUPTS();
	grant = LockLiveGrant(&lease, token, &cleared);
	if (grant != NULL)
		ClaimGrant(grant, OpensAt(grant, 0, false));
	UnlockName(&lease);
	if (grant != NULL)
		FinishGrant(&open, &lease, grant);
	RESUME_INTERRUPTS();
	CloseDatabase(&open);
	return grant != NULL;
}

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
	SpareGrant	spare = {NULL, NO_CHUNK};

	*done = INVALID_TOKEN;
	for (;;)
	{
		Grant	   *former = LockLiveGrant(lease, token, &cleared);
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
		if (successor == NULL && former != NULL && spare.grant != NULL)
		{
			grant = LinkGrant(lease, &spare);
			unlisted = grant == NULL;
		}
		if (grant != NULL)
			FillSuccessor(grant, former);
		UnlockName(lease);
		DiscardSpare(&spare);

		if (*done != INVALID_TOKEN)
			RequireOwner(lease, owner);
		if (grant != NULL || *done != INVALID_TOKEN)
			return grant;
		if (settling)
			AwaitSettled(lease);
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

/* Let a published grant take the place of the one it replaces, if that lives. */
static bool
ReplaceGrant(LeaseDatabase *open, const LeaseName *lease, Token token, Grant *grant)
{
	Grant	   *former;

	LockName(lease, LW_EXCLUSIVE);
	former = FindLiveGrant(lease, token);
	if (former != NULL)
	{
		ClaimGrant(former, 0);
		StartHolding(grant);
	}
	else
		ClaimReserved(grant);
	UnlockName(lease);
	AnnounceSettled(lease);
	FinishGrant(open, lease, former != NULL ? former : grant);
	return former != NULL;
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

		DescribeGrant(&info, &row);
		row.holder = *to_holder;
		row.request_id = SpanOf("");
		row.metadata = metadata;
		row.replaces = token;
		row.ttl = grant->ttl;
		row.granted_at = grant->acquired_at;
		PublishGrant(&open, &lease, grant, &row);
		new_token = row.token;
		if (!ReplaceGrant(&open, &lease, token, grant))
			new_token = INVALID_TOKEN;
	}
	RESUME_INTERRUPTS();
	ConditionVariableCancelSleep();
	CloseDatabase(&open);
	return new_token;
}

/*
 * Claim one grant that a forced release is to end: a live one, or, to reopen
 * the name, one that keeps it closed.  NULL if there is none (left).
 */
static Grant *
ClaimByForce(const LeaseName *lease, Token token, bool reopen, GrantInfo *info, bool *was_live)
{
	Resource   *resource;
	Grant	   *claimed = NULL;
	MonoTime	now;
	dlist_iter	iter;

	LockName(lease, LW_EXCLUSIVE);
	now = MonotonicNow();
	resource = FindResource(lease);
	if (resource != NULL)
	{
		dlist_foreach(iter, &resource->grants)
		{
			Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);

			if (grant->state == GRANT_RESERVED || grant->state == GRANT_ENDING)
				continue;
			if (token != INVALID_TOKEN && grant->token != token)
				continue;
			*was_live = IsLive(grant, now);
			if (*was_live || (reopen && BlocksUntil(grant) > now))
			{
				claimed = grant;
				break;
			}
		}
	}
	if (claimed != NULL)
	{
		CopyGrant(claimed, info);
		ClaimGrant(claimed, reopen ? 0 : OpensAt(claimed, now, true));
	}
	UnlockName(lease);
	return claimed;
}

/* Record that a closed name was opened. */
static void
ReportReopened(const GrantInfo *info, const char *reason)
{
	ereport(LOG,
			(errmsg("lease name \"%s\", closed after token " INT64_FORMAT " of holder \"%s\", was opened by force: %s",
					info->name, info->grant.token, info->holder, reason),
			 errhidestmt(true)));
}

/* Record a forced release, and tell its caller what the holder may believe. */
static void
ReportForced(const GrantInfo *info, const char *reason)
{
	MonoTime	now = MonotonicNow();
	char	   *until = pstrdup(timestamptz_to_str(WallTimeOf(info->grant.deadline, now)));
	double		seconds = (info->grant.deadline - now) / (double) USECS_PER_SEC;

	ereport(LOG,
			(errmsg("lease \"%s\" with token " INT64_FORMAT " of holder \"%s\" was released by force: %s",
					info->name, info->grant.token, info->holder, reason),
			 errhidestmt(true)));
	ereport(NOTICE,
			(errmsg("holder \"%s\" may still act on lease \"%s\" with token " INT64_FORMAT " until %s",
					info->holder, info->name, info->grant.token, until),
			 errdetail("It learns of the loss at its next renewal, at the latest in %.3f seconds.",
					   Max(seconds, 0.0))));
}

/*
 * End the grants of a name, or the one with a token, whatever their holders
 * think.  Returns how many there were.
 */
int
ForceReleaseLease(const Span *name, Token token, const char *reason, bool reopen)
{
	LeaseDatabase open;
	LeaseName	lease;
	GrantInfo	info;
	Grant	   *grant;
	bool		was_live;
	int			count = 0;

	OpenNameForWrite(name, &open, &lease);
	HOLD_INTERRUPTS();
	while ((grant = ClaimByForce(&lease, token, reopen, &info, &was_live)) != NULL)
	{
		XLogRecPtr	lsn = FinishGrant(&open, &lease, grant);

		/*
		 * Unlike a release, it must not come undone.  A cancelled wait for a
		 * standby warns, and leaves it done here.
		 */
		XLogFlush(lsn);
		FlushLedger(lsn);
		if (was_live)
		{
			ReportForced(&info, reason);
			count++;
		}
		else
			ReportReopened(&info, reason);
	}
	RESUME_INTERRUPTS();
	CloseDatabase(&open);
	return count;
}

/* Is the lease held with the token, now? */
bool
IsLeaseHeld(const Span *name, Token token)
{
	LeaseDatabase open;
	LeaseName	lease;
	bool		held;

	OpenNameForRead(name, &open, &lease);
	LockName(&lease, LW_SHARED);
	held = FindLiveGrant(&lease, token) != NULL;
	UnlockName(&lease);
	return held;
}

/* Raise an error if the lease is live and not ours to act on. */
void
RequireLeaseOwner(const Span *name, Token token)
{
	LeaseDatabase open;
	LeaseName	lease;
	Oid			cleared = GetUserId();

	OpenNameForRead(name, &open, &lease);
	LockLiveGrant(&lease, token, &cleared);
	UnlockName(&lease);
}

/* Lift all future tokens into a new epoch, which is returned. */
int64
BeginEpoch(const char *reason)
{
	LeaseDatabase open;
	Token		next;

	OpenDatabaseForWrite(&open);
	next = (TokenEpoch((Token) pg_atomic_read_u64(&open.db->next)) + 1) << TOKEN_EPOCH_BITS;
	next = Max(next, TokenClock());
	HOLD_INTERRUPTS();
	RaiseTokens(open.db, open.ledger, next);
	RESUME_INTERRUPTS();
	CloseDatabase(&open);
	ereport(LOG,
			(errmsg("lease tokens were lifted to epoch " INT64_FORMAT ": %s",
					TokenEpoch(next), reason),
			 errhidestmt(true)));
	return TokenEpoch(next);
}
