/* What a configuration means in properties of a unit (systemd.resource-control(5),
 * systemd.scope(5)), as runc translates it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <schema/oci_config.h>

#include <base/alloc.h>
#include <base/text.h>

#include "annotations.h"
#include "cgroup_resources.h"
#include "cgroup_systemd.h"

#define INFINITY_TEXT "18446744073709551615"

enum {
    CPU_SET_BITS_MAX = 8192,    /* CONFIG_NR_CPUS of the largest kernels */
    DEFAULT_PERIOD_US = 100000, /* of the kernel's CPU quota */
    VERSION_QUOTA_PERIOD = 242,
    VERSION_CPU_SETS = 244,
    VERSION_CPU_IDLE = 252,
    VERSION_SCOPE_OOM_POLICY = 253,
};

static void add(struct buffer *out, unsigned min_version, const char *name, const char *value)
{
    buffer_printf(out, "%u %s %s", min_version, name, value);
    buffer_append_char(out, '\0');
}

/* negative: no limit. */
static void add_number(struct buffer *out, unsigned min_version, const char *name, int64_t value)
{
    char text[40];

    if (value < 0)
        strcpy(text, "uint64 " INFINITY_TEXT);
    else
        snprintf(text, sizeof(text), "uint64 %" PRId64, value);
    add(out, min_version, name, text);
}

static void add_text(struct buffer *out, unsigned min_version, const char *name, const char *text)
{
    _cleanup_buffer_ struct buffer quoted = BUFFER_INIT;

    buffer_append_char(&quoted, '\'');
    for (const char *c = text; *c; c++) {
        if (*c == '\'' || *c == '\\')
            buffer_append_char(&quoted, '\\');
        buffer_append_char(&quoted, *c);
    }
    buffer_append_char(&quoted, '\'');
    add(out, min_version, name, buffer_text(&quoted));
}

/* --- the unit --------------------------------------------------------------------------------- */

static const char *unified_value(const struct oci_resources *resources, const char *key)
{
    return resources && resources->unified ? json_string_map_get(resources->unified, key) : NULL;
}

static int add_annotations(const struct oci_config *config, struct buffer *out, struct error *err)
{
    const struct json_string_map *map = config->annotations;

    for (size_t i = 0; map && i < map->count; i++) {
        if (!text_starts_with(map->keys[i], ANNOTATION_SYSTEMD_PROPERTY))
            continue;
        const char *name = map->keys[i] + strlen(ANNOTATION_SYSTEMD_PROPERTY);
        if (!name[0] || strchr(name, ' '))
            return error_set(err, -EINVAL, "annotations.%s: '%s' is no name of a property",
                             map->keys[i], name);
        add(out, 0, name, map->values[i]);
    }
    return 0;
}

int systemd_unit_properties(const struct cgroup *cgroup, const struct oci_config *config,
                            struct buffer *out, struct error *err)
{
    const struct oci_resources *resources = config->linux ? config->linux->resources : NULL;
    _cleanup_free_ char *description = xasprintf("cloche container %s", cgroup->unit);
    const char *group = unified_value(resources, "memory.oom.group");

    add_text(out, 0, "Description", description);
    /* Its cgroups below are the container's own business. */
    add(out, 0, "Delegate", "true");
    add(out, 0, "DefaultDependencies", "false");
    add(out, 0, "MemoryAccounting", "true");
    add(out, 0, "CPUAccounting", "true");
    add(out, 0, cgroup->ops->version == 2 ? "IOAccounting" : "BlockIOAccounting", "true");
    add(out, 0, "TasksAccounting", "true");
    int r = add_annotations(config, out, err);
    /* What systemd does when the kernel kills a process for memory is to fit the kernel's. */
    if (r == 0 && (text_equal(group, "0") || text_equal(group, "1")))
        add_text(out, VERSION_SCOPE_OOM_POLICY, "OOMPolicy",
                 text_equal(group, "0") ? "continue" : "kill");
    return r;
}

/* --- CPU -------------------------------------------------------------------------------------- */

static void add_quota(struct buffer *out, int64_t quota, uint64_t period)
{
    int64_t per_second = cgroup_quota_per_second(quota, period);

    if (period)
        add_number(out, VERSION_QUOTA_PERIOD, "CPUQuotaPeriodUSec", (int64_t)period);
    if (quota <= 0 && (quota || period)) {
        add_number(out, 0, "CPUQuotaPerSecUSec", -1);
    } else if (per_second > 0) {
        add_number(out, 0, "CPUQuotaPerSecUSec", per_second);
    }
}

/* "0-3,8" -> a bit each, the lowest first, as an array of bytes. */
static int add_set(struct buffer *out, const char *name, const char *list, const char *field,
                   struct error *err)
{
    uint8_t bits[CPU_SET_BITS_MAX / 8] = {0};
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    size_t used = 0;

    for (const char *at = list; *at;) {
        char *end;
        unsigned long first = strtoul(at, &end, 10), last = first;
        bool valid = end != at;
        if (valid && *end == '-') {
            at = end + 1;
            last = strtoul(at, &end, 10);
            valid = end != at;
        }
        end += strspn(end, " \n");
        if (!valid || (*end && *end != ',') || last < first || last >= CPU_SET_BITS_MAX)
            return error_set(err, -EINVAL, "linux.resources.%s: '%s' is no list of numbers", field,
                             list);
        for (unsigned long i = first; i <= last; i++)
            bits[i / 8] |= (uint8_t)(1U << (i % 8));
        used = last / 8 + 1 > used ? last / 8 + 1 : used;
        at = end + (*end == ',');
    }
    buffer_append_text(&text, "@ay [");
    for (size_t i = 0; i < used; i++)
        buffer_printf(&text, "%s%u", i ? "," : "", bits[i]);
    buffer_append_char(&text, ']');
    add(out, VERSION_CPU_SETS, name, buffer_text(&text));
    return 0;
}

static int add_cpu(const struct cgroup *cgroup, const struct oci_cpu *cpu, struct buffer *out,
                   struct error *err)
{
    bool v2 = cgroup->ops->version == 2, idle = v2 && cpu->has_idle && cpu->idle == 1;
    int r = 0;

    if (idle) /* a weight of 0 is systemd's word for it */
        add_number(out, VERSION_CPU_IDLE, "CPUWeight", 0);
    else if (v2 && cpu->has_shares && cpu->shares)
        add_number(out, 0, "CPUWeight", (int64_t)cgroup_weight_from_shares(cpu->shares));
    else if (!v2 && cpu->has_shares && cpu->shares)
        add_number(out, 0, "CPUShares", (int64_t)cpu->shares);
    add_quota(out, cpu->has_quota ? cpu->quota : 0, cpu->has_period ? cpu->period : 0);
    if (!text_empty(cpu->cpus))
        r = add_set(out, "AllowedCPUs", cpu->cpus, "cpu.cpus", err);
    if (r == 0 && !text_empty(cpu->mems))
        r = add_set(out, "AllowedMemoryNodes", cpu->mems, "cpu.mems", err);
    return r;
}

/* --- memory, processes, disks ----------------------------------------------------------------- */

static void add_memory(const struct cgroup *cgroup, const struct oci_memory *memory,
                       struct buffer *out)
{
    int64_t limit = memory->has_limit ? memory->limit : 0;
    int64_t swap;

    if (cgroup->ops->version == 1) {
        if (limit)
            add_number(out, 0, "MemoryLimit", limit);
        return;
    }
    if (limit)
        add_number(out, 0, "MemoryMax", limit);
    if (memory->has_reservation && memory->reservation)
        add_number(out, 0, "MemoryLow", memory->reservation);
    /* What cannot be is refused where the files are written. */
    if (cgroup_swap_limit(memory, &swap, NULL) == 0 && swap >= -1)
        add_number(out, 0, "MemorySwapMax", swap);
}

/* --- unified: the names of the files themselves ------------------------------------------------
 */

static int unified_invalid(const char *key, const char *value, struct error *err)
{
    return error_set(err, -EINVAL, "linux.resources.unified.%s: '%s' is not valid", key, value);
}

static int add_unified_number(const char *key, const char *property, const char *value,
                              struct buffer *out, struct error *err)
{
    int64_t number = -1;

    if (!text_equal(value, "max") && text_to_i64(value, 0, INT64_MAX, &number) < 0)
        return unified_invalid(key, value, err);
    add_number(out, 0, property, number);
    return 0;
}

static int add_unified_quota(const char *key, const char *value, struct buffer *out,
                             struct error *err)
{
    _cleanup_strv_ char **words = strv_split(value, ' ');
    uint64_t period = DEFAULT_PERIOD_US;
    int64_t quota = -1;
    size_t count = strv_length(words);

    if (count < 1 || count > 2 ||
        (!text_equal(words[0], "max") && text_to_i64(words[0], 1, INT64_MAX, &quota) < 0) ||
        (count == 2 && text_to_u64(words[1], 1, INT64_MAX, &period) < 0))
        return unified_invalid(key, value, err);
    add_quota(out, quota, period);
    return 0;
}

static int add_unified_entry(const char *key, const char *value, bool idle, struct buffer *out,
                             struct error *err)
{
    static const struct {
        const char *key, *property;
    } numbers[] = {
        {"memory.high", "MemoryHigh"},        {"memory.low", "MemoryLow"},
        {"memory.min", "MemoryMin"},          {"memory.max", "MemoryMax"},
        {"memory.swap.max", "MemorySwapMax"}, {"pids.max", "TasksMax"},
        {"cpu.weight", "CPUWeight"},
    };

    if (strchr(key, '/') || !strchr(key, '.') || key[0] == '.')
        return error_set(err, -EINVAL,
                         "linux.resources.unified: '%s' must be the name of a file, as in "
                         "CONTROLLER.PARAMETER",
                         key);
    if (text_equal(key, "cpu.idle") && idle)
        add_number(out, VERSION_CPU_IDLE, "CPUWeight", 0);
    else if (text_equal(key, "cpu.max"))
        return add_unified_quota(key, value, out, err);
    else if (text_equal(key, "cpuset.cpus"))
        return add_set(out, "AllowedCPUs", value, "unified.cpuset.cpus", err);
    else if (text_equal(key, "cpuset.mems"))
        return add_set(out, "AllowedMemoryNodes", value, "unified.cpuset.mems", err);
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (text_equal(key, numbers[i].key) && !(idle && text_equal(key, "cpu.weight")))
            return add_unified_number(key, numbers[i].property, value, out, err);
    }
    return 0; /* systemd has no word for it: the file alone is written */
}

static int add_unified(const struct oci_resources *resources, struct buffer *out, struct error *err)
{
    const struct json_string_map *map = resources->unified;
    bool idle = text_equal(unified_value(resources, "cpu.idle"), "1");
    int r = 0;

    for (size_t i = 0; r == 0 && map && i < map->count; i++) {
        _cleanup_free_ char *value = xstrdup(map->values[i] + strspn(map->values[i], " \t\n"));
        size_t length = strlen(value);
        while (length && strchr(" \t\n", value[length - 1]))
            value[--length] = '\0';
        r = add_unified_entry(map->keys[i], value, idle, out, err);
    }
    return r;
}

/* --- devices ---------------------------------------------------------------------------------- */

static bool covers(const struct device_rule *wide, const struct device_rule *narrow)
{
    return wide->type == narrow->type && (wide->major < 0 || wide->major == narrow->major) &&
           (wide->minor < 0 || wide->minor == narrow->minor);
}

static bool overlaps(const struct device_rule *a, const struct device_rule *b)
{
    return a->type == b->type && (a->major < 0 || b->major < 0 || a->major == b->major) &&
           (a->minor < 0 || b->minor < 0 || a->minor == b->minor);
}

/* Takes from the list what the rule denies. False: a part of an entry would have to be denied. */
static bool deny(struct device_rule *list, size_t count, const struct device_rule *rule)
{
    for (size_t i = 0; i < count; i++) {
        if (!overlaps(&list[i], rule))
            continue;
        if (!covers(rule, &list[i]))
            return false;
        list[i].read &= !rule->read;
        list[i].write &= !rule->write;
        list[i].mknod &= !rule->mknod;
    }
    return true;
}

/* systemd knows lists of what is allowed only. Turns rules into one, in place. False: they cannot
 * be. *ret_all: everything is allowed. */
static bool make_allow_list(struct device_rule *rules, size_t *count, bool *ret_all)
{
    size_t kept = 0;
    bool possible = true;

    *ret_all = false;
    for (size_t i = 0; i < *count; i++) {
        if (rules[i].type == 'a') {
            *ret_all = rules[i].allow;
            kept = 0;
            possible = true;
        } else if (rules[i].allow && !*ret_all) {
            rules[kept++] = rules[i];
        } else if (!rules[i].allow) {
            possible = possible && !*ret_all && deny(rules, kept, &rules[i]);
        }
    }
    for (size_t i = 0; i < kept; i++)
        possible = possible && !(rules[i].major < 0 && rules[i].minor >= 0);
    *count = kept;
    return possible;
}

static void append_device(struct buffer *text, const struct device_rule *rule)
{
    const char *kind = rule->type == 'b' ? "block" : "char";

    if (!rule->read && !rule->write && !rule->mknod)
        return;
    buffer_append_text(text, text->data[text->length - 1] == '[' ? "(" : ",(");
    if (rule->major < 0)
        buffer_printf(text, "'%s-*'", kind);
    else if (rule->minor < 0)
        buffer_printf(text, "'%s-%" PRId64 "'", kind, rule->major);
    else
        buffer_printf(text, "'/dev/%s/%" PRId64 ":%" PRId64 "'", kind, rule->major, rule->minor);
    buffer_printf(text, ",'%s%s%s')", rule->read ? "r" : "", rule->write ? "w" : "",
                  rule->mknod ? "m" : "");
}

/* On v1 systemd writes the rules again whenever it is told to reload: what it cannot express is
 * denied then, not allowed. On v2 its rules and ours must both allow, and ours are enough. */
void systemd_device_properties(const struct cgroup *cgroup, const struct device_rule *rules,
                               size_t count, struct buffer *out)
{
    _cleanup_free_ struct device_rule *list = xmemdup(rules, count * sizeof(*rules));
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    bool all, possible = make_allow_list(list, &count, &all);
    bool strict = possible ? !all : cgroup->ops->version == 1;

    add_text(out, 0, "DevicePolicy", strict ? "strict" : "auto");
    add(out, 0, "DeviceAllow", "@a(ss) []"); /* empties the list */
    if (!possible || all)
        return;
    buffer_append_text(&text, "@a(ss) [");
    for (size_t i = 0; i < count; i++)
        append_device(&text, &list[i]);
    buffer_append_char(&text, ']');
    add(out, 0, "DeviceAllow", buffer_text(&text));
}

int systemd_resource_properties(const struct cgroup *cgroup, const struct oci_resources *resources,
                                struct buffer *out, struct error *err)
{
    int r = 0;

    if (!resources)
        return 0;
    if (resources->memory)
        add_memory(cgroup, resources->memory, out);
    if (resources->cpu)
        r = add_cpu(cgroup, resources->cpu, out, err);
    if (cgroup->ops->version == 1 && resources->block_io && resources->block_io->has_weight &&
        resources->block_io->weight)
        add_number(out, 0, "BlockIOWeight", resources->block_io->weight);
    if (resources->pids && resources->pids->has_limit)
        add_number(out, 0, "TasksMax", (int64_t)cgroup_pids_limit(resources->pids->limit));
    return r < 0 ? r : add_unified(resources, out, err);
}
