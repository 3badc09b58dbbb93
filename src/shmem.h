/*-------------------------------------------------------------------------
 *
 * shmem.h
 *	  What is where in shared memory, and which lock protects it.
 *
 * The structures only; their behaviour is in arena.c (strings), table.c
 * (resources and grants), stats.c (counters), events.c (what is to be told),
 * wheel.c (what expires next), token.c and database.c (a database's ledger),
 * worker.c (launcher and reapers).
 *
 * Locks, in the order in which one process may take them:
 *
 *	0. the deadlock lock (DeadlockLock): who looks for a deadlock; held over
 *	   nothing but looking at memory.  The flush lock (FlushLock): who flushes
 *	   WAL for others, over that alone
 *	1. a database's lock (DatabaseLock): its ceiling and where its rows are;
 *	   may be held over I/O, and is the only other one that may
 *	2. the registry lock (RegistryLock): which database has which entry
 *	3. a partition's lock: all resources and grants whose name hashes there,
 *	   their wheel, their dead and their counters.  Under it nobody waits,
 *	   allocates backend memory, does I/O or raises an error.  Nobody takes two,
 *	   but for who sums up statistics and takes all, in their order.
 *	4. spinlocks: a database's worker fields, counters and event log; then the
 *	   free lists
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_SHMEM_H
#define LEASE_SHMEM_H

#include "lease.h"

#include "compat.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/itemptr.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/hsearch.h"

#define NUM_PARTITIONS		64
#define MAX_DATABASES		256

/*
 * Grants beyond lease.max_leases, for those who replace a grant that they
 * hold: a full table must not keep anybody from handing over.  Likewise there
 * is one for each backend that waits, since it takes the place of another.
 */
#define RESERVE_GRANTS		64

/*
 * The launcher naps at least this long between two rounds, so a lease's row is
 * up to this much later on its way out; usec.
 */
#define LAUNCHER_NAP		INT64CONST(10000)

/*
 * Strings are kept in chains of chunks.  A name of 64 bytes takes two chunks,
 * a holder of 32 bytes one; four chunks a lease leave room for a UUID as
 * request id.
 */
#define CHUNK_PAYLOAD		36
#define CHUNKS_PER_LEASE	4
#define NO_CHUNK			PG_UINT32_MAX

typedef struct Chunk
{
	uint32		next;			/* the next of the chain, or of the free list */
	char		bytes[CHUNK_PAYLOAD];
} Chunk;

/*
 * What a backend pins, for people to see: the first tokens of its commit, or 0.
 * Each is written by the backend itself, and read by anybody.
 */
#define PINS_SHOWN			16

typedef struct ShownPins
{
	pg_atomic_uint64 tokens[PINS_SHOWN];
} ShownPins;

/*
 * A backend's place among those who want WAL on disk (see flush.c).  It is its
 * own until it is in the list, and the leader's from then on until flushed is set.
 */
typedef struct FlushMember
{
	uint32		next;			/* in the list: a backend's number, or NO_MEMBER */
	XLogRecPtr	lsn;			/* up to where */
	volatile bool flushed;
} FlushMember;

#define NO_MEMBER			PG_UINT32_MAX

/* A list of free array members, linked through a field of theirs. */
typedef struct FreeList
{
	slock_t		mutex;
	uint32		head;
	uint32		count;
} FreeList;

/*
 * A key of the name table.  In the table the name is in the arena; in a probe
 * it is where the caller has it, so that looking up copies nothing.
 */
typedef struct NameKey
{
	Oid			database;
	uint32		length;
	union
	{
		const char *probe;		/* in a probe: the name */
		uint32		chunks;		/* in the table: the name's chain */
	}			at;
} NameKey;

/* A name in use.  It exists exactly as long as it has grants or waiters. */
typedef struct Resource
{
	NameKey		key;			/* hash key, must be first */
	dlist_head	grants;
	struct Waiter *queue;		/* who is first in line, or NULL */
	int32		capacity;		/* in permits; WHOLE_LEASE for a lease */
	int32		taken;			/* permits of all grants, dead ones too */
} Resource;

/*
 * The states of a grant, and who takes it from one to the next:
 *
 *	FREE		on the free list, or kept in hand by who may need it
 *	RESERVED	being made: its maker owns it, it blocks the name
 *	HELD		granted until its deadline; past it, dead for every reader
 *	DEAD		over, but its ledger row still stands: on its partition's dead
 *				list until a reaper, or an acquirer in need, claims it
 *	ENDING		claimed: one process is ending its row, and owns it
 *	CLOSED		over, and the name stays closed until its deadline (lock_delay
 *				or min_hold); its row in the ledger is a closure
 *	PINNED		over, without a row, and only kept from opening its name by the
 *				commits in flight that it guards
 *
 * A grant that guards a commit in flight is pinned, in whatever state: then its
 * name does not open, and in place of FREE it becomes PINNED.
 *
 * RESERVED -> HELD -> (DEAD ->) ENDING -> FREE, or ENDING -> CLOSED -> DEAD ->
 * ENDING -> FREE.  Whatever fails on the way leaves it DEAD if it has a row,
 * else FREE.  A grant of scope session or transaction has no row: it goes from
 * HELD to FREE.
 */
typedef enum GrantState
{
	GRANT_FREE,
	GRANT_RESERVED,
	GRANT_HELD,
	GRANT_DEAD,
	GRANT_ENDING,
	GRANT_CLOSED,
	GRANT_PINNED
} GrantState;

/*
 * One grant.  All fields belong to the partition's lock, but for those of a
 * RESERVED grant, which its maker fills in alone.
 */
typedef struct Grant
{
	dlist_node	in_resource;
	dlist_node	in_time;		/* HELD, CLOSED: in the wheel, unless its
								 * deadline is MONO_NEVER; DEAD: on the dead
								 * list */
	Resource   *resource;
	Token		token;
	Token		replaces;		/* the token it was transferred from, or 0 */

	/*
	 * HELD: when it runs out.  CLOSED, DEAD and ENDING: when the name opens,
	 * which may be in the past.
	 */
	MonoTime	deadline;
	MonoTime	granted_at;		/* min_hold counts from here */
	uint64		serial;			/* how many grants were held before it, and it;
								 * 0 if loaded */
	int64		ttl;			/* what a renewal without a TTL gives, usec */
	union
	{
		int64		ledger_ttl; /* detached: what a crash would give it back, usec */
		MonoTime	renewed_at; /* others: when that was; without a TTL */
	};
	TimestampTz acquired_at;	/* wall clock, for people */
	XLogRecPtr	lsn;			/* where its row ends in WAL; 0 if loaded */
	Oid			owner;
	int32		pid;			/* who acquired it; 0 if loaded */
	uint32		renewals;
	uint32		pins;			/* how many commits in flight it guards */
	uint32		strings;		/* chain of holder, request and correlation
								 * id; in the free list, the next free grant */
	uint32		lock_delay;		/* ms */
	uint32		min_hold;		/* ms */
	int32		permits;		/* how much of its name it takes */
	int32		ledger_capacity;	/* the capacity that its row tells */
	ItemPointerData tid;		/* where its ledger row is */
	uint8		state;			/* a GrantState */
	uint8		partition;		/* index of its partition's lock */
	uint8		holder_length;
	uint8		request_length; /* 0 if it has no request id */
	uint8		correlation_length; /* 0 if it has no correlation id */
	unsigned int scope:2;		/* a LeaseScope */
	unsigned int has_metadata:1;	/* the ledger row has metadata */
	unsigned int is_closure:1;	/* the ledger row is a closure */
	unsigned int awaits_others:1;	/* RESERVED: and its maker waits for other names */
	unsigned int leaving:1;		/* HELD: lost to a transfer, which waits for pins */
} Grant;

typedef enum WaitState
{
	WAIT_NONE,					/* in no queue */
	WAIT_QUEUED,
	WAIT_SERVED,				/* its grant is RESERVED for it, or HELD */
	WAIT_AGAIN					/* out of the queue, and to look again why */
} WaitState;

/*
 * A backend's place in a queue (see queue.c).  All fields belong to the
 * partition's lock; its own backend may read state without.
 */
typedef struct Waiter
{
	dlist_node	link;			/* the ring of all that wait for the name */
	Resource   *resource;		/* what it is queued for */
	Grant	   *grant;			/* what it will be granted, filled in; linked to
								 * the name once it is SERVED */
	int			pid;
	pg_atomic_uint32 state;		/* a WaitState */
	struct Database *db;		/* if it can be granted without writing: where
								 * the token comes from */
	Token		token;			/* SERVED: of its grant, if that is HELD */
	uint32		generation;		/* counts its waits */
	uint32		length;			/* of the queue; if it is first in it */
	int			partition;
	MonoTime	since;
	MonoTime	wake_at;		/* until when it means to sleep */
} Waiter;

/*
 * A hierarchical timing wheel (see wheel.c).  Level n has 64 slots of 64^n
 * ticks each.
 */
#define WHEEL_BITS			6
#define WHEEL_SLOTS			(1 << WHEEL_BITS)
#define WHEEL_LEVELS		7

typedef struct Wheel
{
	uint64		tick;			/* nothing filed is due before this tick */
	uint64		occupied[WHEEL_LEVELS]; /* a bit a slot; may be set for an
										 * empty one, never the reverse */
	dlist_head	slots[WHEEL_LEVELS][WHEEL_SLOTS];
} Wheel;

/*
 * Counters and histograms of a name, or of a database.  Bucket i of a histogram
 * counts what took at most BUCKET_BOUND(i), and more than that of i - 1; the last
 * one all that took longer.
 */
#define NUM_BUCKETS			32
#define BUCKET_BOUND(i)		(INT64CONST(64) << (i)) /* usec */

typedef struct Counters
{
	uint64		events[NUM_EVENTS];
	uint64		contended;		/* attempts that found the name taken */
	uint64		renewed;
	int64		wait_total;		/* usec */
	int64		wait_max;
	int64		hold_total;
	int64		hold_max;
	int64		margin_min;		/* of the TTL that renewals found left;
								 * PG_INT64_MAX: there were none */
	uint64		longest_queue;
	uint64		waits[NUM_BUCKETS];
	uint64		holds[NUM_BUCKETS];
	uint64		margins[NUM_BUCKETS];
} Counters;

/*
 * The statistics of a name.  Those that have not been used for longest make room
 * for others; their counts stay in the database's.
 */
#define STATS_PER_PARTITION	48

typedef struct NameStats
{
	NameKey		key;			/* hash key, must be first; at.probe is our name */
	dlist_node	in_use;			/* the partition's, last used first */
	Oid			owner;			/* who took it last, or wanted to */
	TimestampTz since;
	TimestampTz last_used;
	int64		ttl;			/* of the last grant or renewal */
	Counters	counters;
	char		name[LEASE_NAME_MAX];
} NameStats;

typedef struct Partition
{
	ConditionVariable settled;	/* a RESERVED or ENDING grant went on */
	pg_atomic_uint64 next_due;	/* no wheel entry is due before this MonoTime;
								 * written under the lock, read without */
	dlist_head	dead;
	uint32		ndead;
	dlist_head	stats;			/* NameStats */
	uint32		nstats;
	Wheel		wheel;
} Partition;

/*
 * Events wait in pages, of a pool for all databases, until a reaper has written
 * them to a table.
 */
#define EVENT_PAGE_SIZE		8192
#define EVENT_PAGES			256
#define NO_PAGE				PG_UINT32_MAX

typedef struct EventPage
{
	uint32		next;			/* of the log, or of the free list */
	uint32		used;			/* bytes */
	uint32		count;			/* events */
	uint32		unused;			/* so that events are aligned */
	char		bytes[EVENT_PAGE_SIZE - 4 * sizeof(uint32)];
} EventPage;

/* The events of a database that nobody has written yet, in order. */
typedef struct EventLog
{
	slock_t		mutex;
	uint32		first;
	uint32		last;			/* the page that is being filled */
	uint32		npages;
	uint64		pending;		/* how many events are in there, or in a reaper's hand */
	uint64		lost;			/* how many did not fit */
	uint64		sequence;		/* of the last one */
} EventLog;

/* What a reaper does at times, besides ending rows of dead grants. */
typedef enum Chore
{
	CHORE_KEYS,					/* remove expired keys of lease.once */
	CHORE_EVENTS,				/* write events */
	CHORE_TRIM,					/* remove old events */
	NUM_CHORES
} Chore;

typedef enum DatabaseState
{
	DATABASE_UNLOADED,
	DATABASE_LOADING,
	DATABASE_LOADED
} DatabaseState;

/*
 * A database that uses leases.  The entry outlives the extension there (its
 * next token must not be forgotten) and goes with the database.
 */
typedef struct Database
{
	Oid			oid;			/* under the registry lock; 0 = free entry */

	/* Under mutex. */
	slock_t		mutex;
	DatabaseState state;
	Oid			ledger;			/* the relation that was loaded */
	pg_atomic_uint32 loaded_ledger; /* the same, while LOADED; read without */
	int			bans;			/* DDL that wants no reaper in there */
	int			reaper_pid;		/* 0 = none */
	Latch	   *reaper_latch;
	MonoTime	retry_at;		/* no new reaper before this */
	TimestampTz last_reap;		/* 0 = never */

	ConditionVariable loaded;	/* state left LOADING */
	pg_atomic_uint32 work;		/* there are dead grants to end */
	pg_atomic_uint64 due[NUM_CHORES];	/* MonoTime of each chore */

	/* Written under the database's lock, once LOADED. */
	RelFileNumber relnumber;	/* the file that the TIDs are of */
	ItemPointerData ceiling_tid;
	Token		valid_from;		/* older grants are of another database */
	pg_atomic_uint64 ceiling;	/* the last token that may be handed out */

	/* What each grant writes, away from what everybody reads. */
	char		pad1[PG_CACHE_LINE_SIZE];
	pg_atomic_uint64 next;		/* the next token */
	EventLog	log;
	char		pad2[PG_CACHE_LINE_SIZE];

	/* Under mutex. */
	Counters	counters;		/* of names that made room, and of no name */
	TimestampTz counted_since;
} Database;

typedef struct LeaseShared
{
	pg_atomic_uint64 clock_offset;	/* see clock.c */
	pg_atomic_uint64 accepting_since;	/* MonoTime since when the server
										 * accepts connections; 0 = not noted */

	/* The launcher; see RingLauncher. */
	pg_atomic_uint32 launcher_pid;
	pg_atomic_uint64 wake_at;	/* MonoTime until which it means to sleep */
	Latch	   *launcher_latch;

	/*
	 * What every grant writes, away from what everybody reads.
	 */
	char		pad[PG_CACHE_LINE_SIZE];
	pg_atomic_uint64 grants_made;	/* how many were ever held */
	pg_atomic_uint32 waiting;	/* how many are queued; each has a grant in
								 * hand that is neither free nor used */
	pg_atomic_uint32 flush_list;	/* who waits for the next flush */
	pg_atomic_uint64 unflushed; /* WAL up to here wants a flush soon; 0 = none */
	pg_atomic_uint64 flush_due; /* MonoTime of that */
	FreeList	free_grants;
	FreeList	free_chunks;
	FreeList	free_pages;
	Partition	partitions[NUM_PARTITIONS];
	Database	databases[MAX_DATABASES];
} LeaseShared;

/* NULL unless the library was preloaded. */
extern LeaseShared *Shared;
extern Grant *Grants;
extern Chunk *Chunks;
extern HTAB *Names;
extern HTAB *Stats;
extern EventPage *EventPages;
extern Waiter *Waiters;			/* one for each backend, by its number */
extern ShownPins *Pins;			/* likewise */
extern FlushMember *FlushMembers;	/* likewise */

/* Set by module.c before the memory is requested. */
extern int	MaxLeases;

#define WAITER_COUNT		((uint32) MaxBackends)
#define GRANT_RESERVE		(RESERVE_GRANTS + WAITER_COUNT)
#define GRANT_POOL_SIZE		((uint32) MaxLeases + GRANT_RESERVE)
#define CHUNK_POOL_SIZE		(GRANT_POOL_SIZE * CHUNKS_PER_LEASE)
#define STATS_SIZE			(NUM_PARTITIONS * STATS_PER_PARTITION)

#define PartitionLock(i)	(&PartitionLocks[i].lock)
#define DatabaseLock(db)	(&DatabaseLocks[(db) - Shared->databases].lock)
#define RegistryLock		(&DatabaseLocks[MAX_DATABASES].lock)

extern LWLockPadded *PartitionLocks;
extern LWLockPadded *DatabaseLocks;
extern LWLock *DeadlockLock;
extern LWLock *FlushLock;

extern void RequestSharedMemory(void);
extern bool AttachSharedMemory(const HASHCTL *name_table, const HASHCTL *stats_table);
extern void ResetCounters(Counters *counters);
extern Database *EntryOf(Oid database);
extern void RequirePreloaded(void);
extern void RingLauncher(MonoTime due);
extern void NoteDue(Database *db, Chore chore, MonoTime due);

#endif							/* LEASE_SHMEM_H */
