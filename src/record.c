/*-------------------------------------------------------------------------
 *
 * record.c
 *	  What the extension records in tables, within the caller's transaction:
 *	  the largest token that a resource saw (lease.fences), and which requests
 *	  were done, with what result (lease.keys).
 *
 * Ordinary rows: they commit and roll back with the caller, and who comes second
 * waits for the first by the server's own means, a unique index and row locks.
 * The tables are nobody's but the extension's; the functions here write them as
 * their owner, and see that a row is touched only by who has the privileges of
 * the role that made it.
 *
 * Expired keys count for nothing, and the reaper removes them.  When the first
 * expires it learns from due[CHORE_KEYS] in the database's entry: whoever adds a key
 * lowers that once it is committed, so that a sweep either sees the row, or is
 * followed by the note.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "args.h"
#include "clock.h"
#include "lessor.h"
#include "record.h"
#include "statement.h"

PG_FUNCTION_INFO_V1(lease_fence);
PG_FUNCTION_INFO_V1(lease_once);
PG_FUNCTION_INFO_V1(lease_save_result);
PG_FUNCTION_INFO_V1(lease_result);

/* The reaper removes so many keys a transaction, and rests so long after all. */
#define SWEEP_BATCH		1000
#define SWEEP_PAUSE		(5 * USECS_PER_SEC)

/* Longest that a key is kept; usec.  Its table is no archive. */
#define KEY_TTL_MAX		(366 * USECS_PER_DAY)

/*
 * They run as the owner, so that nothing in them may depend on search_path: each
 * operator and function names its schema.
 */
static Statement find_fence = {
	"SELECT token, owner FROM lease.fences "
	"WHERE resource OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE",
	1, {TEXTOID}, NULL
};
static Statement add_fence = {
	"INSERT INTO lease.fences (resource, token, owner) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
	3, {TEXTOID, INT8OID, OIDOID}, NULL
};
static Statement raise_fence = {
	"UPDATE lease.fences SET token = $2, fenced_at = pg_catalog.clock_timestamp() "
	"WHERE resource OPERATOR(pg_catalog.=) $1",
	2, {TEXTOID, INT8OID}, NULL
};

static Statement add_key = {
	"INSERT INTO lease.keys (key, owner, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
	3, {TEXTOID, OIDOID, TIMESTAMPTZOID}, NULL
};
static Statement find_key = {
	"SELECT owner, result FROM lease.keys WHERE key OPERATOR(pg_catalog.=) $1 "
	"AND expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()",
	1, {TEXTOID}, NULL
};
static Statement retake_key = {
	"UPDATE lease.keys SET owner = $2, expires_at = $3, "
	"claimed_at = pg_catalog.clock_timestamp(), result = NULL "
	"WHERE key OPERATOR(pg_catalog.=) $1 "
	"AND expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()",
	3, {TEXTOID, OIDOID, TIMESTAMPTZOID}, NULL
};
static Statement restart_key = {
	"UPDATE lease.keys SET expires_at = $2, claimed_at = pg_catalog.clock_timestamp() "
	"WHERE key OPERATOR(pg_catalog.=) $1",
	2, {TEXTOID, TIMESTAMPTZOID}, NULL
};
static Statement set_result = {
	"UPDATE lease.keys SET result = $2 WHERE key OPERATOR(pg_catalog.=) $1 "
	"AND expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()",
	2, {TEXTOID, JSONBOID}, NULL
};
static Statement remove_keys = {
	"DELETE FROM lease.keys WHERE key OPERATOR(pg_catalog.=) ANY "
	"(SELECT key FROM lease.keys "
	" WHERE expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp() "
	" ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
	1, {INT4OID}, NULL
};
static Statement next_key = {
	"SELECT pg_catalog.min(expires_at) FROM lease.keys",
	0, {InvalidOid}, NULL
};

/* A role, and what it may do, to go back to. */
typedef struct Caller
{
	Oid			role;
	int			context;
} Caller;

/* Go on as the owner of the extension's tables; an error undoes it. */
static void
BecomeOwner(Caller *caller)
{
	HeapTuple	tuple;
	Oid			owner;

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(LedgerOid()));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for lease.ledger");
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	GetUserIdAndSecContext(&caller->role, &caller->context);
	SetUserIdAndSecContext(owner, caller->context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
	SPI_connect();
}

static void
BecomeCaller(const Caller *caller)
{
	SPI_finish();
	SetUserIdAndSecContext(caller->role, caller->context);
}

static void
RequirePrivileges(Oid role, Oid owner, const char *what, Datum name)
{
	if (has_privs_of_role(role, owner))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for %s \"%s\"", what, TextDatumGetCString(name)),
			 errdetail("It belongs to another role, which used it first.")));
}

/*
 * Look at a fence, which is ours from then on; raise it, if that is not to lower
 * it.  False if there is none.
 */
static bool
RaiseFence(Datum *values, Oid role, Token *seen)
{
	Token		token = DatumGetInt64(values[1]);
	bool		isnull;

	if (RunStatement(&find_fence, values) == 0)
		return false;
	*seen = DatumGetInt64(FoundValue(1, &isnull));
	RequirePrivileges(role, DatumGetObjectId(FoundValue(2, &isnull)), "resource", values[0]);
	if (token > *seen)
		(void) RunStatement(&raise_fence, values);
	return true;
}

pg_noreturn static void
RefuseStale(const Span *resource, Token token, Token seen)
{
	RecordMisuse(resource, token, EVENT_REJECTED, "fence");
	ereport(ERROR,
			(errcode(ERRCODE_STALE_TOKEN),
			 errmsg("stale token " INT64_FORMAT " for resource \"%.*s\"",
					token, (int) resource->length, resource->data),
			 errdetail("Token " INT64_FORMAT " was seen before.", seen)));
}

/* fence(resource, token): the token. */
Datum
lease_fence(PG_FUNCTION_ARGS)
{
	Datum		values[3];
	Span		resource;
	Token		token;
	Token		seen = INVALID_TOKEN;
	Caller		caller;

	RequireWritable("lease.fence()");
	resource = BoundedArg(fcinfo, 0, "resource");
	values[0] = PG_GETARG_DATUM(0);
	token = TokenArg(fcinfo, 1);
	RequireGrantedToken(token);
	values[1] = Int64GetDatum(token);
	values[2] = ObjectIdGetDatum(GetUserId());

	/* Whoever else adds it commits before we find that it is there. */
	BecomeOwner(&caller);
	while (!RaiseFence(values, caller.role, &seen) && RunStatement(&add_fence, values) == 0)
		CHECK_FOR_INTERRUPTS();
	BecomeCaller(&caller);
	if (token < seen)
		RefuseStale(&resource, token, seen);
	PG_RETURN_INT64(token);
}

/* When the keys that this transaction adds expire first. */
static MonoTime keys_due = MONO_NEVER;

static void
NoteKeysAtCommit(XactEvent event, void *arg pg_attribute_unused())
{
	Database   *db;

	if ((event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE) ||
		keys_due == MONO_NEVER)
		return;
	db = FindDatabase(MyDatabaseId);
	if (event != XACT_EVENT_ABORT && db != NULL)
		NoteDue(db, CHORE_KEYS, keys_due);
	keys_due = MONO_NEVER;
}

/* A key is added, to expire after a time. */
static void
NoteKey(int64 ttl)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(NoteKeysAtCommit, NULL);
	registered = true;
	keys_due = Min(keys_due, MonotonicNow() + ttl);
}

/* Take a key: true if it was nobody's, or had expired. */
static bool
TakeKey(Datum *values, Oid role)
{
	for (;;)
	{
		bool		isnull;

		/* A key that others add and have not committed is waited for. */
		if (RunStatement(&add_key, values) > 0)
			return true;
		if (RunStatement(&find_key, values) > 0)
		{
			RequirePrivileges(role, DatumGetObjectId(FoundValue(1, &isnull)), "key", values[0]);
			return false;
		}
		if (RunStatement(&retake_key, values) > 0)
			return true;
		CHECK_FOR_INTERRUPTS();
	}
}

/* The TTL of a key counts from when we have it, and not from before a wait. */
static void
RestartKey(Datum key, TimestampTz expires_at, int64 ttl)
{
	Datum		values[2] = {key, TimestampTzGetDatum(GetCurrentTimestamp() + ttl)};

	if (DatumGetTimestampTz(values[1]) - expires_at > ttl / 1000)
		(void) RunStatement(&restart_key, values);
}

/* once(key, ttl): true for the first transaction that commits it. */
Datum
lease_once(PG_FUNCTION_ARGS)
{
	LeaseDatabase open;
	Datum		values[3];
	int64		ttl;
	Caller		caller;
	bool		first;

	RequireWritable("lease.once()");
	(void) BoundedArg(fcinfo, 0, "key");
	values[0] = PG_GETARG_DATUM(0);
	RequireNotNull(fcinfo, 1, "TTL");
	ttl = CheckDuration(PG_GETARG_INTERVAL_P(1), "TTL", LEASE_TTL_MIN, KEY_TTL_MAX, NULL);
	values[1] = ObjectIdGetDatum(GetUserId());
	values[2] = TimestampTzGetDatum(GetCurrentTimestamp() + ttl);

	/* Only a database that is loaded has reapers. */
	OpenDatabaseForRead(&open);
	BecomeOwner(&caller);
	first = TakeKey(values, caller.role);
	if (first)
		RestartKey(values[0], DatumGetTimestampTz(values[2]), ttl);
	BecomeCaller(&caller);
	if (first)
		NoteKey(ttl);
	PG_RETURN_BOOL(first);
}

/* Find a key, of which we have the privileges.  False if there is none. */
static bool
FindKey(Datum *values, Oid role)
{
	bool		isnull;

	if (RunStatement(&find_key, values) == 0)
		return false;
	RequirePrivileges(role, DatumGetObjectId(FoundValue(1, &isnull)), "key", values[0]);
	return true;
}

/* save_result(key, result): false if there is no such key. */
Datum
lease_save_result(PG_FUNCTION_ARGS)
{
	Datum		values[2];
	Caller		caller;
	bool		saved;

	RequireWritable("lease.save_result()");
	(void) BoundedArg(fcinfo, 0, "key");
	values[0] = PG_GETARG_DATUM(0);
	RequireNotNull(fcinfo, 1, "result");
	values[1] = PG_GETARG_DATUM(1);

	BecomeOwner(&caller);
	saved = FindKey(values, caller.role) && RunStatement(&set_result, values) > 0;
	BecomeCaller(&caller);
	PG_RETURN_BOOL(saved);
}

/* result(key): what was saved, or NULL. */
Datum
lease_result(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	Datum		values[1];
	Datum		result = (Datum) 0;
	bool		isnull = true;
	Caller		caller;

	RequirePreloaded();
	(void) BoundedArg(fcinfo, 0, "key");
	values[0] = PG_GETARG_DATUM(0);
	BecomeOwner(&caller);
	if (FindKey(values, caller.role))
	{
		result = FoundValue(2, &isnull);
		if (!isnull)
		{
			MemoryContext former = MemoryContextSwitchTo(context);

			result = PointerGetDatum(PG_DETOAST_DATUM_COPY(result));
			MemoryContextSwitchTo(former);
		}
	}
	BecomeCaller(&caller);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(result);
}

/* When the next key of those that are there expires. */
static MonoTime
NextExpiry(MonoTime now)
{
	bool		isnull;
	Datum		next;

	(void) RunStatement(&next_key, NULL);
	next = FoundValue(1, &isnull);
	if (isnull)
		return MONO_NEVER;
	return Max(now + (DatumGetTimestampTz(next) - GetCurrentTimestamp()), now + SWEEP_PAUSE);
}

/* Remove expired keys, as the reaper of a database where some are. */
int
SweepKeys(Database *db, MonoTime now)
{
	Datum		values[1] = {Int32GetDatum(SWEEP_BATCH)};
	int			removed;

	/* What comes from now on is noted anew. */
	pg_atomic_write_u64(&db->due[CHORE_KEYS], MONO_NEVER);
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	removed = RunStatement(&remove_keys, values);
	NoteDue(db, CHORE_KEYS, removed == SWEEP_BATCH ? now : NextExpiry(now));
	SPI_finish();
	PopActiveSnapshot();
	return removed;
}
