/*
 * Another name for a container. The new one is taken in the table at once, the old one is free only
 * when the record has been committed: nobody else can get either of them meanwhile.
 */
#include <errno.h>

#include <base/alloc.h>
#include <base/text.h>

#include "events.h"
#include "nameserver.h"
#include "internal.h"
#include "names.h"

struct rename_operation {
    struct operation base;
    struct disk_job job;
    char *name; /* owned */
    struct record_change change;
    struct error err;
};

static void rename_work(struct disk_job *job)
{
    struct rename_operation *rename = disk_job_of(job, struct rename_operation, job);

    engine_settle(&rename->err, record_change_run(&rename->change, &rename->err));
}

static void rename_done(struct disk_job *job)
{
    struct rename_operation *rename = disk_job_of(job, struct rename_operation, job);
    struct container *container = rename->base.container;
    _cleanup_free_ char *old = NULL;

    free(steal_ptr(container->next_name));
    if (rename->err.code < 0) {
        operation_finish(&rename->base, &rename->err, false);
        return;
    }
    old = xasprintf("/%s", container->name);
    free(container->name);
    container->name = steal_ptr(rename->name);
    nameserver_places(container);
    event_container(container, "rename",
                    (struct event_attribute[]){{"oldName", old}, {NULL, NULL}});
    operation_finish(&rename->base, NULL, true);
}

static int check_rename(const struct container *container, const char *name, struct error *err)
{
    if (container->state == CONTAINER_REMOVING)
        return error_set(err, -ENOENT, "No such container: %s", container->name);
    if (text_equal(container->name, name))
        return error_set(err, -EINVAL,
                         "Renaming a container with the same name as its current "
                         "name");
    return container_check_name_free(container->engine, name, err);
}

static void rename_begin(struct operation *operation)
{
    struct rename_operation *rename = (struct rename_operation *)operation;
    struct container *container = operation->container;

    if (check_rename(container, rename->name, &rename->err) < 0) {
        operation_finish(operation, &rename->err, false);
        return;
    }
    container->next_name = xstrdup(rename->name);
    record_change_rename(&rename->change, container, rename->name);
    rename->job.work = rename_work;
    rename->job.done = rename_done;
    disk_submit(container->engine->disk, &rename->job);
}

static void rename_release(struct operation *operation)
{
    struct rename_operation *rename = (struct rename_operation *)operation;

    record_change_finish(&rename->change);
    error_finish(&rename->err);
    free(rename->name);
    free(rename);
}

static const struct operation_kind rename_operation_kind = {
    .name = "rename",
    .begin = rename_begin,
    .release = rename_release,
};

void engine_container_rename(struct container *container, const char *name, engine_done done,
                             void *data)
{
    _cleanup_error_ struct error err = ERROR_INIT;

    name += *name == '/';
    if (!*name)
        error_set(&err, -EINVAL, "Neither old nor new names may be empty");
    else
        name_check(name, &err);
    if (err.code < 0) {
        engine_fail(done, data, &err);
        return;
    }
    struct rename_operation *rename = xnew(struct rename_operation);
    rename->base.kind = &rename_operation_kind;
    rename->name = xstrdup(name);
    operation_submit(container, &rename->base, done, data);
}
