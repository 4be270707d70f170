#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"

struct connect_options {
    char **aliases, **driver_options, **links, **link_local;
    const char *ip, *ip6;
};

static const struct option connect_table[] = {
    {
        .name = "alias",
        .kind = OPTION_LIST,
        .offset = offsetof(struct connect_options, aliases),
        .argument = "list",
        .help = "Further name of the container on this network",
    },
    {
        .name = "driver-opt",
        .kind = OPTION_LIST,
        .offset = offsetof(struct connect_options, driver_options),
        .argument = "list",
        .help = "Kept with the container: KEY=VALUE",
    },
    {
        .name = "ip",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct connect_options, ip),
        .argument = "string",
        .help = "IPv4 address it is to have (default: chosen)",
    },
    {
        .name = "ip6",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct connect_options, ip6),
        .argument = "string",
        .help = "IPv6 address it is to have (default: chosen)",
    },
    {
        .name = "link",
        .kind = OPTION_LIST,
        .offset = offsetof(struct connect_options, links),
        .argument = "list",
        .help = "A name for another container, for this one alone: CONTAINER[:NAME]",
    },
    {
        .name = "link-local-ip",
        .kind = OPTION_LIST,
        .offset = offsetof(struct connect_options, link_local),
        .argument = "list",
        .help = "Its link-local addresses",
    },
    {.name = NULL},
};

static const struct option_group connect_groups[] = {{.options = connect_table}, {.options = NULL}};

static void build_endpoint(const struct connect_options *options, struct api_endpoint *endpoint)
{
    endpoint->aliases = options->aliases;
    endpoint->aliases_count = strv_length(options->aliases);
    endpoint->links = options->links;
    endpoint->links_count = strv_length(options->links);
    endpoint->link_local_ips = options->link_local;
    endpoint->link_local_ips_count = strv_length(options->link_local);
    endpoint->ipv4_address = (char *)options->ip;
    endpoint->ipv6_address = (char *)options->ip6;
}

static int run_connect(struct cli *cli, const void *values, char *const *operands)
{
    const struct connect_options *options = values;
    _cleanup_error_ struct error err = ERROR_INIT;
    struct api_endpoint endpoint = {0};
    const struct api_network_connect params = {
        .network = operands[0], .container = operands[1], .endpoint = &endpoint};

    build_endpoint(options, &endpoint);
    for (char **text = options->driver_options; text && *text; text++) {
        size_t length = strcspn(*text, "=");
        _cleanup_free_ char *key = xstrndup(*text, length);

        json_string_map_set(&endpoint.driver_opts, key, (*text)[length] ? *text + length + 1 : "");
    }
    int r = cli_call(cli, "network.connect", &params, NULL, &err);
    json_string_map_free(endpoint.driver_opts);
    return r < 0 ? cli_fail(&err) : EXIT_DONE;
}

const struct command network_connect_command = {
    .name = "connect",
    .usage = "[OPTIONS] NETWORK CONTAINER",
    .summary = "Put a container on a network, also while it runs",
    .options = connect_groups,
    .values_size = sizeof(struct connect_options),
    .minimum_operands = 2,
    .maximum_operands = 2,
    .complete = COMPLETE_NETWORKS,
    .run = run_connect,
};

/* ---- disconnect */

struct disconnect_options {
    bool force;
};

static const struct option disconnect_table[] = {
    {
        .name = "force",
        .short_name = 'f',
        .kind = OPTION_FLAG,
        .offset = offsetof(struct disconnect_options, force),
        .help = "Accepted, as docker's; it changes nothing",
    },
    {.name = NULL},
};

static const struct option_group disconnect_groups[] = {{.options = disconnect_table},
                                                        {.options = NULL}};

static int run_disconnect(struct cli *cli, const void *values, char *const *operands)
{
    const struct disconnect_options *options = values;
    _cleanup_error_ struct error err = ERROR_INIT;
    const struct api_network_disconnect params = {
        .network = operands[0],
        .container = operands[1],
        .force = options->force,
        .has_force = true,
    };

    return cli_call(cli, "network.disconnect", &params, NULL, &err) < 0 ? cli_fail(&err)
                                                                        : EXIT_DONE;
}

const struct command network_disconnect_command = {
    .name = "disconnect",
    .usage = "[OPTIONS] NETWORK CONTAINER",
    .summary = "Take a container off a network, also while it runs",
    .options = disconnect_groups,
    .values_size = sizeof(struct disconnect_options),
    .minimum_operands = 2,
    .maximum_operands = 2,
    .complete = COMPLETE_NETWORKS,
    .run = run_disconnect,
};
