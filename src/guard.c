/*-------------------------------------------------------------------------
 *
 * guard.c
 *	  What our transaction guards: it commits only while it holds these leases.
 *
 * A guard is checked when it is made, and again when the transaction commits.
 * There it also pins its grant, so that the name cannot be granted to anybody
 * else until the transaction is over: between that check and the moment when
 * others see the transaction's effects lie NOTIFY, a flush of WAL, and a wait
 * for standbys that has no bound.  A check alone would not be fencing.
 *
 *	PRE_COMMIT	each guard is checked and pinned; may still fail
 *	COMMIT		the transaction is visible to all; pins go.  Must not fail.
 *	ABORT		pins go, those that were made
 *
 * What a released savepoint guards is its parent's; what a rolled back one
 * guards is no more.  A release of a lease that we guard waits for the end of
 * the transaction, either way.  Neither looks at catalogs: the release leaves
 * the ledger's row to a reaper, or to the next acquirer.
 *
 * Who guards also wants to see what the holders before did.  Under READ
 * COMMITTED the next statement does.  A snapshot for the whole transaction does
 * if it was taken after the lease was granted, so we know how many grants there
 * had been (Shared->grants_made) at a moment before that: at BEGIN, or SET
 * TRANSACTION, or else, if transactions are like that by default, when our last
 * one ended.  No clock is asked.
 *
 * All state is our backend's own, but for the pins.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "explain.h"
#include "guard.h"

/* A guard is of the transaction of this nesting level; 0: of none any more. */
#define NO_LEVEL	0

typedef struct Guard
{
	Token		token;
	GuardMode	mode;
	int			level;
	bool		pinned;
	bool		release;		/* once the transaction is over */
	uint32		name_length;
	char		name[LEASE_NAME_MAX];
} Guard;

#define GUARDS_MINIMUM	8

static Guard *guards = NULL;
static int	guard_count = 0;
static int	guard_room = 0;

/* Grants up to this serial were made before our snapshot, if it is for the transaction. */
static uint64 fresh_up_to = 0;

static void
ResolveGuard(const Guard *guard, LeaseName *lease)
{
	ResolveName(lease, MyDatabaseId, guard->name, guard->name_length);
}

static Guard *
FindGuard(const LeaseName *lease, Token token)
{
	for (int i = 0; i < guard_count; i++)
		if (guards[i].token == token && guards[i].name_length == lease->key.length &&
			memcmp(guards[i].name, lease->key.at.probe, lease->key.length) == 0)
			return &guards[i];
	return NULL;
}

/* Does our transaction guard the lease with this token? */
bool
IsGuarded(const LeaseName *lease, Token token)
{
	Guard	   *guard = FindGuard(lease, token);

	return guard != NULL && guard->level != NO_LEVEL;
}

/* How does our transaction guard a name, with whatever token? */
GuardMode
HowGuarded(const Span *name)
{
	GuardMode	mode = GUARD_NONE;

	for (int i = 0; i < guard_count; i++)
	{
		Span		guarded = {guards[i].name, guards[i].name_length};

		if (guards[i].level != NO_LEVEL && SpansEqual(&guarded, name))
			mode = Max(mode, guards[i].mode);
	}
	return mode;
}

/* Check and pin all that we guard, before the commit. */
static void
CheckGuards(XactEvent event, void *arg pg_attribute_unused())
{
	if (event != XACT_EVENT_PRE_COMMIT)
		return;
	for (int i = 0; i < guard_count; i++)
	{
		Guard	   *guard = &guards[i];
		LeaseName	lease;

		if (guard->level == NO_LEVEL)
			continue;
		ResolveGuard(guard, &lease);
		guard->pinned = PinGrant(&lease, guard->token);
		if (!guard->pinned)
		{
			Span		name = {guard->name, guard->name_length};

			ReportLost(ERROR, &name, guard->token, EVENT_GUARD_FAILED, "commit");
		}
	}
}

/*
 * Get ready to guard so many leases more.  Until our transaction is over nobody
 * can drop the ledger, and with it what we are about to pin.
 *
 * Who registered last is called first: with the first guard of a transaction our
 * check moves ahead of those who commit elsewhere before this commit is certain,
 * such as foreign data wrappers.
 */
void
ReserveGuards(int count)
{
	CloseLedger(OpenLedger(AccessShareLock), NoLock);
	if (guard_count == 0)
	{
		UnregisterXactCallback(CheckGuards, NULL);
		RegisterXactCallback(CheckGuards, NULL);
	}
	if (guard_room < guard_count + count)
	{
		int			room = Max(GUARDS_MINIMUM, 2 * (guard_count + count));

		guards = guards == NULL ?
			MemoryContextAllocHuge(TopMemoryContext, sizeof(Guard) * room) :
			repalloc_huge(guards, sizeof(Guard) * room);
		guard_room = room;
	}
}

GuardMode
GuardModeOf(const Grant *grant)
{
	return grant->permits == WHOLE_LEASE ? GUARD_EXCLUSIVE : GUARD_SHARED;
}

/* Guard a lease, for which there is room. */
void
AddGuard(const LeaseName *lease, Token token, GuardMode mode)
{
	Guard	   *guard = FindGuard(lease, token);

	if (guard != NULL && guard->level != NO_LEVEL)
		return;
	if (guard == NULL)
	{
		Assert(guard_count < guard_room);
		guard = &guards[guard_count++];
		guard->token = token;
		guard->pinned = false;
		guard->release = false;
		guard->name_length = lease->key.length;
		memcpy(guard->name, lease->key.at.probe, lease->key.length);
	}
	guard->mode = mode;
	guard->level = GetCurrentTransactionNestLevel();
}

/* Release a lease that we guard when our transaction is over. */
void
ReleaseAtEnd(const LeaseName *lease, Token token)
{
	FindGuard(lease, token)->release = true;
}

/* Raise an error if our snapshot may be older than a grant. */
void
RequireFreshSnapshot(const LeaseName *lease, uint64 serial)
{
	if (!IsolationUsesXactSnapshot() || serial <= fresh_up_to)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("cannot guard lease \"%.*s\": it was acquired after the transaction began",
					(int) lease->key.length, lease->key.at.probe),
			 errdetail("At this isolation level the transaction sees the database as it was before, without what the holders until then have written."),
			 errhint("Acquire the lease before the transaction begins, or use READ COMMITTED.")));
}

static void
SampleGrants(void)
{
	if (Shared != NULL)
		fresh_up_to = pg_atomic_read_u64(&Shared->grants_made);
}

/* BEGIN or SET TRANSACTION: a snapshot for it is yet to come, normally. */
void
NoteTransactionStart(void)
{
	if (!FirstSnapshotSet)
		SampleGrants();
}

/* The transaction takes over a snapshot of unknown age. */
void
NoteImportedSnapshot(void)
{
	fresh_up_to = 0;
}

/* The transaction is over. */
static void
EndGuards(void)
{
	for (int i = 0; i < guard_count; i++)
	{
		Guard	   *guard = &guards[i];
		LeaseName	lease;

		ResolveGuard(guard, &lease);
		if (guard->pinned)
			UnpinGrant(&lease, guard->token);
		if (guard->release)
			ReleaseUnwritten(&lease, guard->token);
	}
	guard_count = 0;
}

static void
RefusePrepare(void)
{
	for (int i = 0; i < guard_count; i++)
		if (guards[i].level != NO_LEVEL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that guards leases"),
					 errdetail("Lease \"%.*s\" must be held until it commits.",
							   (int) guards[i].name_length, guards[i].name)));
}

static void
EndTransaction(XactEvent event, void *arg pg_attribute_unused())
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			RefusePrepare();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			EndGuards();
			if (DefaultXactIsoLevel >= XACT_REPEATABLE_READ)
				SampleGrants();
			break;
		default:
			break;
	}
}

/* What is to be released remains, until the whole transaction is over. */
static void
AbortLevel(int level)
{
	int			kept = 0;

	for (int i = 0; i < guard_count; i++)
	{
		if (guards[i].level >= level)
			guards[i].level = NO_LEVEL;
		if (guards[i].level != NO_LEVEL || guards[i].release)
			guards[kept++] = guards[i];
	}
	guard_count = kept;
}

static void
EndSubtransaction(SubXactEvent event, SubTransactionId mine pg_attribute_unused(),
				  SubTransactionId parent pg_attribute_unused(),
				  void *arg pg_attribute_unused())
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_ABORT_SUB)
		AbortLevel(level);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (int i = 0; i < guard_count; i++)
			if (guards[i].level >= level)
				guards[i].level = level - 1;
}

/* Be there at the end of every transaction; called as the library is loaded. */
void
InitGuards(void)
{
	RegisterXactCallback(EndTransaction, NULL);
	RegisterSubXactCallback(EndSubtransaction, NULL);
}
