/*-------------------------------------------------------------------------
 *
 * arena.h
 *	  Free lists of grants and chunks, and the strings kept in chunks.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_ARENA_H
#define LEASE_ARENA_H

#include "shmem.h"

/* A piece of text with its length: no terminator, any address. */
typedef struct Span
{
	const char *data;
	uint32		length;
} Span;

static inline Span
SpanOf(const char *string)
{
	Span		span = {string, (uint32) strlen(string)};

	return span;
}

static inline bool
SpansEqual(const Span *a, const Span *b)
{
	return a->length == b->length &&
		(a->length == 0 || memcmp(a->data, b->data, a->length) == 0);
}

/* By their bytes. */
static inline int
CompareSpans(const Span *a, const Span *b)
{
	int			order = memcmp(a->data, b->data, Min(a->length, b->length));

	return order != 0 ? order : (a->length > b->length) - (a->length < b->length);
}

/* Free lists; for the holders of no lock, or of a partition's. */
extern Grant *TakeGrant(bool from_reserve);
extern void GiveGrant(Grant *grant);
extern uint32 CountUsedGrants(void);
extern bool TakeChunks(const Span *spans, int nspans, uint32 *head);
extern void GiveChunks(uint32 head);

/* Reading a chain back. */
extern void ReadChunks(uint32 head, uint32 offset, char *into, uint32 length);
extern bool ChunksEqual(uint32 head, uint32 offset, const char *data, uint32 length);

/* The name table's hash, match and keycopy. */
extern uint32 NameKeyHash(const void *key, Size keysize);
extern int	NameKeyMatch(const void *stored, const void *probe, Size keysize);
extern void *NameKeyCopy(void *stored, const void *probe, Size keysize);

#endif							/* LEASE_ARENA_H */
