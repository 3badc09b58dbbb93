/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  What people look at: the functions behind the views.
 *
 * On a primary they show shared memory; on a standby, where there is none, what
 * the ledger holds.  A role sees in full the leases whose owner's privileges
 * it has, and all of them if it has those of pg_read_all_stats; of others it
 * sees that they exist.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "grant.h"
#include "queue.h"
#include "rows.h"

PG_FUNCTION_INFO_V1(lease_live_leases);
PG_FUNCTION_INFO_V1(lease_live_waiters);
PG_FUNCTION_INFO_V1(lease_server_status);

/* The columns of lease.live_leases(). */
enum
{
	Col_name,
	Col_mode,
	Col_scope,
	Col_token,
	Col_holder,
	Col_owner,
	Col_pid,
	Col_acquired_at,
	Col_renewed_at,
	Col_expires_at,
	Col_remaining,
	Col_ttl,
	Col_renewals,
	Col_durable,
	Col_closed_until,
	Col_request_id,
	Col_correlation_id,
	Col_metadata,
	Col_waiters,
	Col_permits,
	Col_capacity,
	Col_pinned_by,
	Ncols_live
};

/* What memory and ledger both know. */
static void
PutLedgerRow(RowBuilder *row, const LedgerRow *ledger_row)
{
	bool		closure = ledger_row->kind == LEDGER_CLOSURE;

	Put(row, Col_mode, CStringGetTextDatum(ModeName(ledger_row->permits, ledger_row->capacity)));
	Put(row, Col_scope, CStringGetTextDatum(ScopeNames[SCOPE_DETACHED]));
	Put(row, Col_token, Int64GetDatum(ledger_row->token));
	Put(row, Col_owner, ObjectIdGetDatum(ledger_row->owner));
	Put(row, Col_acquired_at, TimestampTzGetDatum(ledger_row->granted_at));
	if (!closure && ledger_row->ttl != NO_TTL)
		PutUsec(row, Col_ttl, ledger_row->ttl);
	if (ledger_row->capacity != WHOLE_LEASE)
	{
		Put(row, Col_permits, Int32GetDatum(ledger_row->permits));
		Put(row, Col_capacity, Int32GetDatum(ledger_row->capacity));
	}
	if (!MayReadOwner(ledger_row->owner))
		return;
	PutSpan(row, Col_name, ledger_row->name);
	PutSpan(row, Col_holder, ledger_row->holder);
	PutOptional(row, Col_request_id, ledger_row->request_id);
	PutOptional(row, Col_correlation_id, ledger_row->correlation_id);
	PutOptional(row, Col_metadata, ledger_row->metadata);
}

/* When a live lease was last renewed. */
static MonoTime
RenewedAt(const Grant *grant)
{
	return grant->deadline == MONO_NEVER ? grant->renewed_at : grant->deadline - grant->ttl;
}

/* What only memory knows. */
static void
PutGrant(RowBuilder *row, const Grant *grant, MonoTime now)
{
	bool		live = IsLive(grant, now);

	if (grant->pid != 0)
		Put(row, Col_pid, Int32GetDatum(grant->pid));
	Put(row, Col_scope, CStringGetTextDatum(ScopeNames[grant->scope]));
	if (!live && !grant->leaving && ClosedUntil(grant) > now)
		Put(row, Col_closed_until, TimestampTzGetDatum(WallTimeOf(ClosedUntil(grant), now)));
	if (live && grant->renewals > 0)
		Put(row, Col_renewed_at, TimestampTzGetDatum(WallTimeOf(RenewedAt(grant), now)));
	if (live && grant->deadline != MONO_NEVER)
	{
		Put(row, Col_expires_at, TimestampTzGetDatum(WallTimeOf(grant->deadline, now)));
		PutUsec(row, Col_remaining, grant->deadline - now);
	}
	Put(row, Col_renewals, Int64GetDatum(grant->renewals));
	Put(row, Col_durable, BoolGetDatum(IsDetached(grant) && grant->lsn <= GetFlushRecPtr(NULL)));
}

/* The processes whose commits in flight a grant guards. */
static void
PutPins(RowBuilder *row, const Grant *grant)
{
	ArrayBuildState *pids = NULL;

	if (grant->pins == 0)
		return;
	for (int i = -1; (i = FindPinner(MyDatabaseId, grant->token, i + 1)) >= 0;)
		pids = accumArrayResult(pids, Int32GetDatum(ProcGlobal->allProcs[i].pid), false,
								INT4OID, CurrentMemoryContext);
	if (pids != NULL)
		Put(row, Col_pinned_by, makeArrayResult(pids, CurrentMemoryContext));
}

/* A grant that lives, or closes its name: copied; false for all others. */
static bool
CopyShownGrant(uint32 slot, Oid database, GrantInfo *info, uint32 *waiters)
{
	Grant	   *grant = LockGrantSlot(slot, LW_SHARED);
	MonoTime	now = MonotonicNow();
	bool		shown;

	if (grant == NULL)
		return false;
	shown = grant->resource->key.database == database &&
		grant->state != GRANT_RESERVED &&
		(IsLive(grant, now) || BlocksUntil(grant) > now);
	if (shown)
	{
		CopyGrant(grant, info);
		*waiters = CountWaiters(grant->resource);
	}
	UnlockGrantSlot(grant);
	return shown;
}

static void
ShowMemory(RowBuilder *row)
{
	LeaseDatabase open;

	OpenDatabaseForWrite(&open);
	for (uint32 i = 0; i < GRANT_POOL_SIZE; i++)
	{
		GrantInfo	info;
		LedgerRow	ledger_row;
		uint32		waiters;

		if (!CopyShownGrant(i, open.db->oid, &info, &waiters))
			continue;
		CHECK_FOR_INTERRUPTS();
		DescribeGrant(&info, &ledger_row);
		ledger_row.token = info.grant.token;
		ledger_row.kind = IsLive(&info.grant, MonotonicNow()) ? LEDGER_GRANT : LEDGER_CLOSURE;
		if (info.grant.has_metadata && MayReadOwner(info.grant.owner))
		{
			char	   *metadata = FetchMetadata(open.ledger, &info.grant.tid, info.grant.token);

			ledger_row.metadata = SpanOf(metadata != NULL ? metadata : "");
		}
		PutLedgerRow(row, &ledger_row);
		PutGrant(row, &info.grant, MonotonicNow());
		Put(row, Col_waiters, Int64GetDatum(waiters));
		PutPins(row, &info.grant);
		EmitRow(row);
	}
	CloseDatabase(&open);
}

/* On a standby: the rows that might count for their name, with own strings. */
typedef struct Collector
{
	LedgerRow  *candidates;
	int			count;
	int			size;
	Token		valid_from;
} Collector;

static Span
KeepSpan(Span span)
{
	if (span.length > 0)
		span.data = pnstrdup(span.data, span.length);
	return span;
}

static void
VisitCandidate(const LedgerRow *row, ItemPointer tid pg_attribute_unused(), void *arg)
{
	Collector  *collector = arg;
	LedgerRow  *kept;

	if (row->kind == LEDGER_CEILING || row->token < collector->valid_from)
		return;
	if (collector->count == collector->size)
	{
		collector->size *= 2;
		collector->candidates = repalloc_huge(collector->candidates,
											  sizeof(LedgerRow) * collector->size);
	}
	kept = &collector->candidates[collector->count++];
	*kept = *row;
	kept->name = KeepSpan(row->name);
	kept->holder = KeepSpan(row->holder);
	kept->request_id = KeepSpan(row->request_id);
	kept->correlation_id = KeepSpan(row->correlation_id);
	kept->metadata = KeepSpan(row->metadata);
}

/* By name, and the row that a load would choose first. */
static int
CompareCandidates(const void *a, const void *b)
{
	const LedgerRow *left = a;
	const LedgerRow *right = b;
	int			order = CompareSpans(&left->name, &right->name);

	if (order != 0)
		return order;
	if (left->token != right->token)
		return left->token > right->token ? -1 : 1;
	return SupersedesRow(left, right) ? -1 : SupersedesRow(right, left) ? 1 : 0;
}

static bool
SameName(const LedgerRow *left, const LedgerRow *right)
{
	return SpansEqual(&left->name, &right->name);
}

/* Does one of the candidates before, of the same name, make one void? */
static bool
IsSuperseded(const LedgerRow *candidates, int which)
{
	for (int i = which - 1; i >= 0 && SameName(&candidates[i], &candidates[which]); i--)
		if (SupersedesRow(&candidates[i], &candidates[which]))
			return true;
	return false;
}

static void
ShowLedger(RowBuilder *row)
{
	Relation	ledger = OpenLedger(AccessShareLock);
	Collector	collector = {.size = 64};
	TokenRule	rule;

	ReadTokenRule(ledger, &rule);
	collector.valid_from = rule.valid_from;
	collector.candidates = palloc(sizeof(LedgerRow) * collector.size);
	ScanLedger(ledger, VisitCandidate, &collector);
	CloseLedger(ledger, AccessShareLock);

	qsort(collector.candidates, collector.count, sizeof(LedgerRow), CompareCandidates);
	for (int i = 0; i < collector.count; i++)
	{
		LedgerRow  *candidate = &collector.candidates[i];

		if (IsSuperseded(collector.candidates, i))
			continue;
		PutLedgerRow(row, candidate);
		Put(row, Col_durable, BoolGetDatum(true));
		EmitRow(row);
	}
}

/* live_leases(): a row for each lease, and for each name that is closed. */
Datum
lease_live_leases(PG_FUNCTION_ARGS)
{
	RowBuilder	row;

	RequirePreloaded();
	StartRows(&row, fcinfo);
	if (RecoveryInProgress())
		ShowLedger(&row);
	else
		ShowMemory(&row);
	return (Datum) 0;
}

/* The columns of lease.live_waiters(). */
enum
{
	Waiter_name,
	Waiter_position,
	Waiter_holder,
	Waiter_owner,
	Waiter_pid,
	Waiter_mode,
	Waiter_permits,
	Waiter_since,
	Waiter_waited,
	Waiter_blocked_by,
	Waiter_correlation_id,
	Ncols_waiter
};

StaticAssertDecl((int) Ncols_live <= MAX_COLUMNS && (int) Ncols_waiter <= MAX_COLUMNS,
				 "rows fit into a RowBuilder");

/* A copy of a place in a queue that needs no lock to look at. */
typedef struct WaiterInfo
{
	GrantInfo	wanted;
	int			pid;
	int			position;
	MonoTime	since;
	int			ntokens;		/* of the grants in the way */
	int			room;
	Token	   *tokens;
} WaiterInfo;

/* Copy a waiter, but for the tokens that there is no room for. */
static void
CopyWaiter(const Waiter *waiter, WaiterInfo *info)
{
	const Resource *resource = waiter->resource;
	MonoTime	now = MonotonicNow();
	dlist_iter	iter;

	CopyGrantOf(resource, waiter->grant, &info->wanted);
	info->pid = waiter->pid;
	info->since = waiter->since;
	info->position = 1;
	for (Waiter *ahead = NextWaiter(resource, NULL); ahead != waiter;
		 ahead = NextWaiter(resource, ahead))
		info->position++;

	info->ntokens = 0;
	dlist_foreach(iter, (dlist_head *) &resource->grants)
	{
		Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);

		if (grant->state == GRANT_RESERVED || BlocksUntil(grant) <= now)
			continue;
		if (info->ntokens < info->room)
			info->tokens[info->ntokens] = grant->token;
		info->ntokens++;
	}
}

/* The backend's place in a queue of our database; false if it has none. */
static bool
CopyShownWaiter(uint32 number, Oid database, WaiterInfo *info)
{
	for (;;)
	{
		Waiter	   *waiter = LockWaiter(number, LW_SHARED);
		bool		shown;

		if (waiter == NULL)
			return false;
		shown = waiter->resource->key.database == database;
		if (shown)
			CopyWaiter(waiter, info);
		UnlockWaiter(waiter);
		if (!shown || info->ntokens <= info->room)
			return shown;
		info->room = info->ntokens * 2;
		info->tokens = repalloc_huge(info->tokens, sizeof(Token) * info->room);
	}
}

static int
CompareTokens(const void *a, const void *b)
{
	Token		left = *(const Token *) a;
	Token		right = *(const Token *) b;

	return (left > right) - (left < right);
}

static void
PutWaiter(RowBuilder *row, const WaiterInfo *info)
{
	const GrantInfo *wanted = &info->wanted;
	MonoTime	now = MonotonicNow();
	Datum	   *tokens = palloc(sizeof(Datum) * Max(info->ntokens, 1));

	qsort(info->tokens, info->ntokens, sizeof(Token), CompareTokens);
	for (int i = 0; i < info->ntokens; i++)
		tokens[i] = Int64GetDatum(info->tokens[i]);
	if (MayReadOwner(wanted->grant.owner))
	{
		PutSpan(row, Waiter_name, SpanOf(wanted->name));
		PutSpan(row, Waiter_holder, SpanOf(wanted->holder));
		PutOptional(row, Waiter_correlation_id, SpanOf(wanted->correlation_id));
	}
	Put(row, Waiter_position, Int32GetDatum(info->position));
	Put(row, Waiter_owner, ObjectIdGetDatum(wanted->grant.owner));
	Put(row, Waiter_pid, Int32GetDatum(info->pid));
	Put(row, Waiter_mode,
		CStringGetTextDatum(ModeName(wanted->grant.permits, wanted->capacity)));
	if (wanted->capacity != WHOLE_LEASE)
		Put(row, Waiter_permits, Int32GetDatum(wanted->grant.permits));
	Put(row, Waiter_since, TimestampTzGetDatum(WallTimeOf(info->since, now)));
	PutUsec(row, Waiter_waited, now - info->since);
	Put(row, Waiter_blocked_by,
		PointerGetDatum(construct_array(tokens, info->ntokens, INT8OID, sizeof(int64),
										FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)));
}

/* live_waiters(): a row for each place in a queue; none on a standby. */
Datum
lease_live_waiters(PG_FUNCTION_ARGS)
{
	RowBuilder	row;
	WaiterInfo	info = {.room = 64};

	RequirePreloaded();
	StartRows(&row, fcinfo);
	info.tokens = palloc(sizeof(Token) * info.room);
	for (uint32 i = 0; i < WAITER_COUNT; i++)
	{
		if (!CopyShownWaiter(i, MyDatabaseId, &info))
			continue;
		CHECK_FOR_INTERRUPTS();
		PutWaiter(&row, &info);
		EmitRow(&row);
	}
	return (Datum) 0;
}

/* The columns of lease.server_status(). */
enum
{
	Col_version,
	Col_epoch,
	Col_timeline,
	Col_next_token,
	Col_leases_used,
	Col_leases_allowed,
	Col_ledger_size,
	Col_ledger_garbage,
	Col_worker_state,
	Col_last_reap,
	Col_waiting,
	Col_history_lost,
	Col_history_pending,
	Ncols_status
};

static void
PutPrimaryStatus(Database *db, Datum *values, bool *nulls)
{
	Token		next = (Token) pg_atomic_read_u64(&db->next);
	TimestampTz last_reap;
	bool		reaping;
	bool		launched = pg_atomic_read_u32(&Shared->launcher_pid) != 0;
	uint64		lost;
	uint64		pending;

	SpinLockAcquire(&db->mutex);
	last_reap = db->last_reap;
	reaping = db->reaper_pid != 0;
	SpinLockRelease(&db->mutex);
	SpinLockAcquire(&db->log.mutex);
	lost = db->log.lost;
	pending = db->log.pending;
	SpinLockRelease(&db->log.mutex);

	values[Col_epoch] = Int64GetDatum(TokenEpoch(next));
	values[Col_next_token] = Int64GetDatum(next);
	values[Col_timeline] = Int64GetDatum(GetWALInsertionTimeLine());
	values[Col_leases_used] = Int64GetDatum(CountUsedGrants());
	values[Col_worker_state] = CStringGetTextDatum(!launched ? "launcher absent" :
												   reaping ? "reaping" : "idle");
	values[Col_last_reap] = TimestampTzGetDatum(last_reap);
	nulls[Col_last_reap] = last_reap == 0;
	values[Col_waiting] = Int64GetDatum(pg_atomic_read_u32(&Shared->waiting));
	values[Col_history_lost] = Int64GetDatum(lost);
	values[Col_history_pending] = Int64GetDatum(pending);
}

static void
PutStandbyStatus(Relation ledger, Datum *values, bool *nulls)
{
	TokenRule	rule;
	TimeLineID	timeline;

	ReadTokenRule(ledger, &rule);
	(void) GetXLogReplayRecPtr(&timeline);
	values[Col_epoch] = Int64GetDatum(TokenEpoch(rule.ceiling));
	nulls[Col_epoch] = rule.ceiling == 0;
	values[Col_timeline] = Int64GetDatum(timeline);
	nulls[Col_next_token] = true;
	nulls[Col_leases_used] = true;
	nulls[Col_last_reap] = true;
	nulls[Col_waiting] = true;
	nulls[Col_history_lost] = true;
	nulls[Col_history_pending] = true;
	values[Col_worker_state] = CStringGetTextDatum("standby");
}

/* server_status(): one row. */
Datum
lease_server_status(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Relation	ledger;
	Datum		values[Ncols_status];
	bool		nulls[Ncols_status] = {false};

	RequirePreloaded();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	if (!RecoveryInProgress())
	{
		LeaseDatabase open;

		OpenDatabaseForRead(&open);
		PutPrimaryStatus(open.db, values, nulls);
	}
	ledger = OpenLedger(AccessShareLock);
	if (RecoveryInProgress())
		PutStandbyStatus(ledger, values, nulls);
	values[Col_version] = CStringGetTextDatum(LEASE_SQL_VERSION);
	values[Col_leases_allowed] = Int64GetDatum(MaxLeases);
	values[Col_ledger_size] = Int64GetDatum((int64) RelationGetNumberOfBlocks(ledger) * BLCKSZ);
	values[Col_ledger_garbage] = DirectFunctionCall1(pg_stat_get_dead_tuples,
													 ObjectIdGetDatum(RelationGetRelid(ledger)));
	CloseLedger(ledger, AccessShareLock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
