/*-------------------------------------------------------------------------
 *
 * flush.c
 *	  WAL gets to disk: at once and together, or soon.
 *
 * XLogFlush lets one process flush for all whose records are there already, but
 * wakes everybody that waits after each flush: who came too late for it contends
 * for the next one, and most of them sleep again.  Here those who want a flush
 * make a list, as those do who leave the array of running transactions together
 * (ProcArrayGroupClearXid).  The first in the list is the leader.  It waits for
 * its turn to flush, takes the list, flushes as far as any member of it wants,
 * and wakes just those, each once.
 *
 * Nobody gives up: a leader holds interrupts, as its members do, and an error in
 * XLogFlush is a PANIC.  The semaphore is the one that LWLocks use; who gets a
 * wake-up that was meant for something else gives it back.
 *
 * What may be lost in a crash, but not for long, is noted in shared memory.  The
 * launcher hands it to the WAL writer some time later.  To wake that one for each
 * record, as XLogSetAsyncXactLSN does while it has little to do, costs more than
 * the record.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/proc.h"

#include "clock.h"
#include "flush.h"
#include "shmem.h"

/*
 * What is to be flushed soon waits so long for more, usec; then the WAL writer
 * takes up to twice its wal_writer_delay.
 */
#define FLUSH_DELAY			INT64CONST(100000)

/* Let the leader flush for us. */
static void
Follow(FlushMember *me)
{
	int			absorbed = 0;

	pgstat_report_wait_start(WAIT_EVENT_WAL_SYNC);
	for (;;)
	{
		PGSemaphoreLock(MyProc->sem);
		if (me->flushed)
			break;
		absorbed++;
	}
	pgstat_report_wait_end();
	while (absorbed-- > 0)
		PGSemaphoreUnlock(MyProc->sem);
}

/* Flush for all who are in the list by the time that it is our turn. */
static void
Lead(void)
{
	XLogRecPtr	lsn = InvalidXLogRecPtr;
	uint32		next;

	LWLockAcquire(FlushLock, LW_EXCLUSIVE);
	next = pg_atomic_exchange_u32(&Shared->flush_list, NO_MEMBER);
	for (uint32 i = next; i != NO_MEMBER; i = FlushMembers[i].next)
		lsn = Max(lsn, FlushMembers[i].lsn);
	XLogFlush(lsn);
	LWLockRelease(FlushLock);

	while (next != NO_MEMBER)
	{
		FlushMember *member = &FlushMembers[next];
		PGPROC	   *proc = &ProcGlobal->allProcs[next];

		/* Once it knows, the member may be in another list. */
		next = member->next;
		pg_memory_barrier();
		member->flushed = true;
		if (proc != MyProc)
			PGSemaphoreUnlock(proc->sem);
	}
}

/* Wait until WAL is on disk up to an LSN.  The caller holds interrupts. */
void
FlushTogether(XLogRecPtr lsn)
{
	uint32		number = MyProc - ProcGlobal->allProcs;
	FlushMember *me = &FlushMembers[number];
	uint32		first;

	Assert(InterruptHoldoffCount > 0);
	if (!XLogNeedsFlush(lsn))
		return;
	me->lsn = lsn;
	me->flushed = false;
	first = pg_atomic_read_u32(&Shared->flush_list);
	do
		me->next = first;
	while (!pg_atomic_compare_exchange_u32(&Shared->flush_list, &first, number));
	if (first == NO_MEMBER)
		Lead();
	else
		Follow(me);
}

/* Have WAL flushed up to an LSN before long; do not wait for it. */
void
FlushSoon(XLogRecPtr lsn)
{
	uint64		noted = pg_atomic_read_u64(&Shared->unflushed);

	if (pg_atomic_read_u32(&Shared->launcher_pid) == 0)
	{
		XLogSetAsyncXactLSN(lsn);
		return;
	}
	while (noted < lsn && !pg_atomic_compare_exchange_u64(&Shared->unflushed, &noted, lsn))
		;
	if (noted == InvalidXLogRecPtr)
	{
		MonoTime	due = MonotonicNow() + FLUSH_DELAY;

		pg_atomic_write_u64(&Shared->flush_due, due);
		RingLauncher(due);
	}
}

/*
 * The launcher: hand what was noted to the WAL writer, if it is time.  Who notes
 * something meanwhile either has it taken along, or finds nothing noted and says
 * anew when it is due.
 */
void
FlushDue(MonoTime now)
{
	uint64		lsn;

	if (pg_atomic_read_u64(&Shared->flush_due) > (uint64) now)
		return;
	pg_atomic_write_u64(&Shared->flush_due, MONO_NEVER);
	lsn = pg_atomic_exchange_u64(&Shared->unflushed, InvalidXLogRecPtr);
	if (lsn != InvalidXLogRecPtr)
		XLogSetAsyncXactLSN(lsn);
}
