/*-------------------------------------------------------------------------
 *
 * keep.h
 *	  What statistics and events outlive a clean restart.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_KEEP_H
#define LEASE_KEEP_H

#include "events.h"

extern void KeepAtShutdown(int code, Datum arg);
extern void RestoreKept(void);

#endif							/* LEASE_KEEP_H */
