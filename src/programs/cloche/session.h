/*
 * An attached container or exec session: its stream on the user's terminal, its signals and sizes,
 * and its exit code, also when the daemon dies meanwhile (the stream is the monitor's and lives
 * on).
 */
#ifndef CLOCHE_SESSION_H
#define CLOCHE_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "cli.h"
#include "stream.h"

struct session {
    struct cli *cli;
    const char *container; /* full ID */
    const char *exec_id;   /* NULL: the container's own program */
    const char *condition; /* of container.wait: "next-exit", "removed", "not-running" */
    uint64_t wait_id;      /* request in flight; 0: none */
    int reconnect_timer;   /* timerfd; -1 while the connection stands */
    bool answered;         /* its answer has come and waits to be taken */
};

/* stdin takes part, the container has a terminal, and ours is none: docker's message. */
int session_check_terminal(bool with_stdin, bool tty, struct error *err);

/* Asks for the end, without waiting for it: before the start, so that no end is missed. */
int session_begin(struct session *session, struct error *err);

/* Runs the stream to its end (see stream_run), passing signals and sizes on to the engine. */
int session_run(struct session *session, struct stream *stream, int signals,
                enum stream_end *ret_end, struct error *err);

/* The exit code, after the stream's end. Blocks until the engine knows it. */
int session_exit_code(struct session *session, int *ret_code, struct error *err);

/* What the program's exit code is after a run that went this way: the container's, or what the
 * way of parting asks for. Reports errors. detached: exit code after the detach keys. */
int session_finish(struct session *session, const struct stream *stream, enum stream_end end,
                   int detached);

#endif
