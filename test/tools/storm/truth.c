/*-------------------------------------------------------------------------
 *
 * truth.c
 *	  Clients that write down what they did and were told, each in a file.
 *
 * Nothing interrupts them, so that each knows what became of every call; what
 * the server counted and wrote down must then be the same.  But for one thing:
 * whose time is up at the very moment of the grant is told of the time-out
 * alone.  With least=N, which has them make so many events more than there is
 * room for, nobody's time is ever up.  With hits=N they are interrupted, N times a
 * second or less, and what they write is of no use.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>
#include <string.h>

#include "told.h"

static void
be_another(void)
{
	longjmp(connection_lost, 1);
}

static void
end_session(Held *held)
{
	call("", "SELECT lease.release_session()");
	if (answer_number(0, 0) > 0)
		tell_end("released", held->plan.name, held->token, NULL);
	held->holds = 0;
}

static void
episode_lease(void)
{
	Plan		plan = common_plan();
	Held		held = {.token = 0};
	bool		detached = strcmp(plan.scope, "detached") == 0;
	bool		session_lease = !detached && plan.capacity == WHOLE;

	if (detached && chance(20))
		sprintf(plan.request_id, "r%d.%u", my_number, me->op);
	if (!take(&plan, &held))
		return;
	if (plan.request_id[0] != '\0' || (session_lease && chance(30)))
		take_again(&held);
	for (int n = below(4); n > 0 && held.holds > 0; n--)
		switch (below(detached ? 4 : 3))
		{
			case 0:
				pause_ms(below(4));
				break;
			case 1:
				prolong(&held);
				break;
			case 2:
				have_guarded(&held);
				break;
			default:
				hand_over(&held);
		}
	if (detached && held.ttl <= BRIEF && chance(30))
		return;
	if (!detached && held.holds > 0 && held.ttl == 0 && chance(15))
	{
		tell_leave(&held, "orphaned");
		be_another();
	}
	if (!detached && held.holds > 0 && chance(15))
		end_session(&held);
	else
		let_go(&held);
}

/* Let go of what one call got, all at once. */
static void
let_go_all(Held *held, int count)
{
	char		names[1000] = "";
	char		tokens[1000] = "";
	char	   *name = names;
	char	   *token = tokens;

	for (int i = 0; i < count; i++)
	{
		name += sprintf(name, "%s%.80s", i > 0 ? "," : "", held[i].plan.name);
		token += sprintf(token, "%s%" PRId64, i > 0 ? "," : "", held[i].token);
	}
	call("", "SELECT * FROM lease.release_all('{%s}', '{%s}')", names, tokens);
	for (int i = 0; i < PQntuples(answer); i++)
		if (*PQgetvalue(answer, i, 2) == 't')
			tell_end("released", held[i].plan.name, held[i].token, NULL);
		else
			tell_loss("rejected", &held[i], "release");
}

/* Several at once, of which others may have all but one; if we do not wait, only one. */
static void
episode_several(void)
{
	Plan		plan = new_plan(chance(50) ? "detached" : "session", 5 * SECOND);
	bool		try = chance(40);
	int			one = pick_name(false, -1);
	int			other = pick_name(false, one);
	bool		both = !try && impatience == 0 && other >= 0;
	Held		held[MAX_TOGETHER];
	int			count;

	plan.wait = try ? DO_NOT_WAIT : 1 + below(20000);
	if (!call("55P03", "SELECT name, token FROM lease.%sacquire_all('{own/%d,%s%s%s}', ttl => '5 s'%s%s,"
			  " scope => '%s', holder => '%s', correlation_id => '%s')", try ? "try_" : "",
			  my_number, name_of(one), both ? "," : "", both ? name_of(other) : "",
			  try ? "" : ", wait => ", try ? "" : interval_of(plan.wait), plan.scope, plan.holder,
			  plan.correlation))
	{
		bool		is_other = both && strstr(PQresultErrorMessage(answer), name_of(other));

		tell_failure(&plan, name_of(is_other ? other : one));
		return;
	}
	count = PQntuples(answer);
	if (count == 0)
		tell_attempt(&plan, "refused", name_of(one), me->backend);
	for (int i = 0; i < count; i++)
	{
		held[i] = (Held) {.plan = plan, .ttl = plan.ttl, .token = answer_number(i, 1)};
		snprintf(held[i].plan.name, NAME_ROOM, "%s", PQgetvalue(answer, i, 0));
		tell_grant(&held[i], me->backend, try || *held[i].plan.name == 'o' ? "f" : NULL);
	}
	if (count > 0)
		let_go_all(held, count);
}

/* Two of which others may have one, and want the other. */
static void
episode_deadlock(void)
{
	Held		held[2] = {{.token = 0}, {.token = 0}};
	int			first = below(4);

	for (int i = 0; i < 2; i++)
	{
		Plan		plan = new_plan("session", 0);

		sprintf(plan.name, "pair/%d", (first + i * (1 + below(3))) % 4);
		if (!take(&plan, &held[i]))
			break;
		pause_ms(below(10));
	}
	let_go(&held[1]);
	let_go(&held[0]);
}

/* A lease in a savepoint, which is rolled back or not. */
static void
nest(Held *held)
{
	Plan		plan = own_plan("nested", "transaction", 0);

	call("", "SAVEPOINT nest");
	if (!take(&plan, held))
		return;
	if (chance(50))
	{
		call("", "ROLLBACK TO nest");
		tell_leave(held, "released");
	}
}

static void
end_transaction(Held *held, Held *nested, bool doomed)
{
	const char *how = chance(70) ? "COMMIT" : "ROLLBACK";

	if (!call("LE001", how))
	{
		const char *token = strstr(PQresultErrorMessage(answer), "\" is not held with token ");

		tell_act("guard_failed", held->plan.name,
				 token ? atoll(token + strlen("\" is not held with token ")) : 0, "commit");
	}
	else if (doomed && *how == 'C' && options.hits == 0)
		wrong("wrong commit of client %d", my_number);
	if (held->holds > 0 && !doomed)
		tell_leave(held, "released");
	if (nested->holds > 0)
		tell_leave(nested, "released");
}

/* A lease that ends with the transaction, or before it. */
static void
episode_transaction(void)
{
	bool		doomed = chance(20);
	Plan		plan;
	Held		held = {.token = 0};
	Held		nested = {.token = 0};
	char		former[LABEL_ROOM];

	strcpy(former, marked);
	call("", "BEGIN");
	if (chance(30))
	{
		sprintf(marked, "l%d.%u", my_number, me->op);
		call("", "SET LOCAL lease.correlation_id = '%s'", marked);
	}
	plan = common_plan();
	plan.scope = "transaction";
	plan.ttl = doomed ? 1000 + below(5000) : chance(30) ? LONG_TTL : 0;
	plan.campaign = false;
	if (take(&plan, &held))
	{
		if (doomed)
			await_loss(&held);
		else if (plan.capacity == WHOLE && chance(30))
			take_again(&held);
		if (!doomed && PQtransactionStatus(conn) == PQTRANS_INTRANS && chance(50))
			nest(&nested);
		end_transaction(&held, &nested, doomed);
	}
	else
		call("", "ROLLBACK");
	strcpy(marked, former);
}

/* A name of our own: leases that do not run out, guarded, passed on, and released. */
static void
episode_own(void)
{
	Plan		plan = own_plan("own", chance(50) ? "detached" : "session", LONG_TTL);
	Held		held = {.token = 0};

	plan.wait = chance(50) ? NEVER : DO_NOT_WAIT;
	if (!take(&plan, &held))
		return;
	if (chance(50))
		prolong(&held);
	if (held.holds > 0)
		have_guarded(&held);
	if (held.holds > 0 && *plan.scope == 'd' && chance(50))
		hand_over(&held);
	let_go(&held);
}

/* One that nobody ends, and that is in the way of all that come after it. */
static void
episode_left(void)
{
	Plan		plan = own_plan("left", "detached", LONG_TTL);
	Held		held = {.token = 0};

	plan.wait = DO_NOT_WAIT;
	take(&plan, &held);
}

static void
tell_forced(const char *name, int64_t count)
{
	char		detail[200];

	snprintf(detail, sizeof(detail), "by \"%s\": storm", PQuser(conn));
	if (count != nnoticed && options.hits == 0)
		wrong("wrong number of notices: %d of %" PRId64, nnoticed, count);
	for (int i = 0; i < nnoticed; i++)
		tell_end("forced", name, noticed[i], detail);
}

/* End what others hold; or what we do, which keeps the name closed until it is reopened. */
static void
episode_force(void)
{
	const char *name = name_of(pick_name(chance(30), -1));
	Plan		plan = own_plan("forced", "detached", LONG_TTL);
	Held		held = {.token = 0};
	char		detail[200];

	call("", "SELECT lease.force_release('%s', 'storm')", name);
	tell_forced(name, answer_number(0, 0));
	plan.delay = true;
	plan.wait = DO_NOT_WAIT;
	if (!take(&plan, &held))
		return;
	call("", "SELECT lease.force_release('%s', 'storm', %" PRId64 ")", plan.name, held.token);
	tell_forced(plan.name, answer_number(0, 0));
	spent = held;
	take(&plan, &held);
	call("", "SELECT lease.force_release('%s', 'storm', reopen => true)", plan.name);
	snprintf(detail, sizeof(detail), "by \"%s\": storm", PQuser(conn));
	tell_act("reopened", plan.name, 0, detail);
}

static void
episode_resize(void)
{
	Plan		plan = own_plan("sized", "detached", LONG_TTL);
	Held		held = {.token = 0};
	int			size = 2 + below(3);
	char		detail[100];

	plan.capacity = 2;
	plan.need = 1;
	if (!take(&plan, &held))
		return;
	call("", "SELECT lease.set_capacity('%s', %d)", plan.name, size);
	sprintf(detail, "from 2 to %d", size);
	tell_act("resized", plan.name, 0, detail);
	let_go(&held);
}

/* Show tokens of leases that are over. */
static void
episode_stale(void)
{
	Held		stale = spent;
	char		resource[LABEL_ROOM];

	if (stale.token == 0)
		return;
	prolong(&stale);
	hand_over(&stale);
	stale.holds = 1;
	let_go(&stale);
	have_guarded(&stale);
	call("", "SELECT lease.is_held('%s', %" PRId64 ")", stale.plan.name, stale.token);
	if (stale.token == first_token)
		return;

	sprintf(resource, "fence/%d", my_number);
	if (call("LE002", "SELECT lease.fence('%s', %" PRId64 ")", resource, stale.token) &&
		!call("LE002", "SELECT lease.fence('%s', %" PRId64 ")", resource, first_token))
		tell_act("rejected", resource, first_token, "fence");
	else if (sqlstate[0] != '\0')
		tell_act("rejected", resource, stale.token, "fence");
	if (call("LE002", "UPDATE fenced SET fencing_token = %" PRId64 " WHERE id = %d", stale.token, my_number) &&
		!call("LE002", "UPDATE fenced SET fencing_token = %" PRId64 " WHERE id = %d", first_token, my_number))
		tell_act("rejected", NULL, first_token, "row of table fenced");
	else if (sqlstate[0] != '\0')
		tell_act("rejected", NULL, stale.token, "row of table fenced");

	sprintf(resource, "protected/%d", my_number);
	call("LE003", "INSERT INTO protected VALUES (%d)", my_number);
	tell_act("guard_failed", resource, 0, "write to table protected without a guard");
}

/* A grant that comes too late for its transaction: nobody learns its token. */
static void
episode_blind(void)
{
	Plan		plan = own_plan("blind", "transaction", 0);
	Held		held = {.plan = plan};
	char		sql[2000];

	call("", "BEGIN ISOLATION LEVEL REPEATABLE READ");
	call("", "SELECT 1");
	write_plan(&plan, sql);
	call("40001", "%s", sql);
	tell_grant(&held, me->backend, "f");
	tell((Line) {.event = "abandoned", .name = plan.name, .mode = mode_of(&plan), .scope = plan.scope,
		.holder = plan.holder, .correlation = plan.correlation, .pid = me->backend});
	call("", "ROLLBACK");
}

/* Wait until the other session waits, or does not any more; false if it is through. */
static bool
await_waiter(bool gone, int pid)
{
	bool		there;

	do
	{
		call("", "SELECT count(*) FROM lease.waiters WHERE pid = %d", pid);
		there = answer_number(0, 0) > 0;
		if (!gone && !there && PQconsumeInput(helper) && !PQisBusy(helper))
			break;
	} while (there == gone);
	return there;
}

/* What became of the other session's call, which began then. */
static void
hear_helper(const Plan *plan, int64_t began, const char *waited)
{
	int			pid = PQbackendPID(helper);
	Held		held = {.plan = *plan, .ttl = plan->ttl};

	keep_answer(helper, PQgetResult(helper), "57014", "of the helper");
	sent_at = began;
	if (sqlstate[0] != '\0')
	{
		tell_attempt(plan, "cancelled", plan->name, pid);
		return;
	}
	held.token = answer_number(0, 0);
	tell_grant(&held, pid, waited);
	tell((Line) {.event = "leaves", .name = plan->name, .token = held.token, .detail =
		*plan->scope == 'd' ? "expired" : "orphaned"});
}

/* Two sessions of ours, one of which is sure to wait for the other. */
static void
episode_handover(void)
{
	bool		expires = chance(30);
	Plan		plan = new_plan(chance(50) ? "detached" : "session", expires ? 20000 : HOUR);
	Plan		next = new_plan(chance(50) ? "detached" : "session", 1000);
	Held		held = {.token = 0};
	char		sql[2000];
	int64_t		began;
	int			pid;
	bool		waits;

	sprintf(plan.name, "handover/%d", my_number);
	strcpy(next.name, plan.name);
	if (*next.scope == 's')
		next.ttl = 0;
	if (strcmp(next.correlation, marked) == 0)
		next.correlation[0] = '\0';
	if (!take(&plan, &held))
		return;
	write_plan(&next, sql);
	helper = open_connection();
	pid = PQbackendPID(helper);
	began = now_us();
	PQsendQuery(helper, sql);
	waits = await_waiter(false, pid);
	if (!expires && chance(30))
	{
		PQfinish(helper);
		helper = NULL;
		await_waiter(true, pid);
		sent_at = began;
		tell_attempt(&next, "cancelled", next.name, pid);
	}
	else if (!expires && chance(50))
	{
		call("", "SELECT pg_cancel_backend(%d)", pid);
		hear_helper(&next, began, NULL);
	}
	else
	{
		if (!expires)
			let_go(&held);
		hear_helper(&next, began, waits ? "t" : NULL);
	}
	if (!expires)
		let_go(&held);
	PQfinish(helper);
	helper = NULL;
}

/* Another correlation id, or another patience, for what follows. */
static void
change_settings(void)
{
	marked[0] = '\0';
	if (chance(60))
		sprintf(marked, "s%d.%u", my_number, me->op);
	call("", "SET lease.correlation_id = '%s'", marked);
	impatience = options.least == 0 && chance(30) ? 1 + below(20) : 0;
	call("", "SET lock_timeout = %d", impatience);
}

static void
truth_episode(void)
{
	int			kind = below(100);

	if (options.hits > 0)
		call("", "ROLLBACK; SELECT lease.release_session()");
	if (chance(10))
		change_settings();
	if (kind < 50)
		episode_lease();
	else if (kind < 58)
		episode_several();
	else if (kind < 63 && options.least == 0)
		episode_deadlock();
	else if (kind < 75)
		episode_transaction();
	else if (kind < 81)
		episode_own();
	else if (kind < 83)
		episode_left();
	else if (kind < 87)
		episode_force();
	else if (kind < 90)
		episode_resize();
	else if (kind < 95)
		episode_stale();
	else if (kind < 97)
		episode_blind();
	else if (options.hits == 0)
		episode_handover();
}

static void
prepare_database(void)
{
	PQclear(query("CREATE TABLE fenced (id int PRIMARY KEY, fencing_token bigint NOT NULL DEFAULT 0);"
				  "INSERT INTO fenced SELECT generate_series(0, %d);"
				  "SELECT lease.enable_fencing('fenced');"
				  "CREATE TABLE protected (id int);"
				  "SELECT lease.protect_table('protected', 'protected/{id}')", options.clients));
}

/* So many seconds, and until so many events were lost. */
void
run_truth(void)
{
	int64_t		end;

	options.begin = open_session;
	options.episode = truth_episode;
	start_clients();
	prepare_database();
	storm->phase = RUN;
	end = now_us() + options.seconds * SECOND;
	while (now_us() < end || (query_number("SELECT history_lost FROM lease.status") < options.least &&
							  !too_late(end)))
	{
		if (options.hits > 0)
			replace_dead();
		if (options.hits > 0 && below(1000) < options.hits)
			interrupt(20, 10);
		pause_ms(1);
	}
	end_clients();
	for (int i = 0; i < storm->nwrong && i < MAX_WRONG; i++)
		puts(storm->wrong[i]);
}
