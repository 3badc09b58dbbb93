/*-------------------------------------------------------------------------
 *
 * grant.c
 *	  The life of one grant: made, held, over, ended.
 *
 * A grant is made in steps: reserved under its partition's lock, which closes
 * the name to others; then it gets its token and its ledger row, with no lock;
 * then it is held.  It ends likewise: claimed under the lock, its row ended,
 * then freed.  Between the steps one process owns the grant, and holds
 * interrupts.  If a step raises an error, the grant goes back: freed if it has
 * no row, else DEAD, and a reaper or the next acquirer ends the row.
 *
 * Whoever grants a name has first ended every row in its way, so the order of
 * the ledger's records in WAL is the order of the grants.
 *
 * A grant of scope session or transaction has no row: it is held once it has
 * its token, and ends under the partition's lock (EndHeld).
 *
 * A grant that guards a transaction is pinned while that commits, from before it
 * checks the grant until its effects are visible to all.  Whatever ends the
 * grant meanwhile ends it as ever, but what is left of it keeps the name shut.
 *
 * Whatever makes room under a name serves its queue; whatever changes when
 * there will be room alerts who is first in it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "grant.h"
#include "queue.h"
#include "wheel.h"

/* How many grants are looked at under one hold of a partition's lock. */
#define DEAD_SCAN_BATCH		64
#define EXPIRE_BATCH		64

/* How many dead grants an acquirer ends to make room, at the most. */
#define MAKE_ROOM_BATCH		64

/* There are dead grants in a database: see that a reaper comes. */
static void
OweWork(Database *db)
{
	pg_atomic_write_u32(&db->work, 1);
	RingLauncher(0);
}

/*
 * Free a grant that is in neither wheel nor dead list, and serve who waits; who
 * takes the last pin off does it, if there are any.
 */
void
FreeGrant(const LeaseName *lease, Grant *grant)
{
	Resource   *resource = grant->resource;
	bool		wanted = resource->queue != NULL;

	if (grant->pins > 0)
	{
		grant->state = GRANT_PINNED;
		grant->deadline = 0;
		grant->has_metadata = false;
		return;
	}
	DropGrant(lease, grant);
	if (wanted)
		ServeQueue(lease, resource);
}

/* End a HELD grant that has no row. */
void
EndHeld(const LeaseName *lease, Grant *grant, EventKind kind, const char *detail)
{
	Assert(grant->state == GRANT_HELD && !IsDetached(grant));
	RecordEnd(lease, grant, kind, detail);
	if (grant->deadline != MONO_NEVER)
		WheelRemove(grant);
	FreeGrant(lease, grant);
}

/* End a HELD grant that has one, which is ours to end. */
void
ClaimHeld(const LeaseName *lease, Grant *grant, MonoTime opens_at, EventKind kind,
		  const char *detail)
{
	RecordEnd(lease, grant, kind, detail);
	ClaimGrant(grant, opens_at);
}

/*
 * Claim a grant that is over and in the way.  Returns false if it has no row, and
 * is ended.
 */
bool
ClaimOverdue(const LeaseName *lease, Grant *grant)
{
	bool		has_row = IsDetached(grant);

	if (!has_row)
		EndHeld(lease, grant, EVENT_EXPIRED, NULL);
	else if (grant->state == GRANT_HELD)
		ClaimHeld(lease, grant, 0, EVENT_EXPIRED, NULL);
	else
		ClaimGrant(grant, 0);
	return has_row;
}

/* Leave a grant that is in neither wheel nor dead list to who ends its row. */
static void
BuryGrant(Grant *grant, MonoTime opens_at)
{
	MarkDead(grant, opens_at);
	AlertFirst(grant->resource, opens_at);
}

/* The row that a grant has, or is to have, but for kind, token and metadata. */
void
DescribeGrant(const GrantInfo *info, LedgerRow *row)
{
	memset(row, 0, sizeof(LedgerRow));
	row->name = SpanOf(info->name);
	row->holder = SpanOf(info->holder);
	row->request_id = SpanOf(info->request_id);
	row->correlation_id = SpanOf(info->correlation_id);
	row->replaces = info->grant.replaces;
	row->owner = info->grant.owner;
	row->ttl = info->grant.ttl;
	row->lock_delay = (int64) info->grant.lock_delay * 1000;
	row->min_hold = (int64) info->grant.min_hold * 1000;
	row->permits = info->grant.permits;
	row->capacity = info->capacity;
	row->granted_at = info->grant.acquired_at;
}

/* The closure that follows a grant we own, as a row. */
static XLogRecPtr
AppendClosure(LeaseDatabase *open, Grant *grant, int64 length, ItemPointer tid)
{
	GrantInfo	info;
	LedgerRow	row;

	CopyGrant(grant, &info);
	DescribeGrant(&info, &row);
	row.kind = LEDGER_CLOSURE;
	row.token = grant->token;
	row.ttl = length;
	grant->ledger_capacity = row.capacity;
	return AppendRow(open->ledger, &row, tid);
}

/*
 * End the row of a grant that we claimed, and free it, or close the name if it
 * is not to open yet.  Returns the end of the last WAL record, not flushed.
 *
 * The closure is written before the grant's row is ended: a crash in between
 * leaves both, and the grant counts.
 */
XLogRecPtr
FinishGrant(LeaseDatabase *open, const LeaseName *lease, Grant *grant)
{
	int64		closed_for = grant->deadline - MonotonicNow();
	ItemPointerData closure;
	volatile XLogRecPtr lsn = InvalidXLogRecPtr;

	PG_TRY();
	{
		if (closed_for > 0)
			AppendClosure(open, grant, closed_for, &closure);
		lsn = EndRow(open->ledger, &grant->tid, grant->token);
	}
	PG_CATCH();
	{
		LockName(lease, LW_EXCLUSIVE);
		BuryGrant(grant, grant->deadline);
		UnlockName(lease);
		AnnounceSettled(lease);
		OweWork(open->db);
		PG_RE_THROW();
	}
	PG_END_TRY();

	LockName(lease, LW_EXCLUSIVE);
	if (closed_for > 0)
	{
		grant->tid = closure;
		grant->is_closure = true;
		grant->state = GRANT_CLOSED;
		WheelAdd(NamePartition(lease), grant);
		AlertFirst(grant->resource, grant->deadline);
	}
	else
		FreeGrant(lease, grant);
	UnlockName(lease);
	AnnounceSettled(lease);
	return lsn;
}

/*
 * Take back, without touching the ledger, a RESERVED grant that failed on the
 * way.
 */
void
AbandonGrant(const LeaseName *lease, Grant *grant, bool has_row)
{
	LockName(lease, LW_EXCLUSIVE);
	if (has_row)
		BuryGrant(grant, 0);
	else
		FreeGrant(lease, grant);
	UnlockName(lease);
	AnnounceSettled(lease);
	if (has_row)
		OweWork(FindDatabase(lease->key.database));
}

/*
 * End a grant that is held, if it still is, without touching the ledger.  If its
 * holder knows of it, its min_hold counts; and past its TTL it is not for its
 * holder to release, but expires.
 */
static void
LeaveHeld(const LeaseName *lease, Token token, bool known)
{
	Grant	   *grant;
	bool		has_row = false;

	LockName(lease, LW_EXCLUSIVE);
	grant = FindGrant(lease, token);
	if (grant != NULL && (known ? IsLive(grant, MonotonicNow()) : grant->state == GRANT_HELD))
	{
		EventKind	kind = known ? EVENT_RELEASED : EVENT_ABANDONED;

		has_row = IsDetached(grant);
		if (has_row)
		{
			RecordEnd(lease, grant, kind, NULL);
			WheelRemove(grant);
			BuryGrant(grant, known ? OpensAt(grant, 0, false) : 0);
		}
		else
			EndHeld(lease, grant, kind, NULL);
	}
	UnlockName(lease);
	if (has_row)
		OweWork(FindDatabase(lease->key.database));
}

/* Take back a grant of which its holder does not know yet. */
void
AbandonHeld(const LeaseName *lease, Token token)
{
	LeaveHeld(lease, token, false);
}

/* Release a grant, where the ledger cannot be opened. */
void
ReleaseUnwritten(const LeaseName *lease, Token token)
{
	LeaveHeld(lease, token, true);
}

/* Show, or with INVALID_TOKEN hide, a pin of ours, where a token stands so far. */
static void
ShowPin(Token former, Token token)
{
	ShownPins  *mine = &Pins[MyProc - ProcGlobal->allProcs];

	for (int i = 0; i < PINS_SHOWN; i++)
		if (pg_atomic_read_u64(&mine->tokens[i]) == (uint64) former)
		{
			pg_atomic_write_u64(&mine->tokens[i], token);
			return;
		}
}

/*
 * The number of the next backend from a number on that shows to pin a token, or
 * -1.
 */
int
FindPinner(Oid database, Token token, int from)
{
	for (int i = from; i < MaxBackends; i++)
		for (int j = 0; j < PINS_SHOWN; j++)
			if (pg_atomic_read_u64(&Pins[i].tokens[j]) == (uint64) token &&
				ProcGlobal->allProcs[i].databaseId == database)
				return i;
	return -1;
}

/*
 * Keep a name from opening until UnpinGrant.  Returns false if the lease is
 * lost.
 */
bool
PinGrant(const LeaseName *lease, Token token)
{
	Grant	   *grant;
	bool		live;

	LockName(lease, LW_EXCLUSIVE);
	grant = FindGrant(lease, token);
	live = grant != NULL && IsLive(grant, MonotonicNow());
	if (live)
	{
		grant->pins++;
		ShowPin(INVALID_TOKEN, token);
	}
	UnlockName(lease);
	return live;
}

void
UnpinGrant(const LeaseName *lease, Token token)
{
	Grant	   *grant;
	bool		awaited = false;

	LockName(lease, LW_EXCLUSIVE);
	ShowPin(token, INVALID_TOKEN);
	grant = FindGrant(lease, token);
	if (grant != NULL && --grant->pins == 0)
	{
		awaited = grant->leaving;
		if (grant->state == GRANT_PINNED)
			FreeGrant(lease, grant);
		else
			AlertFirst(grant->resource, IsInTheWayUntil(grant));
	}
	UnlockName(lease);
	if (awaited)
		AnnounceSettled(lease);
}

/* Own a RESERVED grant in order to end its row at once. */
void
ClaimReserved(Grant *grant)
{
	MarkDead(grant, 0);
	ClaimGrant(grant, 0);
}

/*
 * What was written is not on the synchronous standby, because the wait for it
 * was cancelled.  It has been taken back here, so say that it did not happen.
 */
void
RefuseUnconfirmed(void)
{
	/* A termination ends the session with its own message. */
	RESUME_INTERRUPTS();
	CHECK_FOR_INTERRUPTS();
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("canceling statement due to user request"),
			 errdetail("No synchronous standby confirmed the lease, and it was taken back.")));
}

/*
 * Give a RESERVED grant its token and its row, which is not durable yet.
 * *has_row tells the caller's error handler how far it got.
 */
void
WriteGrant(LeaseDatabase *open, Grant *grant, LedgerRow *row, bool *has_row)
{
	row->kind = LEDGER_GRANT;
	row->token = NextToken(open->db, open->ledger);
	grant->token = row->token;
	grant->lsn = AppendRow(open->ledger, row, &grant->tid);
	*has_row = true;
}

/* End the row of a grant that turned out not to be durable, and free it. */
void
TakeBackUnconfirmed(LeaseDatabase *open, const LeaseName *lease, Grant *grant)
{
	LockName(lease, LW_EXCLUSIVE);
	ClaimReserved(grant);
	UnlockName(lease);
	FinishGrant(open, lease, grant);
}

/*
 * Let a RESERVED grant be held; its maker has waited for it since a time, or 0.
 * Under the partition's lock.
 */
void
StartHolding(const LeaseName *lease, Grant *grant, MonoTime now, EventKind kind,
			 MonoTime waiting_since)
{
	Resource   *resource = grant->resource;

	MakeHeld(grant, now);
	RecordGrant(lease, grant, kind, waiting_since);
	if (resource->queue == NULL)
		return;

	/* A retry of the same request may be next. */
	AlertFirst(resource, BlocksUntil(grant));
	ServeQueue(lease, resource);
}

/* Start a TTL anew.  Under the partition's lock. */
void
RestartTtl(const LeaseName *lease, Grant *grant, int64 ttl)
{
	MonoTime	former = grant->deadline;
	MonoTime	now = MonotonicNow();
	MonoTime	deadline = DeadlineAfter(now, ttl);
	bool		was_filed = former != MONO_NEVER;
	bool		is_filed = deadline != MONO_NEVER;

	/* The wheel finds out by itself that a deadline was put off. */
	bool		refile = deadline < former;

	if (was_filed && (refile || !is_filed))
		WheelRemove(grant);
	grant->ttl = ttl;
	grant->deadline = deadline;
	if (!is_filed)
		grant->renewed_at = now;
	grant->renewals++;
	CountRenewal(lease, grant, was_filed ? former - now : NO_TIME);
	if (refile)
	{
		WheelAdd(GrantPartition(grant), grant);
		AlertFirst(grant->resource, BlocksUntil(grant));
	}
}

/*
 * The same, but never to an earlier deadline: somebody else in the session
 * counts on that.
 */
void
ExtendTtl(const LeaseName *lease, Grant *grant, int64 ttl)
{
	if (DeadlineAfter(MonotonicNow(), ttl) > grant->deadline)
		RestartTtl(lease, grant, ttl);
}

/* The same as AwaitSettled, but look again at a time in any case. */
void
AwaitSettledUntil(const LeaseName *lease, MonoTime until)
{
	int64		usec = Max(until - MonotonicNow(), 0);

	(void) ConditionVariableTimedSleep(&NamePartition(lease)->settled,
									   Min(usec / 1000 + 1, INT_MAX),
									   NamedWaitEvent("LeaseSettled"));
}

/*
 * Wait until some grant of the name's partition went on, and look again.  When
 * there is no more waiting, the caller calls ConditionVariableCancelSleep.
 */
void
AwaitSettled(const LeaseName *lease)
{
	ConditionVariableSleep(&NamePartition(lease)->settled, NamedWaitEvent("LeaseSettled"));
}

/* A grant is past its deadline, and out of the wheel. */
static void
ExpireGrant(Grant *grant)
{
	bool		was_held = grant->state == GRANT_HELD;
	char		name[LEASE_NAME_MAX];
	LeaseName	lease;

	if (was_held)
	{
		ResolveGrant(&lease, grant, name);
		RecordEnd(&lease, grant, EVENT_EXPIRED, NULL);
	}
	if (!IsDetached(grant))
		FreeGrant(&lease, grant);
	else
		BuryGrant(grant, was_held ? OpensAt(grant, grant->deadline, true) : grant->deadline);
}

/*
 * Put what has expired in a partition on its dead list, or free it if it has no
 * row, looking at no more grants than one hold of the lock should; true if
 * there may be more.  Notes which databases need a reaper.
 */
bool
ExpireGrants(int partition, MonoTime now)
{
	Partition  *part = &Shared->partitions[partition];
	Oid			databases[EXPIRE_BATCH];
	int			ndatabases = 0;
	int			budget = EXPIRE_BATCH;
	Grant	   *grant;

	if (pg_atomic_read_u64(&part->next_due) > (uint64) now)
		return false;

	LockPartition(partition, LW_EXCLUSIVE);
	while ((grant = WheelPop(part, now, &budget)) != NULL)
	{
		Oid			database = grant->resource->key.database;
		bool		detached = IsDetached(grant);

		ExpireGrant(grant);
		if (detached && (ndatabases == 0 || databases[ndatabases - 1] != database))
			databases[ndatabases++] = database;
	}
	UnlockPartition(partition);

	for (int i = 0; i < ndatabases; i++)
	{
		Database   *db = FindDatabase(databases[i]);

		if (db != NULL)
			pg_atomic_write_u32(&db->work, 1);
	}
	return budget == 0;
}

/*
 * Claim a dead grant of a database, and copy its name.  Those of others move
 * to the end of the list, and each is looked at once.
 */
static Grant *
ClaimDead(int partition, Oid database, char *name, LeaseName *lease)
{
	Partition  *part = &Shared->partitions[partition];
	uint32		left = *((volatile uint32 *) &part->ndead);
	Grant	   *claimed = NULL;

	while (left > 0 && claimed == NULL)
	{
		LockPartition(partition, LW_EXCLUSIVE);
		left = Min(left, part->ndead);
		for (int n = 0; n < DEAD_SCAN_BATCH && left > 0 && claimed == NULL; n++, left--)
		{
			Grant	   *grant = dlist_head_element(Grant, in_time, &part->dead);

			if (grant->resource->key.database == database)
				claimed = grant;
			else
			{
				dlist_delete(&grant->in_time);
				dlist_push_tail(&part->dead, &grant->in_time);
			}
		}
		if (claimed != NULL)
		{
			ResolveGrant(lease, claimed, name);
			ClaimGrant(claimed, claimed->deadline);
		}
		UnlockPartition(partition);
	}
	return claimed;
}

/*
 * End the rows of dead grants of our database, at most so many.  Returns how
 * many were ended.
 */
int
ReapGrants(LeaseDatabase *open, int most)
{
	int			reaped = 0;

	HOLD_INTERRUPTS();
	for (int i = 0; i < NUM_PARTITIONS && reaped < most; i++)
	{
		char		name[LEASE_NAME_MAX];
		LeaseName	lease;
		Grant	   *grant;

		while (reaped < most &&
			   (grant = ClaimDead(i, open->db->oid, name, &lease)) != NULL)
		{
			FinishGrant(open, &lease, grant);
			reaped++;
		}
	}
	RESUME_INTERRUPTS();
	return reaped;
}

/*
 * The table or its strings are full: end what is dead in our database, or give
 * up.
 */
void
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
