/* COPY, ADD and WORKDIR: done by the image worker, in the mounted root of a container to be. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "build.h"

/* A snapshot that lives for one step. */
struct passing_root {
    struct store *store;
    char id[CONTAINER_ID_DIGITS + 1]; /* "": none */
    int mount_fd;
};

static int open_root(struct build *build, const char *image_id, struct passing_root *root,
                     struct error *err)
{
    char id[CONTAINER_ID_DIGITS + 1];

    root->store = build->engine->store;
    text_random_hex(id, CONTAINER_ID_DIGITS);
    int r = store_snapshot_prepare(root->store, image_id, id, NULL, err);
    if (r < 0)
        return r;
    memcpy(root->id, id, sizeof(id));
    return store_snapshot_mount_image(root->store, root->id, &root->mount_fd, err);
}

static void close_root(struct passing_root *root)
{
    close_fd(root->mount_fd);
    if (root->id[0])
        store_snapshot_remove(root->store, root->id, NULL);
}

void build_layer_finish(struct build_layer *layer)
{
    image_worker_result_free(layer->result);
    store_staging_free(layer->staging);
    *layer = (struct build_layer){0};
}

/* Where the sources are: the context, or a root that is mounted for them. -1: there are none. */
static int open_source(struct build_work *work, const struct build_copy *copy,
                       struct passing_root *root, int *ret_fd, struct error *err)
{
    struct build *build = work->build;
    const struct build_image *image;
    const char *id;

    if (!copy->has_from_stage && !copy->from_image) {
        *ret_fd = build->files_fd;
        return 0;
    }
    if (copy->has_from_stage) {
        id = build->stages[copy->from_stage].image_id;
    } else {
        int r = build_find_image(build, copy->from_image, NULL, &image, err);
        if (r < 0)
            return r;
        id = image->id;
    }
    int r = open_root(build, id, root, err);
    *ret_fd = root->mount_fd;
    return r;
}

static int run_worker(struct build *build, const struct image_worker_copy *copy,
                      struct image_worker_spec *spec, struct image_worker_result **ret,
                      struct error *err)
{
    const struct image_worker_request request = {.copy = (struct image_worker_copy *)copy};

    spec->program = build->engine->image_program;
    spec->request = &request;
    return image_worker_run(spec, NULL, NULL, build->cancel.fd, ret, err);
}

int build_files_probe(struct build_work *work, const struct build_copy *copy, char **ret_digest,
                      struct error *err)
{
    struct passing_root source = {.mount_fd = -1};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    struct image_worker_result *result = NULL;
    const struct image_worker_copy request = {
        .copy = (struct build_copy *)copy, .probe = true, .has_probe = true};
    int r = open_source(work, copy, &source, &spec.source_fd, err);

    spec.staging_fd = store_staging_fd(work->build->staging);
    if (r == 0)
        r = run_worker(work->build, &request, &spec, &result, err);
    if (r == 0)
        *ret_digest = xstrdup(result->digest);
    image_worker_result_free(result);
    close_root(&source);
    return r;
}

/* --- what is fetched -------------------------------------------------------------------------- */

void build_fetched_finish(struct build_fetched *fetched)
{
    for (size_t i = 0; i < fetched->count; i++)
        image_worker_fetched_free(fetched->items[i]);
    free(fetched->items);
    store_staging_free(fetched->staging);
    *fetched = (struct build_fetched){0};
}

int build_files_fetch(struct build_work *work, const struct build_copy *copy, struct buffer *digest,
                      struct error *err)
{
    struct build *build = work->build;
    struct build_fetched *fetched = &work->fetched;
    int r = store_staging_create(build->engine->store, &fetched->staging, err);

    fetched->items = xnew_array(struct image_worker_fetched *, copy->remotes_count + 1);
    for (size_t i = 0; r == 0 && i < copy->remotes_count; i++) {
        _cleanup_free_ char *file = xasprintf("remote-%zu", i);
        build_say(&build->output, work->index, "Downloading %s\n", copy->remotes[i]);
        r = fetch_file(&build->fetch, copy->remotes[i], file, store_staging_fd(fetched->staging),
                       build->cancel.fd, &fetched->items[i], err);
        if (r < 0)
            return error_context(err, "%s failed", copy->word), r;
        fetched->count++;
        const char *name = fetched->items[i]->name;
        buffer_printf(digest, "remote %zu %s %s\n", name ? strlen(name) : 0, name ? name : "",
                      fetched->items[i]->digest);
    }
    return r;
}

/* --- copying ---------------------------------------------------------------------------------- */

static int copy_into(struct build_work *work, const struct image_worker_copy *request,
                     struct passing_root *target, struct image_worker_spec *spec,
                     struct build_layer *layer, struct error *err)
{
    struct build *build = work->build;
    int r = open_root(build, work->image_id, target, err);

    if (r == 0)
        r = store_snapshot_open_upper(build->engine->store, target->id, &spec->upper_fd, err);
    layer->staging = steal_ptr(work->fetched.staging);
    if (r == 0 && !layer->staging)
        r = store_staging_create(build->engine->store, &layer->staging, err);
    if (r < 0)
        return r;
    spec->target_fd = target->mount_fd;
    spec->staging_fd = store_staging_fd(layer->staging);
    return run_worker(build, request, spec, &layer->result, err);
}

int build_files(struct build_work *work, const struct build_step *step, struct build_layer *ret,
                struct error *err)
{
    struct passing_root source = {.mount_fd = -1}, target = {.mount_fd = -1};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;
    struct build_layer layer = {0};
    const struct image_worker_copy request = {.copy = step->copy,
                                              .folder = step->folder,
                                              .fetched = work->fetched.items,
                                              .fetched_count = work->fetched.count};
    int r = step->copy ? open_source(work, step->copy, &source, &spec.source_fd, err) : 0;

    if (r == 0)
        r = copy_into(work, &request, &target, &spec, &layer, err);
    close_fd(spec.upper_fd);
    close_root(&source);
    close_root(&target);
    if (r < 0)
        build_layer_finish(&layer);
    else
        *ret = layer;
    return r;
}
