/* What is told of the stick, its volumes and what was done with them. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/buffer.h>

#include "server.h"

static const char *const speeds[] = {
    [USB_LOW] = "low",
    [USB_FULL] = "full",
    [USB_HIGH] = "high",
    [USB_SUPER] = "super",
    [USB_SUPER_PLUS] = "super-plus",
};
static const char *const tables[] = {
    [PARTITIONS_NONE] = "none",
    [PARTITIONS_MBR] = "mbr",
    [PARTITIONS_GPT] = "gpt",
};
static const char *const source_states[] = {
    [SOURCE_OPENING] = "opening",
    [SOURCE_OPEN] = "open",
    [SOURCE_GONE] = "gone",
};

static const char *protocol_name(uint8_t protocol)
{
    return protocol == USB_PROTOCOL_UAS ? "uas" : "bulk-only";
}

static struct usb_stick_device *device_of(const struct usb_stick_facts *facts)
{
    struct usb_stick_device *device = xnew(struct usb_stick_device);
    device->vendor = facts->vendor;
    device->product = facts->product;
    device->release = facts->release;
    device->manufacturer = xstrdup(facts->manufacturer);
    device->model = xstrdup(facts->model);
    device->serial = xstrdup(facts->serial);
    device->interface = facts->interfaces[0].number;
    device->protocol = xstrdup(protocol_name(facts->interfaces[0].protocol));
    device->speed = xstrdup(speeds[facts->speed]);
    device->classes = xnew_array(uint32_t, facts->class_count);
    memcpy(device->classes, facts->classes, facts->class_count * sizeof(facts->classes[0]));
    device->classes_count = facts->class_count;
    return device;
}

static const char *unit_state(const struct server_unit *unit)
{
    switch (unit->facts.state) {
    case USB_UNIT_WAITING:
        return "waiting";
    case USB_UNIT_READY:
        return unit->is_read && !unit->is_rescanned ? "ready" : "reading";
    case USB_UNIT_EMPTY:
        return "empty";
    case USB_UNIT_FAILED:
        break;
    }
    return "failed";
}

/* Which interface's it is. */
static void tell_interface(const struct usb_stick_facts *device, struct usb_stick_unit *told)
{
    for (unsigned i = 0; i < device->interface_count; i++) {
        const struct usb_interface_facts *facts = &device->interfaces[i];
        if (told->number < facts->first_unit || told->number >= facts->first_unit + facts->units)
            continue;
        told->interface = facts->number;
        told->has_interface = true;
        told->protocol = xstrdup(protocol_name(facts->protocol));
    }
}

static struct usb_stick_unit *unit_of(const struct server_unit *unit, unsigned number)
{
    const struct usb_unit_facts *facts = &unit->facts;
    struct usb_stick_unit *told = xnew(struct usb_stick_unit);
    const char *error = facts->state == USB_UNIT_READY ? unit->error : facts->error;
    told->number = number;
    told->state = xstrdup(unit_state(unit));
    told->error = error && error[0] ? xstrdup(error) : NULL;
    told->vendor = xstrdup(facts->vendor);
    told->product = xstrdup(facts->product);
    told->revision = xstrdup(facts->revision);
    told->serial = xstrdup(facts->serial);
    told->name = facts->name[0] ? xstrdup(facts->name) : NULL;
    if (facts->state == USB_UNIT_READY) {
        told->sector_size = facts->sector_size;
        told->sectors = facts->sectors;
    }
    told->removable = facts->removable;
    told->write_protected = facts->write_protected;
    told->caching = facts->caching;
    told->discards = facts->discards;
    if (unit->is_read && !unit->is_unreadable)
        told->table = xstrdup(tables[unit->table]);
    return told;
}

static char *id_of(const struct volume_facts *facts)
{
    return xasprintf("%04X-%04X", (unsigned)(facts->id >> 16) & 0xFFFF,
                     (unsigned)facts->id & 0xFFFF);
}

static struct usb_stick_volume *volume_of(const struct stick_volume *volume)
{
    struct usb_stick_volume *told = xnew(struct usb_stick_volume);
    uint32_t sector_size = volume->part->sector_size;
    told->number = volume->number;
    told->unit = volume->unit;
    told->partition = volume->partition.number;
    told->name = volume->partition.name[0] ? xstrdup(volume->partition.name) : NULL;
    told->start = volume->partition.first * sector_size;
    told->size = volume->partition.count * sector_size;
    told->kind = xstrdup(volume->known ? volume_kind_name(volume->facts.kind) : "unknown");
    told->error = xstrdup(volume->error);
    told->busy = xstrdup(volume->busy);
    if (volume->known) {
        told->label = xstrdup(volume->facts.label);
        told->id = id_of(&volume->facts);
        told->dirty = volume->facts.dirty;
        told->has_dirty = true;
    }
    return told;
}

void status_of_mount(const struct stick_mount *mount, struct usb_stick_mounted *mounted)
{
    const struct stick_volume *volume = mount->volume;
    mounted->mount = mount->number;
    mounted->volume = volume->number;
    mounted->read_only = mount->read_only;
    mounted->kind = xstrdup(volume_kind_name(volume->facts.kind));
    mounted->label = xstrdup(volume->facts.label);
}

/* With the lock. */
static void fill_mounts(const struct server *server, struct usb_stick_status *status)
{
    status->mounts = xnew_array(struct usb_stick_mounted *, server->mount_count + 1);
    for (const struct stick_volume *volume = server->volumes; volume; volume = volume->next)
        for (const struct stick_mount *mount = volume->mounts; mount; mount = mount->next) {
            struct usb_stick_mounted *told = xnew(struct usb_stick_mounted);
            status_of_mount(mount, told);
            status->mounts[status->mounts_count++] = told;
        }
}

static const char *const door_names[] = {
    [BLOCK_DOOR_NBD] = "nbd",
    [BLOCK_DOOR_CUSE] = "cuse",
    [BLOCK_DOOR_RING] = "ring",
};

void status_of_block(const struct stick_block *block, struct usb_stick_blocked *blocked)
{
    blocked->block = block->number;
    blocked->unit = block->unit;
    blocked->door = xstrdup(door_names[block->kind]);
    blocked->read_only = block->read_only;
    blocked->sector_size = block->part->sector_size;
    blocked->sectors = block->part->sectors;
    blocked->flushes = block->part->flushes;
    blocked->discards = block->part->discards;
}

/* With the lock. */
static void fill_blocks(const struct server *server, struct usb_stick_status *status)
{
    status->blocks = xnew_array(struct usb_stick_blocked *, server->unit_count + 1);
    for (unsigned i = 0; i < server->unit_count; i++) {
        if (!server->units[i].block)
            continue;
        struct usb_stick_blocked *told = xnew(struct usb_stick_blocked);
        status_of_block(server->units[i].block, told);
        status->blocks[status->blocks_count++] = told;
    }
}

void status_fill(struct server *server, struct usb_stick_status *status)
{
    size_t volumes = 0;
    pthread_mutex_lock(&server->lock);
    for (const struct stick_volume *volume = server->volumes; volume; volume = volume->next)
        volumes++;
    status->state = xstrdup(source_states[server->state]);
    status->device = server->has_device ? device_of(&server->device) : NULL;
    status->units = xnew_array(struct usb_stick_unit *, server->unit_count + 1);
    for (unsigned i = 0; i < server->unit_count; i++) {
        struct usb_stick_unit *unit = unit_of(&server->units[i], i);
        tell_interface(&server->device, unit);
        status->units[status->units_count++] = unit;
    }
    status->volumes = xnew_array(struct usb_stick_volume *, volumes + 1);
    for (const struct stick_volume *volume = server->volumes; volume; volume = volume->next)
        status->volumes[status->volumes_count++] = volume_of(volume);
    fill_mounts(server, status);
    fill_blocks(server, status);
    pthread_mutex_unlock(&server->lock);
}

/* Statistics. */

static struct usb_stick_moved *moved_of(const struct counts *counts)
{
    struct usb_stick_moved *moved = xnew(struct usb_stick_moved);
    moved->operations = atomic_load(&counts->operations);
    moved->bytes = atomic_load(&counts->bytes);
    moved->errors = atomic_load(&counts->errors);
    moved->latency = xnew_array(uint64_t, LATENCIES);
    moved->latency_count = LATENCIES;
    for (unsigned i = 0; i < LATENCIES; i++)
        moved->latency[i] = atomic_load(&counts->latency[i]);
    return moved;
}

static void fill_cache(struct server *server, struct usb_stick_stats *stats)
{
    pthread_mutex_lock(&server->lock);
    stats->cache_hits = server->cache_hits;
    stats->cache_misses = server->cache_misses;
    for (const struct stick_volume *volume = server->volumes; volume; volume = volume->next) {
        struct cache_facts cache = {0};
        if (volume->medium)
            medium_cache(volume->medium, &cache);
        stats->cache_hits += cache.hits;
        stats->cache_misses += cache.misses;
        stats->cache_bytes += cache.bytes;
    }
    pthread_mutex_unlock(&server->lock);
}

int job_stats(struct job *job, struct usb_stick_result *result, struct error *err)
{
    struct server *server = job->server;
    struct usb_stick_stats *stats = result->stats = xnew(struct usb_stick_stats);
    struct usb_stick_counts counts;
    (void)err;
    server->source->counts(server, &counts);
    stats->commands = counts.commands;
    stats->failed = counts.failed;
    stats->recoveries = counts.recoveries;
    stats->port_resets = counts.port_resets;
    stats->reads = moved_of(&server->counts.reads);
    stats->writes = moved_of(&server->counts.writes);
    stats->flushes = moved_of(&server->counts.flushes);
    fill_cache(server, stats);
    return 0;
}
