/*-------------------------------------------------------------------------
 *
 * lessor.c
 *	  Policy for who holds a lease: renew, release, guard; and force.  To hand it
 *	  over is in transfer.c.
 *
 * Each function here finds out under the partition's lock what may be done,
 * and does it in the steps of grant.c.  They hold interrupts from when a grant
 * is theirs until it is settled.
 *
 * Nobody here waits for a holder.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

#include "caller.h"
#include "clock.h"
#include "lessor.h"
#include "session.h"

/* The name's live grant with a token, or NULL.  Under the partition's lock. */
static Grant *
FindLiveGrant(const LeaseName *lease, Token token)
{
	Grant	   *grant = FindGrant(lease, token);

	return grant != NULL && IsLive(grant, MonotonicNow()) ? grant : NULL;
}

/* Raise an error if the current role must not act on what another took. */
void
RequireOwner(const LeaseName *lease, Oid owner)
{
	if (has_privs_of_role(GetUserId(), owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for lease \"%.*s\"",
					(int) lease->key.length, lease->key.at.probe),
			 errdetail("Only roles with the privileges of the role that took it may do that.")));
}

/*
 * Lock a name and find its live grant with a token; NULL, still locked, if it
 * is lost.  An error, unlocked, if the current role must not touch it.
 *
 * cleared is a role whose privileges we are known to have, to begin with our
 * own: catalogs cannot be asked under the lock.
 */
Grant *
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

/* What every grant that was just reserved begins with. */
void
StampGrant(Grant *grant, int64 ttl)
{
	grant->ttl = ttl;
	grant->ledger_ttl = ttl;
	grant->pid = MyProcPid;
	grant->renewals = 0;
}

/*
 * Copy a live grant together with its metadata.  Returns false if it is lost.
 * A renewal may move the row between the two looks: then look again.
 */
bool
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
 * Write the row of a live grant anew, with the capacity that its name has now;
 * it is durable when we return.  A TTL is started anew, OWN_TTL leaves it as it
 * is.  Returns false if the lease is lost.
 */
bool
RewriteRow(LeaseDatabase *open, const LeaseName *lease, Token token, int64 ttl, Oid *cleared)
{
	GrantInfo	info;
	LedgerRow	row;
	Span		metadata;
	ItemPointerData tid;
	XLogRecPtr	lsn;
	Grant	   *grant;
	bool		durable;

	if (!CopyWithMetadata(open, lease, token, cleared, &info, &metadata))
		return false;
	DescribeGrant(&info, &row);
	row.kind = LEDGER_GRANT;
	row.token = token;
	row.ttl = ttl != OWN_TTL ? ttl : info.grant.ledger_ttl;
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
		grant->ledger_ttl = row.ttl;
		grant->ledger_capacity = row.capacity;
		if (ttl != OWN_TTL)
			RestartTtl(lease, grant, ttl);
		tid = former;
	}
	UnlockName(lease);
	EndRow(open->ledger, &tid, token);
	if (!durable)
		RefuseUnconfirmed();
	RESUME_INTERRUPTS();
	return grant != NULL;
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
		needs_row = IsDetached(grant) && ttl > grant->ledger_ttl;
		if (!needs_row)
			RestartTtl(&lease, grant, ttl);
	}
	UnlockName(&lease);
	if (grant == NULL)
		return LEASE_LOST;

	/* It is to give the lease back after a crash for as long as was promised. */
	if (needs_row)
	{
		bool		renewed;

		OpenDatabaseForWrite(&open);
		renewed = RewriteRow(&open, &lease, token, ttl, &cleared);
		CloseDatabase(&open);
		if (!renewed)
			return LEASE_LOST;
	}
	return ttl;
}

/*
 * Release a live grant as far as the table goes.  Returns true if it is claimed,
 * and its row is ours to end.
 */
static bool
ReleaseGrant(const LeaseName *lease, Grant *grant, bool guarded)
{
	if (IsOurHold(grant))
	{
		if (TakeOffHold(grant, guarded) == HOLD_OVER)
			EndHeld(lease, grant, EVENT_RELEASED, NULL);
	}
	else if (guarded)
		ReleaseAtEnd(lease, grant->token);
	else if (IsDetached(grant))
	{
		ClaimHeld(lease, grant, OpensAt(grant, 0, false), EVENT_RELEASED, NULL);
		return true;
	}
	else
		EndHeld(lease, grant, EVENT_RELEASED, NULL);
	return false;
}

/*
 * End a lease, or take one hold off it if our session acquired it repeatedly; if
 * our transaction guards it, then when that is over.  Returns false if it was
 * lost before.  The end is in WAL but not flushed: a crash may undo it, and the
 * name is then taken for one more TTL.
 */
bool
ReleaseLease(const Span *name, Token token)
{
	LeaseDatabase open;
	LeaseName	lease;
	Oid			cleared = GetUserId();
	Grant	   *grant;
	bool		guarded;
	bool		claimed;

	/* What our session holds has no row, probably. */
	if (HoldsLeases())
		OpenNameForRead(name, &open, &lease);
	else
		OpenNameForWrite(name, &open, &lease);
	guarded = IsGuarded(&lease, token);
	if (guarded && HoldsLeases())
		EnableHolds(1);
	HOLD_INTERRUPTS();
	grant = LockLiveGrant(&lease, token, &cleared);
	if (grant != NULL && IsDetached(grant) && open.ledger == NULL)
	{
		UnlockName(&lease);
		OpenDatabaseForWrite(&open);
		grant = LockLiveGrant(&lease, token, &cleared);
	}
	claimed = grant != NULL && ReleaseGrant(&lease, grant, guarded);
	UnlockName(&lease);
	if (claimed)
		FinishGrant(&open, &lease, grant);
	RESUME_INTERRUPTS();
	CloseDatabase(&open);
	return grant != NULL;
}

/*
 * Let our transaction commit only while it holds the lease with this token.
 * Returns false if that is lost already.
 */
bool
GuardLease(const Span *name, Token token)
{
	LeaseDatabase open;
	LeaseName	lease;
	Oid			cleared = GetUserId();
	Grant	   *grant;
	GuardMode	mode = GUARD_NONE;
	uint64		serial = 0;

	ReserveGuards(1);
	OpenNameForRead(name, &open, &lease);
	grant = LockLiveGrant(&lease, token, &cleared);
	if (grant != NULL)
	{
		mode = GuardModeOf(grant);
		serial = grant->serial;
	}
	UnlockName(&lease);
	if (grant == NULL)
		return false;
	RequireFreshSnapshot(&lease, serial);
	AddGuard(&lease, token, mode);
	return true;
}

/*
 * Claim one grant that a forced release is to end: a live one, or, to reopen
 * the name, one that keeps it closed.  NULL if there is none (left), or if one
 * that keeps it closed is just being written by somebody else (*settling).  Those
 * from token "next" on were granted since, perhaps to who waited for the others.
 */
static Grant *
ClaimByForce(const LeaseName *lease, Token token, Token next, bool reopen, const char *detail,
			 GrantInfo *info, bool *was_live, bool *settling)
{
	Resource   *resource;
	Grant	   *claimed = NULL;
	MonoTime	now;
	dlist_iter	iter;

	*settling = false;
	LockName(lease, LW_EXCLUSIVE);
	now = MonotonicNow();
	resource = FindResource(lease);
	if (resource != NULL)
	{
		dlist_foreach(iter, &resource->grants)
		{
			Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);

			if (grant->state == GRANT_RESERVED || grant->token >= next)
				continue;
			if (token != INVALID_TOKEN && grant->token != token)
				continue;
			if (grant->state == GRANT_ENDING)
			{
				*settling |= reopen && grant->deadline > now;
				continue;
			}
			*was_live = grant->state == GRANT_HELD && grant->deadline > now;
			if (*was_live || (reopen && ClosedUntil(grant) > now))
			{
				claimed = grant;
				break;
			}
		}
	}
	if (claimed != NULL)
	{
		EventKind	kind = *was_live ? EVENT_FORCED : EVENT_EXPIRED;
		MonoTime	opens_at = reopen ? 0 : OpensAt(claimed, now, true);

		CopyGrant(claimed, info);
		detail = *was_live ? detail : NULL;
		if (!IsDetached(claimed))
			EndHeld(lease, claimed, kind, detail);
		else if (claimed->state == GRANT_HELD)
			ClaimHeld(lease, claimed, opens_at, kind, detail);
		else
			ClaimGrant(claimed, opens_at);
	}
	UnlockName(lease);
	return claimed;
}

/* Record that a closed name was opened. */
static void
ReportReopened(const Span *name, const GrantInfo *info, const char *detail, const char *reason)
{
	RecordAct(name, EVENT_REOPENED, detail);
	ereport(LOG,
			(errmsg("lease name \"%s\", closed after token " INT64_FORMAT " of holder \"%s\", was opened by force: %s",
					info->name, info->grant.token, info->holder, reason),
			 CorrelationContext(SpanOf(info->correlation_id)),
			 errhidestmt(true)));
}

/* Record a forced release, and tell its caller what the holder may believe. */
static void
ReportForced(const GrantInfo *info, const char *reason)
{
	MonoTime	now = MonotonicNow();
	bool		endless = info->grant.deadline == MONO_NEVER;
	char	   *until = endless ? pstrdup("it looks") :
		pstrdup(timestamptz_to_str(WallTimeOf(info->grant.deadline, now)));
	double		seconds = (info->grant.deadline - now) / (double) USECS_PER_SEC;

	ereport(LOG,
			(errmsg("lease \"%s\" with token " INT64_FORMAT " of holder \"%s\" was released by force: %s",
					info->name, info->grant.token, info->holder, reason),
			 CorrelationContext(SpanOf(info->correlation_id)),
			 errhidestmt(true)));
	ereport(NOTICE,
			(errmsg("holder \"%s\" may still act on lease \"%s\" with token " INT64_FORMAT " until %s",
					info->holder, info->name, info->grant.token, until),
			 endless ? errdetail("The lease had no TTL: it learns of the loss when it next uses the token.") :
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
	Token		next;
	bool		was_live;
	bool		settling;
	int			count = 0;
	char	   *detail = psprintf("by \"%s\": %s", GetUserNameFromId(GetUserId(), false), reason);

	OpenNameForWrite(name, &open, &lease);
	next = (Token) pg_atomic_read_u64(&open.db->next);
	HOLD_INTERRUPTS();
	for (;;)
	{
		grant = ClaimByForce(&lease, token, next, reopen, detail, &info, &was_live, &settling);
		if (grant == NULL && !settling)
			break;
		if (grant == NULL)
		{
			RESUME_INTERRUPTS();
			AwaitSettled(&lease);
			HOLD_INTERRUPTS();
			continue;
		}

		/*
		 * Unlike a release, it must not come undone.  A cancelled wait for a
		 * standby warns, and leaves it done here.
		 */
		if (IsDetached(&info.grant))
		{
			XLogRecPtr	lsn = FinishGrant(&open, &lease, grant);

			XLogFlush(lsn);
			FlushLedger(lsn);
		}
		if (was_live)
		{
			ReportForced(&info, reason);
			count++;
		}
		else
			ReportReopened(name, &info, detail, reason);
	}
	RESUME_INTERRUPTS();
	ConditionVariableCancelSleep();
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

/* Raise an error if a token was never granted: it would shut out all that are. */
void
RequireGrantedToken(Token token)
{
	LeaseDatabase open;
	Token		next;

	RequirePreloaded();
	OpenDatabaseForRead(&open);
	next = (Token) pg_atomic_read_u64(&open.db->next);
	if (token >= next)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("token " INT64_FORMAT " was never granted in this database", token),
				 errdetail("The next token is " INT64_FORMAT ".", next)));
}

/* Lift all future tokens into a new epoch, which is returned. */
int64
BeginEpoch(const char *reason)
{
	LeaseDatabase open;
	Span		nameless = SpanOf("");
	Token		next;

	OpenDatabaseForWrite(&open);
	next = (TokenEpoch((Token) pg_atomic_read_u64(&open.db->next)) + 1) << TOKEN_EPOCH_BITS;
	next = Max(next, TokenClock());
	HOLD_INTERRUPTS();
	RaiseTokens(open.db, open.ledger, next);
	RESUME_INTERRUPTS();
	CloseDatabase(&open);
	RecordAct(&nameless, EVENT_NEW_EPOCH, reason);
	ereport(LOG,
			(errmsg("lease tokens were lifted to epoch " INT64_FORMAT ": %s",
					TokenEpoch(next), reason),
			 errhidestmt(true)));
	return TokenEpoch(next);
}
