#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/management.h>

#include "cli.h"
#include "spec.h"

static const char *protocol_of(const struct api_port *port)
{
    return text_empty(port->protocol) ? "tcp" : port->protocol;
}

static void write_host(const struct api_port *port, struct buffer *out)
{
    const bool v6 = strchr(port->host_address, ':') != NULL;

    buffer_printf(out, "%s%s%s:%u\n", v6 ? "[" : "", port->host_address, v6 ? "]" : "",
                  port->host_port);
}

/* ---- which are there: docker's form */

static int show(struct cli *cli, const char *name, const char *wanted)
{
    _cleanup_api_container_details_ struct api_container_details *container = NULL;
    const struct api_container_ref params = {.container = (char *)name};
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_free_ char *key =
        wanted ? xasprintf(strchr(wanted, '/') ? "%s" : "%s/tcp", wanted) : NULL;

    if (cli_call(cli, "container.inspect", &params, &container, &err) < 0)
        return cli_fail(&err);
    for (size_t i = 0; i < container->network->ports_count; i++) {
        const struct api_port *port = container->network->ports[i];
        _cleanup_free_ char *inside = xasprintf("%u/%s", port->container_port, protocol_of(port));

        if (key && !text_equal(key, inside))
            continue;
        if (!key)
            buffer_printf(&text, "%s -> ", inside);
        write_host(port, &text);
    }
    if (key && text.length == 0) {
        error_set(&err, -ENOENT, "no public port '%s' published for %s", key, name);
        return cli_fail(&err);
    }
    return cli_print(&text);
}

/* ---- further ones, and some less */

static int change(struct cli *cli, const char *method, char *const *operands)
{
    _cleanup_api_container_spec_ struct api_container_spec *spec = xnew(struct api_container_spec);
    _cleanup_api_published_ports_ struct api_published_ports *ports = NULL;
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = 0;

    for (char *const *text = operands + 1; r == 0 && *text; text++)
        r = spec_add_port(spec, *text, &err);
    const struct api_container_ports params = {
        .container = operands[0], .ports = spec->ports, .ports_count = spec->ports_count};
    if (r == 0)
        r = cli_call(cli, method, &params, &ports, &err);
    return r < 0 ? cli_fail(&err) : EXIT_DONE;
}

static int run(struct cli *cli, const void *values, char *const *operands)
{
    size_t count = strv_length(operands);

    if (count > 2 && text_equal(operands[0], "add"))
        return change(cli, "container.publish", operands + 1);
    if (count > 2 && text_equal(operands[0], "rm"))
        return change(cli, "container.unpublish", operands + 1);
    if (count > 2)
        return cli_fail_usage(cli, EXIT_FAILED,
                              "what to do with the ports: add CONTAINER PORT..., rm CONTAINER "
                              "PORT..., or CONTAINER [PORT]");
    return show(cli, operands[0], operands[1]);
}

const struct command port_command = {
    .name = "port",
    .usage = "CONTAINER [PORT] | add CONTAINER PORT... | rm CONTAINER PORT...",
    .summary = "Show a container's published ports, or change them while it runs",
    .minimum_operands = 1,
    .maximum_operands = -1,
    .complete = COMPLETE_CONTAINERS_RUNNING,
    .run = run,
};
