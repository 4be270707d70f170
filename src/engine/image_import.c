/*
 * An image of a tar that something else made: the worker makes a layer of it, the configuration is
 * what the changes say.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <image/worker.h>

#include "image_call.h"
#include "internal.h"

/* os/architecture[/variant], or what this machine runs. */
static int set_platform(struct store_commit *what, char **parts, struct error *err)
{
    const struct image_worker_platform *platform = image_own_platform();
    size_t count = strv_length(parts);

    what->os = platform->os;
    what->architecture = platform->architecture;
    what->variant = platform->variant;
    if (!count)
        return 0;
    if (!text_equal(parts[0], "linux") || count > 3 || (count > 1 && text_empty(parts[1])))
        return error_set(err, -EINVAL, "the platform must be linux[/ARCHITECTURE[/VARIANT]]");
    if (count > 1) {
        what->architecture = parts[1];
        what->variant = count > 2 ? parts[2] : NULL;
    }
    return 0;
}

/* In place of the descriptor that came with the call. */
static int fetch_archive(struct image_call *call, struct store_staging *staging, struct error *err)
{
    int folder = store_staging_fd(staging);
    struct image_worker_fetched *fetched = NULL;
    int r = fetch_file(&call->fetch, call->url, "fetched", folder, call->cancel.fd, &fetched, err);

    image_worker_fetched_free(fetched);
    if (r < 0)
        return r;
    int fd = openat(folder, "fetched", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open what was fetched");
    unlinkat(folder, "fetched", 0);
    close_fd(call->archive_fd);
    call->archive_fd = fd;
    return 0;
}

static int import_worker(struct image_call *call, struct store_staging *staging,
                         struct image_worker_result **ret, struct error *err)
{
    struct image_worker_import import = {.changes = call->names,
                                         .changes_count = strv_length(call->names)};
    struct image_worker_request request = {.import = &import};
    struct image_worker_spec spec = IMAGE_WORKER_SPEC_INIT;

    spec.program = call->engine->image_program;
    spec.request = &request;
    spec.archive_fd = call->archive_fd;
    spec.staging_fd = store_staging_fd(staging);
    return image_worker_run(&spec, NULL, NULL, call->cancel.fd, ret, err);
}

/* reference: the platform; image: the message; names: the changes. */
static int import_step(struct image_call *call, struct error *err)
{
    _cleanup_store_staging_ struct store_staging *staging = NULL;
    _cleanup_image_worker_result_ struct image_worker_result *result = NULL;
    static const struct oci_image_execution nothing;
    _cleanup_strv_ char **platform = strv_split(call->reference ? call->reference : "", '/');
    _cleanup_free_ char *id = NULL;
    struct store_commit what = {.config = &nothing, .name = call->name, .comment = call->image};
    int r = set_platform(&what, platform, err);

    if (r == 0)
        r = store_staging_create(call->engine->store, &staging, err);
    if (r >= 0 && call->url)
        r = fetch_archive(call, staging, err);
    if (r >= 0)
        r = import_worker(call, staging, &result, err);
    if (r >= 0 && result->config)
        what.config = result->config;
    if (r >= 0)
        r = store_staging_commit(staging, result, &what, &id, err);
    if (r < 0)
        return r;
    image_call_news(call, "import", id, call->name);
    struct api_image_id *document = xnew(struct api_image_id);
    document->id = steal_ptr(id);
    call->document = document;
    return 0;
}

struct engine_cancel *engine_image_import(struct engine *engine, const struct api_image_import *how,
                                          int archive_fd, engine_image_done done, void *data)
{
    struct image_call *call = image_call_new(engine, import_step, &api_image_id_type, done, data);

    call->name = text_empty(how->name) ? NULL : xstrdup(how->name);
    call->image = text_empty(how->message) ? NULL : xstrdup(how->message);
    call->reference = text_empty(how->platform) ? NULL : xstrdup(how->platform);
    call->names = strv_copy(how->changes);
    call->url = text_empty(how->url) ? NULL : xstrdup(how->url);
    fetch_settings_init(&call->fetch, engine);
    return image_call_submit_archive(call, archive_fd);
}
