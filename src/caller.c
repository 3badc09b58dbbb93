/*-------------------------------------------------------------------------
 *
 * caller.c
 *	  How our session calls itself, and marks what it does.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "caller.h"
#include "settings.h"

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
Span
DefaultHolder(void)
{
	static char address_and_pid[LEASE_LABEL_MAX + 1] = "";

	if (HolderSetting != NULL && HolderSetting[0] != '\0')
		return SpanOf(HolderSetting);
	if (application_name != NULL && application_name[0] != '\0')
		return SpanOf(application_name);
	if (address_and_pid[0] == '\0')
		snprintf(address_and_pid, sizeof(address_and_pid), "%s pid %d",
				 ClientAddress(), MyProcPid);
	return SpanOf(address_and_pid);
}

/* What the session marks what it does with, lease.correlation_id; or something else. */
Span
CurrentCorrelation(Span otherwise)
{
	if (CorrelationIdSetting != NULL && CorrelationIdSetting[0] != '\0')
		return SpanOf(CorrelationIdSetting);
	return otherwise;
}

/* For ereport: what a line of the server's log is about is marked with this. */
int
CorrelationContext(Span correlation_id)
{
	if (correlation_id.length == 0)
		return 0;
	return errcontext("lease correlation ID \"%.*s\"",
					  (int) correlation_id.length, correlation_id.data);
}
