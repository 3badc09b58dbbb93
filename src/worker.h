/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  Launcher and reapers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_WORKER_H
#define LEASE_WORKER_H

#include "grant.h"

extern void RegisterLauncher(void);
extern void BanReaper(Oid database);
extern void UnbanReaper(Oid database);

extern PGDLLEXPORT void LeaseLauncherMain(Datum arg);
extern PGDLLEXPORT void LeaseReaperMain(Datum arg);

#endif							/* LEASE_WORKER_H */
