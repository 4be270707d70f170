/*
 * Other limits, or another restart policy, for a container.
 *
 *     update_begin     do they go together with those it has?
 *     run_update       it runs: `cloche-runtime update` changes its cgroups
 *     take_over        what is known of it; its monitor hears of the restart policy
 *     commit_work      disk thread: the record, and the config.json that restarts are made from
 *
 * effective->resources, ->restart_policy and ->links are all that changes of a specification after
 * its creation. Only the loop's thread and operations of this container look at them.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/loop.h>
#include <base/text.h>

#include "bundle.h"
#include "cpusets.h"
#include "events.h"
#include "internal.h"
#include "limits.h"
#include "linked.h"
#include "nameserver.h"
#include "spec.h"
#include "supervision.h"

enum { RUNTIME_TIMEOUT_MS = 10000, COMPLAINT_MAX = 4096, CONFIG_MAX = 4 * 1024 * 1024 };

struct update_operation {
    struct operation base;
    struct disk_job job;
    struct api_container_update *how; /* a copy */
    struct api_resources *resources;  /* merged; NULL: they stay */
    struct buffer limits;             /* the same for the runtime */
    char *config_path;                /* of a container that is active; else NULL */
    int limits_fd, complaint_fd;
    struct record_change change;
    struct error err;
};

/* --- disk thread ------------------------------------------------------------------------------ */

static int rewrite_config(const struct update_operation *update, struct error *err)
{
    _cleanup_buffer_ struct buffer config = BUFFER_INIT;
    _cleanup_free_ char *text = NULL;
    size_t length;

    int r = file_read_at(AT_FDCWD, update->config_path, CONFIG_MAX, &text, &length, err);
    if (r == 0)
        r = limits_put_into_config(text, length, &update->limits, &config, err);
    if (r == 0)
        r = file_replace_at(AT_FDCWD, update->config_path, config.data, config.length, 0600, err);
    return r;
}

static void commit_work(struct disk_job *job)
{
    struct update_operation *update = disk_job_of(job, struct update_operation, job);
    int r = record_change_run(&update->change, &update->err);

    if (r == 0 && update->config_path && update->resources)
        r = rewrite_config(update, &update->err);
    engine_settle(&update->err, r);
}

static void commit_done(struct disk_job *job)
{
    struct update_operation *update = disk_job_of(job, struct update_operation, job);

    if (update->err.code < 0)
        log_failure(LOG_ERROR, &update->err, "container %.12s", update->base.container->id);
    operation_finish(&update->base, update->err.code < 0 ? &update->err : NULL, true);
}

/* --- the loop's side -------------------------------------------------------------------------- */

static struct api_resources *copy_of(const struct buffer *text)
{
    struct api_resources *made = NULL;

    api_resources_parse(text->data, text->length, "limits", &made, NULL);
    return made;
}

static void take_resources(struct container *container, const struct api_resources *resources)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    api_resources_write(resources, &text);
    api_resources_free(container->effective->resources);
    container->effective->resources = copy_of(&text);
    api_resources_free(container->spec->resources);
    container->spec->resources = copy_of(&text);
}

static void take_policy(struct container *container, const struct api_restart_policy *policy)
{
    struct api_container_spec *both[] = {container->spec, container->effective};
    struct monitor_policy told;

    for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
        struct api_restart_policy *own = xnew(struct api_restart_policy);
        *own = *policy;
        own->name = xstrdup(policy->name);
        api_restart_policy_free(both[i]->restart_policy);
        both[i]->restart_policy = own;
    }
    if (!container->link)
        return;
    supervision_policy(container, &told);
    link_request(container->link, MONITOR_UPDATE, &told, sizeof(told), NULL, 0, NULL, NULL);
}

static void take_over(struct update_operation *update)
{
    struct container *container = update->base.container;

    if (update->resources)
        take_resources(container, update->resources);
    if (update->how->restart_policy)
        take_policy(container, update->how->restart_policy);
    if (update->how->remove_link) {
        linked_remove(container, update->how->remove_link);
        nameserver_places(container);
    }
    event_container(container, "update", NULL);
    if (container_is_active(container))
        update->config_path = container_run_path(container, "config.json");
    record_change_limits(&update->change, container);
    update->job.work = commit_work;
    update->job.done = commit_done;
    disk_submit(container->engine->disk, &update->job);
}

static void on_updated(int status, void *data)
{
    struct update_operation *update = data;
    char text[COMPLAINT_MAX + 1];

    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        take_over(update);
        return;
    }
    ssize_t length = pread(update->complaint_fd, text, COMPLAINT_MAX, 0);
    while (length > 0 && text[length - 1] == '\n')
        length--;
    error_set(&update->err, -EIO, "Cannot update container %s: %.*s", update->base.container->id,
              length > 0 ? (int)length : 0, text);
    operation_finish(&update->base, &update->err, false);
}

static int run_update(struct update_operation *update, struct error *err)
{
    const struct container *container = update->base.container;
    const struct engine *engine = container->engine;
    _cleanup_free_ char *root = xasprintf("%s/runtime", engine->instance->run);
    char *const argv[] = {(char *)"cloche-runtime",
                          (char *)"--root",
                          root,
                          (char *)"update",
                          (char *)"--resources",
                          (char *)"-",
                          (char *)container->id,
                          NULL};
    struct process process;

    update->limits_fd = memfd_create("limits", MFD_CLOEXEC);
    update->complaint_fd = memfd_create("complaint", MFD_CLOEXEC);
    if (update->limits_fd < 0 || update->complaint_fd < 0)
        return error_errno(err, errno, "make a file in memory");
    int r = file_write_all(update->limits_fd, update->limits.data, update->limits.length);
    if (r < 0 || lseek(update->limits_fd, 0, SEEK_SET) < 0)
        return error_errno(err, r < 0 ? -r : errno, "write to memory");
    const int fds[] = {update->limits_fd, -1, update->complaint_fd};
    struct process_spec spec = {
        .path = engine->runtime_program,
        .argv = argv,
        .fds = fds,
        .fds_count = ARRAY_SIZE(fds),
        .directory = "/",
    };
    r = process_spawn(&spec, &process, err);
    if (r < 0)
        return r;
    return loop_watch_child(engine->loop, &process, RUNTIME_TIMEOUT_MS, on_updated, update, err);
}

static int check(struct update_operation *update, struct error *err)
{
    const struct container *container = update->base.container;
    const struct api_container_update *how = update->how;
    int r = 0;

    if (container->state == CONTAINER_REMOVING || container->state == CONTAINER_DEAD)
        return error_set(
            err, -EBUSY,
            "Cannot update container %s: Container is marked for removal and cannot be "
            "\"update\".",
            container->id);
    if (how->remove_link && !linked_has(container, how->remove_link))
        return error_set(err, -ENOENT, "Could not get link %s of container %s", how->remove_link,
                         container->name);
    if (how->restart_policy)
        r = supervision_check_policy(how->restart_policy, err);
    if (r == 0 && how->restart_policy && container->effective->auto_remove &&
        !text_empty(how->restart_policy->name) && !text_equal(how->restart_policy->name, "no"))
        r = error_set(err, -EINVAL,
                      "Restart policy cannot be updated because AutoRemove is enabled for the "
                      "container");
    if (r == 0 && how->resources)
        r = engine_need_cgroups(container->engine, "limits", err);
    if (r == 0 && how->resources)
        r = cpusets_check(how->resources, err);
    if (r == 0 && how->resources)
        r = limits_merge(container->effective->resources, how->resources, container->engine->cpus,
                         &update->resources, err);
    if (r == 0 && update->resources)
        bundle_write_limits(update->resources, NULL, 0, &update->limits);
    return r;
}

static void update_begin(struct operation *operation)
{
    struct update_operation *update = (struct update_operation *)operation;
    bool runs = operation->container->state == CONTAINER_RUNNING;
    int r = check(update, &update->err);

    if (r == 0 && runs && update->resources) {
        r = run_update(update, &update->err);
        if (r >= 0)
            return;
    }
    engine_settle(&update->err, r);
    if (r < 0)
        operation_finish(operation, &update->err, false);
    else
        take_over(update);
}

static void update_release(struct operation *operation)
{
    struct update_operation *update = (struct update_operation *)operation;

    api_container_update_free(update->how);
    api_resources_free(update->resources);
    buffer_finish(&update->limits);
    record_change_finish(&update->change);
    error_finish(&update->err);
    close_fd(update->limits_fd);
    close_fd(update->complaint_fd);
    free(update->config_path);
    free(update);
}

static const struct operation_kind update_operation_kind = {
    .name = "update",
    .begin = update_begin,
    .release = update_release,
};

void engine_container_update(struct container *container, const struct api_container_update *how,
                             engine_done done, void *data)
{
    struct update_operation *update = xnew(struct update_operation);
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    update->base.kind = &update_operation_kind;
    update->limits_fd = update->complaint_fd = -1;
    api_container_update_write(how, &text);
    api_container_update_parse(text.data, text.length, "update", &update->how, NULL);
    operation_submit(container, &update->base, done, data);
}
