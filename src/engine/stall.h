/*
 * Whether a worker that reads and writes for a client goes on: one whose client has stopped looks
 * like any other that waits, but neither reads nor writes a byte.
 */
#ifndef ENGINE_STALL_H
#define ENGINE_STALL_H

#include <sys/types.h>
#include <uv.h>

enum { STALL_SECONDS = 10 };

struct stall;

/* Calls on_stalled once when the children of a process have neither read nor written for
 * STALL_SECONDS, never where nobody can tell (a kernel without PROC_CHILDREN). That may call
 * stall_forget(). */
struct stall *stall_watch(uv_loop_t *loop, pid_t pid, void (*on_stalled)(void *data), void *data);
void stall_forget(struct stall *stall); /* NULL allowed */

#endif
