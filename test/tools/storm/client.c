/*-------------------------------------------------------------------------
 *
 * client.c
 *	  What fills the life of a client of leases.
 *
 * It asks for something, works, lets go, in one of many ways.  When its session is
 * ended, by others or by itself, it connects anew and goes on.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>

#include "storm.h"

static bool timeouts_set;

/* Pretend to work. */
static void
work(void)
{
	check_point();
	if (chance(50))
		pause_ms(below(6));
	check_point();
}

static void
leave_without_a_word(void)
{
	/* We may have been terminated before, and not know. */
	if (me->doomed_at == 0)
		me->doomed_at = now_us();
	me->counts[ABANDONED]++;
	longjmp(connection_lost, 1);
}

/* One lease, or some permits of a semaphore. */
static void
episode_single(bool semaphore)
{
	Wish		wish = {.count = 1, .scope = chance(50) ? DETACHED : SESSION};
	Hold	   *hold;

	wish.names[0] = pick_name(semaphore, -1);
	wish.need = semaphore ? 1 + below(capacity_of(wish.names[0])) : chance(70) ? WHOLE : 1;
	wish.no_wait = chance(15);
	wish.campaign = !semaphore && !wish.no_wait && chance(15);
	if (acquire(&wish) == 0)
		return;
	me->counts[CAMPAIGNS] += wish.campaign;
	hold = last_hold();
	work();
	if (hold->ttl > 0 && chance(40))
		renew(hold);
	if (hold->scope == SESSION && !semaphore && hold->until == 0 && chance(30))
		acquire_again(hold);
	if (hold->scope == DETACHED && chance(20) && !(hold = transfer(hold)))
		return;
	work();
	if (hold->scope == DETACHED && hold->ttl < SECOND / 5 && chance(20))
		me->counts[ABANDONED]++;
	else if (hold->scope == SESSION && chance(5))
		leave_without_a_word();
	else if (hold->scope == SESSION && chance(10))
		release_session();
	else
		release(hold);
}

/* Several leases at once. */
static void
episode_several(void)
{
	Wish		wish = {.need = chance(70) ? WHOLE : 1};
	int			after = -1;
	int			got;

	for (int want = 2 + below(2); wish.count < want; wish.count++)
	{
		after = wish.names[wish.count] = pick_name(false, after);
		if (after < 0)
			break;
	}
	if (wish.count < 2)
		return;
	wish.scope = chance(50) ? DETACHED : SESSION;
	wish.no_wait = chance(10);
	got = acquire(&wish);
	if (got == 0)
		return;
	me->counts[SEVERAL]++;
	work();
	for (int i = me->nholds - got, end = me->nholds; i < end; i++)
		release(&me->holds[i]);
}

/* A retry of a call that may have been granted gets the same grant. */
static void
episode_retry(void)
{
	Wish		wish = {.count = 1, .need = WHOLE, .scope = DETACHED};
	char		id[40];

	wish.names[0] = pick_name(false, -1);
	me->op++;
	sprintf(id, "r%d.%u", my_number, me->op);
	wish.request_id = id;
	for (int turn = 0; turn < 4; turn++)
	{
		if (acquire(&wish) > 0)
		{
			Hold	   *hold = last_hold();

			hold->in_order = hold->is_new = turn == 0;
			work();
			release(hold);
			return;
		}
		me->counts[RETRIES]++;
	}
	look_for_leftovers(INTERRUPTED);
	me->asking = false;
}

static void
end_transaction(const char *how)
{
	doubt(1);
	settle(false);
	insist(how);
	forget(1);
	level = 0;
}

/* A second lease in a savepoint, which is then dropped or kept. */
static void
nest(Wish *wish)
{
	int			name = pick_name(false, wish->names[0]);
	bool		keep = chance(50);

	if (name < 0)
		return;
	doubt(1);
	if (ask("SAVEPOINT nest") != DONE)
		return;
	settle(true);
	level = 2;
	wish->names[0] = name;
	wish->need = chance(70) ? WHOLE : 1;
	keep &= acquire(wish) > 0;
	if (keep && chance(20))
		acquire_again(last_hold());
	work();
	if (PQtransactionStatus(conn) == PQTRANS_INERROR)
		keep = false;

	/* What is not released to the end can still be dropped. */
	doubt(keep ? 1 : 2);
	if (keep && ask("RELEASE nest") != DONE)
	{
		settle(false);
		level = 1;
		return;
	}
	settle(keep);
	if (!keep)
	{
		insist("ROLLBACK TO nest");
		forget(2);
	}
	for (int i = me->first_open; i < me->nholds; i++)
		if (me->holds[i].level == 2)
			me->holds[i].level = 1;
	level = 1;
	me->counts[SAVEPOINTS]++;
}

static void
episode_transaction(void)
{
	Wish		wish = {.count = 1, .scope = TRANSACTION, .need = chance(70) ? WHOLE : 1};

	wish.names[0] = pick_name(false, -1);
	if (ask("BEGIN") != DONE)
		return;
	level = 1;
	if (acquire(&wish) > 0)
	{
		work();
		if (chance(20))
			acquire_again(last_hold());
		if (PQtransactionStatus(conn) == PQTRANS_INTRANS && chance(60))
			nest(&wish);
		work();
	}
	end_transaction(chance(50) ? "COMMIT" : "ROLLBACK");
}

/* Time-outs for some episodes, in milliseconds. */
static void
set_timeouts(void)
{
	bool		wanted = chance(15);

	if (timeouts_set && !wanted)
		insist("RESET lock_timeout; RESET statement_timeout");
	else if (wanted)
		ask("SET %s = %d", chance(50) ? "lock_timeout" : "statement_timeout", 1 + below(15));
	timeouts_set = wanted;
}

void
client_episode(void)
{
	int			kind = below(100);

	set_timeouts();
	if (kind < 50)
		episode_single(false);
	else if (kind < 65)
		episode_single(true);
	else if (kind < 75)
		episode_several();
	else if (kind < 80)
		episode_retry();
	else
		episode_transaction();
	me->counts[EPISODES]++;

	/* What is over need not be looked at again. */
	for (int i = me->first_open; i < me->nholds; i++)
		if (me->holds[i].until == 0 && me->holds[i].deadline < now_us())
			end_hold(&me->holds[i], NEVER);
	while (me->first_open < me->nholds && me->holds[me->first_open].until != 0 &&
		   me->holds[me->first_open].from < now_us() - 30 * SECOND)
		me->first_open++;
}

/*
 * Detached leases of ours from before: TTLs end some, we the others, and what
 * we were granted as we died.
 */
static void
recover(void)
{
	int			at = me->first_open;
	Hold	   *hold;

	while ((hold = next_open(&at)))
		if (hold->deadline > now_us() + SECOND)
			release(hold);
	if (me->nlost > 0)
		insist("SELECT count(lease.release(name, token)) FROM lease.leases"
			   " WHERE holder = 'c%d.%u' AND scope = 'detached'", my_number,
			   me->lost_ops[(me->nlost - 1) % MAX_LOST_OPS]);
}

void
begin_client(void)
{
	bury_session(me);
	level = 0;
	timeouts_set = false;
	reconnect();
	recover();
}
