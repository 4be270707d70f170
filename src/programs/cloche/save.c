#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "progress.h"

struct save_options {
    const char *output;
};

static const struct option save_table[] = {
    {
        .name = "output",
        .short_name = 'o',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct save_options, output),
        .argument = "string",
        .help = "Write to this file instead of standard output",
        .complete = COMPLETE_FILES,
    },
    {.name = NULL},
};

static const struct option_group save_groups[] = {{.options = save_table}, {.options = NULL}};

/* Where the archive goes: beside the file it will become, so that a failed save leaves the old
 * one, or straight to what is no regular file (a pipe, /dev/null, standard output). */
struct target {
    int fd;
    const char *path; /* NULL: nothing to rename */
    char *temporary;
};

static int open_target(const char *path, struct target *target, struct error *err)
{
    struct stat status;

    *target = (struct target){.fd = -1};
    if (!path) {
        if (isatty(STDOUT_FILENO))
            return error_set(err, -EINVAL,
                             "cowardly refusing to save to a terminal: use -o, or redirect");
        target->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        return target->fd < 0 ? error_errno(err, errno, "standard output") : 0;
    }
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        target->fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    } else {
        target->path = path;
        target->temporary = xasprintf("%s.XXXXXX", path);
        target->fd = mkostemp(target->temporary, O_CLOEXEC);
        mode_t mask = umask(0);
        umask(mask);
        if (target->fd >= 0)
            fchmod(target->fd, 0666 & ~mask);
    }
    return target->fd < 0 ? error_errno(err, errno, "create %s", path) : 0;
}

static int close_target(struct target *target, int r, struct error *err)
{
    if (target->temporary && r >= 0 && rename(target->temporary, target->path) < 0)
        r = error_errno(err, errno, "rename %s to %s", target->temporary, target->path);
    if (target->temporary && r < 0 && target->fd >= 0)
        unlink(target->temporary);
    close_fd(target->fd);
    free(target->temporary);
    return r;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct save_options *options = values;
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct api_image_save params = {
        .names = (char **)operands,
        .names_count = strv_length(operands),
    };
    struct progress progress;
    struct target target;

    int r = open_target(options->output, &target, &err);
    if (r >= 0) {
        progress_start(&progress, "Saving", target.fd, false);
        progress.total = 0;
        r = cli_call_with_fd(cli, "image.save", &params, NULL, target.fd, progress_tick, &progress,
                             &err);
        progress_end(&progress);
    }
    r = close_target(&target, r, &err);
    return r < 0 ? cli_fail(&err) : EXIT_DONE;
}

const struct command save_command = {
    .name = "save",
    .usage = "[OPTIONS] IMAGE [IMAGE...]",
    .summary = "Write images to an archive that other tools read",
    .options = save_groups,
    .values_size = sizeof(struct save_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_IMAGES,
    .run = run,
};
