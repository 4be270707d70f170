/*
 * The devices controller of cgroup v1 (Documentation/admin-guide/cgroup-v1/devices.rst).
 *
 * The kernel keeps a default (all allowed or none) and a list of exceptions from it, not rules.
 * Rules are therefore turned into such a policy first; one that this cannot express is refused,
 * since the kernel would take it and not do what it says. A cgroup that holds processes is brought
 * from its policy to the new one by the differences alone: what both allow works all the time.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup_resources.h"

struct device_policy {
    bool allow_all;                 /* then the exceptions are denied, else allowed */
    struct device_rule *exceptions; /* owned */
    size_t count;
};

static bool same_device(const struct device_rule *a, const struct device_rule *b)
{
    return a->type == b->type && a->major == b->major && a->minor == b->minor;
}

static bool has_access(const struct device_rule *rule)
{
    return rule->read || rule->write || rule->mknod;
}

static bool overlaps(const struct device_rule *a, const struct device_rule *b)
{
    return a->type == b->type && (a->major < 0 || b->major < 0 || a->major == b->major) &&
           (a->minor < 0 || b->minor < 0 || a->minor == b->minor) &&
           ((a->read && b->read) || (a->write && b->write) || (a->mknod && b->mknod));
}

static struct device_rule *find_exception(const struct device_policy *policy,
                                          const struct device_rule *rule)
{
    for (size_t i = 0; i < policy->count; i++) {
        if (same_device(&policy->exceptions[i], rule))
            return &policy->exceptions[i];
    }
    return NULL;
}

static void add_exception(struct device_policy *policy, const struct device_rule *rule)
{
    struct device_rule *known = find_exception(policy, rule);

    if (!known) {
        policy->exceptions =
            xrealloc(policy->exceptions, policy->count + 1, sizeof(*policy->exceptions));
        policy->exceptions[policy->count++] = *rule;
        return;
    }
    known->read |= rule->read;
    known->write |= rule->write;
    known->mknod |= rule->mknod;
}

static int remove_exception(struct device_policy *policy, const struct device_rule *rule,
                            struct error *err)
{
    for (size_t i = 0; i < policy->count; i++) {
        const struct device_rule *other = &policy->exceptions[i];
        /* A part of a wildcard cannot be taken out, a single device of a wildcard that goes can. */
        bool covered = (rule->major < 0 || rule->major == other->major) &&
                       (rule->minor < 0 || rule->minor == other->minor);
        if (!same_device(other, rule) && overlaps(other, rule) && !covered)
            return error_set(err, -ENOTSUP,
                             "linux.resources.devices: cgroup v1 cannot %s a part (%c %" PRId64
                             ":%" PRId64 ") of what a rule with a wildcard says before",
                             rule->allow ? "allow" : "deny", rule->type, rule->major, rule->minor);
    }
    for (size_t i = 0; i < policy->count; i++) {
        struct device_rule *other = &policy->exceptions[i];
        if (!overlaps(other, rule))
            continue;
        other->read &= !rule->read;
        other->write &= !rule->write;
        other->mknod &= !rule->mknod;
    }
    return 0;
}

static int policy_init(struct device_policy *policy, const struct device_rule *rules, size_t count,
                       struct error *err)
{
    int r = 0;

    *policy = (struct device_policy){0};
    for (size_t i = 0; r == 0 && i < count; i++) {
        if (rules[i].type == 'a') {
            policy->allow_all = rules[i].allow;
            policy->count = 0;
        } else if (rules[i].allow != policy->allow_all) {
            add_exception(policy, &rules[i]);
        } else {
            r = remove_exception(policy, &rules[i], err);
        }
    }
    if (r < 0)
        free(policy->exceptions);
    return r;
}

/* "c 1:3 rwm" */
static int parse_exception(const char *line, struct device_rule *ret)
{
    char major[16], minor[16], access[4];
    uint64_t number;

    *ret = (struct device_rule){.allow = true, .major = -1, .minor = -1};
    if (sscanf(line, "%c %15[^:]:%15s %3s", &ret->type, major, minor, access) != 4)
        return -EINVAL;
    if (!text_equal(major, "*")) {
        if (text_to_u64(major, 0, UINT32_MAX, &number) < 0)
            return -EINVAL;
        ret->major = (int64_t)number;
    }
    if (!text_equal(minor, "*")) {
        if (text_to_u64(minor, 0, UINT32_MAX, &number) < 0)
            return -EINVAL;
        ret->minor = (int64_t)number;
    }
    ret->read = strchr(access, 'r');
    ret->write = strchr(access, 'w');
    ret->mknod = strchr(access, 'm');
    return 0;
}

/* What is in effect. Where everything is allowed by default the kernel does not tell the
 * exceptions.
 */
static int policy_read(struct device_policy *policy, int directory_fd, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    _cleanup_strv_ char **lines = NULL;

    *policy = (struct device_policy){0};
    int r = file_read_at(directory_fd, "devices.list", CGROUP_FILE_MAX, &text, NULL, err);
    if (r < 0)
        return r;
    lines = strv_split(text, '\n');
    for (char **line = lines; line && *line; line++) {
        struct device_rule rule;
        if (!(*line)[0])
            continue;
        if (parse_exception(*line, &rule) < 0) {
            free(policy->exceptions);
            return error_set(err, -EIO, "devices.list: cannot read '%s'", *line);
        }
        if (rule.type == 'a')
            policy->allow_all = true;
        else
            add_exception(policy, &rule);
    }
    return 0;
}

struct device_files {
    int allow_fd, deny_fd; /* borrowed */
};

static int write_rule(const struct device_files *files, bool allow, const struct device_rule *rule,
                      struct error *err)
{
    char major[24] = "*", minor[24] = "*", text[80] = "a";

    if (rule->major >= 0)
        snprintf(major, sizeof(major), "%" PRId64, rule->major);
    if (rule->minor >= 0)
        snprintf(minor, sizeof(minor), "%" PRId64, rule->minor);
    if (rule->type != 'a') {
        if (!has_access(rule))
            return 0;
        snprintf(text, sizeof(text), "%c %s:%s %s%s%s", rule->type, major, minor,
                 rule->read ? "r" : "", rule->write ? "w" : "", rule->mknod ? "m" : "");
    }
    if (write(allow ? files->allow_fd : files->deny_fd, text, strlen(text)) < 0)
        return error_errno(err, errno, "linux.resources.devices: %s '%s'", allow ? "allow" : "deny",
                           text);
    return 0;
}

static int reset(const struct device_files *files, const struct device_policy *policy,
                 struct error *err)
{
    const struct device_rule all = {.type = 'a', .major = -1, .minor = -1};
    int r = write_rule(files, policy->allow_all, &all, err);

    for (size_t i = 0; r == 0 && i < policy->count; i++)
        r = write_rule(files, !policy->allow_all, &policy->exceptions[i], err);
    return r;
}

/* Writes what `from` has more than `base`. */
static int write_difference(const struct device_files *files, bool allow,
                            const struct device_policy *from, const struct device_policy *base,
                            struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < from->count; i++) {
        struct device_rule rule = from->exceptions[i];
        const struct device_rule *known = find_exception(base, &rule);
        if (known) {
            rule.read &= !known->read;
            rule.write &= !known->write;
            rule.mknod &= !known->mknod;
        }
        r = write_rule(files, allow, &rule, err);
    }
    return r;
}

/* With another default nothing of the old policy can stay: the processes are stopped meanwhile. */
static int reset_stopped(struct cgroup *cgroup, const struct device_files *files,
                         const struct device_policy *wanted, struct error *err)
{
    bool stopped = cgroup->ops->is_frozen(cgroup) == 0;
    int r = stopped ? cgroup->ops->freeze(cgroup, true, err) : 0;

    if (r < 0)
        return r;
    r = reset(files, wanted, err);
    if (stopped) {
        int thawed = cgroup->ops->freeze(cgroup, false, r < 0 ? NULL : err);
        r = r < 0 ? r : thawed;
    }
    return r;
}

static int change(struct cgroup *cgroup, int directory_fd, const struct device_files *files,
                  const struct device_policy *wanted, struct error *err)
{
    struct device_policy now;
    int r = policy_read(&now, directory_fd, err);

    if (r < 0)
        return r;
    if (now.allow_all || wanted->allow_all) {
        r = reset_stopped(cgroup, files, wanted, err);
    } else {
        r = write_difference(files, true, wanted, &now, err);
        if (r == 0)
            r = write_difference(files, false, &now, wanted, err);
    }
    free(now.exceptions);
    return r;
}

int cgroup_v1_set_devices(struct cgroup *cgroup, const struct device_rule *rules, size_t count,
                          bool live, struct error *err)
{
    struct cgroup_hierarchy *hierarchy = cgroup_hierarchy_find(cgroup, "devices");
    struct device_policy wanted;

    if (!hierarchy || hierarchy->fd < 0)
        return error_set(err, -ENOTSUP,
                         "linux.resources.devices: the cgroup v1 controller 'devices' is not "
                         "mounted here");
    _cleanup_close_ int allow_fd = openat(hierarchy->fd, "devices.allow", O_WRONLY | O_CLOEXEC);
    _cleanup_close_ int deny_fd = openat(hierarchy->fd, "devices.deny", O_WRONLY | O_CLOEXEC);
    if (allow_fd < 0 || deny_fd < 0)
        return error_errno(err, errno, "open devices.allow and devices.deny");
    int r = policy_init(&wanted, rules, count, err);
    if (r < 0)
        return r;
    const struct device_files files = {allow_fd, deny_fd};
    r = live ? change(cgroup, hierarchy->fd, &files, &wanted, err) : reset(&files, &wanted, err);
    free(wanted.exceptions);
    return r;
}
