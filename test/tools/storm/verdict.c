/*-------------------------------------------------------------------------
 *
 * verdict.c
 *	  What judges say.
 *
 *-------------------------------------------------------------------------
 */
#include <stdarg.h>
#include <stdio.h>

#include "storm.h"

int			violations;

/* Say what is wrong, but not without end. */
void
accuse(const char *format, ...)
{
	va_list		args;

	if (violations++ >= 50)
		return;
	printf("violation ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

void
count(const char *key, int64_t value)
{
	printf("count %s %" PRId64 "\n", key, value);
}
