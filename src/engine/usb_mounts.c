/*
 * Volumes of sticks in containers: which is wanted where, and the way of one:
 *
 *     begin          a FUSE file system without a place, and the request to serve it
 *     on_mounted     cloche-usb serves it: a child places it in the container (usb_place.c)
 *     on_placed      it is there
 *
 * and back: taken out of the container by such a child, then given up by cloche-usb. A container
 * that takes it out itself does not get it again before its next start.
 */
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/log.h>
#include <base/text.h>

#include "usb.h"
#include "usb_internal.h"
#include "usb_fuse.h"
#include "usb_place.h"

enum { PROGRAM_MODE = 0755 }; /* FAT does not say what is a program */

static struct usb_place *find_place(const struct stick *stick, const char *container,
                                    const char *target)
{
    struct usb_place *place = stick->places;

    while (place && !(text_equal(place->container, container) && text_equal(place->target, target)))
        place = place->next;
    return place;
}

static void drop_place(struct stick *stick, struct usb_place *place)
{
    for (struct usb_place **at = &stick->places; *at; at = &(*at)->next) {
        if (*at != place)
            continue;
        *at = place->next;
        free(place->target);
        free(place);
        return;
    }
}

void place_free_all(struct stick *stick)
{
    while (stick->places)
        drop_place(stick, stick->places);
}

/* --- which ------------------------------------------------------------------------------------ */

bool stick_fits(const struct stick *stick, const char *device, const char *port)
{
    return (!device || usb_device_fits(device, &stick->identity)) &&
           (!port || fnmatch(port, stick->url ? stick->url : stick->id, 0) == 0);
}

static bool fits_stick(const struct api_usb_storage *storage, const struct stick *stick)
{
    return stick_fits(stick, storage->device, storage->port);
}

bool usb_container_runs(const struct container *container)
{
    return container->state == CONTAINER_RUNNING && container->link && container->record->pid > 0 &&
           !container->engine->adopting;
}

bool stick_is_wanted(const struct stick *stick)
{
    const struct engine *engine = stick->usb->engine;

    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct container *container = engine->containers[i];
        for (size_t j = 0;
             usb_container_runs(container) && j < container->effective->usb_storage_count; j++) {
            if (fits_stick(container->effective->usb_storage[j], stick))
                return true;
        }
    }
    return stick_is_wanted_whole(stick);
}

/* The first that has files, and the label that is asked for. */
static const struct usb_stick_volume *find_volume(const struct stick *stick, const char *label)
{
    for (size_t i = 0; stick->status && i < stick->status->volumes_count; i++) {
        const struct usb_stick_volume *volume = stick->status->volumes[i];
        if (!text_equal(volume->kind, "unknown") && (!label || text_equal(label, volume->label)))
            return volume;
    }
    return NULL;
}

static bool is_used(const struct usb *usb, const struct container *container, const char *target)
{
    for (size_t i = 0; i < usb->sticks_count; i++) {
        if (find_place(usb->sticks[i], container->id, target))
            return true;
    }
    return false;
}

/* Nothing at all is written to a volume of which every container only reads. */
static bool somebody_writes(const struct stick *stick)
{
    const struct engine *engine = stick->usb->engine;

    for (size_t i = 0; i < engine->containers_count; i++) {
        const struct container *container = engine->containers[i];
        for (size_t j = 0;
             usb_container_runs(container) && j < container->effective->usb_storage_count; j++) {
            const struct api_usb_storage *storage = container->effective->usb_storage[j];
            if (!storage->read_only && fits_stick(storage, stick))
                return true;
        }
    }
    return false;
}

/* --- into the container ----------------------------------------------------------------------- */

struct mounting {
    struct stick *stick;         /* a reference */
    struct container *container; /* a reference */
    pid_t pid;                   /* of its first process: it may be another one by the answer */
    uint64_t device;             /* of the mount; 0: not known yet */
    char *target;
    int namespace_fd, mount_fd;
};

static void mounting_free(struct mounting *mounting)
{
    close_fd(mounting->namespace_fd);
    close_fd(mounting->mount_fd);
    container_unref(mounting->container);
    stick_unref(mounting->stick);
    free(mounting->target);
    free(mounting);
}

static struct usb_place *place_of(const struct mounting *mounting)
{
    struct usb_place *place =
        find_place(mounting->stick, mounting->container->id, mounting->target);

    return place && place->pid == mounting->pid ? place : NULL;
}

static void ask_unmount(struct stick *stick, uint32_t number)
{
    struct usb_stick_unmount what = {.mount = number};
    struct usb_stick_request request = {.unmount = &what};

    if (stick->link && number)
        usb_link_request(stick->link, &request, -1, NULL, NULL);
}

/* Not tried again before something changes: the place stays in the way. */
static void fail(struct mounting *mounting, struct usb_place *place, const struct error *err)
{
    log_failure(LOG_WARNING, err, "USB %s is not mounted at %s of container %.12s",
                mounting->stick->id, mounting->target, mounting->container->id);
    stick_event(mounting->stick, "failed", error_message(err), mounting->container->id);
    if (place) {
        place->failed = true;
        place->placed = false;
        ask_unmount(mounting->stick, place->number);
        place->number = 0;
        place->device = 0;
        stick_record(mounting->stick);
    }
}

static void unplace(struct stick *stick, struct container *container, uint64_t device);

static void on_placed(const struct error *err, uint64_t device, void *data)
{
    struct mounting *mounting = data;
    struct stick *stick = mounting->stick;
    struct usb_place *place = place_of(mounting);

    if (stick->usb->ending) { /* the next daemon finds no record of it: the mount is given up */
        ask_unmount(stick, place ? place->number : 0);
    } else if (err) {
        unplace(stick, mounting->container,
                mounting->device); /* it may have been killed behind it */
        fail(mounting, place, err);
    } else if (!place || place->failed) { /* it has ended meanwhile */
        unplace(stick, mounting->container, device);
    } else {
        place->device = device;
        place->placed = true;
        usb_fuse_set_cache(device);
        stick_record(stick);
        log_info("USB %s: volume %u is at %s of container %.12s%s", stick->id, place->volume,
                 place->target, place->container, place->read_only ? ", read-only" : "");
        stick_event(stick, "mount", NULL, place->container);
    }
    mounting_free(mounting);
}

static void on_mounted(const struct error *err, const struct usb_stick_result *result, void *data)
{
    struct mounting *mounting = data;
    struct stick *stick = mounting->stick;
    struct usb_place *place = place_of(mounting);
    _cleanup_error_ struct error own = ERROR_INIT;

    if (!place || stick->usb->ending) {
        if (!err && result && result->mount && !stick->usb->ending)
            ask_unmount(stick, result->mount->mount);
        mounting_free(mounting);
        return;
    }
    if (!err && (!result || !result->mount))
        error_set(&own, -EBADMSG, "cloche-usb does not say what it has mounted");
    if (!err && own.code == 0) {
        place->number = result->mount->mount;
        place->read_only = result->mount->read_only;
        place->device = mounting->device = usb_fuse_device(mounting->mount_fd);
        stick_record(stick);
        if (usb_place_mount(stick->usb->engine, mounting->namespace_fd, mounting->mount_fd,
                            mounting->target, on_placed, mounting, &own) >= 0)
            return;
    }
    fail(mounting, place, err ? err : &own);
    mounting_free(mounting);
}

/* As it is now: FAT does not say in which zone its times are. */
static int32_t minutes_east(const struct usb *usb)
{
    time_t now = time(NULL);
    struct tm parts;

    if (usb->settings && usb->settings->has_minutes_east)
        return usb->settings->minutes_east;
    return localtime_r(&now, &parts) ? (int32_t)(parts.tm_gmtoff / 60) : 0;
}

static void request_mount(struct mounting *mounting, const struct api_usb_storage *storage,
                          uint32_t volume, int fuse_fd, uid_t uid, gid_t gid)
{
    const struct usb_settings_settings *settings = mounting->stick->usb->settings;
    struct usb_stick_mount what = {
        .volume = volume,
        .read_only = storage->read_only,
        .has_read_only = true,
        .volume_read_only = storage->read_only && !somebody_writes(mounting->stick),
        .has_volume_read_only = true,
        .uid = uid,
        .has_uid = true,
        .gid = gid,
        .has_gid = true,
        .bytes_per_second = storage->bytes_per_second,
        .has_bytes_per_second = storage->has_bytes_per_second,
        .operations_per_second = storage->operations_per_second,
        .has_operations_per_second = storage->has_operations_per_second,
        .size_limit = storage->size_limit,
        .has_size_limit = storage->has_size_limit,
        .file_mode = storage->exec ? PROGRAM_MODE : 0,
        .has_file_mode = storage->exec,
        .discard = storage->discard,
        .has_discard = storage->has_discard,
        .minutes_east = minutes_east(mounting->stick->usb),
        .has_minutes_east = true,
        .codepage = settings ? settings->codepage : NULL,
    };
    struct usb_stick_request request = {.mount = &what};

    usb_link_request(mounting->stick->link, &request, fuse_fd, on_mounted, mounting);
}

static void begin(struct stick *stick, struct container *container,
                  const struct api_usb_storage *storage, const struct usb_stick_volume *volume)
{
    struct mounting *mounting = xnew(struct mounting);
    struct usb_place *place = xnew(struct usb_place);
    _cleanup_error_ struct error err = ERROR_INIT;
    _cleanup_close_ int fuse_fd = -1;
    uid_t uid;
    gid_t gid;

    *mounting = (struct mounting){stick_ref(stick),
                                  container_ref(container),
                                  (pid_t)container->record->pid,
                                  0,
                                  xstrdup(storage->target),
                                  -1,
                                  -1};
    snprintf(place->container, sizeof(place->container), "%s", container->id);
    place->pid = (pid_t)container->record->pid;
    place->target = xstrdup(storage->target);
    place->volume = volume->number;
    place->read_only = storage->read_only;
    place->next = stick->places;
    stick->places = place;
    int r = usb_place_open(container, &mounting->namespace_fd, &uid, &gid, &err);
    if (r >= 0) {
        _cleanup_free_ char *source = usb_fuse_source(stick);
        r = usb_fuse_make(storage, source, &fuse_fd, &mounting->mount_fd, &err);
    }
    if (r >= 0) {
        usb_connection_keep(stick, container->id, usb_fuse_device(mounting->mount_fd));
        stick->locked |= !storage->read_only || somebody_writes(stick);
        stick_record(stick);
        request_mount(mounting, storage, volume->number, fuse_fd, uid, gid);
        return;
    }
    fail(mounting, place, &err);
    mounting_free(mounting);
}

static void settle_one(struct usb *usb, struct container *container,
                       const struct api_usb_storage *storage)
{
    if (is_used(usb, container, storage->target))
        return;
    for (size_t i = 0; i < usb->sticks_count; i++) {
        struct stick *stick = usb->sticks[i];
        const struct usb_stick_volume *volume = find_volume(stick, storage->label);
        if (stick->state != STICK_READY || stick->ending || !stick->link || !volume ||
            !fits_stick(storage, stick))
            continue;
        begin(stick, container, storage, volume);
        return;
    }
}

/* Places of an earlier daemon that have become another process's. */
static void drop_stale(struct stick *stick)
{
    struct usb_place *next;

    for (struct usb_place *place = stick->places; place; place = next) {
        struct container *container = NULL;
        next = place->next;
        if (engine_find(stick->usb->engine, place->container, &container, NULL) == 0 &&
            (!usb_container_runs(container) || container->record->pid == place->pid))
            continue;
        ask_unmount(stick, place->number);
        drop_place(stick, place);
    }
}

void usb_mounts_settle(struct usb *usb)
{
    struct engine *engine = usb->engine;

    if (usb->ending || engine->adopting)
        return;
    for (size_t i = 0; i < usb->sticks_count; i++)
        drop_stale(usb->sticks[i]);
    for (size_t i = 0; i < engine->containers_count; i++) {
        struct container *container = engine->containers[i];
        for (size_t j = 0;
             usb_container_runs(container) && j < container->effective->usb_storage_count; j++)
            settle_one(usb, container, container->effective->usb_storage[j]);
    }
    usb_blocks_settle(usb);
}

/* --- out of it -------------------------------------------------------------------------------- */

static void on_unplaced(const struct error *err, uint64_t device, void *data)
{
    struct stick *stick = data;

    if (err)
        log_failure(LOG_WARNING, err, "USB %s is not unmounted in a container", stick->id);
    stick->unplacing--;
    if (!stick->unplacing && stick->ending && !stick->usb->ending)
        stick_process_end(stick);
    stick_unref(stick);
}

static void unplace(struct stick *stick, struct container *container, uint64_t device)
{
    _cleanup_close_ int namespace_fd = -1;
    _cleanup_free_ char *source = usb_fuse_source(stick);
    _cleanup_error_ struct error err = ERROR_INIT;
    uid_t uid;
    gid_t gid;

    if (device == 0 || usb_place_open(container, &namespace_fd, &uid, &gid, &err) < 0)
        return; /* it went with its namespace */
    stick->unplacing++;
    if (usb_place_unmount(stick->usb->engine, namespace_fd, device, source, on_unplaced,
                          stick_ref(stick), &err) < 0) {
        log_failure(LOG_WARNING, &err, "USB %s", stick->id);
        stick->unplacing--;
        stick_unref(stick);
    }
}

static void take_out(struct stick *stick, const struct usb_place *place)
{
    struct container *container = NULL;

    if (place->device == 0)
        return;
    if (engine_find(stick->usb->engine, place->container, &container, NULL) == 0 &&
        container->record->pid == place->pid)
        unplace(stick, container, place->device);
    if (place->placed)
        stick_event(stick, "unmount", NULL, place->container);
}

void stick_unmount_all(struct stick *stick)
{
    while (stick->places) {
        take_out(stick, stick->places);
        drop_place(stick, stick->places);
    }
    stick_take_blocks(stick);
    stick_record(stick);
}

void stick_unmounted(struct stick *stick, const struct usb_stick_unmounted *event)
{
    struct usb_place *place = stick->places;

    while (place && place->number != event->mount)
        place = place->next;
    if (!place || event->mount == 0) /* 0: of what is not served yet */
        return;
    take_out(stick, place);
    if (event->error)
        log_warning("USB %s: volume %u: %s", stick->id, event->volume, event->error);
    if (text_equal(event->reason, "gone") || text_equal(event->reason, "ejected")) {
        drop_place(stick, place);
    } else { /* by the container itself, or for a reason that stays */
        place->placed = false;
        place->failed = true;
        place->number = 0;
        place->device = 0;
    }
    stick_record(stick);
    stick_ask_status(stick);
}

static bool is_place(const struct stick *stick, uint32_t number)
{
    for (const struct usb_place *place = stick->places; place; place = place->next) {
        if (place->number == number)
            return true;
    }
    return false;
}

void stick_sweep(struct stick *stick)
{
    struct usb_place *next;

    for (struct usb_place *place = stick->places; place; place = next) {
        next = place->next;
        if (place->placed || place->failed)
            continue;
        take_out(stick, place);
        drop_place(stick, place);
    }
    for (size_t i = 0; i < stick->status->mounts_count; i++) {
        if (!is_place(stick, stick->status->mounts[i]->mount))
            ask_unmount(stick, stick->status->mounts[i]->mount);
    }
    stick_record(stick);
}

void usb_container_started(struct container *container)
{
    struct usb *usb = container->engine->usb;

    if (usb && (container->effective->usb_storage_count ||
                container->effective->usb_devices_count || container->effective->usb_blocks_count))
        stick_settle_all(usb);
}

void usb_container_ended(struct container *container)
{
    struct usb *usb = container->engine->usb;

    if (usb) {
        usb_devices_ended(usb, container);
        usb_blocks_ended(usb, container);
    }
    for (size_t i = 0; usb && i < usb->sticks_count; i++) {
        struct stick *stick = usb->sticks[i];
        struct usb_place *next;
        for (struct usb_place *place = stick->places; place; place = next) {
            next = place->next;
            if (!text_equal(place->container, container->id))
                continue;
            if (place->placed)
                stick_event(stick, "unmount", NULL, container->id);
            ask_unmount(stick, place->number);
            drop_place(stick, place);
            stick_record(stick);
        }
    }
}
