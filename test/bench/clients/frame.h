/*-------------------------------------------------------------------------
 *
 * frame.h
 *	  What the clients of the other programs share: options, clock, start gate,
 *	  latencies, the figures on stdout.
 *
 * How a client is put together:
 *
 *		ReadOptions(argc, argv, JOB_RENEW | JOB_PAIR);
 *		RunThreads(work);		-- work: connect, prepare, warm up,
 *								--	PassGate(), operations, clean up
 *		PrintFigures();
 *
 * An operation takes Now() when it sends its first request, and hands that to
 * CountOperation when its last answer is here, which says whether to begin
 * another.  Whatever goes wrong ends the program by Fail: there are no figures
 * of a run in which anything failed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BENCH_FRAME_H
#define BENCH_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C"
{
#endif

/* Bits, so that a client can say which of them it knows. */
enum
{
	JOB_RENEW = 1,
	JOB_PAIR = 2,
	JOB_HANDOVER = 4
};

typedef struct BenchOptions
{
	int			job;			/* one of the JOBs */
	int			clients;
	int			threads;		/* never more than clients */
	double		seconds;
	int64_t		ttl;			/* of a lock, in milliseconds */
	const char *address;		/* HOST:PORT, as given */
	const char *host;
	int			port;
} BenchOptions;

/* Set by ReadOptions, then constant. */
extern BenchOptions options;

/* Operations that each client does before the gate opens. */
#define WARM_UP_OPERATIONS 50

/* Latencies of one thread's operations; no two threads may share one. */
typedef struct Tally Tally;

extern void ReadOptions(int argc, char **argv, int jobs);
extern void Fail(const char *format,...) __attribute__((format(printf, 1, 2), noreturn));
extern int64_t Now(void);		/* nanoseconds, monotonic */

/* Runs work in options.threads threads, numbered from 0, until all are done. */
extern void RunThreads(void (*work) (int thread));

/*
 * Returns when every thread of RunThreads called it; who calls it outside of
 * them passes at once.  Then the time runs.
 */
extern void PassGate(void);
extern bool TimeIsUp(void);

extern Tally *NewTally(void);

/* False when the time is up; then the operation did not count. */
extern bool CountOperation(Tally *tally, int64_t began);

/*
 * Between these two no other client of this process may hold the one name of a
 * hand-over; it is an error if one does.  Leave before the release is sent.
 */
extern void EnterSection(int client);
extern void LeaveSection(int client);

/* The sum of all tallies, on stdout. */
extern void PrintFigures(void);

#ifdef __cplusplus
}
#endif

#endif							/* BENCH_FRAME_H */
