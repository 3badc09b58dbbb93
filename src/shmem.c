/*-------------------------------------------------------------------------
 *
 * shmem.c
 *	  Lays out the shared memory and its locks.
 *
 * Everything is allocated once, at start, by lease.max_leases: nothing can run
 * out in the middle of a grant.  See shmem.h for the structures and locks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "clock.h"
#include "shmem.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#define PARTITION_TRANCHE	"LeasePartition"
#define DATABASE_TRANCHE	"LeaseDatabase"
#define DEADLOCK_TRANCHE	"LeaseDeadlock"
#define FLUSH_TRANCHE		"LeaseFlush"

LeaseShared *Shared;
Grant	   *Grants;
Chunk	   *Chunks;
HTAB	   *Names;
HTAB	   *Stats;
EventPage  *EventPages;
LWLockPadded *PartitionLocks;
LWLockPadded *DatabaseLocks;
LWLock	   *DeadlockLock;
LWLock	   *FlushLock;
Waiter	   *Waiters;
ShownPins  *Pins;
FlushMember *FlushMembers;
int			MaxLeases = 32768;

/* Ask for memory and locks; called from shmem_request_hook. */
void
RequestSharedMemory(void)
{
	Size		size = MAXALIGN(sizeof(LeaseShared));

	size = add_size(size, mul_size(GRANT_POOL_SIZE, sizeof(Grant)));
	size = add_size(size, mul_size(CHUNK_POOL_SIZE, sizeof(Chunk)));
	size = add_size(size, mul_size(WAITER_COUNT, sizeof(Waiter)));
	size = add_size(size, mul_size(WAITER_COUNT, sizeof(ShownPins)));
	size = add_size(size, mul_size(WAITER_COUNT, sizeof(FlushMember)));
	size = add_size(size, mul_size(EVENT_PAGES, sizeof(EventPage)));
	size = add_size(size, hash_estimate_size(GRANT_POOL_SIZE, sizeof(Resource)));
	size = add_size(size, hash_estimate_size(STATS_SIZE, sizeof(NameStats)));
	RequestAddinShmemSpace(size);
	RequestNamedLWLockTranche(PARTITION_TRANCHE, NUM_PARTITIONS);
	RequestNamedLWLockTranche(DATABASE_TRANCHE, MAX_DATABASES + 1);
	RequestNamedLWLockTranche(DEADLOCK_TRANCHE, 1);
	RequestNamedLWLockTranche(FLUSH_TRANCHE, 1);
}

static void
InitPartition(Partition *part)
{
	ConditionVariableInit(&part->settled);
	pg_atomic_init_u64(&part->next_due, MONO_NEVER);
	dlist_init(&part->dead);
	dlist_init(&part->stats);
	for (int level = 0; level < WHEEL_LEVELS; level++)
		for (int slot = 0; slot < WHEEL_SLOTS; slot++)
			dlist_init(&part->wheel.slots[level][slot]);
}

/* Counters of nothing yet. */
void
ResetCounters(Counters *counters)
{
	memset(counters, 0, sizeof(Counters));
	counters->margin_min = PG_INT64_MAX;
}

static void
InitDatabase(Database *db)
{
	SpinLockInit(&db->mutex);
	ConditionVariableInit(&db->loaded);
	pg_atomic_init_u32(&db->loaded_ledger, InvalidOid);
	pg_atomic_init_u32(&db->work, 0);
	for (int i = 0; i < NUM_CHORES; i++)
		pg_atomic_init_u64(&db->due[i], MONO_NEVER);
	SpinLockInit(&db->log.mutex);
	db->log.first = db->log.last = NO_PAGE;
	ResetCounters(&db->counters);
	pg_atomic_init_u64(&db->next, 0);
	pg_atomic_init_u64(&db->ceiling, 0);
}

static void
InitFreeLists(void)
{
	uint32		i;

	SpinLockInit(&Shared->free_grants.mutex);
	Shared->free_grants.count = GRANT_POOL_SIZE;
	for (i = 0; i < GRANT_POOL_SIZE; i++)
		Grants[i].strings = i + 1;

	SpinLockInit(&Shared->free_chunks.mutex);
	Shared->free_chunks.count = CHUNK_POOL_SIZE;
	for (i = 0; i < CHUNK_POOL_SIZE; i++)
		Chunks[i].next = i + 1;

	SpinLockInit(&Shared->free_pages.mutex);
	Shared->free_pages.count = EVENT_PAGES;
	for (i = 0; i < EVENT_PAGES; i++)
		EventPages[i].next = i + 1;
}

static void
InitShared(void)
{
	memset(Shared, 0, sizeof(LeaseShared));
	memset(Grants, 0, sizeof(Grant) * GRANT_POOL_SIZE);
	memset(Waiters, 0, sizeof(Waiter) * WAITER_COUNT);
	pg_atomic_init_u64(&Shared->clock_offset, 0);
	pg_atomic_init_u64(&Shared->grants_made, 0);
	pg_atomic_init_u64(&Shared->accepting_since, 0);
	pg_atomic_init_u32(&Shared->launcher_pid, 0);
	pg_atomic_init_u64(&Shared->wake_at, 0);
	pg_atomic_init_u32(&Shared->waiting, 0);
	pg_atomic_init_u32(&Shared->flush_list, NO_MEMBER);
	pg_atomic_init_u64(&Shared->unflushed, InvalidXLogRecPtr);
	pg_atomic_init_u64(&Shared->flush_due, MONO_NEVER);
	for (int i = 0; i < NUM_PARTITIONS; i++)
		InitPartition(&Shared->partitions[i]);
	for (int i = 0; i < MAX_DATABASES; i++)
		InitDatabase(&Shared->databases[i]);
	for (uint32 i = 0; i < WAITER_COUNT; i++)
	{
		pg_atomic_init_u32(&Waiters[i].state, WAIT_NONE);
		for (int j = 0; j < PINS_SHOWN; j++)
			pg_atomic_init_u64(&Pins[i].tokens[j], INVALID_TOKEN);
	}
	InitFreeLists();
}

/* A hash table of names, with one of the partitions' locks for each partition. */
static HTAB *
AttachNameTable(const char *name, const HASHCTL *functions, Size entry_size, long size)
{
	HASHCTL		ctl = *functions;

	ctl.keysize = sizeof(NameKey);
	ctl.entrysize = entry_size;
	ctl.num_partitions = NUM_PARTITIONS;
	return ShmemInitHash(name, size, size, &ctl,
						 HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_KEYCOPY |
						 HASH_PARTITION | HASH_FIXED_SIZE);
}

/*
 * Create or find the memory; called from shmem_startup_hook.  Returns true if it
 * is new.
 *
 * How names are hashed, compared and kept is the business of files above this
 * one: it comes in with the tables (hash, match and keycopy set).
 */
bool
AttachSharedMemory(const HASHCTL *name_table, const HASHCTL *stats_table)
{
	bool		found;
	bool		all_found = true;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);

	Shared = ShmemInitStruct("lease", sizeof(LeaseShared), &found);
	all_found &= found;
	Grants = ShmemInitStruct("lease grants", mul_size(GRANT_POOL_SIZE, sizeof(Grant)), &found);
	all_found &= found;
	Chunks = ShmemInitStruct("lease strings", mul_size(CHUNK_POOL_SIZE, sizeof(Chunk)), &found);
	all_found &= found;
	Waiters = ShmemInitStruct("lease waiters", mul_size(WAITER_COUNT, sizeof(Waiter)), &found);
	all_found &= found;
	Pins = ShmemInitStruct("lease pins", mul_size(WAITER_COUNT, sizeof(ShownPins)), &found);
	all_found &= found;
	FlushMembers = ShmemInitStruct("lease flush", mul_size(WAITER_COUNT, sizeof(FlushMember)), &found);
	all_found &= found;
	EventPages = ShmemInitStruct("lease events", mul_size(EVENT_PAGES, sizeof(EventPage)), &found);
	all_found &= found;
	Names = AttachNameTable("lease names", name_table, sizeof(Resource), GRANT_POOL_SIZE);
	Stats = AttachNameTable("lease statistics", stats_table, sizeof(NameStats), STATS_SIZE);

	PartitionLocks = GetNamedLWLockTranche(PARTITION_TRANCHE);
	DatabaseLocks = GetNamedLWLockTranche(DATABASE_TRANCHE);
	DeadlockLock = &GetNamedLWLockTranche(DEADLOCK_TRANCHE)->lock;
	FlushLock = &GetNamedLWLockTranche(FLUSH_TRANCHE)->lock;
	if (!all_found)
		InitShared();
	ClockAttach(&Shared->clock_offset);

	LWLockRelease(AddinShmemInitLock);
	return !all_found;
}

/*
 * The entry of a database, or NULL, without a lock: for those who know that it
 * stays, or can bear to be told of none.
 */
Database *
EntryOf(Oid database)
{
	static Database *last = NULL;

	if (last != NULL && last->oid == database)
		return last;
	for (int i = 0; i < MAX_DATABASES; i++)
		if (Shared->databases[i].oid == database)
			return last = &Shared->databases[i];
	return NULL;
}

void
RequirePreloaded(void)
{
	if (Shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("lease must be loaded via \"shared_preload_libraries\""),
				 errhint("Add 'lease' to shared_preload_libraries and restart the server.")));
}

/*
 * Something is due at a time: see that the launcher does not sleep past it.
 *
 * The caller has published the time (a partition's next_due) before; the
 * launcher publishes wake_at before it looks at next_due for the last time.
 * With a barrier on both sides, one of the two sees the other.
 */
void
RingLauncher(MonoTime due)
{
	Latch	   *latch;

	pg_memory_barrier();
	if ((uint64) (due + LAUNCHER_NAP) >= pg_atomic_read_u64(&Shared->wake_at))
		return;
	latch = Shared->launcher_latch;
	if (latch != NULL)
		SetLatch(latch);
}

/* A chore of a database's reaper is due at a time, if not before. */
void
NoteDue(Database *db, Chore chore, MonoTime due)
{
	uint64		noted = pg_atomic_read_u64(&db->due[chore]);

	if (due == MONO_NEVER)
		return;
	while ((uint64) due < noted &&
		   !pg_atomic_compare_exchange_u64(&db->due[chore], &noted, due))
		;
	RingLauncher(due);
}
