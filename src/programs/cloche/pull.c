#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "credentials.h"
#include "transfer.h"

struct pull_options {
    bool all_tags, quiet, no_trust;
    const char *platform;
};

static const struct option pull_table[] = {
    {
        .name = "all-tags",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct pull_options, all_tags),
        .help = "Get all tags of the repository",
    },
    {
        .name = "disable-content-trust",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct pull_options, no_trust),
        .help = "Skip verification of signatures (there is none; default true)",
    },
    {
        .name = "platform",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct pull_options, platform),
        .argument = "string",
        .help = "Get the image for this platform, linux/arm64 for instance",
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct pull_options, quiet),
        .help = "Print only the name at the end",
    },
    {.name = NULL},
};

static const struct option_group pull_groups[] = {{.options = pull_table}, {.options = NULL}};

static void set_defaults(void *values)
{
    ((struct pull_options *)values)->no_trust = true;
}

static bool has_tag(const char *image)
{
    const char *slash = strrchr(image, '/');

    return strchr(slash ? slash : image, ':') || strchr(image, '@');
}

/* As docker shows it: without docker.io/library/. */
static const char *familiar(const char *name)
{
    static const char official[] = "docker.io/library/", docker[] = "docker.io/";

    if (text_starts_with(name, official))
        return name + strlen(official);
    return text_starts_with(name, docker) ? name + strlen(docker) : name;
}

static void print_pulled(const struct api_image_pulled *pulled, const struct pull_options *options)
{
    for (size_t i = 0; i < pulled->images_count; i++) {
        const struct api_pulled_image *image = pulled->images[i];
        if (!options->quiet)
            printf("Digest: %s\nStatus: %s%s\n", image->digest,
                   image->changed ? "Downloaded newer image for " : "Image is up to date for ",
                   familiar(image->name));
        printf("%s\n", image->name);
    }
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct pull_options *options = values;
    _cleanup_api_image_pulled_ struct api_image_pulled *pulled = NULL;
    _cleanup_api_credentials_ struct api_credentials *credentials = NULL;
    _cleanup_free_ char *registry = credentials_registry(operands[0]);
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = credentials_find(registry, &credentials, &err);
    const struct api_image_pull params = {
        .image = operands[0],
        .all_tags = options->all_tags,
        .has_all_tags = options->all_tags,
        .platform = (char *)options->platform,
        .credentials = credentials,
    };

    if (r == 0 && !has_tag(operands[0]) && !options->all_tags && !options->quiet) {
        printf("Using default tag: latest\n");
        fflush(stdout);
    }
    if (r == 0)
        r = transfer_call(cli, "image.pull", &params, &pulled, stdout, options->quiet, &err);
    if (r < 0)
        return cli_fail(&err);
    print_pulled(pulled, options);
    return EXIT_DONE;
}

const struct command pull_command = {
    .name = "pull",
    .usage = "[OPTIONS] NAME[:TAG|@DIGEST]",
    .summary = "Get an image from a registry",
    .options = pull_groups,
    .values_size = sizeof(struct pull_options),
    .set_defaults = set_defaults,
    .minimum_operands = 1,
    .maximum_operands = 1,
    .common = true,
    .complete = COMPLETE_IMAGES,
    .run = run,
};
