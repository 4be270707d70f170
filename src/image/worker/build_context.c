/*
 * The context of a build: a tar is unpacked, and the Dockerfile in it becomes a plan.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>
#include <dockerfile/ignore.h>
#include <dockerfile/limits.h>
#include <dockerfile/plan.h>
#include <image/descriptors.h>

#include "building.h"
#include "limits.h"
#include "stream.h"
#include "unpack.h"
#include "worker.h"

enum { IGNORE_FILE_MAX = 16 * 1024 * 1024 };

/* No layer: names of whiteouts are names like any other. */
static const struct unpack_rules no_layer = {.base = ""};

static int read_file(int context_fd, const char *path, size_t limit, char **ret, size_t *ret_length,
                     struct error *err)
{
    struct stat status;
    _cleanup_close_ int fd = file_open_in_root(context_fd, path, O_RDONLY | O_NONBLOCK, 0);

    if (fd < 0)
        return fd;
    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        return error_set(err, -EINVAL, "%s is no file", path);
    return file_read_fd(fd, limit, ret, ret_length, err);
}

/* The usual name is also found in small letters. */
static int read_dockerfile(int context_fd, const struct build_options *options, char **ret,
                           size_t *ret_length, struct error *err)
{
    const char *path = options->dockerfile;
    int r = read_file(context_fd, path, DOCKERFILE_MAX, ret, ret_length, err);

    if (r == -ENOENT && text_equal(path, "Dockerfile"))
        r = read_file(context_fd, "dockerfile", DOCKERFILE_MAX, ret, ret_length, err);
    if (r == -ENOENT)
        return error_set(err, -ENOENT, "Cannot locate specified Dockerfile: %s", path);
    if (r < 0)
        return error_context(err, "read the Dockerfile"), r;
    return *ret_length ? 0 : error_set(err, -EINVAL, "the Dockerfile (%s) cannot be empty", path);
}

static int plan_context(int context_fd, const struct build_options *options,
                        struct build_plan **ret, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length;
    int r = read_dockerfile(context_fd, options, &text, &length, err);

    return r < 0 ? r : plan_make(text, length, options, ret, err);
}

/* --- unpacking -------------------------------------------------------------------------------- */

static int unpack_stream(struct stream *stream, int context_fd, struct error *err)
{
    struct archive_entry *entry;
    struct unpack unpack;
    struct tar tar;
    int r = tar_open_any(&tar, stream, err);

    if (r < 0)
        return r;
    unpack_init(&unpack, context_fd);
    unpack.rules = &no_layer;
    while (r >= 0 && (r = tar_next(&tar, &entry, err)) > 0) {
        r = unpack_entry(&unpack, &tar, entry, err);
        message_progress("unpack the context", unpack.bytes);
    }
    if (r == 0)
        r = unpack_complete(&unpack, err);
    unpack_finish(&unpack);
    tar_close(&tar);
    return r < 0 ? r : stream_drain(stream, err);
}

/* What was fetched is no tar: then it is the Dockerfile. 1: it was one, and is in its place. */
static int take_dockerfile(int context_fd, const char *name, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    char start[FILE_ARCHIVE_LOOK];
    size_t length;
    ssize_t n = pread(IMAGE_FD_ARCHIVE_IN, start, sizeof(start), 0);

    if (n < 0)
        return error_errno(err, errno, "read what was fetched");
    if (file_is_archive(start, (size_t)n))
        return 0;
    int r = file_read_fd(IMAGE_FD_ARCHIVE_IN, DOCKERFILE_MAX, &text, &length, err);
    if (r == 0 && memchr(text, '\0', length))
        r = error_set(err, -EINVAL, "it is neither a tar nor a Dockerfile");
    if (r == 0)
        r = file_replace_at(context_fd, name, text, length, 0600, err);
    return r < 0 ? r : 1;
}

static int unpack_context(int context_fd, struct error *err)
{
    struct stream *source = stream_from_fd(IMAGE_FD_ARCHIVE_IN), *plain = NULL;
    const void *first;
    size_t length;
    struct stream *start = stream_peek(source, 4, &first, &length, err);
    int r = start ? 0 : -EIO;

    if (start && compression_detect(first, length) != COMPRESSION_NONE)
        plain = stream_decompress(start, compression_detect(first, length));
    if (r == 0)
        r = unpack_stream(plain ? plain : start, context_fd, err);
    stream_destroy(plain);
    stream_destroy(start);
    stream_destroy(source);
    return r < 0 ? error_context(err, "build context"), r : 0;
}

/* *ret is NULL when there is no .dockerignore. */
static int read_ignore(int context_fd, struct ignore **ret, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length;
    int r = read_file(context_fd, ".dockerignore", IGNORE_FILE_MAX, &text, &length, err);

    *ret = NULL;
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    return ignore_parse(text, length, ret, err);
}

/* What the client had to send, but the Dockerfile's author does not want to be copied. The client
 * has left out everything else. */
static int drop_ignored(int context_fd, const struct build_options *options, struct error *err)
{
    const char *const names[] = {".dockerignore", options->dockerfile, "dockerfile"};
    _cleanup_ignore_ struct ignore *ignore = NULL;
    int r = read_ignore(context_fd, &ignore, err);

    if (r == 0 && !ignore)
        return 0;
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(names); i++) {
        const char *name = names[i] + strspn(names[i], "/");
        if (!ignore_matches(ignore, name))
            continue;
        const char *last;
        _cleanup_close_ int parent = file_open_parent_in_root(context_fd, name, 0, &last, NULL);
        if (parent >= 0)
            r = file_remove_tree_at(parent, last, err);
    }
    return r;
}

/* --- a context that is there already ---------------------------------------------------------- */

struct dropping {
    const struct ignore *ignore;
    const char *dockerfile;
};

/* The plan is yet to read them (drop_ignored). */
static bool is_needed(const struct dropping *dropping, const char *path)
{
    const char *dockerfile = dropping->dockerfile + strspn(dropping->dockerfile, "/");

    return text_equal(path, ".dockerignore") || text_equal(path, "dockerfile") ||
           text_equal(path, dockerfile) ||
           (text_starts_with(dockerfile, path) && dockerfile[strlen(path)] == '/');
}

static int drop_from(const struct dropping *dropping, int folder_fd, const char *folder, int depth,
                     struct error *err);

static int drop_item(const struct dropping *dropping, int folder_fd, const char *folder,
                     const char *name, int depth, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("%s%s%s", folder, folder[0] ? "/" : "", name);
    bool ignored = ignore_matches(dropping->ignore, path);
    bool kept = is_needed(dropping, path);
    struct stat status;

    if (fstatat(folder_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return error_errno(err, errno, "%s", path);
    if (ignored && !kept && (!S_ISDIR(status.st_mode) || !ignore_has_exceptions(dropping->ignore)))
        return file_remove_tree_at(folder_fd, name, err);
    if (!S_ISDIR(status.st_mode))
        return 0;
    _cleanup_close_ int fd =
        openat(folder_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, errno, "open %s", path);
    int r = drop_from(dropping, fd, path, depth + 1, err);
    if (r == 0 && ignored) /* unless an exception is left in it */
        unlinkat(folder_fd, name, AT_REMOVEDIR);
    return r;
}

static int drop_from(const struct dropping *dropping, int folder_fd, const char *folder, int depth,
                     struct error *err)
{
    struct dirent **names = NULL;
    int count = depth > PATH_DEPTH_MAX ? -1 : scandirat(folder_fd, ".", &names, NULL, NULL), r = 0;

    if (count < 0)
        return error_errno(err, depth > PATH_DEPTH_MAX ? ENAMETOOLONG : errno, "list %.200s",
                           folder);
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        if (r == 0 && !text_equal(name, ".") && !text_equal(name, ".."))
            r = drop_item(dropping, folder_fd, folder, name, depth, err);
        free(names[i]);
    }
    free(names);
    return r;
}

/* What a client that sends a folder leaves out. */
static int drop_all_ignored(int context_fd, const struct build_options *options, struct error *err)
{
    _cleanup_ignore_ struct ignore *ignore = NULL;
    int r = read_ignore(context_fd, &ignore, err);

    if (r == 0 && !ignore)
        return 0;
    const struct dropping dropping = {ignore, options->dockerfile};
    return r < 0 ? r : drop_from(&dropping, context_fd, "", 0, err);
}

int worker_context(const struct image_worker_context *request, struct image_worker_result **ret,
                   struct error *err)
{
    struct image_worker_result *result = xnew(struct image_worker_result);
    int r = 0;

    if (!request->ready && mkdirat(IMAGE_FD_STAGING, "context", 0700) < 0)
        r = error_errno(err, errno, "create a folder in staging");
    _cleanup_close_ int context =
        openat(IMAGE_FD_STAGING, "context", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (r == 0 && context < 0)
        r = error_errno(err, errno, "open a folder in staging");
    if (r == 0 && request->remote)
        r = take_dockerfile(context, "Dockerfile", err);
    if (r == 0)
        r = request->ready ? drop_all_ignored(context, request->options, err)
                           : unpack_context(context, err);
    if (r >= 0)
        r = plan_context(context, request->options, &result->plan, err);
    if (r < 0)
        image_worker_result_free(result);
    else
        *ret = result;
    return r;
}

/* --- the second look -------------------------------------------------------------------------- */

/* What is not there is told when the step comes: it may have a cached result of its own kind. */
static void sum_up(struct build_step *step)
{
    struct sources sources = {0};
    char digest[72];

    if (!step->copy || step->copy->has_from_stage || step->copy->from_image)
        return;
    if (step->copy->sources_count + step->copy->files_count == 0) /* all of it is fetched */
        return;
    if (sources_find(IMAGE_FD_STAGING, step->copy, true, &sources, NULL) == 0 &&
        sources_digest(IMAGE_FD_STAGING, &sources, step->copy, false, digest, NULL) == 0)
        step->copy->digest = xstrdup(digest);
    sources_finish(&sources);
}

int worker_plan(const struct image_worker_plan *request, struct image_worker_result **ret,
                struct error *err)
{
    struct image_worker_result *result = xnew(struct image_worker_result);
    int r = plan_context(IMAGE_FD_STAGING, request->options, &result->plan, err);

    if (r == 0)
        r = drop_ignored(IMAGE_FD_STAGING, request->options, err);
    for (size_t i = 0; r == 0 && i < result->plan->stages_count; i++) {
        struct build_stage *stage = result->plan->stages[i];
        for (size_t s = 0; s < stage->steps_count; s++)
            sum_up(stage->steps[s]);
    }
    if (r < 0)
        image_worker_result_free(result);
    else
        *ret = result;
    return r;
}
