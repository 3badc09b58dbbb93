/*-------------------------------------------------------------------------
 *
 * token.c
 *	  Fencing tokens: handing out, reserving, and the rule at load.
 *
 * A database hands out tokens from a counter in shared memory.  They are
 * reserved in the ledger, by a ceiling row, before they are handed out: the
 * row is on disk, whatever synchronous_commit says, before the counter may
 * pass the former ceiling.  A crash thus skips tokens and repeats none.
 *
 * What a ledger does not know (an older copy of it, a standby that missed the
 * last moments, no ledger at all after DROP EXTENSION) the clock does: tokens
 * start no lower than TokenClock, which runs faster than any server can hand
 * them out.  It is only ever used to raise the counter, never to lower it.
 *
 * The ceiling and the counter's jumps are under the database's lock; taking a
 * token is an atomic increment.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "token.h"

/* How many tokens a ceiling row reserves: some 45 ms of TokenClock. */
#define CEILING_STEP		INT64CONST(100000)

/* 2026-01-01 00:00 UTC in microseconds since 2000-01-01. */
#define TOKEN_CLOCK_ORIGIN	(INT64CONST(9497) * USECS_PER_DAY)

/*
 * Where the clock says that tokens are: an epoch a minute since 2026-01-01
 * UTC, and within the minute in proportion, so that two readings a microsecond
 * apart differ by two tokens.
 */
Token
TokenClock(void)
{
	int64		usec = GetCurrentTimestamp() - TOKEN_CLOCK_ORIGIN;

	if (usec <= 0)
		return 1;
	return usec / USECS_PER_MINUTE * TOKEN_EPOCH_SIZE +
		usec % USECS_PER_MINUTE * TOKEN_EPOCH_SIZE / USECS_PER_MINUTE;
}

/*
 * How many epochs tokens may have come further than a ceiling tells: none if it
 * is this very server's, one for each timeline that was begun since, and one
 * for a copy made elsewhere.
 */
static int64
EpochsSince(const LedgerRow *row)
{
	if (row->system_identifier != GetSystemIdentifier() || row->database != MyDatabaseId)
		return 1;

	/* A standby hands out none. */
	if (RecoveryInProgress())
		return 0;
	return Max(0, (int64) GetWALInsertionTimeLine() - (int64) row->timeline);
}

/*
 * The first token that is surely beyond all that were handed out under a
 * ceiling.  The epochs count from the clock if that is further: one state that
 * is restored or promoted twice then starts at two different tokens.
 */
Token
TokenAfterCeiling(const LedgerRow *row)
{
	return Max(row->token + 1, TokenClock()) + EpochsSince(row) * TOKEN_EPOCH_SIZE;
}

void
StartTokenRule(TokenRule *rule)
{
	memset(rule, 0, sizeof(TokenRule));
	ItemPointerSetInvalid(&rule->ceiling_tid);
	ItemPointerSetInvalid(&rule->own_tid);
}

/* Take a ceiling row into account. */
void
ConsiderCeiling(TokenRule *rule, const LedgerRow *row, ItemPointer tid)
{
	rule->next = Max(rule->next, TokenAfterCeiling(row));
	rule->reached = Max(rule->reached, row->token + EpochsSince(row) * TOKEN_EPOCH_SIZE);
	if (row->token > rule->ceiling)
	{
		rule->ceiling = row->token;
		rule->ceiling_tid = *tid;
	}
	if (row->database == MyDatabaseId)
	{
		if (row->token > rule->own_ceiling)
		{
			rule->own_ceiling = row->token;
			rule->own_tid = *tid;
		}
		rule->valid_from = Max(rule->valid_from, row->valid_from);
	}
}

/*
 * All ceilings were considered.  remembered is a token that shared memory
 * knows to be free, of a ledger that is gone; 0 if none.
 */
void
FinishTokenRule(TokenRule *rule, Token remembered)
{
	rule->next = Max(rule->next, Max(remembered, TokenClock()));

	/* A ledger whose ceilings all come from elsewhere is a clone's. */
	if (rule->own_ceiling == 0 && rule->ceiling > 0)
		rule->valid_from = rule->next;
}

/* Reserve tokens up to a ceiling, under the database's lock. */
static void
AppendCeiling(Database *db, Relation ledger, Token ceiling)
{
	ItemPointerData former_tid = db->ceiling_tid;
	Token		former = (Token) pg_atomic_read_u64(&db->ceiling);
	ItemPointerData tid;
	LedgerRow	row = {
		.kind = LEDGER_CEILING,
		.token = ceiling,
		.system_identifier = GetSystemIdentifier(),
		.timeline = GetWALInsertionTimeLine(),
		.database = MyDatabaseId,
		.valid_from = db->valid_from
	};

	if (ceiling >= TOKEN_LIMIT)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("fencing tokens of this database are used up"),
				 errdetail("Token " INT64_FORMAT " would not be below " INT64_FORMAT ".",
						   ceiling, TOKEN_LIMIT)));

	XLogFlush(AppendRow(ledger, &row, &tid));
	db->ceiling_tid = tid;
	pg_atomic_write_u64(&db->ceiling, ceiling);
	if (ItemPointerIsValid(&former_tid))
		EndRow(ledger, &former_tid, former);
}

/*
 * A token larger than every token before it, if it takes no I/O; else
 * INVALID_TOKEN.
 */
Token
TokenAtHand(Database *db)
{
	uint64		token = pg_atomic_read_u64(&db->next);

	while (token <= pg_atomic_read_u64(&db->ceiling))
		if (pg_atomic_compare_exchange_u64(&db->next, &token, token + 1))
			return (Token) token;
	return INVALID_TOKEN;
}

/*
 * A token larger than every token before it.  Reserves more of them if need
 * be: may do I/O and wait for another process that does.
 */
Token
NextToken(Database *db, Relation ledger)
{
	Token		token = (Token) pg_atomic_fetch_add_u64(&db->next, 1);

	if (token > (Token) pg_atomic_read_u64(&db->ceiling))
	{
		LWLockAcquire(DatabaseLock(db), LW_EXCLUSIVE);
		if (token > (Token) pg_atomic_read_u64(&db->ceiling))
			AppendCeiling(db, ledger, token + CEILING_STEP);
		LWLockRelease(DatabaseLock(db));
	}
	return token;
}

/*
 * Let no token below next be handed out any more, now and after a crash.  The
 * ceiling rises first: a token taken meanwhile from the old range is covered.
 */
void
RaiseTokens(Database *db, Relation ledger, Token next)
{
	uint64		current;

	LWLockAcquire(DatabaseLock(db), LW_EXCLUSIVE);
	if (next + CEILING_STEP > (Token) pg_atomic_read_u64(&db->ceiling))
		AppendCeiling(db, ledger, next + CEILING_STEP);
	current = pg_atomic_read_u64(&db->next);
	while (current < (uint64) next &&
		   !pg_atomic_compare_exchange_u64(&db->next, &current, next))
		;
	LWLockRelease(DatabaseLock(db));
}
