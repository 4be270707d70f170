/* A tar of a root becomes a layer, whatever made it. */
#include <errno.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <image/descriptors.h>

#include "load.h"
#include "worker.h"

int worker_import(const struct image_worker_import *request, struct image_worker_result **ret,
                  struct error *err)
{
    struct load load = {.staging_fd = IMAGE_FD_STAGING, .result = xnew(struct image_worker_result)};
    _cleanup_stream_ struct stream *stream = stream_from_fd(IMAGE_FD_ARCHIVE_IN);
    int r = commit_changes(request->changes, NULL, load.result, err);

    if (r == 0 && (mkdirat(load.staging_fd, "layers", 0700) < 0 ||
                   mkdirat(load.staging_fd, "content", 0700) < 0))
        r = error_errno(err, errno, "create folders in staging");
    if (r == 0)
        r = load_layer(&load, "archive", stream, err);
    if (r == 0) {
        load.result->layer = load_report_layer(&load.layers[0]);
        *ret = steal_ptr(load.result);
    }
    load_finish(&load);
    return r;
}
