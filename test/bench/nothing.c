/*-------------------------------------------------------------------------
 *
 * nothing.c
 *	  The limit of any renewal: a function with the arguments of
 *	  lease.try_renew that does nothing.
 *
 * What a call of it takes, the way to the server and back takes.  It treats
 * NULLs as lease.try_renew does, which is not STRICT, so that the two are
 * called alike; it reads none of its arguments.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(bench_nothing);

/* nothing(name, token, ttl): true. */
Datum
bench_nothing(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name and token must not be null")));
	PG_RETURN_BOOL(true);
}
