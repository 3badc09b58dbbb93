/*-------------------------------------------------------------------------
 *
 * ledger.h
 *	  The durable rows: append, end, scan, flush.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_LEDGER_H
#define LEASE_LEDGER_H

#include "arena.h"
#include "access/htup.h"
#include "utils/relcache.h"

typedef enum LedgerKind
{
	LEDGER_GRANT,
	LEDGER_CLOSURE,
	LEDGER_CEILING,
	LEDGER_UNKNOWN				/* of no kind that this library writes */
} LedgerKind;

/* A row, to append or as read; a Span of length 0 is NULL in the table. */
typedef struct LedgerRow
{
	LedgerKind	kind;
	Token		token;			/* grant, closure: its own; ceiling: the last
								 * one reserved */

	/* grant and closure */
	Span		name;
	Span		holder;
	Span		request_id;
	Span		correlation_id;
	Span		metadata;		/* jsonb as text */
	Token		replaces;		/* 0 is NULL in the table */
	Oid			owner;
	int64		ttl;			/* closure: how long it stays closed */
	int64		lock_delay;
	int64		min_hold;
	int32		permits;		/* as in Grant and Resource */
	int32		capacity;
	TimestampTz granted_at;

	/* ceiling */
	uint64		system_identifier;
	uint32		timeline;
	Oid			database;
	Token		valid_from;
} LedgerRow;

typedef void (*LedgerVisitor) (const LedgerRow *row, ItemPointer tid, void *arg);

extern Oid	LedgerOid(void);
extern bool LedgerExists(void);
extern bool IsLedger(Relation relation);
extern Relation OpenLedger(LOCKMODE lockmode);
extern void CloseLedger(Relation ledger, LOCKMODE lockmode);
extern const char *WhyNotDurable(Relation ledger);

extern XLogRecPtr AppendRow(Relation ledger, const LedgerRow *row, ItemPointer tid);
extern XLogRecPtr EndRow(Relation ledger, ItemPointer tid, Token token);
extern bool FlushLedger(XLogRecPtr lsn);

extern void ReadRow(Relation ledger, HeapTuple tuple, LedgerRow *row);
extern bool SupersedesRow(const LedgerRow *row, const LedgerRow *other);
extern void ScanLedger(Relation ledger, LedgerVisitor visit, void *arg);
extern char *FetchMetadata(Relation ledger, ItemPointer tid, Token token);

#endif							/* LEASE_LEDGER_H */
