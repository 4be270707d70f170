#include <fcntl.h>
#include <stdio.h>

#include <schema/management.h>

#include "cli.h"
#include "transfer.h"

struct load_options {
    const char *input;
    bool quiet;
};

static const struct option load_table[] = {
    {
        .name = "input",
        .short_name = 'i',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct load_options, input),
        .argument = "string",
        .help = "Read this archive instead of standard input",
        .complete = COMPLETE_FILES,
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct load_options, quiet),
        .help = "Show no progress",
    },
    {.name = NULL},
};

static const struct option_group load_groups[] = {{.options = load_table}, {.options = NULL}};

static int open_archive(const struct load_options *options, struct error *err)
{
    int fd;

    if (!options->input) {
        if (isatty(STDIN_FILENO))
            return error_set(err, -EINVAL,
                             "requested load from stdin, but stdin is a terminal: "
                             "name an archive with -i, or redirect one");
        fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
        return fd < 0 ? error_errno(err, errno, "standard input") : fd;
    }
    fd = open(options->input, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    return fd < 0 ? error_errno(err, errno, "open %s", options->input) : fd;
}

/* docker's words: the names an image got, or its ID when the archive has none for it. */
static void print_loaded(const struct api_image_loaded *loaded)
{
    for (size_t i = 0; i < loaded->images_count; i++) {
        const struct api_loaded_image *image = loaded->images[i];
        for (size_t j = 0; j < image->names_count; j++)
            printf("Loaded image: %s\n", image->names[j]);
        if (!image->names_count)
            printf("Loaded image ID: %s\n", image->id);
    }
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct load_options *options = values;
    _cleanup_api_image_loaded_ struct api_image_loaded *loaded = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int archive = open_archive(options, &err);
    const struct api_image_load params = {.quiet = options->quiet, .has_quiet = true};

    if (archive < 0)
        return cli_fail(&err);
    int r = transfer_call_with_fd(cli, "image.load", &params, &loaded, archive, stdout,
                                  options->quiet, &err);
    if (r < 0)
        return cli_fail(&err);
    print_loaded(loaded);
    return EXIT_DONE;
}

const struct command load_command = {
    .name = "load",
    .usage = "[OPTIONS]",
    .summary = "Load images from an archive (docker-archive or OCI layout, also compressed)",
    .options = load_groups,
    .values_size = sizeof(struct load_options),
    .run = run,
};
