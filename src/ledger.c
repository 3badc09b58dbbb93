/*-------------------------------------------------------------------------
 *
 * ledger.c
 *	  The durable rows: append, end, scan, flush.
 *
 * lease.ledger is an ordinary heap table, but its rows are not subject to the
 * rules for transactions.  A row is written the way a sequence writes its
 * tuple: with a frozen xmin, so that it is visible to all at once and no
 * ROLLBACK takes it back.  It is ended the way heap_abort_speculative ends a
 * tuple: xmin becomes invalid, so that VACUUM reclaims the row whatever
 * snapshots are open, here or on a standby.  Both are logged as generic WAL
 * records, which replay without this library, conflict with no query on a
 * standby and are no business of logical decoding.
 *
 * A row is known by its TID, which the grant remembers, and carries its token,
 * which is checked before the row is touched.
 *
 * Callers hold RowExclusiveLock on the table for as long as they use a TID, so
 * that it cannot be rewritten meanwhile, and hold interrupts while they have
 * written something that shared memory does not know of.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/visibilitymap.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "flush.h"
#include "ledger.h"
#include "pagelog.h"

/* The columns of lease.ledger, as sql/lease--1.0.sql creates them. */
enum
{
	Anum_kind = 1,
	Anum_token,
	Anum_name,
	Anum_mode,
	Anum_permits,
	Anum_capacity,
	Anum_holder,
	Anum_owner,
	Anum_ttl,
	Anum_granted_at,
	Anum_replaces,
	Anum_lock_delay,
	Anum_min_hold,
	Anum_request_id,
	Anum_correlation_id,
	Anum_metadata,
	Anum_system_identifier,
	Anum_timeline,
	Anum_database,
	Anum_valid_from,
	Natts_ledger = Anum_valid_from
};

static const char *const kind_names[] = {
	[LEDGER_GRANT] = "grant",
	[LEDGER_CLOSURE] = "closure",
	[LEDGER_CEILING] = "ceiling",
};

/*
 * The table's OID, looked up once per backend; invalidation of its relcache
 * entry, which comes with its drop, forgets it.
 */
static Oid	ledger_oid = InvalidOid;
static bool callback_registered = false;

static void
ForgetLedgerOid(Datum arg pg_attribute_unused(), Oid relid)
{
	if (relid == InvalidOid || relid == ledger_oid)
		ledger_oid = InvalidOid;
}

/* The version of the extension that is installed here; NULL if none is. */
static char *
InstalledVersion(void)
{
	Relation	catalog = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("lease"));
	scan = systable_beginscan(catalog, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		datum = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(catalog), &isnull);

		version = TextDatumGetCString(datum);
	}
	systable_endscan(scan);
	table_close(catalog, AccessShareLock);
	return version;
}

static void
RequireMatchingVersion(void)
{
	char	   *version = InstalledVersion();

	if (version == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"lease\" is not installed in this database"),
				 errhint("Run CREATE EXTENSION lease.")));
	if (strcmp(version, LEASE_SQL_VERSION) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"lease\" has SQL objects of version %s, but its library needs %s",
						version, LEASE_SQL_VERSION),
				 errhint("Run ALTER EXTENSION lease UPDATE, or restart the server if its library was replaced.")));
	pfree(version);
}

static Oid
FindLedger(void)
{
	Oid			namespace = get_namespace_oid("lease", true);

	return OidIsValid(namespace) ? get_relname_relid("ledger", namespace) : InvalidOid;
}

/* Is there a ledger in our database? */
bool
LedgerExists(void)
{
	return OidIsValid(FindLedger());
}

/* The OID of lease.ledger; an error if the extension is not as it should be. */
Oid
LedgerOid(void)
{
	if (!callback_registered)
	{
		CacheRegisterRelcacheCallback(ForgetLedgerOid, (Datum) 0);
		callback_registered = true;
	}
	if (!OidIsValid(ledger_oid))
	{
		Oid			found;

		RequireMatchingVersion();
		found = FindLedger();
		if (!OidIsValid(found))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table lease.ledger does not exist"),
					 errhint("Run DROP EXTENSION lease and CREATE EXTENSION lease.")));
		ledger_oid = found;
	}
	return ledger_oid;
}

/* Does a relation look like the ledger that this library knows? */
bool
IsLedger(Relation relation)
{
	return relation->rd_rel->relkind == RELKIND_RELATION &&
		RelationGetNumberOfAttributes(relation) == Natts_ledger;
}

/* Open the ledger, whichever it is once the lock is ours. */
Relation
OpenLedger(LOCKMODE lockmode)
{
	Relation	ledger = NULL;

	/* A drop that is found out at the lock leaves us without a relation. */
	for (int tries = 0; ledger == NULL && tries < 2; tries++)
	{
		ledger = try_relation_open(LedgerOid(), lockmode);
		if (ledger == NULL)
			ledger_oid = InvalidOid;
	}
	if (ledger == NULL || !IsLedger(ledger))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("lease.ledger is not the table that the library of version %s knows",
						LEASE_SQL_VERSION)));
	return ledger;
}

void
CloseLedger(Relation ledger, LOCKMODE lockmode)
{
	relation_close(ledger, lockmode);
}

/*
 * Would rows of this ledger not survive a crash, the rollback of the
 * transaction that made its file, or a reader who comes by an index?  Returns
 * the reason, or NULL if all is well.
 */
const char *
WhyNotDurable(Relation ledger)
{
	if (ledger->rd_createSubid != InvalidSubTransactionId ||
		ledger->rd_newRelfilelocatorSubid != InvalidSubTransactionId ||
		ledger->rd_firstRelfilelocatorSubid != InvalidSubTransactionId)
		return "It was created, truncated or rewritten in the current transaction.";
	if (ledger->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
		return "It is not a permanent table.";
	if (ledger->rd_rel->relhasindex && RelationGetIndexList(ledger) != NIL)
		return "It has indexes.";
	return NULL;
}

static void
PutText(Datum *values, bool *nulls, int attnum, const Span *text)
{
	if (text->length == 0)
		return;
	values[attnum - 1] = PointerGetDatum(cstring_to_text_with_len(text->data, text->length));
	nulls[attnum - 1] = false;
}

static void
PutDatum(Datum *values, bool *nulls, int attnum, Datum value)
{
	values[attnum - 1] = value;
	nulls[attnum - 1] = false;
}

static void
PutInterval(Datum *values, bool *nulls, int attnum, int64 usec)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = usec;
	PutDatum(values, nulls, attnum, IntervalPGetDatum(interval));
}

static void
PutCeiling(Datum *values, bool *nulls, const LedgerRow *row)
{
	PutDatum(values, nulls, Anum_system_identifier, Int64GetDatum((int64) row->system_identifier));
	PutDatum(values, nulls, Anum_timeline, Int32GetDatum((int32) row->timeline));
	PutDatum(values, nulls, Anum_database, ObjectIdGetDatum(row->database));
	PutDatum(values, nulls, Anum_valid_from, Int64GetDatum(row->valid_from));
}

static void
PutGrant(Datum *values, bool *nulls, const LedgerRow *row)
{
	PutText(values, nulls, Anum_name, &row->name);
	PutDatum(values, nulls, Anum_mode, CStringGetTextDatum(ModeName(row->permits, row->capacity)));
	if (row->capacity != WHOLE_LEASE)
	{
		PutDatum(values, nulls, Anum_permits, Int32GetDatum(row->permits));
		PutDatum(values, nulls, Anum_capacity, Int32GetDatum(row->capacity));
	}
	PutText(values, nulls, Anum_holder, &row->holder);
	PutText(values, nulls, Anum_request_id, &row->request_id);
	PutText(values, nulls, Anum_correlation_id, &row->correlation_id);
	PutText(values, nulls, Anum_metadata, &row->metadata);
	PutDatum(values, nulls, Anum_owner, ObjectIdGetDatum(row->owner));
	PutDatum(values, nulls, Anum_granted_at, TimestampTzGetDatum(row->granted_at));
	PutInterval(values, nulls, Anum_ttl, row->ttl);
	if (row->lock_delay > 0)
		PutInterval(values, nulls, Anum_lock_delay, row->lock_delay);
	if (row->min_hold > 0)
		PutInterval(values, nulls, Anum_min_hold, row->min_hold);
	if (row->replaces != INVALID_TOKEN)
		PutDatum(values, nulls, Anum_replaces, Int64GetDatum(row->replaces));
}

/* Form a tuple that is visible to everybody, as heap_insert does a frozen one. */
static HeapTuple
FormRow(Relation ledger, const LedgerRow *row)
{
	Datum		values[Natts_ledger] = {0};
	bool		nulls[Natts_ledger];
	HeapTuple	tuple;
	HeapTupleHeader header;

	memset(nulls, true, sizeof(nulls));
	PutDatum(values, nulls, Anum_kind, CStringGetTextDatum(kind_names[row->kind]));
	PutDatum(values, nulls, Anum_token, Int64GetDatum(row->token));
	if (row->kind == LEDGER_CEILING)
		PutCeiling(values, nulls, row);
	else
		PutGrant(values, nulls, row);

	tuple = heap_form_tuple(RelationGetDescr(ledger), values, nulls);
	tuple->t_tableOid = RelationGetRelid(ledger);
	header = tuple->t_data;

	/* These still say that it is a datum, which amcheck would report. */
	header->t_infomask &= ~HEAP_XACT_MASK;
	header->t_infomask2 &= ~HEAP2_XACT_MASK;
	header->t_infomask |= HEAP_XMAX_INVALID;
	HeapTupleHeaderSetXmin(header, FrozenTransactionId);
	HeapTupleHeaderSetXminFrozen(header);
	HeapTupleHeaderSetCmin(header, FirstCommandId);
	HeapTupleHeaderSetXmax(header, InvalidTransactionId);
	return tuple;
}

/* Put a row on a page that has room for it. */
static XLogRecPtr
PutRow(Buffer buffer, HeapTuple tuple, ItemPointer tid)
{
	Page		page = BufferGetPage(buffer);
	PageChanges changes;
	OffsetNumber offset;
	ItemId		item;
	HeapTupleHeader header;

	/*
	 * The header of a page without items was initialised without a WAL record
	 * of its own; a record of what changed on it would be replayed onto
	 * nothing.
	 */
	BeginChanges(&changes, buffer, PageGetMaxOffsetNumber(page) == 0);
	offset = PageAddItem(page, (Item) tuple->t_data, tuple->t_len,
						 InvalidOffsetNumber, false, true);
	if (offset == InvalidOffsetNumber)
		elog(PANIC, "could not add a row to block %u of lease.ledger",
			 BufferGetBlockNumber(buffer));
	ItemPointerSet(tid, BufferGetBlockNumber(buffer), offset);
	item = PageGetItemId(page, offset);
	header = (HeapTupleHeader) PageGetItem(page, item);
	header->t_ctid = *tid;
	NoteChange(&changes, item, sizeof(ItemIdData));
	NoteChange(&changes, header, MAXALIGN(tuple->t_len));
	return LogChanges(&changes);
}

/*
 * Append a row.  Returns the end of its WAL record, which the caller flushes if
 * it must, and sets tid.  If it raises an error, there is no row.
 */
XLogRecPtr
AppendRow(Relation ledger, const LedgerRow *row, ItemPointer tid)
{
	HeapTuple	tuple = FormRow(ledger, row);
	Buffer		vmbuffer = InvalidBuffer;
	Buffer		buffer;
	XLogRecPtr	lsn;

	buffer = RelationGetBufferForTuple(ledger, tuple->t_len, InvalidBuffer, 0, NULL,
									   &vmbuffer, NULL, 0);

	START_CRIT_SECTION();
	lsn = PutRow(buffer, tuple, tid);
	END_CRIT_SECTION();

	/*
	 * The page may be marked all-visible, in its header and in the visibility
	 * map: a frozen row leaves that true.
	 */
	UnlockReleaseBuffer(buffer);
	if (BufferIsValid(vmbuffer))
		ReleaseBuffer(vmbuffer);
	heap_freetuple(tuple);
	return lsn;
}

/*
 * Find the row at a TID in a locked buffer, if it stands and carries a token.
 */
static HeapTupleHeader
FindRow(Relation ledger, Page page, ItemPointer tid, Token token, HeapTuple tuple)
{
	OffsetNumber offset = ItemPointerGetOffsetNumber(tid);
	ItemId		item;
	bool		isnull;

	if (offset > PageGetMaxOffsetNumber(page))
		return NULL;
	item = PageGetItemId(page, offset);
	if (!ItemIdIsNormal(item))
		return NULL;
	tuple->t_data = (HeapTupleHeader) PageGetItem(page, item);
	tuple->t_len = ItemIdGetLength(item);
	tuple->t_self = *tid;
	tuple->t_tableOid = RelationGetRelid(ledger);
	if (HeapTupleHeaderXminInvalid(tuple->t_data))
		return NULL;
	if (DatumGetInt64(heap_getattr(tuple, Anum_token, RelationGetDescr(ledger), &isnull)) != token)
		return NULL;
	return tuple->t_data;
}

/*
 * Take the all-visible mark off a page whose buffer is locked and whose map
 * page is pinned.  The map's change is logged first and whole: a generic
 * record would take the map's bits for the hole of a standard page.
 */
static void
ClearAllVisible(Relation ledger, BlockNumber block, Buffer vmbuffer)
{
	if (!visibilitymap_clear(ledger, block, vmbuffer, VISIBILITYMAP_VALID_BITS))
		return;
	LockBuffer(vmbuffer, BUFFER_LOCK_EXCLUSIVE);
	START_CRIT_SECTION();
	MarkBufferDirty(vmbuffer);
	log_newpage_buffer(vmbuffer, false);
	END_CRIT_SECTION();
	LockBuffer(vmbuffer, BUFFER_LOCK_UNLOCK);
}

static XLogRecPtr
MakeRowInvalid(Relation ledger, Buffer buffer, HeapTuple tuple)
{
	Page		page = BufferGetPage(buffer);
	HeapTupleHeader header = tuple->t_data;
	PageChanges changes;
	XLogRecPtr	lsn;

	START_CRIT_SECTION();
	BeginChanges(&changes, buffer, false);

	/* Any old xid will do: nobody has to be done with an invalid row. */
	PageSetPrunable(page, Max(ledger->rd_rel->relfrozenxid, FirstNormalTransactionId));
	PageClearAllVisible(page);
	header->t_infomask &= ~(HEAP_XMIN_COMMITTED | HEAP_XMAX_BITS | HEAP_MOVED);
	header->t_infomask |= HEAP_XMIN_INVALID;
	header->t_infomask2 &= ~HEAP_KEYS_UPDATED;
	HeapTupleHeaderSetXmin(header, InvalidTransactionId);
	header->t_ctid = tuple->t_self;
	NoteChange(&changes, header, SizeofHeapTupleHeader);
	lsn = LogChanges(&changes);
	END_CRIT_SECTION();
	return lsn;
}

/*
 * End the row at a TID, if it still carries the token.  Returns the end of its
 * WAL record, which is on its way to the disk but not there yet; or
 * InvalidXLogRecPtr if there is no such row (any more).
 */
XLogRecPtr
EndRow(Relation ledger, ItemPointer tid, Token token)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);
	Buffer		buffer = ReadBuffer(ledger, block);
	Buffer		vmbuffer = InvalidBuffer;
	HeapTupleData tuple;
	XLogRecPtr	lsn = InvalidXLogRecPtr;

	/* Pin the map page first: that may need I/O, and VACUUM may mark late. */
	if (PageIsAllVisible(BufferGetPage(buffer)))
		visibilitymap_pin(ledger, block, &vmbuffer);
	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	while (PageIsAllVisible(BufferGetPage(buffer)) && !BufferIsValid(vmbuffer))
	{
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		visibilitymap_pin(ledger, block, &vmbuffer);
		LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	}

	if (FindRow(ledger, BufferGetPage(buffer), tid, token, &tuple) != NULL)
	{
		if (PageIsAllVisible(BufferGetPage(buffer)))
			ClearAllVisible(ledger, block, vmbuffer);
		lsn = MakeRowInvalid(ledger, buffer, &tuple);
	}
	UnlockReleaseBuffer(buffer);
	if (BufferIsValid(vmbuffer))
		ReleaseBuffer(vmbuffer);

	if (!XLogRecPtrIsInvalid(lsn))
	{
		/* No transaction tells these two. */
		FlushSoon(lsn);
		pgstat_update_heap_dead_tuples(ledger, -1);
	}
	return lsn;
}

/* Has the synchronous standby, if there must be one, got all up to an LSN? */
static bool
IsReplicated(XLogRecPtr lsn)
{
	int			mode;
	bool		replicated;

	switch (synchronous_commit)
	{
		case SYNCHRONOUS_COMMIT_REMOTE_WRITE:
			mode = SYNC_REP_WAIT_WRITE;
			break;
		case SYNCHRONOUS_COMMIT_REMOTE_FLUSH:
			mode = SYNC_REP_WAIT_FLUSH;
			break;
		case SYNCHRONOUS_COMMIT_REMOTE_APPLY:
			mode = SYNC_REP_WAIT_APPLY;
			break;
		default:
			return true;
	}

	LWLockAcquire(SyncRepLock, LW_SHARED);
	replicated = !SyncStandbysAreDefined() || WalSndCtl->lsn[mode] >= lsn;
	LWLockRelease(SyncRepLock);
	return replicated;
}

/*
 * Make the ledger durable up to an LSN, as synchronous_commit demands of a
 * commit.  The caller holds interrupts.
 *
 * A cancelled wait for a standby returns as a successful one does, with the
 * cancel spent.  Returns false in that case: the row is on disk here, and may
 * be missing after a fail-over.
 */
bool
FlushLedger(XLogRecPtr lsn)
{
	if (synchronous_commit == SYNCHRONOUS_COMMIT_OFF)
	{
		XLogSetAsyncXactLSN(lsn);
		return true;
	}
	FlushTogether(lsn);
	SyncRepWaitForLSN(lsn, true);
	return !SyncRepRequested() || IsReplicated(lsn);
}

static Datum
GetColumn(HeapTuple tuple, TupleDesc desc, int attnum)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, attnum, desc, &isnull);

	return isnull ? (Datum) 0 : value;
}

static int64
GetInt64(HeapTuple tuple, TupleDesc desc, int attnum)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, attnum, desc, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

static Span
GetText(HeapTuple tuple, TupleDesc desc, int attnum)
{
	Datum		value = GetColumn(tuple, desc, attnum);
	Span		span = {NULL, 0};

	if (value != (Datum) 0)
	{
		text	   *txt = DatumGetTextPP(value);

		span.data = VARDATA_ANY(txt);
		span.length = VARSIZE_ANY_EXHDR(txt);
	}
	return span;
}

static int64
GetInterval(HeapTuple tuple, TupleDesc desc, int attnum)
{
	Datum		value = GetColumn(tuple, desc, attnum);

	return value == (Datum) 0 ? 0 : DatumGetIntervalP(value)->time;
}

static LedgerKind
GetKind(HeapTuple tuple, TupleDesc desc)
{
	Span		kind = GetText(tuple, desc, Anum_kind);

	for (size_t i = 0; i < lengthof(kind_names); i++)
	{
		Span		name = SpanOf(kind_names[i]);

		if (SpansEqual(&kind, &name))
			return (LedgerKind) i;
	}
	return LEDGER_UNKNOWN;
}

/* What a row takes of its name: the reverse of PutGrant. */
static void
GetPermits(HeapTuple tuple, TupleDesc desc, LedgerRow *row)
{
	Span		mode = GetText(tuple, desc, Anum_mode);
	Span		shared = SpanOf(ModeName(SHARED_LEASE, WHOLE_LEASE));

	row->permits = DatumGetInt32(GetColumn(tuple, desc, Anum_permits));
	row->capacity = DatumGetInt32(GetColumn(tuple, desc, Anum_capacity));
	if (row->capacity > 0)
		return;
	row->capacity = WHOLE_LEASE;
	row->permits = SpansEqual(&mode, &shared) ? SHARED_LEASE : WHOLE_LEASE;
}

/* Read a row; its strings live as long as the tuple. */
void
ReadRow(Relation ledger, HeapTuple tuple, LedgerRow *row)
{
	TupleDesc	desc = RelationGetDescr(ledger);

	row->kind = GetKind(tuple, desc);
	row->token = GetInt64(tuple, desc, Anum_token);
	row->name = GetText(tuple, desc, Anum_name);
	GetPermits(tuple, desc, row);
	row->holder = GetText(tuple, desc, Anum_holder);
	row->request_id = GetText(tuple, desc, Anum_request_id);
	row->correlation_id = GetText(tuple, desc, Anum_correlation_id);
	row->metadata = GetText(tuple, desc, Anum_metadata);
	row->replaces = GetInt64(tuple, desc, Anum_replaces);
	row->owner = DatumGetObjectId(GetColumn(tuple, desc, Anum_owner));
	row->ttl = GetInterval(tuple, desc, Anum_ttl);
	row->lock_delay = GetInterval(tuple, desc, Anum_lock_delay);
	row->min_hold = GetInterval(tuple, desc, Anum_min_hold);
	row->granted_at = GetInt64(tuple, desc, Anum_granted_at);
	row->system_identifier = (uint64) GetInt64(tuple, desc, Anum_system_identifier);
	row->timeline = (uint32) DatumGetInt32(GetColumn(tuple, desc, Anum_timeline));
	row->database = DatumGetObjectId(GetColumn(tuple, desc, Anum_database));
	row->valid_from = GetInt64(tuple, desc, Anum_valid_from);
}

/*
 * Of two rows that a crash left for one name, does the first make the other
 * void?
 *
 * For one grant it is the grant rather than its closure (its end was not
 * finished), and the row with the longer TTL (a renewal appends before it
 * ends).  The grant that another was transferred to counts rather than that;
 * so does a later grant that cannot be there beside the other.  All other
 * grants share their name.
 */
bool
SupersedesRow(const LedgerRow *row, const LedgerRow *other)
{
	if (row->token == other->token)
	{
		if (row->kind != other->kind)
			return row->kind == LEDGER_GRANT;
		return row->ttl > other->ttl;
	}
	if (row->replaces == other->token || other->replaces == row->token)
		return row->replaces == other->token;
	if (row->permits != WHOLE_LEASE && other->permits != WHOLE_LEASE &&
		(row->capacity == WHOLE_LEASE) == (other->capacity == WHOLE_LEASE))
		return false;
	return row->token > other->token;
}

/*
 * Show every standing row to a visitor, with strings that live until it
 * returns.  SnapshotSelf, because the rows have no transaction: what stands
 * now counts, not what stood when the statement began.
 */
void
ScanLedger(Relation ledger, LedgerVisitor visit, void *arg)
{
	TableScanDesc scan = table_beginscan(ledger, SnapshotSelf, 0, NULL);
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "lease ledger row",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext caller = CurrentMemoryContext;
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		LedgerRow	row;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(per_row);
		ReadRow(ledger, tuple, &row);
		MemoryContextSwitchTo(caller);
		if (row.kind == LEDGER_UNKNOWN)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("lease.ledger has a row of unknown kind at (%u,%u)",
							ItemPointerGetBlockNumber(&tuple->t_self),
							ItemPointerGetOffsetNumber(&tuple->t_self))));
		visit(&row, &tuple->t_self, arg);
		MemoryContextReset(per_row);
	}
	table_endscan(scan);
	MemoryContextDelete(per_row);
}

/* The metadata of the row at a TID, palloc'd; NULL if there is none. */
char *
FetchMetadata(Relation ledger, ItemPointer tid, Token token)
{
	Buffer		buffer = ReadBuffer(ledger, ItemPointerGetBlockNumber(tid));
	HeapTupleData tuple;
	char	   *metadata = NULL;

	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	if (FindRow(ledger, BufferGetPage(buffer), tid, token, &tuple) != NULL)
	{
		Span		span = GetText(&tuple, RelationGetDescr(ledger), Anum_metadata);

		if (span.length > 0)
			metadata = pnstrdup(span.data, span.length);
	}
	UnlockReleaseBuffer(buffer);
	return metadata;
}
