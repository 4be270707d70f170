#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "intel_rdt.h"

enum {
    RESCTRL_MAGIC = 0x7655821, /* linux/magic.h: RDTGROUP_SUPER_MAGIC */
    SCHEMATA_MAX = 16384,
};

static const char bandwidth_prefix[] = "MB:";

static bool has_schemata(const struct oci_intel_rdt *config)
{
    return !text_empty(config->l3_cache_schema) || !text_empty(config->mem_bw_schema) ||
           config->schemata_count;
}

/* "/" is the group of everybody. */
static bool is_root_group(const struct oci_intel_rdt *config)
{
    return text_equal(config->clos_id, "/");
}

static bool is_own_group(const struct oci_intel_rdt *config)
{
    return text_empty(config->clos_id);
}

int intel_rdt_open(struct error *err)
{
    struct statfs status;
    _cleanup_close_ int fd = open(INTEL_RDT_ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0 || fstatfs(fd, &status) < 0 || status.f_type != RESCTRL_MAGIC) {
        error_set(err, -ENOTSUP,
                  "linux.intelRdt: Intel RDT is not supported or not enabled: there is no resctrl "
                  "file system at " INTEL_RDT_ROOT);
        error_hint(err,
                   "mount -t resctrl resctrl " INTEL_RDT_ROOT " works where the processor has it");
        return -ENOTSUP;
    }
    return steal_fd(&fd);
}

int intel_rdt_check(const struct oci_intel_rdt *config, struct error *err)
{
    if (!config)
        return 0;
    if (config->clos_id && !is_root_group(config) &&
        (strchr(config->clos_id, '/') || strchr(config->clos_id, '\n') ||
         text_equal(config->clos_id, ".") || text_equal(config->clos_id, "..")))
        return error_set(err, -EINVAL, "linux.intelRdt.closID: invalid intelRdt.ClosID '%s'",
                         config->clos_id);
    const char *bandwidth = config->mem_bw_schema;
    if (!text_empty(bandwidth) &&
        (!text_starts_with(bandwidth, bandwidth_prefix) || strchr(bandwidth, '\n')))
        return error_set(err, -EINVAL, "linux.intelRdt.memBwSchema: '%s' is not one line MB:VALUES",
                         bandwidth);
    for (size_t i = 0; i < config->schemata_count; i++) {
        if (strchr(config->schemata[i], '\n') || !strchr(config->schemata[i], ':'))
            return error_set(err, -EINVAL,
                             "linux.intelRdt.schemata[%zu]: '%s' is not one line NAME:VALUES", i,
                             config->schemata[i]);
    }
    _cleanup_close_ int root_fd = intel_rdt_open(err);
    return root_fd < 0 ? root_fd : 0;
}

static void append_lines(struct buffer *out, const char *text, bool bandwidth_too)
{
    while (text && *text) {
        const char *end = strchrnul(text, '\n');
        if (end > text && (bandwidth_too || !text_starts_with(text, bandwidth_prefix))) {
            buffer_append(out, text, (size_t)(end - text));
            buffer_append_char(out, '\n');
        }
        text = *end ? end + 1 : end;
    }
}

void intel_rdt_schemata(const struct oci_intel_rdt *config, struct buffer *out)
{
    append_lines(out, config->l3_cache_schema, false);
    append_lines(out, config->mem_bw_schema, true);
    for (size_t i = 0; i < config->schemata_count; i++)
        append_lines(out, config->schemata[i], true);
}

/* The value of one domain as it is compared: without what does not matter. */
static char *plain(const char *text, size_t length)
{
    while (length && isspace((unsigned char)*text)) {
        text++;
        length--;
    }
    while (length && isspace((unsigned char)text[length - 1]))
        length--;
    while (length > 1 && *text == '0') {
        text++;
        length--;
    }
    char *ret = xasprintf("%.*s", (int)length, text);
    for (char *c = ret; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    return ret;
}

/* "0=ff" among "0=ff;1=f0"? */
static bool has_domain(const char *entry, char *const *domains)
{
    const char *value = strchr(entry, '=');

    if (!value)
        return false;
    _cleanup_free_ char *name = plain(entry, (size_t)(value - entry));
    _cleanup_free_ char *wanted = plain(value + 1, strlen(value + 1));
    for (; domains && *domains; domains++) {
        const char *other = strchr(*domains, '=');
        if (!other)
            continue;
        _cleanup_free_ char *other_name = plain(*domains, (size_t)(other - *domains));
        _cleanup_free_ char *other_value = plain(other + 1, strlen(other + 1));
        if (text_equal(name, other_name))
            return text_equal(wanted, other_value);
    }
    return false;
}

/* Is what one line asks for in the line of the same resource? */
static bool has_line(const char *line, char *const *existing)
{
    const char *values = strchr(line, ':');

    if (!values)
        return false;
    _cleanup_free_ char *name = plain(line, (size_t)(values - line));
    _cleanup_strv_ char **entries = strv_split(values + 1, ';');
    for (; existing && *existing; existing++) {
        const char *other = strchr(*existing, ':');
        if (!other)
            continue;
        _cleanup_free_ char *other_name = plain(*existing, (size_t)(other - *existing));
        if (!text_equal(name, other_name))
            continue;
        _cleanup_strv_ char **domains = strv_split(other + 1, ';');
        bool same = true;
        for (char **entry = entries; same && entry && *entry; entry++)
            same = has_domain(*entry, domains);
        return same;
    }
    return false;
}

bool intel_rdt_matches(const char *wanted, const char *existing)
{
    _cleanup_strv_ char **lines = strv_split(wanted, '\n');
    _cleanup_strv_ char **others = strv_split(existing, '\n');

    for (char **line = lines; line && *line; line++) {
        if (**line && !has_line(*line, others))
            return false;
    }
    return true;
}

static int write_file(int group_fd, const char *file, const char *text, size_t length,
                      struct error *err)
{
    return file_write_existing_at(group_fd, file, text, length, err);
}

static int add_task(int group_fd, pid_t pid, struct error *err)
{
    char text[16];
    int length = snprintf(text, sizeof(text), "%d", pid);

    return write_file(group_fd, "tasks", text, (size_t)length, err);
}

/* Somebody else set it up: it has what is asked for, or the container is refused. */
static int compare(int group_fd, const struct buffer *wanted, struct error *err)
{
    _cleanup_free_ char *text = NULL;
    size_t length;
    int r = file_read_at(group_fd, "schemata", SCHEMATA_MAX, &text, &length, err);

    if (r == 0 && !intel_rdt_matches(buffer_text(wanted), text))
        r = error_set(err, -EINVAL, "the group exists and its schemata are others: %s", text);
    return r;
}

static int set_schemata(int group_fd, const struct oci_intel_rdt *config, bool made,
                        struct error *err)
{
    _cleanup_buffer_ struct buffer lines = BUFFER_INIT;

    if (!has_schemata(config))
        return 0;
    intel_rdt_schemata(config, &lines);
    if (!made && !is_own_group(config))
        return compare(group_fd, &lines, err);
    return write_file(group_fd, "schemata", buffer_text(&lines), lines.length, err);
}

static int open_group_at(int root_fd, const struct oci_intel_rdt *config, const char *id, bool make,
                         bool *ret_made, struct error *err)
{
    const char *name = is_own_group(config) ? id : config->clos_id;

    *ret_made = false;
    if (is_root_group(config))
        name = ".";
    /* A group without settings of the container's own is one that was prepared for it. */
    if (make && !is_root_group(config) && (is_own_group(config) || has_schemata(config))) {
        *ret_made = mkdirat(root_fd, name, 0755) == 0;
        if (!*ret_made && errno != EEXIST)
            return error_errno(err, errno, "linux.intelRdt: make the group %s", name);
    }
    int fd = openat(root_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? error_errno(err, errno, "linux.intelRdt.closID: open the group %s", name) : fd;
}

static int open_group(const struct oci_intel_rdt *config, const char *id, bool make, bool *ret_made,
                      struct error *err)
{
    _cleanup_close_ int root_fd = intel_rdt_open(err);

    return root_fd < 0 ? root_fd : open_group_at(root_fd, config, id, make, ret_made, err);
}

/* A group for counting only, inside of the other. */
static int monitor(int group_fd, const char *id, pid_t pid, struct error *err)
{
    _cleanup_free_ char *path = xasprintf("mon_groups/%s", id);

    if (mkdirat(group_fd, path, 0755) < 0 && errno != EEXIST)
        return error_errno(err, errno, "linux.intelRdt.enableMonitoring: make %s", path);
    _cleanup_close_ int fd = openat(group_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? error_errno(err, errno, "linux.intelRdt.enableMonitoring: open %s", path)
                  : add_task(fd, pid, err);
}

static bool monitors(const struct oci_intel_rdt *config)
{
    return config->enable_monitoring;
}

int intel_rdt_join(const struct oci_intel_rdt *config, const char *id, pid_t pid, struct error *err)
{
    bool made;
    _cleanup_close_ int group_fd = open_group(config, id, true, &made, err);

    if (group_fd < 0)
        return group_fd;
    int r = set_schemata(group_fd, config, made, err);
    if (r == 0)
        r = add_task(group_fd, pid, err);
    if (r < 0) {
        error_context(err, "linux.intelRdt");
        return r;
    }
    return monitors(config) ? monitor(group_fd, id, pid, err) : 0;
}

int intel_rdt_add(const struct oci_intel_rdt *config, const char *id, pid_t pid, struct error *err)
{
    bool made;
    _cleanup_close_ int group_fd = open_group(config, id, false, &made, err);

    if (group_fd < 0)
        return group_fd;
    int r = add_task(group_fd, pid, err);
    if (r < 0) {
        error_context(err, "linux.intelRdt");
        return r;
    }
    return monitors(config) ? monitor(group_fd, id, pid, err) : 0;
}

bool intel_rdt_is_there(const struct oci_intel_rdt *config, const char *id)
{
    _cleanup_close_ int root_fd = config && is_own_group(config) ? intel_rdt_open(NULL) : -1;

    return root_fd >= 0 && faccessat(root_fd, id, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

void intel_rdt_remove(const struct oci_intel_rdt *config, const char *id, bool was_there)
{
    _cleanup_free_ char *path = xasprintf("mon_groups/%s", id);
    _cleanup_close_ int root_fd = intel_rdt_open(NULL);
    bool made;

    if (root_fd < 0)
        return;
    if (is_own_group(config) && !was_there) {
        unlinkat(root_fd, id, AT_REMOVEDIR);
        return;
    }
    _cleanup_close_ int group_fd = open_group_at(root_fd, config, id, false, &made, NULL);
    if (group_fd >= 0 && monitors(config))
        unlinkat(group_fd, path, AT_REMOVEDIR);
}

/* ---- a container that runs */

static bool has_resource(int root_fd, const char *name)
{
    _cleanup_free_ char *path = xasprintf("info/%s", name);

    return faccessat(root_fd, path, F_OK, 0) == 0;
}

/* The texts are runc's. */
static int check_update(int root_fd, const struct oci_intel_rdt *config, const char *l3_cache,
                        const char *bandwidth, struct error *err)
{
    if (!text_empty(l3_cache) && (root_fd < 0 || !has_resource(root_fd, "L3")))
        return error_set(err, -ENOTSUP, "Intel RDT/CAT: l3 cache schema is not enabled");
    if (!text_empty(bandwidth) && (root_fd < 0 || !has_resource(root_fd, "MB")))
        return error_set(err, -ENOTSUP, "Intel RDT/MBA: memory bandwidth schema is not enabled");
    if (config)
        return 0;
    error_set(err, -EINVAL,
              "Intel RDT: the container was made without linux.intelRdt, so it is in no group of "
              "its own");
    error_hint(err, "an empty object as linux.intelRdt makes one");
    return -EINVAL;
}

int intel_rdt_update_at(int root_fd, const struct oci_intel_rdt *config, const char *id,
                        const char *l3_cache, const char *bandwidth, struct error *err)
{
    _cleanup_buffer_ struct buffer lines = BUFFER_INIT;
    bool made;

    if (text_empty(l3_cache) && text_empty(bandwidth))
        return 0;
    int r = check_update(root_fd, config, l3_cache, bandwidth, err);
    if (r < 0)
        return r;
    append_lines(&lines, l3_cache, false);
    append_lines(&lines, bandwidth, true);
    _cleanup_close_ int group_fd = open_group_at(root_fd, config, id, false, &made, err);
    return group_fd < 0 ? group_fd
                        : write_file(group_fd, "schemata", buffer_text(&lines), lines.length, err);
}

int intel_rdt_update(const struct oci_intel_rdt *config, const char *id, const char *l3_cache,
                     const char *bandwidth, struct error *err)
{
    if (text_empty(l3_cache) && text_empty(bandwidth))
        return 0;
    _cleanup_close_ int root_fd = intel_rdt_open(NULL);
    return intel_rdt_update_at(root_fd, config, id, l3_cache, bandwidth, err);
}

int intel_rdt_open_group_at(int root_fd, const struct oci_intel_rdt *config, const char *id)
{
    bool made;

    return open_group_at(root_fd, config, id, false, &made, NULL);
}
