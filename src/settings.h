/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings that SQL functions look at; module.c defines them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef LEASE_SETTINGS_H
#define LEASE_SETTINGS_H

extern int	DefaultTtl;			/* ms */
extern int	MaxTtl;				/* ms */
extern char *HolderSetting;
extern char *CorrelationIdSetting;
extern bool AllowSessionScope;

#endif							/* LEASE_SETTINGS_H */
