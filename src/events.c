/*-------------------------------------------------------------------------
 *
 * events.c
 *	  What happens to leases: counted, and noted for those who write it down.
 *
 * Whoever changes something records it under the partition's lock that it holds
 * anyway: counts it (stats.c), and appends it to its database's log.  A reaper
 * takes the log from time to time and writes what is in it to a table, the
 * server's log and the channel of NOTIFY (history.c).  Nobody waits for that:
 * an event that finds no room is counted as lost.
 *
 * A log is a list of pages out of a pool that all databases share.  A database
 * may take another page while it has no more than four times as many as are free,
 * so one that nobody empties leaves some for the others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "caller.h"
#include "clock.h"
#include "events.h"
#include "settings.h"

/* A reaper is sent so long after the first event, or when there are so many pages. */
#define WRITE_DELAY			(USECS_PER_SEC / 5)
#define WRITE_AT_PAGES		(EVENT_PAGES / 8)

const char *const EventNames[NUM_EVENTS] = {
	[EVENT_ACQUIRED] = "acquired",
	[EVENT_RECEIVED] = "received",
	[EVENT_RELEASED] = "released",
	[EVENT_EXPIRED] = "expired",
	[EVENT_ORPHANED] = "orphaned",
	[EVENT_FORCED] = "forced",
	[EVENT_TRANSFERRED] = "transferred",
	[EVENT_ABANDONED] = "abandoned",
	[EVENT_REFUSED] = "refused",
	[EVENT_TIMEOUT] = "timeout",
	[EVENT_DEADLOCK] = "deadlock",
	[EVENT_CANCELLED] = "cancelled",
	[EVENT_REJECTED] = "rejected",
	[EVENT_GUARD_FAILED] = "guard_failed",
	[EVENT_REOPENED] = "reopened",
	[EVENT_RESIZED] = "resized",
	[EVENT_NEW_EPOCH] = "new_epoch",
	[EVENT_LOADED] = "loaded"
};

/* How an event lies in a page; its strings follow, one after the other. */
typedef struct EventRecord
{
	EventFacts	facts;
	uint8		name_length;
	uint8		holder_length;
	uint8		correlation_length;
	uint8		detail_length;
} EventRecord;

#define PAGE_ROOM			sizeof(((EventPage *) 0)->bytes)

/* Does anybody want to be told of such events? */
static bool
IsWanted(EventKind kind)
{
	return HistoryRetention > 0 || (NotifySetting != NULL && NotifySetting[0] != '\0') ||
		(LoggedEvents & (1u << kind)) != 0;
}

/* Take a page off the pool, for a database that has so many. */
static uint32
TakePage(uint32 has)
{
	FreeList   *list = &Shared->free_pages;
	uint32		page = NO_PAGE;

	SpinLockAcquire(&list->mutex);
	if (list->count > 0 && has <= 4 * list->count)
	{
		page = list->head;
		list->head = EventPages[page].next;
		list->count--;
	}
	SpinLockRelease(&list->mutex);
	return page;
}

static void
GivePage(uint32 page)
{
	FreeList   *list = &Shared->free_pages;

	SpinLockAcquire(&list->mutex);
	EventPages[page].next = list->head;
	list->head = page;
	list->count++;
	SpinLockRelease(&list->mutex);
}

/* The page of a log that has room for so many bytes, or NULL.  Under its spinlock. */
static EventPage *
PageWithRoom(EventLog *log, Size size)
{
	uint32		page;

	if (log->last != NO_PAGE && EventPages[log->last].used + size <= PAGE_ROOM)
		return &EventPages[log->last];
	page = TakePage(log->npages);
	if (page == NO_PAGE)
		return NULL;
	EventPages[page].next = NO_PAGE;
	EventPages[page].used = 0;
	EventPages[page].count = 0;
	if (log->last == NO_PAGE)
		log->first = page;
	else
		EventPages[log->last].next = page;
	log->last = page;
	log->npages++;
	return &EventPages[page];
}

static char *
PutString(char *at, const Span *string)
{
	if (string->length > 0)
		memcpy(at, string->data, string->length);
	return at + string->length;
}

/* Write an event into a page that has room. */
static void
PutEvent(EventPage *page, const Event *event, Size size)
{
	EventRecord *record = (EventRecord *) (page->bytes + page->used);
	char	   *strings = (char *) (record + 1);

	record->facts = event->facts;
	record->name_length = event->name.length;
	record->holder_length = event->holder.length;
	record->correlation_length = event->correlation_id.length;
	record->detail_length = event->detail.length;
	strings = PutString(strings, &event->name);
	strings = PutString(strings, &event->holder);
	strings = PutString(strings, &event->correlation_id);
	(void) PutString(strings, &event->detail);
	page->used += size;
	page->count++;
}

/* Note an event in its database's log, and see that a reaper comes for it. */
static void
AppendEvent(Database *db, Event *event)
{
	EventLog   *log = &db->log;
	Size		size = MAXALIGN(sizeof(EventRecord) + event->name.length + event->holder.length +
								event->correlation_id.length + event->detail.length);
	EventPage  *page;
	bool		is_first;
	bool		is_full;

	SpinLockAcquire(&log->mutex);
	event->facts.sequence = ++log->sequence;
	is_first = log->last == NO_PAGE;
	page = PageWithRoom(log, size);
	is_full = log->npages == WRITE_AT_PAGES && page != NULL && page->used == 0;
	if (page != NULL)
	{
		PutEvent(page, event, size);
		log->pending++;
	}
	else
		log->lost++;
	SpinLockRelease(&log->mutex);

	if (is_first || is_full)
	{
		MonoTime	now = MonotonicNow();

		NoteDue(db, CHORE_EVENTS, is_full ? now : now + WRITE_DELAY);
	}
}

/* A string for an event, cut off where it is too long. */
static Span
DetailOf(const char *detail)
{
	Span		span = SpanOf(detail != NULL ? detail : "");

	if (span.length > EVENT_DETAIL_MAX)
		span.length = pg_mbcliplen(span.data, span.length, EVENT_DETAIL_MAX);
	return span;
}

/* The strings of a grant, one after the other. */
typedef struct LabelBuffer
{
	char		bytes[3 * LEASE_LABEL_MAX];
} LabelBuffer;

/* Note what happened to a grant. */
static void
NoteGrantEvent(Database *db, const LeaseName *lease, const Grant *grant, EventFacts *facts,
			   bool by_session, const char *detail)
{
	LabelBuffer buffer;
	uint32		correlation_at = grant->holder_length + grant->request_length;
	Event		event = {
		.facts = *facts,
		.name = {lease->key.at.probe, lease->key.length},
		.holder = {buffer.bytes, grant->holder_length},
		.correlation_id = {buffer.bytes + correlation_at, grant->correlation_length},
		.detail = DetailOf(detail)
	};

	ReadChunks(grant->strings, 0, buffer.bytes, correlation_at + grant->correlation_length);
	if (by_session)
		event.correlation_id = CurrentCorrelation(event.correlation_id);
	event.facts.token = grant->token;
	event.facts.owner = grant->owner;
	event.facts.pid = grant->pid;
	event.facts.permits = grant->permits;
	event.facts.capacity = grant->resource->capacity;
	event.facts.scope = grant->scope;
	AppendEvent(db, &event);
}

/* A grant is held from now on; its maker waits for it since a time, or 0. */
void
RecordGrant(const LeaseName *lease, const Grant *grant, EventKind kind, MonoTime waiting_since)
{
	Database   *db = EntryOf(lease->key.database);
	EventFacts	facts = {
		.at = kind == EVENT_ACQUIRED ? grant->acquired_at : GetCurrentTimestamp(),
		.waited = waiting_since != 0 ? grant->granted_at - waiting_since : NO_TIME,
		.held = NO_TIME,
		.kind = kind
	};
	char		detail[64];

	CountGrant(lease, grant, kind, facts.waited);
	if (db == NULL || !IsWanted(kind))
		return;
	if (grant->replaces != INVALID_TOKEN)
		snprintf(detail, sizeof(detail), "from token " INT64_FORMAT, grant->replaces);
	NoteGrantEvent(db, lease, grant, &facts, false,
				   grant->replaces != INVALID_TOKEN ? detail : NULL);
}

/* A grant that is still HELD is over. */
void
RecordEnd(const LeaseName *lease, const Grant *grant, EventKind kind, const char *detail)
{
	Database   *db = EntryOf(lease->key.database);
	MonoTime	now = MonotonicNow();
	MonoTime	end = kind == EVENT_EXPIRED ? grant->deadline : now;
	EventFacts	facts = {.waited = NO_TIME, .kind = kind};
	char		renewals[64];

	Assert(grant->state == GRANT_HELD);
	facts.at = WallTimeOf(end, now);

	/* One that was loaded is older than our clock knows. */
	facts.held = grant->serial != 0 ? end - grant->granted_at : facts.at - grant->acquired_at;
	facts.held = Max(facts.held, 0);
	CountEnd(lease, grant, kind, facts.held);
	if (db == NULL || !IsWanted(kind))
		return;
	if (detail == NULL && grant->renewals > 0)
	{
		snprintf(renewals, sizeof(renewals), "renewed %u %s", grant->renewals,
				 grant->renewals == 1 ? "time" : "times");
		detail = renewals;
	}
	NoteGrantEvent(db, lease, grant, &facts,
				   kind == EVENT_RELEASED || kind == EVENT_TRANSFERRED || kind == EVENT_FORCED, detail);
}

/* Somebody of our session asked for a name, and did not get it. */
void
RecordAttempt(const LeaseName *lease, const Attempt *attempt, EventKind kind, const char *detail)
{
	Database   *db = EntryOf(lease->key.database);
	Event		event = {
		.facts = {
			.at = GetCurrentTimestamp(),
			.waited = attempt->waited,
			.held = NO_TIME,
			.owner = GetUserId(),
			.pid = MyProcPid,
			.permits = attempt->permits,
			.capacity = attempt->capacity,
			.kind = kind,
			.scope = attempt->scope
		},
		.name = {lease->key.at.probe, lease->key.length},
		.holder = attempt->labels->holder,
		.correlation_id = attempt->labels->correlation_id,
		.detail = DetailOf(detail)
	};

	CountVainAttempt(lease, event.facts.owner, kind, attempt->waited);
	if (db != NULL && IsWanted(kind))
		AppendEvent(db, &event);
}

/* Note what our session did, or tried; the name may be empty. */
static void
NoteAct(const Span *name, Token token, EventKind kind, const char *detail)
{
	Database   *db = Shared != NULL ? EntryOf(MyDatabaseId) : NULL;
	Event		event = {
		.facts = {
			.at = GetCurrentTimestamp(),
			.token = token,
			.waited = NO_TIME,
			.held = NO_TIME,
			.owner = GetUserId(),
			.pid = MyProcPid,
			.kind = kind
		},
		.name = *name,
		.holder = DefaultHolder(),
		.correlation_id = CurrentCorrelation(SpanOf("")),
		.detail = DetailOf(detail)
	};
	LeaseName	lease;

	if (db == NULL)
		return;
	if (name->length == 0)
		CountNameless(db, kind);
	else
	{
		ResolveName(&lease, MyDatabaseId, name->data, name->length);
		LockName(&lease, LW_EXCLUSIVE);
		CountOther(&lease, event.facts.owner, kind);
	}
	if (IsWanted(kind))
		AppendEvent(db, &event);
	if (name->length > 0)
		UnlockName(&lease);
}

/*
 * Our session showed a token that is worth nothing (any more), or did without
 * one what wants it; the name may be empty.
 */
void
RecordMisuse(const Span *name, Token token, EventKind kind, const char *detail)
{
	NoteAct(name, token, kind, detail);
}

/* Our session changed something that concerns all holders of a name, or of all. */
void
RecordAct(const Span *name, EventKind kind, const char *detail)
{
	NoteAct(name, INVALID_TOKEN, kind, detail);
}

/*
 * Take all pages of a database's log, as a list; NO_PAGE if it is empty.  They
 * are the caller's until GiveEvents, or ReturnEvents.
 */
uint32
TakeEvents(Database *db)
{
	EventLog   *log = &db->log;
	uint32		first;

	/* What comes from now on is noted anew. */
	pg_atomic_write_u64(&db->due[CHORE_EVENTS], MONO_NEVER);
	SpinLockAcquire(&log->mutex);
	first = log->first;
	log->first = log->last = NO_PAGE;
	log->npages = 0;
	SpinLockRelease(&log->mutex);
	return first;
}

/* The page that a list begins with; steps on.  NULL at its end. */
const EventPage *
NextEventPage(uint32 *page)
{
	const EventPage *current;

	if (*page == NO_PAGE)
		return NULL;
	current = &EventPages[*page];
	*page = current->next;
	return current;
}

static Span
GetString(const char **at, uint32 length)
{
	Span		string = {*at, length};

	*at += length;
	return string;
}

/* The event at a place in a page, 0 for the first; steps on.  False at its end. */
bool
NextEvent(const EventPage *page, uint32 *at, Event *event)
{
	const EventRecord *record = (const EventRecord *) (page->bytes + *at);
	const char *strings = (const char *) (record + 1);

	if (*at >= page->used)
		return false;
	event->facts = record->facts;
	event->name = GetString(&strings, record->name_length);
	event->holder = GetString(&strings, record->holder_length);
	event->correlation_id = GetString(&strings, record->correlation_length);
	event->detail = GetString(&strings, record->detail_length);
	*at = MAXALIGN(strings - page->bytes);
	return true;
}

/* Give back a list of pages whose events are done with.  Returns how many those were. */
uint64
GiveEvents(Database *db, uint32 first)
{
	uint64		count = 0;

	while (first != NO_PAGE)
	{
		uint32		next = EventPages[first].next;

		count += EventPages[first].count;
		GivePage(first);
		first = next;
	}
	SpinLockAcquire(&db->log.mutex);
	db->log.pending -= count;
	SpinLockRelease(&db->log.mutex);
	return count;
}

/* Put a list of pages back into the log that it was taken from. */
void
ReturnEvents(Database *db, uint32 first)
{
	EventLog   *log = &db->log;
	uint32		last = first;
	uint32		count = 1;

	if (first == NO_PAGE)
		return;
	for (; EventPages[last].next != NO_PAGE; last = EventPages[last].next)
		count++;
	SpinLockAcquire(&log->mutex);
	EventPages[last].next = log->first;
	if (log->last == NO_PAGE)
		log->last = last;
	log->first = first;
	log->npages += count;
	SpinLockRelease(&log->mutex);
}

/* Take over a page of events that were kept elsewhere. */
void
RestoreEvents(Database *db, const EventPage *page)
{
	Event		event;
	uint32		at = 0;

	while (NextEvent(page, &at, &event))
		AppendEvent(db, &event);
}

/* Nobody will write what there is. */
void
LoseEvents(Database *db)
{
	uint64		count = GiveEvents(db, TakeEvents(db));

	SpinLockAcquire(&db->log.mutex);
	db->log.lost += count;
	SpinLockRelease(&db->log.mutex);
}

/* Forget the events of a database that is gone, or its extension. */
void
ForgetEvents(Database *db)
{
	(void) GiveEvents(db, TakeEvents(db));
	SpinLockAcquire(&db->log.mutex);
	db->log.lost = 0;
	SpinLockRelease(&db->log.mutex);
}
