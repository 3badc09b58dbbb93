/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  Launcher and reapers: those who notice what nobody asks for.
 *
 * The launcher is connected to no database.  It keeps time: it puts expired grants on the
 * dead lists, and starts a reaper in each database that has dead grants, or a
 * chore that is due.  A reaper ends the grants' rows, removes keys of lease.once
 * that expired, writes events, and leaves after a second without work, or when
 * DDL on its database wants it out.
 *
 * Nothing depends on either: an expired grant is gone for every reader, and an
 * acquirer ends what is in its way.  If a worker dies, finds no slot or cannot
 * connect, memory and ledger are tidied later.
 *
 * The launcher sleeps until the earliest due time of all partitions, and naps
 * between two rounds, so that leases that expire one after the other do not
 * cost a round each.  It is a state machine of one state; a reaper's states
 * are in Database: none (reaper_pid = 0), working, idle, leaving.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "events.h"
#include "flush.h"
#include "history.h"
#include "record.h"
#include "worker.h"

#define MAX_SLEEP			(10 * USECS_PER_MINUTE)
#define REAPER_IDLE			USECS_PER_SEC	/* leave after this */
#define REAPER_RETRY		(5 * USECS_PER_SEC) /* after a start that failed */
#define REAPER_AVOID		USECS_PER_MINUTE	/* a database not to be entered */
#define REAPER_BATCH		1000	/* rows a transaction */

/* Have the postmaster start the launcher, and start it again if it dies. */
void
RegisterLauncher(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "lease", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "LeaseLauncherMain", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "lease launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "lease launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static void
DetachLauncher(int code pg_attribute_unused(), Datum arg pg_attribute_unused())
{
	pg_atomic_write_u64(&Shared->wake_at, 0);
	Shared->launcher_latch = NULL;
	pg_atomic_write_u32(&Shared->launcher_pid, 0);
}

static MonoTime
EarliestDue(void)
{
	uint64		due = MONO_NEVER;

	for (int i = 0; i < NUM_PARTITIONS; i++)
		due = Min(due, pg_atomic_read_u64(&Shared->partitions[i].next_due));
	return (MonoTime) Min(due, pg_atomic_read_u64(&Shared->flush_due));
}

/* Ask the postmaster for a reaper. */
static bool
RegisterReaper(Oid database)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = ObjectIdGetDatum(database);
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "lease", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "LeaseReaperMain", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "lease reaper for database %u", database);
	strlcpy(worker.bgw_type, "lease reaper", BGW_MAXLEN);
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

static bool
IsDue(Database *db, Chore chore, MonoTime now)
{
	return pg_atomic_read_u64(&db->due[chore]) <= (uint64) now;
}

/* When the next chore of a database is due. */
static MonoTime
NextChore(Database *db)
{
	uint64		due = MONO_NEVER;

	for (int i = 0; i < NUM_CHORES; i++)
		due = Min(due, pg_atomic_read_u64(&db->due[i]));
	return (MonoTime) due;
}

/*
 * See that a database with something to reap has a reaper that knows.  Returns
 * when to look again.
 */
static MonoTime
TendDatabase(Database *db, MonoTime now)
{
	static bool told = false;
	Latch	   *latch = NULL;
	MonoTime	retry_at;
	MonoTime	due;
	bool		start;
	Oid			oid = db->oid;

	if (oid == InvalidOid)
		return MONO_NEVER;
	due = NextChore(db);
	if (due <= now)
		pg_atomic_write_u32(&db->work, 1);
	else if (pg_atomic_read_u32(&db->work) == 0)
		return due;

	SpinLockAcquire(&db->mutex);
	if (db->reaper_pid != 0)
		latch = db->reaper_latch;
	start = db->reaper_pid == 0 && db->bans == 0 && db->retry_at <= now;
	if (start)
		db->retry_at = now + REAPER_RETRY;
	retry_at = db->retry_at;
	SpinLockRelease(&db->mutex);

	if (latch != NULL)
	{
		SetLatch(latch);
		return due > now ? due : MONO_NEVER;
	}
	if (start)
	{
		bool		registered = RegisterReaper(oid);

		if (!registered && !told)
			ereport(LOG,
					(errmsg("could not start a lease reaper: no background worker slot is free"),
					 errhint("Raise max_worker_processes.")));
		told = !registered;
	}
	return Max(retry_at, now + LAUNCHER_NAP);
}

/*
 * One round: expire what is due, tend the databases, see to what wants a flush;
 * returns when to wake for a database.
 */
static MonoTime
LauncherRound(void)
{
	MonoTime	now = MonotonicNow();
	MonoTime	wake = MONO_NEVER;

	for (int i = 0; i < NUM_PARTITIONS; i++)
		while (ExpireGrants(i, now))
			CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < MAX_DATABASES; i++)
		wake = Min(wake, TendDatabase(&Shared->databases[i], now));
	FlushDue(now);
	return wake;
}

static void
LauncherSleep(MonoTime wake)
{
	MonoTime	now = MonotonicNow();
	MonoTime	until;

	/*
	 * Say how long we mean to sleep before looking what is due for the last
	 * time: see RingLauncher.
	 */
	until = Min(wake, now + MAX_SLEEP);
	pg_atomic_write_u64(&Shared->wake_at, until);
	pg_memory_barrier();
	until = Max(Min(until, EarliestDue()), now + LAUNCHER_NAP);
	pg_atomic_write_u64(&Shared->wake_at, until);

	WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
			  (until - now + 999) / 1000, NamedWaitEvent("LeaseLauncher"));
}

/* Another time may be set for how long history is kept. */
static void
TrimAll(void)
{
	for (int i = 0; i < MAX_DATABASES; i++)
		if (pg_atomic_read_u32(&Shared->databases[i].loaded_ledger) != InvalidOid)
			NoteDue(&Shared->databases[i], CHORE_TRIM, 0);
}

/* The launcher. */
void
LeaseLauncherMain(Datum arg pg_attribute_unused())
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	/* To no database: so that pg_stat_activity shows us. */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	before_shmem_exit(DetachLauncher, (Datum) 0);
	pg_atomic_write_u32(&Shared->launcher_pid, MyProcPid);
	Shared->launcher_latch = MyLatch;
	AcceptingSince();

	for (;;)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();

		/* A status other than 0 has the postmaster start us again. */
		if (ShutdownRequestPending)
			proc_exit(1);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			TrimAll();
		}
		LauncherSleep(LauncherRound());
	}
}

/* Become the reaper of a database; false if it has one, or wants none. */
static bool
AttachReaper(Database *db)
{
	bool		attached;

	SpinLockAcquire(&db->mutex);
	attached = db->reaper_pid == 0 && db->bans == 0;
	if (attached)
	{
		db->reaper_pid = MyProcPid;
		db->reaper_latch = MyLatch;
	}
	SpinLockRelease(&db->mutex);
	return attached;
}

static void
DetachReaper(int code, Datum arg)
{
	Database   *db = (Database *) DatumGetPointer(arg);

	SpinLockAcquire(&db->mutex);
	if (db->reaper_pid == MyProcPid)
	{
		db->reaper_pid = 0;
		db->reaper_latch = NULL;
	}
	SpinLockRelease(&db->mutex);
	ReturnEventsInHand(db);

	/* What we left undone, or came up since our last look, needs another. */
	if (code != 0)
	{
		pg_atomic_write_u32(&db->work, 1);
		for (int i = 0; i < NUM_CHORES; i++)
			pg_atomic_write_u64(&db->due[i], 0);
	}
	if (pg_atomic_read_u32(&db->work) != 0 || NextChore(db) != MONO_NEVER)
		RingLauncher(0);
}

static bool
IsBanned(Database *db)
{
	bool		banned;

	SpinLockAcquire(&db->mutex);
	banned = db->bans > 0;
	SpinLockRelease(&db->mutex);
	return banned;
}

/* Settings of the database or the bootstrap role must not get in our way. */
static void
SetReaperDefaults(void)
{
	static const char *const settings[][2] = {
		{"search_path", ""},
		{"statement_timeout", "0"},
		{"lock_timeout", "0"},
		{"transaction_timeout", "0"},
		{"synchronous_commit", "off"},
		{"idle_in_transaction_session_timeout", "0"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
	};

	for (size_t i = 0; i < lengthof(settings); i++)
		if (GetConfigOption(settings[i][0], true, false) != NULL)
			SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* Templates, and databases that refuse connections, are left alone. */
static bool
IsOrdinaryDatabase(void)
{
	HeapTuple	tuple;
	bool		ordinary;

	StartTransactionCommand();
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for database %u", MyDatabaseId);
	ordinary = ((Form_pg_database) GETSTRUCT(tuple))->datallowconn &&
		!((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	CommitTransactionCommand();
	return ordinary;
}

/*
 * One transaction's worth of reaping, and what else is due; returns how many rows
 * were ended, removed or written.
 */
static int
ReaperRound(Database *db)
{
	LeaseDatabase open;
	MonoTime	now = MonotonicNow();
	bool		dropped;
	int			reaped = 0;

	pgstat_report_activity(STATE_RUNNING, "ending rows of lease.ledger");
	StartTransactionCommand();
	dropped = ForgetDroppedLedger(db);
	if (!dropped)
	{
		OpenDatabaseForWrite(&open);
		reaped = ReapGrants(&open, REAPER_BATCH);
		CloseDatabase(&open);
		if (IsDue(db, CHORE_KEYS, now))
			reaped += SweepKeys(db, now);
		if (IsDue(db, CHORE_TRIM, now))
			TrimHistory(db);
	}
	CommitTransactionCommand();
	if (!dropped && IsDue(db, CHORE_EVENTS, now))
		reaped += WriteEvents(db);
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);

	SpinLockAcquire(&db->mutex);
	db->last_reap = GetCurrentTimestamp();
	SpinLockRelease(&db->mutex);
	return reaped;
}

/* Work until there has been nothing to do for a while. */
static void
ReapUntilIdle(Database *db)
{
	MonoTime	idle_since = MonotonicNow();

	while (!IsBanned(db) && MonotonicNow() - idle_since < REAPER_IDLE)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		/* Cleared before the round: what dies during it is noted again. */
		if (pg_atomic_exchange_u32(&db->work, 0) != 0 && ReaperRound(db) > 0)
		{
			pg_atomic_write_u32(&db->work, 1);
			idle_since = MonotonicNow();
			continue;
		}
		WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
				  REAPER_IDLE / 1000, NamedWaitEvent("LeaseReaper"));
	}
}

/* No other reaper before a time. */
static void
PutOffReaper(Database *db, MonoTime until)
{
	SpinLockAcquire(&db->mutex);
	db->retry_at = until;
	SpinLockRelease(&db->mutex);
}

/* A reaper. */
void
LeaseReaperMain(Datum arg)
{
	Oid			oid = DatumGetObjectId(arg);
	Database   *db = FindDatabase(oid);

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	if (db == NULL || !AttachReaper(db))
		proc_exit(0);
	before_shmem_exit(DetachReaper, PointerGetDatum(db));

	BackgroundWorkerInitializeConnectionByOid(oid, InvalidOid, BGWORKER_BYPASS_ALLOWCONN);
	SetReaperDefaults();
	if (IsOrdinaryDatabase())
	{
		ReapUntilIdle(db);
		PutOffReaper(db, 0);
	}
	else
	{
		LoseEvents(db);
		PutOffReaper(db, MonotonicNow() + REAPER_AVOID);
	}
	proc_exit(0);
}

/* Keep reapers out of a database, and have one that is there leave. */
void
BanReaper(Oid database)
{
	Database   *db = FindDatabase(database);
	Latch	   *latch;

	if (db == NULL)
		return;
	SpinLockAcquire(&db->mutex);
	db->bans++;
	latch = db->reaper_latch;
	SpinLockRelease(&db->mutex);
	if (latch != NULL)
		SetLatch(latch);
}

void
UnbanReaper(Oid database)
{
	Database   *db = FindDatabase(database);

	if (db == NULL)
		return;
	SpinLockAcquire(&db->mutex);
	db->bans = Max(db->bans - 1, 0);
	SpinLockRelease(&db->mutex);
	RingLauncher(0);
}
