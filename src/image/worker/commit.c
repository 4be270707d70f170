/*
 * A container's upper folder becomes a layer: a thread makes a tar of it, in which overlayfs' marks
 * are whiteouts again, and meanwhile that tar is summed up and unpacked like one that was loaded.
 * The container may be running: what vanishes meanwhile is left out, what changes its size is cut
 * or filled up.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <dockerfile/change.h>
#include <image/descriptors.h>

#include "commit.h"
#include "flush.h"
#include "follow.h"
#include "limits.h"
#include "load.h"
#include "whiteout.h"
#include "worker.h"
#include "write.h"

static int write_blob(struct tar_sink *sink, const void *data, size_t length, struct error *err)
{
    struct commit *commit = (struct commit *)sink;
    int r = file_write_all(commit->blob_fd, data, length);

    if (r < 0)
        return error_errno(err, -r, "write the layer");
    commit->written += length;
    flush_begin(commit->blob_fd, commit->written, &commit->flushed);
    return follow_grown(commit->follow, length) ? 0 : error_set(err, -ECANCELED, "given up");
}

int commit_write_mark(struct commit *commit, const char *folder, const char *prefix,
                      const char *name, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s%s%s%s", folder, folder[0] ? "/" : "", prefix, name);

    return entries_write_empty(&commit->entries, path, err);
}

/* A folder while it is walked through. */
struct folder {
    struct commit *commit;
    int fd;
    const char *path; /* in the layer */
    int depth;
};

static int write_folder(struct commit *commit, int fd, const char *path, int depth,
                        struct error *err);

static bool is_empty_folder(int folder_fd, const char *name)
{
    int fd = openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    _cleanup_closedir_ DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    int count = 0;

    if (!directory) {
        close_fd(fd);
        return false;
    }
    while (readdir(directory))
        count++;
    return count <= 2;
}

/* Where the runtime mounts over something that an image lacks, it has to make a place in the upper
 * folder first. The container can never see or change that place: it is not its work. */
static bool is_mount_point(int folder_fd, const char *name, const char *path,
                           const struct stat *status)
{
    static const char *const places[] = {"dev",  "etc/hostname", "etc/hosts", "etc/resolv.conf",
                                         "proc", "sys"};

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        if (text_equal(places[i], path))
            return S_ISDIR(status->st_mode) ? is_empty_folder(folder_fd, name)
                                            : S_ISREG(status->st_mode) && status->st_size == 0;
    }
    return false;
}

int commit_write_file(struct commit *commit, int folder_fd, const char *name, const char *path,
                      const struct stat *status, struct error *err)
{
    if (whiteout_is_name(name))
        return error_set(err, -EINVAL, "%s: names that begin with .wh. cannot be in a layer", path);
    return entries_write_file(&commit->entries, folder_fd, name, path, status, err);
}

static int write_item(struct commit *commit, int folder_fd, const char *folder, const char *name,
                      int depth, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s%s%s", folder, folder[0] ? "/" : "", name);
    struct stat status;

    if (fstatat(folder_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : error_errno(err, errno, "%s", path);
    if (!commit->own && is_mount_point(folder_fd, name, path, &status))
        return 0;
    if (whiteout_is_device(&status))
        return commit_write_mark(commit, folder, WHITEOUT_PREFIX, name, err);
    if (!S_ISDIR(status.st_mode) || whiteout_is_name(name))
        return commit_write_file(commit, folder_fd, name, path, &status, err);
    _cleanup_close_ int fd = entries_open_folder(folder_fd, name, err);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    return write_folder(commit, fd, path, depth + 1, err);
}

int commit_write_folder(struct commit *commit, int fd, const char *path, bool opaque,
                        struct error *err)
{
    int r = entries_write_folder(&commit->entries, fd, path, err);

    return r == 0 && opaque ? commit_write_mark(commit, path, "", WHITEOUT_OPAQUE, err) : r;
}

static int write_below(void *data, const char *name, struct error *err)
{
    const struct folder *folder = data;

    return write_item(folder->commit, folder->fd, folder->path, name, folder->depth, err);
}

static int write_folder(struct commit *commit, int fd, const char *path, int depth,
                        struct error *err)
{
    struct folder folder = {commit, fd, path, depth};
    int r = commit_write_folder(commit, fd, path, whiteout_is_opaque(fd), err);

    return r < 0 ? r : entries_list(fd, path, depth, write_below, &folder, err);
}

static int write_layer(struct commit *commit, struct error *err)
{
    int r = tar_writer_open(&commit->entries.writer, &commit->sink, err);

    if (r < 0)
        return r;
    r = commit->merged ? merge_write(commit, commit->source_fd, commit->merged, err)
                       : write_folder(commit, commit->source_fd, "", 0, err);
    if (r == 0)
        r = tar_writer_close(&commit->entries.writer, err);
    tar_writer_abort(&commit->entries.writer);
    return r;
}

static void *make_tar(void *data)
{
    struct commit *commit = data;
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = write_layer(commit, &err);

    follow_end(commit->follow, r, &err);
    return NULL;
}

static int take_layer(struct load *load, struct commit *commit, struct error *err)
{
    pthread_t thread;
    int r = pthread_create(&thread, NULL, make_tar, commit);

    if (r)
        return error_errno(err, r, "start a thread");
    r = load_written_layer(load, "of the changes", follow_stream(commit->follow), err);
    follow_stop(commit->follow);
    pthread_join(thread, NULL);
    return r;
}

/* content/new-0 in staging, which the tar is written to. */
static int open_blob(struct commit *commit, int staging_fd, struct error *err)
{
    if (mkdirat(staging_fd, "layers", 0700) < 0 || mkdirat(staging_fd, "content", 0700) < 0)
        return error_errno(err, errno, "create folders in staging");
    commit->blob_fd =
        openat(staging_fd, "content/new-0", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return commit->blob_fd < 0 ? error_errno(err, errno, "create a file in staging") : 0;
}

/* *ret_empty: there is nothing but the root in it. */
static int make_layer(const struct commit *what, bool *ret_empty, struct image_worker_layer **ret,
                      struct error *err)
{
    struct load load = {.staging_fd = IMAGE_FD_STAGING};
    struct commit *commit = xnew(struct commit);

    *commit = *what;
    commit->sink.write = write_blob;
    commit->entries.data.step = "pack the changes";
    int r = open_blob(commit, load.staging_fd, err);
    commit->follow = follow_create(commit->blob_fd);
    if (r == 0)
        r = take_layer(&load, commit, err);
    if (r == 0)
        *ret = load_report_layer(&load.layers[0]);
    *ret_empty = commit->entries.count == 1;
    load_finish(&load);
    follow_destroy(commit->follow);
    close_fd(commit->blob_fd);
    entries_finish(&commit->entries);
    free(commit);
    return r;
}

int commit_folder(int upper_fd, bool own, struct image_worker_layer **ret, struct error *err)
{
    const struct commit what = {.source_fd = upper_fd, .own = own};
    bool empty = false;
    int r = make_layer(&what, &empty, ret, err);

    if (r == 0 && empty) {
        image_worker_layer_free(*ret);
        *ret = NULL;
    }
    return r;
}

int commit_changes(char *const *changes, const struct oci_image_execution *config,
                   struct image_worker_result *result, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (!changes || !changes[0])
        return 0;
    if (!config)
        result->config = xnew(struct oci_image_execution);
    else
        oci_image_execution_write(config, &text);
    if (config && oci_image_execution_parse(text.data, text.length, "configuration",
                                            &result->config, err) < 0)
        return -EINVAL;
    return dockerfile_change(changes, result->config, err);
}

int worker_commit(const struct image_worker_commit *request, struct image_worker_result **ret,
                  struct error *err)
{
    struct image_worker_result *result = xnew(struct image_worker_result);
    const struct commit what = {.source_fd = IMAGE_FD_SOURCE, .merged = request->merged};
    bool empty;
    int r = commit_changes(request->changes, request->config, result, err);

    if (r == 0)
        r = request->step ? commit_folder(IMAGE_FD_SOURCE, false, &result->layer, err)
                          : make_layer(&what, &empty, &result->layer, err);

    if (r < 0)
        image_worker_result_free(result);
    else
        *ret = result;
    return r;
}
