/*-------------------------------------------------------------------------
 *
 * args.h
 *	  Arguments of SQL functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_ARGS_H
#define LEASE_ARGS_H

#include "fmgr.h"

#include "judge.h"

extern void RequireWritable(const char *function);
extern void RequireNotNull(FunctionCallInfo fcinfo, int argno, const char *what);
extern void CheckBounds(const Span *name, const char *what);
extern Span CheckName(Datum datum);
extern Span BoundedArg(FunctionCallInfo fcinfo, int argno, const char *what);
extern Span NameArg(FunctionCallInfo fcinfo, int argno);
extern Token CheckToken(Token token);
extern Token TokenArg(FunctionCallInfo fcinfo, int argno);
extern Span LabelArg(FunctionCallInfo fcinfo, int argno, const char *what);
extern int64 TtlArg(FunctionCallInfo fcinfo, int argno, int64 otherwise);
extern int64 WaitArg(FunctionCallInfo fcinfo, int argno);
extern int32 ModeArg(FunctionCallInfo fcinfo, int argno);
extern int32 CountArg(FunctionCallInfo fcinfo, int argno, const char *what, int32 most);
extern int	ArrayArg(FunctionCallInfo fcinfo, int argno, const char *what, Oid type, Datum **elements);
extern void ReadRequest(FunctionCallInfo fcinfo, int ttl, int scope, int holder, int request_id,
						LeaseRequest *request);
extern int64 CheckDuration(const Interval *interval, const char *what, int64 least, int64 most,
						   const char *setting);
extern char *IntervalText(const Interval *interval);

#endif							/* LEASE_ARGS_H */
