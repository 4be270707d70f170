#include <stdlib.h>

#include <base/alloc.h>
#include <base/text.h>

#include "resources_merge.h"

#define TAKE(to, from, field)                                                                      \
    do {                                                                                           \
        if ((from)->has_##field) {                                                                 \
            (to)->has_##field = true;                                                              \
            (to)->field = (from)->field;                                                           \
        }                                                                                          \
    } while (0)

#define TAKE_TEXT(to, from, field)                                                                 \
    do {                                                                                           \
        if (!text_empty((from)->field)) {                                                          \
            free((to)->field);                                                                     \
            (to)->field = xstrdup((from)->field);                                                  \
        }                                                                                          \
    } while (0)

/* The two lists change places: the old one is freed with the changes. */
#define SWAP_LIST(to, from, field)                                                                 \
    do {                                                                                           \
        if ((from)->field) {                                                                       \
            __typeof__((to)->field) list_ = (to)->field;                                           \
            size_t count_ = (to)->field##_count;                                                   \
            (to)->field = (from)->field;                                                           \
            (to)->field##_count = (from)->field##_count;                                           \
            (from)->field = list_;                                                                 \
            (from)->field##_count = count_;                                                        \
        }                                                                                          \
    } while (0)

static void merge_memory(struct oci_memory *to, const struct oci_memory *from)
{
    TAKE(to, from, limit);
    TAKE(to, from, reservation);
    TAKE(to, from, swap);
    TAKE(to, from, swappiness);
    TAKE(to, from, kernel_tcp);
    TAKE(to, from, disable_oom_killer);
    TAKE(to, from, check_before_update);
    /* No limit on memory is none on both, as on v1. */
    if (from->has_limit && from->limit == -1 && !from->has_swap) {
        to->has_swap = true;
        to->swap = -1;
    }
}

static void merge_cpu(struct oci_cpu *to, const struct oci_cpu *from)
{
    TAKE(to, from, shares);
    TAKE(to, from, quota);
    TAKE(to, from, burst);
    TAKE(to, from, period);
    TAKE(to, from, realtime_runtime);
    TAKE(to, from, realtime_period);
    TAKE(to, from, idle);
    /* The kernel and systemd take a weight for what is not idle only. */
    if (from->has_shares && from->shares && !from->has_idle)
        to->idle = 0;
    TAKE_TEXT(to, from, cpus);
    TAKE_TEXT(to, from, mems);
}

static void merge_block_io(struct oci_block_io *to, struct oci_block_io *from)
{
    TAKE(to, from, weight);
    TAKE(to, from, leaf_weight);
    SWAP_LIST(to, from, weight_device);
    SWAP_LIST(to, from, throttle_read_bps_device);
    SWAP_LIST(to, from, throttle_write_bps_device);
    SWAP_LIST(to, from, throttle_read_iops_device);
    SWAP_LIST(to, from, throttle_write_iops_device);
}

static void merge_network(struct oci_network *to, struct oci_network *from)
{
    TAKE(to, from, class_id);
    SWAP_LIST(to, from, priorities);
}

void resources_merge(struct oci_resources *effective, struct oci_resources *changes)
{
    if (changes->memory) {
        if (!effective->memory)
            effective->memory = xnew(struct oci_memory);
        merge_memory(effective->memory, changes->memory);
    }
    if (changes->cpu) {
        if (!effective->cpu)
            effective->cpu = xnew(struct oci_cpu);
        merge_cpu(effective->cpu, changes->cpu);
    }
    if (changes->pids && changes->pids->has_limit) {
        if (!effective->pids)
            effective->pids = xnew(struct oci_pids);
        TAKE(effective->pids, changes->pids, limit);
    }
    if (changes->block_io) {
        if (!effective->block_io)
            effective->block_io = xnew(struct oci_block_io);
        merge_block_io(effective->block_io, changes->block_io);
    }
    if (changes->network) {
        if (!effective->network)
            effective->network = xnew(struct oci_network);
        merge_network(effective->network, changes->network);
    }
    SWAP_LIST(effective, changes, devices);
    SWAP_LIST(effective, changes, hugepage_limits);
    if (changes->rdma) {
        struct oci_rdma *old = effective->rdma;
        effective->rdma = changes->rdma;
        changes->rdma = old;
    }
    if (changes->unified && effective->unified &&
        json_string_map_get(changes->unified, "cpu.weight"))
        json_string_map_remove(effective->unified, "cpu.idle");
    for (size_t i = 0; changes->unified && i < changes->unified->count; i++)
        json_string_map_set(&effective->unified, changes->unified->keys[i],
                            changes->unified->values[i]);
}

void resources_complete(struct oci_resources *changes, const struct oci_resources *effective)
{
    struct oci_memory *memory = changes->memory;
    struct oci_cpu *cpu = changes->cpu;

    if (memory && (memory->has_limit || memory->has_swap)) {
        TAKE(memory, effective->memory, limit);
        TAKE(memory, effective->memory, swap);
    }
    if (cpu && (cpu->has_quota || cpu->has_period)) {
        TAKE(cpu, effective->cpu, quota);
        TAKE(cpu, effective->cpu, period);
    }
}
