/*-------------------------------------------------------------------------
 *
 * history.c
 *	  Events are written down, told of, and forgotten in the end.
 *
 * A reaper takes its database's log of events (events.c) and writes each to the
 * table lease.events, to those who LISTEN, and to the server's log, as the
 * settings say; in one transaction, which is not flushed.  If that fails, the
 * events go back to the log.
 *
 * The table is written without the executor: that takes half the time of an
 * INSERT, and the reaper's time is what history costs.  What is written there, and
 * removed in the end, is no change to a subscriber: a publication for all tables
 * would bring it to servers that have no such table, or a history of their own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "events.h"
#include "history.h"
#include "rows.h"
#include "settings.h"
#include "statement.h"

#define TABLE_RETRY			USECS_PER_SEC	/* when somebody else has it locked */
#define TRIM_BATCH			100000
#define TRIM_PAUSE_LEAST	USECS_PER_SEC
#define TRIM_PAUSE_MOST		(10 * USECS_PER_MINUTE)

/* The columns of lease.events. */
enum
{
	Event_sequence,
	Event_at,
	Event_event,
	Event_name,
	Event_token,
	Event_mode,
	Event_scope,
	Event_holder,
	Event_owner,
	Event_pid,
	Event_correlation_id,
	Event_waited,
	Event_held,
	Event_detail,
	Ncols_event
};

StaticAssertDecl((int) Ncols_event <= MAX_COLUMNS, "an event fits into a RowBuilder");

/* So many rows are added to the table together. */
#define WRITE_BATCH			64

/* The table, as it is being written. */
typedef struct Writer
{
	Relation	table;
	CatalogIndexState indexes;
	BulkInsertState bulk;
	RowBuilder	row;
	int			count;			/* of rows that wait to be added */
	TupleTableSlot *slots[WRITE_BATCH];
	MemoryContext context;		/* of these rows */
} Writer;

/* The pages that a reaper is writing. */
static uint32 in_hand = NO_PAGE;

/* The table of events, locked for writing; NULL if it cannot be had at once. */
static Relation
OpenEvents(void)
{
	Oid			namespace = get_namespace_oid("lease", true);
	Oid			oid = OidIsValid(namespace) ? get_relname_relid("events", namespace) : InvalidOid;
	Relation	table;

	if (!OidIsValid(oid) || !ConditionalLockRelationOid(oid, RowExclusiveLock))
		return NULL;
	table = try_table_open(oid, NoLock);
	if (table != NULL && RelationGetNumberOfAttributes(table) != Ncols_event)
		elog(ERROR, "table \"%s\" has %d columns instead of %d", RelationGetRelationName(table),
			 RelationGetNumberOfAttributes(table), Ncols_event);
	return table;
}

static void
StartWriter(Writer *writer, Relation table)
{
	writer->table = table;
	writer->indexes = CatalogOpenIndexes(table);
	writer->bulk = GetBulkInsertState();
	writer->count = 0;
	for (int i = 0; i < WRITE_BATCH; i++)
		writer->slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(table), &TTSOpsHeapTuple);
	writer->context = AllocSetContextCreate(CurrentMemoryContext, "lease events",
											ALLOCSET_DEFAULT_SIZES);
}

/* Let the indexes know of a row. */
static void
WriteIndexes(Writer *writer, TupleTableSlot *slot)
{
	ResultRelInfo *result = writer->indexes;
	Datum		values[INDEX_MAX_KEYS];
	bool		nulls[INDEX_MAX_KEYS];

	for (int i = 0; i < result->ri_NumIndices; i++)
	{
		IndexInfo  *info = result->ri_IndexRelationInfo[i];

		FormIndexDatum(info, slot, NULL, values, nulls);
		index_insert(result->ri_IndexRelationDescs[i], values, nulls, &slot->tts_tid,
					 writer->table, UNIQUE_CHECK_NO, false, info);
	}
}

static void
PutDuration(RowBuilder *row, int column, int64 usec)
{
	if (usec != NO_TIME)
		PutUsec(row, column, usec);
}

/* The columns of an event. */
static void
PutEvent(RowBuilder *row, const Event *event)
{
	const EventFacts *facts = &event->facts;

	ClearRow(row);
	Put(row, Event_sequence, Int64GetDatum(facts->sequence));
	Put(row, Event_at, TimestampTzGetDatum(facts->at));
	PutSpan(row, Event_event, SpanOf(EventNames[facts->kind]));
	PutOptional(row, Event_name, event->name);
	if (facts->token != INVALID_TOKEN)
		Put(row, Event_token, Int64GetDatum(facts->token));
	if (facts->permits > 0)
	{
		PutSpan(row, Event_mode, SpanOf(ModeName(facts->permits, facts->capacity)));
		PutSpan(row, Event_scope, SpanOf(ScopeNames[facts->scope]));
	}
	PutOptional(row, Event_holder, event->holder);
	Put(row, Event_owner, ObjectIdGetDatum(facts->owner));
	if (facts->pid != 0)
		Put(row, Event_pid, Int32GetDatum(facts->pid));
	PutOptional(row, Event_correlation_id, event->correlation_id);
	PutDuration(row, Event_waited, facts->waited);
	PutDuration(row, Event_held, facts->held);
	PutOptional(row, Event_detail, event->detail);
}

/*
 * Add the rows that wait to the table, where they are of no concern to logical
 * decoding: one by one if WAL is for that, since only so can it be kept from them.
 */
static void
AddRows(Writer *writer)
{
	CommandId	cid = GetCurrentCommandId(true);
	MemoryContext former = MemoryContextSwitchTo(writer->context);

	if (!RelationIsLogicallyLogged(writer->table))
		heap_multi_insert(writer->table, writer->slots, writer->count, cid, 0, writer->bulk);
	for (int i = 0; i < writer->count; i++)
	{
		TupleTableSlot *slot = writer->slots[i];

		if (RelationIsLogicallyLogged(writer->table))
		{
			HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, NULL);

			heap_insert(writer->table, tuple, cid, HEAP_INSERT_NO_LOGICAL, writer->bulk);
			slot->tts_tid = tuple->t_self;
		}
		WriteIndexes(writer, slot);
		ExecClearTuple(slot);
	}
	writer->count = 0;
	MemoryContextSwitchTo(former);
	MemoryContextReset(writer->context);
}

/* Have an event added to the table, at the latest by FinishWriter. */
static void
WriteEvent(Writer *writer, const Event *event)
{
	MemoryContext former = MemoryContextSwitchTo(writer->context);
	HeapTuple	tuple;

	PutEvent(&writer->row, event);
	tuple = heap_form_tuple(RelationGetDescr(writer->table), writer->row.values, writer->row.nulls);
	ExecStoreHeapTuple(tuple, writer->slots[writer->count++], false);
	MemoryContextSwitchTo(former);
	if (writer->count == WRITE_BATCH)
		AddRows(writer);
}

static void
FinishWriter(Writer *writer)
{
	if (writer->count > 0)
		AddRows(writer);
	for (int i = 0; i < WRITE_BATCH; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	FreeBulkInsertState(writer->bulk);
	CatalogCloseIndexes(writer->indexes);
	MemoryContextDelete(writer->context);
}

/* Is a name one of those that lease.notify publishes? */
static bool
IsPublic(const Span *name)
{
	if (name->length == 0 || NotifySetting == NULL || NotifySetting[0] == '\0')
		return false;
	return DatumGetBool(DirectFunctionCall2Coll(textlike, C_COLLATION_OID,
												PointerGetDatum(cstring_to_text_with_len(name->data, name->length)),
												CStringGetTextDatum(NotifySetting)));
}

/* Tell those who LISTEN. */
static void
NotifyEvent(const Event *event)
{
	StringInfoData payload;

	initStringInfo(&payload);
	appendStringInfo(&payload, "{\"event\":\"%s\",\"name\":", EventNames[event->facts.kind]);
	escape_json(&payload, pnstrdup(event->name.data, event->name.length));
	if (event->facts.token == INVALID_TOKEN)
		appendStringInfoString(&payload, ",\"token\":null}");
	else
		appendStringInfo(&payload, ",\"token\":" INT64_FORMAT "}", event->facts.token);
	Async_Notify("lease", payload.data);
}

/* A key and its text, in quotes, for the server's log; nothing if it is empty. */
static void
AppendQuoted(StringInfo line, const char *key, const Span *text)
{
	if (text->length == 0)
		return;
	appendStringInfo(line, " %s=\"", key);
	for (uint32 i = 0; i < text->length; i++)
	{
		unsigned char byte = text->data[i];

		if (byte < ' ' || byte == 0x7f)
			appendStringInfo(line, "\\x%02x", byte);
		else if (byte == '"' || byte == '\\')
			appendStringInfo(line, "\\%c", byte);
		else
			appendStringInfoChar(line, byte);
	}
	appendStringInfoChar(line, '"');
}

static void
AppendSeconds(StringInfo line, const char *key, int64 usec)
{
	if (usec != NO_TIME)
		appendStringInfo(line, " %s=" INT64_FORMAT ".%06d", key, usec / USECS_PER_SEC,
						 (int) (usec % USECS_PER_SEC));
}

/* Write an event to the server's log: key=value, for people and programs. */
static void
LogEvent(const Event *event)
{
	const EventFacts *facts = &event->facts;
	char	   *owner = GetUserNameFromId(facts->owner, true);
	Span		owner_name = SpanOf(owner != NULL ? owner : "");
	StringInfoData line;

	initStringInfo(&line);
	appendStringInfo(&line, "lease %s:", EventNames[facts->kind]);
	AppendQuoted(&line, "name", &event->name);
	if (facts->token != INVALID_TOKEN)
		appendStringInfo(&line, " token=" INT64_FORMAT, facts->token);
	if (facts->permits > 0)
		appendStringInfo(&line, " mode=%s scope=%s", ModeName(facts->permits, facts->capacity),
						 ScopeNames[facts->scope]);
	AppendQuoted(&line, "holder", &event->holder);
	AppendQuoted(&line, "owner", &owner_name);
	if (facts->pid != 0)
		appendStringInfo(&line, " pid=%d", facts->pid);
	AppendQuoted(&line, "correlation_id", &event->correlation_id);
	AppendSeconds(&line, "waited", facts->waited);
	AppendSeconds(&line, "held", facts->held);
	AppendQuoted(&line, "detail", &event->detail);
	ereport(LOG,
			(errmsg_internal("%s", line.data),
			 errhidestmt(true)));
}

/* Write, and tell of, all events of a list of pages.  Returns how many there are. */
static int
WritePages(Relation table, uint32 first)
{
	Writer		writer;
	const EventPage *page;
	int			count = 0;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "lease event",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext former = CurrentMemoryContext;

	PushActiveSnapshot(GetTransactionSnapshot());
	StartWriter(&writer, table);
	while ((page = NextEventPage(&first)) != NULL)
	{
		Event		event;
		uint32		at = 0;

		count += page->count;
		CHECK_FOR_INTERRUPTS();
		while (NextEvent(page, &at, &event))
		{
			if (HistoryRetention > 0)
				WriteEvent(&writer, &event);
			MemoryContextSwitchTo(scratch);
			if (IsPublic(&event.name))
				NotifyEvent(&event);
			if ((LoggedEvents & (1u << event.facts.kind)) != 0)
				LogEvent(&event);
			MemoryContextSwitchTo(former);
			MemoryContextReset(scratch);
		}
	}
	FinishWriter(&writer);
	PopActiveSnapshot();
	MemoryContextDelete(scratch);
	return count;
}

/* After how long there may be something to trim again. */
static int64
TrimPause(void)
{
	int64		hundredth = (int64) HistoryRetention * USECS_PER_SEC / 100;

	return Min(Max(hundredth, TRIM_PAUSE_LEAST), TRIM_PAUSE_MOST);
}

/*
 * Write the events of our database, as its reaper, in a transaction of their own.
 * Returns how many there were.
 */
int
WriteEvents(Database *db)
{
	Relation	table;
	int			count = 0;

	StartTransactionCommand();
	table = OpenEvents();
	if (table == NULL)
		pg_atomic_write_u64(&db->due[CHORE_EVENTS], MonotonicNow() + TABLE_RETRY);
	else
	{
		in_hand = TakeEvents(db);
		if (in_hand != NO_PAGE)
			count = WritePages(table, in_hand);
		table_close(table, NoLock);
	}
	CommitTransactionCommand();

	(void) GiveEvents(db, in_hand);
	in_hand = NO_PAGE;
	NoteDue(db, CHORE_TRIM, MonotonicNow() + TrimPause());
	return count;
}

/* A reaper fails: what it was writing is for the next one. */
void
ReturnEventsInHand(Database *db)
{
	ReturnEvents(db, in_hand);
	in_hand = NO_PAGE;
}

static Statement old_events = {
	"SELECT ctid FROM lease.events WHERE at OPERATOR(pg_catalog.<) $1 LIMIT $2",
	2, {TIMESTAMPTZOID, INT4OID}, NULL
};
static Statement any_event = {
	"SELECT FROM lease.events LIMIT 1", 0, {0}, NULL
};

/*
 * Delete the rows that were found.  The table has no replica identity, so logical
 * decoding has nothing to tell of that.
 */
static void
DeleteFound(Relation table)
{
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		tid = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		CHECK_FOR_INTERRUPTS();
		simple_heap_delete(table, (ItemPointer) DatumGetPointer(tid));
	}
}

/* Remove what is older than lease.history_retention, and say when to come again. */
void
TrimHistory(Database *db)
{
	int64		retention = (int64) HistoryRetention * USECS_PER_SEC;
	Datum		values[2] = {
		TimestampTzGetDatum(GetCurrentTimestamp() - retention),
		Int32GetDatum(TRIM_BATCH)
	};
	Relation	table = OpenEvents();
	uint64		removed;

	if (table == NULL)
	{
		pg_atomic_write_u64(&db->due[CHORE_TRIM], MonotonicNow() + TABLE_RETRY);
		return;
	}

	/* What is written from now on is noted anew. */
	pg_atomic_write_u64(&db->due[CHORE_TRIM], MONO_NEVER);
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	removed = RunStatement(&old_events, values);
	DeleteFound(table);
	if (removed == TRIM_BATCH)
		NoteDue(db, CHORE_TRIM, MonotonicNow());
	else if (RunStatement(&any_event, NULL) > 0)
		NoteDue(db, CHORE_TRIM, MonotonicNow() + TrimPause());
	SPI_finish();
	PopActiveSnapshot();
	table_close(table, NoLock);
}
