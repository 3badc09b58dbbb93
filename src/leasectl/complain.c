/*
 * complain.c - messages on stderr
 *
 * One line each, whatever the server or a user put into it: a message of several
 * lines is joined, and no control character reaches the terminal.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leasectl.h"

#define LONGEST_MESSAGE 4096

/* Join the lines of a text, and take out what a terminal might obey. */
static void
make_line(char *text)
{
	char	   *to = text;

	for (const char *from = text; *from != '\0'; from++)
	{
		if (*from != '\n' && *from != '\t')
			*to++ = (unsigned char) *from < ' ' || *from == 127 ? '?' : *from;
		else if (to > text && to[-1] != ' ')
			*to++ = ' ';
	}
	while (to > text && to[-1] == ' ')
		to--;
	*to = '\0';
}

static void __attribute__((format(printf, 1, 0)))
say(const char *format, va_list arguments)
{
	char		line[LONGEST_MESSAGE];

	vsnprintf(line, sizeof(line), format, arguments);
	make_line(line);
	fprintf(stderr, "leasectl: %s\n", line);
}

/* Say what is wrong.  The arguments are printf's. */
void
Complain(const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
}

/* Say what is wrong, and exit. */
void
Fail(int status, const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
	exit(status);
}

/* Zeroed memory, or the end. */
void *
Allocate(size_t size)
{
	void	   *memory = calloc(1, size);

	if (memory == NULL)
		Fail(STATUS_FAILED, "out of memory");
	return memory;
}
