/*-------------------------------------------------------------------------
 *
 * pagelog.h
 *	  WAL records of changes to a page, as who makes them tells.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_PAGELOG_H
#define LEASE_PAGELOG_H

#include "access/xlogdefs.h"
#include "storage/buf.h"

#define MAX_CHANGES			3

/*
 * What changed on a page: its header, and a few places.  A change is logged as
 * where it is, how long, and the bytes that stand there now.
 */
typedef struct PageChanges
{
	Buffer		buffer;
	bool		whole;			/* the record must bring the page whole */
	int			count;
	struct
	{
		uint16		offset;		/* on the page */
		uint16		length;
	}			places[MAX_CHANGES];
} PageChanges;

extern void BeginChanges(PageChanges *changes, Buffer buffer, bool whole);
extern void NoteChange(PageChanges *changes, const void *where, int length);
extern XLogRecPtr LogChanges(const PageChanges *changes);

#endif							/* LEASE_PAGELOG_H */
