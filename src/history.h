/*-------------------------------------------------------------------------
 *
 * history.h
 *	  Events are written down, told of, and forgotten in the end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_HISTORY_H
#define LEASE_HISTORY_H

#include "database.h"

extern int	WriteEvents(Database *db);
extern void ReturnEventsInHand(Database *db);
extern void TrimHistory(Database *db);

#endif							/* LEASE_HISTORY_H */
