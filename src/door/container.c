#include <stdio.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <door/inspect.h>

#include "fields.h"
#include "health.h"
#include "inspect.h"

static void write_state(struct json_writer *writer, const struct api_container_state *state)
{
    const char *status = state->status;

    field_object_begin(writer, "State");
    field_text(writer, "Status", status);
    field_boolean(writer, "Running", state->running);
    field_boolean(writer, "Paused", text_equal(status, "paused"));
    field_boolean(writer, "Restarting", text_equal(status, "restarting"));
    field_boolean(writer, "OOMKilled", state->oom_killed);
    field_boolean(writer, "Dead", text_equal(status, "dead"));
    field_integer(writer, "Pid", state->running ? state->pid : 0);
    field_integer(writer, "ExitCode", state->exit_code);
    field_text(writer, "Error", state->error);
    field_text(writer, "StartedAt", state->started_at ? state->started_at : INSPECT_NEVER);
    field_text(writer, "FinishedAt", state->finished_at ? state->finished_at : INSPECT_NEVER);
    write_health(writer, state->health);
    if (state->has_monitor_pid)
        field_integer(writer, "MonitorPid", state->monitor_pid);
    json_writer_object_end(writer);
}

/* ---- ports: {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "9000"}]} */

static const char *protocol_of(const struct api_port *port)
{
    return text_empty(port->protocol) ? "tcp" : port->protocol;
}

static bool same_container_port(const struct api_port *a, const struct api_port *b)
{
    return a->container_port == b->container_port && text_equal(protocol_of(a), protocol_of(b));
}

static void write_binding(struct json_writer *writer, const struct api_port *port, bool active)
{
    bool range = !active && port->has_host_port && port->host_port_last > port->host_port;
    _cleanup_free_ char *number = range ? xasprintf("%u-%u", port->host_port, port->host_port_last)
                                  : port->has_host_port ? xasprintf("%u", port->host_port)
                                                        : xstrdup("");
    const char *address = port->host_address;

    json_writer_object_begin(writer);
    field_text(writer, "HostIp", active && text_empty(address) ? "0.0.0.0" : address);
    field_text(writer, "HostPort", number);
    json_writer_object_end(writer);
}

static bool seen_before(struct api_port *const *ports, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (same_container_port(ports[i], ports[index]))
            return true;
    }
    return false;
}

static void write_bindings(struct json_writer *writer, struct api_port *const *ports, size_t count,
                           bool active)
{
    for (size_t i = 0; i < count; i++) {
        if (seen_before(ports, i))
            continue;
        _cleanup_free_ char *name =
            xasprintf("%u/%s", ports[i]->container_port, protocol_of(ports[i]));
        json_writer_key(writer, name);
        json_writer_array_begin(writer);
        for (size_t j = i; j < count; j++) {
            if (same_container_port(ports[i], ports[j]))
                write_binding(writer, ports[j], active);
        }
        json_writer_array_end(writer);
    }
}

/* active: as they are published now, not as they were asked for. */
void inspect_write_ports(struct json_writer *writer, const char *key, struct api_port *const *ports,
                         size_t count, bool active)
{
    field_object_begin(writer, key);
    write_bindings(writer, ports, count, active);
    json_writer_object_end(writer);
}

char *inspect_port_key(const char *port)
{
    return xasprintf("%s%s", port, strchr(port, '/') ? "" : "/tcp");
}

static bool is_published(const char *key, struct api_port *const *ports, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        _cleanup_free_ char *name =
            xasprintf("%u/%s", ports[i]->container_port, protocol_of(ports[i]));
        if (text_equal(name, key))
            return true;
    }
    return false;
}

/* Those that are exposed and not among the ports. */
static char **only_exposed(const struct api_container_spec *spec, struct api_port *const *ports,
                           size_t count)
{
    char **only = NULL;

    for (size_t i = 0; i < spec->exposed_ports_count; i++) {
        _cleanup_free_ char *key = inspect_port_key(spec->exposed_ports[i]);
        if (!is_published(key, ports, count) && !strv_contains(only, key))
            strv_take(&only, steal_ptr(key));
    }
    return only;
}

static void write_exposed_ports(struct json_writer *writer, const struct api_container_spec *spec)
{
    _cleanup_strv_ char **only = only_exposed(spec, spec->ports, spec->ports_count);

    for (size_t i = 0; i < spec->ports_count; i++) {
        if (!seen_before(spec->ports, i))
            strv_take(&only, xasprintf("%u/%s", spec->ports[i]->container_port,
                                       protocol_of(spec->ports[i])));
    }
    if (only)
        field_set(writer, "ExposedPorts", only, strv_length(only));
}

/* While it runs, what is exposed and not published is there with null. */
static void write_active_ports(struct json_writer *writer,
                               const struct api_container_details *container)
{
    const struct api_container_network *network = container->network;
    _cleanup_strv_ char **only =
        container->state->running
            ? only_exposed(container->effective, network->ports, network->ports_count)
            : NULL;

    field_object_begin(writer, "Ports");
    write_bindings(writer, network->ports, network->ports_count, true);
    for (size_t i = 0; only && only[i]; i++)
        field_null(writer, only[i]);
    json_writer_object_end(writer);
}

/* ---- mounts */

char *inspect_bind_options(const struct api_bind *bind)
{
    _cleanup_free_ char *more = strv_join(bind->options, ",");

    if (!bind->has_read_only)
        return xstrdup(more);
    return xasprintf("%s%s%s", bind->read_only ? "ro" : "rw", more[0] ? "," : "", more);
}

/* Of a mount that was asked for by -v, what was said there. */
static char *mode_of(const struct api_container_spec *asked, const char *target)
{
    for (size_t i = 0; i < asked->binds_count; i++) {
        if (text_equal(asked->binds[i]->target, target))
            return inspect_bind_options(asked->binds[i]);
    }
    return xstrdup("");
}

static const char *propagation_of(const struct api_mount *mount)
{
    if (mount->bind_options && !text_empty(mount->bind_options->propagation))
        return mount->bind_options->propagation;
    return text_equal(mount->type, "bind") ? "rprivate" : "";
}

/* ROOT/volumes/NAME/_data, ROOT being where ROOT/containers/ID is. */
static char *volume_source(const struct api_container_details *container, const char *name)
{
    const char *root = container->root_dir ? container->root_dir : "";
    const char *containers = strstr(root, "/containers/");

    return xasprintf("%.*s/volumes/%s/_data", containers ? (int)(containers - root) : 0, root,
                     name);
}

static void write_mount(struct json_writer *writer, const struct api_container_details *container,
                        const struct api_mount *mount)
{
    bool volume = text_equal(mount->type, "volume");
    _cleanup_free_ char *source = volume ? volume_source(container, mount->source) : NULL;
    _cleanup_free_ char *mode = mode_of(container->spec, mount->target);

    json_writer_object_begin(writer);
    field_text(writer, "Type", mount->type);
    if (volume)
        field_text(writer, "Name", mount->source);
    field_text(writer, "Source", volume ? source : mount->source ? mount->source : "");
    field_text(writer, "Destination", mount->target);
    if (volume)
        field_text(writer, "Driver", "local");
    field_text(writer, "Mode", mode);
    field_boolean(writer, "RW", !mount->read_only);
    field_text(writer, "Propagation", propagation_of(mount));
    json_writer_object_end(writer);
}

static void write_mounts(struct json_writer *writer, const struct api_container_details *container)
{
    const struct api_container_spec *spec = container->effective;

    json_writer_key(writer, "Mounts");
    json_writer_array_begin(writer);
    for (size_t i = 0; i < spec->mounts_count; i++) {
        /* docker shows those of --mount only */
        if (!text_equal(spec->mounts[i]->type, "tmpfs") ||
            !json_string_map_get(container->spec->tmpfs, spec->mounts[i]->target))
            write_mount(writer, container, spec->mounts[i]);
    }
    json_writer_array_end(writer);
}

static void write_graph_driver(struct json_writer *writer,
                               const struct api_container_details *container)
{
    field_object_begin(writer, "GraphDriver");
    field_object_begin(writer, "Data");
    if (container->upper_dir)
        field_text(writer, "UpperDir", container->upper_dir);
    if (container->root_dir)
        field_text(writer, "MergedDir", container->root_dir);
    json_writer_object_end(writer);
    field_text(writer, "Name", INSPECT_DRIVER);
    json_writer_object_end(writer);
}

/* ---- what was asked for */

static void write_healthcheck(struct json_writer *writer, const struct api_healthcheck *check)
{
    field_object_begin(writer, "Healthcheck");
    field_list(writer, "Test", check->test);
    if (check->has_interval)
        field_integer(writer, "Interval", check->interval);
    if (check->has_timeout)
        field_integer(writer, "Timeout", check->timeout);
    if (check->has_start_period)
        field_integer(writer, "StartPeriod", check->start_period);
    if (check->has_start_interval)
        field_integer(writer, "StartInterval", check->start_interval);
    if (check->has_retries)
        field_integer(writer, "Retries", check->retries);
    json_writer_object_end(writer);
}

static void write_config(struct json_writer *writer, const struct api_container_details *container)
{
    const struct api_container_spec *spec = container->effective;
    _cleanup_free_ char *short_id = xstrndup(container->id, 12);

    field_object_begin(writer, "Config");
    field_text(writer, "Hostname", spec->hostname ? spec->hostname : short_id);
    field_text(writer, "Domainname", spec->domainname);
    field_text(writer, "User", spec->user);
    field_boolean(writer, "AttachStdin", spec->attach_stdin);
    field_boolean(writer, "AttachStdout", spec->attach_stdout);
    field_boolean(writer, "AttachStderr", spec->attach_stderr);
    write_exposed_ports(writer, spec);
    field_boolean(writer, "Tty", spec->tty);
    field_boolean(writer, "OpenStdin", spec->open_stdin);
    field_boolean(writer, "StdinOnce", spec->stdin_once);
    field_list(writer, "Env", spec->env);
    field_list(writer, "Cmd", spec->command);
    field_text(writer, "Image", container->image);
    /* Of the merged specification they are mounts already. */
    if (container->spec->volumes_count)
        field_set(writer, "Volumes", container->spec->volumes, container->spec->volumes_count);
    else
        field_null(writer, "Volumes");
    field_text(writer, "WorkingDir", spec->working_dir);
    field_list(writer, "Entrypoint", spec->entrypoint);
    field_null(writer, "OnBuild");
    field_map(writer, "Labels", spec->labels);
    if (spec->stop_signal)
        field_text(writer, "StopSignal", spec->stop_signal);
    if (spec->has_stop_timeout)
        field_integer(writer, "StopTimeout", spec->stop_timeout);
    if (spec->healthcheck)
        write_healthcheck(writer, spec->healthcheck);
    json_writer_object_end(writer);
}

/* ---- what it got */

/* docker's sandbox is the network namespace, which is the process's here. */
static void write_sandbox(struct json_writer *writer, const struct api_container_details *container)
{
    const struct api_container_state *state = container->state;
    const struct api_container_network *network = container->network;
    bool running = state->running && state->pid > 0;
    _cleanup_free_ char *path =
        running ? xasprintf("/proc/%jd/ns/net", (intmax_t)state->pid) : xstrdup("");

    field_text(writer, "Bridge", "");
    field_text(writer, "SandboxID", running ? container->id : "");
    field_text(writer, "SandboxKey", path);
    field_boolean(writer, "HairpinMode", false);
    field_text(writer, "LinkLocalIPv6Address", "");
    field_integer(writer, "LinkLocalIPv6PrefixLen", 0);
    field_null(writer, "SecondaryIPAddresses");
    field_null(writer, "SecondaryIPv6Addresses");
    field_text(writer, "EndpointID",
               network->networks_count && !text_empty(network->address)
                   ? network->networks[0]->endpoint_id
                   : "");
}

static void write_main_place(struct json_writer *writer,
                             const struct api_container_network *network)
{
    field_text(writer, "Gateway", network->gateway);
    field_text(writer, "IPAddress", network->address);
    field_integer(writer, "IPPrefixLen", network->prefix_length);
    field_text(writer, "MacAddress", network->mac_address);
    field_text(writer, "IPv6Gateway", network->gateway6);
    field_text(writer, "GlobalIPv6Address", network->address6);
    field_integer(writer, "GlobalIPv6PrefixLen", network->prefix_length6);
}

static void write_wishes(struct json_writer *writer, const struct api_container_endpoint *place)
{
    if (!place->wanted_ipv4 && !place->wanted_ipv6 && !place->wanted_link_local_count) {
        field_null(writer, "IPAMConfig");
        return;
    }
    field_object_begin(writer, "IPAMConfig");
    if (place->wanted_ipv4)
        field_text(writer, "IPv4Address", place->wanted_ipv4);
    if (place->wanted_ipv6)
        field_text(writer, "IPv6Address", place->wanted_ipv6);
    if (place->wanted_link_local_count)
        field_list(writer, "LinkLocalIPs", place->wanted_link_local);
    json_writer_object_end(writer);
}

enum { SHORT_ID_DIGITS = 12 };

static bool is_builtin(const char *network)
{
    return text_equal(network, "bridge") || text_equal(network, "host") ||
           text_equal(network, "none");
}

/* Clients look for the short ID there, to see whether a container is on the network as they want
 * it: before 1.45 dockerd has it among the aliases. */
static void write_aliases(struct json_writer *writer, const struct api_container_endpoint *place,
                          const char *id)
{
    char short_id[SHORT_ID_DIGITS + 1];
    _cleanup_strv_ char **aliases = strv_copy(place->aliases);

    snprintf(short_id, sizeof(short_id), "%s", id ? id : "");
    if (id && !is_builtin(place->network) && !strv_contains(aliases, short_id))
        strv_append(&aliases, short_id);
    field_list(writer, "Aliases", aliases);
}

void inspect_write_place(struct json_writer *writer, const struct api_container_endpoint *place,
                         const char *id)
{
    field_object_begin(writer, place->network);
    write_wishes(writer, place);
    field_list(writer, "Links", place->links);
    write_aliases(writer, place, id);
    field_text(writer, "MacAddress", place->mac_address);
    field_text(writer, "NetworkID", place->network_id);
    field_text(writer, "EndpointID", place->endpoint_id);
    field_text(writer, "Gateway", place->gateway);
    field_text(writer, "IPAddress", place->address);
    field_integer(writer, "IPPrefixLen", place->prefix_length);
    field_text(writer, "IPv6Gateway", place->gateway6);
    field_text(writer, "GlobalIPv6Address", place->address6);
    field_integer(writer, "GlobalIPv6PrefixLen", place->prefix_length6);
    if (place->driver_opts)
        field_map(writer, "DriverOpts", place->driver_opts);
    else
        field_null(writer, "DriverOpts");
    if (place->dns_names)
        field_list(writer, "DNSNames", place->dns_names);
    json_writer_object_end(writer);
}

static void write_network(struct json_writer *writer, const struct api_container_details *container)
{
    const struct api_container_network *network = container->network;

    field_object_begin(writer, "NetworkSettings");
    write_active_ports(writer, container);
    write_sandbox(writer, container);
    write_main_place(writer, network);
    field_object_begin(writer, "Networks");
    for (size_t i = 0; i < network->networks_count; i++)
        inspect_write_place(writer, network->networks[i], container->id);
    json_writer_object_end(writer);
    json_writer_object_end(writer);
}

void door_inspect_container(const struct api_container_details *container, struct buffer *out)
{
    _cleanup_free_ char *name = xasprintf("/%s", container->name);
    struct json_writer document, *writer = &document;

    json_writer_init(writer, out, JSON_COMPACT);
    json_writer_object_begin(writer);
    field_text(writer, "Id", container->id);
    field_text(writer, "Created", container->created_at);
    field_text(writer, "Path", container->path);
    field_list(writer, "Args", container->args);
    write_state(writer, container->state);
    field_text(writer, "Image", container->image_id);
    field_text(writer, "LogPath", container->log_path);
    field_text(writer, "Name", name);
    field_integer(writer, "RestartCount", container->restart_count);
    field_text(writer, "Driver", INSPECT_DRIVER);
    field_text(writer, "Platform", "linux");
    field_text(writer, "ResolvConfPath", "");
    field_text(writer, "HostnamePath", "");
    field_text(writer, "HostsPath", "");
    field_text(writer, "MountLabel", "");
    field_text(writer, "ProcessLabel", "");
    field_text(writer, "AppArmorProfile", "");
    field_list(writer, "ExecIDs", container->exec_ids);
    field_text(writer, "Bundle", container->bundle);
    inspect_write_host_config(writer, container);
    write_graph_driver(writer, container);
    write_mounts(writer, container);
    write_config(writer, container);
    write_network(writer, container);
    json_writer_object_end(writer);
}
