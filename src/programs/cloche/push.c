#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "credentials.h"
#include "transfer.h"

struct push_options {
    bool all_tags, quiet, no_trust;
};

static const struct option push_table[] = {
    {
        .name = "all-tags",
        .short_name = 'a',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct push_options, all_tags),
        .help = "Push all tags that the repository has here",
    },
    {
        .name = "disable-content-trust",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct push_options, no_trust),
        .help = "Skip signing (nothing is signed; default true)",
    },
    {
        .name = "quiet",
        .short_name = 'q',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct push_options, quiet),
        .help = "Print only the name at the end",
    },
    {.name = NULL},
};

static const struct option_group push_groups[] = {{.options = push_table}, {.options = NULL}};

static void set_defaults(void *values)
{
    ((struct push_options *)values)->no_trust = true;
}

/* Without tag and digest, owned. */
static char *repository_of(const char *image)
{
    const char *slash = strrchr(image, '/');
    const char *end = strpbrk(slash ? slash : image, ":@");

    return xstrndup(image, end ? (size_t)(end - image) : strlen(image));
}

/* As docker: in full, with its registry. */
static char *full_repository(const char *image)
{
    _cleanup_free_ char *repository = repository_of(image);
    _cleanup_free_ char *registry = credentials_registry(image);

    if (!text_equal(registry, CREDENTIALS_DOCKER) ||
        text_starts_with(repository, CREDENTIALS_DOCKER "/"))
        return xstrdup(repository);
    return xasprintf("docker.io/%s%s", strchr(repository, '/') ? "" : "library/", repository);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    const struct push_options *options = values;
    _cleanup_api_image_pushed_ struct api_image_pushed *pushed = NULL;
    _cleanup_api_credentials_ struct api_credentials *credentials = NULL;
    _cleanup_free_ char *registry = credentials_registry(operands[0]);
    _cleanup_free_ char *repository = full_repository(operands[0]);
    _cleanup_free_ char *plain = repository_of(operands[0]);
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = credentials_find(registry, &credentials, &err);
    const struct api_image_push params = {
        .image = operands[0],
        .all_tags = options->all_tags,
        .has_all_tags = options->all_tags,
        .credentials = credentials,
    };

    if (r == 0 && !options->quiet) {
        if (!options->all_tags && text_equal(plain, operands[0]))
            printf("Using default tag: latest\n");
        printf("The push refers to repository [%s]\n", repository);
        fflush(stdout);
    }
    if (r == 0)
        r = transfer_call(cli, "image.push", &params, &pushed, stdout, options->quiet, &err);
    if (r < 0)
        return cli_fail(&err);
    for (size_t i = 0; i < pushed->images_count; i++) {
        const struct api_pushed_image *image = pushed->images[i];
        if (options->quiet)
            printf("%s:%s\n", repository, image->tag);
        else
            printf("%s: digest: %s size: %llu\n", image->tag, image->digest,
                   (unsigned long long)image->size);
    }
    return EXIT_DONE;
}

const struct command push_command = {
    .name = "push",
    .usage = "[OPTIONS] NAME[:TAG]",
    .summary = "Bring an image to a registry",
    .options = push_groups,
    .values_size = sizeof(struct push_options),
    .set_defaults = set_defaults,
    .minimum_operands = 1,
    .maximum_operands = 1,
    .common = true,
    .complete = COMPLETE_IMAGES,
    .run = run,
};
