/*-------------------------------------------------------------------------
 *
 * api_acquire.c
 *	  SQL functions that take leases and permits: arguments in, errors out,
 *	  nothing else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"

#include "acquire.h"
#include "args.h"

PG_FUNCTION_INFO_V1(lease_acquire);
PG_FUNCTION_INFO_V1(lease_try_acquire);
PG_FUNCTION_INFO_V1(lease_acquire_permit);
PG_FUNCTION_INFO_V1(lease_try_acquire_permit);
PG_FUNCTION_INFO_V1(lease_acquire_all);
PG_FUNCTION_INFO_V1(lease_try_acquire_all);
PG_FUNCTION_INFO_V1(lease_campaign);

/* ttl, mode, scope and those that follow it in most functions. */
static void
ReadLeaseRequest(FunctionCallInfo fcinfo, int ttl, int mode, LeaseRequest *request)
{
	request->permits = ModeArg(fcinfo, mode);
	request->capacity = WHOLE_LEASE;
	ReadRequest(fcinfo, ttl, mode + 1, mode + 2, mode + 3, request);
}

/* The token of one name, or NULL if it is taken. */
static Datum
AcquireOne(FunctionCallInfo fcinfo, const Span *name, const LeaseRequest *request)
{
	Token		token;

	if (!AcquireLeases(request, name, 1, &token))
		PG_RETURN_NULL();
	PG_RETURN_INT64(token);
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

	RequireWritable("lease.acquire()");
	name = NameArg(fcinfo, 0);
	request.wait = WaitArg(fcinfo, 2);
	ReadLeaseRequest(fcinfo, 1, 3, &request);
	return AcquireOne(fcinfo, &name, &request);
}

/* try_acquire: the same without wait; NULL if the name is taken. */
Datum
lease_try_acquire(PG_FUNCTION_ARGS)
{
	LeaseRequest request;
	Span		name;

	RequireWritable("lease.try_acquire()");
	name = NameArg(fcinfo, 0);
	request.wait = DO_NOT_WAIT;
	ReadLeaseRequest(fcinfo, 1, 2, &request);
	return AcquireOne(fcinfo, &name, &request);
}

/* capacity and permits of a semaphore. */
static void
ReadPermits(FunctionCallInfo fcinfo, int capacity, int permits, LeaseRequest *request)
{
	request->capacity = PG_ARGISNULL(capacity) ? 0 :
		CountArg(fcinfo, capacity, "capacity", LEASE_CAPACITY_MAX);
	request->permits = CountArg(fcinfo, permits, "permits",
								request->capacity != 0 ? request->capacity : LEASE_CAPACITY_MAX);
}

/*
 * acquire_permit(name, capacity, permits, ttl, wait, scope, holder, request_id,
 * correlation_id, lock_delay, min_hold, metadata): the token, sooner or later.
 */
Datum
lease_acquire_permit(PG_FUNCTION_ARGS)
{
	LeaseRequest request;
	Span		name;

	RequireWritable("lease.acquire_permit()");
	name = NameArg(fcinfo, 0);
	ReadPermits(fcinfo, 1, 2, &request);
	request.wait = WaitArg(fcinfo, 4);
	ReadRequest(fcinfo, 3, 5, 6, 7, &request);
	return AcquireOne(fcinfo, &name, &request);
}

/* try_acquire_permit: the same without wait; NULL if there are too few. */
Datum
lease_try_acquire_permit(PG_FUNCTION_ARGS)
{
	LeaseRequest request;
	Span		name;

	RequireWritable("lease.try_acquire_permit()");
	name = NameArg(fcinfo, 0);
	ReadPermits(fcinfo, 1, 2, &request);
	request.wait = DO_NOT_WAIT;
	ReadRequest(fcinfo, 3, 4, 5, 6, &request);
	return AcquireOne(fcinfo, &name, &request);
}

static int
CompareNames(const void *a, const void *b)
{
	return CompareSpans(a, b);
}

/* Names in the order in which everybody takes them, none of them twice. */
static int
SortedNamesArg(FunctionCallInfo fcinfo, int argno, Span **names)
{
	Datum	   *elements;
	int			count = ArrayArg(fcinfo, argno, "names", TEXTOID, &elements);

	*names = palloc(sizeof(Span) * count);
	for (int i = 0; i < count; i++)
		(*names)[i] = CheckName(elements[i]);
	qsort(*names, count, sizeof(Span), CompareNames);
	for (int i = 1; i < count; i++)
		if (SpansEqual(&(*names)[i - 1], &(*names)[i]))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("lease name \"%.*s\" appears more than once",
							(int) (*names)[i].length, (*names)[i].data)));
	return count;
}

/* A row for each name with its token; none if one is taken. */
static void
AcquireAll(FunctionCallInfo fcinfo, const LeaseRequest *request)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Span	   *names;
	int			count = SortedNamesArg(fcinfo, 0, &names);
	Token	   *tokens = palloc(sizeof(Token) * count);

	InitMaterializedSRF(fcinfo, 0);
	if (!AcquireLeases(request, names, count, tokens))
		return;
	for (int i = 0; i < count; i++)
	{
		Datum		values[2] = {
			PointerGetDatum(cstring_to_text_with_len(names[i].data, names[i].length)),
			Int64GetDatum(tokens[i])
		};
		bool		nulls[2] = {false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

/*
 * acquire_all(names, ttl, wait, mode, scope, holder, request_id, correlation_id,
 * lock_delay, min_hold, metadata): all of them, sooner or later.
 */
Datum
lease_acquire_all(PG_FUNCTION_ARGS)
{
	LeaseRequest request;

	RequireWritable("lease.acquire_all()");
	request.wait = WaitArg(fcinfo, 2);
	ReadLeaseRequest(fcinfo, 1, 3, &request);
	AcquireAll(fcinfo, &request);
	return (Datum) 0;
}

/* try_acquire_all: the same without wait; no row if one is taken. */
Datum
lease_try_acquire_all(PG_FUNCTION_ARGS)
{
	LeaseRequest request;

	RequireWritable("lease.try_acquire_all()");
	request.wait = DO_NOT_WAIT;
	ReadLeaseRequest(fcinfo, 1, 2, &request);
	AcquireAll(fcinfo, &request);
	return (Datum) 0;
}

/* End the transaction that a CALL runs in, with its snapshot. */
static void
EndOwnTransaction(FunctionCallInfo fcinfo)
{
	CallContext *call = (CallContext *) fcinfo->context;

	if (call == NULL || !IsA(call, CallContext) || call->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("lease.campaign() cannot be called in a transaction"),
				 errdetail("It commits before it waits, so that it holds no snapshot meanwhile."),
				 errhint("CALL it by itself, or use lease.acquire.")));
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	SPI_commit();
	SPI_finish();
}

/*
 * campaign(name, ttl, wait, holder, mode, scope, request_id, correlation_id,
 * lock_delay, min_hold, metadata, INOUT token): acquire, without a snapshot.
 */
Datum
lease_campaign(PG_FUNCTION_ARGS)
{
	LeaseRequest request;
	Span		name;
	TupleDesc	desc;
	Datum		token;
	bool		isnull = false;

	RequireWritable("lease.campaign()");
	name = NameArg(fcinfo, 0);
	request.wait = WaitArg(fcinfo, 2);
	request.permits = ModeArg(fcinfo, 4);
	request.capacity = WHOLE_LEASE;
	ReadRequest(fcinfo, 1, 5, 3, 6, &request);
	if (request.scope == SCOPE_TRANSACTION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("scope \"transaction\" is not for lease.campaign()"),
				 errdetail("The transaction would be over when the procedure returns.")));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	EndOwnTransaction(fcinfo);
	token = AcquireOne(fcinfo, &name, &request);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, &token, &isnull)));
}
