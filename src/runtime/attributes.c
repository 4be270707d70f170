#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/buffer.h>
#include <base/text.h>

#include "attributes.h"
#include "id_list.h"
#include "lookup.h"

/* linux/sched.h, linux/sched/types.h: the libcs have neither. */
enum policy {
    POLICY_OTHER,
    POLICY_FIFO,
    POLICY_RR,
    POLICY_BATCH,
    POLICY_ISO, /* reserved: the kernel refuses it */
    POLICY_IDLE,
    POLICY_DEADLINE,
};

struct sched_attributes {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period; /* nanoseconds */
};

enum {
    NICE_MIN = -20,
    NICE_MAX = 19,
    DEADLINE_RUNTIME_MIN = 1024, /* ns; sched(7) */
};
#define DEADLINE_TIME_MAX ((uint64_t)INT64_MAX)

enum {
    IOPRIO_WHO_PID = 1, /* linux/ioprio.h */
    IOPRIO_SHIFT = 13,
    IOPRIO_LEVEL_MAX = 7,
};

struct name_value {
    const char *name;
    unsigned value;
};

static const struct name_value policies[] = {
    {"SCHED_OTHER", POLICY_OTHER},       {"SCHED_FIFO", POLICY_FIFO}, {"SCHED_RR", POLICY_RR},
    {"SCHED_BATCH", POLICY_BATCH},       {"SCHED_ISO", POLICY_ISO},   {"SCHED_IDLE", POLICY_IDLE},
    {"SCHED_DEADLINE", POLICY_DEADLINE},
};

static const struct name_value scheduler_flags[] = {
    {"SCHED_FLAG_RESET_ON_FORK", 0x01},  {"SCHED_FLAG_RECLAIM", 0x02},
    {"SCHED_FLAG_DL_OVERRUN", 0x04},     {"SCHED_FLAG_KEEP_POLICY", 0x08},
    {"SCHED_FLAG_KEEP_PARAMS", 0x10},    {"SCHED_FLAG_UTIL_CLAMP_MIN", 0x20},
    {"SCHED_FLAG_UTIL_CLAMP_MAX", 0x40},
};

static const struct name_value io_classes[] = {
    {"IOPRIO_CLASS_RT", 1},
    {"IOPRIO_CLASS_BE", 2},
    {"IOPRIO_CLASS_IDLE", 3},
};

/* linux/mempolicy.h; the older ones of distributions lack the newest. */
static const struct name_value memory_modes[] = {
    {"MPOL_DEFAULT", 0},
    {"MPOL_PREFERRED", 1},
    {"MPOL_BIND", 2},
    {"MPOL_INTERLEAVE", 3},
    {"MPOL_LOCAL", 4},
    {"MPOL_PREFERRED_MANY", 5},
    {"MPOL_WEIGHTED_INTERLEAVE", 6},
};

static const struct name_value memory_flags[] = {
    {"MPOL_F_STATIC_NODES", 1U << 15},
    {"MPOL_F_RELATIVE_NODES", 1U << 14},
    {"MPOL_F_NUMA_BALANCING", 1U << 13},
};

static const struct name_value domains[] = {{"LINUX", PER_LINUX}, {"LINUX32", PER_LINUX32}};

const char *attributes_memory_mode(size_t i)
{
    return i < ARRAY_SIZE(memory_modes) ? memory_modes[i].name : NULL;
}

const char *attributes_memory_flag(size_t i)
{
    return i < ARRAY_SIZE(memory_flags) ? memory_flags[i].name : NULL;
}

/* -1: not there. */
static int find(const struct name_value *table, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (text_equal(table[i].name, name))
            return (int)table[i].value;
    }
    return -1;
}

/* crun refuses impossible deadlines with these words where the kernel only says EINVAL. */
static int check_deadline(const struct oci_scheduler *scheduler, struct error *err)
{
#define DEADLINE "process.scheduler: sched_setattr: `SCHED_DEADLINE` "
    const char *missing = !scheduler->has_runtime    ? "runtime"
                          : !scheduler->has_deadline ? "deadline"
                                                     : NULL;
    if (missing)
        return error_set(err, -EINVAL, DEADLINE "requires `%s`", missing);
    if (scheduler->runtime == 0)
        return error_set(err, -EINVAL, DEADLINE "runtime must be greater than 0");
    if (scheduler->runtime < DEADLINE_RUNTIME_MIN || scheduler->runtime > DEADLINE_TIME_MAX)
        return error_set(err, -EINVAL,
                         DEADLINE "runtime %" PRIu64 " must be between %d and %" PRIu64,
                         scheduler->runtime, DEADLINE_RUNTIME_MIN, DEADLINE_TIME_MAX);
    if (scheduler->runtime > scheduler->deadline)
        return error_set(err, -EINVAL, DEADLINE "runtime %" PRIu64 " must be <= deadline %" PRIu64,
                         scheduler->runtime, scheduler->deadline);
    if (scheduler->period && scheduler->deadline > scheduler->period)
        return error_set(err, -EINVAL, DEADLINE "deadline %" PRIu64 " must be <= period %" PRIu64,
                         scheduler->deadline, scheduler->period);
#undef DEADLINE
    return 0;
}

static int check_scheduler(const struct oci_scheduler *scheduler, struct error *err)
{
    int policy = find(policies, ARRAY_SIZE(policies), scheduler->policy);

    if (policy < 0)
        return error_set(err, -EINVAL, "process.scheduler.policy: invalid scheduler policy '%s'",
                         scheduler->policy);
    for (size_t i = 0; i < scheduler->flags_count; i++) {
        if (find(scheduler_flags, ARRAY_SIZE(scheduler_flags), scheduler->flags[i]) < 0)
            return error_set(err, -EINVAL, "process.scheduler.flags[%zu]: invalid flag '%s'", i,
                             scheduler->flags[i]);
    }
    if ((policy == POLICY_OTHER || policy == POLICY_BATCH) &&
        (scheduler->nice < NICE_MIN || scheduler->nice > NICE_MAX))
        return error_set(err, -EINVAL, "process.scheduler.nice: %d is not within %d and %d",
                         scheduler->nice, NICE_MIN, NICE_MAX);
    if (scheduler->priority && policy != POLICY_FIFO && policy != POLICY_RR)
        return error_set(err, -EINVAL,
                         "process.scheduler.priority: only for SCHED_FIFO and SCHED_RR, not %s",
                         scheduler->policy);
    if (policy == POLICY_DEADLINE)
        return check_deadline(scheduler, err);
    if (scheduler->runtime || scheduler->deadline || scheduler->period)
        return error_set(err, -EINVAL,
                         "process.scheduler: runtime, deadline and period are only for "
                         "SCHED_DEADLINE, not %s",
                         scheduler->policy);
    return 0;
}

static int check_list(const char *field, const char *list, struct error *err)
{
    unsigned long mask[ID_LIST_CPUS_MAX / ID_LIST_WORD_BITS];

    if (text_empty(list))
        return 0;
    int r = id_list_parse(list, mask, ID_LIST_CPUS_MAX);
    return r < 0 ? error_set(err, r, "%s: invalid CPU affinity '%s': a list like 0-3,8 is expected",
                             field, list)
                 : 0;
}

int attributes_check(const struct oci_process *process, struct error *err)
{
    const struct oci_io_priority *io = process->io_priority;
    int r = process->scheduler ? check_scheduler(process->scheduler, err) : 0;

    if (r == 0 && io && find(io_classes, ARRAY_SIZE(io_classes), io->class) < 0)
        r = error_set(err, -EINVAL, "process.ioPriority.class: invalid io priority class '%s'",
                      io->class);
    if (r == 0 && io && (io->priority < 0 || io->priority > IOPRIO_LEVEL_MAX))
        r = error_set(err, -EINVAL, "process.ioPriority.priority: %d is not within 0 and %d",
                      io->priority, IOPRIO_LEVEL_MAX);
    if (r == 0 && process->exec_cpu_affinity) {
        r = check_list("process.execCPUAffinity.initial", process->exec_cpu_affinity->initial, err);
        if (r == 0)
            r = check_list("process.execCPUAffinity.final", process->exec_cpu_affinity->final, err);
    }
    return r;
}

static int check_memory_policy(const struct oci_memory_policy *policy, struct error *err)
{
    unsigned long mask[ID_LIST_NODES_MAX / ID_LIST_WORD_BITS];

    if (text_empty(policy->mode) && text_empty(policy->nodes) && !policy->flags_count)
        return 0;
    if (find(memory_modes, ARRAY_SIZE(memory_modes), policy->mode) < 0)
        return error_set(err, -EINVAL, "linux.memoryPolicy.mode: invalid memory policy mode '%s'",
                         policy->mode ? policy->mode : "");
    for (size_t i = 0; i < policy->flags_count; i++) {
        if (find(memory_flags, ARRAY_SIZE(memory_flags), policy->flags[i]) < 0)
            return error_set(err, -EINVAL,
                             "linux.memoryPolicy.flags[%zu]: invalid memory policy flag '%s'", i,
                             policy->flags[i]);
    }
    if (!text_empty(policy->nodes) && id_list_parse(policy->nodes, mask, ID_LIST_NODES_MAX) < 0)
        return error_set(err, -EINVAL, "linux.memoryPolicy.nodes: invalid memory policy node '%s'",
                         policy->nodes);
    return 0;
}

int attributes_check_linux(const struct oci_linux *linux, struct error *err)
{
    int r = 0;

    if (linux->personality && find(domains, ARRAY_SIZE(domains), linux->personality->domain) < 0)
        r = error_set(err, -EINVAL, "linux.personality.domain: '%s' is not LINUX or LINUX32",
                      linux->personality->domain);
    if (r == 0 && linux->memory_policy)
        r = check_memory_policy(linux->memory_policy, err);
    return r;
}

static bool has_cpuset(const struct oci_linux *linux)
{
    return linux && linux->resources && linux->resources->cpu &&
           !text_empty(linux->resources->cpu->cpus);
}

static int set_scheduler(pid_t pid, const struct oci_scheduler *scheduler,
                         const struct oci_linux *linux, struct error *err)
{
    struct sched_attributes attributes = {
        .size = sizeof(attributes),
        .policy = (uint32_t)find(policies, ARRAY_SIZE(policies), scheduler->policy),
        .nice = scheduler->nice,
        .priority = (uint32_t)scheduler->priority,
        .runtime = scheduler->runtime,
        .deadline = scheduler->deadline,
        .period = scheduler->period,
    };

    for (size_t i = 0; i < scheduler->flags_count; i++)
        attributes.flags |=
            (unsigned)find(scheduler_flags, ARRAY_SIZE(scheduler_flags), scheduler->flags[i]);
    if (syscall(SYS_sched_setattr, pid, &attributes, 0) == 0)
        return 0;
    int code = errno;
    /* sched_setattr(2): a deadline is for the whole machine. */
    if (code == EPERM && has_cpuset(linux))
        return error_set(err, -code,
                         "process.scheduler: process scheduler can't be used together with "
                         "AllowedCPUs (linux.resources.cpu.cpus)");
    error_errno(err, code, "process.scheduler: sched_setattr %s", scheduler->policy);
    if (code == EPERM && attributes.policy != POLICY_OTHER)
        error_hint(err, "real-time policies need CAP_SYS_NICE, and time for their cgroup "
                        "(linux.resources.cpu.realtimeRuntime) on kernels with RT_GROUP_SCHED");
    return -code;
}

int attributes_set(pid_t pid, const struct oci_process *process, const struct oci_linux *linux,
                   struct error *err)
{
    const struct oci_io_priority *io = process->io_priority;
    int r = process->scheduler ? set_scheduler(pid, process->scheduler, linux, err) : 0;

    if (r < 0 || !io)
        return r;
    int level_class = find(io_classes, ARRAY_SIZE(io_classes), io->class);
    if (syscall(SYS_ioprio_set, IOPRIO_WHO_PID, pid, level_class << IOPRIO_SHIFT | io->priority) <
        0)
        return error_errno(err, errno, "process.ioPriority: ioprio_set %s", io->class);
    return 0;
}

static int set_memory_policy(const struct oci_memory_policy *policy, struct error *err)
{
    unsigned long mask[ID_LIST_NODES_MAX / ID_LIST_WORD_BITS];
    int mode = find(memory_modes, ARRAY_SIZE(memory_modes), policy->mode);
    bool nodes = !text_empty(policy->nodes);

    if (mode < 0)
        return 0; /* the empty policy */
    for (size_t i = 0; i < policy->flags_count; i++)
        mode |= find(memory_flags, ARRAY_SIZE(memory_flags), policy->flags[i]);
    if (nodes)
        id_list_parse(policy->nodes, mask, ID_LIST_NODES_MAX);
    /* The kernel takes one off the number of bits. */
    if (syscall(SYS_set_mempolicy, mode, nodes ? mask : NULL, nodes ? ID_LIST_NODES_MAX + 1 : 0) ==
        0)
        return 0;
    int code = errno;
    /* As Go writes it, which runc's callers look for. */
    return error_set(err, -code, "linux.memoryPolicy: set_mempolicy: %s", lookup_error_text(-code));
}

int attributes_adopt(const struct oci_linux *linux, struct error *err)
{
    int r = linux && linux->memory_policy ? set_memory_policy(linux->memory_policy, err) : 0;

    if (r < 0 || !linux || !linux->personality)
        return r;
    unsigned long domain =
        (unsigned long)find(domains, ARRAY_SIZE(domains), linux->personality->domain);
    return personality(domain) < 0 ? error_errno(err, errno, "linux.personality") : 0;
}

int attributes_set_affinity(const char *field, const char *list, struct error *err)
{
    unsigned long mask[ID_LIST_CPUS_MAX / ID_LIST_WORD_BITS];

    if (!list) {
        memset(mask, 0xff, sizeof(mask));
        (void)syscall(SYS_sched_setaffinity, 0, sizeof(mask), mask);
        return 0;
    }
    id_list_parse(list, mask, ID_LIST_CPUS_MAX);
    if (syscall(SYS_sched_setaffinity, 0, sizeof(mask), mask) < 0)
        return error_errno(err, errno, "%s: sched_setaffinity %s", field, list);
    return 0;
}

char *attributes_affinity_mask(const char *list)
{
    unsigned long mask[ID_LIST_CPUS_MAX / ID_LIST_WORD_BITS];
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    size_t top = ARRAY_SIZE(mask) - 1;

    if (id_list_parse(list, mask, ID_LIST_CPUS_MAX) < 0)
        return xstrdup("none");
    while (top > 0 && !mask[top])
        top--;
    buffer_printf(&text, "0x%lx", mask[top]);
    while (top-- > 0)
        buffer_printf(&text, "%0*lx", ID_LIST_WORD_BITS / 4, mask[top]);
    return buffer_steal(&text);
}
