/*
 * What resctrl knows of a container's share of the cache and of the memory bandwidth.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "intel_rdt.h"

enum {
    STATS_FILE_MAX = 16384,
    DOMAINS_MAX = 4096,
};

/* Without the newline; NULL: it is not there. Owned by the caller. */
static char *text_of(int fd, const char *path)
{
    char *text = NULL;
    size_t length;

    if (fd < 0 || file_read_at(fd, path, STATS_FILE_MAX, &text, &length, NULL) < 0)
        return NULL;
    text[strcspn(text, "\n")] = '\0';
    return text;
}

static bool number_of(int fd, const char *path, uint64_t *ret)
{
    _cleanup_free_ char *text = text_of(fd, path);

    return text && text_to_u64(text, 0, UINT64_MAX, ret) == 0;
}

static void write_number(struct json_writer *writer, const char *key, int fd, const char *path)
{
    uint64_t value;

    if (!number_of(fd, path, &value) || value == 0) /* Go's omitempty */
        return;
    json_writer_key(writer, key);
    json_writer_unsigned(writer, value);
}

/* The line of one resource in the group's schemata, without what is in front of it. */
static void write_schema(struct json_writer *writer, const char *key, int group_fd,
                         const char *resource)
{
    _cleanup_free_ char *text = NULL;
    size_t length = strlen(resource);

    if (group_fd < 0 || file_read_at(group_fd, "schemata", STATS_FILE_MAX, &text, NULL, NULL) < 0)
        return;
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        line += strspn(line, " ");
        if (strncmp(line, resource, length) != 0 || line[length] != ':')
            continue;
        json_writer_key(writer, key);
        json_writer_string(writer, line);
        return;
    }
}

static void write_cache(struct json_writer *writer, int root_fd, int group_fd)
{
    _cleanup_close_ int fd = openat(root_fd, "info/L3", O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_free_ char *mask = text_of(fd, "cbm_mask");

    if (fd < 0)
        return;
    json_writer_key(writer, "l3_cache_info");
    json_writer_object_begin(writer);
    if (!text_empty(mask)) {
        json_writer_key(writer, "cbm_mask");
        json_writer_string(writer, mask);
    }
    write_number(writer, "min_cbm_bits", fd, "min_cbm_bits");
    write_number(writer, "num_closids", fd, "num_closids");
    json_writer_object_end(writer);
    write_schema(writer, "l3_cache_schema_root", root_fd, "L3");
    write_schema(writer, "l3_cache_schema", group_fd, "L3");
}

static void write_bandwidth(struct json_writer *writer, int root_fd, int group_fd)
{
    _cleanup_close_ int fd = openat(root_fd, "info/MB", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return;
    json_writer_key(writer, "mem_bw_info");
    json_writer_object_begin(writer);
    write_number(writer, "bandwidth_gran", fd, "bandwidth_gran");
    write_number(writer, "delay_linear", fd, "delay_linear");
    write_number(writer, "min_bandwidth", fd, "min_bandwidth");
    write_number(writer, "num_closids", fd, "num_closids");
    json_writer_object_end(writer);
    write_schema(writer, "mem_bw_schema_root", root_fd, "MB");
    write_schema(writer, "mem_bw_schema", group_fd, "MB");
}

/* ---- counters, one folder "mon_L3_NN" for each cache */

struct counters {
    const char *key;      /* of the list */
    const char *names[2]; /* of the files, and of the members */
    bool wanted;
};

static bool is_domain(const char *name)
{
    return text_starts_with(name, "mon_L3_");
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int filter_domains(const struct dirent *entry)
{
    return is_domain(entry->d_name);
}

static void write_counters(struct json_writer *writer, int data_fd, const struct counters *counters)
{
    struct dirent **entries;
    char path[32]; /* musl has no scandirat(3) */

    snprintf(path, sizeof(path), "/proc/self/fd/%d", data_fd);
    int count = scandir(path, &entries, filter_domains, compare_names);

    if (count < 0)
        return;
    json_writer_key(writer, counters->key);
    json_writer_array_begin(writer);
    for (int i = 0; i < count; i++) {
        json_writer_object_begin(writer);
        for (size_t k = 0; k < ARRAY_SIZE(counters->names) && counters->names[k] && i < DOMAINS_MAX;
             k++) {
            _cleanup_free_ char *file = xasprintf("%s/%s", entries[i]->d_name, counters->names[k]);
            write_number(writer, counters->names[k], data_fd, file);
        }
        json_writer_object_end(writer);
        free(entries[i]);
    }
    json_writer_array_end(writer);
    free(entries);
}

static bool has_feature(const char *features, const char *name)
{
    _cleanup_strv_ char **lines = strv_split(features, '\n');

    return strv_contains(lines, name);
}

/* Of its monitoring group, where it has one, else of the whole group. */
static int open_data(int group_fd, const struct oci_intel_rdt *config, const char *id)
{
    _cleanup_free_ char *path = xasprintf("mon_groups/%s/mon_data", id);

    return openat(group_fd, config->enable_monitoring ? path : "mon_data",
                  O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void write_monitoring(struct json_writer *writer, int root_fd, int data_fd)
{
    _cleanup_free_ char *features = NULL;

    if (data_fd < 0 || file_read_at(root_fd, "info/L3_MON/mon_features", STATS_FILE_MAX, &features,
                                    NULL, NULL) < 0)
        return;
    const struct counters kinds[] = {
        {"mbm_stats",
         {"mbm_total_bytes", "mbm_local_bytes"},
         has_feature(features, "mbm_total_bytes") || has_feature(features, "mbm_local_bytes")},
        {"cmt_stats", {"llc_occupancy"}, has_feature(features, "llc_occupancy")},
    };
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        if (kinds[i].wanted)
            write_counters(writer, data_fd, &kinds[i]);
    }
}

void intel_rdt_stats_at(int root_fd, const struct oci_intel_rdt *config, const char *id,
                        struct json_writer *writer)
{
    _cleanup_close_ int group_fd = intel_rdt_open_group_at(root_fd, config, id);

    if (group_fd < 0)
        return;
    _cleanup_close_ int data_fd = open_data(group_fd, config, id);
    write_cache(writer, root_fd, group_fd);
    write_bandwidth(writer, root_fd, group_fd);
    write_monitoring(writer, root_fd, data_fd);
}

void intel_rdt_stats(const struct oci_intel_rdt *config, const char *id, struct json_writer *writer)
{
    _cleanup_close_ int root_fd = config ? intel_rdt_open(NULL) : -1;

    if (root_fd >= 0)
        intel_rdt_stats_at(root_fd, config, id, writer);
}
