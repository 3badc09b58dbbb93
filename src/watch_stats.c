/*-------------------------------------------------------------------------
 *
 * watch_stats.c
 *	  What people look at: the functions behind the views of statistics.
 *
 * Names are looked at partition by partition: what is counted meanwhile may be in
 * one row and not yet in another.  Totals are of one moment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "args.h"
#include "database.h"
#include "rows.h"
#include "stats.h"

PG_FUNCTION_INFO_V1(lease_live_stats);
PG_FUNCTION_INFO_V1(lease_histograms);
PG_FUNCTION_INFO_V1(lease_reset_stats);

/* The columns of lease.live_stats(). */
enum
{
	Stats_is_total,
	Stats_name,
	Stats_events,				/* one for each EventKind that is shown */
	Stats_contended = Stats_events + EVENT_REOPENED,
	Stats_contention_rate,
	Stats_renewed,
	Stats_wait_total,
	Stats_wait_mean,
	Stats_wait_max,
	Stats_hold_total,
	Stats_hold_mean,
	Stats_hold_max,
	Stats_margin_min,
	Stats_margin_p01,
	Stats_longest_queue,
	Stats_ttl,
	Stats_last_used,
	Stats_since,
	Ncols_stats
};

StaticAssertDecl((int) Ncols_stats <= MAX_COLUMNS, "a row fits into a RowBuilder");

/* See that what we show is of the extension that is there. */
static void
LoadStats(void)
{
	LeaseDatabase open;

	RequirePreloaded();
	if (!RecoveryInProgress())
		OpenDatabaseForRead(&open);
}

static uint64
CountBuckets(const uint64 *buckets)
{
	uint64		count = 0;

	for (int i = 0; i < NUM_BUCKETS; i++)
		count += buckets[i];
	return count;
}

/*
 * How close to their deadline the closest of a hundred renewals came: a bound
 * from below.
 */
static int64
FirstPercentile(const Counters *counters)
{
	uint64		count = CountBuckets(counters->margins);
	uint64		seen = 0;

	for (int i = 0; i < NUM_BUCKETS; i++)
	{
		seen += counters->margins[i];
		if (seen * 100 >= count)
			return Max(i > 0 ? BUCKET_BOUND(i - 1) : 0, counters->margin_min);
	}
	return counters->margin_min;
}

/* Total, mean and longest of durations, in three columns. */
static void
PutDurations(RowBuilder *row, int column, int64 total, int64 most, const uint64 *buckets)
{
	uint64		count = CountBuckets(buckets);

	PutUsec(row, column, total);
	if (count > 0)
		PutUsec(row, column + 1, total / (int64) count);
	PutUsec(row, column + 2, most);
}

static void
PutCounters(RowBuilder *row, const Counters *counters)
{
	uint64		attempts = counters->events[EVENT_ACQUIRED];

	for (int i = 0; i < EVENT_REOPENED; i++)
	{
		Put(row, Stats_events + i, Int64GetDatum(counters->events[i]));
		if (IsVainAttempt(i))
			attempts += counters->events[i];
	}
	Put(row, Stats_contended, Int64GetDatum(counters->contended));
	if (attempts > 0)
		Put(row, Stats_contention_rate,
			Float8GetDatum((double) counters->contended / attempts));
	Put(row, Stats_renewed, Int64GetDatum(counters->renewed));
	PutDurations(row, Stats_wait_total, counters->wait_total, counters->wait_max, counters->waits);
	PutDurations(row, Stats_hold_total, counters->hold_total, counters->hold_max, counters->holds);
	if (counters->margin_min != PG_INT64_MAX)
	{
		PutUsec(row, Stats_margin_min, counters->margin_min);
		PutUsec(row, Stats_margin_p01, FirstPercentile(counters));
	}
	Put(row, Stats_longest_queue, Int64GetDatum(counters->longest_queue));
}

static void
ShowName(RowBuilder *row, const NameStats *stats)
{
	Put(row, Stats_is_total, BoolGetDatum(false));
	if (MayReadOwner(stats->owner))
		PutSpan(row, Stats_name, (Span) {stats->name, stats->key.length});
	PutCounters(row, &stats->counters);
	if (stats->ttl != NO_TTL)
		PutUsec(row, Stats_ttl, stats->ttl);
	Put(row, Stats_last_used, TimestampTzGetDatum(stats->last_used));
	Put(row, Stats_since, TimestampTzGetDatum(stats->since));
	EmitRow(row);
}

/* live_stats(): a row for each name of late, and one for all names ever. */
Datum
lease_live_stats(PG_FUNCTION_ARGS)
{
	RowBuilder	row;
	NameStats  *copies = palloc(sizeof(NameStats) * STATS_PER_PARTITION);
	Counters	total;
	TimestampTz since;

	LoadStats();
	StartRows(&row, fcinfo);
	for (int i = 0; i < NUM_PARTITIONS; i++)
	{
		int			count = CopyStats(i, MyDatabaseId, copies);

		CHECK_FOR_INTERRUPTS();
		while (count > 0)
			ShowName(&row, &copies[--count]);
	}

	since = SumStats(MyDatabaseId, &total);
	Put(&row, Stats_is_total, BoolGetDatum(true));
	PutCounters(&row, &total);
	if (since != 0)
		Put(&row, Stats_since, TimestampTzGetDatum(since));
	EmitRow(&row);
	return (Datum) 0;
}

/* histograms(): a row for each bucket; the last one has no bound. */
Datum
lease_histograms(PG_FUNCTION_ARGS)
{
	RowBuilder	row;
	Counters	total;

	LoadStats();
	StartRows(&row, fcinfo);
	(void) SumStats(MyDatabaseId, &total);
	for (int i = 0; i < NUM_BUCKETS; i++)
	{
		if (i < NUM_BUCKETS - 1)
			PutUsec(&row, 0, BUCKET_BOUND(i));
		Put(&row, 1, Int64GetDatum(total.waits[i]));
		Put(&row, 2, Int64GetDatum(total.holds[i]));
		EmitRow(&row);
	}
	return (Datum) 0;
}

/* reset_stats(): counting begins anew in our database. */
Datum
lease_reset_stats(PG_FUNCTION_ARGS)
{
	Database   *db;

	RequireWritable("lease.reset_stats()");
	ForgetStats(MyDatabaseId);
	db = EntryOf(MyDatabaseId);
	if (db != NULL)
	{
		SpinLockAcquire(&db->log.mutex);
		db->log.lost = 0;
		SpinLockRelease(&db->log.mutex);
	}
	PG_RETURN_VOID();
}
