/*
 * container.stats: what the kernel counts for containers, read from cgroupfs and /proc on a worker
 * thread. Only counters: who wants rates asks twice.
 *
 * Names of files: Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst. What a kernel does not
 * have is left out.
 */
#include "statistics.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/clock.h>
#include <base/file.h>
#include <base/process.h>
#include <base/text.h>

#include "cgroup.h"
#include "internal.h"
#include "members.h"
#include "processes.h"

enum {
    FILE_MAX = 256 * 1024,
    PATH_SIZE = 64,
    BLKIO_ENTRIES_MAX = 4096,
    CPU_FIELDS = 8, /* of the first line of /proc/stat: user to steal; guests are in user */
};

/* ---- reading ---- */

static char *read_in(const char *directory, const char *name)
{
    _cleanup_free_ char *path = xasprintf("%s/%s", directory, name);
    char *text = NULL;

    return file_read_at(AT_FDCWD, path, FILE_MAX, &text, NULL, NULL) < 0 ? NULL : text;
}

/* A file with one number. "max" and what is not there: false. */
static bool read_number(const char *directory, const char *name, uint64_t *ret)
{
    _cleanup_free_ char *text = read_in(directory, name);

    if (!text)
        return false;
    text[strcspn(text, "\n")] = '\0';
    return text_to_u64(text, 0, UINT64_MAX, ret) == 0;
}

/* The lines "NAME NUMBER" of a file, taken apart in place. */
struct flat_file {
    char *text; /* owned */
    char *rest;
    const char *name;
    uint64_t value;
};

static struct flat_file flat_open(const char *directory, const char *name)
{
    struct flat_file file = {.text = read_in(directory, name)};

    file.rest = file.text;
    return file;
}

static bool flat_next(struct flat_file *file)
{
    for (char *line; file->rest && (line = strsep(&file->rest, "\n"));) {
        char *space = strchr(line, ' ');
        if (!space)
            continue;
        *space = '\0';
        file->name = line;
        if (text_to_u64(space + 1, 0, UINT64_MAX, &file->value) == 0)
            return true;
    }
    return false;
}

static void flat_close(struct flat_file *file)
{
    free(file->text);
}

/* ---- CPU ---- */

static uint64_t ticks_to_nanoseconds(uint64_t ticks)
{
    return ticks * (uint64_t)(CLOCK_SECOND / sysconf(_SC_CLK_TCK));
}

static void add_percpu(struct api_cpu_statistics *cpu, char *text)
{
    enum { CPUS_MAX = 8192 };
    char *rest = text;

    for (char *word; rest && cpu->percpu_usage_count < CPUS_MAX && (word = strsep(&rest, " \n"));) {
        uint64_t value;
        if (text_to_u64(word, 0, UINT64_MAX, &value) < 0)
            continue;
        cpu->percpu_usage =
            xrealloc(cpu->percpu_usage, cpu->percpu_usage_count + 1, sizeof(*cpu->percpu_usage));
        cpu->percpu_usage[cpu->percpu_usage_count++] = value;
    }
}

/* cpu.stat, which names its throttled time differently in v1 (nanoseconds) and v2. */
static void read_cpu_stat(const char *path, struct api_cpu_statistics *cpu)
{
    struct flat_file file = flat_open(path, "cpu.stat");

    while (flat_next(&file)) {
        const struct {
            const char *name;
            uint64_t *field;
            bool *has;
            uint64_t unit;
        } fields[] = {
            {"usage_usec", &cpu->total_usage, NULL, 1000},
            {"user_usec", &cpu->user_usage, NULL, 1000},
            {"system_usec", &cpu->kernel_usage, NULL, 1000},
            {"nr_periods", &cpu->periods, &cpu->has_periods, 1},
            {"nr_throttled", &cpu->throttled_periods, &cpu->has_throttled_periods, 1},
            {"throttled_time", &cpu->throttled_time, &cpu->has_throttled_time, 1},
            {"throttled_usec", &cpu->throttled_time, &cpu->has_throttled_time, 1000},
        };
        for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
            if (!text_equal(file.name, fields[i].name))
                continue;
            *fields[i].field = file.value * fields[i].unit;
            if (fields[i].has)
                *fields[i].has = true;
        }
    }
    flat_close(&file);
}

static struct api_cpu_statistics *cpu_of(const struct statistics_source *source)
{
    struct api_cpu_statistics *cpu = xnew(struct api_cpu_statistics);
    _cleanup_free_ char *path = cgroup_path("cpu", source->parent, source->id);

    read_cpu_stat(path, cpu);
    if (source->v2)
        return cpu;
    _cleanup_free_ char *accounting = cgroup_path("cpuacct", source->parent, source->id);
    _cleanup_free_ char *percpu = read_in(accounting, "cpuacct.usage_percpu");
    struct flat_file file = flat_open(accounting, "cpuacct.stat");
    read_number(accounting, "cpuacct.usage", &cpu->total_usage);
    while (flat_next(&file))
        *(text_equal(file.name, "user") ? &cpu->user_usage : &cpu->kernel_usage) =
            ticks_to_nanoseconds(file.value);
    flat_close(&file);
    add_percpu(cpu, percpu);
    return cpu;
}

/* ---- memory ---- */

static uint64_t machine_memory(void)
{
    struct sysinfo info;

    sysinfo(&info);
    return (uint64_t)info.totalram * info.mem_unit;
}

static void read_memory_stat(const char *path, bool v2, struct api_memory_statistics *memory)
{
    enum { COUNTERS_MAX = 256 };
    const char *inactive = v2 ? "inactive_file" : "total_inactive_file";
    struct flat_file file = flat_open(path, "memory.stat");

    memory->stats = xnew_array(struct api_counter *, COUNTERS_MAX);
    while (memory->stats_count < COUNTERS_MAX && flat_next(&file)) {
        struct api_counter *counter = xnew(struct api_counter);
        counter->name = xstrdup(file.name);
        counter->value = file.value;
        memory->stats[memory->stats_count++] = counter;
        if (text_equal(file.name, inactive)) {
            memory->inactive_file = file.value;
            memory->has_inactive_file = true;
        }
    }
    flat_close(&file);
}

static struct api_memory_statistics *memory_of(const struct statistics_source *source)
{
    static const char *const names[2][4] = {
        {"memory.usage_in_bytes", "memory.limit_in_bytes", "memory.max_usage_in_bytes",
         "memory.failcnt"},
        {"memory.current", "memory.max", "memory.peak", "memory.failcnt"},
    };
    const char *const *name = names[source->v2];
    struct api_memory_statistics *memory = xnew(struct api_memory_statistics);
    _cleanup_free_ char *path = cgroup_path("memory", source->parent, source->id);
    uint64_t machine = machine_memory();

    read_number(path, name[0], &memory->usage);
    if (!read_number(path, name[1], &memory->limit) || memory->limit > machine)
        memory->limit = machine;
    memory->has_max_usage = read_number(path, name[2], &memory->max_usage);
    memory->has_fail_count = read_number(path, name[3], &memory->fail_count);
    read_memory_stat(path, source->v2, memory);
    return memory;
}

/* ---- processes ---- */

static struct api_pids_statistics *pids_of(const struct statistics_source *source)
{
    struct api_pids_statistics *pids = xnew(struct api_pids_statistics);
    _cleanup_free_ char *path = cgroup_path("pids", source->parent, source->id);

    read_number(path, "pids.current", &pids->current);
    pids->has_limit = read_number(path, "pids.max", &pids->limit);
    return pids;
}

/* ---- block devices ---- */

static void add_entry(struct api_blkio_entry ***list, size_t *count, unsigned major, unsigned minor,
                      const char *operation, uint64_t value)
{
    struct api_blkio_entry *entry = xnew(struct api_blkio_entry);

    if (*count % 16 == 0)
        *list = xrealloc(*list, *count + 17, sizeof(**list));
    entry->major = major;
    entry->minor = minor;
    entry->operation = xstrdup(operation);
    for (char *at = entry->operation; *at; at++)
        *at = (char)(*at >= 'A' && *at <= 'Z' ? *at + 'a' - 'A' : *at);
    entry->value = value;
    (*list)[(*count)++] = entry;
}

/* v1: "8:0 Read 4096", and a last line "Total 4096" without a device. */
static void read_blkio_v1(const char *path, const char *name, struct api_blkio_entry ***list,
                          size_t *count)
{
    _cleanup_free_ char *text = read_in(path, name);
    char *rest = text;

    for (char *line; rest && *count < BLKIO_ENTRIES_MAX && (line = strsep(&rest, "\n"));) {
        unsigned major, minor;
        char operation[16];
        uintmax_t value;
        if (sscanf(line, "%u:%u %15s %ju", &major, &minor, operation, &value) == 4)
            add_entry(list, count, major, minor, operation, value);
    }
}

/* v2: "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0". */
static void read_io_stat(const char *path, struct api_blkio_statistics *blkio)
{
    static const struct {
        const char *name;
        const char *operation;
        bool bytes;
    } fields[] = {
        {"rbytes=", "read", true}, {"wbytes=", "write", true}, {"dbytes=", "discard", true},
        {"rios=", "read", false},  {"wios=", "write", false},  {"dios=", "discard", false},
    };
    _cleanup_free_ char *text = read_in(path, "io.stat");
    char *rest = text;

    for (char *line;
         rest && blkio->service_bytes_count < BLKIO_ENTRIES_MAX && (line = strsep(&rest, "\n"));) {
        unsigned major, minor;
        if (sscanf(line, "%u:%u ", &major, &minor) != 2)
            continue;
        for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
            const char *at = strstr(line, fields[i].name);
            uintmax_t value;
            if (!at || sscanf(at + strlen(fields[i].name), "%ju", &value) != 1)
                continue;
            if (fields[i].bytes)
                add_entry(&blkio->service_bytes, &blkio->service_bytes_count, major, minor,
                          fields[i].operation, value);
            else
                add_entry(&blkio->serviced, &blkio->serviced_count, major, minor,
                          fields[i].operation, value);
        }
    }
}

static struct api_blkio_statistics *blkio_of(const struct statistics_source *source)
{
    struct api_blkio_statistics *blkio = xnew(struct api_blkio_statistics);
    _cleanup_free_ char *path = cgroup_path("blkio", source->parent, source->id);

    if (source->v2) {
        read_io_stat(path, blkio);
        return blkio;
    }
    read_blkio_v1(path, "blkio.throttle.io_service_bytes_recursive", &blkio->service_bytes,
                  &blkio->service_bytes_count);
    read_blkio_v1(path, "blkio.throttle.io_serviced_recursive", &blkio->serviced,
                  &blkio->serviced_count);
    return blkio;
}

/* ---- network ---- */

/* A line of /proc/PID/net/dev: "  eth0: 8 numbers received  8 numbers sent". */
static struct api_network_statistics *interface_of(char *line)
{
    char *colon = strchr(line, ':');
    const char *name = line + strspn(line, " ");
    uint64_t n[8];

    if (!colon)
        return NULL;
    *colon = '\0';
    if (text_equal(name, "lo") ||
        sscanf(colon + 1, "%ju %ju %ju %ju %*u %*u %*u %*u %ju %ju %ju %ju", &n[0], &n[1], &n[2],
               &n[3], &n[4], &n[5], &n[6], &n[7]) != 8)
        return NULL;
    struct api_network_statistics *network = xnew(struct api_network_statistics);
    *network = (struct api_network_statistics){
        .name = xstrdup(name),
        .rx_bytes = n[0],
        .rx_packets = n[1],
        .rx_errors = n[2],
        .rx_dropped = n[3],
        .tx_bytes = n[4],
        .tx_packets = n[5],
        .tx_errors = n[6],
        .tx_dropped = n[7],
    };
    return network;
}

static void add_networks(const struct statistics_source *source,
                         struct api_container_statistics *container)
{
    enum { INTERFACES_MAX = 256 };
    char path[PATH_SIZE];
    char *text = NULL;

    snprintf(path, sizeof(path), "/proc/%jd/net/dev", (intmax_t)source->pid);
    if (!source->own_network || file_read_at(AT_FDCWD, path, FILE_MAX, &text, NULL, NULL) < 0)
        return;
    container->networks = xnew_array(struct api_network_statistics *, INTERFACES_MAX + 1);
    char *rest = text;
    for (char *line; container->networks_count < INTERFACES_MAX && (line = strsep(&rest, "\n"));) {
        struct api_network_statistics *network = interface_of(line);
        if (network)
            container->networks[container->networks_count++] = network;
    }
    free(text);
}

/* ---- without cgroups: of the processes that live ---- */

static void sum_up(const struct statistics_source *source,
                   struct api_container_statistics *container)
{
    enum { USER_FIELD = 14, SYSTEM_FIELD = 15, RESIDENT_FIELD = 24 }; /* proc_pid_stat(5) */
    const struct members whose = {.id = source->id, .first = (pid_t)source->pid};
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    _cleanup_free_ int64_t *pids = NULL;
    size_t count = 0;

    container->cpu = xnew(struct api_cpu_statistics);
    container->memory = xnew(struct api_memory_statistics);
    container->pids = xnew(struct api_pids_statistics);
    container->blkio = xnew(struct api_blkio_statistics);
    container->memory->limit = machine_memory();
    if (members_list(&whose, PROCESSES_MAX, &pids, &count, NULL) < 0)
        return;
    container->pids->current = count;
    for (size_t i = 0; i < count; i++) {
        uint64_t user, system, resident;
        char state;

        if (process_stat((pid_t)pids[i], USER_FIELD, &state, &user) < 0 ||
            process_stat((pid_t)pids[i], SYSTEM_FIELD, &state, &system) < 0 ||
            process_stat((pid_t)pids[i], RESIDENT_FIELD, &state, &resident) < 0)
            continue;
        container->cpu->user_usage += ticks_to_nanoseconds(user);
        container->cpu->kernel_usage += ticks_to_nanoseconds(system);
        container->memory->usage += resident * page;
    }
    container->cpu->total_usage = container->cpu->user_usage + container->cpu->kernel_usage;
}

/* ---- one container ---- */

struct api_container_statistics *statistics_of(const struct statistics_source *source)
{
    struct api_container_statistics *container = xnew(struct api_container_statistics);

    container->id = xstrdup(source->id);
    container->name = xstrdup(source->name);
    container->restart_count = source->restart_count;
    container->has_restart_count = true;
    if (!source->pid)
        return container;
    container->started_at = clock_format(source->started_at);
    if (source->parent) {
        container->cpu = cpu_of(source);
        container->memory = memory_of(source);
        container->pids = pids_of(source);
        container->blkio = blkio_of(source);
    } else {
        sum_up(source, container);
    }
    add_networks(source, container);
    return container;
}

/* ---- the machine ---- */

/* The first line of /proc/stat, and how many lines name a CPU. */
void statistics_machine(uint64_t *ret_usage, uint32_t *ret_cpus)
{
    _cleanup_free_ char *text = NULL;
    uint64_t ticks = 0;
    uint32_t cpus = 0;

    file_read_at(AT_FDCWD, "/proc/stat", 4 * FILE_MAX, &text, NULL, NULL);
    char *rest = text;
    for (char *line; rest && (line = strsep(&rest, "\n")) && text_starts_with(line, "cpu");) {
        if (line[3] != ' ') {
            cpus++;
            continue;
        }
        char *words = line + 3 + strspn(line + 3, " ");
        uint64_t value;
        for (int i = 0; i < CPU_FIELDS && words; i++) {
            if (text_to_u64(strsep(&words, " "), 0, UINT64_MAX, &value) == 0)
                ticks += value;
        }
    }
    *ret_usage = ticks_to_nanoseconds(ticks);
    *ret_cpus = cpus ? cpus : 1;
}

/* ---- the call ---- */

struct statistics_call {
    uv_work_t work;
    struct statistics_source *sources; /* owned, with their texts */
    size_t count;
    struct api_statistics *document;
    engine_image_done done;
    void *data;
};

static void statistics_work(uv_work_t *work)
{
    struct statistics_call *call = work->data;
    struct api_statistics *document = xnew(struct api_statistics);

    document->time = clock_now();
    statistics_machine(&document->system_usage, &document->online_cpus);
    document->containers = xnew_array(struct api_container_statistics *, call->count + 1);
    for (size_t i = 0; i < call->count; i++)
        document->containers[document->containers_count++] = statistics_of(&call->sources[i]);
    call->document = document;
}

static void call_free(struct statistics_call *call)
{
    for (size_t i = 0; i < call->count; i++) {
        free(call->sources[i].parent);
        free(call->sources[i].id);
        free(call->sources[i].name);
    }
    free(call->sources);
    api_statistics_free(call->document);
    free(call);
}

static void statistics_done(uv_work_t *work, int status)
{
    struct statistics_call *call = work->data;

    call->done(NULL, call->document, call->data);
    call_free(call);
}

static void add_source(struct statistics_call *call, const struct container *container)
{
    const struct record_container *record = container->record;
    const char *parent = container_cgroup_parent(container);
    bool runs = container->state == CONTAINER_RUNNING;

    call->sources[call->count++] = (struct statistics_source){
        .parent = parent ? xstrdup(parent) : NULL,
        .id = xstrdup(container->id),
        .name = xstrdup(container->name),
        .pid = runs ? record->pid : 0,
        .started_at = record->started_at,
        .restart_count = (int32_t)record->restart_count,
        .own_network = !text_equal(container->effective->network_mode, "host"),
        .v2 = container->engine->cgroup_v2,
    };
}

static int add_named(struct statistics_call *call, struct engine *engine,
                     const struct api_container_stats *which, struct error *err)
{
    for (size_t i = 0; i < which->containers_count; i++) {
        struct container *container;
        int r = engine_find(engine, which->containers[i], &container, err);
        if (r < 0)
            return r;
        add_source(call, container);
    }
    return 0;
}

void engine_statistics(struct engine *engine, const struct api_container_stats *which,
                       engine_list_sees sees, engine_image_done done, void *data)
{
    struct statistics_call *call = xnew(struct statistics_call);
    _cleanup_error_ struct error err = ERROR_INIT;

    call->work.data = call;
    call->done = done;
    call->data = data;
    call->sources = xnew_array(struct statistics_source,
                               engine->containers_count + which->containers_count + 1);
    if (add_named(call, engine, which, &err) < 0) {
        call_free(call);
        done(&err, NULL, data);
        return;
    }
    for (size_t i = engine->containers_count; !which->containers && i > 0; i--) {
        const struct container *container = engine->containers[i - 1];
        if (!container->hidden && (which->all || container->state == CONTAINER_RUNNING) &&
            (!sees || sees(container, data)))
            add_source(call, container);
    }
    uv_queue_work(engine->loop, &call->work, statistics_work, statistics_done);
}
