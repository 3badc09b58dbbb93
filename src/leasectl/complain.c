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

/* How many bytes of a control character are here: of ASCII, or of U+0080 to U+009F in UTF-8. */
static int
control_length(const char *text)
{
	const unsigned char *c = (const unsigned char *) text;

	if (c[0] < ' ' || c[0] == 127)
		return 1;
	return c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0 ? 2 : 0;
}

/* Join the lines of a text, and take out what a terminal might obey. */
static void
make_line(char *text)
{
	char	   *to = text;

	for (const char *from = text; *from != '\0';)
	{
		int			control = control_length(from);

		if (control == 0)
			*to++ = *from++;
		else if (*from != '\n' && *from != '\t')
			*to++ = '?';
		else if (to > text && to[-1] != ' ')
			*to++ = ' ';
		from += control;
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
