/* A tar of a root becomes a layer, whatever made it. */
#include <errno.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <image/descriptors.h>

#include "load.h"
#include "stream.h"
#include "tar.h"
#include "worker.h"

/* Compressed as layers may be, it stays as it came; otherwise it is unpacked before. */
static int import_layer(struct load *load, struct stream *stream, struct error *err)
{
    const void *start;
    size_t length;
    _cleanup_stream_ struct stream *whole =
        stream_peek(stream, TAR_MAGIC_SIZE, &start, &length, err);

    if (!whole)
        return err->code;
    _cleanup_stream_ struct stream *plain = tar_unfilter(whole, start, length);
    return load_layer(load, "archive", plain ? plain : whole, err);
}

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
        r = import_layer(&load, stream, err);
    if (r == 0) {
        load.result->layer = load_report_layer(&load.layers[0]);
        *ret = steal_ptr(load.result);
    }
    load_finish(&load);
    return r;
}
