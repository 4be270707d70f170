#include "stall.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/file.h>

enum { LOOK_MS = 1000, PROC_FILE_MAX = 4096 };

struct stall {
    uv_timer_t timer;
    pid_t pid;
    uint64_t moved; /* bytes so far */
    unsigned looks; /* that have seen no more */
    void (*on_stalled)(void *data);
    void *data;
};

static uint64_t number_behind(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

/* proc_pid_io(5): by any kind of call, sockets and pipes, too. */
static uint64_t bytes_of(pid_t pid)
{
    _cleanup_free_ char *path = xasprintf("/proc/%d/io", pid);
    _cleanup_free_ char *text = NULL;

    if (file_read_at(AT_FDCWD, path, PROC_FILE_MAX, &text, NULL, NULL) < 0)
        return 0;
    return number_behind(text, "rchar: ") + number_behind(text, "wchar: ");
}

/* The worker is the child of what was started, in a namespace of its own. 0: nobody can tell. */
static uint64_t bytes_of_children(pid_t pid)
{
    _cleanup_free_ char *path = xasprintf("/proc/%d/task/%d/children", pid, pid);
    _cleanup_free_ char *text = NULL;
    uint64_t bytes = 0;

    if (file_read_at(AT_FDCWD, path, PROC_FILE_MAX, &text, NULL, NULL) < 0)
        return 0;
    for (char *at = text, *end; (pid = (pid_t)strtol(at, &end, 10)) > 0; at = end)
        bytes += bytes_of(pid);
    return bytes;
}

static void on_look(uv_timer_t *timer)
{
    struct stall *stall = timer->data;
    uint64_t moved = bytes_of_children(stall->pid);

    stall->looks = moved && moved == stall->moved ? stall->looks + 1 : 0;
    stall->moved = moved;
    if (stall->looks < STALL_SECONDS * 1000 / LOOK_MS)
        return;
    uv_timer_stop(timer);
    stall->on_stalled(stall->data);
}

struct stall *stall_watch(uv_loop_t *loop, pid_t pid, void (*on_stalled)(void *data), void *data)
{
    struct stall *stall = xnew(struct stall);

    stall->pid = pid;
    stall->moved = bytes_of_children(pid);
    stall->on_stalled = on_stalled;
    stall->data = data;
    stall->timer.data = stall;
    uv_timer_init(loop, &stall->timer);
    uv_timer_start(&stall->timer, on_look, LOOK_MS, LOOK_MS);
    return stall;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void stall_forget(struct stall *stall)
{
    if (stall)
        uv_close((uv_handle_t *)&stall->timer, on_closed);
}
