/*
 * top.c - a screen that shows who holds, who waits and what is contended
 *
 * One loop waits for keys, signals, the server and the time of the next look, and for
 * nothing else: an answer is taken when it is there, and a connection that was lost is
 * made anew by a thread, since libpq may wait for names and hosts.  Until there is
 * news the screen keeps the last, and says what is wrong.
 */
#include <unistd.h>

#include "pages.h"

#ifndef WITH_CURSES

int
ShowTop(const Options *options)
{
	(void) options;
	Fail(STATUS_FAILED, "top: this leasectl was built without curses");
}

#else

#define NCURSES_NOMACROS
#include <curses.h>
#include <langinfo.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>

#define DEFAULT_INTERVAL (2 * SECOND)
#define RECONNECT_PAUSE SECOND

/* A wait for the server that is worth a word. */
#define LONG_WAIT (3 * SECOND)

#define GAP 2

/* Texts are shortened to this, if need be, before columns are left out. */
#define LEAST_TEXT 12

/* The lines of the screen; rows are between HEADING_LINE and the last. */
enum
{
	SERVER_LINE,
	STATE_LINE,
	TROUBLE_LINE,
	PAGES_LINE,
	HEADING_LINE,
	FIRST_ROW
};

/* A page as the user looks at it. */
typedef struct View
{
	int			sort;
	bool		reversed;
	int			first_row;
} View;

/* A connection in the making, or made. */
typedef struct Dial
{
	Session		session;
	bool		connected;
	int			done;			/* descriptor that tells */
} Dial;

typedef struct Top
{
	Options		options;		/* the user's, but silent: messages spoil the screen */
	int64_t		interval;
	View		views[N_PAGES];
	int			page;
	bool		help;
	bool		quit;

	Dial	   *dial;			/* NULL: there is none */
	bool		dialling;		/* and it is the thread's */
	bool		asking;
	int			asked_page;
	int64_t		asked_at;
	int64_t		next_at;		/* when to ask, or to dial, again */
	char		trouble[LONGEST_LINE];	/* empty if all is well */

	PGresult   *answer;
	int			answer_page;
	int			encoding;		/* of what may be shown */
	char		server[256];	/* where it came from */

	int			signals;		/* descriptors */
	int			dialled[2];
} Top;

/* How many rows of the current page there are to be shown. */
static int
count_rows(const Top *top)
{
	int			ordinal = HEAD_COLUMNS + CountPageColumns(&TopPages[top->page]) + TAIL_ORDINAL;

	if (top->answer_page != top->page || PQgetisnull(top->answer, 0, ordinal))
		return 0;
	return PQntuples(top->answer);
}

/* Keep an answer that came from a connection. */
static void
keep_answer(Top *top, PGresult *answer)
{
	PGconn	   *connection = top->dial->session.connection;
	const char *host = PQhost(connection);

	PQclear(top->answer);
	top->answer = answer;
	top->answer_page = top->asked_page;
	top->trouble[0] = '\0';

	/* Where the locale is ASCII, so is what the screen can show. */
	top->encoding = strcmp(nl_langinfo(CODESET), "ANSI_X3.4-1968") == 0 ? 0 : PQclientEncoding(connection);
	snprintf(top->server, sizeof(top->server), "%s:%s", host, PQport(connection));
}

static void
put_question(const Top *top, Question *question)
{
	const View *view = &top->views[top->page];

	PutPageQuestion(question, &TopPages[top->page], view->sort, view->reversed);
}

/* Ask for the current page. */
static void
ask(Top *top)
{
	static Question question;

	put_question(top, &question);
	top->asked_at = BootTime();
	top->asked_page = top->page;
	top->next_at = top->asked_at + top->interval;
	top->asking = SendQuestion(&top->dial->session, &question);
	if (!top->asking)
		LoseSession(&top->dial->session);
}

/* Have another look at once, or as soon as the one under way is over. */
static void
ask_soon(Top *top)
{
	top->next_at = 0;
}

/*
 * Connections
 */
static void *
dial_in_thread(void *arg)
{
	Dial	   *dial = arg;

	dial->connected = OpenSession(&dial->session, dial->session.options);
	(void) !write(dial->done, "", 1);
	return NULL;
}

static void
start_dialling(Top *top)
{
	pthread_t	thread;

	top->dial = Allocate(sizeof(Dial));
	top->dial->session.options = &top->options;
	top->dial->done = top->dialled[1];
	if (pthread_create(&thread, NULL, dial_in_thread, top->dial) != 0)
		Fail(STATUS_FAILED, "could not start a thread");
	pthread_detach(thread);
	top->dialling = true;
}

/* Say what is wrong with the connection; forget it if it is gone. */
static void
note_trouble(Top *top)
{
	snprintf(top->trouble, sizeof(top->trouble), "%s", top->dial->session.message);
	top->asking = false;
	if (top->dial->session.connection != NULL)
		return;
	free(top->dial);
	top->dial = NULL;
	top->next_at = BootTime() + RECONNECT_PAUSE;
}

/* The thread is done. */
static void
take_dialled(Top *top)
{
	char		byte;

	(void) !read(top->dialled[0], &byte, 1);
	top->dialling = false;
	if (top->dial->connected)
		ask_soon(top);
	else
		note_trouble(top);
}

/* Take what the server sent. */
static void
take_answer(Top *top)
{
	Session    *session = &top->dial->session;
	PGresult   *answer = NULL;

	if (!top->asking)
	{
		/* It says nothing unasked but good-bye. */
		if (PQconsumeInput(session->connection) != 0)
			return;
		LoseSession(session);
	}
	else if (!ReceiveAnswer(session, &answer))
		return;
	top->asking = false;
	if (answer == NULL)
		note_trouble(top);
	else
	{
		keep_answer(top, answer);
		if (top->answer_page != top->page)
			ask_soon(top);
	}
}

/* Do what is due, unless a thread is at it. */
static void
do_what_is_due(Top *top)
{
	int64_t		now = BootTime();

	if (top->dialling)
		return;
	if (top->asking)
	{
		if (now < top->asked_at + Patience(&top->options))
			return;
		AbandonQuestion(&top->dial->session);
		note_trouble(top);
	}
	else if (now < top->next_at)
		return;
	else if (top->dial == NULL)
		start_dialling(top);
	else
	{
		ask(top);
		if (top->dial->session.connection == NULL)
			note_trouble(top);
	}
}

/*
 * The screen
 */

/* Write a text that may be anything, as far as a line goes.  Returns where it ends. */
static int
put_text(int line, int column, int width, const char *text, int encoding)
{
	const char *printable = PrintableText(text, encoding);
	int			room = width < COLS - column ? width : COLS - column;
	int			length = room > 0 ? PrintableLength(printable, encoding, room) : 0;

	if (length > 0)
		mvaddnstr(line, column, printable, length);
	if (printable[length] != '\0' && room > 0)
		mvaddch(line, column + room - 1, '~');
	return column + PrintableWidth(printable, encoding);
}

/* Write a line of our own. */
static void
put_line(int line, int attributes, const char *text)
{
	attron(attributes);
	(void) put_text(line, 0, COLS, text, 0);
	attroff(attributes);
}

static const char *
head(const Top *top, int column)
{
	const char *value = PQgetvalue(top->answer, 0, column);

	return *value != '\0' ? value : "-";
}

static void
draw_header(const Top *top)
{
	char		line[1024];
	int			at;

	snprintf(line, sizeof(line), "%s as %s on %s, PostgreSQL %s", head(top, HEAD_DATABASE),
			 head(top, HEAD_ROLE), top->server, head(top, HEAD_SERVER));
	attron(A_BOLD);
	at = put_text(SERVER_LINE, 0, COLS, line, top->encoding);
	attroff(A_BOLD);
	if (at + GAP + (int) strlen(head(top, HEAD_TIME)) <= COLS)
		mvaddstr(SERVER_LINE, COLS - strlen(head(top, HEAD_TIME)), head(top, HEAD_TIME));

	snprintf(line, sizeof(line), "leases %s of %s   waiters %s   next token %s   worker %s   events lost %s",
			 head(top, HEAD_USED), head(top, HEAD_ALLOWED), head(top, HEAD_WAITERS), head(top, HEAD_TOKEN),
			 head(top, HEAD_WORKER), head(top, HEAD_LOST));
	put_line(STATE_LINE, A_NORMAL, line);
}

static void
draw_trouble(const Top *top)
{
	char		line[LONGEST_LINE + 64];
	int64_t		waited = BootTime() - top->asked_at;

	if (top->trouble[0] != '\0')
		snprintf(line, sizeof(line), "%s%s", top->dialling ? "Connecting. " : "", top->trouble);
	else if (top->asking && waited >= LONG_WAIT)
		snprintf(line, sizeof(line), "The server has not answered for %lld s.", (long long) (waited / SECOND));
	else
		return;
	for (char *at = line; *at != '\0'; at++)
	{
		if (*at == '\n' || *at == '\t')
			*at = ' ';
	}
	attron(A_REVERSE);
	(void) put_text(TROUBLE_LINE, 0, COLS, line, top->encoding);
	attroff(A_REVERSE);
}

static void
draw_pages(const Top *top)
{
	const Page *page = &TopPages[top->page];
	const View *view = &top->views[top->page];
	int			n = count_rows(top);
	int			last = view->first_row + LINES - FIRST_ROW - 1;
	char		text[128];
	int			at = 0;

	for (int i = 0; i < N_PAGES; i++)
	{
		snprintf(text, sizeof(text), " %d %s ", i + 1, TopPages[i].name);
		if (i == top->page)
			attron(A_REVERSE);
		at = put_text(PAGES_LINE, at, COLS, text, 0);
		attroff(A_REVERSE);
	}
	snprintf(text, sizeof(text), "  %d-%d of %s, by %s%s", n > 0 ? view->first_row + 1 : 0, last < n ? last : n,
			 n > 0 ? PQgetvalue(top->answer, 0, HEAD_COLUMNS + CountPageColumns(page) + TAIL_TOTAL) : "0",
			 page->columns[view->sort].name, IsDescending(page, view->sort, view->reversed) ? ", descending" : "");
	(void) put_text(PAGES_LINE, at, COLS, text, 0);
}

/* How wide each column is to be: as its longest text, but let all fit. */
static void
measure(const Top *top, int *widths)
{
	const Page *page = &TopPages[top->page];
	int			n = CountPageColumns(page);
	int			total = -GAP;

	for (int i = 0; i < n; i++)
	{
		widths[i] = strlen(page->columns[i].name);
		for (int row = 0; row < count_rows(top); row++)
		{
			const char *text = PrintableText(PQgetvalue(top->answer, row, HEAD_COLUMNS + i), top->encoding);
			int			width = PrintableWidth(text, top->encoding);

			widths[i] = width > widths[i] ? width : widths[i];
		}
		total += widths[i] + GAP;
	}
	while (total-- > COLS)
	{
		int			widest = -1;

		for (int i = 0; i < n; i++)
		{
			if (!IsRightAligned(page->columns[i].kind) && widths[i] > LEAST_TEXT &&
				(widest < 0 || widths[i] > widths[widest]))
				widest = i;
		}
		if (widest < 0)
			break;
		widths[widest]--;
	}
}

/* Write a cell; columns that do not fit are left out. */
static int
put_cell(int line, int at, int width, const Column *column, const char *text, int encoding)
{
	int			rest = width - PrintableWidth(PrintableText(text, encoding), encoding);

	if (at + width <= COLS)
		(void) put_text(line, at + (IsRightAligned(column->kind) && rest > 0 ? rest : 0), width, text, encoding);
	return at + width + GAP;
}

static void
draw_rows(const Top *top)
{
	const Page *page = &TopPages[top->page];
	const View *view = &top->views[top->page];
	int			widths[MOST_PAGE_COLUMNS];
	int			at = 0;

	measure(top, widths);
	for (int i = 0; page->columns[i].name != NULL; i++)
	{
		attron(i == view->sort ? A_BOLD | A_UNDERLINE : A_BOLD);
		at = put_cell(HEADING_LINE, at, widths[i], &page->columns[i], page->columns[i].name, 0);
		attroff(A_BOLD | A_UNDERLINE);
	}
	for (int row = view->first_row; row < count_rows(top); row++)
	{
		int			line = FIRST_ROW + row - view->first_row;

		if (line >= LINES - 1)
			break;
		at = 0;
		for (int i = 0; page->columns[i].name != NULL; i++)
			at = put_cell(line, at, widths[i], &page->columns[i],
						  PQgetvalue(top->answer, row, HEAD_COLUMNS + i), top->encoding);
	}
}

static void
draw_help(void)
{
	static const char *const lines[] = {
		"1 2 3, Tab       leases, waiters, contention; the next of them",
		"< >              sort by the column to the left, to the right",
		"r                reverse the order",
		"Space            look again at once",
		"arrows, Page up, Page down, Home, End   scroll",
		"q                leave",
		"",
		"Durations of leases: remaining of the TTL, or until a closed name opens.",
		"Contention: how many attempts found the name taken, and what became of them.",
		"",
		"Any key ends this help."
	};

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		put_line(HEADING_LINE + i, A_NORMAL, lines[i]);
}

static void
draw(const Top *top)
{
	erase();
	draw_header(top);
	draw_trouble(top);
	draw_pages(top);
	if (top->help)
		draw_help();
	else
		draw_rows(top);
	put_line(LINES - 1, A_REVERSE, "1 2 3 page  < > sort by  r reverse  space look  arrows scroll  ? help  q quit");
	refresh();
}

/* A user scrolls. */
static void
scroll_by(Top *top, int rows)
{
	View	   *view = &top->views[top->page];
	int			last = count_rows(top) - (LINES - FIRST_ROW - 1);

	view->first_row += rows;
	if (view->first_row > last)
		view->first_row = last;
	if (view->first_row < 0)
		view->first_row = 0;
}

static void
sort_by_next(Top *top, int step)
{
	int			n = CountPageColumns(&TopPages[top->page]);
	View	   *view = &top->views[top->page];

	view->sort = (view->sort + step + n) % n;
	view->reversed = false;
	ask_soon(top);
}

static void
show_page(Top *top, int page)
{
	top->page = page;
	ask_soon(top);
}

static void
take_scroll_key(Top *top, int key)
{
	int			lines = LINES - FIRST_ROW - 1;

	switch (key)
	{
		case KEY_UP:
		case 'k':
			scroll_by(top, -1);
			break;
		case KEY_DOWN:
		case 'j':
			scroll_by(top, 1);
			break;
		case KEY_PPAGE:
			scroll_by(top, -lines);
			break;
		case KEY_NPAGE:
			scroll_by(top, lines);
			break;
		case KEY_HOME:
			scroll_by(top, -count_rows(top));
			break;
		case KEY_END:
			scroll_by(top, count_rows(top));
			break;
	}
}

static void
take_key(Top *top, int key)
{
	if (top->help && key != 'q')
	{
		top->help = false;
		return;
	}
	switch (key)
	{
		case 'q':
		case 'Q':
			top->quit = true;
			break;
		case '1':
		case '2':
		case '3':
			show_page(top, key - '1');
			break;
		case '\t':
			show_page(top, (top->page + 1) % N_PAGES);
			break;
		case KEY_BTAB:
			show_page(top, (top->page + N_PAGES - 1) % N_PAGES);
			break;
		case '<':
		case KEY_LEFT:
			sort_by_next(top, -1);
			break;
		case '>':
		case KEY_RIGHT:
			sort_by_next(top, 1);
			break;
		case 'r':
			top->views[top->page].reversed = !top->views[top->page].reversed;
			ask_soon(top);
			break;
		case ' ':
			ask_soon(top);
			break;
		case 'h':
		case '?':
			top->help = true;
			break;
		default:
			take_scroll_key(top, key);
	}
}

static void
take_keys(Top *top)
{
	int			key;

	while (!top->quit && (key = getch()) != ERR)
		take_key(top, key);
}

static void
take_signal(Top *top)
{
	struct signalfd_siginfo info;
	struct winsize size;

	if (read(top->signals, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo != SIGWINCH)
		top->quit = true;
	else if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0)
		resizeterm(size.ws_row, size.ws_col);
}

/* When there is something to do if nothing happens, as poll wants to know it. */
static int
time_left(const Top *top)
{
	int64_t		now = BootTime();
	int64_t		until = now + SECOND;	/* the screen tells how long it waits */

	if (!top->dialling && !top->asking && top->next_at < until)
		until = top->next_at;
	return until > now ? (int) ((until - now) / 1000) + 1 : 0;
}

static void
wait_and_take(Top *top)
{
	bool		connected = top->dial != NULL && !top->dialling;
	PGconn	   *connection = connected ? top->dial->session.connection : NULL;
	struct pollfd fds[] = {
		{STDIN_FILENO, POLLIN, 0},
		{top->signals, POLLIN, 0},
		{top->dialled[0], POLLIN, 0},
		{connected ? PQsocket(connection) : -1, POLLIN, 0}
	};

	if (connected && PQflush(connection) > 0)
		fds[3].events |= POLLOUT;
	if (poll(fds, 4, time_left(top)) < 0)
		return;
	if ((fds[0].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0)
		top->quit = true;		/* the terminal is gone */
	if (fds[1].revents != 0)
		take_signal(top);
	if (fds[2].revents != 0)
		take_dialled(top);
	if (fds[3].revents != 0)
		take_answer(top);
}

/* Sort by a column; the page that has it is shown. */
static void
choose_sort(Top *top, const char *name)
{
	int			column;

	if (!FindPageColumn(name, &top->page, &column))
		Fail(STATUS_FAILED, "--sort: there is no column \"%s\"", name);
	top->views[top->page].sort = column;
}

/* Connect and have the first answer, while a failure can still be told in a line. */
static void
begin(Top *top)
{
	static Question question;
	Session    *session;
	PGresult   *answer = NULL;

	top->dial = Allocate(sizeof(Dial));
	session = &top->dial->session;
	put_question(top, &question);
	top->asked_page = top->page;
	if (OpenSession(session, &top->options))
		answer = Ask(session, &question, Patience(&top->options));
	if (answer == NULL)
		Fail(session->status, "%s", session->message);
	keep_answer(top, answer);
	top->next_at = BootTime() + top->interval;
}

/* Signals arrive where the loop waits; threads are born without them. */
static void
prepare_to_wait(Top *top)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH};
	sigset_t	set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaddset(&set, signals[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	top->signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (top->signals < 0 || pipe(top->dialled) != 0)
		Fail(STATUS_FAILED, "could not make a descriptor: %m");
}

static void
open_screen(void)
{
	const char *terminal = getenv("TERM");

	if (newterm(NULL, stdout, stdin) == NULL)
		Fail(STATUS_FAILED, "top: terminal type \"%s\" cannot be used", terminal != NULL ? terminal : "");
	cbreak();
	noecho();
	nodelay(stdscr, true);
	keypad(stdscr, true);
	set_escdelay(50);
	(void) curs_set(0);
}

int
ShowTop(const Options *options)
{
	Top			top = {.options = *options};

	for (int page = 0; page < N_PAGES; page++)
		top.views[page].sort = TopPages[page].sort;
	if (options->sort != NULL)
		choose_sort(&top, options->sort);
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		Fail(STATUS_FAILED, "top needs a terminal; leasectl list, waiters and stats do not");
	top.options.quiet = true;
	top.interval = options->interval >= 0 ? options->interval : DEFAULT_INTERVAL;
	begin(&top);
	prepare_to_wait(&top);
	open_screen();
	while (!top.quit)
	{
		scroll_by(&top, 0);
		draw(&top);
		wait_and_take(&top);
		take_keys(&top);
		do_what_is_due(&top);
	}
	endwin();
	fflush(stdout);

	/* A thread may be in the middle of things that exit would take away. */
	if (top.dialling)
		_exit(0);
	return 0;
}

#endif
