#include "limits.h"

#include <errno.h>
#include <stdlib.h>

#include <base/alloc.h>
#include <base/text.h>
#include <schema/oci_config.h>

#include "spec.h"

static struct api_resources *copy(const struct api_resources *resources)
{
    _cleanup_buffer_ struct buffer text = BUFFER_INIT;
    struct api_resources *made = NULL;

    if (!resources)
        return xnew(struct api_resources);
    api_resources_write(resources, &text);
    /* What was written parses: anything else is a broken program. */
    if (api_resources_parse(text.data, text.length, "limits", &made, NULL) < 0)
        abort();
    return made;
}

static int check_conflicts(const struct api_resources *before, const struct api_resources *asked,
                           struct error *err)
{
    if (before->nano_cpus && asked->cpu_period)
        return error_set(err, -EINVAL,
                         "Conflicting options: CPU Period cannot be updated as NanoCPUs has "
                         "already been set");
    if (before->nano_cpus && asked->cpu_quota)
        return error_set(err, -EINVAL,
                         "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already "
                         "been set");
    if (asked->nano_cpus && before->cpu_quota)
        return error_set(
            err, -EINVAL,
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already "
            "been set");
    if (asked->nano_cpus && before->cpu_period)
        return error_set(err, -EINVAL,
                         "Conflicting options: Nano CPUs cannot be updated as CPU Period has "
                         "already been set");
    if (asked->memory && !asked->memory_swap && before->memory_swap > 0 &&
        asked->memory > (uint64_t)before->memory_swap)
        return error_set(err, -EINVAL,
                         "Memory limit should be smaller than already set memoryswap limit, update "
                         "the memoryswap at the same time");
    return 0;
}

#define TAKE(field)                                                                                \
    do {                                                                                           \
        if (asked->field) {                                                                        \
            ret->field = asked->field;                                                             \
            ret->has_##field = true;                                                               \
        }                                                                                          \
    } while (0)

static void take_numbers(struct api_resources *ret, const struct api_resources *asked)
{
    TAKE(blkio_weight);
    TAKE(cpu_shares);
    TAKE(nano_cpus);
    TAKE(cpu_period);
    TAKE(cpu_quota);
    TAKE(cpu_realtime_period);
    TAKE(cpu_realtime_runtime);
    TAKE(memory);
    TAKE(memory_reservation);
    TAKE(memory_swap);
    TAKE(kernel_memory);
    TAKE(pids_limit);
}

#undef TAKE

static void take_text(char **field, const char *asked)
{
    if (text_empty(asked))
        return;
    free(*field);
    *field = xstrdup(asked);
}

int limits_merge(const struct api_resources *before, const struct api_resources *asked,
                 unsigned cpus, struct api_resources **ret, struct error *err)
{
    _cleanup_api_resources_ struct api_resources *merged = copy(before);

    int r = check_conflicts(merged, asked, err);
    if (r < 0)
        return r;
    take_numbers(merged, asked);
    take_text(&merged->cpuset_cpus, asked->cpuset_cpus);
    take_text(&merged->cpuset_mems, asked->cpuset_mems);
    r = spec_check_resources(merged, cpus, err);
    if (r < 0)
        return r;
    *ret = steal_ptr(merged);
    return 0;
}

#define MOVE(type, field)                                                                          \
    do {                                                                                           \
        if (from->field) {                                                                         \
            type##_free(to->field);                                                                \
            to->field = steal_ptr(from->field);                                                    \
        }                                                                                          \
    } while (0)

/* Limits of devices stay as they were found when it was started. */
static void move_limits(struct oci_resources *from, struct oci_resources *to)
{
    MOVE(oci_memory, memory);
    MOVE(oci_cpu, cpu);
    MOVE(oci_pids, pids);
    if (from->block_io && to->block_io) {
        to->block_io->weight = from->block_io->weight;
        to->block_io->has_weight = from->block_io->has_weight;
    } else {
        MOVE(oci_block_io, block_io);
    }
}

#undef MOVE

int limits_put_into_config(const char *config_text, size_t length, const struct buffer *limits,
                           struct buffer *out, struct error *err)
{
    _cleanup_oci_config_ struct oci_config *config = NULL;
    _cleanup_oci_resources_ struct oci_resources *resources = NULL;
    int r;

    r = oci_config_parse(config_text, length, "config.json", &config, err);
    if (r == 0)
        r = oci_resources_parse(limits->data, limits->length, "limits", &resources, err);
    if (r < 0)
        return r;
    if (!config->linux || !config->linux->resources)
        return error_set(err, -EBADMSG, "config.json has no resources");
    move_limits(resources, config->linux->resources);
    oci_config_write(config, out);
    return 0;
}
