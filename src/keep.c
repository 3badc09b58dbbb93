/*-------------------------------------------------------------------------
 *
 * keep.c
 *	  What statistics and events outlive a clean restart.
 *
 * The postmaster writes a file when all others have gone, and reads and removes
 * it as it starts; after a crash there is none, and counting begins anew, as it
 * does for the server's own statistics.  Such a file is for the server and the
 * library that wrote it alone: any other is ignored, and so is one that came to a
 * standby with a copy.
 *
 * After a header come records: what is of which kind and length, then that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"

#include "keep.h"

#define KEPT_FILE			PGSTAT_STAT_PERMANENT_DIRECTORY "/lease.stat"
#define KEPT_FILE_NEW		KEPT_FILE ".tmp"

/* Changes with what is in the file. */
#define KEPT_VERSION		INT64CONST(0x4c45415345303031)

typedef enum KeptKind
{
	KEPT_END,
	KEPT_DATABASE,				/* KeptDatabase */
	KEPT_STATS,					/* NameStats */
	KEPT_EVENTS					/* EventPage, of the last KEPT_DATABASE */
} KeptKind;

typedef struct KeptDatabase
{
	Oid			oid;
	TimestampTz counted_since;
	Counters	counters;
	uint64		lost;
} KeptDatabase;

typedef struct KeptFile
{
	FILE	   *file;
	pg_crc32c	crc;
	bool		broken;
} KeptFile;

static void
Write(KeptFile *kept, const void *data, size_t length)
{
	COMP_CRC32C(kept->crc, data, length);
	if (fwrite(data, 1, length, kept->file) != length)
		kept->broken = true;
}

static void
WriteRecord(KeptFile *kept, KeptKind kind, const void *data, size_t length)
{
	int32		what = kind;

	Write(kept, &what, sizeof(what));
	if (length > 0)
		Write(kept, data, length);
}

static void
WriteHeader(KeptFile *kept)
{
	uint64		header[] = {
		KEPT_VERSION, GetSystemIdentifier(),
		sizeof(KeptDatabase), sizeof(NameStats), sizeof(EventPage)
	};

	Write(kept, header, sizeof(header));
}

static void
WriteDatabase(KeptFile *kept, Database *db)
{
	uint32		page = TakeEvents(db);
	const EventPage *events;
	KeptDatabase record;

	memset(&record, 0, sizeof(record));
	record.oid = db->oid;
	record.counted_since = db->counted_since;
	record.counters = db->counters;
	record.lost = db->log.lost;
	WriteRecord(kept, KEPT_DATABASE, &record, sizeof(record));
	while ((events = NextEventPage(&page)) != NULL)
		WriteRecord(kept, KEPT_EVENTS, events, sizeof(EventPage));
}

static void
WriteAll(KeptFile *kept)
{
	static NameStats stats[STATS_PER_PARTITION];
	pg_crc32c	crc;

	INIT_CRC32C(kept->crc);
	WriteHeader(kept);
	for (int i = 0; i < MAX_DATABASES; i++)
		if (OidIsValid(Shared->databases[i].oid))
			WriteDatabase(kept, &Shared->databases[i]);
	for (int i = 0; i < NUM_PARTITIONS; i++)
	{
		int			count = CopyStats(i, InvalidOid, stats);

		/* Last used first: so that reading them restores the order. */
		while (count > 0)
			WriteRecord(kept, KEPT_STATS, &stats[--count], sizeof(NameStats));
	}
	WriteRecord(kept, KEPT_END, NULL, 0);
	crc = kept->crc;
	FIN_CRC32C(crc);
	if (fwrite(&crc, 1, sizeof(crc), kept->file) != sizeof(crc))
		kept->broken = true;
}

/*
 * Have all others left in order?  If they were killed, they may have held locks,
 * and there is nothing to rely on.
 */
static bool
IsCleanShutdown(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	return crc_ok &&
		(control->state == DB_SHUTDOWNED || control->state == DB_SHUTDOWNED_IN_RECOVERY);
}

/* The postmaster, after a clean shutdown of all others, keeps what there is. */
void
KeepAtShutdown(int code, Datum arg pg_attribute_unused())
{
	KeptFile	kept = {0};

	if (code != 0 || Shared == NULL || !IsCleanShutdown())
		return;
	kept.file = AllocateFile(KEPT_FILE_NEW, PG_BINARY_W);
	if (kept.file != NULL)
	{
		WriteAll(&kept);
		if (FreeFile(kept.file) == 0 && !kept.broken)
		{
			(void) durable_rename(KEPT_FILE_NEW, KEPT_FILE, LOG);
			return;
		}
	}
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("could not write lease statistics to file \"%s\": %m", KEPT_FILE_NEW)));
	unlink(KEPT_FILE_NEW);
}

static bool
Read(KeptFile *kept, void *data, size_t length)
{
	if (fread(data, 1, length, kept->file) != length)
		return false;
	COMP_CRC32C(kept->crc, data, length);
	return true;
}

static bool
ReadHeader(KeptFile *kept)
{
	uint64		header[5];

	return Read(kept, header, sizeof(header)) &&
		header[0] == KEPT_VERSION && header[1] == GetSystemIdentifier() &&
		header[2] == sizeof(KeptDatabase) && header[3] == sizeof(NameStats) &&
		header[4] == sizeof(EventPage);
}

static Database *
RestoreDatabase(const KeptDatabase *record)
{
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		Database   *db = &Shared->databases[i];

		if (OidIsValid(db->oid))
			continue;
		db->oid = record->oid;
		db->counted_since = record->counted_since;
		db->counters = record->counters;
		db->log.lost = record->lost;
		return db;
	}
	return NULL;
}

/* Any record. */
typedef union Record
{
	KeptDatabase database;
	NameStats	stats;
	EventPage	events;
} Record;

/* Read all records; take them over, or only see that they are whole. */
static bool
ReadRecords(KeptFile *kept, bool restore)
{
	static const size_t sizes[] = {
		[KEPT_END] = 0,
		[KEPT_DATABASE] = sizeof(KeptDatabase),
		[KEPT_STATS] = sizeof(NameStats),
		[KEPT_EVENTS] = sizeof(EventPage)
	};
	static Record record;
	Database   *db = NULL;
	int32		kind;

	for (;;)
	{
		if (!Read(kept, &kind, sizeof(kind)) || kind < 0 || kind >= (int) lengthof(sizes) ||
			!Read(kept, &record, sizes[kind]))
			return false;
		if (kind == KEPT_END)
			return true;
		if (!restore)
			continue;
		if (kind == KEPT_DATABASE)
			db = RestoreDatabase(&record.database);
		else if (kind == KEPT_STATS)
			RestoreStats(&record.stats);
		else if (db != NULL)
			RestoreEvents(db, &record.events);
	}
}

static bool
IsWhole(KeptFile *kept)
{
	pg_crc32c	crc;

	INIT_CRC32C(kept->crc);
	if (!ReadHeader(kept) || !ReadRecords(kept, false))
		return false;
	FIN_CRC32C(kept->crc);
	return fread(&crc, 1, sizeof(crc), kept->file) == sizeof(crc) && EQ_CRC32C(crc, kept->crc);
}

/* Are we a standby, or being restored?  Then what was counted is another server's. */
static bool
IsToRecover(void)
{
	return access(STANDBY_SIGNAL_FILE, F_OK) == 0 || access(RECOVERY_SIGNAL_FILE, F_OK) == 0;
}

/* Take over what the last clean shutdown kept. */
void
RestoreKept(void)
{
	KeptFile	kept = {.file = AllocateFile(KEPT_FILE, PG_BINARY_R)};

	if (kept.file == NULL)
	{
		if (errno != ENOENT)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not read lease statistics from file \"%s\": %m", KEPT_FILE)));
		return;
	}
	if (IsToRecover())
		ereport(DEBUG1,
				(errmsg_internal("ignoring lease statistics of another server, or time")));
	else if (IsWhole(&kept))
	{
		rewind(kept.file);
		if (ReadHeader(&kept))
			(void) ReadRecords(&kept, true);
	}
	else
		ereport(LOG,
				(errmsg("ignoring lease statistics in file \"%s\": they are not of this server and library, or damaged",
						KEPT_FILE)));
	FreeFile(kept.file);

	/* It tells nothing about what comes from now on. */
	unlink(KEPT_FILE);
}
