/*
 * Holding a container's processes still, and letting them go on.
 *
 *     pause_begin       does the state allow it?
 *     pause_work        a thread of its own: the cgroup's freezer, until all stand
 *     pause_frozen      the record says so
 *     commit_work       disk thread: it is committed before anybody hears of it, since the next
 *                       daemon lets go what stands still without a record that says so
 *     commit_done
 */
#include <errno.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "cgroup.h"
#include "errand.h"
#include "events.h"
#include "internal.h"
#include "pause.h"
#include "watchdog.h"

struct pause_operation {
    struct operation base;
    uv_work_t work;
    struct disk_job job;
    bool pause;
    bool unwanted; /* it was killed while its processes were being stopped */
    struct record_change change;
    struct error err;
};

static const struct operation_kind pause_operation_kind;
static void let_go(struct container *container);

static void set_paused(struct container *container, bool paused)
{
    container->record->paused = container->record->has_paused = paused;
}

bool container_is_paused(const struct container *container)
{
    return container->state == CONTAINER_RUNNING && container->record->paused;
}

static void commit_work(struct disk_job *job)
{
    struct pause_operation *pause = disk_job_of(job, struct pause_operation, job);

    engine_settle(&pause->err, record_change_run(&pause->change, &pause->err));
}

static void commit_done(struct disk_job *job)
{
    struct pause_operation *pause = disk_job_of(job, struct pause_operation, job);
    struct container *container = pause->base.container;

    if (pause->err.code < 0)
        log_failure(LOG_ERROR, &pause->err, "container %.12s", container->id);
    operation_finish(&pause->base, pause->err.code < 0 ? &pause->err : NULL, true);
}

static int not_running(const struct container *container, struct error *err)
{
    if (container->state == CONTAINER_RESTARTING)
        return error_set(err, -EBUSY,
                         "Container %s is restarting, wait until the container is running",
                         container->id);
    return error_set(err, -EBUSY, "container %s is not running", container->id);
}

static void pause_frozen(uv_work_t *work, int status)
{
    struct pause_operation *pause = work->data;
    struct container *container = pause->base.container;

    /* Its cgroup may be gone before we are told of its end. */
    bool over =
        container->state != CONTAINER_RUNNING || pause->unwanted || pause->err.code == -ENOENT;
    /* Or what was to die, or the next run, which the runtime is making in the same cgroup, stands
     * still for ever. */
    if (pause->pause && over)
        let_go(container);
    if (over) { /* rather than what the freezer said of its cgroup, which is gone */
        error_finish(&pause->err);
        pause->err = (struct error)ERROR_INIT;
        not_running(container, &pause->err);
    }
    if (pause->err.code < 0) {
        operation_finish(&pause->base, &pause->err, false);
        return;
    }
    set_paused(container, pause->pause);
    event_container(container, pause->pause ? "pause" : "unpause", NULL);
    record_change_update(&pause->change, container);
    pause->job.work = commit_work;
    pause->job.done = commit_done;
    disk_submit(container->engine->disk, &pause->job);
}

static void pause_work(uv_work_t *work)
{
    struct pause_operation *pause = work->data;
    struct container *container = pause->base.container;

    engine_settle(&pause->err, cgroup_freeze(container_cgroup_parent(container), container->id,
                                             pause->pause, &pause->err));
}

static int check_pause(const struct container *container, bool pause, struct error *err)
{
    /* What was killed and has not ended yet would not end while it stands still. */
    if (container->state != CONTAINER_RUNNING || (pause && watchdog_has_killed(container)))
        return not_running(container, err);
    if (container_is_paused(container) == pause)
        return error_set(err, -EBUSY, "Container %s is %s paused", container->name,
                         pause ? "already" : "not");
    return engine_need_cgroups(container->engine, "pause and unpause", err);
}

static void pause_begin(struct operation *operation)
{
    struct pause_operation *pause = (struct pause_operation *)operation;

    if (check_pause(operation->container, pause->pause, &pause->err) < 0) {
        operation_finish(operation, &pause->err, false);
        return;
    }
    pause->work.data = pause;
    errand_run(operation->container->engine, &pause->work, pause_work, pause_frozen);
}

static void pause_release(struct operation *operation)
{
    struct pause_operation *pause = (struct pause_operation *)operation;

    record_change_finish(&pause->change);
    error_finish(&pause->err);
    free(pause);
}

static const struct operation_kind pause_operation_kind = {
    .name = "pause",
    .begin = pause_begin,
    .release = pause_release,
};

void engine_container_pause(struct container *container, bool pause, engine_done done, void *data)
{
    struct pause_operation *operation = xnew(struct pause_operation);

    operation->base.kind = &pause_operation_kind;
    operation->pause = pause;
    operation_submit(container, &operation->base, done, data);
}

/* ---- the end of one that stands still ---- */

struct thaw {
    uv_work_t work;
    struct container *container; /* a reference */
};

static void thaw_work(uv_work_t *work)
{
    struct thaw *thaw = work->data;
    _cleanup_error_ struct error err = ERROR_INIT;

    /* It may be gone as soon as it is let go. */
    if (cgroup_freeze(container_cgroup_parent(thaw->container), thaw->container->id, false, &err) <
        0)
        log_debug("container %.12s: %s", thaw->container->id, error_message(&err));
}

static void thaw_done(uv_work_t *work, int status)
{
    struct thaw *thaw = work->data;

    container_unref(thaw->container);
    free(thaw);
}

static void let_go(struct container *container)
{
    struct thaw *thaw = xnew(struct thaw);

    thaw->container = container_ref(container);
    thaw->work.data = thaw;
    errand_run(container->engine, &thaw->work, thaw_work, thaw_done);
}

void container_end_pause(struct container *container)
{
    struct operation *current = container->operations;

    if (current && current->kind == &pause_operation_kind)
        ((struct pause_operation *)current)->unwanted = true;
    if (!container_is_paused(container))
        return;
    set_paused(container, false);
    event_container(container, "unpause", NULL);
    container_commit_record(container);
    let_go(container);
}
