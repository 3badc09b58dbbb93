/*
 * pages.h - the pages of top: what they show, and how the server is asked for it
 */
#ifndef PAGES_H
#define PAGES_H

#include "print.h"

/* The first columns of an answer; those of the page follow, and then these two. */
enum
{
	HEAD_DATABASE,
	HEAD_ROLE,
	HEAD_SERVER,
	HEAD_TIME,
	HEAD_USED,
	HEAD_ALLOWED,
	HEAD_WAITERS,
	HEAD_TOKEN,
	HEAD_WORKER,
	HEAD_LOST,
	HEAD_COLUMNS,

	TAIL_ORDINAL = 0,			/* NULL: the page has no rows */
	TAIL_TOTAL,
	TAIL_COLUMNS
};

typedef struct Page
{
	const char *name;
	const Column *columns;
	const char *from;			/* where they are selected from */
	const char *then_by;		/* what decides between equals */
	int			sort;			/* column that they are sorted by at first */
} Page;

#define N_PAGES 3
#define MOST_PAGE_COLUMNS 16

extern const Page TopPages[N_PAGES];

extern int	CountPageColumns(const Page *page);

/* Large numbers come first, and names in their order, unless that is reversed. */
extern bool IsDescending(const Page *page, int sort, bool reversed);

/* Ask for the head and a page, sorted by a column. */
extern void PutPageQuestion(Question *question, const Page *page, int sort, bool reversed);

/* The column of a name, and the first page that has it; false if none does. */
extern bool FindPageColumn(const char *name, int *page, int *column);

#endif
