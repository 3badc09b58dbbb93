/*-------------------------------------------------------------------------
 *
 * database.c
 *	  Which databases use leases, and what their ledgers hold at load.
 *
 * Shared memory belongs to the whole server, a ledger to one database.  A
 * database gets an entry when it first uses leases; the first use after a
 * start, a promotion or a new CREATE EXTENSION loads its ledger into the table
 * while others wait.  A load that fails leaves the database unloaded.
 *
 * Each grant that is loaded gets its full TTL, counted from when the server
 * began to accept connections: renewals were not written, and to shorten what
 * a holder believes in is the one mistake never to make.
 *
 * The entry's state is under its spinlock.  While it is LOADING, nobody but
 * the loader touches the database's grants and ledger: everybody comes in
 * through OpenDatabaseForWrite or -ForRead.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "database.h"
#include "events.h"
#include "queue.h"
#include "wheel.h"

/*
 * The entry of our own database, once found: it stays ours as long as we are
 * connected, since nobody can drop the database.
 */
static Database *my_database = NULL;

/* The entry of a database, or NULL. */
Database *
FindDatabase(Oid oid)
{
	Database   *found = NULL;

	LWLockAcquire(RegistryLock, LW_SHARED);
	for (int i = 0; i < MAX_DATABASES && found == NULL; i++)
		if (Shared->databases[i].oid == oid)
			found = &Shared->databases[i];
	LWLockRelease(RegistryLock);
	return found;
}

/* Find or make the entry of our database. */
static Database *
RegisterDatabase(void)
{
	Database   *found = NULL;

	if (my_database != NULL)
		return my_database;

	LWLockAcquire(RegistryLock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		Database   *db = &Shared->databases[i];

		if (db->oid == MyDatabaseId)
		{
			found = db;
			break;
		}
		if (db->oid == InvalidOid && found == NULL)
			found = db;
	}
	if (found != NULL && found->oid != MyDatabaseId)
	{
		found->oid = MyDatabaseId;
		found->counted_since = GetCurrentTimestamp();
	}
	LWLockRelease(RegistryLock);

	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("more than %d databases of this server use leases", MAX_DATABASES)));
	my_database = found;
	return found;
}

/*
 * When the server began to accept connections, on the monotonic clock: noted
 * by the launcher as it starts, or by whoever needs it before that.
 */
MonoTime
AcceptingSince(void)
{
	uint64		unknown = 0;

	pg_atomic_compare_exchange_u64(&Shared->accepting_since, &unknown,
								   (uint64) MonotonicNow());
	return (MonoTime) pg_atomic_read_u64(&Shared->accepting_since);
}

/*
 * Remove all grants of a database whose ledger is gone.  Who still waits there
 * finds out why; what is RESERVED is its maker's, who gives it back.
 */
static void
ForgetGrants(Oid oid)
{
	for (uint32 i = 0; i < GRANT_POOL_SIZE; i++)
	{
		Grant	   *grant = LockGrantSlot(i, LW_EXCLUSIVE);
		int			partition;

		if (grant == NULL)
			continue;
		partition = grant->partition;
		if (grant->resource->key.database == oid)
		{
			LeaseName	lease;
			char		name[LEASE_NAME_MAX];

			ResolveGrant(&lease, grant, name);
			EvictWaiters(&lease, grant->resource);
			if (grant->state != GRANT_RESERVED)
			{
				if (grant->state != GRANT_ENDING && grant->state != GRANT_PINNED)
					ClaimGrant(grant, 0);
				DropGrant(&lease, grant);
			}
		}
		UnlockPartition(partition);
	}
}

/* Under the entry's spinlock. */
static void
SetState(Database *db, DatabaseState state, Oid ledger)
{
	db->state = state;
	db->ledger = ledger;
	pg_atomic_write_u32(&db->loaded_ledger, state == DATABASE_LOADED ? ledger : InvalidOid);
}

/* There is nothing to do for a reaper any more. */
static void
ForgetChores(Database *db)
{
	for (int i = 0; i < NUM_CHORES; i++)
		pg_atomic_write_u64(&db->due[i], MONO_NEVER);
}

/* A database is gone: forget it, with all its leases. */
void
ForgetDatabase(Oid oid)
{
	Database   *db = FindDatabase(oid);

	if (db == NULL)
		return;
	ForgetGrants(oid);
	ForgetStats(oid);
	ForgetEvents(db);

	LWLockAcquire(RegistryLock, LW_EXCLUSIVE);
	SpinLockAcquire(&db->mutex);
	SetState(db, DATABASE_UNLOADED, InvalidOid);
	db->bans = 0;
	db->retry_at = 0;
	db->last_reap = 0;
	SpinLockRelease(&db->mutex);
	pg_atomic_write_u32(&db->work, 0);
	pg_atomic_write_u64(&db->next, 0);
	pg_atomic_write_u64(&db->ceiling, 0);
	ForgetChores(db);
	db->oid = InvalidOid;
	LWLockRelease(RegistryLock);
}

/* A row to end once the load is done. */
typedef struct Garbage
{
	ItemPointerData tid;
	Token		token;
} Garbage;

typedef struct Loader
{
	Database   *db;
	TokenRule	rule;
	MonoTime	since;
	Garbage    *garbage;
	int			ngarbage;
	int			maxgarbage;
	int			nlinked;
} Loader;

static void
NoteGarbage(Loader *loader, const Garbage *row)
{
	if (loader->ngarbage == loader->maxgarbage)
	{
		loader->maxgarbage *= 2;
		loader->garbage = repalloc_huge(loader->garbage,
										sizeof(Garbage) * loader->maxgarbage);
	}
	loader->garbage[loader->ngarbage++] = *row;
}

static void
VisitCeiling(const LedgerRow *row, ItemPointer tid, void *arg)
{
	if (row->kind == LEDGER_CEILING)
		ConsiderCeiling((TokenRule *) arg, row, tid);
}

/* What the ceilings of a ledger say, without what shared memory may know. */
void
ReadTokenRule(Relation ledger, TokenRule *rule)
{
	StartTokenRule(rule);
	ScanLedger(ledger, VisitCeiling, rule);
	FinishTokenRule(rule, INVALID_TOKEN);
}

/*
 * The highest token that may have been handed out in our database: what memory
 * knows, or else what the ledger tells; 0 if neither says anything.
 */
Token
HighestToken(Oid ledger_oid)
{
	Database   *db = FindDatabase(MyDatabaseId);
	Token		highest = db == NULL ? 0 : (Token) pg_atomic_read_u64(&db->next);
	Relation	ledger;
	TokenRule	rule;

	if (highest > 0)
		return highest;
	StartTokenRule(&rule);
	ledger = relation_open(ledger_oid, AccessShareLock);
	if (IsLedger(ledger))
		ScanLedger(ledger, VisitCeiling, &rule);
	relation_close(ledger, AccessShareLock);
	return rule.reached;
}

/*
 * A superuser restores a ceiling row: no token up to it is to be handed out.
 * A ledger made in this very transaction will be read when it is loaded.
 */
void
RestoreCeiling(Relation ledger, const LedgerRow *row)
{
	LeaseDatabase open;

	if (WhyNotDurable(ledger) != NULL)
		return;
	OpenDatabaseForWrite(&open);
	HOLD_INTERRUPTS();
	RaiseTokens(open.db, open.ledger, TokenAfterCeiling(row));
	RESUME_INTERRUPTS();
	CloseDatabase(&open);
}

static void
FillLoadedGrant(Loader *loader, Grant *grant, const LedgerRow *row, ItemPointer tid)
{
	grant->token = row->token;
	grant->replaces = row->replaces;
	grant->granted_at = loader->since;
	grant->deadline = loader->since + row->ttl;
	grant->ttl = row->ttl;
	grant->ledger_ttl = row->ttl;
	grant->lock_delay = row->lock_delay / 1000;
	grant->min_hold = row->min_hold / 1000;
	grant->scope = SCOPE_DETACHED;
	grant->ledger_capacity = row->capacity;
	grant->acquired_at = row->granted_at;
	grant->lsn = InvalidXLogRecPtr;
	grant->owner = row->owner;
	grant->pid = 0;
	grant->renewals = 0;
	grant->tid = *tid;
	grant->has_metadata = row->metadata.length > 0;
	grant->is_closure = row->kind == LEDGER_CLOSURE;
	grant->state = grant->is_closure ? GRANT_CLOSED : GRANT_HELD;
}

/* What tells a loaded grant's row from others of its name. */
static void
RowOfGrant(const Grant *grant, LedgerRow *row)
{
	row->kind = grant->is_closure ? LEDGER_CLOSURE : LEDGER_GRANT;
	row->token = grant->token;
	row->replaces = grant->replaces;
	row->ttl = grant->ledger_ttl;
	row->permits = grant->permits;
	row->capacity = grant->ledger_capacity;
}

/*
 * A loaded grant that a row makes void, or that makes the row void.  If there is
 * none, *newest is the largest token loaded for the name so far.
 */
static Grant *
FindRival(const Resource *resource, const LedgerRow *row, bool *row_loses, Token *newest)
{
	dlist_iter	iter;

	*newest = INVALID_TOKEN;
	dlist_foreach(iter, (dlist_head *) &resource->grants)
	{
		Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);
		LedgerRow	other;

		RowOfGrant(grant, &other);
		*row_loses = !SupersedesRow(row, &other);
		if (!*row_loses || SupersedesRow(&other, row) || row->token == other.token)
			return grant;
		*newest = Max(*newest, other.token);
	}
	return NULL;
}

static void
RefuseLoad(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("the ledger of this database holds more leases than lease.max_leases (%d) allows",
					MaxLeases),
			 errhint("Raise lease.max_leases and restart the server.")));
}

/* What to do with a row of the ledger, having looked at its name. */
typedef enum RowFate
{
	ROW_LINKED,
	ROW_LOSES,					/* it is garbage */
	ROW_WINS,					/* a rival was, and is out; look again */
	ROW_REFUSED					/* the name table is full */
} RowFate;

/*
 * Put a row into the table, or the first of its rivals out: a name's rows come
 * in any order.
 */
static RowFate
LinkRow(Loader *loader, const LeaseName *lease, SpareGrant *spare, const LedgerRow *row,
		ItemPointer tid, Garbage *garbage)
{
	Resource   *resource = FindResource(lease);
	Token		newest = INVALID_TOKEN;
	bool		loses = false;
	Grant	   *grant = NULL;

	if (resource != NULL)
		grant = FindRival(resource, row, &loses, &newest);
	if (grant != NULL && loses)
		return ROW_LOSES;
	if (grant != NULL)
	{
		garbage->tid = grant->tid;
		garbage->token = grant->token;
		ClaimGrant(grant, 0);
		DropGrant(lease, grant);
		return ROW_WINS;
	}

	spare->grant->permits = row->permits;
	grant = LinkGrant(lease, spare, row->capacity);
	if (grant == NULL)
		return ROW_REFUSED;

	/* Of a semaphore that was resized, the latest grant knows the size. */
	if (row->token > newest)
		grant->resource->capacity = row->capacity;
	FillLoadedGrant(loader, grant, row, tid);
	WheelAdd(NamePartition(lease), grant);
	return ROW_LINKED;
}

static void
LoadGrant(Loader *loader, const LedgerRow *row, ItemPointer tid)
{
	LeaseName	lease;
	GrantLabels labels = {row->holder, row->request_id, row->correlation_id};
	SpareGrant	spare;
	RowFate		fate;

	ResolveName(&lease, loader->db->oid, row->name.data, row->name.length);
	if (!PrepareGrant(&spare, &lease, &labels, true))
		RefuseLoad();
	do
	{
		Garbage		garbage = {*tid, row->token};

		LockName(&lease, LW_EXCLUSIVE);
		fate = LinkRow(loader, &lease, &spare, row, tid, &garbage);
		UnlockName(&lease);
		if (fate == ROW_LOSES || fate == ROW_WINS)
			NoteGarbage(loader, &garbage);
		if (fate == ROW_WINS)
			loader->nlinked--;
	} while (fate == ROW_WINS);
	if (fate == ROW_LINKED)
		loader->nlinked++;

	DiscardSpare(&spare);
	if (fate == ROW_REFUSED)
		RefuseLoad();
}

static void
VisitToLoad(const LedgerRow *row, ItemPointer tid, void *arg)
{
	Loader	   *loader = arg;
	Garbage		self = {*tid, row->token};
	bool		counts;

	/* Without a ceiling of its own, the next load would take it for a clone. */
	if (row->kind == LEDGER_CEILING)
		counts = ItemPointerEquals(tid, &loader->rule.ceiling_tid) ||
			ItemPointerEquals(tid, &loader->rule.own_tid);
	else
		counts = row->token >= loader->rule.valid_from;

	if (!counts)
		NoteGarbage(loader, &self);
	else if (row->kind != LEDGER_CEILING)
		LoadGrant(loader, row, tid);
}

/* Load a ledger; returns how many leases, and closed names, that brought. */
static int
LoadDatabase(Database *db, Relation ledger)
{
	Loader		loader = {
		.db = db,
		.since = AcceptingSince(),
		.maxgarbage = 64
	};

	loader.garbage = palloc(sizeof(Garbage) * loader.maxgarbage);

	/* Of a ledger that was dropped. */
	ForgetGrants(db->oid);
	if (OidIsValid(db->ledger) && db->ledger != RelationGetRelid(ledger))
	{
		ForgetStats(db->oid);
		ForgetEvents(db);
	}

	StartTokenRule(&loader.rule);
	ScanLedger(ledger, VisitCeiling, &loader.rule);
	FinishTokenRule(&loader.rule, (Token) pg_atomic_read_u64(&db->next));

	db->relnumber = RelationRelFileNumber(ledger);
	db->ceiling_tid = loader.rule.ceiling_tid;
	db->valid_from = loader.rule.valid_from;
	pg_atomic_write_u64(&db->next, loader.rule.next);

	/*
	 * Nothing is reserved yet: the first grant will append a ceiling.  Until
	 * then AppendCeiling must find the row of the former one by its token.
	 */
	pg_atomic_write_u64(&db->ceiling, loader.rule.ceiling);

	ScanLedger(ledger, VisitToLoad, &loader);
	for (int i = 0; i < loader.ngarbage; i++)
		EndRow(ledger, &loader.garbage[i].tid, loader.garbage[i].token);
	pfree(loader.garbage);
	return loader.nlinked;
}

static void
FinishLoad(Database *db, DatabaseState state, Oid ledger)
{
	SpinLockAcquire(&db->mutex);
	SetState(db, state, ledger);
	SpinLockRelease(&db->mutex);
	ConditionVariableBroadcast(&db->loaded);
}

/* A load failed: give back what it took. */
static void
AbandonLoad(int code pg_attribute_unused(), Datum arg)
{
	Database   *db = (Database *) DatumGetPointer(arg);

	ForgetGrants(db->oid);
	FinishLoad(db, DATABASE_UNLOADED, InvalidOid);
}

static bool
IsLoaded(Database *db, Oid ledger)
{
	bool		loaded = pg_atomic_read_u32(&db->loaded_ledger) == ledger;

	pg_read_barrier();
	return loaded;
}

/* Become the loader of a database that is not loading. */
static bool
ClaimLoad(Database *db)
{
	bool		claimed;

	SpinLockAcquire(&db->mutex);
	claimed = db->state != DATABASE_LOADING;
	if (claimed)
		SetState(db, DATABASE_LOADING, db->ledger);
	SpinLockRelease(&db->mutex);
	return claimed;
}

/* See that a ledger, which we have locked, is loaded; wait for who loads it. */
static void
EnsureLoaded(Database *db, Relation ledger)
{
	Oid			relid = RelationGetRelid(ledger);
	Span		nameless = SpanOf("");
	int			count;

	while (!IsLoaded(db, relid))
	{
		if (!ClaimLoad(db))
		{
			ConditionVariableSleep(&db->loaded, NamedWaitEvent("LeaseLoad"));
			continue;
		}
		PG_ENSURE_ERROR_CLEANUP(AbandonLoad, PointerGetDatum(db));
		{
			count = LoadDatabase(db, ledger);
		}
		PG_END_ENSURE_ERROR_CLEANUP(AbandonLoad, PointerGetDatum(db));
		FinishLoad(db, DATABASE_LOADED, relid);
		RecordAct(&nameless, EVENT_LOADED, psprintf("%d leases, TTLs counted anew", count));

		/* What lease.keys and lease.events hold is unknown: have a reaper look. */
		NoteDue(db, CHORE_KEYS, 0);
		NoteDue(db, CHORE_TRIM, 0);
	}
	ConditionVariableCancelSleep();
}

static void
VisitToRefresh(const LedgerRow *row, ItemPointer tid, void *arg)
{
	Database   *db = arg;
	LeaseName	lease;
	Grant	   *grant;

	if (row->kind == LEDGER_CEILING)
	{
		if (row->token == (Token) pg_atomic_read_u64(&db->ceiling))
			db->ceiling_tid = *tid;
		return;
	}
	ResolveName(&lease, db->oid, row->name.data, row->name.length);
	LockName(&lease, LW_EXCLUSIVE);
	grant = FindGrant(&lease, row->token);
	if (grant != NULL)
		grant->tid = *tid;
	UnlockName(&lease);
}

/*
 * VACUUM FULL, or a move to another tablespace, gave the ledger a new file:
 * look up where all rows are now.  Our lock on the table keeps the file.
 */
static void
RefreshTids(Database *db, Relation ledger)
{
	LWLockAcquire(DatabaseLock(db), LW_EXCLUSIVE);
	if (db->relnumber != RelationRelFileNumber(ledger))
	{
		ItemPointerSetInvalid(&db->ceiling_tid);
		ScanLedger(ledger, VisitToRefresh, db);
		db->relnumber = RelationRelFileNumber(ledger);
	}
	LWLockRelease(DatabaseLock(db));
}

/*
 * For a reaper: if the ledger is gone, with its extension, free what it left in
 * memory.  Returns true if there is nothing to reap.
 */
bool
ForgetDroppedLedger(Database *db)
{
	Oid			ledger;
	bool		claimed = false;

	SpinLockAcquire(&db->mutex);
	ledger = db->ledger;
	SpinLockRelease(&db->mutex);
	if (OidIsValid(ledger) ? SearchSysCacheExists1(RELOID, ObjectIdGetDatum(ledger)) : LedgerExists())
		return false;

	SpinLockAcquire(&db->mutex);
	if (db->state == DATABASE_LOADED && db->ledger == ledger)
	{
		SetState(db, DATABASE_LOADING, ledger);
		claimed = true;
	}
	SpinLockRelease(&db->mutex);
	if (claimed)
	{
		ForgetGrants(db->oid);
		ForgetStats(db->oid);
		ForgetEvents(db);
		FinishLoad(db, DATABASE_UNLOADED, InvalidOid);
	}

	/* Nor is there anything to do, or the launcher would send for reapers for ever. */
	SpinLockAcquire(&db->mutex);
	claimed = db->state == DATABASE_UNLOADED;
	if (claimed)
		ForgetChores(db);
	SpinLockRelease(&db->mutex);
	if (claimed)
		ForgetEvents(db);
	return true;
}

/*
 * Our database, loaded, with its ledger open and locked against a rewrite: for
 * all that appends or ends rows.
 */
void
OpenDatabaseForWrite(LeaseDatabase *open)
{
	const char *why_not;

	open->ledger = OpenLedger(RowExclusiveLock);
	why_not = WhyNotDurable(open->ledger);
	if (why_not != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("lease.ledger cannot keep leases durable"),
				 errdetail_internal("%s", why_not)));
	open->db = RegisterDatabase();
	EnsureLoaded(open->db, open->ledger);
	if (open->db->relnumber != RelationRelFileNumber(open->ledger))
		RefreshTids(open->db, open->ledger);
}

/* Our database, loaded: for those to whom memory is enough. */
void
OpenDatabaseForRead(LeaseDatabase *open)
{
	open->db = RegisterDatabase();
	open->ledger = NULL;
	if (!IsLoaded(open->db, LedgerOid()))
	{
		OpenDatabaseForWrite(open);
		CloseDatabase(open);
	}
}

/* The same, and a name in it. */
void
OpenNameForWrite(const Span *name, LeaseDatabase *open, LeaseName *lease)
{
	OpenDatabaseForWrite(open);
	ResolveName(lease, open->db->oid, name->data, name->length);
}

void
OpenNameForRead(const Span *name, LeaseDatabase *open, LeaseName *lease)
{
	OpenDatabaseForRead(open);
	ResolveName(lease, open->db->oid, name->data, name->length);
}

void
CloseDatabase(LeaseDatabase *open)
{
	if (open->ledger != NULL)
		CloseLedger(open->ledger, RowExclusiveLock);
	open->ledger = NULL;
}
