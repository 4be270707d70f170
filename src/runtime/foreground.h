/*
 * A run or exec that is not detached: stays with the process until its end.
 */
#ifndef RUNTIME_FOREGROUND_H
#define RUNTIME_FOREGROUND_H

#include <stdbool.h>
#include <sys/types.h>

#include <base/error.h>

/* From before the program is released on, so that no signal falls between that and the wait. */
void foreground_block_signals(void);

struct notify;

/* Waits for the child pid. Signals that arrive meanwhile are passed on to it; with a terminal
 * (master_fd >= 0, not owned) the caller's standard input and output are copied, the caller's
 * terminal is raw and its size is passed on. Returns when the process has ended and its output is
 * written; ret_code as a shell has it. notify may be NULL: what the container says there is served,
 * too. *ret_unexecuted (may be NULL): it was killed before it could execute a program. */
int foreground_wait(pid_t pid, int master_fd, struct notify *notify, int *ret_code,
                    bool *ret_unexecuted, struct error *err);

#endif
