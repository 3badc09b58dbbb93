/*-------------------------------------------------------------------------
 *
 * names.c
 *	  The names that clients want: some are semaphores, a few are much wanted.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>

#include "storm.h"

static double weights[MAX_NAMES];

int
capacity_of(int name)
{
	return name % 5 == 3 ? 2 + name % 3 : WHOLE;
}

/* To be called before a name is picked. */
void
weigh_names(void)
{
	double		sum = 0;

	for (int i = 0; i < options.names; i++)
		weights[i] = (sum += 1.0 / (i + 1));
}

/* A name, of a semaphore or not, that sorts after another; -1: none was found. */
int
pick_name(bool semaphore, int after)
{
	for (;;)
	{
		double		x = random() / (double) RAND_MAX * weights[options.names - 1];
		int			name = 0;

		while (name < options.names - 1 && weights[name] < x)
			name++;
		if (after >= 0 && name <= after)
			name = after + 1 + below(options.names - after);
		if (name < options.names && (capacity_of(name) != WHOLE) == semaphore)
			return name;
		if (after >= options.names - 5)
			return -1;
	}
}

/* The last four names that were asked for stay valid. */
const char *
name_of(int name)
{
	static char buffers[4][300];
	static int	turn = 0;
	char	   *buffer = buffers[turn++ % 4];
	int			length = sprintf(buffer, "storm/%03d/", name);

	while (length < options.padding * (name % 8) / 7)
		buffer[length++] = 'x';
	buffer[length] = '\0';
	return buffer;
}
