/*-------------------------------------------------------------------------
 *
 * stats.c
 *	  Counters and histograms, by name and by database.
 *
 * A name's counters belong to its partition's lock, which whoever has something
 * to count holds anyway: counting takes no lock, and shares no memory with other
 * names.  There is room for STATS_PER_PARTITION names in each partition; a new
 * one takes the place of the one that was not used for longest, whose counts are
 * added to those of its database.  So the sum of both is exact for ever, whatever
 * names come and go.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_bitutils.h"
#include "utils/timestamp.h"

#include "stats.h"

int
StatsKeyMatch(const void *stored, const void *probe, Size keysize pg_attribute_unused())
{
	const NameKey *in_table = stored;
	const NameKey *wanted = probe;

	if (in_table->database != wanted->database || in_table->length != wanted->length)
		return 1;
	return memcmp(in_table->at.probe, wanted->at.probe, wanted->length);
}

/* The name is kept in the entry itself, which the key begins. */
void *
StatsKeyCopy(void *stored, const void *probe, Size keysize pg_attribute_unused())
{
	NameStats  *stats = stored;

	stats->key = *(const NameKey *) probe;
	memcpy(stats->name, stats->key.at.probe, stats->key.length);
	stats->key.at.probe = stats->name;
	return stored;
}

/* What comes to a counter: the sum of durations, and the longest. */
static void
AddTime(int64 *total, int64 *most, uint64 *buckets, int64 usec)
{
	int			bucket = 0;

	usec = Max(usec, 0);
	if (usec > BUCKET_BOUND(0))
		bucket = pg_leftmost_one_pos64((usec - 1) / BUCKET_BOUND(0)) + 1;
	buckets[Min(bucket, NUM_BUCKETS - 1)]++;
	if (total != NULL)
		*total += usec;
	if (most != NULL)
		*most = Max(*most, usec);
}

static void
AddCounters(Counters *to, const Counters *from)
{
	for (int i = 0; i < NUM_EVENTS; i++)
		to->events[i] += from->events[i];
	to->contended += from->contended;
	to->renewed += from->renewed;
	to->wait_total += from->wait_total;
	to->wait_max = Max(to->wait_max, from->wait_max);
	to->hold_total += from->hold_total;
	to->hold_max = Max(to->hold_max, from->hold_max);
	to->margin_min = Min(to->margin_min, from->margin_min);
	to->longest_queue = Max(to->longest_queue, from->longest_queue);
	for (int i = 0; i < NUM_BUCKETS; i++)
	{
		to->waits[i] += from->waits[i];
		to->holds[i] += from->holds[i];
		to->margins[i] += from->margins[i];
	}
}

/* Take an entry out; its counts are its database's from now on. */
static void
RemoveStats(Partition *part, NameStats *stats, uint32 hash, bool keep_counts)
{
	Database   *db = keep_counts ? EntryOf(stats->key.database) : NULL;

	if (db != NULL)
	{
		SpinLockAcquire(&db->mutex);
		AddCounters(&db->counters, &stats->counters);
		SpinLockRelease(&db->mutex);
	}
	dlist_delete(&stats->in_use);
	part->nstats--;
	if (hash_search_with_hash_value(Stats, &stats->key, hash, HASH_REMOVE, NULL) == NULL)
		elog(PANIC, "lease statistics table corrupted");
}

/* Make room for one more in a partition. */
static void
EvictStats(Partition *part)
{
	NameStats  *stats = dlist_tail_element(NameStats, in_use, &part->stats);

	RemoveStats(part, stats, get_hash_value(Stats, &stats->key), true);
}

/* The entry of a name, which is made if need be, as the one used last. */
static NameStats *
TouchStats(const LeaseName *lease)
{
	Partition  *part = NamePartition(lease);
	NameStats  *stats;
	bool		found;

	stats = hash_search_with_hash_value(Stats, &lease->key, lease->hash, HASH_FIND, NULL);
	if (stats == NULL)
	{
		if (part->nstats == STATS_PER_PARTITION)
			EvictStats(part);
		stats = hash_search_with_hash_value(Stats, &lease->key, lease->hash,
											HASH_ENTER_NULL, &found);
		if (stats == NULL)
			elog(PANIC, "lease statistics table corrupted");
		part->nstats++;
		dlist_push_head(&part->stats, &stats->in_use);
		stats->owner = InvalidOid;
		stats->ttl = NO_TTL;
		stats->since = stats->last_used = GetCurrentTimestamp();
		ResetCounters(&stats->counters);
	}
	else
		dlist_move_head(&part->stats, &stats->in_use);
	return stats;
}

/* The same, for who wanted the name; it becomes that of who has it. */
static Counters *
CountersFor(const LeaseName *lease, Oid owner)
{
	NameStats  *stats = TouchStats(lease);

	if (!OidIsValid(stats->owner))
		stats->owner = owner;
	return &stats->counters;
}

static void
CountWait(Counters *counters, int64 waited)
{
	counters->contended++;
	if (waited != NO_TIME)
		AddTime(&counters->wait_total, &counters->wait_max, counters->waits, waited);
}

/* A grant begins; its maker waited for it so long, or NO_TIME. */
void
CountGrant(const LeaseName *lease, const Grant *grant, EventKind kind, int64 waited)
{
	NameStats  *stats = TouchStats(lease);

	stats->counters.events[kind]++;
	stats->owner = grant->owner;
	stats->ttl = grant->ttl;
	stats->last_used = grant->acquired_at;
	if (waited != NO_TIME)
		CountWait(&stats->counters, waited);
}

/* A grant is over. */
void
CountEnd(const LeaseName *lease, const Grant *grant, EventKind kind, int64 held)
{
	NameStats  *stats = TouchStats(lease);
	Counters   *counters = &stats->counters;

	stats->owner = grant->owner;
	counters->events[kind]++;
	AddTime(&counters->hold_total, &counters->hold_max, counters->holds, held);
}

/* Somebody wanted the name, waited perhaps, and did not get it. */
void
CountVainAttempt(const LeaseName *lease, Oid owner, EventKind kind, int64 waited)
{
	Counters   *counters = CountersFor(lease, owner);

	counters->events[kind]++;
	if (kind == EVENT_REFUSED || waited != NO_TIME)
		CountWait(counters, waited);
}

/* A renewal found so much of the TTL left, or NO_TIME. */
void
CountRenewal(const LeaseName *lease, const Grant *grant, int64 margin)
{
	NameStats  *stats = TouchStats(lease);

	stats->counters.renewed++;
	stats->owner = grant->owner;
	stats->ttl = grant->ttl;
	if (margin == NO_TIME)
		return;
	AddTime(NULL, NULL, stats->counters.margins, margin);
	stats->counters.margin_min = Min(stats->counters.margin_min, margin);
}

void
CountOther(const LeaseName *lease, Oid owner, EventKind kind)
{
	CountersFor(lease, owner)->events[kind]++;
}

/* So many wait for the name. */
void
CountQueue(const LeaseName *lease, Oid owner, uint64 length)
{
	Counters   *counters = CountersFor(lease, owner);

	counters->longest_queue = Max(counters->longest_queue, length);
}

void
CountNameless(Database *db, EventKind kind)
{
	SpinLockAcquire(&db->mutex);
	db->counters.events[kind]++;
	SpinLockRelease(&db->mutex);
}

/*
 * Copy a database's statistics in one partition, STATS_PER_PARTITION at the
 * most; InvalidOid: all of them.  Returns how many there are.
 */
int
CopyStats(int partition, Oid database, NameStats *copies)
{
	int			count = 0;
	dlist_iter	iter;

	LockPartition(partition, LW_SHARED);
	dlist_foreach(iter, &Shared->partitions[partition].stats)
	{
		NameStats  *stats = dlist_container(NameStats, in_use, iter.cur);

		if (!OidIsValid(database) || stats->key.database == database)
			copies[count++] = *stats;
	}
	UnlockPartition(partition);
	return count;
}

/*
 * All that was counted in a database, and since when; 0 if it has no entry.  All
 * partitions are locked meanwhile, in their order, or what moves from a name to
 * its database might be missed, and the sum go down.
 */
TimestampTz
SumStats(Oid database, Counters *total)
{
	Database   *db = EntryOf(database);
	TimestampTz since = 0;

	ResetCounters(total);
	for (int i = 0; i < NUM_PARTITIONS; i++)
	{
		dlist_iter	iter;

		LockPartition(i, LW_SHARED);
		dlist_foreach(iter, &Shared->partitions[i].stats)
		{
			NameStats  *stats = dlist_container(NameStats, in_use, iter.cur);

			if (stats->key.database == database)
				AddCounters(total, &stats->counters);
		}
	}
	if (db != NULL)
	{
		SpinLockAcquire(&db->mutex);
		AddCounters(total, &db->counters);
		since = db->counted_since;
		SpinLockRelease(&db->mutex);
	}
	for (int i = 0; i < NUM_PARTITIONS; i++)
		UnlockPartition(i);
	return since;
}

/* Take over statistics that were kept elsewhere. */
void
RestoreStats(const NameStats *kept)
{
	LeaseName	lease;
	NameStats  *stats;

	ResolveName(&lease, kept->key.database, kept->name, kept->key.length);
	LockName(&lease, LW_EXCLUSIVE);
	stats = TouchStats(&lease);
	stats->owner = kept->owner;
	stats->since = kept->since;
	stats->last_used = kept->last_used;
	stats->ttl = kept->ttl;
	stats->counters = kept->counters;
	UnlockName(&lease);
}

/* Forget all that was counted in a database. */
void
ForgetStats(Oid database)
{
	Database   *db;

	for (int i = 0; i < NUM_PARTITIONS; i++)
	{
		Partition  *part = &Shared->partitions[i];
		dlist_mutable_iter iter;

		LockPartition(i, LW_EXCLUSIVE);
		dlist_foreach_modify(iter, &part->stats)
		{
			NameStats  *stats = dlist_container(NameStats, in_use, iter.cur);

			if (stats->key.database == database)
				RemoveStats(part, stats, get_hash_value(Stats, &stats->key), false);
		}
		UnlockPartition(i);
	}

	db = EntryOf(database);
	if (db == NULL)
		return;
	SpinLockAcquire(&db->mutex);
	ResetCounters(&db->counters);
	db->counted_since = GetCurrentTimestamp();
	SpinLockRelease(&db->mutex);
}
