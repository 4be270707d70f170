/*
 * An image of a container: its processes stand still while the worker reads the upper folder.
 */
#include <errno.h>
#include <string.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>
#include <image/worker.h>
#include <store/build.h>

#include "cgroup.h"
#include "commit_config.h"
#include "errand.h"
#include "events.h"
#include "internal.h"
#include "pause.h"
#include "spec.h"

struct commit_operation {
    struct operation base;
    uv_work_t work;
    char *name, *author, *message; /* owned */
    char *config;                  /* owned; JSON */
    char **changes;                /* owned */
    bool pause;
    char *id; /* owned; the result */
    struct error err;
};

/* --- the new configuration -------------------------------------------------------------------- */

/* What came with the call, in docker's words; NULL: nothing. */
static int parse_config(const char *text, struct oci_image_execution **ret, struct error *err)
{
    size_t length = text ? strlen(text) : 0;

    *ret = NULL;
    while (length && strchr(" \t\r\n", text[length - 1]))
        length--;
    if (!length || (length == 4 && strncmp(text, "null", 4) == 0))
        return 0;
    int r = oci_image_execution_parse(text, length, "config", ret, err);
    return r < 0 ? error_set(err, -EINVAL, "%s", error_message(err)) : 0;
}

/* For the history: how the container itself was. */
static struct oci_image_execution *container_config(const struct container *container,
                                                    const struct oci_image_execution *own)
{
    const struct api_container_spec *spec = container->effective;
    struct oci_image_execution *config = commit_config_copy(own);
    _cleanup_buffer_ struct buffer image = BUFFER_INIT;
    struct json_writer writer;

    free(config->hostname);
    config->hostname = spec->hostname ? xstrdup(spec->hostname) : xstrndup(container->id, 12);
    json_writer_init(&writer, &image, JSON_COMPACT);
    json_writer_string(&writer, spec->image);
    json_string_map_set(&config->unknown_fields, "Image", buffer_text(&image));
    return config;
}

/* given: with the changes, of the worker; NULL: nothing is. */
static int new_config(struct commit_operation *commit, const struct oci_image_execution *given,
                      struct oci_image_execution **ret, struct oci_image_execution **ret_container,
                      struct error *err)
{
    struct container *container = commit->base.container;
    _cleanup_store_image_ struct store_image *image = NULL;
    int r = store_image_find(container->engine->store, container->record->image_id, &image, err);

    if (r < 0)
        return r;
    _cleanup_oci_image_execution_ struct oci_image_execution *own =
        commit_config_of(image->config->config, container->spec, container->effective);
    *ret_container = container_config(container, own);
    *ret = commit_config_copy(given);
    commit_config_merge(*ret, own);
    return 0;
}

/* --- on a thread of its own ------------------------------------------------------------------- */

static int run_worker(const struct commit_operation *commit, struct oci_image_execution *given,
                      struct store_staging *staging, struct image_worker_result **ret,
                      struct error *err)
{
    struct container *container = commit->base.container;
    struct image_worker_commit what = {
        .changes = commit->changes, .changes_count = strv_length(commit->changes), .config = given};
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
static int run_worker_paused(const struct commit_operation *commit,
                             struct oci_image_execution *given, struct store_staging *staging,
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
    int r = run_worker(commit, given, staging, ret, err);
    if (frozen)
        cgroup_freeze(parent, container->id, false, NULL);
    return r;
}

static int make_image(struct commit_operation *commit, int64_t hold, struct error *err)
{
    struct container *container = commit->base.container;
    struct store *store = container->engine->store;
    _cleanup_store_staging_ struct store_staging *staging = NULL;
    _cleanup_strv_ char **arguments = spec_arguments(container->effective);
    _cleanup_free_ char *command = strv_join(arguments, " ");
    struct image_worker_result *result = NULL;
    _cleanup_oci_image_execution_ struct oci_image_execution *given = NULL, *config = NULL,
                                                             *origin = NULL;
    struct store_commit what = {
        .parent = container->record->image_id,
        .name = commit->name,
        .author = commit->author,
        .comment = commit->message,
        .created_by = command,
        .container = container->id,
    };
    int r = parse_config(commit->config, &given, err);

    if (r == 0) /* nobody takes it away meanwhile */
        r = store_build_hold(store, hold, what.parent, err);
    if (r == 0)
        r = store_staging_create(store, &staging, err);
    if (r >= 0)
        r = run_worker_paused(commit, given, staging, &result, err);
    if (r >= 0)
        r = new_config(commit, result->config ? result->config : given, &config, &origin, err);
    what.config = config;
    what.container_config = origin;
    if (r >= 0)
        r = store_staging_commit(staging, result, &what, &commit->id, err);
    image_worker_result_free(result);
    return r;
}

static void commit_work(uv_work_t *work)
{
    struct commit_operation *commit = work->data;
    struct store *store = commit->base.container->engine->store;
    int64_t hold = store_build_begin(store);

    engine_settle(&commit->err, make_image(commit, hold, &commit->err));
    store_build_end(store, hold);
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
    errand_run(container->engine, &commit->work, commit_work, commit_done);
}

static void commit_release(struct operation *operation)
{
    struct commit_operation *commit = (struct commit_operation *)operation;

    free(commit->name);
    free(commit->author);
    free(commit->message);
    free(commit->config);
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
    commit->config = xstrdup(how->config);
    commit->changes = strv_copy(how->changes);
    commit->pause = !how->has_pause || how->pause;
    operation_submit(container, &commit->base, done, data);
}
