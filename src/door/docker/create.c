/*
 * POST /containers/create: docker's Config, HostConfig and NetworkingConfig as one specification.
 * What clients send for "nothing wanted" (0, "", [], false) is left out.
 */
#include "create.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <rpc/server.h>

#include "../fields.h"
#include "handlers.h"

/* ---- what is taken over ---- */

static void take_text(char **to, char **from)
{
    if (!text_empty(*from))
        *to = steal_ptr(*from);
}

static void take_list(char ***to, size_t *to_count, char ***from)
{
    if (!*from || !**from)
        return;
    *to_count = strv_length(*from);
    *to = steal_ptr(*from);
}

static void take_map(struct json_string_map **to, struct json_string_map **from)
{
    if (*from && (*from)->count)
        *to = steal_ptr(*from);
}

static void take_flag(bool *to, bool *to_has, bool from)
{
    *to = from;
    *to_has = from;
}

/* ---- Config ---- */

/* A program that is "" takes the image's away, as an empty list does. */
static void take_program(char ***to, size_t *to_count, char ***from)
{
    if (!*from)
        return;
    *to = (*from)[0] && !(*from)[0][0] && !(*from)[1] ? xnew_array(char *, 1) : steal_ptr(*from);
    *to_count = strv_length(*to);
}

static void add_health(struct docker_health_config *from, struct api_container_spec *spec)
{
    if (!from || (strv_length(from->test) == 0 && !from->interval && !from->timeout &&
                  !from->start_period && !from->start_interval && !from->retries))
        return;
    struct api_healthcheck *to = spec->healthcheck = xnew(struct api_healthcheck);
    take_list(&to->test, &to->test_count, &from->test);
    to->interval = from->interval;
    to->has_interval = from->interval != 0;
    to->timeout = from->timeout;
    to->has_timeout = from->timeout != 0;
    to->start_period = from->start_period;
    to->has_start_period = from->start_period != 0;
    to->start_interval = from->start_interval;
    to->has_start_interval = from->start_interval != 0;
    to->retries = from->retries;
    to->has_retries = from->retries != 0;
}

static void take_keys(char ***to, size_t *to_count, const struct json_string_map *from)
{
    for (size_t i = 0; from && i < from->count; i++)
        strv_append(to, from->keys[i]);
    *to_count = strv_length(*to);
}

static void add_config(struct docker_container_config *from, struct api_container_spec *spec)
{
    spec->image = from->image ? steal_ptr(from->image) : xstrdup("");
    take_text(&spec->hostname, &from->hostname);
    take_text(&spec->domainname, &from->domainname);
    take_text(&spec->user, &from->user);
    take_flag(&spec->attach_stdin, &spec->has_attach_stdin, from->attach_stdin);
    take_flag(&spec->attach_stdout, &spec->has_attach_stdout, from->attach_stdout);
    take_flag(&spec->attach_stderr, &spec->has_attach_stderr, from->attach_stderr);
    take_flag(&spec->tty, &spec->has_tty, from->tty);
    take_flag(&spec->open_stdin, &spec->has_open_stdin, from->open_stdin);
    take_flag(&spec->stdin_once, &spec->has_stdin_once, from->stdin_once);
    take_list(&spec->env, &spec->env_count, &from->env);
    take_list(&spec->command, &spec->command_count, &from->cmd);
    take_program(&spec->entrypoint, &spec->entrypoint_count, &from->entrypoint);
    take_keys(&spec->exposed_ports, &spec->exposed_ports_count, from->exposed_ports);
    take_keys(&spec->volumes, &spec->volumes_count, from->volumes);
    take_text(&spec->working_dir, &from->working_dir);
    take_text(&spec->mac_address, &from->mac_address);
    take_map(&spec->labels, &from->labels);
    take_text(&spec->stop_signal, &from->stop_signal);
    take_text(&spec->runtime, &from->runtime);
    spec->stop_timeout = from->stop_timeout;
    spec->has_stop_timeout = from->has_stop_timeout;
    add_health(from->healthcheck, spec);
    if (from->network_disabled)
        spec->network_mode = xstrdup("none");
}

/* ---- HostConfig: mounts ---- */

static int add_bind(const char *text, struct api_container_spec *spec, struct error *err)
{
    _cleanup_strv_ char **parts = strv_split(text, ':');
    size_t count = strv_length(parts);

    if (count < 1 || count > 3 || text_empty(parts[0]))
        return error_set(err, -EINVAL, "invalid volume specification: '%s'", text);
    if (count == 1) {
        strv_append(&spec->volumes, text);
        spec->volumes_count = strv_length(spec->volumes);
        return 0;
    }
    struct api_bind *bind = xnew(struct api_bind);
    spec->binds = xrealloc(spec->binds, spec->binds_count + 1, sizeof(*spec->binds));
    spec->binds[spec->binds_count++] = bind;
    bind->source = xstrdup(parts[0]);
    bind->target = xstrdup(parts[1]);
    _cleanup_strv_ char **modes = count == 3 ? strv_split(parts[2], ',') : NULL;
    for (size_t i = 0; modes && modes[i]; i++) {
        bool ro = text_equal(modes[i], "ro"), rw = text_equal(modes[i], "rw");
        if ((ro || rw) && bind->has_read_only)
            return error_set(err, -EINVAL, "invalid mode: %s", parts[2]);
        if (ro || rw) {
            bind->read_only = ro;
            bind->has_read_only = true;
        } else if (modes[i][0]) {
            strv_append(&bind->options, modes[i]);
        }
    }
    bind->options_count = strv_length(bind->options);
    return 0;
}

static void add_bind_options(struct docker_bind_options *from, struct api_mount *mount)
{
    if (!from)
        return;
    struct api_bind_options *to = mount->bind_options = xnew(struct api_bind_options);
    take_text(&to->propagation, &from->propagation);
    take_flag(&to->non_recursive, &to->has_non_recursive, from->non_recursive);
    take_flag(&to->create_mountpoint, &to->has_create_mountpoint, from->create_mountpoint);
    take_flag(&to->read_only_non_recursive, &to->has_read_only_non_recursive,
              from->read_only_non_recursive);
    take_flag(&to->read_only_force_recursive, &to->has_read_only_force_recursive,
              from->read_only_force_recursive);
}

static void add_volume_options(struct docker_volume_options *from, struct api_mount *mount)
{
    if (!from)
        return;
    struct api_volume_options *to = mount->volume_options = xnew(struct api_volume_options);
    take_flag(&to->no_copy, &to->has_no_copy, from->no_copy);
    take_map(&to->labels, &from->labels);
    take_text(&to->subpath, &from->subpath);
    if (from->driver_config) {
        take_text(&to->driver, &from->driver_config->name);
        take_map(&to->driver_options, &from->driver_config->options);
    }
}

static void add_tmpfs_options(const struct docker_tmpfs_options *from, struct api_mount *mount)
{
    if (!from)
        return;
    struct api_tmpfs_options *to = mount->tmpfs_options = xnew(struct api_tmpfs_options);
    to->has_size_bytes = from->size_bytes > 0;
    to->size_bytes = to->has_size_bytes ? (uint64_t)from->size_bytes : 0;
    to->has_mode = from->mode > 0 && from->mode <= UINT32_MAX;
    to->mode = to->has_mode ? (uint32_t)from->mode : 0;
}

static int add_mount(struct docker_mount *from, struct api_container_spec *spec, struct error *err)
{
    static const char *const types[] = {"bind", "volume", "tmpfs"};
    bool known = false;

    for (size_t i = 0; i < ARRAY_SIZE(types); i++)
        known |= text_equal(types[i], from->type);
    if (!known)
        return error_set(err, -EINVAL, "invalid mount config for type \"%s\": mount type unknown",
                         from->type ? from->type : "");
    if (text_empty(from->target))
        return error_set(err, -EINVAL,
                         "invalid mount config for type \"%s\": field Target must not be empty",
                         from->type);
    struct api_mount *to = xnew(struct api_mount);
    spec->mounts = xrealloc(spec->mounts, spec->mounts_count + 1, sizeof(*spec->mounts));
    spec->mounts[spec->mounts_count++] = to;
    to->type = steal_ptr(from->type);
    to->target = steal_ptr(from->target);
    take_text(&to->source, &from->source);
    take_text(&to->consistency, &from->consistency);
    take_flag(&to->read_only, &to->has_read_only, from->read_only);
    add_bind_options(from->bind_options, to);
    add_volume_options(from->volume_options, to);
    add_tmpfs_options(from->tmpfs_options, to);
    return 0;
}

static int add_mounts(struct docker_host_config *from, struct api_container_spec *spec,
                      struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < from->binds_count; i++)
        r = add_bind(from->binds[i], spec, err);
    for (size_t i = 0; r == 0 && i < from->mounts_count; i++)
        r = add_mount(from->mounts[i], spec, err);
    take_map(&spec->tmpfs, &from->tmpfs);
    take_list(&spec->volumes_from, &spec->volumes_from_count, &from->volumes_from);
    take_text(&spec->volume_driver, &from->volume_driver);
    take_map(&spec->storage_opt, &from->storage_opt);
    return r;
}

/* ---- HostConfig: ports and networks ---- */

/* "80/tcp" */
static int parse_port(const char *text, struct api_port *port, struct error *err)
{
    size_t digits = strcspn(text, "/");
    _cleanup_free_ char *number = xstrndup(text, digits);
    const char *protocol = text[digits] ? text + digits + 1 : "tcp";
    uint64_t value;

    if (text_to_u64(number, 1, UINT16_MAX, &value) < 0)
        return error_set(err, -EINVAL, "invalid port specification: \"%s\"", text);
    if (!text_equal(protocol, "tcp") && !text_equal(protocol, "udp") &&
        !text_equal(protocol, "sctp"))
        return error_set(err, -EINVAL, "invalid protocol in port specification: \"%s\"", text);
    port->container_port = (uint16_t)value;
    port->protocol = xstrdup(protocol);
    return 0;
}

/* "8000", or "8000-8010": the first free one of these. "0" is none. */
static int parse_host_port(const char *text, struct api_port *port, struct error *err)
{
    size_t digits = strcspn(text, "-");
    _cleanup_free_ char *number = xstrndup(text, digits);
    uint64_t first, last;

    int r = text_to_u64(number, 0, UINT16_MAX, &first);
    if (r == 0 && text[digits])
        r = text_to_u64(text + digits + 1, first, UINT16_MAX, &last);
    else
        last = first;
    if (r < 0 || (first == 0 && last > 0))
        return error_set(err, -EINVAL, "invalid port specification: \"%s\"", text);
    port->host_port = (uint16_t)first;
    port->has_host_port = first != 0;
    port->has_host_port_last = last > first;
    port->host_port_last = port->has_host_port_last ? (uint16_t)last : 0;
    return 0;
}

static int add_binding(const char *key, struct docker_binding *from,
                       struct api_container_spec *spec, struct error *err)
{
    struct api_port *port = xnew(struct api_port);

    spec->ports = xrealloc(spec->ports, spec->ports_count + 1, sizeof(*spec->ports));
    spec->ports[spec->ports_count++] = port;
    int r = parse_port(key, port, err);
    if (r < 0 || !from)
        return r;
    take_text(&port->host_address, &from->host_ip);
    return text_empty(from->host_port) ? 0 : parse_host_port(from->host_port, port, err);
}

static int add_ports(struct docker_port_bindings *from, struct api_container_spec *spec,
                     struct error *err)
{
    int r = 0;

    for (size_t i = 0; from && r == 0 && i < from->count; i++) {
        struct docker_bindings *bindings = from->values[i];
        if (bindings->count == 0)
            r = add_binding(from->keys[i], NULL, spec, err);
        for (size_t j = 0; r == 0 && j < bindings->count; j++)
            r = add_binding(from->keys[i], bindings->items[j], spec, err);
    }
    return r;
}

void docker_take_endpoint(struct docker_endpoint *from, struct api_endpoint *to)
{
    take_list(&to->aliases, &to->aliases_count, &from->aliases);
    take_list(&to->links, &to->links_count, &from->links);
    take_text(&to->mac_address, &from->mac_address);
    take_map(&to->driver_opts, &from->driver_opts);
    if (!from->ipam_config)
        return;
    take_text(&to->ipv4_address, &from->ipam_config->ipv4_address);
    take_text(&to->ipv6_address, &from->ipam_config->ipv6_address);
    take_list(&to->link_local_ips, &to->link_local_ips_count, &from->ipam_config->link_local_ips);
}

static bool wishes_nothing(const struct api_endpoint *endpoint)
{
    return !endpoint->aliases && !endpoint->links && !endpoint->mac_address &&
           !endpoint->driver_opts && !endpoint->ipv4_address && !endpoint->ipv6_address &&
           !endpoint->link_local_ips;
}

/* "default" stands for what is without a name. */
static bool is_default(const char *network)
{
    return text_empty(network) || text_equal(network, "default");
}

static void add_endpoints(struct docker_endpoints *from, struct api_container_spec *spec)
{
    for (size_t i = 0; from && i < from->count; i++) {
        const char *name = is_default(from->keys[i]) ? "bridge" : from->keys[i];
        const char *mode = spec->network_mode ? spec->network_mode : "bridge";
        struct api_endpoint *endpoint = xnew(struct api_endpoint);
        docker_take_endpoint(from->values[i], endpoint);
        if (wishes_nothing(endpoint) && text_equal(name, mode)) {
            api_endpoint_free(endpoint);
            continue;
        }
        if (!spec->networks)
            spec->networks = xnew(struct api_endpoints);
        struct api_endpoints *to = spec->networks;
        to->keys = xrealloc(to->keys, to->count + 1, sizeof(*to->keys));
        to->values = xrealloc(to->values, to->count + 1, sizeof(*to->values));
        to->keys[to->count] = xstrdup(name);
        to->values[to->count++] = endpoint;
    }
}

static int add_network(struct docker_host_config *from, struct api_container_spec *spec,
                       struct error *err)
{
    if (!spec->network_mode && !is_default(from->network_mode))
        spec->network_mode = steal_ptr(from->network_mode);
    take_flag(&spec->publish_all_ports, &spec->has_publish_all_ports, from->publish_all_ports);
    take_list(&spec->dns, &spec->dns_count, &from->dns);
    take_list(&spec->dns_search, &spec->dns_search_count, &from->dns_search);
    take_list(&spec->dns_options, &spec->dns_options_count, &from->dns_options);
    take_list(&spec->extra_hosts, &spec->extra_hosts_count, &from->extra_hosts);
    take_list(&spec->links, &spec->links_count, &from->links);
    return add_ports(from->port_bindings, spec, err);
}

/* ---- HostConfig: the rest ---- */

static void add_devices(struct docker_host_config *from, struct api_container_spec *spec)
{
    spec->devices =
        from->devices_count ? xnew_array(struct api_device *, from->devices_count) : NULL;
    spec->devices_count = from->devices_count;
    for (size_t i = 0; i < from->devices_count; i++) {
        struct api_device *to = spec->devices[i] = xnew(struct api_device);
        to->path_on_host = from->devices[i]->path_on_host
                               ? steal_ptr(from->devices[i]->path_on_host)
                               : xstrdup("");
        take_text(&to->path_in_container, &from->devices[i]->path_in_container);
        take_text(&to->cgroup_permissions, &from->devices[i]->cgroup_permissions);
    }
    take_list(&spec->device_cgroup_rules, &spec->device_cgroup_rules_count,
              &from->device_cgroup_rules);
}

static void add_ulimits(struct docker_host_config *from, struct api_container_spec *spec)
{
    spec->ulimits =
        from->ulimits_count ? xnew_array(struct api_ulimit *, from->ulimits_count) : NULL;
    spec->ulimits_count = from->ulimits_count;
    for (size_t i = 0; i < from->ulimits_count; i++) {
        struct api_ulimit *to = spec->ulimits[i] = xnew(struct api_ulimit);
        to->name = from->ulimits[i]->name ? steal_ptr(from->ulimits[i]->name) : xstrdup("");
        to->soft = from->ulimits[i]->soft;
        to->hard = from->ulimits[i]->hard;
        to->has_hard = from->ulimits[i]->has_hard;
    }
}

struct api_restart_policy *docker_restart_policy_of(struct docker_restart_policy *from)
{
    if (!from || text_empty(from->name))
        return NULL;
    struct api_restart_policy *to = xnew(struct api_restart_policy);
    take_text(&to->name, &from->name);
    to->maximum_retry_count = from->maximum_retry_count;
    to->has_maximum_retry_count = from->maximum_retry_count != 0;
    return to;
}

static void add_log(struct docker_log_config *from, struct api_container_spec *spec)
{
    if (!from || (text_empty(from->type) && !(from->config && from->config->count)))
        return;
    spec->log_config = xnew(struct api_log_config);
    take_text(&spec->log_config->type, &from->type);
    take_map(&spec->log_config->config, &from->config);
}

static void add_isolation(struct docker_host_config *from, struct api_container_spec *spec)
{
    take_list(&spec->cap_add, &spec->cap_add_count, &from->cap_add);
    take_list(&spec->cap_drop, &spec->cap_drop_count, &from->cap_drop);
    take_flag(&spec->privileged, &spec->has_privileged, from->privileged);
    take_list(&spec->security_opt, &spec->security_opt_count, &from->security_opt);
    spec->masked_paths_count = from->masked_paths_count;
    spec->masked_paths = steal_ptr(from->masked_paths); /* empty is not absent */
    spec->readonly_paths_count = from->readonly_paths_count;
    spec->readonly_paths = steal_ptr(from->readonly_paths);
    take_text(&spec->userns_mode, &from->userns_mode);
    take_text(&spec->pid_mode, &from->pid_mode);
    take_text(&spec->ipc_mode, &from->ipc_mode);
    take_text(&spec->isolation, &from->isolation);
    take_text(&spec->uts_mode, &from->uts_mode);
    take_text(&spec->cgroupns_mode, &from->cgroupns_mode);
    take_list(&spec->group_add, &spec->group_add_count, &from->group_add);
    take_flag(&spec->read_only_root, &spec->has_read_only_root, from->readonly_rootfs);
}

static bool is_side(int64_t cells)
{
    return cells > 0 && cells <= UINT16_MAX;
}

static int add_host_config(struct docker_host_config *from, struct api_container_spec *spec,
                           struct error *err)
{
    if (from->device_requests_count)
        return error_set(err, -EINVAL,
                         "could not select device driver: GPUs cannot be given to "
                         "containers here");
    if (from->shm_size < 0)
        return error_set(err, -EINVAL, "SHM size can not be less than 0");
    int r = add_mounts(from, spec, err);
    if (r == 0)
        r = add_network(from, spec, err);
    if (r == 0)
        r = docker_take_resources(from, &spec->resources, err);
    add_devices(from, spec);
    add_ulimits(from, spec);
    add_isolation(from, spec);
    add_log(from->log_config, spec);
    spec->restart_policy = docker_restart_policy_of(from->restart_policy);
    take_flag(&spec->auto_remove, &spec->has_auto_remove, from->auto_remove);
    take_map(&spec->annotations, &from->annotations);
    take_map(&spec->sysctls, &from->sysctls);
    if (!text_empty(from->runtime)) {
        free(spec->runtime);
        spec->runtime = steal_ptr(from->runtime);
    }
    take_text(&spec->cgroup_parent, &from->cgroup_parent);
    spec->oom_score_adj = from->oom_score_adj;
    spec->has_oom_score_adj = from->oom_score_adj != 0;
    spec->shm_size = (uint64_t)from->shm_size;
    spec->has_shm_size = from->shm_size != 0;
    spec->init = from->init;
    spec->has_init = from->has_init && from->init;
    if (from->console_size_count == 2 && is_side(from->console_size[0]) &&
        is_side(from->console_size[1])) {
        spec->rows = (uint16_t)from->console_size[0];
        spec->columns = (uint16_t)from->console_size[1];
        spec->has_rows = spec->has_columns = true;
    }
    return r;
}

static bool is_mounted(const struct api_container_spec *spec, const char *target)
{
    for (size_t i = 0; i < spec->binds_count; i++)
        if (text_equal(spec->binds[i]->target, target))
            return true;
    for (size_t i = 0; i < spec->mounts_count; i++)
        if (text_equal(spec->mounts[i]->target, target))
            return true;
    return false;
}

/* docker-compose names the place of a bind among the anonymous volumes, too: the bind counts. */
static void drop_volumes_of_binds(struct api_container_spec *spec)
{
    char **kept = NULL;

    for (size_t i = 0; i < spec->volumes_count; i++)
        if (!is_mounted(spec, spec->volumes[i]))
            strv_append(&kept, spec->volumes[i]);
    strv_free(spec->volumes);
    spec->volumes = kept;
    spec->volumes_count = strv_length(kept);
}

int docker_spec_of(struct docker_container_config *config, struct api_container_spec **ret,
                   struct error *err)
{
    struct api_container_spec *spec = xnew(struct api_container_spec);
    int r = 0;

    add_config(config, spec);
    if (config->host_config)
        r = add_host_config(config->host_config, spec, err);
    drop_volumes_of_binds(spec);
    if (r == 0 && config->networking_config)
        add_endpoints(config->networking_config->endpoints_config, spec);
    if (r < 0) {
        api_container_spec_free(spec);
        return r;
    }
    *ret = spec;
    return 0;
}

/* ---- the request ---- */

static void on_created(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    const struct api_container_created *created = outcome->result;
    struct buffer out = BUFFER_INIT;
    struct json_writer writer;

    json_writer_init(&writer, &out, JSON_COMPACT);
    json_writer_object_begin(&writer);
    field_text(&writer, "Id", created->id);
    json_writer_key(&writer, "Warnings");
    json_writer_array_begin(&writer);
    for (size_t i = 0; i < created->warnings_count; i++)
        json_writer_string(&writer, created->warnings[i]);
    json_writer_array_end(&writer);
    json_writer_object_end(&writer);
    answer_json(exchange, 201, &out);
}

/* In docker's words: the CLI pulls the image when it reads these. It does so for any 404, so that
 * nothing else that is missing may have that. */
static void on_outcome(struct exchange *exchange, const struct rpc_outcome *outcome)
{
    if (outcome->code == 0)
        on_created(exchange, outcome);
    else if (outcome->fault == RPC_NOT_FOUND)
        answer_error(exchange, 400, outcome->error);
    else
        call_answer_error(exchange, outcome);
}

void docker_container_create(struct exchange *exchange)
{
    const char *name = target_text(&exchange->target, "name");
    const char *platform = target_text(&exchange->target, "platform");
    _cleanup_error_ struct error err = ERROR_INIT;
    struct docker_container_config *config;
    struct api_container_spec *spec;
    void *document;

    if (!exchange->body.length) {
        answer_fail(exchange, 400, "Config cannot be empty in order to create a container");
        return;
    }
    if (!exchange_document(exchange, &docker_container_config_type, &document))
        return;
    config = document;
    if (text_empty(config->image)) {
        docker_container_config_free(config);
        answer_fail(exchange, 400, "Config cannot be empty in order to create a container");
        return;
    }
    int r = docker_spec_of(config, &spec, &err);
    docker_container_config_free(config);
    if (r < 0) {
        answer_error(exchange, 400, &err);
        return;
    }
    spec->name = text_empty(name) ? NULL : xstrdup(name[0] == '/' ? name + 1 : name);
    spec->platform = text_empty(platform) ? NULL : xstrdup(platform);
    call(exchange, "container.create", spec, on_outcome, &(struct call_options){.errors = true});
    api_container_spec_free(spec);
}
