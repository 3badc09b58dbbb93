/*-------------------------------------------------------------------------
 *
 * api.c
 *	  SQL functions: arguments in, errors out, nothing else.
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
#include "common/int.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "acquire.h"
#include "clock.h"
#include "explain.h"
#include "lessor.h"
#include "session.h"
#include "settings.h"

PG_FUNCTION_INFO_V1(lease_acquire);
PG_FUNCTION_INFO_V1(lease_try_acquire);
PG_FUNCTION_INFO_V1(lease_release_session);
PG_FUNCTION_INFO_V1(lease_renew);
PG_FUNCTION_INFO_V1(lease_try_renew);
PG_FUNCTION_INFO_V1(lease_renew_all);
PG_FUNCTION_INFO_V1(lease_release);
PG_FUNCTION_INFO_V1(lease_release_all);
PG_FUNCTION_INFO_V1(lease_transfer);
PG_FUNCTION_INFO_V1(lease_force_release);
PG_FUNCTION_INFO_V1(lease_new_epoch);
PG_FUNCTION_INFO_V1(lease_is_held);
PG_FUNCTION_INFO_V1(lease_protect_ledger);
PG_FUNCTION_INFO_V1(lease_advance_clock);

/* What all that grants or ends must be allowed to do. */
static void
RequireWritable(const char *function)
{
	RequirePreloaded();
	PreventCommandDuringRecovery(function);
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
}

static void
RequireNotNull(FunctionCallInfo fcinfo, int argno, const char *what)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
}

/* A text datum; the span lives as long as the datum. */
static Span
TextSpan(Datum datum)
{
	text	   *txt = DatumGetTextPP(datum);
	Span		span = {VARDATA_ANY(txt), VARSIZE_ANY_EXHDR(txt)};

	return span;
}

/* How much of a text that is too long to quote: whole characters. */
static int
ClippedLength(const Span *text, int most)
{
	return pg_mbcliplen(text->data, text->length, most);
}

static Span
CheckName(Datum datum)
{
	Span		name = TextSpan(datum);

	if (name.length < 1 || name.length > LEASE_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease name \"%.*s\" has %u bytes; it must have 1 to %d",
						ClippedLength(&name, LEASE_NAME_MAX), name.data,
						name.length, LEASE_NAME_MAX)));
	return name;
}

static Span
NameArg(FunctionCallInfo fcinfo, int argno)
{
	RequireNotNull(fcinfo, argno, "lease name");
	return CheckName(PG_GETARG_DATUM(argno));
}

static Token
CheckToken(Token token)
{
	if (token < 1 || token >= TOKEN_LIMIT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("token " INT64_FORMAT " is out of range: it must be from 1 to " INT64_FORMAT,
						token, TOKEN_LIMIT - 1)));
	return token;
}

static Token
TokenArg(FunctionCallInfo fcinfo, int argno)
{
	RequireNotNull(fcinfo, argno, "token");
	return CheckToken(PG_GETARG_INT64(argno));
}

/* An optional text of at most so many bytes; length 0 if NULL. */
static Span
LabelArg(FunctionCallInfo fcinfo, int argno, const char *what)
{
	Span		label;

	if (PG_ARGISNULL(argno))
		return SpanOf("");
	label = TextSpan(PG_GETARG_DATUM(argno));
	if (label.length > LEASE_LABEL_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s \"%.*s\" has %u bytes; it must have at most %d",
						what, ClippedLength(&label, LEASE_LABEL_MAX), label.data,
						label.length, LEASE_LABEL_MAX)));
	return label;
}

static char *
IntervalText(const Interval *interval)
{
	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)));
}

/*
 * An interval in microseconds.  A day counts as 24 hours; months have no fixed
 * length and are refused, and so are infinite intervals, whose months are the
 * largest of all.
 */
static int64
CheckDuration(const Interval *interval, const char *what, int64 least)
{
	int64		most = (int64) MaxTtl * 1000;
	int64		usec;

	if (interval->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s \"%s\" has no fixed length", what, IntervalText(interval)),
				 errdetail("Months and years vary, and a lease cannot last for ever."),
				 errhint("Give it in days, hours, minutes or seconds; at most %s (lease.max_ttl).",
						 GetConfigOptionByName("lease.max_ttl", NULL, false))));
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &usec) ||
		pg_add_s64_overflow(usec, interval->time, &usec) ||
		usec < least || usec > most)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s \"%s\" is out of range: it must be from " INT64_FORMAT " ms to %s (lease.max_ttl)",
						what, IntervalText(interval), least / 1000,
						GetConfigOptionByName("lease.max_ttl", NULL, false))));
	return usec;
}

static int64
TtlArg(FunctionCallInfo fcinfo, int argno, int64 otherwise)
{
	if (PG_ARGISNULL(argno))
		return otherwise;
	return CheckDuration(PG_GETARG_INTERVAL_P(argno), "TTL", LEASE_TTL_MIN);
}

/* The TTL of an acquire without one. */
static int64
DefaultTtlUsec(void)
{
	Interval	interval = {.time = (int64) DefaultTtl * 1000};

	return CheckDuration(&interval, "lease.default_ttl", LEASE_TTL_MIN);
}

static int64
DelayArg(FunctionCallInfo fcinfo, int argno, const char *what)
{
	return PG_ARGISNULL(argno) ? 0 : CheckDuration(PG_GETARG_INTERVAL_P(argno), what, 0);
}

/* One of a few words; its index. */
static int
ChoiceArg(FunctionCallInfo fcinfo, int argno, const char *what, const char *const *choices,
		  int count, const char *allowed)
{
	char	   *value;

	RequireNotNull(fcinfo, argno, what);
	value = text_to_cstring(PG_GETARG_TEXT_PP(argno));
	for (int i = 0; i < count; i++)
		if (strcmp(value, choices[i]) == 0)
			return i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s \"%s\" is unknown: it must be %s", what, value, allowed)));
}

/* How much of a lease a mode takes. */
static int32
ModeArg(FunctionCallInfo fcinfo, int argno)
{
	static const char *const modes[] = {"exclusive", "shared"};

	return ChoiceArg(fcinfo, argno, "mode", modes, lengthof(modes),
					 "\"exclusive\" or \"shared\"") == 0 ? WHOLE_LEASE : SHARED_LEASE;
}

static LeaseScope
ScopeArg(FunctionCallInfo fcinfo, int argno)
{
	LeaseScope	scope = ChoiceArg(fcinfo, argno, "scope", ScopeNames, lengthof(ScopeNames),
								  "\"detached\", \"session\" or \"transaction\"");

	if (scope == SCOPE_SESSION && !AllowSessionScope)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("scope \"session\" is not allowed here"),
				 errdetail("A connection pooler may hand the session to somebody else."),
				 errhint("Use scope \"detached\"; lease.allow_session_scope is off.")));
	return scope;
}

/* How long to wait; NULL is as long as it takes. */
static int64
WaitArg(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? WAIT_FOREVER :
		CheckDuration(PG_GETARG_INTERVAL_P(argno), "wait", 0);
}

/* What only a lease with a row in the ledger can have. */
static void
RequireDetached(const LeaseRequest *request)
{
	const char *what = request->lock_delay > 0 ? "lock_delay" :
		request->min_hold > 0 ? "min_hold" :
		request->metadata.length > 0 ? "metadata" : NULL;

	if (request->scope != SCOPE_DETACHED && what != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is for leases of scope \"detached\", not \"%s\"",
						what, ScopeNames[request->scope])));
}

static Span
MetadataArg(FunctionCallInfo fcinfo, int argno)
{
	Jsonb	   *jsonb;
	Span		metadata;

	if (PG_ARGISNULL(argno))
		return SpanOf("");
	jsonb = PG_GETARG_JSONB_P(argno);
	metadata = SpanOf(JsonbToCString(NULL, &jsonb->root, VARSIZE(jsonb)));
	if (metadata.length > LEASE_METADATA_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("metadata has %u bytes as text; it must have at most %d",
						metadata.length, LEASE_METADATA_MAX)));
	return metadata;
}

/* The client's address, as inet_client_addr() knows it. */
static const char *
ClientAddress(void)
{
	LOCAL_FCINFO(call, 0);
	Datum		address;

	InitFunctionCallInfoData(*call, NULL, 0, InvalidOid, NULL, NULL);
	address = inet_client_addr(call);
	if (call->isnull)
		return "[local]";
	return DatumGetCString(DirectFunctionCall1(inet_out, address));
}

/*
 * Who holds a lease if the caller does not say: lease.holder, else
 * application_name, else the client's address and the process ID.
 */
static Span
DefaultHolder(void)
{
	if (HolderSetting != NULL && HolderSetting[0] != '\0')
		return SpanOf(HolderSetting);
	if (application_name != NULL && application_name[0] != '\0')
		return SpanOf(application_name);
	return SpanOf(psprintf("%s pid %d", ClientAddress(), MyProcPid));
}

static void
ReadLabels(FunctionCallInfo fcinfo, int holder, int request_id, int correlation_id,
		   LeaseRequest *request)
{
	request->holder_is_default = PG_ARGISNULL(holder);
	request->labels.holder = request->holder_is_default ? DefaultHolder()
		: LabelArg(fcinfo, holder, "holder");
	request->labels.request_id = LabelArg(fcinfo, request_id, "request_id");
	request->labels.correlation_id = LabelArg(fcinfo, correlation_id, "correlation_id");
	if (request->labels.correlation_id.length == 0 && CorrelationIdSetting != NULL)
		request->labels.correlation_id = SpanOf(CorrelationIdSetting);
}

/* ttl, mode, scope, holder, ..., metadata, from an argument on; wait apart. */
static void
ReadRequest(FunctionCallInfo fcinfo, int ttl, int mode, LeaseRequest *request)
{
	request->permits = ModeArg(fcinfo, mode);
	request->capacity = WHOLE_LEASE;
	request->scope = ScopeArg(fcinfo, mode + 1);
	request->ttl = !PG_ARGISNULL(ttl) ? TtlArg(fcinfo, ttl, 0) :
		request->scope == SCOPE_DETACHED ? DefaultTtlUsec() : NO_TTL;
	ReadLabels(fcinfo, mode + 2, mode + 3, mode + 4, request);
	request->lock_delay = DelayArg(fcinfo, mode + 5, "lock_delay");
	request->min_hold = DelayArg(fcinfo, mode + 6, "min_hold");
	request->metadata = MetadataArg(fcinfo, mode + 7);
	RequireDetached(request);
}

/*
 * acquire(name, ttl, wait, mode, scope, holder, request_id, correlation_id,
 * lock_delay, min_hold, metadata): the token, sooner or later.
 */
Datum
lease_acquire(PG_FUNCTION_ARGS)
{
	LeaseRequest request;
	Span		name;
	Token		token;

	RequireWritable("lease.acquire()");
	name = NameArg(fcinfo, 0);
	request.wait = WaitArg(fcinfo, 2);
	ReadRequest(fcinfo, 1, 3, &request);
	(void) AcquireLeases(&request, &name, 1, &token);
	PG_RETURN_INT64(token);
}

/* try_acquire: the same without wait; NULL if the name is taken. */
Datum
lease_try_acquire(PG_FUNCTION_ARGS)
{
	LeaseRequest request;
	Span		name;
	Token		token;

	RequireWritable("lease.try_acquire()");
	name = NameArg(fcinfo, 0);
	request.wait = DO_NOT_WAIT;
	ReadRequest(fcinfo, 1, 2, &request);
	if (!AcquireLeases(&request, &name, 1, &token))
		PG_RETURN_NULL();
	PG_RETURN_INT64(token);
}

/* release_session(): how many leases of scope session it released. */
Datum
lease_release_session(PG_FUNCTION_ARGS)
{
	RequirePreloaded();
	PG_RETURN_INT32(ReleaseSession());
}

static Datum
UsecInterval(int64 usec)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = usec;
	return IntervalPGetDatum(interval);
}

/* Say that a lease is lost, with what is known of how. */
static void
ReportLost(int elevel, const Span *name, Token token)
{
	char	   *loss = ExplainLoss(name, token);

	ereport(elevel,
			(errcode(ERRCODE_LEASE_LOST),
			 errmsg("lease \"%.*s\" is not held with token " INT64_FORMAT,
					(int) name->length, name->data, token),
			 loss != NULL ? errdetail_internal("%s", loss) : 0));
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
		ReportLost(ERROR, &name, token);
	if (ttl == NO_TTL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(UsecInterval(ttl));
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
	PG_RETURN_BOOL(RenewLease(&name, token, TtlArg(fcinfo, 2, OWN_TTL)) != LEASE_LOST);
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
		ReportLost(WARNING, &name, token);
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

static int
ArrayArg(FunctionCallInfo fcinfo, int argno, const char *what, Oid type, Datum **elements)
{
	ArrayType  *array;
	bool	   *nulls;
	int			count;

	RequireNotNull(fcinfo, argno, what);
	array = PG_GETARG_ARRAYTYPE_P(argno);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s has %d dimensions; it must have one", what, ARR_NDIM(array))));
	if (type == TEXTOID)
		deconstruct_array(array, type, -1, false, TYPALIGN_INT, elements, &nulls, &count);
	else
		deconstruct_array(array, type, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, elements, &nulls, &count);
	for (int i = 0; i < count; i++)
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("element %d of %s must not be null", i + 1, what)));
	return count;
}

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
				   RenewLease(&list.names[i], list.tokens[i], ttl) != LEASE_LOST);
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
		PutOutcome(fcinfo, &list, i, ReleaseLease(&list.names[i], list.tokens[i]));
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
		ReportLost(ERROR, &name, token);
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
