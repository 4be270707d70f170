#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"

struct create_options {
    bool attachable, config_only, ingress, internal, ipv6, ipv4;
    char **aux_addresses, **gateways, **ip_ranges, **ipam_options, **labels, **options, **subnets;
    const char *config_from, *driver, *ipam_driver, *scope;
};

static const struct option create_table[] = {
    {
        .name = "attachable",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct create_options, attachable),
        .help = "Kept for docker's sake: every network is",
    },
    {
        .name = "aux-address",
        .kind = OPTION_LIST,
        .offset = offsetof(struct create_options, aux_addresses),
        .argument = "list",
        .help = "Address of a subnet that somebody else has: NAME=ADDRESS",
    },
    {
        .name = "config-from",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct create_options, config_from),
        .argument = "string",
        .help = "Refused: networks of swarms have configurations of their own",
    },
    {
        .name = "config-only",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct create_options, config_only),
        .help = "Refused, likewise",
    },
    {
        .name = "driver",
        .short_name = 'd',
        .kind = OPTION_TEXT,
        .offset = offsetof(struct create_options, driver),
        .argument = "string",
        .help = "What the network is made of: bridge, or cni (plug-ins)",
    },
    {
        .name = "gateway",
        .kind = OPTION_LIST,
        .offset = offsetof(struct create_options, gateways),
        .argument = "list",
        .help = "This machine's address in a subnet (default: its first one)",
    },
    {
        .name = "ingress",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct create_options, ingress),
        .help = "Refused: such networks belong to swarms",
    },
    {
        .name = "internal",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct create_options, internal),
        .help = "Let nothing go from it to anywhere but this machine, nor back",
    },
    {
        .name = "ip-range",
        .kind = OPTION_LIST,
        .offset = offsetof(struct create_options, ip_ranges),
        .argument = "list",
        .help = "Part of a subnet that containers get their addresses from",
    },
    {
        .name = "ipam-driver",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct create_options, ipam_driver),
        .argument = "string",
        .help = "Where addresses come from: default",
    },
    {
        .name = "ipam-opt",
        .kind = OPTION_LIST,
        .offset = offsetof(struct create_options, ipam_options),
        .argument = "list",
        .help = "Option of that: KEY=VALUE",
    },
    {
        .name = "ipv4",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct create_options, ipv4),
        .help = "IPv4 addresses for containers; there are always some",
    },
    {
        .name = "ipv6",
        .kind = OPTION_FLAG,
        .offset = offsetof(struct create_options, ipv6),
        .help = "IPv6 addresses for containers, too",
    },
    {
        .name = "label",
        .kind = OPTION_LIST,
        .offset = offsetof(struct create_options, labels),
        .argument = "list",
        .help = "Attach a label: KEY=value",
    },
    {
        .name = "opt",
        .short_name = 'o',
        .kind = OPTION_LIST,
        .offset = offsetof(struct create_options, options),
        .argument = "list",
        .help = "Option of the driver, in docker's words: "
                "com.docker.network.driver.mtu=1400",
    },
    {
        .name = "scope",
        .kind = OPTION_TEXT,
        .offset = offsetof(struct create_options, scope),
        .argument = "string",
        .help = "Where the network is: local",
    },
    {
        .name = "subnet",
        .kind = OPTION_LIST,
        .offset = offsetof(struct create_options, subnets),
        .argument = "list",
        .help = "Its subnet: ADDRESS/PREFIX, one of IPv4 and one of IPv6 (default: chosen)",
    },
    {.name = NULL},
};

static const struct option_group create_groups[] = {{.options = create_table}, {.options = NULL}};

static void add_pairs(char *const *list, struct json_string_map **map)
{
    for (; list && *list; list++) {
        size_t length = strcspn(*list, "=");
        _cleanup_free_ char *key = xstrndup(*list, length);

        json_string_map_set(map, key, (*list)[length] ? *list + length + 1 : "");
    }
}

static bool is_ipv6(const char *text)
{
    return strchr(text, ':') != NULL;
}

/* The subnet of the same family: there is one of each at most. */
static struct api_network_subnet *subnet_for(const struct api_network_ipam *ipam, const char *text)
{
    for (size_t i = 0; i < ipam->config_count; i++) {
        if (is_ipv6(ipam->config[i]->subnet) == is_ipv6(text))
            return ipam->config[i];
    }
    return NULL;
}

static int add_details(const struct create_options *options, struct api_network_ipam *ipam,
                       struct error *err)
{
    for (char **text = options->gateways; text && *text; text++) {
        struct api_network_subnet *subnet = subnet_for(ipam, *text);

        if (!subnet)
            return error_set(err, -EINVAL, "no matching subnet for gateway %s", *text);
        free(subnet->gateway);
        subnet->gateway = xstrdup(*text);
    }
    for (char **text = options->ip_ranges; text && *text; text++) {
        struct api_network_subnet *subnet = subnet_for(ipam, *text);

        if (!subnet)
            return error_set(err, -EINVAL, "no matching subnet for range %s", *text);
        free(subnet->ip_range);
        subnet->ip_range = xstrdup(*text);
    }
    for (char **text = options->aux_addresses; text && *text; text++) {
        const char *value = strchr(*text, '=');
        struct api_network_subnet *subnet = value ? subnet_for(ipam, value + 1) : NULL;

        if (!subnet)
            return error_set(err, -EINVAL, "no matching subnet for aux-address %s", *text);
        add_pairs((char *[]){*text, NULL}, &subnet->aux_addresses);
    }
    return 0;
}

static int build_ipam(const struct create_options *options, struct api_network_ipam **ret,
                      struct error *err)
{
    _cleanup_api_network_ipam_ struct api_network_ipam *ipam = xnew(struct api_network_ipam);
    size_t count = strv_length(options->subnets);

    ipam->driver = xstrdup(options->ipam_driver);
    add_pairs(options->ipam_options, &ipam->options);
    ipam->config = xnew_array(struct api_network_subnet *, count + 1);
    for (size_t i = 0; i < count; i++) {
        ipam->config[i] = xnew(struct api_network_subnet);
        ipam->config[i]->subnet = xstrdup(options->subnets[i]);
        ipam->config_count++;
    }
    int r = add_details(options, ipam, err);
    if (r == 0)
        *ret = steal_ptr(ipam);
    return r;
}

static int create(struct cli *cli, const struct create_options *options, const char *name,
                  struct api_network_created **ret, struct error *err)
{
    _cleanup_api_network_create_ struct api_network_create *params =
        xnew(struct api_network_create);

    if (options->config_only || options->config_from)
        return error_set(err, -EOPNOTSUPP, "there are no configuration-only networks");
    params->name = xstrdup(name);
    params->driver = xstrdup(options->driver);
    params->scope = xstrdup(options->scope);
    params->internal = params->has_internal = options->internal;
    params->attachable = params->has_attachable = options->attachable;
    params->ingress = params->has_ingress = options->ingress;
    params->enable_ipv6 = params->has_enable_ipv6 = options->ipv6;
    add_pairs(options->labels, &params->labels);
    add_pairs(options->options, &params->options);
    int r = build_ipam(options, &params->ipam, err);
    return r < 0 ? r : cli_call(cli, "network.create", params, ret, err);
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    _cleanup_api_network_created_ struct api_network_created *created = NULL;
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;

    if (create(cli, values, operands[0], &created, &err) < 0)
        return cli_fail(&err);
    buffer_printf(&text, "%s\n", created->id);
    return cli_print(&text);
}

const struct command network_create_command = {
    .name = "create",
    .usage = "[OPTIONS] NETWORK",
    .summary = "Make a network",
    .options = create_groups,
    .values_size = sizeof(struct create_options),
    .minimum_operands = 1,
    .maximum_operands = 1,
    .run = run,
};
