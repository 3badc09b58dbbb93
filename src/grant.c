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
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "grant.h"
#include "wheel.h"

/* How many grants are looked at under one hold of a partition's lock. */
#define DEAD_SCAN_BATCH		64
#define EXPIRE_BATCH		64

/* There are dead grants in a database: see that a reaper comes. */
static void
OweWork(Database *db)
{
	pg_atomic_write_u32(&db->work, 1);
	RingLauncher(0);
}

/*
 * When does the name of a grant that ended open?  min_hold counts from the
 * grant, lock_delay from an end that its holder did not ask for.
 */
MonoTime
OpensAt(const Grant *grant, MonoTime ended, bool orphaned)
{
	MonoTime	opens = 0;

	if (grant->min_hold > 0)
		opens = grant->granted_at + grant->min_hold;
	if (orphaned && grant->lock_delay > 0)
		opens = Max(opens, ended + grant->lock_delay);
	return opens;
}

/* A grant that nobody owns (HELD, DEAD, CLOSED): until when is its name shut? */
MonoTime
BlocksUntil(const Grant *grant)
{
	if (grant->state == GRANT_HELD)
		return Max(grant->deadline, OpensAt(grant, grant->deadline, true));
	return grant->deadline;
}

bool
IsLive(const Grant *grant, MonoTime now)
{
	return grant->state == GRANT_HELD && grant->deadline > now;
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
	row->lock_delay = info->grant.lock_delay;
	row->min_hold = info->grant.min_hold;
	row->granted_at = info->grant.acquired_at;
}

/* The closure that follows a grant we own, as a row. */
static XLogRecPtr
AppendClosure(LeaseDatabase *open, const Grant *grant, int64 length, ItemPointer tid)
{
	GrantInfo	info;
	LedgerRow	row;

	CopyGrant(grant, &info);
	DescribeGrant(&info, &row);
	row.kind = LEDGER_CLOSURE;
	row.token = grant->token;
	row.ttl = length;
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
		MarkDead(grant, grant->deadline);
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
	}
	else
		DropGrant(lease, grant);
	UnlockName(lease);
	AnnounceSettled(lease);
	return lsn;
}

/* Take back a RESERVED grant that failed on the way. */
static void
AbandonGrant(LeaseDatabase *open, const LeaseName *lease, Grant *grant, bool has_row)
{
	LockName(lease, LW_EXCLUSIVE);
	if (has_row)
		MarkDead(grant, 0);
	else
		DropGrant(lease, grant);
	UnlockName(lease);
	AnnounceSettled(lease);
	if (has_row)
		OweWork(open->db);
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
 * Give a RESERVED grant its token and its durable row.  Returns with the grant
 * still RESERVED, or raises an error with the grant given back.
 */
void
PublishGrant(LeaseDatabase *open, const LeaseName *lease, Grant *grant, LedgerRow *row)
{
	volatile bool appended = false;
	volatile bool durable = false;

	PG_TRY();
	{
		row->kind = LEDGER_GRANT;
		row->token = NextToken(open->db, open->ledger);
		grant->token = row->token;
		grant->lsn = AppendRow(open->ledger, row, &grant->tid);
		appended = true;
		durable = FlushLedger(grant->lsn);
	}
	PG_CATCH();
	{
		AbandonGrant(open, lease, grant, appended);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (!durable)
	{
		LockName(lease, LW_EXCLUSIVE);
		ClaimReserved(grant);
		UnlockName(lease);
		FinishGrant(open, lease, grant);
		RefuseUnconfirmed();
	}
}

/* From now on a published grant is held.  Under the partition's lock. */
void
StartHolding(Grant *grant)
{
	grant->granted_at = MonotonicNow();
	grant->deadline = grant->granted_at + grant->ttl;
	grant->state = GRANT_HELD;
	WheelAdd(GrantPartition(grant), grant);
}

/* Start a TTL anew.  Under the partition's lock. */
void
RestartTtl(Grant *grant, int64 ttl)
{
	MonoTime	deadline = MonotonicNow() + ttl;
	bool		sooner = deadline < grant->deadline;

	grant->ttl = ttl;
	grant->deadline = deadline;
	grant->renewed_at = GetCurrentTimestamp();
	grant->renewals++;

	/* The wheel finds out by itself that a deadline was put off. */
	if (sooner)
	{
		WheelRemove(grant);
		WheelAdd(GrantPartition(grant), grant);
	}
}

/*
 * Put what has expired in a partition on its dead list, looking at no more
 * grants than one hold of the lock should; true if there may be more.  Notes
 * which databases need a reaper.
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

	LWLockAcquire(PartitionLock(partition), LW_EXCLUSIVE);
	while ((grant = WheelPop(part, now, &budget)) != NULL)
	{
		Oid			database = grant->resource->key.database;

		MarkDead(grant, grant->state == GRANT_HELD ?
				 OpensAt(grant, grant->deadline, true) : grant->deadline);
		if (ndatabases == 0 || databases[ndatabases - 1] != database)
			databases[ndatabases++] = database;
	}
	LWLockRelease(PartitionLock(partition));

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
		LWLockAcquire(PartitionLock(partition), LW_EXCLUSIVE);
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
			const NameKey *key = &claimed->resource->key;

			ReadChunks(key->chunks, 0, name, key->length);
			ResolveName(lease, database, name, key->length);
			ClaimGrant(claimed, claimed->deadline);
		}
		LWLockRelease(PartitionLock(partition));
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
