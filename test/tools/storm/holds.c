/*-------------------------------------------------------------------------
 *
 * holds.c
 *	  What a client is sure to hold.
 *
 * A lease is sure from the reply that grants it until we send what ends it, its
 * TTL may be over, or the session is to end; in between it is in doubt while a
 * statement runs that may end the transaction that holds it.  A process that
 * survives its session goes on from here.
 *
 *-------------------------------------------------------------------------
 */
#include "storm.h"

Client	   *me;
int			my_number;
int			level;

/* Our holds that are still sure, from first_open on. */
Hold *
next_open(int *at)
{
	for (; *at < me->nholds; (*at)++)
		if (me->holds[*at].until == 0)
			return &me->holds[(*at)++];
	return NULL;
}

Hold *
last_hold(void)
{
	return &me->holds[me->nholds - 1];
}

/* A grant, in answer to what was sent then. */
Hold *
add_hold(int name, int need, int64_t token, int64_t sent, Scope scope, int64_t ttl)
{
	Hold	   *hold = &me->holds[me->nholds];

	if (me->nholds >= MAX_HOLDS)
		die("too many grants");
	*hold = (Hold) {
		.token = token, .sent = sent, .from = now_us(), .ttl = ttl,
		.deadline = ttl > 0 ? sent + ttl : NEVER,
		.op = me->op, .name = name, .need = need, .scope = scope,
		.level = level, .in_order = true, .is_new = true
	};
	__sync_synchronize();
	me->nholds++;
	me->counts[ACQUIRES]++;
	return hold;
}

/* It ceases to be sure, or did so as its TTL ran out. */
void
end_hold(Hold *hold, int64_t when)
{
	if (hold->until == 0)
		hold->until = when < hold->deadline ? when : hold->deadline;
}

/* What a transaction holds is not sure while one of its statements runs. */
void
doubt(int from_level)
{
	for (int i = me->nholds - 1; level > 0 && i >= me->first_open; i--)
		if (me->holds[i].scope == TRANSACTION && me->holds[i].level >= from_level &&
			me->holds[i].until == 0)
			me->holds[i].until = -now_us();
}

/* It is again, or it is over. */
void
settle(bool still)
{
	for (int i = me->nholds - 1; i >= me->first_open; i--)
		if (me->holds[i].until < 0)
			me->holds[i].until = still ? 0 : -me->holds[i].until;
}

/* What a transaction held from a level on is known to be over. */
void
forget(int from_level)
{
	settle(false);
	for (int i = me->nholds - 1; i >= me->first_open; i--)
		if (me->holds[i].scope == TRANSACTION && me->holds[i].level >= from_level)
			me->holds[i].over = true;
}

static void
note_lost_op(Client *client)
{
	if (client->asking)
		client->lost_ops[client->nlost++ % MAX_LOST_OPS] = client->op;
	client->asking = false;
}

/* A session is over, by whomever: with it goes what it held. */
void
bury_session(Client *client)
{
	int64_t		end = client->doomed_at ? client->doomed_at : now_us();

	for (int i = client->first_open; i < client->nholds; i++)
	{
		Hold	   *hold = &client->holds[i];

		if (hold->scope == DETACHED || hold->over)
			continue;
		if (hold->until < 0)
			hold->until = -hold->until;
		end_hold(hold, end);
		if (hold->until > end)
			hold->until = end;
		hold->over = true;
	}
	note_lost_op(client);
}
