/*-------------------------------------------------------------------------
 *
 * control.c
 *	  The course of a storm: rounds of one kind or another, and its end.
 *
 *-------------------------------------------------------------------------
 */
#include <stdlib.h>

#include "storm.h"

static void
cancel_waiters(void)
{
	PQclear(query("SELECT count(pg_cancel_backend(pid)) FROM lease.waiters"));
}

/* Who still waits is stuck: say so, and let them go. */
static void
report_waiters(void)
{
	PGresult   *res = query("SELECT name, holder FROM lease.waiters");

	for (int i = 0; i < PQntuples(res); i++)
		wrong("stuck %.20s %s", PQgetvalue(res, i, 0), PQgetvalue(res, i, 1));
	PQclear(res);
	cancel_waiters();
}

/*
 * Nobody is interrupted any more, and everybody lets go: whoever waits is served.
 * Leases that nobody is left to release end as time jumps.
 */
static void
drain(void)
{
	int64_t		since = now_us();
	int64_t		used;
	int			idle_looks = 0;

	storm->phase = DRAIN;
	while (count_busy() > 0)
	{
		replace_dead();
		if (query_number("SELECT waiters FROM lease.status") < count_busy())
			idle_looks = 0;
		else if (query_number("SELECT leases_used FROM lease.status") == 0)
			idle_looks++;
		else
			PQclear(query("SELECT advance_lease_clock('1 hour')"));
		if (idle_looks >= 100 || too_late(since))
		{
			report_waiters();
			idle_looks = 0;
			if (too_late(since + 5 * SECOND))
				give_up("clients do not come to rest");
		}
		pause_ms(5);
	}
	PQclear(query("SELECT advance_lease_clock('1 hour')"));
	since = now_us();
	while ((used = query_number("SELECT leases_used FROM lease.status")) > 0)
	{
		if (too_late(since))
		{
			wrong("wrong number of leases in use when all are over: %" PRId64, used);
			return;
		}
		pause_ms(5);
	}
	if (query_number("SELECT waiters FROM lease.status") != 0)
		wrong("wrong number of waiters when nobody waits");
}

/* All stop where they are, and keep what they hold; nobody goes on waiting. */
static void
stand_still(void)
{
	int64_t		since = now_us();

	storm->phase = PAUSE;
	for (;;)
	{
		replace_dead();
		if (count_busy() == 0)
			return;
		cancel_waiters();
		if (too_late(since))
			give_up("clients do not stand still");
		pause_ms(2);
	}
}

static void
start_round(void)
{
	open_round();
	storm->phase = RUN;
}

/* The lease clock jumps next: nobody is sure of anything until another one starts. */
static void
end_round(void)
{
	close_round();
	drain();
}

/* A round of so many seconds, looking at queues as often as possible. */
static void
blow(void)
{
	int64_t		end = now_us() + options.seconds * SECOND;

	start_round();
	while (now_us() < end)
	{
		replace_dead();
		sample();
		if (chance(4))
			interrupt(12, 8);
	}
	end_round();
}

/* So many interruptions; then look what is held, and go on. */
static void
strike(void)
{
	int64_t		end = interruptions() + options.hits;

	while (interruptions() < end)
	{
		volatile int spin = below(40000);

		replace_dead();
		interrupt(15, 3);
		while (spin-- > 0)
			;
	}
	stand_still();
	check_holds();
	storm->phase = RUN;
}

void
start_clients(void)
{
	storm = share_memory(sizeof(Storm) + options.clients * sizeof(Client));
	srandom((unsigned) now_us());
	weigh_names();
	open_watch();
	storm->phase = DRAIN;
	for (int i = 0; i < options.clients; i++)
		start_client(i);
	while (count_busy() > 0)
		pause_ms(5);
}

void
end_clients(void)
{
	storm->phase = QUIT;
	for (int64_t since = now_us(); count_alive() > 0 && !too_late(since); pause_ms(5))
		replace_dead();
}

void
run_storm(void)
{
	start_clients();
	if (options.hits > 0)
	{
		start_round();
		for (int i = 0; i < options.rounds; i++)
			strike();
		end_round();
	}
	else
		for (int i = 0; i < options.rounds; i++)
			blow();
	end_clients();
	write_history();
}
