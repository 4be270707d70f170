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
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/process.h>
#include <base/socket.h>
#include <base/text.h>
#include <store/build.h>

#include "adopt.h"
#include "cgroup.h"
#include "errand.h"
#include "nameserver.h"
#include "relay.h"
#include "remove.h"
#include "spawn.h"
#include "unreadable.h"

enum {
    ADOPTION_TIMEOUT_MS = 5000, /* then the daemon serves; late answers still count */
    STARTING_POLL_MS = 20,
};

static bool has_run_folder(const struct container *container)
{
    _cleanup_free_ char *path = container_run_path(container, NULL);

    return access(path, F_OK) == 0;
}

/* --- before the network ----------------------------------------------------------------------- */

/* Its number may be another process's by now, one in the container even, which would have a socket
 * of its own at that path. */
static bool monitor_lives(const struct container *container)
{
    const struct record_container *record = container->record;
    uint64_t started;

    return record->has_monitor_pid && record->has_monitor_started &&
           process_start_time((pid_t)record->monitor_pid, &started) == 0 &&
           started == record->monitor_started;
}

/* As its monitor sees it: RUN/containers may be a mount of a daemon that was in another mount
 * namespace (folders.h). A path of that length is too long for a socket's address. */
static int connect_by_monitor(const struct container *container, const char *path)
{
    _cleanup_free_ char *seen =
        xasprintf("/proc/%d/root%s", (int)container->record->monitor_pid, path);
    _cleanup_close_ int fd = open(seen, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    char address[32];

    if (fd < 0)
        return -errno;
    snprintf(address, sizeof(address), "/proc/self/fd/%d", fd);
    return socket_connect_unix(address, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, NULL);
}

static void connect_monitor(struct container *container)
{
    _cleanup_free_ char *path = container_run_path(container, "monitor.sock");
    _cleanup_error_ struct error err = ERROR_INIT;

    int fd = socket_connect_unix(path, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, NULL);
    if (fd < 0 && monitor_lives(container)) {
        fd = connect_by_monitor(container, path);
        if (fd >= 0 && !monitor_lives(container)) { /* it was not its, then */
            close_fd(fd);
            return;
        }
    }
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
    for (size_t i = 0; i < engine->containers_count; i++) {
        if (engine->containers[i]->unreadable)
            unreadable_hold(engine->containers[i]);
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

    spawn_note_monitor(container, (pid_t)status->monitor_pid);
    container->record->started_at = (int64_t)status->started;
    container->record->has_started_at = true;
    container_restarting(container, &how);
    nameserver_adopt(container);
    relay_update(container);
    container_commit_record(container);
    log_info("container %.12s is adopted; it is being restarted", container->id);
}

static void adopt_running(struct container *container, const struct monitor_status *status)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    spawn_note_monitor(container, (pid_t)status->monitor_pid);
    bool paused = container->record->paused;
    container_started(container, status->pid, (int64_t)status->started);
    container->record->paused = container->record->has_paused = paused;
    adopt_supervision(container, status);
    nameserver_adopt(container);
    relay_update(container);
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
    if (container->state == CONTAINER_DEAD)
        return;
    if (container_is_active(container) && container->link) {
        adopt_monitor(container);
    } else if (container_is_active(container)) {
        /* Its place in the network is in nobody's tables: only the record has it. */
        container_recover(container);
    } else if (container->state == CONTAINER_REMOVING || container->effective->auto_remove) {
        /* As dockerd also one that was never started: whoever made it was cut off, too. */
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

    if (store_snapshot_list(engine->store, &ids, &err) < 0)
        log_failure(LOG_ERROR, &err, "leftovers of containers are not found");
    for (size_t i = 0; ids && ids[i]; i++) {
        _cleanup_error_ struct error own = ERROR_INIT;
        if (!is_known(engine, ids[i]) && store_snapshot_remove(engine->store, ids[i], &own) < 0)
            log_failure(LOG_ERROR, &own, "what is left of container %.12s stays", ids[i]);
    }
}

/* A run folder without a record, and whatever still runs there. */
struct orphan {
    uv_work_t work;
    struct engine *engine;
    char id[CONTAINER_ID_DIGITS + 1];
};

/* One that hangs is killed: the daemon cannot end, nor the instance be removed, before. */
static int wait_for_delete(struct process *process, struct error *err)
{
    struct pollfd ended = {.fd = process->pidfd, .events = POLLIN};

    if (poll(&ended, 1, RUNTIME_DELETE_TIMEOUT_MS) == 0)
        kill(process->pid, SIGKILL);
    return process_wait(process, &(int){0}, err);
}

static int remove_run(const struct orphan *orphan, struct error *err)
{
    const struct instance *instance = orphan->engine->instance;
    _cleanup_free_ char *path = xasprintf("%s/containers/%s", instance->run, orphan->id);
    struct process process;
    int r = spawn_delete_program(orphan->engine, orphan->id, &process, err);

    if (r == 0)
        r = wait_for_delete(&process, err);
    if (r == 0)
        r = cgroup_kill_and_remove(orphan->engine->cgroup_parent, orphan->id, err);
    return r < 0 ? r : file_remove_tree_at(AT_FDCWD, path, err);
}

static void orphan_work(uv_work_t *work)
{
    const struct orphan *orphan = work->data;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (remove_run(orphan, &err) < 0)
        log_failure(LOG_ERROR, &err, "container %.12s", orphan->id);
}

static void orphan_done(uv_work_t *work, int status)
{
    struct orphan *orphan = work->data;

    orphan->engine->image_calls--;
    free(orphan);
}

static void remove_orphan_runs(struct engine *engine)
{
    _cleanup_free_ char *path = xasprintf("%s/containers", engine->instance->run);
    _cleanup_closedir_ DIR *dir = opendir(path);
    struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        if (!text_is_hex(entry->d_name, CONTAINER_ID_DIGITS) || is_known(engine, entry->d_name))
            continue;
        log_info("removing what is left of container %.12s", entry->d_name);
        struct orphan *orphan = xnew(struct orphan);
        orphan->engine = engine;
        orphan->work.data = orphan;
        memcpy(orphan->id, entry->d_name, sizeof(orphan->id));
        engine->image_calls++;
        errand_run(engine, &orphan->work, orphan_work, orphan_done);
    }
}

/* Steps of builds that were cut off, with containers that go on: not waited for. */
struct settling {
    uv_work_t work;
    struct engine *engine;
};

static void settling_work(uv_work_t *work)
{
    const struct settling *settling = work->data;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (store_build_settle_left(settling->engine->store, &err) < 0)
        log_failure(LOG_ERROR, &err, "a step of a build that was cut off may not last");
}

static void settling_done(uv_work_t *work, int status)
{
    struct settling *settling = work->data;

    settling->engine->image_calls--;
    free(settling);
}

static void settle_steps(struct engine *engine)
{
    struct settling *settling = xnew(struct settling);

    settling->engine = engine;
    settling->work.data = settling;
    engine->image_calls++;
    errand_run(engine, &settling->work, settling_work, settling_done);
}

/* --- all of it -------------------------------------------------------------------------------- */

static bool unsettled(const struct engine *engine)
{
    if (engine->adopting || engine->image_calls)
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

/* The build has failed with its daemon, wherever it was: nobody else removes what it ran in. */
static void remove_build_steps(struct engine *engine)
{
    size_t count = engine->containers_count;
    struct container **all = xnew_array(struct container *, count + 1);

    for (size_t i = 0; i < count; i++)
        all[i] = container_ref(engine->containers[i]);
    for (size_t i = 0; i < count; i++) {
        if (all[i]->record->build_step && !operation_pending(all[i], &remove_operation_kind)) {
            log_info("removing container %.12s of a build that was cut off", all[i]->id);
            all[i]->drop_volumes = true;
            remove_submit(all[i], true, NULL, NULL);
        }
        container_unref(all[i]);
    }
    free(all);
}

void adopt_settle_all(struct engine *engine)
{
    size_t count = engine->containers_count;
    struct container **all = xnew_array(struct container *, count + 1);

    relay_replace_old(engine);
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
    remove_build_steps(engine);
    settle_steps(engine);
}
