/*
 * An image of a container: its processes stand still while the worker reads the upper folder.
 */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>
#include <image/worker.h>

#include "cgroup.h"
#include "changes.h"
#include "events.h"
#include "internal.h"
#include "pause.h"
#include "spec.h"

struct commit_operation {
    struct operation base;
    uv_work_t work;
    char *name, *author, *message; /* owned */
    char **changes;                /* owned */
    bool pause;
    char *id; /* owned; the result */
    struct error err;
};

/* --- the new configuration -------------------------------------------------------------------- */

static struct oci_image_execution *copy_config(const struct oci_image_execution *config)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct oci_image_execution *copy = NULL;

    if (!config)
        return xnew(struct oci_image_execution);
    oci_image_execution_write(config, &text);
    if (oci_image_execution_parse(text.data, text.length, NULL, &copy, NULL) < 0)
        return xnew(struct oci_image_execution);
    return copy;
}

static void set_text(char **field, const char *text)
{
    free(*field);
    *field = text_empty(text) ? NULL : xstrdup(text);
}

static void set_list(char ***field, size_t *count, char *const *list)
{
    strv_free(*field);
    *field = strv_copy(list);
    *count = strv_length(list);
}

/* What the container ran with becomes the image's default, as docker does. */
static void take_over(struct oci_image_execution *config, const struct api_container_spec *spec)
{
    set_list(&config->entrypoint, &config->entrypoint_count, spec->entrypoint);
    set_list(&config->cmd, &config->cmd_count, spec->command);
    set_list(&config->env, &config->env_count, spec->env);
    set_text(&config->working_dir, spec->working_dir);
    set_text(&config->user, spec->user);
    set_text(&config->stop_signal, spec->stop_signal);
    json_string_map_free(config->labels);
    config->labels = json_string_map_copy(spec->labels);
}

/* Ahead of the changes that were asked for: how the container itself was. */
static struct oci_image_execution *container_config(const struct container *container,
                                                    const struct oci_image_execution *own)
{
    const struct api_container_spec *spec = container->effective;
    struct oci_image_execution *config = copy_config(own);
    _cleanup_buffer_ struct buffer image = BUFFER_INIT;
    struct json_writer writer;

    free(config->hostname);
    config->hostname = spec->hostname ? xstrdup(spec->hostname) : xstrndup(container->id, 12);
    json_writer_init(&writer, &image, JSON_COMPACT);
    json_writer_string(&writer, spec->image);
    json_string_map_set(&config->unknown_fields, "Image", buffer_text(&image));
    return config;
}

static int new_config(struct commit_operation *commit, struct oci_image_execution **ret,
                      struct oci_image_execution **ret_container, struct error *err)
{
    struct container *container = commit->base.container;
    _cleanup_store_image_ struct store_image *image = NULL;
    int r;

    r = store_image_find(container->engine->store, container->record->image_id, &image, err);
    if (r < 0)
        return r;
    struct oci_image_execution *config = copy_config(image->config->config);
    take_over(config, container->effective);
    *ret_container = container_config(container, config);
    for (size_t i = 0; r == 0 && commit->changes && commit->changes[i]; i++)
        r = change_apply(config, commit->changes[i], err);
    if (r < 0) {
        oci_image_execution_free(config);
        return r;
    }
    *ret = config;
    return 0;
}

/* --- on a worker thread ----------------------------------------------------------------------- */

static int run_worker(struct container *container, struct store_staging *staging,
                      struct image_worker_result **ret, struct error *err)
{
    struct image_worker_commit what = {0};
    struct image_worker_request request = {.commit = &what};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    _cleanup_close_ int upper_fd = -1;

    int r = store_snapshot_open_upper(container->engine->store, container->id, &upper_fd, err);
    if (r < 0)
        return r;
    spec.program = container->engine->image_program;
    spec.request = &request;
    spec.staging_fd = store_staging_fd(staging);
    spec.upper_fd = upper_fd;
    return image_worker_run(&spec, NULL, NULL, -1, ret, err);
}

/* A container that ends meanwhile has no cgroup any more: it stands still by itself. */
static int run_worker_paused(struct commit_operation *commit, struct store_staging *staging,
                             struct image_worker_result **ret, struct error *err)
{
    struct container *container = commit->base.container;
    const char *parent = container_cgroup_parent(container);
    bool frozen = false;

    if (commit->pause) {
        int r = cgroup_freeze(parent, container->id, true, err);
        if (r < 0 && r != -ENOENT)
            return r;
        frozen = r == 0;
    }
    int r = run_worker(container, staging, ret, err);
    if (frozen)
        cgroup_freeze(parent, container->id, false, NULL);
    return r;
}

static int make_image(struct commit_operation *commit, struct error *err)
{
    struct container *container = commit->base.container;
    struct store *store = container->engine->store;
    _cleanup_store_staging_ struct store_staging *staging = NULL;
    _cleanup_strv_ char **arguments = spec_arguments(container->effective);
    _cleanup_free_ char *command = strv_join(arguments, " ");
    struct image_worker_result *result = NULL;
    struct oci_image_execution *config = NULL, *origin = NULL;
    struct store_commit what = {
        .parent = container->record->image_id,
        .name = commit->name,
        .author = commit->author,
        .comment = commit->message,
        .created_by = command,
        .container = container->id,
    };
    int r;

    r = new_config(commit, &config, &origin, err);
    if (r == 0)
        r = store_staging_create(store, &staging, err);
    if (r >= 0)
        r = run_worker_paused(commit, staging, &result, err);
    what.config = config;
    what.container_config = origin;
    if (r >= 0)
        r = store_staging_commit(staging, result, &what, &commit->id, err);
    image_worker_result_free(result);
    oci_image_execution_free(config);
    oci_image_execution_free(origin);
    return r;
}

static void commit_work(uv_work_t *work)
{
    struct commit_operation *commit = work->data;

    engine_settle(&commit->err, make_image(commit, &commit->err));
}

/* --- the operation ---------------------------------------------------------------------------- */

static void tell_commit(const struct commit_operation *commit)
{
    const struct container *container = commit->base.container;

    if (commit->pause)
        event_container(container, "unpause", NULL);
    if (commit->err.code)
        return;
    event_container(container, "commit",
                    (struct event_attribute[]){{"imageID", commit->id},
                                               {"imageRef", commit->name},
                                               {"comment", commit->message},
                                               {NULL, NULL}});
    if (!text_empty(commit->name))
        event_image(container->engine, "tag", commit->id, commit->name);
}

static void commit_done(uv_work_t *work, int status)
{
    struct commit_operation *commit = work->data;
    struct engine_result result = ENGINE_RESULT_INIT;

    commit->base.container->engine->image_calls--;
    tell_commit(commit);
    result.err = commit->err.code ? &commit->err : NULL;
    result.id = commit->id;
    operation_finish_result(&commit->base, &result);
}

static void commit_begin(struct operation *operation)
{
    struct commit_operation *commit = (struct commit_operation *)operation;
    struct container *container = operation->container;

    if (container->state == CONTAINER_REMOVING) {
        error_set(&commit->err, -ENOENT, "No such container: %s", container->name);
        operation_finish(operation, &commit->err, false);
        return;
    }
    commit->pause =
        commit->pause && container->state == CONTAINER_RUNNING && !container_is_paused(container);
    if (commit->pause)
        event_container(container, "pause", NULL);
    commit->work.data = commit;
    container->engine->image_calls++;
    uv_queue_work(container->engine->loop, &commit->work, commit_work, commit_done);
}

static void commit_release(struct operation *operation)
{
    struct commit_operation *commit = (struct commit_operation *)operation;

    free(commit->name);
    free(commit->author);
    free(commit->message);
    strv_free(commit->changes);
    free(commit->id);
    error_finish(&commit->err);
    free(commit);
}

static const struct operation_kind commit_operation_kind = {
    .name = "commit",
    .begin = commit_begin,
    .release = commit_release,
};

void engine_container_commit(struct container *container, const struct api_container_commit *how,
                             engine_done done, void *data)
{
    struct commit_operation *commit = xnew(struct commit_operation);

    commit->base.kind = &commit_operation_kind;
    commit->name = xstrdup(how->name);
    commit->author = xstrdup(how->author);
    commit->message = xstrdup(how->message);
    commit->changes = strv_copy(how->changes);
    commit->pause = !how->has_pause || how->pause;
    operation_submit(container, &commit->base, done, data);
}
