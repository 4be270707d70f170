/*
 * Removing a container: kill it when that was asked for, then, once it has ended, delete its
 * record, its snapshot and its folders, in this order: a record without files would be a container
 * that cannot start, files without a record are removed by the next daemon.
 *
 * One that removes itself is gone for those who wait when its records are: the files follow at
 * once, before anything else that the disk thread is asked for after it.
 */
#include "remove.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "cgroup.h"
#include "events.h"
#include "supervision.h"
#include "volumes.h"
#include "pause.h"
#include "stop.h"
#include "unreadable.h"
#include "watchdog.h"

struct remove_operation {
    struct operation base;
    struct disk_job job;
    bool force;
    bool by_itself;            /* nobody has asked: --rm */
    struct clearing *clearing; /* of one that removes itself, else NULL; the disk thread's */
    struct record_change change;
    struct record_change change_back; /* when it fails half way */
    bool row_gone;
    enum container_state before;
    char *cgroup_parent; /* owned */
    struct store *store;
    char *run_path; /* owned */
    char *id;       /* owned */
    struct error err;
};

/* What is left of a container that nobody knows any more. */
struct clearing {
    struct disk_job job;
    struct store *store;
    char *run_path; /* owned */
    char *id;       /* owned */
    bool forgotten; /* its records are gone; told by forget_work() before, on the same thread */
    bool last;      /* of its image */
};

static void clearing_work(struct disk_job *job)
{
    struct clearing *clearing = disk_job_of(job, struct clearing, job);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (!clearing->forgotten)
        return;
    int r = store_snapshot_clear(clearing->store, clearing->id, clearing->last, &err);
    if (r == 0)
        r = file_remove_tree_at(AT_FDCWD, clearing->run_path, &err);
    if (r < 0)
        log_failure(LOG_ERROR, &err, "files of container %.12s are left", clearing->id);
}

static void clearing_done(struct disk_job *job)
{
    struct clearing *clearing = disk_job_of(job, struct clearing, job);

    free(clearing->run_path);
    free(clearing->id);
    free(clearing);
}

static void remove_work(struct disk_job *job)
{
    struct remove_operation *remove = disk_job_of(job, struct remove_operation, job);

    int r = cgroup_check_empty(remove->cgroup_parent, remove->id, &remove->err);
    if (r >= 0)
        r = record_change_run(&remove->change, &remove->err);
    remove->row_gone = r >= 0;
    if (r >= 0)
        r = store_snapshot_remove(remove->store, remove->id, &remove->err);
    if (r >= 0)
        r = file_remove_tree_at(AT_FDCWD, remove->run_path, &remove->err);
    engine_settle(&remove->err, r);
}

static int forget(struct remove_operation *remove, bool *ret_last, struct error *err)
{
    struct store_db *db = store_database(remove->store);
    int r = store_db_begin_relaxed(db, err);

    if (r < 0)
        return r;
    _cleanup_store_rollback_ struct store_db *transaction = db;
    r = record_change_run(&remove->change, err);
    if (r >= 0)
        r = store_snapshot_forget(remove->store, remove->id, ret_last, err);
    return r < 0 ? r : store_db_commit(transaction, err);
}

static void forget_work(struct disk_job *job)
{
    struct remove_operation *remove = disk_job_of(job, struct remove_operation, job);

    int r = cgroup_check_empty(remove->cgroup_parent, remove->id, &remove->err);
    if (r >= 0)
        r = forget(remove, &remove->clearing->last, &remove->err);
    remove->clearing->forgotten = r >= 0;
    engine_settle(&remove->err, r);
}

static struct clearing *clearing_create(const struct remove_operation *remove)
{
    struct clearing *clearing = xnew(struct clearing);

    clearing->store = remove->store;
    clearing->run_path = xstrdup(remove->run_path);
    clearing->id = xstrdup(remove->id);
    clearing->job.work = clearing_work;
    clearing->job.done = clearing_done;
    return clearing;
}

static void back_work(struct disk_job *job)
{
    struct remove_operation *remove = disk_job_of(job, struct remove_operation, job);
    _cleanup_error_ struct error err = ERROR_INIT;

    if (record_change_run(&remove->change_back, &err) < 0)
        log_failure(LOG_ERROR, &err, "container %.12s has no record", remove->id);
}

static void back_done(struct disk_job *job)
{
    struct remove_operation *remove = disk_job_of(job, struct remove_operation, job);

    operation_finish(&remove->base, &remove->err, false);
}

/* As with docker, what is left of it can be removed again, and nothing else. */
static void remove_failed(struct remove_operation *remove)
{
    struct container *container = remove->base.container;

    log_failure(LOG_ERROR, &remove->err, "container %.12s is not removed", container->id);
    container_set_state(container, remove->row_gone || container->unreadable ? CONTAINER_DEAD
                                                                             : remove->before);
    container_set_error(container, error_message(&remove->err));
    if (!remove->row_gone) {
        operation_finish(&remove->base, &remove->err, false);
        return;
    }
    /* Whatever its row was, it is ours now. */
    container->unreadable = false;
    record_change_insert(&remove->change_back, container);
    remove->job.work = back_work;
    remove->job.done = back_done;
    disk_submit(container->engine->disk, &remove->job);
}

static void remove_done(struct disk_job *job)
{
    struct remove_operation *remove = disk_job_of(job, struct remove_operation, job);
    struct container *container = remove->base.container;

    if (remove->err.code < 0) {
        remove_failed(remove);
        return;
    }
    _cleanup_strv_ char **volumes =
        container->effective && (container->drop_volumes || container->effective->auto_remove)
            ? volumes_anonymous(container)
            : NULL;
    unreadable_release(container);
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

    if (container_holds_back(&remove->base, true))
        return;
    supervision_finish(container);
    remove->before = container->state;
    container_set_state(container, CONTAINER_REMOVING);
    container_drop_attachments(container);
    record_change_remove(&remove->change, container);
    remove->store = container->engine->store;
    remove->run_path = container_run_path(container, NULL);
    remove->id = xstrdup(container->id);
    remove->cgroup_parent = xstrdup(container_cgroup_parent(container));
    remove->job.work = remove->by_itself ? forget_work : remove_work;
    remove->job.done = remove_done;
    if (remove->by_itself)
        remove->clearing = clearing_create(remove);
    disk_submit(container->engine->disk, &remove->job);
    if (remove->by_itself)
        disk_submit(container->engine->disk, &remove->clearing->job);
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

static bool has_run_folder(const struct container *container)
{
    _cleanup_free_ char *path = container_run_path(container, NULL);

    return access(path, F_OK) == 0;
}

static void remove_begin(struct operation *operation)
{
    struct remove_operation *remove = (struct remove_operation *)operation;
    struct container *container = operation->container;
    struct monitor_stop kill = {.signal = SIGKILL, .timeout_ms = 0};

    if (container->state == CONTAINER_REMOVING) {
        error_set(&remove->err, -ENOENT, "No such container: %s", container->name);
        operation_finish(operation, &remove->err, false);
    } else if (container->unreadable && !remove->force && has_run_folder(container)) {
        error_set(&remove->err, -EBUSY,
                  "the record of container %s cannot be read, and it may still be running",
                  container->id);
        error_hint(&remove->err,
                   "start the version of cloched that wrote it, or force the removal");
        operation_finish(operation, &remove->err, false);
    } else if (container->unreadable && has_run_folder(container)) {
        unreadable_kill(container); /* goes on in remove_container_ended() */
    } else if (!container_is_active(container)) {
        remove_now(remove);
    } else if (!remove->force) {
        refuse_active(container, &remove->err);
        operation_finish(operation, &remove->err, false);
    } else if (container->link) {
        /* Goes on in remove_container_ended(). */
        event_container_signal(container, SIGKILL);
        watchdog_start(container, 0);
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
    record_change_finish(&remove->change_back);
    error_finish(&remove->err);
    free(remove->cgroup_parent);
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

    if (!container->operations || !container->link || !container_is_active(container))
        return;
    if (container->state != CONTAINER_STARTING)
        event_container_signal(container, SIGKILL);
    watchdog_start(container, 0);
    link_request(container->link, MONITOR_STOP, &kill, sizeof(kill), NULL, 0, NULL, NULL);
    container_end_pause(container);
}

void remove_submit(struct container *container, bool force, engine_done done, void *data)
{
    struct remove_operation *remove = xnew(struct remove_operation);

    remove->base.kind = &remove_operation_kind;
    remove->force = force;
    remove->by_itself = !done && container->effective && container->effective->auto_remove;
    if (force)
        kill_ahead(container);
    operation_submit(container, &remove->base, done, data);
}

void engine_container_remove(struct container *container, bool force, bool volumes,
                             engine_done done, void *data)
{
    const struct operation *current = container->operations;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (current && current->kind == &remove_operation_kind && !container_is_active(container))
        error_set(&err, -EBUSY, "removal of container %s is already in progress", container->id);
    else if (current && stop_is_kind(current->kind) && container_is_active(container) && !force)
        refuse_active(container, &err); /* not when the time of that stop has passed */
    if (err.code < 0) {
        engine_fail(done, data, &err);
        return;
    }
    container->drop_volumes = container->drop_volumes || volumes;
    remove_submit(container, force, done, data);
}
