/*-------------------------------------------------------------------------
 *
 * session.c
 *	  What our session holds, in scopes session and transaction.
 *
 * Who holds a lease is in shared memory, like every grant.  Here is what is of
 * no concern to others: how often the session acquired it, as a whole and in
 * which (sub)transaction.  A hold is known by its grant's slot, and counts only
 * while that slot carries its token: a lease may be lost behind our back, to its
 * TTL or to force.
 *
 * The holds of transactions are a stack, by nesting level.  Those of a rolled
 * back savepoint go with it, those of a released one are its parent's.  What the
 * session releases while its transaction guards it becomes the transaction's.
 *
 * Room for a hold is made before its grant is asked for (PrepareHold), so that
 * nothing can fail once the lease is held.  A session that ends releases what it
 * holds in before_shmem_exit, which comes before the abort of its transaction:
 * whichever runs second finds nothing to do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "clock.h"
#include "session.h"

typedef struct Hold
{
	Grant	   *grant;			/* hash key, must be first */
	Token		token;			/* INVALID_TOKEN: room that was prepared */
	int			by_session;		/* how often, besides the stack */
	int			by_transaction; /* how often in the stack */
	uint32		name_length;
	char		name[LEASE_NAME_MAX];
} Hold;

typedef struct TransactionHold
{
	Hold	   *hold;
	int			level;			/* nesting level of the transaction */
} TransactionHold;

#define STACK_MINIMUM	16

static HTAB *holds = NULL;		/* created at the first use */
static TransactionHold *stack = NULL;
static int	stack_used = 0;
static int	stack_size = 0;

/* How our leases end if they are not released by name. */
static EventKind end_kind = EVENT_RELEASED;

static void
ResolveHold(const Hold *hold, LeaseName *lease)
{
	ResolveName(lease, MyDatabaseId, hold->name, hold->name_length);
}

static void
ForgetHold(Hold *hold)
{
	hash_search(holds, &hold->grant, HASH_REMOVE, NULL);
}

static bool
IsGuardedHold(const Hold *hold)
{
	LeaseName	lease;

	ResolveHold(hold, &lease);
	return IsGuarded(&lease, hold->token);
}

/* Take the latest entry of a hold off the stack; false if there is none. */
static bool
Unstack(const Hold *hold)
{
	int			at = stack_used - 1;

	while (at >= 0 && stack[at].hold != hold)
		at--;
	if (at < 0)
		return false;
	stack_used--;
	memmove(&stack[at], &stack[at + 1], sizeof(TransactionHold) * (stack_used - at));
	return true;
}

/* Hold a lease until the end of the transaction, whatever its savepoints do. */
static void
StackUntilEnd(Hold *hold)
{
	Assert(stack_used < stack_size);
	memmove(&stack[1], &stack[0], sizeof(TransactionHold) * stack_used);
	stack[0].hold = hold;
	stack[0].level = 1;
	stack_used++;
	hold->by_transaction++;
}

/*
 * The session lets go of a lease: it ends, unless our transaction holds it on.
 * Returns false if it was lost before.
 */
static bool
LetGo(Hold *hold, EventKind kind)
{
	LeaseName	lease;
	Grant	   *grant;
	bool		held;

	hold->by_session = 0;
	ResolveHold(hold, &lease);
	LockName(&lease, LW_EXCLUSIVE);
	grant = FindGrant(&lease, hold->token);
	if (grant != NULL && grant->state != GRANT_HELD)
		grant = NULL;
	held = grant != NULL && IsLive(grant, MonotonicNow());
	if (grant != NULL && hold->by_transaction > 0)
		grant->scope = SCOPE_TRANSACTION;
	else if (grant != NULL)
		EndHeld(&lease, grant, held ? kind : EVENT_EXPIRED, NULL);
	UnlockName(&lease);
	if (hold->by_transaction == 0)
		ForgetHold(hold);
	return held;
}

/* Take off all that was acquired at a nesting level, or deeper. */
static void
EndLevel(int level)
{
	while (stack_used > 0 && stack[stack_used - 1].level >= level)
	{
		Hold	   *hold = stack[--stack_used].hold;

		if (--hold->by_transaction == 0 && hold->by_session == 0)
			LetGo(hold, end_kind);
	}
}

static void
EndTransaction(XactEvent event, void *arg pg_attribute_unused())
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			EndLevel(0);
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (stack_used > 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that holds transaction-scoped leases"),
						 errdetail("Lease \"%.*s\" is to end with the transaction.",
								   (int) stack[0].hold->name_length, stack[0].hold->name)));
			break;
		default:
			break;
	}
}

static void
EndSubtransaction(SubXactEvent event, SubTransactionId mine pg_attribute_unused(),
				  SubTransactionId parent pg_attribute_unused(),
				  void *arg pg_attribute_unused())
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		EndLevel(level);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (int i = stack_used - 1; i >= 0 && stack[i].level >= level; i--)
			stack[i].level = level - 1;
}

/* Release all that is held for the session.  Returns how many leases that was. */
static int
ReleaseHolds(bool keep_guarded)
{
	HASH_SEQ_STATUS scan;
	Hold	   *hold;
	int			count = 0;

	hash_seq_init(&scan, holds);
	while ((hold = hash_seq_search(&scan)) != NULL)
	{
		if (hold->token == INVALID_TOKEN || hold->by_session == 0)
			continue;
		if (keep_guarded && hold->by_transaction == 0 && IsGuardedHold(hold))
			StackUntilEnd(hold);
		if (LetGo(hold, end_kind))
			count++;
	}
	return count;
}

/* What our transaction guards need not be kept: it is going to abort. */
static void
EndSession(int code pg_attribute_unused(), Datum arg pg_attribute_unused())
{
	end_kind = EVENT_ORPHANED;
	EndLevel(0);
	ReleaseHolds(false);
}

/*
 * Get ready to hold so many leases more: outside of any PG_ENSURE_ERROR_CLEANUP,
 * which would be in the way of our exit callback.
 */
void
EnableHolds(int count)
{
	HASHCTL		ctl = {
		.keysize = sizeof(Grant *),
		.entrysize = sizeof(Hold),
		.hcxt = TopMemoryContext
	};

	if (stack_size < stack_used + count)
	{
		int			size = Max(STACK_MINIMUM, 2 * (stack_used + count));

		stack = stack == NULL ?
			MemoryContextAllocHuge(TopMemoryContext, sizeof(TransactionHold) * size) :
			repalloc_huge(stack, sizeof(TransactionHold) * size);
		stack_size = size;
	}
	if (holds != NULL)
		return;
	RegisterXactCallback(EndTransaction, NULL);
	RegisterSubXactCallback(EndSubtransaction, NULL);
	before_shmem_exit(EndSession, (Datum) 0);
	holds = hash_create("leases of the session", 16, &ctl,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Might a lease be ours?  For those who would rather not look. */
bool
HoldsLeases(void)
{
	return holds != NULL && hash_get_num_entries(holds) > 0;
}

static Hold *
FindHold(const Grant *grant)
{
	Hold	   *hold;

	if (holds == NULL)
		return NULL;
	hold = hash_search(holds, &grant, HASH_FIND, NULL);
	return hold != NULL && hold->token != INVALID_TOKEN && hold->token == grant->token ? hold : NULL;
}

/* Is a grant held by our session?  Under the partition's lock. */
bool
IsOurHold(const Grant *grant)
{
	return !IsDetached(grant) && FindHold(grant) != NULL;
}

/* Make room for one more hold of a grant, which need not be linked yet. */
void
PrepareHold(Grant *grant)
{
	Hold	   *hold;
	bool		found;

	hold = hash_search(holds, &grant, HASH_ENTER, &found);
	if (!found)
	{
		hold->token = INVALID_TOKEN;
		hold->by_session = 0;
		hold->by_transaction = 0;
	}
}

/* Give back the room, if it was not used. */
void
DiscardHold(Grant *grant)
{
	Hold	   *hold = hash_search(holds, &grant, HASH_FIND, NULL);

	if (hold != NULL && hold->token == INVALID_TOKEN)
		ForgetHold(hold);
}

/*
 * Count one more hold of a grant, for which there is room.  Its slot may have
 * been that of a lease of ours which was lost: that hold is void.
 */
void
AddHold(const LeaseName *lease, Grant *grant, Token token, LeaseScope scope)
{
	Hold	   *hold = hash_search(holds, &grant, HASH_FIND, NULL);

	Assert(hold != NULL && stack_used < stack_size);
	if (hold->token != token)
	{
		while (Unstack(hold))
			;
		hold->token = token;
		hold->by_session = 0;
		hold->by_transaction = 0;
		hold->name_length = lease->key.length;
		memcpy(hold->name, lease->key.at.probe, lease->key.length);
	}

	if (scope == SCOPE_SESSION)
		hold->by_session++;
	else
	{
		stack[stack_used].hold = hold;
		stack[stack_used].level = GetCurrentTransactionNestLevel();
		stack_used++;
		hold->by_transaction++;
	}
}

/* Undo the last AddHold of a grant. */
void
GiveUpHold(Grant *grant, Token token, LeaseScope scope)
{
	Hold	   *hold = hash_search(holds, &grant, HASH_FIND, NULL);

	if (hold == NULL || hold->token != token)
		return;
	if (scope == SCOPE_SESSION)
		hold->by_session--;
	else if (Unstack(hold))
		hold->by_transaction--;
	if (hold->by_session == 0 && hold->by_transaction == 0)
		LetGo(hold, EVENT_ABANDONED);
}

/*
 * Take one hold off a lease of ours, under the partition's lock.  What a
 * transaction acquired, or guards, stays until its end; for what it guards there
 * is room in the stack (EnableHolds).
 */
HoldRelease
TakeOffHold(Grant *grant, bool guarded)
{
	Hold	   *hold = FindHold(grant);

	if (guarded && hold->by_session == 1 && hold->by_transaction == 0)
		StackUntilEnd(hold);
	if (hold->by_session > 0 && --hold->by_session == 0 && hold->by_transaction > 0)
		grant->scope = SCOPE_TRANSACTION;
	if (hold->by_session > 0 || hold->by_transaction > 0)
		return HOLD_KEPT;
	ForgetHold(hold);
	return HOLD_OVER;
}

/*
 * Release all that is held for the session; what our transaction guards, once
 * that is over.  Returns how many leases that was.
 */
int
ReleaseSession(void)
{
	if (holds == NULL)
		return 0;
	EnableHolds(hash_get_num_entries(holds));
	return ReleaseHolds(true);
}
