#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "monitor_internal.h"

void deadline_set(struct monitor *monitor, enum deadline which, int64_t milliseconds)
{
    monitor->deadlines[which] = clock_milliseconds() + milliseconds;
}

void deadline_set_sooner(struct monitor *monitor, enum deadline which, int64_t milliseconds)
{
    int64_t due = clock_milliseconds() + milliseconds;

    if (!monitor->deadlines[which] || due < monitor->deadlines[which])
        monitor->deadlines[which] = due;
}

void deadline_clear(struct monitor *monitor, enum deadline which)
{
    monitor->deadlines[which] = 0;
}

void deadline_touch(struct monitor *monitor, enum deadline which, int64_t milliseconds)
{
    if (monitor->deadlines[which])
        deadline_set(monitor, which, milliseconds);
}

static void deadline_passed(struct monitor *monitor, enum deadline which)
{
    deadline_clear(monitor, which);
    switch (which) {
    case DEADLINE_STOP:
        container_stop_overdue(monitor);
        break;
    case DEADLINE_DRAIN:
        container_drained(monitor, true);
        break;
    case DEADLINE_SESSIONS:
        sessions_check(monitor);
        break;
    case DEADLINE_LINGER:
        clients_finish(monitor);
        break;
    case DEADLINE_IDLE:
        monitor_release_scratch(monitor);
        break;
    case DEADLINE_RESTART:
        restart_due(monitor);
        break;
    case DEADLINE_CHECK:
        health_check_due(monitor);
        break;
    case DEADLINE_CHECK_TIMEOUT:
        health_check_overdue(monitor);
        break;
    case DEADLINE_START:
        container_start_overdue(monitor);
        break;
    case DEADLINE_COUNT:
        break;
    }
}

/* Handles what is due; returns the time until the next deadline for epoll_wait(), -1: none. */
static int handle_deadlines(struct monitor *monitor)
{
    int64_t now = clock_milliseconds(), next = -1;

    for (enum deadline which = 0; which < DEADLINE_COUNT; which++) {
        if (monitor->deadlines[which] && monitor->deadlines[which] <= now)
            deadline_passed(monitor, which);
    }
    for (enum deadline which = 0; which < DEADLINE_COUNT; which++) {
        int64_t due = monitor->deadlines[which];
        if (due && (next < 0 || due < next))
            next = due;
    }
    if (next < 0)
        return -1;
    int64_t wait = next - now;
    return wait < 0 ? 0 : wait > 3600 * 1000 ? 3600 * 1000 : (int)wait;
}

static void signals_ready(struct monitor *monitor)
{
    struct signalfd_siginfo info;
    bool end = false, child = false;

    while (read(monitor->signals.fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            child = true;
        else
            end = true;
    }
    if (child)
        children_reap(monitor);
    /* The machine goes down: the container gets its stop signal and its time. */
    if (end)
        container_stop(monitor, 0, monitor->options->stop_timeout_ms, NULL);
}

static void dispatch(struct monitor *monitor, struct watch *watch, uint32_t events)
{
    switch (watch->type) {
    case WATCH_SIGNALS:
        signals_ready(monitor);
        break;
    case WATCH_LISTENER:
        control_listener_ready(monitor);
        break;
    case WATCH_CONTROL:
        control_ready(monitor, watch_owner(watch, struct control, watch), events);
        break;
    case WATCH_OUTPUT:
        output_ready(monitor, watch_owner(watch, struct output, watch));
        break;
    case WATCH_INPUT:
        input_ready(monitor, watch_owner(watch, struct input, watch));
        break;
    case WATCH_CLIENT:
        client_ready(monitor, watch_owner(watch, struct client, watch), events);
        break;
    case WATCH_NONE:
        break;
    }
}

int loop_once(struct monitor *monitor, struct error *err)
{
    struct epoll_event event;
    int timeout = handle_deadlines(monitor);

    if (monitor->phase == PHASE_DONE)
        return 0;
    /* One event at a time: whatever its handler frees cannot be in a batch behind it. */
    int count = epoll_wait(monitor->epoll_fd, &event, 1, timeout);
    if (count < 0 && errno != EINTR)
        return error_errno(err, errno, "wait for events");
    if (count == 1)
        dispatch(monitor, event.data.ptr, event.events);
    if (monitor->log.rotated)
        packing_begin(monitor);
    return 0;
}
