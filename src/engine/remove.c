/*
 * Removing a container: kill it when that was asked for, then, once it has ended, delete its
 * record, its snapshot and its folders, in this order: a record without files would be a container
 * that cannot start, files without a record are removed by the next daemon.
 */
#include "remove.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "events.h"
#include "supervision.h"
#include "volumes.h"
#include "pause.h"

struct remove_operation {
    struct operation base;
    struct disk_job job;
    bool force;
    struct record_change change;
    struct store *store;
    char *run_path; /* owned */
    char *id;       /* owned */
    struct error err;
};

static void remove_work(struct disk_job *job)
{
    struct remove_operation *remove = disk_job_of(job, struct remove_operation, job);

    int r = record_change_run(&remove->change, &remove->err);
    if (r >= 0)
        r = store_snapshot_remove(remove->store, remove->id, &remove->err);
    if (r >= 0)
        r = file_remove_tree_at(AT_FDCWD, remove->run_path, &remove->err);
    engine_settle(&remove->err, r);
}

static void remove_done(struct disk_job *job)
{
    struct remove_operation *remove = disk_job_of(job, struct remove_operation, job);
    struct container *container = remove->base.container;

    if (remove->err.code < 0) {
        /* The record may be gone already: the next daemon cleans up then; until that the container
         * can be removed again. */
        container_set_state(container, CONTAINER_EXITED);
        container_set_error(container, error_message(&remove->err));
        log_failure(LOG_ERROR, &remove->err, "container %.12s is not removed", container->id);
        operation_finish(&remove->base, &remove->err, false);
        return;
    }
    _cleanup_strv_ char **volumes =
        container->effective && (container->drop_volumes || container->effective->auto_remove)
            ? volumes_anonymous(container)
            : NULL;
    container_ref(container);
    container_table_remove(container);
    if (volumes)
        volumes_remove_unused(container->engine, volumes);
    event_container(container, "destroy", NULL);
    waiters_container_removed(container);
    operation_finish(&remove->base, NULL, true);
    container_unref(container);
}

static void remove_now(struct remove_operation *remove)
{
    struct container *container = remove->base.container;

    supervision_finish(container);
    container_set_state(container, CONTAINER_REMOVING);
    container_drop_attachments(container);
    record_change_remove(&remove->change, container);
    remove->store = container->engine->store;
    remove->run_path = container_run_path(container, NULL);
    remove->id = xstrdup(container->id);
    remove->job.work = remove_work;
    remove->job.done = remove_done;
    disk_submit(container->engine->disk, &remove->job);
}

/* dockerd's words: clients look for them. */
static void refuse_active(const struct container *container, struct error *err)
{
    const char *state = container_is_paused(container)             ? "paused"
                        : container->state == CONTAINER_RESTARTING ? "restarting"
                                                                   : "running";

    error_set(err, -EBUSY,
              "You cannot remove a %s container %s. %s the container before attempting removal or "
              "force remove",
              state, container->id, text_equal(state, "paused") ? "Unpause and then stop" : "Stop");
}

static void remove_begin(struct operation *operation)
{
    struct remove_operation *remove = (struct remove_operation *)operation;
    struct container *container = operation->container;
    struct monitor_stop kill = {.signal = SIGKILL, .timeout_ms = 0};

    if (container->state == CONTAINER_REMOVING) {
        error_set(&remove->err, -ENOENT, "No such container: %s", container->name);
        operation_finish(operation, &remove->err, false);
    } else if (!container_is_active(container)) {
        remove_now(remove);
    } else if (!remove->force) {
        refuse_active(container, &remove->err);
        operation_finish(operation, &remove->err, false);
    } else if (container->link) {
        /* Goes on in remove_container_ended(). */
        event_container_signal(container, SIGKILL);
        link_request(container->link, MONITOR_STOP, &kill, sizeof(kill), NULL, 0, NULL, NULL);
        container_end_pause(container);
    }
}

static void remove_container_ended(struct operation *operation)
{
    remove_now((struct remove_operation *)operation);
}

static void remove_release(struct operation *operation)
{
    struct remove_operation *remove = (struct remove_operation *)operation;

    record_change_finish(&remove->change);
    error_finish(&remove->err);
    free(remove->run_path);
    free(remove->id);
    free(remove);
}

const struct operation_kind remove_operation_kind = {
    .name = "remove",
    .begin = remove_begin,
    .container_ended = remove_container_ended,
    .release = remove_release,
};

/* An operation that is under way would make a forced removal wait (a stop with a long timeout):
 * the kill goes first then. */
static void kill_ahead(struct container *container)
{
    struct monitor_stop kill = {.signal = SIGKILL, .timeout_ms = 0};

    if (!container->operations || !container->link ||
        (container->state != CONTAINER_RUNNING && container->state != CONTAINER_RESTARTING))
        return;
    event_container_signal(container, SIGKILL);
    link_request(container->link, MONITOR_STOP, &kill, sizeof(kill), NULL, 0, NULL, NULL);
    container_end_pause(container);
}

void remove_submit(struct container *container, bool force, engine_done done, void *data)
{
    struct remove_operation *remove = xnew(struct remove_operation);

    remove->base.kind = &remove_operation_kind;
    remove->force = force;
    if (force)
        kill_ahead(container);
    operation_submit(container, &remove->base, done, data);
}

void engine_container_remove(struct container *container, bool force, bool volumes,
                             engine_done done, void *data)
{
    container->drop_volumes = container->drop_volumes || volumes;
    remove_submit(container, force, done, data);
}
