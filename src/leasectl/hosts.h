/*
 * hosts.h - the hosts that a connection string names, one by one
 */
#ifndef HOSTS_H
#define HOSTS_H

#include <libpq-fe.h>
#include <stdbool.h>

typedef struct Hosts
{
	int			n;				/* how many there are; 1 if the default is meant */
	int			timeout;		/* connect_timeout in seconds; 0: none was given */
	const char *const *keywords;
	const char *const *values;
	PQconninfoOption *options;	/* with what environment and service file say */
} Hosts;

/*
 * Find them in what PQconnectdbParams would take, with expand_dbname; the arrays must
 * live as long as *hosts.  Returns false if memory is lacking.
 */
extern bool FindHosts(Hosts *hosts, const char *const *keywords, const char *const *values);

/* Begin to connect to one of them, as PQconnectStartParams does. */
extern PGconn *DialHost(const Hosts *hosts, int host);

extern void ForgetHosts(Hosts *hosts);

#endif
