/*-------------------------------------------------------------------------
 *
 * token.h
 *	  Fencing tokens: handing out, reserving, and the rule at load.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_TOKEN_H
#define LEASE_TOKEN_H

#include "ledger.h"

/* What the ceilings of a ledger say together; see ConsiderCeiling. */
typedef struct TokenRule
{
	Token		next;			/* the first token to hand out */
	Token		valid_from;		/* grants below are another database's */
	Token		ceiling;		/* the highest ceiling itself; 0 if none */
	ItemPointerData ceiling_tid;	/* its row; invalid if none */
	Token		own_ceiling;	/* the highest that was made in this database */
	ItemPointerData own_tid;	/* its row; invalid if none */
	Token		reached;		/* the highest token that may have been handed
								 * out under any of them */
} TokenRule;

extern Token TokenClock(void);
extern void StartTokenRule(TokenRule *rule);
extern void ConsiderCeiling(TokenRule *rule, const LedgerRow *row, ItemPointer tid);
extern void FinishTokenRule(TokenRule *rule, Token remembered);

extern Token TokenAtHand(Database *db);
extern Token NextToken(Database *db, Relation ledger);
extern void RaiseTokens(Database *db, Relation ledger, Token next);
extern Token TokenAfterCeiling(const LedgerRow *row);

#endif							/* LEASE_TOKEN_H */
