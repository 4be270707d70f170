#include "watchdog.h"

#include <errno.h>
#include <signal.h>

#include <base/alloc.h>
#include <base/log.h>

#include "events.h"
#include "pause.h"
#include "remove.h"
#include "stop.h"
#include "usb.h"

enum {
    KILL_WAIT_MS = 5000,    /* from SIGKILL to the question whether the monitor lives */
    ANSWER_WAIT_MS = 10000, /* then it does not */
    QUESTIONS_PATIENT = 2,  /* then the sticks of the container are taken from it */
    QUESTIONS_MAX = 6,      /* while the monitor says that the process is still there */
};

enum stage { WAIT_FOR_KILL, WAIT_FOR_END, WAIT_FOR_ANSWER };

struct watchdog {
    uv_timer_t timer;
    struct container *container; /* a reference */
    enum stage stage;
    uint64_t due; /* of SIGKILL; uv_now() */
    unsigned questions;
};

static void on_closed(uv_handle_t *handle)
{
    struct watchdog *watchdog = handle->data;

    container_unref(watchdog->container);
    free(watchdog);
}

void watchdog_stop(struct container *container)
{
    struct watchdog *watchdog = steal_ptr(container->watchdog);

    if (watchdog)
        uv_close((uv_handle_t *)&watchdog->timer, on_closed);
}

bool watchdog_has_killed(const struct container *container)
{
    return container->watchdog && container->watchdog->stage != WAIT_FOR_KILL;
}

static void on_timer(uv_timer_t *timer);

static void wait_for(struct watchdog *watchdog, enum stage stage, uint64_t milliseconds)
{
    watchdog->stage = stage;
    uv_timer_start(&watchdog->timer, on_timer, milliseconds, 0);
}

/* The link is open, so that the process lives and its number is its own. */
static void kill_monitor(struct container *container)
{
    pid_t pid = (pid_t)container->record->monitor_pid;

    log_warning("the monitor of container %.12s does not answer: it is killed", container->id);
    if (container->record->has_monitor_pid && pid > 1)
        kill(pid, SIGKILL);
    link_destroy(steal_ptr(container->link));
    container_recover(container);
}

static void give_up(struct container *container)
{
    struct operation *current = container->operations;
    _cleanup_error_ struct error err = ERROR_INIT;

    error_set(&err, -ETIMEDOUT,
              "tried to kill container %s, but it did not end: a process of it does not react",
              container->name);
    log_warning("%s", error_message(&err));
    if (current && (stop_is_kind(current->kind) || current->kind == &remove_operation_kind))
        operation_finish(current, &err, false);
    waiters_kill_failed(container, &err);
}

static void on_answer(const struct link_message *message, void *data)
{
    struct container *container = data;
    struct watchdog *watchdog = container->watchdog;
    struct monitor_status status;

    if (watchdog && watchdog->stage == WAIT_FOR_ANSWER && link_status(message, &status)) {
        bool often = ++watchdog->questions >= QUESTIONS_MAX;
        if (status.pid > 0)
            usb_container_stuck(container, watchdog->questions == QUESTIONS_PATIENT);
        if (often)
            watchdog_stop(container);
        if (often && status.pid > 0) {
            give_up(container);
        } else if (often) { /* what cleans up after it hangs */
            kill_monitor(container);
        } else {
            wait_for(watchdog, WAIT_FOR_END, KILL_WAIT_MS);
        }
    }
    container_unref(container);
}

static void ask(struct watchdog *watchdog)
{
    struct container *container = watchdog->container;

    wait_for(watchdog, WAIT_FOR_ANSWER, ANSWER_WAIT_MS);
    link_request(container->link, MONITOR_STATUS, NULL, 0, NULL, 0, on_answer,
                 container_ref(container));
}

static void on_timer(uv_timer_t *timer)
{
    struct watchdog *watchdog = timer->data;
    struct container *container = watchdog->container;

    if (!container->link || !container_is_active(container)) {
        watchdog_stop(container);
    } else if (watchdog->stage == WAIT_FOR_KILL) {
        /* The monitor sends it now. */
        if (container->state == CONTAINER_RUNNING)
            event_container_signal(container, SIGKILL);
        container_end_pause(container);
        wait_for(watchdog, WAIT_FOR_END, KILL_WAIT_MS);
    } else if (watchdog->stage == WAIT_FOR_END) {
        ask(watchdog);
    } else {
        container_ref(container);
        watchdog_stop(container);
        kill_monitor(container);
        container_unref(container);
    }
}

void watchdog_start(struct container *container, int32_t timeout_ms)
{
    struct watchdog *watchdog = container->watchdog;
    uint64_t due = uv_now(container->engine->loop) + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0);

    if (timeout_ms < 0 || (watchdog && (watchdog->stage != WAIT_FOR_KILL || watchdog->due <= due)))
        return;
    if (!watchdog) {
        watchdog = xnew(struct watchdog);
        watchdog->container = container_ref(container);
        watchdog->timer.data = watchdog;
        uv_timer_init(container->engine->loop, &watchdog->timer);
        container->watchdog = watchdog;
    }
    watchdog->due = due;
    if (timeout_ms > 0)
        wait_for(watchdog, WAIT_FOR_KILL, (uint64_t)timeout_ms);
    else
        wait_for(watchdog, WAIT_FOR_END, KILL_WAIT_MS);
}
