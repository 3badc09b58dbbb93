/*-------------------------------------------------------------------------
 *
 * args.c
 *	  Arguments of SQL functions: what is out of bounds is an error that names
 *	  the value and the bound.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "args.h"
#include "caller.h"
#include "settings.h"

/* What all that grants or ends must be allowed to do. */
void
RequireWritable(const char *function)
{
	RequirePreloaded();
	PreventCommandDuringRecovery(function);
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
}

void
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

/* A name of a lease, or what has the same bounds. */
void
CheckBounds(const Span *name, const char *what)
{
	if (name->length < 1 || name->length > LEASE_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s \"%.*s\" has %u bytes; it must have 1 to %d",
						what, ClippedLength(name, LEASE_NAME_MAX), name->data,
						name->length, LEASE_NAME_MAX)));
}

Span
CheckName(Datum datum)
{
	Span		name = TextSpan(datum);

	CheckBounds(&name, "lease name");
	return name;
}

/* A text argument with the bounds of a lease name. */
Span
BoundedArg(FunctionCallInfo fcinfo, int argno, const char *what)
{
	Span		text;

	RequireNotNull(fcinfo, argno, what);
	text = TextSpan(PG_GETARG_DATUM(argno));
	CheckBounds(&text, what);
	return text;
}

Span
NameArg(FunctionCallInfo fcinfo, int argno)
{
	return BoundedArg(fcinfo, argno, "lease name");
}

Token
CheckToken(Token token)
{
	if (token < 1 || token >= TOKEN_LIMIT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("token " INT64_FORMAT " is out of range: it must be from 1 to " INT64_FORMAT,
						token, TOKEN_LIMIT - 1)));
	return token;
}

Token
TokenArg(FunctionCallInfo fcinfo, int argno)
{
	RequireNotNull(fcinfo, argno, "token");
	return CheckToken(PG_GETARG_INT64(argno));
}

/* An optional text of at most so many bytes; length 0 if NULL. */
Span
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

char *
IntervalText(const Interval *interval)
{
	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)));
}

/* An upper bound, as people know it: that of a setting, or fixed in days. */
static char *
BoundText(int64 most, const char *setting)
{
	if (setting == NULL)
		return psprintf(INT64_FORMAT " days", most / USECS_PER_DAY);
	return psprintf("%s (%s)", GetConfigOptionByName(setting, NULL, false), setting);
}

/*
 * An interval in microseconds, with bounds, of which the upper one may be that
 * of a setting.  A day counts as 24 hours; months have no fixed length and are
 * refused, and so are infinite intervals, whose months are the largest of all.
 */
int64
CheckDuration(const Interval *interval, const char *what, int64 least, int64 most,
			  const char *setting)
{
	int64		usec;

	if (interval->month != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s \"%s\" has no fixed length", what, IntervalText(interval)),
				 errdetail("Months and years vary, and nothing is granted for ever."),
				 errhint("Give it in days, hours, minutes or seconds; at most %s.",
						 BoundText(most, setting))));
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &usec) ||
		pg_add_s64_overflow(usec, interval->time, &usec) ||
		usec < least || usec > most)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s \"%s\" is out of range: it must be from " INT64_FORMAT " ms to %s",
						what, IntervalText(interval), least / 1000, BoundText(most, setting))));
	return usec;
}

/* One that is bounded by lease.max_ttl. */
static int64
CheckTtl(const Interval *interval, const char *what, int64 least)
{
	return CheckDuration(interval, what, least, (int64) MaxTtl * 1000, "lease.max_ttl");
}

int64
TtlArg(FunctionCallInfo fcinfo, int argno, int64 otherwise)
{
	if (PG_ARGISNULL(argno))
		return otherwise;
	return CheckTtl(PG_GETARG_INTERVAL_P(argno), "TTL", LEASE_TTL_MIN);
}

/* The TTL of an acquire without one. */
static int64
DefaultTtlUsec(void)
{
	Interval	interval = {.time = (int64) DefaultTtl * 1000};

	return CheckTtl(&interval, "lease.default_ttl", LEASE_TTL_MIN);
}

static int64
DelayArg(FunctionCallInfo fcinfo, int argno, const char *what)
{
	return PG_ARGISNULL(argno) ? 0 : CheckTtl(PG_GETARG_INTERVAL_P(argno), what, 0);
}

/* One of a few words; its index. */
static int
ChoiceArg(FunctionCallInfo fcinfo, int argno, const char *what, const char *const *choices,
		  int count, const char *allowed)
{
	Span		value;

	RequireNotNull(fcinfo, argno, what);
	value = TextSpan(PG_GETARG_DATUM(argno));
	for (int i = 0; i < count; i++)
	{
		Span		choice = SpanOf(choices[i]);

		if (SpansEqual(&value, &choice))
			return i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s \"%.*s\" is unknown: it must be %s", what,
					(int) value.length, value.data, allowed)));
}

/* How much of a lease a mode takes. */
int32
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

/* A number within bounds. */
int32
CountArg(FunctionCallInfo fcinfo, int argno, const char *what, int32 most)
{
	int32		count;

	RequireNotNull(fcinfo, argno, what);
	count = PG_GETARG_INT32(argno);
	if (count < 1 || count > most)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s %d is out of range: it must be from 1 to %d", what, count, most)));
	return count;
}

/* How long to wait; NULL is as long as it takes. */
int64
WaitArg(FunctionCallInfo fcinfo, int argno)
{
	return PG_ARGISNULL(argno) ? WAIT_FOREVER :
		CheckTtl(PG_GETARG_INTERVAL_P(argno), "wait", 0);
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

static void
ReadLabels(FunctionCallInfo fcinfo, int holder, int request_id, LeaseRequest *request)
{
	request->holder_is_default = PG_ARGISNULL(holder);
	request->labels.holder = request->holder_is_default ? DefaultHolder()
		: LabelArg(fcinfo, holder, "holder");
	request->labels.request_id = LabelArg(fcinfo, request_id, "request_id");
	request->labels.correlation_id = LabelArg(fcinfo, request_id + 1, "correlation_id");
	if (request->labels.correlation_id.length == 0 && CorrelationIdSetting != NULL)
		request->labels.correlation_id = SpanOf(CorrelationIdSetting);
}

/*
 * The elements of a one-dimensional array without NULLs, of text or bigint; how
 * many there are.
 */
int
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

/*
 * What the acquire functions have in common: the positions of their arguments
 * ttl, scope, holder, and request_id with those that follow it (correlation_id,
 * lock_delay, min_hold, metadata).
 */
void
ReadRequest(FunctionCallInfo fcinfo, int ttl, int scope, int holder, int request_id,
			LeaseRequest *request)
{
	request->scope = ScopeArg(fcinfo, scope);
	request->ttl = !PG_ARGISNULL(ttl) ? TtlArg(fcinfo, ttl, 0) :
		request->scope == SCOPE_DETACHED ? DefaultTtlUsec() : NO_TTL;
	ReadLabels(fcinfo, holder, request_id, request);
	request->lock_delay = DelayArg(fcinfo, request_id + 2, "lock_delay");
	request->min_hold = DelayArg(fcinfo, request_id + 3, "min_hold");
	request->metadata = MetadataArg(fcinfo, request_id + 4);
	RequireDetached(request);
}
