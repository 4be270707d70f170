/*
 * cp: docker's rules of what is copied to where, after cp(1)'s. Either side is packed and the other
 * unpacked; between them is a pipe.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "local_copy.h"
#include "progress.h"

struct cp_options {
    bool archive, follow, quiet;
};

static const struct option cp_table[] = {
    {
        .name = "archive",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct cp_options, archive),
        .help = "Keep user and group: without it files in a container are root's, and files of "
                "this machine the caller's",
    },
    {
        .name = "follow-link",
        .short_name = 'L',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct cp_options, follow),
        .help = "Copy what a link leads to, where SRC_PATH is one",
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct cp_options, quiet),
        .help = "Show no progress and do not say what was copied",
    },
    {.name = NULL},
};

static const struct option_group cp_groups[] = {{.options = cp_table}, {.options = NULL}};

/* --- words ------------------------------------------------------------------------------------ */

/* CONTAINER:PATH, or a path of this machine: what begins with / or . is one in any case. */
struct place {
    char *container; /* owned; NULL: this machine */
    char *path;      /* owned */
};

static void split_place(const char *word, struct place *ret)
{
    const char *colon = strchr(word, ':');

    if (word[0] == '/' || word[0] == '.' || !colon || colon == word) {
        *ret = (struct place){NULL, xstrdup(word)};
        return;
    }
    ret->container = xstrndup(word, (size_t)(colon - word));
    ret->path = xstrdup(colon[1] ? colon + 1 : "/");
}

static void place_finish(struct place *place)
{
    free(place->container);
    free(place->path);
}
#define _cleanup_place_ _cleanup_(place_finish)

/* The folder that a path of a container is in, and its name there. Owned. */
static void split_path(const char *path, char **ret_folder, char **ret_name)
{
    size_t length = strlen(path);

    while (length && path[length - 1] == '/')
        length--;
    size_t name = length;
    while (name && path[name - 1] != '/')
        name--;
    *ret_folder = xasprintf("/%.*s", (int)name, path);
    *ret_name = xstrndup(path + name, length - name);
}

/* --- what both directions need ---------------------------------------------------------------- */

static int stat_path(struct cli *cli, const struct place *place, struct api_path_stat **ret,
                     struct error *err)
{
    const struct api_archive_path params = {.container = place->container, .path = place->path};

    return cli_call(cli, "container.archiveStat", &params, ret, err);
}

/* Goes on where a link leads to. */
static int stat_followed(struct cli *cli, struct place *place, struct api_path_stat **ret,
                         struct error *err)
{
    int r = stat_path(cli, place, ret, err);

    if (r < 0 || !(*ret)->link_target)
        return r;
    free(place->path);
    place->path = xstrdup((*ret)->link_target);
    api_path_stat_free(steal_ptr(*ret));
    return stat_path(cli, place, ret, err);
}

static void say_copied(const struct cp_options *options, uint64_t bytes, const char *word)
{
    _cleanup_free_ char *size = text_from_size(bytes);

    if (!options->quiet && isatty(STDOUT_FILENO))
        fprintf(stderr, "Successfully copied %s to %s\n", size, word);
}

/* Of two failures, the one that is not about a pipe that the other one broke. */
static int join_failures(int r, struct error *err, int local, struct error *local_err)
{
    if (local >= 0)
        return r;
    if (r >= 0 || strstr(error_message(err), "Broken pipe") ||
        !strstr(error_message(local_err), "Broken pipe")) {
        error_finish(err);
        return error_move(err, local_err);
    }
    return r;
}

static int end_local(struct image_worker *worker, struct error *err)
{
    struct image_worker_result *result = NULL;
    int r = image_worker_wait(worker, NULL, NULL, -1, &result, err);

    image_worker_result_free(result);
    image_worker_free(worker);
    return r;
}

/* --- out of a container ----------------------------------------------------------------------- */

static int get(struct cli *cli, const struct place *source, const char *name, int fd,
               const struct cp_options *options, uint64_t *ret_bytes, struct error *err)
{
    const struct api_archive_get params = {
        .container = source->container,
        .path = source->path,
        .name = (char *)(uintptr_t)name,
    };
    struct api_archive_got *got = NULL;
    struct progress progress;

    progress_start(&progress, "Copying", -1, options->quiet);
    int r = cli_call_with_fd(cli, "container.archiveGet", &params, &got, fd, progress_tick,
                             &progress, err);
    progress_end(&progress);
    *ret_bytes = got ? got->bytes : 0;
    api_archive_got_free(got);
    return r;
}

static int copy_to_stdout(struct cli *cli, const struct place *source,
                          const struct cp_options *options, struct error *err)
{
    uint64_t bytes;

    if (isatty(STDOUT_FILENO))
        return error_set(err, -EINVAL, "cowardly refusing to write an archive to a terminal");
    return get(cli, source, NULL, STDOUT_FILENO, options, &bytes, err);
}

static int get_into(struct cli *cli, const struct place *source, const char *name,
                    const struct local_target *target, const struct cp_options *options,
                    uint64_t *ret_bytes, struct error *err)
{
    _cleanup_error_ struct error local_err = ERROR_INIT;
    struct image_worker *worker;
    int fd = -1;
    int r = local_place(target, options->archive && geteuid() == 0, &worker, &fd, err);

    if (r < 0)
        return r;
    r = get(cli, source, name, fd, options, ret_bytes, err);
    close_fd(fd);
    return join_failures(r, err, end_local(worker, &local_err), &local_err);
}

static int copy_out(struct cli *cli, struct place *source, const char *to,
                    const struct cp_options *options, struct error *err)
{
    _cleanup_api_path_stat_ struct api_path_stat *stat = NULL;
    _cleanup_free_ char *folder = NULL, *name = NULL;
    struct local_target target = {.fd = -1};
    uint64_t bytes = 0;

    split_path(source->path, &folder, &name);
    int r = options->follow ? stat_followed(cli, source, &stat, err)
                            : stat_path(cli, source, &stat, err);
    if (r < 0)
        return r;
    if (text_equal(to, "-"))
        return copy_to_stdout(cli, source, options, err);
    r = local_target_open(to, S_ISDIR(stat->mode), &target, err);
    /* A link that was followed gives its name to the copy. */
    const char *as = target.name                                                  ? target.name
                     : options->follow && name[0] && !text_equal(stat->name, ".") ? name
                                                                                  : NULL;
    if (r >= 0)
        r = get_into(cli, source, as, &target, options, &bytes, err);
    local_target_finish(&target);
    if (r >= 0)
        say_copied(options, bytes, to);
    return r;
}

/* --- into one --------------------------------------------------------------------------------- */

static int put(struct cli *cli, const struct place *target, int fd,
               const struct cp_options *options, uint64_t *ret_bytes, struct error *err)
{
    const struct api_archive_put params = {
        .container = target->container,
        .path = target->path,
        .no_overwrite_dir_non_dir = true,
        .has_no_overwrite_dir_non_dir = true,
    };
    struct api_archive_done *done = NULL;
    struct progress progress;

    progress_start(&progress, "Copying", -1, options->quiet);
    int r = cli_call_with_fd(cli, "container.archivePut", &params, &done, fd, progress_tick,
                             &progress, err);
    progress_end(&progress);
    *ret_bytes = done ? done->bytes : 0;
    api_archive_done_free(done);
    return r;
}

/* Where in the container, as a folder that is there (target->path) and a name in it; *ret_name
 * NULL: the source's own. */
static int find_target(struct cli *cli, struct place *target, bool source_is_folder,
                       char **ret_name, struct error *err)
{
    _cleanup_api_path_stat_ struct api_path_stat *stat = NULL;
    _cleanup_error_ struct error reason = ERROR_INIT;
    int r = stat_followed(cli, target, &stat, &reason);

    if (r < 0 && r != -ENOENT)
        return error_move(err, &reason);
    if (r >= 0 && S_ISDIR(stat->mode))
        return 0;
    if (r >= 0 && source_is_folder)
        return error_set(err, -ENOTDIR, "cannot copy a folder over the file %s:%s",
                         target->container, target->path);
    if (r < 0 && !source_is_folder && text_ends_with(target->path, "/") && target->path[1])
        return error_set(err, -ENOENT, "%s:%s: no such directory", target->container, target->path);
    char *folder;
    split_path(target->path, &folder, ret_name);
    free(target->path);
    target->path = folder;
    return 0;
}

static int put_source(struct cli *cli, const struct local_source *source, const char *name,
                      const struct place *target, const struct cp_options *options,
                      uint64_t *ret_bytes, struct error *err)
{
    _cleanup_error_ struct error local_err = ERROR_INIT;
    struct image_worker *worker;
    int fd = -1;
    int r = local_pack(source, name, options->archive, &worker, &fd, err);

    if (r < 0)
        return r;
    r = put(cli, target, fd, options, ret_bytes, err);
    close_fd(fd);
    return join_failures(r, err, end_local(worker, &local_err), &local_err);
}

static int copy_from_stdin(struct cli *cli, const struct place *target,
                           const struct cp_options *options, struct error *err)
{
    uint64_t bytes;

    if (isatty(STDIN_FILENO))
        return error_set(err, -EINVAL, "standard input is a terminal, not an archive");
    return put(cli, target, STDIN_FILENO, options, &bytes, err);
}

static int copy_in(struct cli *cli, const char *from, struct place *target,
                   const struct cp_options *options, struct error *err)
{
    _cleanup_free_ char *word = xasprintf("%s:%s", target->container, target->path);
    struct local_source source;
    char *name = NULL;
    uint64_t bytes = 0;

    if (text_equal(from, "-"))
        return copy_from_stdin(cli, target, options, err);
    int r = local_source_open(from, options->follow, &source, err);
    if (r >= 0)
        r = find_target(cli, target, source.folder, &name, err);
    if (r >= 0)
        r = put_source(cli, &source, name ? name : source.name, target, options, &bytes, err);
    local_source_finish(&source);
    free(name);
    if (r >= 0)
        say_copied(options, bytes, word);
    return r;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    _cleanup_place_ struct place from = {0}, to = {0};
    _cleanup_error_ struct error err = ERROR_INIT;
    int r;

    split_place(operands[0], &from);
    split_place(operands[1], &to);
    if (from.container && to.container)
        return cli_fail_usage(cli, EXIT_FAILED, "copying between containers is not supported");
    if (!from.container && !to.container)
        return cli_fail_usage(cli, EXIT_FAILED,
                              "either the source or the destination must be CONTAINER:PATH");
    if (from.container)
        r = copy_out(cli, &from, to.path, values, &err);
    else
        r = copy_in(cli, from.path, &to, values, &err);
    return r < 0 ? cli_fail(&err) : EXIT_DONE;
}

const struct command cp_command = {
    .name = "cp",
    .usage = "[OPTIONS] [CONTAINER:]SRC_PATH|- [CONTAINER:]DEST_PATH|-",
    .summary = "Copy files between a container and this machine",
    .details = "One of the two is a path in a container. - stands for a tar on standard input or "
               "output.",
    .options = cp_groups,
    .values_size = sizeof(struct cp_options),
    .minimum_operands = 2,
    .maximum_operands = 2,
    .complete = COMPLETE_CONTAINERS,
    .run = run,
};
