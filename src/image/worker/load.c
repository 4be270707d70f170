#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/text.h>
#include <image/descriptors.h>

#include "load.h"
#include "worker.h"

void load_finish(struct load *load)
{
    for (size_t i = 0; i < load->documents_count; i++) {
        free(load->documents[i].path);
        free(load->documents[i].text);
    }
    for (size_t i = 0; i < load->layers_count; i++) {
        free(load->layers[i].path);
        strv_free(load->layers[i].implicit);
    }
    for (size_t i = 0; i < load->aliases_count; i++) {
        free(load->aliases[i].path);
        free(load->aliases[i].target);
    }
    free(load->documents);
    free(load->layers);
    free(load->aliases);
    table_finish(&load->documents_places);
    table_finish(&load->aliases_places);
    image_worker_result_free(load->result);
}

/* manifest.json first: archives that have both name their images there. */
static int find_images(struct load *load, struct error *err)
{
    const struct document *docker = load_find_document(load, "manifest.json");
    const struct document *layout = load_find_document(load, "index.json");
    int r;

    if (docker)
        r = load_docker_images(load, docker, err);
    else if (layout)
        r = load_layout_images(load, layout, err);
    else
        return error_set(err, -EBADMSG,
                         "there is neither manifest.json (docker-archive) nor index.json (OCI "
                         "layout) in it");
    if (r == 0 && load->result->images_count == 0)
        return error_set(err, -EBADMSG, "%s: no images", docker ? docker->path : layout->path);
    return r;
}

int worker_load(const struct image_worker_load *request, struct image_worker_result **ret,
                struct error *err)
{
    struct load load = {
        .staging_fd = IMAGE_FD_STAGING,
        .platform = request->platform,
        .tells = true,
        .result = xnew(struct image_worker_result),
    };
    int r = 0;

    if (mkdirat(load.staging_fd, "layers", 0700) < 0 ||
        mkdirat(load.staging_fd, "content", 0700) < 0)
        r = error_errno(err, errno, "create folders in staging");
    if (r == 0)
        r = load_collect(&load, IMAGE_FD_ARCHIVE_IN, err);
    if (r == 0)
        r = find_images(&load, err);
    if (r == 0)
        *ret = steal_ptr(load.result);
    else
        error_context(err, "archive");
    load_finish(&load);
    return r;
}
