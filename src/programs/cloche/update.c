#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <schema/management.h>

#include "cli.h"
#include "spec.h"

struct update_options {
    struct resource_options resources;
    const char *restart;
    bool restart_unhealthy;
};

static const char *const restart_words[] = {"no", "always", "unless-stopped", "on-failure", NULL};

static const struct option table[] = {
    {
        .name = "restart",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct update_options, restart),
        .argument = "string",
        .help = "no, always, unless-stopped or on-failure[:N]",
        .complete = COMPLETE_EXAMPLES,
        .choices = restart_words,
    },
    {
        .name = "restart-unhealthy",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct update_options, restart_unhealthy),
        .help = "Restart it also when its checks say unhealthy",
    },
    {.name = NULL},
};

static const struct option_group groups[] = {
    {.options = resource_option_table, .offset = offsetof(struct update_options, resources)},
    {.options = table},
    {.options = NULL},
};

static int build(const struct update_options *options, struct api_container_update *update,
                 struct error *err)
{
    static const struct resource_options nothing;
    int r = 0;

    if (memcmp(&options->resources, &nothing, sizeof(nothing)) != 0)
        r = resources_build(&options->resources, &update->resources, err);
    if (r >= 0 && (options->restart || options->restart_unhealthy))
        r = restart_policy_parse(options->restart ? options->restart : "no",
                                 &update->restart_policy, err);
    if (r >= 0 && !update->resources && !update->restart_policy)
        r = error_set(err, -EINVAL, "you must provide one or more flags when using this command");
    if (r >= 0 && options->restart_unhealthy)
        update->restart_policy->when_unhealthy = update->restart_policy->has_when_unhealthy = true;
    return r;
}

static int update_one(struct cli *cli, struct api_container_update *update, const char *container)
{
    _cleanup_api_container_updated_ struct api_container_updated *updated = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;

    update->container = (char *)container;
    int r = cli_call(cli, "container.update", update, &updated, &err);
    update->container = NULL;
    if (r < 0)
        return cli_fail(&err);
    for (size_t i = 0; i < updated->warnings_count; i++)
        fprintf(stderr, "WARNING: %s\n", updated->warnings[i]);
    printf("%s\n", container);
    return EXIT_DONE;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    _cleanup_api_container_update_ struct api_container_update *update =
        xnew(struct api_container_update);
    _cleanup_error_ struct error err = ERROR_INIT;
    int code = EXIT_DONE;

    if (build(values, update, &err) < 0)
        return cli_fail(&err);
    for (; *operands; operands++) {
        int one = update_one(cli, update, *operands);
        code = one == EXIT_DONE ? code : one;
    }
    return code;
}

const struct command update_command = {
    .name = "update",
    .usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    .summary = "Change limits and restart policy of containers",
    .options = groups,
    .values_size = sizeof(struct update_options),
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_CONTAINERS,
    .run = run,
};
