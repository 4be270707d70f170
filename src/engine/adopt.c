/*
 * After an earlier daemon's end: what became of each container is asked from its monitor, or read
 * from what the monitor left. Rules: whoever lives is adopted; who ended is recorded with its exit
 * code; whose monitor was killed is cleaned and recorded with status unknown; what was half made or
 * half removed goes.
 *
 *     connect_all     who has a monitor? their places in the network are reserved
 *     (network_setup by engine_create: the rules hold exactly these)
 *     settle_all      HELLO to those who live, recovery of the others, removal of leftovers
 *     run the loop until all have answered
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/socket.h>
#include <base/text.h>

#include "adopt.h"
#include "cgroup.h"
#include "nameserver.h"
#include "remove.h"
#include "spawn.h"

enum {
    ADOPTION_TIMEOUT_MS = 15000, /* then the daemon serves; late answers still count */
    STARTING_POLL_MS = 20,
};

static bool has_run_folder(const struct container *container)
{
    _cleanup_free_ char *path = container_run_path(container, NULL);

    return access(path, F_OK) == 0;
}

/* --- before the network ----------------------------------------------------------------------- */

static void connect_monitor(struct container *container)
{
    _cleanup_free_ char *path = container_run_path(container, "monitor.sock");
    _cleanup_error_ struct error err = ERROR_INIT;

    int fd = socket_connect_unix(path, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, NULL);
    if (fd < 0)
        return;
    if (link_create(container->engine->loop, fd, &container_link_handlers, container,
                    &container->link, &err) < 0)
        log_failure(LOG_ERROR, &err, "container %.12s cannot be adopted", container->id);
}

void adopt_connect_all(struct engine *engine)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        struct container *container = engine->containers[i];
        if (!container_is_active(container))
            continue;
        connect_monitor(container);
        if (container->link)
            network_restore(container);
    }
}

/* --- the living ------------------------------------------------------------------------------- */

struct adoption {
    struct container *container; /* a reference */
    uv_timer_t timer;            /* asks again while the container starts */
};

static void on_status(const struct link_message *message, void *data);

static void adoption_closed(uv_handle_t *handle)
{
    struct adoption *adoption = handle->data;

    container_unref(adoption->container);
    free(adoption);
}

static void adoption_finish(struct adoption *adoption)
{
    adoption->container->engine->adopting--;
    uv_close((uv_handle_t *)&adoption->timer, adoption_closed);
}

static void ask_again(uv_timer_t *timer)
{
    struct adoption *adoption = timer->data;
    struct container *container = adoption->container;

    if (container->link)
        link_request(container->link, MONITOR_STATUS, NULL, 0, NULL, 0, on_status, adoption);
    else
        adoption_finish(adoption);
}

static void lose_monitor(struct container *container)
{
    link_destroy(steal_ptr(container->link));
    container_recover(container);
}

static void adopt_supervision(struct container *container, const struct monitor_status *status)
{
    struct record_container *record = container->record;

    record->restart_count = status->restarts;
    record->has_restart_count = status->restarts != 0;
    container_health_changed(container, status->health);
}

/* Its last run ended while no daemon lived, or just now. */
static void adopt_restarting(struct container *container, const struct monitor_status *status)
{
    const struct monitor_restarting how = {
        .exit_code = status->exit_code,
        .oom = status->oom,
        .started = status->started,
        .finished = status->finished,
        .restarts = status->restarts,
    };

    container->record->monitor_pid = status->monitor_pid;
    container->record->has_monitor_pid = true;
    container->record->started_at = (int64_t)status->started;
    container->record->has_started_at = true;
    container_restarting(container, &how);
    nameserver_adopt(container);
    container_commit_record(container);
    log_info("container %.12s is adopted; it is being restarted", container->id);
}

static void adopt_running(struct container *container, const struct monitor_status *status)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    container->record->monitor_pid = status->monitor_pid;
    container->record->has_monitor_pid = true;
    bool paused = container->record->paused;
    container_started(container, status->pid, (int64_t)status->started);
    container->record->paused = container->record->has_paused = paused;
    adopt_supervision(container, status);
    nameserver_adopt(container);
    container_commit_record(container);
    /* An earlier daemon may have died in the middle of a commit. */
    if (!paused &&
        cgroup_freeze(container_cgroup_parent(container), container->id, false, &err) < 0)
        log_failure(LOG_WARNING, &err, "container %.12s", container->id);
    log_info("container %.12s is adopted", container->id);
}

/* A monitor of an engine before this one. */
static bool is_older(const struct container *container, const struct link_message *message)
{
    return container->link && message->type == MONITOR_ERROR &&
           link_version(container->link) == MONITOR_PROTOCOL_VERSION &&
           link_error(message, NULL) == -EPROTONOSUPPORT;
}

static void on_status(const struct link_message *message, void *data)
{
    struct adoption *adoption = data;
    struct container *container = adoption->container;
    struct monitor_status status;
    bool known = link_status(message, &status);

    if (!container_is_active(container)) {
        adoption_finish(adoption);
    } else if (is_older(container, message)) {
        link_set_version(container->link, MONITOR_PROTOCOL_VERSION - 1);
        link_request(container->link, MONITOR_HELLO, NULL, 0, NULL, 0, on_status, adoption);
    } else if (known && status.state == MONITOR_STATE_STARTING) {
        uv_timer_start(&adoption->timer, ask_again, STARTING_POLL_MS, 0);
    } else {
        if (known && status.state == MONITOR_STATE_RUNNING)
            adopt_running(container, &status);
        else if (known && status.state == MONITOR_STATE_RESTARTING)
            adopt_restarting(container, &status);
        else
            lose_monitor(container);
        adoption_finish(adoption);
    }
}

static void adopt_monitor(struct container *container)
{
    struct adoption *adoption = xnew(struct adoption);

    adoption->container = container_ref(container);
    uv_timer_init(container->engine->loop, &adoption->timer);
    adoption->timer.data = adoption;
    container->engine->adopting++;
    link_request(container->link, MONITOR_HELLO, NULL, 0, NULL, 0, on_status, adoption);
}

/* --- the others ------------------------------------------------------------------------------- */

static void settle(struct container *container)
{
    if (container_is_active(container) && container->link) {
        adopt_monitor(container);
    } else if (container_is_active(container)) {
        /* Its place in the network is in nobody's tables: only the record has it. */
        container_recover(container);
    } else if (container->state == CONTAINER_REMOVING ||
               (container->state == CONTAINER_EXITED && container->effective->auto_remove)) {
        container_set_state(container, CONTAINER_EXITED);
        remove_submit(container, true, NULL, NULL);
    } else if (has_run_folder(container)) {
        container_commit_end(container);
    }
}

static bool is_known(struct engine *engine, const char *id)
{
    for (size_t i = 0; i < engine->containers_count; i++) {
        if (text_equal(engine->containers[i]->id, id))
            return true;
    }
    return false;
}

/* Snapshots without a record: a creation or removal that was cut off. */
static void remove_orphan_snapshots(struct engine *engine)
{
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_strv_ char **ids = NULL;

    int r = store_snapshot_list(engine->store, &ids, &err);
    for (size_t i = 0; r >= 0 && ids && ids[i]; i++) {
        if (!is_known(engine, ids[i]))
            r = store_snapshot_remove(engine->store, ids[i], &err);
    }
    if (r < 0)
        log_failure(LOG_ERROR, &err, "leftovers of containers cannot be removed");
}

/* Run folders without a record, and whatever still runs there. */
static void remove_orphan_runs(struct engine *engine)
{
    _cleanup_free_ char *path = xasprintf("%s/containers", engine->instance->run);
    _cleanup_closedir_ DIR *dir = opendir(path);
    struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        _cleanup_error_ struct error err = ERROR_INIT;
        if (!text_is_hex(entry->d_name, CONTAINER_ID_DIGITS) || is_known(engine, entry->d_name))
            continue;
        log_info("removing what is left of container %.12s", entry->d_name);
        if (spawn_runtime_delete(engine, entry->d_name, NULL, NULL, &err) < 0 ||
            cgroup_kill_and_remove(engine->instance->cgroup_parent, entry->d_name, &err) < 0 ||
            file_remove_tree_at(dirfd(dir), entry->d_name, &err) < 0)
            log_failure(LOG_ERROR, &err, "container %.12s", entry->d_name);
    }
}

/* --- all of it -------------------------------------------------------------------------------- */

static bool unsettled(const struct engine *engine)
{
    if (engine->adopting)
        return true;
    for (size_t i = 0; i < engine->containers_count; i++) {
        if (engine->containers[i]->recovering || engine->containers[i]->operations)
            return true;
    }
    return false;
}

static void on_timeout(uv_timer_t *timer)
{
    struct engine *engine = timer->data;

    engine->adoption_late = true;
}

static void run_until_settled(struct engine *engine)
{
    uv_timer_init(engine->loop, &engine->adoption_timer);
    engine->adoption_timer.data = engine;
    uv_timer_start(&engine->adoption_timer, on_timeout, ADOPTION_TIMEOUT_MS, 0);
    while (!engine->adoption_late && unsettled(engine))
        uv_run(engine->loop, UV_RUN_ONCE);
    if (engine->adoption_late)
        log_warning("not every monitor has answered in time");
    uv_close((uv_handle_t *)&engine->adoption_timer, NULL);
}

void adopt_settle_all(struct engine *engine)
{
    size_t count = engine->containers_count;
    struct container **all = xnew_array(struct container *, count + 1);

    remove_orphan_snapshots(engine);
    remove_orphan_runs(engine);
    /* The table changes while containers are settled. */
    for (size_t i = 0; i < count; i++)
        all[i] = container_ref(engine->containers[i]);
    for (size_t i = 0; i < count; i++) {
        settle(all[i]);
        container_unref(all[i]);
    }
    free(all);
    run_until_settled(engine);
}
