/*-------------------------------------------------------------------------
 *
 * table.c
 *	  Resources and grants by name.
 *
 * Pure state: what is granted, in memory, without a notion of policy or disk.
 * A name hashes to a partition, whose lock protects all there is about it.
 * Whatever takes memory is done before the lock (PrepareGrant), so that under
 * it nothing can fail but the last look into a full name table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "storage/proc.h"

#include "table.h"
#include "wheel.h"

/*
 * What is done once we have released a partition's lock: backends to wake, by
 * number, and grants to give back.
 */
static int	to_wake[64];
static int	wake_count = 0;
static Grant *to_give[64];
static int	give_count = 0;

/* Hash a name; its bytes must stay where they are. */
void
ResolveName(LeaseName *lease, Oid database, const char *name, uint32 length)
{
	Assert(length > 0 && length <= LEASE_NAME_MAX);
	lease->key.database = database;
	lease->key.length = length;
	lease->key.at.probe = name;
	lease->hash = get_hash_value(Names, &lease->key);
	lease->index = lease->hash % NUM_PARTITIONS;
}

/*
 * The name of a grant, whose bytes go into a buffer of LEASE_NAME_MAX.  Under the
 * partition's lock.
 */
void
ResolveGrant(LeaseName *lease, const Grant *grant, char *name)
{
	const NameKey *key = &grant->resource->key;

	ReadChunks(key->at.chunks, 0, name, key->length);
	ResolveName(lease, key->database, name, key->length);
}

void
LockPartition(int partition, LWLockMode mode)
{
	LWLockAcquire(PartitionLock(partition), mode);
}

/*
 * Whom we served or alerted wakes now, and not before: it would find the lock
 * taken at once.
 */
void
UnlockPartition(int partition)
{
	LWLockRelease(PartitionLock(partition));
	while (wake_count > 0)
		SetLatch(&ProcGlobal->allProcs[to_wake[--wake_count]].procLatch);
	while (give_count > 0)
		GiveGrant(to_give[--give_count]);
}

void
LockName(const LeaseName *lease, LWLockMode mode)
{
	LockPartition(lease->index, mode);
}

void
UnlockName(const LeaseName *lease)
{
	UnlockPartition(lease->index);
}

/* See that a waiter's backend wakes, once we release the partition's lock. */
void
WakeWaiter(const Waiter *waiter)
{
	if (wake_count == lengthof(to_wake))
		SetLatch(&ProcGlobal->allProcs[waiter - Waiters].procLatch);
	else
		to_wake[wake_count++] = waiter - Waiters;
}

/* A RESERVED or ENDING grant of the name went on: whoever waits, look again. */
void
AnnounceSettled(const LeaseName *lease)
{
	ConditionVariableBroadcast(&NamePartition(lease)->settled);
}

/*
 * Take a grant and the memory for its strings and its name.  Returns false,
 * with nothing taken, if the table or its string space is full.
 */
bool
PrepareGrant(SpareGrant *spare, const LeaseName *lease, const GrantLabels *labels,
			 bool from_reserve)
{
	Span		strings[] = {labels->holder, labels->request_id, labels->correlation_id};
	Span		name = {lease->key.at.probe, lease->key.length};
	Grant	   *grant = TakeGrant(from_reserve);

	spare->grant = NULL;
	spare->from_reserve = from_reserve;
	spare->name = NO_CHUNK;
	if (grant == NULL)
		return false;
	if (!TakeChunks(strings, lengthof(strings), &grant->strings) ||
		!TakeChunks(&name, 1, &spare->name))
	{
		GiveGrant(grant);
		return false;
	}

	grant->holder_length = labels->holder.length;
	grant->request_length = labels->request_id.length;
	grant->correlation_length = labels->correlation_id.length;
	grant->awaits_others = false;
	spare->grant = grant;
	return true;
}

/* Give back what PrepareGrant took and LinkGrant did not use. */
void
DiscardSpare(SpareGrant *spare)
{
	GiveChunks(spare->name);
	spare->name = NO_CHUNK;
	if (spare->grant != NULL)
		GiveGrant(spare->grant);
	spare->grant = NULL;
}

/* The name's resource, or NULL if nobody uses the name. */
Resource *
FindResource(const LeaseName *lease)
{
	return hash_search_with_hash_value(Names, &lease->key, lease->hash, HASH_FIND, NULL);
}

/* The name's grant with a token, in whatever state, or NULL. */
Grant *
FindGrant(const LeaseName *lease, Token token)
{
	Resource   *resource = FindResource(lease);
	dlist_iter	iter;

	if (resource == NULL)
		return NULL;
	dlist_foreach(iter, &resource->grants)
	{
		Grant	   *grant = dlist_container(Grant, in_resource, iter.cur);

		if (grant->token == token && grant->state != GRANT_RESERVED)
			return grant;
	}
	return NULL;
}

/* Let a grant take its permits of a name, as RESERVED. */
void
AttachGrant(Resource *resource, Grant *grant, int partition)
{
	grant->resource = resource;
	grant->partition = partition;
	grant->token = INVALID_TOKEN;
	grant->replaces = INVALID_TOKEN;
	grant->is_closure = false;
	grant->ledger_capacity = resource->capacity;
	grant->serial = 0;
	grant->pins = 0;
	grant->leaving = false;
	resource->taken += grant->permits;
	dlist_push_tail(&resource->grants, &grant->in_resource);

	/* Who walks the slots reads the partition of one that is not free. */
	pg_write_barrier();
	grant->state = GRANT_RESERVED;
}

/*
 * Link a spare grant, whose permits are set, under a name as RESERVED; a name
 * that is new has this capacity.  What the spare still owns after that goes
 * back through DiscardSpare.  Returns NULL if the name table is full.
 */
Grant *
LinkGrant(const LeaseName *lease, SpareGrant *spare, int32 capacity)
{
	Grant	   *grant = spare->grant;
	Resource   *resource;
	bool		found;

	resource = hash_search_with_hash_value(Names, &lease->key, lease->hash,
										   HASH_ENTER_NULL, &found);
	if (resource == NULL)
		return NULL;
	if (!found)
	{
		resource->key.at.chunks = spare->name;
		spare->name = NO_CHUNK;
		dlist_init(&resource->grants);
		resource->queue = NULL;
		resource->capacity = capacity;
		resource->taken = 0;
	}

	spare->grant = NULL;
	AttachGrant(resource, grant, lease->index);
	return grant;
}

/* Forget a name that nobody holds or waits for. */
void
DropUnusedName(const LeaseName *lease, Resource *resource)
{
	uint32		chunks = resource->key.at.chunks;

	if (!dlist_is_empty(&resource->grants) || resource->queue != NULL)
		return;

	/* To find it, the name is compared: its chunks are in use until then. */
	if (hash_search_with_hash_value(Names, &lease->key, lease->hash, HASH_REMOVE, NULL) == NULL)
		elog(PANIC, "lease name table corrupted");
	GiveChunks(chunks);
}

/*
 * Remove a grant that is in neither wheel nor dead list, and free it, if need be
 * when the partition's lock is released.
 */
void
DropGrant(const LeaseName *lease, Grant *grant)
{
	Resource   *resource = grant->resource;

	dlist_delete(&grant->in_resource);
	resource->taken -= grant->permits;
	grant->state = GRANT_FREE;
	if (give_count == lengthof(to_give))
		GiveGrant(grant);
	else
		to_give[give_count++] = grant;
	DropUnusedName(lease, resource);
}

/*
 * When does the name of a grant that ended open?  min_hold counts from the
 * grant, lock_delay from an end that its holder did not ask for.
 */
MonoTime
OpensAt(const Grant *grant, MonoTime ended, bool orphaned)
{
	MonoTime	opens = 0;

	if (grant->min_hold > 0)
		opens = grant->granted_at + (int64) grant->min_hold * 1000;
	if (orphaned && grant->lock_delay > 0)
		opens = Max(opens, ended + (int64) grant->lock_delay * 1000);
	return opens;
}

/* A grant that is not RESERVED: until when is its name shut, but for pins? */
MonoTime
ClosedUntil(const Grant *grant)
{
	if (grant->state == GRANT_HELD)
		return Max(grant->deadline, OpensAt(grant, grant->deadline, true));
	return grant->deadline;
}

/* The same, with pins: who takes the last one off will tell. */
MonoTime
BlocksUntil(const Grant *grant)
{
	return grant->pins > 0 ? MONO_NEVER : ClosedUntil(grant);
}

/* Does a grant keep others from what it takes of its name? */
bool
IsInTheWay(const Grant *grant, MonoTime now)
{
	return grant->state == GRANT_RESERVED || BlocksUntil(grant) > now;
}

bool
IsLive(const Grant *grant, MonoTime now)
{
	return grant->state == GRANT_HELD && grant->deadline > now && !grant->leaving;
}

/* When a TTL that starts at a time runs out. */
MonoTime
DeadlineAfter(MonoTime now, int64 ttl)
{
	return ttl == NO_TTL ? MONO_NEVER : now + ttl;
}

/* From a time on, a RESERVED grant that has all it needs is held. */
void
MakeHeld(Grant *grant, MonoTime now)
{
	grant->granted_at = now;
	grant->serial = pg_atomic_add_fetch_u64(&Shared->grants_made, 1);
	grant->deadline = DeadlineAfter(now, grant->ttl);
	grant->state = GRANT_HELD;
	if (grant->deadline != MONO_NEVER)
		WheelAdd(GrantPartition(grant), grant);
}

/*
 * Make a HELD, CLOSED or DEAD grant one's own, to end its row.  opens_at is
 * when its name opens.
 */
void
ClaimGrant(Grant *grant, MonoTime opens_at)
{
	Assert(grant->state == GRANT_HELD || grant->state == GRANT_CLOSED ||
		   grant->state == GRANT_DEAD);
	if (grant->state == GRANT_DEAD)
		GrantPartition(grant)->ndead--;
	if (grant->deadline != MONO_NEVER)
		dlist_delete(&grant->in_time);
	grant->deadline = opens_at;
	grant->state = GRANT_ENDING;
}

/*
 * Put a grant that is in neither wheel nor dead list on the dead list: its row
 * is owed an end.
 */
void
MarkDead(Grant *grant, MonoTime opens_at)
{
	Partition  *part = GrantPartition(grant);

	grant->deadline = opens_at;
	grant->state = GRANT_DEAD;
	dlist_push_tail(&part->dead, &grant->in_time);
	part->ndead++;
}

bool
HasRequestId(const Grant *grant, const Span *request_id)
{
	return grant->request_length > 0 && grant->request_length == request_id->length &&
		ChunksEqual(grant->strings, grant->holder_length, request_id->data, request_id->length);
}

bool
HasHolder(const Grant *grant, const Span *holder)
{
	return grant->holder_length == holder->length &&
		ChunksEqual(grant->strings, 0, holder->data, holder->length);
}

/* Were two grants asked for under the same request id, by the same role? */
bool
IsSameRequest(const Grant *grant, const Grant *other)
{
	char		request_id[LEASE_LABEL_MAX];
	Span		span = {request_id, other->request_length};

	if (grant->owner != other->owner || grant->request_length != other->request_length)
		return false;
	ReadChunks(other->strings, other->holder_length, request_id, other->request_length);
	return HasRequestId(grant, &span);
}

/* Who is next in line after a waiter, or after NULL; NULL if nobody is. */
Waiter *
NextWaiter(const Resource *resource, const Waiter *after)
{
	Waiter	   *next;

	if (after == NULL)
		return resource->queue;
	next = dlist_container(Waiter, link, after->link.next);
	return next == resource->queue ? NULL : next;
}

uint32
CountWaiters(const Resource *resource)
{
	return resource->queue != NULL ? resource->queue->length : 0;
}

/* Copy what people told about a grant, zero-terminated. */
static void
CopyLabels(const Grant *grant, GrantInfo *info)
{
	uint32		at = 0;

	ReadChunks(grant->strings, at, info->holder, grant->holder_length);
	info->holder[grant->holder_length] = '\0';
	at += grant->holder_length;
	ReadChunks(grant->strings, at, info->request_id, grant->request_length);
	info->request_id[grant->request_length] = '\0';
	at += grant->request_length;
	ReadChunks(grant->strings, at, info->correlation_id, grant->correlation_length);
	info->correlation_id[grant->correlation_length] = '\0';
}

/* Copy a grant that has a name, or is to have it, with all strings. */
void
CopyGrantOf(const Resource *resource, const Grant *grant, GrantInfo *info)
{
	const NameKey *key = &resource->key;

	info->grant = *grant;
	info->database = key->database;
	info->capacity = resource->capacity;
	info->name_length = key->length;
	ReadChunks(key->at.chunks, 0, info->name, key->length);
	info->name[key->length] = '\0';
	CopyLabels(grant, info);
}

void
CopyGrant(const Grant *grant, GrantInfo *info)
{
	CopyGrantOf(grant->resource, grant, info);
}

/*
 * Look at the grant in a slot of the pool: returns it with its partition
 * locked, or NULL, with no lock, if the slot is free.
 *
 * A walk over all slots sees each grant that is there all the while; it is no
 * snapshot.
 */
Grant *
LockGrantSlot(uint32 slot, LWLockMode mode)
{
	Grant	   *grant = &Grants[slot];
	uint8		partition;

	if (*((volatile uint8 *) &grant->state) == GRANT_FREE)
		return NULL;
	pg_read_barrier();
	partition = *((volatile uint8 *) &grant->partition);
	LockPartition(partition, mode);
	if (grant->state != GRANT_FREE && grant->partition == partition)
		return grant;
	UnlockPartition(partition);
	return NULL;
}

void
UnlockGrantSlot(const Grant *grant)
{
	UnlockPartition(grant->partition);
}
