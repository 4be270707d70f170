#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/text.h>

#include "spec.h"

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* --- merging ---------------------------------------------------------------------------------- */

struct api_container_spec *spec_copy(const struct api_container_spec *spec)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct api_container_spec *copy = NULL;

    api_container_spec_write(spec, &text);
    /* What was written parses: anything else is a broken program. */
    if (api_container_spec_parse(text.data, text.length, "specification", &copy, NULL) < 0)
        abort();
    return copy;
}

static void set_text(char **field, const char *value)
{
    free(*field);
    *field = xstrdup(value);
}

static void set_list(char ***list, size_t *count, char **value)
{
    strv_free(*list);
    *list = value;
    *count = strv_length(value);
}

static bool same_variable(const char *a, const char *b)
{
    size_t length = strcspn(a, "=");

    return strncmp(a, b, length) == 0 && (b[length] == '=' || b[length] == '\0');
}

/* Entrypoint and command: an entrypoint of the request, even an empty one, drops both of the
 * image's. */
static void merge_command(struct api_container_spec *spec, const struct image_defaults *image)
{
    if (spec->entrypoint)
        return;
    if (spec->command_count == 0)
        set_list(&spec->command, &spec->command_count, strv_copy(image->command));
    set_list(&spec->entrypoint, &spec->entrypoint_count, strv_copy(image->entrypoint));
}

/* The request's variables, then those of the image that it does not name. */
static void merge_env(struct api_container_spec *spec, const struct image_defaults *image)
{
    char **merged = strv_copy(spec->env);

    for (size_t i = 0; image->env && image->env[i]; i++) {
        bool found = false;
        for (size_t j = 0; j < spec->env_count && !found; j++)
            found = same_variable(spec->env[j], image->env[i]);
        if (!found)
            strv_append(&merged, image->env[i]);
    }
    set_list(&spec->env, &spec->env_count, merged);
}

static void merge_labels(struct api_container_spec *spec, const struct image_defaults *image)
{
    for (size_t i = 0; image->labels && i < image->labels->count; i++) {
        if (!json_string_map_get(spec->labels, image->labels->keys[i]))
            json_string_map_set(&spec->labels, image->labels->keys[i], image->labels->values[i]);
    }
}

/* What the image exposes, too, unless the network is another container's. */
static void merge_exposed_ports(struct api_container_spec *spec, const struct image_defaults *image)
{
    if (text_starts_with(spec->network_mode, "container:"))
        return;
    for (size_t i = 0; image->exposed_ports && i < image->exposed_ports->count; i++) {
        const char *port = image->exposed_ports->keys[i];
        _cleanup_free_ char *full = xasprintf("%s%s", port, strchr(port, '/') ? "" : "/tcp");
        if (!strv_contains(spec->exposed_ports, full) && !strv_contains(spec->exposed_ports, port))
            strv_take(&spec->exposed_ports, steal_ptr(full));
    }
    spec->exposed_ports_count = strv_length(spec->exposed_ports);
}

/* As docker has it, whoever has the machine's network has its name. */
static bool shares_hostname(const struct api_container_spec *spec)
{
    return text_equal(spec->network_mode, "host") || text_equal(spec->uts_mode, "host");
}

static char *machine_hostname(void)
{
    char name[HOST_NAME_MAX + 1] = "";

    gethostname(name, sizeof(name) - 1);
    return xstrdup(name);
}

static void merge_texts(struct api_container_spec *spec, const struct image_defaults *image,
                        const char *container_id)
{
    if (text_empty(spec->working_dir))
        set_text(&spec->working_dir, text_empty(image->working_dir) ? "/" : image->working_dir);
    if (text_empty(spec->user))
        set_text(&spec->user, image->user ? image->user : "");
    if (text_empty(spec->stop_signal))
        set_text(&spec->stop_signal,
                 text_empty(image->stop_signal) ? "SIGTERM" : image->stop_signal);
    if (text_empty(spec->network_mode) || text_equal(spec->network_mode, "default"))
        set_text(&spec->network_mode, "bridge");
    if (text_empty(spec->hostname)) {
        free(spec->hostname);
        spec->hostname = shares_hostname(spec) ? machine_hostname() : xstrndup(container_id, 12);
    }
    if (spec->resources && spec->resources->memory && !spec->resources->memory_swap) {
        /* As much swap as memory. */
        spec->resources->memory_swap = (int64_t)spec->resources->memory * 2;
        spec->resources->has_memory_swap = true;
    }
    if (!text_empty(spec->cgroup_parent)) {
        _cleanup_strv_ char **parts = strv_split(spec->cgroup_parent, '/');
        size_t kept = 0;
        for (size_t i = 0; parts && parts[i]; i++) {
            if (parts[i][0])
                parts[kept++] = parts[i];
            else
                free(parts[i]);
        }
        if (parts)
            parts[kept] = NULL;
        free(spec->cgroup_parent);
        spec->cgroup_parent = strv_join(parts, "/");
    }
    if (!spec->has_stop_timeout) {
        spec->has_stop_timeout = true;
        spec->stop_timeout = 10;
    }
}

static void take_number(int64_t *value, bool *has, int64_t image)
{
    if (*value == 0 && image != 0) {
        *value = image;
        *has = true;
    }
}

/* Each part that the request does not name comes from the image, as docker does. */
static void merge_healthcheck(struct api_container_spec *spec, const struct image_defaults *image)
{
    const struct oci_image_healthcheck *from = image->healthcheck;
    int64_t retries;

    if (!from)
        return;
    if (!spec->healthcheck)
        spec->healthcheck = xnew(struct api_healthcheck);
    struct api_healthcheck *check = spec->healthcheck;
    if (check->test_count == 0)
        set_list(&check->test, &check->test_count, strv_copy(from->test));
    take_number(&check->interval, &check->has_interval, from->interval);
    take_number(&check->timeout, &check->has_timeout, from->timeout);
    take_number(&check->start_period, &check->has_start_period, from->start_period);
    take_number(&check->start_interval, &check->has_start_interval, from->start_interval);
    retries = check->retries;
    take_number(&retries, &check->has_retries, from->retries);
    check->retries = retries < 0 || retries > INT32_MAX ? 0 : (int32_t)retries;
}

/* Lists are merged entry by entry against all others, and written into each container's record. */
static int check_counts(const struct image_defaults *image, struct error *err)
{
    const struct {
        const char *name;
        size_t count;
    } lists[] = {
        {"Env", strv_length(image->env)},
        {"Labels", image->labels ? image->labels->count : 0},
        {"ExposedPorts", image->exposed_ports ? image->exposed_ports->count : 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
        if (lists[i].count > SPEC_IMAGE_ENTRIES_MAX)
            return error_set(err, -E2BIG,
                             "the image's configuration: %s has %zu entries, more than %d",
                             lists[i].name, lists[i].count, SPEC_IMAGE_ENTRIES_MAX);
    return 0;
}

int spec_merge(const struct api_container_spec *spec, const struct image_defaults *image,
               const char *container_id, struct api_container_spec **ret, struct error *err)
{
    int checked = check_counts(image, err);
    if (checked < 0)
        return checked;
    struct api_container_spec *merged = spec_copy(spec);

    merge_command(merged, image);
    merge_env(merged, image);
    merge_labels(merged, image);
    merge_healthcheck(merged, image);
    merge_texts(merged, image, container_id);
    merge_exposed_ports(merged, image);
    int r = spec_settle_mounts(merged, err);
    if (r < 0) {
        api_container_spec_free(merged);
        return r;
    }
    if (merged->entrypoint_count + merged->command_count == 0) {
        api_container_spec_free(merged);
        return error_set(err, -EINVAL, "no command specified");
    }
    *ret = merged;
    return 0;
}

char **spec_arguments(const struct api_container_spec *effective)
{
    char **arguments = strv_copy(effective->entrypoint);

    for (size_t i = 0; i < effective->command_count; i++)
        strv_append(&arguments, effective->command[i]);
    return arguments;
}

/* --- environment ------------------------------------------------------------------------------ */

static void environment_remove(char **list, const char *name)
{
    size_t kept = 0;

    for (size_t i = 0; list && list[i]; i++) {
        if (same_variable(name, list[i]))
            free(list[i]);
        else
            list[kept++] = list[i];
    }
    if (list)
        list[kept] = NULL;
}

static void environment_set(char ***list, const char *variable)
{
    for (size_t i = 0; *list && (*list)[i]; i++) {
        if (same_variable(variable, (*list)[i])) {
            set_text(&(*list)[i], variable);
            return;
        }
    }
    strv_append(list, variable);
}

char **environment_merge(char *const *base, char *const *changes)
{
    char **merged = strv_copy(base);

    for (size_t i = 0; changes && changes[i]; i++) {
        if (strchr(changes[i], '='))
            environment_set(&merged, changes[i]);
        else
            environment_remove(merged, changes[i]);
    }
    return merged;
}

static bool environment_has(char *const *list, const char *name)
{
    for (size_t i = 0; list && list[i]; i++) {
        if (same_variable(name, list[i]))
            return true;
    }
    return false;
}

char **spec_environment(const struct api_container_spec *effective, char *const *linked,
                        const char *home)
{
    _cleanup_strv_ char **defaults = NULL;

    strv_append(&defaults, "PATH=" DEFAULT_PATH);
    strv_take(&defaults, xasprintf("HOSTNAME=%s", effective->hostname));
    if (effective->tty)
        strv_append(&defaults, "TERM=xterm");
    _cleanup_strv_ char **all = environment_merge(defaults, linked);
    char **merged = environment_merge(all, effective->env);
    if (!environment_has(merged, "HOME"))
        strv_take(&merged, xasprintf("HOME=%s", text_empty(home) ? "/" : home));
    return merged;
}

/* --- signals ---------------------------------------------------------------------------------- */

int signal_parse(const char *text, struct error *err)
{
    const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
    uint64_t number;

    if (text_to_u64(text, 1, (uint64_t)SIGRTMAX, &number) == 0)
        return (int)number;
    for (int i = 1; i < SIGSYS + 1; i++) {
        const char *known = sigabbrev_np(i);
        if (known && strcasecmp(known, name) == 0)
            return i;
    }
    if (strcasecmp(name, "RTMIN") == 0)
        return SIGRTMIN;
    if (strcasecmp(name, "RTMAX") == 0)
        return SIGRTMAX;
    if (strncasecmp(name, "RTMIN+", 6) == 0 &&
        text_to_u64(name + 6, 1, (uint64_t)(SIGRTMAX - SIGRTMIN), &number) == 0)
        return SIGRTMIN + (int)number;
    if (strncasecmp(name, "RTMAX-", 6) == 0 &&
        text_to_u64(name + 6, 1, (uint64_t)(SIGRTMAX - SIGRTMIN), &number) == 0)
        return SIGRTMAX - (int)number;
    return error_set(err, -EINVAL, "invalid signal: %.32s", text);
}
