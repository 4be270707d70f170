#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <schema/json.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/text.h>

#include "cgroup_stats.h"
#include "intel_rdt.h"

enum {
    NSEC_PER_TICK = 10000000, /* USER_HZ is 100 for user space everywhere */
    NSEC_PER_USEC = 1000,
    CPU_LIST_MAX = 1 << 16,
};

struct stats {
    struct cgroup *cgroup;
    struct json_writer writer;
};

static int folder(const struct stats *stats, const char *controller)
{
    const struct cgroup_hierarchy *hierarchy =
        cgroup_is_none(stats->cgroup) ? NULL : cgroup_hierarchy_find(stats->cgroup, controller);

    return hierarchy ? hierarchy->fd : -1;
}

/* A file that is not there reads as "" and 0. */
static char *text_of(const struct stats *stats, const char *controller, const char *file)
{
    char *text = NULL;
    int fd = folder(stats, controller);

    if (fd < 0 || file_read_at(fd, file, CGROUP_FILE_MAX, &text, NULL, NULL) < 0)
        return xstrdup("");
    return text;
}

static uint64_t number_of(const struct stats *stats, const char *controller, const char *file)
{
    uint64_t value = 0;
    int fd = folder(stats, controller);

    return fd < 0 || cgroup_read_number(fd, file, &value) < 0 ? 0 : value;
}

/* Of a file with lines "key value". */
static uint64_t keyed_number(const char *text, const char *key)
{
    size_t length = strlen(key);

    for (const char *line = text; line && *line;) {
        if (strncmp(line, key, length) == 0 && line[length] == ' ')
            return strtoull(line + length + 1, NULL, 10);
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return 0;
}

static void write_number(struct stats *stats, const char *key, uint64_t value)
{
    json_writer_key(&stats->writer, key);
    json_writer_unsigned(&stats->writer, value);
}

/* Go's omitempty. */
static void write_used(struct stats *stats, const char *key, uint64_t value)
{
    if (value)
        write_number(stats, key, value);
}

static void begin(struct stats *stats, const char *key)
{
    json_writer_key(&stats->writer, key);
    json_writer_object_begin(&stats->writer);
}

static void end(struct stats *stats)
{
    json_writer_object_end(&stats->writer);
}

/* ---- pressure (Documentation/accounting/psi.rst) */

static bool parse_pressure(const char *text, const char *kind, double *averages, uint64_t *total)
{
    const char *line = strstr(text, kind);

    return line && sscanf(line + strlen(kind), " avg10=%lf avg60=%lf avg300=%lf total=%" SCNu64,
                          &averages[0], &averages[1], &averages[2], total) == 4;
}

static void write_pressure(struct stats *stats, const char *file)
{
    static const char *const kinds[] = {"some", "full"}, *const keys[] = {"avg10", "avg60",
                                                                          "avg300"};
    _cleanup_free_ char *text = text_of(stats, "", file);

    if (stats->cgroup->ops->version == 1 || !text[0])
        return;
    begin(stats, "psi");
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        double averages[3] = {0};
        uint64_t total = 0;
        parse_pressure(text, kinds[i], averages, &total);
        begin(stats, kinds[i]);
        for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
            json_writer_key(&stats->writer, keys[k]);
            json_writer_number(&stats->writer, averages[k]);
        }
        write_number(stats, "total", total);
        end(stats);
    }
    end(stats);
}

/* ---- cpu */

static void write_numbers(struct stats *stats, const char *key, const char *text)
{
    if (!text[strspn(text, " \n")])
        return;
    json_writer_key(&stats->writer, key);
    json_writer_array_begin(&stats->writer);
    for (char *next; text[strspn(text, " \n")]; text = next) {
        uint64_t value = strtoull(text, &next, 10);
        if (next == text)
            break;
        json_writer_unsigned(&stats->writer, value);
    }
    json_writer_array_end(&stats->writer);
}

/* Column of cpuacct.usage_all: "cpu user system", a line for each CPU. */
static void write_usage_column(struct stats *stats, const char *key, const char *text, bool system)
{
    _cleanup_buffer_ struct buffer numbers = BUFFER_INIT;
    uint64_t user_ns, system_ns;

    for (const char *line = strchr(text, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
        if (sscanf(line + 1, "%*u %" SCNu64 " %" SCNu64, &user_ns, &system_ns) == 2)
            buffer_printf(&numbers, "%" PRIu64 " ", system ? system_ns : user_ns);
    }
    write_numbers(stats, key, buffer_text(&numbers));
}

static void write_cpu_usage_v1(struct stats *stats)
{
    _cleanup_free_ char *each = text_of(stats, "cpuacct", "cpuacct.usage_percpu");
    _cleanup_free_ char *all = text_of(stats, "cpuacct", "cpuacct.usage_all");
    _cleanup_free_ char *stat = text_of(stats, "cpuacct", "cpuacct.stat");

    write_used(stats, "total", number_of(stats, "cpuacct", "cpuacct.usage"));
    write_numbers(stats, "percpu", each);
    write_usage_column(stats, "percpu_kernel", all, true);
    write_usage_column(stats, "percpu_user", all, false);
    write_number(stats, "kernel", keyed_number(stat, "system") * NSEC_PER_TICK);
    write_number(stats, "user", keyed_number(stat, "user") * NSEC_PER_TICK);
}

static void write_cpu(struct stats *stats)
{
    bool v2 = stats->cgroup->ops->version == 2;
    _cleanup_free_ char *stat = text_of(stats, "cpu", "cpu.stat");

    begin(stats, "cpu");
    begin(stats, "usage");
    if (v2) {
        write_used(stats, "total", keyed_number(stat, "usage_usec") * NSEC_PER_USEC);
        write_number(stats, "kernel", keyed_number(stat, "system_usec") * NSEC_PER_USEC);
        write_number(stats, "user", keyed_number(stat, "user_usec") * NSEC_PER_USEC);
    } else {
        write_cpu_usage_v1(stats);
    }
    end(stats);
    begin(stats, "throttling");
    write_used(stats, "periods", keyed_number(stat, "nr_periods"));
    write_used(stats, "throttledPeriods", keyed_number(stat, "nr_throttled"));
    write_used(stats, "throttledTime",
               v2 ? keyed_number(stat, "throttled_usec") * NSEC_PER_USEC
                  : keyed_number(stat, "throttled_time"));
    end(stats);
    write_pressure(stats, "cpu.pressure");
    end(stats);
}

/* "0-2,7" as an array of numbers. */
static void write_list(struct stats *stats, const char *key, const char *file)
{
    _cleanup_free_ char *text = text_of(stats, "cpuset", file);
    _cleanup_buffer_ struct buffer numbers = BUFFER_INIT;
    unsigned first, last;

    for (char *rest = text, *part; (part = strsep(&rest, ",\n"));) {
        int n = sscanf(part, "%u-%u", &first, &last);
        for (unsigned i = first; n >= 1 && i <= (n == 2 ? last : first) && i < CPU_LIST_MAX; i++)
            buffer_printf(&numbers, "%u ", i);
    }
    write_numbers(stats, key, buffer_text(&numbers));
}

static void write_cpuset(struct stats *stats)
{
    static const struct {
        const char *key, *file;
    } before[] = {{"mem_hardwall", "cpuset.mem_hardwall"},
                  {"mem_exclusive", "cpuset.mem_exclusive"},
                  {"memory_migrate", "cpuset.memory_migrate"},
                  {"memory_spread_page", "cpuset.memory_spread_page"},
                  {"memory_spread_slab", "cpuset.memory_spread_slab"},
                  {"memory_pressure", "cpuset.memory_pressure"},
                  {"sched_load_balance", "cpuset.sched_load_balance"}};
    _cleanup_free_ char *level = text_of(stats, "cpuset", "cpuset.sched_relax_domain_level");
    bool v1 = stats->cgroup->ops->version == 1;

    begin(stats, "cpuset");
    if (v1)
        write_list(stats, "cpus", "cpuset.cpus");
    write_number(stats, "cpu_exclusive", number_of(stats, "cpuset", "cpuset.cpu_exclusive"));
    if (v1)
        write_list(stats, "mems", "cpuset.mems");
    for (size_t i = 0; i < ARRAY_SIZE(before); i++)
        write_number(stats, before[i].key, number_of(stats, "cpuset", before[i].file));
    json_writer_key(&stats->writer, "sched_relax_domain_level");
    json_writer_integer(&stats->writer, strtol(level, NULL, 10));
    end(stats);
}

/* ---- memory */

struct memory_entry {
    uint64_t limit, usage, max, failcnt;
};

static void write_entry(struct stats *stats, const char *key, const struct memory_entry *entry)
{
    begin(stats, key);
    write_number(stats, "limit", entry->limit);
    write_used(stats, "usage", entry->usage);
    write_used(stats, "max", entry->max);
    write_number(stats, "failcnt", entry->failcnt);
    end(stats);
}

static struct memory_entry read_entry_v1(const struct stats *stats, const char *prefix)
{
    _cleanup_free_ char *limit = xasprintf("memory.%slimit_in_bytes", prefix);
    _cleanup_free_ char *usage = xasprintf("memory.%susage_in_bytes", prefix);
    _cleanup_free_ char *max = xasprintf("memory.%smax_usage_in_bytes", prefix);
    _cleanup_free_ char *failcnt = xasprintf("memory.%sfailcnt", prefix);

    return (struct memory_entry){
        .limit = number_of(stats, "memory", limit),
        .usage = number_of(stats, "memory", usage),
        .max = number_of(stats, "memory", max),
        .failcnt = number_of(stats, "memory", failcnt),
    };
}

static void write_entries_v2(struct stats *stats)
{
    const struct memory_entry none = {0};
    struct memory_entry memory = {
        .limit = number_of(stats, "memory", "memory.max"),
        .usage = number_of(stats, "memory", "memory.current"),
        .max = number_of(stats, "memory", "memory.peak"),
    };
    /* v1 counts memory and swap together, and so does who reads this. */
    struct memory_entry swap = {
        .limit = number_of(stats, "memory", "memory.swap.max"),
        .usage = number_of(stats, "memory", "memory.swap.current") + memory.usage,
    };

    if (swap.limit != UINT64_MAX)
        swap.limit = memory.limit == UINT64_MAX ? UINT64_MAX : swap.limit + memory.limit;
    write_entry(stats, "usage", &memory);
    write_entry(stats, "swap", &swap);
    write_entry(stats, "kernel", &none);
    write_entry(stats, "kernelTCP", &none);
}

static void write_entries_v1(struct stats *stats)
{
    static const struct {
        const char *key, *prefix;
    } entries[] = {
        {"usage", ""}, {"swap", "memsw."}, {"kernel", "kmem."}, {"kernelTCP", "kmem.tcp."}};

    for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
        struct memory_entry entry = read_entry_v1(stats, entries[i].prefix);
        write_entry(stats, entries[i].key, &entry);
    }
}

/* All of memory.stat. */
static void write_raw(struct stats *stats, char *text)
{
    char key[64];
    uint64_t value;

    if (!text[0])
        return;
    begin(stats, "raw");
    for (char *line; (line = strsep(&text, "\n"));) {
        if (sscanf(line, "%63s %" SCNu64, key, &value) == 2)
            write_number(stats, key, value);
    }
    end(stats);
}

static void write_memory(struct stats *stats)
{
    bool v2 = stats->cgroup->ops->version == 2;
    _cleanup_free_ char *stat = text_of(stats, "memory", "memory.stat");

    begin(stats, "memory");
    write_used(stats, "cache", keyed_number(stat, v2 ? "file" : "cache"));
    if (v2)
        write_entries_v2(stats);
    else
        write_entries_v1(stats);
    write_raw(stats, stat);
    write_pressure(stats, "memory.pressure");
    end(stats);
}

/* ---- the others */

static void write_pids(struct stats *stats)
{
    uint64_t limit = number_of(stats, "pids", "pids.max");

    begin(stats, "pids");
    write_used(stats, "current", number_of(stats, "pids", "pids.current"));
    write_used(stats, "limit", limit == UINT64_MAX ? 0 : limit);
    end(stats);
}

static void write_io_entry(struct stats *stats, unsigned major, unsigned minor, const char *op,
                           uint64_t value)
{
    json_writer_object_begin(&stats->writer);
    write_used(stats, "major", major);
    write_used(stats, "minor", minor);
    if (op[0]) {
        json_writer_key(&stats->writer, "op");
        json_writer_string(&stats->writer, op);
    }
    write_used(stats, "value", value);
    json_writer_object_end(&stats->writer);
}

/* "8:0 Read 4096", "8:0 4096" */
static bool parse_io_line(const char *line, unsigned *major, unsigned *minor, char (*op)[16],
                          uint64_t *value)
{
    int n = sscanf(line, "%u:%u %15s %" SCNu64, major, minor, *op, value);

    if (n == 3) {
        *value = strtoull(*op, NULL, 10);
        (*op)[0] = '\0';
    }
    return n >= 3;
}

/* Of the scheduler BFQ, of CFQ (before Linux 5.0), and of what every disk has: the first with
 * numbers. */
static void write_io_v1(struct stats *stats, const char *key, const char *what)
{
    static const char *const prefixes[] = {"blkio.bfq.", "blkio.", "blkio.throttle."};
    unsigned major, minor;
    char op[16];
    uint64_t value;
    bool any = false;

    for (size_t i = 0; !any && i < ARRAY_SIZE(prefixes); i++) {
        _cleanup_free_ char *file = xasprintf("%s%s_recursive", prefixes[i], what);
        _cleanup_free_ char *text = text_of(stats, "blkio", file);
        for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
            if (!parse_io_line(line, &major, &minor, &op, &value))
                continue;
            if (!any) {
                json_writer_key(&stats->writer, key);
                json_writer_array_begin(&stats->writer);
            }
            any = true;
            write_io_entry(stats, major, minor, op, value);
        }
    }
    if (any)
        json_writer_array_end(&stats->writer);
}

/* "8:0 rbytes=1 wbytes=2 rios=3 wios=4 ..." */
static void write_io_v2(struct stats *stats, const char *key, const char *const *names)
{
    static const char *const ops[] = {"Read", "Write"};
    _cleanup_free_ char *text = text_of(stats, "io", "io.stat");
    unsigned major, minor;
    bool any = false;

    for (char *rest = text, *line; (line = strsep(&rest, "\n"));) {
        for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
            const char *at = strstr(line, names[i]);
            if (!at || sscanf(line, "%u:%u", &major, &minor) != 2)
                continue;
            if (!any) {
                json_writer_key(&stats->writer, key);
                json_writer_array_begin(&stats->writer);
            }
            any = true;
            write_io_entry(stats, major, minor, ops[i], strtoull(at + strlen(names[i]), NULL, 10));
        }
    }
    if (any)
        json_writer_array_end(&stats->writer);
}

static void write_block_io(struct stats *stats)
{
    static const struct {
        const char *key, *file;
    } v1[] = {{"ioServiceBytesRecursive", "io_service_bytes"},
              {"ioServicedRecursive", "io_serviced"},
              {"ioQueueRecursive", "io_queued"},
              {"ioServiceTimeRecursive", "io_service_time"},
              {"ioWaitTimeRecursive", "io_wait_time"},
              {"ioMergedRecursive", "io_merged"},
              {"ioTimeRecursive", "time"},
              {"sectorsRecursive", "sectors"}};

    begin(stats, "blkio");
    if (stats->cgroup->ops->version == 2) {
        write_io_v2(stats, "ioServiceBytesRecursive", (const char *[]){"rbytes=", "wbytes="});
        write_io_v2(stats, "ioServicedRecursive", (const char *[]){"rios=", "wios="});
        write_pressure(stats, "io.pressure");
    } else {
        for (size_t i = 0; i < ARRAY_SIZE(v1); i++)
            write_io_v1(stats, v1[i].key, v1[i].file);
    }
    end(stats);
}

/* "hugetlb.2MB.current": the sizes are in the names. */
static void write_hugepages(struct stats *stats)
{
    bool v2 = stats->cgroup->ops->version == 2;
    const char *suffix = v2 ? ".current" : ".usage_in_bytes";
    int fd = folder(stats, "hugetlb");
    int copy_fd = fd < 0 ? -1 : openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_closedir_ DIR *directory = copy_fd < 0 ? NULL : fdopendir(copy_fd);

    begin(stats, "hugetlb");
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        const char *size = entry->d_name + strlen("hugetlb.");
        const char *dot = strchr(entry->d_name + strlen("hugetlb"), '.');
        if (!text_starts_with(entry->d_name, "hugetlb.") || !(dot = strchr(size, '.')) ||
            !text_equal(dot, suffix))
            continue;
        _cleanup_free_ char *name = xstrndup(size, (size_t)(dot - size));
        _cleanup_free_ char *max = xasprintf("hugetlb.%s.max_usage_in_bytes", name);
        _cleanup_free_ char *fails =
            xasprintf(v2 ? "hugetlb.%s.events" : "hugetlb.%s.failcnt", name);
        _cleanup_free_ char *events = v2 ? text_of(stats, "hugetlb", fails) : NULL;
        begin(stats, name);
        write_used(stats, "usage", number_of(stats, "hugetlb", entry->d_name));
        write_used(stats, "max", v2 ? 0 : number_of(stats, "hugetlb", max));
        write_number(stats, "failcnt",
                     v2 ? keyed_number(events, "max") : number_of(stats, "hugetlb", fails));
        end(stats);
    }
    end(stats);
}

void cgroup_stats_write(struct cgroup *cgroup, const struct oci_intel_rdt *rdt, const char *id,
                        struct buffer *out)
{
    struct stats stats = {.cgroup = cgroup};

    json_writer_init(&stats.writer, out, JSON_COMPACT);
    json_writer_object_begin(&stats.writer);
    write_cpu(&stats);
    write_cpuset(&stats);
    write_memory(&stats);
    write_pids(&stats);
    write_block_io(&stats);
    write_hugepages(&stats);
    begin(&stats, "intel_rdt");
    intel_rdt_stats(rdt, id, &stats.writer);
    end(&stats);
    json_writer_key(&stats.writer, "network_interfaces");
    json_writer_null(&stats.writer);
    json_writer_object_end(&stats.writer);
}
