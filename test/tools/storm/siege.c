/*-------------------------------------------------------------------------
 *
 * siege.c
 *	  The course of a siege: clients with guarded transactions, and what is done
 *	  to them.
 *
 * The names in use are others every other second, so that a look at all commits
 * of a name stays short.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>

#include "storm.h"

Siege	   *siege;

static const char *const fate_names[] = {
	"committed", "rolled_back", "lost_early", "lost_at_commit", "too_old", "conflicted", "stopped",
	"vanished", "tired"
};

static const char *const trait_names[] = {
	"at_read_committed", "at_repeatable_read", "at_serializable", "of_transaction", "of_session",
	"of_several", "of_shared", "of_others", "handed_over", "acquired_inside", "guarded_before",
	"guarded_after", "guarded_at_commit", "nested", "guarded_again", "renewed", "released",
	"notified", "crowded"
};

static int64_t forced;
static int64_t pins_awaited;

static void
prepare_database(void)
{
	PQclear(query("CREATE TABLE commits (name int, token bigint, shared bool, below bigint,"
				  " above bigint, client int, op int, late bool);"
				  "CREATE INDEX ON commits (name, token);"
				  "CREATE FUNCTION guard_late() RETURNS trigger LANGUAGE plpgsql AS $$"
				  " BEGIN PERFORM lease.guard('guard/' || lpad(NEW.name::text, 5, '0'), NEW.token);"
				  " RETURN NULL; END $$;"
				  "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON commits DEFERRABLE INITIALLY"
				  " DEFERRED FOR EACH ROW WHEN (NEW.late) EXECUTE FUNCTION guard_late();"
				  "CREATE UNLOGGED TABLE ballast (i int);"
				  "CREATE FUNCTION crowd() RETURNS void LANGUAGE plpgsql AS $$"
				  " BEGIN FOR i IN 1 .. 70 LOOP"
				  "  BEGIN INSERT INTO ballast VALUES (i);"
				  "  EXCEPTION WHEN division_by_zero THEN NULL; END;"
				  " END LOOP; END $$;"
				  "SELECT 1"));
}

static int64_t
sum_of(int kind)
{
	int64_t		sum = 0;

	for (int n = 0; n < options.clients; n++)
		sum += kind < NFATES ? siege->fates[n][kind] : siege->traits[n][kind - NFATES];
	return sum;
}

/* How often did happen what happened least often, of all that clients and we do? */
static int64_t
rarest(void)
{
	int64_t		least = forced;

	least = tally.kills < least ? tally.kills : least;
	least = tally.terminations < least ? tally.terminations : least;
	for (int kind = NFATES; kind < NFATES + NTRAITS; kind++)
		least = sum_of(kind) < least ? sum_of(kind) : least;
	return least;
}

static void
force_release(void)
{
	int			name = siege->round * options.names + below(options.names);
	PGresult   *res = query("SELECT lease.force_release('guard/%05d', 'siege')", name);

	forced += atoll(PQgetvalue(res, 0, 0));
	PQclear(res);
}

/* Look for a lease that is over, and whose name waits for a commit. */
static void
look_for_pins(void)
{
	pins_awaited += query_number("SELECT count(*) FROM lease.leases WHERE pinned_by IS NOT NULL"
								 " AND remaining IS NULL AND waiters > 0");
}

/* Until time is up, and everything has happened often enough. */
static void
besiege(void)
{
	int64_t		start = now_us();
	int64_t		end = start + options.seconds * SECOND;

	storm->phase = RUN;
	while (now_us() < end || (rarest() < options.least && !too_late(end)))
	{
		int64_t		round = (now_us() - start) / (2 * SECOND);

		siege->round = round < MAX_ROUNDS ? round : MAX_ROUNDS - 1;
		replace_dead();
		look_for_pins();
		if (chance(10))
			force_release();
		if (chance(6))
			interrupt(25, 15);
		pause_ms(1);
	}
	end_clients();
}

/* Those whose clients were killed may still be at work. */
static void
await_sessions(void)
{
	int64_t		since = now_us();

	while (query_number("SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
						" AND backend_type = 'client backend'") > 0)
	{
		if (too_late(since))
			die("sessions do not end");
		pause_ms(5);
	}
}

/* What clients were told of a transaction must agree with what is there. */
static void
compare_words(bool (*is_there)[MAX_OPS])
{
	for (int n = 0; n < options.clients; n++)
		for (uint32_t op = 1; op <= storm->clients[n].op; op++)
		{
			if (is_there[n][op] && siege->words[n][op] == NO)
				wrong("wrong word to c%d.%u: it committed", n, op);
			if (!is_there[n][op] && siege->words[n][op] == YES)
				wrong("wrong word to c%d.%u: it did not commit", n, op);
		}
}

static void
write_commits(FILE *out)
{
	bool		(*is_there)[MAX_OPS] = share_memory(options.clients * sizeof(*is_there));
	PGresult   *res = query("SELECT name, token, CASE WHEN shared THEN 's' ELSE 'x' END,"
							" below, above, client, op FROM commits");

	for (int i = 0; i < PQntuples(res); i++)
	{
		int			client = atoi(PQgetvalue(res, i, 5));
		int			op = atoi(PQgetvalue(res, i, 6));

		fprintf(out, "commit %s %s %s %s %s c%d.%d\n", PQgetvalue(res, i, 0), PQgetvalue(res, i, 1),
				PQgetvalue(res, i, 2), PQgetvalue(res, i, 3), PQgetvalue(res, i, 4), client, op);
		is_there[client][op] = true;
	}
	PQclear(res);
	compare_words(is_there);
}

static void
write_siege(void)
{
	FILE	   *out = fopen(options.history, "w");

	if (!out)
		die("could not write %s", options.history);
	write_commits(out);
	write_common(out);
	write_count(out, "forced", forced);
	write_count(out, "pins_awaited", pins_awaited);
	for (int kind = 0; kind < NFATES + NTRAITS; kind++)
		write_count(out, kind < NFATES ? fate_names[kind] : trait_names[kind - NFATES],
					sum_of(kind));
	if (fclose(out) != 0)
		die("could not write %s", options.history);
}

void
run_guards(void)
{
	options.begin = begin_guard;
	options.episode = guard_episode;
	siege = share_memory(sizeof(Siege));
	start_clients();
	prepare_database();
	besiege();
	await_sessions();
	write_siege();
}
