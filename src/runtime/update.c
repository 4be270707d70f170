/*
 * Changes to a container that exists. What is in effect is kept beside the configuration, in a file
 * of its own: the resources and the device nodes, as linux.resources and linux.devices have them.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <runtime/runtime.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup.h"
#include "cgroup_resources.h"
#include "config_check.h"
#include "device_nodes.h"
#include "intel_rdt.h"
#include "resources_merge.h"
#include "state.h"

#define UPDATES_FILE "updates.json"

enum {
    UPDATES_MAX = 1 << 20,
    DEVICE_NODES_MAX = 1024,
};

struct update {
    const struct cloche_runtime_update_options *options;
    struct stored stored;
    struct cgroup cgroup;
    struct oci_config *config;
    struct oci_linux *before, *after; /* resources and devices in effect */
    bool rules_change;
};

static void finish(struct update *update)
{
    oci_linux_free(update->before);
    oci_linux_free(update->after);
    oci_config_free(update->config);
    if (update->cgroup.ops)
        cgroup_finish(&update->cgroup);
    state_finish(&update->stored);
}

static int parse_resources(const char *text, struct oci_resources **ret, struct error *err)
{
    return oci_resources_parse(text, strlen(text), "resources", ret, err);
}

/* Through text: the lists of the two are to be changed independently. */
static int copy_effective(const struct oci_config *config, struct oci_linux **ret,
                          struct error *err)
{
    const struct oci_linux *linux = config->linux;
    struct oci_linux part = {0};
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    if (linux) {
        part.resources = linux->resources;
        part.devices = linux->devices;
        part.devices_count = linux->devices_count;
    }
    oci_linux_write(&part, &text);
    return oci_linux_parse(buffer_text(&text), text.length, NULL, ret, err);
}

static int load_effective(const struct update *update, struct oci_linux **ret, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length;
    int r = file_read_at(update->stored.fd, UPDATES_FILE, UPDATES_MAX, &text, &length, err);

    if (r == -ENOENT) {
        error_finish(err);
        r = copy_effective(update->config, ret, err);
    } else if (r == 0) {
        r = oci_linux_parse(text, length, UPDATES_FILE, ret, err);
    }
    if (r == 0 && !(*ret)->resources)
        (*ret)->resources = xnew(struct oci_resources);
    return r;
}

static int load(struct update *update, const char *root, struct error *err)
{
    int r = state_load_locked(&update->stored, root, update->options->id, err);

    if (r < 0)
        return r;
    if (update->stored.status == CLOCHE_RUNTIME_STOPPED || update->stored.pidfd < 0)
        return error_set(err, -EINVAL, "container not running");
    r = state_load_config(&update->stored, &update->config, err);
    if (r == 0)
        r = load_effective(update, &update->before, err);
    if (r == 0)
        r = load_effective(update, &update->after, err);
    if (r == 0)
        r = state_open_cgroup(&update->stored, &update->cgroup, err);
    if (r == 0 && cgroup_is_none(&update->cgroup))
        r = error_set(err, -ENOTSUP, "the container has no cgroup, so it has no limits to update");
    return r;
}

static int save(const struct update *update, struct error *err)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;

    oci_linux_write(update->after, &text);
    return file_replace_at(update->stored.fd, UPDATES_FILE, text.data, text.length, 0600, err);
}

/* ---- device rules */

static void append_rule(struct oci_resources *resources, struct oci_device_rule *rule)
{
    resources->devices =
        xrealloc(resources->devices, resources->devices_count + 1, sizeof(*resources->devices));
    resources->devices[resources->devices_count++] = rule;
}

static int parse_number(const char *text, int64_t *ret)
{
    uint64_t number;

    if (text_equal(text, "*")) {
        *ret = -1;
        return 0;
    }
    int r = text_to_u64(text, 0, INT32_MAX, &number);
    *ret = (int64_t)number;
    return r;
}

/* "c 189:* rwm" */
static int parse_rule(const char *text, bool allow, struct oci_device_rule **ret, struct error *err)
{
    char type, major[16], minor[16], access[8], more;
    struct oci_device_rule rule = {.allow = allow, .has_major = true, .has_minor = true};

    if (sscanf(text, "%c %15[0-9*]:%15[0-9*] %7[rwm] %c", &type, major, minor, access, &more) !=
            4 ||
        !strchr("abc", type) || parse_number(major, &rule.major) < 0 ||
        parse_number(minor, &rule.minor) < 0)
        return error_set(
            err, -EINVAL,
            "'%s' is not a device rule: TYPE MAJOR:MINOR ACCESS, such as 'c 189:* rwm'", text);
    rule.type = xasprintf("%c", type);
    rule.access = xstrdup(access);
    *ret = xmemdup(&rule, sizeof(rule));
    return 0;
}

static int append_rules(struct update *update, char *const *texts, bool allow, struct error *err)
{
    for (char *const *text = texts; text && *text; text++) {
        struct oci_device_rule *rule;
        int r = parse_rule(*text, allow, &rule, err);
        if (r < 0)
            return r;
        append_rule(update->after->resources, rule);
        update->rules_change = true;
    }
    return 0;
}

static bool allows_exactly(const struct oci_device_rule *rule, const struct oci_device *device)
{
    return rule->allow && text_equal(rule->type, device->type) && rule->has_major &&
           rule->major == device->major && rule->has_minor && rule->minor == device->minor;
}

static void remove_rules_of(struct oci_resources *resources, const struct oci_device *device)
{
    size_t kept = 0;

    for (size_t i = 0; i < resources->devices_count; i++) {
        struct oci_device_rule *rule = resources->devices[i];
        if (allows_exactly(rule, device))
            json_free(&oci_device_rule_type, rule);
        else
            resources->devices[kept++] = rule;
    }
    resources->devices_count = kept;
}

/* ---- device nodes */

static ssize_t find_device(const struct oci_linux *linux, const char *path)
{
    for (size_t i = 0; i < linux->devices_count; i++) {
        if (text_equal(linux->devices[i]->path, path))
            return (ssize_t)i;
    }
    return -1;
}

static int plan_addition(struct update *update, const struct cloche_runtime_device *wanted,
                         struct error *err)
{
    struct oci_linux *after = update->after;
    char rule_text[64];
    struct oci_device_rule *rule;

    if (text_empty(wanted->path) || wanted->path[0] != '/' || strlen(wanted->path) >= PATH_MAX)
        return error_set(err, -EINVAL, "device '%s': needs an absolute path in the container",
                         wanted->path ? wanted->path : "");
    if (wanted->type != 'c' && wanted->type != 'b')
        return error_set(err, -EINVAL, "device %s: is neither a character nor a block device",
                         wanted->path);
    if (find_device(after, wanted->path) >= 0)
        return error_set(err, -EEXIST, "device %s: the container has it already", wanted->path);
    if (after->devices_count >= DEVICE_NODES_MAX)
        return error_set(err, -E2BIG, "device %s: the container has %d already", wanted->path,
                         DEVICE_NODES_MAX);
    snprintf(rule_text, sizeof(rule_text), "%c %u:%u %.3s", wanted->type, wanted->major,
             wanted->minor, wanted->access ? wanted->access : "rwm");
    int r = parse_rule(rule_text, true, &rule, err);
    if (r < 0)
        return r;
    append_rule(after->resources, rule);
    update->rules_change = true;
    struct oci_device *device = xnew(struct oci_device);
    *device = (struct oci_device){
        .type = xasprintf("%c", wanted->type),
        .path = xstrdup(wanted->path),
        .major = wanted->major,
        .minor = wanted->minor,
        .has_major = true,
        .has_minor = true,
        .file_mode = wanted->mode ? wanted->mode & 07777 : 0666,
        .uid = wanted->uid,
        .gid = wanted->gid,
        .has_file_mode = true,
        .has_uid = true,
        .has_gid = true,
    };
    after->devices = xrealloc(after->devices, after->devices_count + 1, sizeof(*after->devices));
    after->devices[after->devices_count++] = device;
    return 0;
}

static int plan_removal(struct update *update, const char *path, struct error *err)
{
    struct oci_linux *after = update->after;
    ssize_t index = find_device(after, path);

    if (index < 0)
        return error_set(err, -ENOENT, "device %s: neither the configuration nor an update made it",
                         path);
    struct oci_device *device = after->devices[index];
    remove_rules_of(after->resources, device);
    json_free(&oci_device_type, device);
    memmove(after->devices + index, after->devices + index + 1,
            (after->devices_count - (size_t)index - 1) * sizeof(*after->devices));
    after->devices_count--;
    update->rules_change = true;
    return 0;
}

static int plan_devices(struct update *update, struct error *err)
{
    const struct cloche_runtime_update_options *options = update->options;
    int r = 0;

    for (char *const *path = options->remove_devices; r == 0 && path && *path; path++)
        r = plan_removal(update, *path, err);
    for (size_t i = 0; r == 0 && i < options->add_devices_count; i++)
        r = plan_addition(update, &options->add_devices[i], err);
    if (r == 0)
        r = append_rules(update, options->allow, true, err);
    return r < 0 ? r : append_rules(update, options->deny, false, err);
}

/* The nodes that `from` has and `base` has not. */
static int each_difference(const struct update *update, const struct oci_linux *from,
                           const struct oci_linux *base,
                           int (*work)(const struct stored *stored, const struct oci_config *config,
                                       const struct oci_device *device, struct error *err),
                           struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < from->devices_count; i++) {
        if (find_device(base, from->devices[i]->path) < 0)
            r = work(&update->stored, update->config, from->devices[i], err);
        if (r < 0)
            error_context(err, "device");
    }
    return r;
}

static int set_rules(struct update *update, const struct oci_linux *linux, struct error *err)
{
    _cleanup_free_ struct device_rule *rules = NULL;
    size_t count;
    int r = device_rules(linux->resources, &rules, &count, err);

    return r < 0 ? r : cgroup_update_devices(&update->cgroup, rules, count, err);
}

/* A node goes before the right to it and comes after it: at no moment is there one that may not be
 * used. */
static int change_devices(struct update *update, struct error *err)
{
    int r = each_difference(update, update->before, update->after, device_node_remove, err);

    if (r == 0 && update->rules_change)
        r = set_rules(update, update->after, err);
    if (r == 0)
        r = each_difference(update, update->after, update->before, device_node_add, err);
    return r;
}

static void restore(struct update *update, bool limits)
{
    if (limits)
        cgroup_update(&update->cgroup, update->before->resources, NULL);
    if (!update->rules_change)
        return;
    each_difference(update, update->after, update->before, device_node_remove, NULL);
    set_rules(update, update->before, NULL);
    each_difference(update, update->before, update->after, device_node_add, NULL);
}

/* ---- limits */

static int plan_limits(struct update *update, struct oci_resources **ret, struct error *err)
{
    _cleanup_oci_resources_ struct oci_resources *merged = NULL;
    _cleanup_oci_resources_ struct oci_resources *changes = NULL;
    const char *text = update->options->resources;

    if (!text)
        return 0;
    int r = parse_resources(text, &merged, err);
    if (r == 0)
        r = parse_resources(text, &changes, err);
    if (r == 0)
        r = config_check_resources(changes, err);
    if (r < 0)
        return r;
    update->rules_change = changes->devices != NULL;
    resources_merge(update->after->resources, merged);
    resources_complete(changes, update->after->resources);
    *ret = steal_ptr(changes);
    return 0;
}

static int change(struct update *update, char ***warnings, struct error *err)
{
    _cleanup_oci_resources_ struct oci_resources *changes = NULL;
    int r = plan_limits(update, &changes, err);
    const char *warning = cgroup_left_out(&update->cgroup, changes);

    if (warning)
        strv_append(warnings, warning);
    if (r == 0)
        r = plan_devices(update, err);
    if (r < 0)
        return r;
    if (changes)
        r = cgroup_update(&update->cgroup, changes, err);
    if (r == 0)
        r = change_devices(update, err);
    if (r == 0)
        r = save(update, err);
    if (r < 0)
        restore(update, changes != NULL);
    return r;
}

int runtime_update(const char *root, const struct cloche_runtime_update_options *options,
                   char ***warnings, struct error *err)
{
    struct update update = {.options = options, .stored = {.fd = -1, .root_fd = -1, .pidfd = -1}};
    int r = load(&update, root, err);

    if (r == 0)
        r = intel_rdt_update(update.config->linux ? update.config->linux->intel_rdt : NULL,
                             options->id, options->l3_cache_schema, options->mem_bw_schema, err);
    if (r == 0)
        r = change(&update, warnings, err);
    finish(&update);
    return r;
}
