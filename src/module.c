/*-------------------------------------------------------------------------
 *
 * module.c
 *	  Where the server meets the extension: settings and hooks.
 *
 * Without shared_preload_libraries the library loads, and does nothing: that
 * is what pg_upgrade's LOAD needs.  Its functions then say what is missing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/varlena.h"

#include "clock.h"
#include "guard.h"
#include "keep.h"
#include "session.h"
#include "settings.h"
#include "worker.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

int			DefaultTtl = 30 * 1000;
int			MaxTtl = 24 * 60 * 60 * 1000;
char	   *HolderSetting = NULL;
char	   *CorrelationIdSetting = NULL;
bool		AllowSessionScope = true;
int			HistoryRetention = 7 * SECS_PER_DAY;
char	   *NotifySetting = NULL;
uint32		LoggedEvents = 0;

static char *log_events_setting = NULL;

static shmem_request_hook_type prev_shmem_request = NULL;
static shmem_startup_hook_type prev_shmem_startup = NULL;
static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

static bool
CheckLabel(char **newval, void **extra pg_attribute_unused(),
		   GucSource source pg_attribute_unused())
{
	if (*newval == NULL || strlen(*newval) <= LEASE_LABEL_MAX)
		return true;
	GUC_check_errdetail("The value has %zu bytes; at most %d are allowed.",
						strlen(*newval), LEASE_LABEL_MAX);
	return false;
}

/* The bits of a list of kinds of events, or "all". */
static bool
CheckLogEvents(char **newval, void **extra, GucSource source pg_attribute_unused())
{
	char	   *copy = pstrdup(*newval);
	List	   *kinds;
	ListCell   *cell;
	uint32		bits = 0;

	if (!SplitIdentifierString(copy, ',', &kinds))
	{
		GUC_check_errdetail("List syntax is invalid.");
		return false;
	}
	foreach(cell, kinds)
	{
		const char *kind = lfirst(cell);
		int			i = 0;

		while (i < NUM_EVENTS && strcmp(kind, EventNames[i]) != 0)
			i++;
		if (strcmp(kind, "all") == 0)
			bits = ~0;
		else if (i < NUM_EVENTS)
			bits |= 1u << i;
		else if (strcmp(kind, "none") != 0)
		{
			GUC_check_errdetail("There is no kind of event \"%s\".", kind);
			return false;
		}
	}
	list_free(kinds);
	pfree(copy);
	*extra = AllocateExtra(sizeof(uint32));
	if (*extra == NULL)
		return false;
	*(uint32 *) *extra = bits;
	return true;
}

static void
AssignLogEvents(const char *newval pg_attribute_unused(), void *extra)
{
	LoggedEvents = *(uint32 *) extra;
}

/* A pattern of LIKE must not end in the middle of an escape. */
static bool
CheckNotify(char **newval, void **extra pg_attribute_unused(),
			GucSource source pg_attribute_unused())
{
	size_t		length = strlen(*newval);
	int			backslashes = 0;

	while (length > 0 && (*newval)[--length] == '\\')
		backslashes++;
	if (backslashes % 2 == 0)
		return true;
	GUC_check_errdetail("LIKE pattern must not end with escape character.");
	return false;
}

static void
DefineWatchSettings(void)
{
	DefineCustomIntVariable("lease.history_retention",
							"Sets how long lease.history keeps events.",
							"0 keeps none.",
							&HistoryRetention, 7 * SECS_PER_DAY, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomStringVariable("lease.notify",
							   "Sets the names whose events are sent to channel \"lease\", as a pattern of LIKE.",
							   "Anybody may listen there. Empty sends none.",
							   &NotifySetting, "",
							   PGC_SIGHUP, 0, CheckNotify, NULL, NULL);
	DefineCustomStringVariable("lease.log_events",
							   "Sets which kinds of events are written to the server's log.",
							   "A list such as \"expired, forced\", or \"all\", or \"none\".",
							   &log_events_setting, "none",
							   PGC_SIGHUP, GUC_LIST_INPUT, CheckLogEvents, AssignLogEvents, NULL);
}

static void
DefineSettings(void)
{
	DefineCustomIntVariable("lease.max_leases",
							"Sets how many leases can be held at once, in all databases of the server.",
							"Each takes about 400 bytes of shared memory.",
							&MaxLeases, 32768, 16, 16 * 1024 * 1024,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("lease.default_ttl",
							"Sets the TTL of a detached lease that is acquired without one.",
							NULL,
							&DefaultTtl, 30 * 1000, 1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("lease.max_ttl",
							"Sets the longest TTL, lock_delay and min_hold that may be asked for.",
							NULL,
							&MaxTtl, 24 * 60 * 60 * 1000, 1, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("lease.holder",
							   "Sets the holder of leases that are acquired without one; at most 127 bytes.",
							   "If empty, it is application_name, else the client's address and process ID.",
							   &HolderSetting, "",
							   PGC_USERSET, 0, CheckLabel, NULL, NULL);
	DefineCustomStringVariable("lease.correlation_id",
							   "Sets the correlation ID of leases that are acquired without one; at most 127 bytes.",
							   NULL,
							   &CorrelationIdSetting, "",
							   PGC_USERSET, 0, CheckLabel, NULL, NULL);
	DefineCustomBoolVariable("lease.allow_session_scope",
							 "Allows leases of scope session.",
							 "Turn it off for roles and databases whose clients come through a transaction pooler.",
							 &AllowSessionScope, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineWatchSettings();
	MarkGUCPrefixReserved("lease");
}

static void
LeaseShmemRequest(void)
{
	if (prev_shmem_request)
		prev_shmem_request();
	RequestSharedMemory();
}

static void
LeaseShmemStartup(void)
{
	HASHCTL		names = {
		.hash = NameKeyHash,
		.match = NameKeyMatch,
		.keycopy = NameKeyCopy
	};
	HASHCTL		stats = {
		.hash = NameKeyHash,
		.match = StatsKeyMatch,
		.keycopy = StatsKeyCopy
	};

	if (prev_shmem_startup)
		prev_shmem_startup();
	if (AttachSharedMemory(&names, &stats))
		RestoreKept();
	if (!IsUnderPostmaster)
		on_shmem_exit(KeepAtShutdown, (Datum) 0);
}

/* The template that CREATE DATABASE will copy. */
static const char *
TemplateName(CreatedbStmt *stmt)
{
	ListCell   *cell;

	foreach(cell, stmt->options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return "template1";
}

/*
 * The database that a statement needs to be free of other sessions, or
 * InvalidOid: a reaper must not be what it waits for.
 */
static Oid
DatabaseToLeave(Node *stmt)
{
	const char *name = NULL;

	if (IsA(stmt, DropdbStmt))
		name = castNode(DropdbStmt, stmt)->dbname;
	else if (IsA(stmt, AlterDatabaseStmt))
		name = castNode(AlterDatabaseStmt, stmt)->dbname;
	else if (IsA(stmt, CreatedbStmt))
		name = TemplateName(castNode(CreatedbStmt, stmt));
	else if (IsA(stmt, RenameStmt) && castNode(RenameStmt, stmt)->renameType == OBJECT_DATABASE)
		name = castNode(RenameStmt, stmt)->subname;
	return name != NULL ? get_database_oid(name, true) : InvalidOid;
}

static bool
IsDiscardAll(Node *stmt)
{
	return IsA(stmt, DiscardStmt) && castNode(DiscardStmt, stmt)->target == DISCARD_ALL;
}

/* Let guards know where the snapshot of a transaction comes from. */
static void
NoteSnapshotSource(Node *stmt)
{
	if (IsA(stmt, TransactionStmt) &&
		(castNode(TransactionStmt, stmt)->kind == TRANS_STMT_BEGIN ||
		 castNode(TransactionStmt, stmt)->kind == TRANS_STMT_START))
		NoteTransactionStart();
	else if (IsA(stmt, VariableSetStmt) && castNode(VariableSetStmt, stmt)->kind == VAR_SET_MULTI)
	{
		const char *name = castNode(VariableSetStmt, stmt)->name;

		if (strcmp(name, "TRANSACTION") == 0)
			NoteTransactionStart();
		else if (strcmp(name, "TRANSACTION SNAPSHOT") == 0)
			NoteImportedSnapshot();
	}
}

static void
UnbanAfterError(int code pg_attribute_unused(), Datum arg)
{
	UnbanReaper(DatumGetObjectId(arg));
}

/* Go on to the next hook, or to the server. */
static void
RunUtility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
		   ProcessUtilityContext context, ParamListInfo params,
		   QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	if (prev_process_utility)
		prev_process_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);
}

static void
LeaseProcessUtility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
					ProcessUtilityContext context, ParamListInfo params,
					QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	Oid			database = DatabaseToLeave(pstmt->utilityStmt);
	bool		discards_all = IsDiscardAll(pstmt->utilityStmt);
	bool		drops;

	NoteSnapshotSource(pstmt->utilityStmt);
	if (!OidIsValid(database) || Shared == NULL)
	{
		RunUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);
		if (discards_all)
			(void) ReleaseSession();
		return;
	}

	/* pstmt is not ours to look at when the statement is over. */
	drops = IsA(pstmt->utilityStmt, DropdbStmt);
	BanReaper(database);
	PG_ENSURE_ERROR_CLEANUP(UnbanAfterError, ObjectIdGetDatum(database));
	{
		RunUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	}
	PG_END_ENSURE_ERROR_CLEANUP(UnbanAfterError, ObjectIdGetDatum(database));
	if (drops)
		ForgetDatabase(database);
	else
		UnbanReaper(database);
}

/*
 * With the extension goes what its tokens have reached.  Should it be created
 * again after a restart, tokens start from the clock: so wait until the clock
 * has passed them.  That takes any time only shortly after tokens were lifted,
 * by a fail-over, a restore or new_epoch: a minute for each.
 */
static void
AwaitTokenClock(Oid ledger)
{
	static const int64 longest = 10 * USECS_PER_MINUTE;
	Token		highest = HighestToken(ledger);
	bool		told = false;

	for (;;)
	{
		Token		ahead = highest - TokenClock();
		int64		usec = ahead / (double) TOKEN_EPOCH_SIZE * USECS_PER_MINUTE;

		if (ahead <= 0)
			return;
		if (usec > longest)
		{
			ereport(WARNING,
					(errmsg("fencing tokens are ahead of the clock by " INT64_FORMAT " seconds",
							usec / USECS_PER_SEC),
					 errdetail("If the extension is created in this database again before that time has passed, tokens may repeat.")));
			return;
		}
		if (!told)
			ereport(NOTICE,
					(errmsg("waiting " INT64_FORMAT " seconds until the clock has passed all fencing tokens",
							usec / USECS_PER_SEC + 1)));
		told = true;
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 usec / 1000 + 1, NamedWaitEvent("LeaseTokenClock"));
		ResetLatch(MyLatch);
	}
}

static bool
IsLedgerName(Oid relation)
{
	char	   *namespace = get_namespace_name(get_rel_namespace(relation));
	char	   *name = get_rel_name(relation);

	return namespace != NULL && strcmp(namespace, "lease") == 0 &&
		name != NULL && strcmp(name, "ledger") == 0;
}

static void
LeaseObjectAccess(ObjectAccessType access, Oid class, Oid object, int subid, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class, object, subid, arg);
	if (access == OAT_DROP && class == RelationRelationId && subid == 0 &&
		Shared != NULL && IsLedgerName(object))
		AwaitTokenClock(object);
}

/* Called as the library is loaded. */
void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	DefineSettings();
	InitGuards();

	prev_shmem_request = shmem_request_hook;
	shmem_request_hook = LeaseShmemRequest;
	prev_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = LeaseShmemStartup;
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = LeaseProcessUtility;
	prev_object_access = object_access_hook;
	object_access_hook = LeaseObjectAccess;

	/* pg_upgrade wants nobody but itself at work. */
	if (!IsBinaryUpgrade)
		RegisterLauncher();
}
