#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/loop.h>

struct child {
    uv_poll_t poll;
    uv_timer_t timer;
    struct process process;
    loop_child_ended ended;
    void *data;
    unsigned open_handles;
};

static void on_closed(uv_handle_t *handle)
{
    struct child *child = handle->data;

    if (--child->open_handles == 0) {
        close_fd(child->process.pidfd);
        free(child);
    }
}

static void on_timeout(uv_timer_t *timer)
{
    struct child *child = timer->data;

    syscall(SYS_pidfd_send_signal, child->process.pidfd, SIGKILL, NULL, 0);
}

static void on_ended(uv_poll_t *poll, int status, int events)
{
    struct child *child = poll->data;
    int wait_status = 0;

    if (waitpid(child->process.pid, &wait_status, WNOHANG) == 0)
        return;
    uv_close((uv_handle_t *)&child->poll, on_closed);
    uv_close((uv_handle_t *)&child->timer, on_closed);
    if (child->ended)
        child->ended(wait_status, child->data);
}

int loop_watch_child(uv_loop_t *loop, struct process *process, unsigned timeout_ms,
                     loop_child_ended ended, void *data, struct error *err)
{
    struct child *child = xnew(struct child);

    child->process = *process;
    child->ended = ended;
    child->data = data;
    int r = uv_poll_init(loop, &child->poll, process->pidfd);
    if (r < 0) {
        free(child);
        return error_errno(err, -r, "watch process %d", process->pid);
    }
    process->pidfd = -1;
    uv_timer_init(loop, &child->timer);
    child->open_handles = 2;
    child->poll.data = child->timer.data = child;
    if (!ended) {
        uv_unref((uv_handle_t *)&child->poll);
        uv_unref((uv_handle_t *)&child->timer);
    }
    if (timeout_ms)
        uv_timer_start(&child->timer, on_timeout, timeout_ms, 0);
    uv_poll_start(&child->poll, UV_READABLE, on_ended);
    return 0;
}

static void forget(uv_handle_t *handle, void *data)
{
    if (handle->type != UV_POLL || uv_is_closing(handle) ||
        ((uv_poll_t *)handle)->poll_cb != on_ended)
        return;
    struct child *child = handle->data;
    uv_close((uv_handle_t *)&child->poll, on_closed);
    uv_close((uv_handle_t *)&child->timer, on_closed);
}

void loop_forget_children(uv_loop_t *loop)
{
    uv_walk(loop, forget, NULL);
}
