/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The settings that other files look at; module.c defines them.
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
extern int	HistoryRetention;	/* s; 0: there is no history */
extern char *NotifySetting;		/* a LIKE pattern; empty: nothing */
extern uint32 LoggedEvents;		/* a bit for each EventKind */

#endif							/* LEASE_SETTINGS_H */
