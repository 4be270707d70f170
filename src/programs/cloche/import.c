#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "progress.h"

struct import_options {
    char **changes;
    const char *message, *platform;
};

static const struct option import_table[] = {
    {
        .name = "change",
        .short_name = 'c',
        .kind = OPTION_LIST,
        .offset = offsetof(struct import_options, changes),
        .argument = "list",
        .help = "Dockerfile instruction for the image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, "
                "LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR",
    },
    {
        .name = "message",
        .short_name = 'm',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct import_options, message),
        .argument = "string",
        .help = "Message for its history",
    },
    {
        .name = "platform",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct import_options, platform),
        .argument = "string",
        .help = "What it runs on, if not on this machine: linux/ARCHITECTURE[/VARIANT]",
    },
    {.name = NULL},
};

static const struct option_group import_groups[] = {{.options = import_table}, {.options = NULL}};

/* What an address leads to is fetched by the daemon; the descriptor is nothing then. */
static bool is_address(const char *path)
{
    return text_starts_with(path, "http://") || text_starts_with(path, "https://");
}

static int open_archive(const char *path, struct error *err)
{
    if (is_address(path))
        path = "/dev/null";
    if (text_equal(path, "-") && isatty(STDIN_FILENO))
        return error_set(err, -EINVAL, "standard input is a terminal, not an archive");
    int fd = text_equal(path, "-") ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
                                   : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    return fd < 0 ? error_errno(err, errno, "open %s", path) : fd;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct import_options *options = values;
    _cleanup_api_image_id_ struct api_image_id *image = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int archive = open_archive(operands[0], &err);
    _cleanup_free_ char *message =
        options->message ? xstrdup(options->message) : xasprintf("Imported from %s", operands[0]);
    const struct api_image_import params = {
        .name = operands[1],
        .url = is_address(operands[0]) ? operands[0] : NULL,
        .message = message,
        .platform = (char *)(uintptr_t)options->platform,
        .changes = options->changes,
        .changes_count = strv_length(options->changes),
    };
    struct progress progress;

    if (archive < 0)
        return cli_fail(&err);
    progress_start(&progress, "Importing", archive, false);
    int r = cli_call_with_fd(cli, "image.import", &params, &image, archive, progress_tick,
                             &progress, &err);
    progress_end(&progress);
    if (r < 0)
        return cli_fail(&err);
    printf("%s\n", image->id);
    return EXIT_DONE;
}

const struct command import_command = {
    .name = "import",
    .usage = "[OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]",
    .summary = "Make an image of one layer from a tar",
    .options = import_groups,
    .values_size = sizeof(struct import_options),
    .minimum_operands = 1,
    .maximum_operands = 2,
    .complete = COMPLETE_FILES,
    .run = run,
};
