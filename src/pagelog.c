/*-------------------------------------------------------------------------
 *
 * pagelog.c
 *	  WAL records of changes to a page, as who makes them tells.
 *
 * GenericXLogFinish would find out itself what changed: it compares the page
 * with a copy of it, byte by byte and under the page's lock, which takes as long
 * as all the rest of writing a row.  We know what we change.  The record is one
 * of the same resource manager and in its format (see generic_xlog.c), so that
 * the server replays it without this library:
 *
 *		for each place: its offset and its length, 2 bytes each; its bytes
 *
 * Calling sequence, with the buffer locked exclusively:
 *
 *		START_CRIT_SECTION();
 *		BeginChanges(&changes, buffer, whole);
 *		change the page, and NoteChange() for each place but the page's header
 *		lsn = LogChanges(&changes);
 *		END_CRIT_SECTION();
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/rmgr.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"

#include "pagelog.h"

/* The page's header, but for the LSN and the checksum, which are not logged. */
#define HEADER_OFFSET		offsetof(PageHeaderData, pd_flags)
#define HEADER_LENGTH		(SizeOfPageHeaderData - HEADER_OFFSET)

/*
 * Begin with the page's header.  A page whose present state is in no WAL record
 * must come whole.
 */
void
BeginChanges(PageChanges *changes, Buffer buffer, bool whole)
{
	changes->buffer = buffer;
	changes->whole = whole;
	changes->count = 0;
	NoteChange(changes, BufferGetPage(buffer) + HEADER_OFFSET, HEADER_LENGTH);
}

/* So many bytes of the page are not what they were. */
void
NoteChange(PageChanges *changes, const void *where, int length)
{
	Assert(changes->count < MAX_CHANGES);
	changes->places[changes->count].offset = (const char *) where - BufferGetPage(changes->buffer);
	changes->places[changes->count].length = length;
	changes->count++;
}

/*
 * Log the changes; returns the end of the record, which is the caller's to have
 * flushed.  It is kept from the transaction, which would wake the WAL writer for it
 * at its end.
 */
XLogRecPtr
LogChanges(const PageChanges *changes)
{
	Page		page = BufferGetPage(changes->buffer);
	XLogRecPtr	transaction_end = XactLastRecEnd;
	XLogRecPtr	lsn;

	MarkBufferDirty(changes->buffer);
	XLogBeginInsert();
	XLogRegisterBuffer(0, changes->buffer,
					   REGBUF_STANDARD | (changes->whole ? REGBUF_FORCE_IMAGE : 0));
	for (int i = 0; !changes->whole && i < changes->count; i++)
	{
		XLogRegisterBufData(0, (char *) &changes->places[i], sizeof(changes->places[i]));
		XLogRegisterBufData(0, page + changes->places[i].offset, changes->places[i].length);
	}
	lsn = XLogInsert(RM_GENERIC_ID, 0);
	PageSetLSN(page, lsn);
	XactLastRecEnd = transaction_end;
	return lsn;
}
