/* Which stick is meant, and what is said of it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/alloc.h>
#include <base/text.h>
#include <engine/usb.h>

#include "usb_internal.h"

/* --- which ------------------------------------------------------------------------------------ */

/* A stick says itself what its serial number is. */
static bool is_place(const char *reference)
{
    return usb_is_port(reference) || text_starts_with(reference, "remote-");
}

static bool is_meant(const struct stick *stick, const char *reference)
{
    return text_equal(stick->id, reference) || (stick->url && text_equal(stick->url, reference)) ||
           (stick->identified && stick->identity.serial[0] && !is_place(reference) &&
            text_equal(stick->identity.serial, reference)) ||
           (stick->identified && usb_device_fits(reference, &stick->identity));
}

static int none_found(const struct engine *engine, const char *reference, struct error *err)
{
    error_set(err, -ENOENT, "No such USB device: %.128s", reference);
    if (engine->rootless)
        error_hint(err, "The engine of an ordinary user has no USB devices: ask the machine's");
    else if (!engine->usb->local)
        error_hint(err, "This instance does not look at the machine's USB devices: it does with a "
                        "section usb in its cloched.conf(5)");
    else
        error_hint(err, "See: cloche usb ls --all");
    return -ENOENT;
}

int usb_find(struct engine *engine, const char *reference, struct stick **ret, struct error *err)
{
    const struct usb *usb = engine->usb;
    struct stick *found = usb_stick_by_id(usb, reference);

    for (size_t i = 0; !found && i < usb->sticks_count; i++) {
        if (!is_meant(usb->sticks[i], reference))
            continue;
        for (size_t j = i + 1; j < usb->sticks_count; j++) {
            if (!is_meant(usb->sticks[j], reference))
                continue;
            error_set(err, -EEXIST, "several USB devices are '%.128s': %s, %s ...", reference,
                      usb->sticks[i]->id, usb->sticks[j]->id);
            error_hint(err, "name one by its ID");
            return -EEXIST;
        }
        found = usb->sticks[i];
    }
    if (!found)
        return none_found(engine, reference, err);
    *ret = found;
    return 0;
}

/* --- descriptions ----------------------------------------------------------------------------- */

static char *hex4(unsigned value)
{
    return xasprintf("%04x", value);
}

static void describe_identity(const struct usb_identity *identity, struct api_usb_stick *into)
{
    into->vendor = hex4(identity->vendor);
    into->product = hex4(identity->product);
    into->release = hex4(identity->release);
    into->serial = xstrdup(identity->serial);
    into->manufacturer = xstrdup(identity->manufacturer);
    into->model = xstrdup(identity->model);
    into->speed = xstrdup(identity->speed);
    into->storage_only = identity->storage_only;
    into->has_storage_only = true;
    for (size_t i = 0; i < identity->classes_count; i++) {
        uint32_t triple = identity->classes[i];
        strv_take(&into->classes,
                  xasprintf("%02x:%02x:%02x", triple >> 16, triple >> 8 & 0xff, triple & 0xff));
    }
    into->classes_count = identity->classes_count;
}

static char *said(const char *text)
{
    return text ? text_make_harmless(xstrdup(text), "") : NULL;
}

static struct api_usb_unit *describe_unit(const struct usb_stick_unit *from)
{
    struct api_usb_unit *unit = xnew(struct api_usb_unit);

    *unit = (struct api_usb_unit){
        .number = from->number,
        .interface = from->interface,
        .has_interface = from->has_interface,
        .protocol = said(from->protocol),
        .state = said(from->state),
        .error = said(from->error),
        .vendor = said(from->vendor),
        .product = said(from->product),
        .revision = said(from->revision),
        .serial = said(from->serial),
        .name = said(from->name),
        .sector_size = from->sector_size,
        .has_sector_size = true,
        .sectors = from->sectors,
        .has_sectors = true,
        .removable = from->removable,
        .has_removable = true,
        .write_protected = from->write_protected,
        .has_write_protected = true,
        .caching = from->caching,
        .has_caching = true,
        .discards = from->discards,
        .has_discards = true,
    };
    return unit;
}

static void describe_units(const struct usb_stick_status *status, struct api_usb_stick *into)
{
    into->units = xnew_array(struct api_usb_unit *, status->units_count + 1);
    for (size_t i = 0; i < status->units_count; i++)
        into->units[into->units_count++] = describe_unit(status->units[i]);
}

static void describe_volumes(const struct usb_stick_status *status, struct api_usb_stick *into)
{
    into->volumes = xnew_array(struct api_usb_volume *, status->volumes_count + 1);
    for (size_t i = 0; i < status->volumes_count; i++) {
        const struct usb_stick_volume *from = status->volumes[i];
        struct api_usb_volume *volume = xnew(struct api_usb_volume);
        volume->number = from->number;
        volume->unit = from->unit;
        volume->partition = from->partition;
        volume->size = from->size;
        volume->kind = said(from->kind);
        volume->label = said(from->label);
        volume->id = said(from->id);
        into->volumes[into->volumes_count++] = volume;
    }
}

static void describe_mounts(const struct stick *stick, struct api_usb_stick *into)
{
    for (const struct usb_place *place = stick->places; place; place = place->next) {
        if (!place->placed)
            continue;
        struct api_usb_mount *mount = xnew(struct api_usb_mount);
        mount->container = xstrdup(place->container);
        mount->target = xstrdup(place->target);
        mount->volume = place->volume;
        mount->read_only = place->read_only;
        into->mounts =
            xrealloc(into->mounts, into->mounts_count + 1, sizeof(struct api_usb_mount *));
        into->mounts[into->mounts_count++] = mount;
    }
}

static void describe_blocks(const struct stick *stick, struct api_usb_stick *into)
{
    for (const struct usb_given *given = stick->given; given; given = given->next) {
        if (!given->placed)
            continue;
        struct api_usb_given *made = xnew(struct api_usb_given);
        made->container = xstrdup(given->container);
        made->target = xstrdup(given->target);
        made->unit = given->unit;
        made->via = xstrdup(usb_via_names[given->via]);
        made->read_only = given->read_only;
        into->blocks =
            xrealloc(into->blocks, into->blocks_count + 1, sizeof(struct api_usb_given *));
        into->blocks[into->blocks_count++] = made;
    }
}

static void describe_passes(const struct stick *stick, struct api_usb_stick *into)
{
    for (const struct usb_pass *pass = stick->usb->passes; pass; pass = pass->next) {
        if (pass->state == PASS_THERE && usb_pass_is_of(pass, stick))
            strv_append(&into->passed_to, pass->container);
    }
    into->passed_to_count = strv_length(into->passed_to);
}

struct api_usb_stick *usb_describe(const struct stick *stick)
{
    struct api_usb_stick *made = xnew(struct api_usb_stick);

    made->id = xstrdup(stick->id);
    made->url = xstrdup(stick->url);
    made->state = xstrdup(stick_state_names[stick->state]);
    made->error = xstrdup(stick->error);
    made->pid = stick->pid;
    made->has_pid = stick->pid > 0;
    if (stick->identified)
        describe_identity(&stick->identity, made);
    made->has_storage_only &= !stick->url; /* the other interfaces of a remote one are not seen */
    if (stick->status) {
        describe_units(stick->status, made);
        describe_volumes(stick->status, made);
    }
    describe_mounts(stick, made);
    describe_blocks(stick, made);
    describe_passes(stick, made);
    return made;
}

struct api_usb_sticks *engine_usb_list(struct engine *engine, bool all)
{
    const struct usb *usb = engine->usb;
    struct api_usb_sticks *list = xnew(struct api_usb_sticks);

    list->sticks = xnew_array(struct api_usb_stick *, usb->sticks_count + 1);
    for (size_t i = 0; i < usb->sticks_count; i++) {
        const struct stick *stick = usb->sticks[i];
        if (all || stick->url || stick->identity.storage)
            list->sticks[list->sticks_count++] = usb_describe(stick);
    }
    return list;
}

int engine_usb_inspect(struct engine *engine, const char *reference, struct api_usb_stick **ret,
                       struct error *err)
{
    struct stick *stick;
    int r = usb_find(engine, reference, &stick, err);

    if (r == 0)
        *ret = usb_describe(stick);
    return r;
}
