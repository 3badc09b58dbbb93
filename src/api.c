/*-------------------------------------------------------------------------
 *
 * api.c
 *	  SQL functions for who holds a lease, and for administrators: arguments in,
 *	  errors out, nothing else.  Those that take leases are in api_acquire.c.
 *
 * Every function checks all of its arguments before anything is done, so that
 * bad input leaves nothing half done.  What each does is told to users by the
 * COMMENTs in sql/lease--1.0.sql.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "args.h"
#include "capacity.h"
#include "clock.h"
#include "deadlock.h"
#include "explain.h"
#include "lessor.h"
#include "session.h"
#include "transfer.h"

PG_FUNCTION_INFO_V1(lease_release_session);
PG_FUNCTION_INFO_V1(lease_renew);
PG_FUNCTION_INFO_V1(lease_try_renew);
PG_FUNCTION_INFO_V1(lease_renew_all);
PG_FUNCTION_INFO_V1(lease_release);
PG_FUNCTION_INFO_V1(lease_release_all);
PG_FUNCTION_INFO_V1(lease_transfer);
PG_FUNCTION_INFO_V1(lease_force_release);
PG_FUNCTION_INFO_V1(lease_new_epoch);
PG_FUNCTION_INFO_V1(lease_set_capacity);
PG_FUNCTION_INFO_V1(lease_is_held);
PG_FUNCTION_INFO_V1(lease_guard);
PG_FUNCTION_INFO_V1(lease_blocking_pids);
PG_FUNCTION_INFO_V1(lease_protect_ledger);
PG_FUNCTION_INFO_V1(lease_advance_clock);

/* release_session(): how many leases of scope session it released. */
Datum
lease_release_session(PG_FUNCTION_ARGS)
{
	RequireWritable("lease.release_session()");
	PG_RETURN_INT32(ReleaseSession());
}

static Datum
UsecInterval(int64 usec)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = usec;
	return IntervalPGetDatum(interval);
}

/* renew(name, token, ttl): the TTL now running. */
Datum
lease_renew(PG_FUNCTION_ARGS)
{
	Span		name;
	Token		token;
	int64		ttl;

	RequireWritable("lease.renew()");
	name = NameArg(fcinfo, 0);
	token = TokenArg(fcinfo, 1);
	ttl = RenewLease(&name, token, TtlArg(fcinfo, 2, OWN_TTL));
	if (ttl == LEASE_LOST)
		ReportLost(ERROR, &name, token, EVENT_REJECTED, "renew");
	if (ttl == NO_TTL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(UsecInterval(ttl));
}

static bool
TryRenew(const Span *name, Token token, int64 ttl)
{
	bool		renewed = RenewLease(name, token, ttl) != LEASE_LOST;

	if (!renewed)
		RecordMisuse(name, token, EVENT_REJECTED, "renew");
	return renewed;
}

/* try_renew(name, token, ttl): false if the lease is lost. */
Datum
lease_try_renew(PG_FUNCTION_ARGS)
{
	Span		name;
	Token		token;

	RequireWritable("lease.try_renew()");
	name = NameArg(fcinfo, 0);
	token = TokenArg(fcinfo, 1);
	PG_RETURN_BOOL(TryRenew(&name, token, TtlArg(fcinfo, 2, OWN_TTL)));
}

/* release(name, token): false and a WARNING if the lease was lost before. */
Datum
lease_release(PG_FUNCTION_ARGS)
{
	Span		name;
	Token		token;
	bool		released;

	RequireWritable("lease.release()");
	name = NameArg(fcinfo, 0);
	token = TokenArg(fcinfo, 1);
	released = ReleaseLease(&name, token);
	if (!released)
		ReportLost(WARNING, &name, token, EVENT_REJECTED, "release");
	PG_RETURN_BOOL(released);
}

/* Several leases, from a name[] and a token[] of the same length. */
typedef struct LeaseList
{
	int			count;
	Datum	   *name_datums;
	Span	   *names;
	Token	   *tokens;
} LeaseList;

static void
ReadLeaseList(FunctionCallInfo fcinfo, LeaseList *list)
{
	Datum	   *tokens;
	int			ntokens;

	list->count = ArrayArg(fcinfo, 0, "names", TEXTOID, &list->name_datums);
	ntokens = ArrayArg(fcinfo, 1, "tokens", INT8OID, &tokens);
	if (list->count != ntokens)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("names has %d elements and tokens has %d; they must have the same number",
						list->count, ntokens)));

	list->names = palloc(sizeof(Span) * list->count);
	list->tokens = palloc(sizeof(Token) * list->count);
	for (int i = 0; i < list->count; i++)
	{
		list->names[i] = CheckName(list->name_datums[i]);
		list->tokens[i] = CheckToken(DatumGetInt64(tokens[i]));
	}

	/* All of them, before the first is touched. */
	for (int i = 0; i < list->count; i++)
		RequireLeaseOwner(&list->names[i], list->tokens[i]);
}

static void
PutOutcome(FunctionCallInfo fcinfo, const LeaseList *list, int i, bool outcome)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[3] = {
		list->name_datums[i],
		Int64GetDatum(list->tokens[i]),
		BoolGetDatum(outcome)
	};
	bool		nulls[3] = {false};

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* renew_all(names, tokens, ttl): a row each, renewed or not. */
Datum
lease_renew_all(PG_FUNCTION_ARGS)
{
	LeaseList	list;
	int64		ttl;

	RequireWritable("lease.renew_all()");
	ttl = TtlArg(fcinfo, 2, OWN_TTL);
	ReadLeaseList(fcinfo, &list);
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < list.count; i++)
		PutOutcome(fcinfo, &list, i,
				   TryRenew(&list.names[i], list.tokens[i], ttl));
	return (Datum) 0;
}

/* release_all(names, tokens): a row each, released or not. */
Datum
lease_release_all(PG_FUNCTION_ARGS)
{
	LeaseList	list;

	RequireWritable("lease.release_all()");
	ReadLeaseList(fcinfo, &list);
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < list.count; i++)
	{
		bool		released = ReleaseLease(&list.names[i], list.tokens[i]);

		if (!released)
			RecordMisuse(&list.names[i], list.tokens[i], EVENT_REJECTED, "release");
		PutOutcome(fcinfo, &list, i, released);
	}
	return (Datum) 0;
}

/* transfer(name, token, to_holder): the new holder's token. */
Datum
lease_transfer(PG_FUNCTION_ARGS)
{
	Span		name;
	Span		to_holder;
	Token		token;
	Token		new_token;

	RequireWritable("lease.transfer()");
	name = NameArg(fcinfo, 0);
	token = TokenArg(fcinfo, 1);
	RequireNotNull(fcinfo, 2, "to_holder");
	to_holder = LabelArg(fcinfo, 2, "to_holder");
	new_token = TransferLease(&name, token, &to_holder);
	if (new_token == INVALID_TOKEN)
		ReportLost(ERROR, &name, token, EVENT_REJECTED, "transfer");
	PG_RETURN_INT64(new_token);
}

static char *
ReasonArg(FunctionCallInfo fcinfo, int argno)
{
	char	   *reason;

	RequireNotNull(fcinfo, argno, "reason");
	reason = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	if (reason[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("reason must not be empty")));
	return reason;
}

/* force_release(name, reason, token, reopen): how many grants it ended. */
Datum
lease_force_release(PG_FUNCTION_ARGS)
{
	Span		name;
	char	   *reason;
	Token		token;

	RequireWritable("lease.force_release()");
	name = NameArg(fcinfo, 0);
	reason = ReasonArg(fcinfo, 1);
	token = PG_ARGISNULL(2) ? INVALID_TOKEN : TokenArg(fcinfo, 2);
	RequireNotNull(fcinfo, 3, "reopen");
	PG_RETURN_INT32(ForceReleaseLease(&name, token, reason, PG_GETARG_BOOL(3)));
}

/* new_epoch(reason): the epoch of all tokens from now on. */
Datum
lease_new_epoch(PG_FUNCTION_ARGS)
{
	RequireWritable("lease.new_epoch()");
	PG_RETURN_INT64(BeginEpoch(ReasonArg(fcinfo, 0)));
}

/* set_capacity(name, capacity): the capacity that the semaphore had. */
Datum
lease_set_capacity(PG_FUNCTION_ARGS)
{
	Span		name;

	RequireWritable("lease.set_capacity()");
	name = NameArg(fcinfo, 0);
	PG_RETURN_INT32(ResizeSemaphore(&name, CountArg(fcinfo, 1, "capacity", LEASE_CAPACITY_MAX)));
}

/* is_held(name, token).  A standby does not know, and does not guess. */
Datum
lease_is_held(PG_FUNCTION_ARGS)
{
	Span		name;

	RequirePreloaded();
	PreventCommandDuringRecovery("lease.is_held()");
	name = NameArg(fcinfo, 0);
	PG_RETURN_BOOL(IsLeaseHeld(&name, TokenArg(fcinfo, 1)));
}

/* guard(name, token): the token. */
Datum
lease_guard(PG_FUNCTION_ARGS)
{
	Span		name;
	Token		token;

	RequireWritable("lease.guard()");
	name = NameArg(fcinfo, 0);
	token = TokenArg(fcinfo, 1);
	if (!GuardLease(&name, token))
		ReportLost(ERROR, &name, token, EVENT_GUARD_FAILED, "guard");
	PG_RETURN_INT64(token);
}

/*
 * blocking_pids(pid): the processes that keep a process from the lease that it
 * waits for.
 */
Datum
lease_blocking_pids(PG_FUNCTION_ARGS)
{
	int			count;
	int		   *pids;
	Datum	   *elements;

	RequirePreloaded();
	RequireNotNull(fcinfo, 0, "pid");
	pids = BlockingPids(PG_GETARG_INT32(0), &count);
	elements = palloc(sizeof(Datum) * Max(count, 1));
	for (int i = 0; i < count; i++)
		elements[i] = Int32GetDatum(pids[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(elements, count, INT4OID, sizeof(int32), true,
										  TYPALIGN_INT));
}

/*
 * The trigger on lease.ledger: refuses every write by SQL but a superuser's
 * restore of ceiling rows, and takes these into account at once.
 */
Datum
lease_protect_ledger(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	LedgerRow	row;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("lease.protect_ledger() must be called as a trigger")));
	RequirePreloaded();

	if (!TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) || !superuser() ||
		!IsLedger(trigdata->tg_relation))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot change table \"%s\"",
						RelationGetRelationName(trigdata->tg_relation)),
				 errdetail("Its rows are written by the functions of extension lease.")));
	ReadRow(trigdata->tg_relation, trigdata->tg_trigtuple, &row);
	if (row.kind != LEDGER_CEILING)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("cannot insert a row of this kind into table \"%s\"",
						RelationGetRelationName(trigdata->tg_relation)),
				 errdetail("Only rows of kind \"ceiling\" can be restored.")));
	CheckToken(row.token);
	RestoreCeiling(trigdata->tg_relation, &row);
	return PointerGetDatum(trigdata->tg_trigtuple);
}

/*
 * advance_clock(interval): let the server's lease clock jump, for tests.
 *
 * The extension does not create this function; a test does, as superuser, so
 * that no deadline need be waited for.
 */
Datum
lease_advance_clock(PG_FUNCTION_ARGS)
{
	Interval   *by;

	RequirePreloaded();
	RequireNotNull(fcinfo, 0, "interval");
	by = PG_GETARG_INTERVAL_P(0);
	if (by->month != 0 || by->day < 0 || by->time < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the lease clock cannot jump by \"%s\"", IntervalText(by))));
	AdvanceClock(by->day * USECS_PER_DAY + by->time);
	RingLauncher(0);
	PG_RETURN_VOID();
}
