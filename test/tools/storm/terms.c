/*-------------------------------------------------------------------------
 *
 * terms.c
 *	  What clients ask for, and what they do with what they get.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "told.h"

Held		spent;
int64_t		first_token;

const char *
mode_of(const Plan *plan)
{
	return plan->capacity != WHOLE ? "permit" : plan->need == WHOLE ? "exclusive" : "shared";
}

Plan
new_plan(const char *scope, int64_t ttl)
{
	Plan		plan = {.capacity = WHOLE, .need = WHOLE, .scope = scope, .ttl = ttl, .wait = NEVER};

	sprintf(plan.holder, "c%d.%u", my_number, ++me->op);
	strcpy(plan.correlation, marked);
	if (chance(30))
		sprintf(plan.correlation, "a%d.%u", my_number, me->op);
	return plan;
}

/* For a name of ours, which is free. */
Plan
own_plan(const char *what, const char *scope, int64_t ttl)
{
	Plan		plan = new_plan(scope, ttl);

	plan.private = true;
	sprintf(plan.name, "%s/%d", what, my_number);
	return plan;
}

/* For a name that all want. */
Plan
common_plan(void)
{
	bool		semaphore = chance(25);
	int			name = pick_name(semaphore, -1);
	Plan		plan = new_plan(chance(60) ? "detached" : "session", 0);

	strcpy(plan.name, name_of(name));
	plan.capacity = capacity_of(name);
	plan.need = semaphore ? 1 + below(plan.capacity) : chance(65) ? WHOLE : 1;
	if (strcmp(plan.scope, "detached") == 0 || chance(20))
		plan.ttl = chance(40) ? 1000 + below(20000) : chance(50) ? BRIEF : 5 * SECOND;
	if (chance(25))
		plan.wait = DO_NOT_WAIT;
	else if (options.least == 0 && chance(35))
		plan.wait = below(15000);
	plan.campaign = !semaphore && plan.wait != DO_NOT_WAIT && chance(15);
	return plan;
}

void
write_plan(const Plan *plan, char *sql)
{
	if (plan->campaign)
		sql += sprintf(sql, "CALL lease.campaign('%s'", plan->name);
	else
		sql += sprintf(sql, "SELECT lease.%sacquire%s('%s'", plan->wait == DO_NOT_WAIT ? "try_" : "",
					   plan->capacity != WHOLE ? "_permit" : "", plan->name);
	if (plan->capacity != WHOLE)
		sql += sprintf(sql, ", capacity => %d, permits => %d", plan->capacity, plan->need);
	else
		sql += sprintf(sql, ", mode => '%s'", mode_of(plan));
	if (plan->wait != DO_NOT_WAIT)
		sql += sprintf(sql, ", wait => %s", plan->wait == 0 ? "'0'" : interval_of(plan->wait));
	if (strcmp(plan->correlation, marked) != 0)
		sql += sprintf(sql, ", correlation_id => '%s'", plan->correlation);
	if (plan->request_id[0] != '\0')
		sql += sprintf(sql, ", request_id => '%s'", plan->request_id);
	if (plan->delay)
		sql += sprintf(sql, ", lock_delay => %s", interval_of(plan->ttl));
	sprintf(sql, ", ttl => %s, scope => '%s', holder => '%s')", interval_of(plan->ttl), plan->scope,
			plan->holder);
}

/* It is to end like that. */
void
tell_leave(Held *held, const char *how)
{
	tell_end("leaves", held->plan.name, held->token, how);
	held->holds = 0;
}

/* A lease is over, as we were told by who found its token to be worth nothing. */
void
tell_loss(const char *event, Held *held, const char *detail)
{
	tell_act(event, held->plan.name, held->token, detail);
	held->holds = 0;
}

void
tell_attempt(const Plan *plan, const char *event, const char *name, int pid)
{
	bool		waited = strcmp(event, "refused") != 0;

	tell((Line) {.event = event, .name = name, .mode = mode_of(plan), .scope = plan->scope,
		.holder = plan->holder, .correlation = plan->correlation, .pid = pid,
		.waited = waited ? "t" : "f"});
}

void
tell_grant(const Held *held, int pid, const char *waited)
{
	const Plan *plan = &held->plan;

	tell((Line) {.event = "acquired", .name = plan->name, .token = held->token,
		.mode = mode_of(plan), .scope = plan->scope, .holder = plan->holder,
		.correlation = plan->correlation, .pid = pid, .ttl = held->ttl, .waited = waited});
	if (first_token == 0)
		first_token = held->token;
}

static void
tell_renewal(Held *held, int64_t ttl)
{
	held->ttl = ttl;
	tell((Line) {.event = "renewed", .name = held->plan.name, .token = held->token, .ttl = ttl});
}

void
tell_failure(const Plan *plan, const char *name)
{
	if (strcmp(sqlstate, "55P03") == 0)
		tell_attempt(plan, "timeout", name, me->backend);
	else if (strcmp(sqlstate, "40P01") == 0)
		tell_attempt(plan, "deadlock", name, me->backend);
}

/* Ask for a lease.  If we may hold it already, it may be the same once more. */
bool
take(const Plan *plan, Held *held)
{
	char		sql[2000];
	int64_t		token;

	write_plan(plan, sql);
	if (!call("55P03 40P01", "%s", sql))
	{
		tell_failure(plan, plan->name);
		return false;
	}
	token = answer_number(0, 0);
	if (token == 0)
		tell_attempt(plan, "refused", plan->name, me->backend);
	if (token == 0)
		return false;
	if (token == held->token)
	{
		held->holds += plan->request_id[0] == '\0';
		if (plan->request_id[0] != '\0' || held->ttl != 0)
			tell_renewal(held, plan->ttl);
		return true;
	}
	*held = (Held) {.plan = *plan, .token = token, .ttl = plan->ttl, .holds = 1};
	tell_grant(held, me->backend, plan->private || plan->wait == DO_NOT_WAIT ? "f" : NULL);
	return true;
}

/* One more hold of what our session holds, or a retry of the call that we got it by. */
void
take_again(Held *held)
{
	Plan		plan = held->plan;

	if (plan.request_id[0] == '\0')
	{
		/* A TTL of another hold must not end before, so that it counts as a renewal. */
		plan.ttl = held->ttl == 0 ? 0 : 5 * SECOND < held->ttl ? held->ttl : 5 * SECOND;
		plan.wait = plan.wait == NEVER && options.least == 0 ? BRIEF : plan.wait;
		sprintf(plan.holder, "c%d.%u", my_number, ++me->op);
		plan.campaign = false;
	}
	take(&plan, held);
}

void
prolong(Held *held)
{
	int64_t		ttl = chance(30) ? held->ttl : held->ttl > SECOND ? held->ttl : 1000 + below(50000);
	int			way = below(3);
	const char *name = held->plan.name;

	if (way == 0)
		call("LE001", "SELECT lease.renew('%s', %" PRId64 ", %s)", name, held->token, interval_of(ttl));
	else if (way == 1)
		call("", "SELECT lease.try_renew('%s', %" PRId64 ", %s)", name, held->token, interval_of(ttl));
	else
		call("", "SELECT (lease.renew_all('{%s}', '{%" PRId64 "}', %s)).renewed", name, held->token,
			 interval_of(ttl));
	if (sqlstate[0] == '\0' && (way == 0 || answer_is_true()))
		tell_renewal(held, ttl);
	else
		tell_loss("rejected", held, "renew");
}

void
hand_over(Held *held)
{
	char		detail[100];
	Held		next = *held;

	sprintf(next.plan.holder, "c%d.%u", my_number, ++me->op);
	next.plan.request_id[0] = '\0';
	if (!call("LE001", "SELECT lease.transfer('%s', %" PRId64 ", '%s')", held->plan.name, held->token,
			  next.plan.holder))
	{
		tell_loss("rejected", held, "transfer");
		return;
	}
	next.token = answer_number(0, 0);
	sprintf(detail, "to \"%s\" with token %" PRId64, next.plan.holder, next.token);
	tell_end("transferred", held->plan.name, held->token, detail);
	sprintf(detail, "from token %" PRId64, held->token);
	tell((Line) {.event = "received", .name = next.plan.name, .token = next.token,
		.mode = mode_of(&next.plan), .scope = next.plan.scope, .holder = next.plan.holder,
		.correlation = next.plan.correlation, .pid = me->backend, .ttl = next.ttl, .detail = detail});

	/* Said again, it is no other transfer. */
	if (chance(30) && !call("LE001", "SELECT lease.transfer('%s', %" PRId64 ", '%s')", held->plan.name,
							held->token, next.plan.holder))
		tell_loss("rejected", held, "transfer");
	*held = next;
}

void
let_go(Held *held)
{
	while (held->holds > 0)
	{
		bool		all = chance(30);

		call("", all ? "SELECT (lease.release_all('{%s}', '{%" PRId64 "}')).released" :
			 "SELECT lease.release('%s', %" PRId64 ")", held->plan.name, held->token);
		if (sqlstate[0] != '\0' || !answer_is_true())
			tell_loss("rejected", held, "release");
		else if (--held->holds == 0)
			tell_end("released", held->plan.name, held->token, NULL);
	}
	if (held->token != 0)
		spent = *held;
}

/* Wait until it is over. */
void
await_loss(const Held *held)
{
	while (call("", "SELECT lease.is_held('%s', %" PRId64 ")", held->plan.name, held->token) && answer_is_true())
		pause_ms(1);
}

/* Have a transaction that commits only with the lease, and release it at the end, perhaps. */
void
have_guarded(Held *held)
{
	bool		releases = held->holds == 1 && (held->ttl == 0 || held->ttl == HOUR) && chance(40);
	const char *how = chance(70) ? "COMMIT" : "ROLLBACK";

	call("", "BEGIN");
	if (!call("LE001", "SELECT lease.guard('%s', %" PRId64 ")", held->plan.name, held->token))
	{
		tell_loss("guard_failed", held, "guard");
		call("", "ROLLBACK");
		return;
	}
	if (held->ttl > 0 && held->ttl < BRIEF && chance(50))
		await_loss(held);
	if (releases)
	{
		call("", "SELECT lease.release('%s', %" PRId64 ")", held->plan.name, held->token);
		releases = answer_is_true();
		if (!releases)
			tell_loss("rejected", held, "release");
	}
	if (!call("LE001", how))
		tell_loss("guard_failed", held, "commit");

	/* A session's lease has become the transaction's. */
	if (releases)
		tell((Line) {.event = "leaves", .name = held->plan.name, .token = held->token, .correlation = marked,
			.scope = *held->plan.scope == 's' ? "transaction" : NULL, .detail = "released"});
	if (releases)
		held->holds = 0;
}
