/*-------------------------------------------------------------------------
 *
 * common.c
 *	  What every part needs: time, chance, shared memory, ways to complain.
 *
 *-------------------------------------------------------------------------
 */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "storm.h"

Options		options;
Storm	   *storm;

int64_t
now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec / 1000;
}

int
below(int n)
{
	return (int) (random() % n);
}

bool
chance(int percent)
{
	return below(100) < percent;
}

void
pause_ms(int ms)
{
	poll(NULL, 0, ms);
}

/* Since then enough time has passed for anything to happen. */
bool
too_late(int64_t since)
{
	return now_us() > since + options.patience * SECOND;
}

/* The program cannot go on. */
void
die(const char *format, ...)
{
	va_list		args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

/* Memory of all zeros that processes forked later share. */
void *
share_memory(size_t size)
{
	void	   *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
							  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		die("out of memory");
	return memory;
}

/* Note a line of the history that must not be there. */
void
wrong(const char *format, ...)
{
	va_list		args;
	int			at = __sync_fetch_and_add(&storm->nwrong, 1);

	if (at >= MAX_WRONG)
		return;
	va_start(args, format);
	vsnprintf(storm->wrong[at], sizeof(storm->wrong[at]), format, args);
	va_end(args);
	for (char *c = storm->wrong[at]; *c; c++)
		if (*c == '\n')
			*c = ' ';
}
