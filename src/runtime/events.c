/*
 * What happens to a container, as it happens: what it uses at intervals, and processes that were
 * killed for want of memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <runtime/runtime.h>

#include <base/alloc.h>
#include <base/file.h>

#include "cgroup.h"
#include "cgroup_stats.h"
#include "state.h"

enum {
    MSEC_PER_SEC = 1000,
    NSEC_PER_MSEC = 1000000,
};

struct watch {
    const char *id;
    struct stored stored;
    struct cgroup cgroup;
    struct oci_config *config; /* owned */
    int oom_fd;                /* eventfd (v1) or inotify (v2); -1: no memory controller */
    int timer_fd;
    uint64_t oom_kills; /* v2: that were told */
    const struct runtime_watch *request;
    int result; /* of the sink */
};

static void write_event(struct watch *watch, const char *type, struct buffer *data)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    buffer_printf(&text, "{\"type\":\"%s\",\"id\":", type);
    json_quote(&text, watch->id, strlen(watch->id));
    if (data) {
        buffer_append_text(&text, ",\"data\":");
        buffer_append(&text, data->data, data->length);
    }
    buffer_append_char(&text, '}');
    watch->result = watch->request->sink(watch->request->context, buffer_text(&text));
}

static void write_stats(struct watch *watch)
{
    _cleanup_buffer_ struct buffer data = BUFFER_INIT;

    const struct oci_linux *linux = watch->config->linux;

    cgroup_stats_write(&watch->cgroup, linux ? linux->intel_rdt : NULL, watch->id, &data);
    write_event(watch, "stats", &data);
}

/* ---- out of memory */

/* v1: an eventfd is registered for memory.oom_control (memory.rst, 10). */
static int watch_oom_v1(struct watch *watch, int memory_fd, struct error *err)
{
    char text[32];
    _cleanup_close_ int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    _cleanup_close_ int control_fd = openat(memory_fd, "memory.oom_control", O_RDONLY | O_CLOEXEC);

    if (event_fd < 0 || control_fd < 0)
        return error_errno(err, errno, "watch memory.oom_control");
    int length = snprintf(text, sizeof(text), "%d %d", event_fd, control_fd);
    int r = file_write_existing_at(memory_fd, "cgroup.event_control", text, (size_t)length, err);
    if (r < 0)
        return r;
    watch->oom_fd = steal_fd(&event_fd);
    return 0;
}

/* v2: the kernel says that memory.events has changed (cgroup-v2.rst, "Basic Operations"). */
static int watch_oom_v2(struct watch *watch, struct error *err)
{
    _cleanup_free_ char *path =
        xasprintf("/proc/self/fd/%d/memory.events", watch->cgroup.hierarchies[0].fd);
    _cleanup_close_ int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

    if (fd < 0)
        return error_errno(err, errno, "inotify_init1");
    if (inotify_add_watch(fd, path, IN_MODIFY) < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "watch memory.events");
    watch->oom_kills = cgroup_oom_kills(&watch->cgroup);
    watch->oom_fd = steal_fd(&fd);
    return 0;
}

static int watch_oom(struct watch *watch, struct error *err)
{
    struct cgroup_hierarchy *memory = cgroup_hierarchy_find(&watch->cgroup, "memory");

    if (cgroup_is_none(&watch->cgroup) || !memory || memory->fd < 0)
        return 0;
    return watch->cgroup.ops->version == 2 ? watch_oom_v2(watch, err)
                                           : watch_oom_v1(watch, memory->fd, err);
}

static void take_oom(struct watch *watch)
{
    char drained[4096];
    uint64_t events = 0;
    bool v2 = watch->cgroup.ops->version == 2;
    ssize_t n = read(watch->oom_fd, v2 ? (void *)drained : (void *)&events,
                     v2 ? sizeof(drained) : sizeof(events));

    if (n <= 0)
        return;
    if (v2) {
        uint64_t kills = cgroup_oom_kills(&watch->cgroup);
        events = kills - watch->oom_kills;
        watch->oom_kills = kills;
    } else if (faccessat(cgroup_hierarchy_find(&watch->cgroup, "memory")->fd, "memory.oom_control",
                         F_OK, 0) < 0) {
        return; /* the removal of the cgroup is an event, too */
    }
    for (; events > 0 && !watch->result; events--)
        write_event(watch, "oom", NULL);
}

/* ---- the loop */

static int start_timer(struct watch *watch, uint64_t interval_ms, struct error *err)
{
    const struct timespec step = {
        .tv_sec = (time_t)(interval_ms / MSEC_PER_SEC),
        .tv_nsec = (long)(interval_ms % MSEC_PER_SEC) * NSEC_PER_MSEC,
    };
    const struct itimerspec timer = {.it_interval = step, .it_value = step};

    watch->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (watch->timer_fd < 0 || timerfd_settime(watch->timer_fd, 0, &timer, NULL) < 0)
        return error_errno(err, errno, "start a timer");
    return 0;
}

/* Until the container's first process has ended, or the caller has had enough. */
static int follow(struct watch *watch, struct error *err)
{
    struct pollfd polled[] = {
        {.fd = watch->stored.pidfd, .events = POLLIN},
        {.fd = watch->timer_fd, .events = POLLIN},
        {.fd = watch->oom_fd, .events = POLLIN},
        {.fd = watch->request->stop_fd, .events = POLLIN},
    };
    uint64_t ticks;

    while (!watch->result) {
        if (poll(polled, ARRAY_SIZE(polled), -1) < 0) {
            if (errno == EINTR)
                continue;
            return error_errno(err, errno, "wait for events");
        }
        if (polled[2].revents)
            take_oom(watch);
        if (polled[0].revents || polled[3].revents)
            break;
        if (!watch->result && polled[1].revents && read(watch->timer_fd, &ticks, sizeof(ticks)) > 0)
            write_stats(watch);
    }
    return watch->result;
}

static int load(struct watch *watch, const char *root, struct error *err)
{
    int r = state_load(&watch->stored, root, watch->id, err);

    if (r < 0)
        return r;
    if (watch->stored.pidfd < 0)
        return error_set(err, -EINVAL, "container with id %s is not running", watch->id);
    r = state_load_config(&watch->stored, &watch->config, err);
    return r < 0 ? r : state_open_cgroup(&watch->stored, &watch->cgroup, err);
}

int runtime_events(const char *root, const char *id, const struct runtime_watch *request,
                   struct error *err)
{
    struct watch watch = {
        .id = id,
        .stored = {.fd = -1, .root_fd = -1, .pidfd = -1},
        .oom_fd = -1,
        .timer_fd = -1,
        .request = request,
    };
    int r = load(&watch, root, err);

    if (r == 0 && request->interval_ms == 0) {
        write_stats(&watch);
        r = watch.result;
    } else if (r == 0) {
        r = watch_oom(&watch, err);
        if (r == 0)
            r = start_timer(&watch, request->interval_ms, err);
        if (r == 0)
            r = follow(&watch, err);
    }
    close_fd(watch.oom_fd);
    close_fd(watch.timer_fd);
    if (watch.cgroup.ops)
        cgroup_finish(&watch.cgroup);
    oci_config_free(watch.config);
    state_finish(&watch.stored);
    return r;
}
