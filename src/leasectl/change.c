/*
 * change.c - acquire, renew, release, transfer, force-release
 *
 * Each asks for two columns: what it prints for people, and the same as JSON, which the
 * server writes.
 */
#include <stdlib.h>

#include "print.h"

/* Ask, and print the answer; NULL prints nothing for people.  Returns the answer. */
static PGresult *
ask_and_print(const Options *options, const Question *question, int64_t patience, bool for_people)
{
	PGresult   *answer = AskOnce(options, question, patience, NULL);

	if (options->json)
		PrintLine(PQgetvalue(answer, 0, 1));
	else if (for_people)
		PrintLine(PQgetvalue(answer, 0, 0));
	return answer;
}

/* Begin a statement: the columns of a call whose result is called r. */
static void
begin(Question *question, const Options *options, const char *json)
{
	AddSql(question, "SELECT r, pg_catalog.json_build_object('name', ");
	AddParameter(question, TEXT_OID, options->operands[0]);
	AddSql(question, ", %s)", json);
}

static void
add_text(Question *question, const char *argument, Oid type, const char *value)
{
	if (value == NULL)
		return;
	AddSql(question, ", %s => ", argument);
	AddParameter(question, type, value);
}

static void
add_number(Question *question, const char *argument, Oid type, int64_t number)
{
	if (number < 0)
		return;
	AddSql(question, ", %s => ", argument);
	AddNumber(question, type, number);
}

static void
add_interval(Question *question, const char *argument, int64_t duration)
{
	if (duration < 0)
		return;
	AddSql(question, ", %s => ", argument);
	AddInterval(question, duration);
}

/* How long acquire waits for an answer: for its turn, and then for the server. */
static int64_t
acquire_patience(const Options *options)
{
	if (options->try_only)
		return Patience(options);
	return options->wait < 0 ? FOREVER : options->wait + Patience(options);
}

int
AcquireLease(const Options *options)
{
	Question   *question = Allocate(sizeof(Question));
	bool		semaphore = options->permits >= 0 || options->capacity >= 0;
	PGresult   *answer;

	begin(question, options, "'token', r");
	AddSql(question, " FROM lease.%sacquire%s(name => $1", options->try_only ? "try_" : "",
		   semaphore ? "_permit" : "");
	add_number(question, "capacity", INT4_OID, options->capacity);
	add_number(question, "permits", INT4_OID, options->permits);
	add_interval(question, "ttl", options->ttl);
	add_interval(question, "wait", options->wait);
	add_text(question, "mode", TEXT_OID, options->shared ? "shared" : NULL);
	add_text(question, "holder", TEXT_OID, options->holder != NULL ? options->holder : DefaultHolder());
	add_text(question, "request_id", TEXT_OID, options->request_id);
	add_text(question, "correlation_id", TEXT_OID, options->correlation_id);
	add_interval(question, "lock_delay", options->lock_delay);
	add_interval(question, "min_hold", options->min_hold);
	add_text(question, "metadata", JSONB_OID, options->metadata);
	AddSql(question, ") r WHERE r IS NOT NULL");

	answer = AskOnce(options, question, acquire_patience(options), NULL);
	if (PQntuples(answer) == 0 && options->quiet)
		exit(STATUS_TAKEN);
	if (PQntuples(answer) == 0)
		Fail(STATUS_TAKEN, "lease \"%s\" is taken", options->operands[0]);
	PrintLine(PQgetvalue(answer, 0, options->json));
	PQclear(answer);
	return 0;
}

/* A call for one grant: its name and token, and what else is to come. */
static void
call_for_grant(Question *question, const Options *options, const char *function, const char *json)
{
	int64_t		token = ParseToken(options->operands[1]);

	begin(question, options, json);
	AddSql(question, " FROM lease.%s(name => $1", function);
	add_number(question, "token", INT8_OID, token);
}

int
RenewLease(const Options *options)
{
	Question   *question = Allocate(sizeof(Question));

	call_for_grant(question, options, "renew", "'ttl', pg_catalog.trim_scale(extract(epoch FROM r))");
	add_interval(question, "ttl", options->ttl);
	AddSql(question, ") r");
	PQclear(ask_and_print(options, question, Patience(options), false));
	return 0;
}

int
ReleaseLease(const Options *options)
{
	Question   *question = Allocate(sizeof(Question));
	Options		loud = *options;
	PGresult   *answer;
	bool		released;

	call_for_grant(question, options, "release", "'released', r");
	AddSql(question, ") r");

	/* That it was lost before the server tells in a warning, which is an error here. */
	loud.quiet = false;
	answer = ask_and_print(&loud, question, Patience(options), false);
	released = PQgetvalue(answer, 0, 0)[0] == 't';
	PQclear(answer);
	return released ? 0 : STATUS_LOST;
}

int
TransferLease(const Options *options)
{
	Question   *question = Allocate(sizeof(Question));

	call_for_grant(question, options, "transfer", "'token', r");
	add_text(question, "to_holder", TEXT_OID, options->operands[2]);
	AddSql(question, ") r");
	PQclear(ask_and_print(options, question, Patience(options), true));
	return 0;
}

int
ForceRelease(const Options *options)
{
	Question   *question = Allocate(sizeof(Question));

	begin(question, options, "'released', r");
	AddSql(question, " FROM lease.force_release(name => $1");
	add_text(question, "reason", TEXT_OID, options->reason);
	add_number(question, "token", INT8_OID, options->token);
	AddSql(question, ", reopen => %s) r", options->reopen ? "true" : "false");
	PQclear(ask_and_print(options, question, Patience(options), true));
	return 0;
}
