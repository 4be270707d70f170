/*
 * What a container's monitor tells, and what follows from it.
 */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>
#include <monitor/status.h>

#include "cni.h"
#include "events.h"
#include "internal.h"
#include "remove.h"
#include "supervision.h"
#include "usb.h"
#include "watchdog.h"

void container_started(struct container *container, int pid, int64_t started)
{
    struct record_container *record = container->record;

    container_set_state(container, CONTAINER_RUNNING);
    container_set_error(container, NULL);
    record->pid = pid;
    record->has_pid = true;
    record->started_at = started;
    record->has_started_at = true;
    record->has_exit_code = record->has_finished_at = record->has_oom_killed = false;
    record->paused = record->has_paused = false;
    supervision_restarted(container);
    usb_container_started(container);
}

/* Why its last run could not be started, from its monitor's status file, which is in memory. Owned;
 * NULL: it ran. */
static char *failure_of(const struct container *container)
{
    _cleanup_free_ char *path = container_run_path(container, NULL);
    _cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct monitor_status status;
    char *text = NULL;

    if (fd >= 0)
        (void)monitor_status_read(fd, &status, &text, NULL);
    return text;
}

void container_restarting(struct container *container, const struct monitor_restarting *how)
{
    struct record_container *record = container->record;

    if (!container_is_active(container))
        return;
    _cleanup_free_ char *why = failure_of(container);
    container_ref(container);
    container_set_state(container, CONTAINER_RESTARTING);
    container_set_error(container, why);
    record->has_pid = false;
    record->pid = 0;
    record->exit_code = how->exit_code;
    record->oom_killed = record->has_oom_killed = how->oom;
    record->finished_at = (int64_t)how->finished;
    record->restart_count = how->restarts;
    record->has_exit_code = record->has_finished_at = record->has_restart_count = true;
    event_container_died(container, how->exit_code, how->oom,
                         (int64_t)(how->finished - how->started));
    usb_container_ended(container);
    exec_end_all(container);
    waiters_container_ended(container);
    container_unref(container);
}

void container_health_changed(struct container *container, uint32_t status)
{
    const char *name = monitor_health_name(status);
    _cleanup_free_ char *action = xasprintf("health_status: %s", name);

    if (status == MONITOR_HEALTH_NONE || text_equal(container->record->health, name))
        return;
    free(container->record->health);
    container->record->health = xstrdup(name);
    if (status != MONITOR_HEALTH_STARTING)
        event_container(container, action, NULL);
}

/* How, but not that its state is another one. */
static void write_manner(struct container *container, const struct container_end *end)
{
    struct record_container *record = container->record;

    container_set_error(container, end->why);
    record->paused = record->has_paused = false;
    record->has_pid = false;
    record->pid = 0;
    if (end->never_ran && record->has_finished_at)
        return;
    record->exit_code = end->exit_code;
    record->has_exit_code = true;
    if (end->never_ran)
        return;
    record->oom_killed = end->oom;
    record->has_oom_killed = true;
    record->finished_at = end->finished;
    record->has_finished_at = true;
}

static void write_end(struct container *container, const struct container_end *end)
{
    bool ran_before = container->record->has_finished_at;

    write_manner(container, end);
    container->record->has_monitor_pid = false;
    container_set_state(container,
                        end->never_ran && !ran_before ? CONTAINER_CREATED : CONTAINER_EXITED);
}

static void tell_end(const struct container *container, const struct container_end *end)
{
    const struct record_container *record = container->record;
    bool known = record->has_started_at && end->finished >= record->started_at && !end->never_ran;

    event_container_died(container, end->exit_code, end->oom,
                         known ? end->finished - record->started_at : -1);
}

static void tell_disconnected(const struct container *container)
{
    for (size_t i = 0; i < container->places_count; i++) {
        if (container->places[i]->held)
            event_container_network(container, container->places[i]->network, "disconnect");
    }
}

/* --- networks of plug-ins --------------------------------------------------------------------- */

struct leaving {
    struct container *container; /* a reference */
    struct container_end end;
    char *why; /* owned */
};

static void on_left(void *data)
{
    struct leaving *leaving = data;
    struct container *container = leaving->container;

    container->leaving = false;
    if (!container->engine->ending)
        container_ended(container, &leaving->end);
    container_unref(container);
    free(leaving->why);
    free(leaving);
}

/* Who is told of its end may count on its addresses being free. */
static void leave_first(struct container *container, const struct container_end *end)
{
    struct leaving *leaving = xnew(struct leaving);

    leaving->container = container_ref(container);
    leaving->end = *end;
    leaving->why = xstrdup(end->why);
    leaving->end.why = leaving->why;
    container->leaving = true;
    write_manner(container, end);
    watchdog_stop(container);
    link_destroy(steal_ptr(container->link));
    cni_leave(container, on_left, leaving);
}

void container_ended(struct container *container, const struct container_end *end)
{
    struct operation *current = container->operations;
    bool told = container->state == CONTAINER_RESTARTING && !end->lost;

    if (!container_is_active(container) || container->leaving)
        return;
    if (cni_is_attached(container)) {
        leave_first(container, end);
        return;
    }
    container_ref(container);
    log_debug("container %.12s ended with %d", container->id, end->exit_code);
    write_end(container, end);
    if (!told)
        tell_end(container, end);
    container->recovering = false;
    watchdog_stop(container);
    link_destroy(steal_ptr(container->link));
    tell_disconnected(container);
    if (!end->never_ran)
        event_container_volumes(container, "unmount");
    usb_container_ended(container);
    network_release(container);
    container_drop_attachments(container);
    exec_end_all(container);
    waiters_container_ended(container);
    if (end->lost && !container->effective->auto_remove)
        supervision_lost(container);
    /* Without --rm the monitor's status file is what counts until this commit. */
    bool restarts = current && current->kind == &restart_operation_kind;
    if (!container->effective->auto_remove)
        container_commit_end(container);
    if (current && current->kind->container_ended)
        current->kind->container_ended(current);
    if (container->effective->auto_remove && !restarts &&
        !operation_pending(container, &remove_operation_kind))
        remove_submit(container, true, NULL, NULL);
    container_unref(container);
}

static void on_exited(const struct monitor_exited *event, void *data)
{
    _cleanup_free_ char *why = failure_of(data);
    struct container_end end = {
        .exit_code = event->exit_code,
        .oom = event->oom,
        .finished = (int64_t)event->finished,
        .why = why,
    };

    container_ended(data, &end);
}

static void on_started(const struct monitor_pid *event, void *data)
{
    struct container *container = data;

    /* While a start or an adoption is under way these ask for themselves. */
    if (container->state != CONTAINER_RESTARTING)
        return;
    container_started(container, event->pid, (int64_t)event->started);
    container->record->restart_count = event->restarts;
    supervision_health_reset(container);
    event_container(container, "start", NULL);
}

static void on_restarting(const struct monitor_restarting *event, void *data)
{
    container_restarting(data, event);
}

static void on_health(const struct monitor_health *event, void *data)
{
    container_health_changed(data, event->status);
}

static void on_exec_exited(const struct monitor_exec_exited *event, void *data)
{
    exec_ended(data, event->id, event->exit_code);
}

static void on_exec_running(const struct monitor_exec_running *event, void *data)
{
    exec_adopt(data, event->id, event->pid);
}

static void on_detached(const struct monitor_detached *event, void *data)
{
    if (event->exec[0])
        event_exec(data, "exec_detach", event->exec, NULL);
    else
        event_container(data, "detach", NULL);
}

static void on_closed(void *data)
{
    struct container *container = data;

    if (container->engine->ending || container->leaving || !container_is_active(container))
        return;
    log_warning("the monitor of container %.12s is gone", container->id);
    link_destroy(steal_ptr(container->link));
    container_recover(container);
}

const struct link_handlers container_link_handlers = {
    .exited = on_exited,
    .started = on_started,
    .restarting = on_restarting,
    .health = on_health,
    .exec_exited = on_exec_exited,
    .exec_running = on_exec_running,
    .detached = on_detached,
    .closed = on_closed,
};
