/*
 * session.h - a connection, questions and answers, each bounded in time
 */
#ifndef SESSION_H
#define SESSION_H

#include <libpq-fe.h>

#include "leasectl.h"

#define FOREVER INT64_MAX
#define LONGEST_LINE 4096

/* Types of parameters and results, from the server's catalog; fixed for ever. */
enum
{
	BOOL_OID = 16,
	INT8_OID = 20,
	INT4_OID = 23,
	TEXT_OID = 25,
	FLOAT8_OID = 701,
	INTERVAL_OID = 1186,
	TEXT_ARRAY_OID = 1009,
	JSONB_OID = 3802
};

/*
 * A statement and its parameters.  It is written from left to right, with printf's
 * formats, and numbers the parameters itself: nothing that a user typed ever is part
 * of its text.
 */
#define MAX_PARAMETERS 24
typedef struct Question
{
	char		sql[8192];
	size_t		length;
	int			n;
	Oid			types[MAX_PARAMETERS];
	const char *values[MAX_PARAMETERS];
	char		numbers[MAX_PARAMETERS][32];
} Question;

extern void AddSql(Question *question, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* These add "$1" and the like; a value that is NULL is an SQL NULL. */
extern void AddParameter(Question *question, Oid type, const char *value);
extern void AddNumber(Question *question, Oid type, int64_t number);
extern void AddInterval(Question *question, int64_t duration);

typedef struct Session
{
	const Options *options;
	PGconn	   *connection;		/* NULL: there is none */
	PGresult   *pending;		/* part of an answer */
	int			status;			/* of the last failure, and what it was */
	char		message[LONGEST_LINE];
	char		farewell[LONGEST_LINE];	/* why the server is about to hang up */
} Session;

/* These return false or NULL upon failure, which is in the session then. */
extern bool OpenSession(Session *session, const Options *options);
extern PGresult *Ask(Session *session, const Question *question, int64_t patience);
extern void CloseSession(Session *session);

/* The connection was found to be lost: note why, and close it. */
extern void LoseSession(Session *session);

/* Ask's halves, for those who watch other descriptors, too (PQsocket). */
extern bool SendQuestion(Session *session, const Question *question);
extern bool ReceiveAnswer(Session *session, PGresult **answer);

/* The answer did not come in time: have it cancelled, and end the connection. */
extern void AbandonQuestion(Session *session);

/*
 * Connect, ask one thing, and have its answer; or the end.  Tells which encoding (as
 * libpq numbers them) the answer is in, unless encoding is NULL.
 */
extern PGresult *AskOnce(const Options *options, const Question *question, int64_t patience, int *encoding);

/* How long an answer may take. */
extern int64_t Patience(const Options *options);

/* CLOCK_BOOTTIME in microseconds. */
extern int64_t BootTime(void);

/* Who takes a lease, unless told otherwise: user@host:pid. */
extern const char *DefaultHolder(void);

/*
 * An error in words: the exit status that belongs to an SQLSTATE (NULL or "" is a
 * connection that failed), what a user may do about it ("" if nothing comes to mind),
 * and an answer that is an error as one line, which ends with that.
 */
extern int	StatusOfError(const char *sqlstate);
extern const char *AdviceForError(const char *sqlstate);
extern void DescribeError(const PGresult *result, char *line, size_t size);

#endif
