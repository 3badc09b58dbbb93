/*
 * show.h - the columns of what is shown
 */
#ifndef SHOW_H
#define SHOW_H

#include "print.h"

extern const Column HistoryColumns[];	/* of lease.history */

#endif
