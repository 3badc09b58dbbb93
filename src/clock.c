/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  The monotonic clock that leases are counted on.
 *
 * Deadlines never touch the wall clock: setting it must neither shorten nor
 * stretch a lease.  The clock is the one behind the server's own instr_time.
 * It starts with the host, so a MonoTime means nothing across a restart of
 * the server, and none is ever written to disk.
 *
 * Tests move time rather than wait for it: an offset in shared memory, zero
 * in any server that does real work, is added to every reading, so all
 * processes jump together.  Only a superuser can reach AdvanceClock, by
 * creating a function on it (see lease_advance_clock in api.c); it goes
 * forward only, as the clock does.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "clock.h"
#include "portability/instr_time.h"
#include "utils/timestamp.h"

/* In shared memory, attached once by shmem.c. */
static pg_atomic_uint64 *clock_offset;

void
ClockAttach(pg_atomic_uint64 *offset)
{
	clock_offset = offset;
}

/* The monotonic time now, in microseconds. */
MonoTime
MonotonicNow(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (MonoTime) INSTR_TIME_GET_MICROSEC(now) + (MonoTime) pg_atomic_read_u64(clock_offset);
}

/* What a wall clock will show, or did, at a monotonic time: for people only. */
TimestampTz
WallTimeOf(MonoTime when, MonoTime now)
{
	return GetCurrentTimestamp() + (when - now);
}

/* Let everybody's clock jump forward, for tests. */
void
AdvanceClock(int64 usec)
{
	pg_atomic_fetch_add_u64(clock_offset, usec);
}
