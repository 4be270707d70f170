#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>
#include <schema/image_set.h>

#include "commit_config.h"
#include "ports.h"

struct oci_image_execution *commit_config_copy(const struct oci_image_execution *config)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct oci_image_execution *copy = NULL;

    if (!config)
        return xnew(struct oci_image_execution);
    oci_image_execution_write(config, &text);
    if (oci_image_execution_parse(text.data, text.length, NULL, &copy, NULL) < 0)
        return xnew(struct oci_image_execution);
    return copy;
}

static void set_text(char **field, const char *text)
{
    free(*field);
    *field = text_empty(text) ? NULL : xstrdup(text);
}

static void set_list(char ***field, size_t *count, char *const *list)
{
    strv_free(*field);
    *field = strv_copy(list);
    *count = strv_length(list);
}

/* --- the container's own ---------------------------------------------------------------------- */

static void take_ports(struct oci_image_execution *config, const struct api_container_spec *spec)
{
    for (size_t i = 0; i < spec->exposed_ports_count; i++) {
        struct exposed_range range;
        if (ports_parse_exposed(spec->exposed_ports[i], &range, NULL) < 0)
            continue;
        for (unsigned port = range.first; port <= range.last; port++) {
            _cleanup_free_ char *name = xasprintf("%u/%s", port, range.protocol);
            oci_image_set_add(&config->exposed_ports, name);
        }
    }
    for (size_t i = 0; i < spec->ports_count; i++) {
        const struct api_port *port = spec->ports[i];
        _cleanup_free_ char *name = xasprintf("%u/%s", (unsigned)port->container_port,
                                              port->protocol ? port->protocol : "tcp");
        oci_image_set_add(&config->exposed_ports, name);
    }
}

static void take_healthcheck(struct oci_image_execution *config, const struct api_healthcheck *from)
{
    if (!from)
        return;
    struct oci_image_healthcheck *check = xnew(struct oci_image_healthcheck);
    set_list(&check->test, &check->test_count, from->test);
    check->interval = from->interval;
    check->has_interval = from->interval != 0;
    check->timeout = from->timeout;
    check->has_timeout = from->timeout != 0;
    check->start_period = from->start_period;
    check->has_start_period = from->start_period != 0;
    check->start_interval = from->start_interval;
    check->has_start_interval = from->start_interval != 0;
    check->retries = from->retries;
    check->has_retries = from->retries != 0;
    oci_image_healthcheck_free(config->healthcheck);
    config->healthcheck = check;
    config->null_healthcheck = false;
}

struct oci_image_execution *commit_config_of(const struct oci_image_execution *image,
                                             const struct api_container_spec *spec,
                                             const struct api_container_spec *effective)
{
    struct oci_image_execution *config = commit_config_copy(image);

    set_list(&config->entrypoint, &config->entrypoint_count, effective->entrypoint);
    set_list(&config->cmd, &config->cmd_count, effective->command);
    set_list(&config->env, &config->env_count, effective->env);
    set_list(&config->on_build, &config->on_build_count, NULL); /* these were for the image */
    set_text(&config->working_dir, effective->working_dir);
    set_text(&config->user, effective->user);
    set_text(&config->stop_signal, effective->stop_signal);
    json_string_map_free(config->labels);
    config->labels = json_string_map_copy(effective->labels);
    take_healthcheck(config, effective->healthcheck);
    take_ports(config, spec);
    for (size_t i = 0; i < spec->volumes_count; i++)
        oci_image_set_add(&config->volumes, spec->volumes[i]);
    return config;
}

/* --- filling in ------------------------------------------------------------------------------- */

static void fill_text(char **field, const char *own)
{
    if (text_empty(*field))
        set_text(field, own);
}

static void fill_set(struct oci_image_set **set, const struct oci_image_set *own)
{
    for (size_t i = 0; own && i < own->count; i++)
        oci_image_set_add(set, own->keys[i]);
}

static bool has_variable(char *const *env, const char *variable)
{
    size_t length = strcspn(variable, "=");

    for (size_t i = 0; env && env[i]; i++)
        if (strncmp(env[i], variable, length) == 0 && (!env[i][length] || env[i][length] == '='))
            return true;
    return false;
}

static void fill_env(struct oci_image_execution *config, char *const *own)
{
    for (size_t i = 0; own && own[i]; i++) {
        if (has_variable(config->env, own[i]))
            continue;
        strv_append(&config->env, own[i]);
        config->env_count++;
    }
}

static void fill_number(int64_t *number, bool *has, int64_t own)
{
    if (*number || !own)
        return;
    *number = own;
    *has = true;
}

static void fill_healthcheck(struct oci_image_execution *config,
                             const struct oci_image_healthcheck *own)
{
    struct oci_image_healthcheck *check = config->healthcheck;

    if (!own)
        return;
    if (!check)
        check = config->healthcheck = xnew(struct oci_image_healthcheck);
    config->null_healthcheck = false;
    if (!check->test_count)
        set_list(&check->test, &check->test_count, own->test);
    fill_number(&check->interval, &check->has_interval, own->interval);
    fill_number(&check->timeout, &check->has_timeout, own->timeout);
    fill_number(&check->start_period, &check->has_start_period, own->start_period);
    fill_number(&check->start_interval, &check->has_start_interval, own->start_interval);
    fill_number(&check->retries, &check->has_retries, own->retries);
}

void commit_config_merge(struct oci_image_execution *config, const struct oci_image_execution *own)
{
    if (!config->entrypoint_count) {
        if (!config->cmd_count)
            set_list(&config->cmd, &config->cmd_count, own->cmd);
        if (!config->entrypoint)
            set_list(&config->entrypoint, &config->entrypoint_count, own->entrypoint);
    }
    fill_text(&config->user, own->user);
    fill_text(&config->working_dir, own->working_dir);
    fill_text(&config->stop_signal, own->stop_signal);
    fill_env(config, own->env);
    fill_set(&config->exposed_ports, own->exposed_ports);
    fill_set(&config->volumes, own->volumes);
    fill_healthcheck(config, own->healthcheck);
    if (!config->shell_count)
        set_list(&config->shell, &config->shell_count, own->shell);
    for (size_t i = 0; own->labels && i < own->labels->count; i++)
        if (!config->labels || !json_string_map_get(config->labels, own->labels->keys[i]))
            json_string_map_set(&config->labels, own->labels->keys[i], own->labels->values[i]);
}
