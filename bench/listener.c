/*
 * listener.c
 *	  The other half of a LISTEN/NOTIFY round trip: for each notification on
 *	  channel "bench" one INSERT INTO effect, committed by itself.
 *
 * In C, so that the floor of the latency is the server's and not that of an
 * interpreter.  Usage: listener CONNINFO; it prints "listening" after LISTEN.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <libpq-fe.h>

static void
fail(PGconn *conn)
{
	fprintf(stderr, "listener: %s", PQerrorMessage(conn));
	exit(1);
}

static void
expect(PGconn *conn, PGresult *result, ExecStatusType status)
{
	if (PQresultStatus(result) != status)
		fail(conn);
	PQclear(result);
}

/* Notifications that arrive while an INSERT runs are found by the next turn. */
static void
answer_notifications(PGconn *conn)
{
	PGnotify   *notify;

	while ((notify = PQnotifies(conn)) != NULL)
	{
		const char *values[1] = {notify->extra};

		expect(conn, PQexecPrepared(conn, "effect", 1, values, NULL, NULL, 0),
			   PGRES_COMMAND_OK);
		PQfreemem(notify);
	}
}

int
main(int argc, char **argv)
{
	PGconn	   *conn = PQconnectdb(argc > 1 ? argv[1] : "");
	struct pollfd readable;

	if (PQstatus(conn) != CONNECTION_OK)
		fail(conn);
	expect(conn, PQprepare(conn, "effect", "INSERT INTO effect VALUES ($1)",
						   1, NULL), PGRES_COMMAND_OK);
	expect(conn, PQexec(conn, "LISTEN bench"), PGRES_COMMAND_OK);
	puts("listening");
	fflush(stdout);

	readable.fd = PQsocket(conn);
	readable.events = POLLIN;
	for (;;)
	{
		if (poll(&readable, 1, -1) < 0 || !PQconsumeInput(conn))
			fail(conn);
		answer_notifications(conn);
	}
}
