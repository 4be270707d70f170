/*
 * The table of USB devices, and what an earlier daemon has left of it.
 */
#include "usb.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/alloc.h>
#include <base/file.h>
#include <base/log.h>
#include <base/text.h>

#include "usb_internal.h"

enum { RECORD_MAX = 1024 * 1024 };

char *usb_run_path(const struct usb *usb, const char *name, const char *suffix)
{
    return xasprintf("%s/usb/%s%s", usb->engine->instance->run, name, suffix);
}

struct stick *usb_stick_by_id(const struct usb *usb, const char *id)
{
    for (size_t i = 0; i < usb->sticks_count; i++) {
        if (text_equal(usb->sticks[i]->id, id))
            return usb->sticks[i];
    }
    return NULL;
}

struct stick *stick_ref(struct stick *stick)
{
    stick->references++;
    return stick;
}

void stick_unref(struct stick *stick)
{
    if (--stick->references)
        return;
    place_free_all(stick);
    usb_given_free_all(stick);
    usb_connections_free(stick);
    usb_stick_status_free(stick->status);
    free(stick->error);
    free(stick->amiss);
    free(stick->url);
    free(stick);
}

/* Local ones by name, then remote ones in the order they came. */
static size_t place_of(const struct usb *usb, const struct stick *stick)
{
    size_t i = 0;

    while (
        i < usb->sticks_count &&
        (stick->url ? true : !usb->sticks[i]->url && strverscmp(usb->sticks[i]->id, stick->id) < 0))
        i++;
    return i;
}

struct stick *usb_stick_add(struct usb *usb, const char *id, const char *url)
{
    if (usb->sticks_count >= USB_STICKS_MAX) {
        log_warning("more than %d USB devices: %s is not seen", USB_STICKS_MAX, id);
        return NULL;
    }
    struct stick *stick = xnew(struct stick);
    stick->usb = usb;
    stick->references = 1;
    stick->pidfd = -1;
    stick->state = STICK_IDLE;
    stick->url = xstrdup(url);
    char digits[USB_KEY_DIGITS + 1];
    text_random_hex(digits, USB_KEY_DIGITS);
    snprintf(stick->id, sizeof(stick->id), "%s", id);
    snprintf(stick->key, sizeof(stick->key), "%s.%s", stick->id, digits);
    size_t at = place_of(usb, stick);
    usb->sticks = xrealloc(usb->sticks, usb->sticks_count + 1, sizeof(struct stick *));
    memmove(&usb->sticks[at + 1], &usb->sticks[at],
            (usb->sticks_count - at) * sizeof(struct stick *));
    usb->sticks[at] = stick;
    usb->sticks_count++;
    return stick;
}

/* --- what is there already -------------------------------------------------------------------- */

static void take_places(struct stick *stick, const struct usb_settings_record *record)
{
    for (size_t i = 0; i < record->mounts_count; i++) {
        const struct usb_settings_placed *placed = record->mounts[i];
        struct usb_place *place = xnew(struct usb_place);
        snprintf(place->container, sizeof(place->container), "%s", placed->container);
        place->pid = (pid_t)placed->pid;
        place->target = xstrdup(placed->target);
        place->number = placed->number;
        place->volume = placed->volume;
        place->device = placed->device;
        place->read_only = placed->read_only;
        place->placed = !placed->begun;
        place->next = stick->places;
        stick->places = place;
    }
}

static void note_remote(struct usb *usb, const char *id)
{
    unsigned number = 0;

    if (sscanf(id, "remote-%u", &number) == 1 && number > usb->remotes)
        usb->remotes = number;
}

/* name: of the file. */
static void adopt(struct usb *usb, const char *name, const struct usb_settings_record *record)
{
    struct stick *stick = usb_is_port(record->id) || text_starts_with(record->id, "remote-")
                              ? usb_stick_add(usb, record->id, record->url)
                              : NULL;

    if (!stick)
        return;
    note_remote(usb, record->id);
    snprintf(stick->key, sizeof(stick->key), "%.*s", (int)(strlen(name) - strlen(".json")), name);
    if (!stick->url)
        snprintf(stick->identity.port, sizeof(stick->identity.port), "%.*s", USB_PORT_MAX - 1,
                 stick->id);
    stick->identity.bus = record->bus;
    stick->identity.device = record->device;
    stick->authorized = record->authorized;
    stick->chosen = (uint8_t)record->configuration;
    stick->is_old = !record->has_user;
    stick->wanted = record->wanted;
    stick->locked = record->locked;
    take_places(stick, record);
    usb_connections_adopt(stick);
    usb_blocks_adopt(stick, record);
    if (stick_process_adopt(stick, record)) {
        log_info("the stick at %s is taken over with its process", stick->id);
        return;
    }
    stick->pid = (pid_t)record->pid;
    stick_ended(stick, -1);
}

static void adopt_all(struct usb *usb)
{
    _cleanup_free_ char *folder = usb_run_path(usb, "", "");
    _cleanup_closedir_ DIR *dir = opendir(folder);

    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        _cleanup_usb_settings_record_ struct usb_settings_record *record = NULL;
        _cleanup_error_ struct error err = ERROR_INIT;
        _cleanup_free_ char *text = NULL;
        size_t length;
        if (!text_ends_with(entry->d_name, ".json") || entry->d_name[0] == '.' ||
            text_equal(entry->d_name, "exclusive.json"))
            continue;
        int r = file_read_at(dirfd(dir), entry->d_name, RECORD_MAX, &text, &length, &err);
        if (r >= 0)
            r = usb_settings_record_parse(text, length, entry->d_name, &record, &err);
        if (r >= 0)
            adopt(usb, entry->d_name, record);
        else
            log_failure(LOG_ERROR, &err, "what an earlier daemon had of a stick is not known");
    }
}

/* --- opening and closing ---------------------------------------------------------------------- */

static struct usb *usb_create(struct engine *engine)
{
    struct usb *usb = xnew(struct usb);

    usb->engine = engine;
    usb->uevents_fd = usb->devices_fd = usb->fusectl_fd = -1;
    return usb;
}

void usb_open(struct engine *engine)
{
    struct usb *usb = engine->usb = usb_create(engine);
    _cleanup_free_ char *folder = usb_run_path(usb, "", "");
    _cleanup_error_ struct error err = ERROR_INIT;
    int r = usb_rules_load(usb, &err);

    usb->program = xasprintf("%s/cloche-usb", engine->libexec);
    usb->settings = steal_ptr(engine->usb_settings);
    usb->exclusive = usb->settings && usb->settings->exclusive && !engine->rootless;
    /* Private instances beside the machine's own leave its ports to that, unless they were told. */
    usb->local = !engine->rootless && (usb->settings || !engine->instance->name[0]);
    if (r >= 0)
        r = file_mkdir_parents(folder, 0700, &err);
    if (r < 0)
        log_failure(LOG_ERROR, &err, "there is no USB");
    if (r < 0)
        usb->local = false;
    usb_room_open(usb);
    adopt_all(usb);
    usb_room_sweep(usb);
    if (usb->local)
        usb_watch_open(usb);
}

void usb_settle(struct engine *engine)
{
    stick_settle_all(engine->usb);
}

void usb_end(struct engine *engine, bool remove)
{
    struct usb *usb = engine->usb;

    if (!usb || usb->ending)
        return;
    usb->ending = true;
    usb_watch_close(usb);
    usb_pulse_stop(usb);
    for (size_t i = 0; i < usb->sticks_count; i++) {
        struct stick *stick = usb->sticks[i];
        usb_room_forget(stick);
        if (remove) {
            stick_process_destroy(stick);
            stick_give_back(stick);
        } else {
            stick_process_forget(stick);
        }
    }
}

void usb_free(struct engine *engine)
{
    struct usb *usb = engine->usb;

    if (!usb) {
        usb_settings_settings_free(engine->usb_settings);
        return;
    }
    for (size_t i = 0; i < usb->sticks_count; i++)
        stick_unref(usb->sticks[i]);
    free(usb->sticks);
    usb_devices_free(usb);
    usb_rules_free(usb);
    usb_settings_settings_free(usb->settings);
    close_fd(usb->devices_fd);
    close_fd(usb->fusectl_fd);
    free(usb->program);
    free(usb);
}
