/*
 * A line on standard error that shows that work goes on, on terminals only: a spinner, what is
 * being done, a bar or the bytes that went through a file, and the time. It leaves no trace.
 */
#ifndef CLOCHE_PROGRESS_H
#define CLOCHE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct progress {
    const char *what; /* "Loading" */
    int fd;           /* whose file position tells the bytes (shared with the daemon); -1: none */
    uint64_t total;   /* bytes in all; 0: not known */
    uint64_t steps_done, steps; /* what the daemon tells; steps 0: nothing */
    struct timespec started;
    unsigned turns;
    bool shown;
};

/* quiet, or no terminal: nothing will be shown. */
void progress_start(struct progress *progress, const char *what, int fd, bool quiet);

/* For cli_call_with_fd(): shows the line anew. */
void progress_tick(void *progress);

struct rpc_progress;

/* For rpc_client_on_progress(): how many steps of how many are done. */
void progress_take(const struct rpc_progress *told, void *progress);

/* Takes the line away. */
void progress_end(struct progress *progress);

#endif
