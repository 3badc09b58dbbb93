/*-------------------------------------------------------------------------
 *
 * database.h
 *	  Which databases use leases, and what their ledgers hold at load.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_DATABASE_H
#define LEASE_DATABASE_H

#include "table.h"
#include "token.h"

/* A loaded database and, if it is to be written, its open ledger. */
typedef struct LeaseDatabase
{
	Database   *db;
	Relation	ledger;			/* NULL if opened for looking at memory only */
} LeaseDatabase;

extern Database *FindDatabase(Oid oid);
extern MonoTime AcceptingSince(void);
extern void OpenDatabaseForWrite(LeaseDatabase *open);
extern void OpenDatabaseForRead(LeaseDatabase *open);
extern void OpenNameForWrite(const Span *name, LeaseDatabase *open, LeaseName *lease);
extern void OpenNameForRead(const Span *name, LeaseDatabase *open, LeaseName *lease);
extern void CloseDatabase(LeaseDatabase *open);
extern Token HighestToken(Oid ledger);
extern void RestoreCeiling(Relation ledger, const LedgerRow *row);
extern bool ForgetDroppedLedger(Database *db);
extern void ForgetDatabase(Oid oid);

/* On a standby, where there is nothing but the ledger. */
extern void ReadTokenRule(Relation ledger, TokenRule *rule);

#endif							/* LEASE_DATABASE_H */
