/*-------------------------------------------------------------------------
 *
 * arena.c
 *	  Free lists of grants and chunks, and the strings kept in chunks.
 *
 * Grants and chunks are members of fixed arrays; what is free is on a list
 * under a spinlock, held for a few instructions a member.  A chain of chunks
 * is written before it is reachable by anybody else and never changed after,
 * so reading one needs only the lock that keeps its owner alive.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "arena.h"
#include "common/hashfn.h"

/*
 * Take a grant off the free list, or return NULL.  The last GRANT_RESERVE are
 * for those who replace a grant; what those who wait have in hand is of these.
 */
Grant *
TakeGrant(bool from_reserve)
{
	FreeList   *list = &Shared->free_grants;
	uint32		waiting = pg_atomic_read_u32(&Shared->waiting);
	Grant	   *grant = NULL;

	SpinLockAcquire(&list->mutex);
	if (from_reserve ? list->count > 0 : list->count + waiting > GRANT_RESERVE && list->count > 0)
	{
		grant = &Grants[list->head];
		list->head = grant->strings;
		list->count--;
	}
	SpinLockRelease(&list->mutex);

	if (grant != NULL)
		grant->strings = NO_CHUNK;
	return grant;
}

/* Give back a grant, which is in no list or table any more, and its strings. */
void
GiveGrant(Grant *grant)
{
	FreeList   *list = &Shared->free_grants;

	GiveChunks(grant->strings);
	grant->state = GRANT_FREE;

	SpinLockAcquire(&list->mutex);
	grant->strings = list->head;
	list->head = grant - Grants;
	list->count++;
	SpinLockRelease(&list->mutex);
}

/* How many grants are taken, in all databases. */
uint32
CountUsedGrants(void)
{
	FreeList   *list = &Shared->free_grants;
	uint32		used;

	SpinLockAcquire(&list->mutex);
	used = GRANT_POOL_SIZE - list->count;
	SpinLockRelease(&list->mutex);
	return used - Min(used, pg_atomic_read_u32(&Shared->waiting));
}

static bool
TakeChain(uint32 count, uint32 *head)
{
	FreeList   *list = &Shared->free_chunks;
	bool		enough;

	*head = NO_CHUNK;
	if (count == 0)
		return true;

	SpinLockAcquire(&list->mutex);
	enough = list->count >= count;
	if (enough)
	{
		uint32		last = list->head;

		for (uint32 i = 1; i < count; i++)
			last = Chunks[last].next;
		*head = list->head;
		list->head = Chunks[last].next;
		list->count -= count;
		Chunks[last].next = NO_CHUNK;
	}
	SpinLockRelease(&list->mutex);
	return enough;
}

/*
 * Keep some strings, one after the other, in a new chain.  Returns false, with
 * nothing taken, if there is not enough room.
 */
bool
TakeChunks(const Span *spans, int nspans, uint32 *head)
{
	uint32		total = 0;
	uint32		chunk;
	uint32		filled = 0;

	for (int i = 0; i < nspans; i++)
		total += spans[i].length;
	if (!TakeChain((total + CHUNK_PAYLOAD - 1) / CHUNK_PAYLOAD, head))
		return false;

	chunk = *head;
	for (int i = 0; i < nspans; i++)
	{
		const char *data = spans[i].data;
		uint32		left = spans[i].length;

		while (left > 0)
		{
			uint32		part;

			if (filled == CHUNK_PAYLOAD)
			{
				chunk = Chunks[chunk].next;
				filled = 0;
			}
			part = Min(left, CHUNK_PAYLOAD - filled);
			memcpy(Chunks[chunk].bytes + filled, data, part);
			filled += part;
			data += part;
			left -= part;
		}
	}
	return true;
}

/* Give back a chain. */
void
GiveChunks(uint32 head)
{
	FreeList   *list = &Shared->free_chunks;
	uint32		last = head;
	uint32		count = 1;

	if (head == NO_CHUNK)
		return;
	while (Chunks[last].next != NO_CHUNK)
	{
		last = Chunks[last].next;
		count++;
	}

	SpinLockAcquire(&list->mutex);
	Chunks[last].next = list->head;
	list->head = head;
	list->count += count;
	SpinLockRelease(&list->mutex);
}

/* Step along a chain to an offset; returns what is left of the offset. */
static uint32
SeekChunk(uint32 *chunk, uint32 offset)
{
	while (offset >= CHUNK_PAYLOAD)
	{
		*chunk = Chunks[*chunk].next;
		offset -= CHUNK_PAYLOAD;
	}
	return offset;
}

/* Copy length bytes, from an offset on, out of a chain. */
void
ReadChunks(uint32 head, uint32 offset, char *into, uint32 length)
{
	uint32		chunk = head;

	if (length == 0)
		return;
	offset = SeekChunk(&chunk, offset);
	for (;;)
	{
		uint32		part = Min(length, CHUNK_PAYLOAD - offset);

		memcpy(into, Chunks[chunk].bytes + offset, part);
		into += part;
		length -= part;
		if (length == 0)
			break;
		chunk = Chunks[chunk].next;
		offset = 0;
	}
}

/* Does a chain, from an offset on, read as these bytes? */
bool
ChunksEqual(uint32 head, uint32 offset, const char *data, uint32 length)
{
	uint32		chunk = head;

	if (length == 0)
		return true;
	offset = SeekChunk(&chunk, offset);
	for (;;)
	{
		uint32		part = Min(length, CHUNK_PAYLOAD - offset);

		if (memcmp(data, Chunks[chunk].bytes + offset, part) != 0)
			return false;
		data += part;
		length -= part;
		if (length == 0)
			return true;
		chunk = Chunks[chunk].next;
		offset = 0;
	}
}

uint32
NameKeyHash(const void *key, Size keysize pg_attribute_unused())
{
	const NameKey *probe = key;

	return hash_combine(hash_bytes((const unsigned char *) probe->at.probe, probe->length),
						murmurhash32(probe->database));
}

/* As memcmp: 0 if the name in the table is the one looked for. */
int
NameKeyMatch(const void *stored, const void *probe, Size keysize pg_attribute_unused())
{
	const NameKey *in_table = stored;
	const NameKey *wanted = probe;

	if (in_table->database != wanted->database || in_table->length != wanted->length)
		return 1;
	return ChunksEqual(in_table->at.chunks, 0, wanted->at.probe, wanted->length) ? 0 : 1;
}

/* Where the name is kept is for whoever enters it to fill in. */
void *
NameKeyCopy(void *stored, const void *probe, Size keysize pg_attribute_unused())
{
	NameKey    *in_table = stored;

	*in_table = *(const NameKey *) probe;
	in_table->at.chunks = NO_CHUNK;
	return stored;
}
