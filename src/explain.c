/*-------------------------------------------------------------------------
 *
 * explain.c
 *	  What became of a lease that its holder finds lost.
 *
 * From what the table still shows: a grant that is over leaves it soon, so an
 * answer is a courtesy, and none is no error.  Who may not act on the lease
 * that is there now learns nothing of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "explain.h"

/* What the table still shows of a lost lease. */
typedef struct Traces
{
	Grant		self;			/* the grant itself; FREE if gone */
	Grant		present;		/* who holds the name now; FREE if nobody */
} Traces;

static void
FindTraces(const LeaseName *lease, Token token, Traces *traces)
{
	Resource   *resource;
	dlist_iter	iter;

	memset(traces, 0, sizeof(Traces));
	LockName(lease, LW_SHARED);
	resource = FindResource(lease);
	if (resource != NULL)
	{
		dlist_foreach(iter, &resource->grants)
		{
			Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);

			if (grant->state != GRANT_RESERVED && grant->token == token)
				traces->self = *grant;
			else if (IsLive(grant, MonotonicNow()))
				traces->present = *grant;
		}
	}
	UnlockName(lease);
}

static bool
MayExplain(const Grant *grant)
{
	return grant->state != GRANT_FREE && has_privs_of_role(GetUserId(), grant->owner);
}

/*
 * What became of a lost lease, as a sentence; NULL if nothing is known, or
 * nothing that concerns the current role.
 */
char *
ExplainLoss(const Span *name, Token token)
{
	LeaseDatabase open;
	LeaseName	lease;
	Traces		traces;
	const Grant *self = &traces.self;
	const Grant *present = &traces.present;
	MonoTime	now = MonotonicNow();

	OpenNameForRead(name, &open, &lease);
	FindTraces(&lease, token, &traces);

	if (MayExplain(present))
		return psprintf(present->replaces == token ?
						"It was transferred; its token is now " INT64_FORMAT "." :
						"The name is now held with token " INT64_FORMAT ".",
						present->token);
	if (MayExplain(self) && self->state == GRANT_HELD && self->deadline <= now)
		return psprintf("Its TTL ran out %.3f seconds ago.",
						(now - self->deadline) / (double) USECS_PER_SEC);
	if (MayExplain(self) && self->deadline > now)
		return psprintf("It ended, and the name stays closed for %.3f seconds.",
						(self->deadline - now) / (double) USECS_PER_SEC);
	if (token >= (Token) pg_atomic_read_u64(&open.db->next))
		return pstrdup("No such token was ever granted in this database.");
	return NULL;
}

/*
 * Say that a lease is lost, with what is known of how, to who tried something
 * with its token.
 */
void
ReportLost(int elevel, const Span *name, Token token, EventKind kind, const char *tried)
{
	char	   *loss = ExplainLoss(name, token);

	RecordMisuse(name, token, kind, tried);
	ereport(elevel,
			(errcode(ERRCODE_LEASE_LOST),
			 errmsg("lease \"%.*s\" is not held with token " INT64_FORMAT,
					(int) name->length, name->data, token),
			 loss != NULL ? errdetail_internal("%s", loss) : 0));
}
