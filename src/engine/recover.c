/*
 * A container whose monitor is gone: its status file says how it ended, or nobody knows, and then
 * what is left of it is killed and cleaned.
 *
 *     read_status_work    disk thread: RUN/containers/ID/status
 *     cgroup_work         a thread of its own, since dying may take long: the cgroup's processes
 *     runtime delete      a child: state and cgroups the runtime knows of
 *     cgroup_work         again: cgroups that are left
 *     container_ended
 */
#include <errno.h>
#include <fcntl.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/log.h>
#include <monitor/status.h>

#include "cgroup.h"
#include "errand.h"
#include "spawn.h"

enum {
    EXIT_CODE_UNKNOWN = 255,
    EXIT_CODE_NOT_STARTED = 128, /* as docker */
};

struct recovery {
    struct disk_job job;
    uv_work_t work;
    bool stuck;                  /* processes are left */
    struct container *container; /* a reference */
    char *run_path;              /* owned */
    int read_result;
    struct monitor_status status;
    char *error; /* owned */
};

static void recovery_finish(struct recovery *recovery, const struct container_end *end)
{
    if (end)
        container_ended(recovery->container, end);
    container_unref(recovery->container);
    free(recovery->run_path);
    free(recovery->error);
    free(recovery);
}

static void cgroup_work(uv_work_t *work)
{
    struct recovery *recovery = work->data;
    _cleanup_error_ struct error err = ERROR_INIT;

    recovery->stuck = cgroup_kill_and_remove(container_cgroup_parent(recovery->container),
                                             recovery->container->id, &err) < 0;
    if (recovery->stuck)
        log_failure(LOG_ERROR, &err, "what a lost monitor left is not cleaned");
}

/* The daemon ends meanwhile: the next one finds out. */
static bool is_given_up(struct recovery *recovery)
{
    bool ending = recovery->container->engine->ending;

    if (ending)
        recovery_finish(recovery, NULL);
    return ending;
}

static void sweep_done(uv_work_t *work, int status)
{
    struct recovery *recovery = work->data;
    struct container_end end = {
        .exit_code = EXIT_CODE_UNKNOWN,
        .finished = clock_now(),
        .lost = true,
        .why = recovery->stuck ? "the container's monitor was killed, and a process does not die"
                               : "the container's monitor was killed",
    };

    if (is_given_up(recovery))
        return;
    /* A monitor writes its status before it says that the container runs. */
    if (recovery->read_result == -ENOENT && recovery->container->state == CONTAINER_STARTING) {
        end.never_ran = true;
        end.exit_code = EXIT_CODE_NOT_STARTED;
        end.why = "its start was cut off";
    }
    recovery_finish(recovery, &end);
}

static void on_runtime_deleted(int status, void *data)
{
    struct recovery *recovery = data;

    errand_run(recovery->container->engine, &recovery->work, cgroup_work, sweep_done);
}

static void kill_done(uv_work_t *work, int status)
{
    struct recovery *recovery = work->data;
    struct container *container = recovery->container;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (is_given_up(recovery))
        return;
    if (spawn_runtime_delete(container->engine, container->id, on_runtime_deleted, recovery, &err) <
        0) {
        log_failure(LOG_ERROR, &err, "the runtime's state of %.12s is left", container->id);
        on_runtime_deleted(0, recovery);
    }
}

static void read_status_work(struct disk_job *job)
{
    struct recovery *recovery = disk_job_of(job, struct recovery, job);
    _cleanup_close_ int fd = open(recovery->run_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    recovery->read_result =
        fd < 0 ? -errno : monitor_status_read(fd, &recovery->status, &recovery->error, NULL);
}

static void read_status_done(struct disk_job *job)
{
    struct recovery *recovery = disk_job_of(job, struct recovery, job);
    struct container_end end = {
        .exit_code = recovery->status.exit_code,
        .oom = recovery->status.oom,
        .finished = (int64_t)recovery->status.finished,
        .why = recovery->error,
    };

    if (recovery->read_result == 0 && recovery->status.state == MONITOR_STATE_EXITED) {
        if (recovery->status.started) {
            recovery->container->record->started_at = (int64_t)recovery->status.started;
            recovery->container->record->has_started_at = true;
        }
        recovery_finish(recovery, &end);
        return;
    }
    errand_run(recovery->container->engine, &recovery->work, cgroup_work, kill_done);
}

void container_recover(struct container *container)
{
    if (container->recovering || container->leaving)
        return;
    container->recovering = true;
    struct recovery *recovery = xnew(struct recovery);
    recovery->container = container_ref(container);
    recovery->work.data = recovery;
    recovery->run_path = container_run_path(container, NULL);
    recovery->job.work = read_status_work;
    recovery->job.done = read_status_done;
    disk_submit(container->engine->disk, &recovery->job);
}
