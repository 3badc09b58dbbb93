/*-------------------------------------------------------------------------
 *
 * events.h
 *	  What happens to leases: counted, and noted for those who write it down.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_EVENTS_H
#define LEASE_EVENTS_H

#include "stats.h"

/* What is known of an event besides strings. */
typedef struct EventFacts
{
	uint64		sequence;		/* set as it is noted */
	TimestampTz at;
	Token		token;			/* or INVALID_TOKEN */
	int64		waited;			/* usec, or NO_TIME */
	int64		held;			/* usec, or NO_TIME */
	Oid			owner;
	int32		pid;			/* or 0 */
	int32		permits;		/* 0: of no grant, nor of an attempt at one */
	int32		capacity;
	uint8		kind;			/* an EventKind */
	uint8		scope;			/* a LeaseScope, if there are permits */
} EventFacts;

typedef struct Event
{
	EventFacts	facts;
	Span		name;
	Span		holder;
	Span		correlation_id;
	Span		detail;
} Event;

#define EVENT_DETAIL_MAX	255

/* What asked for a name in vain. */
typedef struct Attempt
{
	const GrantLabels *labels;
	int32		permits;
	int32		capacity;
	LeaseScope	scope;
	int64		waited;			/* usec, or NO_TIME */
} Attempt;

extern const char *const EventNames[NUM_EVENTS];

/* Under the partition's lock. */
extern void RecordGrant(const LeaseName *lease, const Grant *grant, EventKind kind, MonoTime waiting_since);
extern void RecordEnd(const LeaseName *lease, const Grant *grant, EventKind kind, const char *detail);
extern void RecordAttempt(const LeaseName *lease, const Attempt *attempt, EventKind kind, const char *detail);

/* Without a lock. */
extern void RecordMisuse(const Span *name, Token token, EventKind kind, const char *detail);
extern void RecordAct(const Span *name, EventKind kind, const char *detail);

/* The log of a database. */
extern uint32 TakeEvents(Database *db);
extern const EventPage *NextEventPage(uint32 *page);
extern bool NextEvent(const EventPage *page, uint32 *at, Event *event);
extern uint64 GiveEvents(Database *db, uint32 first);
extern void ReturnEvents(Database *db, uint32 first);
extern void RestoreEvents(Database *db, const EventPage *page);
extern void LoseEvents(Database *db);
extern void ForgetEvents(Database *db);

#endif							/* LEASE_EVENTS_H */
